"""Clipped statistics of large images in one read, led by a sample that decides nothing.

A sample brackets the three quartiles and the edges of every clip pass. One read of the image then
counts what lies below the brackets, sums what lies safely inside all edges and keeps the few per
cent of the values that lie in a bracket or near an edge. From these the quartiles and all passes
follow exactly; whatever a bracket missed is measured again by reading the image once more. The
sample sets how much work is done, never what the result is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import (
    BLOCK,
    NAN,
    Moments,
    all_equal,
    direct,
    gather,
    load_block,
    mean_and_variance,
    next_interval,
    part,
    quartile_ranks,
    quartiles,
    sums_inside,
)
from skyloom.algorithms.compiled import compiled, compiled_fast
from skyloom.algorithms.order_statistics import order_statistics

__all__: list[str] = []  # kernels for the modules of this room

DIRECT_UP_TO = 1 << 18  # so few values are gathered, not sampled
SAMPLE = 1 << 16
RANK_SIGMAS = 5.0  # half width of the brackets in standard deviations of a sampled rank
EDGE_SIGMAS = 6.0  # margin of the clip edges in standard deviations of a sampled edge
INFINITY = math.inf

# The array of limits has the dtype of the values, so that comparisons stay in it: three brackets
# of two, then outer and inner left edge, inner and outer right edge.
EDGE = 6
LIMITS = 10


@compiled
def draw_sample(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
) -> NDArray[Any]:
    """Return the valid ones of values at a random place in each of equal stretches."""
    sample = np.empty(SAMPLE + 1, values.dtype)
    stretch = values.size // SAMPLE
    state = np.uint64(0x9E3779B97F4A7C15)
    size = 0
    for i in range(SAMPLE):
        # an xorshift generator: the same places every time, without the period of a fixed step
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        place = i * values.size // SAMPLE + np.int64(state >> np.uint64(33)) % stretch
        value = values[place]
        good = mask.size == 0 or ((mask[place] ^ legend[0]) & legend[1]) == 0
        sample[size] = value
        size += int(good & (abs(value) <= constants[1]))
    return sample[:size]


@compiled
def set_limits(sample: NDArray[Any], clip: float, iterations: int, limits: NDArray[Any]) -> float:
    """Write brackets of the quartiles and zones of the clip edges; return the sample's median."""
    size = sample.size
    ranks = np.empty(9, np.int64)
    for i in range(3):
        q = 0.25 * (i + 1)
        margin = RANK_SIGMAS * math.sqrt(q * (1.0 - q) * size)
        ranks[3 * i] = int(q * (size - 1) - margin)
        ranks[3 * i + 1] = int(q * (size - 1))
        ranks[3 * i + 2] = int(q * (size - 1) + margin) + 1
    found = np.empty(9, np.float64)
    order_statistics(sample, ranks, found)
    for i in range(3):
        limits[2 * i], limits[2 * i + 1] = found[3 * i], found[3 * i + 2]
    median, iqr = found[4], found[7] - found[1]
    outer_left, inner_left, inner_right, outer_right = INFINITY, -INFINITY, INFINITY, -INFINITY
    mean, variance, half_width = NAN, NAN, NAN
    for index in range(iterations):
        center, half_width = next_interval(index, size, clip, mean, variance, median, iqr)
        n, first, second = sums_inside(sample, center, half_width, center)
        mean, variance = mean_and_variance(n, first, second, center)
        # a sampled centre scatters by up to 1.25 and a sampled half width by up to 1.2 clip sigmas
        margin = EDGE_SIGMAS * (1.25 + 1.2 * clip) * half_width / clip / math.sqrt(size)
        outer_left = min(outer_left, center - half_width - margin)
        inner_left = max(inner_left, center - half_width + margin)
        inner_right = min(inner_right, center + half_width - margin)
        outer_right = max(outer_right, center + half_width + margin)
    limits[EDGE], limits[EDGE + 1] = outer_left, inner_left
    limits[EDGE + 2], limits[EDGE + 3] = inner_right, outer_right
    return float(median)


