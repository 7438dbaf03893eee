"""Clipped mean and variance where the clip is so wide that it hardly meets a pixel.

The statistics are those of `clipped_moments`, without the exact quartiles: these only place the
edges of the first pass. A sample brackets the quartiles, and so the edges. One read of the image
then counts what lies below the brackets, sums all values surely inside all edges and gathers the
few that lie in the zone of the edges. If the counts confirm the brackets and the few cannot change
which values the second pass keeps, all that follows is exact; if not, as with a narrow clip, the
quartiles themselves are needed and `clipped_moments` is called.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_fast
from skyloom.algorithms.order_statistics import order_statistics
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["ClippedMean", "clipped_mean"]

Image = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SAMPLE = 1 << 14
STEP = 2_654_435_761  # prime
SMALLEST = 1 << 18  # fewer values are not worth a sample
BLOCK = 4096
MOST_UNDECIDED = 1024
RANK_SIGMAS = 4.0  # half width of the brackets, in standard deviations of a sampled rank
MARGIN = 5.0  # of the sampled edges of later passes, in their standard deviations
QUARTILE_TO_SIGMA = 0.741301109252802
NAN = math.nan


class ClippedMean(NamedTuple):
    """Clipped statistics of good values; unit of the values and its square.

    ``count`` good values, ``count_used`` of them within ``half_width`` of the centre of the last
    pass.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    count_used: int
    mean: float
    variance: float
    half_width: float


def clipped_mean(image: Image, good: NDArray[np.bool_], clip: float, passes: int) -> ClippedMean:
    """Return the clipped statistics of the good pixels of an image, all of them finite.

    Parameters
    ----------
    image : ndarray, float32, C-contiguous
    good : ndarray of bool, same shape
        False wherever the image is not finite.
    clip : float
        Clip in standard deviations; > 0.
    passes : int
        Number of passes; >= 1.

    Returns
    -------
    ClippedMean
        To rounding the same numbers as from `skyloom.algorithms.statistics.clipped_moments`.

    Examples
    --------
    >>> image = np.arange(10, dtype=np.float32)
    >>> clipped_mean(image, np.ones(10, bool), 3.0, 3).mean
    4.5
    """
    if image.size >= SMALLEST and passes > 1:
        held, count, used, mean, variance, half_width = one_read(
            image.reshape(-1), good.reshape(-1).view(np.uint8), float(clip), passes
        )
        if held:
            return ClippedMean(count, used, mean, variance, half_width)
    full = clipped_moments(image, good, clip=clip, iterations=passes)
    return ClippedMean(full.count, full.count_used, full.mean, full.variance, full.half_width)


@compiled
def draw(values: Image, good: Bytes) -> Image:
    """Return the good ones of evenly scattered values."""
    sample = np.empty(SAMPLE, np.float32)
    size = 0
    for i in range(SAMPLE):
        # a step without a factor in common with the width of an image visits all columns
        place = (i * STEP) % values.size
        if good[place] != 0:
            sample[size] = values[place]
            size += 1
    return sample[:size]


@compiled
def bracket_quartiles(sample: Image) -> tuple[NDArray[np.float32], float]:
    """Return what the quartiles lie between (3, 2), and the median of a sample."""
    ranks = np.empty(7, np.int64)
    for i in range(3):
        fraction = 0.25 * (i + 1)
        margin = RANK_SIGMAS * math.sqrt(fraction * (1.0 - fraction) * sample.size)
        ranks[2 * i] = int(fraction * sample.size - margin)
        ranks[2 * i + 1] = int(fraction * sample.size + margin)
    ranks[6] = sample.size // 2
    order = np.argsort(ranks)
    found = np.empty(7, np.float64)
    order_statistics(sample, ranks[order], found)
    brackets = np.empty(7, np.float64)
    brackets[order] = found
    return brackets[:6].astype(np.float32).reshape(3, 2), brackets[6]


@compiled
def sampled_radii(
    sample: Image, brackets: NDArray[np.float32], reference: float, clip: float, passes: int
) -> tuple[float, float]:
    """Return the radii about the reference that all edges of all passes lie between."""
    low, high = brackets[:, 0].astype(np.float64), brackets[:, 1].astype(np.float64)
    scale = clip * QUARTILE_TO_SIGMA
    off = max(high[1] - reference, reference - low[1])
    inner = scale * max(low[2] - high[0], 0.0) - off
    outer = scale * (high[2] - low[0]) + off
    center, half_width = 0.0, 0.5 * (float(inner) + float(outer))
    for _ in range(1, passes):
        n, first, second = 0.0, 0.0, 0.0
        for value in sample:
            d = np.float64(value) - reference
            if abs(d - center) <= half_width:
                n += 1.0
                first += d
                second += d * d
        if n < 2.0:
            return 0.0, 0.0
        center, variance = moments_of(n, first, second)
        half_width = clip * math.sqrt(variance)
        margin = MARGIN * (1.0 + clip) * math.sqrt(variance / sample.size)
        inner = min(inner, half_width - abs(center) - margin)
        outer = max(outer, half_width + abs(center) + margin)
    return inner, outer


@compiled_fast
def count_brackets(
    values: Image, good: Bytes, brackets: NDArray[np.float32], counts: NDArray[np.int64]
) -> None:
    """Add the numbers of good values below the lower and up to the upper limits (3, 2)."""
    a, b, c, d, e, f = np.int32(0), np.int32(0), np.int32(0), np.int32(0), np.int32(0), np.int32(0)
    a0, b0, c0 = brackets[0, 0], brackets[1, 0], brackets[2, 0]
    a1, b1, c1 = brackets[0, 1], brackets[1, 1], brackets[2, 1]
    one, none = np.int32(1), np.int32(0)
    for i in range(values.size):
        value = values[i]
        w = one if good[i] != 0 else none
        a += w if value < a0 else none
        b += w if value <= a1 else none
        c += w if value < b0 else none
        d += w if value <= b1 else none
        e += w if value < c0 else none
        f += w if value <= c1 else none
    counts[0, 0] += a
    counts[0, 1] += b
    counts[1, 0] += c
    counts[1, 1] += d
    counts[2, 0] += e
    counts[2, 1] += f


