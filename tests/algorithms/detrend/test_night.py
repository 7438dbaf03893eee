"""Frames of a simulated night come back as the light that fell, with variances that hold."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend import (
    CosmicRayParameters,
    OverscanParameters,
    ScienceDetrendParameters,
    detrend,
)
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.simulate import (
    CameraParameters,
    NightParameters,
    amplifier_grid,
    night_exposure_truth,
    night_plan,
    night_scene,
    night_truth,
    simulate_night_exposure,
)
from skyloom.algorithms.vocabulary import MASK_PLANES

SHAPE = (200, 160)
LOOK = NightParameters(row_noise=2.0, cosmic_ray_rate=2e-7)
FLAT, SKY = 1, 2
CATALAN = (1.0, 2.0, 5.0, 14.0)
"""Coefficients of the inverse of s - a s^2, in powers of a."""


class Night:
    """One detector of four amplifiers, its calibrations without noise, and one frame of the sky."""

    def __init__(self) -> None:
        self.table = amplifier_grid(
            "A", (2, 2), SHAPE, overscan=32, read_noise=6.0, saturation=60_000.0
        )
        self.table["flip_x"][:] = [False, True, False, True]
        self.table["flip_y"][:] = [False, False, True, True]
        transform = detector_transform((2 * SHAPE[0], 2 * SHAPE[1]), pixel_size=0.015)
        look = CameraParameters(crosstalk=3e-3, nonlinearity=0.08)
        truth = night_truth({"A": self.table}, {"A": transform}, parameters=look, seed=3)
        self.truth = truth["A"]
        self.plan = night_plan(biases=0, darks=0, flats=1, science=1, flat_levels=(3e4,), seed=5)
        self.scene = night_scene(self.plan, truth, seed=7)

    def frame(self, exposure: int = SKY, look: NightParameters = LOOK) -> xr.Dataset:
        return simulate_night_exposure(
            self.plan, exposure, self.table, self.truth, self.scene, parameters=look
        )

    def light(self, exposure: int = SKY, look: NightParameters = LOOK) -> xr.Dataset:
        return night_exposure_truth(
            self.plan, exposure, self.table, self.truth, self.scene, parameters=look
        )

    def calibrations(self) -> dict[str, xr.Dataset | xr.DataArray]:
        truth = self.truth
        loss = truth["nonlinearity"] * truth["gain"]
        terms = [c * loss ** (power + 1) for power, c in enumerate(CATALAN)]
        return {
            "bias": truth["bias_image"].to_dataset(name="image").assign_attrs(detector="A"),
            "dark": truth["dark_image"].to_dataset(name="image"),
            "flat": truth["flat"].isel(physical_filter=0).to_dataset(name="image"),
            "linearity": xr.concat(terms, "coefficient").to_dataset(name="polynomial"),
            "crosstalk": truth["crosstalk"],
            "gain": truth[["gain", "noise"]],
            "defects": (truth["defects"] & 1) > 0,
        }


@pytest.fixture(scope="module")
def night() -> Night:
    return Night()


def light_of(truth: xr.Dataset) -> np.ndarray:
    return (truth["background"] + truth["objects"] + truth["satellites"]).values


@pytest.mark.parametrize("exposure", [FLAT, SKY])
def test_the_light_comes_back_and_variances_hold(night, exposure):
    found = detrend(night.frame(exposure), night.table, **night.calibrations())
    truth = night.light(exposure)
    heard = np.int32(MASK_PLANES["CROSSTALK"])
    good = ((found["mask"].values & ~heard) == 0) & (truth["mask"].values == 0)
    assert good.mean() > 0.97
    off = (found["image"] - light_of(truth)).values[good]
    pulls = off / np.sqrt(found["variance"].values[good])
    assert pulls.std() == pytest.approx(1.0, abs=0.03)
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(off.size)
    measured = found["overscan_noise"] * found["gain"]
    np.testing.assert_allclose(measured, found["read_noise"], rtol=0.03)


@pytest.mark.parametrize(
    ("step", "exposure"),
    [("bias", SKY), ("dark", SKY), ("flat", SKY), ("linearity", FLAT), ("crosstalk", FLAT)],
)
def test_a_step_left_out_shows(night, step, exposure):
    calibrations = night.calibrations()
    less = {kind: each for kind, each in calibrations.items() if kind != step}
    truth = night.light(exposure)
    full, without = (detrend(night.frame(exposure), night.table, **c) for c in (calibrations, less))
    good = ((full["mask"].values | without["mask"].values) == 0) & (truth["mask"].values <= 1)
    with_it, without_it = (
        float((((each["image"] - light_of(truth)) ** 2 / each["variance"]).values[good]).mean())
        for each in (full, without)
    )
    assert with_it == pytest.approx(1.0, abs=0.03)
    assert without_it > with_it + 0.005


def test_cosmic_rays_are_found_and_stars_are_not(night):
    look = LOOK.model_copy(update={"cosmic_ray_rate": 1e-5})
    parameters = ScienceDetrendParameters(
        cosmic_rays=CosmicRayParameters(reject=True),
        overscan=OverscanParameters(serial="row_median"),
    )
    found = detrend(
        night.frame(look=look), night.table, parameters=parameters, **night.calibrations()
    )
    truth = night.light(look=look)
    hit = truth["cosmic_rays"].values / np.sqrt(found["variance"].values) > 20
    hit &= (truth["mask"].values & MASK_PLANES["BAD"]) == 0
    flagged = (found["mask"].values & MASK_PLANES["COSMIC_RAY"]) != 0
    assert hit.sum() > 300
    assert (flagged & hit).sum() / hit.sum() > 0.9
    near = truth["cosmic_rays"].values > 0
    false = flagged & ~near & ((truth["mask"].values & MASK_PLANES["BAD"]) == 0)
    assert false.mean() < 1e-3
