"""Noise of sub-band planes and of templates, from the normal equations.

Planes are linear in the images: at one frequency they are :math:`K^{-1} \\sum_e w_e
(\\bar a_e + g 1) y_e`, where the sum over a is what the data say of planes, and g what holds them
to the coadd of the same data, :math:`g = (W \\lambda_a c(k) + \\mu) / (N W)`. So both are in the
noise, and

.. math:: C = K^{-1} B K^{-1},\\qquad B = \\sum_e w_e (\\bar a_e + g 1) (\\bar a_e + g 1)^H,\\qquad
    K = \\sum_e w_e \\bar a_e a_e^T + W P(k) + \\mu

times the power of the noise over its variance in each term of B where that of neighbouring pixels
is alike. This is exact where weights and mu are the same everywhere. mu rises with the distance to
sources, so that C is computed for a few values of it; in each pixel that of the mu around it holds,
nearly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skyloom.algorithms.dcr.linear import prior_of
from skyloom.algorithms.dcr.normal import normal_matrices
from skyloom.algorithms.dcr.operator import FourierOperator, Images, Spectra
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.transfer import stamp_transfer

__all__ = [
    "GRID",
    "LEVELS",
    "Noise",
    "noise_levels",
    "noise_of_planes",
    "noise_of_template",
    "noise_place",
    "noise_power",
    "plane_covariance",
    "variance_by_level",
]

Floats = NDArray[np.float64]

GRID: Final = (96, 96)
"""Frequencies at which the noise is computed; it varies slowly over them."""
STEPS: Final = 8
LEVELS: Final = STEPS + 2
"""Number of model weights that the noise is computed for: 1 - (level / 8)^2, from sources to far
from them, and last planes that are equal parts of the coadd. In the root of the distance from 1 the
noise is nearly a straight line."""
REACH: Final = 0.45
"""Sigma, in FWHM of the model's PSF, over which what holds planes around a pixel counts: measured,
within 2 % of the scatter from point sources to wide ones, of equal and of unequal seeing."""
STRIP: Final = 256
"""Rows of an image that are read at once."""


class Noise(NamedTuple):
    """Noise covariance of planes at each frequency, (ky, kx, subfilter, subfilter); how many
    frequencies of the whole plane each column (kx) stands for; and the ``response`` of planes to
    those of the sky, in the shape of the covariance."""

    covariance: NDArray[np.complex128]
    multiplicity: Floats
    response: NDArray[np.complex128]


def noise_of_planes(
    operator: FourierOperator,
    weights: Floats,
    transfer: Spectra,
    parameters: LinearParameters,
    adherence: float,
    power: Floats | None = None,
) -> Noise:
    """Return the noise covariance of planes at sources.

    Parameters
    ----------
    operator : FourierOperator
        Over an image of the size `GRID`.
    weights : array, (visit,)
        Mean weight of each visit, one over variance.
    transfer : array, (ky, kx)
        Transfer function of the model's PSF.
    parameters : LinearParameters
        The priors.
    adherence : float
        That on the difference to the coadd.
    power : array, (visit, ky, kx), optional
        Of the noise of visits over its variance, `noise_power`; 1 if that of pixels is independent.
    """
    return next(noise_levels(operator, weights, transfer, parameters, adherence, power))


def noise_levels(
    operator: FourierOperator,
    weights: Floats,
    transfer: Spectra,
    parameters: LinearParameters,
    adherence: float,
    power: Floats | None = None,
) -> Iterator[Noise]:
    """Yield the noise covariance of planes at each of the `LEVELS`, sources first.

    Parameters are those of `noise_of_planes`.
    """
    n, columns = operator.subfilters, operator.frequencies[1]
    multiplicity = np.full(columns, 2.0)
    multiplicity[0] = 1.0
    if operator.shape[1] % 2 == 0:
        multiplicity[-1] = 1.0
    total = float(weights.sum())
    if not total > 0:
        nothing = np.full((*transfer.shape, n, n), np.inf, np.complex128)
        yield from [Noise(nothing, multiplicity, np.zeros_like(nothing))] * LEVELS
        return
    taper = parameters.taper
    if n == 1 and not len(operator.transfer):  # nothing is held then, see solve_patch
        adherence, taper = 0.0, 0.0
    prior = prior_of(transfer, parameters, adherence)
    stiffness = prior.stiffness[..., None, None].astype(float)
    data = normal_matrices(operator, weights).astype(np.complex128)
    sharp = data + stiffness * (total * prior.matrix(operator.photons))
    seen = np.zeros((*operator.frequencies, n), np.complex128)
    alike, noisy = seen, data
    level = np.full((*operator.frequencies, 1, 1), total)
    if power is not None:
        alike, noisy, level = np.zeros_like(seen), np.zeros_like(data), np.zeros_like(level)
    for visit, weight in enumerate(weights[: operator.visits]):
        one = _seen(operator, visit).conj()
        seen += float(weight) * one
        if power is not None:
            weighted = float(weight) * power[visit][..., None]
            alike += weighted * one
            noisy += (weighted * one)[..., :, None] * one[..., None, :].conj()
            level += weighted[..., None]
    parts = operator.photons
    both = alike[..., :, None] * parts + parts[:, None] * alike[..., None, :].conj()
    parts_twice = np.outer(parts, parts)
    for far in np.linspace(0.0, 1.0, STEPS + 1) ** 2:
        held = taper * far + parameters.taper_floor
        to_coadd = adherence * stiffness + held
        inverse = np.asarray(np.linalg.inv(sharp + total * held * np.eye(n)), np.complex128)
        read = noisy + to_coadd * both + to_coadd**2 * level * parts_twice
        covariance = np.asarray(inverse @ read @ inverse, np.complex128)
        drawn = to_coadd * parts[:, None] * seen[..., None, :].conj()
        shown = np.asarray(inverse @ (data + drawn), np.complex128)
        yield Noise(covariance, multiplicity, shown)
    equal = (level / total**2 * parts_twice).astype(np.complex128)
    yield Noise(equal, multiplicity, parts[:, None] * seen[..., None, :].conj() / total)


def noise_power(covariance: Floats, shape: tuple[int, int]) -> Floats:
    """Return the power of noise over its variance at the frequencies of ``rfft2``.

    Parameters
    ----------
    covariance : array, (..., lag_y, lag_x)
        Between pixels, the variance in the middle.
    shape : (y, x)

    Returns
    -------
    ndarray, (..., ky, kx)
        1 where the noise of pixels is independent.

    Examples
    --------
    >>> white = np.pad([[4.0]], 1)
    >>> bool((noise_power(white, (8, 8)) == 1.0).all())
    True
    """
    middle = covariance[..., covariance.shape[-2] // 2, covariance.shape[-1] // 2]
    found = np.empty((*covariance.shape[:-2], shape[0], shape[1] // 2 + 1))
    for index in np.ndindex(covariance.shape[:-2]):
        power = stamp_transfer(covariance[index] / middle[index], shape).real
        found[index] = np.maximum(power, 0.0)
    return found


def _seen(operator: FourierOperator, visit: int) -> Spectra:
    """Return what a visit shows of each plane, (ky, kx, subfilter), its PSF included."""
    point = np.zeros(operator.shape, np.float32)
    point[0, 0] = 1.0
    found = np.zeros((operator.subfilters, *operator.frequencies), np.complex64)
    operator.add_transposed(visit, point, found)
    return np.moveaxis(found, 0, -1).conj()


def _mean(values: Floats, multiplicity: Floats) -> Floats:
    weighted = np.moveaxis(values, 1, -1) * multiplicity
    return np.asarray(weighted.sum(axis=(0, -1)) / (multiplicity.sum() * len(values)))


def plane_covariance(noise: Noise) -> Floats:
    """Return the covariance (subfilter, subfilter_2) of planes in one pixel of mean weight."""
    return _mean(noise.covariance.real, noise.multiplicity)


def noise_of_template(noise: Noise, operator: FourierOperator, visit: int = 0) -> float:
    """Return the variance of a template in one pixel of mean weight.

    Parameters
    ----------
    noise : Noise
    operator : FourierOperator
        Of the template's visit, over an image of the size `GRID`.
    visit : int
        Index of it.
    """
    seen = _seen(operator, visit)
    variance = np.einsum("yxs,yxst,yxt->yx", seen, noise.covariance, seen.conj()).real
    return float(_mean(variance, noise.multiplicity))


def noise_place(model_weight: Floats, solved: NDArray[np.bool_], fwhm: float) -> Images:
    """Return where the noise of each pixel is among the `LEVELS`.

    Planes in a pixel depend on how firmly those around it are held, over about the width of the
    PSF.

    Parameters
    ----------
    model_weight : array, (y, x)
        How far planes are solved for: 1 at sources, 0 far from them.
    solved : array of bool, (y, x)
        Where they are solved for at all; elsewhere they are equal parts of the coadd.
    fwhm : float, pixel
        Of the model's PSF.

    Returns
    -------
    ndarray, (y, x), float32
        From 0 at sources to 8 far from them; 9 for equal parts of the coadd.

    Examples
    --------
    >>> noise_place(np.array([[1.0, 0.75]]), np.array([[True, False]]), 0.1).tolist()
    [[0.0, 9.0]]
    """
    far = ndimage.gaussian_filter(1.0 - model_weight, REACH * fwhm, mode="nearest")
    place = STEPS * np.sqrt(np.clip(far, 0.0, 1.0))
    return np.where(solved, place, STEPS + 1.0).astype(np.float32)


def variance_by_level(levels: ArrayLike, place: Images, weight_sum: Images, total: float) -> Images:
    """Return the variance of each pixel from that of pixels of mean weight.

    Parameters
    ----------
    levels : array, (level,)
        Variance at each of the `LEVELS`.
    place : array, (y, x)
        Where the pixel is among them, `noise_place`.
    weight_sum : array, (y, x)
        Sum of the weights of the visits.
    total : float
        Its mean.

    Returns
    -------
    ndarray, (y, x), float32
        Infinite where the weights are 0.

    Examples
    --------
    >>> levels = [*np.linspace(4.0, 2.0, 9), 1.0]
    >>> place = np.array([[0.0, 4.0, 9.0, 0.0]])
    >>> variance_by_level(levels, place, np.array([[0.5, 1.0, 1.0, 0.0]]), 1.0).tolist()
    [[8.0, 3.0, 1.0, inf]]
    """
    found = np.full(place.shape, np.inf, np.float32)
    of_level = np.asarray(levels, np.float64)
    for start in range(0, len(found), STRIP):
        rows = slice(start, start + STRIP)
        mean, weights = np.interp(place[rows], np.arange(LEVELS), of_level), weight_sum[rows]
        good = weights > 0
        mean = np.where(good, mean, 0.0) * total  # without any visit even the mean is infinite
        np.divide(mean, weights, out=found[rows], where=good, casting="same_kind")
    return found
