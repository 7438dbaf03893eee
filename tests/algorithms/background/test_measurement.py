"""Measured backgrounds: identities, stated values, failures."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import bin_image, measure_background
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.statistics import clipped_moments


def exposure(height=96, width=128, *, seed=0, masked=0.1):
    """Return an exposure of 1000 ± 30 electron with a masked and a NaN fraction."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000.0, 30.0, (height, width)).astype(np.float32)
    image[rng.random(image.shape) < 0.01] = np.nan
    mask = np.where(rng.random(image.shape) < masked, v.MASK_PLANES["DETECTED"], 0)
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": "electron"}),
            "variance": (("y", "x"), np.full_like(image, 900.0), {"units": "electron2"}),
            "mask": (("y", "x"), mask.astype(np.int32), v.mask_attributes()),
        },
        attrs={"note": "kept"},
    )


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
            assert float(found["variance"]) == np.float32(moments.variance / moments.count_used)
    assert background["level"].dtype == np.float32
    assert background["variance"].attrs["units"] == "electron2"
    assert background.attrs["box"] == [0, 96, 0, 128]
    assert background["bin_x"].values.tolist() == [31.5, 95.5]


def test_nothing_that_is_given_changes():
    given = exposure()
    before = given.copy(deep=True)
    measure_background(given)
    xr.testing.assert_identical(given, before)


def test_lazy_and_eager_backgrounds_are_the_same():
    given = xr.concat([exposure(seed=1), exposure(seed=2)], dim="detector")
    lazy = measure_background(given.chunk({"detector": 1, "y": 40, "x": 50}))
    assert lazy["level"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), measure_background(given))


@pytest.mark.parametrize("statistic", ["meanclip", "mean", "median"])
def test_a_constant_gives_that_constant_without_variance(statistic):
    image = np.full((40, 50), 1234.5, np.float32)
    image[::3, ::5] = np.nan
    given = xr.DataArray(image, dims=("y", "x"))
    background = measure_background(given, bin_size=(13, 17), statistic=statistic)
    assert (background["level"] == 1234.5).all()
    assert (background["variance"] == 0).all()
    assert (background["flags"] == v.BinFlag.BAD_VARIANCE).all()


def test_masked_and_nan_pixels_count_the_same():
    given = exposure(masked=0.2)
    erased = given["image"].where(given["mask"] == 0)
    masked = measure_background(given)
    xr.testing.assert_equal(masked["level"], measure_background(erased)["level"])
    xr.testing.assert_equal(masked["count"], measure_background(erased)["count"])


def test_more_bins_than_pixels_are_refused():
    with pytest.raises(ConfigurationError, match="between 1 and the 96 pixels"):
        measure_background(exposure(), bins=(97, 1))


def test_an_unknown_plane_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match=r"HOT.*BAD"):
        measure_background(exposure(), reject=["HOT"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": 0.0},
        {"iterations": 0},
        {"statistic": "mode"},
        {"grid_rule": "floor"},
        {"noise_correlation": 0.5},
        {"bin_size": (0, 3)},
        {"median_filter": 2},
        {"single_pixel": "keep"},
        {"variance_from": "nothing"},
    ],
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        measure_background(exposure(), **wrong)


def test_variance_of_the_level_may_come_from_the_input():
    image = np.ones((10, 10), np.float32)
    edges = np.array([0, 10])
    pixels = np.full((10, 10), 10.0, np.float32)
    independent = bin_image(
        image, None, 0, edges, edges, variance=pixels, variance_from="input"
    ).variance
    correlated = bin_image(
        image, None, 0, edges, edges, variance=pixels, variance_from="input_correlated"
    ).variance
    assert independent == pytest.approx(0.1)
    assert correlated == pytest.approx(10.0)
