"""Sky frames: identities, truth recovered from nights, outliers rejected, gaps filled and said."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.sky import (
    AverageParameters,
    FocalPlaneParameters,
    SmoothSkyParameters,
    average_backgrounds,
    exposure_residuals,
    focal_plane_background,
    sky_frame_residual,
    sky_level_status,
)
from skyloom.algorithms.statistics import clipped_moments
from tests.algorithms.sky.focal_planes import background_of, backgrounds_of, mosaic
from tests.algorithms.sky.night_scene import backgrounds, by_exposure, night, true_backgrounds

BINS = ("bin_y", "bin_x")
EQUAL = AverageParameters(weights="equal", error="scatter", fill="median")


def residuals_of(levels, variance=1e-6, lead=("exposure",), box=None):
    levels = np.asarray(levels, np.float32)
    dims = (*lead, *BINS)
    box = [0, 8 * levels.shape[-2], 0, 8 * levels.shape[-1]] if box is None else box
    return xr.Dataset(
        {
            "level": (dims, levels, {"units": ""}),
            "variance": (
                dims,
                np.broadcast_to(np.asarray(variance, np.float32), levels.shape).copy(),
                {"units": ""},
            ),
        },
        attrs={"box": box, "grid_rule": "nearest"},
    )


def noisy(shape=(12, 5, 7), *, seed=1, sigma=1e-3):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 0.01, shape[-2:])
    return truth, truth + rng.normal(0.0, sigma, shape)


@pytest.fixture(scope="module")
def small_night():
    of = night(12, 2, 3, (256, 256))
    found = {
        k: exposure_residuals(backgrounds(of, k), of.transforms) for k in range(len(of.levels))
    }
    return of, found


def test_the_frame_of_a_night_is_the_truth_within_its_errors(small_night):
    of, found = small_night
    truth = exposure_residuals(true_backgrounds(of), of.transforms).residuals
    for weights, level in (("equal", np.mean(1 / of.levels)), ("inverse_variance", None)):
        floor = np.sqrt(level / 12) if level else np.sqrt(1 / of.levels.sum())
        parameters = AverageParameters(weights=weights)
        errors, pulls = [], []
        for name, residuals in by_exposure({k: one.residuals for k, one in found.items()}):
            frame = average_backgrounds(residuals, parameters=parameters)
            error = frame["level"].values - truth[name]["level"].values
            errors.append(error)
            pulls.append(error / np.sqrt(frame["variance"].values))
            assert (frame["exposure_count"] >= 8).all()
        assert np.std(errors) <= 1.3 * floor / 32
        assert np.std(pulls) == pytest.approx(1.0, abs=0.12)
        edge = np.std([error[:, [0, -1]] for error in errors])
        assert edge <= 1.3 * floor / 32


def test_the_level_of_an_exposure_is_found_with_its_error(small_night):
    of, found = small_night
    for k, one in found.items():
        assert one.status == v.SkyLevelStatus.OK
        assert one.scale == pytest.approx(of.levels[k], rel=2e-3)
        assert 0 < one.scale_sigma < 0.002 * of.levels[k]
        for residual in one.residuals.values():
            assert float(residual["scale"]) == one.scale
            assert residual["level"].dtype == np.float32
            assert residual["level"].attrs["units"] == ""


def test_cells_and_polynomials_agree_on_a_plane():
    of = night(1, 3, 3, (256, 256), rms=1e-9)
    exact = true_backgrounds(of)
    tilted = {
        name: item.assign(level=500.0 * item["level"] + np.arange(8.0) * 0)
        for name, item in exact.items()
    }
    cells = SmoothSkyParameters(cells=FocalPlaneParameters(cell_size=(2.0, 2.0)))
    for parameters in (cells, SmoothSkyParameters()):
        one = exposure_residuals(tilted, of.transforms, parameters=parameters)
        assert one.scale == pytest.approx(500.0, rel=1e-6)
        for residual in one.residuals.values():
            assert np.abs(residual["level"]).max() < 1e-6


def test_residuals_scale_with_the_images():
    transforms, shapes = mosaic(2, 2)
    rng = np.random.default_rng(2)
    images = backgrounds_of(
        lambda x, y: 1000.0 + x + 3.0 * np.sin(2 * x), transforms, shapes, noise=1.0, rng=rng
    )
    base = exposure_residuals(images, transforms)
    larger = {
        name: item.assign(level=4.0 * item["level"], variance=16.0 * item["variance"])
        for name, item in images.items()
    }
    other = exposure_residuals(larger, transforms)
    assert other.scale == pytest.approx(4.0 * base.scale, rel=1e-9)
    for name in images:
        for variable in ("level", "variance"):
            np.testing.assert_allclose(
                other.residuals[name][variable],
                base.residuals[name][variable],
                rtol=1e-4,
                atol=1e-8,
            )


def test_a_constant_sky_leaves_an_empty_frame():
    transforms, shapes = mosaic(2, 2)
    images = backgrounds_of(lambda x, y: 0 * x * y + 321.0, transforms, shapes)
    images = {name: item.assign(variance=0 * item["level"] + 1.0) for name, item in images.items()}
    residuals = [exposure_residuals(images, transforms).residuals[0] for _ in range(6)]
    frame = average_backgrounds(residuals)
    np.testing.assert_allclose(frame["level"], 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("scale", "sigma", "status"),
    [
        (np.nan, 1.0, "NONFINITE"),
        (0.0, 1.0, "NONPOSITIVE"),
        (-5.0, 1.0, "NONPOSITIVE"),
        (2.9, 1.0, "INSIGNIFICANT"),
        (3.0, 1.0, "OK"),
        (1.0, np.nan, "OK"),
    ],
)
def test_exposures_without_a_sky_level_say_why_they_are_left_out(scale, sigma, status):
    assert sky_level_status(scale, sigma).name == status
    transforms, shapes = mosaic(1, 1)
    image = background_of(lambda x, y: 0 * x * y + 10.0, transforms[0], shapes[0])
    model = focal_plane_background(
        {0: image}, transforms, parameters=FocalPlaneParameters(cell_size=(2.0, 2.0))
    )
    residual = sky_frame_residual(image, model, transforms[0], scale=scale, scale_sigma=sigma)
    assert int(residual["sky_status"]) == v.SkyLevelStatus[status]
    assert bool(np.isfinite(residual["level"]).all()) == (status == "OK")


def test_equal_weights_give_the_clipped_mean_of_each_bin():
    _, levels = noisy((15, 4, 5))
    levels[3, 2, 2] = 0.5
    levels[5, 1, 1] = np.nan
    frame = average_backgrounds(residuals_of(levels), parameters=EQUAL)
    for index in np.ndindex(4, 5):
        expected = clipped_moments(levels[(slice(None), *index)].astype(np.float32))
        assert float(frame["level"][index]) == pytest.approx(expected.mean, rel=1e-6)
        assert int(frame["exposure_count"][index]) == expected.count_used
        assert int(frame["clipped_count"][index]) == expected.count - expected.count_used
        variance = expected.variance / expected.count_used
        assert float(frame["variance"][index]) == pytest.approx(variance, rel=1e-5)


def test_weights_are_those_of_least_variance():
    _, levels = noisy((8, 3, 3), sigma=0.0)
    rng = np.random.default_rng(3)
    variance = np.repeat(10 ** rng.uniform(-7, -5, 8), 9).reshape(8, 3, 3)
    levels = levels + np.sqrt(variance) * rng.uniform(-1, 1, levels.shape)
    frame = average_backgrounds(residuals_of(levels, variance))
    w = 1 / variance.astype(np.float32).astype(float)
    expected = (w * levels.astype(np.float32)).sum(axis=0) / w.sum(axis=0)
    np.testing.assert_allclose(frame["level"], expected, rtol=1e-5)
    np.testing.assert_allclose(frame["variance"], 1 / w.sum(axis=0), rtol=1e-5)
    assert float(frame["extra_scatter"]) == 1.0


def test_more_scatter_than_the_variances_say_raises_the_errors():
    _, levels = noisy((24, 20, 20), sigma=3e-3)
    frame = average_backgrounds(residuals_of(levels, 1e-6))
    assert float(frame["extra_scatter"]) == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(frame["variance"], 9e-6 / 24, rtol=0.2)


@pytest.mark.parametrize("weights", ["equal", "inverse_variance"])
def test_a_ghost_in_three_exposures_is_rejected(weights):
    truth, levels = noisy((24, 16, 16), sigma=1e-3)
    ghost = np.s_[4:9, 4:9]
    levels[np.ix_([2, 9, 17], np.arange(4, 9), np.arange(4, 9))] += 0.03
    frame = average_backgrounds(residuals_of(levels), parameters=AverageParameters(weights=weights))
    error = frame["level"].values - truth
    outside = np.ones(truth.shape, bool)
    outside[ghost] = False
    assert np.sqrt(np.mean(error[ghost] ** 2)) <= 2.0 * np.sqrt(np.mean(error[outside] ** 2))
    plain = levels.mean(axis=0) - truth
    assert np.sqrt(np.mean(plain[ghost] ** 2)) > 5.0 * np.sqrt(np.mean(plain[outside] ** 2))


def test_bins_never_observed_are_filled_and_say_so():
    _, levels = noisy((9, 6, 8))
    levels[:, 2:4, 3] = np.nan
    levels[1:, 0, 0] = np.nan
    residuals = residuals_of(levels)
    frame = average_backgrounds(residuals)
    filled = (frame["flags"].values & v.BinFlag.FILLED) != 0
    assert filled.sum() == 2
    assert filled[2:4, 3].all()
    assert (frame["flags"].values[2:4, 3] == v.BinFlag.FILLED | v.BinFlag.EMPTY).all()
    around = frame["level"].values[1:5, 2:5]
    assert around.min() <= frame["level"].values[2, 3] <= around.max()
    assert np.isnan(frame["variance"].values[filled]).all()
    assert (frame["exposure_count"].values[filled] == 0).all()
    # a bin that was seen once keeps its value, and the error of that
    assert frame["level"].values[0, 0] == np.float32(levels[0, 0, 0])
    assert frame["flags"].values[0, 0] == v.BinFlag.LOW_COUNT
    assert frame["variance"].values[0, 0] == pytest.approx(1e-6, rel=0.6)
    compat = average_backgrounds(residuals, parameters=EQUAL)
    median = np.median(compat["level"].values[~filled])
    np.testing.assert_allclose(compat["level"].values[filled], median, rtol=1e-6)
    none = average_backgrounds(residuals, parameters=AverageParameters(fill="none"))
    assert np.isnan(none["level"].values[filled]).all()


def test_a_detector_never_observed_is_empty():
    frame = average_backgrounds(residuals_of(np.full((4, 3, 3), np.nan)))
    assert np.isnan(frame["level"]).all()
    assert (frame["flags"] == v.BinFlag.EMPTY).all()
    assert (frame["exposure_count"] == 0).all()


def test_without_variances_weights_are_equal_and_errors_come_from_the_scatter():
    _, levels = noisy((10, 4, 4))
    residuals = residuals_of(levels)
    plain = average_backgrounds(residuals.drop_vars("variance"))
    equal = average_backgrounds(residuals, parameters=EQUAL)
    np.testing.assert_allclose(plain["level"], equal["level"], rtol=1e-6)
    np.testing.assert_allclose(plain["variance"], equal["variance"], rtol=1e-6)


def test_bad_variances_drop_a_bin_from_weighted_averages_only():
    _, levels = noisy((6, 2, 2))
    variance = np.full(levels.shape, 1e-6)
    variance[0, 0, 0], variance[1, 0, 0] = 0.0, np.nan
    weighted = average_backgrounds(residuals_of(levels, variance))
    without = levels.copy()
    without[:2, 0, 0] = np.nan
    expected = average_backgrounds(residuals_of(without))
    np.testing.assert_array_equal(weighted["level"], expected["level"])
    equal = average_backgrounds(residuals_of(levels, variance), parameters=EQUAL)
    assert int(equal["exposure_count"][0, 0] + equal["clipped_count"][0, 0]) == 6


def test_the_order_of_exposures_makes_no_difference():
    _, levels = noisy((11, 5, 5))
    residuals = residuals_of(levels)
    for parameters in (None, EQUAL):
        base = average_backgrounds(residuals, parameters=parameters)
        turned = average_backgrounds(
            residuals.isel(exposure=slice(None, None, -1)), parameters=parameters
        )
        np.testing.assert_allclose(turned["level"], base["level"], rtol=1e-6)
        np.testing.assert_array_equal(turned["exposure_count"], base["exposure_count"])


def test_a_sequence_a_stack_and_a_lazy_stack_of_detectors_agree():
    _, levels = noisy((2, 7, 5, 6))
    residuals = residuals_of(levels, lead=("detector", "exposure"), box=[0, 40, 0, 48])
    residuals = residuals.assign_coords(detector=["a", "b"], exposure=np.arange(7))
    copy = residuals.copy(deep=True)
    eager = average_backgrounds(residuals)
    lazy = average_backgrounds(residuals.chunk({"detector": 1, "exposure": 2, "bin_y": 2}))
    assert lazy["level"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), eager)
    xr.testing.assert_identical(residuals, copy)
    parts = [residuals.isel(exposure=k) for k in range(7)]
    xr.testing.assert_identical(average_backgrounds(parts), eager)
    one = average_backgrounds([part.isel(detector=1) for part in parts])
    np.testing.assert_array_equal(one["level"], eager["level"].isel(detector=1))
    assert eager.attrs["box"] == [0, 40, 0, 48]


def test_inputs_of_residuals_stay_as_they_were():
    transforms, shapes = mosaic(1, 2)
    images = backgrounds_of(
        lambda x, y: 100.0 + x, transforms, shapes, noise=1.0, rng=np.random.default_rng(4)
    )
    copies = {name: item.copy(deep=True) for name, item in images.items()}
    exposure_residuals(images, transforms)
    for name in images:
        xr.testing.assert_identical(images[name], copies[name])


def test_misuse_is_named():
    _, levels = noisy((3, 4, 4))
    parts = [
        residuals_of(level, lead=()).assign_coords(exposure=f"e{k}")
        for k, level in enumerate(levels)
    ]
    with pytest.raises(ConfigurationError, match="residuals is empty"):
        average_backgrounds([])
    with pytest.raises(ConfigurationError, match="no exposure"):
        average_backgrounds(residuals_of(levels[:0]))
    with pytest.raises(ConfigurationError, match="dimension exposure"):
        average_backgrounds(parts[0])
    with pytest.raises(GeometryError, match="e1"):
        average_backgrounds([parts[0], parts[1].isel(bin_x=slice(3)), parts[2]])
    with pytest.raises(GeometryError, match=r"e2.*box"):
        average_backgrounds([*parts[:2], parts[2].assign_attrs(box=[1, 33, 0, 32])])
    with pytest.raises(ConfigurationError, match="2 layers"):
        average_backgrounds([parts[0].expand_dims(layer=2), parts[1]])
    with pytest.raises(ValueError, match="clip"):
        AverageParameters(clip=0.0)
    transforms, shapes = mosaic(1, 1)
    image = background_of(lambda x, y: 0 * x * y + 10.0, transforms[0], shapes[0])
    model = exposure_residuals({0: image.assign(variance=0 * image["level"] + 1)}, transforms).model
    with pytest.raises(ValueError, match="scale is needed"):
        sky_frame_residual(image, model.drop_vars("scale"), transforms[0])


def test_residuals_of_several_detectors_or_filters_or_of_one_exposure_twice_are_refused():
    _, levels = noisy((3, 4, 4))
    parts = [
        residuals_of(level, lead=()).assign_coords(exposure=k, detector="A", physical_filter="r")
        for k, level in enumerate(levels)
    ]
    frame = average_backgrounds(parts)
    assert (frame["detector"].item(), frame["physical_filter"].item()) == ("A", "r")
    whole = xr.concat(parts, dim="exposure")
    assert average_backgrounds(whole)["detector"].item() == "A"
    mixed = [parts[0], parts[1].assign_coords(detector="B"), parts[2]]
    several = whole.assign_coords(detector=("exposure", ["A", "B", "A"]))
    for residuals in (mixed, several):
        with pytest.raises(ConfigurationError, match="detectors: 'A', 'B'; residual 1 is of 'B'"):
            average_backgrounds(residuals)
    with pytest.raises(ConfigurationError, match="several filters: 'i', 'r'"):
        average_backgrounds([*parts[:2], parts[2].assign_coords(physical_filter="i")])
    twice = [parts[0], parts[1], parts[1]]
    for residuals in (twice, xr.concat(twice, dim="exposure")):
        with pytest.raises(ConfigurationError, match=r"more than once: 1 \(2 times\)"):
            average_backgrounds(residuals)
    # who does not say it is taken for what it is given as
    silent = [parts[0].drop_vars(["detector", "physical_filter"]), *parts[1:]]
    assert average_backgrounds(silent)["detector"].item() == "A"
