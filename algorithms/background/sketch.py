"""Histograms of the pixels of bins that add up: measured in parts, clipped as one population.

A sketch holds for each bin how many valid pixels lie in each of equal cells of level, and the sum
of their differences to a common centre. Sketches with the same cells add: over detectors that
share a bin, over patches, over exposures; and what was added can be taken away again. Counts are
exact in any order, sums to the rounding of float64. Levels differ from exact clipped means by
2.5 per cent of their standard error (rms).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.bin_kernels import (
    COUNT,
    LEVEL,
    PIXEL_VARIANCE,
    USED,
    VARIANCE,
)
from skyloom.algorithms.background.binning import kernel_arrays
from skyloom.algorithms.background.geometry import GridRule, bin_centers, bin_edges, box_of_image
from skyloom.algorithms.background.measurement import (
    REJECTED_PLANES,
    bins_along,
    checked_parameters,
    exposure_planes,
)
from skyloom.algorithms.background.sketch_kernels import fill_sketch, statistics_of_cells
from skyloom.algorithms.clip_correction import clipped_variance_factor
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from skyloom.algorithms.units import squared_units

__all__ = [
    "common_cells",
    "merge_sketches",
    "remove_from_sketch",
    "sketch_exposure",
    "sketch_statistics",
]

SAMPLE = 1 << 16
HALF_RANGE = 6.0  # of the cells, in interquartile ranges
CELL_ATTRIBUTES = ("center", "half_range")


def common_cells(
    exposure: xr.Dataset | xr.DataArray, *, reject: Iterable[str] = REJECTED_PLANES
) -> tuple[float, float]:
    """Return centre and half range of cells that suit an exposure, from a sample of its pixels.

    Parameters
    ----------
    exposure : Dataset or DataArray, (..., y, x)
        As in `measure_background`.
    reject : iterable of str
        Mask planes whose pixels are left out.

    Returns
    -------
    center, half_range : float
        Median and 6 interquartile ranges of at most 65536 valid pixels, units of the image.

    Raises
    ------
    NoUsableDataError
        If no sampled pixel is valid, or all are equal.

    Examples
    --------
    >>> image = xr.DataArray(np.arange(9.0).reshape(3, 3), dims=("y", "x"))
    >>> common_cells(image)
    (4.0, 24.0)
    """
    image, mask, _ = exposure_planes(exposure)
    step = max(int(np.ceil(np.sqrt(image.size / SAMPLE))), 1)
    thin = {v.Y: slice(None, None, step), v.X: slice(None, None, step)}
    values = np.asarray(image.isel(thin).values, dtype=np.float64)
    good = np.isfinite(values)
    if mask is not None:
        planes = mask.isel(thin).broadcast_like(image.isel(thin)).transpose(*image.dims).values
        bits = v.plane_bits([reject] if isinstance(reject, str) else reject, mask.attrs)
        good &= (planes & np.array(bits).astype(planes.dtype)) == 0
    if not good.any():
        raise NoUsableDataError("no sampled pixel of the exposure is valid")
    lower, median, upper = np.percentile(values[good], [25, 50, 75])
    if not upper > lower:
        raise NoUsableDataError(f"the sampled pixels are all {median}: cells have no width")
    return float(median), HALF_RANGE * float(upper - lower)


def sketch_exposure(
    exposure: xr.Dataset | xr.DataArray,
    *,
    center: float,
    half_range: float,
    cells: int = 512,
    bin_size: tuple[int, int] = (32, 32),
    bins: tuple[int, int] | None = None,
    grid_rule: GridRule = "nearest",
    reject: Iterable[str] = REJECTED_PLANES,
) -> xr.Dataset:
    """Return histograms of the pixels of bins.

    Parameters
    ----------
    exposure : Dataset or DataArray, (..., y, x)
        As in `measure_background`. May be lazy; the result then is.
    center, half_range : float, units of the image
        The cells tile ``center ± half_range``; the same for all sketches that are to be merged,
        for instance from `common_cells`.
    cells : int
        Number of cells, 8 to 65000; 64 to 128 are enough for bins of 32 pixels.
    bin_size, bins, grid_rule, reject
        As in `measure_background`.

    Returns
    -------
    Dataset, (..., bin_y, bin_x, level_cell)
        ``cell_count`` int32 and ``cell_sum`` float64 (of value - center, units of the image); the
        first cell holds what lies below the range, the last what lies above. Coordinates and
        attributes as those of a background, and ``center``, ``half_range``.

    Raises
    ------
    ValueError
        If a parameter is out of range or shapes do not fit.
    KeyError
        If the mask does not know a plane.

    Examples
    --------
    >>> image = xr.DataArray(np.array([[1.0, 2.0, 2.0, 9.0]], "float32"), dims=("y", "x"))
    >>> sketch = sketch_exposure(image, center=2.0, half_range=2.0, cells=8, bins=(1, 1))
    >>> sketch["cell_count"].values.tolist()
    [[[0, 0, 0, 1, 0, 2, 0, 0, 0, 1]]]
    """
    parameters = checked_parameters(
        bin_size=bin_size,
        bins=bins,
        grid_rule=grid_rule,
        reject=tuple([reject] if isinstance(reject, str) else reject),
    )
    if not (np.isfinite(center) and np.isfinite(half_range) and half_range > 0):
        raise ConfigurationError(
            f"center must be finite and half_range > 0, got {center} and {half_range}"
        )
    if not 8 <= cells <= 65000:
        raise ConfigurationError(f"cells must be between 8 and 65000, got {cells}")
    image, mask, _ = exposure_planes(exposure)
    box = box_of_image(image)
    edges = [
        bin_edges(size, bins_along(size, axis, parameters)) for axis, size in enumerate(box.shape)
    ]
    arrays = [image] if mask is None else [image, mask]
    arrays = [
        plane if plane.chunks is None else plane.chunk({v.Y: -1, v.X: -1}) for plane in arrays
    ]
    sizes = (len(edges[0]) - 1, len(edges[1]) - 1, cells + 2)
    dims = [v.BIN_Y, v.BIN_X, v.LEVEL_CELL]
    count, total = xr.apply_ufunc(
        _sketch_blocks,
        *arrays,
        kwargs={
            "bits": 0 if mask is None else v.plane_bits(parameters.reject, mask.attrs),
            "edges": edges,
            "cells": (float(center), float(half_range), int(cells)),
        },
        input_core_dims=[[v.Y, v.X]] * len(arrays),
        output_core_dims=[dims] * 2,
        dask="parallelized",
        output_dtypes=[np.int32, np.float64],
        dask_gufunc_kwargs={"output_sizes": dict(zip(dims, sizes, strict=True))},
        join="override",
    )
    units = str(image.attrs.get("units", v.DIMENSIONLESS))
    return xr.Dataset(
        {
            "cell_count": count.drop_attrs().assign_attrs(units=""),
            "cell_sum": total.drop_attrs().assign_attrs(units=units),
        },
        coords={
            v.BIN_Y: (v.BIN_Y, bin_centers(edges[0], box.y_start), {"units": v.PIXEL}),
            v.BIN_X: (v.BIN_X, bin_centers(edges[1], box.x_start), {"units": v.PIXEL}),
        },
        attrs={
            "box": list(box),
            "grid_rule": "bins" if bins is not None else grid_rule,
            "center": float(center),
            "half_range": float(half_range),
            "ignored_planes": list(parameters.reject) if mask is not None else [],
        },
    ).drop_vars((v.Y, v.X), errors="ignore")


def merge_sketches(sketches: Iterable[xr.Dataset]) -> xr.Dataset:
    """Return the sum of sketches with the same cells and the same bins.

    Coordinates and attributes are those of the first.

    Raises
    ------
    GeometryError
        If cells or dimensions differ.
    ConfigurationError
        If there is no sketch.

    Examples
    --------
    >>> image = xr.DataArray(np.arange(4.0).reshape(1, 4), dims=("y", "x"))
    >>> sketch = sketch_exposure(image, center=2.0, half_range=2.0, cells=8, bins=(1, 1))
    >>> int(merge_sketches([sketch, sketch])["cell_count"].sum())
    8
    """
    found = list(sketches)
    if not found:
        raise ConfigurationError("there must be at least one sketch")
    first = found[0]
    count, total = first["cell_count"], first["cell_sum"]
    for other in found[1:]:
        check_same_cells(first, other)
        count = count.copy(data=count.data + other["cell_count"].data)
        total = total.copy(data=total.data + other["cell_sum"].data)
    return first.assign(cell_count=count, cell_sum=total)


def remove_from_sketch(sketch: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Return a sketch without one that was merged into it.

    Raises
    ------
    GeometryError
        If cells or dimensions differ.

    Examples
    --------
    >>> image = xr.DataArray(np.arange(4.0).reshape(1, 4), dims=("y", "x"))
    >>> sketch = sketch_exposure(image, center=2.0, half_range=2.0, cells=8, bins=(1, 1))
    >>> int(remove_from_sketch(sketch, sketch)["cell_count"].sum())
    0
    """
    check_same_cells(sketch, part)
    count, total = sketch["cell_count"], sketch["cell_sum"]
    left = count.data - part["cell_count"].data
    # an empty cell has no sum: rounding must not leave one
    rest = (total.data - part["cell_sum"].data) * (left != 0)
    return sketch.assign(cell_count=count.copy(data=left), cell_sum=total.copy(data=rest))


