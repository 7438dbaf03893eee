"""Compiled loops over bins: what all visits of a bin have in common, and how far each is off."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["center_bins", "reweight", "spread_functions", "studentise"]


@compiled
def center_bins(
    level: NDArray[Any],
    weight: NDArray[Any],
    fields: NDArray[Any],
    rest: NDArray[Any],
    sky: NDArray[Any],
    total: NDArray[Any],
) -> None:
    """Write levels without their fields and their weighted mean, that mean, and the weight.

    All (bin, visit), but sky and total (bin,). The mean of a bin without weight is NaN, and its
    rest 0.
    """
    bins, visits = level.shape
    for b in range(bins):
        weights, values = 0.0, 0.0
        for visit in range(visits):
            w = weight[b, visit]
            if w > 0.0:
                rest[b, visit] = level[b, visit] - fields[b, visit]
                weights += w
                values += w * rest[b, visit]
            else:
                rest[b, visit] = 0.0
        total[b] = weights
        mean = values / weights if weights > 0.0 else np.nan
        sky[b] = mean
        for visit in range(visits):
            if weight[b, visit] > 0.0:
                rest[b, visit] -= mean


@compiled
def spread_functions(factors: NDArray[Any], functions: NDArray[Any], out: NDArray[Any]) -> None:
    """Write ``factors[bin, visit] functions[bin, term]`` into (bin, visit term)."""
    bins, visits = factors.shape
    terms = functions.shape[1]
    for b in range(bins):
        for visit in range(visits):
            factor = factors[b, visit]
            for term in range(terms):
                out[b, visit * terms + term] = factor * functions[b, term]


@compiled
def studentise(
    level: NDArray[Any],
    weight: NDArray[Any],
    factor: NDArray[Any],
    fields: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """Write residuals over their standard deviation, all (bin, visit); 0 without a residual.

    The sky of a bin is the mean by ``weight * factor``; what a level has in it is taken into
    account.
    """
    bins, visits = level.shape
    for b in range(bins):
        total, squares, values = 0.0, 0.0, 0.0
        for visit in range(visits):
            w = weight[b, visit] * factor[b, visit]
            if w > 0.0:
                total += w
                squares += w * factor[b, visit]
                values += w * (level[b, visit] - fields[b, visit])
        for visit in range(visits):
            w, field = weight[b, visit], fields[b, visit]  # the result may be written over fields
            out[b, visit] = 0.0
            if w > 0.0 and total > 0.0:
                variance = 1.0 / w - 2.0 * factor[b, visit] / total + squares / total**2
                if variance * w > 1e-9:
                    residual = level[b, visit] - field - values / total
                    out[b, visit] = residual / np.sqrt(variance)


@compiled
def reweight(
    residual: NDArray[Any],
    weight: NDArray[Any],
    scale: float,
    huber: float,
    cut: float,
    out: NDArray[Any],
) -> None:
    """Write the robust weights of studentised residuals, (bin, visit).

    Beyond ``cut`` a level has none, unless fewer than three visits see the bin, or nothing would
    be left of it: who is right then cannot be told.
    """
    bins, visits = residual.shape
    for b in range(bins):
        seen, kept = 0, 0
        for visit in range(visits):
            out[b, visit] = 1.0
            if weight[b, visit] > 0.0:
                size = abs(residual[b, visit]) / scale
                seen += 1
                kept += size <= cut
                if size > huber:
                    out[b, visit] = huber / size
        if seen > 2 and kept > 1:
            for visit in range(visits):
                if weight[b, visit] > 0.0 and abs(residual[b, visit]) / scale > cut:
                    out[b, visit] = 0.0
