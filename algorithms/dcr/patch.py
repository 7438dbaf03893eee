"""What the solutions for a patch have in common."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.geometry import patch_jacobian
from skyloom.algorithms.dcr.tiles import Tile
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.tangent_plane import plane_of_header
from skyloom.algorithms.tiles import in_memory

__all__ = [
    "DcrSolution",
    "Rows",
    "Run",
    "check_pixels",
    "detected_pixels",
    "jacobian_of",
    "weighted_pixels",
]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")


class DcrSolution(NamedTuple):
    """The model of a patch, and what is to be known of its solution."""

    model: xr.Dataset
    diagnostics: xr.Dataset


def jacobian_of(attrs: Mapping[str, Any]) -> Floats:
    """Return the offsets on the sky per pixel that the attributes of warps or coadds tell.

    Raises
    ------
    GeometryError
        If there is no projection or no box.
    """
    missing = [name for name in ("wcs", "box") if name not in attrs]
    if missing:
        raise GeometryError(f"warps have no {' and no '.join(missing)}: give jacobian")
    header = attrs["wcs"]
    plane = plane_of_header(json.loads(header) if isinstance(header, str) else header)
    return patch_jacobian(plane, attrs["box"])


def check_pixels(warps: xr.Dataset, template: xr.Dataset, conditions: xr.Dataset) -> None:
    """Refuse warps, template and conditions that are not of the same pixels, unit and visits."""
    for name in ("image", "variance", v.MASK):
        for given, of in ((warps, "warps"), (template, "template")):
            if name not in given:
                raise ValueError(f"{of} lack {name}")
    if "box" in warps.attrs and "box" in template.attrs:
        one, other = (list(each.attrs["box"]) for each in (warps, template))
        if one != other:
            raise GeometryError(f"warps are of box {one}, the template of {other}")
    for dim in (v.Y, v.X):
        if warps.sizes[dim] != template.sizes[dim]:
            raise GeometryError(
                f"warps have {warps.sizes[dim]} pixels along {dim}, the template "
                f"{template.sizes[dim]}"
            )
    _check_projections(warps, template)
    for name in ("image", "variance"):
        units = [each[name].attrs.get("units", "") for each in (warps, template)]
        if all(units) and units[0] != units[1]:
            raise ValueError(
                f"{name} of warps is in {units[0]}, that of the template in {units[1]}"
            )
    _check_visits(warps, conditions)


def _check_projections(warps: xr.Dataset, template: xr.Dataset) -> None:
    if "wcs" not in warps.attrs or "wcs" not in template.attrs:
        return
    one, other = (_keys(each.attrs["wcs"]) for each in (warps, template))
    for key in sorted({*one, *other}):
        values = one.get(key), other.get(key)
        if values[0] != values[1] and not _close(*values):
            raise GeometryError(f"warps have wcs {key} = {values[0]}, the template {values[1]}")


def _keys(wcs: Any) -> dict[str, Any]:
    return dict(json.loads(wcs) if isinstance(wcs, str) else wcs)


def _close(one: Any, other: Any) -> bool:
    """Return whether two numbers differ by no more than what a header keeps of them."""
    numbers = all(isinstance(value, (int, float)) for value in (one, other))
    return numbers and math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-15)


def _check_visits(warps: xr.Dataset, conditions: xr.Dataset) -> None:
    for given, of in ((warps, "warps"), (conditions, "conditions")):
        names, counts = np.unique(given[v.VISIT].to_numpy(), return_counts=True)
        if not names.size:
            raise ValueError(f"{of} have no visit")
        if counts.max() > 1:
            twice = ", ".join(map(str, names[counts > 1]))
            raise ValueError(f"{of} have visits {twice} more than once")
    known = set(conditions[v.VISIT].to_numpy().tolist())
    unknown = [name for name in warps[v.VISIT].to_numpy().tolist() if name not in known]
    if unknown:
        raise GeometryError(f"conditions lack visits {', '.join(map(str, unknown))}")


class Run(Protocol):
    """How tiles are worked on: as ``map`` does, or the ``map`` of a pool; results in order."""

    def __call__(
        self, work: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterable[Result]: ...


class Rows:
    """Warps that are cut into tiles; of those that lie in a store, whole rows are read.

    They are stored in rows, which are so read once for all tiles beside each other. Of warps in
    chunks each tile is computed by itself.
    """

    def __init__(self, warps: xr.Dataset) -> None:
        names = [name for name in ("image", "variance", v.MASK) if name in warps]
        self._warps = warps[names]
        self._ready = all(in_memory(self._warps[name]) for name in names)
        self._chunked = any(self._warps[name].chunks is not None for name in names)
        self._rows: slice | None = None
        self._read = self._warps
        self._lock = threading.Lock()

    def cut(self, tile: Tile) -> xr.Dataset:
        """Return the warps of a tile."""
        if self._ready or self._chunked:
            return self._warps.isel({v.Y: tile.rows, v.X: tile.columns}).compute()
        with self._lock:
            if self._rows != tile.rows:
                self._read = self._warps  # what was read before is not held while more is read
                self._read = self._warps.isel({v.Y: tile.rows}).compute()
                self._rows = tile.rows
            return self._read.isel({v.X: tile.columns})


def detected_pixels(image: xr.Dataset) -> NDArray[np.bool_]:
    """Return where the mask of an image says DETECTED, (y, x)."""
    mask = image[v.MASK].transpose(v.Y, v.X)
    return np.asarray((mask.to_numpy() & v.plane_bits(["DETECTED"], mask.attrs)) != 0)


def weighted_pixels(
    warps: xr.Dataset, reject_planes: Sequence[str]
) -> tuple[Images, Images, NDArray[np.bool_]]:
    """Return the images and inverse variances of warps, (visit, y, x), and which pixels count.

    Both are 0 where a pixel does not count.
    """
    image, variance, mask = (
        warps[name].transpose(v.VISIT, v.Y, v.X).values for name in ("image", "variance", v.MASK)
    )
    image, variance = np.asarray(image, np.float32), np.asarray(variance, np.float32)
    bits = v.plane_bits(reject_planes, warps[v.MASK].attrs)
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0) & ((mask & bits) == 0)
    weights = np.divide(np.float32(1.0), variance, out=np.zeros_like(variance), where=good)
    return np.where(good, image, np.float32(0.0)), weights, good
