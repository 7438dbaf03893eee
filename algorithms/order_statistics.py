"""Exact order statistics by histogram, compiled: the values at given ranks of a set of numbers.

Values are counted in cells of equal width between the smallest and the largest; only the cells
that hold a wanted rank are gathered and sorted, or refined in the same way if they are full. That
reads the values about twice where a sort reads them ``log n`` times.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

SORT_UP_TO = 512  # so few values are sorted instead of counted
CELLS = 4096  # their counters stay in the first cache


@compiled
def cell_scale(values: NDArray[Any], cells: int) -> tuple[float, float]:
    """Return the smallest value and the cells per unit of value; 0 if counting cannot part them."""
    low, high = values[0], values[0]
    for value in values:
        low, high = min(low, value), max(high, value)
    span = np.float64(high) - np.float64(low)
    if span == 0.0:
        return np.float64(low), 0.0
    scale = cells / span
    return np.float64(low), scale if math.isfinite(scale) else 0.0


@compiled
def cell_of(value: float, low: float, scale: float, cells: int) -> int:
    """Return the cell of a value, which never decreases with the value."""
    return min(int((np.float64(value) - low) * scale), cells - 1)


@compiled
def value_at_rank(values: NDArray[Any], rank: int) -> float:
    """Return the value at a rank (0 the smallest) of finite values; reorders them."""
    count = np.zeros(CELLS, np.int64)
    while values.size > SORT_UP_TO:
        low, scale = cell_scale(values, CELLS)
        if scale == 0.0:
            break
        count[:] = 0
        for value in values:
            count[cell_of(value, low, scale, CELLS)] += 1
        wanted = 0
        while rank >= count[wanted]:
            rank -= count[wanted]
            wanted += 1
        kept = 0
        for value in values:
            if cell_of(value, low, scale, CELLS) == wanted:
                values[kept] = value
                kept += 1
        values = values[:kept]
    values.sort()
    return np.float64(values[rank])


@compiled
def order_statistics(
    values: NDArray[Any], ranks: NDArray[np.int64], found: NDArray[np.float64]
) -> None:
    """Write the values at ascending ranks (0 the smallest) of finite values to ``found``."""
    low, scale = cell_scale(values, CELLS) if values.size > SORT_UP_TO else (0.0, 0.0)
    if scale == 0.0:
        ordered = np.sort(values)
        for i in range(ranks.size):
            found[i] = ordered[ranks[i]]
        return
    count = np.zeros(CELLS, np.int64)
    for value in values:
        count[cell_of(value, low, scale, CELLS)] += 1
    # slot[cell] numbers the wanted cells from 1; 0 is where all other values are written to
    slot = np.zeros(CELLS, np.int64)
    start = np.zeros(ranks.size + 2, np.int64)
    offset = np.zeros(ranks.size, np.int64)
    owner = np.zeros(ranks.size, np.int64)
    cell, below, slots, total = 0, 0, 0, 1
    for i in range(ranks.size):
        while ranks[i] >= below + count[cell]:
            below += count[cell]
            cell += 1
        if slot[cell] == 0:
            slots += 1
            slot[cell] = slots
            start[slots] = total
            total += count[cell]
            start[slots + 1] = total
        owner[i], offset[i] = slot[cell], below
    members = np.empty(total, values.dtype)
    position = start.copy()
    for value in values:
        s = slot[cell_of(value, low, scale, CELLS)]
        members[position[s]] = value
        position[s] += np.int64(s > 0)
    previous = 0
    for i in range(ranks.size):
        group = members[start[owner[i]] : start[owner[i] + 1]]
        if group.size > SORT_UP_TO:
            found[i] = value_at_rank(group.copy(), ranks[i] - offset[i])
            continue
        if owner[i] != previous:
            group.sort()
        previous = owner[i]
        found[i] = group[ranks[i] - offset[i]]
