"""The normal equations of the planes of a patch, whose data are taken visit by visit."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr.conjugate import conjugate_gradients
from skyloom.algorithms.dcr.linear import held_weights, parts_of, prior_of
from skyloom.algorithms.dcr.normal import add_prior, inverse_matrices, normal_matrices, times
from skyloom.algorithms.dcr.operator import Images, Spectra
from skyloom.algorithms.dcr.visit_data import Visit, VisitData

__all__ = ["Solution", "Sums", "solve_patch", "sums_of"]

Floats = NDArray[np.float64]
MOVED: Final = 1e-6
"""Relative residual to which a plane that is only moved is solved for."""
HELD: Final = 0.5
"""How firmly the preconditioner holds planes, over the mean: near sources, where they differ from
the coadd, they are held less. chi2 is within 1 % of its end an iteration earlier than at 1."""


class Sums(NamedTuple):
    """What the data of a patch add up to: their weighted mean ``coadd`` (y, x), where it is not
    that of any visit's data, ``outside`` (y, x), and the ``right`` side (subfilter, ky, kx) of the
    equations."""

    coadd: Images
    outside: NDArray[np.bool_]
    right: Spectra


class Solution(NamedTuple):
    """Planes (subfilter, y, x) and the relative residuals of the iterations."""

    room: Images
    residuals: list[float]
    converged: bool


def sums_of(data: VisitData) -> Sums:
    """Return what the data of a patch add up to."""
    operator, template = data.operator, data.setting.template["image"].to_numpy()
    mean, total = np.zeros(data.shape), np.zeros(data.shape)
    right = np.zeros((operator.subfilters, *operator.frequencies), np.complex64)

    def work(visit: Visit) -> tuple[Visit, Images, Spectra]:
        product = visit.image * visit.weights
        return visit, product, operator.transformed(product)

    for visit, product, seen in data.each(work):
        mean += product
        total += visit.weights
        operator.add_unseen(visit.number, seen, right)
    outside = ~(total > 0)
    np.divide(mean, total, out=mean, where=~outside)
    coadd = mean.astype(np.float32)
    coadd[outside] = np.nan_to_num(template[outside], nan=0.0, posinf=0.0, neginf=0.0)
    return Sums(coadd, outside, right)


def solve_patch(data: VisitData, sums: Sums, start: Images | None) -> Solution:
    """Solve for the planes of a patch.

    Parameters
    ----------
    data : VisitData
        In which something is valid and something detected.
    sums : Sums
        Of these. The right side is used up.
    start : array, (subfilter, y, x), optional
        Planes to begin with; equal parts of the coadd if not given.
    """
    setting, p, operator = data.setting, data.setting.p, data.operator
    n, shape = p.subfilters, sums.coadd.shape
    adherence, free = setting.adherence, data.detected
    if n == 1 and not len(operator.transfer):  # no colour to hold, nothing to sharpen
        p = p.model_copy(update={"tolerance": min(p.tolerance, MOVED)})
        adherence, free = 0.0, np.ones_like(free)
    prior = prior_of(setting.spreads.model_transfer(data.whole), p, adherence)
    inside = (slice(None), slice(shape[0]), slice(shape[1]))
    whole = np.zeros((n, *data.whole), np.float32)
    whole[inside] = parts_of(sums.coadd, operator)
    weights = data.mean_weights
    total = float(weights.sum())
    table = total * prior.matrix(operator.photons)
    unknown = (sums.coadd == 0) & ~data.good.any_visit()
    held = held_weights(free, unknown, data.whole, setting.spreads.model_fwhm, total, p)
    # What is not known of the coadd, as beyond the borders, pulls at nothing.
    known = np.zeros(data.whole, np.float32)
    known[inside[1:]] = ~unknown
    pull = np.asarray(total * prior.adherence * prior.stiffness, np.float32)
    smoothing = table - total * prior.adherence * np.eye(n)

    def adhere(planes: Images, out: Images) -> None:
        for plane, added in zip(planes, out, strict=True):  # one after the other: they are large
            spectrum = operator.spectrum(known * plane)
            spectrum *= pull
            added += known * operator.planes(spectrum)

    wanted = operator.planes(sums.right)
    adhere(whole, wanted)
    wanted += held * whole
    inverse = inverse_matrices(
        normal_matrices(operator, weights * (sums.coadd.size / held.size)),
        table,
        prior.stiffness,
        HELD * float(held.mean()),
    )

    def apply(planes: Images) -> Images:
        spectrum = operator.spectrum(planes)
        found = np.zeros_like(spectrum)
        add_prior(smoothing, prior.stiffness, spectrum, found)

        def work(visit: int, weights: Images) -> tuple[int, Spectra]:
            return visit, operator.weighted(visit, spectrum, weights)

        for visit, seen in data.each_weights(work):
            operator.add_unseen(visit, seen, found)
        product = operator.planes(found)
        product += held * planes
        adhere(planes, product)
        return product

    def precondition(planes: Images) -> Images:
        spectrum = operator.spectrum(planes)
        found = np.empty_like(spectrum)
        times(inverse, spectrum, found)
        return operator.planes(found)

    if start is not None:
        whole = start.copy() if start.shape == whole.shape else whole
        whole[inside] = start[inside]
    solved = conjugate_gradients(
        apply,
        wanted,
        whole,
        precondition,
        tolerance=p.tolerance,
        max_iterations=p.max_iterations,
    )
    converged = solved.residuals[-1] <= p.tolerance
    return Solution(solved.values, solved.residuals, converged)
