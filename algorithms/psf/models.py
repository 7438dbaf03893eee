"""Model images of point-spread functions: Gaussian, Moffat, double Gaussian.

An image has dimensions (psf_y, psf_x), odd sides, float64, and sums to 1; its centre is that of
the centre pixel unless moved. Widths are those of the model: ``sampled`` takes its value at pixel
centres (the model then already holds what a pixel does to the light), ``integrated`` its mean
over each pixel. An elliptical model has the area of the round one of the same width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf.stamps import odd_size

__all__ = [
    "SIGMA_TO_FWHM",
    "Sampling",
    "double_gaussian_psf",
    "gaussian_psf",
    "moffat_psf",
]

Floats = NDArray[np.float64]
Sampling = Literal["sampled", "integrated"]

SIGMA_TO_FWHM: Final = float(2.0 * np.sqrt(2.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian of sigma 1: 2.3548."""

SIZE_IN_FWHM = 10.0  # default side of an image
NODES = 8  # of the Gauss-Legendre rule over a pixel, along each axis


def gaussian_psf(
    fwhm: float,
    *,
    size: int | None = None,
    axis_ratio: float = 1.0,
    angle: float = 0.0,
    offset: tuple[float, float] = (0.0, 0.0),
    sampling: Sampling = "sampled",
) -> xr.DataArray:
    """Return the image of a Gaussian.

    Parameters
    ----------
    fwhm : float, pixel
        Full width at half maximum, sigma times 2.3548; the geometric mean of both axes.
    size : int, optional
        Odd number of pixels along each side; by default the next one from 10 FWHM on.
    axis_ratio : float
        Minor over major axis, 0 to 1.
    angle : float, degree
        Of the major axis, from x towards y.
    offset : (float, float), pixel
        Of the centre from the centre pixel, along y and x.
    sampling : "sampled" or "integrated"
        At pixel centres, or averaged over pixels.

    Returns
    -------
    DataArray, (psf_y, psf_x), float64
        Normalised to a sum of 1.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> psf = gaussian_psf(4.0)
    >>> psf.shape, round(float(psf[20, 20] / psf[20, 22]), 6), round(float(psf.sum()), 12)
    ((41, 41), 2.0, 1.0)
    """

    def profile(r2: Floats) -> Floats:
        return np.exp(-0.5 * r2 * SIGMA_TO_FWHM**2)

    return _image(profile, fwhm, size, axis_ratio, angle, offset, sampling)


def moffat_psf(
    fwhm: float,
    *,
    beta: float = 3.0,
    size: int | None = None,
    axis_ratio: float = 1.0,
    angle: float = 0.0,
    offset: tuple[float, float] = (0.0, 0.0),
    sampling: Sampling = "sampled",
) -> xr.DataArray:
    """Return the image of a Moffat profile, (1 + (r/alpha)^2)^-beta.

    Parameters
    ----------
    fwhm : float, pixel
        2 alpha sqrt(2^(1/beta) - 1); the geometric mean of both axes.
    beta : float
        How steep the wings are; > 1. Long exposures in turbulence have 2.5 to 5.
    size, axis_ratio, angle, offset, sampling
        As in `gaussian_psf`. The image sums to 1 although the wings reach beyond it.

    Returns
    -------
    DataArray, (psf_y, psf_x), float64

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> psf = moffat_psf(4.0, beta=2.5, size=21)
    >>> round(float(psf[10, 10] / psf[12, 10]), 6)
    2.0
    """
    if not beta > 1:
        raise ValueError(f"beta must be > 1, got {beta}")

    def profile(r2: Floats) -> Floats:
        return np.asarray((1.0 + 4.0 * (2.0 ** (1.0 / beta) - 1.0) * r2) ** -beta)

    return _image(profile, fwhm, size, axis_ratio, angle, offset, sampling)


def double_gaussian_psf(
    fwhm: float,
    *,
    width_ratio: float = 2.5,
    amplitude: float = 0.1,
    size: int | None = None,
    sampling: Sampling = "sampled",
) -> xr.DataArray:
    """Return the image of a Gaussian core on a broader, fainter Gaussian.

    Parameters
    ----------
    fwhm : float, pixel
        Of the core.
    width_ratio : float
        Width of the broad Gaussian over that of the core; > 0.
    amplitude : float
        Peak of the broad Gaussian over that of the core; >= 0.
    size, sampling
        As in `gaussian_psf`; 10 FWHM are those of the wider Gaussian.

    Returns
    -------
    DataArray, (psf_y, psf_x), float64

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    With ``fwhm=7.7`` and ``size=23`` this is the target that the LSST Science Pipelines match to.

    Examples
    --------
    >>> psf = double_gaussian_psf(7.7, size=23)
    >>> round(float(psf[11, 0] / psf[11, 11]), 4)
    0.0399
    """
    if not width_ratio > 0:
        raise ValueError(f"width_ratio must be > 0, got {width_ratio}")
    if not amplitude >= 0:
        raise ValueError(f"amplitude must be >= 0, got {amplitude}")

    def profile(r2: Floats) -> Floats:
        exponent = -0.5 * r2 * SIGMA_TO_FWHM**2
        return np.exp(exponent) + amplitude * np.exp(exponent / width_ratio**2)

    if size is None:
        size = odd_size(SIZE_IN_FWHM * fwhm * max(width_ratio, 1.0)) if fwhm > 0 else 1
    return _image(profile, fwhm, size, 1.0, 0.0, (0.0, 0.0), sampling)


def _image(
    profile: Callable[[Floats], Floats],
    fwhm: float,
    size: int | None,
    axis_ratio: float,
    angle: float,
    offset: tuple[float, float],
    sampling: str,
) -> xr.DataArray:
    """Return the image of a profile of (radius/FWHM)^2."""
    if not (np.isfinite(fwhm) and fwhm > 0):
        raise ValueError(f"fwhm must be > 0 pixel, got {fwhm}")
    if not 0 < axis_ratio <= 1:
        raise ValueError(f"axis_ratio must be in (0, 1], got {axis_ratio}")
    if sampling not in ("sampled", "integrated"):
        raise ValueError(f"sampling must be 'sampled' or 'integrated', got {sampling!r}")
    size = odd_size(SIZE_IN_FWHM * fwhm) if size is None else size
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and >= 1, got {size}")
    pixels = np.arange(size, dtype=np.float64) - size // 2
    nodes, weights = np.zeros(1), np.ones(1)
    if sampling == "integrated":
        nodes, weights = (part / 2.0 for part in np.polynomial.legendre.leggauss(NODES))
    values = np.zeros((size, size))
    turn = np.deg2rad(angle)
    for shift_y, weight_y in zip(nodes, weights, strict=True):
        for shift_x, weight_x in zip(nodes, weights, strict=True):
            y = (pixels + shift_y - offset[0])[:, None]
            x = (pixels + shift_x - offset[1])[None, :]
            along = np.cos(turn) * x + np.sin(turn) * y
            across = np.cos(turn) * y - np.sin(turn) * x
            r2 = (along**2 * axis_ratio + across**2 / axis_ratio) / fwhm**2
            values += weight_y * weight_x * profile(r2)
    attributes: dict[str, Any] = {"units": v.DIMENSIONLESS, "sampling": sampling}
    return xr.DataArray(values / values.sum(), dims=(v.PSF_Y, v.PSF_X), attrs=attributes)
