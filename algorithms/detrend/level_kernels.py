"""Kernels of detrending: overscan levels of rows, subtraction, saturation.

Arrays are C-contiguous and native; comparisons with NaN are false, so NaN is never good.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_fast

__all__: list[str] = []  # kernels for the modules of this room

ROWS: Final = 16  # rows summed side by side, for each addition waits for the one before


@compiled
def select(values: NDArray[Any], rank: int) -> float:
    """Return the value at a rank of a few finite values; reorders them (Hoare)."""
    low, high = 0, values.size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return np.float64(values[rank])


@compiled
def row_medians(pixels: NDArray[Any], medians: NDArray[np.float64]) -> None:
    """Write the median of each row's finite pixels; NaN without one."""
    kept = np.empty(pixels.shape[1], np.float64)
    for y in range(pixels.shape[0]):
        n = 0
        for x in range(pixels.shape[1]):
            value = np.float64(pixels[y, x])
            if math.isfinite(value):
                kept[n] = value
                n += 1
        if n == 0:
            medians[y] = np.nan
            continue
        upper = select(kept[:n], n // 2)
        medians[y] = upper if n % 2 == 1 else 0.5 * (upper + select(kept[:n], n // 2 - 1))


@compiled_fast
def row_sums_near(row: NDArray[Any], level: float, half_width: float) -> tuple[float, float, float]:
    """Return number, sum and sum of squares of ``row - level`` where it is within a distance."""
    n, first, second = 0.0, 0.0, 0.0
    for x in range(row.size):
        d = np.float64(row[x]) - level
        inside = abs(d) <= half_width
        n += 1.0 if inside else 0.0
        first += d if inside else 0.0
        second += d * d if inside else 0.0
    return n, first, second


@compiled
def row_moments(
    raw: NDArray[Any],
    corner: tuple[int, int],
    width: int,
    level: NDArray[np.float64],
    half_width: float,
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> None:
    """Write mean and sample variance of a box's rows, of pixels within a distance of their level.

    NaN without pixels; the variance is NaN for fewer than two.
    """
    for y in range(level.size):
        pixels = raw[corner[0] + y, corner[1] : corner[1] + width]
        n, first, second = row_sums_near(pixels, level[y], half_width)
        shift = first / n if n > 0.0 else np.nan
        means[y] = level[y] + shift
        variances[y] = max(second - first * shift, 0.0) / (n - 1.0) if n > 1.0 else np.nan


@compiled
def subtract_levels(
    raw: NDArray[Any],
    corner: tuple[int, int],
    row_level: NDArray[np.float64],
    column_level: NDArray[np.float64],
    image: NDArray[np.float32],
) -> None:
    """Write ``raw - row_level - column_level`` of the box at a corner, with the image's shape.

    An empty ``column_level`` is 0.
    """
    height, width = image.shape
    for y in range(height):
        pixels = raw[corner[0] + y, corner[1] : corner[1] + width]
        line, level = image[y], row_level[y]
        if column_level.size == 0:
            for x in range(width):
                line[x] = np.float32(np.float64(pixels[x]) - level)
        else:
            for x in range(width):
                line[x] = np.float32(np.float64(pixels[x]) - level - column_level[x])


@compiled
def keep_unsaturated(
    raw: NDArray[Any],
    corner: tuple[int, int],
    lowest: float,
    saturation: float,
    good: NDArray[np.uint8],
) -> int:
    """Clear ``good`` where pixels are saturated or hold no number; return how many are saturated.

    Pixels from ``saturation`` on are saturated (infinity where no level is known); those up to
    ``lowest`` and those not finite were never read.
    """
    height, width = good.shape
    saturated = 0
    for y in range(height):
        pixels, used = raw[corner[0] + y, corner[1] : corner[1] + width], good[y]
        for x in range(width):
            value = np.float64(pixels[x])
            over = (value >= saturation) & (value < np.inf)
            saturated += int(over)
            used[x] &= np.uint8((value > lowest) & (value < np.inf) & (not over))
    return saturated


@compiled
def largest_in_box(
    raw: NDArray[Any], corner: tuple[int, int], shape: tuple[int, int], limit: Any, start: Any
) -> Any:
    """Return the largest value of a box below a limit, or ``start`` if none is larger than it."""
    largest = start
    for y in range(shape[0]):
        for value in raw[corner[0] + y, corner[1] : corner[1] + shape[1]]:
            candidate = value if value < limit else start
            largest = max(largest, candidate)
    return largest


@compiled_fast
def count_equal_in_row(row: NDArray[Any], wanted: Any) -> int:
    """Return how many values of a row equal one."""
    n = 0
    for x in range(row.size):
        n += int(row[x] == wanted)
    return n


@compiled
def count_equal(
    raw: NDArray[Any], corner: tuple[int, int], shape: tuple[int, int], wanted: Any
) -> int:
    """Return how many values of a box equal one."""
    n = 0
    for y in range(shape[0]):
        n += count_equal_in_row(raw[corner[0] + y, corner[1] : corner[1] + shape[1]], wanted)
    return n


@compiled
def strict_row_moments(
    raw: NDArray[Any],
    corner: tuple[int, int],
    width: int,
    level: NDArray[np.float64],
    half_width: float,
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> None:
    """Do as `row_moments`, each row summed from left to right, in one order on every machine."""
    off = np.zeros((width, ROWS))
    sums = np.empty((3, ROWS))
    for start in range(0, level.size, ROWS):
        rows = min(ROWS, level.size - start)
        for y in range(rows):
            pixels = raw[corner[0] + start + y, corner[1] : corner[1] + width]
            for x in range(width):
                off[x, y] = np.float64(pixels[x]) - level[start + y]
        column_sums(off, half_width, sums[0], sums[1], sums[2])
        for y in range(rows):
            n, first, second = sums[0, y], sums[1, y], sums[2, y]
            shift = first / n if n > 0.0 else np.nan
            means[start + y] = level[start + y] + shift
            square = max(second - first * shift, 0.0)
            variances[start + y] = square / (n - 1.0) if n > 1.0 else np.nan


@compiled
def column_sums(
    values: NDArray[np.float64],
    half_width: float,
    number: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> None:
    """Write number, sum and sum of squares of the values of `ROWS` columns near 0."""
    number[:], first[:], second[:] = 0.0, 0.0, 0.0
    for y in range(values.shape[0]):
        row = values[y]
        for x in range(ROWS):
            inside = abs(row[x]) <= half_width
            number[x] += 1.0 if inside else 0.0
            first[x] += row[x] if inside else 0.0
            second[x] += row[x] * row[x] if inside else 0.0
