"""Kernels of coadds: the mean of every pixel over the warps, and what is to be known of it.

Inputs are (warp, pixel), float32; sums are float64. A pixel's result depends on the inputs at that
pixel alone and on the order of the warps, so it is the same for any tiling.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import BLOCK, QUARTILE_TO_SIGMA
from skyloom.algorithms.compiled import compiled, compiled_dividing
from skyloom.algorithms.sorting_network import sort_rows
from skyloom.algorithms.stack_kernels import (
    BY_INPUT,
    GROUP,
    LARGEST,
    TILE,
    join_planes,
    load_row,
    next_pass,
    solve_pass,
    sums_of_pass,
    tile_quartiles,
)

__all__: list[str] = []  # kernels for the modules of this room

# places in the array of bits
BAD, EDGE, CLIPPED, NO_DATA, SENSOR_EDGE, REJECTING, REJECTED, INEXACT = range(8)
JUST_ABOVE = 1.0 + 1e-9  # a fraction of equal weights doesn't exceed itself by rounding
NAN = math.nan
INFINITY = math.inf
ZERO = np.float32(0.0)
LARGEST_SINGLE = float(np.finfo(np.float32).max)

Plane = NDArray[np.float32]
Doubles = NDArray[np.float64]
Planes = NDArray[np.int32]


@compiled
def hide_row(variances: Plane, largest: Plane, row: Plane) -> None:
    """Write infinity where a variance is negative or not finite."""
    limit, infinite = largest[0], largest[1]
    for i in range(variances.size):
        row[i] = row[i] if (variances[i] >= ZERO) & (variances[i] <= limit) else infinite


@compiled
def add_variances(
    row: Plane,
    variances: Plane,
    factor: float,
    center: Doubles,
    half_width: Doubles,
    propagated: Doubles,
) -> None:
    """Add factor x variance of the values inside the interval."""
    for i in range(variances.size):
        term = factor * np.float64(variances[i])
        inside = abs(np.float64(row[i]) - center[i]) <= half_width[i]
        propagated[i] += term if inside else 0.0


@compiled
def count_good(row: Plane, largest: Plane, count: Planes) -> int:
    """Add 1 where a value may be used, and return the number of these."""
    total = 0
    for i in range(row.size):
        count[i] += np.int32(row[i] <= largest[0])
    for i in range(row.size):
        total += int(row[i] <= largest[0])
    return total


@compiled
def add_values(
    row: Plane,
    mask: Planes,
    variances: Plane,
    weight: float,
    factor: float,
    largest: Plane,
    weight_sum: Doubles,
    first: Doubles,
    propagated: Doubles,
    used: Planes,
    all_: Planes,
) -> None:
    """Add weight, weight x value, factor x variance and planes of the values that may be used."""
    limit = largest[0]
    for i in range(variances.size):
        good = row[i] <= limit
        value = np.float64(row[i]) if good else 0.0
        weight_sum[i] += weight if good else 0.0
        first[i] += weight * value
    # loops over few arrays: the compiler checks in each that none overlap, or has no vectors
    for i in range(variances.size):
        variance = np.float64(variances[i]) if row[i] <= limit else 0.0
        propagated[i] += factor * variance
    for i in range(mask.size):
        used[i] |= mask[i] if row[i] <= limit else np.int32(0)
        all_[i] |= mask[i]


@compiled
def add_left_out(mask: Planes, bit: int, good: Planes, weight: float, rejected: Doubles) -> None:
    """Add the weight where a value that may not be used has a plane."""
    for i in range(mask.size):
        rejected[i] += weight if (good[i] == 0) & ((mask[i] & bit) != 0) else 0.0


@compiled
def limit_first_pass(
    rows: Plane,
    variances: Plane,
    factors: Doubles,
    noise_clip: float,
    count: Planes,
    center: Doubles,
    half_width: Doubles,
    work: Doubles,
) -> None:
    """Lower half widths to some standard deviations of the warps, but keep two values at least."""
    everywhere, total, nearest, second = work[0], work[1], work[2], work[3]
    everywhere[:] = LARGEST
    total[:] = 0.0
    for k in range(rows.shape[0]):
        add_variances(rows[k], variances[k], factors[k] ** 2, center, everywhere, total)
    two_nearest(rows, center, nearest, second)
    for i in range(center.size):
        width = max(noise_clip * math.sqrt(total[i] / max(count[i], 1)), second[i])
        half_width[i] = width if width < half_width[i] else half_width[i]


@compiled
def two_nearest(rows: Plane, center: Doubles, nearest: Doubles, second: Doubles) -> None:
    """Write the distances of the nearest and second nearest value to the center."""
    nearest[:] = INFINITY
    second[:] = INFINITY
    for k in range(rows.shape[0]):
        row = rows[k]
        for i in range(center.size):
            distance = abs(np.float64(row[i]) - center[i])
            further = distance if distance > nearest[i] else nearest[i]
            nearest[i] = distance if distance < nearest[i] else nearest[i]
            second[i] = further if further < second[i] else second[i]


@compiled
def add_rejected(
    row: Plane,
    mask: Planes,
    bit: int,
    weight: float,
    center: Doubles,
    half_width: Doubles,
    rejected: Doubles,
) -> None:
    """Add the weight where a value outside the interval has a plane."""
    for i in range(mask.size):
        outside = abs(np.float64(row[i]) - center[i]) > half_width[i]
        rejected[i] += weight if outside & ((mask[i] & bit) != 0) else 0.0


@compiled
def any_has(planes: Planes, bit: int) -> bool:
    """Return whether any pixel has a bit."""
    joined = np.int32(0)
    for i in range(planes.size):
        joined |= planes[i]
    return bool((joined & bit) != 0)


@compiled
def told_planes(used: int, all_: int, clipped: bool, bits: Planes) -> int:
    """Return the planes of a pixel: of the values used, and what the others tell."""
    told = used
    if all_ & bits[EDGE]:
        told |= bits[SENSOR_EDGE]
    if clipped or (all_ & bits[CLIPPED]):
        told |= bits[CLIPPED]
    if all_ & bits[REJECTING]:
        told |= bits[REJECTED]
    if told & (bits[SENSOR_EDGE] | bits[CLIPPED] | bits[REJECTED]):
        told |= bits[INEXACT]
    return told


@compiled
def clipped_pixels(
    images: Plane,
    masks: Planes,
    variances: Plane,
    factors: Doubles,
    weights: Doubles,
    bits: Planes,
    watched: Planes,
    fractions_of_weight: Doubles,
    largest: Plane,
    pairs: NDArray[np.int64],
    ranks: NDArray[np.int64],
    fractions: Doubles,
    options: tuple[float, int, bool, float],
    image: Plane,
    variance: Plane,
    planes: Planes,
    counted: NDArray[np.int16],
    weight_sum: Plane,
    centers: Plane,
    half_widths: Plane,
    good_counts: NDArray[np.int64],
) -> None:
    """Write the clipped mean of every pixel over the warps, with variance, planes and counts.

    Also written are center and half width of the interval of the values used; ``good_counts`` are
    raised by the number of values of each warp that may be used.

    ``factors`` multiply the values of a warp. ``bits`` hold the planes that leave a value out and
    those that are told, see the constants; ``watched`` are planes that are also told where the
    weight left out exceeds ``fractions_of_weight`` of it. ``options``: clip,
    passes, variance from the inputs, and what limits the half width of the first pass, in standard
    deviations of the warps (infinity for nothing). Absent masks have no pixels; planes come in as
    0.
    """
    clip, iterations, propagate, noise_clip = options
    n, size = images.shape
    grouped = (n + GROUP - 1) // GROUP * GROUP
    rows = np.full((grouped, TILE), largest[1], np.float32)
    ordered = np.full((grouped, TILE), largest[1], np.float32)
    padded = np.ones(grouped)
    padded[:n] = weights
    unused = np.empty((0, TILE))
    count = np.empty(TILE, np.int32)
    all_planes = np.empty(TILE, np.int32)
    iqr, center, half_width = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    mean, spread, propagated = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    sums, rejected = np.empty((5, TILE)), np.empty(TILE)
    for start in range(0, size, TILE):
        stop = min(start + TILE, size)
        here = planes[start:stop]
        count[:] = 0
        for k in range(n):
            row = rows[k]
            load_row(images[k, start:stop], masks[k, start:stop], bits, factors[k], largest, row)
            hide_row(variances[k, start:stop], largest, row)
            good_counts[k] += count_good(row, largest, count)
        all_planes[:] = 0
        ordered[:] = rows
        sort_rows(ordered[:n], pairs)
        tile_quartiles(ordered, count, ranks, fractions, center, iqr)
        for i in range(TILE):
            width = clip * QUARTILE_TO_SIGMA * iqr[i]
            half_width[i] = LARGEST if width > LARGEST else width
        if noise_clip < LARGEST:
            limit_first_pass(
                rows[:n],
                variances[:, start:stop],
                factors,
                noise_clip,
                count,
                center,
                half_width,
                sums,
            )
        for index in range(iterations):
            sums_of_pass(rows, unused, padded, BY_INPUT, center, half_width, sums)
            solve_pass(sums[0], sums[1], sums[2], sums[3], sums[4], mean, spread)
            if index + 1 < iterations:
                next_pass(count, mean, spread, clip, center, half_width)
        if propagate:
            propagated[:] = 0.0
            for k in range(n):
                factor = (weights[k] * factors[k]) ** 2
                add_variances(
                    rows[k], variances[k, start:stop], factor, center, half_width, propagated
                )
        if masks.shape[1] > 0:
            for k in range(n):
                join_planes(rows[k], masks[k, start:stop], center, half_width, here, all_planes)
        for j in range(watched.size):
            if any_has(all_planes, watched[j]):
                rejected[:] = 0.0
                for k in range(n):
                    add_rejected(
                        rows[k],
                        masks[k, start:stop],
                        watched[j],
                        weights[k],
                        center,
                        half_width,
                        rejected,
                    )
                for i in range(stop - start):
                    limit = fractions_of_weight[j] * (sums[1, i] + rejected[i]) * JUST_ABOVE
                    if rejected[i] > limit:
                        here[i] |= watched[j]
        for i in range(stop - start):
            p = start + i
            used, weight = sums[0, i], sums[1, i]
            value, error = NAN, INFINITY
            if used > 0.0:
                value = center[i] + mean[i]
                error = propagated[i] if propagate else spread[i] * sums[2, i]
                error = error / (weight * weight)
            told = told_planes(planes[p], all_planes[i], count[i] > used, bits)
            image[p], variance[p], planes[p] = settled(value, error, told, propagate, bits)
            counted[p] = np.int16(count[i])
            weight_sum[p] = np.float32(weight)
            centers[p] = np.float32(center[i])
            half_widths[p] = np.float32(min(half_width[i], LARGEST_SINGLE))


@compiled
def settled(
    value: float, error: float, told: int, propagate: bool, bits: Planes
) -> tuple[float, float, int]:
    """Return value, variance and planes of a pixel; no data without value or propagated error."""
    if value != value or (propagate and error <= 0.0):
        return NAN, INFINITY, told | bits[NO_DATA]
    return value, (INFINITY if error <= 0.0 else error), told


@compiled
def add_warp(
    image: Plane,
    mask: Planes,
    variance: Plane,
    weight: float,
    factor: float,
    bits: Planes,
    watched: Planes,
    largest: Plane,
    sums: Doubles,
    count: NDArray[np.int16],
    used_planes: Planes,
    all_planes: Planes,
    rejected: Doubles,
) -> int:
    """Add a warp to the sums of every pixel, and return the number of its good pixels.

    Rows of ``sums`` are those of weight, weight x value, weight² x variance and, if there are
    five, weight² and weight x value²; ``rejected`` is (plane, pixel). Both may be longer.
    """
    row, good_count = np.empty(TILE, np.float32), np.empty(TILE, np.int32)
    total = 0
    for start in range(0, image.size, TILE):
        stop = min(start + TILE, image.size)
        part = mask[start:stop]
        variances = variance[start:stop]
        load_row(image[start:stop], part, bits, factor, largest, row)
        hide_row(variances, largest, row)
        good_count[:] = 0
        total += count_good(row, largest, good_count)
        add_values(
            row,
            part,
            variances,
            weight,
            (weight * factor) ** 2,
            largest,
            sums[0, start:stop],
            sums[1, start:stop],
            sums[2, start:stop],
            used_planes[start:stop],
            all_planes[start:stop],
        )
        counted = count[start:stop]
        for i in range(counted.size):
            counted[i] += np.int16(good_count[i])
        if sums.shape[0] > 3:
            for i in range(stop - start):
                value = np.float64(row[i]) if good_count[i] > 0 else 0.0
                sums[3, start + i] += weight * weight * good_count[i]
                sums[4, start + i] += weight * value * value
        for j in range(watched.size):
            if any_has(part, watched[j]):
                add_left_out(part, watched[j], good_count, weight, rejected[j, start:stop])
    return total


@compiled
def finish_pixels(
    sums: Doubles,
    count: NDArray[np.int16],
    used_planes: Planes,
    all_planes: Planes,
    rejected: Doubles,
    bits: Planes,
    watched: Planes,
    fractions_of_weight: Doubles,
    image: Plane,
    variance: Plane,
    planes: Planes,
    weight_sum: Plane,
) -> None:
    """Write mean, variance, planes and weight of every pixel from its sums, see `add_warp`."""
    propagate = sums.shape[0] == 3
    size = count.size
    divide(sums[0, :size], sums[1, :size], sums[2, :size], count, image, variance, weight_sum)
    if not propagate:
        for i in range(size):
            weight, squares = sums[0, i], sums[3, i]
            error = NAN if count[i] == 1 else INFINITY
            if count[i] > 1:
                value = sums[1, i] / weight
                spread = sums[4, i] / weight - value * value
                error = spread * squares / (weight * weight - squares)
            variance[i] = INFINITY if error <= 0.0 else error
    tell(used_planes, all_planes, bits, planes)
    for j in range(watched.size):
        tell_watched(sums[0, :size], rejected[j, :size], fractions_of_weight[j], watched[j], planes)
    for i in range(size):
        if count[i] == 0 or (propagate and not variance[i] < INFINITY):
            image[i] = NAN
            planes[i] |= bits[NO_DATA]


@compiled
def tell(used: Planes, all_: Planes, bits: Planes, planes: Planes) -> None:
    """Write `told_planes` of all pixels, none clipped."""
    edge, sensor_edge, clipped = bits[EDGE], bits[SENSOR_EDGE], bits[CLIPPED]
    rejecting, rejected, inexact = bits[REJECTING], bits[REJECTED], bits[INEXACT]
    any_of_three, none = sensor_edge | clipped | rejected, np.int32(0)
    for i in range(planes.size):
        told = used[i] | (all_[i] & clipped)
        told |= sensor_edge if (all_[i] & edge) != 0 else none
        told |= rejected if (all_[i] & rejecting) != 0 else none
        planes[i] = told | (inexact if (told & any_of_three) != 0 else none)


@compiled
def tell_watched(
    weight: Doubles, rejected: Doubles, fraction: float, bit: int, planes: Planes
) -> None:
    """Set a plane where the weight left out that has it exceeds a fraction of all."""
    most = fraction * JUST_ABOVE
    for i in range(planes.size):
        exceeds = rejected[i] > most * (weight[i] + rejected[i])
        planes[i] |= bit if exceeds else np.int32(0)


@compiled_dividing
def divide(
    weight: Doubles,
    first: Doubles,
    propagated: Doubles,
    count: NDArray[np.int16],
    image: Plane,
    variance: Plane,
    weight_sum: Plane,
) -> None:
    """Write mean, variance and weight from sums; an infinite variance where it is not positive."""
    for i in range(count.size):
        total = weight[i] if weight[i] > 0.0 else 1.0
        image[i] = np.float32(first[i] / total)
    for i in range(count.size):
        total = weight[i] if weight[i] > 0.0 else 1.0
        error = propagated[i] / (total * total)
        variance[i] = np.float32(error if error > 0.0 else INFINITY)
    for i in range(count.size):
        weight_sum[i] = np.float32(weight[i])


@compiled
def mean_pixels(
    images: Plane,
    masks: Planes,
    variances: Plane,
    factors: Doubles,
    weights: Doubles,
    bits: Planes,
    watched: Planes,
    fractions_of_weight: Doubles,
    largest: Plane,
    propagate: bool,
    image: Plane,
    variance: Plane,
    planes: Planes,
    counted: NDArray[np.int16],
    weight_sum: Plane,
    good_counts: NDArray[np.int64],
) -> None:
    """Write the mean of every pixel over the warps; arguments are those of `clipped_pixels`."""
    sums, rejected = np.empty((3 if propagate else 5, BLOCK)), np.empty((watched.size, BLOCK))
    used, all_ = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    for start in range(0, image.size, BLOCK):
        stop = min(start + BLOCK, image.size)
        size = stop - start
        count = counted[start:stop]
        sums[:] = 0.0
        rejected[:] = 0.0
        used[:] = 0
        all_[:] = 0
        count[:] = 0
        for k in range(images.shape[0]):
            good_counts[k] += add_warp(
                images[k, start:stop],
                masks[k, start:stop],
                variances[k, start:stop],
                weights[k],
                factors[k],
                bits,
                watched,
                largest,
                sums,
                count,
                used[:size],
                all_[:size],
                rejected,
            )
        finish_pixels(
            sums,
            count,
            used[:size],
            all_[:size],
            rejected,
            bits,
            watched,
            fractions_of_weight,
            image[start:stop],
            variance[start:stop],
            planes[start:stop],
            weight_sum[start:stop],
        )
