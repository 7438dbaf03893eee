"""Which pixels a polygon holds, and the mask planes of those it does not.

Vertices are pixel positions (x, y), of a trimmed detector; pixel centres are integers. A polygon
holds a centre by the even-odd rule, and centres on its outline.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.compiled import compiled

__all__ = ["inside_polygon", "mask_vignetted"]

OUTSIDE_PLANES = ("VIGNETTED", "NO_DATA")


@compiled
def fill_rows(vertices: NDArray[np.float64], inside: NDArray[np.bool_]) -> None:
    """Set the pixels whose centres a polygon holds, row by row."""
    height, width = inside.shape
    number = vertices.shape[0]
    crossings = np.empty(number)
    for y in range(height):
        found = 0
        for i in range(number):
            x0, y0 = vertices[i]
            x1, y1 = vertices[(i + 1) % number]
            if (y0 <= y) != (y1 <= y):
                crossings[found] = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                found += 1
            # the rule takes lower ends of edges only: add what lies on the outline
            if y0 == y and y1 == y:
                fill_span(inside[y], min(x0, x1), max(x0, x1), width)
            elif y0 == y:
                fill_span(inside[y], x0, x0, width)
        row = np.sort(crossings[:found])
        for i in range(0, found - 1, 2):
            fill_span(inside[y], row[i], row[i + 1], width)


@compiled
def fill_span(row: NDArray[np.bool_], start: float, stop: float, width: int) -> None:
    """Set the pixels of a row from ``start`` to ``stop``, both included."""
    first = int(np.ceil(max(start, 0.0)))
    last = int(np.floor(min(stop, width - 1.0)))
    for x in range(first, last + 1):
        row[x] = True


def inside_polygon(shape: tuple[int, int], vertices: ArrayLike) -> NDArray[np.bool_]:
    """Return which pixels of a detector have their centre in a polygon.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the detector, pixel.
    vertices : array_like, (vertex, 2), float64, pixel
        Corners (x, y) in order; the last is joined to the first. Any simple or self-crossing
        polygon, convex or not.

    Returns
    -------
    ndarray, (y, x), bool

    Raises
    ------
    ValueError
        If there are fewer than three vertices, or one is not finite.

    Examples
    --------
    >>> inside_polygon((3, 4), [(0, 0), (2, 0), (2, 2), (0, 2)]).sum(axis=1)
    array([3, 3, 3])
    """
    corners = np.ascontiguousarray(vertices, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(
            f"a polygon is an array (vertex, 2) of at least 3 corners (x, y), got shape "
            f"{corners.shape}"
        )
    if not np.isfinite(corners).all():
        raise ValueError(f"the corners of a polygon must be finite, got {corners.tolist()}")
    inside = np.zeros(shape, np.bool_)
    fill_rows(corners, inside)
    return inside


def mask_vignetted(mask: xr.DataArray, vertices: ArrayLike | None) -> xr.DataArray:
    """Return a mask in which pixels outside the valid polygon are VIGNETTED and NO_DATA.

    Parameters
    ----------
    mask : DataArray, (..., y, x), integer bit planes with their legend
        May be lazy; the result then is.
    vertices : array_like, (vertex, 2), pixel, or None
        The polygon that light reaches, see `inside_polygon`; None sets nothing.

    Returns
    -------
    DataArray, (..., y, x)
        The mask, with the two planes set outside.

    Raises
    ------
    ValueError
        If the polygon has fewer than three corners or one is not finite.
    KeyError
        If the legend of the mask has no VIGNETTED or no NO_DATA.

    Examples
    --------
    >>> mask = xr.DataArray(np.zeros((2, 3), "int32"), dims=("y", "x"))
    >>> mask_vignetted(mask, [(0, 0), (1, 0), (1, 1), (0, 1)]).values.tolist()
    [[0, 0, 1280], [0, 0, 1280]]
    """
    if vertices is None:
        return mask.copy()
    inside = inside_polygon((mask.sizes[v.Y], mask.sizes[v.X]), vertices)
    bits = np.where(inside, 0, v.plane_bits(OUTSIDE_PLANES, mask.attrs)).astype(mask.dtype)
    return (mask | xr.Variable((v.Y, v.X), bits)).transpose(*mask.dims).assign_attrs(mask.attrs)
