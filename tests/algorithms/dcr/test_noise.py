"""The noise that planes, their sum and templates state is the noise that they have."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, solve_dcr, stack_planes
from skyloom.algorithms.dcr.geometry import FIELDS
from skyloom.algorithms.dcr.operator import fourier_operator
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.dcr.uncertainty import (
    GRID,
    LEVELS,
    mean_covariance,
    noise_basis,
    noise_of_planes,
    noise_power,
    plane_levels,
    template_levels,
    variance_by_level,
)
from skyloom.algorithms.dcr.visit_inputs import round_psfs
from skyloom.algorithms.errors import NoSourcesWarning
from tests.algorithms.dcr.analytic import NORTH_UP, G, conditions, dozen, observed, scene
from tests.algorithms.dcr.noise_reference import covariances, of_pixels, of_template
from tests.algorithms.dcr.scatter import BETA, alike, scatter_of, seeing_of
from tests.algorithms.dcr.skies import predicted

NOISE = 5.0
ZENITH = conditions([0.0, 50.0], [0.0, 30.0])


@pytest.fixture(scope="module")
def model() -> xr.Dataset:
    rng = np.random.default_rng(1)
    fwhm, table = seeing_of(3.3, 5.0), dozen(rng)
    truth = scene(rng, 64, 4).render(table, fwhm, beta=BETA)
    warps, coadd = observed(truth, fwhm, NOISE, rng)
    warps = warps.assign(psf=round_psfs(fwhm, beta=BETA, size=41))
    return solve_dcr(warps, table, G, coadd, jacobian=NORTH_UP).model


def test_at_the_defaults_scatter_is_the_stated_noise_at_objects_and_away() -> None:
    found = scatter_of(seeing_of(3.3, 5.0), NOISE, 12, stars=6)
    assert found.sources == pytest.approx(np.ones(5), abs=0.03)
    assert found.edges == pytest.approx(np.ones(5), abs=0.03)
    assert found.away == pytest.approx(np.ones(5), abs=0.03)


def test_a_template_at_the_zenith_has_the_noise_of_the_sum_of_planes(model: xr.Dataset) -> None:
    whole = stack_planes(model)["variance"].to_numpy()
    at_zenith = predicted(model, ZENITH, 0)["variance"].to_numpy()
    assert at_zenith == pytest.approx(whole, rel=1e-4)
    assert whole.max() > 1.5 * whole.min()


def test_the_noise_of_a_template_is_of_the_psfs_that_the_fit_used(model: xr.Dataset) -> None:
    found = predicted(model, ZENITH, 1)["variance"].to_numpy()
    widths = predicted(model.drop_vars("visit_psf"), ZENITH, 1)["variance"].to_numpy()
    spreads = PointSpreads(seeing_of(3.3, 5.0), model["visit_psf"].to_numpy().astype(float), True)
    fitted = fourier_operator(GRID, G, model[list(FIELDS)], NORTH_UP, transfer=spreads.ratios(GRID))
    basis = noise_basis(
        fitted, spreads.model_transfer(GRID), LinearParameters(), model.attrs["adherence"]
    )
    template = fourier_operator(GRID, G, ZENITH, NORTH_UP)
    stated = template_levels(basis, np.full(12, NOISE**-2), template, 1)[0]
    at_sources = model["noise_place"].to_numpy() < 1e-3
    assert found[at_sources] == pytest.approx(stated, rel=1e-3)
    assert np.abs(widths[at_sources] / stated - 1.0).min() > 0.03


def test_planes_that_are_equal_parts_of_the_coadd_have_a_part_of_its_noise() -> None:
    rng = np.random.default_rng(2)
    warps, coadd = observed(np.zeros((12, 48, 48)), 4.0, NOISE, rng)
    with pytest.warns(NoSourcesWarning):
        found = solve_dcr(warps, dozen(rng), G, coadd, jacobian=NORTH_UP).model
    assert (found["noise_place"] == LEVELS - 1).all()
    part = NOISE**2 / 12 / 9
    assert found["variance"].to_numpy() == pytest.approx(np.full((3, 48, 48), part), rel=1e-5)
    whole = stack_planes(found)["variance"].to_numpy()
    assert whole == pytest.approx(np.full((48, 48), NOISE**2 / 12), rel=1e-5)
    template = predicted(found, ZENITH, 0)["variance"].to_numpy()
    assert template == pytest.approx(whole, rel=1e-5)


def test_planes_that_are_held_firmly_have_the_noise_of_the_coadd() -> None:
    table = dozen(np.random.default_rng(3))
    operator = fourier_operator(GRID, G, table, NORTH_UP)
    transfer = PointSpreads(np.full(12, 4.0), None, True).model_transfer(GRID)
    weights = np.full(12, NOISE**-2)
    coadd = np.full((3, 3), NOISE**2 / 12 / 9)
    firm = plane_levels(noise_basis(operator, transfer, LinearParameters(), 1e4), weights)
    assert firm[0] == pytest.approx(coadd, rel=1e-3)
    basis = noise_basis(operator, transfer, LinearParameters(taper=1e4), 0.0)
    tapered = plane_levels(basis, weights)
    assert len(tapered) == LEVELS
    assert tapered[-2] == pytest.approx(coadd, rel=1e-3)
    assert tapered[-1] == pytest.approx(coadd, rel=1e-12)
    assert tapered[0][0, 0] > 5 * coadd[0, 0]


def test_planes_that_nothing_holds_have_the_noise_of_the_data_alone() -> None:
    table = dozen(np.random.default_rng(3))
    operator = fourier_operator(GRID, G, table, NORTH_UP)
    transfer = PointSpreads(np.full(12, 4.0), None, True).model_transfer(GRID)
    parameters = LinearParameters(taper_floor=1e-9)
    free = noise_of_planes(noise_basis(operator, transfer, parameters, 0.0), np.full(12, NOISE**-2))
    sums = free.covariance.sum(axis=(-2, -1)).real
    assert (sums > 0).all()
    assert sums[0, 0] == pytest.approx(NOISE**2 / 12, rel=1e-3)
    assert sums[operator.frequencies[0] // 2, -1] > 1.5 * sums[0, 0]


@pytest.mark.parametrize("alike_pixels", [False, True])
@pytest.mark.parametrize("subfilters", [1, 3, 4])
def test_the_noise_is_that_of_plain_matrices(subfilters: int, alike_pixels: bool) -> None:
    table = dozen(np.random.default_rng(4))
    spreads = PointSpreads(seeing_of(3.3, 5.0), None, True)
    transfer = spreads.model_transfer(GRID)
    operator = fourier_operator(
        GRID, G, table, NORTH_UP, subfilters=subfilters, transfer=spreads.ratios(GRID)
    )
    template = fourier_operator(GRID, G, ZENITH, NORTH_UP, subfilters=subfilters)
    weights = np.linspace(0.0, 0.1, 12)
    parameters = LinearParameters(subfilters=subfilters)
    power = np.stack([noise_power(alike().to_numpy(), GRID)] * 12) if alike_pixels else None
    basis = noise_basis(operator, transfer, parameters, 1e-3, power)
    planes = plane_levels(basis, weights)
    of_visit = template_levels(basis, weights, template, 1)
    wanted = list(covariances(operator, weights, transfer, parameters, 1e-3, power))
    assert len(wanted) == LEVELS
    for level, covariance in enumerate(wanted):
        assert planes[level] == pytest.approx(of_pixels(covariance.real), rel=1e-9, abs=1e-12)
        assert of_visit[level] == pytest.approx(of_template(covariance, template, 1), rel=1e-9)
    noise = noise_of_planes(basis, weights)
    assert mean_covariance(noise) == pytest.approx(planes[0], rel=1e-6, abs=1e-9)
    at_sources = noise.covariance
    assert at_sources == pytest.approx(wanted[0], rel=1e-6, abs=1e-9)


def test_without_any_weight_the_noise_is_infinite() -> None:
    operator = fourier_operator(GRID, G, ZENITH, NORTH_UP)
    transfer = PointSpreads(np.full(2, 4.0), None, True).model_transfer(GRID)
    basis = noise_basis(operator, transfer, LinearParameters(), 1e-3)
    nothing = np.zeros(2)
    assert np.isposinf(plane_levels(basis, nothing)).all()
    assert np.isposinf(template_levels(basis, nothing, operator)).all()
    assert np.isposinf(mean_covariance(noise_of_planes(basis, nothing))).all()


def test_between_levels_the_variance_is_on_a_straight_line() -> None:
    rng = np.random.default_rng(5)
    levels = np.sort(rng.uniform(1.0, 9.0, LEVELS))[::-1].copy()
    place = rng.uniform(0.0, 9.0, (5, 7)).astype(np.float32)
    weights = rng.uniform(0.1, 2.0, (5, 7)).astype(np.float32)
    group = np.ones((5, 7), np.uint8)
    wanted = np.interp(place, np.arange(LEVELS), levels) * 0.5 / weights
    found = variance_by_level([levels + 1.0, levels], [0.7, 0.5], group, place, weights)
    assert found == pytest.approx(wanted, rel=1e-6)
    place[2, 3] = np.nan
    weights[1] = 0.0
    found = variance_by_level([levels, levels], [0.5, 0.5], group, place[:, ::-1], weights[:, ::-1])
    assert np.isnan(found[2, 3])
    assert np.isposinf(found[1]).all()


def test_the_noise_of_warped_visits_is_the_stated_one(model: xr.Dataset) -> None:
    found = scatter_of(seeing_of(3.3, 5.0), NOISE, 8, stars=6, covariance=alike())
    assert found.sources == pytest.approx(np.ones(5), abs=0.03)
    assert found.away == pytest.approx(np.ones(5), abs=0.03)


def test_independent_noise_may_be_stated_as_such(model: xr.Dataset) -> None:
    white = xr.DataArray(np.pad([[1.0]], 2), dims=(v.LAG_Y, v.LAG_X))
    known = model.assign(noise_covariance=white.expand_dims({v.VISIT: model[v.VISIT]}))
    one, other = (predicted(each, ZENITH, 1)["variance"].to_numpy() for each in (known, model))
    assert one == pytest.approx(other, rel=1e-4)


def test_lazy_models_have_the_same_sum(model: xr.Dataset) -> None:
    names = ["model", "variance", "noise_place", "weight_sum", "coverage", v.MASK]
    lazy = stack_planes(model.assign(model[names].chunk({v.Y: 16})))
    assert lazy["variance"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), stack_planes(model))


def test_noise_is_infinite_without_weight_and_models_stay_as_they_are(model: xr.Dataset) -> None:
    holed = model.copy(deep=True)
    holed["weight_sum"].to_numpy()[3] = 0.0
    before = holed.copy(deep=True)
    assert np.isposinf(predicted(holed, ZENITH, 1)["variance"].to_numpy()[3]).all()
    xr.testing.assert_identical(holed, before)


def test_models_without_what_the_noise_needs_are_refused(model: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="the model lacks noise_place"):
        predicted(model.drop_vars("noise_place"), ZENITH, 1)
