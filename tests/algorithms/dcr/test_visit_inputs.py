"""Weights know no photons of objects; seeing is measured across the vertical."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.dcr import shift_image
from skyloom.algorithms.dcr.visit_inputs import round_psfs, sky_variance, width_across
from skyloom.algorithms.psf import gaussian_psf, moffat_psf, psf_fwhm


def test_variance_of_objects_is_that_of_the_sky_in_each_visit() -> None:
    rng = np.random.default_rng(1)
    variance = 9.0 + rng.random((2, 30, 40)).astype("f4")
    variance[1] *= 4.0
    variance[:, 10:14, 10:14] += 500.0
    variance[0, 0, 0], variance[1, 1, 1] = np.inf, 0.0
    objects = np.zeros((30, 40), bool)
    objects[9:15, 9:15] = True
    given = xr.DataArray(variance, dims=("visit", "y", "x"), attrs={"units": "nJy2"})
    mask = xr.DataArray(objects, dims=("y", "x"))
    before = given.copy(deep=True)
    found = sky_variance(given, mask)
    xr.testing.assert_identical(given, before)
    assert found.dtype == np.float32
    assert found.attrs == given.attrs
    assert np.isinf(found[0, 0, 0])
    assert np.isinf(found[1, 1, 1])
    for index, level in ((0, 9.5), (1, 38.0)):
        inside = found.values[index][objects]
        assert (inside == inside[0]).all()
        assert inside[0] == pytest.approx(level, rel=0.02)
    calm = ~objects
    calm[:2, :2] = False
    np.testing.assert_array_equal(found.values[:, calm], variance[:, calm])
    lazy = sky_variance(given.chunk({"visit": 1}), mask)
    np.testing.assert_array_equal(lazy.values, found.values)
    turned = sky_variance(given.isel(visit=[1, 0]), mask)
    np.testing.assert_array_equal(turned.values, found.values[::-1])
    everything = sky_variance(given, xr.ones_like(mask))
    assert float(everything[0, 11, 11]) == float(given[0, 11, 11])


@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0, 150.0])
def test_a_star_that_is_drawn_out_has_the_seeing_of_its_width_across(angle: float) -> None:
    direction = (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle)))
    # The geometric mean of both axes is given: 4 pixels across, 6 along.
    psf = gaussian_psf(np.sqrt(24.0), axis_ratio=4.0 / 6.0, angle=angle, size=61)
    assert width_across(psf, direction) == pytest.approx(4.0, rel=0.01)
    across = (direction[1], -direction[0])
    assert width_across(psf, across) == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize("beta", [2.2, 3.0, 5.0])
@pytest.mark.parametrize("fwhm", [3.3, 4.5])
def test_light_drawn_out_of_profiles_with_wings_leaves_their_width(
    fwhm: float, beta: float
) -> None:
    round_one = moffat_psf(fwhm, beta=beta, size=41)
    assert width_across(round_one, (1.0, 0.0)) == pytest.approx(fwhm, rel=2e-3)
    for angle, half in ((0.0, 1.0), (40.0, 1.0), (75.0, 2.0)):
        direction = (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle)))
        moved = [
            shift_image(round_one.rename(psf_y="y", psf_x="x"), tuple(by * np.array(direction)))
            for by in np.linspace(-half, half, 17)
        ]
        drawn = sum(moved).rename(y="psf_y", x="psf_x")
        assert width_across(drawn, direction) == pytest.approx(fwhm, rel=0.004 * half**2)
        assert float(psf_fwhm(drawn)) > 1.02 * fwhm


def test_noise_hardly_moves_the_width_and_nothing_has_none() -> None:
    rng, psf = np.random.default_rng(4), moffat_psf(4.0, size=41)
    noise = 0.01 * float(psf.max())
    found = [width_across(psf + rng.normal(0.0, noise, psf.shape), (1.0, 0.0)) for _ in range(12)]
    assert np.mean(found) == pytest.approx(4.0, rel=0.01)
    assert np.std(found) < 0.015 * 4.0
    empty = xr.zeros_like(gaussian_psf(4.0))
    assert np.isnan(width_across(empty, (1.0, 0.0)))
    assert np.isnan(width_across(empty + np.nan, (1.0, 0.0)))


def test_round_profiles_have_their_widths() -> None:
    found = round_psfs([3.5, 5.0], size=51)
    np.testing.assert_allclose(found.sum(("psf_y", "psf_x")), 1.0)
    np.testing.assert_allclose(psf_fwhm(found), [3.5, 5.0], rtol=0.02)
    with pytest.raises(ValueError, match="fwhm must be positive"):
        round_psfs([0.0])
