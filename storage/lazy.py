"""Products as lazy datasets: Dask arrays that read chunks when they are computed.

Tiny chunks are gathered into Dask chunks of up to 64 MiB, so that a product of tens of
thousands of blocks opens as a handful of tasks. Images keep one task per chunk. Blocks that
were not done when the product was opened read as fill values, whatever lies on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from skyloom.storage.chunks import Window
from skyloom.storage.dataset_schema import Variable
from skyloom.storage.layout import Layout

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["gathered_chunks", "open_lazily", "windowed"]

_TARGET_BYTES: Final = 64 * 2**20
_LARGE_BYTES: Final = 2**20


class _LazyVariable:
    """What Dask slices: one variable of one product, as its blocks were when it was opened."""

    def __init__(self, store: Store, layout: Layout, name: str, done: NDArray[np.bool_]) -> None:
        variable = layout.variable(name)
        self._store = store
        self._product = layout.schema.name
        self._name = name
        self._done = done
        self.shape = layout.shape(variable)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(variable.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (self.ndim - len(keys))
        depth = self._done.ndim
        rows = [
            np.atleast_1d(np.arange(size)[part])
            for size, part in zip(self._done.shape, keys, strict=False)
        ]
        # The product may have grown since: keep to the shape it had when opened.
        window, rest = windowed(keys[depth:], self.shape[depth:])
        chunks = self._store.chunks(self._product)
        values = chunks.read(self._name, rows, self._done[np.ix_(*rows)], window)
        squeeze = tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in keys)
        return values[(*squeeze[:depth], *rest)]


def windowed(keys: Sequence[Any], shape: Sequence[int]) -> tuple[Window, tuple[Any, ...]]:
    """Return the smallest window that holds what keys choose, and the keys inside of it.

    Examples
    --------
    >>> windowed((slice(2, None), 5, [7, 4]), (10, 10, 10))
    ((slice(2, 10, None), slice(5, 6, None), slice(4, 8, None)), (slice(0, 8, 1), 0, array([3, 0])))
    """
    window: list[slice] = []
    inside: list[Any] = []
    for key, size in zip(keys, shape, strict=True):
        if isinstance(key, slice):
            chosen = range(size)[key]
            low, high = (min(chosen), max(chosen) + 1) if chosen else (0, 0)
            window.append(slice(low, high))
            stop = chosen.stop - low
            inside.append(slice(chosen.start - low, stop if stop >= 0 else None, chosen.step))
        elif isinstance(key, int | np.integer):
            place = range(size)[key]
            window.append(slice(place, place + 1))
            inside.append(0)
        else:
            places = np.arange(size)[np.asarray(key)]
            low, high = (int(places.min()), int(places.max()) + 1) if places.size else (0, 0)
            window.append(slice(low, high))
            inside.append(places - low)
    return tuple(window), tuple(inside)


def gathered_chunks(shape: tuple[int, ...], block_dims: int, itemsize: int) -> tuple[int, ...]:
    """Return the Dask chunk shape of an array whose blocks have length 1 along leading dims.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    block_dims : int
        Number of leading block dimensions.
    itemsize : int
        Bytes of one element.

    Examples
    --------
    >>> gathered_chunks((300, 189, 16), 2, 8)
    (300, 189, 16)
    >>> gathered_chunks((300, 189, 16, 10, 10), 2, 8)
    (300, 17, 16, 10, 10)
    >>> gathered_chunks((300, 189, 4096, 4096), 2, 2)
    (1, 1, 4096, 4096)
    """
    inner = shape[block_dims:]
    size = itemsize * int(np.prod(inner, dtype=np.int64))
    chunks = [1] * block_dims
    if 0 < size < _LARGE_BYTES:
        room = _TARGET_BYTES // size
        for axis in range(block_dims):
            chunks[axis] = max(1, min(shape[axis], room))
            room //= chunks[axis]
    return (*chunks, *inner)


def _tiled(chunks: tuple[int, ...], layout: Layout, variable: Variable) -> tuple[int, ...]:
    """Return chunks no longer than the stored ones along tiled dimensions."""
    tile = layout.schema.tile
    return tuple(
        min(chunk, tile.get(dim, chunk)) for dim, chunk in zip(variable.dims, chunks, strict=True)
    )


def open_lazily(store: Store, layout: Layout, done: NDArray[np.bool_], stamp: int) -> xr.Dataset:
    """Return a product as a lazy dataset.

    Parameters
    ----------
    store : Store
        Where it lies.
    layout : Layout
        How it lies.
    done : array of bool
        Which blocks are done, over the block dimensions.
    stamp : int
        Stamp of the newest record: what Dask remembers by name must change with the data.

    Returns
    -------
    Dataset
        All variables of the schema, with labels and ``done`` as coordinates.
    """
    schema = layout.schema
    token = tokenize(store.url, layout.document(), done, stamp)
    variables = {}
    for variable in schema.variables:
        lazy = _LazyVariable(store, layout, variable.name, done)
        shape = layout.shape(variable)
        array = da.from_array(
            lazy,
            chunks=_tiled(
                gathered_chunks(shape, len(schema.block), lazy.dtype.itemsize), layout, variable
            ),
            name=f"{schema.name}-{variable.name}-{token}",
            fancy=False,
            meta=np.empty((0,) * len(shape), lazy.dtype),
        )
        variables[variable.name] = xr.DataArray(
            array, dims=variable.dims, attrs=variable.attributes()
        )
    coords: dict[str, Any] = {dim: list(labels) for dim, labels in layout.labels.items()}
    coords["done"] = (schema.block, done)
    attrs = {**layout.attrs, "product": schema.name, "schema_version": schema.version}
    return xr.Dataset(variables, coords=coords, attrs=attrs)
