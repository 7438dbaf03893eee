"""Fields on a tract: no seams between patches, exact where they should be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.interpolate import BSpline, CubicSpline

from skyloom.algorithms.background import chebyshev_design
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.matching import (
    PolynomialBasis,
    SplineBasis,
    TractGrid,
    basis_at_bins,
    field_image,
    field_values,
    tract_background,
    tract_grid,
    tract_image,
)
from skyloom.algorithms.skymap import Tract
from tests.algorithms.matching.tracts import LEGACY, WITH_CELLS, cut_warps

SHAPE = LEGACY.shape
GRID = tract_grid(LEGACY, bin_size=25)
TRACTS = pytest.mark.parametrize("tract", [LEGACY, WITH_CELLS], ids=["legacy", "cells"])
BASES = pytest.mark.parametrize(
    "basis",
    [
        PolynomialBasis(SHAPE, 0),
        PolynomialBasis(SHAPE, 1),
        PolynomialBasis(SHAPE, 4),
        SplineBasis(SHAPE, (5, 8)),
    ],
    ids=["level", "plane", "quartic", "spline"],
)


def gradient(slope_y: float = 0.4, slope_x: float = -1.0) -> NDArray[np.float64]:
    y, x = np.mgrid[-50 : SHAPE[0] + 50, -50 : SHAPE[1] + 50]
    return slope_y * y + slope_x * x + 20.0


def whole(tract: Tract) -> tuple[int, int, int, int]:
    """Return the box of all outer boxes."""
    boxes = np.array([patch.outer for patch in tract])
    return (boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min(), boxes[:, 3].max())


@TRACTS
@pytest.mark.parametrize("interpolation", ["natural_spline", "akima", "linear"])
def test_a_gradient_comes_back_in_every_patch(tract: Tract, interpolation: str) -> None:
    grid = tract_grid(tract, bin_size=25)
    level = tract_background(cut_warps(gradient(), tract), grid)["level"].isel(visit=0)
    worst = 0.0
    for patch in tract:
        box = patch.outer
        image = tract_image(level, grid, box, interpolation=interpolation)
        true = gradient()[box.y_start + 50 : box.y_stop + 50, box.x_start + 50 : box.x_stop + 50]
        worst = max(worst, float(np.abs(image - true).max()))
    assert worst <= 1e-3


@TRACTS
@pytest.mark.parametrize("interpolation", ["natural_spline", "akima"])
def test_interpolated_bins_have_no_seams(tract: Tract, interpolation: str) -> None:
    grid = tract_grid(tract, bin_size=25)
    level = np.random.default_rng(1).normal(0, 10, grid.bins)
    box = whole(tract)
    mosaic = tract_image(level, grid, box, interpolation=interpolation).values
    for patch in tract:
        place = patch.outer
        image = tract_image(level, grid, place, interpolation=interpolation)
        rows = slice(place.y_start - box[0], place.y_stop - box[0])
        columns = slice(place.x_start - box[2], place.x_stop - box[2])
        np.testing.assert_array_equal(image, mosaic[rows, columns])
        assert image.attrs["box"] == list(place)


@TRACTS
@BASES
def test_fields_have_no_seams(tract: Tract, basis: PolynomialBasis | SplineBasis) -> None:
    coefficients = np.random.default_rng(2).normal(0, 10, len(basis.terms))
    box = whole(tract)
    mosaic = field_image(basis, coefficients, box).values
    for patch in tract:
        place = patch.outer
        image = field_image(basis, coefficients, place, units="nJy")
        rows = slice(place.y_start - box[0], place.y_stop - box[0])
        columns = slice(place.x_start - box[2], place.x_stop - box[2])
        np.testing.assert_array_equal(image, mosaic[rows, columns])
        assert image.dtype == np.float32
        assert image.attrs == {"units": "nJy", "box": list(place)}


@BASES
def test_values_at_positions_are_those_of_the_image(basis: PolynomialBasis | SplineBasis) -> None:
    coefficients = np.random.default_rng(3).normal(0, 10, len(basis.terms))
    box = (280, 330, -20, 40)
    image = field_image(basis, coefficients, box)
    values = field_values(basis, coefficients, np.arange(280, 330), np.arange(-20, 40))
    np.testing.assert_array_equal(image, values.astype(np.float32))


@BASES
def test_means_over_bins_are_means_of_pixels(basis: PolynomialBasis | SplineBasis) -> None:
    grid = TractGrid(SHAPE, (300, 170), (300, 300), allow_partials=True)
    design = basis_at_bins(basis, grid)
    assert design.shape == (*grid.bins, len(basis.terms))
    coefficients = np.random.default_rng(4).normal(0, 10, len(basis.terms))
    values = field_values(basis, coefficients, np.arange(SHAPE[0]), np.arange(SHAPE[1]))
    for j, i in itertools.product((0, 3), (0, 5, 7)):
        part = values[
            grid.edges[0][j] : grid.edges[0][j + 1], grid.edges[1][i] : grid.edges[1][i + 1]
        ]
        assert design[j, i] @ coefficients == pytest.approx(part.mean(), rel=1e-10)


def test_polynomials_are_those_of_backgrounds() -> None:
    basis = PolynomialBasis(SHAPE, 3)
    y, x = np.array([-10.0, 0.0, 500.5]), np.array([3.0, 1199.0])
    ours = basis.along(0, y)[:, None, basis.terms[:, 0]] * basis.along(1, x)[:, basis.terms[:, 1]]
    at_y, at_x = np.meshgrid(y, x, indexing="ij")
    theirs = chebyshev_design(at_x, at_y, (0, SHAPE[0], 0, SHAPE[1]), 3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-13)


def test_splines_are_those_of_scipy_and_sum_to_one() -> None:
    basis = SplineBasis(SHAPE, (6, 9))
    positions = np.array([-0.5, 0.0, 17.3, 600.0, 1199.0])
    step = SHAPE[1] / 6
    knots = (np.arange(13) - 3) * step - 0.5
    for index in range(9):
        element = BSpline(knots, np.eye(9)[index], 3)
        np.testing.assert_allclose(
            basis.along(1, positions)[:, index], element(positions), atol=1e-14
        )
    for outside in (-400.0, 1500.0):
        assert basis.along(0, [outside]).sum() == pytest.approx(1.0, abs=1e-12)
    # even steps of coefficients are a plane, also beyond the tract
    plane = field_values(basis, (basis.terms @ [2.0, -1.0]), [-200.0, 0, 900], [-100.0, 1300.0])
    np.testing.assert_allclose(np.diff(plane, axis=1), -1400 / step, rtol=1e-12)


def test_interpolated_bins_are_splines_through_exact_centres() -> None:
    grid = TractGrid((600, 600), (70, 40), (300, 300), allow_partials=True)
    level = np.random.default_rng(5).normal(0, 1, grid.bins)
    image = tract_image(level, grid, (0, 600, 0, 600))
    y, x = grid.centers
    assert y[-1] == (560 + 599) / 2
    along_y = CubicSpline(y, level, axis=0, bc_type="natural")(np.arange(40, 590))
    inner = CubicSpline(x, along_y, axis=1, bc_type="natural")(np.arange(30, 570))
    np.testing.assert_allclose(image.values[40:575, 30:570], inner[:535], rtol=1e-5, atol=1e-5)


def test_beyond_the_outermost_centres_the_curve_goes_on_and_then_holds() -> None:
    level = np.add.outer(np.zeros(48), np.arange(48.0))
    far = tract_image(level, GRID, (0, 1, -100, 1300)).values[0]
    x = np.arange(-100, 1300)
    reach = np.clip(x, 12 - 50, 1187 + 50)
    np.testing.assert_allclose(far, (reach - 12) / 25, atol=1e-5)
    held = tract_image(level, GRID, (0, 1, -100, 1300), extrapolate="nearest").values[0]
    np.testing.assert_allclose(held, np.clip((x - 12) / 25, 0, 47), atol=1e-5)


def test_bins_without_a_level_are_bridged_and_none_gives_nothing() -> None:
    level = np.add.outer(np.arange(48.0), np.zeros(48))
    level[5, 5] = np.nan
    image = tract_image(level, GRID, (0, 300, 0, 300), interpolation="linear")
    assert float(image[137, 137]) == pytest.approx(5.0, abs=1e-5)
    assert tract_image(np.full((48, 48), np.nan), GRID, (0, 5, 0, 5)).isnull().all()


def test_the_unit_of_levels_is_that_of_the_image_and_inputs_do_not_change() -> None:
    level = xr.DataArray(np.ones((48, 48)), dims=("tract_y", "tract_x"), attrs={"units": "nJy"})
    before = level.copy(deep=True)
    image = tract_image(level.transpose("tract_x", "tract_y"), GRID, (0, 5, 0, 5))
    assert image.attrs["units"] == "nJy"
    xr.testing.assert_identical(level, before)
    coefficients = np.ones(3)
    field_image(PolynomialBasis(SHAPE, 1), coefficients, (0, 5, 0, 5))
    assert coefficients.tolist() == [1, 1, 1]


def test_what_cannot_be_is_refused() -> None:
    plane = PolynomialBasis(SHAPE, 1)
    with pytest.raises(ConfigurationError, match="has 3 terms"):
        field_image(plane, [1.0, 2.0], (0, 5, 0, 5))
    with pytest.raises(GeometryError, match="is empty"):
        field_image(plane, [1.0, 2.0, 3.0], (5, 5, 0, 5))
    with pytest.raises(GeometryError, match="box must be"):
        tract_image(np.ones((48, 48)), GRID, (5, 5, 0))
    with pytest.raises(GeometryError, match=r"level has \(2, 2\) bins"):
        tract_image(np.ones((2, 2)), GRID, (0, 5, 0, 5))
    with pytest.raises(ConfigurationError, match="interpolation must be one of"):
        tract_image(np.ones((48, 48)), GRID, (0, 5, 0, 5), interpolation="cubic")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="max_extrapolation must be >= 0"):
        tract_image(np.ones((48, 48)), GRID, (0, 5, 0, 5), max_extrapolation=-1)
    with pytest.raises(ConfigurationError, match="order must be >= 0"):
        PolynomialBasis(SHAPE, -1)
    with pytest.raises(ConfigurationError, match="knots must be >= 4"):
        SplineBasis(SHAPE, (3, 8))
    with pytest.raises(GeometryError, match="the basis covers"):
        basis_at_bins(PolynomialBasis((5, 5), 1), GRID)
