"""Tiles of a patch that are solved one by one, and blended where they overlap."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tile", "tiles_of"]

Floats = NDArray[np.float64]


class Tile(NamedTuple):
    """Where a tile is solved (``rows``, ``columns``), its weight along both axes, and the pixels
    that are its own (``own_rows``, ``own_columns``), without margins: every pixel is of one tile
    only."""

    rows: slice
    columns: slice
    weight_y: Floats
    weight_x: Floats
    own_rows: slice
    own_columns: slice

    def weight(self) -> NDArray[np.float32]:
        """Return the weight of each pixel; weights of all tiles add up to 1."""
        return np.asarray(self.weight_y[:, None] * self.weight_x, np.float32)

    @property
    def place(self) -> tuple[slice, slice]:
        """Return where in the image the tile lies, with its margins."""
        return self.rows, self.columns

    @property
    def own(self) -> tuple[slice, slice]:
        """Return where in the image the pixels lie that are its own."""
        return self.own_rows, self.own_columns

    @property
    def inner(self) -> tuple[slice, slice]:
        """Return where in the tile these lie."""
        return (
            slice(self.own_rows.start - self.rows.start, self.own_rows.stop - self.rows.start),
            slice(
                self.own_columns.start - self.columns.start,
                self.own_columns.stop - self.columns.start,
            ),
        )


def tiles_of(shape: tuple[int, int], size: int, margin: int) -> list[Tile]:
    """Return tiles that cover an image, each with a margin around it.

    Parameters
    ----------
    shape : (y, x)
    size : int, pixel
        Largest side of a tile without its margin; all tiles are nearly alike.
    margin : int, pixel
        The outer half does not count; over the inner half the weight rises as a raised cosine.

    Examples
    --------
    >>> tiles = tiles_of((100, 60), 60, 8)
    >>> [tile.rows for tile in tiles], [tile.own_rows for tile in tiles]
    ([slice(0, 58, None), slice(42, 100, None)], [slice(0, 50, None), slice(50, 100, None)])
    """
    along_y, along_x = (_cut(side, size, margin) for side in shape)
    return [
        Tile(rows, columns, weight_y, weight_x, own_rows, own_columns)
        for rows, weight_y, own_rows in along_y
        for columns, weight_x, own_columns in along_x
    ]


def _cut(side: int, size: int, margin: int) -> list[tuple[slice, Floats, slice]]:
    count = max(1, -(-side // size))
    edges = [int(edge) for edge in np.linspace(0, side, count + 1).round()]
    found = []
    for start, stop in pairwise(edges):
        low, high = max(start - margin, 0), min(stop + margin, side)
        at = np.arange(low, high, dtype=np.float64) + 0.5
        weight = np.ones(high - low)
        if start > 0:
            weight *= _rise(at - start, margin)
        if stop < side:
            weight *= _rise(stop - at, margin)
        found.append((slice(low, high), weight, slice(start, stop)))
    return found


def _rise(distance: Floats, margin: int) -> Floats:
    """Return a weight that rises from 0 to 1 over half the margin on both sides of an edge."""
    half = max(margin / 2.0, 0.5)
    return np.asarray(np.sin(np.pi / 4.0 * (1.0 + np.clip(distance / half, -1.0, 1.0))) ** 2)
