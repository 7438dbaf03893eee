"""Bad cells filled and smoothed over: stated values, and what the reference gets wrong."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    fill_background,
    fill_bad,
    harmonic_fill,
    interpolate,
    smooth_background,
    smooth_ignoring_bad,
)
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from tests.algorithms.background.scenes import bins_of, random_bins


def round_focal_plane(seed=0):
    """Return a noisy level of 1000, and which cells a round focal plane does not see."""
    level = np.random.default_rng(seed).normal(1000.0, 3.0, (40, 40))
    y, x = np.indices(level.shape)
    return level, np.hypot(y - 19.5, x - 19.5) > 18.5


@pytest.mark.parametrize("method", ["harmonic", "spline"])
def test_a_row_of_single_pixels_does_not_leak(method):
    grid = np.full((5, 6), 10.0)
    grid[0] = 500.0
    bad = np.zeros(grid.shape, bool)
    bad[0] = True
    filled, flags = fill_bad(grid, bad, method=method)
    np.testing.assert_allclose(filled, 10.0, rtol=1e-12)
    assert (flags[0] == v.BinFlag.EXTRAPOLATED).all()
    assert (flags[1:] == 0).all()


@pytest.mark.parametrize("method", ["harmonic", "spline"])
@pytest.mark.parametrize("outside", ["nearest", "plane"])
def test_unseen_corners_stay_near_the_level(method, outside):
    level, bad = round_focal_plane()
    filled, flags = fill_bad(level, bad, method=method, outside=outside)
    assert np.abs(filled - 1000.0).max() < 15.0
    assert set(np.unique(flags[bad])) <= {v.BinFlag.EXTRAPOLATED, v.BinFlag.FILLED}
    np.testing.assert_array_equal(filled[~bad], level[~bad])


def test_splines_let_loose_on_the_corners_would_explode():
    # what the reference does: along rows, then along columns, as far as the grid goes
    def extrapolated(style):
        level, bad = round_focal_plane()
        grid = np.where(bad, np.nan, level)
        for _ in range(2):
            for row in grid:
                gaps = ~np.isfinite(row)
                if gaps.any() and not gaps.all():
                    knots = np.arange(40.0)
                    row[gaps] = interpolate(knots, row, knots[gaps], style, extrapolate="reference")
            grid = grid.T.copy()
        return np.abs(grid - 1000.0).max()

    assert extrapolated("akima") > 5e3
    assert 100 < extrapolated("natural_spline") < extrapolated("akima")


def test_filling_treats_both_axes_alike():
    rng = np.random.default_rng(1)
    level = rng.normal(size=(9, 12))
    bad = rng.random(level.shape) < 0.4
    one, flags = fill_bad(level, bad)
    other, turned = fill_bad(level.T, bad.T)
    np.testing.assert_allclose(one, other.T, rtol=1e-10)
    np.testing.assert_array_equal(flags, turned.T)


@pytest.mark.parametrize("method", ["harmonic", "spline"])
def test_holes_of_a_plane_are_filled_by_the_plane(method):
    y, x = np.mgrid[:10, :12]
    plane = 3.0 + 0.5 * y - 2.0 * x
    bad = np.zeros(plane.shape, bool)
    bad[2:5, 3:8] = bad[7, 9] = True
    filled, flags = fill_bad(plane, bad, method=method)
    np.testing.assert_allclose(filled, plane, atol=1e-12)
    assert (flags[bad] == v.BinFlag.FILLED).all()


def test_a_plane_is_continued_outside_if_wanted():
    y, x = np.mgrid[:8, :9]
    plane = 3.0 + 0.5 * y - 2.0 * x
    bad = x + y < 6
    filled, flags = fill_bad(plane, bad, outside="plane")
    np.testing.assert_allclose(filled, plane, atol=1e-10)
    assert int(flags[0, 0]) == v.BinFlag.EXTRAPOLATED
    unfilled, _ = fill_bad(plane, bad, outside="nan")
    assert np.isnan(unfilled[flags == v.BinFlag.EXTRAPOLATED]).all()
    weighted, _ = fill_bad(plane + (x == 8), bad, outside="plane", weight=(x < 8).astype(float))
    np.testing.assert_allclose(weighted[bad], plane[bad], atol=1e-10)


def test_a_filled_cell_is_the_mean_of_its_neighbours():
    rng = np.random.default_rng(2)
    grid = rng.normal(size=(7, 8))
    grid[2:5, 0:3] = grid[6, 7] = np.nan
    filled = harmonic_fill(grid)
    padded = np.pad(filled, 1, constant_values=np.nan)
    around = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    hole = np.isnan(grid)
    np.testing.assert_allclose(filled[hole], np.nanmean(around, axis=0)[hole], atol=1e-12)


def test_a_hole_that_reaches_an_edge_alone_is_filled_all_the_same():
    assert harmonic_fill([[np.nan, np.nan, 4.0]]).tolist() == [[4.0, 4.0, 4.0]]
    assert np.isnan(harmonic_fill(np.full((2, 2), np.nan))).all()


def test_cells_without_good_ones_cannot_be_filled():
    with pytest.raises(NoUsableDataError, match="all 4 cells are bad"):
        fill_bad(np.zeros((2, 2)), np.ones((2, 2), bool))


@pytest.mark.parametrize("good", [[(0, 0)], [(0, 0), (2, 2)], [(1, 0), (1, 3)]])
def test_few_good_cells_fill_the_rest(good):
    grid = np.full((4, 5), np.nan)
    for cell in good:
        grid[cell] = 6.0
    filled, flags = fill_bad(grid)
    assert (filled == 6.0).all()
    assert (flags > 0).sum() == 20 - len(good)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_smoothed_over_bad_cells_stays_constant(sigma, weighted):
    rng = np.random.default_rng(3)
    grid = np.full((20, 25), 123.4)
    bad = rng.random(grid.shape) < 0.3
    grid[bad] = 1e6
    weight = rng.uniform(0.1, 9.0, grid.shape) if weighted else None
    np.testing.assert_allclose(
        smooth_ignoring_bad(grid, bad, sigma=sigma, weight=weight), 123.4, rtol=1e-12
    )


def test_smoothing_is_a_normalised_convolution():
    rng = np.random.default_rng(4)
    grid, weight = rng.normal(size=(1, 30)), rng.uniform(1, 3, (1, 30))
    bad = rng.random(grid.shape) < 0.3
    found = smooth_ignoring_bad(grid, bad, sigma=1.5, weight=weight)
    x = np.arange(30)
    kernel = np.exp(-0.5 * ((x[:, None] - x) / 1.5) ** 2) * (np.abs(x[:, None] - x) <= 6)
    w = np.where(bad, 0.0, weight)[0]
    np.testing.assert_allclose(found[0], (kernel @ (w * grid[0])) / (kernel @ w), rtol=1e-10)


def test_smoothing_reaches_four_sigma_and_no_further():
    grid = np.full((1, 20), np.nan)
    grid[0, 0] = 5.0
    smooth = smooth_ignoring_bad(grid, sigma=2.0)[0]
    assert np.isfinite(smooth).tolist() == [True] * 9 + [False] * 11
    assert np.isnan(smooth_ignoring_bad(np.full((2, 2), np.nan), sigma=1.0)).all()


def test_a_single_pixel_counts_as_one_when_weighted():
    grid = np.array([[10.0, 10.0, 90.0, 10.0, 10.0]])
    count = np.array([[1000.0, 1000.0, 1.0, 1000.0, 1000.0]])
    assert smooth_ignoring_bad(grid, sigma=1.0)[0, 2] > 40.0
    assert smooth_ignoring_bad(grid, sigma=1.0, weight=count)[0, 2] < 10.2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fill_bad(np.zeros(3)), GeometryError, "grid must be"),
        (lambda: fill_bad(np.zeros((2, 2)), np.zeros(2)), GeometryError, "bad has shape"),
        (lambda: fill_bad([[1.0]], method="near"), ConfigurationError, "method must be"),
        (lambda: fill_bad([[1.0]], outside="far"), ConfigurationError, "outside must be"),
        (lambda: smooth_ignoring_bad([[1.0]], sigma=0.0), ConfigurationError, "sigma must be > 0"),
        (
            lambda: smooth_ignoring_bad([[1.0]], sigma=1.0, weight=[[-1.0]]),
            ConfigurationError,
            "weight must be finite",
        ),
    ],
)
def test_misuse_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_nothing_that_is_given_changes():
    grid, bad = np.array([[1.0, np.nan, 3.0]]), np.array([[True, False, False]])
    fill_bad(grid, bad)
    harmonic_fill(grid)
    smooth_ignoring_bad(grid, bad, sigma=1.0)
    np.testing.assert_array_equal(grid, [[1.0, np.nan, 3.0]])
    assert bad.tolist() == [[True, False, False]]


def test_a_filled_background_says_which_bins_are():
    given = random_bins(4, 5, (0, 40, 0, 50)).assign(
        flags=(("bin_y", "bin_x"), np.zeros((4, 5), np.uint8)),
        variance=(("bin_y", "bin_x"), np.ones((4, 5), np.float32)),
    )
    given["level"][1, 1] = np.nan
    given["flags"][1, 1] = v.BinFlag.EMPTY
    given["flags"][0, 0] = v.BinFlag.LOW_COUNT
    before = given.copy(deep=True)
    filled = fill_background(given)
    assert given.identical(before)
    assert int(filled["flags"][1, 1]) == v.BinFlag.EMPTY | v.BinFlag.FILLED
    assert int(filled["flags"][0, 0]) == v.BinFlag.LOW_COUNT | v.BinFlag.EXTRAPOLATED
    assert np.isnan(filled["variance"].values[[1, 0], [1, 0]]).all()
    assert np.isfinite(filled["level"]).all()
    untouched = filled["flags"] == 0
    assert int(untouched.sum()) == 18
    assert (filled["level"] == given["level"]).where(untouched, True).all()
    # cells with few pixels may also be kept
    assert int(fill_background(given, bad=v.BinFlag.EMPTY)["flags"][0, 0]) == v.BinFlag.LOW_COUNT


def test_a_smoothed_background_weights_by_count_and_says_so():
    level = np.array([[10.0, 10.0, 90.0, 10.0, np.nan]])
    given = bins_of(
        level,
        (0, 1, 0, 5),
        count=np.array([[1000, 1000, 1, 1000, 0]]),
        variance=np.ones((1, 5), np.float32),
    )
    smooth = smooth_background(given, sigma=1.0)
    assert float(smooth["level"].max()) < 10.2
    assert smooth["flags"].values[0, :4].tolist() == [v.BinFlag.SMOOTHED] * 4
    assert int(smooth["flags"][0, 4]) == v.BinFlag.SMOOTHED | v.BinFlag.FILLED
    assert smooth["variance"].isnull().all()
