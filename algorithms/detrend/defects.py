"""Defects of a detector: pixels that are bad in every frame."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.calibrations import own_planes, told

__all__ = ["defect_planes"]

SIDES = ("y_start", "y_stop", "x_start", "x_stop")


def defect_planes(
    defects: xr.Dataset | xr.DataArray | None, shape: tuple[int, int], detector: str = ""
) -> xr.DataArray | None:
    """Return defects as a mask in trimmed pixels.

    Parameters
    ----------
    defects : Dataset or DataArray
        A mask, int planes with their legend or bool (y, x), itself or as variable ``mask``; or
        half-open boxes ``y_start``, ``y_stop``, ``x_start``, ``x_stop`` over one dimension. Boxes
        may reach beyond the detector.
    shape : (int, int)
        Shape of the trimmed detector.
    detector : str
        Name of the detector, or ''.

    Returns
    -------
    DataArray, (y, x), int32
        BAD where a box lies or a bool is true; None without defects.

    Raises
    ------
    ValueError
        If they are of another detector, a mask has another shape, a side is missing, or a box
        ends before it starts.
    TypeError
        If a mask holds neither integers nor bool.

    Examples
    --------
    >>> boxes = xr.Dataset(
    ...     {"y_start": ("defect", [0]), "y_stop": ("defect", [2]),
    ...      "x_start": ("defect", [1]), "x_stop": ("defect", [2])}
    ... )
    >>> defect_planes(boxes, (2, 3)).values.tolist()
    [[0, 1, 0], [0, 1, 0]]
    """
    if defects is None:
        return None
    found = told(defects, v.DETECTOR)
    if found and detector and found != detector:
        raise ValueError(f"defects are of detector {found!r}, the frame of {detector!r}")
    if isinstance(defects, xr.Dataset) and v.MASK not in defects:
        return _boxes(defects, shape)
    mask = defects[v.MASK] if isinstance(defects, xr.Dataset) else defects
    if set(mask.dims) != {v.Y, v.X} or (mask.sizes[v.Y], mask.sizes[v.X]) != shape:
        raise ValueError(f"defects have shape {dict(mask.sizes)}, the trimmed frame {shape}")
    if mask.dtype.kind == "b":
        return (mask.transpose(v.Y, v.X) * np.int32(v.MASK_PLANES["BAD"])).astype(np.int32)
    return own_planes(mask)


def _boxes(defects: xr.Dataset, shape: tuple[int, int]) -> xr.DataArray:
    missing = [name for name in SIDES if name not in defects]
    if missing:
        raise ValueError(f"defects lack {', '.join(missing)}: give a mask or boxes {SIDES}")
    mask = np.zeros(shape, np.int32)
    sides = np.stack([np.atleast_1d(defects[name].to_numpy()) for name in SIDES], axis=1)
    for y_start, y_stop, x_start, x_stop in sides.astype(np.int64):
        if y_stop < y_start or x_stop < x_start:
            box = tuple(int(side) for side in (y_start, y_stop, x_start, x_stop))
            raise ValueError(
                f"defect {box} (y_start, y_stop, x_start, x_stop) ends before it starts"
            )
        mask[max(y_start, 0) : max(y_stop, 0), max(x_start, 0) : max(x_stop, 0)] |= np.int32(
            v.MASK_PLANES["BAD"]
        )
    return xr.DataArray(mask, dims=(v.Y, v.X), attrs=v.mask_attributes())
