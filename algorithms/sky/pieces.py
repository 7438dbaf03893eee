"""Interpolation in one dimension as a list of cubic pieces, compiled.

A piece holds on ``[start, next start)`` and is ``a + u (b + u (c + u d))`` with ``u = x - anchor``.
Knots ascend and are finite. A table of pieces has a row ``start, anchor, a, b, c, d`` for each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

CONSTANT, CONSTANT_COMPAT, LINEAR, NATURAL_SPLINE, AKIMA = 0, 1, 2, 3, 4
NEAREST, LIMIT, REFERENCE, MISSING = 0, 1, 2, 3
EXTRA = 4  # pieces beside those between knots
START, ANCHOR, A, B, C, D = 0, 1, 2, 3, 4, 5

Floats = NDArray[np.float64]


@compiled
def reduced_style(style: int, knots: int) -> int:
    """Return the style itself if there are knots enough for it, else the highest there is."""
    if knots == 1 and style != CONSTANT_COMPAT:
        return CONSTANT
    if knots == 2 and style > LINEAR:
        return LINEAR
    if knots < 5 and style == AKIMA:
        return NATURAL_SPLINE
    return style


@compiled
def put(pieces: Floats, row: int, start: float, anchor: float, a: float) -> None:
    """Write a constant piece."""
    pieces[row, 0], pieces[row, 1], pieces[row, 2] = start, anchor, a
    pieces[row, 3], pieces[row, 4], pieces[row, 5] = 0.0, 0.0, 0.0


@compiled
def constant_pieces(x: Floats, y: Floats, n: int, compat: bool, pieces: Floats) -> int:
    """Write a piece for each knot between the midpoints; return their number."""
    put(pieces, 0, -math.inf, x[0], y[0])
    for i in range(1, n):
        value = 0.5 * (y[i - 1] + y[i]) if compat else y[i]
        put(pieces, i, 0.5 * (x[i - 1] + x[i]), x[i], value)
    if compat and n > 1:
        put(pieces, n, x[n - 1] + 0.5 * (x[n - 1] - x[n - 2]), x[n - 1], y[n - 1])
        return n + 1
    return n


@compiled
def natural_pieces(x: Floats, y: Floats, n: int, work: Floats, pieces: Floats) -> None:
    """Write the cubic spline whose second derivative is 0 at both ends, rows 1 to n - 1."""
    # second derivatives by elimination down the three diagonals
    factor, second = work[0], work[1]
    factor[0], second[0] = 0.0, 0.0
    for i in range(1, n - 1):
        h_0, h_1 = x[i] - x[i - 1], x[i + 1] - x[i]
        pivot = 2.0 * (h_0 + h_1) - h_0 * factor[i - 1]
        bend = (y[i + 1] - y[i]) / h_1 - (y[i] - y[i - 1]) / h_0
        factor[i] = h_1 / pivot
        second[i] = (6.0 * bend - h_0 * second[i - 1]) / pivot
    second[n - 1] = 0.0
    for i in range(n - 2, 0, -1):
        second[i] -= factor[i] * second[i + 1]
    for i in range(n - 1):
        h = x[i + 1] - x[i]
        put(pieces, i + 1, x[i], x[i], y[i])
        pieces[i + 1, 3] = (y[i + 1] - y[i]) / h - h * (2.0 * second[i] + second[i + 1]) / 6.0
        pieces[i + 1, 4] = 0.5 * second[i]
        pieces[i + 1, 5] = (second[i + 1] - second[i]) / (6.0 * h)


@compiled
def linear_pieces(x: Floats, y: Floats, n: int, pieces: Floats) -> None:
    """Write straight lines between the knots, rows 1 to n - 1."""
    for i in range(n - 1):
        put(pieces, i + 1, x[i], x[i], y[i])
        pieces[i + 1, 3] = (y[i + 1] - y[i]) / (x[i + 1] - x[i])


@compiled
def akima_pieces(x: Floats, y: Floats, n: int, work: Floats, pieces: Floats) -> None:
    """Write Akima's spline, rows 1 to n - 1; a corner between two straight lines stays sharp."""
    slope = work[0]  # slope[i + 2] belongs to the interval i
    for i in range(n - 1):
        slope[i + 2] = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    slope[1] = 2.0 * slope[2] - slope[3]
    slope[0] = 3.0 * slope[2] - 2.0 * slope[3]
    slope[n + 1] = 2.0 * slope[n] - slope[n - 1]
    slope[n + 2] = 3.0 * slope[n] - 2.0 * slope[n - 1]
    for i in range(n - 1):
        h = x[i + 1] - x[i]
        m = slope[i + 2]
        put(pieces, i + 1, x[i], x[i], y[i])
        left, right = abs(slope[i + 1] - slope[i]), abs(slope[i + 3] - m)
        if left + right == 0.0:
            pieces[i + 1, 3] = m
            continue
        alpha = left / (left + right)
        begin = (1.0 - alpha) * slope[i + 1] + alpha * m
        left, right = abs(m - slope[i + 1]), abs(slope[i + 4] - slope[i + 3])
        end = m
        if left + right != 0.0:
            alpha = left / (left + right)
            end = (1.0 - alpha) * m + alpha * slope[i + 3]
        pieces[i + 1, 3] = begin
        pieces[i + 1, 4] = (3.0 * m - 2.0 * begin - end) / h
        pieces[i + 1, 5] = (begin + end - 2.0 * m) / (h * h)


