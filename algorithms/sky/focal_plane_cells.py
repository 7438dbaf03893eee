"""Cells of the focal plane and what is summed in them.

A *grid* is a dataset that has the centres of its cells as coordinates (mm) and their size in the
attribute ``cell_size`` (along y, x). *Sums* are a dataset on a grid. They add up: those of any
parts of a focal plane merge to those of the whole, in any order. A bin or pixel belongs to the
one cell that holds its centre. Beside the weighted level its moments with the position in the
cell are kept, so that a gradient is no less exact where a cell is partly covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import bin_centers, bin_edges, box_of_background
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.focal_plane import box_corners, to_focal_plane
from skyloom.algorithms.units import squared_units

__all__ = ["SUMS", "focal_plane_grid", "focal_plane_sums", "merge_focal_plane_sums"]

Floats = NDArray[np.float64]
DIMS = (v.FOCAL_Y, v.FOCAL_X)
SQUARE_MILLIMETRE = "mm2"

SUMS = (
    "weight",
    "sum",
    "sum_variance",
    "area",
    "sum_y",
    "sum_x",
    "sum_yy",
    "sum_xy",
    "sum_xx",
    "sum_level_y",
    "sum_level_x",
)
"""What is summed: weights w; w times level; w² times variance; area, mm²; and w times position
from the cell's centre in units of the cell, its products, and its products with the level."""


class Points(NamedTuple):
    """Bins of one or more detectors as arrays, (point).

    Positions in mm; ``count`` valid pixels, ``weight`` those used, ``area`` of the valid ones.
    """

    y: Floats
    x: Floats
    level: Floats
    variance: Floats
    weight: Floats
    count: Floats  # type: ignore[assignment]  # hides tuple.count, of no use here
    area: Floats


def focal_plane_grid(
    transforms: Mapping[Any, Floats],
    shapes: Mapping[Any, tuple[int, int]],
    *,
    cell_size: tuple[float, float],
    alignment: str = "centered",
) -> xr.Dataset:
    """Return cells that cover all detectors.

    Parameters
    ----------
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    shapes : mapping from detector to (int, int)
        Rows and columns of each detector.
    cell_size : (float, float)
        Size along y and x, mm; at least two pixels.
    alignment : "centered" or "edge"
        ``ceil(extent / size)`` cells with equal margins, or, as the LSST Science Pipelines have
        it, two more with the first centred on the edge of the camera.

    Returns
    -------
    Dataset, (focal_y, focal_x)
        Coordinates only; attribute ``cell_size``.

    Raises
    ------
    ConfigurationError
        If there is no detector or cells are smaller than two pixels.
    GeometryError
        If a detector has no shape.

    Examples
    --------
    >>> transform = np.array([[0.01, 0.0, 0.0], [0.0, 0.01, 0.0]])
    >>> grid = focal_plane_grid({1: transform}, {1: (400, 800)}, cell_size=(2.0, 3.0))
    >>> grid["focal_y"].values.round(3), grid["focal_x"].values.round(3)
    (array([0.995, 2.995]), array([0.995, 3.995, 6.995]))
    """
    if not transforms:
        raise ConfigurationError("transforms is empty: a grid needs the place of a detector")
    missing = [name for name in transforms if name not in shapes]
    if missing:
        raise GeometryError(f"shapes has no shape of the detectors {missing}")
    corners, pixel = [], 0.0
    for name, transform in transforms.items():
        height, width = shapes[name]
        corners.append(np.stack(to_focal_plane(transform, *box_corners(0, height, 0, width))))
        pixel = max(pixel, float(np.sqrt(pixel_area(transform))))
    if not min(cell_size) >= 2.0 * pixel:
        raise ConfigurationError(
            f"cell_size must be at least two pixels of {pixel:g} mm, got {tuple(cell_size)} mm"
        )
    points = np.concatenate(corners, axis=1)
    centers = []
    for low, high, size in zip(
        points.min(axis=1)[::-1], points.max(axis=1)[::-1], cell_size, strict=True
    ):
        cells = max(int(np.ceil((high - low) / size - 1e-9)), 1)
        if alignment == "edge":
            centers.append(low + size * (np.arange(cells + 2) - 1.0))
        elif alignment == "centered":
            centers.append(0.5 * (low + high) + size * (np.arange(cells) - 0.5 * (cells - 1)))
        else:
            raise ConfigurationError(f"alignment must be 'centered' or 'edge', got {alignment!r}")
    units = {"units": v.MILLIMETRE}
    return xr.Dataset(
        coords={dim: (dim, center, units) for dim, center in zip(DIMS, centers, strict=True)},
        attrs={"cell_size": [float(size) for size in cell_size]},
    )


