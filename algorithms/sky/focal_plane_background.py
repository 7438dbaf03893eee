"""One smooth sky across all detectors of an exposure, made of the bins of their backgrounds.

Pixels are read once, into bins; a bin is so small that a smooth sky is constant across it, and
everything here works on bins. Bins of all detectors that share a cell of the focal plane are
clipped as one population, so a glow in one detector is rejected against its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import box_of_background, box_of_image
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.focal_plane import box_corners
from skyloom.algorithms.pixel_arrays import native
from skyloom.algorithms.sky import focal_plane_kernels as kernels
from skyloom.algorithms.sky.focal_basis import (
    FocalBox,
    chebyshev_values,
    scaled_to_box,
)
from skyloom.algorithms.sky.focal_plane_cells import (
    DIMS,
    Points,
    bin_positions,
    cells_of,
    dataset_of_sums,
    focal_plane_grid,
    pixel_area,
    points_of_bins,
    summed,
)
from skyloom.algorithms.sky.focal_plane_level import (
    Surface,
    focal_plane_level,
    solve_level,
    surface_flags,
)
from skyloom.algorithms.sky.focal_plane_parameters import FocalPlaneParameters
from skyloom.algorithms.sky.visit_fit import common_detectors

__all__ = ["focal_plane_background", "focal_plane_on_detector", "focal_plane_sums_of_pixels"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MAD_TO_SIGMA = 1.482602218505602  # of a Gaussian, from the median of absolute deviations
FEW_BINS = 8  # cells of fewer bins are clipped by the scatter of all


def focal_plane_background(
    backgrounds: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    parameters: FocalPlaneParameters,
    grid: xr.Dataset | None = None,
    detector_types: Mapping[Any, str] | None = None,
) -> xr.Dataset:
    """Return the smooth sky of one exposure across the focal plane.

    Parameters
    ----------
    backgrounds : mapping from detector to Dataset, (bin_y, bin_x)
        ``level``, ``variance``, ``count`` and ``count_used`` of `measure_background`, all in one
        unit. Detectors may have different bins. Their order makes no difference beyond rounding.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane; any rotation. Detectors that only one of the two
        mappings has are left out, with a warning.
    parameters : FocalPlaneParameters
        The size of the cells has no default.
    grid : Dataset, optional
        Cells, see `focal_plane_grid`; by default such that cover these detectors. Exposures that
        are to be compared cell by cell share one.
    detector_types : mapping from detector to type, optional
        Needed for steps between types. Types so different that they share no sky are modelled by
        one call each.

    Returns
    -------
    Dataset, (focal_y, focal_x)
        See `focal_plane_level`: ``level``, ``variance``, ``flags``, the sums of the bins used and
        the scalars ``scale`` and ``scale_sigma``; with steps also ``step`` (detector), whose mean
        over the weights is 0. ``clipped_count`` is the number of bins that were clipped.

    Raises
    ------
    ConfigurationError
        If there is no detector, cells are smaller than bins, or types are missing.
    GeometryError
        If detectors lie outside the grid, or units differ.
    NoUsableDataError
        If no cell reaches the minimum fraction.

    Notes
    -----
    Bins are clipped about the median of their cell first, then about the surface between cells, in
    units of the scatter of the cell about it; each pass tests all bins.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> counts = np.full((4, 4), 64)
    >>> background = xr.Dataset(
    ...     {"level": (dims, np.full((4, 4), 7.0)), "count": (dims, counts)},
    ...     attrs={"box": [0, 32, 0, 32]},
    ... )
    >>> transform = np.array([[0.01, 0.0, 0.0], [0.0, 0.01, 0.0]])
    >>> parameters = FocalPlaneParameters(cell_size=(0.2, 0.2))
    >>> sky = focal_plane_background({1: background}, {1: transform}, parameters=parameters)
    >>> float(sky["scale"]), sky["level"].shape
    (7.0, (2, 2))
    """
    if not backgrounds:
        raise ConfigurationError("backgrounds is empty: a sky needs the bins of a detector")
    detectors = common_detectors([backgrounds, transforms])
    transforms = {name: _transform(transforms[name], name) for name in detectors}
    units = {str(backgrounds[name]["level"].attrs.get("units", "")) for name in detectors}
    if len(units) > 1:
        raise GeometryError(f"backgrounds must share one unit, got {sorted(units)}")
    if grid is None:
        shapes = {name: box_of_background(backgrounds[name]).shape for name in detectors}
        transforms_0 = {
            name: _shifted(transforms[name], box_of_background(backgrounds[name])[::2])
            for name in detectors
        }
        grid = focal_plane_grid(
            transforms_0, shapes, cell_size=parameters.cell_size, alignment=parameters.alignment
        )
    for name in detectors:
        _check_bins(backgrounds[name], transforms[name], grid)
    parts = [points_of_bins(backgrounds[name], transforms[name]) for name in detectors]
    points = Points(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    sizes = [len(part.level) for part in parts]
    group, groups = _groups(detectors, detector_types, parameters.steps)
    fit = _fit(points, np.repeat(group, sizes), groups, grid, units.pop(), parameters)
    model = fit.model
    if groups > 1:
        model = model.assign(
            step=(v.DETECTOR, fit.steps[group], {"units": model["level"].attrs["units"]})
        ).assign_coords({v.DETECTOR: np.array(detectors)})
    return model.assign_coords(clipped_count=((), int(fit.clipped), {"units": v.DIMENSIONLESS}))


def focal_plane_on_detector(
    model: xr.Dataset,
    transform: Floats,
    background: xr.Dataset,
    *,
    detector: Any = None,
) -> xr.Dataset:
    """Return the sky of the focal plane in the bins of one detector.

    Parameters
    ----------
    model : Dataset
        Of `focal_plane_background`, or of `fit_visit_background`: polynomials.
    transform : array, (2, 3), mm
        Takes pixels (x, y, 1) of the detector to the focal plane.
    background : Dataset, (bin_y, bin_x)
        Anything in the bins wanted: sizes and attribute ``box`` are all that is looked at.
    detector : any, optional
        Name of the detector, or its type, needed where the model has steps.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        A background: float64 ``level`` at the exact centres of bins and ``flags`` (EXTRAPOLATED or
        FILLED where a cell is not measured); attribute ``box``. `render_background` makes pixels
        of it.

    Raises
    ------
    KeyError
        If the model has steps but none for the detector.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> background = xr.Dataset(
    ...     {"level": (dims, [[1.0, 3.0]]), "count": (dims, [[4, 4]])}, attrs={"box": [0, 2, 0, 4]}
    ... )
    >>> transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> parameters = FocalPlaneParameters(cell_size=(2.0, 4.0))
    >>> sky = focal_plane_background({1: background}, {1: transform}, parameters=parameters)
    >>> focal_plane_on_detector(sky, transform, background)["level"].values
    array([[2., 2.]])
    """
    y, x = bin_positions(background, _transform(transform, detector))
    if "coefficients" in model:
        box = FocalBox(*(float(edge) for edge in model.attrs["focal_box"]))
        terms = list(
            zip(model["degree_x"].values.tolist(), model["degree_y"].values.tolist(), strict=True)
        )
        values = chebyshev_values(*scaled_to_box(x.ravel(), y.ravel(), box), terms)
        level = (values @ np.asarray(model["coefficients"].values)).reshape(y.shape)
        level = level + _step(model, "group", detector)
        flags = np.zeros(level.shape, np.uint8)
        units = model["coefficients"].attrs.get("units", v.DIMENSIONLESS)
    else:
        level, flags = Surface.of(model)(y, x), surface_flags(model, y, x)
        units = model["level"].attrs.get("units", v.DIMENSIONLESS)
        level = level + _step(model, v.DETECTOR, detector)
    dims = (v.BIN_Y, v.BIN_X)
    coords = {dim: background[dim] for dim in dims if dim in background.coords}
    return xr.Dataset(
        {
            "level": (dims, level, {"units": units}),
            "flags": (dims, flags, v.flag_attributes(v.BinFlag)),
        },
        coords=coords,
        attrs={"box": list(box_of_background(background))},
    )


def _step(model: xr.Dataset, dim: str, name: Any) -> float:
    """Return the step of a detector; 0 if the model has none."""
    if "step" not in model or model.sizes.get(dim, 0) == 0:
        return 0.0
    known = model[dim].values.tolist()
    if name not in known:
        raise KeyError(f"the model has steps of {known}, not of {name!r}")
    return float(model["step"].values[known.index(name)])


def focal_plane_sums_of_pixels(
    exposure: xr.Dataset,
    transform: Floats,
    grid: xr.Dataset,
    *,
    parameters: FocalPlaneParameters,
    iterations: int = 3,
) -> xr.Dataset:
    """Sum the pixels of one detector in the cells of the focal plane, without bins between.

    The level of a cell is the clipped mean of the detector's pixels in it. Every pixel belongs to
    exactly one cell. Use bins where they exist: they are read faster and clip across detectors.

    Parameters
    ----------
    exposure : Dataset, (y, x)
        ``image`` (any unit) and ``mask`` (optional).
    transform : array, (2, 3), mm
        Takes pixels (x, y, 1) to the focal plane.
    grid : Dataset
        See `focal_plane_grid`.
    parameters : FocalPlaneParameters
        Its planes, and its clip in standard deviations of the pixels.
    iterations : int
        Clip passes.

    Returns
    -------
    Dataset, (focal_y, focal_x)
        See `focal_plane_sums`.

    Raises
    ------
    KeyError
        If the mask does not know a plane.

    Examples
    --------
    >>> exposure = xr.Dataset({"image": (("y", "x"), np.full((4, 6), 3.0, np.float32))})
    >>> transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> parameters = FocalPlaneParameters(cell_size=(4.0, 3.0))
    >>> grid = focal_plane_grid({1: transform}, {1: (4, 6)}, cell_size=(4.0, 3.0))
    >>> sums = focal_plane_sums_of_pixels(exposure, transform, grid, parameters=parameters)
    >>> sums["count"].values, sums["sum"].values
    (array([[12, 12]]), array([[36., 36.]]))
    """
    image = exposure["image"].transpose(v.Y, v.X)
    box = box_of_image(image)
    mask, bits = np.empty((0, 0), np.int32), 0
    if v.MASK in exposure:
        mask = native(np.asarray(exposure[v.MASK].transpose(v.Y, v.X).values))
        bits = v.plane_bits(parameters.ignored_planes, exposure[v.MASK].attrs)
    rows, columns = (grid.sizes[dim] for dim in DIMS)
    moved = _shifted(_transform(transform, None), (box.y_start, box.x_start))
    size = np.array(grid.attrs["cell_size"])
    origin = np.array([float(grid[dim].values[0]) for dim in DIMS])
    matrix = moved[::-1] / size[:, np.newaxis]
    matrix[:, 2] -= origin / size
    corner_x, corner_y = box_corners(0, box.shape[0], 0, box.shape[1])
    cells_of(grid, *_places(moved, corner_y, corner_x))  # refuses detectors outside
    found = np.empty((rows, columns, kernels.QUANTITIES))
    pixels = native(np.asarray(image.values, np.float32))
    kernels.cells_of_pixels(
        pixels, mask, bits, matrix, rows, columns, parameters.clip, iterations, found
    )
    q = dict(enumerate(np.moveaxis(found, -1, 0)))
    w, level = q[kernels.USED], np.where(q[kernels.USED] > 0, q[kernels.LEVEL], 0.0)
    variance = q[kernels.VARIANCE]
    arrays = {
        "weight": w,
        "sum": w * level,
        "sum_variance": w * w * np.where(np.isfinite(variance), variance, 0.0),
        "area": q[kernels.COUNT] * pixel_area(moved),
        "sum_y": w * q[kernels.MEAN_Y],
        "sum_x": w * q[kernels.MEAN_X],
        "sum_yy": w * q[kernels.MEAN_YY],
        "sum_xy": w * q[kernels.MEAN_XY],
        "sum_xx": w * q[kernels.MEAN_XX],
        "sum_level_y": w * q[kernels.LEVEL_Y],
        "sum_level_x": w * q[kernels.LEVEL_X],
        "count": q[kernels.COUNT],
    }
    units = str(image.attrs.get("units", v.DIMENSIONLESS))
    return dataset_of_sums(arrays, grid, units)


def _check_bins(background: xr.Dataset, transform: Floats, grid: xr.Dataset) -> None:
    """Raise if bins are larger than the cells they are to be summed in."""
    height, width = (
        size / background.sizes[dim]
        for size, dim in zip(box_of_background(background).shape, (v.BIN_Y, v.BIN_X), strict=True)
    )
    size = min(height, width) * float(np.sqrt(pixel_area(transform)))
    if size > min(grid.attrs["cell_size"]) * (1.0 + 1e-6):
        raise ConfigurationError(
            f"cells of {grid.attrs['cell_size']} mm are smaller than bins of {size:.4g} mm"
        )


class _Fit(NamedTuple):
    model: xr.Dataset
    steps: Floats
    clipped: int


def _fit(
    points: Points,
    group: Indices,
    groups: int,
    grid: xr.Dataset,
    units: str,
    parameters: FocalPlaneParameters,
) -> _Fit:
    """Clip bins about the median of their cell, then about the surface; find steps besides."""
    cell, _, _ = cells_of(grid, points.y, points.x)
    cells = int(np.prod([grid.sizes[dim] for dim in DIMS]))
    valid = points.weight > 0
    kept, steps = valid, np.zeros(groups)
    share = np.bincount(group, weights=points.weight, minlength=groups)
    residual = np.zeros(len(points.level))
    if parameters.iterations:
        residual[valid] = points.level[valid]
        center = _medians(residual, cell, valid, cells)
        residual = np.where(valid, points.level - center[cell], 0.0)
        kept = valid & _inside(residual, cell, valid, cells, points, parameters.clip)
    for iteration in range(max(parameters.iterations, 1)):
        if groups > 1:
            steps = steps + _steps(residual, points.weight * kept, cell, cells, group, groups)
            steps = steps - np.sum(share * steps) / np.sum(share)
        used = _chosen(points, kept)
        sums = summed(used._replace(level=used.level - steps[group] * kept), grid)
        if iteration + 1 < parameters.iterations:
            found = solve_level(sums, grid.attrs["cell_size"], parameters)
            surface = Surface(found.level, grid, parameters.interpolation)
            difference = points.level - surface(points.y, points.x) - steps[group]
            residual = np.where(valid, difference, 0.0)
            kept = valid & _inside(residual, cell, valid, cells, points, parameters.clip)
    model = focal_plane_level(dataset_of_sums(sums, grid, units), parameters=parameters)
    return _Fit(model, steps, int(valid.sum() - kept.sum()))


def _chosen(points: Points, kept: NDArray[np.bool_]) -> Points:
    """Return the points with nothing left of those that are not kept."""
    return points._replace(
        level=np.where(kept, points.level, 0.0),
        variance=np.where(kept, points.variance, 0.0),
        weight=np.where(kept, points.weight, 0.0),
        count=np.where(kept, points.count, 0.0),
        area=np.where(kept, points.area, 0.0),
    )


def _medians(values: Floats, cell: Indices, valid: NDArray[np.bool_], cells: int) -> Floats:
    """Return the median of the valid values of each cell; 0 without any."""
    chosen = np.flatnonzero(valid)
    order = chosen[np.lexsort((values[chosen], cell[chosen]))]
    count = np.bincount(cell[chosen], minlength=cells)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    filled = count > 0
    medians = np.zeros(cells)
    low = order[start[filled] + (count[filled] - 1) // 2]
    high = order[start[filled] + count[filled] // 2]
    medians[filled] = 0.5 * (values[low] + values[high])
    return medians


def _inside(
    residual: Floats,
    cell: Indices,
    valid: NDArray[np.bool_],
    cells: int,
    points: Points,
    clip: float,
) -> NDArray[np.bool_]:
    """Return which bins are within the clip of 0, in units of the scatter of their cell."""
    deviation = np.abs(residual)
    sigma = MAD_TO_SIGMA * _medians(deviation, cell, valid, cells)
    count = np.bincount(cell[valid], minlength=cells)
    overall = MAD_TO_SIGMA * float(np.median(deviation[valid])) if valid.any() else 0.0
    sigma = np.where(count < FEW_BINS, max(overall, 0.0), sigma)[cell]
    # never below what the bins themselves say of their error, nor below rounding
    own = np.sqrt(np.where(np.isfinite(points.variance), points.variance, 0.0))
    rounding = 1e-6 * np.abs(points.level)
    inside: NDArray[np.bool_] = deviation <= clip * np.maximum(np.maximum(sigma, own), rounding)
    return inside


def _groups(
    detectors: list[Any], detector_types: Mapping[Any, str] | None, steps: str
) -> tuple[Indices, int]:
    """Return the group of each detector, and their number; 1 where there are no steps."""
    if steps == "none":
        return np.zeros(len(detectors), np.int64), 1
    if steps == "detector":
        return np.arange(len(detectors)), len(detectors)
    types = {} if detector_types is None else detector_types
    missing = [name for name in detectors if name not in types]
    if missing:
        raise ConfigurationError(f"detector_types has no type of the detectors {missing}")
    names, index = np.unique([str(types[name]) for name in detectors], return_inverse=True)
    return index.astype(np.int64), len(names)


def _steps(
    residual: Floats, weight: Floats, cell: Indices, cells: int, group: Indices, groups: int
) -> Floats:
    """Return the steps between groups that share cells, by least squares with a level per cell.

    Groups that are not tied to others by a shared cell get no step among each other.
    """
    place = cell * groups + group
    table = np.bincount(place, weights=weight, minlength=cells * groups).reshape(cells, groups)
    sums = np.bincount(place, weights=weight * residual, minlength=cells * groups)
    sums = sums.reshape(cells, groups)
    total = table.sum(axis=1)
    filled = total > 0
    table, sums, total = table[filled], sums[filled], total[filled]
    matrix = np.diag(table.sum(axis=0)) - table.T @ (table / total[:, np.newaxis])
    right = sums.sum(axis=0) - table.T @ (sums.sum(axis=1) / total)
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=1e-10)[0])


def _transform(transform: Floats, name: Any) -> Floats:
    found = np.asarray(transform, dtype=np.float64)
    if found.shape != (2, 3):
        raise GeometryError(f"the transform of detector {name!r} must be (2, 3), is {found.shape}")
    return found


def _shifted(transform: Floats, origin: tuple[int, ...]) -> Floats:
    """Return the transform of pixels counted from an origin (y, x)."""
    moved = np.array(transform)
    moved[:, 2] += transform[:, 0] * origin[1] + transform[:, 1] * origin[0]
    return moved


def _places(transform: Floats, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return y and x in the focal plane."""
    return (
        transform[1, 0] * x + transform[1, 1] * y + transform[1, 2],
        transform[0, 0] * x + transform[0, 1] * y + transform[0, 2],
    )
