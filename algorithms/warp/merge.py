"""Warps of the detectors of one visit merged into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from skyloom.algorithms.warp.merge_kernels import add_warp, take_means

__all__ = ["merge_warps"]

ROWS: Final = 256  # that are merged at a time
NO_DATA: Final = v.MASK_PLANES["NO_DATA"]
Box = tuple[int, int, int, int]


def merge_warps(
    warps: Iterable[xr.Dataset], *, box: Sequence[int] | None = None, in_order: bool = False
) -> xr.Dataset:
    """Merge the warps of the detectors of one visit on one patch.

    Parameters
    ----------
    warps : iterable of Dataset, (y, x)
        Of `warp_exposure`, of one visit on one grid. Their boxes may differ. May be lazy: rows are
        read as they are needed.
    box : (int, int, int, int), optional
        Half-open ``(y_start, y_stop, x_start, x_stop)`` of the result, pixels of the tract; by
        default the smallest around all.
    in_order : bool
        The warps come sorted by the text of their ``detector``, aligned at its right. Then no more
        than one of them is in memory at a time; ``box`` must be given.

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
        If visits, filters or units differ; in order, also if planes do.
    ValueError
        If warps said to be in order are not, or come without a box.

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
    if in_order:
        if box is None:
            raise ValueError("box must be given for warps that are merged as they come")
        return _merge_in_order(warps, _checked(box))
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
    extras = _extras_of(found)
    out = _empty(extras, limits)
    counts = [0] * len(found)
    good = 0
    for start in range(limits[0], limits[1], ROWS):
        rows = (start, min(start + ROWS, limits[1]))
        good += _merge_rows(found, boxes, rows, limits, extras, out, counts)
    attrs = _attrs(found, counts, limits)
    if not good:
        return _without_planes(v.WarpStatus.NO_GOOD_PIXEL, coords, attrs)
    return _dataset(found, extras, out, limits, good).assign_coords(coords).assign_attrs(attrs)


def _merge_in_order(warps: Iterable[xr.Dataset], limits: Box) -> xr.Dataset:
    """Merge sorted warps, of which one at a time is in memory."""
    given: list[xr.Dataset] = []  # without their planes
    found: list[xr.Dataset] = []
    counts: list[int] = []
    state: _State | None = None
    for warp in warps:
        if given and _order(warp) < _order(given[-1]):
            raise ValueError("the warps to merge are not in the order of their detectors")
        given.append(_bare(warp))
        _check([given[0], given[-1]])
        if "image" in warp:
            if state is None:
                state = _State.blank(_extras_of([warp]), limits)
            if _extras_of([warp]) != state.extras:
                raise ConfigurationError("warps to merge in order must have the same planes")
            found.append(given[-1])
            counts.append(state.add(warp, limits))
        del warp  # before the next is made
    if not given:
        raise NoUsableDataError("there is no warp to merge")
    coords = _common_coords(given)
    if state is None:
        attrs = {key: given[0].attrs[key] for key in ("box", "wcs") if key in given[0].attrs}
        return _without_planes(v.WarpStatus.NO_OVERLAP, coords, attrs)
    attrs = _attrs(found, counts, limits)
    good = state.finish()
    if not good:
        return _without_planes(v.WarpStatus.NO_GOOD_PIXEL, coords, attrs)
    merged = _dataset(found, state.extras, state.out, limits, good)
    return merged.assign_coords(coords).assign_attrs(attrs)


def _bare(warp: xr.Dataset) -> xr.Dataset:
    """Return a warp with planes of no pixels: attributes and scalars are kept."""
    return warp.isel({dim: slice(0, 0) for dim in (v.Y, v.X) if dim in warp.dims}).copy(deep=True)


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


def _extras_of(warps: Sequence[xr.Dataset]) -> tuple[bool, int]:
    """Return whether all warps have a masked fraction, and how many planes of noise."""
    fraction = all("masked_fraction" in warp for warp in warps)
    if not all("noise" in warp for warp in warps):
        return fraction, 0
    return fraction, min(warp.sizes[v.REALIZATION] for warp in warps)


class _Result(NamedTuple):
    """Planes of the result; ``extras`` (plane, y, x) are the masked fraction, then noise."""

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]
    extras: NDArray[np.float32]


def _empty(extras: tuple[bool, int], box: Box) -> _Result:
    size = (box[1] - box[0], box[3] - box[2])
    return _Result(
        np.empty(size, np.float32),
        np.empty(size, np.float32),
        np.empty(size, np.int32),
        np.empty((extras[0] + extras[1], *size), np.float32),
    )


