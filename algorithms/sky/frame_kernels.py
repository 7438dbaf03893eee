"""Kernels that combine the bins of many exposures.

Arrays are (bin, exposure) so that the exposures of a bin lie side by side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import NAN, QUARTILE_TO_SIGMA, direct, quantile, quartile_ranks
from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]

LEVEL, VARIANCE, SCATTER, OBSERVED, USED, CHI2 = range(6)
QUANTITIES = 6


@compiled
def weighted_median(values: Floats, weights: Floats, total: float) -> float:
    """Return where the sorted weights reach half their sum."""
    order = np.argsort(values)
    below = 0.0
    for i in range(order.size):
        below += weights[order[i]]
        if below >= 0.5 * total:
            return np.float64(values[order[i]])
    return np.float64(values[order[-1]])


@compiled
def spread_of_pulls(pulls: Floats) -> float:
    """Return the robust standard deviation of pulls, at least 1."""
    ordered = np.sort(pulls)
    ranks, fractions = quartile_ranks(pulls.size)
    low = quantile(ordered[ranks[0]], ordered[ranks[1]], fractions[0])
    high = quantile(ordered[ranks[4]], ordered[ranks[5]], fractions[2])
    return max(QUARTILE_TO_SIGMA * (high - low), 1.0)


@compiled
def combine_weighted(
    values: Floats, variances: Floats, clip: float, iterations: int, found: Floats
) -> None:
    """Write the clipped weighted mean of values with known variances.

    Pass 1 keeps values within ``clip`` of the weighted median, in units of their own errors times
    the robust spread of these pulls (at least 1); later passes those about the weighted mean of
    the pass before.
    """
    n = values.size
    weights = 1.0 / variances
    total = 0.0
    for i in range(n):
        total += weights[i]
    center = weighted_median(values, weights, total)
    pulls = np.empty(n)
    for i in range(n):
        pulls[i] = (values[i] - center) / math.sqrt(variances[i])
    limit = clip * spread_of_pulls(pulls)
    used, weight, chi2, second = 0, 0.0, 0.0, 0.0
    mean = center
    for _ in range(iterations):
        used, weight, first = 0, 0.0, 0.0
        for i in range(n):
            difference = values[i] - center
            if abs(difference) <= limit * math.sqrt(variances[i]):
                used += 1
                weight += weights[i]
                first += weights[i] * difference
        if used == 0:
            break
        mean = center + first / weight
        chi2, second = 0.0, 0.0
        for i in range(n):
            if abs(values[i] - center) <= limit * math.sqrt(variances[i]):
                chi2 += weights[i] * (values[i] - mean) ** 2
                second += weights[i] ** 2 * (values[i] - mean) ** 2
        center = mean
        if used > 1:
            limit = clip * max(math.sqrt(chi2 / (used - 1)), 1.0)
    found[LEVEL], found[USED] = mean, used
    found[VARIANCE] = 1.0 / weight if used > 0 else NAN
    found[SCATTER] = second / weight**2 * used / (used - 1) if used > 1 else NAN
    found[CHI2] = chi2


@compiled
def combine_equal(
    values: Floats, variances: Floats, clip: float, iterations: int, found: Floats
) -> None:
    """Write the clipped mean of values; variances serve for its error alone."""
    _, used, mean, variance, _, _, center, half_width = direct(values.copy(), clip, iterations)
    total, chi2 = 0.0, 0.0
    for i in range(values.size):
        if abs(values[i] - center) <= half_width:
            total += variances[i]
            chi2 += (values[i] - mean) ** 2 / variances[i]
    found[LEVEL], found[USED] = mean, used
    found[VARIANCE] = total / used**2 if used > 0 else NAN
    found[SCATTER] = variance / used if used > 0 else NAN
    found[CHI2] = chi2


@compiled
def combine_bins(
    levels: NDArray[Any],
    variances: NDArray[Any],
    weighted: bool,
    clip: float,
    iterations: int,
    out: Floats,
) -> None:
    """Write the combined exposures of each bin, (bin, quantity).

    Values that are not finite are left out; where weights are asked for or any variance is known,
    so are those whose variance is not finite and positive. Without any variance all weights are
    equal and the variance of the mean is NaN.
    """
    bins, exposures = levels.shape
    values, errors = np.empty(exposures), np.empty(exposures)
    for b in range(bins):
        known = 0
        for k in range(exposures):
            if math.isfinite(levels[b, k]) and variances[b, k] > 0 and variances[b, k] < np.inf:
                known += 1
        n = 0
        for k in range(exposures):
            good = variances[b, k] > 0 and variances[b, k] < np.inf
            if math.isfinite(levels[b, k]) and (good or known == 0 or not weighted):
                values[n] = np.float64(levels[b, k])
                errors[n] = np.float64(variances[b, k]) if good else NAN
                n += 1
        found = out[b]
        found[:] = NAN
        found[OBSERVED], found[USED], found[CHI2] = n, 0.0, 0.0
        if n == 0:
            continue
        if weighted and known > 0:
            combine_weighted(values[:n], errors[:n], clip, iterations, found)
        else:
            combine_equal(values[:n], errors[:n], clip, iterations, found)


@compiled
def add_to_histogram(
    place: NDArray[np.int64],
    x: Floats,
    w: Floats,
    count: NDArray[np.int32],
    weight: Floats,
    total: Floats,
) -> None:
    """Add values, (exposure, bin_y, bin_x), of weight > 0 to histograms, (cell, bin_y, bin_x)."""
    exposures, height, width = x.shape
    for k in range(exposures):
        for i in range(height):
            for j in range(width):
                if w[k, i, j] > 0:
                    cell = place[k, i, j]
                    count[cell, i, j] += 1
                    weight[cell, i, j] += w[k, i, j]
                    total[cell, i, j] += w[k, i, j] * x[k, i, j]


@compiled
def share(values: Floats, weights: Floats, fraction: float) -> float:
    """Return the value below which a fraction of the weights lies."""
    order = np.argsort(values)
    wanted, below = fraction * weights.sum(), 0.0
    for i in range(order.size):
        below += weights[order[i]]
        if below >= wanted:
            return np.float64(values[order[i]])
    return np.float64(values[order[-1]])


@compiled
def clip_cells(
    n: Floats, w: Floats, s: Floats, width: float, clip: float, iterations: int, kept: Floats
) -> None:
    """Write weight, sum and count of the values within the clip, from cells that are not empty.

    As `combine_weighted`, with the mean value and the mean weight of a cell for each of its values;
    where outliers are, a cell rarely holds more than one. Values of one cell are taken to scatter
    evenly over it.
    """
    mean, sigma = s / w, np.sqrt(n / w)
    center = share(mean, w, 0.5)
    pulls = (mean - center) / sigma
    spread = QUARTILE_TO_SIGMA * (share(pulls, n, 0.75) - share(pulls, n, 0.25))
    limit = clip * max(spread, 1.0)
    for _ in range(iterations):
        used, first, mass, second = 0.0, 0.0, 0.0, 0.0
        for cell in range(n.size):
            if abs(mean[cell] - center) <= limit * sigma[cell]:
                used += n[cell]
                mass += w[cell]
                first += s[cell]
                within = width * width / 12.0 * (n[cell] - 1.0) / n[cell]
                second += w[cell] * ((mean[cell] - center) ** 2 + within)
        if used == 0:
            break
        kept[0], kept[1], kept[2] = mass, first, used
        shift = first / mass - center
        if used > 1:
            chi2 = second - mass * shift * shift
            limit = clip * max(math.sqrt(max(chi2, 0.0) / (used - 1.0)), 1.0)
        center = first / mass


@compiled
def clip_histograms(
    count: NDArray[np.int32],
    weight: Floats,
    total: Floats,
    width: float,
    clip: float,
    iterations: int,
    out: Floats,
) -> None:
    """Write weight, sum and count of the clipped values of each bin, (3, bin_y, bin_x)."""
    cells, height, columns = count.shape
    n, w, s = np.empty(cells), np.empty(cells), np.empty(cells)
    kept = np.empty(3)
    for i in range(height):
        for j in range(columns):
            filled = 0
            for cell in range(cells):
                if count[cell, i, j] > 0:
                    n[filled] = np.float64(count[cell, i, j])
                    w[filled] = weight[cell, i, j]
                    s[filled] = total[cell, i, j]
                    filled += 1
            kept[:] = 0.0
            if filled > 0:
                clip_cells(n[:filled], w[:filled], s[:filled], width, clip, iterations, kept)
            for quantity in range(3):
                out[quantity, i, j] = kept[quantity]
