"""What the errors of bins do to pixels."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.background import interpolation_matrix, render_background, render_variance
from skyloom.algorithms.errors import (
    ConfigurationError,
    GeometryError,
    NonFiniteVarianceWarning,
)
from tests.algorithms.background.scenes import bins_of

LINEAR_STYLES = ("constant", "constant_compat", "linear", "natural_spline")


def test_gains_are_those_published():
    given = bins_of(np.zeros((20, 20)), (0, 640, 0, 640), variance=np.ones((20, 20)))
    variance = render_variance(given).values
    along = np.sqrt(np.diag(variance))
    assert along[160:480].mean() == pytest.approx(0.87, abs=0.01)
    assert along.min() == pytest.approx(0.62, abs=0.01)
    assert along[0] == pytest.approx(3.3, abs=0.1)
    assert variance[0, 0] == pytest.approx(11.0, abs=0.5)


def varied(rows, columns, seed=0):
    """Return bins with errors of their own, two of them missing and a column empty."""
    rng = np.random.default_rng(seed)
    level = rng.normal(100.0, 3.0, (rows, columns))
    level[1, 2] = level[0, 0] = np.nan
    level[:, 5] = np.nan
    variance = rng.uniform(0.5, 2.0, level.shape)
    return bins_of(level, (0, 8 * rows, 3, 3 + 10 * columns), variance=variance)


@pytest.mark.parametrize("style", LINEAR_STYLES)
@pytest.mark.parametrize("beyond", ["limit", "reference", "nearest", "nan"])
def test_the_variance_is_the_sum_over_bins_of_squared_responses(style, beyond):
    given = varied(6, 7)
    options = {"interpolation": style, "extrapolate": beyond}
    expected = np.zeros((48, 70))
    level = given["level"].values
    response = given["level"].values.copy()
    for i, j in np.argwhere(np.isfinite(level)):
        response[:] = np.where(np.isfinite(level), 0.0, np.nan)
        response[i, j] = 1.0
        image = render_background(given.assign(level=given["level"].copy(data=response)), **options)
        expected += image.values.astype(float) ** 2 * float(given["variance"][i, j])
    found = render_variance(given, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_variance_is_that_of_many_realisations():
    given = varied(5, 7, seed=1)
    expected = render_variance(given).values
    rng = np.random.default_rng(2)
    sigma = np.sqrt(given["variance"].values)
    noisy = given["level"].values + sigma * rng.normal(size=(4000, 5, 7))
    stack = xr.Dataset(
        {"level": (("draw", "bin_y", "bin_x"), noisy.astype(np.float32))}, attrs=given.attrs
    )
    found = render_background(stack).values.astype(float).var(axis=0)
    # 4000 draws know a variance to 2.2 per cent
    ratio = found / expected
    assert np.abs(ratio - 1.0).max() < 0.1
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)


def test_a_part_is_a_part_of_the_whole():
    given = varied(6, 7)
    whole = render_variance(given)
    part = render_variance(given, box=(5, 20, 10, 50))
    np.testing.assert_allclose(part, whole.values[5:20, 7:47], rtol=1e-6)
    assert part["x"].values[0] == 10
    assert part.attrs["units"] == "electron2"


def test_lazy_and_eager_variances_are_the_same():
    given = xr.concat([varied(6, 7, seed=1), varied(6, 7, seed=2)], dim="detector")
    lazy = render_variance(given.chunk({"detector": 1}))
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), render_variance(given))


def test_good_bins_without_variance_take_the_median_of_the_others():
    given = bins_of(np.zeros((4, 4)), (0, 16, 0, 16), variance=np.full((4, 4), 2.0))
    expected = render_variance(given)
    given["variance"][1, 1] = np.nan
    given["variance"][2, 2] = -1.0
    with pytest.warns(NonFiniteVarianceWarning, match="2 good bins"):
        found = render_variance(given)
    xr.testing.assert_equal(found, expected)


def test_nothing_known_is_nan():
    given = bins_of(np.full((4, 4), np.nan), (0, 16, 0, 16), variance=np.ones((4, 4)))
    assert render_variance(given).isnull().all()


def test_misuse_is_named():
    given = varied(6, 7)
    with pytest.raises(ConfigurationError, match="akima is not linear"):
        render_variance(given, interpolation="akima")
    with pytest.raises(GeometryError, match="differs"):
        render_variance(given, (3, 3))
    with pytest.raises(GeometryError, match="part of"):
        render_variance(given, box=(0, 3, 0, 3))


def test_the_matrix_of_an_axis_gives_the_gain_of_that_axis():
    given = bins_of(np.zeros((3, 8)), (0, 3, 0, 80), variance=np.ones((3, 8)))
    found = render_variance(given, interpolation="natural_spline").values[1]
    matrix = interpolation_matrix(10 * np.arange(8) + 4.5, np.arange(80), reach=5.0)
    np.testing.assert_allclose(found, (matrix**2).sum(axis=1), rtol=1e-6)
