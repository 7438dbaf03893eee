"""Skies of stars in twelve visits, and what is measured of their solutions."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms.dcr import (
    DcrSolution,
    IterativeParameters,
    LinearParameters,
    dispersion,
    displacement,
    predict_template,
    solve_dcr,
)
from skyloom.algorithms.dcr.operator import fourier_operator
from skyloom.algorithms.dcr.transfer import gaussian_transfer
from skyloom.algorithms.dcr.uncertainty import GRID, noise_basis, noise_of_planes
from skyloom.algorithms.errors import SkyloomWarning
from tests.algorithms.dcr.analytic import (
    CENTRES,
    HELD_OUT,
    NORTH_UP,
    SIGMA,
    WAVELENGTHS,
    G,
    Scene,
    dozen,
    observed,
    scene,
)

Floats = NDArray[np.float64]
FWHM, SIZE, STARS = 4.0, 128, 40


class Sky(NamedTuple):
    """A scene, its visits, their coadd."""

    scene: Scene
    table: xr.Dataset
    truth: Floats
    warps: xr.Dataset
    template: xr.Dataset


def make_sky(
    seed: int,
    noise: float,
    fwhm: Any = FWHM,
    *,
    size: int = SIZE,
    stars: int = STARS,
    chromatic_seeing: float = 0.0,
) -> Sky:
    """Return a sky in twelve visits."""
    rng = np.random.default_rng(seed)
    drawn, table = scene(rng, size, stars), dozen(rng)
    truth = drawn.render(table, fwhm, chromatic_seeing=chromatic_seeing)
    return Sky(drawn, table, truth, *observed(truth, fwhm, noise, rng))


def solve(sky: Sky, *, jacobian: Floats = NORTH_UP, band: Any = G, **options: Any) -> DcrSolution:
    """Return a solution; what it warns of is measured here."""
    solver = options.pop("solver", "linear")
    kind = LinearParameters if solver == "linear" else IterativeParameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        return solve_dcr(
            sky.warps, sky.table, band, sky.template, jacobian=jacobian, solver=solver,
            parameters=kind(**options),
        )  # fmt: skip


def predicted(model: xr.Dataset, table: xr.Dataset, visit: int, **more: Any) -> xr.Dataset:
    """Return a template."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        return predict_template(model, table.isel(visit=[visit]), **more)


def rms(values: Any) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def ratios(sky: Sky, templates: list[Floats], fwhm: float = FWHM) -> Floats:
    """Return what templates leave of stars in held-out visits over what the plain coadd leaves."""
    held_out, near = sky.scene.render(HELD_OUT, fwhm), sky.scene.near(8.0)
    plain = sky.template["image"].to_numpy()
    return np.array(
        [
            rms((true - one)[near]) / rms((true - plain)[near])
            for true, one in zip(held_out, templates, strict=True)
        ]
    )


def templates_of(model: xr.Dataset, **more: Any) -> list[Floats]:
    """Return templates of the held-out visits."""
    return [predicted(model, HELD_OUT, visit, **more)["image"].to_numpy() for visit in range(4)]


def nearest_visit(sky: Sky) -> list[Floats]:
    """Return, for each held-out visit, the visit of the nearest altitude."""
    own, other = sky.table["altitude"].to_numpy(), HELD_OUT["altitude"].to_numpy()
    return [sky.warps["image"][int(np.abs(own - one).argmin())].to_numpy() for one in other]


class Stars(NamedTuple):
    """Moments (found, true, stated error) and fluxes of isolated stars."""

    found: Floats
    true: Floats
    sigma: Floats
    fractions: Floats  # found less true, (star, subfilter)
    flux: Floats  # relative error


