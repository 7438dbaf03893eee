"""Kernels of clipped statistics: validity, sums inside an interval, and all passes over a set.

Values are one-dimensional and float32 or float64; sums are taken in float64 over blocks that fit
in the first cache. Loops index arrays by the loop variable alone: an offset would make the
compiler guard against negative indices and give up its vectors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.order_statistics import order_statistics

__all__: list[str] = []  # kernels for the modules of this room

BLOCK = 4096  # values treated at a time; a multiple of 8
QUARTILE_TO_SIGMA = 0.741301109252802  # of a Gaussian, from its interquartile range
NAN = math.nan
EQUAL = 1e-13  # variance over squared distance from the reference that rounding alone can leave

Moments = tuple[int, int, float, float, float, float, float, float]


@compiled
def load_block(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    block: NDArray[Any],
) -> None:
    """Copy values to the start of ``block``; NaN where they are not finite or masked, and after.

    A value is masked if ``(mask ^ legend[0]) & legend[1]`` is not 0; an empty mask masks nothing.
    ``constants`` are NaN, the largest finite number and 1. Both come as arrays in the dtype they
    are compared with: Python's numbers would widen every operation.
    """
    not_a_number, largest = constants[0], constants[1]
    flip, bits = legend[0], legend[1]
    if mask.size == 0:
        for i in range(values.size):
            value = values[i]
            block[i] = value if abs(value) <= largest else not_a_number
    else:
        for i in range(values.size):
            value = values[i] if ((mask[i] ^ flip) & bits) == 0 else not_a_number
            block[i] = value if abs(value) <= largest else not_a_number
    block[values.size :] = not_a_number


@compiled
def part(array: NDArray[Any], start: int) -> NDArray[Any]:
    """Return the block of an array that starts at an index; of an empty array, nothing."""
    return array[start : min(start + BLOCK, array.size)]


@compiled
def gather(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
) -> NDArray[Any]:
    """Return the valid values."""
    kept = np.empty(values.size + BLOCK, values.dtype)
    block, flags = np.empty(BLOCK, values.dtype), np.empty(BLOCK, np.uint8)
    place = np.uint64(0)
    for start in range(0, values.size, BLOCK):
        load_block(part(values, start), part(mask, start), legend, constants, block)
        for i in range(BLOCK):
            flags[i] = block[i] == block[i]
        for i in range(BLOCK):
            kept[place] = block[i]
            place += np.uint64(flags[i])
    return kept[: int(place)]


@compiled
def block_sums(
    values: NDArray[Any], center: float, half_width: float, reference: float
) -> tuple[float, float, float]:
    """Return number, sum and sum of squares of ``value - reference`` inside the interval."""
    n, first, second = 0.0, 0.0, 0.0
    for i in range(values.size):
        value = np.float64(values[i])
        difference = value - reference
        inside = abs(value - center) <= half_width
        # one choice a value, and no arithmetic inside it, is what the compiler turns into vectors
        chosen = difference if inside else 0.0
        n += np.float64(inside)
        first += chosen
        second += chosen * chosen
    return n, first, second


@compiled
def sums_inside(
    values: NDArray[Any], center: float, half_width: float, reference: float
) -> tuple[float, float, float]:
    """Return the same for any number of values; sums of block sums keep the rounding small."""
    n, first, second = 0.0, 0.0, 0.0
    for start in range(0, values.size, BLOCK):
        sums = block_sums(part(values, start), center, half_width, reference)
        n, first, second = n + sums[0], first + sums[1], second + sums[2]
    return n, first, second


@compiled
def mean_and_variance(
    n: float, first: float, second: float, reference: float
) -> tuple[float, float]:
    """Return mean and sample variance from sums of differences to a reference."""
    if n == 0.0:
        return NAN, NAN
    mean = first / n
    variance = max(second - first * mean, 0.0) / (n - 1.0) if n > 1.0 else NAN
    return reference + mean, variance


@compiled
def quantile(low: float, high: float, fraction: float) -> float:
    """Interpolate between two neighbours in rank."""
    return low + (high - low) * fraction if fraction < 1.0 else high


@compiled
def quartile_ranks(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ranks below and above each quartile, and the fraction between them."""
    ranks = np.empty(6, np.int64)
    fractions = np.empty(3, np.float64)
    for i in range(3):
        position = 0.25 * (i + 1) * (n - 1)
        ranks[2 * i] = int(position)
        ranks[2 * i + 1] = min(int(position) + 1, n - 1)
        fractions[i] = position - int(position)
    return ranks, fractions


@compiled
def quartiles(found: NDArray[np.float64], n: int) -> tuple[float, float, float]:
    """Return the quartiles from the six order statistics around them."""
    _, f = quartile_ranks(n)
    return (
        quantile(found[0], found[1], f[0]),
        quantile(found[2], found[3], f[1]),
        quantile(found[4], found[5], f[2]),
    )


@compiled
def next_interval(
    index: int, n: int, clip: float, mean: float, variance: float, median: float, iqr: float
) -> tuple[float, float]:
    """Return centre and half width of a pass; a single value keeps the rule of the first."""
    center = median if index == 0 else mean
    if index == 0 or n == 1:
        return center, clip * QUARTILE_TO_SIGMA * iqr
    return center, clip * math.sqrt(variance)


@compiled
def all_equal(mean: float, variance: float, reference: float) -> bool:
    """Return whether a pass kept equal values only, to the rounding of sums about a reference.

    It is the last pass then: the next would look for them in an interval without width.
    """
    return variance <= EQUAL * (mean - reference) ** 2


@compiled
def direct(values: NDArray[Any], clip: float, iterations: int) -> Moments:
    """Return the clipped statistics of valid values in memory."""
    n = values.size
    if n == 0:
        return 0, 0, NAN, NAN, NAN, NAN, NAN, NAN
    ranks, _ = quartile_ranks(n)
    found = np.empty(6, np.float64)
    order_statistics(values, ranks, found)
    lower, median, upper = quartiles(found, n)
    used, mean, variance, center, half_width = 0.0, NAN, NAN, NAN, NAN
    for index in range(iterations):
        center, half_width = next_interval(index, n, clip, mean, variance, median, upper - lower)
        used, first, second = sums_inside(values, center, half_width, center)
        mean, variance = mean_and_variance(used, first, second, center)
        if all_equal(mean, variance, center):
            break
    return n, int(used), mean, variance, median, upper - lower, center, half_width
