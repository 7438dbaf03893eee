"""Patches as steps know them: their labels, and which detectors touch which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import StoreError
from skyloom.algorithms.skymap import (
    Patch,
    SkyMap,
    SkyMapParameters,
    Tract,
    make_skymap,
    overlapping_patches,
)
from skyloom.flows.step import Constant, Labels
from skyloom.storage.records import Label

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = [
    "PLACE",
    "TRACT_PLACE",
    "Touched",
    "patch_label",
    "patch_of",
    "patch_sizes",
    "sky_map_of",
    "stored_warps",
    "touched_patches",
]

Touched = Mapping[tuple[Label, Label], Labels]
"""Names of the detectors of a visit that touch a patch, by visit and label of the patch."""


def patch_label(tract: int, patch: int) -> str:
    """Return the label of a patch.

    Examples
    --------
    >>> patch_label(9813, 24)
    '9813-24'
    """
    return f"{tract}-{patch}"


def patch_place(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return the tract and the patch that the label of a block names."""
    tract, patch = str(block[v.PATCH]).split("-")
    return xr.Dataset({v.TRACT: ((), int(tract)), v.PATCH: ((), int(patch))})


def tract_place(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return the tract that a block is of."""
    return xr.Dataset({v.TRACT: ((), int(block[v.TRACT]))})


PLACE = Constant("place", patch_place, (v.PATCH,))
TRACT_PLACE = Constant("place", tract_place, (v.TRACT,))


@cache
def sky_map_of(parameters: SkyMapParameters) -> SkyMap:
    """Return a sky map, the same one every time."""
    return make_skymap(parameters)


def patch_of(parameters: SkyMapParameters, place: xr.Dataset) -> tuple[Tract, Patch]:
    """Return the tract and patch of a block."""
    tract = sky_map_of(parameters)[int(place[v.TRACT])]
    return tract, tract.patch(int(place[v.PATCH]))


def patch_sizes(parameters: SkyMapParameters, labels: Labels) -> dict[str, int]:
    """Return the rows and columns that hold the outer box of every patch."""
    height = width = 0
    for label in labels:
        tract, patch = map(int, str(label).split("-"))
        shape = sky_map_of(parameters)[tract].patch(patch).outer.shape
        height, width = max(height, shape[0]), max(width, shape[1])
    return {v.Y: height, v.X: width}


def touched_patches(
    corners: xr.Dataset,
    parameters: SkyMapParameters,
    frames: Sequence[tuple[int, str]],
    tracts: tuple[int, ...] = (),
) -> tuple[Touched, tuple[str, ...]]:
    """Return which detectors of which exposures touch which patches.

    Parameters
    ----------
    corners : Dataset, (exposure, detector, corner)
        Of `Store.sky_corners`.
    parameters : SkyMapParameters
        The sky map.
    frames : sequence of (int, str)
        Exposures and detectors that count.
    tracts : tuple of int
        Tracts that count; all if empty.

    Returns
    -------
    touched : mapping
        Sorted by visit, then by tract and patch.
    notes : tuple of str
        Which detectors have no usable place on the sky.
    """
    names = sorted(frames)
    rows, columns = (
        corners.indexes[dim].get_indexer(pd.Index([name[axis] for name in names]))
        for axis, dim in enumerate((v.EXPOSURE, v.DETECTOR))
    )
    ra, dec = (corners[name].values[rows, columns] for name in ("right_ascension", "declination"))
    known = ~np.isnan(ra).all(axis=1)
    places = np.flatnonzero(known)
    found = overlapping_patches(
        sky_map_of(parameters), ra[known], dec[known], names=[names[place] for place in places]
    )
    pairs: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for polygon, tract, patch in zip(found.polygon, found.tract, found.patch, strict=True):
        if not tracts or int(tract) in tracts:
            exposure, detector = names[places[polygon]]
            pairs[int(exposure), int(tract), int(patch)].append(detector)
    touched: dict[tuple[Label, Label], Labels] = {
        (exposure, patch_label(tract, patch)): tuple(pairs[exposure, tract, patch])
        for exposure, tract, patch in sorted(pairs)
    }
    return touched, _notes(int((~known).sum()), len(names), found.unusable)


def stored_warps(store: Store, table: xr.Dataset) -> tuple[Labels, list[tuple[Label, Label]]]:
    """Return the visits of a table that have warps, and these as (visit, patch).

    Raises
    ------
    StoreError
        If there are none.
    """
    if "warps" not in store:
        raise StoreError(
            f"{store.url} has no product 'warps': run the flow warps first "
            "(skyloom run STORE warps)"
        )
    chosen = {int(exposure) for exposure in table[v.EXPOSURE].values}
    done = [
        (record.block[v.VISIT], record.block[v.PATCH])
        for record in store.records("warps").values()
        if record.done and int(record.block[v.VISIT]) in chosen
    ]
    visits = tuple(sorted({int(visit) for visit, _ in done}))
    if not visits:
        raise StoreError(f"{store.url} has no warps of the exposures selected")
    return visits, done


def _notes(unknown: int, total: int, unusable: tuple[tuple[object, str], ...]) -> tuple[str, ...]:
    notes = []
    if unknown:
        notes.append(
            f"{unknown} of {total} pairs of exposure and detector have no world coordinate system "
            "and are left out"
        )
    for name, reason in unusable[:5]:
        notes.append(f"exposure and detector {name} are left out: {reason}")
    if len(unusable) > 5:
        notes.append(f"and {len(unusable) - 5} others with a bad world coordinate system")
    return tuple(notes)
