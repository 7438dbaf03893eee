"""Kernels of clip_model: leave out what the noise cannot explain, average the rest.

The arrays are those of the stacks, see `skyloom.algorithms.stack_kernels`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.sorting_network import sort_rows
from skyloom.algorithms.stack_kernels import TILE, count_row, load_row, tile_quartiles

__all__: list[str] = []  # kernels for the modules of this room

LEAST_NOISE = 1e-60  # variance; what has none at all is weighted alike
NAN = math.nan

Doubles = NDArray[np.float64]
Planes = NDArray[np.int32]
Bytes = NDArray[np.uint8]


@compiled
def believe(
    ordered: NDArray[Any], count: NDArray[np.int32], center: Doubles, widening: Doubles
) -> None:
    """Of two values, believe the lower: cosmic rays only add. Their difference is noisier."""
    for i in range(center.size):
        two = count[i] == 2
        center[i] = np.float64(ordered[0, i]) if two else center[i]
        widening[i] = 2.0 if two else 1.0


@compiled
def predict(
    row: NDArray[Any],
    variances: NDArray[Any],
    per_level: float,
    constant: float,
    factor: float,
    center: Doubles,
    noise: Doubles,
) -> None:
    """Write the variance that a value at the centre would have.

    It is ``per_level`` x centre + ``constant``, or, if that is not known (NaN), the variance of
    the value itself with the photons taken out by which it differs from the centre.
    """
    if constant == constant:
        for i in range(noise.size):
            level = center[i] if center[i] > 0.0 else 0.0
            noise[i] = level * per_level + constant
        return
    scale = factor * factor
    for i in range(variances.size):
        level = center[i] if center[i] > 0.0 else 0.0
        own = np.float64(variances[i]) * scale - (np.float64(row[i]) - center[i]) * per_level
        noise[i] = own if own > level * per_level else level * per_level


@compiled
def add_plausible(
    row: NDArray[Any],
    noise: Doubles,
    center: Doubles,
    widening: Doubles,
    options: tuple[float, float, float],
    kept: Bytes,
    used: Doubles,
    weight: Doubles,
    first: Doubles,
) -> None:
    """Add weights and weighted differences of the values that the noise explains.

    ``options``: square of the clip, square of the pattern's part of the level, and 1 for weights
    of inverse variances or 0 for equal ones. ``noise`` becomes the weights, 0 where not kept.
    """
    clip, pattern, inverse = options
    for i in range(row.size):
        difference = np.float64(row[i]) - center[i]
        level = center[i] if center[i] > 0.0 else 0.0
        variance = noise[i] if noise[i] > LEAST_NOISE else LEAST_NOISE
        tolerance = clip * widening[i] * (variance + pattern * level * level)
        inside = difference * difference <= tolerance
        w = 1.0 / variance if inverse > 0.0 else 1.0
        w = w if inside else 0.0
        d = difference if inside else 0.0
        kept[i] = np.uint8(inside)
        used[i] += 1.0 if inside else 0.0
        weight[i] += w
        first[i] += w * d
        noise[i] = w


@compiled
def add_squares(weights: Doubles, noise: Doubles, propagated: Doubles) -> None:
    """Add weights² x variances."""
    for i in range(weights.size):
        term = weights[i] * weights[i] * noise[i]
        propagated[i] += term if weights[i] > 0.0 else 0.0


@compiled
def scale_variances(variances: NDArray[Any], factor: float, scaled: Doubles) -> None:
    """Write variances of scaled values."""
    scale = factor * factor
    for i in range(variances.size):
        scaled[i] = np.float64(variances[i]) * scale


@compiled
def join_kept(kept: Bytes, mask: Planes, planes: Planes) -> None:
    """Join the planes of the values kept."""
    for i in range(mask.size):
        planes[i] |= mask[i] if kept[i] != 0 else np.int32(0)


@compiled
def combine_segments(
    images: NDArray[Any],
    masks: Planes,
    variances: NDArray[Any],
    segments: NDArray[np.int64],
    factors: Doubles,
    per_level: Doubles,
    constant: Doubles,
    bits: Planes,
    largest: NDArray[Any],
    pairs: NDArray[np.int64],
    ranks: NDArray[np.int64],
    fractions: Doubles,
    options: tuple[float, float, float],
    image: NDArray[Any],
    variance: NDArray[Any],
    planes: Planes,
    counted: Planes,
    rejected: Planes,
) -> None:
    """Write the combined value of every pixel of the segments.

    ``factors``, ``per_level`` and ``constant`` are (region, input): what multiplies the values,
    and the variance of the scaled value, see `predict`. ``bits`` are those that leave a value out.
    """
    n = images.shape[0]
    dtype = largest.dtype
    rows = np.empty((n, TILE), dtype)
    ordered = np.empty((n, TILE), dtype)
    count = np.empty(TILE, np.int32)
    kept = np.empty(TILE, np.uint8)
    center, iqr, widening = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    noise, own = np.zeros(TILE), np.zeros(TILE)
    used, weight, first, propagated = (
        np.empty(TILE),
        np.empty(TILE),
        np.empty(TILE),
        np.empty(TILE),
    )
    has_variances, has_masks = variances.shape[1] > 0, masks.shape[1] > 0
    for s in range(segments.shape[0]):
        region = segments[s, 2]
        for start in range(segments[s, 0], segments[s, 1], TILE):
            stop = min(start + TILE, segments[s, 1])
            count[:] = 0
            for k in range(n):
                load_row(
                    images[k, start:stop],
                    masks[k, start:stop],
                    bits,
                    factors[region, k],
                    largest,
                    rows[k],
                )
                count_row(rows[k], largest, count)
                ordered[k] = rows[k]
            sort_rows(ordered, pairs)
            tile_quartiles(ordered, count, ranks, fractions, center, iqr)
            believe(ordered, count, center, widening)
            used[:] = 0.0
            weight[:] = 0.0
            first[:] = 0.0
            propagated[:] = 0.0
            for k in range(n):
                factor = factors[region, k]
                own_variances = variances[k, start:stop]
                predict(
                    rows[k],
                    own_variances,
                    per_level[region, k],
                    constant[region, k],
                    factor,
                    center,
                    noise,
                )
                own[:] = noise
                if has_variances:
                    scale_variances(own_variances, factor, own)
                add_plausible(rows[k], noise, center, widening, options, kept, used, weight, first)
                add_squares(noise, own, propagated)
                if has_masks:
                    join_kept(kept, masks[k, start:stop], planes[start:stop])
            for i in range(stop - start):
                p = start + i
                some = used[i] > 0.0
                total = weight[i] if some else 1.0
                image[p] = center[i] + first[i] / total if some else NAN
                variance[p] = propagated[i] / (total * total) if some else NAN
                counted[p] = np.int32(used[i])
                rejected[p] = count[i] - np.int32(used[i])
