"""Visits matched to one of them: by smooth fields, or bin by bin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.filling import fill_bad
from skyloom.algorithms.matching.fields import FieldBasis
from skyloom.algorithms.matching.match_equations import Levels
from skyloom.algorithms.matching.match_inputs import MatchInput
from skyloom.algorithms.matching.match_joint import solve_joint
from skyloom.algorithms.matching.match_parameters import MatchParameters
from skyloom.algorithms.matching.tract_grid import TractGrid
from skyloom.algorithms.units import squared_units

__all__ = ["PairwiseSolution", "offsets_by_bin", "solve_pairs"]

Floats = NDArray[np.float64]
BINS = (v.TRACT_Y, v.TRACT_X)


class PairwiseSolution(NamedTuple):
    """Fields relative to the reference (visit, term), covariance, status, terms, and notes."""

    fields: Floats
    covariance: Floats
    status: NDArray[np.uint8]
    used: NDArray[np.int64]
    notes: list[str]


def solve_pairs(
    given: MatchInput,
    functions: Floats,
    basis: FieldBasis,
    reference: int,
    parameters: MatchParameters,
) -> PairwiseSolution:
    """Return the field of each visit that matches it to the reference alone.

    Each is a joint solution of two visits: the fit of their difference.
    """
    visits, terms = len(given.visits), functions.shape[1]
    at = int(np.searchsorted(given.visits, reference))
    fields = np.full((visits, terms), np.nan)
    covariance = np.full((visits, terms, terms), np.nan)
    status, used = given.status.copy(), np.zeros(visits, np.int64)
    notes: list[str] = []
    for visit in range(visits):
        if status[visit] != v.OffsetStatus.OK:
            continue
        if visit == at:
            fields[visit], covariance[visit], used[visit] = 0.0, 0.0, terms
            continue
        pair = sorted((visit, at))
        weight = given.weight[:, pair]
        if not (weight > 0).all(axis=1).any():
            status[visit] = v.OffsetStatus.NO_REFERENCE_OVERLAP
            continue
        found = solve_joint(
            Levels(given.level[:, pair], weight, functions),
            np.zeros(2, np.int64),
            basis,
            parameters,
            given.visits[pair],
        )
        own = pair.index(visit)
        # the two fields are opposite, so that their difference has four times the covariance
        fields[visit] = found.fields[own] - found.fields[1 - own]
        covariance[visit] = 4.0 * found.covariance[own]
        if parameters.rescale_errors and found.dof > 0:
            covariance[visit] *= max(1.0, found.chi2 / found.dof)
        used[visit] = found.parameters[own]
        if used[visit] < terms:
            status[visit] = v.OffsetStatus.REDUCED
        notes += found.notes
    return PairwiseSolution(fields, covariance, status, used, notes)


def offsets_by_bin(
    background: xr.Dataset,
    given: MatchInput,
    grid: TractGrid,
    reference: int,
    parameters: MatchParameters,
) -> xr.Dataset:
    """Return the Dataset of `match_backgrounds` with an offset for each bin.

    Each offset is the level of the reference less that of the visit, with the noise of both.
    """
    at = int(np.searchsorted(given.visits, reference))
    units = str(background["level"].attrs.get("units", v.DIMENSIONLESS))
    known = (given.weight > 0) & (given.weight[:, at] > 0)[:, None]
    offset = np.where(known, given.level[:, at : at + 1] - given.level, np.nan)
    variance = np.where(given.weight > 0, 1.0 / np.where(given.weight > 0, given.weight, 1), np.nan)
    spread = np.where(known, variance[:, at : at + 1] + variance, np.nan)
    spread[known[:, at], at] = 0.0
    status = given.status.copy()
    status[(status == v.OffsetStatus.OK) & ~known.any(axis=0)] = v.OffsetStatus.NO_REFERENCE_OVERLAP
    shape = (len(given.visits), *grid.bins)
    offset, spread = (np.ascontiguousarray(part.T).reshape(shape) for part in (offset, spread))
    flags = np.where(np.isfinite(offset), 0, int(v.BinFlag.EMPTY)).astype(np.uint8)
    if parameters.extrapolate:
        for visit in np.flatnonzero(known.any(axis=0)):
            filled, marks = fill_bad(offset[visit])
            offset[visit], flags[visit] = filled, flags[visit] | marks
    place = np.argsort(given.order)
    square = {"units": squared_units(units)}
    dims = (v.VISIT, *BINS)
    coordinates = {name: background.coords[name] for name in BINS if name in background.coords}
    return xr.Dataset(
        {
            "offset": (dims, offset[place].astype(np.float32), {"units": units}),
            "offset_variance": (dims, spread[place].astype(np.float32), square),
            "flags": (dims, flags[place], v.flag_attributes(v.BinFlag)),
            "status": (v.VISIT, status[place], v.flag_attributes(v.OffsetStatus)),
        },
        {v.VISIT: given.visits[place], **coordinates},
        {
            **{name: list(background.attrs[name]) for name in ("tract_shape", "bin_size")},
            "mode": parameters.mode,
            "gauge": "reference",
            "reference_visit": reference,
            "interpolation": parameters.interpolation,
            "units": units,
        },
    )
