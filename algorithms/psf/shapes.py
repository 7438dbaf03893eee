"""How large and how round a point-spread function is: moments and width at half maximum."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf.stamps import stamp_values

__all__ = ["psf_fwhm", "psf_moments"]

Floats = NDArray[np.float64]

DIRECTIONS = 32  # in which the half maximum is searched
STEP = 0.1  # pixel, along each of them
PEAK_STEPS = 3  # of Newton's method


def psf_moments(psf: xr.DataArray) -> xr.Dataset:
    """Return the first and second moments of images, unweighted.

    Parameters
    ----------
    psf : DataArray, (..., psf_y, psf_x)
        Any normalisation; the centre pixel is at 0. NaN images have NaN moments.

    Returns
    -------
    Dataset, (...)
        ``y``, ``x`` [pixel]; ``yy``, ``xx``, ``yx`` [pixel2] about the centroid; ``radius2``
        [pixel2], the mean of ``yy`` and ``xx``: sigma squared of a Gaussian.

    Raises
    ------
    ValueError
        If a dimension is missing or a side is even.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> moments = psf_moments(gaussian_psf(2.3548 * 3, size=61, offset=(0.0, 0.5)))
    >>> round(float(moments.x), 4), round(float(moments.radius2), 3)
    (0.5, 9.0)
    """
    values = stamp_values(psf)
    y = (np.arange(values.shape[-2]) - values.shape[-2] // 2)[:, None].astype(np.float64)
    x = (np.arange(values.shape[-1]) - values.shape[-1] // 2)[None, :].astype(np.float64)
    total = values.sum((-2, -1))
    axes = (-2, -1)
    mean_y = (values * y).sum(axes) / total
    mean_x = (values * x).sum(axes) / total
    yy = (values * y**2).sum(axes) / total - mean_y**2
    xx = (values * x**2).sum(axes) / total - mean_x**2
    yx = (values * y * x).sum(axes) / total - mean_y * mean_x
    leading = tuple(dim for dim in psf.dims if dim not in (v.PSF_Y, v.PSF_X))
    first, second = {"units": v.PIXEL}, {"units": v.PIXEL2}
    return xr.Dataset(
        {
            "y": (leading, mean_y, first),
            "x": (leading, mean_x, first),
            "yy": (leading, yy, second),
            "xx": (leading, xx, second),
            "yx": (leading, yx, second),
            "radius2": (leading, 0.5 * (yy + xx), second),
        }
    )


def psf_fwhm(psf: xr.DataArray) -> xr.DataArray:
    """Return the full width at half maximum of images.

    It is the diameter of the circle that has the area inside the contour at half of the peak: for
    an ellipse the geometric mean of its axes.

    Parameters
    ----------
    psf : DataArray, (..., psf_y, psf_x)
        Any normalisation; the peak lies within a pixel of the brightest one. A centred Gaussian or
        Moffat is measured to 0.6 per cent from a width of 2 pixels on, to 0.1 from 3 and 0.03 from
        4; elongated (0.7) or off centre, to 0.4 per cent from 3.5 pixels on and 0.03 from 5.

    Returns
    -------
    DataArray, (...), float64, pixel
        NaN where the image has NaN, no positive peak, or does not fall to half of it.

    Raises
    ------
    ValueError
        If a dimension is missing or a side is even.

    Examples
    --------
    >>> from skyloom.algorithms.psf import moffat_psf
    >>> round(float(psf_fwhm(moffat_psf(4.2, axis_ratio=0.8, angle=20))), 2)
    4.2
    """
    values = stamp_values(psf)
    leading = values.shape[:-2]
    out = np.full(leading, np.nan)
    for index in np.ndindex(*leading):
        out[index] = _width(values[index])
    dims = tuple(dim for dim in psf.dims if dim not in (v.PSF_Y, v.PSF_X))
    return xr.DataArray(out, dims=dims, attrs={"units": v.PIXEL})


def _width(image: Floats) -> float:
    """Return the width of one image."""
    if not np.isfinite(image).all() or not image.max() > 0:
        return np.nan
    spline = spline_filter(image, order=5, output=np.float64, mode="constant")

    def at(y: Floats, x: Floats) -> Floats:
        values: Floats = map_coordinates(spline, (y, x), order=5, mode="constant", prefilter=False)
        return values

    peak_y, peak_x = (float(i) for i in np.unravel_index(np.argmax(image), image.shape))
    h = 0.05
    for _ in range(PEAK_STEPS):
        y = np.array([0, h, -h, 0, 0, h, h, -h, -h]) + peak_y
        x = np.array([0, 0, 0, h, -h, h, -h, h, -h]) + peak_x
        f = at(y, x)
        gradient = np.array([f[1] - f[2], f[3] - f[4]]) / (2 * h)
        cross = (f[5] - f[6] - f[7] + f[8]) / (4 * h * h)
        curvature = np.array(
            [
                [(f[1] - 2 * f[0] + f[2]) / h**2, cross],
                [cross, (f[3] - 2 * f[0] + f[4]) / h**2],
            ]
        )
        if not (np.linalg.det(curvature) > 0 and curvature[0, 0] < 0):
            break
        step = np.clip(-np.linalg.solve(curvature, gradient), -0.5, 0.5)
        peak_y, peak_x = peak_y + step[0], peak_x + step[1]
    peak = float(at(np.array([peak_y]), np.array([peak_x]))[0])
    # the contour of an elongated image may reach far beyond the mean
    reach = 4.0 * np.sqrt(np.count_nonzero(image > 0.5 * peak) / np.pi) + 2.0
    radius = np.arange(0.0, min(reach, min(image.shape) / 2.0), STEP)
    angle = np.arange(DIRECTIONS) * (2.0 * np.pi / DIRECTIONS)
    along = at(peak_y + radius[:, None] * np.sin(angle), peak_x + radius[:, None] * np.cos(angle))
    below = along < 0.5 * peak
    if not below.any(axis=0).all():
        return np.nan
    last = np.argmax(below, axis=0)  # the first sample below half
    ray = np.arange(DIRECTIONS)
    high, low = along[last - 1, ray], along[last, ray]
    crossing = radius[last] - STEP * (0.5 * peak - low) / (high - low)
    return float(2.0 * np.sqrt(np.mean(crossing**2)))
