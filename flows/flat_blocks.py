"""Flats as the tasks of their flow make them: statistics, levels, scales, combined flats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.combine import CombineParameters, add_calibration_variance, combine_flats
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.flats import (
    FlatScaleParameters,
    FlatStatisticsParameters,
    flag_unresponsive,
    measure_flat,
    normalize_flats,
    normalize_product,
    usable_exposure_scales,
)
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.frame_blocks import calibration_quality, combined
from skyloom.storage.flat_schemas import LEVEL_COLUMNS

__all__ = [
    "FlatBlockParameters",
    "Level",
    "Normalization",
    "ScaleBlockParameters",
    "combined_flat",
    "flat_levels",
    "flat_quality",
    "flat_scales",
    "flat_statistics",
    "scales_quality",
    "statistics_quality",
]

Inputs = Mapping[str, xr.Dataset]
Level = Literal["DETECTOR", "AMP"]
Normalization = Literal["focal_plane", "detector", "amp"]


class ScaleBlockParameters(Parameters):
    """How levels of all flats of a filter become scales."""

    level: Level = Field("DETECTOR", description="what has a scale")
    scales: FlatScaleParameters = Field(
        FlatScaleParameters(), description="how levels are split into scales"
    )


class FlatBlockParameters(Parameters):
    """How the flats of a filter and detector are combined."""

    combine: CombineParameters = Field(
        CombineParameters(), description="how exposures are clipped and averaged"
    )
    minimum: int = Field(3, ge=1, description="fewest exposures with a scale")
    normalization: Normalization = Field("focal_plane", description="what the flat is relative to")
    lowest_response: float = Field(0.1, ge=0, description="lower responses are BAD")


def flat_statistics(inputs: Inputs, parameters: FlatStatisticsParameters) -> xr.Dataset:
    """Measure the level of a flat, in the whole detector and in each amplifier."""
    return measure_flat(inputs["frame"], inputs["amplifiers"], parameters=parameters)


def statistics_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the level of a flat, its scatter, and what it was measured with."""
    mean, sigma = (float(block[name]) for name in ("mean", "sigma"))
    return {
        "mean": mean if np.isfinite(mean) else None,
        "sigma": sigma if np.isfinite(sigma) else None,
        "count_used": int(block["count_used"]),
    }


def flat_levels(inputs: Inputs, parameters: Parameters) -> xr.Dataset:
    """Bring the levels of all detectors of an exposure together."""
    statistics = inputs["statistics"]
    names = [f"{prefix}{name}" for prefix in ("", "amp_") for name in LEVEL_COLUMNS]
    kept = statistics[names]
    return kept.drop_vars([name for name in kept.coords if name not in (v.DETECTOR, v.AMP)])


def flat_scales(inputs: Inputs, parameters: ScaleBlockParameters) -> xr.Dataset:
    """Split the levels of a filter's flats into scales of exposures and detectors."""
    levels = inputs["levels"]
    # A count of -1 says that a detector is not part of the run at all.
    there = (levels["count_used"] >= 0).any(v.EXPOSURE).values
    levels = levels.isel({v.DETECTOR: there})
    names = None
    if "channels" in inputs:
        channels = inputs["channels"].sel(
            {v.DETECTOR: levels[v.DETECTOR].values, v.AMP: levels[v.AMP].values}
        )
        amps = channels[v.AMP].values
        names = {
            str(name): amps[has].tolist()
            for name, has in zip(
                channels[v.DETECTOR].values, channels["exists"].values, strict=True
            )
        }
        prefix = "amp_" if parameters.level == "AMP" else ""
        levels = levels.assign_coords(
            {name: channels[f"{prefix}{name}"].variable for name in (v.FOCAL_X, v.FOCAL_Y)}
        )
    scales = normalize_flats(
        levels, level=parameters.level, amplifier_names=names, parameters=parameters.scales
    )
    dims = [name for name in scales.coords if name in scales.dims]
    return scales.drop_vars([name for name in scales.coords if name not in dims])


