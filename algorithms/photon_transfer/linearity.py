"""Pairs whose mean signal does not follow the light they received."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.solve_parameters import LinearityParameters

__all__ = ["linearity_outliers"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def linearity_outliers(
    mean: Floats,
    light: Floats,
    usable: Booleans,
    *,
    parameters: LinearityParameters | None = None,
) -> Booleans:
    """Find pairs whose mean does not follow the light they received.

    The ratio mean / light is compared with its median over the neighbours in signal, so a smooth
    nonlinearity and the approach to saturation pass while a single wrong reading does not.

    Parameters
    ----------
    mean : array, (pair), float64, adu
        Mean signals.
    light : array, (pair), float64
        Photodiode charge or exposure time, in any unit.
    usable : array, (pair), bool
        Pairs to be judged and to judge by.
    parameters : LinearityParameters, optional
        Tolerance and number of neighbours.

    Returns
    -------
    array, (pair), bool
        True for outliers. Pairs whose light is not finite and positive are not judged, nor are
        the lowest and the highest, which have neighbours on one side only.

    Examples
    --------
    >>> light = np.arange(1.0, 21.0)
    >>> mean = 100 * light
    >>> mean[7] *= 1.02
    >>> np.flatnonzero(linearity_outliers(mean, light, np.ones(20, dtype=bool)))
    array([7])
    """
    parameters = parameters or LinearityParameters()
    with np.errstate(invalid="ignore"):
        judged = usable & np.isfinite(mean) & np.isfinite(light) & (light > 0)
    order = np.flatnonzero(judged)[np.argsort(mean[judged], kind="stable")]
    outlier = np.zeros(len(mean), dtype=bool)
    ratio = mean[order] / light[order]
    number = len(order)
    for position in range(1, number - 1):
        # as many neighbours on both sides, so that a slope cancels
        reach = min(parameters.neighbours, position, number - 1 - position)
        local = np.median(ratio[position - reach : position + reach + 1])
        outlier[order[position]] = abs(ratio[position] / local - 1) > parameters.tolerance
    return outlier
