"""Tiles of a patch that are solved one by one, and blended where they overlap."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tile", "tiles_of"]

Floats = NDArray[np.float64]


class Tile(NamedTuple):
    """Where a tile is solved (``rows``, ``columns``), and its weight along both axes."""

    rows: slice
    columns: slice
    weight_y: Floats
    weight_x: Floats

    def weight(self) -> NDArray[np.float32]:
        """Return the weight of each pixel; weights of all tiles add up to 1."""
        return np.asarray(self.weight_y[:, None] * self.weight_x, np.float32)


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
    >>> [(tile.rows, tile.columns) for tile in tiles]
    [(slice(0, 58, None), slice(0, 60, None)), (slice(42, 100, None), slice(0, 60, None))]
    """
    (rows, along_y), (columns, along_x) = (_cut(side, size, margin) for side in shape)
    return [
        Tile(row, column, weight_y, weight_x)
        for row, weight_y in zip(rows, along_y, strict=True)
        for column, weight_x in zip(columns, along_x, strict=True)
    ]


def _cut(side: int, size: int, margin: int) -> tuple[list[slice], list[Floats]]:
    count = max(1, -(-side // size))
    edges = np.linspace(0, side, count + 1).round().astype(int)
    slices, weights = [], []
    for start, stop in pairwise(edges):
        low, high = max(start - margin, 0), min(stop + margin, side)
        at = np.arange(low, high) + 0.5
        weight = np.ones(high - low)
        if start > 0:
            weight *= _rise(at - start, margin)
        if stop < side:
            weight *= _rise(stop - at, margin)
        slices.append(slice(int(low), int(high)))
        weights.append(weight)
    return slices, weights


def _rise(distance: Floats, margin: int) -> Floats:
    """Return a weight that rises from 0 to 1 over half the margin on both sides of an edge."""
    half = max(margin / 2.0, 0.5)
    return np.asarray(np.sin(np.pi / 4.0 * (1.0 + np.clip(distance / half, -1.0, 1.0))) ** 2)