def scales_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how well scales describe the levels, and which exposures and detectors do not fit."""
    dof = int(block["dof"])
    left_out = {}
    for exposure, code in zip(
        block[v.EXPOSURE].values.tolist(), block["exposure_status"].values.tolist(), strict=True
    ):
        if code != v.CellStatus.OK:
            left_out[str(exposure)] = v.CellStatus(code).name
    return {
        "chi2": float(block["chi2"]),
        "dof": dof,
        "link_strength": float(block["link_strength"]),
        "systematic": float(block["systematic"]),
        "exposures_left_out": left_out,
        "outlier_cells": int((block["cell_status"].values == v.CellStatus.OUTLIER).sum()),
    }


def combined_flat(inputs: Inputs, parameters: FlatBlockParameters) -> xr.Dataset:
    """Divide the flats of a filter and detector by their scales and combine them."""
    frames, amplifiers = inputs["frames"], inputs["amplifiers"]
    scales = usable_exposure_scales(inputs["scales"])
    agreeing = scales[v.EXPOSURE].values[_agrees(inputs["scales"], scales, frames)]
    known = np.isin(frames[v.EXPOSURE].values, agreeing)
    if known.sum() < parameters.minimum:
        lost = ", ".join(map(str, frames[v.EXPOSURE].values[~known].tolist()))
        raise NoUsableDataError(
            f"{int(known.sum())} of {known.size} flats have a scale that agrees with the others, "
            f"at least {parameters.minimum} are needed; without: {lost}"
        )
    frames = frames.isel({v.EXPOSURE: np.flatnonzero(known)})
    flat = combine_flats(frames, scales, amplifiers=amplifiers, parameters=parameters.combine)
    if "bias" in inputs or "dark" in inputs:
        flat = add_calibration_variance(
            flat,
            bias=inputs.get("bias"),
            dark=inputs.get("dark"),
            gain=_gains(frames, amplifiers),
            equal_weights=parameters.combine.equal_weights,
        )
    flat = flag_unresponsive(flat, parameters.lowest_response, amplifiers=amplifiers)
    flat = normalize_product(flat, parameters.normalization, amplifiers=amplifiers)
    found = combined(flat, frames).assign_coords(
        normalization=parameters.normalization, exposures_left_out=int((~known).sum())
    )
    response = inputs["scales"]["detector_scale"].sel({v.DETECTOR: str(frames[v.DETECTOR].values)})
    return found if response.ndim else found.assign_coords(detector_scale=float(response))


def _agrees(solution: xr.Dataset, usable: xr.DataArray, frames: xr.Dataset) -> NDArray[np.bool_]:
    """Return in which usable exposures the level of the frames' detector is no outlier.

    Of amplifiers, half of those with a level may be outliers.
    """
    detector = str(frames[v.DETECTOR].values)
    cells = solution["cell_status"].sel({v.DETECTOR: detector})
    cells = cells.sel({v.EXPOSURE: usable[v.EXPOSURE].values})
    amps = [dim for dim in cells.dims if dim != v.EXPOSURE]
    odd, good = ((cells == code).sum(amps) for code in (v.CellStatus.OUTLIER, v.CellStatus.OK))
    return np.asarray((odd <= good).values | (odd == 0).values)


def _gains(frames: xr.Dataset, amplifiers: xr.Dataset) -> xr.DataArray:
    """Return the gain that the frames were made with, (y, x)."""
    gains = frames["gain"].isel({v.EXPOSURE: 0}).load()
    image = np.full((frames.sizes[v.Y], frames.sizes[v.X]), np.nan)
    for row in amplifier_rows(amplifiers):
        image[row.trimmed.slices] = float(gains.sel({v.AMP: row.name}))
    return xr.DataArray(image, dims=(v.Y, v.X))


def flat_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return level and noise of a flat, and of how many exposures it is made."""
    variance = block["variance"].values
    good = np.isfinite(variance) & (block[v.MASK].values == 0)
    return {
        **calibration_quality(block),
        "noise": float(np.sqrt(np.median(variance[good]))) if good.any() else None,
        "left_out": int(block["exposures_left_out"]),
        "bad_pixels": float(((block[v.MASK].values & v.MASK_PLANES["BAD"]) != 0).mean()),
    }
