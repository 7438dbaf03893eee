"""Interpolation in one dimension as cubic pieces, for many sets of values at once, compiled.

A piece holds on ``[start, next start)`` and is ``a + u (b + u (c + u d))`` with ``u = x - anchor``.
``places`` (2, pieces) holds starts and anchors, ``coefficients`` (pieces, 4, sets) a to d. Knots
ascend; values (knots, sets) are finite. Loops over sets are innermost: they become vectors.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_dividing

__all__: list[str] = []  # kernels for the modules of this package

CONSTANT, CONSTANT_COMPAT, LINEAR, NATURAL_SPLINE, AKIMA = 0, 1, 2, 3, 4
NEAREST, LIMIT, REFERENCE, MISSING = 0, 1, 2, 3
EXTRA = 4  # pieces beside those between knots

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
def set_constant(coefficients: Floats, piece: int, value: Floats) -> None:
    """Make a piece constant."""
    for s in range(value.size):
        coefficients[piece, 0, s] = value[s]
        coefficients[piece, 1, s] = 0.0
        coefficients[piece, 2, s] = 0.0
        coefficients[piece, 3, s] = 0.0


@compiled
def constant_pieces(
    x: Floats, y: Floats, compat: bool, places: Floats, coefficients: Floats
) -> int:
    """Write a piece for each knot between the midpoints; return their number."""
    n = x.size
    places[0, 0], places[1, 0] = -math.inf, x[0]
    set_constant(coefficients, 0, y[0])
    for i in range(1, n):
        places[0, i], places[1, i] = 0.5 * (x[i - 1] + x[i]), x[i]
        set_constant(coefficients, i, 0.5 * (y[i - 1] + y[i]) if compat else y[i])
    if compat and n > 1:
        places[0, n], places[1, n] = x[n - 1] + 0.5 * (x[n - 1] - x[n - 2]), x[n - 1]
        set_constant(coefficients, n, y[n - 1])
        return n + 1
    return n


@compiled
def linear_pieces(x: Floats, y: Floats, coefficients: Floats) -> None:
    """Write straight lines between the knots, pieces 1 to n - 1."""
    for i in range(x.size - 1):
        inverse = 1.0 / (x[i + 1] - x[i])
        for s in range(y.shape[1]):
            coefficients[i + 1, 0, s] = y[i, s]
            coefficients[i + 1, 1, s] = (y[i + 1, s] - y[i, s]) * inverse
            coefficients[i + 1, 2, s] = 0.0
            coefficients[i + 1, 3, s] = 0.0


@compiled
def natural_pieces(x: Floats, y: Floats, work: Floats, coefficients: Floats) -> None:
    """Write the cubic spline whose second derivative is 0 at both ends, pieces 1 to n - 1."""
    n, sets = y.shape
    factor = np.zeros(n)
    second = work  # second derivatives, by elimination down the three diagonals
    second[0, :] = 0.0
    second[n - 1, :] = 0.0
    for i in range(1, n - 1):
        h, h_1 = x[i] - x[i - 1], x[i + 1] - x[i]
        inverse, inverse_1 = 1.0 / h, 1.0 / h_1
        pivot = 1.0 / (2.0 * (h + h_1) - h * factor[i - 1])
        factor[i] = h_1 * pivot
        for s in range(sets):
            bend = (y[i + 1, s] - y[i, s]) * inverse_1 - (y[i, s] - y[i - 1, s]) * inverse
            second[i, s] = (6.0 * bend - h * second[i - 1, s]) * pivot
    for i in range(n - 2, 0, -1):
        for s in range(sets):
            second[i, s] -= factor[i] * second[i + 1, s]
    for i in range(n - 1):
        h = x[i + 1] - x[i]
        inverse, sixth = 1.0 / h, h / 6.0
        for s in range(sets):
            here, there = second[i, s], second[i + 1, s]
            slope = (y[i + 1, s] - y[i, s]) * inverse
            coefficients[i + 1, 0, s] = y[i, s]
            coefficients[i + 1, 1, s] = slope - sixth * (2.0 * here + there)
            coefficients[i + 1, 2, s] = 0.5 * here
            coefficients[i + 1, 3, s] = (there - here) * inverse / 6.0


@compiled_dividing
def akima_slopes(x: Floats, y: Floats, slope: Floats) -> None:
    """Write the slopes of the intervals, that of interval i at i + 2, and two beyond each end."""
    n, sets = y.shape
    for i in range(n - 1):
        inverse = 1.0 / (x[i + 1] - x[i])
        for s in range(sets):
            slope[i + 2, s] = (y[i + 1, s] - y[i, s]) * inverse
    for s in range(sets):
        slope[1, s] = 2.0 * slope[2, s] - slope[3, s]
        slope[0, s] = 3.0 * slope[2, s] - 2.0 * slope[3, s]
        slope[n + 1, s] = 2.0 * slope[n, s] - slope[n - 1, s]
        slope[n + 2, s] = 3.0 * slope[n, s] - 2.0 * slope[n - 1, s]


@compiled_dividing
def akima_pieces(x: Floats, y: Floats, slope: Floats, coefficients: Floats) -> None:
    """Write Akima's spline, pieces 1 to n - 1; a corner between two straight lines stays sharp."""
    akima_slopes(x, y, slope)
    for i in range(x.size - 1):
        h = x[i + 1] - x[i]
        inverse, inverse_2 = 1.0 / h, 1.0 / (h * h)
        for s in range(y.shape[1]):
            m = slope[i + 2, s]
            left = abs(slope[i + 1, s] - slope[i, s])
            total = abs(slope[i + 3, s] - m) + left
            alpha = left / total
            begin = (1.0 - alpha) * slope[i + 1, s] + alpha * m
            begin = m if total == 0.0 else begin
            left_1 = abs(m - slope[i + 1, s])
            total_1 = abs(slope[i + 4, s] - slope[i + 3, s]) + left_1
            alpha_1 = left_1 / total_1
            end = (1.0 - alpha_1) * m + alpha_1 * slope[i + 3, s]
            end = m if total_1 == 0.0 else end
            # two equal slopes on the left and two on the right: a straight line whatever follows
            end = m if total == 0.0 else end
            coefficients[i + 1, 0, s] = y[i, s]
            coefficients[i + 1, 1, s] = begin
            coefficients[i + 1, 2, s] = (3.0 * m - 2.0 * begin - end) * inverse
            coefficients[i + 1, 3, s] = (begin + end - 2.0 * m) * inverse_2