@compiled
def hold(pieces: Floats, row: int, start: float, distance: float, source: int) -> None:
    """Write the value that a piece reaches at a distance from its anchor, from there on."""
    value = pieces[source, 2] + distance * (pieces[source, 3] + distance * pieces[source, 4])
    put(pieces, row, start, pieces[source, 1], value)


@compiled
def make_pieces(
    x: Floats,
    y: Floats,
    n: int,
    style: int,
    beyond: int,
    reach: float,
    work: Floats,
    pieces: Floats,
) -> int:
    """Write the pieces through the first n knots; return their number.

    ``style`` is one that n knots allow. Beyond the end knots the pieces continue as the quadratic
    that touches the end; up to ``reach`` from the knot, then hold the value reached (LIMIT) or NaN
    (MISSING). NEAREST holds the value of the knot, REFERENCE never ends.
    """
    if n == 0:
        put(pieces, 0, -math.inf, 0.0, math.nan)
        return 1
    first, last = x[0], x[n - 1]
    if style <= CONSTANT_COMPAT:
        count = constant_pieces(x, y, n, style == CONSTANT_COMPAT, pieces)
        if beyond == MISSING:
            for row in range(count, 0, -1):
                pieces[row] = pieces[row - 1]
            put(pieces, 0, -math.inf, first, math.nan)
            pieces[1, 0] = first - reach
            put(pieces, count + 1, np.nextafter(last + reach, math.inf), last, math.nan)
            count += 2
        return count
    if style == NATURAL_SPLINE:
        natural_pieces(x, y, n, work, pieces)
    elif style == AKIMA:
        akima_pieces(x, y, n, work, pieces)
    else:
        linear_pieces(x, y, n, pieces)
    # row 0 is left of the knots, rows n and n + 1 are right of them
    h = last - x[n - 2]
    end = n - 1
    b = pieces[end, 3] + h * (2.0 * pieces[end, 4] + 3.0 * h * pieces[end, 5])
    c = pieces[end, 4] + 3.0 * h * pieces[end, 5]
    put(pieces, n, last, last, y[n - 1])
    put(pieces, 0, -math.inf, first, y[0])
    if beyond == NEAREST:
        return n + 1
    pieces[n, 3], pieces[n, 4] = b, c
    pieces[0, 3], pieces[0, 4] = pieces[1, 3], pieces[1, 4]
    if beyond == REFERENCE:
        return n + 1
    for row in range(n + 1, 0, -1):
        pieces[row] = pieces[row - 1]
    pieces[1, 0] = first - reach
    if beyond == LIMIT:
        hold(pieces, 0, -math.inf, -reach, 1)
        hold(pieces, n + 2, last + reach, reach, n + 1)
    else:
        put(pieces, 0, -math.inf, first, math.nan)
        put(pieces, n + 2, np.nextafter(last + reach, math.inf), last, math.nan)
    return n + 3


