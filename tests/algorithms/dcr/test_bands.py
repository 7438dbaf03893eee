"""Measured band-passes: their limits, their mean wavelengths, sub-bands of equal throughput."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest

from skyloom.algorithms.dcr import (
    Band,
    dcr_shifts,
    dispersion,
    effective_wavelength,
    predict_template,
    solve_dcr,
    subband_edges,
)
from skyloom.algorithms.dcr.bands import subband_places
from skyloom.algorithms.dcr.operator import subband_shares
from skyloom.algorithms.dcr.shifts import subband_nodes, subband_photons
from skyloom.algorithms.errors import SkyloomWarning
from skyloom.algorithms.simulate import (
    ChromaticParameters,
    chromatic_conditions,
    chromatic_images,
    simulate_chromatic,
)
from tests.algorithms.dcr.analytic import HELD_OUT, NORTH_UP, G

NM = np.arange(385.0, 565.0, 1.0)
PASSED = 0.75 / ((1 + np.exp((400.0 - NM) / 3.0)) * (1 + np.exp((NM - 548.0) / 1.5)))
PASSED *= 0.55 + 0.45 * np.clip((NM - 400.0) / 120.0, 0.0, 1.0)
SLOPED = Band.from_throughput("g", NM, PASSED)


def test_a_band_ends_where_its_throughput_does() -> None:
    level = 0.01 * PASSED.max()
    for limit in (SLOPED.lambda_min, SLOPED.lambda_max):
        assert float(SLOPED.transmission(limit)) == pytest.approx(level, rel=1e-9)
    assert 385 < SLOPED.lambda_min < 400
    assert 548 < SLOPED.lambda_max < 560
    mean = np.average(NM, weights=PASSED)
    assert SLOPED.lambda_ref == pytest.approx(mean, abs=0.05)
    # Leaks below 1 % of the peak, and noise below 0, do not matter.
    leaky = np.where(NM < 387, np.where(NM % 2 == 0, 0.002, -0.01), PASSED)
    assert Band.from_throughput("g", NM, leaky).lambda_min == pytest.approx(
        SLOPED.lambda_min, abs=0.1
    )
    chosen = Band.from_throughput("g", NM, PASSED, lambda_min=410.0, lambda_ref=470.0)
    assert (chosen.lambda_min, chosen.lambda_ref) == (410.0, 470.0)
    cut = Band.from_throughput("g", [400.0, 500.0], [1.0, 1.0])
    assert (cut.lambda_min, cut.lambda_max) == (400.0, 500.0)


def test_the_mean_wavelength_is_that_of_the_photons() -> None:
    line = Band.from_throughput("line", [400.0, 450.0, 500.0], [0.0, 1.0, 0.0], lambda_min=400.0,
                                lambda_max=500.0)  # fmt: skip
    assert line.lambda_ref == pytest.approx(450.0, abs=1e-9)
    # Integrals of x and x^2 over a triangle of half width 50 about 450.
    expected = (450.0**2 + 50.0**2 / 6.0) / 450.0
    assert effective_wavelength(line, lambda nm: nm) == pytest.approx(expected, abs=1e-3)
    assert effective_wavelength(G) == pytest.approx(476.31, abs=1e-9)


@pytest.mark.parametrize("subfilters", [1, 2, 3, 5])
def test_sub_bands_of_equal_throughput_hold_equal_photons(subfilters: int) -> None:
    edges = subband_edges(SLOPED, subfilters)
    assert (edges[0], edges[-1]) == (SLOPED.lambda_min, SLOPED.lambda_max)
    for low, high in pairwise(edges):
        nm = np.linspace(low, high, 20001)
        part = np.trapezoid(SLOPED.transmission(nm), nm)
        whole = np.linspace(SLOPED.lambda_min, SLOPED.lambda_max, 20001)
        total = np.trapezoid(SLOPED.transmission(whole), whole)
        assert part / total == pytest.approx(1.0 / subfilters, rel=1e-4)
    assert subband_photons(SLOPED, subfilters) == pytest.approx(1.0 / subfilters, rel=0.01)
    flat = G.model_copy(update={"division": "throughput"})
    assert subband_edges(flat, subfilters) == pytest.approx(subband_edges(G, subfilters), abs=1e-9)


def test_places_in_sub_bands_run_from_end_to_end_and_light_stays_in_its_plane() -> None:
    edges = subband_edges(SLOPED, 3)
    ends = subband_places(SLOPED, np.stack([edges[:-1], edges[1:]], axis=1))
    assert ends == pytest.approx(np.array([[-0.5, 0.5]] * 3), abs=1e-9)
    nodes, _ = subband_nodes(SLOPED, 3)
    assert (np.diff(subband_places(SLOPED, nodes)) > 0).all()
    for in_band in ("linear", "flat"):
        _, shares = subband_shares(SLOPED, 3, in_band)  # type: ignore[arg-type]
        assert shares.sum(axis=1) == pytest.approx(1.0, abs=1e-12)


def test_shifts_are_those_of_the_mean_photon_of_each_sub_band() -> None:
    found = dcr_shifts(SLOPED, HELD_OUT, NORTH_UP)["amplitude"].to_numpy()
    edges = subband_edges(SLOPED, 3)
    for plane in range(3):
        nm = np.linspace(edges[plane], edges[plane + 1], 4001)
        passed = SLOPED.transmission(nm)
        expected = (dispersion(SLOPED, HELD_OUT, nm) * passed).sum(axis=1) / passed.sum()
        assert found[:, plane] / 0.2 == pytest.approx(expected / 0.2, abs=0.01)  # pixel


def test_skies_through_a_sloping_band_pass_are_solved_for_as_those_through_a_flat_one() -> None:
    made = simulate_chromatic(
        np.random.default_rng(1), band=SLOPED, parameters=ChromaticParameters(size=96, stars=20)
    )
    y, x = np.mgrid[:96, :96]
    square = (y - made.scene["y"].values[:, None, None]) ** 2
    near = (square + (x - made.scene["x"].values[:, None, None]) ** 2 < 64).any(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        found = solve_dcr(
            made.warps, made.conditions, SLOPED, made.coadd, jacobian=made.jacobian
        ).model
        assert float(found["wavelength_edges"][0, 1]) == subband_edges(SLOPED, 3)[1]
        for visit in range(4):
            table = HELD_OUT.isel(visit=[visit])
            true = chromatic_images(made.scene, table, SLOPED, made.jacobian, (96, 96))[0]
            left = (true - predict_template(found, table)["image"]).to_numpy()[near]
            plain = (true - made.coadd["image"]).to_numpy()[near]
            assert np.sqrt((left**2).mean() / (plain**2).mean()) <= 0.05


@pytest.mark.parametrize(
    ("at", "passed", "message"),
    [
        ([400.0, 500.0], [1.0], "of one length"),
        ([400.0], [1.0], "at least 2"),
        ([500.0, 400.0], [1.0, 1.0], "ascend"),
        ([400.0, 500.0], [1.0, np.nan], "finite"),
        ([400.0, 500.0], [0.0, -1.0], "nowhere above 0"),
    ],
)
def test_band_passes_that_cannot_be_are_refused(at: object, passed: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Band.from_throughput("g", at, passed)  # type: ignore[arg-type]


def test_visits_see_the_band_pass_that_a_model_was_made_with() -> None:
    """A model keeps its band, division included."""
    again = Band.model_validate_json(SLOPED.model_dump_json())
    assert again == SLOPED
    visits = chromatic_conditions(50.0, 10.0)
    assert (dcr_shifts(again, visits, NORTH_UP)["shift_y"]).equals(
        dcr_shifts(SLOPED, visits, NORTH_UP)["shift_y"]
    )
