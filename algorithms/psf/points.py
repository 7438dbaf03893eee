"""Point-spread functions at points of an image, and between them.

A set of them is a Dataset over (point, psf_y, psf_x) with ``psf``, float64, normalised to a sum
of 1, odd sides, centred on the centre pixel, and coordinates ``x``, ``y`` of the points in the
pixels of the image it belongs to. Points without one are NaN throughout.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.psf.linear_kernels import least_squares, weighted_sums
from skyloom.algorithms.psf.stamps import stamp_values

__all__ = ["Between", "evaluate_psf", "psf_at_points", "psf_factors", "psf_weights"]

Floats = NDArray[np.float64]
Between = Literal["nearest", "linear", "quadratic"]

ORDERS: Final[dict[str, int]] = {"nearest": 0, "linear": 1, "quadratic": 2}


def psf_at_points(images: xr.DataArray | NDArray[Any], x: ArrayLike, y: ArrayLike) -> xr.Dataset:
    """Return a set of point-spread functions, each normalised to a sum of 1.

    Parameters
    ----------
    images : array, (point, psf_y, psf_x) or (psf_y, psf_x)
        Images with odd sides; any normalisation. Images with NaN count as missing.
    x, y : array_like, (point,), pixel
        Where they hold.

    Returns
    -------
    Dataset, (point, psf_y, psf_x)
        ``psf`` and the coordinates ``x``, ``y``.

    Raises
    ------
    ValueError
        If sides are even, the numbers differ, or an image has no positive sum.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> psf = psf_at_points(5 * gaussian_psf(3.0), 100.0, 200.0)
    >>> dict(psf.sizes), round(float(psf["psf"].sum()), 12)
    ({'point': 1, 'psf_y': 31, 'psf_x': 31}, 1.0)
    """
    if isinstance(images, xr.DataArray):
        values = stamp_values(images)
    else:
        values = np.asarray(images, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    at_x, at_y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    if values.ndim != 3 or not (values.shape[1] % 2 and values.shape[2] % 2):
        raise GeometryError(f"images must be (point, odd, odd), got shape {values.shape}")
    if at_x.shape != (len(values),) or at_y.shape != (len(values),):
        raise GeometryError(
            f"{len(values)} images need as many x and y, got {at_x.shape} and {at_y.shape}"
        )
    total = values.sum((1, 2))
    if np.any(total <= 0):
        raise GeometryError(f"image {int(np.argmax(total <= 0))} has no positive sum")
    normalised = values / total[:, None, None]
    normalised[~np.isfinite(total)] = np.nan
    return xr.Dataset(
        {"psf": ((v.POINT, v.PSF_Y, v.PSF_X), normalised, {"units": v.DIMENSIONLESS})},
        coords={
            "x": (v.POINT, at_x, {"units": v.PIXEL}),
            "y": (v.POINT, at_y, {"units": v.PIXEL}),
        },
    )


def psf_weights(
    psf: xr.Dataset, x: ArrayLike, y: ArrayLike, between: Between = "nearest"
) -> Floats:
    """Return the weights with which the images of a set add up to those at positions.

    Parameters
    ----------
    psf : Dataset, (point, psf_y, psf_x)
    x, y : array_like, (position,), pixel
    between : str
        ``nearest`` point, or the polynomial (``linear`` or ``quadratic``) through all of them by
        least squares; a lower order where the points are too few or lie on a line.

    Returns
    -------
    ndarray, (position, point), float64
        Each row sums to 1; missing points have weight 0.

    Raises
    ------
    ValueError
        If the name is unknown or every point is missing.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> image = gaussian_psf(3.0).values
    >>> psf = psf_at_points(np.stack([image] * 4), [0, 10, 0, 10], [0, 0, 10, 10])
    >>> bool(np.allclose(psf_weights(psf, [5.0], [5.0], "linear"), 0.25))
    True
    """
    return weighted_sums(*psf_factors(psf, x, y, between))


def psf_factors(
    psf: xr.Dataset, x: ArrayLike, y: ArrayLike, between: Between
) -> tuple[Floats, Floats]:
    """Return `psf_weights` as a product of two matrices, (position, part) and (part, point).

    Parts are points, or terms of the polynomial.
    """
    if between not in ORDERS:
        raise ValueError(f"between must be one of {', '.join(ORDERS)}, got {between!r}")
    values = stamp_values(psf["psf"].transpose(v.POINT, ...))
    good = np.flatnonzero(np.isfinite(values).all((1, 2)))
    if good.size == 0:
        raise NoUsableDataError("the set holds no point-spread function without NaN")
    points = np.stack([np.asarray(psf[name].values, float)[good] for name in ("x", "y")])
    at = np.stack([np.atleast_1d(np.asarray(value, float)) for value in (x, y)])
    middle = 0.5 * (points.min(1, keepdims=True) + points.max(1, keepdims=True))
    extent = np.maximum(0.5 * np.ptp(points, axis=1).max(), 1e-9)
    for order in range(ORDERS[between], 0, -1):
        design = _terms((points - middle) / extent, order)
        if np.linalg.matrix_rank(design) == design.shape[1]:
            right = np.zeros((design.shape[1], len(values)))
            right[:, good] = least_squares(design)
            return _terms((at - middle) / extent, order), right
    distance = ((at[:, :, None] - points[:, None, :]) ** 2).sum(0)
    chosen, part = np.unique(good[np.argmin(distance, axis=1)], return_inverse=True)
    left = np.zeros((at.shape[1], len(chosen)))
    left[np.arange(len(left)), part] = 1.0
    right = np.zeros((len(chosen), len(values)))
    right[np.arange(len(chosen)), chosen] = 1.0
    return left, right


def _terms(positions: Floats, order: int) -> Floats:
    """Return the powers of positions (2, n) up to a total order, (n, terms)."""
    x, y = positions
    return np.stack([x**i * y**j for j in range(order + 1) for i in range(order + 1 - j)], axis=1)


def evaluate_psf(
    psf: xr.Dataset, x: ArrayLike, y: ArrayLike, *, between: Between = "nearest"
) -> xr.DataArray:
    """Return the point-spread function at one or more positions.

    Parameters
    ----------
    psf : Dataset, (point, psf_y, psf_x)
        As `psf_at_points` returns it; points with NaN are left out.
    x, y : float or array_like, (position,), pixel
        In the pixels of the image it belongs to.
    between : "nearest", "linear" or "quadratic"
        See `psf_weights`. Polynomials continue beyond the points.

    Returns
    -------
    DataArray, (psf_y, psf_x) for a single position, else (point, psf_y, psf_x), float64
        Normalised to a sum of 1.

    Raises
    ------
    ValueError
        If the name is unknown, numbers of x and y differ or every point is missing.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_fwhm
    >>> images = np.stack([gaussian_psf(width, size=41).values for width in (3.0, 4.0)])
    >>> psf = psf_at_points(images, [0.0, 100.0], [0.0, 0.0])
    >>> round(float(psf_fwhm(evaluate_psf(psf, 60.0, 5.0))), 2)
    4.0
    """
    at_x, at_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if at_x.shape != at_y.shape or at_x.ndim > 1:
        raise GeometryError(f"x has shape {at_x.shape}, y has {at_y.shape}: one, or a list each")
    weights = psf_weights(psf, at_x, at_y, between)
    values = np.nan_to_num(stamp_values(psf["psf"].transpose(v.POINT, ...)))
    images = weighted_sums(weights, values)
    images /= images.sum((1, 2), keepdims=True)
    attributes = {"units": v.DIMENSIONLESS}
    if at_x.ndim == 0:
        return xr.DataArray(images[0], dims=(v.PSF_Y, v.PSF_X), attrs=attributes)
    return xr.DataArray(
        images,
        dims=(v.POINT, v.PSF_Y, v.PSF_X),
        coords={"x": (v.POINT, at_x), "y": (v.POINT, at_y)},
        attrs=attributes,
    )
