"""Pictures of the focal plane: binned images of detectors put where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import bin_edges, box_of_image
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.focal_plane import box_corners, to_focal_plane, to_pixels

__all__ = ["binned_image", "focal_plane_mosaic"]

Floats = NDArray[np.float64]


def binned_image(
    image: xr.DataArray, mask: xr.DataArray | None = None, *, binning: int = 8, bits: int = 0
) -> Floats:
    """Return the means of finite pixels without these mask bits in blocks of an image.

    Parameters
    ----------
    image : DataArray, (y, x)
    mask : DataArray, (y, x), int, optional
    binning : int
        Size of a block, pixel; the last blocks are as evenly sized as the others.
    bits : int
        Mask bits of the pixels that are left out.

    Returns
    -------
    array, (bin y, bin x), float64
        NaN where no pixel is left.

    Examples
    --------
    >>> image = xr.DataArray(np.arange(8.0).reshape(2, 4), dims=("y", "x"))
    >>> binned_image(image, binning=2)
    array([[2.5, 4.5]])
    """
    _check_binning(binning)
    values = np.asarray(image.transpose(v.Y, v.X), np.float64)
    good = np.isfinite(values)
    if mask is not None:
        good &= (np.asarray(mask.transpose(v.Y, v.X)) & bits) == 0
    total, count = np.where(good, values, 0.0), good.astype(np.float64)
    for axis, size in enumerate(values.shape):
        starts = bin_edges(size, max(size // binning, 1))[:-1]
        total, count = (np.add.reduceat(array, starts, axis=axis) for array in (total, count))
    means = np.full(total.shape, np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def _check_binning(binning: int) -> None:
    if binning < 1:
        raise ConfigurationError(f"binning must be >= 1 pixel, got {binning}")


def focal_plane_mosaic(
    exposures: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    binning: int = 8,
    ignored_planes: tuple[str, ...] = ("BAD", "SAT", "NO_DATA", "DETECTED"),
) -> xr.DataArray:
    """Return one binned picture of all detectors, each pixel of it from the nearest block.

    Parameters
    ----------
    exposures : mapping from detector to Dataset, (y, x)
        ``image`` and ``mask`` (optional).
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    binning : int
        Size of a pixel of the picture, in pixels of the detectors.
    ignored_planes : tuple of str
        Mask planes whose pixels are left out.

    Returns
    -------
    DataArray, (focal_y, focal_x), float32
        NaN between detectors and where no pixel is left; coordinates in mm.

    Raises
    ------
    ConfigurationError
        If there are no exposures or the binning is below 1.

    Examples
    --------
    >>> image = xr.DataArray(np.ones((4, 4), "float32"), dims=("y", "x"), attrs={"units": "adu"})
    >>> transforms = {i: np.array([[1.0, 0.0, 6.0 * i], [0.0, 1.0, 0.0]]) for i in range(2)}
    >>> exposures = {i: (i * image).to_dataset(name="image") for i in range(2)}
    >>> focal_plane_mosaic(exposures, transforms, binning=2).values[0]
    array([ 0.,  0., nan,  1.,  1.], dtype=float32)
    """
    if not exposures:
        raise ConfigurationError("exposures is empty: there is nothing to show")
    _check_binning(binning)
    corners, pixel = [], 0.0
    for name, exposure in exposures.items():
        box = box_of_image(exposure["image"])
        corners.append(np.array(to_focal_plane(transforms[name], *box_corners(*box))))
        scale = np.sqrt(abs(np.linalg.det(np.asarray(transforms[name])[:, :2])))
        pixel = max(pixel, float(scale) * binning)
    low = np.min([corner.min(axis=1) for corner in corners], axis=0)
    high = np.max([corner.max(axis=1) for corner in corners], axis=0)
    size = np.maximum(np.round((high - low) / pixel), 1).astype(np.int64)
    focal_x, focal_y = (low[i] + (np.arange(size[i]) + 0.5) * pixel for i in range(2))
    picture = np.full((size[1], size[0]), np.nan, np.float32)
    units = ""
    for (name, exposure), corner in zip(exposures.items(), corners, strict=True):
        image = exposure["image"]
        units = str(image.attrs.get("units", units))
        mask = exposure.get(v.MASK)
        bits = 0 if mask is None else v.plane_bits(ignored_planes, mask.attrs)
        blocks = binned_image(image, mask, binning=binning, bits=bits)
        columns = (focal_x >= corner[0].min()) & (focal_x <= corner[0].max())
        rows = (focal_y >= corner[1].min()) & (focal_y <= corner[1].max())
        x, y = to_pixels(transforms[name], *np.meshgrid(focal_x[columns], focal_y[rows]))
        box = box_of_image(image)
        x, y = np.floor(x - box.x_start + 0.5), np.floor(y - box.y_start + 0.5)
        inside = (x >= 0) & (x < box.shape[1]) & (y >= 0) & (y < box.shape[0])
        edges = [bin_edges(n, m) for n, m in zip(box.shape, blocks.shape, strict=True)]
        block_y = np.searchsorted(edges[0], y[inside], side="right") - 1
        block_x = np.searchsorted(edges[1], x[inside], side="right") - 1
        part = picture[np.ix_(rows, columns)]
        part[inside] = blocks[block_y, block_x]
        picture[np.ix_(rows, columns)] = part
    millimetres = {"units": v.MILLIMETRE}
    return xr.DataArray(
        picture,
        dims=(v.FOCAL_Y, v.FOCAL_X),
        coords={
            v.FOCAL_Y: (v.FOCAL_Y, focal_y, millimetres),
            v.FOCAL_X: (v.FOCAL_X, focal_x, millimetres),
        },
        attrs={"units": units},
    )
