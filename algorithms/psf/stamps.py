"""Images of point-spread functions as plain arrays: checked, padded, cut to size."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError

__all__ = ["fitted", "odd_size", "stamp_values"]

Floats = NDArray[np.float64]


def stamp_values(
    stamp: xr.DataArray,
    dims: Sequence[Hashable] = (v.PSF_Y, v.PSF_X),
    name: str = "psf",
) -> Floats:
    """Return images with their two dimensions last, float64.

    Raises
    ------
    ValueError
        If a dimension is missing or a side is even.

    Examples
    --------
    >>> stamp_values(xr.DataArray(np.ones((3, 1)), dims=("psf_x", "psf_y"))).shape
    (1, 3)
    """
    missing = [str(dim) for dim in dims if dim not in stamp.dims]
    if missing:
        raise GeometryError(f"{name} has dimensions {stamp.dims}, needs {', '.join(missing)}")
    values = np.asarray(stamp.transpose(..., *dims).values, dtype=np.float64)
    if not (values.shape[-1] % 2 and values.shape[-2] % 2):
        raise GeometryError(f"{name} must have odd sides, got {values.shape[-2:]}")
    return values


def fitted(values: NDArray[Any], size: int | tuple[int, int]) -> Floats:
    """Return images padded with zeros, or cut, to other odd sides around the same centre.

    Examples
    --------
    >>> fitted(np.ones((1, 3)), 3).tolist()
    [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    >>> fitted(np.arange(9.0).reshape(3, 3), 1)
    array([[4.]])
    """
    wanted = (size, size) if isinstance(size, int) else size
    out = np.zeros((*values.shape[:-2], *wanted))
    source, target = [], []
    for have, want in zip(values.shape[-2:], wanted, strict=True):
        reach = min(have, want) // 2
        source.append(slice(have // 2 - reach, have // 2 + reach + 1))
        target.append(slice(want // 2 - reach, want // 2 + reach + 1))
    out[..., target[0], target[1]] = values[..., source[0], source[1]]
    return out


def odd_size(least: float) -> int:
    """Return the smallest odd number not below another.

    Examples
    --------
    >>> odd_size(46.2), odd_size(47), odd_size(48)
    (47, 47, 49)
    """
    return 2 * int(np.ceil((least - 1.0) / 2.0)) + 1