def focal_plane_sums(background: xr.Dataset, transform: Floats, grid: xr.Dataset) -> xr.Dataset:
    """Sum the bins of one detector in the cells of the focal plane.

    Parameters
    ----------
    background : Dataset, (bin_y, bin_x)
        ``level`` [any unit], ``variance`` (of the level), ``count``, ``count_used`` (the weight) of
        `measure_background`; attribute ``box``. Bins without a finite level are left out; where
        only the variance is missing, that of an average pixel of the detector stands in.
    transform : array, (2, 3), mm
        Takes pixels (x, y, 1) to the focal plane; any rotation.
    grid : Dataset
        See `focal_plane_grid`.

    Returns
    -------
    Dataset, (focal_y, focal_x)
        `SUMS` in float64 and ``count`` in int64.

    Raises
    ------
    GeometryError
        If bins lie outside the grid.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> background = xr.Dataset(
    ...     {"level": (dims, [[1.0, 3.0]]), "count": (dims, [[4, 4]])}, attrs={"box": [0, 2, 0, 4]}
    ... )
    >>> transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> grid = focal_plane_grid({1: transform}, {1: (2, 4)}, cell_size=(2.0, 4.0))
    >>> sums = focal_plane_sums(background, transform, grid)
    >>> sums["sum"].item(), sums["weight"].item()
    (16.0, 8.0)
    """
    units = str(background["level"].attrs.get("units", v.DIMENSIONLESS))
    return dataset_of_sums(summed(points_of_bins(background, transform), grid), grid, units)