@compiled
def end_pieces(x: Floats, y: Floats, beyond: int, coefficients: Floats) -> None:
    """Write the pieces left (0) and right (n) of the knots: constant, or touching parabolas."""
    n = x.size
    h = x[n - 1] - x[n - 2]
    set_constant(coefficients, 0, y[0])
    set_constant(coefficients, n, y[n - 1])
    if beyond == NEAREST:
        return
    for s in range(y.shape[1]):
        b, c, d = coefficients[n - 1, 1, s], coefficients[n - 1, 2, s], coefficients[n - 1, 3, s]
        coefficients[n, 1, s] = b + h * (2.0 * c + 3.0 * h * d)
        coefficients[n, 2, s] = c + 3.0 * h * d
        coefficients[0, 1, s] = coefficients[1, 1, s]
        coefficients[0, 2, s] = coefficients[1, 2, s]


@compiled
def value_at_distance(coefficients: Floats, piece: int, u: float, value: Floats) -> None:
    """Write the values of a piece at a distance from its anchor."""
    for s in range(value.size):
        inner = coefficients[piece, 2, s] + u * coefficients[piece, 3, s]
        inner = coefficients[piece, 1, s] + u * inner
        value[s] = coefficients[piece, 0, s] + u * inner


@compiled
def add_limits(
    x: Floats, count: int, beyond: int, reach: float, places: Floats, coefficients: Floats
) -> int:
    """Let the end pieces reach so far beyond the knots, and put a constant or NaN behind each.

    The pieces are 1 to ``count``; 0 and ``count + 1`` are written.
    """
    value = np.full(coefficients.shape[2], math.nan)
    first, last = x[0], x[x.size - 1]
    end = last + reach
    places[0, 1] = first - reach
    if beyond == LIMIT:
        value_at_distance(coefficients, 1, first - reach - places[1, 1], value)
    places[0, 0], places[1, 0] = -math.inf, first
    set_constant(coefficients, 0, value)
    if beyond == LIMIT:
        value_at_distance(coefficients, count, end - places[1, count], value)
    else:
        end = np.nextafter(end, math.inf)
    places[0, count + 1], places[1, count + 1] = end, last
    set_constant(coefficients, count + 1, value)
    return count + 2


