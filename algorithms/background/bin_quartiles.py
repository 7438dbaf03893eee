"""Exact quartiles of the values of a bin, led by those of its neighbour.

Where neighbouring bins are alike, the quartiles of one tell where those of the next lie. Values
are counted in cells around them; only the cells that hold a wanted rank are gathered and sorted.
The guess sets how much work is done, never what the result is: if a rank lies outside the cells,
the guess is made anew from a sample, and if that fails all values are ordered.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import quartile_ranks, quartiles
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.order_statistics import order_statistics

__all__: list[str] = []  # kernels for the modules of this package

MOST_CELLS = 1024
VALUES_PER_CELL = 32
SORT_BELOW = 512  # so few values are ordered at once
SAMPLE = 255
REACH = 1.25  # half range of the cells in interquartile ranges
INSERTION_UP_TO = 40


@compiled
def compact(block: NDArray[Any], kept: NDArray[Any]) -> int:
    """Copy the values that are not NaN to the start of ``kept``; return their number."""
    n = np.uint64(0)
    for i in range(block.size):
        value = block[i]
        kept[n] = value
        n += np.uint64(value == value)
    return int(n)


@compiled
def sampled_guess(block: NDArray[Any], scratch: NDArray[Any]) -> tuple[float, float]:
    """Return median and interquartile range of a sample of the values that are not NaN."""
    step = max(block.size // SAMPLE, 1)
    size = 0
    for i in range(0, block.size, step):
        if block[i] == block[i]:
            scratch[size] = block[i]
            size += 1
    if size == 0:
        return math.nan, math.nan
    scratch[:size].sort()
    lower, upper = np.float64(scratch[size // 4]), np.float64(scratch[(3 * size) // 4])
    return np.float64(scratch[size // 2]), upper - lower


@compiled
def assign_cells(block: NDArray[Any], constants: NDArray[Any], cells: NDArray[np.uint16]) -> None:
    """Write the cell of each value, which never decreases with the value; NaN is in cell 0.

    ``constants`` are the low end of cell 1, cells per unit, 0, 1 and the last cell, in the dtype of
    the values.
    """
    low, scale, zero, one, last = (
        constants[0],
        constants[1],
        constants[2],
        constants[3],
        constants[4],
    )
    for i in range(block.size):
        place = (block[i] - low) * scale + one
        place = place if place > zero else zero
        place = place if place < last else last
        cells[i] = np.uint16(np.int32(place))


@compiled
def flag_cells(
    cells: NDArray[np.uint16], ranges: NDArray[np.uint16], flags: NDArray[np.uint8]
) -> None:
    """Flag the values in one of three ranges of cells."""
    a, b, c, d, e, f = ranges[0], ranges[1], ranges[2], ranges[3], ranges[4], ranges[5]
    for i in range(cells.size):
        cell = cells[i]
        first = (cell >= a) & (cell <= b)
        second = (cell >= c) & (cell <= d)
        flags[i] = first | second | ((cell >= e) & (cell <= f))


@compiled
def gather_flagged(
    flags: NDArray[np.uint8],
    block: NDArray[Any],
    cells: NDArray[np.uint16],
    kept: NDArray[Any],
    kept_cells: NDArray[np.uint16],
) -> int:
    """Copy flagged values and their cells; return their number. Sizes are multiples of eight."""
    words = flags.view(np.uint64)
    n = np.uint64(0)
    for w in range(words.size):
        if words[w] == 0:  # most groups of eight hold nothing of interest
            continue
        for i in range(8):
            j = np.uint64(w) * np.uint64(8) + np.uint64(i)
            kept[n] = block[j]
            kept_cells[n] = cells[j]
            n += np.uint64(flags[j])
    return int(n)


@compiled
def sort_values(values: NDArray[Any]) -> None:
    """Sort values in place."""
    if values.size > INSERTION_UP_TO:
        values.sort()
        return
    for i in range(1, values.size):
        value = values[i]
        j = i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


@compiled
def quartiles_in_cells(
    block: NDArray[Any],
    n: int,
    ranks: NDArray[np.int64],
    guess: tuple[float, float],
    cells: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    count: NDArray[np.int32],
    kept: NDArray[Any],
    kept_cells: NDArray[np.uint16],
    group: NDArray[Any],
    found: NDArray[np.float64],
) -> bool:
    """Write the values at six ranks; return False if the cells around the guess miss one."""
    median, iqr = guess
    number = 64
    while number < MOST_CELLS and number * VALUES_PER_CELL < n:
        number *= 2
    constants = np.empty(5, block.dtype)
    constants[0] = median - REACH * iqr
    constants[1] = number / (2.0 * REACH * iqr) if iqr > 0.0 else 0.0
    constants[2], constants[3], constants[4] = 0.0, 1.0, number + 1.0
    if not (math.isfinite(constants[0]) and 0.0 < constants[1] < math.inf):
        return False
    assign_cells(block, constants, cells)
    count[: number + 2] = 0
    for cell in cells:
        count[cell] += 1
    count[0] -= block.size - n  # those that are NaN
    ranges = np.empty(6, np.uint16)
    offsets = np.empty(6, np.int64)
    cell, below, start = 0, 0, 0
    for i in range(6):
        while ranks[i] >= below + count[cell]:
            below += count[cell]
            cell += 1
        if cell == 0 or cell == number + 1:
            return False
        # the second rank of a quartile is counted from the cell of the first
        start = below if i % 2 == 0 else start
        ranges[i], offsets[i] = cell, ranks[i] - start
    flag_cells(cells, ranges, flags)
    size = gather_flagged(flags, block, cells, kept, kept_cells)
    for i in range(0, 6, 2):
        members = 0
        for j in range(size):
            group[members] = kept[j]
            members += int((kept_cells[j] >= ranges[i]) & (kept_cells[j] <= ranges[i + 1]))
        low, high = group[0], group[0]
        for j in range(members):
            low, high = min(low, group[j]), max(high, group[j])
        if low < high:
            sort_values(group[:members])
        found[i], found[i + 1] = group[offsets[i]], group[offsets[i + 1]]
    return True


@compiled
def quartiles_of_bin(
    block: NDArray[Any],
    n: int,
    guess: tuple[float, float],
    cells: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    count: NDArray[np.int32],
    kept: NDArray[Any],
    kept_cells: NDArray[np.uint16],
    group: NDArray[Any],
) -> tuple[float, float, float]:
    """Return the quartiles of the n values of a block that are not NaN; n >= 1.

    The size of the block is a multiple of eight, that of the other arrays (but ``count``) at least
    eight more.
    """
    ranks, _ = quartile_ranks(n)
    found = np.empty(6, np.float64)
    done = False
    if n >= SORT_BELOW:
        size = block.size
        inside, marks = cells[:size], flags[:size]
        done = quartiles_in_cells(
            block, n, ranks, guess, inside, marks, count, kept, kept_cells, group, found
        )
        if not done:
            again = sampled_guess(block, group)
            done = quartiles_in_cells(
                block, n, ranks, again, inside, marks, count, kept, kept_cells, group, found
            )
    if not done:
        order_statistics(kept[: compact(block, kept)], ranks, found)
    return quartiles(found, n)
