"""What happens to exposures before they are warped."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.background import BackgroundLayer, measure_background, render_background
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.warp import BackgroundChange, calibrate_exposure, change_background
from tests.algorithms.warp.scenes import exposure_of


def exposure(shape=(192, 160)):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    found = exposure_of(rng.normal(100 + 0.2 * x + 0.1 * y, 5), 25.0)
    found["image"].attrs["units"] = "electron"
    return found


def ratio_of(image):
    return xr.full_like(image, 1.1, dtype=float)


def test_what_is_added_and_subtracted_again_leaves_no_trace():
    given = exposure()
    background = measure_background(given)
    for model in (
        background,
        [(background, "akima")],
        [BackgroundLayer(background, "linear"), BackgroundLayer(background)],
        render_background(background),
    ):
        changed = change_background(
            given, restored=model, subtracted=model, flat_ratio=ratio_of(given["image"]),
            parameters=BackgroundChange(restore=True, subtract=True, apply_ratio=True),
        )  # fmt: skip
        np.testing.assert_array_equal(changed["image"], given["image"])


def test_a_background_times_the_ratio_is_subtracted():
    given = exposure()
    background = measure_background(given)
    changed = change_background(
        given, subtracted=background, flat_ratio=1.1,
        parameters=BackgroundChange(subtract=True, apply_ratio=True),
    )  # fmt: skip
    expected = given["image"] - 1.1 * render_background(background).variable
    np.testing.assert_allclose(changed["image"], expected, atol=2e-5)
    assert changed["image"].attrs == given["image"].attrs
    xr.testing.assert_identical(changed["variance"], given["variance"])
    restored = change_background(
        changed, restored=background, flat_ratio=1.1,
        parameters=BackgroundChange(restore=True, apply_ratio=True),
    )  # fmt: skip
    np.testing.assert_allclose(restored["image"], given["image"], rtol=1e-6)


def test_lazy_stacks_and_eager_images_are_changed_alike_and_nothing_given_changes():
    given = exposure()
    background = measure_background(given)
    before = given.copy(deep=True), background.copy(deep=True)
    options = {
        "subtracted": background, "flat_ratio": ratio_of(given["image"]),
        "parameters": BackgroundChange(subtract=True, apply_ratio=True),
    }  # fmt: skip
    eager = change_background(given, **options)
    stack = xr.concat([given, given], dim="layer", coords="minimal").chunk({"y": 20})
    lazy = change_background(stack, **options)
    assert lazy["image"].chunks is not None
    for layer in range(2):
        np.testing.assert_array_equal(lazy["image"].isel(layer=layer), eager["image"])
    xr.testing.assert_identical(given, before[0])
    xr.testing.assert_identical(background, before[1])


@pytest.mark.parametrize(
    ("options", "given", "text"),
    [
        ({}, ("restored",), "restore is not set, but restored is given"),
        ({}, ("subtracted",), "subtract is not set, but subtracted is given"),
        ({"restore": True}, (), "restore is set, but restored is not given"),
        ({"subtract": True}, ("restored",), "restore is not set.*; subtract is set"),
        ({"subtract": True, "apply_ratio": True}, ("subtracted",), "flat_ratio is not given"),
        ({"subtract": True}, ("subtracted", "flat_ratio"), "apply_ratio is not set"),
        ({"apply_ratio": True}, ("flat_ratio",), "neither restore nor subtract"),
    ],
)
def test_what_is_given_must_be_asked_for_and_the_reverse(options, given, text):
    image = exposure()
    with pytest.raises(ConfigurationError, match=text):
        change_background(
            image, **{name: ratio_of(image["image"]) for name in given},
            parameters=BackgroundChange(**options),
        )  # fmt: skip


def test_shapes_must_fit_and_layers_exist():
    given = exposure()
    wanted = BackgroundChange(subtract=True)
    with pytest.raises(GeometryError, match="shape"):
        change_background(given, subtracted=given["image"][:5], parameters=wanted)
    with pytest.raises(ConfigurationError, match="no layers"):
        change_background(given, subtracted=[], parameters=wanted)
    assert change_background(given) is given


def test_fluxes_become_nanojansky_by_zero_point_or_scale():
    given = exposure()
    found = calibrate_exposure(given, zero_point=28.9)
    np.testing.assert_allclose(found["image"], 10 * given["image"], rtol=1e-6)
    np.testing.assert_allclose(found["variance"], 100 * given["variance"], rtol=1e-6)
    assert (found["image"].attrs["units"], found["variance"].attrs["units"]) == ("nJy", "nJy2")
    assert found["image"].dtype == np.float32
    np.testing.assert_array_equal(found["image"], calibrate_exposure(given, scale=10.0)["image"])
    # an AB magnitude of 8.9 is a jansky
    one = calibrate_exposure(given.assign(image=given["image"] * 0 + np.float32(1)), zero_point=8.9)
    np.testing.assert_allclose(one["image"], 1e9, rtol=1e-6)


def test_a_map_of_scales_calibrates_pixel_by_pixel_lazily_too():
    given = exposure()
    scale = xr.DataArray(np.linspace(1, 2, 192 * 160).reshape(192, 160), dims=("y", "x"))
    before = given.copy(deep=True)
    found = calibrate_exposure(given, scale=scale)
    np.testing.assert_allclose(found["image"], given["image"] * scale, rtol=1e-6)
    np.testing.assert_allclose(found["variance"], 25 * scale**2, rtol=1e-6)
    lazy = calibrate_exposure(given.chunk({"x": 50}), scale=scale)
    assert lazy["image"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)
    xr.testing.assert_identical(given, before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "either zero_point or scale"),
        ({"zero_point": 25.0, "scale": 1.0}, "either zero_point or scale"),
        ({"zero_point": np.nan}, "finite"),
        ({"scale": 0.0}, "positive"),
        ({"scale": np.inf}, "finite"),
        ({"scale": xr.DataArray(np.ones((2, 2)), dims=("y", "x"))}, "shape"),
    ],
)
def test_illegal_calibrations_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        calibrate_exposure(exposure(), **options)


def test_nothing_is_calibrated_twice():
    found = calibrate_exposure(exposure(), zero_point=25.0)
    with pytest.raises(ConfigurationError, match="already"):
        calibrate_exposure(found, zero_point=25.0)
