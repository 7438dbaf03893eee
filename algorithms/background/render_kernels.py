"""Kernels of rendering: columns of bins to rows of pixels, rows of bins to pixels, in strips."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.pieces import EXTRA, make_pieces, reduced_style, value_at
from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this package

STRIP = 64  # rows of pixels that are treated together

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Places = NDArray[np.uint64]


@compiled
def column_pieces(
    knots: Floats,
    grid: Floats,
    style: int,
    strict: bool,
    beyond: int,
    reach: float,
    places: Floats,
    coefficients: Floats,
    count: Counts,
) -> bool:
    """Write the pieces of each column of a grid; return False if strict and short of knots."""
    n, columns = grid.shape
    work, x, y = np.empty((n + 3, 1)), np.empty(n), np.empty((n, 1))
    for column in range(columns):
        kept = 0
        for i in range(n):
            if math.isfinite(grid[i, column]):
                x[kept], y[kept, 0] = knots[i], grid[i, column]
                kept += 1
        chosen = reduced_style(style, kept)
        if strict and kept > 0 and chosen != style:
            return False
        count[column] = make_pieces(
            x[:kept], y[:kept], chosen, beyond, reach, work, places[column], coefficients[column]
        )
    return True


@compiled
def equally_finite(values: Floats, number: int) -> bool:
    """Return whether the first values of each row are finite everywhere or nowhere."""
    for row in values:
        finite = 0
        for i in range(number):
            finite += int(row[i] - row[i] == 0.0)
        if 0 < finite < number:
            return False
    return True


@compiled
def first_pixels(places: Floats, count: int, origin: int, width: int, starts: Places) -> None:
    """Write the first pixel at or beyond the start of each piece, and the width behind them."""
    starts[0] = 0
    for piece in range(1, count):
        place, first = places[0, piece], 0
        # no difference is taken of places themselves: it might round to the pixel before
        if place > origin + width:
            first = width
        elif place > origin:
            first = math.ceil(place) - origin
        starts[piece] = min(max(np.int64(first), np.int64(starts[piece - 1])), np.int64(width))
    starts[count] = width


@compiled
def column_values(
    places: Floats,
    coefficients: Floats,
    starts: Places,
    count: Counts,
    origin: int,
    top: int,
    number: int,
    current: Counts,
    values: Floats,
) -> None:
    """Evaluate each column at consecutive rows of pixels; ``current`` pieces move on with them.

    The first of the rows is ``top`` behind the origin, ``values`` (column, row) may have room for
    more; ``starts`` (column, piece) are those of `first_pixels`.
    """
    rows, first = np.uint64(number), np.uint64(top)
    positions = np.arange(origin + top, origin + top + number).astype(np.float64)
    for column in range(count.size):
        piece = current[column]
        out = values[column]
        begin = np.uint64(0)
        while begin < rows:
            while starts[column, piece + 1] <= first + begin:
                piece += 1
            end = min(starts[column, piece + 1] - first, rows)
            anchor = places[column, 1, piece]
            a, b = coefficients[column, piece, 0, 0], coefficients[column, piece, 1, 0]
            c, d = coefficients[column, piece, 2, 0], coefficients[column, piece, 3, 0]
            for i in range(begin, end):
                u = positions[i] - anchor
                out[i] = a + u * (b + u * (c + u * d))
            begin = end
        current[column] = piece


@compiled
def render_row(
    anchors: Floats,
    coefficients: Floats,
    row: int,
    starts: Places,
    positions: Floats,
    out: NDArray[np.float32],
) -> None:
    """Evaluate the pieces of a set of values at the pixels of a row."""
    for piece in range(starts.size - 1):
        anchor = anchors[piece]
        a, b = coefficients[piece, 0, row], coefficients[piece, 1, row]
        c, d = coefficients[piece, 2, row], coefficients[piece, 3, row]
        # indices without sign need no guard against negative ones, so that the loop has vectors
        for i in range(starts[piece], starts[piece + 1]):
            u = positions[i] - anchor
            out[i] = np.float32(a + u * (b + u * (c + u * d)))


@compiled
def render_strip(
    knots: Floats,
    values: Floats,
    style: int,
    strict: bool,
    beyond: int,
    reach: float,
    positions: Floats,
    work: Floats,
    places: Floats,
    coefficients: Floats,
    out: NDArray[np.float32],
) -> bool:
    """Interpolate rows whose values (knots, rows) lack the same knots; False if too few remain.

    There may be more values than rows of pixels.
    """
    n, sets = values.shape
    x, y = np.empty(n), np.empty((n, sets))
    kept = 0
    for i in range(n):
        if math.isfinite(values[i, 0]):
            x[kept] = knots[i]
            y[kept] = values[i]
            kept += 1
    chosen = reduced_style(style, kept)
    if strict and kept > 0 and chosen != style:
        return False
    count = make_pieces(x[:kept], y[:kept], chosen, beyond, reach, work, places, coefficients)
    starts = np.empty(count + 1, np.uint64)
    first_pixels(places, count, int(positions[0]), positions.size, starts)
    for row in range(out.shape[0]):
        render_row(places[1], coefficients, row, starts, positions, out[row])
    return True


@compiled
def render_rows_of(
    knots: Floats,
    values: Floats,
    style: int,
    strict: bool,
    beyond: int,
    reach: float,
    positions: Floats,
    work: Floats,
    places: Floats,
    coefficients: Floats,
    out: NDArray[np.float32],
) -> bool:
    """Interpolate up to STRIP rows of values (knots, rows) to pixels; False if strict and short.

    There may be more values than rows of pixels: loops become vectors over whole arrays only.
    """
    rows = out.shape[0]
    if equally_finite(values, rows):
        return render_strip(
            knots, values, style, strict, beyond, reach, positions, work, places, coefficients, out
        )
    n = knots.size
    one, one_work = np.empty((n, 1)), np.empty((n + 3, 1))
    one_coefficients = np.empty((coefficients.shape[0], 4, 1))
    for row in range(rows):
        one[:, 0] = values[:, row]
        if not render_strip(
            knots,
            one,
            style,
            strict,
            beyond,
            reach,
            positions,
            one_work,
            places,
            one_coefficients,
            out[row : row + 1],
        ):
            return False
    return True


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
    """Interpolate columns of a grid to ascending positions; return False if strict and short.

    ``out`` is (positions, columns); a column without finite knot is NaN.
    """
    bins, columns = grid.shape
    places = np.empty((columns, 2, bins + EXTRA))
    coefficients = np.empty((columns, bins + EXTRA, 4, 1))
    count = np.empty(columns, np.int64)
    if not column_pieces(knots, grid, style, strict, beyond, reach, places, coefficients, count):
        return False
    for column in range(columns):
        piece = 0
        for i in range(positions.size):
            while piece + 1 < count[column] and places[column, 0, piece + 1] <= positions[i]:
                piece += 1
            out[i, column] = value_at(
                places[column, 1, piece], coefficients[column], piece, positions[i]
            )
    return True


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
    """Interpolate rows of values (rows, knots) to consecutive pixels from an origin on.

    Returns False if strict and short of knots.
    """
    n = knots.size
    height, width = out.shape
    turned = np.zeros((n, min(STRIP, height)))
    work = np.empty((n + 3, min(STRIP, height)))
    places = np.empty((2, n + EXTRA))
    coefficients = np.empty((n + EXTRA, 4, min(STRIP, height)))
    positions = np.arange(origin, origin + width).astype(np.float64)
    for top in range(0, height, STRIP):
        rows = min(STRIP, height - top)
        for row in range(rows):
            turned[:, row] = values[top + row]
        if not render_rows_of(
            knots,
            turned,
            style,
            strict,
            beyond,
            reach,
            positions,
            work,
            places,
            coefficients,
            out[top : top + rows],
        ):
            return False
    return True


@compiled
def render(
    knots_y: Floats,
    knots_x: Floats,
    grid: Floats,
    corner: tuple[int, int],
    styles: tuple[int, int],
    strict: bool,
    beyond: int,
    reach: tuple[float, float],
    out: NDArray[np.float32],
) -> bool:
    """Interpolate a grid to pixels from a corner (y, x) on; return False if strict and short.

    Columns first, then rows, in strips: what lies between stays in cache.
    """
    height, width = out.shape
    bins_y, n = grid.shape
    column_places = np.empty((n, 2, bins_y + EXTRA))
    column_coefficients = np.empty((n, bins_y + EXTRA, 4, 1))
    count, current = np.empty(n, np.int64), np.zeros(n, np.int64)
    if not column_pieces(
        knots_y,
        grid,
        styles[0],
        strict,
        beyond,
        reach[0],
        column_places,
        column_coefficients,
        count,
    ):
        return False
    starts = np.empty((n, bins_y + EXTRA + 1), np.uint64)
    for column in range(n):
        first_pixels(column_places[column], count[column], corner[0], height, starts[column])
    values = np.zeros((n, STRIP))
    work = np.empty((n + 3, STRIP))
    places, coefficients = np.empty((2, n + EXTRA)), np.empty((n + EXTRA, 4, STRIP))
    positions = np.arange(corner[1], corner[1] + width).astype(np.float64)
    for top in range(0, height, STRIP):
        rows = min(STRIP, height - top)
        column_values(
            column_places,
            column_coefficients,
            starts,
            count,
            corner[0],
            top,
            rows,
            current,
            values,
        )
        if not render_rows_of(
            knots_x,
            values,
            styles[1],
            strict,
            beyond,
            reach[1],
            positions,
            work,
            places,
            coefficients,
            out[top : top + rows],
        ):
            return False
    return True


@compiled
def combine_rows(rows: Floats, columns: Floats, out: NDArray[np.float32]) -> None:
    """Write the product of two matrices, summed in order."""
    line = np.empty(columns.shape[1])
    for y in range(rows.shape[0]):
        line[:] = 0.0
        for node in range(rows.shape[1]):
            factor = rows[y, node]
            if factor == 0.0:  # as most are of splines
                continue
            values = columns[node]
            for x in range(line.size):
                line[x] += factor * values[x]
        target = out[y]
        for x in range(line.size):
            target[x] = np.float32(line[x])
