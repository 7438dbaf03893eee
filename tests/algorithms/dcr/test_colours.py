"""Colours of stars from sub-bands, against the spectra that they were drawn with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.dcr import LinearParameters, solve_dcr, star_colours
from skyloom.algorithms.errors import SkyloomWarning
from tests.algorithms.dcr.analytic import (
    CENTRES,
    NORTH_UP,
    G,
    Scene,
    conditions,
    dozen,
    observed,
    scene,
)

FWHM = 4.0


def nine(rng: np.random.Generator) -> Scene:
    """Return nine stars far from each other."""
    stars = scene(rng, 96, 9)
    y, x = (grid.ravel() + rng.uniform(-2, 2, 9) for grid in np.mgrid[16:96:32, 16:96:32])
    return stars._replace(y=y, x=x, flux=10 ** rng.uniform(4.3, 5.3, 9))


def solved(stars: Scene, table: xr.Dataset, noise: float, seed: int, **options: Any) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    warps, coadd = observed(stars.render(table, FWHM), FWHM, noise, rng)
    parameters = LinearParameters(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        return solve_dcr(warps, table, G, coadd, jacobian=NORTH_UP, parameters=parameters).model


@pytest.fixture(scope="module")
def stars() -> Scene:
    return nine(np.random.default_rng(5))


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    return dozen(np.random.default_rng(6))


def test_colours_scatter_about_the_truth_by_the_stated_noise(
    stars: Scene, table: xr.Dataset
) -> None:
    moments, fluxes, stated = [], [], None
    for seed in range(8):
        stated = star_colours(solved(stars, table, 30.0, seed), stars.y, stars.x)
        moments.append((stated["moment"] - stars.moment) / stated["moment_sigma"])
        sigma = np.sqrt(np.diagonal(stated["covariance"].to_numpy(), axis1=1, axis2=2))
        fluxes.append((stated["flux"] - stars.flux[:, None] * stars.fractions) / sigma)
    assert np.std(moments) == pytest.approx(1.0, abs=0.2)
    assert abs(np.mean(moments)) < 0.35  # eight times nine stars
    assert np.std(fluxes, axis=(0, 1)) == pytest.approx(np.ones(3), abs=0.25)


def test_what_the_prior_takes_from_colours_is_made_up_for(stars: Scene, table: xr.Dataset) -> None:
    model = solved(stars, table, 1.0, 1, curvature=0.3, slope=0.03, adherence=1e-5)
    found = star_colours(model, stars.y, stars.x)
    true = stars.moment
    assert np.polyfit(true, found["moment"], 1)[0] == pytest.approx(1.0, abs=0.03)
    y, x = np.mgrid[:96, :96]
    near = [(y - a) ** 2 + (x - b) ** 2 < 64 for a, b in zip(stars.y, stars.x, strict=True)]
    flux = np.array([model["model"].to_numpy()[:, at].sum(axis=1) for at in near])
    assert np.polyfit(true, flux @ CENTRES / flux.sum(axis=1), 1)[0] < 0.9


def test_noise_follows_the_weight_at_the_star(stars: Scene, table: xr.Dataset) -> None:
    rng = np.random.default_rng(2)
    warps, coadd = observed(stars.render(table, FWHM), FWHM, 5.0, rng)
    warps["variance"].to_numpy()[:, :, 48:] *= 4.0
    model = solve_dcr(warps, table, G, coadd, jacobian=NORTH_UP).model
    bright = [(16.0, 16.0), (16.0, 80.0)]
    found = star_colours(model, *zip(*bright, strict=True))
    left, right = found["covariance"].to_numpy()
    assert right == pytest.approx(4.0 * left)


def test_what_cannot_be_known_has_no_number(stars: Scene, table: xr.Dataset) -> None:
    model = solved(stars, table, 5.0, 1)
    before = model.copy(deep=True)
    beside = model.sizes["y"] + model.sizes["psf_y"] / 2 + 3.0
    found = star_colours(model, [-30.0, 16.0, 200.0, beside], [16.0, 16.0, 16.0, 16.0])
    xr.testing.assert_identical(model, before)
    assert np.isnan(found["moment"]).to_numpy().tolist() == [True, False, True, True]
    assert np.isinf(found["moment_sigma"]).to_numpy().tolist() == [True, False, True, True]
    level = conditions(np.full(6, 0.5), 30.0)  # next to the zenith
    blind = star_colours(solved(stars, level, 5.0, 1), stars.y, stars.x)
    assert (blind["moment_sigma"] > 0.02).all()
    assert star_colours(model, [], []).sizes["star"] == 0


def test_what_is_no_linear_model_is_refused(stars: Scene, table: xr.Dataset) -> None:
    model = solved(stars, table, 5.0, 1)
    with pytest.raises(ValueError, match="got one of the iterative one"):
        star_colours(model.assign_attrs(solver="iterative"), [1.0], [1.0])
    with pytest.raises(ValueError, match=r"of as many stars, got \(1,\), \(2,\)"):
        star_colours(model, [1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="the model lacks weight_sum"):
        star_colours(model.drop_vars("weight_sum"), [1.0], [1.0])
    with pytest.raises(ValueError, match="two sub-bands or more, the model has one"):
        star_colours(solved(stars, table, 5.0, 1, subfilters=1), [1.0], [1.0])