def check_same_cells(one: xr.Dataset, other: xr.Dataset) -> None:
    """Raise unless two sketches can be added."""
    for name in CELL_ATTRIBUTES:
        if one.attrs[name] != other.attrs[name]:
            raise GeometryError(
                f"sketches have different {name}: {one.attrs[name]} and {other.attrs[name]}"
            )
    counts = one["cell_count"], other["cell_count"]
    if counts[0].dims != counts[1].dims or counts[0].shape != counts[1].shape:
        raise GeometryError(
            f"sketches have different sizes: {dict(counts[0].sizes)} and {dict(counts[1].sizes)}"
        )


def sketch_statistics(
    sketch: xr.Dataset,
    *,
    clip: float = 3.0,
    iterations: int = 3,
    min_count: int = 0,
    debias: bool = False,
    noise_correlation: float = 1.0,
) -> xr.Dataset:
    """Return the clipped statistics of sketches, as a background.

    Quartiles are linear within cells, cells at the clip edges count pro rata, and values spread
    evenly over a cell add width² / 12 to its variance.

    Parameters
    ----------
    sketch : Dataset, (..., level_cell)
        May be lazy; the result then is.
    clip : float
        In standard deviations; > 0.
    iterations : int
        Clip passes; >= 1.
    min_count : int
        Bins with fewer pixels get LOW_COUNT.
    debias : bool
        Divide variances by what clipping leaves of the variance of a Gaussian.
    noise_correlation : float
        Factor >= 1 on the variance of the levels.

    Returns
    -------
    Dataset, (...)
        ``level``, ``variance``, ``pixel_variance``, ``count``, ``count_used``, ``flags`` as those
        of `measure_background`. NaN where a quartile lies outside the cells.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> image = xr.DataArray(np.full((4, 4), 2.5, "float32"), dims=("y", "x"))
    >>> sketch = sketch_exposure(image, center=2.0, half_range=2.0, bins=(1, 1))
    >>> sketch_statistics(sketch)["level"].values.tolist()
    [[2.5]]
    """
    parameters = checked_parameters(
        clip=clip, iterations=iterations, debias=debias, noise_correlation=noise_correlation
    )
    arrays = [sketch["cell_count"], sketch["cell_sum"]]
    arrays = [
        array if array.chunks is None else array.chunk({v.LEVEL_CELL: -1}) for array in arrays
    ]
    outputs = (np.float32, np.float32, np.float32, np.int32, np.int32, np.uint8)
    names = ("level", "variance", "pixel_variance", "count", "count_used", "flags")
    planes = xr.apply_ufunc(
        _statistics_blocks,
        *arrays,
        kwargs={
            "center": float(sketch.attrs["center"]),
            "half_range": float(sketch.attrs["half_range"]),
            "clip": parameters.clip,
            "iterations": parameters.iterations,
            "min_count": min_count,
            "factor": noise_correlation,
            "debias": clipped_variance_factor(clip, iterations) if debias else 1.0,
        },
        input_core_dims=[[v.LEVEL_CELL]] * 2,
        output_core_dims=[[]] * len(outputs),
        dask="parallelized",
        output_dtypes=list(outputs),
    )
    units = str(sketch["cell_sum"].attrs.get("units", v.DIMENSIONLESS))
    square = {"units": squared_units(units)}
    attributes = ({"units": units}, square, square, {"units": ""}, {"units": ""})
    legends: list[dict[str, Any]] = [*attributes, v.flag_attributes(v.BinFlag)]
    kept = {name: value for name, value in sketch.attrs.items() if name not in CELL_ATTRIBUTES}
    return xr.Dataset(
        {
            name: plane.drop_attrs().assign_attrs(legend)
            for name, plane, legend in zip(names, planes, legends, strict=True)
        },
        attrs=kept | {"statistic": "meanclip", "clip": float(clip), "iterations": int(iterations)},
    )


