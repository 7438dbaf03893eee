"""The linear solution for sub-bands: weighted least squares with priors on their spectra.

Minimised is, over visits e and planes m,

.. math:: \\sum_e |y_e - T_e m|^2_{w_e} + W \\sum_k c(k) \\left[ \\lambda_c |D_2 m(k)|^2 +
    \\lambda_f |D_1 m(k)|^2 + \\lambda_a |m(k) - r(k)/N|^2 \\right] +
    \\sum_x \\mu(x) |m(x) - r(x)/N|^2

with the coadd r, weights w (one over variance), their mean sum W, and first and second differences
between planes D. The stiffness c is one over the square of the transfer function of the PSF: what
is finer than the PSF is noise. mu holds the planes to the coadd far from sources.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.conjugate import conjugate_gradients
from skyloom.algorithms.dcr.normal import (
    Prior,
    add_prior,
    inverse_matrices,
    normal_matrices,
    times,
)
from skyloom.algorithms.dcr.operator import FourierOperator, Images, Spectra
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import good_pixels

__all__ = [
    "Problem",
    "TileSolution",
    "load_problem",
    "model_weight",
    "parts_of",
    "prior_of",
    "residuals_of",
    "solve_tile",
    "spectrum_of",
    "visit_chi2",
    "weighted_mean",
]

Floats = NDArray[np.float64]
FAR: Final = 1.5
"""FWHM from sources at which the planes are held to the coadd by 40 % of the taper."""


class Problem(NamedTuple):
    """The data of a tile: ``images`` and ``weights`` (visit, y, x), 0 where a pixel is bad, the
    mean ``coadd`` (y, x), and where something is ``detected`` (y, x)."""

    images: Images
    weights: Images
    coadd: Images
    detected: NDArray[np.bool_]

    @property
    def mean_weights(self) -> Floats:
        """Return the mean weight of each visit."""
        return np.asarray(self.weights.mean(axis=(1, 2), dtype=np.float64))


class TileSolution(NamedTuple):
    """Planes (subfilter, y, x), the relative residuals of the iterations, and the status."""

    planes: Images
    residuals: list[float]
    status: v.DcrStatus


def load_problem(warps: xr.Dataset, template: xr.Dataset, parameters: LinearParameters) -> Problem:
    """Return images, weights and the coadd of warps as arrays.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        ``image``, ``variance``, ``mask``.
    template : Dataset, (y, x)
        Coadd whose ``mask`` says what is detected.
    parameters : LinearParameters
    """
    image, variance, good = good_pixels(warps, parameters.reject_planes)
    weights = np.divide(np.float32(1.0), variance, out=np.zeros_like(variance), where=good)
    images = np.where(good, image, np.float32(0.0))
    detected = v.plane_bits(["DETECTED"], template[v.MASK].attrs)
    found = np.asarray((template[v.MASK].values & detected) != 0)
    outside = np.nan_to_num(template["image"].values, nan=0.0, posinf=0.0, neginf=0.0)
    return Problem(images, weights, weighted_mean(images, weights, outside), found)


def weighted_mean(images: Images, weights: Images, otherwise: Images) -> Images:
    """Return the weighted mean over visits, another image where none has data."""
    total = weights.sum(axis=0, dtype=np.float64)
    mean = (images * weights).sum(axis=0, dtype=np.float64)
    np.divide(mean, total, out=mean, where=total > 0)
    return np.where(total > 0, mean, otherwise).astype(np.float32)


def prior_of(transfer: Spectra, parameters: LinearParameters, adherence: float) -> Prior:
    """Return the prior where the model's PSF has this transfer function (ky, kx)."""
    power = np.abs(transfer).astype(np.float64) ** 2
    stiffness = (1.0 / np.maximum(power, 1e-4)).astype(np.float32)
    return Prior(parameters.curvature, parameters.slope, adherence, stiffness)


def taper_weights(
    problem: Problem,
    shape: tuple[int, int],
    fwhm: float,
    total: float,
    parameters: LinearParameters,
) -> Images:
    """Return mu over the periodic image: how firmly planes are held, by the distance to sources."""
    held = np.full(shape, total * (parameters.taper + parameters.taper_floor), np.float32)
    if problem.detected.any():
        far = 1.0 - model_weight(problem.detected, fwhm)
        rows, columns = far.shape
        # Where nothing is known, not even of the coadd, there is nothing to hold planes to.
        far[(problem.coadd == 0) & ~(problem.weights > 0).any(axis=0)] = 0.0
        held[:rows, :columns] = total * (parameters.taper * far + parameters.taper_floor)
    return held


def model_weight(detected: NDArray[np.bool_], fwhm: float) -> Floats:
    """Return how far planes are solved for: 1 at sources, 0 where they are held to the coadd.

    Examples
    --------
    >>> model_weight(np.array([[True, False]]), 1.0).round(3).tolist()
    [[1.0, 0.801]]
    """
    if not detected.any():
        return np.zeros(detected.shape)
    distance = ndimage.distance_transform_edt(~detected)
    return np.asarray(np.exp(-((distance / (FAR * fwhm)) ** 2) / 2.0))


