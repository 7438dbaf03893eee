"""Which pixels of an amplifier are measured: away from edges, and where the light is even."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Box

__all__ = [
    "Selection",
    "focal_plane_radius",
    "inside_edges",
    "keep_slices",
    "vignetting_selection",
]


class Selection(NamedTuple):
    """Pixels (y, x) to use, and the vignetting tolerated to have enough of them, percent."""

    good: NDArray[np.bool_]
    percent: float


def inside_edges(box: Box, edge: int, around: Box) -> tuple[slice, slice]:
    """Return the part of a box that is at least some pixels inside the edges of another.

    Parameters
    ----------
    box : Box
        Pixels of one amplifier.
    edge : int
        Pixels left out along each edge.
    around : Box
        The detector, or the amplifier itself.

    Returns
    -------
    tuple of slices
        (y, x), counted from the start of ``box``; empty where nothing is left.

    Examples
    --------
    >>> inside_edges(Box(0, 10, 0, 10), 2, Box(0, 10, 0, 20))
    (slice(2, 8, None), slice(2, 10, None))
    """

    def part(start: int, stop: int, low: int, high: int) -> slice:
        first = min(max(low + edge - start, 0), stop - start)
        return slice(first, max(min(high - edge, stop) - start, first))

    return (
        part(box.y_start, box.y_stop, around.y_start, around.y_stop),
        part(box.x_start, box.x_stop, around.x_start, around.x_stop),
    )


def keep_slices(good: NDArray[np.bool_], kept: tuple[slice, slice]) -> None:
    """Clear, in place, what lies outside the rows and columns kept.

    Examples
    --------
    >>> good = np.ones((3, 3), bool)
    >>> keep_slices(good, (slice(1, 2), slice(0, 3)))
    >>> good.sum(axis=1).tolist()
    [0, 3, 0]
    """
    rows, columns = kept
    good[: rows.start] = False
    good[rows.stop :] = False
    good[:, : columns.start] = False
    good[:, columns.stop :] = False


def focal_plane_radius(box: Box, transform: ArrayLike) -> xr.DataArray:
    """Return the distance of pixels from the centre of the focal plane.

    Parameters
    ----------
    box : Box
        Trimmed pixels of the detector.
    transform : array_like, (2, 3), float64
        Focal-plane x and y (m) are ``transform @ (x, y, 1)`` of the pixel.

    Returns
    -------
    DataArray, (y, x), float32, m

    Raises
    ------
    ValueError
        If the transform is not (2, 3).

    Examples
    --------
    >>> radius = focal_plane_radius(Box(4, 5, 3, 4), [[1e-5, 0, 0], [0, 1e-5, 0]])
    >>> round(float(radius[0, 0]), 8)
    5e-05
    """
    affine = np.asarray(transform, dtype=np.float64)
    if affine.shape != (2, 3):
        raise ValueError(f"transform must have shape (2, 3), got {affine.shape}")
    y = np.arange(box.y_start, box.y_stop, dtype=np.float64)
    x = np.arange(box.x_start, box.x_stop, dtype=np.float64)
    radius = np.zeros(box.shape, np.float32)
    for along_x, along_y, constant in affine:
        part = (along_x * x + constant)[None, :] + (along_y * y)[:, None]
        radius += (part * part).astype(np.float32)
    return xr.DataArray(
        np.sqrt(radius, out=radius), coords={v.Y: y, v.X: x}, dims=(v.Y, v.X), attrs={"units": "m"}
    )


def vignetting_selection(
    radius: ArrayLike,
    coefficients: ArrayLike,
    *,
    percent: float = 2.0,
    min_pixels: int = 250_000,
) -> Selection:
    """Return the pixels where the throughput is within some percent of its maximum.

    The tolerance grows by one percent until enough pixels are kept, or all are.

    Parameters
    ----------
    radius : array_like, (y, x), m
        Distance from the centre of the focal plane.
    coefficients : array_like
        Polynomial of the throughput in the radius, highest power first.
    percent : float
        Tolerance tried first.
    min_pixels : int
        Pixels to be kept.

    Returns
    -------
    Selection
        ``percent`` is larger than the argument where the tolerance had to grow.

    Raises
    ------
    ValueError
        If there are no coefficients, or percent is not in (0, 100].

    Examples
    --------
    >>> import numpy as np
    >>> radius = np.linspace(0.0, 1.0, 101)[None, :]
    >>> vignetting_selection(radius, [-0.1, 0.0, 1.0], min_pixels=50).percent
    3.0
    """
    polynomial = np.asarray(coefficients, dtype=np.float64)
    if polynomial.size == 0:
        raise ValueError("coefficients must not be empty")
    if not 0.0 < percent <= 100.0:
        raise ValueError(f"percent must be in (0, 100], got {percent}")
    distances = np.asarray(radius)
    throughput = np.zeros(distances.shape, np.float32)
    for coefficient in polynomial:
        throughput = throughput * distances + np.float32(coefficient)
    largest = float(throughput.max(initial=-np.inf))
    tolerance = float(percent)
    while True:
        good = np.asarray(throughput > (1.0 - tolerance / 100.0) * largest)
        if np.count_nonzero(good) >= min_pixels or tolerance >= 100.0:
            return Selection(good, tolerance)
        tolerance = min(tolerance + 1.0, 100.0)
