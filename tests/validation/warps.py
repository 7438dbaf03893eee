"""Warps against their truth, independent packages, and real exposures of one sky."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import reproject
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.warp import (
    merge_warps,
    sky_pixels,
    variance_of_sum,
    warp_exposure,
    warp_noise_covariance,
)
from skyloom.algorithms.warp.position_grid import position_grid
from skyloom.algorithms.warp.resampling import Kernel
from skyloom.algorithms.warp.row_kernels import cubic_weights
from tests.algorithms.warp.headers import distorted
from tests.algorithms.warp.scenes import exposure_of, plane, stars
from tests.real_data.decam import CUTOUTS, PUBLISHED, conditions_of, cutouts, straight_line
from tests.validation.rows import Row, at_most, within


def measure() -> list[Row]:
    """Return the rows of this topic."""
    rows = [*positions(), *constants(), *star_rows(), *noise_rows(), *merged()]
    if CUTOUTS.exists():
        rows += [*real_scales(), *real_altitudes()]
    return rows


def positions() -> list[Row]:
    """Return the errors of positions that the grid interpolates, anywhere on a detector."""
    rows, shape = [], (4096, 2048)
    rng = np.random.default_rng(1)
    for kind in ("TAN", "SIP", "TPV", "ZPN", "STG", "ZEA", "ARC", "SIN"):
        source = sky_pixels(WCS(distorted(kind, plane(7, center=(1024.0, 2048.0)))))
        target = plane(center=(2000.0, 2000.0), scale=0.25)
        grid = position_grid(source, shape, target, (0, 4000, 0, 4000))
        assert grid is not None
        y, x = (rng.integers(*limits, 20000) for limits in (grid.box[:2], grid.box[2:]))
        exact = source.to_pixels(*target.to_sky(x, y))
        on = (np.abs(exact[0] - 1024) < 1024) & (np.abs(exact[1] - 2048) < 2048)
        found = np.zeros((2, x.size))
        j, w = np.divmod((y - grid.origin[0]) / grid.step, 1)
        i, u = np.divmod((x - grid.origin[1]) / grid.step, 1)
        weights = np.array([[cubic_weights(t) for t in part] for part in (w, u)])
        for dj in range(4):
            for di in range(4):
                nodes = grid.nodes[:2, j.astype(int) + dj - 1, i.astype(int) + di - 1]
                found += weights[0, :, dj] * weights[1, :, di] * nodes
        error = np.hypot(*(found - exact))[on].max()
        name = f"positions on 2048 × 4096 pixels, {kind}, every {grid.step}th exact: largest error"
        rows.append(at_most(name, error, 0.005, "pixel"))
    return rows


def constants() -> list[Row]:
    """Return how well a constant stays one, over turns and scales."""
    worst = 0.0
    source = plane(center=(300.0, 300.0))
    exposure = exposure_of(np.full((600, 600), 7.0))
    for kernel in ("bilinear", "lanczos3", "lanczos5"):
        for turn, scale in ((0, 0.2), (33, 0.16), (90, 0.2), (170, 0.27)):
            target = plane(turn, scale, center=(200.0, 200.0))
            warp = warp_exposure(exposure, source, target, (100, 300, 100, 300), kernel=kernel)
            worst = max(worst, float(abs(warp["image"] / (7.0 * (scale / 0.2) ** 2) - 1).max()))
    return [at_most("a constant times the ratio of areas, 12 kernels and turns", worst, 1e-5)]


def star_rows() -> list[Row]:
    """Return what happens to stars, and how far they are from those of other packages."""
    rows = []
    for turn, scale, fwhm, limits in (
        (10, 0.2, 4.0, (4.5e-4, 0.006, 0.009)),
        (33, 0.25, 4.0, (4.5e-4, 0.006, 0.009)),
        (45, 0.2 / 1.2, 4.0, (4.5e-4, 0.006, 0.009)),
        (10, 0.2, 2.5, (1.5e-3, 0.015, 0.024)),
    ):
        errors = np.array([star_errors(turn, scale, fwhm, seed) for seed in range(20)])
        name = f"stars of FWHM {fwhm:g} px turned by {turn}°, scale {scale / 0.2:.3g}: "
        for what, values, limit in zip(
            ("flux", "centre (px)", "profile, rms"), errors.T, limits, strict=True
        ):
            rms = float(np.sqrt(np.mean(values**2)))
            measured = f"{rms:.1e}, worst {values.max():.1e}"
            rows.append(
                Row(f"{name}{what}, rms of 20 phases", f"≤ {limit:.2g}", measured, rms <= limit)
            )
    for kernel in ("lanczos3", "lanczos5"):
        worst = np.array(
            [
                star_errors(turn, 0.2 * ratio, 4.0, seed, kernel)
                for turn in (0.0, 1.0, 2.0, 5.0)
                for ratio in np.linspace(0.8, 1.2, 17)
                for seed in range(8)
            ]
        ).max(axis=0)
        rows.append(
            Row(
                f"for comparison, {kernel}, stars of FWHM 4 px, grids turned by at most 5° and of "
                "scales within 20 %: the kernel's response near one cycle a pixel",
                "no target",
                f"flux {worst[0]:.1e}, centre {worst[1]:.1e} px",
                True,
            )
        )
    source, target = WCS(distorted("TPV", plane(12, center=(200.0, 200.0)))), plane(
        -20, 0.21, center=(200.0, 200.0)
    )  # fmt: skip
    y, x = (100.0 + grid.ravel() for grid in np.mgrid[:210:35, :210:35])
    image = stars((400, 400), *source.world_to_pixel_values(*target.to_sky(x, y)), 4.0)
    warp = warp_exposure(exposure_of(image), source, target, (0, 400, 0, 400))
    ours = warp["image"].values
    header = WCS(fits.Header(target.header()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bicubic, _ = reproject.reproject_interp(
            (image, source), header, shape_out=(400, 400), order="bicubic"
        )
        adaptive, _ = reproject.reproject_adaptive(
            (image, source), header, shape_out=(400, 400), conserve_flux=True
        )
    bicubic = bicubic * abs(np.linalg.det(warp.attrs["matrix"]))
    part = slice(60, 340), slice(60, 340)
    peak = float(np.nanmax(np.abs(ours[part] - bicubic[part])) / np.nanmax(ours[part]))
    rows.append(at_most("stars beside reproject_interp (bicubic), of the peak", peak, 0.01))
    flux = [
        float(np.max(np.abs(boxes(ours, x, y) / boxes(theirs, x, y) - 1)))
        for theirs in (bicubic, adaptive)
    ]
    rows.append(at_most("fluxes beside reproject_interp (bicubic)", flux[0], 1e-3))
    rows.append(at_most("fluxes beside reproject_adaptive, flux conserving", flux[1], 1e-3))
    return rows


def boxes(image: NDArray[np.floating], x: NDArray[np.float64], y: NDArray[np.float64]):
    return np.array([image[int(b) - 15 : int(b) + 16, int(a) - 15 : int(a) + 16].sum()
                     for a, b in zip(x, y, strict=True)])  # fmt: skip


def star_errors(
    turn: float, scale: float, fwhm: float, seed: int, kernel: Kernel = "lanczos3"
) -> tuple[float, float, float]:
    """Return the errors of flux, centre and profile of one star."""
    phases = np.random.default_rng(seed).uniform(-0.5, 0.5, 4)
    x_star, y_star = 60 + phases[:2]
    source = plane(center=(100 + phases[2], 100 + phases[3]))
    target = plane(turn, scale, center=(60.0, 60.0))
    x, y = source.to_pixels(*target.to_sky(x_star, y_star))
    exposure = exposure_of(stars((200, 200), x, y, fwhm))
    warp = warp_exposure(exposure, source, target, (30, 91, 30, 91), kernel=kernel)
    image = warp["image"].values.astype(float)
    rows, columns = np.mgrid[30:91, 30:91]
    total = image.sum()
    center = (image * columns).sum() / total - x_star, (image * rows).sum() / total - y_star
    truth = stars((121, 121), x_star, y_star, fwhm * 0.2 / scale)[30:91, 30:91]
    profile = np.sqrt(((image - truth) ** 2).sum() / (truth**2).sum())
    return abs(total / 1e4 - 1), float(np.hypot(*center)), float(profile)


def noise_rows() -> list[Row]:
    """Return the scatter of pixels and of sums over boxes against what is said of it."""
    rows, count = [], 10
    rng = np.random.default_rng(5)
    source, target = plane(center=(750.0, 750.0)), plane(17, center=(750.0, 750.0))
    for kernel, published, lags in (
        ("bilinear", 0.4447, 7), ("lanczos3", 0.799, 7), ("lanczos5", 0.873, 11)
    ):  # fmt: skip
        sums, pulls = [], []
        for _ in range(15):
            exposure = exposure_of(rng.standard_normal((1500, 1500)))
            warp = warp_exposure(exposure, source, target, (350, 1150, 350, 1150), kernel=kernel)
            image = warp["image"].values.astype(float)
            pulls.append(np.std(image / np.sqrt(warp["variance"].values)))
            sums.append(image.reshape(80, count, 80, count).sum(axis=(1, 3)).ravel())
        covariance = warp_noise_covariance(kernel, matrix=warp.attrs["matrix"], size=lags)
        ratio = np.var(sums) / variance_of_sum(covariance, (count, count))
        own = float(covariance.sel(lag_y=0, lag_x=0))
        rows += [
            within(f"{kernel}: scatter of pixels over the variance plane", float(np.mean(pulls)),
                   1.0, 0.02, form=".4f"),
            within(f"{kernel}: mean variance of a warp of white noise", own, published, 1e-3,
                   form=".4f"),
            within(f"{kernel}: variance of sums over 10 × 10 pixels over that of the covariance, "
                   f"{lags} × {lags} lags", float(ratio), 1.0, 0.02, form=".4f"),
        ]  # fmt: skip
    return rows


def merged() -> list[Row]:
    """Return whether the order of detectors matters."""
    rng = np.random.default_rng(3)
    center = 150.0
    warps = [
        warp_exposure(
            exposure_of(rng.normal(100, 5, (200, 200)), rng.uniform(20, 30, (200, 200)),
                        np.where(rng.random((200, 200)) < 0.02, v.MASK_PLANES["BAD"], 0),
                        detector=index),
            plane(11 * index, center=(100.0 - shift, 100.0)),
            plane(center=(center, center)),
            (0, 300, 0, 300),
        )
        for index, shift in enumerate((-60.0, -20.0, 30.0, 65.0))
    ]  # fmt: skip
    results = [merge_warps([warps[i] for i in rng.permutation(4)]) for _ in range(6)]
    same = all(one.identical(other) for one, other in pairwise(results))
    return [Row("four overlapping detectors merged in six orders", "the same bits",
                "the same bits" if same else "different", same)]  # fmt: skip


def real_scales() -> list[Row]:
    """Return scales and offsets between real exposures of the same sky on three detectors."""
    rows = []
    for band in "grz":
        exposures = cutouts(band)
        reference, grid, _ = exposures["N11"]
        shape = reference["image"].shape
        for detector, (exposure, wcs, _) in exposures.items():
            if detector == "N11":
                continue
            warp = warp_exposure(exposure, wcs, grid, (0, shape[0], 0, shape[1]))
            area = abs(np.linalg.det(warp.attrs["matrix"]))
            ours, x = warp["image"].values / area, reference["image"].values
            good = np.isfinite(ours) & (reference["mask"].values == 0)
            line, sigma = straight_line(x[good], ours[good])
            published = PUBLISHED[band, detector]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                bicubic, _ = reproject.reproject_interp(
                    (exposure["image"].values, wcs), grid, shape_out=shape, order="bicubic"
                )
            both = np.isfinite(bicubic) & good
            rms = float(np.std((bicubic - ours)[both]) / np.std(ours[both]))
            name = f"real exposures in {band}, {detector} on the grid of N11"
            rows += [
                within(f"{name}: scale, within 3 σ", line[0], published[0], 3 * sigma[0],
                       form=".3f"),
                within(f"{name}: offset, within 3 σ", line[1], published[1], 3 * sigma[1],
                       form=".1f"),
                at_most(f"{name}: rms beside reproject (bicubic), of the image's scatter", rms,
                        0.1, form=".3f"),
            ]  # fmt: skip
    return rows


def real_altitudes() -> list[Row]:
    """Return how far computed altitudes are from those in real headers."""
    differences, airmasses = [], []
    for band in "grz":
        for _, _, header in cutouts(band).values():
            record = conditions_of(header)
            differences.append(record.altitude - (90 - float(header["ZD"])))
            airmasses.append(record.airmass - float(header["AIRMASS"]))
    return [
        at_most("altitude of 8 real exposures at their start, beside their headers",
                float(np.abs(differences).max()), 0.05, "deg", ".3f"),
        at_most("their airmass, which headers give to 0.01", float(np.abs(airmasses).max()), 0.01,
                "", ".4f"),
    ]  # fmt: skip
