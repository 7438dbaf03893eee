"""Skies as products keep them and as algorithms know them.

Blocks of a product are of one size, so what differs between detectors, the box of pixels and the
number of bins, is kept in scalars; algorithms have it as attributes and sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import bin_centers, bin_edges
from skyloom.storage.sky_schemas import BINS, BOX, FOCAL_BOX

if TYPE_CHECKING:
    from skyloom.storage.records import Label
    from skyloom.storage.store import Store

__all__ = [
    "background_of",
    "load_sky_fit",
    "load_sky_frame",
    "polynomials_of",
    "stored_background",
    "stored_polynomials",
]


def load_sky_frame(store: Store, physical_filter: str, detector: str) -> xr.Dataset:
    """Return a sky frame that a flow made, as functions take it.

    `skyloom.algorithms.sky.measure_scale`, `subtract_sky_frame` and
    `skyloom.storage.sky_frame_fits.write_sky_frame` do.

    Parameters
    ----------
    store : Store
        In which the flow ``sky_frames`` ran.
    physical_filter, detector : str

    Returns
    -------
    Dataset, (bin_y, bin_x)
        ``level``, ``variance``, ``flags``, ``exposure_count``; attribute ``box``; coordinates with
        detector, filter and camera.

    Raises
    ------
    KeyError
        If the store has no sky frames, or none of this filter and detector.
    StoreError
        If the block is not done.
    """
    block = store.read_block("sky_frame", {v.FILTER: physical_filter, v.DETECTOR: detector})
    origin = {v.FILTER: physical_filter, v.DETECTOR: detector, "camera": store.camera.name}
    return background_of(block).assign_coords({name: ((), told) for name, told in origin.items()})


def load_sky_fit(store: Store, exposure: Label) -> xr.Dataset:
    """Return the sky of an exposure that a flow fitted, as `algorithms.sky.subtract_fit` takes it.

    Parameters
    ----------
    store : Store
        In which the flow ``sky_frames`` ran.
    exposure : int or str

    Raises
    ------
    KeyError
        If the store has no such fit.
    StoreError
        If the block is not done.
    """
    return polynomials_of(store.read_block("sky_fit", {v.EXPOSURE: exposure}))


def stored_background(background: xr.Dataset, names: tuple[str, ...]) -> xr.Dataset:
    """Return some variables of a background as its product keeps it."""
    scalars = dict(zip(BOX, background.attrs["box"], strict=True))
    scalars |= dict(zip(BINS, (background.sizes[v.BIN_Y], background.sizes[v.BIN_X]), strict=True))
    kept = background[list(names)].drop_vars([v.BIN_Y, v.BIN_X], errors="ignore")
    units = {name: v.PIXEL if name in BOX else v.DIMENSIONLESS for name in scalars}
    for name in ("flags", "count", "count_used", "exposure_count"):
        if name in kept:
            kept[name].attrs.setdefault("units", v.DIMENSIONLESS)
    return kept.assign(
        {name: ((), np.int32(value), {"units": units[name]}) for name, value in scalars.items()}
    )


def background_of(block: xr.Dataset) -> xr.Dataset:
    """Return a background with its bins and box as algorithms know them."""
    box = [int(block[name]) for name in BOX]
    numbers = [int(block[name]) for name in BINS]
    found = block.drop_vars([*BOX, *BINS])
    for dim, number, start, stop in zip(
        (v.BIN_Y, v.BIN_X), numbers, box[::2], box[1::2], strict=True
    ):
        found = found.isel({dim: slice(0, number)})
        found = found.assign_coords({dim: bin_centers(bin_edges(stop - start, number), start)})
    return found.assign_attrs(box=box)


def polynomials_of(block: xr.Dataset) -> xr.Dataset:
    """Return polynomials and steps as algorithms know them, from the block that keeps them."""
    found = block.assign_attrs(
        focal_box=[float(block[name]) for name in FOCAL_BOX], focal_box_units=v.MILLIMETRE
    ).set_coords(["degree_x", "degree_y"])
    steps = found.get("step")
    if steps is None:
        return found.assign(step=("group", np.empty(0))).assign_coords(group=np.empty(0, "U1"))
    found = found.drop_vars("step").assign(step=("group", steps.values))
    return found.assign_coords(group=steps[v.DETECTOR].values)


def stored_polynomials(model: xr.Dataset, *, steps: bool) -> xr.Dataset:
    """Return polynomials and steps as products keep them."""
    edges = {
        name: ((), edge, {"units": v.MILLIMETRE})
        for name, edge in zip(FOCAL_BOX, model.attrs["focal_box"], strict=True)
    }
    found = model.reset_coords(["degree_x", "degree_y"]).assign(edges)
    for name in ("degree_x", "degree_y"):
        found[name].attrs.setdefault("units", v.DIMENSIONLESS)
    values = found["step"].values
    found = found.drop_vars(["step", "group"])
    return found.assign(step=(v.DETECTOR, values, {"units": v.ELECTRON})) if steps else found
