"""The warps that go into a coadd: one dataset over ``visit``, or one for each.

Warps are taken in the order of their visits, so that no result depends on the order they come in.
Pixels are read tile by tile, so warps may be lazy or read as they are indexed. Masks are turned
into skyloom's own legend as they are read.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.combine.planes import own_planes
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.matching.match_use import apply_offset, offset_image
from skyloom.algorithms.tiles import in_memory, tiles

__all__ = [
    "BAND",
    "FRAME",
    "Place",
    "Planes",
    "Warps",
    "own_mask",
    "planes_of",
    "split_columns",
    "warps_of",
]

BAND = "band"
FRAME = ("box", "wcs")
PLANES = ("image", v.MASK, "variance")
TOLD_OF_REJECTION = ("BAD", "SAT", "EDGE", "CLIPPED", "SUSPECT", "NO_DATA")
Place = dict[Hashable, slice]

TILE_BYTES = 256 * 2**20
"""Planes of all warps that are read together, where warps are stored in smaller parts."""
PART_BYTES = 64 * 2**20
"""Planes of one warp that are read together."""
PIXEL_BYTES = 12


class Planes(NamedTuple):
    """A tile of warps: float32 and int32 arrays (warp, pixel); a mask without pixels is none."""

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]


class Warps(NamedTuple):
    """Warps of one patch in the order of their visits.

    ``data`` are datasets (y, x), or one (visit, y, x) if ``stacked``; ``visits`` their labels;
    ``about`` the coordinates that each has a value of, over ``visit``; ``coords`` and ``attrs``
    what is the same for all; ``artifacts`` the planes (y, x) that each gets when it is read,
    ``match`` the fields whose offsets are added then.
    """

    data: tuple[xr.Dataset, ...]
    stacked: bool
    visits: NDArray[Any]
    about: xr.Dataset
    coords: dict[Hashable, xr.DataArray]
    attrs: dict[str, Any]
    artifacts: tuple[xr.DataArray, ...] = ()
    match: xr.Dataset | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.data[0].sizes[v.Y], self.data[0].sizes[v.X]

    @property
    def units(self) -> str:
        """Return the unit of the images."""
        return str(self.data[0]["image"].attrs.get("units", v.DIMENSIONLESS))

    def one(self, index: int) -> xr.Dataset:
        """Return one warp."""
        return self.data[0].isel({v.VISIT: index}) if self.stacked else self.data[index]

    def with_match(self, match: xr.Dataset | None) -> Warps:
        """Return the warps with fields whose offsets are added when they are read.

        Raises
        ------
        GeometryError
            If the warps don't say where they are.
        """
        if match is not None and "box" not in self.attrs:
            raise GeometryError("to be matched, warps need the attribute box")
        return self._replace(match=match)

    def whole(self, index: int) -> xr.Dataset:
        """Return one warp as it counts, with its offset if there are fields."""
        one = self.one(index)
        if self.match is None:
            return one
        return apply_offset(one.assign_attrs(box=self.attrs["box"]), self.match)

    def keep(self, chosen: NDArray[np.bool_]) -> Warps:
        """Return some of the warps."""
        if chosen.all():
            return self
        places = np.flatnonzero(chosen)
        data = (
            (self.data[0].isel({v.VISIT: places}),)
            if self.stacked
            else tuple(self.data[i] for i in places)
        )
        about = self.about.isel({v.VISIT: places})
        artifacts = tuple(self.artifacts[i] for i in places) if self.artifacts else ()
        return self._replace(
            data=data, visits=self.visits[places], about=about, artifacts=artifacts
        )

    def read_one(self, index: int) -> Planes:
        """Return the whole of one warp."""
        return self._read_one(index, self._whole)

    def parts_of(self, index: int) -> Iterator[Planes]:
        """Yield one warp part by part, where it is stored in parts; whole if not."""
        image = self.data[0 if self.stacked else index]["image"]
        stored = image.chunks is None and not in_memory(image)
        places = tiles(image, (v.Y, v.X), pixels=PART_BYTES / PIXEL_BYTES)
        for place in places if stored else [self._whole]:
            yield self._read_one(index, place)

    @property
    def _whole(self) -> Place:
        height, width = self.shape
        return {v.Y: slice(0, height), v.X: slice(0, width)}

    def _read_one(self, index: int, place: Place) -> Planes:
        read = self._matched(planes_of(self.one(index).isel(place)), [index], place)
        return self._masked(read, self.artifacts[index : index + 1], place)

    def _matched(self, read: Planes, indices: Sequence[int], place: Place) -> Planes:
        """Return planes with the offsets of their visits added."""
        if self.match is None:
            return read
        (y, _, x, _), rows, columns = self.attrs["box"], place[v.Y], place[v.X]
        box = (y + rows.start, y + rows.stop, x + columns.start, x + columns.stop)
        image = np.empty_like(read.image)
        for row, values, index in zip(image, read.image, indices, strict=True):
            offset = offset_image(self.match, int(self.visits[index]), box)
            np.add(values, offset.values.ravel(), out=row)
        return read._replace(image=image)

    def _masked(self, read: Planes, artifacts: tuple[xr.DataArray, ...], place: Place) -> Planes:
        if not artifacts:
            return read
        found = np.stack([artifact.isel(place).values.ravel() for artifact in artifacts])
        mask = read.mask if read.mask.size else np.zeros(read.image.shape, np.int32)
        return read._replace(mask=masked(mask, found))

    def places(self) -> Iterator[Place]:
        """Yield tile after tile; all at once where the kernels take what lies in memory."""
        if self.stacked and all(_ready(self.data[0][n]) for n in PLANES if n in self.data[0]):
            yield self._whole
        else:
            pixels = TILE_BYTES / (PIXEL_BYTES * self.visits.size)
            yield from tiles(self.data[0]["image"], (v.Y, v.X), pixels=pixels)

    def read(self, place: Place) -> Planes:
        """Return a tile of all warps."""
        if self.stacked:
            planes = planes_of(self.data[0].isel(place))
            matched = self._matched(planes, range(self.visits.size), place)
            return self._masked(matched, self.artifacts, place)
        read = [self._read_one(i, place) for i in range(len(self.data))]
        masked = any(planes.mask.size for planes in read)
        blank = np.zeros(read[0].image.shape, np.int32)
        return Planes(
            np.concatenate([planes.image for planes in read]),
            np.concatenate([planes.mask if planes.mask.size else blank for planes in read])
            if masked
            else read[0].mask,
            np.concatenate([planes.variance for planes in read]),
        )


def masked(mask: NDArray[np.int32], artifacts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a mask with the planes of `artifact_mask`, which then alone say where an edge is.

    A pixel without data loses the planes that would tell of a rejection.
    """
    told = np.int32(v.plane_bits(TOLD_OF_REJECTION))
    empty = (artifacts & np.int32(v.MASK_PLANES["NO_DATA"])) != 0
    kept = mask & ~np.where(empty, told, np.int32(v.MASK_PLANES["EDGE"]))
    return np.asarray(kept | artifacts, np.int32)


