"""Skies in sub-bands from detectors: turned cameras, dithered, warped to patches of all kinds.

Twelve visits of one night; light is moved on the sky towards astropy's zenith. Templates are
judged on four visits held out, without noise, seen and warped in the same way.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr import predict_template, solve_dcr
from skyloom.algorithms.errors import SkyloomWarning
from tests.algorithms.dcr.analytic import CENTRES, NORTH_UP, SIGMA, G, coadd_of, observed, scene
from tests.algorithms.dcr.detectors import Detectors, night, patch_plane, upwards
from tests.validation.rows import Row, at_most, between

__all__ = ["measure"]

Floats = NDArray[np.float64]
SIZE, STARS, NOISE, FWHM = 128, 40, 5.0, 4.0
VISITS, HELD_OUT = np.linspace(-3.6, 3.5, 12), np.array([-2.75, -0.9, 1.35, 3.2])


class Result(NamedTuple):
    """What a camera and a patch gave."""

    chi2: float
    ratios: Floats  # of held-out visits
    noises: Floats  # what stated noise alone makes of them
    moments: Floats  # found, of bright isolated stars
    templates: Floats  # of held-out visits
    variances: Floats  # stated, of them
    near: NDArray[np.bool_]
    true: Floats  # moments


def rms(values: Floats) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def closed_loop(rotator: float, turn: float = 0.0, *, mirrored: bool = False) -> Result:
    """Return what a camera at a rotator angle gives on a patch."""
    stars = scene(np.random.default_rng(1), SIZE, STARS)
    rng = np.random.default_rng([5, int(rotator), int(turn), int(mirrored)])
    camera = Detectors(stars, patch_plane(SIZE, turn, mirrored=mirrored), rotator)
    table, held_out = night(VISITS), night(HELD_OUT)
    warps = camera.warps(table, NOISE, rng)
    template = coadd_of(warps)
    truth = camera.warps(held_out, 1e-3, rng)["image"].to_numpy()
    near, plain = stars.near(8.0), template["image"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        found = solve_dcr(warps, table, G, template)
        each = [predict_template(found.model, held_out.isel(visit=[n])) for n in range(4)]
    images = np.array([one["image"].to_numpy() for one in each])
    ratios = [
        rms((true - one)[near]) / rms((true - plain)[near])
        for true, one in zip(truth, images, strict=True)
    ]
    noises = [
        np.sqrt(float(one["variance"].to_numpy()[near].mean())) / rms((true - plain)[near])
        for true, one in zip(truth, each, strict=True)
    ]
    apart = np.hypot(stars.y[:, None] - stars.y, stars.x[:, None] - stars.x) + 99 * np.eye(STARS)
    y, x = np.mgrid[:SIZE, :SIZE]
    chosen = np.flatnonzero((stars.flux > 9e3) & (apart.min(axis=1) > 12))
    moments = []
    for star in chosen:
        square = (y - stars.y[star]) ** 2 + (x - stars.x[star]) ** 2
        psf = np.exp(-square / (2 * (FWHM * SIGMA) ** 2))
        flux = (found.model["model"].to_numpy() * psf).sum(axis=(1, 2))
        moments.append(CENTRES @ flux / flux.sum())
    return Result(
        float(found.diagnostics["chi2_total"]), np.array(ratios), np.array(noises),
        np.array(moments), images, np.array([one["variance"].to_numpy() for one in each]), near,
        stars.moment[chosen],
    )  # fmt: skip


def without_warps() -> Floats:
    """Return the ratios of the same visits when they are sampled on the patch itself."""
    stars, rng = scene(np.random.default_rng(1), SIZE, STARS), np.random.default_rng(5)
    table, held_out = night(VISITS), night(HELD_OUT)
    warps, template = observed(stars.render(table, FWHM), FWHM, NOISE, rng)
    near, plain, ratios = stars.near(8.0), template["image"].to_numpy(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        found = solve_dcr(warps, table, G, template, jacobian=NORTH_UP)
        for number, true in enumerate(stars.render(held_out, FWHM)):
            one = predict_template(found.model, held_out.isel(visit=[number]))["image"].to_numpy()
            ratios.append(rms((true - one)[near]) / rms((true - plain)[near]))
    return np.array(ratios)


def measure() -> list[Row]:
    """Measure everything."""
    table = night(np.linspace(-4.0, 4.0, 17))
    angle = np.deg2rad(table["parallactic_angle"].to_numpy())
    apart = np.arcsin((np.stack([np.cos(angle), -np.sin(angle)], axis=-1) * upwards(table)).sum(-1))
    rows = [
        at_most("parallactic angles beside astropy's zenith, largest difference",
                float(np.abs(np.rad2deg(apart)).max()), 0.02, "degree"),
    ]  # fmt: skip
    cases = {
        "rotator 0°, north up": closed_loop(0.0),
        "rotator 90°, north up": closed_loop(90.0),
        "rotator 137°, north up": closed_loop(137.0),
        "rotator 137°, patch mirrored": closed_loop(137.0, mirrored=True),
        "rotator 90°, patch turned by 30°": closed_loop(90.0, 30.0),
    }
    direct = ", ".join(f"{one:.3f}" for one in without_warps())
    for name, one in cases.items():
        listed, noise = (
            ", ".join(f"{each:.3f}" for each in some) for some in (one.ratios, one.noises)
        )
        rows += [
            between(f"{name}: χ² per pixel", one.chi2, 0.75, 1.1),
            Row(f"{name}: residual in held-out visits (without warps {direct}; the stated noise of "
                f"templates alone {noise})", "≤ 0.05 each", listed,
                bool((one.ratios <= 0.05).all())),
        ]  # fmt: skip
    slopes = [float(np.polyfit(one.true, one.moments, 1)[0]) for one in cases.values()]
    listed = ", ".join(f"{one:.3f}" for one in slopes)
    rows.append(
        Row("slopes of first moments in these cases (mean "
            f"{np.mean(slopes):.4f})", "1 ± 0.02 each", listed,
            all(abs(one - 1.0) <= 0.02 for one in slopes))
    )  # fmt: skip
    first, *others = cases.values()
    for name, one in zip(list(cases)[1:], others, strict=True):
        rows.append(
            at_most(f"{name}: first moments less those of the first case, rms",
                    rms(one.moments - first.moments), 0.002)
        )  # fmt: skip
    for name, one in list(cases.items())[1:3]:
        noise = np.sqrt(one.variances + first.variances)
        pulls = (one.templates - first.templates) / noise
        scatter = [rms(each[first.near]) for each in pulls]
        rows.append(
            Row(f"{name}: templates less those of the first case, over their stated noise",
                "≤ 1.1 each", ", ".join(f"{each:.2f}" for each in scatter), max(scatter) <= 1.1)
        )  # fmt: skip
    return rows
