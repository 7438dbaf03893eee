"""Detrended and combined frames as tasks make them: one block in, one block out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend import ScienceDetrendParameters
from skyloom.algorithms.detrend import detrend as detrend_raw
from skyloom.flows.step import Labels
from skyloom.storage.frame_schemas import TILE

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = [
    "calibration_quality",
    "combination_bytes",
    "combined",
    "detrended_frame",
    "frame_bytes",
    "frame_quality",
    "trimmed_sizes",
]

Inputs = Mapping[str, xr.Dataset]
LARGE = 10**6  # pixels
CALIBRATIONS = (
    "bias", "dark", "flat", "gain", "brighter_fatter", "crosstalk", "linearity", "defects"
)  # fmt: skip


def detrended_frame(inputs: Inputs, parameters: ScienceDetrendParameters) -> xr.Dataset:
    """Detrend a raw exposure of one detector with the calibrations that were given."""
    given: dict[str, Any] = {
        name: inputs[name]
        for name in CALIBRATIONS
        # A detector of which nothing was measured has a correction without variables.
        if name in inputs and inputs[name].data_vars
    }
    # Frames carry the camera's name, and so do those combined of them: another's are refused.
    raw = inputs["raw"].assign_coords(camera=inputs["amplifiers"].attrs["camera"])
    return detrend_raw(raw, inputs["amplifiers"], parameters=parameters, **given)


def frame_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return what was applied to a frame, its level, and what of it each mask plane covers."""
    mask, image = block[v.MASK].values, block["image"].values
    fractions = {name: float(np.mean((mask & bit) != 0)) for name, bit in v.MASK_PLANES.items()}
    # Every eighth row tells the level of a large frame well enough.
    rows = slice(None, None, 8 if image.size > LARGE else 1)
    good = image[rows][(mask[rows] == 0) & np.isfinite(image[rows])]
    return {
        "applied": list(block.attrs.get("applied", [])),
        "level": float(np.median(good)) if good.size else None,
        "masked": {name: share for name, share in fractions.items() if share},
        "masked_fraction": float(np.mean(mask != 0)),
    }


def calibration_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return level and noise of a combined frame, and how many frames it is made of."""
    image = block["image"].values
    good = np.isfinite(image)
    return {
        "median": float(np.median(image[good])) if good.any() else None,
        "frames": int(block["count"].max()),
        "bad_fraction": float(1.0 - good.mean()),
    }


def trimmed_sizes(store: Store, detectors: Labels) -> dict[str, int]:
    """Return the rows and columns that hold every trimmed detector."""
    tables = [store.camera.amplifiers(str(name)) for name in detectors]
    return {axis: max(int(table[f"{axis}_stop"].max()) for table in tables) for axis in (v.Y, v.X)}


def frame_bytes(store: Store, calibrations: int) -> tuple[int, int]:
    """Return bytes read and memory of detrending one frame with some calibrations."""
    raw = np.dtype(store.schema("raw").variable("image").dtype).itemsize
    pixels = max(detector.shape[0] * detector.shape[1] for detector in store.camera.detectors)
    read = pixels * (raw + 12 * calibrations)
    # The frame, its planes, and one image while they are made.
    return read, read + 16 * pixels


def combination_bytes(store: Store, detectors: Labels, frames: int) -> tuple[int, int]:
    """Return bytes read and memory of a combination that reads its frames tile by tile."""
    sizes = trimmed_sizes(store, detectors)
    pixels = sizes[v.Y] * sizes[v.X]
    tile = min(TILE, sizes[v.Y]) * sizes[v.X]
    return 12 * pixels * frames, 3 * 12 * tile * frames + 20 * pixels


def combined(frame: xr.Dataset, frames: xr.Dataset) -> xr.Dataset:
    """Return what a product keeps of a combined frame, named after what it is made of."""
    first, last = frames[v.EXPOSURE].values[[0, -1]]
    size = frames.sizes[v.EXPOSURE]
    kept = frame[["image", "variance", v.MASK, "count", "rejected_count"]]
    kept = kept.assign({name: kept[name].astype(np.int16) for name in ("count", "rejected_count")})
    kind = str(frame["observation_type"].values)
    if v.FILTER in frame.coords and str(frame[v.FILTER].values):
        kind = f"{frame[v.FILTER].values} {kind}"
    detector = str(frames[v.DETECTOR].values)
    scalars = [name for name, coord in kept.coords.items() if coord.ndim == 0]
    return kept.reset_coords(drop=True).assign_coords(
        {name: kept.coords[name].variable for name in scalars}
        | {"id": ((), f"{kind} of {detector} from {size} exposures {first} to {last}")}
    )
