"""What the air takes from the light of a band besides moving it: more of the blue, at low altitude.

Warps are on one scale of flux, so what an average star loses is made up for already. What is left
is that each visit shows the sub-bands with weights of its own.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.conditions import airmass
from skyloom.algorithms.dcr.bands import Band

__all__ = ["extinction_factors"]

Floats = NDArray[np.float64]


def extinction_factors(
    band: Band, conditions: xr.Dataset, wavelengths: Floats, weights: Floats
) -> Floats:
    """Return which part of the light of each wavelength a visit has, relative to the mean of all.

    Parameters
    ----------
    band : Band
        Its ``extinction`` k (mag per airmass) holds at wavelengths; without any all factors are 1.
    conditions : Dataset, (visit,)
        With ``altitude`` (degree).
    wavelengths : array, (...), nm
    weights : array, (...)
        Photons of a flat spectrum at these wavelengths, in any unit: light with this spectrum has
        the same flux in all visits, as after a photometric calibration.

    Returns
    -------
    ndarray, (visit, ...)
        10^(-0.4 k (X - X0)) over its mean by the weights, with the airmass X of the visit and
        ``extinction_airmass`` X0 of the band.

    Examples
    --------
    >>> band = Band.from_effective("g", 476.31, 147.0, extinction=((400.0, 0.3), (550.0, 0.1)))
    >>> low = xr.Dataset({"altitude": ("visit", [30.0])})
    >>> factors = extinction_factors(band, low, np.array([410.0, 540.0]), np.ones(2))
    >>> factors.round(3).tolist()
    [[0.921, 1.079]]
    """
    altitudes = np.atleast_1d(conditions["altitude"].to_numpy()).astype(float)
    shape = (altitudes.size, *np.shape(wavelengths))
    if not band.extinction:
        return np.ones(shape)
    at, magnitudes = np.array(band.extinction, float).T
    lost = np.interp(wavelengths, at, magnitudes)
    beyond = np.array([airmass(altitude) for altitude in altitudes]) - band.extinction_airmass
    factors = 10.0 ** (-0.4 * beyond.reshape(-1, *(1,) * np.ndim(wavelengths)) * lost)
    axes = tuple(range(1, factors.ndim))
    mean = (factors * weights).sum(axis=axes, keepdims=True) / np.sum(weights)
    return np.asarray(factors / mean)