@compiled
def value_at(pieces: Floats, row: int, position: float) -> float:
    """Return the value of a piece at a position."""
    u = position - pieces[row, 1]
    inner = pieces[row, 3] + u * (pieces[row, 4] + u * pieces[row, 5])
    value: float = pieces[row, 2] + u * inner
    return value


@compiled
def interpolate_into(
    x: Floats,
    y: Floats,
    positions: Floats,
    style: int,
    beyond: int,
    reach: float,
    out: Floats,
) -> None:
    """Write the interpolant through finite knots at any positions; NaN at NaN."""
    n = x.size
    work = np.empty((2, n + 4))
    pieces = np.empty((n + EXTRA, 6))
    count = make_pieces(x, y, n, reduced_style(style, n), beyond, reach, work, pieces)
    for i in range(positions.size):
        position = positions[i]
        if not math.isfinite(position):
            out[i] = math.nan
            continue
        low, high = 0, count
        while high - low > 1:
            middle = (low + high) // 2
            if pieces[middle, 0] <= position:
                low = middle
            else:
                high = middle
        out[i] = value_at(pieces, low, position)


@compiled
def finite_knots(x: Floats, y: Floats, kept_x: Floats, kept_y: Floats) -> int:
    """Copy the knots whose value is finite; return their number."""
    n = 0
    for i in range(x.size):
        if math.isfinite(y[i]):
            kept_x[n], kept_y[n] = x[i], y[i]
            n += 1
    return n


@compiled
def values_by_row(
    knots: Floats,
    grid: Floats,
    positions: Floats,
    style: int,
    strict: bool,
    beyond: int,
    reach: float,
    out: Floats,
) -> bool:
    """Interpolate each column of a grid to ascending positions; return False if strict and short.

    ``out`` is (positions, columns); a column without finite knot is NaN.
    """
    n, columns = grid.shape
    work = np.empty((2, n + 4))
    pieces = np.empty((n + EXTRA, 6))
    kept_x, kept_y = np.empty(n), np.empty(n)
    for column in range(columns):
        kept = finite_knots(knots, grid[:, column].copy(), kept_x, kept_y)
        chosen = reduced_style(style, kept)
        if strict and kept > 0 and chosen != style:
            return False
        count = make_pieces(kept_x, kept_y, kept, chosen, beyond, reach, work, pieces)
        row = 0
        for i in range(positions.size):
            while row + 1 < count and pieces[row + 1, 0] <= positions[i]:
                row += 1
            out[i, column] = value_at(pieces, row, positions[i])
    return True


@compiled
def render_piece(piece: Floats, start: int, origin: float, out: NDArray[np.float32]) -> None:
    """Evaluate one piece at consecutive pixels."""
    anchor, a, b, c, d = piece[1], piece[2], piece[3], piece[4], piece[5]
    offset = origin - anchor
    for i in range(out.size):
        u = np.float64(start + i) + offset
        out[i] = np.float32(a + u * (b + u * (c + u * d)))


@compiled
def render_rows(
    knots: Floats,
    values: Floats,
    origin: int,
    style: int,
    strict: bool,
    beyond: int,
    reach: float,
    out: NDArray[np.float32],
) -> bool:
    """Interpolate each row of values along x to every pixel; return False if strict and short."""
    height, width = out.shape
    n = knots.size
    work = np.empty((2, n + 4))
    pieces = np.empty((n + EXTRA, 6))
    kept_x, kept_y = np.empty(n), np.empty(n)
    for y in range(height):
        kept = finite_knots(knots, values[y], kept_x, kept_y)
        chosen = reduced_style(style, kept)
        if strict and kept > 0 and chosen != style:
            return False
        count = make_pieces(kept_x, kept_y, kept, chosen, beyond, reach, work, pieces)
        start = 0
        for row in range(count):
            stop = width
            if row + 1 < count:
                # the first pixel at or beyond the start of the next piece
                stop = min(max(math.ceil(pieces[row + 1, 0] - origin), start), width)
            if stop > start:
                render_piece(pieces[row], start, float(origin), out[y, start:stop])
            start = stop
    return True
