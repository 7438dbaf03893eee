"""Detrended frames against the light that fell: more frames and larger ones than a test affords."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.detrend import (
    BrighterFatterParameters,
    CosmicRayParameters,
    ScienceDetrendParameters,
    correct_brighter_fatter,
    detrend,
)
from skyloom.algorithms.photon_transfer.kernel import full_prekernel, solve_kernel
from skyloom.algorithms.simulate import TYPICAL_A, correlated_field, flat_covariance
from skyloom.algorithms.vocabulary import MASK_PLANES
from tests.algorithms.detrend.charge import collected, mean_square_radius
from tests.algorithms.detrend.night import FLAT, LOOK, SKY, Night, light_of
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

FRAMES = 12


def _light() -> list[Row]:
    """Return how well the light comes back."""
    rows = []
    for exposure, name in ((SKY, "sky of about 1000 electron"), (FLAT, "flat of 3e4 electron")):
        squares, sums, number = 0.0, [], 0
        for seed in range(FRAMES):
            night = Night(seed)
            found = detrend(night.frame(exposure), night.table, **night.calibrations())
            truth = night.light(exposure)
            heard = np.int32(MASK_PLANES["CROSSTALK"])
            good = ((found["mask"].values & ~heard) == 0) & (truth["mask"].values == 0)
            off = (found["image"] - light_of(truth)).values[good].astype(float)
            squares += float((off**2 / found["variance"].values[good]).sum())
            number += off.size
            sums.append(off.mean() / light_of(truth)[good].mean())
        mean, error = np.mean(sums), np.std(sums) / np.sqrt(FRAMES)
        rows += [
            within(
                f"{name}, {FRAMES} detectors with crosstalk and nonlinearity: width of pulls",
                float(np.sqrt(squares / number)),
                1.0,
                0.03,
            ),
            between(
                f"{name}: mean error of the light over its standard error {error:.1e}",
                float(mean / error),
                -4,
                4,
            ),
        ]
    return rows


def _cosmic_rays() -> list[Row]:
    """Return completeness and purity of the rejection of cosmic rays."""
    look = LOOK.model_copy(update={"cosmic_ray_rate": 5e-6})
    parameters = ScienceDetrendParameters(cosmic_rays=CosmicRayParameters(reject=True))
    hits = found_hits = false = number = 0
    for seed in range(4):
        night = Night(seed)
        frame = night.frame(look=look)
        found = detrend(frame, night.table, parameters=parameters, **night.calibrations())
        truth = night.light(look=look)
        whole = (truth["mask"].values & MASK_PLANES["BAD"]) == 0
        rays = truth["cosmic_rays"].values
        flagged = (found["mask"].values & MASK_PLANES["COSMIC_RAY"]) != 0
        hit = whole & (rays > 20 * np.sqrt(found["variance"].values))
        hits += int(hit.sum())
        found_hits += int((hit & flagged).sum())
        false += int((flagged & whole & (rays == 0)).sum())
        number += int(whole.sum())
    return [
        between("pixels of cosmic rays above 20 sigma that are flagged", found_hits / hits, 0.9, 1),
        at_most("other pixels that are flagged as cosmic rays", false / number, 1e-3),
    ]


def _brighter_fatter() -> list[Row]:
    """Return what is left of the brighter-fatter effect of a star and of flats."""
    a = np.array(TYPICAL_A, dtype=np.float64)
    a[0, 0] -= a[0, 0] + 4 * a[1:, 1:].sum() + 2 * (a[0, 1:].sum() + a[1:, 0].sum())
    kernel = xr.DataArray(solve_kernel(full_prekernel(-a)), dims=("kernel_y", "kernel_x"))
    y, x = np.indices((96, 96))
    star = 500.0 + 8e4 * np.exp(-((y - 47.3) ** 2 + (x - 48.6) ** 2) / 8.0)
    strict = BrighterFatterParameters(threshold=1e-4)
    images = star, collected(star, kernel.values)
    fixed = correct_brighter_fatter(
        xr.DataArray(images[1], dims=("y", "x"), attrs={"units": "electron"}),
        kernel,
        parameters=strict,
    )["image"].values
    true, fat, mended = (mean_square_radius(i, (47.3, 48.6), 500.0) for i in (*images, fixed))
    level = 3e4
    rng = np.random.default_rng(5)
    before, after = [], []
    for _ in range(20):
        flat = level + correlated_field(flat_covariance(a, level), (600, 600), rng)
        image = xr.DataArray(flat, dims=("y", "x"), attrs={"units": "electron"})
        again = correct_brighter_fatter(image, kernel, parameters=strict)["image"].values
        for values, out in ((flat, before), (again, after)):
            d = values - values.mean()
            out.append([(d * d).mean() / level, (d[1:] * d[:-1]).mean() / level])
    (loss, was), (rest, now) = np.mean(before, axis=0), np.mean(after, axis=0)
    return [
        at_most(
            f"star that is {100 * (fat / true - 1):.2f} % too large by charge moved as it came: "
            "part of it that is left",
            abs(mended - true) / (fat - true),
            0.05,
        ),
        at_most(
            "charge that the correction loses", float(fixed.sum() / images[1].sum() - 1), 1e-12
        ),
        within(
            f"variance over mean of flats, {loss:.4f} before the correction",
            float(rest),
            1.0,
            0.012,
        ),
        at_most(
            "covariance with the next row after the correction over that before",
            float(now / was),
            0.12,
            form=".3f",
        ),
    ]


def measure() -> list[Row]:
    """Return the rows of this topic."""
    return [*_light(), *_cosmic_rays(), *_brighter_fatter()]
