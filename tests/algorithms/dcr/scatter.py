"""Scatter of solutions over realisations of noise, beside the noise that they state."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, predict_template, solve_dcr, stack_planes
from skyloom.algorithms.dcr.uncertainty import noise_power
from skyloom.algorithms.dcr.visit_inputs import round_psfs
from skyloom.algorithms.errors import SkyloomWarning
from skyloom.algorithms.warp import warp_noise_covariance
from tests.algorithms.dcr.analytic import HELD_OUT, NORTH_UP, G, coadd_of, dozen, observed, scene

Floats = NDArray[np.float64]
BORDER = 10
BETA = 3.0


class Scatter(NamedTuple):
    """Standard deviations over the stated ones: of planes blue to red, their sum, a template.

    ``sources``: within objects, two pixels from their edges; ``edges``: from there to 3 pixels
    outside of objects; ``away``: 12 pixels and more from them.
    """

    sources: Floats
    edges: Floats
    away: Floats


def seeing_of(low: float, high: float) -> Floats:
    """Return the FWHM of twelve visits, pixel, in no order."""
    widths = np.linspace(low, high, 12)
    return widths[np.random.default_rng(0).permutation(12)]


def alike() -> xr.DataArray:
    """Return how alike the noise of pixels is after a warp to the same scale, (lag_y, lag_x)."""
    turn = np.deg2rad(30.0)
    rotation = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return warp_noise_covariance("lanczos3", matrix=rotation, size=15)


def alike_noise(covariance: xr.DataArray, white: Floats) -> Floats:
    """Return noise of the variance of white noise (visit, y, x), neighbours alike."""
    shape = (white.shape[-2], white.shape[-1])
    amplitude = np.sqrt(noise_power(covariance.to_numpy(), shape))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(white) * amplitude, shape))


class Realisations(NamedTuple):
    """Solutions (realisation, image, y, x), their stated variances, and where objects are."""

    found: Floats
    stated: Floats
    detected: NDArray[np.bool_]


def scatter_of(
    fwhm: Floats, noise: float, realisations: int, *, size: int = 96, stars: int = 8,
    covariance: xr.DataArray | None = None, **options: Any,
) -> Scatter:  # fmt: skip
    """Return the scatter of solutions for stars seen through Moffat profiles.

    With ``covariance`` (lag_y, lag_x) the noise of neighbouring pixels is alike.
    """
    drawn = _solutions(fwhm, noise, realisations, size, stars, covariance=covariance, **options)
    return _scatter(drawn, slice(BORDER, -BORDER))


def thin_scatter(
    fwhm: Floats, noise: float, realisations: int, *, size: int = 96, stars: int = 8
) -> tuple[Scatter, Scatter]:
    """Return the scatter where every other visit has no data, one half, and in the other half."""
    drawn = _solutions(fwhm, noise, realisations, size, stars, thin=True)
    half = size // 2
    columns = slice(half + BORDER, -BORDER), slice(BORDER, half - BORDER)
    return _scatter(drawn, columns[0]), _scatter(drawn, columns[1])


def _solutions(
    fwhm: Floats, noise: float, realisations: int, size: int, stars: int, *,
    covariance: xr.DataArray | None = None, thin: bool = False, **options: Any,
) -> Realisations:  # fmt: skip
    rng = np.random.default_rng(1)
    drawn, table = scene(rng, size, stars), dozen(rng)
    truth = drawn.render(table, fwhm, beta=BETA)
    psf = round_psfs(fwhm, beta=BETA, size=41)
    mask, found, stated = None, [], np.empty(0)
    for seed in range(realisations):
        warps, coadd = observed(truth, fwhm, noise, np.random.default_rng(100 + seed))
        if covariance is not None:
            noisy = truth + alike_noise(covariance, warps["image"].to_numpy() - truth)
            warps["image"].values[:] = noisy
            warps = warps.assign(noise_covariance=covariance.expand_dims({v.VISIT: warps[v.VISIT]}))
            coadd = coadd_of(warps)
        if thin:
            warps[v.MASK].values[::2, :, size // 2 :] = v.MASK_PLANES["NO_DATA"]
            coadd = coadd_of(warps)
        mask = coadd[v.MASK] if mask is None else mask
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkyloomWarning)
            model = solve_dcr(
                warps.assign(psf=psf), table, G, coadd.assign({v.MASK: mask}), jacobian=NORTH_UP,
                parameters=LinearParameters(**options),
            ).model  # fmt: skip
            made = predict_template(model, HELD_OUT.isel(visit=[2]))
        whole = stack_planes(model)
        found.append(_all(model["model"], whole["image"], made["image"]))
        stated = _all(model["variance"], whole["variance"], made["variance"])
    assert mask is not None
    detected = (mask.to_numpy() & v.MASK_PLANES["DETECTED"]) != 0
    return Realisations(np.array(found), stated, detected)


def _scatter(drawn: Realisations, columns: slice) -> Scatter:
    """Return the scatter in some columns."""
    detected = drawn.detected
    core = ndimage.binary_erosion(detected, iterations=2)
    distance = ndimage.distance_transform_edt(~detected)
    edges, away = ~core & (distance <= 3), distance >= 12
    scatter = np.var(drawn.found, axis=0, ddof=1)
    inside = np.zeros_like(detected)
    inside[BORDER:-BORDER, columns] = True
    parts = [
        np.sqrt(scatter[:, at].mean(axis=1) / drawn.stated[:, at].mean(axis=1))
        for at in (core & inside, edges & inside, away & inside)
    ]
    return Scatter(*parts)


def _all(planes: xr.DataArray, whole: xr.DataArray, template: xr.DataArray) -> Floats:
    return np.stack([*planes.to_numpy(), whole.to_numpy(), template.to_numpy()]).astype(float)
