"""Real exposures: where their zenith is, how they refract, and which colours they can tell."""

from __future__ import annotations

import warnings

import erfa
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.dcr import LinearParameters, band_vectors, identifiability, solve_dcr
from skyloom.algorithms.errors import DegenerateGeometryWarning
from skyloom.algorithms.refraction import Weather, differential_refraction, refraction
from tests.algorithms.dcr.analytic import NORTH_UP, G, coadd_of, conditions, observed, scene
from tests.algorithms.dcr.real_visits import (
    DECAM_PIXEL,
    HSC_PIXEL,
    HSC_Z,
    HYPER_SUPRIME_CAM,
    Band,
    Floats,
    decam_visits,
    fisher_sigma,
    hsc_records,
    hsc_visits,
)

FLIPPED = np.diag([-1.0, 1.0])
ANGLES = np.linspace(-150.0, 150.0, 12)


def zenith_distances(low: float, high: float) -> Floats:
    return np.rad2deg(np.arccos(1.0 / np.linspace(low, high, 12)))


def predicted(band: Band, table: xr.Dataset, jacobian: Floats) -> tuple[float, float]:
    """Return spread of the dispersion (pixel2) and expected error of the moment at S/N 100."""
    vectors = band_vectors(band, table, jacobian)
    found = identifiability(vectors, np.ones(len(vectors)), 4.0)
    return found.trace, found.moment_sigma


def test_conditions_of_hsc_exposures_are_those_of_their_headers() -> None:
    for visit, record in hsc_records().items():
        *_, altitude, airmass = HYPER_SUPRIME_CAM[visit]
        # Headers are of the start, conditions of the middle of up to five minutes.
        assert record.altitude == pytest.approx(altitude, abs=0.5)
        assert 1 / np.sin(np.deg2rad(record.altitude)) == pytest.approx(airmass, abs=5e-3)
    angles = hsc_visits()["parallactic_angle"].to_numpy()
    np.testing.assert_allclose(angles, [-43.7, 3.6, 42.4, 46.8], atol=0.5)


@pytest.mark.parametrize(("which", "height"), [("hsc", 4139.0), ("decam", 2215.0)])
def test_refraction_in_real_air_agrees_with_erfa(which: str, height: float) -> None:
    table = hsc_visits() if which == "hsc" else decam_visits()
    for visit in table["visit"].values:
        one = {name: float(table[name].sel(visit=visit)) for name in table.data_vars}
        air = Weather(one["temperature"], one["pressure"], one["humidity"])
        place = {"latitude": one["latitude"], "height": height}
        tangent = np.tan(np.deg2rad(90.0 - one["altitude"]))

        def theirs(nm: float, air: Weather = air, tangent: float = tangent) -> float:
            a, b = erfa.refco(air.pressure / 100, air.temperature, air.humidity / 100, nm / 1000)
            return float(np.rad2deg(a * tangent + b * tangent**3) * 3600)

        # ERFA does not know how heavy air is at a latitude and height.
        sine = np.sin(np.deg2rad(one["latitude"])) ** 2
        gravity = 1 + 0.005302 * sine - 3.15e-7 * height
        total = refraction(500.0, one["altitude"], air, **place)
        assert total == pytest.approx(gravity * theirs(500.0), rel=1e-3)
        for nm in (450.0, 550.0, 700.0, 850.0, 932.0):
            found = differential_refraction(nm, 500.0, one["altitude"], air, **place)
            assert found == pytest.approx(gravity * (theirs(nm) - theirs(500.0)), rel=5e-3)


@pytest.mark.parametrize(
    ("table", "trace", "expected", "whole"),
    [
        (conditions(zenith_distances(1.02, 1.8), 40.0), 1.85, 0.018, 0.017),
        (conditions(np.rad2deg(np.arccos(1 / 1.41)) * np.ones(12), ANGLES), 12.3, 0.0068, 0.0079),
        (conditions(zenith_distances(1.3, 1.5), np.linspace(30.0, 50.0, 12)), 0.24, 0.049, 0.041),
        (conditions([20.0, 50.0], [30.0, -60.0]), 4.8, 0.011, 0.011),
    ],
    ids=["one angle", "one airmass", "narrow", "two visits"],
)
def test_what_visits_tell_of_colours_is_the_stated_and_that_of_all_information(
    table: xr.Dataset, trace: float, expected: float, whole: float
) -> None:
    found = predicted(G, table, NORTH_UP)
    assert found[0] == pytest.approx(trace, rel=0.03)
    assert found[1] == pytest.approx(expected, rel=0.03)
    # The last is of the whole Fisher matrix, here and where the number comes from.
    assert fisher_sigma(G, table, NORTH_UP, 4.0) == pytest.approx(whole, rel=0.15)


def test_real_exposures_tell_colours_in_g_as_all_their_information_does() -> None:
    for table, pixel, trace in (
        (hsc_visits(), HSC_PIXEL, 1.05),
        (decam_visits(), DECAM_PIXEL, 2.15),
    ):
        found = predicted(G, table, pixel * FLIPPED)
        assert found[0] == pytest.approx(trace, rel=0.02)
        assert found[1] == pytest.approx(fisher_sigma(G, table, pixel * FLIPPED, 4.0), rel=0.25)
        assert found[1] < 0.05


def test_the_real_exposures_through_z_tell_no_colours_and_that_is_said() -> None:
    table, jacobian = hsc_visits(), HSC_PIXEL * FLIPPED
    trace, sigma = predicted(HSC_Z, table, jacobian)
    assert trace < 0.01
    assert sigma > 0.05
    assert fisher_sigma(HSC_Z, table, jacobian, 4.0) > 0.05
    rng = np.random.default_rng(3)
    stars = scene(rng, 64, 6)
    warps, template = observed(np.zeros((4, 64, 64)), 4.0, 5.0, rng)
    warps["image"].values += stars.render(conditions(np.zeros(4), 0.0), 4.0).astype("f4")
    warps = warps.assign_coords(visit=table["visit"].values)
    template = coadd_of(warps)
    with pytest.warns(DegenerateGeometryWarning, match=r"known to 0\.31 of the band"):
        found = solve_dcr(warps, table, HSC_Z, template, jacobian=jacobian)
    assert float(found.diagnostics["moment_sigma"]) == pytest.approx(sigma, rel=1e-3)
    part = template["image"].to_numpy() / 3
    near = stars.near(4.0)
    planes = found.model["model"].to_numpy()[:, near]
    assert np.isfinite(found.model["model"]).all()
    assert planes.sum(axis=1) / part[near].sum() == pytest.approx(1.0, abs=0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegenerateGeometryWarning)
        solve_dcr(warps, table, HSC_Z, template, jacobian=jacobian,
                  parameters=LinearParameters(subfilters=1))  # fmt: skip
