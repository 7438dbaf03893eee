"""One weight for every warp, and why a warp has none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.inputs import own_mask
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.sky.mask_kernels import usable_pixels
from skyloom.algorithms.statistics import clipped_moments
from skyloom.algorithms.units import squared_units

__all__ = ["WARP_COLUMNS", "mean_variance", "mean_variance_of_parts", "status_of", "warp_weight"]

WARP_COLUMNS = ("weight", "mean_variance", "good_count", "status")


def warp_weight(warp: xr.Dataset, *, parameters: CoaddParameters | None = None) -> xr.Dataset:
    """Return the weight of a warp: the inverse of its clipped mean variance.

    One number for all pixels, because weights that follow the noise of the sources themselves make
    bright sources too faint.

    Parameters
    ----------
    warp : Dataset, (..., y, x)
        ``image`` (any unit), ``variance`` (its square) and perhaps ``mask``. May be lazy; the
        result then is.
    parameters : CoaddParameters, optional
        Which planes are bad and how the mean is clipped.

    Returns
    -------
    Dataset, (...)
        ``weight`` (1 over the unit of the variance), 0 where the warp cannot be used;
        ``mean_variance``; ``good_count``, the pixels that are not bad and finite in image and
        variance; ``status``, an `InputStatus`.

    Raises
    ------
    KeyError
        If image or variance are missing, or the mask does not know a plane.

    Examples
    --------
    >>> warp = xr.Dataset(
    ...     {
    ...         "image": (("y", "x"), np.zeros((2, 3), "float32"), {"units": "nJy"}),
    ...         "variance": (("y", "x"), np.full((2, 3), 4.0, "float32")),
    ...     }
    ... )
    >>> found = warp_weight(warp)
    >>> float(found.weight), int(found.good_count), v.InputStatus(int(found.status)).name
    (0.25, 6, 'OK')
    """
    parameters = parameters or CoaddParameters()
    for name in ("image", "variance"):
        if name not in warp:
            raise KeyError(f"the warp has no variable {name!r}, it has {sorted(map(str, warp))}")
    names = [name for name in ("image", "variance", v.MASK) if name in warp]
    core = [v.Y, v.X]
    planes = [warp[n].chunk(dict.fromkeys(core, -1)) if warp[n].chunks else warp[n] for n in names]
    mean, count = xr.apply_ufunc(
        _over_leading,
        *planes,
        kwargs={
            "attributes": dict(warp[v.MASK].attrs) if v.MASK in warp else {},
            "parameters": parameters,
        },
        input_core_dims=[core] * len(names),
        output_core_dims=[[], []],
        dask="parallelized",
        output_dtypes=[np.float64, np.int64],
    )
    status = xr.apply_ufunc(
        status_of, mean, count, dask="parallelized", output_dtypes=[np.uint8]
    ).assign_attrs(v.flag_attributes(v.InputStatus))
    units = str(warp["image"].attrs.get("units", v.DIMENSIONLESS))
    good = status == v.InputStatus.OK
    return xr.Dataset(
        {
            "weight": (1.0 / mean.where(good)).fillna(0.0).assign_attrs(units=_inverse(units)),
            "mean_variance": mean.assign_attrs(units=squared_units(units)),
            "good_count": count.assign_attrs(units=v.PIXEL),
            "status": status,
        }
    )


def _inverse(units: str) -> str:
    return f"1/{squared_units(units)}" if units else v.DIMENSIONLESS


def _over_leading(
    image: NDArray[Any],
    variance: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    attributes: dict[str, Any],
    parameters: CoaddParameters,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    mean = np.empty(image.shape[:-2])
    count = np.empty(image.shape[:-2], np.int64)
    variance = np.broadcast_to(variance, image.shape)
    nothing = np.empty((0, 0), np.int32)
    if mask is not None:
        mask = np.broadcast_to(own_mask(mask, attributes), image.shape)
    for index in np.ndindex(image.shape[:-2]):
        planes = nothing if mask is None else mask[index]
        mean[index], count[index] = mean_variance(image[index], planes, variance[index], parameters)
    return mean, count


def mean_variance(
    image: NDArray[Any],
    mask: NDArray[np.int32],
    variance: NDArray[Any],
    parameters: CoaddParameters,
) -> tuple[float, int]:
    """Return the clipped mean variance (y, x) of good pixels, and their number.

    The mask has skyloom's own legend, or no pixels.
    """
    return mean_variance_of_parts([(image, mask, variance)], parameters)


def mean_variance_of_parts(
    parts: Iterable[tuple[NDArray[Any], NDArray[np.int32], NDArray[Any]]],
    parameters: CoaddParameters,
) -> tuple[float, int]:
    """Return the same of a warp that is read part by part: image, mask and variance of each."""
    bits = v.plane_bits(set(parameters.bad_planes) - set(parameters.dropped_planes))
    spreads: list[NDArray[Any]] = []
    goods: list[NDArray[Any]] = []
    finite = 0
    for image, mask, variance in parts:
        values, spread = (
            np.ascontiguousarray(np.atleast_2d(plane), np.float32) for plane in (image, variance)
        )
        planes = np.ascontiguousarray(np.atleast_2d(mask) if mask.size else mask.reshape(0, 0))
        # infinite and negative variances make a pixel bad; one of 0 makes the mean suspect, and
        # counts
        good = usable_pixels(values, spread, planes, bits)
        if not good.any():
            some = np.isfinite(values)
            if mask.size:
                some &= (planes & np.int32(bits)) == 0
            finite += int(some.sum())
        spreads.append(spread.ravel())
        goods.append(good.ravel())
    moments = clipped_moments(
        _joined(spreads),
        _joined(goods),
        clip=parameters.weight_clip,
        iterations=parameters.weight_iterations,
    )
    if moments.count == 0:  # in no part was a pixel good
        return float("nan"), finite
    return moments.mean, moments.count


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def status_of(mean: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return why warps of these mean variances and good pixels can be used or not."""
    good = np.isfinite(mean) & (np.asarray(mean) > 0)
    status = np.where(good, v.InputStatus.OK, v.InputStatus.BAD_VARIANCE)
    return np.where(np.asarray(count) == 0, v.InputStatus.NO_DATA, status).astype(np.uint8)
