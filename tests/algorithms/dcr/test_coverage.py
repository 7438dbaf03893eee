"""Where visits cover parts of a patch, the stated noise is that of the visits that are there."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, solve_dcr, stack_planes, star_colours
from skyloom.algorithms.dcr.coverage import BLOCK, GROUPS, BlockWeights, coverage_of
from skyloom.algorithms.dcr.operator import fourier_operator
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.dcr.uncertainty import GRID, noise_basis, plane_levels, template_levels
from tests.algorithms.dcr.analytic import HELD_OUT, NORTH_UP, G, coadd_of, dozen, observed, scene
from tests.algorithms.dcr.noise_reference import covariances, of_pixels, of_template
from tests.algorithms.dcr.scatter import seeing_of, thin_scatter
from tests.algorithms.dcr.skies import predicted

NOISE = 5.0
HALF = np.arange(12) % 2 == 0
"""Visits that lack half of a patch."""


def blocks_of(weights: np.ndarray) -> BlockWeights:
    """Return the blocks of weights (visit, y, x)."""
    blocks = BlockWeights(len(weights), weights.shape[1:])
    for visit, one in enumerate(weights):
        blocks.put(visit, one.astype(np.float32))
    return blocks


@pytest.fixture(scope="module")
def halved() -> xr.Dataset:
    """Return a model whose every other visit lacks the right half."""
    rng = np.random.default_rng(1)
    table, stars = dozen(rng), scene(rng, 64, 4)
    at = np.array([16.0, 16.0, 46.0, 46.0]), np.array([12.0, 50.0, 14.0, 52.0])
    stars = stars._replace(y=at[0], x=at[1], flux=np.full(4, 2e5))
    warps, _ = observed(stars.render(table, seeing_of(3.3, 5.0)), seeing_of(3.3, 5.0), NOISE, rng)
    warps[v.MASK].values[HALF, :, 32:] = v.MASK_PLANES["NO_DATA"]
    return solve_dcr(warps, table, G, coadd_of(warps), jacobian=NORTH_UP).model


def test_where_visits_of_unequal_seeing_are_missing_the_scatter_is_the_stated_noise() -> None:
    for found in thin_scatter(seeing_of(3.3, 5.0), NOISE, 8, size=112, stars=10):
        assert found.sources == pytest.approx(np.ones(5), abs=0.06)
        assert found.edges == pytest.approx(np.ones(5), abs=0.06)
        assert found.away == pytest.approx(np.ones(5), abs=0.06)


def test_each_half_has_the_noise_of_its_own_visits(halved: xr.Dataset) -> None:
    table = dozen(np.random.default_rng(1))
    spreads = PointSpreads(seeing_of(3.3, 5.0), None, True)
    operator = fourier_operator(GRID, G, table, NORTH_UP, transfer=spreads.ratios(GRID))
    whole = float(halved["mean_weight"].sum())
    weights = np.where(HALF, 0.0, NOISE**-2)
    right = next(
        covariances(
            operator, weights, spreads.model_transfer(GRID), LinearParameters(),
            halved.attrs["adherence"], total=whole,
        )
    )  # fmt: skip
    at = (halved["noise_place"].to_numpy() < 1e-3) & (
        halved["coverage"] == halved["coverage"][0, 63]
    ).to_numpy()
    assert at[:, 32:].any()
    assert not at[:, :32].any()
    stated = np.moveaxis(halved["variance"].to_numpy(), 0, -1)[at]
    assert stated == pytest.approx(
        np.full(stated.shape, of_pixels(right.real).diagonal()), rel=0.01
    )
    template = predicted(halved, HELD_OUT, 2)["variance"].to_numpy()[at]
    seen = fourier_operator(GRID, G, HELD_OUT, NORTH_UP)
    assert template == pytest.approx(np.full(template.shape, of_template(right, seen, 2)), rel=0.01)
    summed = stack_planes(halved)["variance"].to_numpy()[at]
    assert summed == pytest.approx(np.full(summed.shape, of_pixels(right.real).sum()), rel=0.01)


def test_priors_are_relative_to_the_weights_of_the_whole_patch() -> None:
    table = dozen(np.random.default_rng(4))
    spreads = PointSpreads(seeing_of(3.3, 5.0), None, True)
    operator = fourier_operator(GRID, G, table, NORTH_UP, transfer=spreads.ratios(GRID))
    transfer, weights = spreads.model_transfer(GRID), np.where(HALF, 0.0, 0.04)
    wanted = list(covariances(operator, weights, transfer, LinearParameters(), 1e-3, total=0.36))
    basis = noise_basis(operator, transfer, LinearParameters(), 1e-3)
    planes = plane_levels(basis, weights, 0.36)
    seen = template_levels(basis, weights, operator, 3, 0.36)
    for level, covariance in enumerate(wanted):
        assert planes[level] == pytest.approx(of_pixels(covariance.real), rel=1e-9, abs=1e-12)
        assert seen[level] == pytest.approx(of_template(covariance, operator, 3), rel=1e-9)


def test_stars_have_the_errors_of_the_visits_that_show_them(halved: xr.Dataset) -> None:
    found = star_colours(halved, [16, 16], [12, 50])["covariance"].to_numpy()
    factor = found[1] / found[0]
    assert (factor.diagonal() > 1.8).all()
    scaled = halved.assign(
        coverage=xr.full_like(halved["coverage"], halved["coverage"][0, 0].item())
    )
    by_weight = star_colours(scaled, [16, 16], [12, 50])["covariance"].to_numpy()
    assert by_weight[0] == pytest.approx(found[0], rel=1e-12)
    assert np.abs(by_weight[1] / found[1] - 1.0).max() > 0.03


def test_a_patch_that_all_visits_cover_has_one_group_in_spite_of_bad_pixels() -> None:
    rng = np.random.default_rng(2)
    weights = 0.04 * (rng.random((6, 70, 50)) > 0.05)
    weights[3, :, 20] = 0.0
    found = coverage_of(blocks_of(weights))
    assert found.group.shape == (70, 50)
    assert not found.group.any()
    assert found.weights.shape == (GROUPS, 6)
    assert found.weights[0] == pytest.approx(weights.mean(axis=(1, 2)), rel=1e-6)
    assert not found.weights[1:].any()


def test_rare_sets_of_visits_are_of_the_group_most_like_them() -> None:
    weights = np.full((4, 80, 160), 0.1)
    weights[0, :, 80:] = 0.0
    weights[1, :8, :8] = 0.0  # one block of 200, with all but one visit
    weights[1, 72:, 152:] = 0.0  # one with two
    found = coverage_of(blocks_of(weights))
    assert (found.group[:, :80] == found.group[40, 40]).all()
    assert (found.group[:, 80:] == found.group[40, 120]).all()
    assert found.group[40, 40] != found.group[40, 120]


def test_there_are_no_more_groups_than_the_largest() -> None:
    rng = np.random.default_rng(3)
    weights = np.full((20, 16 * BLOCK, 16 * BLOCK), 0.1)
    for row in range(16):
        missing = rng.choice(20, 8, replace=False)
        weights[missing, row * BLOCK : (row + 1) * BLOCK, : (16 - row % 5) * BLOCK] = 0.0
    found = coverage_of(blocks_of(weights))
    assert len(np.unique(found.group)) == GROUPS
    assert found.weights.any(axis=1).all()


def test_pixels_that_no_visit_has_are_not_counted() -> None:
    weights = np.zeros((2, 32, 32))
    weights[:, :16] = 0.3
    found = coverage_of(blocks_of(weights))
    assert found.weights[0] == pytest.approx([0.3, 0.3], rel=1e-6)
    nothing = coverage_of(blocks_of(np.zeros((2, 32, 32))))
    assert not nothing.group.any()
    assert not nothing.weights.any()


def test_groups_do_not_depend_on_the_order_of_visits() -> None:
    rng = np.random.default_rng(4)
    weights = np.full((5, 64, 64), 0.1)
    weights[0, :24] = 0.0
    weights[1, :, :40] = 0.0
    order = rng.permutation(5)
    one, other = coverage_of(blocks_of(weights)), coverage_of(blocks_of(weights[order]))
    for group in np.unique(one.group):
        alike = np.unique(other.group[one.group == group])
        assert len(alike) == 1
        assert other.weights[alike[0]] == pytest.approx(one.weights[group][order], rel=1e-6)


def test_blocks_are_forgotten_and_weights_left_as_they_are() -> None:
    weights = np.full((2, 16, 16), 0.1, np.float32)
    blocks, before = blocks_of(weights), weights.copy()
    blocks.clear()
    assert not blocks.sums.any()
    assert not blocks.covered.any()
    assert (weights == before).all()


def test_models_of_an_earlier_version_are_refused(halved: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="lacks coverage, coverage_weight: "):
        predicted(halved.drop_vars(["coverage", "coverage_weight"]), HELD_OUT, 2)
