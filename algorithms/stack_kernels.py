"""Kernels of stacks: the statistics of every pixel over the inputs, a tile of pixels at a time.

Inputs are (input, pixel), float32 or float64, and stay in the second cache as a tile (input,
``TILE`` pixels) in which a value that may not be used is infinite. Sums are float64. A pixel's
result depends on the inputs at that pixel alone, so it is the same for any tiling.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import EQUAL, QUARTILE_TO_SIGMA, quantile
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.sorting_network import sort_rows

__all__: list[str] = []  # kernels for the modules of this room

TILE = 512  # pixels; the tile of 20 inputs just fits into the first cache
GROUP = 4  # inputs whose terms are added before the sums are touched
MEAN, CLIPPED_MEAN, MEDIAN = 0, 1, 2
EQUAL_WEIGHTS, BY_INPUT, BY_PIXEL = 0, 1, 2
LARGEST = float(np.finfo(np.float64).max)
NAN = math.nan
INFINITY = math.inf

Doubles = NDArray[np.float64]
Planes = NDArray[np.int32]


def rank_tables(size: int) -> tuple[NDArray[np.int64], Doubles]:
    """Return for 0 to ``size`` values the ranks around the three quartiles, and the fractions."""
    n = np.arange(size + 1)[:, None]
    position = np.maximum(0.25 * np.arange(1, 4) * (n - 1), 0.0)
    below = position.astype(np.int64)
    above = np.minimum(below + 1, np.maximum(n - 1, 0))
    return np.stack([below, above], axis=2).reshape(-1, 6), position - below


@compiled
def load_row(
    values: NDArray[Any],
    mask: Planes,
    bits: Planes,
    factor: float,
    largest: NDArray[Any],
    row: NDArray[Any],
) -> None:
    """Write scaled values to the start of a row; infinity where masked or not finite, and after."""
    limit, infinite = largest[0], largest[1]
    if factor == 1.0:
        for i in range(values.size):
            row[i] = values[i]
    else:
        for i in range(values.size):
            row[i] = np.float64(values[i]) * factor
    for i in range(mask.size):
        row[i] = row[i] if (mask[i] & bits[0]) == 0 else infinite
    for i in range(row.size):
        row[i] = row[i] if abs(row[i]) <= limit else infinite
    row[values.size :] = infinite


@compiled
def weigh_row(
    weights: NDArray[Any],
    variances: NDArray[Any],
    inverse: bool,
    weight: float,
    factor: float,
    largest: NDArray[Any],
    row: NDArray[Any],
    row_weights: Doubles,
) -> None:
    """Write the weights of a row; where one is not a positive number, the value is not used."""
    infinite = largest[1]
    for i in range(weights.size):
        row_weights[i] = weight * np.float64(weights[i])
    if inverse:
        for i in range(variances.size):
            variance = np.float64(variances[i]) * factor * factor
            row_weights[i] = weight / variance if variance > 0.0 else 0.0
    for i in range(row.size):
        positive = (row_weights[i] > 0.0) & (row_weights[i] <= LARGEST)
        row[i] = row[i] if positive else infinite
        row_weights[i] = row_weights[i] if positive else 0.0


@compiled
def count_row(row: NDArray[Any], largest: NDArray[Any], count: NDArray[np.int32]) -> None:
    """Add 1 where a value may be used."""
    for i in range(row.size):
        count[i] += np.int32(row[i] <= largest[0])


@compiled
def tile_quartiles(
    ordered: NDArray[Any],
    count: NDArray[np.int32],
    ranks: NDArray[np.int64],
    fractions: Doubles,
    median: Doubles,
    iqr: Doubles,
) -> None:
    """Write median and interquartile range of every column; not numbers without values."""
    for i in range(count.size):
        n = count[i]
        lower = quantile(
            np.float64(ordered[ranks[n, 0], i]),
            np.float64(ordered[ranks[n, 1], i]),
            fractions[n, 0],
        )
        median[i] = quantile(
            np.float64(ordered[ranks[n, 2], i]),
            np.float64(ordered[ranks[n, 3], i]),
            fractions[n, 1],
        )
        upper = quantile(
            np.float64(ordered[ranks[n, 4], i]),
            np.float64(ordered[ranks[n, 5], i]),
            fractions[n, 2],
        )
        iqr[i] = upper - lower


@compiled
def add_group(
    a: NDArray[Any],
    b: NDArray[Any],
    c: NDArray[Any],
    d: NDArray[Any],
    center: Doubles,
    half_width: Doubles,
    used: Doubles,
    first: Doubles,
    second: Doubles,
) -> None:
    """Add number, differences to the centre and their squares inside the interval, of four rows."""
    for i in range(a.size):
        x, h = center[i], half_width[i]
        da = np.float64(a[i]) - x
        db = np.float64(b[i]) - x
        dc = np.float64(c[i]) - x
        dd = np.float64(d[i]) - x
        na = 1.0 if abs(da) <= h else 0.0
        nb = 1.0 if abs(db) <= h else 0.0
        nc = 1.0 if abs(dc) <= h else 0.0
        nd = 1.0 if abs(dd) <= h else 0.0
        da = da if abs(da) <= h else 0.0
        db = db if abs(db) <= h else 0.0
        dc = dc if abs(dc) <= h else 0.0
        dd = dd if abs(dd) <= h else 0.0
        used[i] += (na + nb) + (nc + nd)
        first[i] += (da + db) + (dc + dd)
        second[i] += (da * da + db * db) + (dc * dc + dd * dd)


@compiled
def add_weighted_group(
    a: NDArray[Any],
    b: NDArray[Any],
    c: NDArray[Any],
    d: NDArray[Any],
    weights: Doubles,
    center: Doubles,
    half_width: Doubles,
    used: Doubles,
    weight: Doubles,
    square: Doubles,
    first: Doubles,
    second: Doubles,
) -> None:
    """Add the weighted sums of four rows, each of one weight, with those of weights and squares."""
    wa, wb, wc, wd = weights[0], weights[1], weights[2], weights[3]
    for i in range(a.size):
        x, h = center[i], half_width[i]
        da = np.float64(a[i]) - x
        db = np.float64(b[i]) - x
        dc = np.float64(c[i]) - x
        dd = np.float64(d[i]) - x
        na = 1.0 if abs(da) <= h else 0.0
        nb = 1.0 if abs(db) <= h else 0.0
        nc = 1.0 if abs(dc) <= h else 0.0
        nd = 1.0 if abs(dd) <= h else 0.0
        da = da if abs(da) <= h else 0.0
        db = db if abs(db) <= h else 0.0
        dc = dc if abs(dc) <= h else 0.0
        dd = dd if abs(dd) <= h else 0.0
        used[i] += (na + nb) + (nc + nd)
        weight[i] += (na * wa + nb * wb) + (nc * wc + nd * wd)
        square[i] += (na * (wa * wa) + nb * (wb * wb)) + (nc * (wc * wc) + nd * (wd * wd))
        first[i] += (da * wa + db * wb) + (dc * wc + dd * wd)
        second[i] += (da * da * wa + db * db * wb) + (dc * dc * wc + dd * dd * wd)


@compiled
def add_weighted(
    row: NDArray[Any],
    weights: Doubles,
    center: Doubles,
    half_width: Doubles,
    used: Doubles,
    weight: Doubles,
    square: Doubles,
    first: Doubles,
    second: Doubles,
) -> None:
    """Add the weighted sums of one row inside the interval, with those of weights and squares."""
    for i in range(row.size):
        difference = np.float64(row[i]) - center[i]
        inside = abs(difference) <= half_width[i]
        w = weights[i] if inside else 0.0
        d = difference if inside else 0.0
        wd = w * d
        used[i] += 1.0 if inside else 0.0
        weight[i] += w
        square[i] += w * w
        first[i] += wd
        second[i] += wd * d


@compiled
def add_variances(
    row: NDArray[Any],
    weights: Doubles,
    variances: NDArray[Any],
    factor: float,
    center: Doubles,
    half_width: Doubles,
    propagated: Doubles,
) -> None:
    """Add weights² x variances of the values inside the interval."""
    scale = factor * factor
    for i in range(variances.size):
        term = weights[i] * weights[i] * (np.float64(variances[i]) * scale)
        inside = abs(np.float64(row[i]) - center[i]) <= half_width[i]
        propagated[i] += term if inside else 0.0


@compiled
def join_planes(
    row: NDArray[Any],
    mask: Planes,
    center: Doubles,
    half_width: Doubles,
    used: Planes,
    all_: Planes,
) -> None:
    """Join the planes of the values inside the interval, and those of all."""
    for i in range(mask.size):
        inside = abs(np.float64(row[i]) - center[i]) <= half_width[i]
        used[i] |= mask[i] if inside else np.int32(0)
        all_[i] |= mask[i]


@compiled
def solve_pass(
    used: Doubles,
    weight: Doubles,
    square: Doubles,
    first: Doubles,
    second: Doubles,
    mean: Doubles,
    variance: Doubles,
) -> None:
    """Write mean relative to the centre and sample variance from the sums of a pass."""
    for i in range(used.size):
        several, total = used[i] > 1.0, weight[i] if weight[i] > 0.0 else 1.0
        mean[i] = first[i] / total if used[i] > 0.0 else NAN
        spare = total * total - square[i] if several else 1.0
        spare = spare if spare > 0.0 else 1.0
        spread = second[i] - first[i] * (first[i] / total)
        spread = spread if spread > 0.0 else 0.0
        variance[i] = spread * total / spare if several else NAN


@compiled
def next_pass(
    count: NDArray[np.int32],
    mean: Doubles,
    variance: Doubles,
    clip: float,
    center: Doubles,
    half_width: Doubles,
) -> None:
    """Move centre and half width to those of the next pass.

    A single value keeps the rule of the first pass; a pass that kept equal values only is the last.
    """
    for i in range(mean.size):
        last = (count[i] == 1) | (variance[i] <= EQUAL * mean[i] * mean[i])
        width = clip * math.sqrt(variance[i])
        width = LARGEST if width > LARGEST else width
        half_width[i] = half_width[i] if last else width
        center[i] = center[i] if last else center[i] + mean[i]


@compiled
def first_values(rows: NDArray[Any], center: Doubles) -> None:
    """Write the first value of every column that may be used, 0 without one."""
    center[:] = INFINITY
    missing = center.size
    for k in range(rows.shape[0]):
        if missing == 0:
            break
        row = rows[k]
        for i in range(center.size):
            center[i] = np.float64(row[i]) if center[i] == INFINITY else center[i]
        missing = 0
        for i in range(center.size):
            missing += int(center[i] == INFINITY)
    for i in range(center.size):
        center[i] = center[i] if center[i] < INFINITY else 0.0


@compiled
def sums_of_pass(
    rows: NDArray[Any],
    weights: Doubles,
    input_weights: Doubles,
    weighting: int,
    center: Doubles,
    half_width: Doubles,
    sums: Doubles,
) -> None:
    """Fill the five rows of sums of a pass; see `stack_segments` for the weighting.

    Rows are a multiple of ``GROUP``, those after the last input without a value.
    """
    sums[:] = 0.0
    used, weight, square, first, second = sums[0], sums[1], sums[2], sums[3], sums[4]
    if weighting == BY_PIXEL:
        for k in range(weights.shape[0]):
            add_weighted(
                rows[k], weights[k], center, half_width, used, weight, square, first, second
            )
        return
    for k in range(0, rows.shape[0], GROUP):
        a, b, c, d = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        if weighting == BY_INPUT:
            add_weighted_group(
                a,
                b,
                c,
                d,
                input_weights[k : k + GROUP],
                center,
                half_width,
                used,
                weight,
                square,
                first,
                second,
            )
        else:
            add_group(a, b, c, d, center, half_width, used, first, second)
    if weighting == EQUAL_WEIGHTS:
        weight[:] = used
        square[:] = used


@compiled
def stack_segments(
    images: NDArray[Any],
    masks: Planes,
    variances: NDArray[Any],
    weights: NDArray[Any],
    segments: NDArray[np.int64],
    factors: Doubles,
    input_weights: Doubles,
    bits: Planes,
    largest: NDArray[Any],
    pairs: NDArray[np.int64],
    ranks: NDArray[np.int64],
    fractions: Doubles,
    options: tuple[int, float, int, int, bool, bool],
    image: NDArray[Any],
    variance: NDArray[Any],
    planes: Planes,
    all_planes: Planes,
    counted: Planes,
    rejected: Planes,
) -> None:
    """Write the statistic of every pixel of the segments over the inputs.

    ``segments`` are rows (start, stop, region) of pixels, ``factors`` (region, input) multiply the
    values. ``bits`` are those that leave a value out and those set where values were clipped, only
    one was used, or none. ``options``: statistic, clip, iterations, weighting (of all inputs
    alike, one weight for each input, one for each pixel), whether the weights of pixels are inverse
    variances, variance from the inputs. Absent masks, variances and weights have no pixels.
    ``counted`` are the inputs used and ``rejected`` those that clipping left out.
    """
    statistic, clip, iterations, weighting, inverse, propagate = options
    n = images.shape[0]
    grouped = (n + GROUP - 1) // GROUP * GROUP
    dtype = largest.dtype
    rows = np.full((grouped, TILE), largest[1], dtype)
    ordered = np.full((grouped, TILE), largest[1], dtype)
    row_weights = np.ones((n, TILE), np.float64)
    padded_weights = np.ones(grouped, np.float64)
    for k in range(n):
        row_weights[k] = input_weights[k]
        padded_weights[k] = input_weights[k]
    count = np.empty(TILE, np.int32)
    iqr, center, half_width = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    mean, spread, propagated = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    sums = np.empty((5, TILE))
    has_variances, has_masks = variances.shape[1] > 0, masks.shape[1] > 0
    for s in range(segments.shape[0]):
        region = segments[s, 2]
        for start in range(segments[s, 0], segments[s, 1], TILE):
            stop = min(start + TILE, segments[s, 1])
            count[:] = 0
            for k in range(n):
                factor = factors[region, k]
                load_row(
                    images[k, start:stop], masks[k, start:stop], bits, factor, largest, rows[k]
                )
                if weighting == BY_PIXEL:
                    weigh_row(
                        weights[k, start:stop],
                        variances[k, start:stop],
                        inverse,
                        input_weights[k],
                        factor,
                        largest,
                        rows[k],
                        row_weights[k],
                    )
            passes = 1
            half_width[:] = LARGEST
            if statistic == MEAN and weighting != EQUAL_WEIGHTS:
                first_values(rows[:n], center)
            else:
                # also for the mean: sums in ascending order don't depend on the order of the inputs
                for k in range(n):
                    count_row(rows[k], largest, count)
                    ordered[k] = rows[k]
                sort_rows(ordered[:n], pairs)
                tile_quartiles(ordered, count, ranks, fractions, center, iqr)
            if statistic == CLIPPED_MEAN:
                passes = iterations
                for i in range(TILE):
                    width = clip * QUARTILE_TO_SIGMA * iqr[i]
                    half_width[i] = LARGEST if width > LARGEST else width
            summed = ordered if weighting == EQUAL_WEIGHTS else rows
            for index in range(passes):
                sums_of_pass(
                    summed, row_weights, padded_weights, weighting, center, half_width, sums
                )
                solve_pass(sums[0], sums[1], sums[2], sums[3], sums[4], mean, spread)
                if index + 1 < passes:
                    next_pass(count, mean, spread, clip, center, half_width)
            if has_variances:
                propagated[:] = 0.0
                for k in range(n):
                    add_variances(
                        rows[k],
                        row_weights[k],
                        variances[k, start:stop],
                        factors[region, k],
                        center,
                        half_width,
                        propagated,
                    )
            if has_masks:
                for k in range(n):
                    join_planes(
                        rows[k],
                        masks[k, start:stop],
                        center,
                        half_width,
                        planes[start:stop],
                        all_planes[start:stop],
                    )
            for i in range(stop - start):
                p = start + i
                used, weight, square = sums[0, i], sums[1, i], sums[2, i]
                error = spread[i] * square / (weight * weight) if used > 1.0 else NAN
                if has_variances and (propagate or used == 1.0):
                    error = propagated[i] / (weight * weight) if used > 0.0 else NAN
                if statistic == MEDIAN:
                    image[p] = center[i] if used > 0.0 else NAN
                    error = error if used == 1.0 else error * (0.5 * math.pi)
                else:
                    image[p] = center[i] + mean[i]
                variance[p] = error
                counted[p] = np.int32(used)
                clipped = statistic == CLIPPED_MEAN and count[i] > used
                rejected[p] = count[i] - np.int32(used) if clipped else 0
                if used > 0.0 and clipped:
                    planes[p] |= bits[1]
                if used == 1.0:
                    planes[p] |= bits[2]
                if used == 0.0:
                    planes[p] = bits[3]