def merge_focal_plane_sums(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Add the sums of parts of a focal plane.

    Parameters
    ----------
    parts : iterable of Dataset
        See `focal_plane_sums`; all on one grid.

    Raises
    ------
    ConfigurationError
        If there are none.
    GeometryError
        If grids or units differ.

    Examples
    --------
    >>> dims = ("focal_y", "focal_x")
    >>> part = xr.Dataset({"weight": (dims, [[2.0]]), "count": (dims, [[2]])})
    >>> merge_focal_plane_sums([part, part, part])["weight"].item()
    6.0
    """
    items = list(parts)
    if not items:
        raise ConfigurationError("parts is empty: there are no sums to merge")
    first = items[0]
    for index, part in enumerate(items[1:], start=1):
        same = part.sizes == first.sizes and part.attrs == first.attrs
        if not same or any(
            not np.array_equal(part[dim].values, first[dim].values) for dim in first.coords
        ):
            raise GeometryError(f"the sums at position {index} are on another grid than the first")
        units = [str(item[name].attrs.get("units")) for item in (first, part) for name in part]
        if units[: len(units) // 2] != units[len(units) // 2 :]:
            raise GeometryError(f"the sums at position {index} have other units than the first")
    merged = first.copy(deep=True)
    for part in items[1:]:
        for name in merged:
            merged[name].values += part[name].values
    return merged


def pixel_area(transform: Floats) -> float:
    """Return the area of a pixel in the focal plane, mm².

    Examples
    --------
    >>> pixel_area(np.array([[0.0, -0.5, 9.0], [0.5, 0.0, 9.0]]))
    0.25
    """
    (a, b, _), (c, d, _) = np.asarray(transform, dtype=np.float64)
    return abs(float(a * d - b * c))


def bin_positions(background: xr.Dataset, transform: Floats) -> tuple[Floats, Floats]:
    """Return y and x of the centres of bins in the focal plane, (bin_y, bin_x), mm."""
    box = box_of_background(background)
    bins = [background.sizes[dim] for dim in (v.BIN_Y, v.BIN_X)]
    center_y = bin_centers(bin_edges(box.shape[0], bins[0]), box.y_start)
    center_x = bin_centers(bin_edges(box.shape[1], bins[1]), box.x_start)
    x, y = to_focal_plane(transform, center_x[np.newaxis, :], center_y[:, np.newaxis])
    return np.broadcast_to(y, bins), np.broadcast_to(x, bins)


def points_of_bins(background: xr.Dataset, transform: Floats) -> Points:
    """Return all bins of a detector, those without level with weight 0."""
    y, x = bin_positions(background, transform)
    dims = (v.BIN_Y, v.BIN_X)
    level = np.asarray(background["level"].transpose(*dims).values, np.float64)
    count = np.asarray(background["count"].transpose(*dims).values, np.float64)
    weight = count
    if "count_used" in background:
        weight = np.asarray(background["count_used"].transpose(*dims).values, np.float64)
    variance = np.full(level.shape, np.nan)
    if "variance" in background:
        variance = np.asarray(background["variance"].transpose(*dims).values, np.float64)
    good = np.isfinite(level) & (weight > 0)
    known = good & np.isfinite(variance) & (variance >= 0)
    if known.any():
        pixel = float(np.median((variance * weight)[known]))
        variance = np.where(known, variance, pixel / np.where(good, weight, 1.0))
    return Points(
        y=y.ravel(),
        x=x.ravel(),
        level=np.where(good, level, 0.0).ravel(),
        variance=np.where(good, variance, 0.0).ravel(),
        weight=np.where(good, weight, 0.0).ravel(),
        count=np.where(good, count, 0.0).ravel(),
        area=np.where(good, count * pixel_area(transform), 0.0).ravel(),
    )


def cell_places(grid: xr.Dataset, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return positions in units of cells: the centre of cell i is at i."""
    size = grid.attrs["cell_size"]
    return tuple(  # type: ignore[return-value]  # two of them
        (position - float(grid[dim].values[0])) / float(extent)
        for dim, position, extent in zip(DIMS, (y, x), size, strict=True)
    )


def cells_of(grid: xr.Dataset, y: Floats, x: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return the cell of each position, counted along the rows, and the places in units of cells.

    Raises
    ------
    GeometryError
        If a position lies outside the grid by more than rounding.
    """
    rows, columns = (grid.sizes[dim] for dim in DIMS)
    place_y, place_x = cell_places(grid, y, x)
    row, column = np.floor(place_y + 0.5), np.floor(place_x + 0.5)
    for place, cells in ((place_y, rows), (place_x, columns)):
        if place.size and not (place.min() >= -0.501 and place.max() <= cells - 0.499):
            raise GeometryError("a detector lies outside the grid of the focal plane")
    row, column = np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)
    return (row * columns + column).astype(np.int64), place_y, place_x


def summed(points: Points, grid: xr.Dataset) -> dict[str, Floats]:
    """Return the sums of points in the cells of a grid, and ``count``, as arrays."""
    shape = tuple(grid.sizes[dim] for dim in DIMS)
    cell, place_y, place_x = cells_of(grid, points.y, points.x)
    dy, dx = place_y - cell // shape[1], place_x - cell % shape[1]
    w, z = points.weight, points.level
    terms = {
        "weight": w,
        "sum": w * z,
        "sum_variance": w * w * points.variance,
        "area": points.area,
        "sum_y": w * dy,
        "sum_x": w * dx,
        "sum_yy": w * dy * dy,
        "sum_xy": w * dy * dx,
        "sum_xx": w * dx * dx,
        "sum_level_y": w * z * dy,
        "sum_level_x": w * z * dx,
        "count": points.count,
    }
    total = int(np.prod(shape))
    return {
        name: np.bincount(cell, weights=term, minlength=total).reshape(shape).astype(np.float64)
        for name, term in terms.items()
    }


def dataset_of_sums(arrays: Mapping[str, Floats], grid: xr.Dataset, units: str) -> xr.Dataset:
    """Return sums as a dataset."""
    level_units = dict.fromkeys(("sum", "sum_level_y", "sum_level_x"), units)
    level_units |= {"sum_variance": squared_units(units), "area": SQUARE_MILLIMETRE}
    level_units |= {"count": v.DIMENSIONLESS}
    return xr.Dataset(
        {name: (DIMS, arrays[name], {"units": level_units.get(name, v.PIXEL)}) for name in SUMS}
        | {"count": (DIMS, np.rint(arrays["count"]).astype(np.int64), {"units": v.DIMENSIONLESS})},
        coords=grid.coords,
        attrs=dict(grid.attrs),
    )
