"""Kernels of binning: the pixels of a bin are gathered in cache, its statistics taken there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import direct, mean_and_variance, sums_inside
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.order_statistics import order_statistics

__all__: list[str] = []  # kernels for the modules of this package

MEANCLIP, MEAN, MEDIAN = 0, 1, 2
COUNT, USED, LEVEL, PIXEL_VARIANCE, VARIANCE = 0, 1, 2, 3, 4
NAN = math.nan


@compiled
def gather_bin(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    top: int,
    bottom: int,
    left: int,
    right: int,
    kept: NDArray[Any],
) -> int:
    """Copy the valid pixels of a bin to the start of ``kept``; return their number."""
    n = 0
    for y in range(top, bottom):
        for x in range(left, right):
            value = image[y, x]
            good = mask.size == 0 or ((mask[y, x] ^ legend[0]) & legend[1]) == 0
            kept[n] = value
            n += int(good & (abs(value) <= constants[1]))
    return n


@compiled
def input_variance(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    variance: NDArray[np.float32],
    box: tuple[int, int, int, int],
    center: float,
    half_width: float,
) -> float:
    """Return the sum of the variances of the valid pixels of a bin that an interval keeps."""
    total = 0.0
    for y in range(box[0], box[1]):
        for x in range(box[2], box[3]):
            value = np.float64(image[y, x])
            if mask.size != 0 and ((mask[y, x] ^ legend[0]) & legend[1]) != 0:
                continue
            if math.isfinite(value) and abs(value - center) <= half_width:
                total += np.float64(variance[y, x])
    return total


@compiled
def median_of(values: NDArray[Any]) -> float:
    """Return the median of finite values."""
    n = values.size
    found = np.empty(2, np.float64)
    ranks = np.array([(n - 1) // 2, n // 2])
    order_statistics(values, ranks, found)
    return float(0.5 * (found[0] + found[1]))


@compiled
def bin_statistics(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    variance: NDArray[np.float32],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    statistic: int,
    clip: float,
    iterations: int,
    found: NDArray[np.float64],
) -> None:
    """Write count, count used, level, pixel variance and variance of the level of each bin."""
    area = 0
    for i in range(edges_y.size - 1):
        for j in range(edges_x.size - 1):
            area = max(area, (edges_y[i + 1] - edges_y[i]) * (edges_x[j + 1] - edges_x[j]))
    kept = np.empty(area + 1, image.dtype)
    for i in range(edges_y.size - 1):
        for j in range(edges_x.size - 1):
            top, bottom, left, right = edges_y[i], edges_y[i + 1], edges_x[j], edges_x[j + 1]
            n = gather_bin(image, mask, legend, constants, top, bottom, left, right, kept)
            values = kept[:n]
            used, level, spread, center, half_width = n, NAN, NAN, 0.0, math.inf
            if n > 0 and statistic == MEANCLIP:
                moments = direct(values, clip, iterations)
                used, level, spread = moments[1], moments[2], moments[3]
                center, half_width = moments[6], moments[7]
            elif n > 0:
                reference = np.float64(values[0])
                _, first, second = sums_inside(values, reference, math.inf, reference)
                level, spread = mean_and_variance(np.float64(n), first, second, reference)
                if statistic == MEDIAN:
                    level = median_of(values)
            of_level = spread / used if used > 0 else NAN
            if variance.size != 0 and used > 0:
                box = (top, bottom, left, right)
                total = input_variance(image, mask, legend, variance, box, center, half_width)
                of_level = total / (np.float64(used) * np.float64(used))
            if statistic == MEDIAN:
                of_level *= 0.5 * math.pi
            found[COUNT, i, j], found[USED, i, j] = n, used
            found[LEVEL, i, j], found[PIXEL_VARIANCE, i, j] = level, spread
            found[VARIANCE, i, j] = of_level