def planes_of(data: xr.Dataset) -> Planes:
    """Return the planes of one warp or of several as arrays (warp, pixel)."""
    names = [name for name in PLANES if name in data]
    part = data[names]
    if not all(in_memory(part[name]) for name in names):
        part = part.compute()  # one computation for all planes: lazy ones share most of their tasks
    number = part.sizes.get(v.VISIT, 1)
    arrays = {}
    for name in names:
        array = part[name]
        dims = [dim for dim in (v.VISIT, v.Y, v.X) if dim in array.dims]
        arrays[name] = array.transpose(*dims).values
    mask = np.empty((number, 0), np.int32)
    if v.MASK in arrays:
        own = own_mask(arrays[v.MASK], dict(part[v.MASK].attrs))
        mask = np.ascontiguousarray(own).reshape(number, -1)
    image, variance = (
        np.ascontiguousarray(arrays[name], np.float32).reshape(number, -1)
        for name in ("image", "variance")
    )
    return Planes(image, mask, variance)


def own_mask(mask: NDArray[Any], attributes: dict[str, Any]) -> NDArray[np.int32]:
    """Return planes by skyloom's own legend; the mask itself, not a copy, if that is its own."""
    mine = v.mask_attributes()
    legend = attributes if "flag_meanings" in attributes else mine
    same = legend["flag_meanings"] == mine["flag_meanings"] and np.array_equal(
        legend["flag_masks"], mine["flag_masks"]
    )
    return mask.astype(np.int32, copy=False) if same else own_planes(mask, legend)


def _ready(array: xr.DataArray) -> bool:
    """Return whether the kernels take an array as it is."""
    if not in_memory(array) or array.dims != (v.VISIT, v.Y, v.X):
        return False
    values = array.values
    usual = (np.dtype(np.float32), np.dtype(np.int32))
    return bool(values.flags.c_contiguous and values.dtype in usual and values.dtype.isnative)


def warps_of(warps: xr.Dataset | Sequence[xr.Dataset]) -> Warps:
    """Return warps in the order of their visits, checked to belong together.

    Parameters
    ----------
    warps : Dataset (visit, y, x) or sequence of Dataset (y, x) with a coordinate ``visit``
        ``image``, ``variance`` and perhaps ``mask``.

    Raises
    ------
    NoUsableDataError
        If there are none.
    ValueError
        If visits are missing or occur twice, or bands, units or variables don't fit.
    GeometryError
        If shapes, boxes or projections differ.
    """
    if isinstance(warps, xr.Dataset):
        if v.VISIT not in warps.dims:
            raise ValueError(f"warps need a dimension visit, they have {dict(warps.sizes)}")
        if v.VISIT not in warps.coords:
            raise ValueError("warps need a coordinate visit that names their visits")
        if warps.sizes[v.VISIT] == 0:
            raise NoUsableDataError("no inputs: there are no warps to coadd")
        return _of_dataset(warps)
    data = tuple(warps)
    if not data:
        raise NoUsableDataError("no inputs: there are no warps to coadd")
    return _of_sequence(data)


