"""Kernels that add sources to an image ``(y, x)`` and move charge along columns.

Profiles are normalised to all of the plane; what lies outside the image or the stamp is lost.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["add_discs", "add_stars", "bleed"]

Floats = NDArray[np.float64]

FINE = 5
"""Points per pixel and axis in the middle of a disc, where the profile has a cusp."""


@compiled
def add_stars(
    image: Floats, x: Floats, y: Floats, flux: Floats, radius: Floats, alpha: float, beta: float
) -> None:
    """Add Moffat profiles (beta - 1) / (pi alpha^2) (1 + r^2 / alpha^2)^-beta at pixel centres."""
    height, width = image.shape
    norm = (beta - 1.0) / (math.pi * alpha * alpha)
    for source in range(x.size):
        reach = radius[source]
        first_y = max(math.ceil(y[source] - reach), 0)
        last_y = min(math.floor(y[source] + reach), height - 1)
        first_x = max(math.ceil(x[source] - reach), 0)
        last_x = min(math.floor(x[source] + reach), width - 1)
        for row in range(first_y, last_y + 1):
            dy2 = (row - y[source]) ** 2
            for column in range(first_x, last_x + 1):
                r2 = dy2 + (column - x[source]) ** 2
                if r2 <= reach * reach:
                    image[row, column] += (
                        flux[source] * norm * (1.0 + r2 / (alpha * alpha)) ** -beta
                    )


@compiled
def add_discs(image: Floats, x: Floats, y: Floats, flux: Floats, shape: Any, reach: Floats) -> None:
    """Add exponential discs exp(-m), averaged over pixels.

    ``shape`` (source, 2, 2) takes offsets (x, y), pixel, to the plane where the disc is round with
    scale length 1; discs end at ``reach`` scale lengths.
    """
    height, width = image.shape
    for source in range(x.size):
        a, b = shape[source, 0, 0], shape[source, 0, 1]
        c, d = shape[source, 1, 0], shape[source, 1, 1]
        area, size = abs(a * d - b * c), a * a + b * b + c * c + d * d
        norm = flux[source] * area / (2.0 * math.pi)
        end = reach[source]
        # the box around the ellipse m = end, by the inverse matrix
        half_x = end * math.sqrt(b * b + d * d) / area
        half_y = end * math.sqrt(a * a + c * c) / area
        first_y = max(math.ceil(y[source] - half_y), 0)
        last_y = min(math.floor(y[source] + half_y), height - 1)
        first_x = max(math.ceil(x[source] - half_x), 0)
        last_x = min(math.floor(x[source] + half_x), width - 1)
        for row in range(first_y, last_y + 1):
            dy = row - y[source]
            for column in range(first_x, last_x + 1):
                dx = column - x[source]
                u, w = a * dx + b * dy, c * dx + d * dy
                m = math.sqrt(u * u + w * w)
                if m > end:
                    continue
                if dx * dx + dy * dy > 25.0:
                    # the mean over the pixel to second order, by the Laplacian of exp(-m)
                    slope = ((a * u + c * w) ** 2 + (b * u + d * w) ** 2) / (m * m)
                    bend = slope - (size - slope) / m
                    image[row, column] += norm * math.exp(-m) * (1.0 + bend / 24.0)
                    continue
                total = 0.0
                for j in range(FINE):
                    fy = dy + (j + 0.5) / FINE - 0.5
                    for i in range(FINE):
                        fx = dx + (i + 0.5) / FINE - 0.5
                        total += math.exp(
                            -math.sqrt((a * fx + b * fy) ** 2 + (c * fx + d * fy) ** 2)
                        )
                image[row, column] += norm * total / (FINE * FINE)


@compiled
def _bleed_column(charge: Floats, well: Floats, excess: Floats) -> None:
    size = charge.size
    for row in range(size):
        excess[row] = max(charge[row] - well[row], 0.0)
        charge[row] -= excess[row]
    moving = 0.0
    for row in range(size):
        taken = min(moving, well[row] - charge[row])
        charge[row] += taken
        moving += 0.5 * excess[row] - taken
    moving = 0.0
    for step in range(size):
        row = size - 1 - step
        taken = min(moving, well[row] - charge[row])
        charge[row] += taken
        moving += 0.5 * excess[row] - taken


def bleed(charge: Floats, well: Floats) -> None:
    """Let charge beyond the full well flow along its column, half of it each way, in place.

    Charge that reaches the end of a column is lost.

    Examples
    --------
    >>> charge = np.array([[0.0], [10.0], [30.0], [10.0], [0.0]])
    >>> bleed(charge, np.full((5, 1), 15.0))
    >>> charge[:, 0].tolist()
    [2.5, 15.0, 15.0, 15.0, 2.5]
    """
    for column in np.flatnonzero((charge > well).any(axis=0)):
        moved = np.ascontiguousarray(charge[:, column])
        _bleed_column(moved, np.ascontiguousarray(well[:, column]), np.empty(moved.size))
        charge[:, column] = moved
