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
from scipy.optimize import least_squares

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf import moffat_psf, psf_fwhm

__all__ = ["at_objects", "calm_variance", "round_psfs", "sky_variance", "width_across"]

Floats = NDArray[np.float64]

NODES, SHARES = np.polynomial.hermite_e.hermegauss(7)
"""Of the integral over a Gaussian of unit width."""
EVALUATIONS: Final = 200
"""Of a profile until it fits, at most; some 20 are usual."""


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
    """Return the width of a point-spread function before it was drawn out in a direction.

    Parameters
    ----------
    psf : DataArray, (psf_y, psf_x)
        As measured on stars that refraction draws out along the direction.
    direction : (dy, dx)
        Towards the zenith, of any length.

    Returns
    -------
    float, pixel
        FWHM; NaN of an image without light.

    Notes
    -----
    A round Moffat profile of any exponent that a Gaussian draws out along the direction is fitted
    to all pixels alike. The width of the contour at half of the peak would not do: where a cusp is
    drawn out the peak falls, and its contours move outwards, across too. Profiles of 3.3 pixels
    and more that are drawn out by a box of 2 pixels have their width within 0.3 per cent, by one of
    4 pixels within 1.5 per cent. A profile that is narrower along the direction is shrunk there.

    Examples
    --------
    >>> y, x = np.indices((41, 41)) - 20.0
    >>> star = xr.DataArray(np.exp(-0.5 * (y / 3.0) ** 2 - 0.5 * (x / 2.0) ** 2),
    ...                     dims=("psf_y", "psf_x"))
    >>> round(width_across(star, (1.0, 0.0)) / 2.3548, 2)
    2.0
    """
    start = float(psf_fwhm(psf))
    if not start > 0:
        return np.nan
    image = psf.transpose(v.PSF_Y, v.PSF_X).values.astype(np.float64)
    image = image / image.max()
    rows, columns = (np.arange(side) - (side - 1) / 2.0 for side in image.shape)
    dy, dx = np.asarray(direction, float) / np.hypot(*direction)
    across = rows[:, None] * dx - columns * dy
    along = rows[:, None] * dy + columns * dx

    def left(values: Floats) -> Floats:
        light = _drawn_out(across, along, values)
        return np.ravel(light * ((light * image).sum() / (light**2).sum()) - image)

    first = [np.log(start), np.log(2.0), 0.1 * start, 0.0, 0.0]
    scales = [0.1, 1.0, 0.5, 0.1, 0.1]
    found = least_squares(left, first, x_scale=scales, max_nfev=EVALUATIONS)
    return float(np.exp(found.x[0])) if found.success else np.nan


def _drawn_out(across: Floats, along: Floats, values: Floats) -> Floats:
    """Return a round Moffat profile that a Gaussian draws out along one direction.

    ``values`` are the logarithms of its FWHM and of its exponent less 1, the sigma of the Gaussian
    (negative: by the exponential of it the profile is narrower along), and its place across and
    along.
    """
    fwhm, beta, drawn = np.exp(values[0]), 1.0 + np.exp(values[1]), values[2]
    sigma, narrow = max(drawn, 0.0), np.exp(min(drawn, 0.0))
    far = ((along - values[4])[..., None] - sigma * NODES) / narrow
    square = (across - values[3])[..., None] ** 2 + far**2
    falls = 1.0 + 4.0 * (2.0 ** (1.0 / beta) - 1.0) / fwhm**2 * square
    return np.asarray(falls**-beta @ SHARES)


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
