"""Rendered backgrounds: identities, stated values, failures."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    bin_edges,
    evaluate_background,
    fill_bad,
    interpolation_matrix,
    measure_background,
    render_background,
)
from skyloom.algorithms.errors import (
    ConfigurationError,
    EmptyBackgroundWarning,
    GeometryError,
    ReducedInterpolationWarning,
)
from tests.algorithms.background.scenes import STYLES, bins_of, image_of, random_bins

BEYOND = ("limit", "reference", "nearest", "nan")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("beyond", BEYOND)
@pytest.mark.parametrize("holes", [False, True])
def test_a_part_has_the_bits_of_the_whole(style, beyond, holes):
    given = random_bins()
    if holes:
        level = given["level"].values.copy()
        level[[0, 3, 3, 6], [0, 3, 4, 8]] = np.nan
        level[:, 6] = np.nan
        given["level"] = given["level"].copy(data=level)
    whole = render_background(given, interpolation=style, extrapolate=beyond)
    for box in ((3, 51, 17, 93), (69, 70, 0, 1), (0, 70, 92, 93)):
        part = render_background(given, interpolation=style, extrapolate=beyond, box=box)
        expected = whole.isel(y=slice(*box[:2]), x=slice(*box[2:]))
        xr.testing.assert_identical(part, expected)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("origin", [(1000, 500), (-100, -999)])
def test_the_origin_changes_nothing_but_coordinates(style, origin):
    y, x = origin
    moved = random_bins(box=(y, y + 70, x, x + 93))
    here, there = (
        render_background(given, interpolation=style) for given in (random_bins(), moved)
    )
    np.testing.assert_array_equal(here, there)
    assert there["y"].values[0] == y
    assert there["x"].values[-1] == x + 92


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("beyond", BEYOND[:3])
def test_a_constant_stays_that_constant(style, beyond):
    level = np.full((6, 7), 3.7)
    level[2, 3] = level[0, 0] = np.nan
    level[:, 5] = np.nan
    given = bins_of(level, (0, 50, 0, 51))
    for fill in ("column", "harmonic"):
        image = render_background(given, interpolation=style, extrapolate=beyond, nan_fill=fill)
        np.testing.assert_allclose(image, 3.7, rtol=1e-6)


@pytest.mark.parametrize("style", STYLES)
def test_adding_a_level_to_every_bin_adds_it_to_the_image(style):
    given = random_bins()
    raised = given.assign(level=given["level"] + np.float32(123.0))
    difference = render_background(raised, interpolation=style).astype(float) - render_background(
        given, interpolation=style
    )
    np.testing.assert_allclose(difference, 123.0, atol=3e-5)
    assert float(difference.mean()) == pytest.approx(123.0, rel=1e-7)


def test_a_rendered_image_is_the_product_of_two_cardinal_matrices():
    given = random_bins()
    y = interpolation_matrix(10 * np.arange(7) + 4.5, np.arange(70), reach=5.0)
    edges = bin_edges(93, 9)
    x = interpolation_matrix((edges[1:] + edges[:-1] - 1) / 2, np.arange(93), reach=93 / 18)
    expected = y @ given["level"].values.astype(float) @ x.T
    np.testing.assert_allclose(render_background(given), expected, rtol=1e-7)


def test_lazy_and_eager_images_are_the_same():
    given = xr.concat([random_bins(seed=1), random_bins(seed=2)], dim="detector")
    lazy = render_background(given.chunk({"detector": 1, "bin_x": 4}))
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), render_background(given))


def test_nothing_that_is_given_changes():
    given = random_bins()
    before = given.copy(deep=True)
    render_background(given, nan_fill="harmonic")
    xr.testing.assert_identical(given, before)


def test_a_ramp_is_measured_and_rendered_exactly():
    y, x = np.mgrid[:512, :512]
    image = image_of(0.1 * x + 0.2 * y + 10000)
    found = render_background(measure_background(image, bins=(6, 6), clip=20.0, iterations=1))
    np.testing.assert_allclose(found / image, 1.0, atol=1e-6)


def test_a_parabola_is_met_at_the_centres_of_bins():
    y, x = np.mgrid[:512, :512]
    image = image_of(1e-4 * (x**2 + y**2) + 0.1 * x + 0.2 * y + 10)
    background = measure_background(image, bins=(24, 24), clip=10.0, iterations=1)
    found = render_background(background)
    near = {
        "y": np.rint(background["bin_y"].values).astype(int),
        "x": np.rint(background["bin_x"].values).astype(int),
    }
    difference = (found - image).isel(near)
    assert float(np.abs(difference).max()) < 0.5


def test_a_tent_two_pixels_wide_is_met_everywhere():
    # 2 wide, 99 high: a ramp up to row 89, then down
    y = np.arange(99)
    image = image_of(np.repeat(np.where(y < 90, y, 178 - y)[:, None], 2, axis=1))
    background = measure_background(image, bins=(10, 2))
    assert float(np.abs(render_background(background, interpolation="linear") - image).max()) < 5


def test_one_bin_is_a_constant_image():
    y, x = np.mgrid[:64, :64]
    background = measure_background(image_of(0.1 * x + 0.2 * y + 100), bins=(1, 1))
    with pytest.warns(ReducedInterpolationWarning, match="constant"):
        image = render_background(background)
    np.testing.assert_allclose(image, 100 + 0.3 * 31.5, rtol=1e-7)


def test_two_by_two_bins_are_rendered_by_straight_lines():
    given = random_bins(2, 2)
    with pytest.warns(ReducedInterpolationWarning, match="linear"):
        reduced = render_background(given)
    xr.testing.assert_equal(reduced, render_background(given, interpolation="linear"))
    with pytest.raises(ConfigurationError, match="natural_spline needs 3 bins"):
        render_background(given, undersampling="throw")


@pytest.mark.parametrize("beyond", BEYOND)
def test_each_axis_is_reduced_on_its_own_unless_told_otherwise(beyond):
    given = random_bins(20, 1, (0, 200, 0, 10))
    with pytest.warns(ReducedInterpolationWarning):
        own = render_background(given, extrapolate=beyond)
    along = interpolation_matrix(
        10 * np.arange(20) + 4.5, np.arange(200), extrapolate=beyond, reach=5.0
    )
    expected = along @ given["level"].values[:, 0].astype(float)
    np.testing.assert_allclose(own.values[:, 5], expected, rtol=1e-6)
    with pytest.warns(ReducedInterpolationWarning):
        joint = render_background(given, reduce="joint", extrapolate=beyond)
    # a staircase
    np.testing.assert_array_equal(joint.values[:, 5], np.repeat(given["level"].values[:, 0], 10))


def corner_bin_lost():
    """Return an image 15 wide, 9 high and its 3 pixel bins, that in the far corner empty."""
    y = np.arange(9.0)
    pixels = np.repeat((1 + 2 * y)[:, None], 15, axis=1)
    image = image_of(np.where((np.arange(15) >= 12) & (y[:, None] >= 6), np.nan, pixels))
    return image_of(pixels), measure_background(image, bin_size=(3, 3))


def test_a_column_short_of_bins_is_reduced_alone():
    image, background = corner_bin_lost()
    found = render_background(background, extrapolate="reference")
    assert float((image - found).mean()) == 0.0
    with pytest.raises(ConfigurationError, match="finite bins in every row and column"):
        render_background(background, undersampling="throw")


def test_beyond_the_last_good_bin_of_a_column_the_level_is_held_by_default():
    image, background = corner_bin_lost()
    found = render_background(background, interpolation="linear")
    # the last good centre is row 4; half a bin beyond it the ramp has reached 12
    np.testing.assert_allclose(found.values[6:, 13], 12.0, rtol=1e-6)
    np.testing.assert_array_equal(found.values[:, 6], image.values[:, 6])


@pytest.mark.parametrize("style", STYLES)
def test_without_a_limit_the_curve_continues(style):
    given = random_bins(5, 6)
    given["level"][:, 4:] = np.nan
    reference = render_background(given, interpolation=style, extrapolate="reference")
    for beyond in ("limit", "nan"):
        unlimited = render_background(
            given, interpolation=style, extrapolate=beyond, max_extrapolation=np.inf
        )
        xr.testing.assert_identical(unlimited, reference)


@pytest.mark.parametrize("origin", [-92, -15, 0, 7])
def test_the_centre_of_the_last_bin_belongs_to_it_at_any_origin(origin):
    # near zero the number after a centre is closer to it than offsets from the origin can tell
    given = random_bins(3, 7, (0, 9, origin, origin + 119))
    found = render_background(given, extrapolate="nan", max_extrapolation=0.0)
    assert np.flatnonzero(np.isfinite(found.values[4])).tolist() == list(range(8, 111))


@pytest.mark.parametrize("style", STYLES)
def test_one_good_pixel_gives_a_constant_image_of_its_value(style):
    pixels = np.full((200, 500), np.nan)
    pixels[150, 300] = 4.5
    background = measure_background(image_of(pixels), bins=(17, 17))
    assert (render_background(background, interpolation=style) == 4.5).all()


@pytest.mark.parametrize("style", STYLES)
def test_nothing_good_is_nan_with_a_warning(style):
    background = measure_background(image_of(np.full((200, 500), np.nan)), bins=(17, 17))
    assert (background["flags"] == v.BinFlag.EMPTY).all()
    with pytest.warns(EmptyBackgroundWarning, match="1 of 1"):
        image = render_background(background, interpolation=style)
    assert image.isnull().all()


def test_one_bad_detector_does_not_spoil_the_others():
    given = xr.concat([random_bins(seed=1), random_bins(seed=2)], dim="detector")
    given["level"][0] = np.nan
    with pytest.warns(EmptyBackgroundWarning, match="1 of 2"):
        images = render_background(given)
    assert images.isel(detector=0).isnull().all()
    xr.testing.assert_equal(images.isel(detector=1), render_background(given.isel(detector=1)))


def test_only_harmonic_filling_treats_both_axes_alike():
    given = random_bins(8, 8, (0, 64, 0, 64))
    given["level"][[2, 3, 5], [4, 4, 1]] = np.nan
    turned = given.assign(level=given["level"].copy(data=given["level"].values.T))
    for fill, alike in (("harmonic", True), ("column", False)):
        one = render_background(given, nan_fill=fill).values
        other = render_background(turned, nan_fill=fill).values.T
        assert np.allclose(one, other, rtol=1e-6) == alike


def test_harmonic_filling_is_that_of_the_grid():
    given = random_bins()
    given["level"][2:4, 3:6] = np.nan
    filled, _ = fill_bad(given["level"].values)
    image = render_background(given, nan_fill="harmonic")
    expected = render_background(bins_of(filled, given.attrs["box"]))
    np.testing.assert_allclose(image, expected, rtol=1e-6)


def test_pixels_and_positions_agree():
    given = random_bins()
    given["level"][2, 3] = np.nan
    for style in STYLES:
        image = render_background(given, interpolation=style)
        found = evaluate_background(given, np.arange(70), np.arange(93), interpolation=style)
        np.testing.assert_array_equal(found.values.astype(np.float32), image.values)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"box": (0, 71, 0, 10)}, GeometryError, "part of"),
        ({"box": (0, 0, 0, 10)}, GeometryError, "part of"),
        ({"box": (0, 10)}, GeometryError, "y_start, y_stop"),
        ({"shape": (70, 90)}, GeometryError, "differs"),
        ({"interpolation": "cubic"}, ConfigurationError, "interpolation must be one of"),
        ({"extrapolate": "far"}, ConfigurationError, "extrapolate must be one of"),
        ({"undersampling": "skip"}, ConfigurationError, "undersampling must be one of"),
        ({"reduce": "none"}, ConfigurationError, "reduce must be one of"),
        ({"nan_fill": "row"}, ConfigurationError, "nan_fill must be one of"),
        ({"max_extrapolation": -1.0}, ConfigurationError, "max_extrapolation must be >= 0"),
    ],
)
def test_misuse_is_named_before_anything_is_computed(arguments, error, text):
    with pytest.raises(error, match=text):
        render_background(random_bins().chunk(), **arguments)


@pytest.mark.parametrize(
    ("wavelength", "residual"), [(3, 0.232), (4, 0.113), (6, 0.047), (8, 0.026), (12, 0.011)]
)
def test_structures_stay_out_of_the_background_as_published(wavelength, residual):
    bins, size = 60, 16
    x = np.arange(bins * size)
    remaining = []
    for phase in np.linspace(0, 2 * np.pi, 6, endpoint=False):
        wave = np.sin(2 * np.pi * x / (wavelength * size) + phase)
        level = wave.reshape(1, bins, size).mean(axis=2)
        with pytest.warns(ReducedInterpolationWarning):
            model = render_background(bins_of(level, (0, 1, 0, x.size))).values[0]
        inner = slice(12 * size, -12 * size)
        remaining.append(np.std((wave - model)[inner]) / np.std(wave[inner]))
    assert np.mean(remaining) == pytest.approx(residual, abs=0.0015)
