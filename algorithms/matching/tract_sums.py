"""Sums over the bins of a tract: of one warp, added up over patches, and what follows from them.

A warp covers the outer box of its patch, but only the inner box counts, so that no pixel counts
twice. A bin in one patch has the clipped statistic of its pixels. Where bins reach over several
patches, each part is clipped on its own, and levels are averaged by the number of pixels used.

Sums are Datasets over ``(visit, tract_y, tract_x)`` for a part of the bins of the tract:
``sum`` (of the pixels used), ``variance_sum`` (variance of that sum), ``count`` of valid pixels and
``count_used`` after clipping. Attributes say which bins (``bins``, a half-open box) and which inner
boxes of patches (``covered``) are in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.binning import bin_image, check_statistic
from skyloom.algorithms.background.measurement import exposure_planes
from skyloom.algorithms.boxes import Box
from skyloom.algorithms.clip_correction import clipped_variance_factor
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.matching.tract_grid import TractGrid
from skyloom.algorithms.matching.tract_parameters import TractBackgroundParameters
from skyloom.algorithms.skymap.tracts import tract_wcs
from skyloom.algorithms.units import squared_units

__all__ = ["merge_tract_sums", "tract_levels", "tract_sums"]

DIMS = (v.VISIT, v.TRACT_Y, v.TRACT_X)
SUMS = {"sum": np.float64, "variance_sum": np.float64, "count": np.int64, "count_used": np.int64}
PROJECTION_TOLERANCE = 1e-9


def tract_sums(
    warp: xr.Dataset,
    grid: TractGrid,
    *,
    inner: Sequence[int] | None = None,
    exclude: xr.DataArray | None = None,
    parameters: TractBackgroundParameters | None = None,
) -> xr.Dataset:
    """Return the sums of one warp over the bins that its inner box touches.

    Parameters
    ----------
    warp : Dataset, (y, x) or (visit, y, x)
        ``image`` (float32, any unit), optionally ``mask`` and ``variance``, without which, 0 or
        less, a pixel does not count; coordinate ``visit``;
        attribute ``box``, the half-open box of tract pixels it covers. The attribute
        ``noise_correlation`` may hold that factor. May be lazy; the result then is.
    grid : TractGrid
    inner : (y_start, y_stop, x_start, x_stop), pixel, optional
        The box of the tract whose pixels count; the inner box of the patch by default, which the
        coordinate ``patch`` names, or else the middle of the box.
    exclude : DataArray, (y, x), bool, optional
        Pixels that do not count, beside those that the mask rejects: the objects of a coadd, the
        same for all visits. Its attribute ``box`` holds that of the warp; without it, it is that
        of the warp.
    parameters : TractBackgroundParameters, optional

    Returns
    -------
    Dataset, (visit, tract_y, tract_x)
        Sums, see the module; coordinates are centres of bins in pixels of the tract.

    Raises
    ------
    KeyError
        If the warp has no ``visit``, or the mask does not know a plane.
    GeometryError
        If the warp does not lie on the tract of the grid, its box does not fit its pixels, or
        ``exclude`` does not cover it.
    ConfigurationError
        If ``variance_from`` needs variances that are missing.

    Examples
    --------
    >>> image = xr.DataArray(np.full((4, 6), 2.0, np.float32), dims=("y", "x"))
    >>> warp = xr.Dataset({"image": image}, {"visit": 7}, {"box": [0, 4, 0, 6]})
    >>> sums = tract_sums(warp, TractGrid((4, 12), (2, 2), (4, 4)))
    >>> sums["count"].values.tolist(), sums["sum"].values.tolist()
    ([[[4, 4], [4, 4]]], [[[8.0, 8.0], [8.0, 8.0]]])
    """
    chosen = parameters or TractBackgroundParameters()
    image, mask, variance = exposure_planes(warp)
    without = None if variance is None else _without_variance(variance)
    if v.VISIT not in warp.coords:
        raise KeyError(f"a warp needs the coordinate visit; it has {list(warp.coords)}")
    if chosen.variance_from == "scatter":
        variance = None
    check_statistic(chosen.statistic, chosen.clip, chosen.iterations, chosen.variance_from)
    if variance is None and chosen.variance_from != "scatter":
        raise ConfigurationError(
            f"variance_from={chosen.variance_from!r} needs warps with a variance"
        )
    box = _box_of_warp(warp, image)
    _check_place(warp, grid)
    covered = _counted_box(warp, grid, box, inner)
    bins = grid.touched(covered)
    edges = [
        np.unique(np.clip(edges[start : stop + 1], low, high)) - origin
        for edges, start, stop, low, high, origin in zip(
            grid.edges, bins[::2], bins[1::2], covered[::2], covered[1::2], box[::2], strict=True
        )
    ]
    bits = 0 if mask is None else v.plane_bits(chosen.reject, mask.attrs)
    if exclude is not None:
        mask, bits = _with_excluded(mask, bits, exclude, box), 1
    if without is not None:
        mask, bits = _with_excluded(mask, bits, without, box), 1
    factor = chosen.noise_correlation
    if factor is None:
        factor = float(warp.attrs.get("noise_correlation", 1.0))
    if not factor >= 1:
        raise ConfigurationError(f"noise_correlation must be >= 1, got {factor}")
    arrays = [plane for plane in (image, mask, variance) if plane is not None]
    arrays = [
        plane if plane.chunks is None else plane.chunk({v.Y: -1, v.X: -1}) for plane in arrays
    ]
    planes = xr.apply_ufunc(
        _sum_blocks,
        *arrays,
        kwargs={
            "masked": mask is not None,
            "bits": bits,
            "edges": edges,
            "factor": factor,
            "parameters": chosen,
        },
        input_core_dims=[[v.Y, v.X]] * len(arrays),
        output_core_dims=[[v.TRACT_Y, v.TRACT_X]] * len(SUMS),
        dask="parallelized",
        output_dtypes=list(SUMS.values()),
        dask_gufunc_kwargs={
            "output_sizes": dict(zip((v.TRACT_Y, v.TRACT_X), bins.shape, strict=True))
        },
        join="override",
    )
    attributes = {
        "bins": list(bins),
        "covered": [list(covered)],
        "units": str(image.attrs.get("units", v.DIMENSIONLESS)),
        **_recipe(grid, chosen),
    }
    if "band" in warp.coords:
        attributes["band"] = str(warp.coords["band"].values)
    data = xr.Dataset(
        dict(
            zip(
                SUMS,
                (plane.drop_vars((v.Y, v.X), errors="ignore") for plane in planes),
                strict=True,
            )
        )
    )
    visits = np.atleast_1d(warp.coords[v.VISIT].values)
    data = data.drop_vars([name for name in data.coords if name != v.VISIT])
    if v.VISIT not in data.dims:
        data = data.drop_vars(v.VISIT, errors="ignore").expand_dims({v.VISIT: visits})
    return data.transpose(*DIMS).assign_coords(_coordinates(grid, bins)).assign_attrs(attributes)


def merge_tract_sums(pieces: Iterable[xr.Dataset], grid: TractGrid) -> xr.Dataset:
    """Return the sums of all pixels that are in some sums, over the bins of the whole tract.

    Parameters
    ----------
    pieces : iterable of Dataset, (visit, tract_y, tract_x)
        From `tract_sums` or this function, of any visits and patches, in any order.
    grid : TractGrid

    Returns
    -------
    Dataset, (visit, tract_y, tract_x)
        Visits ascend. Bins that no piece touches have count 0.

    Raises
    ------
    GeometryError
        If a piece belongs to another grid.
    ConfigurationError
        If there is no piece, a box of a visit is there twice, or pieces differ in unit, band or
        statistic.

    Examples
    --------
    >>> image = xr.DataArray(np.full((4, 4), 2.0, np.float32), dims=("y", "x"))
    >>> grid = TractGrid((4, 8), (4, 4), (4, 4))
    >>> warps = [
    ...     xr.Dataset({"image": image}, {"visit": 7}, {"box": [0, 4, start, start + 4]})
    ...     for start in (0, 4)
    ... ]
    >>> merge_tract_sums([tract_sums(warp, grid) for warp in warps], grid)["sum"].values.tolist()
    [[[32.0, 32.0]]]
    """
    given = list(pieces)
    if not given:
        raise ConfigurationError("there is nothing to merge: no sums of any warp were given")
    for piece in given:
        for name in ("tract_shape", "bin_size"):
            if piece.attrs.get(name) != given[0].attrs.get(name) or piece.attrs.get(
                name
            ) != _recipe(grid, None).get(name):
                raise GeometryError(
                    f"sums have {name} {piece.attrs.get(name)}, the grid has "
                    f"{_recipe(grid, None)[name]}"
                )
        different = [
            name
            for name in {*piece.attrs, *given[0].attrs} - {"bins", "covered"}
            if piece.attrs.get(name) != given[0].attrs.get(name)
        ]
        if different:
            name = sorted(different)[0]
            raise ConfigurationError(
                f"sums differ in {name}: {given[0].attrs.get(name)!r} and "
                f"{piece.attrs.get(name)!r} cannot be merged"
            )
    visits = np.unique(np.concatenate([piece[v.VISIT].values for piece in given]))
    _check_unique(given, visits)
    totals = {name: np.zeros((visits.size, *grid.bins), dtype) for name, dtype in SUMS.items()}
    for piece in given:
        y_start, y_stop, x_start, x_stop = piece.attrs["bins"]
        places = np.searchsorted(visits, piece[v.VISIT].values)
        for name, total in totals.items():
            values = piece[name].transpose(*DIMS).values
            for place, plane in zip(places, values, strict=True):
                total[place, y_start:y_stop, x_start:x_stop] += plane
    whole = Box(0, grid.bins[0], 0, grid.bins[1])
    attributes = given[0].attrs | {
        "bins": list(whole),
        "covered": sorted({tuple(box) for piece in given for box in piece.attrs["covered"]}),
    }
    return xr.Dataset(
        {name: (DIMS, total) for name, total in totals.items()},
        {v.VISIT: visits, **_coordinates(grid, whole)},
        attributes,
    )


def tract_levels(sums: xr.Dataset, grid: TractGrid, *, min_fraction: float = 0.1) -> xr.Dataset:
    """Return the levels of bins from their sums.

    Parameters
    ----------
    sums : Dataset, (visit, tract_y, tract_x)
        Complete: all patches of a bin are in them.
    grid : TractGrid
    min_fraction : float
        Bins with less than this fraction of their area valid get LOW_COUNT; the level stays.

    Returns
    -------
    Dataset, (visit, tract_y, tract_x)
        ``level`` float32 [unit of the warps], ``variance`` float32 (of the level, a true variance),
        ``count``, ``count_used`` int32, ``flags`` uint8 (`BinFlag`: EMPTY, LOW_COUNT,
        BAD_VARIANCE). NaN where nothing is known.

    Examples
    --------
    >>> image = xr.DataArray(np.array([[1.0, 3.0], [5.0, 7.0]], np.float32), dims=("y", "x"))
    >>> grid = TractGrid((2, 4), (2, 2), (2, 2))
    >>> warp = xr.Dataset({"image": image}, {"visit": 7}, {"box": [0, 2, 0, 2]})
    >>> levels = tract_levels(merge_tract_sums([tract_sums(warp, grid)], grid), grid)
    >>> levels["level"].values.tolist(), levels["flags"].values.tolist()
    ([[[4.0, nan]]], [[[0, 65]]])
    """
    y_start, y_stop, x_start, x_stop = sums.attrs["bins"]
    areas = xr.DataArray(grid.areas[y_start:y_stop, x_start:x_stop], dims=(v.TRACT_Y, v.TRACT_X))
    used = sums["count_used"].where(sums["count_used"] > 0)
    level = sums["sum"] / used
    variance = sums["variance_sum"] / (used * used)
    empty = sums["count"] == 0
    found = {
        v.BinFlag.EMPTY: empty,
        v.BinFlag.LOW_COUNT: ~empty & (sums["count"] < min_fraction * areas),
        v.BinFlag.BAD_VARIANCE: ~((variance > 0) & np.isfinite(variance)),
    }
    flags = sum(where.astype(np.uint8) * np.uint8(flag) for flag, where in found.items())
    units = str(sums.attrs.get("units", v.DIMENSIONLESS))
    square = {"units": squared_units(units)}
    kept = {key: value for key, value in sums.attrs.items() if key != "units"}
    return xr.Dataset(
        {
            "level": level.astype(np.float32).assign_attrs(units=units),
            "variance": variance.astype(np.float32).assign_attrs(square),
            "count": sums["count"].astype(np.int32).assign_attrs(units=""),
            "count_used": sums["count_used"].astype(np.int32).assign_attrs(units=""),
            "flags": xr.DataArray(flags).assign_attrs(v.flag_attributes(v.BinFlag)),
        },
        attrs=kept,
    ).transpose(*DIMS)


def _recipe(grid: TractGrid, parameters: TractBackgroundParameters | None) -> dict[str, Any]:
    """Return what sums must share to be added."""
    recipe: dict[str, Any] = {"tract_shape": list(grid.shape), "bin_size": list(grid.bin_size)}
    if parameters is not None:
        recipe |= {
            "statistic": parameters.statistic,
            "clip": parameters.clip,
            "iterations": parameters.iterations,
            "ignored_planes": list(parameters.reject),
        }
    return recipe


def _coordinates(grid: TractGrid, bins: Box) -> dict[str, Any]:
    y, x = grid.centers
    return {
        v.TRACT_Y: (v.TRACT_Y, y[bins.y_start : bins.y_stop], {"units": v.PIXEL}),
        v.TRACT_X: (v.TRACT_X, x[bins.x_start : bins.x_stop], {"units": v.PIXEL}),
    }


def _box_of_warp(warp: xr.Dataset, image: xr.DataArray) -> Box:
    """Return the box of tract pixels that a warp covers."""
    limits = [int(value) for value in np.atleast_1d(warp.attrs.get("box", []))]
    if len(limits) != 4:
        raise GeometryError(
            "a warp needs the attribute box [y_start, y_stop, x_start, x_stop], got "
            f"{warp.attrs.get('box')}"
        )
    box = Box(*limits)
    if box.shape != (image.sizes[v.Y], image.sizes[v.X]):
        raise GeometryError(f"the box {tuple(box)} of a warp of {dict(image.sizes)} does not fit")
    return box


def _check_place(warp: xr.Dataset, grid: TractGrid) -> None:
    """Raise if a warp says that it lies on another tract, or on other pixels."""
    if grid.tract is None:
        return
    if v.TRACT in warp.coords and int(warp.coords[v.TRACT]) != grid.tract.index:
        raise GeometryError(
            f"the warp lies on tract {int(warp.coords[v.TRACT])}, the grid on {grid.tract.index}"
        )
    given = warp.attrs.get("wcs")
    if given is None:
        return
    for key, value in tract_wcs(grid.tract).header().items():
        found = given.get(key)
        same = (
            abs(found - value) <= PROJECTION_TOLERANCE * max(abs(value), 1e-3)
            if isinstance(value, float) and isinstance(found, int | float)
            else found == value
        )
        if key != "LONPOLE" and not same:
            raise GeometryError(
                f"the warp is not on the tract's pixels: its {key} is {found}, not {value}"
            )


def _counted_box(warp: xr.Dataset, grid: TractGrid, box: Box, inner: Sequence[int] | None) -> Box:
    """Return the box of tract pixels of a warp that count."""
    if inner is not None:
        limits = Box(*(int(value) for value in inner))
    elif v.PATCH in warp.coords:
        limits = grid.inner_box(int(warp.coords[v.PATCH]))
    else:
        height, width = grid.inner_shape
        iy = (box.y_start + box.y_stop) // 2 // height
        ix = (box.x_start + box.x_stop) // 2 // width
        limits = Box(iy * height, (iy + 1) * height, ix * width, (ix + 1) * width)
    covered = Box(
        max(limits.y_start, box.y_start, 0),
        min(limits.y_stop, box.y_stop, grid.shape[0]),
        max(limits.x_start, box.x_start, 0),
        min(limits.x_stop, box.x_stop, grid.shape[1]),
    )
    if min(covered.shape) < 1:
        raise GeometryError(
            f"the warp covers {tuple(box)}, nothing of the inner box {tuple(limits)} of its patch "
            f"on a tract of {grid.shape} pixels (y, x)"
        )
    return covered


def _check_unique(pieces: list[xr.Dataset], visits: NDArray[Any]) -> None:
    """Raise if a pixel of a visit would count twice."""
    boxes: dict[Any, list[list[int]]] = {visit: [] for visit in visits.tolist()}
    for piece in pieces:
        for visit in piece[v.VISIT].values.tolist():
            boxes[visit] += [list(box) for box in piece.attrs["covered"]]
    for visit, found in boxes.items():
        limits = np.array(found)
        both = (
            np.maximum.outer(limits[:, 0], limits[:, 0])
            < np.minimum.outer(limits[:, 1], limits[:, 1])
        ) & (
            np.maximum.outer(limits[:, 2], limits[:, 2])
            < np.minimum.outer(limits[:, 3], limits[:, 3])
        )
        np.fill_diagonal(both, False)
        if both.any():
            first = np.argwhere(both)[0]
            raise ConfigurationError(
                f"visit {visit} covers pixels twice: {found[first[0]]} and {found[first[1]]}"
            )


def _without_variance(variance: xr.DataArray) -> xr.DataArray | None:
    """Return where pixels have no positive variance, None if that is known to be nowhere."""
    without = ~(variance > 0)
    if without.chunks is None and not without.values.any():
        return None
    return without.drop_attrs()


def _with_excluded(
    mask: xr.DataArray | None, bits: int, exclude: xr.DataArray, box: Box
) -> xr.DataArray:
    """Return 1 where the mask rejects a pixel or it is excluded, else 0."""
    whole = Box(*(int(value) for value in exclude.attrs.get("box", box)))
    if whole.shape != (exclude.sizes[v.Y], exclude.sizes[v.X]):
        raise GeometryError(
            f"the box {tuple(whole)} of exclude, {dict(exclude.sizes)}, does not fit"
        )
    covers = whole.y_start <= box.y_start and box.y_stop <= whole.y_stop
    if not (covers and whole.x_start <= box.x_start and box.x_stop <= whole.x_stop):
        raise GeometryError(f"exclude covers {tuple(whole)}, the warp {tuple(box)}")
    part = exclude.drop_vars((v.Y, v.X), errors="ignore").isel(
        {
            v.Y: slice(box.y_start - whole.y_start, box.y_stop - whole.y_start),
            v.X: slice(box.x_start - whole.x_start, box.x_stop - whole.x_start),
        }
    )
    if mask is None:
        return (part != 0).astype(np.int32)
    return ((part != 0) | ((mask.drop_vars((v.Y, v.X), errors="ignore") & bits) != 0)).astype(
        np.int32
    )


def _sum_blocks(
    *planes: NDArray[Any],
    masked: bool,
    bits: int,
    edges: list[NDArray[np.int64]],
    factor: float,
    parameters: TractBackgroundParameters,
) -> tuple[NDArray[Any], ...]:
    """Bin the last two axes of a block."""
    shape = (len(edges[0]) - 1, len(edges[1]) - 1)
    leading = np.broadcast_shapes(*(plane.shape[:-2] for plane in planes))
    planes = tuple(np.broadcast_to(plane, leading + plane.shape[-2:]) for plane in planes)
    variance = planes[-1] if len(planes) == (3 if masked else 2) else None
    if parameters.debias and variance is None and parameters.statistic == "meanclip":
        factor = factor / clipped_variance_factor(parameters.clip, parameters.iterations)
    out = tuple(np.empty(leading + shape, dtype) for dtype in SUMS.values())
    for index in np.ndindex(*leading):
        found = bin_image(
            planes[0][index],
            planes[1][index] if masked else None,
            bits,
            edges[0],
            edges[1],
            parameters.clip,
            parameters.iterations,
            statistic=parameters.statistic,
            variance=None if variance is None else variance[index],
            variance_from=parameters.variance_from,
        )
        used = found.count_used.astype(np.float64)
        kept = used > 0
        out[0][index] = np.where(kept, found.level, 0.0) * used
        out[1][index] = np.where(kept, found.variance * factor, 0.0) * used * used
        out[2][index], out[3][index] = found.count, found.count_used
    return out
