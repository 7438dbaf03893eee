"""What a solution needs of warps besides their pixels: noise of the sky, round PSFs.

Refraction draws the images of stars out along the vertical, by their colours. A point-spread
function that was measured on stars has this in it already; only its width across the vertical is
that of the seeing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf import moffat_psf, psf_fwhm

__all__ = ["at_objects", "calm_variance", "round_psfs", "sky_variance", "width_across"]

Floats = NDArray[np.float64]

WINDOW: Final = 1.2
"""Sigma of the Gaussian window of moments, in those of the star: noise of the wings stays out."""


def calm_variance(variance: NDArray[Any], detected: NDArray[np.bool_]) -> float:
    """Return the median variance of the pixels of a warp that no object is in.

    Parameters
    ----------
    variance : array, (y, x)
        Not finite or not positive where there is no data.
    detected : array, (y, x)
        Where objects are.

    Returns
    -------
    float
        NaN if there is no such pixel.

    Examples
    --------
    >>> calm_variance(np.array([[4.0, 9.0, np.inf]]), np.array([[False, True, False]]))
    4.0
    """
    calm = np.isfinite(variance) & (variance > 0) & ~detected
    return float(np.median(variance[calm])) if calm.any() else np.nan


def at_objects(
    variance: NDArray[Any], detected: NDArray[np.bool_], calm: float
) -> NDArray[np.float32]:
    """Return variances with that of the sky at objects, infinite where there is no data.

    Parameters
    ----------
    variance, detected : array, (y, x)
        As for `calm_variance`; or a part of them.
    calm : float
        That of the whole warp; without one the variance at objects stays.
    """
    found = variance.astype(np.float32)
    good = np.isfinite(found) & (found > 0)
    if np.isfinite(calm):
        found[good & detected] = calm
    return np.where(good, found, np.float32(np.inf))


def sky_variance(variance: xr.DataArray, detected: xr.DataArray) -> xr.DataArray:
    """Return the variance of the sky: without the photon noise of objects.

    Weights that follow the noise of objects would make the bright pixels of each star, which say
    most about its colour, count least, and those count more where the noise made them faint.

    Parameters
    ----------
    variance : DataArray, (..., y, x)
        Of warps; not finite or not positive where there is no data. May be lazy; the result then
        is.
    detected : DataArray, (y, x), bool
        Where objects are.

    Returns
    -------
    DataArray, (..., y, x), float32
        In detected pixels the median of the others, infinite where there is no data, all else as
        it is. If everything is detected the variance stays.

    Examples
    --------
    >>> variance = xr.DataArray([[4.0, 4.2, 9.0, np.inf]], dims=("y", "x"))
    >>> objects = xr.DataArray([[False, False, True, True]], dims=("y", "x"))
    >>> sky_variance(variance, objects).values.round(2).tolist()
    [[4.0, 4.199999809265137, 4.099999904632568, inf]]
    """

    def plain(values: NDArray[Any], objects: NDArray[np.bool_]) -> NDArray[np.float32]:
        found = values.astype(np.float32)
        for index in np.ndindex(found.shape[:-2]):
            calm = calm_variance(found[index], objects)
            found[index] = at_objects(found[index], objects, calm)
        return found

    result: xr.DataArray = xr.apply_ufunc(
        plain,
        variance,
        detected,
        input_core_dims=[[v.Y, v.X], [v.Y, v.X]],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    return result.transpose(*variance.dims)


def width_across(psf: xr.DataArray, direction: tuple[float, float]) -> float:
    """Return the width of a point-spread function across a direction: its seeing.

    Parameters
    ----------
    psf : DataArray, (psf_y, psf_x)
        As measured on stars that refraction draws out along the direction.
    direction : (dy, dx)
        Towards the zenith, of any length.

    Returns
    -------
    float, pixel
        FWHM; NaN of an image without light. It is that of the image, the geometric mean of both
        axes, times the root of the ratio of its windowed widths across and along: what a window
        makes of wings is the same in both.

    Examples
    --------
    >>> y, x = np.indices((41, 41)) - 20.0
    >>> star = xr.DataArray(np.exp(-0.5 * (y / 3.0) ** 2 - 0.5 * (x / 2.0) ** 2),
    ...                     dims=("psf_y", "psf_x"))
    >>> round(width_across(star, (1.0, 0.0)) / 2.3548, 2)
    2.0
    """
    image = psf.transpose(v.PSF_Y, v.PSF_X).values.astype(np.float64)
    if not (np.isfinite(image).all() and image.sum() > 0):
        return np.nan
    rows, columns = (np.arange(side) - (side - 1) / 2.0 for side in image.shape)
    dy, dx = np.asarray(direction, float) / np.hypot(*direction)
    across = rows[:, None] * dx - columns * dy
    along = rows[:, None] * dy + columns * dx
    sigma, other = 2.0, 2.0
    for _ in range(100):
        # The window is as wide as the star along both axes, so it narrows both by one factor.
        window = np.exp(-0.5 * ((across / (WINDOW * sigma)) ** 2 + (along / (WINDOW * other)) ** 2))
        light = image * window
        total = light.sum()
        if not total > 0:
            return np.nan
        narrow = (light * across**2).sum() / total, (light * along**2).sum() / total
        found = []
        for squared, width in zip(narrow, (sigma, other), strict=True):
            inverse = 1.0 / squared - 1.0 / (WINDOW * width) ** 2
            found.append(float(np.sqrt(1.0 / inverse)) if inverse > 0 else WINDOW * width)
        done = abs(found[0] - sigma) + abs(found[1] - other) < 1e-6
        sigma, other = found
        if done:
            break
    return float(psf_fwhm(psf)) * float(np.sqrt(sigma / other))


def round_psfs(fwhm: ArrayLike, *, beta: float = 3.0, size: int = 41) -> xr.DataArray:
    """Return round Moffat profiles of some widths, one per visit.

    Parameters
    ----------
    fwhm : array_like, (visit), pixel
    beta : float
        Exponent of the profile.
    size : int
        Odd side of the images, pixel.

    Returns
    -------
    DataArray, (visit, psf_y, psf_x)

    Raises
    ------
    ValueError
        If a width is not positive.

    Examples
    --------
    >>> round_psfs([4.0, 5.0]).sizes
    Frozen({'visit': 2, 'psf_y': 41, 'psf_x': 41})
    """
    widths = np.atleast_1d(np.asarray(fwhm, np.float64))
    if not (widths > 0).all():
        raise ValueError(f"fwhm must be positive, got {widths.tolist()}")
    stamps = [moffat_psf(float(width), beta=beta, size=size).values for width in widths]
    return xr.DataArray(np.stack(stamps), dims=(v.VISIT, v.PSF_Y, v.PSF_X))
