"""Where bins lie: edges, centres, and the two rules for their number.

A box is half-open ``(y_start, y_stop, x_start, x_stop)`` in parent pixels; a pixel is at its
integer coordinate. Bins tile a box; their sizes differ by at most one pixel.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.boxes import Box
from skyloom.algorithms.errors import ConfigurationError, GeometryError

__all__ = ["Box", "bin_centers", "bin_count", "bin_edges", "box_of_background", "box_of_image"]

GridRule = Literal["nearest", "ceil"]


def bin_count(width: int, bin_size: int, *, rule: GridRule = "nearest") -> int:
    """Return how many bins of about a size tile a width.

    Parameters
    ----------
    width : int
        Pixels to tile; >= 1.
    bin_size : int
        Wanted size of a bin, pixel; >= 1.
    rule : "nearest" or "ceil"
        ``max(floor(width / bin_size + 1/2), 1)`` or ``ceil(width / bin_size)``. Never mix them on
        frames that are to share bins.

    Raises
    ------
    ValueError
        If width or size is below 1 or the rule is unknown.

    Examples
    --------
    >>> [bin_count(width, 32, rule=rule) for width in (47, 4072) for rule in ("nearest", "ceil")]
    [1, 2, 127, 128]
    """
    if width < 1 or bin_size < 1:
        raise GeometryError(f"width and bin_size must be >= 1, got {width} and {bin_size}")
    if rule == "nearest":
        return max((2 * width + bin_size) // (2 * bin_size), 1)
    if rule == "ceil":
        return -(-width // bin_size)
    raise ConfigurationError(f"rule must be 'nearest' or 'ceil', got {rule!r}")


def bin_edges(width: int, bins: int) -> NDArray[np.int64]:
    """Return the edges of bins that tile a width evenly: bin i is ``[edges[i], edges[i + 1])``.

    Parameters
    ----------
    width : int
        Pixels to tile; >= 1.
    bins : int
        Number of bins; 1 to ``width``.

    Returns
    -------
    ndarray, (bins + 1,), int64, pixel
        From 0 to ``width``; ``((i + 1) width + bins // 2) // bins`` ends bin i.

    Raises
    ------
    ValueError
        If there are fewer pixels than bins.

    Examples
    --------
    >>> bin_edges(100, 7)
    array([  0,  14,  29,  43,  57,  71,  86, 100])
    """
    if not 1 <= bins <= width:
        raise ConfigurationError(f"bins must be between 1 and the {width} pixels, got {bins}")
    ends = (np.arange(bins + 1, dtype=np.int64) * width + bins // 2) // bins
    ends[0] = 0
    return np.minimum(ends, width)


def bin_centers(edges: NDArray[Any], origin: int = 0) -> NDArray[np.float64]:
    """Return the centres of bins in parent pixels.

    Parameters
    ----------
    edges : ndarray, (bins + 1,), int, pixel
    origin : int
        Parent pixel of edge 0.

    Returns
    -------
    ndarray, (bins,), float64, pixel

    Examples
    --------
    >>> bin_centers(bin_edges(6, 2), origin=10)
    array([11., 14.])
    """
    centers: NDArray[np.float64] = origin + 0.5 * (edges[:-1] + edges[1:]) - 0.5
    return centers


def box_of_image(image: xr.DataArray) -> Box:
    """Return the box an image covers: its ``y`` and ``x`` coordinates, from 0 without them.

    Raises
    ------
    GeometryError
        If a dimension is missing or empty, or a coordinate does not step by one pixel.

    Examples
    --------
    >>> box_of_image(xr.DataArray(np.zeros((2, 3)), dims=("y", "x"), coords={"x": [5, 6, 7]}))
    Box(y_start=0, y_stop=2, x_start=5, x_stop=8)
    """
    limits = []
    for dim in (v.Y, v.X):
        if image.sizes.get(dim, 0) == 0:
            raise GeometryError(f"the image needs pixels along {dim}, it has {dict(image.sizes)}")
        start = 0
        if dim in image.coords:
            values = np.asarray(image.coords[dim].values)
            start = int(values[0])
            if not np.array_equal(values, np.arange(start, start + values.size)):
                raise GeometryError(f"coordinate {dim} must count pixels one by one")
        limits += [start, start + image.sizes[dim]]
    return Box(*limits)


def box_of_background(background: xr.Dataset) -> Box:
    """Return the box that the bins of a background tile, from its attribute ``box``.

    Raises
    ------
    GeometryError
        If the attribute is missing or there are more bins than pixels.

    Examples
    --------
    >>> level = xr.DataArray(np.zeros((1, 2)), dims=("bin_y", "bin_x"))
    >>> box_of_background(xr.Dataset({"level": level}, attrs={"box": [0, 4, 0, 8]})).shape
    (4, 8)
    """
    if "box" not in background.attrs:
        raise GeometryError(
            "the background has no attribute box [y_start, y_stop, x_start, x_stop]"
        )
    limits = [int(value) for value in np.atleast_1d(background.attrs["box"])]
    if len(limits) != 4:
        raise GeometryError(f"box must be [y_start, y_stop, x_start, x_stop], got {limits}")
    box = Box(*limits)
    bins = tuple(background.sizes.get(dim, 0) for dim in (v.BIN_Y, v.BIN_X))
    if any(not 1 <= number <= size for number, size in zip(bins, box.shape, strict=True)):
        raise GeometryError(f"a box of {box.shape} pixels cannot be tiled by {bins} bins (y, x)")
    return box
