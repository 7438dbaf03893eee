"""Simulated visits: what they contain, and what coadds of them measure."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import coadd
from skyloom.algorithms.simulate import SimulatedVisits, VisitParameters, simulate_visits


@pytest.fixture(scope="module")
def made() -> SimulatedVisits:
    parameters = VisitParameters(noise_spread=0.4, bad_box=40, height=401, width=401)
    return simulate_visits(np.random.default_rng(1), parameters=parameters)


def test_visits_are_those_of_the_stated_box(made):
    visits = simulate_visits(np.random.default_rng(1))
    assert dict(visits.warps.sizes) == {"visit": 10, "y": 301, "x": 201}
    assert visits.warps.attrs["box"] == [-45, 256, -123, 78]
    assert visits.warps.attrs["wcs"]["CRVAL1"] == 209.0
    assert visits.warps.attrs["wcs"]["CD1_1"] < 0 < visits.warps.attrs["wcs"]["CD2_2"]
    assert (visits.truth["kind"] == "star").sum() == 37
    sigma = visits.warps["psf_sigma"].values
    assert sigma.min() >= 1.5
    assert sigma.max() <= 2.6
    hours = 24.0 * (visits.warps["mjd"].values % 1.0)
    assert (np.minimum(hours, 24.0 - hours) <= 3.0).all()
    assert visits.warps["image"].attrs["units"] == visits.matched["image"].attrs["units"] == "nJy"


def test_the_same_generator_gives_the_same_visits():
    parameters = VisitParameters(visits=2, satellite=10.0, cosmic_rays=2, height=50, width=60)
    one, two, other = (
        simulate_visits(np.random.default_rng(seed), parameters=parameters) for seed in (4, 4, 5)
    )
    for a, b, c in zip(one, two, other, strict=True):
        assert a.identical(b)
        assert not a.identical(c)


def test_stars_have_their_fluxes_and_places(made):
    truth, warps = made.truth, made.warps
    y, x = np.indices((401, 401))
    apart = np.hypot(
        truth["source_x"].values[:, None] - truth["source_x"].values,
        truth["source_y"].values[:, None] - truth["source_y"].values,
    )
    np.fill_diagonal(apart, np.inf)
    alone = np.flatnonzero(apart.min(axis=1) > 25)
    assert alone.size >= 5
    for star in alone:
        cx, cy = float(truth["source_x"][star]), float(truth["source_y"][star])
        near = np.hypot(x - cx, y - cy) < 10
        light = warps["image"].values[:, near].astype(float) - 314.592
        error = np.sqrt(warps["variance"].values[:, near].sum(axis=1))
        pulls = (light.sum(axis=1) - truth["flux"].values[:, star]) / error
        assert np.abs(pulls).max() < 4.5


def test_noise_is_what_the_variance_says_before_and_after_matching(made):
    empty = np.abs(made.truth["sky"].values - 314.592) < 0.05
    for warps in (made.warps, made.matched):
        pulls = (warps["image"].values - 314.592)[:, empty]
        pulls /= np.sqrt(warps["variance"].values[:, empty])
        assert pulls.std() == pytest.approx(1.0, abs=0.02)
    assert (made.warps["mask"].values[-1, :40, :40] & v.MASK_PLANES["BAD"]).all()


def test_the_noise_of_a_coadd_is_that_of_its_variance_plane(made):
    empty = np.abs(made.truth["sky"].values - 314.592) < 0.05
    for warps, tolerance in ((made.warps, 0.02), (made.matched, 0.03)):
        found = coadd(warps)
        pulls = (found["image"].values - 314.592)[empty]
        pulls = pulls / np.sqrt(found["variance"].values[empty])
        assert pulls.std() == pytest.approx(1.0, abs=tolerance)


def test_stars_of_a_coadd_are_as_significant_as_all_visits_together(made):
    found = coadd(made.warps)
    s = made.warps["variance"].values.astype(float)
    good = (made.warps["mask"].values & v.MASK_PLANES["BAD"]) == 0
    expected = np.sqrt((good / s).sum(axis=0))
    gained = 1.0 / np.sqrt(found["variance"].values)
    np.testing.assert_allclose(gained, expected, rtol=1e-5)
    y, x = np.indices((401, 401))
    # the same from light: fluxes of stars in an aperture, their error from apertures on the sky
    truth = made.truth
    rng = np.random.default_rng(2)
    bare = found["image"].values - 314.592
    near = [(y - cy) ** 2 + (x - cx) ** 2 < 36.0 for cy, cx in rng.uniform(45.0, 390.0, (2000, 2))]
    sky = np.abs(truth["sky"].values - 314.592) < 0.05
    sums = np.array([bare[disk].sum() for disk in near if sky[disk].all()])
    assert sums.size > 500
    pixels = np.pi * 36.0
    weight = float(np.sqrt((1.0 / s[:, 200, 200]).sum()))
    assert sums.std() == pytest.approx(np.sqrt(pixels) / weight, rel=0.08)


def test_visits_that_cannot_be_are_refused():
    for options, told in (
        ({"broadest": 3.0}, "matched_sigma must exceed"),
        ({"sharpest": 2.7}, "sharpest must not exceed"),
        ({"transients": (11,)}, "transients must be seen in 1 to 10"),
    ):
        with pytest.raises(ValueError, match=told):
            simulate_visits(np.random.default_rng(1), parameters=VisitParameters(**options))
