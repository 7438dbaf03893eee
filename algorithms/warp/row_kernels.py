"""Kernels of a warp: source planes made ready, and target pixels summed row by row.

Flat source planes have `TAIL` numbers after the last pixel, which vectors may touch.
Pixels that do not count are 0 in image and variance, so that no sum meets a NaN. Positions are
whole numbers of 2^-20 pixel: a position that a transformation misses by less is met exactly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled_dividing
from skyloom.algorithms.warp.vector_sums import excluded_sum, stencil_sums

__all__: list[str] = []  # kernels for the modules of this package

TAIL = 16
BITS = 20
ONE = 1 << BITS
REST_BITS = BITS - 10  # the table has 2^10 phases
EXCLUDED, EDGE, COUNTED, MASKED = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)
FAR = 1e9  # pixels; what is farther is nowhere

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Masks = NDArray[np.int32]
Marks = NDArray[np.uint8]


@compiled_dividing
def prepare_planes(
    image: Pixels,
    variance: Pixels,
    mask: Masks,
    corner: tuple[int, int],
    bits: tuple[int, int, int],
    image_out: Pixels,
    variance_out: Pixels,
    marks: Marks,
) -> None:
    """Copy the part of an exposure from a corner on, zero what is excluded, and mark pixels.

    Marks are `EXCLUDED`, `EDGE`, `COUNTED` as masked, and `MASKED` by any plane.

    ``bits`` of the mask: those that exclude a pixel, that of the plane EDGE, and those that count
    as masked. Values or variances that are not finite, and negative variances, are excluded and
    counted.
    """
    excluding, edge, counting = np.int32(bits[0]), np.int32(bits[1]), np.int32(bits[2])
    height, width = marks.shape
    largest, zero = np.float32(3.4028235e38), np.float32(0.0)
    for y in range(height):
        row = y * width
        values, variances = image_out[row : row + width], variance_out[row : row + width]
        own_marks = marks[y]
        source = image[corner[0] + y, corner[1] : corner[1] + width]
        source_variance = variance[corner[0] + y, corner[1] : corner[1] + width]
        source_mask = mask[corner[0] + y, corner[1] : corner[1] + width]
        for x in range(width):
            value, spread, planes = source[x], source_variance[x], source_mask[x]
            finite = (abs(value) <= largest) & (spread >= zero) & (spread <= largest)
            good = finite & ((planes & excluding) == 0)
            values[x] = value if good else zero
            variances[x] = spread if good else zero
            own_marks[x] = (
                np.uint8(not good)
                | (np.uint8((planes & edge) != 0) << np.uint8(1))
                | (np.uint8(((planes & counting) != 0) | (not finite)) << np.uint8(2))
                | (np.uint8(planes != 0) << np.uint8(3))
            )


@compiled_dividing
def spread_marks(marks: Marks, taps: int, flags: Marks) -> None:
    """Write for each pixel the marks of the stencil of which it is the first."""
    height, width = marks.shape
    along = np.zeros((height, width), np.uint8)
    for y in range(height):
        row = along[y]
        for tap in range(taps):
            source = marks[y, tap:]
            for x in range(width - tap):
                row[x] |= source[x]
    for y in range(height):
        row = flags[y]
        row[:] = along[y]
        for tap in range(1, min(taps, height - y)):
            source = along[y + tap]
            for x in range(width):
                row[x] |= source[x]


@compiled_dividing
def cubic_weights(t: float) -> tuple[float, float, float, float]:
    """Return the weights of nodes -1, 0, 1, 2 in the cubic through them, at 0 <= t <= 1."""
    low, high = t + 1.0, t - 2.0
    return (
        -t * (t - 1.0) * high / 6.0,
        low * (t - 1.0) * high / 2.0,
        -low * t * high / 2.0,
        low * t * (t - 1.0) / 6.0,
    )


@compiled_dividing
def cubic_through(nodes: Floats, at: int) -> tuple[float, float, float, float]:
    """Return the coefficients of the cubic between nodes ``at`` and ``at + 1``, 0 to 1."""
    before, first, second, after = nodes[at - 1], nodes[at], nodes[at + 1], nodes[at + 2]
    return (
        first,
        second - before / 3.0 - first / 2.0 - after / 6.0,
        (before + second) / 2.0 - first,
        (after - before) / 6.0 + (first - second) / 2.0,
    )


@compiled_dividing
def positions_along(nodes: Floats, at: int, along: Floats, out: NDArray[np.int64]) -> None:
    """Write positions between nodes ``at`` and ``at + 1`` in steps of 2^-20 pixel.

    Those that are nowhere are far outside.
    """
    c0, c1, c2, c3 = cubic_through(nodes, at)
    for i in range(along.size):
        t = along[i]
        position = c0 + t * (c1 + t * (c2 + t * c3))
        position = position if abs(position) < FAR else -FAR
        out[i] = np.int64(math.floor(position * ONE + 0.5))


@compiled_dividing
def areas_along(nodes: Floats, at: int, along: Floats, out: Pixels) -> None:
    """Write areas between nodes ``at`` and ``at + 1``."""
    c0, c1, c2, c3 = cubic_through(nodes, at)
    for i in range(along.size):
        t = along[i]
        out[i] = c0 + t * (c1 + t * (c2 + t * c3))


@compiled_dividing
def bits_in_stencil(
    mask: Masks, y: int, x: int, taps: int, on_row: bool, on_column: bool, bits: np.int32
) -> np.int32:
    """Return which bits are set at taps whose weight is not 0 for certain."""
    low = taps // 2 - 1
    found = np.int32(0)
    for j in range(low if on_row else 0, low + 1 if on_row else taps):
        for i in range(low if on_column else 0, low + 1 if on_column else taps):
            found |= mask[y + j, x + i] & bits
    return found


@compiled_dividing
def counted_fraction(marks: Marks, width: int, place: int, fy: int, fx: int) -> float:
    """Return the bilinear sum of counted pixels around a position."""
    total = 0.0
    for j in range(2 if fy else 1):
        for i in range(2 if fx else 1):
            if marks[place + j * width + i] & COUNTED:
                total += (fy if j else ONE - fy) * 2.0**-BITS * (fx if i else ONE - fx)
    return total * 2.0**-BITS


@compiled_dividing
def warp_rows(
    nodes: Floats,
    origin: tuple[int, int],
    step: int,
    touched: NDArray[np.bool_],
    box: tuple[int, int, int, int],
    reach: tuple[int, int, int, int],
    table: Pixels,
    taps: int,
    corner: tuple[int, int],
    offset: tuple[int, int],
    image: Pixels,
    variance: Pixels,
    mask: Masks,
    marks: Marks,
    flags: Marks,
    weights_allowed: tuple[float, float],
    bits: tuple[int, int],
    image_out: Pixels,
    variance_out: Pixels,
    mask_out: Masks,
    fraction_out: Pixels,
) -> int:
    """Fill the target pixels of a box; return how many have data.

    ``nodes`` are source x, source y and area ratio over node_y, node_x; node (0, 0) lies at target
    pixel ``origin``, nodes are ``step`` pixels apart, and the cell (j, i) from node (j, i) to node
    (j + 1, i + 1) is skipped unless ``touched``. Beyond ``reach`` nothing has data. ``mask``
    begins at source pixel ``offset`` (y, x), the other planes ``corner`` pixels further. A pixel is
    rejected unless the kernel's weight on good pixels is within ``weights_allowed``. ``bits`` are
    those of the planes EDGE and NO_DATA. ``fraction_out`` may be empty.
    """
    height, width = flags.shape
    least, most = weights_allowed
    low = taps // 2 - 1
    mask_y, mask_x = low + corner[0], low + corner[1]
    low_y, low_x = mask_y + offset[0], mask_x + offset[1]
    flat_flags = flags.ravel()
    cells_y, cells_x = touched.shape
    line = np.empty((3, nodes.shape[2]))
    along = np.arange(step) / step
    places_x, places_y = np.empty(step, np.int64), np.empty(step, np.int64)
    areas = np.empty(step, np.float32)
    count = 0
    rest_mask, whole_mask, scale = (1 << REST_BITS) - 1, ONE - 1, np.float32(2.0**-REST_BITS)
    one, with_fraction, no_data = np.float32(1.0), fraction_out.size > 0, np.int32(bits[1])
    first_cell = max((reach[2] - origin[1]) // step, 0)
    last_cell = min((reach[3] - 1 - origin[1]) // step, cells_x - 1)
    for y in range(box[0], box[1]):
        row, row_variance = image_out[y - box[0]], variance_out[y - box[0]]
        row_mask = mask_out[y - box[0]]
        row[:], row_variance[:], row_mask[:] = np.nan, np.inf, no_data
        if with_fraction:
            fraction_out[y - box[0], :] = one
        cell_y = (y - origin[0]) // step
        if y < reach[0] or y >= reach[1] or cell_y < 1 or cell_y >= cells_y - 1:
            continue
        weights = cubic_weights((y - origin[0] - cell_y * step) / step)
        ready = False
        for cell_x in range(first_cell, last_cell + 1):
            if not touched[cell_y, cell_x]:
                continue
            if not ready:
                for k in range(3):
                    for i in range(line.shape[1]):
                        line[k, i] = (
                            weights[0] * nodes[k, cell_y - 1, i]
                            + weights[1] * nodes[k, cell_y, i]
                            + weights[2] * nodes[k, cell_y + 1, i]
                            + weights[3] * nodes[k, cell_y + 2, i]
                        )
                ready = True
            positions_along(line[0], cell_x, along, places_x)
            positions_along(line[1], cell_x, along, places_y)
            areas_along(line[2], cell_x, along, areas)
            begin = origin[1] + cell_x * step
            for x in range(max(begin, reach[2]), min(begin + step, reach[3])):
                place = np.uint64(x - begin)
                at_x, at_y = places_x[place], places_y[place]
                first_x, first_y = (at_x >> BITS) - low_x, (at_y >> BITS) - low_y
                inside_x = np.uint64(first_x) <= np.uint64(width - taps)
                if not (inside_x & (np.uint64(first_y) <= np.uint64(height - taps))):
                    continue
                fx, fy = at_x & whole_mask, at_y & whole_mask
                phase_x, phase_y = fx >> REST_BITS, fy >> REST_BITS
                rest_x = np.float32(fx & rest_mask) * scale
                rest_y = np.float32(fy & rest_mask) * scale
                start = first_y * width + first_x
                if taps == 6:
                    value, spread = stencil_sums(
                        table, phase_x, rest_x, phase_y, rest_y, image, variance, start, width, 6
                    )
                elif taps == 10:
                    value, spread = stencil_sums(
                        table, phase_x, rest_x, phase_y, rest_y, image, variance, start, width, 10
                    )
                else:
                    value, spread = stencil_sums(
                        table, phase_x, rest_x, phase_y, rest_y, image, variance, start, width, 2
                    )
                factor, found, masked, kept = areas[place], np.int32(0), 0.0, True
                flag = flat_flags[np.uint64(start)]
                if flag:
                    left, top = first_x + mask_x, first_y + mask_y
                    right, bottom = left + (fx != 0), top + (fy != 0)
                    found |= mask[top, left] | mask[top, right]
                    found |= mask[bottom, left] | mask[bottom, right]
                    if flag & EDGE:
                        found |= bits_in_stencil(
                            mask, first_y + corner[0], first_x + corner[1], taps,
                            fy == 0, fx == 0, np.int32(bits[0]),
                        )  # fmt: skip
                    if flag & COUNTED:
                        masked = counted_fraction(marks, width, start + low * width + low, fy, fx)
                    if flag & EXCLUDED:
                        if taps == 6:
                            bad = excluded_sum(
                                table, phase_x, rest_x, phase_y, rest_y, marks, start, width, 6
                            )
                        elif taps == 10:
                            bad = excluded_sum(
                                table, phase_x, rest_x, phase_y, rest_y, marks, start, width,
                                10,
                            )  # fmt: skip
                        else:
                            bad = excluded_sum(
                                table, phase_x, rest_x, phase_y, rest_y, marks, start, width, 2
                            )
                        weight = one - bad
                        kept = least <= weight <= most
                        factor = factor * (one / weight)
                column = np.uint64(x - box[2])
                if kept:
                    row[column] = value * factor
                    row_variance[column] = spread * (factor * factor)
                    row_mask[column] = found
                    count += 1
                else:
                    row_mask[column] |= found
                if with_fraction:
                    fraction_out[y - box[0], column] = masked
    return count
