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


@compiled
def expectations(
    ordered: NDArray[Any],
    count: NDArray[np.int32],
    clip: float,
    pattern: float,
    center: Doubles,
    level: Doubles,
    extra: Doubles,
    width: Doubles,
) -> None:
    """Write level, variance of the pattern and square of the clip of every pixel.

    Of two values the lower is believed, as cosmic rays only add, and their difference is noisier
    than a distance from the median of many.
    """
    for i in range(center.size):
        two = count[i] == 2
        center[i] = np.float64(ordered[0, i]) if two else center[i]
        width[i] = 2.0 * clip if two else clip
    for i in range(center.size):
        level[i] = center[i] if center[i] > 0.0 else 0.0
        extra[i] = pattern * level[i] * level[i]


@compiled
def add_predicted(
    row: NDArray[Any],
    per_level: float,
    constant: float,
    inverse: bool,
    center: Doubles,
    level: Doubles,
    extra: Doubles,
    width: Doubles,
    weights: Doubles,
    sums: tuple[Doubles, Doubles, Doubles, Doubles],
) -> None:
    """Add the values of a row that their predicted noise explains; write their weights.

    The variance of a value is ``per_level`` x level + ``constant``. ``sums`` are those of numbers,
    weights, weighted differences to the centre, and weights² x variances.
    """
    used, weight, first, propagated = sums
    for i in range(row.size):
        d = np.float64(row[i]) - center[i]
        noise = level[i] * per_level + constant
        noise = noise if noise > LEAST_NOISE else LEAST_NOISE
        inside = d * d <= width[i] * (noise + extra[i])
        w = 1.0 / noise if inverse else 1.0
        w = w if inside else 0.0
        d = d if inside else 0.0
        weights[i] = w
        used[i] += 1.0 if inside else 0.0
        weight[i] += w
        first[i] += w * d
        propagated[i] += w * w * noise


@compiled
def add_measured(
    row: NDArray[Any],
    variances: NDArray[Any],
    per_level: float,
    factor: float,
    inverse: bool,
    center: Doubles,
    level: Doubles,
    extra: Doubles,
    width: Doubles,
    weights: Doubles,
    sums: tuple[Doubles, Doubles, Doubles, Doubles],
) -> None:
    """Do the same with the variance of each value, without the photons beyond the centre."""
    used, weight, first, _ = sums
    scale = factor * factor
    for i in range(variances.size):
        d = np.float64(row[i]) - center[i]
        least = level[i] * per_level
        noise = np.float64(variances[i]) * scale - d * per_level
        noise = noise if noise > least else least
        noise = noise if noise > LEAST_NOISE else LEAST_NOISE
        inside = d * d <= width[i] * (noise + extra[i])
        w = 1.0 / noise if inverse else 1.0
        w = w if inside else 0.0
        d = d if inside else 0.0
        weights[i] = w
        used[i] += 1.0 if inside else 0.0
        weight[i] += w
        first[i] += w * d


@compiled
def add_squares(
    weights: Doubles, variances: NDArray[Any], factor: float, propagated: Doubles
) -> None:
    """Add weights² x variances of scaled values."""
    scale = factor * factor
    for i in range(variances.size):
        term = weights[i] * weights[i] * (np.float64(variances[i]) * scale)
        propagated[i] += term if weights[i] > 0.0 else 0.0


@compiled
def join_weighted(weights: Doubles, mask: Planes, planes: Planes) -> None:
    """Join the planes of the values used."""
    for i in range(mask.size):
        planes[i] |= mask[i] if weights[i] > 0.0 else np.int32(0)


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
    and the variance of the scaled value, see `add_predicted`; a constant that is not known (NaN)
    leaves it to the variances. ``bits`` are those that leave a value out.
    """
    clip, pattern, inverse_weights = options
    inverse = inverse_weights > 0.0
    n = images.shape[0]
    dtype = largest.dtype
    rows = np.empty((n, TILE), dtype)
    ordered = np.empty((n, TILE), dtype)
    count = np.empty(TILE, np.int32)
    center, iqr = np.empty(TILE), np.empty(TILE)
    level, extra, width = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    weights, propagated = np.zeros(TILE), np.empty(TILE)
    sums = (np.empty(TILE), np.empty(TILE), np.empty(TILE), np.empty(TILE))
    used, weight, first, predicted = sums
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
            expectations(ordered, count, clip, pattern, center, level, extra, width)
            used[:] = 0.0
            weight[:] = 0.0
            first[:] = 0.0
            predicted[:] = 0.0
            propagated[:] = 0.0
            for k in range(n):
                factor, slope = factors[region, k], per_level[region, k]
                own = variances[k, start:stop]
                if constant[region, k] == constant[region, k]:
                    add_predicted(
                        rows[k],
                        slope,
                        constant[region, k],
                        inverse,
                        center,
                        level,
                        extra,
                        width,
                        weights,
                        sums,
                    )
                else:
                    add_measured(
                        rows[k],
                        own,
                        slope,
                        factor,
                        inverse,
                        center,
                        level,
                        extra,
                        width,
                        weights,
                        sums,
                    )
                if has_variances:
                    add_squares(weights, own, factor, propagated)
                if has_masks:
                    join_weighted(weights, masks[k, start:stop], planes[start:stop])
            squares = propagated if has_variances else predicted
            for i in range(stop - start):
                p = start + i
                some = used[i] > 0.0
                total = weight[i] if some else 1.0
                image[p] = center[i] + first[i] / total if some else NAN
                variance[p] = squares[i] / (total * total) if some else NAN
                counted[p] = np.int32(used[i])
                rejected[p] = count[i] - np.int32(used[i])