@compiled
def make_pieces(
    x: Floats,
    y: Floats,
    style: int,
    beyond: int,
    reach: float,
    work: Floats,
    places: Floats,
    coefficients: Floats,
) -> int:
    """Write the pieces through all knots for each set of values; return their number.

    ``style`` is one that the knots allow; ``work`` is (knots + 3, sets). Beyond the end knots the
    pieces continue as the parabola that touches the end, up to ``reach`` from the knot, then hold
    the value reached (LIMIT) or NaN (MISSING). NEAREST holds the value of the knot, REFERENCE
    never ends. Constant pieces end for MISSING only.
    """
    n = x.size
    if n == 0:
        places[0, 0], places[1, 0] = -math.inf, 0.0
        set_constant(coefficients, 0, np.full(y.shape[1], math.nan))
        return 1
    if style <= CONSTANT_COMPAT:
        count = constant_pieces(x, y, style == CONSTANT_COMPAT, places, coefficients)
        if beyond != MISSING:
            return count
        for i in range(count, 0, -1):
            places[0, i], places[1, i] = places[0, i - 1], places[1, i - 1]
            coefficients[i] = coefficients[i - 1]
        return add_limits(x, count, beyond, reach, places, coefficients)
    limited = beyond not in (NEAREST, REFERENCE)
    first = 1 if limited else 0
    inner = coefficients[first:]
    if style == NATURAL_SPLINE:
        natural_pieces(x, y, work, inner)
    elif style == AKIMA:
        akima_pieces(x, y, work, inner)
    else:
        linear_pieces(x, y, inner)
    end_pieces(x, y, beyond, inner)
    places[0, first], places[1, first] = -math.inf, x[0]
    for i in range(n):
        places[0, first + i + 1], places[1, first + i + 1] = x[i], x[i]
    # the last knot starts the piece on its right; inner pieces 0 to n exist
    if limited:
        return add_limits(x, n + 1, beyond, reach, places, coefficients)
    return n + 1


@compiled
def value_at(anchor: float, coefficients: Floats, piece: int, position: float) -> float:
    """Return the value of a piece of the first set at a position."""
    u = position - anchor
    inner = coefficients[piece, 2, 0] + u * coefficients[piece, 3, 0]
    inner = coefficients[piece, 1, 0] + u * inner
    value: float = coefficients[piece, 0, 0] + u * inner
    return value


@compiled
def interpolate_into(
    x: Floats, y: Floats, positions: Floats, style: int, beyond: int, reach: float, out: Floats
) -> None:
    """Write the interpolant through finite knots at any positions; NaN at NaN."""
    n = x.size
    places, coefficients = np.empty((2, n + EXTRA)), np.empty((n + EXTRA, 4, 1))
    count = make_pieces(
        x,
        y.reshape((n, 1)),
        reduced_style(style, n),
        beyond,
        reach,
        np.empty((n + 3, 1)),
        places,
        coefficients,
    )
    for i in range(positions.size):
        position = positions[i]
        if not math.isfinite(position):
            out[i] = math.nan
            continue
        low, high = 0, count
        while high - low > 1:
            middle = (low + high) // 2
            if places[0, middle] <= position:
                low = middle
            else:
                high = middle
        out[i] = value_at(places[1, low], coefficients, low, position)
