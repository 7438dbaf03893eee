"""The brightest objects of a patch in its visits, as waves, and sub-bands solved for at each.

A small image has a solution of its own at each frequency, :math:`m = K^{-1} b`, so that the sum of
weighted squares of what it leaves is known without it: see
`skyloom.algorithms.dcr.geometry_check`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft, ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.linear import load_problem, prior_of
from skyloom.algorithms.dcr.operator import Light
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import detected_pixels
from skyloom.algorithms.dcr.transfer import PointSpreads

__all__ = ["Waves", "bright_objects", "misfits", "object_waves"]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

OBJECTS: Final = 24
"""Objects that are asked, at most: the brightest."""
BRIGHT: Final = 10.0
"""Signal to noise on the coadd of the brightest pixel of an object that is asked."""
WHOLE: Final = 0.9
"""Part of the pixels around an object that a visit must have to count there."""
SEEN: Final = 0.1
"""Transfer of the PSF at the shortest waves that count."""
OUTLYING: Final = 8.0
"""Standard deviations, beside half the range of others, at which a pixel ends: an artifact."""


class Waves(NamedTuple):
    """Objects in visits at the waves that count: ``values`` (object, visit, k), their ``weights``
    (object, visit), 0 where a visit does not have the object, the weighted ``mean`` (object, k);
    wave numbers ``ky`` and ``kx`` (1/pixel), how much each ``counts`` (k,), the ``ratio`` (visit,
    k) of the transfer of visits to that of the model, and the ``prior`` (k, subfilter,
    subfilter)."""

    values: Complex
    weights: Floats
    mean: Complex
    ky: Floats
    kx: Floats
    counts: Floats
    ratio: Complex
    prior: Floats


def bright_objects(template: xr.Dataset, side: int) -> list[tuple[int, int]]:
    """Return the corners of squares around the brightest objects."""
    detected = detected_pixels(template)
    image, variance = template["image"].to_numpy(), template["variance"].to_numpy()
    rows, columns = image.shape
    half = side // 2
    known = detected & np.isfinite(image) & (variance > 0)
    signal = np.where(known, image, 0.0) / np.sqrt(np.where(known, variance, 1.0))
    inner = np.zeros(image.shape, bool)
    inner[half : rows - half + 1, half : columns - half + 1] = True
    signal[~inner] = 0.0
    found: list[tuple[int, int]] = []
    while signal.size and len(found) < OBJECTS:
        y, x = (int(at) for at in np.unravel_index(int(signal.argmax()), signal.shape))
        if not signal[y, x] >= BRIGHT:
            break
        found.append((y - half, x - half))
        signal[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0.0
    return found


def _without_artifacts(images: Floats, noise: Floats) -> Floats:
    """Return visits (visit, y, x) limited to about what others show within two pixels."""
    around = (1, 5, 5)
    high, low = ndimage.maximum_filter(images, around), ndimage.minimum_filter(images, around)
    most, second = np.sort(high, axis=0)[:-3:-1]
    least, next_to = np.sort(low, axis=0)[:2]
    most = np.where(high == most, second, most)  # of the other visits
    least = np.where(low == least, next_to, least)
    room = 0.5 * (most - least) + OUTLYING * noise
    return np.asarray(np.clip(images, least - room, most + room))


def object_waves(
    warps: xr.Dataset,
    template: xr.Dataset,
    places: list[tuple[int, int]],
    side: int,
    spreads: PointSpreads,
    parameters: LinearParameters,
    adherence: float,
    photons: Floats,
    used: NDArray[np.bool_],
) -> Waves:
    """Return squares around objects at the waves that the PSF shows.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        ``image``, ``variance``, ``mask``; ``noise_covariance`` if the noise of pixels is alike.
    template : Dataset, (y, x)
        Their coadd.
    places : list of (y, x)
        Corners of the squares, as of `bright_objects`; those that fewer than two visits have are
        left out.
    side : int, pixel
    spreads : PointSpreads
    parameters : LinearParameters
        The priors.
    adherence : float
        That on the difference to the coadd.
    photons : array, (subfilter,)
        Those of a flat spectrum in each sub-band, over those of all.
    used : array, (visit,)
        Visits that count.
    """
    shape = (side, side)
    transfer = spreads.model_transfer(shape)
    count = np.abs(transfer) > SEEN
    edge = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / (side / 4.0)
    soft = np.sin(np.pi / 2.0 * np.minimum(edge, 1.0)) ** 2
    window = soft[:, None] * soft
    alike = np.ones(len(used))
    if "noise_covariance" in warps:
        covariance = warps["noise_covariance"].transpose(v.VISIT, v.LAG_Y, v.LAG_X).to_numpy()
        middle = covariance[:, covariance.shape[1] // 2, covariance.shape[2] // 2]
        alike = np.maximum(covariance.sum(axis=(1, 2)) / middle, 1.0)
    values = np.empty((len(places), len(used), int(count.sum())), np.complex128)
    weights = np.zeros((len(places), len(used)))
    for index, (y, x) in enumerate(places):
        at = {v.Y: slice(y, y + side), v.X: slice(x, x + side)}
        problem = load_problem(warps.isel(at).compute(), template.isel(at), parameters)
        good = problem.weights > 0
        whole = used & ((good * window).sum(axis=(1, 2)) >= WHOLE * window.sum())
        image = np.where(good, problem.images, problem.coadd)
        with np.errstate(divide="ignore"):
            noise = np.where(good, 1.0 / np.sqrt(problem.weights), 0.0)
        image = _without_artifacts(image.astype(np.float64), noise)
        values[index] = fft.rfft2(image * window)[:, count]
        mean = problem.weights.sum(axis=(1, 2)) / np.maximum(good.sum(axis=(1, 2)), 1)
        weights[index] = np.where(whole, mean / alike, 0.0)
    several = (weights > 0).sum(axis=1) >= 2
    values, weights = values[several], weights[several]
    prior = prior_of(transfer, parameters, adherence)
    twice = np.full(count.shape, 2.0)
    twice[:, 0] = 1.0
    ky, kx = (2.0 * np.pi * each for each in (fft.fftfreq(side), fft.rfftfreq(side)))
    ratios = spreads.ratios(shape)
    return Waves(
        values,
        weights,
        (weights[:, :, None] * values).sum(axis=1) / weights.sum(axis=1)[:, None],
        np.broadcast_to(ky[:, None], count.shape)[count],
        np.broadcast_to(kx, count.shape)[count],
        twice[count] / side**2,
        (np.ones((len(used), 1)) if ratios is None else ratios[:, count]).astype(np.complex128)
        * np.ones(int(count.sum())),
        prior.stiffness[count][:, None, None].astype(float) * prior.matrix(photons)
        + parameters.taper_floor * np.eye(len(photons)),
    )


def misfits(waves: Waves, light: Light, photons: Floats, matrix: Floats) -> Floats:
    """Return chi2 of each object if all displacements (dx, dy) are changed by a matrix (2, 2)."""
    dx, dy = np.einsum("ab,vnb->avn", matrix, light.moved[..., ::-1])
    turned = np.exp(-1j * (waves.ky[:, None, None] * dy + waves.kx[:, None, None] * dx))
    seen = np.einsum("kvn,vsn,vk->vks", turned, light.shares, waves.ratio)
    left = waves.values - np.einsum("vks,s,ok->ovk", seen, photons, waves.mean)
    weighted = waves.weights[:, :, None] * left
    right = np.einsum("vks,ovk->oks", seen.conj(), weighted)
    outer = seen.conj()[..., :, None] * seen[..., None, :]
    matrices = np.einsum("ov,vkst->okst", waves.weights, outer)
    matrices += waves.weights.sum(axis=1)[:, None, None, None] * waves.prior
    solved = np.linalg.solve(matrices, right[..., None])[..., 0]
    saved = (right.conj() * solved).sum(axis=-1).real
    total = (weighted.conj() * left).sum(axis=1).real
    return np.asarray(((total - saved) * waves.counts).sum(axis=1))
