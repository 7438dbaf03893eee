"""Reading large arrays part by part: which parts, and whether that is needed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import xarray as xr

from skyloom.algorithms import vocabulary as v

__all__ = ["TILE_SIZE", "in_memory", "is_lazy", "tiles"]

TILE_SIZE = 1024
"""Pixels along y and x of a tile, where an array doesn't say in which chunks it is stored."""


def in_memory(array: xr.DataArray) -> bool:
    """Return whether values are there already; False for lazy and lazily indexed arrays.

    Examples
    --------
    >>> in_memory(xr.DataArray([1.0]))
    True
    """
    return bool(getattr(array.variable, "_in_memory", False))


def is_lazy(array: xr.DataArray) -> bool:
    """Return whether an array consists of Dask chunks.

    Examples
    --------
    >>> is_lazy(xr.DataArray([1.0])), is_lazy(xr.DataArray([1.0]).chunk())
    (False, True)
    """
    return array.chunks is not None


def tiles(
    array: xr.DataArray, dims: Sequence[Hashable], *, pixels: float = 0
) -> Iterator[dict[Hashable, slice]]:
    """Yield what indexes tile after tile of some dimensions of an array.

    Tiles are the chunks that the array is stored or computed in, or `TILE_SIZE` along y and x and
    1 along other dimensions. Stored ones that reach across all other dimensions are joined along
    the first as long as they hold no more than ``pixels``.

    Examples
    --------
    >>> image = xr.DataArray([[0.0] * 5] * 1500, dims=("y", "x"))
    >>> list(tiles(image, ("y", "x")))[1]
    {'y': slice(1024, 1500, None), 'x': slice(0, 5, None)}
    >>> image.encoding["preferred_chunks"] = {"y": 10, "x": 5}
    >>> [place["y"].stop for place in tiles(image, ("y", "x"), pixels=3000)]
    [600, 1200, 1500]
    """
    stored: Mapping[Any, Any] = array.encoding.get("preferred_chunks", {})
    if array.chunks is not None:
        stored = {dim: max(sizes) for dim, sizes in zip(array.dims, array.chunks, strict=True)}
    sizes, steps = [array.sizes[dim] for dim in dims], []
    for dim in dims:
        step = stored.get(dim, TILE_SIZE if dim in (v.Y, v.X) else 1)
        steps.append(int(step if isinstance(step, int) else max(step)))
    if array.chunks is None and stored and all(map(int.__ge__, steps[1:], sizes[1:])):
        steps[0] *= max(1, int(pixels // (steps[0] * math.prod(sizes[1:]))))
    parts = [
        [slice(i, min(i + step, size)) for i in range(0, size, step)]
        for size, step in zip(sizes, steps, strict=True)
    ]
    for chosen in product(*parts):
        yield dict(zip(dims, chosen, strict=True))
