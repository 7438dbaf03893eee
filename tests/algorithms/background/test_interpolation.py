"""Interpolation in one dimension: stated values, peers, what happens beyond the knots."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator, CubicSpline

from skyloom.algorithms.background import interpolate, interpolation_matrix
from skyloom.algorithms.errors import ConfigurationError
from tests.algorithms.background.scenes import STYLES

KNOTS = np.arange(10.0)
PARABOLA = KNOTS**2 / 2 + KNOTS + 1


@pytest.mark.parametrize("seed", range(5))
def test_the_natural_spline_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, 100, 12)), rng.normal(size=12)
    at = np.linspace(x[0], x[-1], 500)
    expected = CubicSpline(x, y, bc_type="natural")(at)
    np.testing.assert_allclose(interpolate(x, y, at), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_akima_is_that_of_scipy_where_no_slopes_are_equal(seed):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, 100, 12)), rng.normal(size=12)
    at = np.linspace(x[0], x[-1], 500)
    expected = Akima1DInterpolator(x, y)(at)
    np.testing.assert_allclose(interpolate(x, y, at, "akima"), expected, rtol=1e-12, atol=1e-12)


def test_akima_keeps_a_corner_between_straight_lines_where_scipy_rounds_it():
    x, y = np.arange(8.0), np.array([0.0, 1, 2, 3, 3, 3, 3, 3])
    at = np.linspace(0, 7, 701)
    found = interpolate(x, y, at, "akima")
    np.testing.assert_allclose(found, np.minimum(at, 3.0), atol=1e-12)
    assert np.max(np.abs(found - Akima1DInterpolator(x, y)(at))) == pytest.approx(0.0741, abs=1e-4)


def test_akima_is_exact_for_parabolas_and_straight_lines():
    assert interpolate(KNOTS, PARABOLA, 4.5, "akima") == pytest.approx(15.625, abs=1e-12)
    at = np.linspace(-3, 12, 31)
    for style in ("akima", "linear", "natural_spline"):
        line = interpolate(KNOTS, 3 * KNOTS - 2, at, style, extrapolate="reference")
        np.testing.assert_allclose(line, 3 * at - 2, atol=1e-12)


def test_compatible_constant_averages_with_the_left_neighbour():
    y = [1, 2.4, 5, 8.4, 13, 18.4, 25, 32.6, 41, 50.6]
    expected = [1.0, 1.7, 3.7, 6.7, 10.7, 15.7, 21.7, 28.8, 36.8, 45.8, 50.6]
    found = interpolate(KNOTS, y, np.arange(11) - 0.5, "constant_compat")
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_constant_is_the_value_of_the_nearest_knot():
    y = np.arange(10.0) ** 2
    at = np.array([-7.0, -0.4, 0.4, 0.6, 3.49, 3.51, 9.4, 30.0])
    assert interpolate(KNOTS, y, at, "constant").tolist() == [0, 0, 0, 1, 9, 16, 81, 81]
    assert interpolate([5.0], [2.0], [0.0, 9.0], "constant_compat").tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("knots", "wanted", "used"),
    [
        (1, "akima", "constant"),
        (1, "natural_spline", "constant"),
        (2, "akima", "linear"),
        (2, "natural_spline", "linear"),
        (3, "akima", "natural_spline"),
        (4, "akima", "natural_spline"),
    ],
)
def test_too_few_knots_take_the_highest_style_they_allow(knots, wanted, used):
    rng = np.random.default_rng(knots)
    x, y, at = np.arange(knots) * 1.5, rng.normal(size=knots), np.linspace(-1, 7, 30)
    np.testing.assert_array_equal(interpolate(x, y, at, wanted), interpolate(x, y, at, used))
    with pytest.raises(ConfigurationError, match=f"{wanted} needs"):
        interpolate(x, y, at, wanted, undersampling="throw")


@pytest.mark.parametrize("style", STYLES)
def test_knots_without_a_value_are_left_out(style):
    y = np.random.default_rng(3).normal(size=10)
    y[[0, 4, 9]] = np.nan, np.inf, np.nan
    at = np.linspace(-1, 10, 50)
    good = np.isfinite(y)
    expected = interpolate(KNOTS[good], y[good], at, style, reach=0.5)
    np.testing.assert_array_equal(interpolate(KNOTS, y, at, style, reach=0.5), expected)


def test_nothing_known_gives_nan_and_so_does_a_position_that_is_none():
    assert np.isnan(interpolate([0.0, 1.0], [np.nan, np.nan], [0.5])).all()
    found = interpolate(KNOTS, PARABOLA, [np.nan, 1.0, np.inf])
    assert np.isnan(found).tolist() == [True, False, True]


@pytest.mark.parametrize("style", STYLES)
def test_constants_are_exact_and_rows_of_the_matrix_sum_to_one(style):
    at = np.linspace(-3, 12, 61)
    assert (interpolate(KNOTS, np.full(10, 0.1), at, style) == 0.1).all()
    if style != "akima":
        for policy in ("limit", "reference", "nearest"):
            matrix = interpolation_matrix(KNOTS, at, style, extrapolate=policy)
            assert matrix.shape == (61, 10)
            np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
            y = np.random.default_rng(1).normal(size=10)
            expected = interpolate(KNOTS, y, at, style, extrapolate=policy)
            np.testing.assert_allclose(matrix @ y, expected, atol=1e-12)


def test_akima_has_no_matrix():
    with pytest.raises(ConfigurationError, match="not linear"):
        interpolation_matrix(KNOTS, [0.5], "akima")


@pytest.mark.parametrize("style", ["linear", "natural_spline", "akima"])
def test_what_lies_beyond_the_knots_follows_the_policy(style):
    y = np.random.default_rng(5).normal(size=10)
    at = np.array([-3.0, -0.5, -0.25, 9.25, 9.5, 12.0])

    def found(policy):
        return interpolate(KNOTS, y, at, style, extrapolate=policy)

    reference = found("reference")
    assert found("nearest").tolist() == [y[0]] * 3 + [y[9]] * 3
    np.testing.assert_array_equal(found("nan")[1:5], reference[1:5])
    assert np.isnan(found("nan")[[0, 5]]).all()
    limited = found("limit")
    np.testing.assert_array_equal(limited[1:5], reference[1:5])
    np.testing.assert_allclose(limited[[0, 5]], reference[[1, 4]], rtol=1e-14)


def test_the_reference_continues_as_a_parabola_and_splines_as_lines():
    at = np.array([-2.0, -1.0, 0.0])
    akima = interpolate(KNOTS, PARABOLA, at, "akima", extrapolate="reference")
    # the slope of the last interval is extended, so that a parabola is not quite continued
    assert akima[2] == 1.0
    assert abs(np.diff(akima, 2)[0]) > 0.1
    natural = interpolate(KNOTS, PARABOLA, at, "natural_spline", extrapolate="reference")
    assert np.diff(natural, 2)[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("style", "published"),
    [
        ("akima", [2.2, 4.1, 9.3, 38, 126, 445, 2728]),
        ("natural_spline", [1.8, 2.9, 4.8, 11, 21, 41, 105]),
        ("linear", [1.6, 2.3, 3.6, 7.8, 15, 28, 71]),
    ],
)
def test_noise_is_amplified_beyond_the_knots_as_published(style, published):
    distances = np.array([0.5, 1, 2, 5, 10, 20, 50])
    rng = np.random.default_rng(2)
    values = [
        interpolate(KNOTS[:8], y, 7 + distances, style, extrapolate="reference")
        for y in rng.normal(size=(1000, 8))
    ]
    rms = np.sqrt(np.mean(np.square(values), axis=0))
    np.testing.assert_allclose(rms, published, rtol=0.08)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"style": "cubic"}, "constant, constant_compat, linear, natural_spline, akima"),
        ({"extrapolate": "far"}, "limit, reference, nearest, nan"),
        ({"undersampling": "ignore"}, "reduce, throw"),
        ({"knots": [0.0, 0.0]}, "ascend"),
        ({"knots": [0.0, np.nan]}, "finite"),
        ({"knots": []}, "not empty"),
        ({"knots": [1.0]}, "as long as"),
    ],
)
def test_misuse_is_named(arguments, text):
    given = {"knots": [0.0, 1.0], "values": [1.0, 2.0], "positions": [0.5]}
    if arguments.get("knots") == []:
        given["values"] = []
    with pytest.raises(ConfigurationError, match=text):
        interpolate(**(given | arguments))


def test_nothing_that_is_given_changes():
    x, y, at = KNOTS.copy(), np.where(KNOTS == 3, np.nan, KNOTS), np.array([0.5])
    before = x.copy(), y.copy(), at.copy()
    interpolate(x, y, at)
    for one, other in zip((x, y, at), before, strict=True):
        np.testing.assert_array_equal(one, other)
