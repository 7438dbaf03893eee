"""Kernels of sketches: pixels of bins counted and summed in cells, statistics from the cells.

Cell 0 holds what lies below the range, the last cell what lies above it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.bin_kernels import (
    COUNT,
    GROUP,
    LEVEL,
    PIXEL_VARIANCE,
    USED,
    VARIANCE,
    load_group,
)
from skyloom.algorithms.background.bin_quartiles import assign_cells
from skyloom.algorithms.clipping import next_interval
from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this package

Floats = NDArray[np.float64]
NAN = math.nan


@compiled
def add_to_cells(
    block: NDArray[Any],
    cells: NDArray[np.uint16],
    center: float,
    count: NDArray[np.int32],
    total: Floats,
) -> None:
    """Add the values that are not NaN to their cells: number, and sum of differences."""
    for i in range(block.size):
        value = np.float64(block[i])
        good = value == value
        cell = cells[i]
        count[cell] += np.int32(good)
        total[cell] += value - center if good else 0.0


@compiled
def fill_sketch(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    limits: NDArray[Any],
    center: float,
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    count: NDArray[np.int32],
    total: Floats,
) -> None:
    """Add the valid pixels of each bin to its cells, (bin y, bin x, cell).

    ``limits`` are the constants of `assign_cells`.
    """
    area = np.max(np.diff(edges_y)) * np.max(np.diff(edges_x))
    columns = edges_x.size - 1
    together = min(max(GROUP // area, 1), columns)
    blocks = np.empty((together, area), image.dtype)
    cells = np.empty(area, np.uint16)
    valid = np.empty(together, np.int64)
    for i in range(edges_y.size - 1):
        for start in range(0, columns, together):
            stop = min(start + together, columns)
            edges = edges_x[start : stop + 1]
            load_group(
                image,
                mask,
                legend,
                constants,
                edges_y[i],
                edges_y[i + 1],
                edges,
                blocks[: stop - start],
                valid[: stop - start],
            )
            for j in range(stop - start):
                assign_cells(blocks[j], limits, cells)
                add_to_cells(blocks[j], cells, center, count[i, start + j], total[i, start + j])


@compiled
def quantile_in_cells(count: NDArray[np.int32], wanted: float, low: float, width: float) -> float:
    """Return the value below which so many lie, linear within a cell; NaN outside the range."""
    below = np.float64(count[0])
    if wanted < below:
        return NAN
    for cell in range(1, count.size - 1):
        inside = np.float64(count[cell])
        if wanted <= below + inside and inside > 0.0:
            return low + width * (cell - 1 + (wanted - below) / inside)
        below += inside
    return NAN


@compiled
def sums_in_cells(
    count: NDArray[np.int32], total: Floats, low: float, width: float, left: float, right: float
) -> tuple[float, float, float]:
    """Return number, sum and sum of squares between two limits; cells at the limits pro rata."""
    n, first, second = 0.0, 0.0, 0.0
    within = width * width / 12.0  # variance of values spread evenly over a cell
    for cell in range(1, count.size - 1):
        start = low + (cell - 1) * width
        share = (min(right, start + width) - max(left, start)) / width
        if share > 0.0 and count[cell] > 0:
            mean = total[cell] / count[cell]
            part = share * count[cell] if share < 1.0 else np.float64(count[cell])
            n += part
            first += part * mean
            second += part * (mean * mean + within)
    return n, first, second


@compiled
def statistics_of_cells(
    count: NDArray[np.int32],
    total: Floats,
    center: float,
    half_range: float,
    clip: float,
    iterations: int,
    found: Floats,
) -> None:
    """Write the clipped statistics of each sketch, (sketch, cell), to (quantity, sketch)."""
    width = 2.0 * half_range / (count.shape[1] - 2)
    for s in range(count.shape[0]):
        n = np.sum(count[s])
        found[COUNT, s], found[USED, s] = n, 0.0
        found[LEVEL, s], found[PIXEL_VARIANCE, s], found[VARIANCE, s] = NAN, NAN, NAN
        # quantities are relative to the centre
        lower = quantile_in_cells(count[s], 0.25 * n, -half_range, width)
        median = quantile_in_cells(count[s], 0.5 * n, -half_range, width)
        upper = quantile_in_cells(count[s], 0.75 * n, -half_range, width)
        iqr = upper - lower
        if n == 0 or not (math.isfinite(median) and math.isfinite(iqr)):
            continue
        used, mean, variance = 0.0, NAN, NAN
        for index in range(iterations):
            middle, half_width = next_interval(index, n, clip, mean, variance, median, iqr)
            used, first, second = sums_in_cells(
                count[s], total[s], -half_range, width, middle - half_width, middle + half_width
            )
            if used <= 1.0:
                mean = first / used if used > 0.0 else NAN
                variance = NAN
                break
            mean = first / used
            variance = max(second - first * mean, 0.0) / (used - 1.0)
        found[USED, s], found[LEVEL, s] = used, center + mean
        found[PIXEL_VARIANCE, s] = variance
        found[VARIANCE, s] = variance / used if used > 0.0 else NAN
