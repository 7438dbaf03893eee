"""Bands whose throughput changes: spectra are smooth, what sub-bands hold of them is not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from skyloom.algorithms.dcr import Band
from skyloom.algorithms.dcr.normal import Prior
from skyloom.algorithms.dcr.operator import subband_shares, transmissions
from tests.algorithms.dcr.analytic import WAVELENGTHS, G, dozen, observed, scene
from tests.algorithms.dcr.skies import Sky, measure_stars, ratios, solve, templates_of

FWHM, NOISE = 4.0, 5.0
STEEP = G.model_copy(update={"throughput": ((G.lambda_min, 0.2), (G.lambda_max, 1.0))})


@cache
def sky() -> Sky:
    """Return stars seen through the steep band: photons are the spectra times its throughput."""
    rng = np.random.default_rng(1)
    drawn, table = scene(rng, 128, 24), dozen(rng)
    seen = drawn.spectrum * STEEP.transmission(WAVELENGTHS)
    drawn = drawn._replace(spectrum=seen / seen.sum(axis=1, keepdims=True))
    truth = drawn.render(table, FWHM)
    return Sky(drawn, table, truth, *observed(truth, FWHM, NOISE, rng))


def offset(band: Band) -> float:
    """Return the mean error of the first moments of stars, in units of the band."""
    stars = measure_stars(sky(), solve(sky(), band=band).model, NOISE)
    return float(np.mean(stars.found - stars.true))


def test_colours_are_right_where_the_throughput_is_stated() -> None:
    assert abs(offset(STEEP)) < 0.002


def test_stating_the_throughput_describes_visits_better_than_a_flat_band() -> None:
    with_it, without = solve(sky(), band=STEEP), solve(sky(), band=G)
    assert float(with_it.diagnostics["chi2_total"]) < 0.85 * float(
        without.diagnostics["chi2_total"]
    )
    assert (ratios(sky(), templates_of(with_it.model)) < 0.1).all()


@pytest.mark.parametrize("band", [G, STEEP])
def test_a_flat_spectrum_is_flat_within_sub_bands(band: Band) -> None:
    """Its light at a wavelength is the throughput there, of whatever sub-band that is."""
    wavelengths, shares = subband_shares(band, 3, "linear")
    photons = np.add.reduceat(band.transmission(WAVELENGTHS), [0, 20, 40])
    light = (photons / photons.sum()) @ shares
    _, even = subband_shares(band, 3, "flat")
    np.testing.assert_allclose(light, (photons / photons.sum()) @ even, rtol=1e-4)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    assert wavelengths.size == shares.shape[1]


def test_the_prior_asks_nothing_of_a_flat_spectrum() -> None:
    photons = np.array([0.2, 0.3, 0.5])
    stiff = np.ones((1, 1), np.float32)
    assert photons @ Prior(1.0, 1.0, 0.0, stiff).matrix(photons) @ photons == pytest.approx(0.0)


def test_a_sub_band_that_lets_nothing_pass_has_a_finite_prior() -> None:
    photons = np.array([0.0, 0.4, 0.6])
    assert transmissions(photons)[0] == 0.01
    assert np.isfinite(Prior(1.0, 1.0, 0.0, np.ones((1, 1), np.float32)).matrix(photons)).all()
