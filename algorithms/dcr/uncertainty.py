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

Where visits cover parts of a patch, C is computed for each of a few groups of pixels that the same
visits cover (`skyloom.algorithms.dcr.coverage`): with their weights w, and in g with W over their
sum, as W, which the priors are relative to, is that of the whole patch. Planes within the width of
the PSF from a border between groups depend on the data of both; each pixel there has the noise of
its own group all the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skyloom.algorithms.dcr.linear import prior_of
from skyloom.algorithms.dcr.noise_kernels import add_noise, add_outer_sums, interpolated
from skyloom.algorithms.dcr.operator import FourierOperator, Images, Spectra
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.transfer import stamp_transfer

__all__ = [
    "GRID",
    "LEVELS",
    "Noise",
    "NoiseBasis",
    "mean_covariance",
    "noise_basis",
    "noise_of_planes",
    "noise_place",
    "noise_power",
    "plane_levels",
    "template_levels",
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


class NoiseBasis(NamedTuple):
    """What the noise of planes follows from, but for the weights of visits.

    ``shown`` (visit, ky, kx, subfilter) of planes by visits; the ``power`` (visit, ky, kx) of their
    noise over its variance, None if it is 1; the ``stiffness`` (ky, kx) that ``prior`` (subfilter,
    subfilter) and ``adherence`` are times; the ``parts`` (subfilter,) of the coadd in planes; by
    how much these are held to it at least, ``floor``, and more far from sources, ``taper``; the
    ``share`` (ky, kx) of each frequency in a pixel.
    """

    shown: Spectra
    power: Floats | None
    stiffness: Floats
    prior: Floats
    adherence: float
    parts: Floats
    floor: float
    taper: float
    share: Floats


class Noise(NamedTuple):
    """Noise covariance of planes at each frequency, (ky, kx, subfilter, subfilter); the ``share``
    (ky, kx) of each frequency in a pixel; and the ``response`` of planes to those of the sky, in
    the shape of the covariance."""

    covariance: NDArray[np.complex128]
    share: Floats
    response: NDArray[np.complex128]


class Sums(NamedTuple):
    """Sums over visits with weights w that show a of planes: ``data`` w conj(a) a^T, ``seen``
    w conj(a); times the power of the noise, ``noisy`` and ``alike``, and of w alone ``level``.
    Of matrices only lower triangles."""

    data: NDArray[np.complex128]
    seen: NDArray[np.complex128]
    noisy: NDArray[np.complex128]
    alike: NDArray[np.complex128]
    level: Floats


def noise_basis(
    operator: FourierOperator,
    transfer: Spectra,
    parameters: LinearParameters,
    adherence: float,
    power: Floats | None = None,
) -> NoiseBasis:
    """Return what the noise of planes follows from, but for the weights of visits.

    Parameters
    ----------
    operator : FourierOperator
        Over an image of the size `GRID`.
    transfer : array, (ky, kx)
        Transfer function of the model's PSF.
    parameters : LinearParameters
        The priors.
    adherence : float
        That on the difference to the coadd.
    power : array, (visit, ky, kx), optional
        Of the noise of visits over its variance, `noise_power`; 1 if that of pixels is independent.
    """
    taper = parameters.taper
    if operator.subfilters == 1 and not len(operator.transfer):  # nothing held, see solve_patch
        adherence, taper = 0.0, 0.0
    prior = prior_of(transfer, parameters, adherence)
    columns = operator.frequencies[1]
    share = np.full(operator.frequencies, 2.0)  # every other column stands for two
    share[:, 0] = 1.0
    if operator.shape[1] % 2 == 0:
        share[:, columns - 1] = 1.0
    return NoiseBasis(
        np.stack([operator.shown(visit) for visit in range(operator.visits)]),
        power,
        prior.stiffness.astype(float),
        prior.matrix(operator.photons),
        adherence,
        operator.photons,
        parameters.taper_floor,
        taper,
        share / share.sum(),
    )


def noise_of_planes(basis: NoiseBasis, weights: Floats, total: float | None = None) -> Noise:
    """Return the noise covariance of planes at sources, frequency by frequency.

    Parameters
    ----------
    basis : NoiseBasis
    weights : array, (visit,)
        Mean weight of each visit, one over variance.
    total : float, optional
        What priors are relative to: the sum of the mean weights over the whole patch. That of the
        given weights if not given.
    """
    n, own = len(basis.parts), float(weights.sum())
    total = own if total is None else total
    if not own > 0:
        nothing = np.full((*basis.share.shape, n, n), np.inf, np.complex128)
        return Noise(nothing, basis.share, np.zeros_like(nothing))
    sums = _sums(basis, weights)
    data, noisy = _whole(sums.data), _whole(sums.noisy)
    stiffness, floor = basis.stiffness[..., None, None], basis.floor
    pull, parts = (basis.adherence * stiffness + floor) * (total / own), basis.parts
    matrix = data + total * (stiffness * basis.prior + floor * np.eye(n))
    inverse = np.asarray(np.linalg.inv(matrix), np.complex128)
    both = sums.alike[..., :, None] * parts
    both = both + np.swapaxes(both, -1, -2).conj()
    read = noisy + pull * both + pull**2 * sums.level[..., None, None] * np.outer(parts, parts)
    drawn = pull * parts[:, None] * sums.seen[..., None, :].conj()
    return Noise(inverse @ read @ inverse, basis.share, inverse @ (data + drawn))


def mean_covariance(noise: Noise) -> Floats:
    """Return the covariance (subfilter, subfilter_2) of planes in one pixel of mean weight."""
    return np.asarray(np.einsum("yx,yxst->st", noise.share, noise.covariance.real))


def plane_levels(basis: NoiseBasis, weights: Floats, total: float | None = None) -> Floats:
    """Return the covariance of planes in one pixel of mean weight, at each of the `LEVELS`.

    Parameters
    ----------
    basis : NoiseBasis
    weights : array, (visit,)
        Mean weight of each visit, one over variance.
    total : float, optional
        What priors are relative to, see `noise_of_planes`.

    Returns
    -------
    ndarray, (level, subfilter, subfilter_2)
        Sources first; infinite without any weight.
    """
    each = np.eye(len(basis.parts), dtype=np.complex128)
    wanted = np.empty((*basis.share.shape, *each.shape), np.complex128)
    wanted[:] = each
    return _levels(basis, weights, wanted, total)


def template_levels(
    basis: NoiseBasis,
    weights: Floats,
    operator: FourierOperator,
    visit: int = 0,
    total: float | None = None,
) -> Floats:
    """Return the variance of a template in one pixel of mean weight, at each of the `LEVELS`.

    Parameters
    ----------
    basis : NoiseBasis
    weights : array, (visit,)
        Mean weight of each visit of the model, one over variance.
    operator : FourierOperator
        Of the template's visit, over an image of the size `GRID`.
    visit : int
        Index of it.
    total : float, optional
        What priors are relative to, see `noise_of_planes`.

    Returns
    -------
    ndarray, (level,)
        Sources first; infinite without any weight.
    """
    wanted = np.expand_dims(operator.shown(visit).conj().astype(np.complex128), -2)
    return _levels(basis, weights, wanted, total)[:, 0, 0]


def _levels(
    basis: NoiseBasis, weights: Floats, wanted: NDArray[np.complex128], total: float | None
) -> Floats:
    """Return the covariance (level, sum, sum) of sums of planes, whose factors have the conjugates
    ``wanted`` (ky, kx, sum, subfilter)."""
    own, count = float(weights.sum()), int(wanted.shape[-2])
    total = own if total is None else total
    if not own > 0:
        return np.full((LEVELS, count, count), np.inf)
    sums, found = _sums(basis, weights), np.zeros((LEVELS, count, count))
    sharp = sums.data + basis.stiffness[..., None, None] * (total * basis.prior)
    for out, far in zip(found, np.linspace(0.0, 1.0, STEPS + 1) ** 2, strict=False):
        held = basis.taper * far + basis.floor
        pull = (basis.adherence * basis.stiffness + held) * (total / own)
        add_noise(
            sharp, sums.noisy, sums.alike, sums.level, total * held, pull, basis.parts, wanted,
            basis.share, out,
        )  # fmt: skip
    equal = np.einsum("yxis,s->iyx", wanted, basis.parts)
    read = basis.share * sums.level / own**2
    found[-1] = np.einsum("iyx,yx,jyx->ij", equal.conj(), read, equal).real
    return found


def _sums(basis: NoiseBasis, weights: Floats) -> Sums:
    used = weights > 0
    shown, weights = basis.shown[used], weights[used]
    data, seen = _outer_sums(shown, np.ones((1, *basis.share.shape)) * weights[:, None, None])
    noisy, alike = data, seen
    level = np.full(basis.share.shape, float(weights.sum()))
    if basis.power is not None:
        power = basis.power[used] * weights[:, None, None]
        (noisy, alike), level = _outer_sums(shown, power), power.sum(axis=0)
    return Sums(data, seen, noisy, alike, level)


def _outer_sums(
    shown: Spectra, weights: Floats
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    _, rows, columns, planes = shown.shape
    vectors = np.zeros((rows, columns, planes), np.complex128)
    matrices = np.zeros((rows, columns, planes, planes), np.complex128)
    add_outer_sums(shown, weights, vectors, matrices)
    return matrices, vectors


def _whole(lower: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return Hermitian matrices from their lower triangles."""
    below = lower * np.tri(lower.shape[-1], k=-1)
    return np.asarray(lower + np.swapaxes(below, -1, -2).conj())


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


def variance_by_level(
    levels: ArrayLike,
    totals: ArrayLike,
    group: NDArray[np.uint8],
    place: Images,
    weight_sum: Images,
) -> Images:
    """Return the variance of each pixel from that of pixels of the mean weights of its group.

    Parameters
    ----------
    levels : array, (group, level)
        Variance at each of the `LEVELS`.
    totals : array, (group,)
        Sums of the mean weights of the visits.
    group : array, (y, x)
        Of the pixel, see `skyloom.algorithms.dcr.coverage`.
    place : array, (y, x)
        Where the pixel is among them, `noise_place`.
    weight_sum : array, (y, x)
        Sum of the weights of the visits.

    Returns
    -------
    ndarray, (y, x), float32
        Infinite where the weights are 0.

    Examples
    --------
    >>> levels = [[*np.linspace(4.0, 2.0, 9), 1.0], np.full(10, 7.0)]
    >>> group, place = np.array([[0, 0, 0, 1, 0]]), np.array([[0.0, 4.0, 9.0, 9.0, 0.0]])
    >>> weights = np.array([[0.5, 1.0, 1.0, 1.0, 0.0]])
    >>> variance_by_level(levels, [1.0, 1.0], group, place, weights).tolist()
    [[8.0, 3.0, 1.0, 7.0, inf]]
    """
    found = np.empty(place.shape, np.float32)
    of_levels, total = (np.ascontiguousarray(each, np.float64) for each in (levels, totals))
    place, weights = (np.ascontiguousarray(each, np.float32) for each in (place, weight_sum))
    group = np.ascontiguousarray(group, np.uint8)
    interpolated(of_levels, total, group, place, weights, found)
    return found