@compiled_fast
def count_brackets(
    block: NDArray[Any], limits: NDArray[Any], one: float, counts: NDArray[np.int64]
) -> None:
    """Add the numbers of values below, up to the low and up to the high end of each bracket.

    The counters are floats of the dtype of the values, so that they share its vectors; a block is
    short enough for them to be exact.
    """
    zero = one - one
    for k in range(3):
        low, high = limits[2 * k], limits[2 * k + 1]
        below, up_to_low, up_to_high = zero, zero, zero
        for i in range(block.size):
            value = block[i]
            below += one if value < low else zero
            up_to_low += one if value <= low else zero
            up_to_high += one if value <= high else zero
        counts[k, 0] += int(below)
        counts[k, 1] += int(up_to_low)
        counts[k, 2] += int(up_to_high)


@compiled_fast
def sums_between(
    block: NDArray[Any], low: float, high: float, reference: float
) -> tuple[float, float, float, float]:
    """Return the number valid, and number and sums of ``value - reference`` in [low, high]."""
    valid, n, first, second = 0.0, 0.0, 0.0, 0.0
    for i in range(block.size):
        value = block[i]
        d = np.float64(value) - reference
        inside = (value >= low) & (value <= high)
        valid += 1.0 if value == value else 0.0
        n += 1.0 if inside else 0.0
        first += d if inside else 0.0
        second += d * d if inside else 0.0
    return valid, n, first, second


@compiled
def append_undecided(
    block: NDArray[Any],
    limits: NDArray[Any],
    flags: NDArray[np.uint8],
    kept: NDArray[Any],
    size: int,
) -> int:
    """Append the values inside a bracket or near a clip edge to ``kept``; return its new size."""
    a, b, c, d, e, f = limits[0], limits[1], limits[2], limits[3], limits[4], limits[5]
    g, h, j, k = limits[6], limits[7], limits[8], limits[9]
    for i in range(block.size):
        v = block[i]
        quartile = ((v > a) & (v < b)) | ((v > c) & (v < d)) | ((v > e) & (v < f))
        flags[i] = quartile | ((v >= g) & (v < h)) | ((v > j) & (v <= k))
    words = flags.view(np.uint64)
    place = np.uint64(size)
    for w in range(words.size):
        if words[w] == 0:  # most groups of eight hold nothing of interest
            continue
        for i in range(8):
            j = np.uint64(w) * np.uint64(8) + np.uint64(i)
            kept[place] = block[j]
            place += np.uint64(flags[j])
    return int(place)


