"""Warps that stay where they are stored, and are changed as they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from skyloom.algorithms import vocabulary as v
from skyloom.storage.lazy import windowed

__all__ = ["Change", "changed"]

Images = NDArray[np.float32]
Change: TypeAlias = Callable[[Images, int, slice, slice], Images]
"""``f(image, index, rows, columns)``: takes a part (y, x) of a visit, the place of the visit in its
stack and where the part lies; returns the part as it should be."""


def changed(stack: xr.DataArray, change: Change) -> xr.DataArray:
    """Return a stack of images each of which is changed whenever a part of it is read.

    Parameters
    ----------
    stack : DataArray, (visit, y, x), float32
        Lazily indexed; it is read only as far as the result is.
    change : callable
        See `Change`. A pixel must become the same in every cut-out.

    Examples
    --------
    >>> stack = xr.DataArray(np.zeros((2, 3, 4), "f4"), dims=("visit", "y", "x"))
    >>> found = changed(stack, lambda image, index, rows, columns: image + index)
    >>> found[1, 1:, 2].values.tolist(), found[0, 0, 0].item()
    ([1.0, 1.0], 0.0)
    """
    ordered = stack.transpose(v.VISIT, v.Y, v.X)
    array = indexing.LazilyIndexedArray(_Changed(ordered, change))
    found = xr.Variable(ordered.dims, array, ordered.attrs)
    return xr.DataArray(found, ordered.coords, name=stack.name)


class _Changed(BackendArray):
    """What xarray indexes."""

    def __init__(self, stack: xr.DataArray, change: Change) -> None:
        self._stack, self._change = stack.variable, change
        self.shape = stack.shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        visits = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        (rows, columns), inside = windowed(key[1:], self.shape[1:])
        images = np.empty(
            (visits.size, rows.stop - rows.start, columns.stop - columns.start), np.float32
        )
        read = self._stack[visits, rows, columns].values
        for place, index in enumerate(visits):
            images[place] = self._change(read[place], int(index), rows, columns)
        found = images[:, *_outer(inside, images.shape[1:])]
        return found[0] if np.ndim(key[0]) == 0 and not isinstance(key[0], slice) else found


def _outer(inside: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return keys that choose along each dimension by itself."""
    if sum(isinstance(key, np.ndarray) for key in inside) < 2:
        return inside
    chosen = [np.arange(size)[key] for key, size in zip(inside, shape, strict=True)]
    return tuple(np.ix_(*chosen))