def measure_stars(sky: Sky, model: xr.Dataset, noise: float, least: float = 9e3) -> Stars:
    """Measure stars with the PSF of the model, and the errors that the fit states for them."""
    stars = sky.scene
    apart = np.hypot(stars.y[:, None] - stars.y, stars.x[:, None] - stars.x) + 99 * np.eye(
        len(stars.y)
    )
    chosen = np.flatnonzero((stars.flux > least) & (apart.min(axis=1) > 12))
    y, x = np.mgrid[: stars.size, : stars.size]
    parts = stars.fractions
    covariance = _flux_covariance(sky, model, noise)
    rows = []
    for star in chosen:
        square = (y - stars.y[star]) ** 2 + (x - stars.x[star]) ** 2
        psf = np.exp(-square / (2 * (FWHM * SIGMA) ** 2)) / (2 * np.pi * (FWHM * SIGMA) ** 2)
        flux = (model["model"].to_numpy() * psf).sum(axis=(1, 2)) / (psf**2).sum()
        moment = CENTRES @ flux / flux.sum()
        slope = (CENTRES - moment) / flux.sum()
        variance = max(float(slope @ covariance @ slope), 0.0)
        rows.append(
            (moment, CENTRES @ parts[star], np.sqrt(variance),
             flux / flux.sum() - parts[star], flux.sum() / stars.flux[star] - 1)
        )  # fmt: skip
    return Stars(*(np.array(column) for column in zip(*rows, strict=True)))


def _flux_covariance(sky: Sky, model: xr.Dataset, noise: float) -> Floats:
    """Return the covariance of fluxes measured with the PSF, by the noise that the fit states."""
    operator = fourier_operator(GRID, G, sky.table, NORTH_UP)
    transfer = gaussian_transfer(FWHM, GRID)
    basis = noise_basis(operator, transfer, LinearParameters(), model.attrs["adherence"])
    stated = noise_of_planes(basis, np.full(operator.visits, noise**-2.0))
    power = (np.abs(transfer).astype(float) ** 2 * stated.share)[..., None, None]
    return np.asarray((power * stated.covariance.real).sum(axis=(0, 1)) / power.sum() ** 2)


def count_detections(sky: Sky, model: xr.Dataset, noise: float) -> tuple[list[int], list[int]]:
    """Return false detections above 5 sigma in held-out visits: of templates, of the coadd."""
    rng, side = np.random.default_rng(77), np.arange(-8, 9)
    psf = np.exp(-(side**2) / (2 * (FWHM * SIGMA) ** 2))
    counts: tuple[list[int], list[int]] = ([], [])
    for visit, true in enumerate(sky.scene.render(HELD_OUT, FWHM)):
        seen = true + rng.normal(0.0, noise, true.shape)
        template = predicted(model, HELD_OUT, visit)
        pairs = (
            (template["image"].to_numpy(), float(template["variance"].median())),
            (sky.template["image"].to_numpy(), noise**2 / 12),
        )
        for count, (image, variance) in zip(counts, pairs, strict=True):
            filtered = ndimage.convolve1d(ndimage.convolve1d(seen - image, psf, 0), psf, 1)
            significance = filtered / np.sqrt((noise**2 + variance) * (psf**2).sum() ** 2)
            inside = np.abs(significance[8:-8, 8:-8]) > 5.0
            count.append(int(ndimage.label(inside, np.ones((3, 3)))[1]))
    return counts


def galaxy(table: xr.Dataset, size: int) -> Floats:
    """Return visits of an exponential galaxy, 0.8 arcsec, whose red light is more compact."""
    lifted, towards = dispersion(G, table, WAVELENGTHS), displacement(table, NORTH_UP)
    length, span = 0.8 / 0.2 / 1.678, G.lambda_max - G.lambda_min
    found = np.zeros((len(towards), size, size))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2.0
    for visit, image in enumerate(found):
        for index, wavelength in enumerate(WAVELENGTHS):
            dy, dx = lifted[visit, index] * towards[visit]
            tint = (wavelength - (G.lambda_min + G.lambda_max) / 2) / span
            scale = length * (1.0 - 0.3 * tint)
            image += np.exp(-np.hypot(y - dy, x - dx) / scale) / (2 * np.pi * scale**2) / 60
    return 1e6 * ndimage.gaussian_filter(found, (0, FWHM * SIGMA, FWHM * SIGMA))
