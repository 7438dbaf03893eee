"""How well the visits of a patch tell colours apart."""

from __future__ import annotations

import warnings
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import dispersion, displacement
from skyloom.algorithms.errors import DegenerateGeometryWarning
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

__all__ = [
    "Identifiability",
    "band_vectors",
    "distance_outside",
    "identifiability",
    "warn_of_degeneracy",
]

Floats = NDArray[np.float64]
SIGNAL_TO_NOISE: Final = 100.0
NONE: Final = 1e-12
"""Spread (pixel2) that is nothing but rounding."""
UNCERTAIN: Final = 0.05
"""Expected error of a first moment, in units of the band, above which colours mean little."""


class Identifiability(NamedTuple):
    """Spread of the dispersion over visits and what colours can be measured with it.

    ``trace`` and ``eigenvalues`` (2,) of the covariance of the vectors of dispersion (pixel2);
    ``moment_sigma``, the expected error of the first spectral moment (in units of the band) of a
    star with a total signal to noise of 100.
    """

    trace: float
    eigenvalues: Floats
    moment_sigma: float


def band_vectors(band: Band, conditions: xr.Dataset, jacobian: Floats) -> Floats:
    """Return the displacement (dy, dx; pixel) of the blue end of a band against its red end.

    Returns
    -------
    ndarray, (visit, 2)
    """
    ends = dispersion(band, conditions, np.array([band.lambda_min, band.lambda_max]))
    return (ends[:, :1] - ends[:, 1:]) * displacement(conditions, jacobian)


def identifiability(vectors: Floats, weights: Floats, fwhm: float) -> Identifiability:
    r"""Return how well visits tell colours apart.

    The error of the first moment of a star in sub-bands is about
    :math:`\sqrt{2} \sigma_p / (S/N \sqrt{tr C})`, with the width of the PSF and the covariance C
    of the vectors of dispersion.

    Parameters
    ----------
    vectors : array, (visit, 2), pixel
        As of `band_vectors`.
    weights : array, (visit,)
    fwhm : float, pixel

    Examples
    --------
    >>> vectors = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    >>> found = identifiability(vectors, np.ones(4), 4.0)
    >>> found.trace, round(found.moment_sigma, 4)
    (9.0, 0.008)
    >>> float(identifiability(vectors[:1], np.ones(1), 4.0).moment_sigma)
    inf
    """
    if not weights.sum() > 0:
        return Identifiability(0.0, np.zeros(2), np.inf)
    about = vectors - np.average(vectors, axis=0, weights=weights)
    spread = (weights[:, None, None] * about[:, :, None] * about[:, None]).sum(axis=0)
    spread /= weights.sum()
    trace = float(np.trace(spread))
    sigma = (
        np.sqrt(2.0) * (fwhm / SIGMA_TO_FWHM) / (SIGNAL_TO_NOISE * np.sqrt(trace))
        if trace > NONE
        else np.inf
    )
    return Identifiability(trace, np.linalg.eigvalsh(spread), float(sigma))


def warn_of_degeneracy(diagnostics: xr.Dataset, subfilters: int) -> None:
    """Warn if the visits of a solution hardly tell the colours that several sub-bands ask for.

    Parameters
    ----------
    diagnostics : Dataset
        With ``dispersion_trace``, ``moment_sigma`` and the ``mean_weight`` of visits; where none
        has data there is nothing to warn of.
    subfilters : int

    Examples
    --------
    >>> told = {"dispersion_trace": 9.0, "moment_sigma": 0.008, "mean_weight": ("visit", [1.0])}
    >>> warn_of_degeneracy(xr.Dataset(told), 3)
    """
    sigma = float(diagnostics["moment_sigma"])
    if subfilters < 2 or sigma <= UNCERTAIN or not (diagnostics["mean_weight"] > 0).any():
        return
    warnings.warn(
        f"the dispersion of the visits spreads by {float(diagnostics['dispersion_trace']):.3g} "
        f"pixel2 only: a colour would be known to {sigma:.2g} of the band at a signal to noise of "
        "100; colours are those of the prior, and templates hold near these visits only",
        DegenerateGeometryWarning,
        stacklevel=4,
    )


def distance_outside(vectors: Floats, vector: Floats) -> float:
    """Return how far (pixel) a vector of dispersion is outside of the hull of those of visits.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> distance_outside(square, np.array([0.5, 0.5]))
    0.0
    >>> distance_outside(square, np.array([0.5, 3.0]))
    2.0
    """
    try:
        hull = ConvexHull(vectors)
    except (QhullError, ValueError):  # all on a line or in a point: the nearest segment counts
        corners = vectors
    else:
        if (hull.equations[:, :2] @ vector + hull.equations[:, 2] <= 1e-9).all():
            return 0.0
        corners = vectors[hull.vertices]
    best = np.inf
    for one in corners:
        for other in corners:
            along = other - one
            length = float(along @ along)
            part = np.clip((vector - one) @ along / length, 0.0, 1.0) if length > 0 else 0.0
            best = min(best, float(np.hypot(*(vector - one - part * along))))
    return best
