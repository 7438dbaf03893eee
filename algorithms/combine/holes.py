"""Pixels that no exposure has a value of: filled from their amplifier, never from another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.order_statistics import order_statistics

__all__ = ["fill_holes", "percentiles"]


@compiled
def median_of(values: NDArray[Any]) -> float:
    """Return the median of finite values; reorders them."""
    n = values.size
    found = np.empty(2, np.float64)
    ranks = np.empty(2, np.int64)
    ranks[0], ranks[1] = (n - 1) // 2, n // 2
    order_statistics(values, ranks, found)
    return 0.5 * (np.float64(found[0]) + np.float64(found[1]))


@compiled
def fill_near(
    values: NDArray[Any],
    good: NDArray[np.uint8],
    holes: NDArray[np.int64],
    reach: int,
    otherwise: float,
    filled: NDArray[np.float64],
) -> None:
    """Write the median of good pixels within reach of every hole (y, x), or another value."""
    window = np.empty((2 * reach + 1) * (2 * reach + 1), values.dtype)
    height, width = values.shape
    for k in range(holes.shape[0]):
        y, x = holes[k, 0], holes[k, 1]
        n = 0
        for row in range(max(y - reach, 0), min(y + reach + 1, height)):
            for column in range(max(x - reach, 0), min(x + reach + 1, width)):
                if good[row, column] != 0:
                    window[n] = values[row, column]
                    n += 1
        filled[k] = median_of(window[:n]) if n > 0 else otherwise


def fill_holes(
    image: NDArray[Any], variance: NDArray[Any], holes: NDArray[np.bool_], reach: int
) -> bool:
    """Fill the holes of one amplifier in place, in value and variance.

    A hole gets the median of the amplifier's other pixels within ``reach`` along y and x, without
    any that of the amplifier.

    Returns
    -------
    bool
        Whether the amplifier has any other pixel; if not, its holes become NaN.
    """
    good = ~holes & np.isfinite(image) & np.isfinite(variance)
    places = np.argwhere(holes)
    flags = good.view(np.uint8)
    some = bool(good.any())
    for plane in (image, variance):
        whole = median_of(plane[good]) if some else np.nan
        filled = np.full(len(places), np.nan)
        if some:
            fill_near(plane, flags, places, reach, whole, filled)
        plane[holes] = filled
    return some


def percentiles(values: NDArray[Any], percents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return percentiles of the finite values; NaN without any.

    Examples
    --------
    >>> percentiles(np.array([4.0, 1.0, 2.0, 3.0, np.nan]), np.array([0.0, 50.0, 100.0])).tolist()
    [1.0, 2.5, 4.0]
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.full(percents.size, np.nan)
    position = percents / 100.0 * (finite.size - 1)
    below = position.astype(np.int64)
    above = np.minimum(below + 1, finite.size - 1)
    ranks = np.stack([below, above], axis=1).ravel()
    found = np.empty(ranks.size, np.float64)
    order_statistics(finite, ranks, found)
    return np.asarray(found[::2] + (found[1::2] - found[::2]) * (position - below))
