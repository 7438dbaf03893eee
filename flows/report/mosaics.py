"""Pixels of all detectors in bins, at their places in the focal plane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows.camera_constants import geometry

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["Places", "bin_means", "detector_places", "each_detector"]

Floats = NDArray[np.float64]

BIN: Final = 16


class Places(NamedTuple):
    """Where detectors lie: transforms from pixels to mm, and shapes, by name."""

    transforms: Mapping[str, Floats]
    shapes: Mapping[str, tuple[int, int]]


def detector_places(store: Store) -> Places:
    """Return where the detectors of a store's camera lie."""
    places = geometry(store, {})
    names = [str(name) for name in places[v.DETECTOR].to_numpy()]
    return Places(
        dict(zip(names, places["transform"].to_numpy(), strict=True)),
        dict(zip(names, map(tuple, places["shape"].to_numpy().tolist()), strict=True)),
    )


def each_detector(store: Store, product: str) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the name and the block of each detector of a product that is done, one in memory."""
    done = store.done(product)
    for column, name in enumerate(store.labels(product)[v.DETECTOR]):
        if done[column]:
            yield str(name), store.read_block(product, {v.DETECTOR: name})


def bin_means(values: Floats, good: NDArray[np.bool_], size: int = BIN) -> Floats:
    """Return means of good pixels in bins of about a size, NaN where a bin has none.

    Parameters
    ----------
    values : array, (y, x), float64
        Pixels.
    good : array, (y, x), bool
        Which of them count.
    size : int
        Side of a bin, pixel.

    Examples
    --------
    >>> bin_means(np.arange(4.0).reshape(2, 2), np.array([[True, True], [False, False]]), 1)
    array([[ 0.,  1.],
           [nan, nan]])
    """
    edges = [
        np.linspace(0, side, max(side // size, 1) + 1).astype(int)[:-1] for side in values.shape
    ]
    total, count = (
        np.add.reduceat(np.add.reduceat(plane, edges[0], axis=0), edges[1], axis=1)
        for plane in (np.where(good, values, 0.0), good.astype(np.float64))
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