def _of_dataset(warps: xr.Dataset) -> Warps:
    _check_planes(warps, {v.VISIT, v.Y, v.X})
    planes = warps[[name for name in PLANES if name in warps]]
    about = {name: c.variable for name, c in warps.coords.items() if c.dims == (v.VISIT,)}
    scalars = {name: xr.DataArray(c.variable) for name, c in warps.coords.items() if c.ndim == 0}
    attrs = {key: warps.attrs[key] for key in FRAME if key in warps.attrs}
    order = np.argsort(warps[v.VISIT].values, kind="stable")
    if (order != np.arange(order.size)).any():
        planes = planes.isel({v.VISIT: order})
    columns = xr.Dataset(coords=about).isel({v.VISIT: order})
    visits = np.asarray(warps[v.VISIT].values[order])
    return _belonging(Warps((planes,), True, visits, columns, scalars, attrs))


def _of_sequence(data: tuple[xr.Dataset, ...]) -> Warps:
    for warp in data:
        _check_planes(warp, {v.Y, v.X})
        if v.VISIT not in warp.coords:
            raise ValueError("every warp needs a scalar coordinate visit that names its visit")
    first = data[0]
    shapes = sorted({(warp.sizes[v.Y], warp.sizes[v.X]) for warp in data})
    if len(shapes) > 1:
        raise GeometryError(f"warps must have one shape, got {shapes}")
    for key in FRAME:
        values = {json.dumps(_plain(warp.attrs.get(key)), sort_keys=True) for warp in data}
        if len(values) > 1:
            raise GeometryError(f"warps must have one {key}, got {', '.join(sorted(values))}")
    units = {str(warp["image"].attrs.get("units", v.DIMENSIONLESS)) for warp in data}
    if len(units) > 1:
        raise ValueError(f"warps must have one unit, got {sorted(units)}")
    labels = [warp[v.VISIT].item() for warp in data]
    order = sorted(range(len(data)), key=labels.__getitem__)
    data = tuple(data[i] for i in order)
    common = [
        name
        for name, coord in first.coords.items()
        if coord.ndim == 0 and all(name in warp.coords for warp in data)
    ]
    columns = {
        name: (v.VISIT, np.array([warp.coords[name].values[()] for warp in data]))
        for name in common
    }
    attrs = {key: first.attrs[key] for key in FRAME if key in first.attrs}
    visits = np.array(columns[v.VISIT][1])
    return _belonging(Warps(data, False, visits, xr.Dataset(coords=columns), {}, attrs))


def _plain(value: Any) -> Any:
    """Return what JSON can hold."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _check_planes(warp: xr.Dataset, dims: set[str]) -> None:
    for name in ("image", "variance"):
        if name not in warp:
            raise KeyError(f"warps need a variable {name!r}, they have {sorted(map(str, warp))}")
    for name in PLANES:
        if name in warp and set(warp[name].dims) != dims:
            raise GeometryError(
                f"{name} of a warp must have dimensions {sorted(dims)}, it has {warp[name].dims}"
            )
    if v.MASK in warp and warp[v.MASK].dtype.kind not in "iu":
        raise TypeError(f"masks must hold integer bit planes, got dtype {warp[v.MASK].dtype}")


def _belonging(warps: Warps) -> Warps:
    """Check visits and bands, and move what is the same for all to the coordinates."""
    about, common = split_columns(warps.about)
    first = warps.data[0]
    axes = {name: first[name] for name in (v.Y, v.X) if name in first.coords}
    return warps._replace(about=about, coords=warps.coords | common | axes)


def split_columns(about: xr.Dataset) -> tuple[xr.Dataset, dict[Hashable, xr.DataArray]]:
    """Return the coordinates over ``visit`` that differ, and those that are the same for all.

    Raises
    ------
    ValueError
        If a visit occurs twice, or there are several bands, filters, tracts or patches.
    """
    labels = about[v.VISIT].values.tolist()
    if len(set(labels)) < len(labels):
        twice = sorted({str(label) for label in labels if labels.count(label) > 1})
        raise ValueError(f"visits occur twice: {', '.join(twice)}")
    common = {}
    for name in [n for n in about.coords if n != v.VISIT]:
        values = about[name].values
        if all(value == values[0] for value in values):
            common[name] = xr.DataArray(values[0], attrs=about[name].attrs)
            about = about.drop_vars(str(name))
        elif name in (BAND, v.FILTER, v.TRACT, v.PATCH):
            raise ValueError(f"warps are of several {name}s: {sorted(set(map(str, values)))}")
    return about, common
