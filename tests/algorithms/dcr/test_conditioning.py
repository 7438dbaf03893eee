"""What the condition number of a solution says of its visits."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.dcr.conditioning import condition_number
from skyloom.algorithms.dcr.operator import fourier_operator
from tests.algorithms.dcr.analytic import NORTH_UP, G, conditions, dozen

FWHM = 4.0
ANGLES = np.linspace(-150.0, 150.0, 12)
GOOD = dozen(np.random.default_rng(1))
ONE_AIRMASS = conditions(np.full(12, 45.0), ANGLES)
ONE_ANGLE = conditions(np.linspace(10.0, 55.0, 12), 40.0)
NEAR_ZENITH = conditions(np.linspace(3.0, 19.0, 12), ANGLES)
NEARLY_ALIKE = conditions(np.linspace(40.0, 47.0, 12), np.linspace(30.0, 50.0, 12))
AT_ZENITH = conditions(np.linspace(1.0, 5.0, 12), ANGLES)
IDENTICAL = conditions(np.full(6, 45.0), 30.0)


def condition_of(table: xr.Dataset, subfilters: int = 3, fwhm: float = FWHM) -> float:
    operator = fourier_operator((96, 96), G, table, NORTH_UP, subfilters=subfilters)
    return condition_number(operator, np.full(operator.visits, 0.04), fwhm)


def test_visits_that_tell_colours_better_have_a_smaller_condition_number() -> None:
    found = [condition_of(table) for table in (GOOD, ONE_AIRMASS, ONE_ANGLE, NEAR_ZENITH)]
    assert found == sorted(found)
    assert found[0] < 60.0
    assert found[1] < 100.0
    assert found[2] > 20.0 * found[1]
    assert found[3] > 300.0 * found[1]


def test_two_sub_bands_are_better_known_than_three() -> None:
    for table in (GOOD, ONE_AIRMASS, ONE_ANGLE, NEAR_ZENITH, NEARLY_ALIKE):
        assert 1.0 < condition_of(table, 2) < 0.1 * condition_of(table)
    assert condition_of(GOOD, 1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("table", [IDENTICAL, AT_ZENITH], ids=["identical", "at the zenith"])
def test_visits_that_leave_a_mix_of_three_sub_bands_open_have_none(table: xr.Dataset) -> None:
    assert condition_of(table) == np.inf


def test_two_visits_determine_two_sub_bands_but_not_three() -> None:
    table = conditions([20.0, 50.0], [30.0, -60.0])
    assert condition_of(table, 2) < 10.0
    assert condition_of(table) == np.inf


def test_only_weights_of_visits_relative_to_each_other_count() -> None:
    operator = fourier_operator((96, 96), G, GOOD, NORTH_UP)
    weights = np.linspace(0.5, 2.0, 12)
    found = condition_number(operator, weights, FWHM)
    assert condition_number(operator, 1e6 * weights, FWHM) == pytest.approx(found, rel=1e-3)
    assert condition_number(operator, weights * (np.arange(12) < 1), FWHM) == np.inf
    assert condition_number(operator, np.zeros(12), FWHM) == np.inf


@pytest.mark.parametrize("fwhm", [0.5, 1.0, 30.0, 200.0])
def test_widths_of_any_size_have_a_frequency(fwhm: float) -> None:
    assert condition_of(GOOD, fwhm=fwhm) > 1.0
