"""Outliers and turn-offs: measured curves, constructed curves, and every way to fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.linearity import linearity_outliers
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.photon_transfer.rolloff import fit_rolloff
from skyloom.algorithms.photon_transfer.solve_parameters import (
    LinearityParameters,
    RolloffParameters,
    TurnoffParameters,
)
from skyloom.algorithms.photon_transfer.turnoff import Turnoff, find_turnoff

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "data" / "photon_transfer_reference.json").read_text()
)
ROBUST, LEGACY = TurnoffParameters(), TurnoffParameters(mode="legacy")


def measured(name: str) -> tuple[Floats, Floats]:
    """Return a coarse curve, with NaN for the points that saturated."""
    curve = REFERENCE["curves"][name]
    missing = [np.nan] * (REFERENCE["points"] - len(curve["mean"]))
    return np.array(curve["mean"] + missing), np.array(curve["variance"] + missing)


def find(mean: Floats, variance: Floats, parameters: TurnoffParameters = ROBUST) -> Turnoff:
    """Return the turn-off of a curve measured on a million pixels."""
    relative = np.full(len(mean), np.sqrt(2 / 1e6))
    usable = np.ones(len(mean), dtype=bool)
    return find_turnoff(mean, variance, usable, relative_sigma=relative, parameters=parameters)


def ideal(mean: Floats) -> Floats:
    return model_covariance([[-2e-6]], 1.5, 25.0, mean)[:, 0, 0]


@pytest.mark.parametrize("name", list(REFERENCE["curves"]))
def test_legacy_reproduces_the_turnoffs_of_the_survey_pipeline(name: str) -> None:
    found = find(*measured(name), LEGACY)
    expected = REFERENCE["curves"][name]
    assert found.turnoff == pytest.approx(expected["legacy_turnoff"], abs=1e-3)
    assert found.sampling_error == pytest.approx(expected["legacy_sampling_error"], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "turnoff", "gain", "noise"),
    [
        ("normal", 74185.9, 1.401, 38.1),
        ("upturn", 71832.3, 1.617, 83.3),
        ("dip", 87557.8, 1.448, 30.2),
    ],
)
def test_robust_has_the_stated_turnoffs_gains_and_noises(
    name: str, turnoff: float, gain: float, noise: float
) -> None:
    found = find(*measured(name))
    assert found.turnoff == pytest.approx(turnoff, abs=0.06)
    assert found.gain == pytest.approx(gain, abs=6e-4)
    assert found.noise == pytest.approx(noise, abs=0.06)


@pytest.mark.parametrize(
    ("name", "turnoff"), [("normal", 92174.0), ("upturn", 97440.9), ("dip", 87557.8)]
)
def test_the_relative_error_of_the_model_decides_where_the_turnoff_lies(
    name: str, turnoff: float
) -> None:
    found = find(*measured(name), TurnoffParameters(fraction=0.01))
    assert found.turnoff == pytest.approx(turnoff, abs=0.06)
    assert found.scatter == pytest.approx(np.hypot(0.01, np.sqrt(2 / 1e6)))


@pytest.mark.parametrize("parameters", [ROBUST, LEGACY], ids=["robust", "legacy"])
def test_a_low_variance_and_a_missing_point_end_the_curve_before_them(
    parameters: TurnoffParameters,
) -> None:
    mean = np.linspace(500, 60000, 40)
    variance = ideal(mean)
    variance[-2] *= 0.9
    variance[-1] = np.nan
    found = find(mean, variance, parameters)
    assert found.turnoff == mean[-3]
    assert found.keep.tolist() == [True] * 38 + [False] * 2


@pytest.mark.parametrize("parameters", [ROBUST, LEGACY], ids=["robust", "legacy"])
def test_a_single_outlier_is_left_out_and_the_curve_goes_on(parameters: TurnoffParameters) -> None:
    mean = np.linspace(500, 40000, 60)
    variance = ideal(mean)
    variance[[2, 30]] *= [1.5, 0.9]
    found = find(mean, variance, parameters)
    assert np.flatnonzero(~found.keep).tolist() == [2, 30]
    assert found.turnoff == mean[-1]


def test_variances_of_zero_are_left_out_and_divide_nothing() -> None:
    mean, variance = measured("normal")
    expected = find(mean, variance, LEGACY)
    variance[[3, 17]] = 0.0
    for parameters in (ROBUST, LEGACY):
        found = find(mean, variance, parameters)
        assert not found.keep[[3, 17]].any()
        assert np.isfinite(found.gain)
    assert find(mean, variance, LEGACY).turnoff == expected.turnoff


def test_noise_that_differs_between_pairs_makes_no_outliers_unless_told_so() -> None:
    mean = np.geomspace(5, 40000, 60)
    variance = ideal(mean)
    variance[1] += 0.08 * 25 / 1.5**2 * 5  # five times 8 % of the noise
    assert find(mean, variance).keep.all()
    strict = find(mean, variance, TurnoffParameters(noise_fraction=0.0))
    assert np.flatnonzero(~strict.keep).tolist() == [1]


@given(st.permutations(range(43)))
def test_the_order_of_the_points_does_not_matter(order: list[int]) -> None:
    mean, variance = measured("normal")
    found = find(mean[order], variance[order])
    expected = find(mean, variance)
    np.testing.assert_array_equal(found.keep, expected.keep[order])
    assert (found.turnoff, found.gain) == (expected.turnoff, expected.gain)


def test_without_pixel_counts_the_scatter_at_low_signal_takes_their_place() -> None:
    generator = np.random.default_rng(5)
    mean = np.linspace(500, 60000, 300)
    variance = ideal(mean) * (1 + 0.01 * generator.normal(size=300))
    variance[280:] *= 0.8
    found = find_turnoff(mean, variance, np.ones(300, dtype=bool))
    assert found.scatter == pytest.approx(0.01, rel=0.3)
    assert found.turnoff == mean[279]


def test_a_coarse_curve_starts_with_its_lowest_points() -> None:
    mean = np.linspace(2000, 34000, 17)
    found = find(mean, np.where(mean > 30000, 0.5, 1.0) * ideal(mean))
    assert not found.problem
    assert found.turnoff == 30000


@pytest.mark.parametrize("repeats", [5, 40])
@pytest.mark.parametrize(
    "levels",
    [
        (5e3, 1e4, 2e4, 4e4, 8e4),
        (3e3, 1e4, 2e4, 3e4, 4e4, 5e4, 6e4),
        tuple(np.geomspace(1, 9e4, 9)),
        tuple(np.concatenate([np.linspace(100, 110, 6), np.linspace(4e4, 9e4, 12)])),
    ],
)
def test_many_pairs_at_few_levels_are_one_curve(levels: tuple[float, ...], repeats: int) -> None:
    # two levels of signal, however often taken, do not determine the three numbers of a curve
    generator = np.random.default_rng(repeats)
    mean = np.repeat(levels, repeats) / 1.5
    mean *= 1 + 1e-3 * generator.standard_normal(mean.size)
    variance = ideal(mean) * (1 + np.sqrt(2 / 1e6) * generator.standard_normal(mean.size))
    found = find(mean, variance)
    assert not found.problem
    assert found.keep.all()
    assert found.gain == pytest.approx(1.5, rel=3e-3)
    assert found.turnoff == mean.max()


def test_pairs_at_too_few_levels_are_told_with_their_counts() -> None:
    mean = np.repeat([1e4, 3e4, 5e4, 7e4, 9e4], 10)
    found = find(mean, ideal(mean))
    assert "20 of 50 usable pairs, at 2 levels" in found.problem
    assert "at 3 levels" in found.problem
    assert not found.keep.any()


def test_too_few_points_are_told_with_their_counts() -> None:
    found = find(*(np.array([100.0, 200.0, 300.0, 900.0, 1000.0]),) * 2)
    assert "3 of 5 usable pairs, at 3 levels" in found.problem
    assert "5 are needed" in found.problem
    assert not found.keep.any()
    assert np.isnan(found.turnoff)


def test_a_curve_above_the_limit_of_the_first_legacy_fit_says_so() -> None:
    mean = np.linspace(80000, 90000, 20)
    found = find(mean, ideal(mean), LEGACY)
    assert "limit of the first fit" in found.problem
    assert "80000 adu" in found.problem


def test_legacy_without_iterations_fits_once_and_rejects_nothing() -> None:
    mean, variance = measured("normal")
    found = find(mean, variance, TurnoffParameters(mode="legacy", iterations=0))
    assert not found.problem
    np.testing.assert_array_equal(found.keep, np.isfinite(mean))


def test_legacy_limits_can_be_in_adu() -> None:
    mean = np.linspace(500, 60000, 60)
    variance = ideal(mean)
    variance[40] *= 0.5
    jumpy = TurnoffParameters(mode="legacy", scale_by_gain=False, largest_jump=1500.0)
    assert find(mean, variance, jumpy).turnoff == mean[39]
    assert find(mean, variance, LEGACY).turnoff == mean[-1]


@pytest.mark.parametrize("parameters", [ROBUST, LEGACY], ids=["robust", "legacy"])
def test_nothing_usable_is_a_problem_and_not_an_exception(parameters: TurnoffParameters) -> None:
    assert find(np.full(5, np.nan), np.ones(5), parameters).problem == "no usable pair"
    assert find(np.ones(5), np.zeros(5), parameters).problem == "no usable pair"
    assert find(np.empty(0), np.empty(0), parameters).problem == "no usable pair"


def rolling(mean: Floats, knee: float, scale: float) -> Floats:
    plain = ideal(mean)
    peak = float(ideal(np.array([knee]))[0])
    return plain - 1e-3 * peak * np.expm1(np.clip((mean - knee) / scale, 0, 8))


def test_the_rolloff_recovers_knee_and_scale_within_its_errors() -> None:
    generator = np.random.default_rng(6)
    mean = np.linspace(300, 80000, 400)
    variance = rolling(mean, 60000.0, 1500.0) * (1 + 1e-3 * generator.normal(size=400))
    usable = np.ones(400, dtype=bool)
    turnoff = find_turnoff(mean, variance, usable, parameters=TurnoffParameters(fraction=1e-3))
    found = fit_rolloff(
        mean, variance, usable, turnoff, parameters=RolloffParameters(fraction=2e-3)
    )
    assert not found.failed
    assert abs(found.start - 60000) < 4 * found.start_sigma
    assert abs(found.scale - 1500) < 4 * found.scale_sigma
    assert 0 < found.start_sigma < 1000
    # the change reaches the fraction where 1e-3 V(60000) expm1(x) is 2e-3 V
    truth = mean[np.abs(rolling(mean, 60000.0, 1500.0) / ideal(mean) - 1) > 2e-3][0]
    assert abs(found.rolloff - truth) < 4 * found.rolloff_sigma + np.diff(mean)[0]
    assert 60000 < found.rolloff <= turnoff.turnoff
    assert found.keep.sum() <= turnoff.keep.sum()
    assert mean[found.keep].max() == found.rolloff


def test_without_points_above_the_turnoff_the_rolloff_is_the_turnoff() -> None:
    mean = np.linspace(300, 50000, 50)
    turnoff = find(mean, ideal(mean))
    found = fit_rolloff(mean, ideal(mean), np.ones(50, dtype=bool), turnoff)
    assert (found.rolloff, found.failed) == (turnoff.turnoff, False)
    assert np.isnan(found.start_sigma)


def test_linearity_finds_one_wrong_reading_and_leaves_curvature_alone() -> None:
    light = np.geomspace(1, 1000, 60)
    mean = 100 * light * (1 + 0.02 * np.log(light))
    mean[40:] = np.minimum(mean[40:], 80000)
    reading = light.copy()
    reading[25] *= 1.03
    reading[3] = np.nan
    found = linearity_outliers(mean, reading, np.ones(60, dtype=bool))
    assert np.flatnonzero(found[:50]).tolist() == [25]
    few = linearity_outliers(mean[:5], reading[:5], np.ones(5, dtype=bool))
    assert not few.any()
    generous = LinearityParameters(tolerance=0.2)
    assert not linearity_outliers(mean, reading, np.ones(60, dtype=bool), parameters=generous).any()


def test_pairs_that_repeat_a_level_do_not_shrink_the_sampling_error() -> None:
    levels = np.geomspace(500.0, 9e4, 24)
    mean = np.sort(np.concatenate([levels, levels * 1.0004]))
    variance = np.where(mean < 6e4, mean / 1.5 * (1 - 2e-6 * mean), 0.3 * mean)
    single = find_turnoff(
        levels,
        np.interp(levels, mean, variance),
        np.isfinite(levels),
        relative_sigma=np.full(levels.size, 2e-3),
        parameters=TurnoffParameters(),
    )
    double = find_turnoff(
        mean,
        variance,
        np.isfinite(mean),
        relative_sigma=np.full(mean.size, 2e-3),
        parameters=TurnoffParameters(),
    )
    assert double.turnoff == pytest.approx(single.turnoff, rel=1e-3)
    assert double.sampling_error == pytest.approx(single.sampling_error, rel=0.01)
