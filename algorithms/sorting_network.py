"""Sorting the inputs of many pixels at once: the same comparisons for every pixel.

Which comparisons are made doesn't depend on the values, so each is one vector operation over all
pixels of a tile. The network is Batcher's merge exchange (Knuth, The Art of Computer Programming
volume 3, algorithm 5.2.2M), for any number of inputs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["comparisons"]


@lru_cache
def comparisons(size: int) -> NDArray[np.int64]:
    """Return the pairs (low, high) of places to compare, in order, that sort ``size`` values.

    Examples
    --------
    >>> comparisons(3).tolist()
    [[0, 2], [0, 1], [1, 2]]
    """
    pairs: list[tuple[int, int]] = []
    step = 1 << max((size - 1).bit_length() - 1, 0)
    outer = step
    while step > 0 and size > 1:
        reach, remainder, distance = outer, 0, step
        while distance > 0:
            pairs += [(i, i + distance) for i in range(size - distance) if i & step == remainder]
            distance = reach - step
            reach >>= 1
            remainder = step
        step >>= 1
    found = np.array(pairs, np.int64).reshape(-1, 2)
    found.flags.writeable = False
    return found


@compiled
def exchange(low: NDArray[Any], high: NDArray[Any]) -> None:
    """Put the smaller of each two values into ``low`` and the larger into ``high``."""
    for i in range(low.size):
        a, b = low[i], high[i]
        low[i] = a if a < b else b
        high[i] = b if a < b else a


@compiled
def sort_rows(rows: NDArray[Any], pairs: NDArray[np.int64]) -> None:
    """Sort every column of a tile (inputs, pixels) in place; no value may be NaN."""
    for k in range(pairs.shape[0]):
        exchange(rows[pairs[k, 0]], rows[pairs[k, 1]])
