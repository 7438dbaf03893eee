"""How deep light of a filter converts to charge in silicon.

Depths are counted from the surface through which light enters, in um.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.vocabulary import DIMENSIONLESS

__all__ = ["conversion_depth", "silicon_absorption"]

Floats = NDArray[np.float64]

HC: Final = 1239.841984
"""Planck's constant times the speed of light, eV nm."""
BOLTZMANN: Final = 8.617333262e-5
"""eV/K"""
GAPS: Final = (1.1557, 2.5)
"""Indirect gaps at 0 K, eV."""
DIRECT_GAP: Final = 3.2
PHONONS: Final = (1.827e-2, 5.773e-2)
"""Phonon energies, eV."""
PHONON_STRENGTHS: Final = (5.5, 4.0)
GAP_STRENGTHS: Final = (3.231e2, 7.237e3)
"""1/(cm eV2)"""
DIRECT_STRENGTH: Final = 1.052e6
"""1/(cm eV^(1/2))"""
VARSHNI: Final = (7.021e-4, 1108.0)
"""How gaps shrink with temperature, eV/K and K."""
PER_UM: Final = 1e-4
COLD: Final = 173.0
"""Usual temperature of a survey CCD, K."""


def silicon_absorption(wavelength: ArrayLike, temperature: float = COLD) -> Floats:
    """Return the absorption coefficient of silicon.

    Parameters
    ----------
    wavelength : array_like, nm
        Wavelength in vacuum, > 0.
    temperature : float, K
        Temperature.

    Returns
    -------
    ndarray, float64, 1/um
        At 300 K within 15 % of Green and Keevers 1995 up to 500 nm and some 45 % above them
        from 600 to 1000 nm; the temperature is what the formula is for.

    Raises
    ------
    ValueError
        If a wavelength or the temperature is not positive.

    Notes
    -----
    Rajkanan, Singh and Shewchun 1979, Solid-State Electronics 22, 793: two indirect gaps with
    two phonons each, absorbed and emitted, and one direct gap.

    Examples
    --------
    >>> blue, red = 1 / silicon_absorption([450.0, 1000.0])
    >>> bool(blue < 1.0), bool(red > 200.0)
    (True, True)
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    if not (np.all(wavelength > 0) and temperature > 0):
        raise ValueError(
            f"wavelength and temperature must be positive, got {wavelength} and {temperature}"
        )
    photon = HC / wavelength
    shrink = VARSHNI[0] * temperature**2 / (temperature + VARSHNI[1])
    total = np.zeros_like(photon)
    for phonon, coupling in zip(PHONONS, PHONON_STRENGTHS, strict=True):
        ratio = phonon / (BOLTZMANN * temperature)
        for gap, strength in zip(GAPS, GAP_STRENGTHS, strict=True):
            absorbed = np.maximum(photon - (gap - shrink) + phonon, 0.0)
            emitted = np.maximum(photon - (gap - shrink) - phonon, 0.0)
            phonons = absorbed**2 / np.expm1(ratio) - emitted**2 / np.expm1(-ratio)
            total += coupling * strength * phonons
    total += DIRECT_STRENGTH * np.sqrt(np.maximum(photon - (DIRECT_GAP - shrink), 0.0))
    return np.asarray(total * PER_UM)


def conversion_depth(
    wavelength: ArrayLike,
    throughput: ArrayLike,
    *,
    thickness: float = 100.0,
    bin_size: float = 1.0,
    temperature: float = COLD,
) -> xr.DataArray:
    """Return the distribution of the depth at which the light of a filter converts.

    Parameters
    ----------
    wavelength : array_like, (wavelength), nm
        Wavelengths of the throughput, increasing.
    throughput : array_like, (wavelength)
        Throughput of energy; times the wavelength it gives photons.
    thickness : float, um
        Thickness of the silicon. Light that reaches the far side is not counted.
    bin_size : float, um
        Width of the bins of depth.
    temperature : float, K
        Temperature of the silicon.

    Returns
    -------
    DataArray, (depth), float64
        Probability of each bin, of sum 1; ``depth`` is the middle of the bin in um.

    Raises
    ------
    ValueError
        If the shapes differ, wavelengths do not increase, or the throughput is negative, not
        finite or zero everywhere.

    Examples
    --------
    >>> red = conversion_depth([740.0, 750.0, 760.0], [0.0, 1.0, 0.0])
    >>> bool(5 < float((red * red.depth).sum()) < 15), round(float(red.sum()), 12)
    (True, 1.0)
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    weight = np.asarray(throughput, dtype=np.float64)
    if wavelength.shape != weight.shape or wavelength.ndim != 1 or len(wavelength) == 0:
        raise ValueError(
            f"wavelength {wavelength.shape} and throughput {weight.shape} must be lists "
            "of the same length"
        )
    if not np.all(np.diff(wavelength) > 0):
        raise ValueError("wavelength must increase")
    if not (np.all(np.isfinite(weight) & (weight >= 0)) and np.any(weight > 0)):
        raise ValueError("throughput must be finite, >= 0 and not zero everywhere")
    if not 0 < bin_size <= thickness:
        raise ValueError(f"bin_size {bin_size} must be positive and at most thickness {thickness}")
    # uneven wavelengths count by the interval they stand for
    interval = np.gradient(wavelength) if len(wavelength) > 1 else np.ones(1)
    photons = weight * wavelength * interval
    edges = np.append(np.arange(0.0, thickness, bin_size), thickness)
    left = np.exp(-silicon_absorption(wavelength, temperature)[:, None] * edges)
    probability = photons @ (left[:, :-1] - left[:, 1:])
    return xr.DataArray(
        probability / probability.sum(),
        dims="depth",
        coords={"depth": ("depth", (edges[1:] + edges[:-1]) / 2, {"units": "um"})},
        name="conversion_depth",
        attrs={"units": DIMENSIONLESS},
    )