def solve_tile(
    problem: Problem,
    operator: FourierOperator,
    prior: Prior,
    fwhm: float,
    parameters: LinearParameters,
    start: Images | None = None,
) -> TileSolution:
    """Solve for the planes of a tile.

    Parameters
    ----------
    problem : Problem
    operator : FourierOperator
        Over an image large enough that nothing reaches around it.
    prior : Prior
    fwhm : float, pixel
        Of the model's PSF, for the distance at which sources end.
    parameters : LinearParameters
    start : array, (subfilter, y, x), optional
        Planes to begin with; those of a flat spectrum if not given.
    """
    n, shape = operator.subfilters, problem.coadd.shape
    if n == 1 and not len(operator.transfer):  # no colour to hold, nothing to sharpen
        prior = prior._replace(adherence=0.0)
        parameters = parameters.model_copy(update={"taper": 0.0})
    inside = (slice(None), slice(shape[0]), slice(shape[1]))
    equal = parts_of(problem.coadd, operator)
    if not problem.weights.any():
        return TileSolution(equal, [], v.DcrStatus.NO_VALID_PIXELS)
    if not problem.detected.any():
        return TileSolution(equal, [], v.DcrStatus.NO_SOURCES)
    mean = problem.mean_weights
    total = float(mean.sum())
    held = taper_weights(problem, operator.shape, fwhm, total, parameters)
    table = total * prior.matrix(operator.photons)
    area = problem.coadd.size / math.prod(operator.shape)
    inverse = inverse_matrices(
        normal_matrices(operator, mean * area), table, prior.stiffness, float(held.mean())
    )
    whole = np.zeros((n, *operator.shape), np.float32)
    whole[inside] = equal
    buffer = np.zeros(operator.shape, np.float32)

    def apply(planes: Images) -> Images:
        spectrum = operator.spectrum(planes)
        found = np.zeros_like(spectrum)
        add_prior(table, prior.stiffness, spectrum, found)
        for visit in range(operator.visits):
            operator.add_normal(visit, spectrum, problem.weights[visit], found)
        return operator.planes(found) + held * planes

    def precondition(planes: Images) -> Images:
        spectrum = operator.spectrum(planes)
        found = np.empty_like(spectrum)
        times(inverse, spectrum, found)
        return operator.planes(found)

    right = np.zeros_like(operator.spectrum(whole))
    for visit in range(operator.visits):
        np.multiply(problem.images[visit], problem.weights[visit], out=buffer[inside[1:]])
        operator.add_transposed(visit, buffer, right)
    adherence = total * prior.adherence * np.eye(n)
    add_prior(adherence, prior.stiffness, operator.spectrum(whole), right)
    begin = whole
    if start is not None:
        begin = whole.copy()
        begin[inside] = start
    solved = conjugate_gradients(
        apply,
        operator.planes(right) + held * whole,
        begin,
        precondition,
        tolerance=parameters.tolerance,
        max_iterations=parameters.max_iterations,
    )
    converged = solved.residuals[-1] <= parameters.tolerance
    status = v.DcrStatus.CONVERGED if converged else v.DcrStatus.NOT_CONVERGED
    return TileSolution(solved.values[inside].copy(), solved.residuals, status)


def parts_of(coadd: Images, operator: FourierOperator) -> Images:
    """Return the planes (subfilter, y, x) of a coadd if all spectra are flat."""
    return operator.photons.astype(np.float32)[:, None, None] * coadd


def spectrum_of(planes: Images, operator: FourierOperator) -> Spectra:
    """Return the transform of planes (subfilter, y, x) in the operator's larger image."""
    whole = np.zeros((len(planes), *operator.shape), np.float32)
    whole[:, : planes.shape[1], : planes.shape[2]] = planes
    return operator.spectrum(whole)


def residuals_of(
    problem: Problem, operator: FourierOperator, spectrum: Spectra, visit: int
) -> Images:
    """Return the deviation of a visit from what planes predict, in standard deviations.

    Parameters
    ----------
    spectrum : array
        Of the planes, `spectrum_of`.
    """
    rows, columns = problem.coadd.shape
    seen = operator.predict(visit, spectrum)[:rows, :columns]
    return np.asarray((problem.images[visit] - seen) * np.sqrt(problem.weights[visit]))


def visit_chi2(
    problem: Problem, operator: FourierOperator, planes: Images, counted: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the sum of squared deviations at sources, and the number of pixels, of each visit.

    Parameters
    ----------
    counted : array, (y, x)
        Pixels that count.
    """
    spectrum = spectrum_of(planes, operator)
    chi2, count = np.zeros(operator.visits), np.zeros(operator.visits, np.int64)
    for visit in range(operator.visits):
        deviation = residuals_of(problem, operator, spectrum, visit)
        at = counted & problem.detected & (problem.weights[visit] > 0)
        chi2[visit] = np.square(deviation[at], dtype=np.float64).sum()
        count[visit] = at.sum()
    return chi2, count
