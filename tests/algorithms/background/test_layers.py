"""Backgrounds that add up, and backgrounds at chosen positions."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    BackgroundLayer,
    chebyshev_image,
    evaluate_background,
    fit_background,
    join_layers,
    measure_background,
    render_background,
    render_layers,
    scale_background,
    split_layers,
    subtract_from_bins,
    sum_layers,
)
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from tests.algorithms.background.scenes import bins_of, exposure, image_of, random_bins

BOX = (0, 70, 0, 93)


def test_layers_add_up_whatever_their_bins():
    coarse, fine = random_bins(3, 4, seed=1), random_bins(14, 18, seed=2)
    layers = [(coarse, "natural_spline"), BackgroundLayer(fine, "akima")]
    total = render_layers(layers, (70, 93))
    expected = render_background(coarse) + render_background(fine, interpolation="akima")
    np.testing.assert_array_equal(total, expected)
    assert total.attrs["units"] == "electron"
    part = render_layers(layers, box=(5, 20, 30, 60))
    np.testing.assert_array_equal(part, total.values[5:20, 30:60])


def test_a_layer_times_minus_one_undoes_it():
    layer = BackgroundLayer(random_bins())
    undone = layer._replace(background=scale_background(layer.background, -1.0))
    assert (render_layers([layer, undone]) == 0).all()


def test_scaling_keeps_everything_else():
    given = measure_background(exposure())
    before = given.copy(deep=True)
    doubled = scale_background(given, 2.0)
    np.testing.assert_array_equal(doubled["level"], 2 * given["level"])
    np.testing.assert_array_equal(doubled["variance"], 4 * given["variance"])
    assert doubled["level"].dtype == np.float32
    assert doubled["level"].attrs == given["level"].attrs
    xr.testing.assert_identical(
        doubled.drop_vars(["level", "variance", "pixel_variance"]),
        given.drop_vars(["level", "variance", "pixel_variance"]),
    )
    xr.testing.assert_identical(given, before)
    lazy = scale_background(given.chunk(), 2.0)
    xr.testing.assert_identical(lazy.compute(), doubled)


def test_equal_bins_are_summed_in_bins():
    one, other = measure_background(exposure(seed=1)), measure_background(exposure(seed=2))
    other["flags"][0, 0] = v.BinFlag.LOW_COUNT
    total = sum_layers([(one, "linear"), (other, "linear")])
    image = render_layers([(one, "linear"), (other, "linear")])
    np.testing.assert_allclose(render_background(total, interpolation="linear"), image, rtol=1e-6)
    np.testing.assert_allclose(total["variance"], one["variance"] + other["variance"], rtol=1e-6)
    np.testing.assert_array_equal(total["count"], np.minimum(one["count"], other["count"]))
    assert int(total["flags"][0, 0]) == v.BinFlag.LOW_COUNT
    assert total.attrs == one.attrs


def test_unlike_bins_are_not_summed_in_bins():
    with pytest.raises(GeometryError, match="different bins"):
        sum_layers([(random_bins(), "linear"), (random_bins(8, 9), "linear")])
    # 47 pixels are one bin of 32 by one rule and two by the other
    image = image_of(np.ones((47, 47)))
    one, other = (measure_background(image, grid_rule=rule) for rule in ("nearest", "ceil"))
    with pytest.raises(GeometryError, match=r"nearest.*ceil"):
        sum_layers([(one, "linear"), (other, "linear")])
    with pytest.raises(ConfigurationError, match="linear in the bins"):
        sum_layers([(random_bins(), "linear"), (random_bins(), "natural_spline")])
    with pytest.raises(ConfigurationError, match="akima"):
        sum_layers([(random_bins(), "akima")])
    with pytest.raises(ConfigurationError, match="at least one"):
        sum_layers([])


def test_layers_of_different_boxes_are_refused():
    layers = [(random_bins(), "linear"), (random_bins(box=(0, 70, 0, 94)), "linear")]
    with pytest.raises(GeometryError, match="share a box"):
        render_layers(layers)
    with pytest.raises(GeometryError, match="differs"):
        render_layers(layers[:1], (70, 94))


def test_a_layer_may_be_a_polynomial():
    given = random_bins().assign(variance=(("bin_y", "bin_x"), np.ones((7, 9), np.float32)))
    image = render_layers([BackgroundLayer(given, order=2), (given, "linear")])
    expected = chebyshev_image(fit_background(given, 2)) + render_background(
        given, interpolation="linear"
    )
    np.testing.assert_array_equal(image, expected)
    assert image.attrs["units"] == "electron"


def test_layers_are_kept_together_and_taken_apart_again():
    layers = [
        BackgroundLayer(random_bins(seed=1), "akima", "throw"),
        BackgroundLayer(random_bins(seed=2), order=(2, 3), weighted=False),
        BackgroundLayer(random_bins(seed=3), order=4),
    ]
    joined = join_layers(layers)
    assert joined["level"].dims == ("layer", "bin_y", "bin_x")
    for before, after in zip(layers, split_layers(joined), strict=True):
        assert after[1:] == before[1:]
        xr.testing.assert_identical(after.background, before.background)
    with pytest.raises(GeometryError, match="different"):
        join_layers([layers[0], BackgroundLayer(random_bins(8, 9))])
    with pytest.raises(ConfigurationError, match="dimension layer"):
        split_layers(random_bins())


def test_positions_between_pixels_are_interpolated():
    given = random_bins()
    found = evaluate_background(given, [0.0, 0.5, 1.0], [10.0, 10.25], interpolation="linear")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[1], 0.5 * (found[0] + found[2]), rtol=1e-12)
    lazy = evaluate_background(
        given.chunk(), [0.0, 0.5, 1.0], [10.0, 10.25], interpolation="linear"
    )
    xr.testing.assert_identical(lazy.compute(), found)
    with pytest.raises(ConfigurationError, match="y must ascend"):
        evaluate_background(given, [1.0, 0.0], [0.0])


def test_bins_less_a_model_are_the_bins_of_pixels_less_the_model():
    # a model that varies by 0.3 pixel sigmas across a bin of 32 pixels
    rng = np.random.default_rng(1)
    x = np.mgrid[:512, :512][1]
    slope = 0.3 * 10.0 / 32
    model = measure_background(image_of(slope * x), bin_size=(32, 32), clip=20.0)
    image = image_of(rng.normal(50.0, 10.0, x.shape) + slope * x)
    before = measure_background(image)
    found = subtract_from_bins(before, model)
    after = measure_background(image - render_background(model))
    difference = (found["level"] - after["level"]) / np.sqrt(after["variance"])
    assert float(np.sqrt((difference**2).mean())) < 0.15
    np.testing.assert_allclose(found["model_range"], 0.3 * 31 / 32, rtol=0.15)
    assert "model_range" not in before


def test_a_model_must_cover_the_bins():
    given = bins_of(np.zeros((2, 2)), (0, 80, 0, 80))
    with pytest.raises(GeometryError, match="the model covers"):
        subtract_from_bins(given, random_bins())


def test_the_range_of_a_model_is_unknown_where_the_noise_is():
    given = bins_of(
        np.zeros((2, 2)), (0, 4, 0, 4), pixel_variance=np.array([[1.0, 0.0], [np.nan, 4.0]])
    )
    flat = subtract_from_bins(
        given, bins_of(np.full((2, 2), 5.0), (0, 4, 0, 4)), interpolation="linear"
    )
    assert flat["level"].values.tolist() == [[-5.0, -5.0], [-5.0, -5.0]]
    np.testing.assert_array_equal(flat["model_range"], [[0.0, 0.0], [np.nan, 0.0]])
    steep = subtract_from_bins(
        given, bins_of([[0.0, 2.0], [0.0, 2.0]], (0, 4, 0, 4)), interpolation="linear"
    )
    np.testing.assert_array_equal(steep["model_range"], [[1.0, np.inf], [np.nan, 0.5]])
