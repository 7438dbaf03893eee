"""Kernels of coadds: the mean of every pixel over the warps, and what is to be known of it.

Inputs are (warp, pixel), float32; sums are float64. A pixel's result depends on the inputs at that
pixel alone and on the order of the warps, so it is the same for any tiling.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import QUARTILE_TO_SIGMA
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.sorting_network import sort_rows
from skyloom.algorithms.stack_kernels import (
    BY_INPUT,
    GROUP,
    LARGEST,
    TILE,
    count_row,
    first_values,
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
def coadd_pixels(
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
    options: tuple[bool, float, int, bool, float],
    image: Plane,
    variance: Plane,
    planes: Planes,
    counted: NDArray[np.int16],
    weight_sum: Plane,
    centers: Plane,
    half_widths: Plane,
) -> None:
    """Write the mean of every pixel over the warps, with variance, planes, number and weight.

    Also written are center and half width of the interval of the values used.

    ``factors`` multiply the values of a warp. ``bits`` hold the planes that leave a value out and
    those that are told, see the constants; ``watched`` are planes that are also told where the
    weight left out exceeds ``fractions_of_weight`` of it. ``options``: whether to clip, clip,
    passes, variance from the inputs, and what limits the half width of the first pass, in standard
    deviations of the warps (infinity for nothing). Absent masks have no pixels; planes come in as
    0.
    """
    clipping, clip, iterations, propagate, noise_clip = options
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
    everywhere = np.full(TILE, LARGEST)
    for start in range(0, size, TILE):
        stop = min(start + TILE, size)
        here = planes[start:stop]
        count[:] = 0
        for k in range(n):
            row = rows[k]
            load_row(images[k, start:stop], masks[k, start:stop], bits, factors[k], largest, row)
            hide_row(variances[k, start:stop], largest, row)
            count_row(row, largest, count)
        passes = 1
        half_width[:] = LARGEST
        if clipping:
            ordered[:] = rows
            sort_rows(ordered[:n], pairs)
            tile_quartiles(ordered, count, ranks, fractions, center, iqr)
            passes = iterations
            for i in range(TILE):
                width = clip * QUARTILE_TO_SIGMA * iqr[i]
                half_width[i] = LARGEST if width > LARGEST else width
            if noise_clip < LARGEST:
                propagated[:] = 0.0
                for k in range(n):
                    add_variances(
                        rows[k],
                        variances[k, start:stop],
                        factors[k] * factors[k],
                        center,
                        everywhere,
                        propagated,
                    )
                two_nearest(rows[:n], center, mean, spread)
                for i in range(TILE):
                    width = noise_clip * math.sqrt(propagated[i] / max(count[i], 1))
                    width = max(width, spread[i])  # what varies keeps two values at least
                    half_width[i] = width if width < half_width[i] else half_width[i]
        else:
            first_values(rows[:n], center)
        for index in range(passes):
            sums_of_pass(rows, unused, padded, BY_INPUT, center, half_width, sums)
            solve_pass(sums[0], sums[1], sums[2], sums[3], sums[4], mean, spread)
            if index + 1 < passes:
                next_pass(count, mean, spread, clip, center, half_width)
        if propagate:
            propagated[:] = 0.0
            for k in range(n):
                factor = (weights[k] * factors[k]) ** 2
                add_variances(
                    rows[k], variances[k, start:stop], factor, center, half_width, propagated
                )
        all_planes[:] = 0
        if masks.shape[1] > 0:
            for k in range(n):
                join_planes(
                    rows[k], masks[k, start:stop], center, half_width, here, all_planes[: here.size]
                )
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
    sums: Doubles,
    count: NDArray[np.int16],
    used_planes: Planes,
    all_planes: Planes,
    rejected: Doubles,
) -> None:
    """Add a warp to the sums of every pixel.

    Rows of ``sums`` are those of weight, weight x value, weight² x variance and, if there are
    five, weight² and weight x value²; ``rejected`` is (plane, pixel).
    """
    second = sums.shape[0] > 3
    for i in range(image.size):
        planes = mask[i] if mask.size else np.int32(0)
        v, s = np.float64(image[i]) * factor, np.float64(variance[i]) * (factor * factor)
        good = (planes & bits[BAD]) == 0
        good = good and abs(v) <= LARGEST and s >= 0.0 and s <= LARGEST
        all_planes[i] |= planes
        if good:
            sums[0, i] += weight
            sums[1, i] += weight * v
            sums[2, i] += weight * weight * s
            if second:
                sums[3, i] += weight * weight
                sums[4, i] += weight * v * v
            count[i] += np.int16(1)
            used_planes[i] |= planes
        else:
            for j in range(watched.size):
                if planes & watched[j]:
                    rejected[j, i] += weight


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
    for i in range(count.size):
        weight = sums[0, i]
        value, error = NAN, INFINITY
        if count[i] > 0:
            value = sums[1, i] / weight
            if propagate:
                error = sums[2, i] / (weight * weight)
            elif count[i] == 1:
                error = NAN
            else:
                squares = sums[3, i]
                spread = sums[4, i] / weight - value * value
                error = spread * squares / (weight * weight - squares)
        used = used_planes[i]
        for j in range(watched.size):
            limit = fractions_of_weight[j] * (weight + rejected[j, i]) * JUST_ABOVE
            if rejected[j, i] > limit:
                used |= watched[j]
        told = told_planes(used, all_planes[i], False, bits)
        image[i], variance[i], planes[i] = settled(value, error, told, propagate, bits)
        weight_sum[i] = np.float32(weight)
