"""Visits that disagree with the others: fitted where they lie, or left out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr.linear import Problem, spectrum_of
from skyloom.algorithms.dcr.offsets import (
    Deviation,
    Step,
    coarse_offset,
    deviation,
    misfit_map,
    offset_step,
)
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch_solution import PatchSetup, PatchSum, solve_patch
from skyloom.algorithms.dcr.rejection import MODEL_ERROR
from skyloom.algorithms.errors import VisitOutlierWarning

__all__ = ["settled"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Bools = NDArray[np.bool_]

LOST: Final = 0.2
"""Part of the pixels of sources in a visit that may be rejected before it is doubted."""
OFFSET_STEPS: Final = 8
OFFSET_ERROR: Final = 1e-4
"""Pixels to which the offset of a visit is found."""


def _outliers(found: PatchSum, parameters: LinearParameters) -> Bools:
    """Return which visits disagree with the others; none if that would leave fewer than two."""
    per_pixel = found.per_pixel
    if not np.isfinite(per_pixel).any():
        return np.zeros(len(per_pixel), bool)
    outliers = np.nan_to_num(per_pixel) > _limit(found, parameters)
    return outliers if (~outliers & found.used).sum() >= 2 else np.zeros(len(per_pixel), bool)


def _limit(found: PatchSum, parameters: LinearParameters) -> float:
    """Return the chi2 per pixel beyond which a visit disagrees with the others."""
    return max(parameters.outlier_factor * float(np.nanmedian(found.per_pixel)), 1.0)


def _robbed(found: PatchSum) -> Bools:
    """Return which visits lost so many pixels of sources that these may be in the wrong place."""
    return np.asarray(found.lost > LOST * np.maximum(found.lost + found.count, 1))


def settled(setup: PatchSetup, found: PatchSum) -> PatchSum:
    """Return a solution in which visits that disagree are fitted at an offset or left out."""
    wrong = _outliers(found, setup.p)
    doubtful = wrong | _robbed(found)
    if not setup.p.max_offset or (~doubtful).sum() < 2:
        doubtful = wrong
    if not doubtful.any():
        return found
    before, typical = found.per_pixel, float(np.nanmedian(found.per_pixel))
    others = solve_patch(setup, ~doubtful)
    agree = np.zeros(setup.visits, bool)
    if setup.p.max_offset:
        agree = _fit_offsets(setup, others, np.flatnonzero(doubtful))
    if (agree | wrong).any():
        used = ~wrong | agree
        found = others if (used == ~doubtful).all() else solve_patch(setup, used)
        still = _outliers(found, setup.p) & (setup.offsets != 0).any(axis=1)
        if still.any():
            setup.move(np.where(still[:, None], 0.0, setup.offsets))
            found = solve_patch(setup, used & ~still)
    left, moved = ~found.used, (setup.offsets != 0).any(axis=1)
    if left.any():
        names = ", ".join(str(name) for name in setup.names[left])
        warnings.warn(
            f"visits {names} disagree with the others (chi2 per pixel {_listed(before[left])}, of "
            f"all {typical:.2f}): they are left out",
            VisitOutlierWarning,
            stacklevel=3,
        )
    if moved.any():
        told = ", ".join(
            f"{name} by ({dy:.2f}, {dx:.2f})"
            for name, (dy, dx) in zip(setup.names[moved], setup.offsets[moved], strict=True)
        )
        warnings.warn(
            f"visits lie elsewhere than the others, {told} pixels (y, x), and are fitted there",
            VisitOutlierWarning,
            stacklevel=3,
        )
    return found


def _fit_offsets(setup: PatchSetup, others: PatchSum, visits: NDArray[np.intp]) -> Bools:
    """Fit offsets of visits to the solution of others, and return which visits agree there."""
    places = {int(visit): np.zeros(2) for visit in visits}
    radius = math.ceil(setup.p.max_offset)
    limit = _limit(others, setup.p)
    agree = np.zeros(setup.visits, bool)
    for visit, told in _deviations(setup, others, places).items():
        agree[visit] = told.part_lost <= LOST and told.per_pixel <= limit
    places = {visit: place for visit, place in places.items() if not agree[visit]}
    if not places:
        return agree
    maps = {visit: np.zeros((2 * radius + 1,) * 2) for visit in places}
    for _, problem, seen in _templates(setup, others, places):
        for visit, image in seen.items():
            maps[visit] += misfit_map(problem, visit, image, radius)
    places = {visit: coarse_offset(cost) for visit, cost in maps.items()}
    for _ in range(OFFSET_STEPS):
        steps = {visit: Step(np.zeros((2, 2)), np.zeros(2)) for visit in places}
        for counted, problem, seen in _templates(setup, others, places):
            for visit, image in seen.items():
                steps[visit] += offset_step(problem, visit, image, places[visit], counted)
        changes = {visit: step.solved() for visit, step in steps.items()}
        places = {visit: places[visit] + change for visit, change in changes.items()}
        if max(float(np.abs(change).max()) for change in changes.values()) < OFFSET_ERROR:
            break
    offsets = setup.offsets.copy()
    for visit, told in _deviations(setup, others, places).items():
        near = float(np.hypot(*places[visit])) <= setup.p.max_offset
        if near and told.part_lost <= LOST:
            agree[visit] = True
            offsets[visit] = places[visit]
    setup.move(offsets)
    return agree


def _templates(
    setup: PatchSetup, found: PatchSum, visits: Iterable[int]
) -> Iterator[tuple[Bools, Problem, dict[int, Images]]]:
    """Yield for each tile its own pixels, its data, and what visits should show."""
    for tile in setup.tiles:
        problem, operator = setup.load(tile)
        spectrum = spectrum_of(found.planes[:, tile.rows, tile.columns], operator)
        seen = {visit: operator.predict(visit, spectrum) for visit in visits}
        own = np.zeros(problem.coadd.shape, bool)
        own[tile.inner] = True
        yield own, problem, seen


def _deviations(
    setup: PatchSetup, found: PatchSum, places: Mapping[int, Floats]
) -> dict[int, Deviation]:
    """Return how well visits agree with a solution at some offsets."""
    told = dict.fromkeys(places, Deviation(0.0, 0, 0))
    for counted, problem, seen in _templates(setup, found, places):
        for visit, image in seen.items():
            told[visit] += deviation(
                problem, visit, image, places[visit], counted, setup.p.reject_threshold,
                MODEL_ERROR,
            )  # fmt: skip
    return told


def _listed(values: Floats) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
