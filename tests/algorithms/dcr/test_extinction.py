"""Extinction that takes more of the blue at low altitudes: part of what a visit shows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import airmass
from skyloom.algorithms.dcr import Band, LinearParameters, dcr_shifts, predict_template, solve_dcr
from skyloom.algorithms.dcr.extinction import extinction_factors
from skyloom.algorithms.errors import ExtrapolatedTemplateWarning
from tests.algorithms.dcr.analytic import (
    HELD_OUT,
    NORTH_UP,
    WAVELENGTHS,
    G,
    Scene,
    conditions,
    dozen,
    observed,
    scene,
)

EXTINCTION = ((380.0, 0.40), (450.0, 0.22), (520.0, 0.16), (600.0, 0.12))
IN_AIR = G.model_copy(update={"extinction": EXTINCTION, "extinction_airmass": 1.2})
FWHM, NOISE = 4.0, 5.0


def render(stars: Scene, table: xr.Dataset) -> NDArray[np.float64]:
    """Return visits whose fluxes are right for a flat spectrum, and too red at low altitudes."""
    images = []
    for index, altitude in enumerate(table["altitude"].to_numpy()):
        lost = np.interp(WAVELENGTHS, *zip(*EXTINCTION, strict=True))
        passed = 10.0 ** (-0.4 * lost * (airmass(float(altitude)) - 1.2))
        passed = passed / passed.mean()
        light = stars.spectrum * passed
        total = light.sum(axis=1)
        seen = stars._replace(
            flux=stars.flux * total / stars.spectrum.sum(axis=1), spectrum=light / total[:, None]
        )
        images.append(seen.render(table.isel({v.VISIT: [index]}), FWHM)[0])
    return np.stack(images)


def test_extinction_is_part_of_the_model_and_of_its_templates() -> None:
    rng = np.random.default_rng(2)
    stars, table = scene(rng, 80, 12), dozen(rng)
    warps, template = observed(render(stars, table), FWHM, NOISE, rng)
    held_out, near = render(stars, HELD_OUT), stars.near(8.0)
    chi2, left = {}, {}
    for name, band in (("known", IN_AIR), ("unknown", G)):
        found = solve_dcr(
            warps, table, band, template, jacobian=NORTH_UP,
            parameters=LinearParameters(reject_rounds=0, outlier_factor=1e9, chi2_limit=1e9),
        )  # fmt: skip
        chi2[name] = float(found.diagnostics["chi2_total"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolatedTemplateWarning)
            seen = predict_template(found.model, HELD_OUT.isel({v.VISIT: [3]}))
        lacking = (held_out[3] - seen["image"].to_numpy())[near]
        left[name] = float(np.sqrt((lacking**2).mean()))
        if name == "known":  # planes are those at the airmass of the throughput
            flux = found.model["model"].to_numpy()[:, near].sum(axis=1)
            true = (stars.fractions * stars.flux[:, None]).sum(axis=0)
            assert flux / flux.sum() == pytest.approx(true / true.sum(), abs=3e-3)
    assert 0.75 < chi2["known"] < 1.05
    assert chi2["unknown"] > 1.3 * chi2["known"]
    assert left["known"] < 0.5 * left["unknown"]


def test_a_flat_spectrum_has_the_same_flux_in_every_visit() -> None:
    nodes, weights = np.linspace(405.0, 545.0, 40), np.linspace(1.0, 2.0, 40)
    table = conditions([0.0, 40.0, 60.0], 0.0)
    factors = extinction_factors(IN_AIR, table, nodes, weights)
    assert (factors * weights).sum(axis=1) / weights.sum() == pytest.approx(1.0)
    assert (np.diff(factors[0]) < 0).all()  # above the airmass of the throughput
    assert (np.diff(factors[2]) > 0).all()
    assert (extinction_factors(G, table, nodes, weights) == 1.0).all()


def test_light_that_is_left_is_redder_and_lifted_less() -> None:
    table = conditions([60.0], 0.0)
    plain, reddened = (
        dcr_shifts(band, table, NORTH_UP)["amplitude"].to_numpy() for band in (G, IN_AIR)
    )
    assert (reddened < plain).all()
    assert reddened == pytest.approx(plain, abs=0.01)


def test_a_single_sub_band_keeps_its_flux() -> None:
    rng = np.random.default_rng(1)
    stars, table = scene(rng, 48, 2), dozen(rng)
    warps, template = observed(render(stars, table), FWHM, NOISE, rng)
    p = LinearParameters(subfilters=1, reject_rounds=0, outlier_factor=1e9, chi2_limit=1e9)
    found = [
        solve_dcr(warps, table, band, template, jacobian=NORTH_UP, parameters=p).model["model"]
        for band in (G, IN_AIR)
    ]
    assert float(found[1].sum()) == pytest.approx(float(found[0].sum()), rel=1e-4)


@pytest.mark.parametrize("pairs", [((400.0, 0.1),), ((500.0, 0.1), (400.0, 0.2)),
                                   ((400.0, -0.1), (500.0, 0.2))])  # fmt: skip
def test_extinction_that_cannot_be_is_refused(pairs: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="extinction must be two or more pairs"):
        Band.from_effective("g", 476.31, 147.0, extinction=pairs)
