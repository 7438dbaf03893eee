"""Measured backgrounds: identities, stated values, policies, failures."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    REJECTED_PLANES,
    BackgroundParameters,
    measure_background,
    render_background,
)
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.statistics import clipped_moments
from tests.algorithms.background.scenes import exposure, image_of


def test_a_bin_is_the_clipped_mean_of_its_valid_pixels():
    given = exposure()
    background = measure_background(given, bin_size=(32, 64))
    for i in range(3):
        for j in range(2):
            part = given.isel(y=slice(32 * i, 32 * i + 32), x=slice(64 * j, 64 * j + 64))
            good = (part["mask"].values == 0) & np.isfinite(part["image"].values)
            moments = clipped_moments(part["image"].values, good)
            found = background.isel(bin_y=i, bin_x=j)
            assert int(found["count"]) == moments.count
            assert int(found["count_used"]) == moments.count_used
            assert float(found["level"]) == np.float32(moments.mean)
            assert float(found["pixel_variance"]) == np.float32(moments.variance)
            assert float(found["variance"]) == np.float32(moments.variance / moments.count_used)


def test_the_dataset_says_what_it_is():
    given = exposure().assign_coords(y=np.arange(100, 196), x=np.arange(-8, 120), detector=7)
    background = measure_background(given, bin_size=(32, 64))
    dtypes = {name: str(array.dtype) for name, array in background.data_vars.items()}
    assert dtypes == {
        "level": "float32",
        "variance": "float32",
        "pixel_variance": "float32",
        "count": "int32",
        "count_used": "int32",
        "flags": "uint8",
    }
    assert background["level"].dims == ("bin_y", "bin_x")
    assert background["level"].attrs == {"units": "electron"}
    assert background["variance"].attrs == {"units": "electron2"}
    assert background["bin_y"].values.tolist() == [115.5, 147.5, 179.5]
    assert background["bin_x"].values.tolist() == [23.5, 87.5]
    assert int(background["detector"]) == 7
    assert background.attrs == {
        "box": [100, 196, -8, 120],
        "grid_rule": "nearest",
        "statistic": "meanclip",
        "clip": 3.0,
        "iterations": 3,
        "ignored_planes": list(REJECTED_PLANES),
    }


def test_nothing_that_is_given_changes():
    given = exposure()
    before = given.copy(deep=True)
    measure_background(given, median_filter=3, single_pixel="pooled", variance_from="input")
    xr.testing.assert_identical(given, before)


@pytest.mark.parametrize("options", [{}, {"statistic": "median"}, {"variance_from": "input"}])
def test_lazy_and_eager_backgrounds_are_the_same(options):
    given = xr.concat([exposure(seed=1), exposure(seed=2)], dim="detector")
    lazy = measure_background(given.chunk({"detector": 1, "y": 40, "x": 50}), **options)
    assert lazy["level"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), measure_background(given, **options))


def test_detectors_are_measured_one_by_one_with_one_mask_or_many():
    given = xr.concat([exposure(seed=1), exposure(seed=2)], dim="detector")
    both = measure_background(given)
    shared = measure_background(given.assign(mask=given["mask"].isel(detector=1)))
    for index in (0, 1):
        one = measure_background(given.isel(detector=index))
        xr.testing.assert_equal(both.isel(detector=index)["level"], one["level"])
    xr.testing.assert_equal(
        shared.isel(detector=1)["level"], measure_background(given.isel(detector=1))["level"]
    )


@pytest.mark.parametrize("statistic", ["meanclip", "mean", "median"])
def test_a_constant_gives_that_constant_without_variance(statistic):
    pixels = np.full((40, 50), 1234.5)
    pixels[::3, ::5] = np.nan
    background = measure_background(image_of(pixels), bin_size=(13, 17), statistic=statistic)
    assert (background["level"] == 1234.5).all()
    assert (background["variance"] == 0).all()
    assert (background["flags"] == v.BinFlag.BAD_VARIANCE).all()


def test_masked_and_nan_pixels_count_the_same():
    given = exposure(masked=0.2)
    erased = given.drop_vars("mask").assign(image=given["image"].where(given["mask"] == 0))
    masked, missing = measure_background(given), measure_background(erased)
    for name in masked.data_vars:
        xr.testing.assert_equal(masked[name], missing[name])
    assert missing.attrs["ignored_planes"] == []


def test_the_order_of_pixels_in_a_bin_does_not_matter():
    given = exposure()["image"]
    turned = given.copy(data=given.values.reshape(3, 32, 128)[:, ::-1, ::-1].reshape(96, 128))
    one = measure_background(given, bins=(3, 1))
    other = measure_background(turned, bins=(3, 1))
    xr.testing.assert_equal(one["count_used"], other["count_used"])
    np.testing.assert_allclose(one["level"], other["level"], rtol=1e-7)


def test_infinite_and_huge_values_are_not_valid():
    pixels = np.arange(16.0).reshape(4, 4)
    pixels[0] = np.inf, -np.inf, np.nan, 1.0
    background = measure_background(image_of(pixels), bins=(1, 1), statistic="mean")
    assert background["count"].item() == 13
    assert background["level"].item() == np.float32((np.arange(4, 16).sum() + 1.0) / 13)


def test_median_and_mean_have_their_own_errors():
    rng = np.random.default_rng(4)
    values = rng.normal(5.0, 2.0, (60, 60)).astype(np.float32)
    image = image_of(values)
    mean = measure_background(image, bins=(1, 1), statistic="mean")
    median = measure_background(image, bins=(1, 1), statistic="median")
    spread = values.astype(float).var(ddof=1)
    assert mean["level"].item() == pytest.approx(values.astype(float).mean(), rel=1e-7)
    assert mean["variance"].item() == pytest.approx(spread / 3600, rel=1e-6)
    assert median["level"].item() == np.float32(np.median(values.astype(float)))
    assert median["variance"].item() == pytest.approx(np.pi / 2 * spread / 3600, rel=1e-6)
    assert mean["count_used"].item() == 3600


def test_an_image_smaller_than_a_bin_is_one_bin():
    background = measure_background(image_of(np.full((10, 12), 3.0)))
    assert background["level"].shape == (1, 1)
    assert measure_background(image_of(np.full((10, 47), 3.0)), grid_rule="ceil").sizes == {
        "bin_y": 1,
        "bin_x": 2,
    }


def test_flags_tell_empty_and_thin_bins():
    pixels = np.random.default_rng(0).normal(size=(10, 30))
    pixels[:, :10] = np.nan
    pixels[1:, 10:20] = np.nan
    pixels[0, 11:20] = np.nan
    background = measure_background(image_of(pixels), bins=(1, 3), min_fraction=0.2)
    flags = background["flags"].values[0]
    assert flags[0] == v.BinFlag.EMPTY
    # a single pixel: its value stands, its error is unknown
    assert flags[1] == v.BinFlag.LOW_COUNT | v.BinFlag.BAD_VARIANCE
    assert float(background["level"][0, 1]) == np.float32(pixels[0, 10])
    assert np.isnan(background["variance"].values[0, :2]).all()
    assert flags[2] == 0
    pooled = measure_background(image_of(pixels), bins=(1, 3), single_pixel="pooled")
    assert float(pooled["variance"][0, 1]) == float(background["pixel_variance"][0, 2])


def test_correlated_noise_and_clipping_scale_the_variance():
    given = exposure()
    plain = measure_background(given)
    correlated = measure_background(given, noise_correlation=2.5)
    np.testing.assert_allclose(correlated["variance"], 2.5 * plain["variance"], rtol=1e-6)
    debiased = measure_background(given, debias=True)
    np.testing.assert_allclose(debiased["variance"], plain["variance"] * 1.030959, rtol=1e-6)
    xr.testing.assert_equal(debiased["level"], plain["level"])


def test_variance_of_the_level_may_come_from_the_input():
    given = exposure()
    scatter = measure_background(given)
    independent = measure_background(given, variance_from="input")
    correlated = measure_background(given, variance_from="input_correlated")
    np.testing.assert_allclose(independent["variance"], 900.0 / scatter["count_used"], rtol=1e-6)
    np.testing.assert_allclose(correlated["variance"], 900.0, rtol=1e-6)
    xr.testing.assert_equal(independent["level"], scatter["level"])


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_bin_with_a_variance_that_cannot_be_is_flagged(bad: float):
    given = exposure()
    given["variance"].values[3, 4] = bad
    found = measure_background(given, variance_from="input")
    flagged = (found["flags"].values & v.BinFlag.BAD_VARIANCE) != 0
    assert flagged[0, 0]
    assert flagged.sum() == 1
    assert np.isnan(found["variance"].values[0, 0])


def test_the_median_filter_replaces_a_lonely_bin_and_says_so():
    level = np.full((5, 5), 10.0)
    level[2, 2] = 50.0
    level[4, 4] = np.nan
    image = image_of(np.repeat(np.repeat(level, 4, axis=0), 4, axis=1))
    background = measure_background(image, bin_size=(4, 4), median_filter=3)
    assert float(background["level"][2, 2]) == 10.0
    assert int(background["flags"][2, 2]) & v.BinFlag.SMOOTHED
    assert not int(background["flags"][1, 1]) & v.BinFlag.SMOOTHED
    assert np.isnan(background["level"].values[4, 4])


def test_sources_bias_the_clipped_mean_as_published():
    rng = np.random.default_rng(1)
    image = rng.normal(0.0, 1.0, (2048, 2048)).astype(np.float32)
    sources = rng.random(image.shape) < 0.05
    image[sources] += rng.exponential(5.0, int(sources.sum())).astype(np.float32)
    mean = measure_background(image_of(image), bin_size=(128, 128))["level"].mean()
    median = measure_background(image_of(image), bin_size=(128, 128), statistic="median")
    assert float(mean) == pytest.approx(0.031, abs=0.003)
    assert float(median["level"].mean()) == pytest.approx(0.058, abs=0.003)


def test_the_level_scatters_as_its_variance_says():
    rng = np.random.default_rng(9)
    image = rng.normal(100.0, 7.0, (2048, 2048)).astype(np.float32)
    for debias, width in ((True, 1.0), (False, 1.016)):
        background = measure_background(image_of(image), bin_size=(64, 64), debias=debias)
        pulls = (background["level"] - 100.0) / np.sqrt(background["variance"])
        # 1024 bins know the mean to 0.031 and the width to 0.022
        assert float(pulls.mean()) == pytest.approx(0.0, abs=0.1)
        assert float(pulls.std()) == pytest.approx(width, abs=0.07)


def test_more_bins_than_pixels_are_refused():
    with pytest.raises(ConfigurationError, match="between 1 and the 96 pixels, got 97"):
        measure_background(exposure().chunk(), bins=(97, 1))


def test_an_unknown_plane_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match=r"HOT.*BAD"):
        measure_background(exposure(), reject=["HOT"])


def test_the_last_bit_of_a_mask_masks():
    given = exposure(masked=0.0).drop_vars("variance")
    mask = np.zeros((96, 128), np.uint32)
    mask[:, :64] = 1 << 31
    legend = {"flag_masks": [1 << 31], "flag_meanings": "TOP"}
    for dtype in (np.uint32, np.int32):
        given["mask"] = ("y", "x"), mask.view(dtype), legend
        background = measure_background(given, bins=(1, 2), reject="TOP")
        assert int(background["count"][0, 0]) == 0
        assert int(background["count"][0, 1]) > 6000


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"clip": 0.0}, "clip"),
        ({"clip": -1.0}, "clip"),
        ({"iterations": 0}, "iterations"),
        ({"statistic": "mode"}, "'meanclip', 'mean' or 'median'"),
        ({"grid_rule": "floor"}, "'nearest' or 'ceil'"),
        ({"noise_correlation": 0.5}, "noise_correlation"),
        ({"bin_size": (0, 3)}, "bin_size"),
        ({"bins": (0, 3)}, "bins"),
        ({"median_filter": 2}, "median_filter must be odd"),
        ({"single_pixel": "keep"}, "single_pixel"),
        ({"variance_from": "nothing"}, "variance_from"),
        ({"min_fraction": 2.0}, "min_fraction"),
    ],
)
def test_wrong_parameters_are_named_before_anything_is_computed(wrong, text):
    with pytest.raises(ConfigurationError, match=text):
        measure_background(exposure().chunk(), **wrong)


def test_exposures_that_make_no_sense_are_refused():
    given = exposure()
    with pytest.raises(TypeError, match="Dataset or DataArray"):
        measure_background(given["image"].values)
    with pytest.raises(KeyError, match="no variable image"):
        measure_background(given.drop_vars("image"))
    with pytest.raises(TypeError, match="bit planes"):
        measure_background(given.assign(mask=given["mask"].astype(float)))
    with pytest.raises(GeometryError, match="mask has shape"):
        measure_background(given.assign(mask=given["mask"].isel(y=slice(3)).rename(y="row")))
    with pytest.raises(ConfigurationError, match="needs an exposure with variance"):
        measure_background(given.drop_vars("variance"), variance_from="input")


def test_every_parameter_is_a_keyword_with_the_same_default():
    given = exposure()
    defaults = {name: value for name, value, _ in BackgroundParameters().describe()}
    xr.testing.assert_identical(measure_background(given, **defaults), measure_background(given))


def test_subtracting_the_rendered_background_leaves_noise():
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:384, :512]
    truth = 800 + 0.1 * x + 20 * np.sin(y / 240)
    image = image_of(truth + rng.normal(0.0, 5.0, truth.shape))
    background = measure_background(image)
    error = render_background(background) - truth
    # 1024 pixels of sigma 5 a bin: 0.16, more at the edges
    assert float(error.std()) < 0.3
    assert float(abs(error.mean())) < 0.05
