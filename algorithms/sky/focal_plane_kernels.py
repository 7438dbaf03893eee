"""Kernels that sum the pixels of a detector in cells of the focal plane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clipping import direct
from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]

COUNT, USED, LEVEL, VARIANCE, MEAN_Y, MEAN_X, MEAN_YY, MEAN_XY, MEAN_XX, LEVEL_Y, LEVEL_X = range(
    11
)
QUANTITIES = 11


@compiled
def cell_at(place: float, cells: int) -> int:
    """Return the cell of a place; cell i reaches from i - 0.5 up to i + 0.5."""
    return min(max(math.floor(place + 0.5), 0), cells - 1)


@compiled
def cells_of_pixels(
    image: NDArray[Any],
    mask: NDArray[Any],
    bits: int,
    matrix: Floats,
    rows: int,
    columns: int,
    clip: float,
    iterations: int,
    out: Floats,
) -> None:
    """Write clipped statistics of the valid pixels of each cell, (row, column, quantity).

    ``matrix`` (2, 3) takes (x, y, 1) of array pixels to the places (y, x) in units of cells.
    Quantities are pixels before and after clipping, level, its variance, and means over the pixels
    used: of the position from the centre of the cell (y, x), of its products (yy, xy, xx) and of
    its products with the level.
    """
    height, width = image.shape
    start = np.zeros(rows * columns + 1, np.int64)
    for y in range(height):
        for x in range(width):
            if math.isfinite(image[y, x]) and (mask.size == 0 or (mask[y, x] & bits) == 0):
                row = cell_at(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2], rows)
                column = cell_at(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2], columns)
                start[row * columns + column + 1] += 1
    for cell in range(rows * columns):
        start[cell + 1] += start[cell]
    place = start[:-1].copy()
    values = np.empty(start[-1], image.dtype)
    pixels = np.empty(start[-1], np.int64)
    for y in range(height):
        for x in range(width):
            if math.isfinite(image[y, x]) and (mask.size == 0 or (mask[y, x] & bits) == 0):
                row = cell_at(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2], rows)
                column = cell_at(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2], columns)
                cell = row * columns + column
                values[place[cell]] = image[y, x]
                pixels[place[cell]] = y * width + x
                place[cell] += 1
    for cell in range(rows * columns):
        row, column = cell // columns, cell % columns
        found = out[row, column]
        found[:] = 0.0
        part = values[start[cell] : start[cell + 1]]
        count, used, level, variance, _, _, center, half_width = direct(
            part.copy(), clip, iterations
        )
        found[COUNT], found[USED], found[LEVEL] = count, used, level
        if used == 0:
            found[USED] = 0.0
            continue
        found[VARIANCE] = variance / used
        for i in range(part.size):
            difference = np.float64(part[i]) - center
            if abs(difference) <= half_width:
                y, x = pixels[start[cell] + i] // width, pixels[start[cell] + i] % width
                dy = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] - row
                dx = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] - column
                found[MEAN_Y] += dy
                found[MEAN_X] += dx
                found[MEAN_YY] += dy * dy
                found[MEAN_XY] += dy * dx
                found[MEAN_XX] += dx * dx
                found[LEVEL_Y] += (np.float64(part[i]) - level) * dy
                found[LEVEL_X] += (np.float64(part[i]) - level) * dx
        for quantity in range(MEAN_Y, QUANTITIES):
            found[quantity] /= used
        found[LEVEL_Y] += level * found[MEAN_Y]
        found[LEVEL_X] += level * found[MEAN_X]
