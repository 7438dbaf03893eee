"""Small gaps of an image, such as bad columns and cosmic rays, filled from their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.gap_kernels import fill_gaps
from skyloom.algorithms.detrend.parameters import InterpolationParameters
from skyloom.algorithms.detrend.planes import frame_planes, whole

__all__ = ["fill_small_gaps", "interpolate_pixels"]


def fill_small_gaps(
    image: NDArray[Any],
    variance: NDArray[Any],
    mask: NDArray[np.int32],
    parameters: InterpolationParameters,
) -> int:
    """Fill gaps of one image in place, and return the number of pixels; an empty variance is none.

    Pixels without a number are gaps too, but are filled only if they have a wanted plane.
    """
    bits = np.int32(v.plane_bits(parameters.planes))
    wanted = (mask & bits) != 0
    if not wanted.any():
        return 0
    gaps = wanted | ~np.isfinite(image)
    filled = np.zeros(gaps.shape, np.bool_)
    fill_gaps(gaps, wanted, parameters.longest, image, variance, filled)
    mask[filled] |= np.int32(v.MASK_PLANES["INTERPOLATED"])
    return int(filled.sum())


def interpolate_pixels(
    exposure: xr.Dataset, *, parameters: InterpolationParameters | None = None
) -> xr.Dataset:
    """Fill small gaps of an exposure from their neighbours.

    A pixel of a gap becomes the line between the good pixels at both ends of the gap, along the
    row or the column, whichever is shorter; the mean of both lines where they are as long. Gaps
    that are too long both ways, or that touch the border that way, stay.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, any unit, ``mask``, and perhaps ``variance``. May be lazy.
    parameters : InterpolationParameters, optional
        Which mask planes are filled (none by default), and gaps of what length.

    Returns
    -------
    Dataset, (..., y, x)
        As ``exposure``; filled pixels keep their planes and get INTERPOLATED, and the variance
        of what was averaged.

    Raises
    ------
    KeyError
        If there is no image.
    TypeError
        If the image is not floating point.

    Examples
    --------
    >>> image = xr.DataArray([[1.0, 2.0, np.nan, 4.0]], dims=("y", "x"))
    >>> mask = xr.DataArray(np.array([[0, 0, 1, 0]], np.int32), dims=("y", "x"))
    >>> parameters = InterpolationParameters(planes=("BAD",))
    >>> found = interpolate_pixels(
    ...     xr.Dataset({"image": image, "mask": mask}), parameters=parameters
    ... )
    >>> found.image.values.tolist(), found.mask.values.tolist()
    ([[1.0, 2.0, 3.0, 4.0]], [[0, 0, 5, 0]])
    """
    parameters = parameters or InterpolationParameters()
    planes = frame_planes(exposure)
    names = [name for name in ("image", "variance", v.MASK) if name in planes]
    found = xr.apply_ufunc(
        _interpolated,
        *(whole(planes[name]) for name in names),
        kwargs={"parameters": parameters},
        input_core_dims=[[v.Y, v.X]] * len(names),
        output_core_dims=[[v.Y, v.X]] * len(names),
        dask="parallelized",
        output_dtypes=[planes[name].dtype for name in names],
    )
    attributes = {name: exposure[name].attrs for name in names if name in exposure}
    attributes[v.MASK] = v.mask_attributes()
    return exposure.assign(
        {
            name: array.transpose(*exposure["image"].dims).assign_attrs(attributes[name])
            for name, array in zip(names, found, strict=True)
        }
    )


def _interpolated(
    *planes: NDArray[Any], parameters: InterpolationParameters
) -> tuple[NDArray[Any], ...]:
    image, mask = np.array(planes[0]), np.array(np.broadcast_to(planes[-1], planes[0].shape))
    variance = np.array(np.broadcast_to(planes[1], image.shape)) if len(planes) == 3 else None
    for index in np.ndindex(image.shape[:-2]):
        spread = np.empty((0, 0), image.dtype) if variance is None else variance[index]
        fill_small_gaps(image[index], spread, mask[index], parameters)
    return (image, mask) if variance is None else (image, variance, mask)
