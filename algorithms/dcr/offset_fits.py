"""Fit where visits lie that disagree with the planes of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr.linear import spectrum_of
from skyloom.algorithms.dcr.offsets import (
    Deviation,
    coarse_offset,
    deviation,
    misfit_map,
    offset_step,
)
from skyloom.algorithms.dcr.operator import Images
from skyloom.algorithms.dcr.rejection import MODEL_ERROR
from skyloom.algorithms.dcr.visit_data import Visit, VisitData

__all__ = ["LOST", "fit_offsets"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LOST: Final = 0.2
"""Part of the pixels of sources in a visit that may deviate before it is doubted."""
OFFSET_STEPS: Final = 8
OFFSET_ERROR: Final = 1e-4
"""Pixels to which the offset of a visit is found."""
NOWHERE_ELSE: Final = 0.01
"""Pixels below which an offset is none: the visit was doubted for another reason."""


def fit_offsets(data: VisitData, planes: Images, visits: NDArray[np.intp], limit: float) -> Bools:
    """Fit offsets of visits to the solution of others, and return which visits agree there.

    Parameters
    ----------
    data : VisitData
        Offsets of visits that agree are written to its setting.
    planes : array, (subfilter, y, x)
        The solution of other visits.
    visits : array
        Indices.
    limit : float
        Chi2 per pixel up to which a visit agrees where it should lie.
    """
    setting = data.setting
    places = {int(number): np.zeros(2) for number in visits}
    radius = math.ceil(setting.p.max_offset)
    agree = np.zeros(setting.visits, bool)
    for number, told in _deviations(data, planes, places).items():
        agree[number] = told.part_lost <= LOST and told.per_pixel <= limit
    places = {number: place for number, place in places.items() if not agree[number]}
    if not places:
        return agree
    for visit, seen in _templates(data, planes, list(places)):
        places[visit.number] = coarse_offset(misfit_map(visit, seen, radius))
    moving = list(places)
    for _ in range(OFFSET_STEPS):
        still = []
        for visit, seen in _templates(data, planes, moving):
            change = offset_step(visit, seen, places[visit.number], data.detected).solved()
            places[visit.number] = places[visit.number] + change
            if float(np.abs(change).max()) >= OFFSET_ERROR:
                still.append(visit.number)
        moving = still
        if not moving:
            break
    for number, told in _deviations(data, planes, places).items():
        far = float(np.hypot(*places[number]))
        if far <= setting.p.max_offset and told.part_lost <= LOST:
            agree[number] = True
            if far >= NOWHERE_ELSE:
                setting.offsets[number] = places[number]
    return agree


def _templates(
    data: VisitData, planes: Images, visits: list[int]
) -> Iterator[tuple[Visit, Images]]:
    """Return the data of visits and what they should show, over the periodic image."""
    operator = data.operator
    spectrum = spectrum_of(planes, operator)

    def work(visit: Visit) -> tuple[Visit, Images]:
        return visit, operator.predict(visit.number, spectrum)

    return data.each(work, np.isin(np.arange(data.setting.visits), visits))


def _deviations(
    data: VisitData, planes: Images, places: Mapping[int, Floats]
) -> dict[int, Deviation]:
    """Return how well visits agree with a solution at some offsets."""
    threshold = data.setting.p.reject_threshold
    return {
        visit.number: deviation(
            visit, seen, places[visit.number], data.detected, threshold, MODEL_ERROR
        )
        for visit, seen in _templates(data, planes, list(places))
    }
