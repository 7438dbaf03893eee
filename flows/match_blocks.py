"""Background matching as tasks do it: levels of a visit on a tract, and fields of all visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.matching import (
    MatchParameters,
    SelectionParameters,
    TractBackgroundParameters,
    TractGrid,
    choose_reference_visit,
    match_backgrounds,
    merge_tract_sums,
    tract_grid,
    tract_levels,
    tract_sums,
)
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.flows.patches import sky_map_of
from skyloom.storage.match_schemas import SUITABILITY, background_match_schema

__all__ = [
    "MatchBlockParameters",
    "TractLevelsParameters",
    "grid_of",
    "levels_quality",
    "match_quality",
    "matched_tract",
    "visit_levels",
]

Inputs = Mapping[str, xr.Dataset]


class TractLevelsParameters(Parameters):
    """How the warps of a visit become levels on a tract."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    bin_size: int | None = Field(None, ge=1, description="side of a bin, pixel")
    levels: TractBackgroundParameters = Field(
        TractBackgroundParameters(), description="how pixels become levels"
    )


class MatchBlockParameters(Parameters):
    """How the levels of visits are matched."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    bin_size: int | None = Field(None, ge=1, description="side of a bin, pixel")
    match: MatchParameters = Field(MatchParameters(), description="how visits are matched")


def grid_of(sky_map: SkyMapParameters, tract: int, bin_size: int | None) -> TractGrid:
    """Return the bins of a tract."""
    return tract_grid(sky_map_of(sky_map)[tract], bin_size=bin_size)


def visit_levels(inputs: Inputs, parameters: TractLevelsParameters) -> xr.Dataset:
    """Bin the warps of a visit, one patch after the other."""
    tract = sky_map_of(parameters.sky_map)[int(inputs["place"][v.TRACT])]
    grid = grid_of(parameters.sky_map, tract.index, parameters.bin_size)
    warps, pieces = inputs["warps"], []
    for index, label in enumerate(warps[v.PATCH].values):
        patch = tract.patch(int(str(label).split("-")[1]))
        height, width = patch.outer.shape
        part = {v.PATCH: index, v.Y: slice(0, height), v.X: slice(0, width)}
        warp = warps[["image", "variance", v.MASK]].isel(part).drop_vars(v.PATCH).load()
        warp = warp.assign_attrs(box=list(patch.outer))
        factor = float(warps["noise_correlation"].values[index])
        if np.isfinite(factor):
            warp = warp.assign_attrs(noise_correlation=factor)
        pieces.append(tract_sums(warp, grid, inner=patch.inner, parameters=parameters.levels))
    sums = merge_tract_sums(pieces, grid)
    levels = tract_levels(sums, grid, min_fraction=parameters.levels.min_fraction)
    one = levels.isel({v.VISIT: 0})
    return one.drop_vars([*one.coords]).drop_attrs(deep=False)


def levels_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how much of the tract a visit covers, its level and the noise of its bins."""
    level, variance = block["level"].values, block["variance"].values
    good = np.isfinite(level) & np.isfinite(variance)
    return {
        "covered": float(good.mean()),
        "median": float(np.median(level[good])) if good.any() else None,
        "noise": float(np.sqrt(np.median(variance[good]))) if good.any() else None,
    }


def matched_tract(inputs: Inputs, parameters: MatchBlockParameters) -> xr.Dataset:
    """Match the visits of a filter on a tract."""
    tract = int(inputs["place"][v.TRACT])
    grid = grid_of(parameters.sky_map, tract, parameters.bin_size)
    rows, columns = grid.bins
    levels = inputs["levels"].isel({v.TRACT_Y: slice(0, rows), v.TRACT_X: slice(0, columns)})
    levels = levels.assign_attrs(tract_shape=list(grid.shape), bin_size=list(grid.bin_size))
    match = match_backgrounds(levels, parameters=parameters.match)
    reference = int(match.attrs.get("reference_visit", -1))
    match = match.assign(reference_visit=((), np.int64(reference)))
    match = match.assign(_suitability(levels, parameters.match.selection))
    for name in ("chi2", "dof", "condition", "effective_parameters"):
        match[name] = ((), float(match.attrs.get(name, np.nan)))
    schema = background_match_schema(str(levels["level"].attrs["units"]))
    for variable in schema.variables:
        if variable.name not in match:  # without overlaps there is nothing to measure
            match[variable.name] = ((), np.nan)
        match[variable.name].attrs["units"] = variable.unit
    match = match[[variable.name for variable in schema.variables]]
    bins = [name for name in match.coords if name != v.VISIT]
    return match.drop_vars(bins).drop_attrs(deep=False)


def _suitability(levels: xr.Dataset, parameters: SelectionParameters) -> dict[str, xr.Variable]:
    """Return what makes each visit a good reference, whether one is needed or not."""
    try:
        _, table = choose_reference_visit(levels, parameters=parameters)
    except NoUsableDataError:
        nothing = xr.full_like(levels[v.VISIT], np.nan, np.float64)
        table = xr.Dataset(dict.fromkeys(SUITABILITY, nothing))
    return {f"reference_{name}": table[name].variable for name in SUITABILITY}


def match_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how well visits agree, and what became of them."""
    status = block["status"].values
    return {
        "visits": int(status.size),
        "matched": int(np.isin(status, MATCHED).sum()),
        "groups": int(np.unique(block["component"].values).size),
        **{
            name: float(block[name]) if np.isfinite(float(block[name])) else None
            for name in ("overlap_rms_before", "overlap_rms_after", "overlap_ratio_after")
        },
    }


MATCHED = [
    int(code)
    for code in (
        v.OffsetStatus.OK,
        v.OffsetStatus.SINGLE,
        v.OffsetStatus.ISOLATED,
        v.OffsetStatus.REDUCED,
    )
]
"""Statuses of visits that have a field."""
