"""Pixels of a coadd without data, bridged so that what follows sees no holes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v

__all__ = ["fill_no_data"]

Floats = NDArray[np.float64]


def fill_no_data(coadd: xr.Dataset) -> xr.Dataset:
    """Fill the pixels without data from their neighbours.

    A pixel becomes the line between the nearest pixels with data before and after it, along the
    row or the column, whichever gap is shorter; the mean of both lines where they are as long.
    Where the data end, it becomes the median of the image, or 0 if that is negative.

    Parameters
    ----------
    coadd : Dataset, (..., y, x)
        ``image``, float, any unit, and ``mask``. May be lazy; the result then is.

    Returns
    -------
    Dataset, (..., y, x)
        As ``coadd``; filled pixels keep NO_DATA and get INTERPOLATED. Their variance stays
        infinite: they are not measured. Without any data the fill is 0.

    Raises
    ------
    KeyError
        If image or mask are missing, or the mask does not know a plane.

    Examples
    --------
    >>> image = xr.DataArray([[1.0, 2.0, np.nan, 4.0]], dims=("y", "x"))
    >>> mask = xr.DataArray(
    ...     np.array([[0, 0, 256, 0]], "int32"), dims=("y", "x"), attrs=v.mask_attributes()
    ... )
    >>> filled = fill_no_data(xr.Dataset({"image": image, "mask": mask}))
    >>> filled.image.values.tolist(), filled.mask.values.tolist()
    ([[1.0, 2.0, 3.0, 4.0]], [[0, 0, 260, 0]])
    """
    for name in ("image", v.MASK):
        if name not in coadd:
            raise KeyError(f"the coadd has no variable {name!r}, it has {sorted(map(str, coadd))}")
    attributes = dict(coadd[v.MASK].attrs)
    bits = [v.plane_bits([name], attributes) for name in ("NO_DATA", "INTERPOLATED")]
    core = [v.Y, v.X]
    planes = [coadd["image"], coadd[v.MASK]]
    planes = [p if p.chunks is None else p.chunk(dict.fromkeys(core, -1)) for p in planes]
    image, mask = xr.apply_ufunc(
        _over_leading,
        *planes,
        kwargs={"no_data": bits[0], "interpolated": bits[1]},
        input_core_dims=[core, core],
        output_core_dims=[core, core],
        dask="parallelized",
        output_dtypes=[coadd["image"].dtype, coadd[v.MASK].dtype],
    )
    dims = coadd["image"].dims
    return coadd.assign(
        {
            "image": image.transpose(*dims).assign_attrs(coadd["image"].attrs),
            v.MASK: mask.transpose(*dims).assign_attrs(attributes),
        }
    )


def _over_leading(
    image: NDArray[np.floating], mask: NDArray[np.int32], no_data: int, interpolated: int
) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    image, mask = np.array(image), np.array(np.broadcast_to(mask, image.shape))
    for index in np.ndindex(image.shape[:-2]):
        holes = ((mask[index] & mask.dtype.type(no_data)) != 0) | ~np.isfinite(image[index])
        if holes.any():
            image[index][holes] = _bridged(image[index], holes)[holes]
            mask[index][holes] |= mask.dtype.type(interpolated)
    return image, mask


def _bridged(image: NDArray[np.floating], holes: NDArray[np.bool_]) -> Floats:
    """Return an image in which the holes are bridged; other pixels are of no use."""
    across, width = _lines(image, holes)
    along, height = (plane.T for plane in _lines(image.T, holes.T))
    median = float(np.median(image[~holes])) if not holes.all() else 0.0
    fallback = max(median, 0.0)
    found = np.where(width < height, across, along)
    found = np.where(width == height, 0.5 * (across + along), found)
    open_ended = np.isinf(np.minimum(width, height))
    return np.asarray(np.where(open_ended, fallback, found))


def _lines(image: NDArray[np.floating], holes: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the line across each hole along the rows, and the length of the hole."""
    size = image.shape[1]
    place = np.broadcast_to(np.arange(size), image.shape)
    before = np.maximum.accumulate(np.where(holes, -1, place), axis=1)
    after = np.where(holes, size, place)[:, ::-1]
    after = np.minimum.accumulate(after, axis=1)[:, ::-1]
    closed = (before >= 0) & (after < size)
    rows = np.arange(image.shape[0])[:, None]
    start, stop = np.where(closed, before, 0), np.where(closed, after, 0)
    length = np.maximum(stop - start, 1)
    weight = (place - start) / length
    with np.errstate(invalid="ignore"):
        line = (1.0 - weight) * image[rows, start] + weight * image[rows, stop]
    return np.where(closed, line, 0.0), np.where(closed, length, np.inf)
