"""Kernels of the covariances: sums over pixel pairs at every lag, read row by row.

Each function takes a difference image, the bytes (0 or 1) that say which pixels are good, or an
empty array if all are, and returns sums for the lags ``(lag_y, lag_x)`` with ``0 <= lag_y < lags``
and ``-lags < lag_x < lags``, as arrays of shape (lags, 2 lags - 1) whose second index is
``lag_x + lags - 1``. With ``w`` 1 for a good pixel and 0 for others, ``d = w (difference -
center)`` and pairs of a first pixel ``p`` and a second ``p + lag`` inside the image:

* products: the sum of ``d(p) d(p + lag)``;
* counts: the sum of ``w(p) w(p + lag)``;
* second: the sum of ``w(p) d(p + lag)``, first: the sum of ``d(p) w(p + lag)``.

The last ``lags`` rows are kept as float64 between margins of zeros, so a row pair needs no test
for the border and one value of the first row serves eight lags at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_fast

__all__: list[str] = []  # kernels for the modules of this room

MARGIN = 8  # zeros beyond the largest lag, where the last group of eight or four may read

Sums = NDArray[np.float64]


@compiled
def is_good(value: float, good: NDArray[np.uint8], y: int, x: int) -> bool:
    """Return whether a pixel is finite and good."""
    return bool(abs(value) < np.inf and (good.size == 0 or good[y, x] != 0))


@compiled
def center_and_count(values: NDArray[Any], good: NDArray[np.uint8]) -> tuple[float, int]:
    """Return the mean and number of the good pixels."""
    count, total, origin = 0, 0.0, 0.0
    for y in range(values.shape[0]):
        row = 0.0
        for x in range(values.shape[1]):
            if is_good(values[y, x], good, y, x):
                # differences to the first good pixel: the mean of a constant is exact
                origin = np.float64(values[y, x]) if count == 0 else origin
                row += np.float64(values[y, x]) - origin
                count += 1
        total += row
    return origin + total / max(count, 1), count


@compiled
def fill_row(
    values: NDArray[Any],
    good: NDArray[np.uint8],
    y: int,
    center: float,
    differences: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    """Write ``d`` and ``w`` of a row to the part of two rows that is inside the margins."""
    line = values[y]
    if good.size == 0:
        for x in range(line.size):
            ok = abs(line[x]) < np.inf
            weights[x] = 1.0 if ok else 0.0
            differences[x] = np.float64(line[x]) - center if ok else 0.0
    else:
        which = good[y]
        for x in range(line.size):
            ok = (abs(line[x]) < np.inf) & (which[x] != 0)
            weights[x] = 1.0 if ok else 0.0
            differences[x] = np.float64(line[x]) - center if ok else 0.0


@compiled_fast
def eight_lags(first: Sums, second: Sums, start: int, sums: Sums) -> None:
    """Add the sums of ``first[i] second[start + k + i]`` for k = 0 ... 7 to ``sums``."""
    n = first.size
    r0, r1 = second[start : start + n], second[start + 1 : start + 1 + n]
    r2, r3 = second[start + 2 : start + 2 + n], second[start + 3 : start + 3 + n]
    r4, r5 = second[start + 4 : start + 4 + n], second[start + 5 : start + 5 + n]
    r6, r7 = second[start + 6 : start + 6 + n], second[start + 7 : start + 7 + n]
    s0, s1, s2, s3, s4, s5, s6, s7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        value = first[i]
        s0 += value * r0[i]
        s1 += value * r1[i]
        s2 += value * r2[i]
        s3 += value * r3[i]
        s4 += value * r4[i]
        s5 += value * r5[i]
        s6 += value * r6[i]
        s7 += value * r7[i]
    sums[start] += s0
    sums[start + 1] += s1
    sums[start + 2] += s2
    sums[start + 3] += s3
    sums[start + 4] += s4
    sums[start + 5] += s5
    sums[start + 6] += s6
    sums[start + 7] += s7


@compiled_fast
def four_lags(first: Sums, second: Sums, start: int, sums: Sums) -> None:
    """Add the sums of ``first[i] second[start + k + i]`` for k = 0 ... 3 to ``sums``."""
    n = first.size
    r0, r1 = second[start : start + n], second[start + 1 : start + 1 + n]
    r2, r3 = second[start + 2 : start + 2 + n], second[start + 3 : start + 3 + n]
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        value = first[i]
        s0 += value * r0[i]
        s1 += value * r1[i]
        s2 += value * r2[i]
        s3 += value * r3[i]
    sums[start] += s0
    sums[start + 1] += s1
    sums[start + 2] += s2
    sums[start + 3] += s3


@compiled
def correlate_rows(first: Sums, second: Sums, lowest: int, stop: int, sums: Sums) -> None:
    """Add the products of two rows at the lags ``lowest`` to ``stop - 1`` (as indices)."""
    start = lowest
    while start < stop:
        if stop - start > 4:
            eight_lags(first, second, start, sums)
            start += 8
        else:
            four_lags(first, second, start, sums)
            start += 4


@compiled
def lagged_products(
    values: NDArray[Any], good: NDArray[np.uint8], center: float, lags: int
) -> Sums:
    """Return the products at every lag."""
    ny, nx = values.shape
    edge = lags - 1
    sums = np.zeros((lags, 2 * lags - 1 + MARGIN))
    rows = np.zeros((lags, nx + 2 * edge + MARGIN))
    weights = np.empty(nx)
    for y in range(ny):
        last = rows[y % lags]
        fill_row(values, good, y, center, last[edge : edge + nx], weights)
        for dy in range(min(lags, y + 1)):
            first = rows[(y - dy) % lags][edge : edge + nx]
            correlate_rows(first, last, edge if dy == 0 else 0, 2 * lags - 1, sums[dy])
    return complete(sums, lags)


@compiled
def complete(sums: Sums, lags: int) -> Sums:
    """Drop the margin and mirror row 0, of which only ``lag_x >= 0`` was summed."""
    for dx in range(1, lags):
        sums[0, lags - 1 - dx] = sums[0, lags - 1 + dx]
    return sums[:, : 2 * lags - 1].copy()


@compiled
def lagged_weights(
    values: NDArray[Any], good: NDArray[np.uint8], center: float, lags: int
) -> tuple[Sums, Sums, Sums]:
    """Return counts, second and first by summing over all pixel pairs."""
    ny, nx = values.shape
    edge = lags - 1
    counts = np.zeros((lags, 2 * lags - 1 + MARGIN))
    seconds, firsts = np.zeros_like(counts), np.zeros_like(counts)
    rows = np.zeros((lags, nx + 2 * edge + MARGIN))
    weights = np.zeros_like(rows)
    inside = slice(edge, edge + nx)
    for y in range(ny):
        last, last_weight = rows[y % lags], weights[y % lags]
        fill_row(values, good, y, center, last[inside], last_weight[inside])
        for dy in range(min(lags, y + 1)):
            row = rows[(y - dy) % lags][inside]
            weight = weights[(y - dy) % lags][inside]
            correlate_rows(weight, last_weight, 0, 2 * lags - 1, counts[dy])
            correlate_rows(weight, last, 0, 2 * lags - 1, seconds[dy])
            correlate_rows(row, last_weight, 0, 2 * lags - 1, firsts[dy])
    stop = 2 * lags - 1
    return counts[:, :stop].copy(), seconds[:, :stop].copy(), firsts[:, :stop].copy()


@compiled
def sum_of(line: NDArray[np.float64]) -> float:
    """Return the sum of a row."""
    total = 0.0
    for x in range(line.size):
        total += line[x]
    return total


@compiled
def row_sums(
    values: NDArray[Any], good: NDArray[np.uint8], center: float, lags: int
) -> NDArray[np.float64]:
    """Return sums of the rows of ``w`` and ``d`` without their first or last pixels.

    Element [0 for w or 1 for d, 0 for the first or 1 for the last, y, k] leaves out k pixels.
    """
    ny, nx = values.shape
    sums = np.empty((2, 2, ny, lags))
    w, d = np.empty(nx), np.empty(nx)
    for y in range(ny):
        fill_row(values, good, y, center, d, w)
        for which, line in ((0, w), (1, d)):
            total = sum_of(line)
            low, high = total, total
            for k in range(lags):
                sums[which, 0, y, k] = low
                sums[which, 1, y, k] = high
                low -= line[k]
                high -= line[nx - 1 - k]
    return sums


@compiled
def sums_beside_bad(
    values: NDArray[Any], good: NDArray[np.uint8], center: float, lags: int
) -> tuple[Sums, Sums, Sums]:
    """Return the sums over pairs with a bad pixel, by a walk over the bad pixels.

    These are the number of pairs of which both are bad, the sum of ``d(p + lag)`` where ``p`` is
    bad, and the sum of ``d(p)`` where ``p + lag`` is bad.
    """
    ny, nx = values.shape
    edge = lags - 1
    both = np.zeros((lags, 2 * lags - 1))
    seconds, firsts = np.zeros_like(both), np.zeros_like(both)
    rows = np.zeros((lags, nx + 2 * edge))
    bad = np.zeros_like(rows)
    columns = np.empty((lags, nx + 1), np.int64)
    number = np.zeros(lags, np.int64)
    inside = slice(edge, edge + nx)
    for y in range(ny):
        row, row_bad = rows[y % lags], bad[y % lags]
        fill_row(values, good, y, center, row[inside], row_bad[inside])
        found = 0
        for x in range(nx):
            row_bad[edge + x] = 1.0 - row_bad[edge + x]
            columns[y % lags, found] = x
            found += int(row_bad[edge + x])
        number[y % lags] = found
        for dy in range(min(lags, y + 1)):
            earlier = (y - dy) % lags
            for x in columns[earlier, : number[earlier]]:
                near, near_bad = row[x : x + 2 * lags - 1], row_bad[x : x + 2 * lags - 1]
                for k in range(2 * lags - 1):
                    seconds[dy, k] += near[k]
                    both[dy, k] += near_bad[k]
            for x in columns[y % lags, :found]:
                near = rows[earlier, x : x + 2 * lags - 1]
                for k in range(2 * lags - 1):
                    firsts[dy, k] += near[k]
    return both, seconds, firsts[:, ::-1].copy()
