"""Kernels of clip_model: leave out what the noise cannot explain, average the rest.

Exposures may differ much in noise, so a value is compared with the mean of the *others*, weighted
by their noise, and its limit holds the variance of both; see `leave_out`. The arrays are those of
the stacks, see `skyloom.algorithms.stack_kernels`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_dividing
from skyloom.algorithms.sorting_network import sort_rows
from skyloom.algorithms.stack_kernels import TILE, count_row, tile_quartiles

__all__: list[str] = []  # kernels for the modules of this room

LEAST_NOISE = 1e-30  # variance; what has none at all is weighted alike
ALONE = 1e-12  # share of the other values below which there are none to compare with
FEWEST = 3  # values whose median is not that of a cosmic ray
BELIEVED = 9.0  # difference of chi² at which a low value is doubted rather than a high one
SCATTER_BINS = 2048  # of the bits of a positive float32 less the last 20: 8 for each factor of 2
SCATTER_SHIFT = 20
NAN = math.nan

Doubles = NDArray[np.float64]
Planes = NDArray[np.int32]


@compiled
def expectations(
    lowest: NDArray[Any],
    count: NDArray[np.int32],
    pattern: float,
    center: Doubles,
    level: Doubles,
    extra: Doubles,
) -> None:
    """Write level and variance of the pattern of every pixel from the medians.

    Of two values the level is the lower one, as cosmic rays only add.
    """
    for i in range(center.size):
        center[i] = np.float64(lowest[i]) if count[i] == 2 else center[i]
    for i in range(center.size):
        # without a value the median is not a number
        level[i] = center[i] if center[i] > 0.0 else 0.0
        center[i] = center[i] if center[i] == center[i] else 0.0
        extra[i] = pattern * level[i] * level[i]


@compiled
def load_values(
    values: NDArray[Any],
    mask: Planes,
    bits: Planes,
    factor: float,
    largest: NDArray[Any],
    row: NDArray[Any],
    ordered: NDArray[Any],
    count: NDArray[np.int32],
) -> None:
    """Write scaled values to a row and to its copy, and count them.

    They are infinite where masked or not finite, and after the last.
    """
    limit, infinite, bit = largest[0], largest[1], bits[0]
    for i in range(values.size):
        row[i] = np.float64(values[i]) * factor
    if mask.size > 0:
        for i in range(values.size):
            used = (abs(row[i]) <= limit) & ((mask[i] & bit) == 0)
            row[i] = row[i] if used else infinite
            ordered[i] = row[i]
            count[i] += np.int32(used)
    else:
        for i in range(values.size):
            used = abs(row[i]) <= limit
            row[i] = row[i] if used else infinite
            ordered[i] = row[i]
            count[i] += np.int32(used)
    row[values.size :] = infinite
    ordered[values.size :] = infinite


@compiled
def need_variances(
    variances: NDArray[Any],
    largest: NDArray[Any],
    row: NDArray[Any],
    ordered: NDArray[Any],
    count: NDArray[np.int32],
) -> None:
    """Leave out the values whose variance is not a positive number."""
    limit, infinite = largest[0], largest[1]
    zero = limit - limit
    for i in range(variances.size):
        known = (variances[i] > zero) & (variances[i] <= limit)
        count[i] -= np.int32((not known) & (row[i] <= limit))
        row[i] = row[i] if known else infinite
        ordered[i] = row[i]


@compiled
def predicted_noise(per_level: float, constant: float, level: Doubles, noise: NDArray[Any]) -> None:
    """Write the variance that a value has at the level: ``per_level`` x level + ``constant``."""
    for i in range(level.size):
        v = level[i] * per_level + constant
        noise[i] = v if v > LEAST_NOISE else LEAST_NOISE


@compiled
def measured_noise(
    row: NDArray[Any],
    variances: NDArray[Any],
    factor: float,
    per_level: float,
    own_photons: float,
    constant: float,
    largest: NDArray[Any],
    level: Doubles,
    noise: NDArray[Any],
) -> None:
    """Write the variances of values, with the photons of the level instead of their own.

    Without that, values that are low by chance would weigh more. ``own_photons`` is 0 for variances
    without photons, else 1. What is predicted holds where a variance is not a positive number.
    """
    limit, scale, slope = largest[0], factor * factor, per_level * own_photons
    for i in range(variances.size):
        x = np.float64(row[i])
        photons = x if x > 0.0 else 0.0
        v = np.float64(variances[i]) * scale - (photons - level[i]) * slope
        least = level[i] * slope
        v = v if v > least else least
        expected = level[i] * per_level + constant
        known = (variances[i] > 0.0) & (variances[i] <= limit)
        v = v if known else expected
        noise[i] = v if v > LEAST_NOISE else LEAST_NOISE


@compiled_dividing
def add_weighted(
    row: NDArray[Any],
    largest: NDArray[Any],
    center: Doubles,
    weights: NDArray[Any],
    total: Doubles,
    first: Doubles,
    second: Doubles,
) -> None:
    """Turn variances into weights, 0 for values that are not used, and add to the sums.

    These are the sums of weights, of weights x differences to the centre, and of weights x their
    squares.
    """
    limit = largest[0]
    one = limit / limit  # in the type of the values, whose precision is enough for weights
    for i in range(row.size):
        used = row[i] <= limit
        share = one / weights[i]
        share = share if used else limit - limit
        weights[i] = share
        d = np.float64(row[i]) - center[i]
        d = d if used else 0.0
        w = np.float64(share)
        wd = w * d
        total[i] += w
        first[i] += wd
        second[i] += wd * d


@compiled_dividing
def solve_means(
    count: NDArray[np.int32],
    sums: Doubles,
    typical: Doubles,
    clip: float,
    center: Doubles,
    mean: Doubles,
    alone: Doubles,
    scatter: NDArray[np.float32],
) -> None:
    """Write the mean of every pixel, clip over its weights, and chi² over its usual median.

    ``typical`` holds the inverse of that median for every count, 0 for fewer than 2.
    """
    total, first, second = sums[0], sums[1], sums[2]
    for i in range(mean.size):
        part = 1.0 / total[i]
        part = part if total[i] > 0.0 else 0.0
        m = first[i] * part
        mean[i] = center[i] + m
        alone[i] = clip * part
        chi2 = second[i] - m * first[i]
        scatter[i] = chi2 * typical[count[i]] if chi2 > 0.0 else 0.0


@compiled
def find_largest(
    row: NDArray[Any], weights: NDArray[Any], mean: Doubles, alone: Doubles, most: Doubles
) -> None:
    """Raise to the largest of a row what tells whether a pixel may have an odd value.

    A value of weight w and share h of all differs by r from the mean, which has the variance
    (1 - h) / w, so it may be odd where w r² + clip h is more than the (squared) clip.
    """
    for i in range(row.size):
        r = np.float64(row[i]) - mean[i]
        found = weights[i] * (r * r + alone[i])
        most[i] = found if found > most[i] else most[i]  # not a number where it is not used


@compiled
def leave_out(
    rows: NDArray[Any], weights: NDArray[Any], center: float, extra: float, clip: float, i: int
) -> int:
    """Set the weights of the odd values of a pixel to 0, the worst first; return how many.

    A value is odd that differs too much from the mean of the others. With its share h of the
    weights, its difference r to the mean of all is r / (1 - h) to that of the others; the variance
    of r is noise x (1 - h), and that of a pattern which changes from exposure to exposure, times
    1 - 2 h + the sum of all h². ``clip`` is squared.

    The worst is the one that differs most. A high value is left out rather than a low one if chi²
    hardly tells which of them is wrong, as cosmic rays only add.
    """
    dropped = 0
    while True:
        total, square, first = 0.0, 0.0, 0.0
        for k in range(weights.shape[0]):
            w = weights[k, i]
            if w > 0.0:
                total += w
                square += w * w
                first += w * (np.float64(rows[k, i]) - center)
        if total == 0.0:
            return dropped
        mean, shared = first / total, square / total / total
        worst, high = -1, -1
        most, most_high = clip, clip
        for k in range(weights.shape[0]):
            w = weights[k, i]
            h = w / total
            if w > 0.0 and 1.0 - h > ALONE:
                r = np.float64(rows[k, i]) - center - mean
                z = w * r * r / (1.0 - h + w * extra * (1.0 - 2.0 * h + shared))
                if z > most:
                    most, worst = z, k
                if r > 0.0 and z > most_high:
                    most_high, high = z, k
        if worst < 0:
            return dropped
        if high >= 0 and most_high + BELIEVED >= most:
            worst = high
        weights[worst, i] = 0.0
        dropped += 1


@compiled_dividing
def write_means(
    rows: NDArray[Any],
    weights: NDArray[Any],
    equal: bool,
    center: Doubles,
    sums: Doubles,
    image: NDArray[Any],
    variance: NDArray[Any],
) -> None:
    """Write the means and their variances; with equal weights of those that are not 0."""
    total, first, used = sums[0], sums[1], sums[2]
    if equal:
        sums[:] = 0.0
        for k in range(weights.shape[0]):
            row, w = rows[k], weights[k]
            for i in range(image.size):
                some = w[i] > 0.0
                d = np.float64(row[i]) - center[i]
                v = 1.0 / w[i]
                total[i] += 1.0 if some else 0.0
                first[i] += d if some else 0.0
                used[i] += v if some else 0.0
        for i in range(image.size):
            used[i] /= total[i] * total[i]
    else:
        for i in range(image.size):
            used[i] = 1.0 / total[i]
    for i in range(image.size):
        some = total[i] > 0.0
        image[i] = center[i] + first[i] / total[i] if some else NAN
        variance[i] = used[i] if some else NAN


@compiled
def sum_again(
    rows: NDArray[Any], weights: NDArray[Any], center: float, sums: Doubles, i: int
) -> None:
    """Write the sums of a pixel over the values that are left."""
    total, first, second = 0.0, 0.0, 0.0
    for k in range(weights.shape[0]):
        w = np.float64(weights[k, i])
        if w > 0.0:
            d = np.float64(rows[k, i]) - center
            total += w
            first += w * d
            second += w * d * d
    sums[0, i], sums[1, i], sums[2, i] = total, first, second


@compiled
def join_weighted(weights: NDArray[Any], mask: Planes, planes: Planes) -> None:
    """Join the planes of the values used."""
    for i in range(mask.size):
        planes[i] |= mask[i] if weights[i] > 0.0 else np.int32(0)


@compiled
def count_scatter(scatter: NDArray[np.float32], histogram: NDArray[np.int64]) -> None:
    """Count the ratios of some pixels, those that are 0 apart in the first bin."""
    bits = scatter.view(np.int32)
    for i in range(scatter.size):
        histogram[bits[i] >> SCATTER_SHIFT] += 1


@compiled
def medians(
    rows: NDArray[Any],
    trusted: NDArray[np.bool_],
    largest: NDArray[Any],
    pairs: NDArray[np.int64],
    ranks: NDArray[np.int64],
    fractions: Doubles,
    ordered: NDArray[Any],
    count: NDArray[np.int32],
    center: Doubles,
    scratch: Doubles,
) -> None:
    """Write the median of the rows that are trusted, and how many values they have."""
    count[:] = 0
    for k in range(rows.shape[0]):
        if trusted[k]:
            count_row(rows[k], largest, count)
            ordered[k] = rows[k]
        else:
            ordered[k] = largest[1]
    sort_rows(ordered, pairs)
    tile_quartiles(ordered, count, ranks, fractions, center, scratch)


@compiled
def combine_segments(
    images: NDArray[Any],
    masks: Planes,
    variances: NDArray[Any],
    segments: NDArray[np.int64],
    factors: Doubles,
    per_level: Doubles,
    constant: Doubles,
    own_photons: Doubles,
    trusted: NDArray[np.bool_],
    bits: Planes,
    largest: NDArray[Any],
    pairs: NDArray[np.int64],
    ranks: NDArray[np.int64],
    fractions: Doubles,
    typical: Doubles,
    options: tuple[float, float, float],
    image: NDArray[Any],
    variance: NDArray[Any],
    planes: Planes,
    counted: Planes,
    rejected: Planes,
    histograms: NDArray[np.int64],
) -> None:
    """Write the combined value of every pixel of the segments.

    ``factors``, ``per_level``, ``constant`` and ``own_photons`` are (region, input): what
    multiplies the values, the variance of the scaled value, see `predicted_noise`, and how much of
    the variances of values their own photons are, see `measured_noise`. A constant that is not
    known (NaN) leaves it to the variances, which hold wherever there are any. The level of a pixel
    is the median over the inputs that are ``trusted``, or over all where they are masked. ``bits``
    are those that leave a value out. ``histograms`` (region, bin) count chi² of pixels over its
    median.
    """
    clip, pattern, equal_weights = options
    equal, beyond = equal_weights > 0.0, clip * (1.0 + ALONE)
    n = images.shape[0]
    rows = np.empty((n, TILE), largest.dtype)
    ordered = np.empty((n, TILE), largest.dtype)
    every = np.ones(n, np.bool_)
    count, known = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    center, some, scratch = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    level, extra, most = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    weights, sums = np.ones((n, TILE), largest.dtype), np.empty((3, TILE))
    mean, alone = np.empty(TILE), np.empty(TILE)
    scatter = np.empty(TILE, np.float32)
    has_variances, has_masks = variances.shape[1] > 0, masks.shape[1] > 0
    for s in range(segments.shape[0]):
        region = segments[s, 2]
        alike = trusted[region].all()
        for start in range(segments[s, 0], segments[s, 1], TILE):
            stop = min(start + TILE, segments[s, 1])
            size = stop - start
            count[:] = 0
            for k in range(n):
                load_values(
                    images[k, start:stop],
                    masks[k, start:stop],
                    bits,
                    factors[region, k],
                    largest,
                    rows[k],
                    ordered[k],
                    count,
                )
                if constant[region, k] != constant[region, k]:
                    need_variances(variances[k, start:stop], largest, rows[k], ordered[k], count)
            if alike:
                sort_rows(ordered, pairs)
                tile_quartiles(ordered, count, ranks, fractions, center, scratch)
            else:
                medians(
                    rows,
                    trusted[region],
                    largest,
                    pairs,
                    ranks,
                    fractions,
                    ordered,
                    known,
                    center,
                    scratch,
                )
                few = False
                for i in range(TILE):
                    few |= (known[i] < FEWEST) & (known[i] < count[i])
                if few:
                    some[:] = center
                    medians(
                        rows,
                        every,
                        largest,
                        pairs,
                        ranks,
                        fractions,
                        ordered,
                        count,
                        center,
                        scratch,
                    )
                    for i in range(TILE):
                        enough = (known[i] >= FEWEST) | (known[i] == count[i])
                        center[i] = some[i] if enough else center[i]
            expectations(ordered[0], count, pattern, center, level, extra)
            sums[:] = 0.0
            for k in range(n):
                factor, slope = factors[region, k], per_level[region, k]
                if has_variances:
                    measured_noise(
                        rows[k],
                        variances[k, start:stop],
                        factor,
                        slope,
                        own_photons[region, k],
                        constant[region, k],
                        largest,
                        level,
                        weights[k],
                    )
                else:
                    predicted_noise(slope, constant[region, k], level, weights[k])
                add_weighted(rows[k], largest, center, weights[k], sums[0], sums[1], sums[2])
            solve_means(count, sums, typical, clip, center, mean, alone, scatter)
            most[:] = 0.0
            for k in range(n):
                find_largest(rows[k], weights[k], mean, alone, most)
            counted[start:stop] = count[:size]
            for i in range(size):
                if most[i] > beyond:
                    dropped = leave_out(rows, weights, center[i], extra[i], clip, i)
                    sum_again(rows, weights, center[i], sums, i)
                    rejected[start + i] = np.int32(dropped)
                    counted[start + i] -= np.int32(dropped)
                    left = counted[start + i]
                    if left > 0:
                        chi2 = sums[2, i] - sums[1, i] * sums[1, i] / sums[0, i]
                        scatter[i] = max(chi2, 0.0) * typical[left]
            count_scatter(scatter[:size], histograms[region])
            write_means(rows, weights, equal, center, sums, image[start:stop], variance[start:stop])
            if has_masks:
                for k in range(n):
                    join_weighted(weights[k], masks[k, start:stop], planes[start:stop])