def _sketch_blocks(
    *planes: NDArray[Any],
    bits: int,
    edges: list[NDArray[np.int64]],
    cells: tuple[float, float, int],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    center, half_range, number = cells
    leading = np.broadcast_shapes(*(plane.shape[:-2] for plane in planes))
    planes = tuple(np.broadcast_to(plane, leading + plane.shape[-2:]) for plane in planes)
    shape = (*leading, len(edges[0]) - 1, len(edges[1]) - 1, number + 2)
    count, total = np.zeros(shape, np.int32), np.zeros(shape)
    for index in np.ndindex(*leading):
        mask = planes[1][index] if len(planes) > 1 else None
        values, flags, legend, constants = kernel_arrays(planes[0][index], mask, bits)
        limits = np.array(
            [center - half_range, number / (2.0 * half_range), 0.0, 1.0, number + 1.0],
            values.dtype,
        )
        fill_sketch(
            values,
            flags,
            legend,
            constants,
            limits,
            center,
            edges[0],
            edges[1],
            count[index],
            total[index],
        )
    return count, total


def _statistics_blocks(
    count: NDArray[np.int32],
    total: NDArray[np.float64],
    *,
    center: float,
    half_range: float,
    clip: float,
    iterations: int,
    min_count: int,
    factor: float,
    debias: float,
) -> tuple[NDArray[Any], ...]:
    shape = count.shape[:-1]
    cells = count.shape[-1]
    found = np.empty((5, int(np.prod(shape))))
    statistics_of_cells(
        np.ascontiguousarray(count, np.int32).reshape(-1, cells),
        np.ascontiguousarray(total, np.float64).reshape(-1, cells),
        center,
        half_range,
        clip,
        iterations,
        found,
    )
    found = found.reshape(5, *shape)
    pixels, used = found[COUNT], found[USED]
    of_level = found[VARIANCE] * factor / debias
    flags = np.zeros(shape, np.uint8)
    empty = pixels == 0
    flags[empty] |= np.uint8(v.BinFlag.EMPTY)
    flags[~empty & (pixels < min_count)] |= np.uint8(v.BinFlag.LOW_COUNT)
    flags[~empty & ~(np.isfinite(of_level) & (of_level > 0))] |= np.uint8(v.BinFlag.BAD_VARIANCE)
    return (
        found[LEVEL].astype(np.float32),
        of_level.astype(np.float32),
        (found[PIXEL_VARIANCE] / debias).astype(np.float32),
        pixels.astype(np.int32),
        np.rint(used).astype(np.int32),
        flags,
    )
