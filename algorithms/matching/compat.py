"""Bins of a tract as the LSST Science Pipelines make and use them, for comparisons.

Their bins are read from boxes of twice their size, pixels in overlaps of patches count once for
each patch, and the image of a warp is looked up beside its place (by 28 to 68 pixels for patches of
4000 pixels with a border of 100 and bins of 128). Use `tract_background` and `tract_image` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.binning import bin_image
from skyloom.algorithms.background.measurement import exposure_planes
from skyloom.algorithms.background.rendering import Rendering, render_grid
from skyloom.algorithms.boxes import Box
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.units import squared_units

__all__ = ["reference_tract_background", "reference_tract_image"]

Floats = NDArray[np.float64]


def reference_tract_background(
    warps: Iterable[xr.Dataset],
    shape: tuple[int, int],
    *,
    bin_size: int = 128,
    reject: Sequence[str] = ("BAD", "SAT", "EDGE", "NO_DATA"),
    min_fraction: float = 0.1,
    clip: float = 3.0,
    iterations: int = 3,
) -> xr.Dataset:
    """Return the levels of one visit in bins that overlap, as the reference does.

    Parameters
    ----------
    warps : iterable of Dataset, (y, x)
        Warps of one visit: ``image``, optionally ``mask``; attribute ``box``.
    shape : (height, width), pixel
        Of the tract; what is left over beside whole bins is dropped.
    bin_size : int, pixel
        Even.
    reject : sequence of str
        Mask planes whose pixels are left out.
    min_fraction : float
        Bins with fewer pixels than this fraction of their nominal area are NaN.
    clip, iterations
        Of the clipped mean.

    Returns
    -------
    Dataset, (tract_y, tract_x)
        ``level`` and ``variance`` (mean variance of *pixels*) float64, ``count`` int64.

    Examples
    --------
    >>> image = xr.DataArray(np.full((4, 6), 2.0, np.float32), dims=("y", "x"))
    >>> warp = xr.Dataset({"image": image}, attrs={"box": [0, 4, 0, 6]})
    >>> reference_tract_background([warp], (4, 6), bin_size=2)["count"].values.tolist()
    [[9, 12, 9], [9, 12, 9]]
    """
    if bin_size < 2 or bin_size % 2:
        raise ConfigurationError(f"bin_size must be even, got {bin_size}")
    bins = shape[0] // bin_size, shape[1] // bin_size
    if min(bins) < 1:
        raise GeometryError(f"a tract of {shape} pixels has no bin of {bin_size}")
    sums = np.zeros((3, *bins))
    units = v.DIMENSIONLESS
    for warp in warps:
        image, mask, _ = exposure_planes(warp)
        units = str(image.attrs.get("units", units))
        box = Box(*(int(value) for value in warp.attrs["box"]))
        bits = 0 if mask is None else v.plane_bits(reject, mask.attrs)
        planes = image.values, None if mask is None else mask.values
        # boxes of twice the size of a bin, every other one: those do not overlap
        for first_y in (0, 1):
            for first_x in (0, 1):
                chosen_y, edges_y = _boxes(first_y, bins[0], bin_size, box.y_start, box.y_stop)
                chosen_x, edges_x = _boxes(first_x, bins[1], bin_size, box.x_start, box.x_stop)
                if not (chosen_y.size and chosen_x.size):
                    continue
                found = bin_image(*planes, bits, edges_y, edges_x, clip, iterations)
                good = np.isfinite(found.level)
                count = np.where(good, found.count, 0).astype(np.float64)
                place = np.ix_(chosen_y, chosen_x)
                sums[0][place] += np.where(good, found.level, 0.0) * count
                sums[1][place] += np.nan_to_num(found.pixel_variance) * count
                sums[2][place] += count
    enough = (sums[2] > 0) & (sums[2] >= min_fraction * bin_size**2)
    number = np.where(sums[2] > 0, sums[2], np.nan)
    dims = (v.TRACT_Y, v.TRACT_X)
    return xr.Dataset(
        {
            "level": (dims, np.where(enough, sums[0] / number, np.nan), {"units": units}),
            "variance": (dims, sums[1] / number, {"units": squared_units(units)}),
            "count": (dims, sums[2].astype(np.int64), {"units": ""}),
        },
        {
            dim: (dim, (np.arange(count) + 0.5) * bin_size - 0.5, {"units": v.PIXEL})
            for dim, count in zip(dims, bins, strict=True)
        },
    )


def reference_tract_image(
    level: ArrayLike,
    box: Sequence[int],
    inner_shape: tuple[int, int],
    *,
    bin_size: int = 128,
    binning: int = 64,
) -> xr.DataArray:
    """Return levels of bins on the box of a warp where the reference puts them.

    Parameters
    ----------
    level : array_like, (tract_y, tract_x)
        Finite.
    box : (y_start, y_stop, x_start, x_stop), pixel
        Outer box of the warp.
    inner_shape : (height, width), pixel
        Of patches.
    bin_size, binning : int, pixel
        Size of the bins, and of the cells in which they are looked up.

    Returns
    -------
    DataArray, (y, x), float32

    Examples
    --------
    >>> level = np.tile(np.arange(30) * 40 + 19.5, (30, 1))  # the x of each bin
    >>> image = reference_tract_image(
    ...     level, (360, 840, 360, 840), (400, 400), bin_size=40, binning=20
    ... )
    >>> float(image[200, 200]) - (360 + 200)  # it shows what lies 30 pixels to the right
    30.0
    """
    place = Box(*(int(value) for value in box))
    cells = place.shape[0] // binning, place.shape[1] // binning
    if min(cells) < 1:
        raise GeometryError(f"a box of {place.shape} pixels has no cell of {binning}")
    offset = [place.y_start, place.x_start]
    if place.x_start % inner_shape[1]:
        offset = [
            start + (size - inner) // 2
            for start, size, inner in zip(offset, place.shape, inner_shape, strict=True)
        ]
    y, x = (
        (binning * np.arange(count) + start) / bin_size - 0.5
        for count, start in zip(cells, offset, strict=True)
    )
    values = np.asarray(level, np.float64)
    grid: Floats = map_coordinates(
        values, np.meshgrid(y, x, indexing="ij"), order=1, mode="constant", cval=np.nan
    )
    grid = np.where(np.isfinite(grid), grid, np.nanmean(grid))
    whole = Box(0, place.shape[0], 0, place.shape[1])
    image = render_grid(grid, whole, rendering=Rendering("akima", extrapolate="reference"))
    return xr.DataArray(image, dims=(v.Y, v.X), attrs={"box": list(place)})


def _boxes(
    first: int, bins: int, size: int, start: int, stop: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every other bin that a warp touches with its double box, and their edges in it."""
    chosen = np.arange(first, bins, 2)
    low = chosen * size - size // 2
    touched = (low < stop) & (low + 2 * size > start)
    chosen, low = chosen[touched], low[touched]
    edges = np.append(low, low[-1:] + 2 * size)
    return chosen, np.clip(edges, start, stop) - start
