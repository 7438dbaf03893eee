"""Rendered backgrounds: identities, stated values, failures."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import Akima1DInterpolator, CubicSpline

from skyloom.algorithms.background import (
    bin_edges,
    interpolate,
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

STYLES = ["constant", "constant_compat", "linear", "natural_spline", "akima"]


def background(level, box):
    """Return bins as a background."""
    return xr.Dataset({"level": (("bin_y", "bin_x"), np.asarray(level, np.float32))}).assign_attrs(
        box=list(box)
    )


def grid(bins_y=7, bins_x=9, box=(0, 70, 0, 93), seed=0):
    return background(np.random.default_rng(seed).normal(100.0, 5.0, (bins_y, bins_x)), box)


@pytest.mark.parametrize(
    ("width", "bins", "ends"),
    [
        (99, 10, [10, 20, 30, 40, 50, 59, 69, 79, 89, 99]),
        (100, 7, [14, 29, 43, 57, 71, 86, 100]),
    ],
)
def test_edges_spread_the_remainder(width, bins, ends):
    assert bin_edges(width, bins).tolist() == [0, *ends]


def test_splines_are_those_of_scipy():
    rng = np.random.default_rng(1)
    x, y = np.sort(rng.uniform(0, 100, 12)), rng.normal(size=12)
    at = np.linspace(x[0], x[-1], 500)
    natural = CubicSpline(x, y, bc_type="natural")(at)
    np.testing.assert_allclose(interpolate(x, y, at), natural, atol=1e-12)
    akima = Akima1DInterpolator(x, y)(at)
    np.testing.assert_allclose(interpolate(x, y, at, "akima"), akima, atol=1e-12)


def test_compatible_constant_averages_with_the_left_neighbour():
    x = np.arange(10.0)
    y = [1, 2.4, 5, 8.4, 13, 18.4, 25, 32.6, 41, 50.6]
    expected = [1.0, 1.7, 3.7, 6.7, 10.7, 15.7, 21.7, 28.8, 36.8, 45.8, 50.6]
    found = interpolate(x, y, np.arange(11) - 0.5, "constant_compat")
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("beyond", ["limit", "reference", "nearest", "nan"])
def test_a_part_has_the_bits_of_the_whole(style, beyond):
    given = grid()
    whole = render_background(given, interpolation=style, extrapolate=beyond)
    part = render_background(given, interpolation=style, extrapolate=beyond, box=(3, 51, 17, 93))
    xr.testing.assert_identical(part, whole.isel(y=slice(3, 51), x=slice(17, 93)))


@pytest.mark.parametrize("style", STYLES)
def test_a_constant_stays_that_constant(style):
    image = render_background(background(np.full((6, 6), 3.7), (0, 50, 0, 50)), interpolation=style)
    assert (image == np.float32(3.7)).all()


def test_rendering_is_two_matrices():
    given = grid()
    y = interpolation_matrix(10 * np.arange(7) + 4.5, np.arange(70), reach=5.0)
    edges = bin_edges(93, 9)
    x = interpolation_matrix((edges[1:] + edges[:-1] - 1) / 2, np.arange(93), reach=93 / 18)
    expected = y @ given["level"].values.astype(float) @ x.T
    np.testing.assert_allclose(render_background(given), expected, rtol=1e-6)


def test_lazy_and_eager_images_are_the_same():
    given = xr.concat([grid(seed=1), grid(seed=2)], dim="detector")
    lazy = render_background(given.chunk({"detector": 1, "bin_x": 4}))
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), render_background(given))


def test_two_by_two_bins_are_rendered_by_straight_lines():
    given = grid(2, 2)
    with pytest.warns(ReducedInterpolationWarning, match="linear"):
        reduced = render_background(given)
    xr.testing.assert_equal(reduced, render_background(given, interpolation="linear"))
    with pytest.raises(ConfigurationError, match="3 bins"):
        render_background(given, undersampling="throw")


def test_nothing_good_is_nan_with_a_warning():
    with pytest.warns(EmptyBackgroundWarning):
        image = render_background(background(np.full((6, 6), np.nan), (0, 50, 0, 50)))
    assert image.isnull().all()


def test_boxes_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(GeometryError, match="part of"):
        render_background(grid(), box=(0, 71, 0, 10))
    with pytest.raises(GeometryError, match="shape"):
        render_background(grid(), (70, 90))


def test_a_ramp_is_measured_and_rendered_exactly():
    y, x = np.mgrid[:512, :512]
    image = xr.DataArray((0.1 * x + 0.2 * y + 10000).astype(np.float32), dims=("y", "x"))
    found = render_background(measure_background(image, bins=(6, 6), clip=20.0, iterations=1))
    np.testing.assert_allclose(found / image, 1.0, atol=1e-6)
