"""Whether visits show their sources as bright as a model says.

A visit whose zero point is off, or that was taken through clouds, shows all its sources too bright
or too faint by one factor. Its pixels must not be taken for artifacts, one by one, but all of them
brought to the flux of the others.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FluxSums", "flux_scales"]

Floats = NDArray[np.float64]
SPREAD: Final = 0.02
"""Part of its flux by which a source may differ for reasons of its own: PSF, colour, neighbours."""
SURE: Final = 4.0
"""Standard errors from 1 at which a scale is believed."""
LEAST: Final = 0.003
"""Deviations of a scale from 1 that do not matter."""
MANY: Final = 5
"""Sources from which on their scatter is known."""
BRIGHT: Final = 10.0
"""Signal to noise from which a source tells of the scale."""


class FluxSums:
    """Sums over the pixels of sources that visits show: (visit, source)."""

    def __init__(self, visits: int, sources: int) -> None:
        self.seen = np.zeros((visits, sources + 1))
        self.said = np.zeros((visits, sources + 1))
        self.variance = np.zeros((visits, sources + 1))

    def add(
        self, visit: int, sources: NDArray[np.integer], images: NDArray[np.float32],
        model: NDArray[np.float32], weights: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Add pixels: their source, what the visit shows, what the model says, their weight."""
        number = self.seen.shape[1]
        self.seen[visit] += np.bincount(sources, images, number)
        self.said[visit] += np.bincount(sources, model, number)
        self.variance[visit] += np.bincount(sources, 1.0 / weights, number)


def flux_scales(
    sums: FluxSums, used: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
) -> Floats:
    """Return the flux of visits over that of a model of all, 1 where they do not differ.

    The weighted median over sources, which a variable star or an artifact does not change. Visits
    are compared with the median visit: the model is not, as it is a mean that one of them drew to
    itself.

    Parameters
    ----------
    sums : FluxSums
    used : array, (visit,)
        Visits that the model is made of; others have a scale of 1.
    known : array, (visit,), optional
        Visits that are known to differ: what is left of it counts, however little it is.

    Returns
    -------
    ndarray, (visit,)

    Examples
    --------
    Three visits, one of which is a tenth too bright:

    >>> sums = FluxSums(3, 20)
    >>> sources, ones = np.arange(1, 21), np.ones(20, np.float32)
    >>> for visit, scale in enumerate((1.0, 1.0, 1.1)):
    ...     sums.add(visit, sources, 1000.0 * scale * ones, 1000.0 * ones, ones)
    >>> flux_scales(sums, np.ones(3, bool)).round(6).tolist()
    [1.0, 1.0, 1.1]
    """
    visits = len(used)
    scales, errors = np.full(visits, np.nan), np.full(visits, np.nan)
    for visit in np.flatnonzero(used):
        said, variance = sums.said[visit], sums.variance[visit]
        at = (said > 0) & (said > BRIGHT * np.sqrt(variance))
        if at.any():
            ratio = sums.seen[visit][at] / said[at]
            noise = np.sqrt(variance[at]) / said[at]
            weights = 1.0 / (noise**2 + SPREAD**2)
            scales[visit] = _weighted_median(ratio, weights)
            errors[visit] = 1.2533 / np.sqrt(weights.sum())
            if at.sum() >= MANY:  # they tell themselves how much they differ
                apart = 1.4826 * _weighted_median(np.abs(ratio - scales[visit]), weights)
                counted = weights.sum() ** 2 / np.square(weights).sum()
                errors[visit] = 1.2533 * apart / np.sqrt(counted)
    if not np.isfinite(scales).any():
        return np.ones(visits)
    relative = scales / np.nanmedian(scales)
    differs = np.abs(relative - 1.0) > np.maximum(SURE * errors, LEAST)
    if known is not None:
        differs |= known
    return np.where(differs & np.isfinite(relative) & (relative > 0), relative, 1.0)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, 0.5 * sums[-1])])
