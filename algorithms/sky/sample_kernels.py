"""Kernels of sky samples: cells of an image, and the template over the pixels each of them used.

The template is rendered row by row while the image is read, and never exists as an image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.bin_kernels import LANES, QUADRUPLE, clip_block, load_row
from skyloom.algorithms.background.bin_quartiles import MOST_CELLS
from skyloom.algorithms.background.render_kernels import STRIP, render_rows
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.sampled_clipping import clipped

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]

# what is known of a cell: count, count used, level and its variance, template and its variance,
# mean x and mean y of the pixels used
MOMENTS = 8  # of `clipped`
QUANTITIES = 8
LARGEST_BLOCK = 1 << 22  # values of a cell that are worth room for their order
CORRELATED = 1e-12  # a template that varies by less of its square is constant


@compiled
def clip_cells(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    clip: float,
    iterations: int,
    moments: Floats,
) -> None:
    """Write the clipped statistics of every cell to ``moments``, (cell y, cell x, moment)."""
    nothing = np.empty(0, mask.dtype)
    most = np.max(np.diff(edges_y)) * np.max(np.diff(edges_x))
    buffer = np.empty(most + QUADRUPLE, image.dtype)
    room = min(most, LARGEST_BLOCK) + QUADRUPLE + 8
    cells, kept_cells = np.empty(room, np.uint16), np.empty(room, np.uint16)
    flags, counts = np.empty(room, np.uint8), np.empty(MOST_CELLS + 2, np.int32)
    kept, group = np.empty(room, image.dtype), np.empty(room, image.dtype)
    lanes = np.empty((2, LANES))
    guess = (math.nan, math.nan)
    for cell_y in range(edges_y.size - 1):
        top, bottom = edges_y[cell_y], edges_y[cell_y + 1]
        for cell in range(edges_x.size - 1):
            left, right = edges_x[cell], edges_x[cell + 1]
            width = right - left
            n = 0
            for y in range(top, bottom):
                start = (y - top) * width
                n += load_row(
                    image[y, left:right],
                    nothing if mask.size == 0 else mask[y, left:right],
                    legend,
                    constants,
                    buffer[start : start + width],
                )
            size = (bottom - top) * width
            if size > LARGEST_BLOCK:
                found = clipped(buffer[:size], nothing, legend, constants, clip, iterations)
            else:
                filled = -(-size // QUADRUPLE) * QUADRUPLE
                buffer[size:filled] = constants[0]
                found = clip_block(
                    buffer[:filled], n, clip, iterations, guess,
                    cells, flags, counts, kept, kept_cells, group, lanes,
                )  # fmt: skip
                guess = (found[4], found[5]) if n > 0 else guess
            out = moments[cell_y, cell]
            out[0], out[1], out[2], out[3] = found[0], found[1], found[2], found[3]
            out[4], out[5], out[6], out[7] = found[4], found[5], found[6], found[7]


@compiled
def choose_used(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    center: float,
    half_width: float,
    weight: Floats,
) -> None:
    """Write 1 where a pixel was used, else 0."""
    flip, bits = legend[0], legend[1]
    if mask.size == 0:
        for i in range(image.size):
            weight[i] = 1.0 if abs(np.float64(image[i]) - center) <= half_width else 0.0
    else:
        for i in range(image.size):
            good = 1.0 if ((mask[i] ^ flip) & bits) == 0 else 0.0
            weight[i] = good if abs(np.float64(image[i]) - center) <= half_width else 0.0


@compiled
def add_counts(weight: Floats, y: float, counts: Floats, moments: Floats) -> None:
    """Add the pixels used of a row to the totals of their columns, and their y."""
    for i in range(weight.size):
        counts[i] += weight[i]
        moments[i] += y * weight[i]


@compiled
def add_used(values: NDArray[Any], weight: Floats, reference: float, totals: Floats) -> None:
    """Add differences to a reference, where a pixel was used, to the totals of their columns."""
    for i in range(values.size):
        difference = np.float64(values[i]) - reference
        totals[i] += difference if weight[i] > 0.0 else 0.0


@compiled
def close_bins(
    rows: Floats,
    totals: Floats,
    bins: NDArray[np.int64],
    variance: Floats,
    start: int,
    stop: int,
) -> float:
    """Add the totals of a row of bins to those of a cell and clear them; return its ``n² V``.

    ``rows`` are count, template and difference of the columns; ``totals`` those of the cell, and
    the squares and products of template and difference, which vary little within a bin.
    """
    noise, n_bin = 0.0, 0.0
    for x in range(start, stop):
        n, g, d = rows[0, x], rows[1, x], rows[2, x]
        n_bin += n
        if n > 0.0:
            totals[0] += n
            totals[1] += g
            totals[2] += g * g / n
            totals[3] += g * d / n
            totals[4] += n * (x - start)
        if x + 1 == stop or bins[x + 1] != bins[x]:
            noise += n_bin * n_bin * variance[bins[x]] if n_bin > 0.0 else 0.0
            n_bin = 0.0
    rows[:, start:stop] = 0.0
    return noise


@compiled
def sample_template(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    moments: Floats,
    knots: Floats,
    values: Floats,
    origin: int,
    style: int,
    beyond: int,
    reach: float,
    bins_y: NDArray[np.int64],
    bins_x: NDArray[np.int64],
    variance: Floats,
    samples: Floats,
) -> None:
    """Write to ``samples``, (cell y, cell x, quantity), what is known of every cell.

    ``moments`` are those of `clip_cells`; ``values`` (row, knot) is the template at the rows of
    the image and the knots along x; ``bins_y`` and ``bins_x`` tell the bin of each row and column,
    ``variance`` that of the bins.
    """
    width = image.shape[1]
    strip, weight = np.empty((STRIP, width), np.float32), np.empty(width)
    columns, heights = np.zeros((3, width)), np.empty(width)
    cells = edges_x.size - 1
    noise, totals = np.empty(cells), np.empty((cells, 5))
    nothing = np.empty(0, mask.dtype)
    for cell_y in range(edges_y.size - 1):
        top, bottom = edges_y[cell_y], edges_y[cell_y + 1]
        totals[:], noise[:], heights[:] = 0.0, 0.0, 0.0
        for y in range(top, bottom):
            place = (y - top) % STRIP
            if place == 0:
                rows = values[y : min(y + STRIP, bottom)]
                render_rows(
                    knots, rows, origin, style, False, beyond, reach, strip[: rows.shape[0]]
                )
            row = strip[place]
            for cell in range(cells):
                a, b = edges_x[cell], edges_x[cell + 1]
                center, half_width = moments[cell_y, cell, 6], moments[cell_y, cell, 7]
                flags = nothing if mask.size == 0 else mask[y, a:b]
                used = weight[a:b]
                choose_used(image[y, a:b], flags, legend, center, half_width, used)
                add_counts(used, float(y - top), columns[0, a:b], heights[a:b])
                add_used(row[a:b], used, 0.0, columns[1, a:b])
                add_used(image[y, a:b], used, center, columns[2, a:b])
                if y + 1 == bottom or bins_y[y + 1] != bins_y[y]:
                    noise[cell] += close_bins(
                        columns, totals[cell], bins_x, variance[bins_y[y]], a, b
                    )
        for cell in range(cells):
            a, b = edges_x[cell], edges_x[cell + 1]
            out = samples[cell_y, cell]
            write_cell(totals[cell], moments[cell_y, cell], noise[cell], out)
            out[6] += a
            out[7] = top + np.sum(heights[a:b]) / totals[cell, 0] if out[1] > 0.0 else math.nan


@compiled
def write_cell(totals: Floats, moments: Floats, noise: float, out: Floats) -> None:
    """Write means and their variances, and the mean column, from the totals of a cell."""
    n, g = totals[0], totals[1]
    out[0], out[1] = moments[0], moments[1]
    out[2:] = math.nan
    if n == 0.0:
        return
    mean, scatter, center = moments[2], moments[3], moments[6]
    template = g / n
    spread = totals[2] - g * template
    common = totals[3] - g * (mean - center)
    # what the template explains of the scatter inside the cell is no noise
    explained = common * common / spread if spread > CORRELATED * totals[2] else 0.0
    out[2] = mean
    out[3] = max(scatter - explained / (n - 1.0), 0.0) / n if n > 1.0 else math.nan
    out[4] = template
    out[5] = noise / (n * n)
    out[6] = totals[4] / n