@compiled
def brackets_hold(counts: NDArray[np.int64], n: float) -> bool:
    """Return whether both neighbours in rank of each quartile are inside its bracket."""
    for i in range(3):
        rank = int(0.25 * (i + 1) * (n - 1.0))
        if counts[i, 0] > rank or counts[i, 1] < rank + 2:
            return False
    return True


@compiled_fast
def sums_by_zone(
    values: Image, good: Bytes, reference: float, inner: float, outer: float
) -> tuple[float, float, float, float, float]:
    """Return numbers of good values, of those inside and between the radii, and sums inside."""
    n, core, zone, first, second = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(values.size):
        d = np.float64(values[i]) - reference
        w = 1.0 if good[i] != 0 else 0.0
        inside = w if abs(d) <= inner else 0.0
        reached = w if abs(d) <= outer else 0.0
        kept = d if inside > 0.0 else 0.0
        n += w
        core += inside
        zone += reached - inside
        first += kept
        second += kept * kept
    return n, core, zone, first, second


@compiled
def gather_zone(
    values: Image,
    good: Bytes,
    reference: float,
    inner: float,
    outer: float,
    kept: NDArray[np.float64],
    size: int,
) -> int:
    """Append the differences of good values between the radii; return how many there are now."""
    for i in range(values.size):
        d = np.float64(values[i]) - reference
        if good[i] != 0 and inner < abs(d) <= outer and size < kept.size:
            kept[size] = d
            size += 1
    return size


@compiled
def moments_of(n: float, first: float, second: float) -> tuple[float, float]:
    """Return mean and sample variance from sums."""
    mean = first / n
    return mean, max(second - first * mean, 0.0) / (n - 1.0)


@compiled
def add_inside(
    zone: NDArray[np.float64],
    center: float,
    half_width: float,
    sums: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Return number and sums with the values of the zone that are inside an interval."""
    n, first, second = sums
    for d in zone:
        if abs(d - center) <= half_width:
            n += 1.0
            first += d
            second += d * d
    return n, first, second


@compiled
def second_interval(
    zone: NDArray[np.float64], clip: float, sums: tuple[float, float, float]
) -> tuple[bool, float, float]:
    """Return the interval of the second pass, and whether it keeps what it keeps for certain.

    The first pass may have kept any of the zone. That moves mean and deviation by no more than
    ``shift`` and ``stretch``; no value of the zone may be that close to an edge.
    """
    n, first, second = sums
    mean, variance = moments_of(n, first, second)
    center, half_width = mean, clip * math.sqrt(variance)
    reach, squares = 0.0, 0.0
    for d in zone:
        reach += abs(d - mean)
        squares += (d - mean) ** 2
    shift = reach / n
    # sqrt(v + e) - sqrt(v) <= e / (2 sqrt(v)); removing the mean's shift and n only lowers it
    stretch = clip * (squares / (n - 1.0) + shift**2 + variance * zone.size / n)
    stretch = stretch / math.sqrt(variance) if variance > 0.0 else 0.0
    for d in zone:
        if abs(abs(d - center) - half_width) <= shift + stretch:
            return False, center, half_width
    return True, center, half_width


@compiled
def one_read(
    values: Image, good: Bytes, clip: float, passes: int
) -> tuple[bool, int, int, float, float, float]:
    """Return whether one read was enough, and count, count used, mean, variance, half width."""
    nothing = (False, 0, 0, NAN, NAN, NAN)
    sample = draw(values, good)
    if sample.size < SAMPLE // 8:
        return nothing
    brackets, reference = bracket_quartiles(sample)
    inner, outer = sampled_radii(sample, brackets, reference, clip, passes)
    if not inner > 0.0:
        return nothing
    zone = np.empty(MOST_UNDECIDED, np.float64)
    counts = np.zeros((3, 2), np.int64)
    n, core, first, second, found = 0.0, 0.0, 0.0, 0.0, 0
    for start in range(0, values.size, BLOCK):
        stop = min(start + BLOCK, values.size)
        block, used = values[start:stop], good[start:stop]
        sums = sums_by_zone(block, used, reference, inner, outer)
        if sums[2] > 0.0:
            found = gather_zone(block, used, reference, inner, outer, zone, found)
            if found == zone.size:
                return nothing
        count_brackets(block, used, brackets, counts)
        n, core = n + sums[0], core + sums[1]
        first, second = first + sums[3], second + sums[4]
    if core < 2.0 or not brackets_hold(counts, n):
        return nothing
    inside = (core, first, second)
    certain, center, half_width = second_interval(zone[:found], clip, inside)
    if not certain or (passes == 2 and found > 0):
        return nothing  # the half width of the second pass is what the first pass left of the zone
    mean, variance = NAN, NAN
    kept = inside
    for index in range(1, passes):
        # all of the core inside the edges, all beyond the zone outside of them
        if abs(center) + inner > half_width or outer - abs(center) < half_width:
            return nothing
        kept = add_inside(zone[:found], center, half_width, inside)
        mean, variance = moments_of(kept[0], kept[1], kept[2])
        if index < passes - 1:
            center, half_width = mean, clip * math.sqrt(variance)
    return True, int(n), int(kept[0]), reference + mean, variance, half_width
