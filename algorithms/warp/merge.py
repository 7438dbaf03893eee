"""Warps of the detectors of one visit merged into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from skyloom.algorithms.warp.merge_kernels import add_weighted, take_means, weigh

__all__ = ["merge_warps"]

ROWS: Final = 256  # that are merged at a time
NO_DATA: Final = v.MASK_PLANES["NO_DATA"]
Box = tuple[int, int, int, int]


class _Sums(NamedTuple):
    """Weighted sums over some rows."""

    weight: NDArray[np.float64]
    number: NDArray[np.uint8]
    used_mask: NDArray[np.int32]
    lost_mask: NDArray[np.int32]


def merge_warps(warps: Iterable[xr.Dataset], *, box: Sequence[int] | None = None) -> xr.Dataset:
    """Merge the warps of the detectors of one visit on one patch.

    Parameters
    ----------
    warps : iterable of Dataset, (y, x)
        Of `warp_exposure`, of one visit on one grid. Their boxes may differ. May be lazy: rows are
        read as they are needed.
    box : (int, int, int, int), optional
        Half-open ``(y_start, y_stop, x_start, x_stop)`` of the result, pixels of the tract; by
        default the smallest around all.

    Returns
    -------
    Dataset, (y, x)
        As the warps, with the planes that all of them have. Attribute ``inputs`` lists the
        detectors that have data, ``matrix`` is that of the one with most of it. Without a good
        pixel there is a ``status`` and no planes.

    Raises
    ------
    NoUsableDataError
        If there is no warp.
    GeometryError
        If grids differ, or a box is missing.
    ConfigurationError
        If visits, filters or units differ.

    Notes
    -----
    Where detectors overlap, the mean weighted by inverse variance; elsewhere the pixels as
    they are. Masks of the pixels used are ORed; where none is, all masks are. The result does not
    depend on the order of the warps.

    Examples
    --------
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> from skyloom.algorithms.warp import warp_exposure
    >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
    >>> values = xr.DataArray(np.full((12, 12), 8.0, "float32"), dims=("y", "x"))
    >>> warps = [
    ...     warp_exposure(
    ...         xr.Dataset({"image": values * level, "variance": values}, {"detector": level}),
    ...         plane, plane, (4, 6, 4, 7),
    ...     )
    ...     for level in (1, 2)
    ... ]
    >>> merged = merge_warps(warps)
    >>> merged["image"].values[0].tolist(), float(merged["variance"][0, 0])
    ([12.0, 12.0, 12.0], 4.0)
    """
    given = sorted(warps, key=_order)
    if not given:
        raise NoUsableDataError("there is no warp to merge")
    _check(given)
    found = [warp for warp in given if "image" in warp]
    coords = _common_coords(given)
    if not found:
        attrs = {key: given[0].attrs[key] for key in ("box", "wcs") if key in given[0].attrs}
        return _without_planes(v.WarpStatus.NO_OVERLAP, coords, attrs)
    boxes = [_box_of(warp) for warp in found]
    limits = _around(boxes) if box is None else _checked(box)
    names = _planes_of(found)
    out = _empty(names, found, limits)
    counts = [0] * len(found)
    good = 0
    for start in range(limits[0], limits[1], ROWS):
        rows = (start, min(start + ROWS, limits[1]))
        good += _merge_rows(found, boxes, rows, limits, names, out, counts)
    attrs = _attrs(found, counts, limits)
    if not good:
        return _without_planes(v.WarpStatus.NO_GOOD_PIXEL, coords, attrs)
    return _dataset(found, names, out, limits, good).assign_coords(coords).assign_attrs(attrs)


def _order(warp: xr.Dataset) -> tuple[str, list[int]]:
    label = warp.coords[v.DETECTOR].item() if v.DETECTOR in warp.coords else ""
    return str(label).rjust(12), list(warp.attrs.get("box", ()))


def _box_of(warp: xr.Dataset) -> Box:
    if "box" not in warp.attrs:
        raise GeometryError("a warp has no attribute box [y_start, y_stop, x_start, x_stop]")
    box = _checked(warp.attrs["box"])
    size, shape = (box[1] - box[0], box[3] - box[2]), (warp.sizes[v.Y], warp.sizes[v.X])
    if size != shape:
        raise GeometryError(f"a warp of {shape} pixels cannot have the box {box}")
    return box


def _checked(box: Sequence[int]) -> Box:
    limits = [int(value) for value in box]
    if len(limits) != 4 or not (limits[0] < limits[1] and limits[2] < limits[3]):
        raise GeometryError(
            f"box must be (y_start, y_stop, x_start, x_stop) with pixels in it, got {limits}"
        )
    return limits[0], limits[1], limits[2], limits[3]


def _around(boxes: Sequence[Box]) -> Box:
    starts, stops = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return int(starts[0]), int(stops[1]), int(starts[2]), int(stops[3])


def _check(warps: Sequence[xr.Dataset]) -> None:
    """Raise if warps are not of one visit on one grid."""
    for name in (v.VISIT, v.TRACT, v.PATCH, v.FILTER):
        values = {warp.coords[name].item() for warp in warps if name in warp.coords}
        if len(values) > 1:
            raise ConfigurationError(f"warps to merge differ in {name}: {sorted(values)}")
    units = {
        str(warp["image"].attrs.get("units", v.DIMENSIONLESS)) for warp in warps if "image" in warp
    }
    if len(units) > 1:
        raise ConfigurationError(f"warps to merge differ in units: {sorted(units)}")
    grids = [warp.attrs.get("wcs") for warp in warps]
    if any(grid != grids[0] for grid in grids):
        raise GeometryError("warps to merge lie on different grids: their attribute wcs differs")


def _common_coords(warps: Sequence[xr.Dataset]) -> dict[Any, xr.Variable]:
    """Return the scalar coordinates that are the same in all."""
    return {
        name: value.variable
        for name, value in warps[0].coords.items()
        if value.ndim == 0
        and name != v.DETECTOR
        and all(
            name in warp.coords and value.variable.equals(warp[name].variable) for warp in warps
        )
    }


def _without_planes(
    code: v.WarpStatus, coords: dict[Any, xr.Variable], attrs: dict[str, Any]
) -> xr.Dataset:
    status = xr.DataArray(np.uint8(code), attrs=v.flag_attributes(v.WarpStatus))
    return xr.Dataset(coords=coords, attrs=attrs).assign(status=status)


def _planes_of(warps: Sequence[xr.Dataset]) -> list[str]:
    optional = [
        name for name in ("masked_fraction", "noise") if all(name in warp for warp in warps)
    ]
    return ["image", "variance", v.MASK, *optional]


def _empty(names: list[str], warps: Sequence[xr.Dataset], box: Box) -> dict[str, NDArray[Any]]:
    size = (box[1] - box[0], box[3] - box[2])
    out: dict[str, NDArray[Any]] = {
        name: np.empty(size, np.int32 if name == v.MASK else np.float32) for name in names
    }
    if "noise" in names:
        out["noise"] = np.empty((min(warp.sizes[v.REALIZATION] for warp in warps), *size), "f4")
    return out


def _merge_rows(
    warps: Sequence[xr.Dataset],
    boxes: Sequence[Box],
    rows: tuple[int, int],
    limits: Box,
    names: list[str],
    out: dict[str, NDArray[Any]],
    counts: list[int],
) -> int:
    """Fill some rows of the result; return how many of their pixels have data."""
    shape = (rows[1] - rows[0], limits[3] - limits[2])
    sums = _Sums(
        np.zeros(shape), np.zeros(shape, np.uint8), np.zeros(shape, np.int32),
        np.full(shape, NO_DATA, np.int32),
    )  # fmt: skip
    own = slice(rows[0] - limits[0], rows[1] - limits[0])
    means: list[tuple[NDArray[Any], str, int | None, float]] = [
        (out["image"][own], "image", None, np.nan)
    ]
    if "masked_fraction" in names:
        means.append((out["masked_fraction"][own], "masked_fraction", None, 1.0))
    if "noise" in names:
        means += [(plane[own], "noise", index, np.nan) for index, plane in enumerate(out["noise"])]
    totals = [(np.zeros(shape), np.empty(shape, np.float32)) for _ in means]
    spread = np.empty(shape, np.float32)
    for index, (warp, place, there) in enumerate(_overlaps(warps, boxes, rows, limits)):
        if place is None or there is None:
            continue
        part = warp[names].isel({v.Y: there[0], v.X: there[1]}).transpose(..., v.Y, v.X)
        image, variance, mask = (part[name].to_numpy() for name in ("image", "variance", v.MASK))
        weight = np.empty(image.shape)
        weigh(
            image, variance, mask, NO_DATA, weight,
            sums.weight[place], sums.number[place], sums.used_mask[place], sums.lost_mask[place],
        )  # fmt: skip
        counts[index] += int(np.count_nonzero(weight))
        add_weighted(variance, weight, np.zeros(image.shape), spread[place])
        for (_, name, number, _), (total, last) in zip(means, totals, strict=True):
            values = part[name].to_numpy()
            chosen = values if number is None else values[number]
            add_weighted(chosen, weight, total[place], last[place])
    for (plane, _, _, empty), (total, last) in zip(means, totals, strict=True):
        take_means(total, sums.weight, sums.number, last, empty, plane)
    take_means(np.ones(shape), sums.weight, sums.number, spread, np.inf, out["variance"][own])
    out[v.MASK][own] = np.where(sums.number > 0, sums.used_mask, sums.lost_mask)
    return int(np.count_nonzero(sums.number))


Slices = tuple[slice, slice]


def _overlaps(
    warps: Sequence[xr.Dataset], boxes: Sequence[Box], rows: tuple[int, int], limits: Box
) -> Iterator[tuple[xr.Dataset, Slices | None, Slices | None]]:
    """Yield for each warp where its part of some rows lies in the result and in itself."""
    for warp, box in zip(warps, boxes, strict=True):
        start, stop = max(rows[0], box[0]), min(rows[1], box[1])
        left, right = max(limits[2], box[2]), min(limits[3], box[3])
        if start >= stop or left >= right:
            yield warp, None, None
            continue
        yield (
            warp,
            (slice(start - rows[0], stop - rows[0]), slice(left - limits[2], right - limits[2])),
            (slice(start - box[0], stop - box[0]), slice(left - box[2], right - box[2])),
        )


def _attrs(warps: Sequence[xr.Dataset], counts: list[int], limits: Box) -> dict[str, Any]:
    """Return the attributes that all share, and those of the whole."""
    first = warps[0].attrs
    shared = {
        key: value
        for key, value in first.items()
        if all(key in warp.attrs and _same(warp.attrs[key], value) for warp in warps)
    }
    main = warps[int(np.argmax(counts))].attrs
    shared |= {key: main[key] for key in ("matrix",) if key in main}
    errors = [warp.attrs["position_error"] for warp in warps if "position_error" in warp.attrs]
    if errors:
        shared["position_error"] = max(errors)
    labels = [
        warp.coords[v.DETECTOR].item() if v.DETECTOR in warp.coords else None for warp in warps
    ]
    inputs = [label for label, count in zip(labels, counts, strict=True) if count]
    return shared | {"box": list(limits), "inputs": inputs}


def _same(one: Any, other: Any) -> bool:
    """Return whether two attributes are equal; NaN equals itself."""
    return repr(one) == repr(other)


def _dataset(
    warps: Sequence[xr.Dataset],
    names: list[str],
    out: dict[str, NDArray[Any]],
    box: Box,
    good: int,
) -> xr.Dataset:
    pixels = (v.Y, v.X)
    dims = dict.fromkeys(names, pixels) | {"noise": (v.REALIZATION, *pixels)}
    merged = xr.Dataset(
        {name: (dims[name], out[name], dict(warps[0][name].attrs)) for name in names},
        coords={v.Y: np.arange(box[0], box[1]), v.X: np.arange(box[2], box[3])},
    )
    merged["good_count"] = xr.DataArray(np.int64(good), attrs={"units": v.PIXEL})
    merged["status"] = xr.DataArray(
        np.uint8(v.WarpStatus.OK), attrs=v.flag_attributes(v.WarpStatus)
    )
    return merged