class _State(NamedTuple):
    """What warps add to, one after the other.

    ``sums`` have values, and take memory, only where several warps have data.
    """

    extras: tuple[bool, int]
    out: _Result
    number: NDArray[np.uint8]
    sums: NDArray[np.float64]

    @classmethod
    def blank(cls, extras: tuple[bool, int], box: Box) -> _State:
        out = _empty(extras, box)
        out.image[:], out.variance[:], out.mask[:], out.extras[:] = np.nan, np.inf, NO_DATA, np.nan
        out.extras[: extras[0]] = 1.0
        shape = out.image.shape
        sums = np.empty((2 + len(out.extras), *shape))
        return cls(extras, out, np.zeros(shape, np.uint8), sums)

    def add(self, warp: xr.Dataset, limits: Box) -> int:
        """Add a warp; return how many of its pixels have data."""
        ((_, place, there),) = _overlaps([warp], [_box_of(warp)], limits[:2], limits)
        if place is None or there is None:
            return 0
        out, part = self.out, warp.isel({v.Y: there[0], v.X: there[1]})
        return int(
            add_warp(
                *_planes_of(part, self.extras),
                NO_DATA,
                place,
                self.number,
                *out,
                self.sums,
            )
        )

    def finish(self) -> int:
        """Take means; return how many pixels have data."""
        out = self.out
        return int(take_means(self.number, self.sums, out.image, out.variance, out.extras))


def _merge_rows(
    warps: Sequence[xr.Dataset],
    boxes: Sequence[Box],
    rows: tuple[int, int],
    limits: Box,
    extras: tuple[bool, int],
    out: _Result,
    counts: list[int],
) -> int:
    """Fill some rows of the result; return how many of their pixels have data."""
    shape = (rows[1] - rows[0], limits[3] - limits[2])
    own = slice(rows[0] - limits[0], rows[1] - limits[0])
    image, variance, mask = out.image[own], out.variance[own], out.mask[own]
    others = out.extras[:, own]
    image[:], variance[:], mask[:], others[:] = np.nan, np.inf, NO_DATA, np.nan
    others[: extras[0]] = 1.0
    number, sums = np.zeros(shape, np.uint8), np.empty((2 + len(others), *shape))
    for index, (warp, place, there) in enumerate(_overlaps(warps, boxes, rows, limits)):
        if place is None or there is None:
            continue
        part = warp.isel({v.Y: there[0], v.X: there[1]})
        counts[index] += add_warp(
            *_planes_of(part, extras),
            NO_DATA,
            place,
            number,
            image,
            variance,
            mask,
            others,
            sums,
        )
    return int(take_means(number, sums, image, variance, others))


def _planes_of(
    part: xr.Dataset, extras: tuple[bool, int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    return (
        _values(part, "image", np.float32),
        _values(part, "variance", np.float32),
        _values(part, v.MASK, np.int32),
        _values_of_extras(part, extras),
    )


def _values(part: xr.Dataset, name: str, dtype: Any) -> NDArray[Any]:
    return np.ascontiguousarray(part[name].transpose(..., v.Y, v.X).to_numpy(), dtype)


def _values_of_extras(part: xr.Dataset, extras: tuple[bool, int]) -> NDArray[np.float32]:
    planes = [_values(part, "masked_fraction", np.float32)[None]] if extras[0] else []
    if extras[1]:
        planes.append(_values(part, "noise", np.float32)[: extras[1]])
    if not planes:
        return np.empty((0, part.sizes[v.Y], part.sizes[v.X]), np.float32)
    return planes[0] if len(planes) == 1 else np.concatenate(planes)


Slices = tuple[slice, slice]


def _overlaps(
    warps: Sequence[xr.Dataset], boxes: Sequence[Box], rows: tuple[int, int], limits: Box
) -> Iterator[tuple[xr.Dataset, tuple[int, int] | None, Slices | None]]:
    """Yield for each warp where its part of some rows lies in the result and in itself."""
    for warp, box in zip(warps, boxes, strict=True):
        start, stop = max(rows[0], box[0]), min(rows[1], box[1])
        left, right = max(limits[2], box[2]), min(limits[3], box[3])
        if start >= stop or left >= right:
            yield warp, None, None
            continue
        yield (
            warp,
            (start - rows[0], left - limits[2]),
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
    warps: Sequence[xr.Dataset], extras: tuple[bool, int], out: _Result, box: Box, good: int
) -> xr.Dataset:
    planes: dict[str, NDArray[Any]] = {
        "image": out.image, "variance": out.variance, v.MASK: out.mask
    }  # fmt: skip
    if extras[0]:
        planes["masked_fraction"] = out.extras[0]
    if extras[1]:
        planes["noise"] = out.extras[int(extras[0]) :]
    dims = {2: (v.Y, v.X), 3: (v.REALIZATION, v.Y, v.X)}
    merged = xr.Dataset(
        {
            name: (dims[plane.ndim], plane, dict(warps[0][name].attrs))
            for name, plane in planes.items()
        },
        coords={v.Y: np.arange(box[0], box[1]), v.X: np.arange(box[2], box[3])},
    )
    merged["good_count"] = xr.DataArray(np.int64(good), attrs={"units": v.PIXEL})
    merged["status"] = xr.DataArray(
        np.uint8(v.WarpStatus.OK), attrs=v.flag_attributes(v.WarpStatus)
    )
    return merged
