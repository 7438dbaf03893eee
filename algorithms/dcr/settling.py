"""Solve a patch until its visits and pixels agree with each other.

After each solution every pixel of every visit is compared with what the planes say of it. Visits
are brought to one scale of flux; those whose sources deviate all the
same are fitted where they lie, or left out; what then only few visits show is rejected.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.coverage import BlockWeights
from skyloom.algorithms.dcr.linear import model_weight, parts_of, spectrum_of
from skyloom.algorithms.dcr.offset_fits import LOST, fit_offsets
from skyloom.algorithms.dcr.operator import Images
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.pixel_bits import PixelBits
from skyloom.algorithms.dcr.rejection import (
    Deviations,
    colour_allowance,
    excess_of,
    reject_groups,
)
from skyloom.algorithms.dcr.system import solve_patch, sums_of
from skyloom.algorithms.dcr.visit_data import Setting, Visit, VisitData
from skyloom.algorithms.dcr.visit_flux import FluxSums, flux_scales

__all__ = ["Found", "solve_settled"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SOLVED: Final = (v.DcrStatus.CONVERGED, v.DcrStatus.NOT_CONVERGED)
"""How a solution ends whose planes are more than equal parts of the coadd."""
LEVERAGE: Final = 1e-6
"""Pixels of dispersion below which visits have none."""
RESCALED: Final = 2
"""Rounds in which the flux of visits is found."""
FAR: Final = 2.0
"""FWHM from sources from which on pixels are plain sky."""
BESIDE: Final = 2.0
"""How much more often sources than other pixels deviate in a visit that is wrong."""


class Found:
    """The planes of a patch, and what is known of its pixels and visits."""

    def __init__(self, data: VisitData) -> None:
        visits, shape = data.setting.visits, data.shape
        self.room = np.zeros((data.setting.p.subfilters, *data.whole), np.float32)
        self.coadd = np.zeros(shape, np.float32)
        self.weight_sum = np.zeros(shape, np.float32)
        self.n_image = np.zeros(shape, np.int16)
        self.chi2, self.excess = np.zeros(visits), np.zeros(visits)
        self.count = np.zeros(visits, np.int64)
        self.rejected = np.zeros(visits, np.int64)
        self.rejected_source = np.zeros(visits, np.int64)
        self.varying = np.zeros(visits, np.int64)
        self.before = np.full(visits, np.nan)
        self.weights = np.zeros(visits)
        self.blocks = BlockWeights(visits, shape)
        self.used = data.used
        self.scales = data.scales
        self.status = v.DcrStatus.NOT_MEASURED
        self.residuals: list[float] = []
        self.deviating = PixelBits(visits, shape)
        self.fluxes = FluxSums(visits, data.number)

    @property
    def planes(self) -> Images:
        """Return the planes of the patch, (subfilter, y, x), without the ``room`` around it.

        Sources at the border shine into that room, and visits move their light back into the patch.
        """
        rows, columns = self.coadd.shape
        return self.room[:, :rows, :columns]

    @property
    def per_pixel(self) -> Floats:
        """Return chi2 per pixel of each visit, NaN without pixels."""
        return _ratio(self.chi2, self.count)

    @property
    def part_rejected(self) -> Floats:
        """Return the part of the pixels of sources that was rejected, of each visit."""
        return np.nan_to_num(_ratio(self.rejected_source, self.rejected_source + self.count))

    @property
    def solved(self) -> bool:
        """Return whether there was something to solve for."""
        return self.status in SOLVED


def _ratio(above: NDArray[np.floating | np.integer], below: NDArray[np.integer]) -> Floats:
    found = np.full(len(below), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


def solve_settled(setting: Setting) -> Found:
    """Solve a patch, until no more visits or pixels are found to be wrong.

    Parameters
    ----------
    setting : Setting
        Offsets of visits that lie elsewhere are written to it.

    Returns
    -------
    Found
    """
    data, p = VisitData(setting), setting.p
    found = Found(data)
    rounds, rescaled = p.reject_rounds, 0
    core = np.pi / 4.0 * setting.spreads.model_fwhm**2
    doubted, tried = np.zeros(setting.visits, bool), np.zeros(setting.visits, bool)
    while True:
        _solve(data, found)
        _judge(data, found)
        if not found.solved:
            return found
        if doubted.any():
            tried |= doubted
            agree = np.zeros(setting.visits, bool)
            if p.max_offset:
                agree = fit_offsets(data, found.room, np.flatnonzero(doubted), _limit(found, p))
            doubted[:] = False
            if agree.any():
                data.used = data.used | agree
                data.locate()
                rescaled = 0
                continue
        if p.match_flux and rescaled < RESCALED:
            rescaled += 1
            scales = flux_scales(found.fluxes, data.used, data.scales != 1.0)
            if (scales != 1.0).any():
                data.scales = data.scales * scales
                continue
        if rounds:
            gone, varying = reject_groups(found.deviating, found.n_image, data.detected, core)
            wrong = _robbed(data, found, gone)
        else:
            wrong = _outliers(found, p)
        if wrong.any() and (data.used & ~wrong).sum() >= 2:
            found.before[wrong] = found.per_pixel[wrong]
            data.used = data.used & ~wrong
            if setting.offsets[wrong].any():
                setting.offsets[wrong] = 0.0
                data.locate()
            doubted = wrong & ~tried
            _forget(data, found)
            rounds = p.reject_rounds
        elif not rounds:
            return found
        elif _reject(data, found, gone, varying):
            rounds -= 1
        else:  # nothing will change any more, but there may be visits to leave out
            rounds = 0
            if not _outliers(found, p).any():
                return found


def _solve(data: VisitData, found: Found) -> None:
    """Solve for the planes, from those that there are."""
    setting, operator = data.setting, data.operator
    sums = sums_of(data)
    begin = found.room if found.solved else None
    found.coadd, found.residuals = sums.coadd, []
    if sums.outside.all():
        found.status = v.DcrStatus.NO_VALID_PIXELS
    elif np.abs(setting.vectors).max() < LEVERAGE and not len(operator.transfer):
        found.status, found.residuals = v.DcrStatus.NO_LEVERAGE, [0.0]
    elif not data.number:
        found.status = v.DcrStatus.NO_SOURCES
    else:
        solution = solve_patch(data, sums, begin)
        found.room, found.residuals = solution.room, solution.residuals
        found.status = v.DcrStatus.CONVERGED if solution.converged else v.DcrStatus.NOT_CONVERGED
        return
    found.room = parts_of(sums.coadd, operator)


def _judge(data: VisitData, found: Found) -> None:
    """Compare the visits with the planes."""
    setting, p, operator = data.setting, data.setting.p, data.operator
    visits, (rows, columns) = setting.visits, data.shape
    found.used, found.scales = data.used, data.scales
    found.fluxes = FluxSums(visits, data.number)
    found.chi2[:] = found.excess[:] = found.weights[:] = 0.0
    found.count[:] = found.n_image[:] = 0
    found.blocks.clear()
    weight_sum = np.zeros(data.shape)
    deviations = Deviations(visits, data.shape, p.reject_threshold)
    compare = found.solved or bool(found.residuals)
    spectrum = spectrum_of(found.room, operator)
    allowed = None
    if p.subfilters == 1 and compare:
        near = model_weight(data.detected, setting.spreads.model_fwhm)
        allowed = colour_allowance(spectrum[0], operator.shape, setting.vectors, near)

    def work(visit: Visit) -> tuple[Visit, Images | None]:
        if not compare or not visit.weights.any():
            return visit, None
        return visit, operator.predict(visit.number, spectrum)[:rows, :columns]

    for visit, seen in data.each(work):
        number, image, weights = visit
        weight_sum += weights
        found.n_image += weights > 0
        found.blocks.put(number, weights)
        found.weights[number] = weights.sum(dtype=np.float64) / weights.size
        if seen is None:
            continue
        excess = excess_of(image, weights, seen, allowed)
        deviations.add(number, excess)
        at = (weights > 0) & data.detected
        image, seen, weights = image[at], seen[at], weights[at]
        found.chi2[number] = (np.square(image - seen, dtype=np.float64) * weights).sum()
        more = np.maximum(excess[at], 0.0)
        found.excess[number] = np.square(more, dtype=np.float64).sum()
        found.count[number] = int(at.sum())
        found.fluxes.add(number, data.sources[at], image, seen, weights)
    found.weight_sum = weight_sum.astype(np.float32)
    found.deviating = deviations.bits()


def _limit(found: Found, parameters: LinearParameters) -> float:
    """Return the chi2 per pixel beyond which a visit disagrees with the others."""
    typical = float(np.nanmedian(found.per_pixel)) if found.count.any() else 1.0
    return max(parameters.outlier_factor * typical, 1.0)


def _outliers(found: Found, parameters: LinearParameters) -> Bools:
    """Return which visits the planes do not describe as they describe the others.

    A single plane has no colours: what it may be wrong by for that does not count.
    """
    if parameters.subfilters > 1:
        return found.used & (np.nan_to_num(found.per_pixel) > _limit(found, parameters))
    excess = np.nan_to_num(_ratio(found.excess, found.count))
    return found.used & (excess > parameters.outlier_factor * max(float(np.median(excess)), 1.0))


def _robbed(data: VisitData, found: Found, gone: PixelBits) -> Bools:
    """Return the visits that would lose so much of their sources that they are wrong.

    What lies over a visit, like the trail of a satellite, is as often beside sources.
    """
    doubtful = np.zeros(data.setting.visits, bool)
    if not gone.bits.any():
        return doubtful
    around = ndimage.distance_transform_edt(~data.detected)
    far = around > FAR * data.setting.spreads.model_fwhm
    for visit in map(int, np.flatnonzero(data.used)):
        good, bad = data.good.plane(visit), gone.plane(visit)
        lost, other = (
            int((bad & good & part).sum()) / max(int((good & part).sum()), 1)
            for part in (data.detected, far)
        )
        doubtful[visit] = lost > max(LOST, BESIDE * other)
    return doubtful


def _reject(data: VisitData, found: Found, gone: PixelBits, varying: NDArray[np.int64]) -> bool:
    """Reject pixels of visits, and return whether there are new ones."""
    rejected = False
    for visit in map(int, np.flatnonzero(data.used)):
        new = gone.plane(visit) & data.good.plane(visit) & ~data.rejected.plane(visit)
        if not new.any():
            continue
        rejected = True
        data.rejected.add_plane(visit, new)
        found.rejected[visit] += int(new.sum())
        found.rejected_source[visit] += int((new & data.detected).sum())
        found.varying[visit] += varying[visit]
    return rejected


def _forget(data: VisitData, found: Found) -> None:
    """Take back all that was rejected."""
    data.rejected = PixelBits(data.setting.visits, data.shape)
    found.rejected[:] = found.rejected_source[:] = found.varying[:] = 0