@compiled
def between(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Return the values strictly between two limits."""
    kept = np.empty(values.size + 1, values.dtype)
    size = 0
    for value in values:
        kept[size] = value
        size += int((value > low) & (value < high))
    return kept[:size]


@compiled
def quartiles_from_brackets(
    kept: NDArray[Any], limits: NDArray[Any], counts: NDArray[np.int64], n: int
) -> tuple[bool, float, float, float]:
    """Return whether every bracket holds its quartile, and the quartiles."""
    ranks, _ = quartile_ranks(n)
    found = np.empty(6, np.float64)
    for i in range(3):
        low, high = limits[2 * i], limits[2 * i + 1]
        inside = between(kept, low, high)
        inner = np.empty(2, np.int64)
        wanted = 0
        for j in range(2 * i, 2 * i + 2):
            rank = ranks[j]
            if rank < counts[i, 0] or rank >= counts[i, 2]:
                return False, NAN, NAN, NAN
            if rank < counts[i, 1]:
                found[j] = low
            elif rank >= counts[i, 1] + inside.size:
                found[j] = high
            else:
                inner[wanted] = j
                wanted += 1
        if wanted > 0:
            values = np.empty(wanted, np.float64)
            order_statistics(inside, ranks[inner[:wanted]] - counts[i, 1], values)
            for w in range(wanted):
                found[inner[w]] = values[w]
    lower, median, upper = quartiles(found, n)
    return True, lower, median, upper


@compiled
def sums_of_image(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    center: float,
    half_width: float,
    reference: float,
) -> tuple[float, float, float]:
    """Return number and sums of the differences to a reference by reading the whole image."""
    block = np.empty(BLOCK, values.dtype)
    n, first, second = 0.0, 0.0, 0.0
    for start in range(0, values.size, BLOCK):
        load_block(part(values, start), part(mask, start), legend, constants, block)
        sums = sums_inside(block, center, half_width, reference)
        n, first, second = n + sums[0], first + sums[1], second + sums[2]
    return n, first, second


@compiled
def near_edges(kept: NDArray[Any], limits: NDArray[Any]) -> NDArray[Any]:
    """Return the values in the zones of the clip edges."""
    near = np.empty(kept.size + 1, kept.dtype)
    size = 0
    for v in kept:
        near[size] = v
        left = (v >= limits[EDGE]) & (v < limits[EDGE + 1])
        size += int(left | ((v > limits[EDGE + 2]) & (v <= limits[EDGE + 3])))
    return near[:size]


@compiled
def edges_hold(limits: NDArray[Any], center: float, half_width: float) -> bool:
    """Return whether a pass keeps all between the inner edges and none outside the outer ones."""
    outer_left, inner_left = np.float64(limits[EDGE]), np.float64(limits[EDGE + 1])
    inner_right, outer_right = np.float64(limits[EDGE + 2]), np.float64(limits[EDGE + 3])
    core = abs(inner_left - center) <= half_width and abs(inner_right - center) <= half_width
    return bool(core and center - outer_left > half_width and outer_right - center > half_width)


@compiled
def sampled(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    clip: float,
    iterations: int,
) -> tuple[bool, Moments]:
    """Return whether the brackets held the quartiles, and the clipped statistics of an image."""
    nothing = (0, 0, NAN, NAN, NAN, NAN, NAN, NAN)
    sample = draw_sample(values, mask, legend, constants)
    if sample.size < SAMPLE // 64:
        return False, nothing
    limits = np.empty(LIMITS, values.dtype)
    reference = set_limits(sample, clip, iterations, limits)
    capacity = values.size // 8
    kept = np.empty(capacity + BLOCK, values.dtype)
    counts = np.zeros((3, 3), np.int64)
    block, flags = np.empty(BLOCK, values.dtype), np.empty(BLOCK, np.uint8)
    size = 0
    valid, core, core_first, core_second = 0.0, 0.0, 0.0, 0.0
    for start in range(0, values.size, BLOCK):
        load_block(part(values, start), part(mask, start), legend, constants, block)
        count_brackets(block, limits, constants[2], counts)
        sums = sums_between(block, limits[EDGE + 1], limits[EDGE + 2], reference)
        valid += sums[0]
        core, core_first, core_second = core + sums[1], core_first + sums[2], core_second + sums[3]
        size = append_undecided(block, limits, flags, kept, size)
        if size > capacity:
            return False, nothing
    n = int(valid)
    held, lower, median, upper = quartiles_from_brackets(kept[:size], limits, counts, n)
    if not held:
        return False, nothing
    edges = near_edges(kept[:size], limits)
    used, mean, variance, center, half_width = 0.0, NAN, NAN, NAN, NAN
    for index in range(iterations):
        center, half_width = next_interval(index, n, clip, mean, variance, median, upper - lower)
        if edges_hold(limits, center, half_width):
            used, first, second = sums_inside(edges, center, half_width, reference)
            used, first, second = used + core, first + core_first, second + core_second
        else:
            used, first, second = sums_of_image(
                values, mask, legend, constants, center, half_width, reference
            )
        mean, variance = mean_and_variance(used, first, second, reference)
        if all_equal(mean, variance, reference):
            break
    return True, (n, int(used), mean, variance, median, upper - lower, center, half_width)


@compiled
def clipped(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    clip: float,
    iterations: int,
) -> Moments:
    """Return the clipped statistics of one-dimensional values; see `load_block` for the mask."""
    if values.size > DIRECT_UP_TO:
        held, moments = sampled(values, mask, legend, constants, clip, iterations)
        if held:
            return moments
    return direct(gather(values, mask, legend, constants), clip, iterations)
