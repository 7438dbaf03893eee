"""Exposures as the steps of detrending take them, checked, and brought into one form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, trimmed_shape
from skyloom.algorithms.detrend.calibrations import own_planes

__all__ = ["frame_planes", "whole"]


def frame_planes(
    exposure: xr.Dataset,
    *,
    units: Sequence[str] = (),
    rows: Sequence[Amplifier] | None = None,
) -> dict[str, xr.DataArray]:
    """Return ``image``, ``mask`` in skyloom's legend and, if there is one, ``variance``.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, and perhaps ``variance`` and ``mask``.
    units : sequence of str
        What the image may be in; anything without it.
    rows : sequence of Amplifier, optional
        Amplifiers whose trimmed boxes have to lie on the image.

    Raises
    ------
    KeyError
        If there is no image.
    ValueError
        If its units, dimensions or shape are not as needed.
    TypeError
        If the image is not floating point.
    """
    if "image" not in exposure:
        raise KeyError(
            f"the exposure has no variable 'image'; it has {', '.join(map(str, exposure))}"
        )
    image = exposure["image"]
    if image.dtype.kind != "f":
        raise TypeError(f"image must be floating point, got dtype {image.dtype}")
    missing = [name for name in (v.Y, v.X) if name not in image.dims]
    if missing:
        raise ValueError(f"image has dimensions {image.dims}, needs {', '.join(missing)}")
    found = image.attrs.get("units", units[0] if units else "")
    if units and found not in units:
        raise ValueError(f"image has units {found!r}, needs {' or '.join(map(repr, units))}")
    if rows is not None:
        needed, shape = trimmed_shape(list(rows)), (image.sizes[v.Y], image.sizes[v.X])
        if needed != shape:
            raise ValueError(f"image has shape {shape}, the trimmed amplifiers {needed}")
    planes = {"image": image.transpose(..., v.Y, v.X)}
    if "variance" in exposure:
        planes["variance"] = exposure["variance"].transpose(..., v.Y, v.X)
    mask = own_planes(exposure.get(v.MASK), v.MASK_PLANES)
    planes[v.MASK] = xr.zeros_like(planes["image"], np.int32) if mask is None else mask
    return planes


def whole(array: xr.DataArray) -> xr.DataArray:
    """Return an array in one chunk along y and x, if it is lazy."""
    if array.chunks is None:
        return array
    return array.chunk({dim: -1 for dim in (v.Y, v.X) if dim in array.dims})
