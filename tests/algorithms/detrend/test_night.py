"""Frames of a simulated night come back as the light that fell, with variances that hold."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms.detrend import (
    CosmicRayParameters,
    OverscanParameters,
    ScienceDetrendParameters,
    detrend,
)
from skyloom.algorithms.vocabulary import MASK_PLANES
from tests.algorithms.detrend.night import FLAT, LOOK, SKY, Night, light_of


@pytest.fixture(scope="module")
def night() -> Night:
    return Night()


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
