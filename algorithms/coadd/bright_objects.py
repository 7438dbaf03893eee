"""Masks of known bright objects, whose surroundings no measurement should trust."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.tangent_plane import TangentPlane, plane_of_header

__all__ = ["mask_bright_objects"]

SIZES: Mapping[str, tuple[str, ...]] = {"circle": ("radius",), "box": ("width", "height")}
ARCSECOND = 1.0 / 3600.0


def mask_bright_objects(coadd: xr.Dataset, objects: xr.Dataset) -> xr.Dataset:
    """Set BRIGHT_OBJECT around known objects.

    Parameters
    ----------
    coadd : Dataset, (..., y, x)
        ``mask`` in skyloom's own legend, the attributes ``wcs`` (FITS keys of the tangent plane)
        and ``box`` (of the pixels in that plane). May be lazy; the result then is.
    objects : Dataset, (object)
        ``right_ascension``, ``declination`` (degree), ``shape`` ("circle" or "box"); ``radius``
        (arcsec) of circles; ``width`` along x, ``height`` along y (arcsec) and perhaps ``angle``
        (degree) of boxes.

    Returns
    -------
    Dataset
        As ``coadd``, with a new ``mask``: the plane is set in pixels whose centre is inside, by
        the scale of the projection at the object.

    Raises
    ------
    KeyError
        If the coadd has no mask, ``wcs`` or ``box``, the mask doesn't know the plane, or a column
        is missing.
    ValueError
        If a box is turned, or a size is not a positive number.

    Warns
    -----
    DroppedInputWarning
        If objects have another shape; they are left out.

    Examples
    --------
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> plane = TangentPlane(30.0, 5.0, 3.0, 2.0, np.array([[-1.0, 0.0], [0.0, 1.0]]) / 3600)
    >>> coadd = xr.Dataset(
    ...     {"mask": (("y", "x"), np.zeros((5, 7), "int32"), v.mask_attributes())},
    ...     attrs={"box": [0, 5, 0, 7], "wcs": plane.header()},
    ... )
    >>> star = xr.Dataset(
    ...     {
    ...         "right_ascension": ("object", [30.0]),
    ...         "declination": ("object", [5.0]),
    ...         "shape": ("object", ["circle"]),
    ...         "radius": ("object", [1.1]),
    ...     }
    ... )
    >>> (mask_bright_objects(coadd, star).mask.values[1:4, 2:5] > 0).astype(int).tolist()
    [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    if v.MASK not in coadd:
        raise KeyError(f"the coadd has no variable 'mask', it has {sorted(map(str, coadd))}")
    for key in ("wcs", "box"):
        if key not in coadd.attrs:
            raise KeyError(f"the coadd has no attribute {key!r}, by which objects are placed")
    mask = coadd[v.MASK]
    bit = v.plane_bits(["BRIGHT_OBJECT"], mask.attrs)
    plane = plane_of_header(coadd.attrs["wcs"])
    covered = _covered(plane, [int(edge) for edge in coadd.attrs["box"]], objects)
    added = xr.DataArray(np.where(covered, bit, 0).astype(mask.dtype), dims=(v.Y, v.X))
    new = (mask | added).transpose(*mask.dims).assign_attrs(mask.attrs)
    return coadd.assign({v.MASK: new})


def _covered(plane: TangentPlane, box: list[int], objects: xr.Dataset) -> NDArray[np.bool_]:
    """Return the pixels of a box that objects cover."""
    for name in ("right_ascension", "declination", "shape"):
        if name not in objects:
            raise KeyError(
                f"objects have no column {name!r}, they have {sorted(map(str, objects))}"
            )
    covered = np.zeros((box[1] - box[0], box[3] - box[2]), np.bool_)
    unknown = set()
    for i in range(objects.sizes[v.OBJECT]):
        row = objects.isel({v.OBJECT: i})
        shape = str(row["shape"].item())
        if shape not in SIZES:
            unknown.add(shape)
            continue
        sizes = [_size(row, name) for name in SIZES[shape]]
        angle = float(row["angle"]) if "angle" in row and shape == "box" else 0.0
        if np.isfinite(angle) and angle != 0.0:
            raise ValueError(f"boxes are aligned with the pixels: angle must be 0, got {angle}")
        x, y, scale = _placed(plane, float(row["right_ascension"]), float(row["declination"]))
        x, y = x - box[2], y - box[0]
        half = [size / scale if shape == "circle" else 0.5 * size / scale for size in sizes]
        _cover(covered, x, y, half)
    if unknown:
        warnings.warn(
            f"objects of unknown shape are not masked: {', '.join(sorted(unknown))}; known are "
            f"{', '.join(SIZES)}",
            DroppedInputWarning,
            stacklevel=3,
        )
    return covered


def _size(row: xr.Dataset, name: str) -> float:
    if name not in row:
        raise KeyError(f"objects have no column {name!r}, they have {sorted(map(str, row))}")
    size = float(row[name])
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"{name} must be a positive number of arcsec, got {size}")
    return size


def _placed(plane: TangentPlane, ra: float, dec: float) -> tuple[float, float, float]:
    """Return pixel (x, y) of a position, and how many arcsec a pixel is wide there."""
    x, y = (float(axis) for axis in plane.to_pixels(ra, dec))
    if not np.isfinite(x):
        return x, y, 1.0
    corners_x, corners_y = np.array([x, x + 1.0, x]), np.array([y, y, y + 1.0])
    right, up = plane.to_sky(corners_x, corners_y)
    east = (np.mod(right - right[0] + 180.0, 360.0) - 180.0) * np.cos(np.deg2rad(dec))
    north = up - up[0]
    area = abs(east[1] * north[2] - east[2] * north[1])
    return x, y, float(np.sqrt(area)) / ARCSECOND


def _cover(covered: NDArray[np.bool_], x: float, y: float, half: list[float]) -> None:
    """Set pixels within a radius, or within half a width and half a height."""
    if not (np.isfinite(x) and np.isfinite(y)):
        return  # behind the horizon of the projection
    width, height = half[0], half[-1]
    rows, columns = covered.shape
    part = (
        slice(max(int(np.ceil(y - height)), 0), min(int(np.floor(y + height)) + 1, rows)),
        slice(max(int(np.ceil(x - width)), 0), min(int(np.floor(x + width)) + 1, columns)),
    )
    if part[0].start >= part[0].stop or part[1].start >= part[1].stop:
        return
    if len(half) == 2:
        covered[part] = True
        return
    away = (np.arange(part[0].start, part[0].stop)[:, None] - y) ** 2
    away = away + (np.arange(part[1].start, part[1].stop) - x) ** 2
    covered[part] |= away <= width**2
