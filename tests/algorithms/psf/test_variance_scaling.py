"""Variances brought to the scatter of pixels: known factors, bounds, what is left out."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import KeptVarianceWarning
from skyloom.algorithms.psf import VarianceScalingParameters, rescale_variance


def exposure_of(sigma: float = 4.0, wrong: float = 2.5, seed: int = 0, side: int = 320):
    """Return noise on a gradient whose variance is too small by a factor, with some objects."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(0.8, 1.2, side)[:, None] * np.ones(side)
    image = rng.normal(0, sigma, (side, side)) * depth + np.linspace(0, 30, side)
    mask = np.zeros((side, side), np.int32)
    for bit, value in (("DETECTED", 500.0), ("DETECTED_NEGATIVE", -500.0), ("SAT", 1e6)):
        y, x = rng.integers(0, side - 20, 2)
        image[y : y + 20, x : x + 20] += value
        mask[y : y + 20, x : x + 20] |= v.MASK_PLANES[bit]
    image[:5], mask[:5] = np.nan, v.MASK_PLANES["NO_DATA"]
    variance = (sigma * depth) ** 2 / wrong
    variance[:5] = np.inf
    return xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "nJy"}),
            "variance": (("y", "x"), variance.astype(np.float32), {"units": "nJy2"}),
            "mask": (("y", "x"), mask, v.mask_attributes()),
        },
        coords={"visit": 5},
        attrs={"conditions": 1},
    )


@pytest.mark.parametrize("wrong", [0.2, 1.0, 2.5, 8.0])
def test_the_factor_undoes_a_wrong_variance(wrong):
    found = rescale_variance(exposure_of(wrong=wrong))
    assert float(found["variance_factor"]) == pytest.approx(wrong, rel=0.02)
    assert int(found["variance_scaling"]) == v.VarianceScaling.PIXELS


def test_only_the_variance_changes_and_the_input_stays():
    given = exposure_of()
    before = given.copy(deep=True)
    found = rescale_variance(given)
    xr.testing.assert_identical(given, before)
    factor = found["variance_factor"]
    np.testing.assert_allclose(found["variance"], given["variance"] * factor, rtol=1e-6)
    assert found["variance"].attrs == given["variance"].attrs
    assert found["variance"].dtype == np.float32
    xr.testing.assert_identical(
        found.drop_vars(["variance", "variance_factor", "variance_scaling"]),
        given.drop_vars("variance"),
    )


def test_masked_objects_do_not_count():
    given = exposure_of()
    given["mask"][100:260, 100:260] |= v.MASK_PLANES["DETECTED"]
    without = rescale_variance(given)
    given["image"][100:260, 100:260] += 1e4
    with_objects = rescale_variance(given)
    assert float(with_objects["variance_factor"]) == float(without["variance_factor"])


def test_a_factor_out_of_bounds_is_looked_for_in_the_image_as_a_whole():
    given = exposure_of(wrong=1.0)
    # two fifths of the pixels claim hardly any variance
    variance = given["variance"].values.copy()
    variance[5:130] = 1e-3
    given["variance"] = (("y", "x"), variance)
    found = rescale_variance(given, parameters=VarianceScalingParameters(largest=1.5))
    assert int(found["variance_scaling"]) == v.VarianceScaling.IMAGE
    assert 0.5 < float(found["variance_factor"]) < 1.5


@pytest.mark.parametrize("image", [0.0, 1e4])
def test_a_variance_nothing_explains_is_kept_with_a_warning(image):
    rng = np.random.default_rng(3)
    given = exposure_of()
    given["image"] = given["image"].copy(data=rng.normal(0, 1, (320, 320)).astype("f4") * image)
    with pytest.warns(KeptVarianceWarning, match=r"1 of 1 variances are kept"):
        found = rescale_variance(given)
    assert float(found["variance_factor"]) == 1.0
    assert int(found["variance_scaling"]) == v.VarianceScaling.KEPT
    np.testing.assert_array_equal(found["variance"], given["variance"])


def test_less_than_two_pixels_give_no_factor():
    given = exposure_of()
    given["mask"] |= v.MASK_PLANES["BAD"]
    given["mask"][50, 50] = 0
    found = rescale_variance(given)
    assert float(found["variance_factor"]) == 1.0
    assert int(found["variance_scaling"]) == v.VarianceScaling.TOO_FEW_PIXELS


def test_lazy_and_eager_agree_over_leading_dimensions():
    parts = [exposure_of(seed=seed, wrong=1.0 + seed) for seed in range(3)]
    given = xr.concat(parts, "visit")
    eager = rescale_variance(given)
    np.testing.assert_allclose(eager["variance_factor"], [1.0, 2.0, 3.0], rtol=0.02)
    lazy = rescale_variance(given.chunk({"visit": 1, "y": 100}))
    assert isinstance(lazy["variance"].data, dask.array.Array)
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), eager)


def test_misuse_is_named():
    given = exposure_of()
    with pytest.raises(KeyError, match="no variable variance"):
        rescale_variance(given[["image"]])
    with pytest.raises(KeyError, match="unknown mask plane 'HOT'"):
        rescale_variance(given, parameters=VarianceScalingParameters(excluded_planes=("HOT",)))
    with pytest.raises(ValueError, match="variance has shape"):
        rescale_variance(given.assign(variance=given["variance"].isel(x=0)))
