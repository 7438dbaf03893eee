"""Layers, and sky frames and fits taken off exposures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.background import render_background
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.sky.layers import Layer, render_layer, smooth_layer, subtract_layers
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters, SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.sky.subtraction import SkyFrameWarning, subtract_fit, subtract_sky_frame
from tests.algorithms.sky.scenes import Mosaic, frame_of, low_frequency_pattern

SHAPE = (96, 128)


@pytest.fixture
def frame():
    return frame_of(low_frequency_pattern(SHAPE, np.random.default_rng(1)), noise=1e-4,
                    rng=np.random.default_rng(2))  # fmt: skip


@pytest.fixture
def exposure():
    rng = np.random.default_rng(3)
    image = rng.normal(1000.0, 30.0, SHAPE).astype(np.float32)
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": "electron"}),
            "variance": (("y", "x"), np.full(SHAPE, 900.0, np.float32), {"units": "electron2"}),
            "mask": (("y", "x"), rng.integers(0, 4, SHAPE).astype(np.int32)),
        },
        coords={"detector": "D00", "exposure": 5},
        attrs={"instrument": "toy"},
    )


def polynomial_fit(degree, box=(-3.0, 5.0, -2.0, 4.0)):
    """Return a fit with all terms of a degree, of random size."""
    rng = np.random.default_rng(degree)
    terms = [(i, j) for j in range(degree + 1) for i in range(degree + 1 - j)]
    return xr.Dataset(
        {
            "coefficients": ("coefficient", rng.normal(0, 10, len(terms)), {"units": "electron"}),
            "scale": 0.0,
            "step": ("group", np.empty(0)),
        },
        coords={
            "degree_x": ("coefficient", [i for i, _ in terms]),
            "degree_y": ("coefficient", [j for _, j in terms]),
            "group": np.empty(0, "U1"),
        },
        attrs={"focal_box": list(box), "focal_box_units": "mm"},
    )


def test_a_scaled_frame_is_subtracted_and_becomes_the_last_layer(exposure, frame):
    first = Layer(frame, "linear")
    less, layers = subtract_sky_frame(exposure, frame, 2000.0, layers=[first])
    expected = exposure["image"].values - 2000.0 * render_background(frame).values
    np.testing.assert_allclose(less["image"], expected, atol=2e-4)
    assert layers[0] == first
    assert layers[1].interpolation == "natural_spline"
    assert layers[1].background["level"].attrs["units"] == "electron"
    np.testing.assert_allclose(layers[1].background["variance"], 4e6 * frame["variance"], rtol=1e-6)
    again = subtract_layers(exposure, layers[1:])
    np.testing.assert_array_equal(again["image"], less["image"])


def test_variance_mask_and_everything_else_stay_as_they_were(exposure, frame):
    copies = exposure.copy(deep=True), frame.copy(deep=True)
    less, _ = subtract_sky_frame(exposure, frame, 500.0)
    xr.testing.assert_identical(less.drop_vars("image"), exposure.drop_vars("image"))
    assert less["image"].attrs == exposure["image"].attrs
    assert less["image"].dtype == np.float32
    xr.testing.assert_identical(exposure, copies[0])
    xr.testing.assert_identical(frame, copies[1])


def test_an_image_alone_is_treated_as_an_exposure_is(exposure, frame):
    image, _ = subtract_sky_frame(exposure["image"], frame, 700.0)
    whole, _ = subtract_sky_frame(exposure, frame, 700.0)
    xr.testing.assert_identical(image, whole["image"])


def test_what_is_subtracted_can_be_added_again(exposure, frame):
    less, layers = subtract_sky_frame(exposure, frame, 3000.0)
    back, both = subtract_sky_frame(less, frame, -3000.0, layers=layers)
    np.testing.assert_array_max_ulp(back["image"].values, exposure["image"].values, 1)
    # the layers cancel altogether
    np.testing.assert_array_equal(subtract_layers(exposure, both)["image"], exposure["image"])


def test_a_stack_of_lazy_images_is_treated_image_by_image(exposure, frame):
    stack = xr.concat([exposure["image"], 2 * exposure["image"]], dim="exposure")
    stack = stack.assign_attrs(exposure["image"].attrs)
    lazy, _ = subtract_sky_frame(stack.chunk({"exposure": 1, "x": 50}), frame, 100.0)
    assert lazy.chunks is not None
    eager, _ = subtract_sky_frame(stack, frame, 100.0)
    xr.testing.assert_identical(lazy.compute(), eager)
    one, _ = subtract_sky_frame(stack[1], frame, 100.0)
    np.testing.assert_array_equal(eager[1], one)


def test_a_part_of_an_image_loses_the_same_part_of_the_frame(exposure, frame):
    placed = exposure.assign_coords(y=np.arange(SHAPE[0]), x=np.arange(SHAPE[1]))
    whole, _ = subtract_sky_frame(placed, frame, 900.0)
    box = {"y": slice(10, 60), "x": slice(33, 90)}
    part, _ = subtract_sky_frame(placed.isel(box), frame, 900.0)
    np.testing.assert_array_equal(part["image"], whole["image"].isel(box))


def test_a_scale_that_is_not_finite_changes_nothing_and_warns(exposure, frame):
    with pytest.warns(SkyFrameWarning, match="scale is nan"):
        same, layers = subtract_sky_frame(exposure, frame, np.nan)
    xr.testing.assert_identical(same, exposure)
    assert layers == ()


def test_a_detector_that_was_never_observed_loses_nothing(exposure, frame):
    empty = frame.assign(level=frame["level"] * np.nan)
    with pytest.warns(SkyFrameWarning, match="zeros"):
        same, layers = subtract_sky_frame(exposure, empty, 100.0)
    np.testing.assert_array_equal(same["image"], exposure["image"])
    np.testing.assert_array_equal(layers[0].background["level"], 0.0)
    with pytest.raises(NoUsableDataError, match="no value"):
        subtract_sky_frame(exposure, empty, 100.0, without_frame="raise")


def test_a_frame_of_another_size_is_refused(exposure, frame):
    with pytest.raises(GeometryError, match="sky frame only"):
        subtract_sky_frame(exposure, frame.assign_attrs(box=[0, 64, 0, 128]), 1.0)
    with pytest.raises(GeometryError, match="floating"):
        subtract_sky_frame(exposure["image"].astype(np.int32), frame, 1.0)


@pytest.mark.parametrize("degree", [0, 1, 2, 6])
@pytest.mark.parametrize("rotation", [0.0, 90.0, 33.0])
def test_the_smooth_layer_is_the_polynomial_itself(degree, rotation):
    fit = polynomial_fit(degree)
    transform = detector_transform(SHAPE, pixel_size=0.02, offset=(1.0, 2.0), rotation=rotation)
    layer = smooth_layer(fit, transform)
    box = (5, 5 + SHAPE[0], -7, -7 + SHAPE[1])
    y, x = np.mgrid[box[0] : box[1], box[2] : box[3]]
    focal_x, focal_y = to_focal_plane(transform, x, y)
    table = np.zeros((degree + 1, degree + 1))
    table[fit["degree_x"], fit["degree_y"]] = fit["coefficients"]
    expected = np.polynomial.chebyshev.chebval2d((focal_x - 1) / 4, (focal_y - 1) / 3, table)
    rendered = render_layer(layer, box)
    np.testing.assert_allclose(rendered, expected, atol=2e-6 * abs(expected).max())
    np.testing.assert_array_equal(rendered["y"], np.arange(box[0], box[1]))
    part = render_layer(layer, (8, 9, 0, 1))
    np.testing.assert_allclose(part, rendered.sel(y=[8], x=[0]), rtol=1e-6)


def test_a_fit_is_taken_off_with_its_smooth_part_and_step(exposure):
    mosaic = Mosaic((128, 128), (1, 3))
    frames = mosaic.frames()
    exact, samples = {}, []
    for index, name in enumerate(frames):
        image = 800.0 * render_background(frames[name]).values
        image = image + 500.0 * mosaic.smooth(name, (0.02, -0.01)) + 3.0 * (index == 1)
        exact[name] = xr.Dataset(
            {"image": (("y", "x"), image.astype(np.float32), {"units": "electron"})},
            coords={"detector": name},
        )
        samples.append(measure_scale(exact[name], frames[name], transform=mosaic.transforms[name]))
    fit = solve_scales(
        samples, parameters=SolveScaleParameters(steps="detector", loss="none", weights="equal")
    )
    np.testing.assert_allclose(fit["scale"], 800.0, rtol=1e-4)
    for name in frames:
        less, layers = subtract_fit(
            exact[name], fit, sky_frame=frames[name], transform=mosaic.transforms[name]
        )
        assert len(layers) == 2
        np.testing.assert_allclose(less["image"], 0.0, atol=8e-3)
        # types of detectors do not matter where each detector has a step of its own
        same, _ = subtract_fit(
            exact[name], fit, sky_frame=frames[name], transform=mosaic.transforms[name],
            detector_types=dict.fromkeys(frames, "deep"),
        )  # fmt: skip
        np.testing.assert_array_equal(same["image"], less["image"])
    with pytest.raises(GeometryError, match="transform"):
        subtract_fit(exact["D00"], fit, sky_frame=frames["D00"])
    with pytest.raises(KeyError, match="no step"):
        subtract_fit(exact["D00"], fit, transform=mosaic.transforms["D00"], detector="D77")


def test_the_smooth_part_of_a_fit_may_stay(exposure, frame):
    transform = detector_transform(SHAPE, pixel_size=0.01, offset=(1.0, -0.5))
    fit = polynomial_fit(2).assign(scale=40.0)
    alone, layers = subtract_fit(exposure, fit, sky_frame=frame, transform=transform, smooth=False)
    expected, _ = subtract_sky_frame(exposure, frame, 40.0)
    xr.testing.assert_identical(alone, expected)
    assert len(layers) == 1
    # neither transform nor step are needed then
    stepped = fit.drop_vars(["step", "group"]).assign(step=("group", [1.0]))
    stepped = stepped.assign_coords(group=["other"])
    again, _ = subtract_fit(exposure, stepped, sky_frame=frame, smooth=False)
    xr.testing.assert_identical(again, expected)
    with pytest.raises(ConfigurationError, match="nothing to subtract"):
        subtract_fit(exposure, fit, transform=transform, smooth=False)


def test_an_exact_sky_leaves_a_residual_of_rounding():
    pattern = low_frequency_pattern((128, 128), np.random.default_rng(9))
    frame = frame_of(pattern)
    image = 2000.0 * render_background(frame).values.astype(np.float64) + 150.0
    exposure = xr.DataArray(image, dims=("y", "x"), attrs={"units": "electron"})
    samples = measure_scale(
        exposure.to_dataset(name="image"), frame, parameters=MeasureScaleParameters()
    )
    fit = solve_scales(samples, parameters=SolveScaleParameters(order=0, loss="none"))
    np.testing.assert_allclose(fit["scale"], 2000.0, rtol=1e-8)
    less, _ = subtract_fit(exposure, fit, sky_frame=frame)
    assert float(abs(less).max()) < 1e-6 * 2000.0


def test_a_fit_without_data_subtracts_nothing_but_warns(exposure, frame):
    samples = measure_scale(exposure.assign(image=exposure["image"] * np.nan), frame)
    fit = solve_scales(samples)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same, layers = subtract_fit(exposure, fit, sky_frame=frame)
    assert {w.category for w in caught} == {SkyFrameWarning}
    np.testing.assert_array_equal(same["image"], exposure["image"])
    assert layers == ()
