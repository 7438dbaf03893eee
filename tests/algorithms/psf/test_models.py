"""Model images: normalisation, widths, pixels; and what moments and widths say of them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.special import erf

from skyloom.algorithms.psf import (
    double_gaussian_psf,
    gaussian_psf,
    moffat_psf,
    psf_fwhm,
    psf_moments,
)
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

MODELS = (gaussian_psf, moffat_psf, double_gaussian_psf)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampling", ["sampled", "integrated"])
def test_an_image_sums_to_one_has_odd_sides_and_is_symmetric(model, sampling):
    psf = model(4.3, sampling=sampling)
    assert psf.dims == ("psf_y", "psf_x")
    assert psf.dtype == np.float64
    assert psf.shape[0] % 2 == psf.shape[1] % 2 == 1
    assert float(psf.sum()) == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(psf, psf.values[::-1, ::-1], atol=1e-18)
    np.testing.assert_allclose(psf, psf.values.T, atol=1e-18)
    assert psf.attrs["sampling"] == sampling


@pytest.mark.parametrize("model", [gaussian_psf, moffat_psf])
@pytest.mark.parametrize(
    ("width", "limit"), [(2.0, 6e-3), (3.0, 1e-3), (4.0, 3e-4), (5.0, 1e-4), (7.7, 1e-4)]
)
def test_the_measured_width_is_that_of_the_model(model, width, limit):
    psf = model(width, size=61)
    assert float(psf_fwhm(psf)) == pytest.approx(width, rel=limit)


@pytest.mark.parametrize("model", [gaussian_psf, moffat_psf])
@pytest.mark.parametrize(("width", "limit"), [(3.5, 4e-3), (5.0, 3e-4), (7.7, 1e-4)])
@pytest.mark.parametrize(
    "shape", [{"offset": (0.5, 0.5)}, {"axis_ratio": 0.7}, {"axis_ratio": 0.7, "angle": 35.0}]
)
def test_the_width_of_an_elongated_or_moved_image_is_measured_too(model, width, limit, shape):
    psf = model(width, size=61, **shape)
    assert float(psf_fwhm(psf)) == pytest.approx(width, rel=limit)


def test_a_width_does_not_depend_on_where_the_centre_lies_nor_on_the_scale():
    widths = [
        float(psf_fwhm(scale * gaussian_psf(4.5, offset=offset)))
        for offset, scale in (((0, 0), 1.0), ((0.5, 0.5), 1e6), ((0.3, -0.4), 1e-6))
    ]
    np.testing.assert_allclose(widths, 4.5, rtol=2e-4)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_second_moments_of_a_gaussian_are_its_sigmas(angle):
    psf = gaussian_psf(5 * SIGMA_TO_FWHM, axis_ratio=0.64, angle=angle, size=101)
    moments = psf_moments(psf)
    major, minor = 25.0 / 0.64, 25.0 * 0.64
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    assert float(moments["xx"]) == pytest.approx(major * cosine**2 + minor * sine**2, abs=1e-6)
    assert float(moments["yy"]) == pytest.approx(major * sine**2 + minor * cosine**2, abs=1e-6)
    assert float(moments["yx"]) == pytest.approx((major - minor) * cosine * sine, abs=1e-6)
    assert float(moments["x"]) == pytest.approx(0.0, abs=1e-12)
    assert moments["radius2"].attrs["units"] == "pixel2"


def test_an_integrated_gaussian_is_a_difference_of_error_functions():
    sigma = 0.8
    edges = np.arange(12) - 5.5
    line = np.diff(erf(edges / (np.sqrt(2) * sigma)))
    expected = np.outer(line, line) / line.sum() ** 2
    psf = gaussian_psf(sigma * SIGMA_TO_FWHM, size=11, sampling="integrated")
    np.testing.assert_allclose(psf, expected, atol=1e-12)


def test_integrating_over_pixels_adds_a_twelfth_to_the_second_moment():
    sampled, integrated = (
        float(psf_moments(gaussian_psf(4.0, size=61, sampling=sampling))["radius2"])
        for sampling in ("sampled", "integrated")
    )
    assert integrated - sampled == pytest.approx(1 / 12, abs=1e-6)


def test_a_moffat_of_large_beta_is_nearly_a_gaussian():
    np.testing.assert_allclose(
        moffat_psf(4.0, beta=5000.0, size=31), gaussian_psf(4.0, size=31), atol=1e-5
    )


def test_many_images_are_measured_one_by_one_and_nan_stays_nan():
    widths = (3.0, 5.0)
    images = np.stack(
        [gaussian_psf(width, size=51) for width in widths] + [np.full((51, 51), np.nan)]
    )
    psf = xr.DataArray(images, dims=("point", "psf_y", "psf_x"))
    before = psf.copy(deep=True)
    found = psf_fwhm(psf)
    assert found.dims == ("point",)
    np.testing.assert_allclose(found[:2], widths, rtol=1e-3)
    assert np.isnan(found[2])
    assert np.isnan(psf_moments(psf)["radius2"][2])
    xr.testing.assert_identical(psf, before)


def test_an_image_that_never_falls_to_half_has_no_width():
    flat = xr.DataArray(np.ones((5, 5)), dims=("psf_y", "psf_x"))
    assert np.isnan(psf_fwhm(flat))
    assert np.isnan(psf_fwhm(-flat))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fwhm": 0.0}, "fwhm must be > 0"),
        ({"fwhm": np.nan}, "fwhm must be > 0"),
        ({"fwhm": 3.0, "size": 10}, "size must be odd"),
        ({"fwhm": 3.0, "axis_ratio": 1.5}, "axis_ratio must be in"),
        ({"fwhm": 3.0, "sampling": "drizzled"}, "sampling must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_psf(**arguments)


def test_wrong_shapes_of_profiles_are_named():
    with pytest.raises(ValueError, match="beta must be > 1"):
        moffat_psf(3.0, beta=1.0)
    with pytest.raises(ValueError, match="width_ratio must be > 0"):
        double_gaussian_psf(3.0, width_ratio=0.0)
    with pytest.raises(ValueError, match="amplitude must be >= 0"):
        double_gaussian_psf(3.0, amplitude=-0.1)
    even = xr.DataArray(np.ones((4, 5)), dims=("psf_y", "psf_x"))
    with pytest.raises(ValueError, match="odd sides"):
        psf_moments(even)
    with pytest.raises(ValueError, match="needs psf_x"):
        psf_fwhm(even.rename(psf_x="x"))
