"""The exposures that go into a combination: one dataset over ``exposure``, or one for each.

Pixels are read tile by tile, so exposures may be lazy or read as they are indexed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.tiles import in_memory, tiles

__all__ = ["Exposures", "Planes", "exposures_of"]

PLANES = ("image", v.MASK, "variance")


class Planes(NamedTuple):
    """A tile of all exposures: arrays (input, y, x), and where it lies in the detector."""

    image: NDArray[Any]
    mask: NDArray[Any] | None
    variance: NDArray[Any] | None
    y: slice
    x: slice


class Exposures(NamedTuple):
    """Exposures of one detector: datasets (y, x) or one (exposure, y, x), and their labels.

    ``about`` are the coordinates that each has a value of, over ``exposure``; ``attrs`` and
    ``coords`` those that are the same for all.
    """

    data: tuple[xr.Dataset, ...]
    stacked: bool
    labels: NDArray[Any]
    about: xr.Dataset
    coords: dict[Hashable, xr.DataArray]
    attrs: dict[str, Any]

    @property
    def first(self) -> xr.Dataset:
        """Return what has the planes, shape and units of all."""
        return self.data[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.first.sizes[v.Y], self.first.sizes[v.X]

    @property
    def units(self) -> str:
        """Return the unit of the images."""
        return str(self.first["image"].attrs.get("units", v.DIMENSIONLESS))

    @property
    def legend(self) -> dict[str, Any]:
        """Return the legend of the masks."""
        attrs = dict(self.first[v.MASK].attrs) if v.MASK in self.first else {}
        return attrs if "flag_meanings" in attrs else v.mask_attributes()

    def keep(self, chosen: NDArray[np.bool_]) -> Exposures:
        """Return some of the exposures."""
        if chosen.all():
            return self
        places = np.flatnonzero(chosen)
        data = (
            (self.data[0].isel({v.EXPOSURE: places}),)
            if self.stacked
            else tuple(self.data[i] for i in places)
        )
        about = self.about.isel({v.EXPOSURE: places})
        return self._replace(data=data, labels=self.labels[places], about=about)

    def read(self) -> Iterator[Planes]:
        """Yield tile after tile; everything at once where it lies in memory ready for use."""
        names = [name for name in PLANES if name in self.first]
        whole = self.stacked and all(_ready(self.first[name]) for name in names)
        places: list[dict[Hashable, slice]] = list(tiles(self.first["image"], (v.Y, v.X)))
        if whole:
            places = [{v.Y: slice(0, self.shape[0]), v.X: slice(0, self.shape[1])}]
        for place in places:
            arrays: dict[str, NDArray[Any] | None] = dict.fromkeys(PLANES)
            part: xr.Dataset | None = None
            if self.stacked:
                part = self.first[names].isel(place)
                # one computation for all planes: lazy ones share most of their tasks
                part = part if whole else part.compute()
                arrays |= {name: part[name].values for name in names}
            else:
                arrays |= self._gathered(names, place)
            image = arrays["image"]
            assert image is not None
            yield Planes(image, arrays[v.MASK], arrays["variance"], place[v.Y], place[v.X])
            # One tile is in memory at a time, not the next one beside it.
            del image, arrays
            part = None

    def _gathered(
        self, names: Sequence[str], place: dict[Hashable, slice]
    ) -> dict[str, NDArray[Any]]:
        """Return a tile of exposures that are datasets of their own, read one after the other."""
        arrays: dict[str, NDArray[Any]] = {}
        for i, data in enumerate(self.data):
            part = data[list(names)].isel(place).compute().transpose(v.Y, v.X)
            for name in names:
                values = part[name].values
                if i == 0:
                    arrays[name] = np.empty((len(self.data), *values.shape), values.dtype)
                arrays[name][i] = values
        return arrays


def _ready(array: xr.DataArray) -> bool:
    """Return whether the kernels take an array as it is."""
    if not in_memory(array):
        return False
    values = array.values
    usual = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int32))
    return bool(values.flags.c_contiguous and values.dtype in usual and values.dtype.isnative)


def exposures_of(exposures: xr.Dataset | Sequence[xr.Dataset]) -> Exposures:
    """Return exposures, checked to belong together.

    Parameters
    ----------
    exposures : Dataset over ``exposure`` or sequence of Dataset (y, x)

    Raises
    ------
    ValueError
        If there are none, or they differ in detector, camera, units or variables.
    GeometryError
        If they differ in shape; the message lists the shapes.
    """
    if isinstance(exposures, xr.Dataset):
        return _of_dataset(exposures)
    data = tuple(exposures)
    if not data:
        raise ValueError("no inputs: there are no exposures to combine")
    shapes = [dict(each["image"].sizes) for each in data]
    if any(shape != shapes[0] or set(shape) != {v.Y, v.X} for shape in shapes):
        raise GeometryError(f"exposures must have one shape over (y, x), got {shapes}")
    names = [tuple(name for name in PLANES if name in each) for each in data]
    if len(set(names)) > 1:
        raise ValueError(f"exposures must have the same variables, got {sorted(set(names))}")
    units = {each["image"].attrs.get("units", v.DIMENSIONLESS) for each in data}
    if len(units) > 1:
        raise ValueError(f"exposures must have the same unit, got {sorted(map(repr, units))}")
    common = [
        name
        for name, coord in data[0].coords.items()
        if coord.ndim == 0 and all(name in each.coords for each in data)
    ]
    columns = {
        name: (v.EXPOSURE, np.array([each.coords[name].values[()] for each in data]))
        for name in common
    }
    labels = np.array(columns[v.EXPOSURE][1] if v.EXPOSURE in columns else np.arange(len(data)))
    about = xr.Dataset(coords=columns | {v.EXPOSURE: labels})
    attrs = {
        key: value
        for key, value in data[0].attrs.items()
        if all(key in each.attrs and np.array_equal(each.attrs[key], value) for each in data)
    }
    return _belonging(Exposures(data, False, labels, about, {}, attrs))


def _of_dataset(exposures: xr.Dataset) -> Exposures:
    dims = set(exposures["image"].dims)
    if dims != {v.EXPOSURE, v.Y, v.X}:
        raise ValueError(
            f"exposures need an image over exposure, y and x, got {exposures['image'].dims}"
        )
    if exposures.sizes[v.EXPOSURE] == 0:
        raise ValueError("no inputs: there are no exposures to combine")
    planes = {name: exposures[name] for name in PLANES if name in exposures}
    for name, plane in planes.items():
        if set(plane.dims) != dims:
            raise GeometryError(f"{name} has dimensions {plane.dims}, the image {tuple(dims)}")
    data = exposures[list(planes)].transpose(v.EXPOSURE, v.Y, v.X)
    about = {name: c.variable for name, c in exposures.coords.items() if c.dims == (v.EXPOSURE,)}
    scalars = {
        name: xr.DataArray(c.variable) for name, c in exposures.coords.items() if c.ndim == 0
    }
    return _belonging(
        Exposures(
            (data,),
            True,
            exposures[v.EXPOSURE].values,
            xr.Dataset(coords=about),
            scalars,
            dict(exposures.attrs),
        )
    )


def _belonging(exposures: Exposures) -> Exposures:
    """Move what is the same for all exposures to the coordinates of the product."""
    labels = exposures.labels.tolist()
    if len(set(labels)) < len(labels):
        twice = sorted({str(label) for label in labels if labels.count(label) > 1})
        raise ValueError(f"exposures occur twice: {', '.join(twice)}")
    about, coords = exposures.about, dict(exposures.coords)
    for name in [n for n in about.coords if n != v.EXPOSURE]:
        values = about[name].values
        if all(value == values[0] for value in values):
            coords[name] = xr.DataArray(values[0], attrs=about[name].attrs)
            about = about.drop_vars(str(name))
        elif name in (v.DETECTOR, "camera"):
            raise ValueError(f"exposures are of several {name}s: {sorted(set(map(str, values)))}")
    first = exposures.first
    axes = {name: first[name] for name in (v.Y, v.X) if name in first.coords}
    return exposures._replace(about=about, coords=coords | axes)
