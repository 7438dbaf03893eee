"""The fit of one amplifier: exact on its own models, honest about its errors, same bits always."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from threadpoolctl import threadpool_limits

from skyloom.algorithms.photon_transfer.compression import choose_nodes
from skyloom.algorithms.photon_transfer.fit import (
    CovarianceFit,
    Start,
    fit_covariances,
    starting_values,
)
from skyloom.algorithms.photon_transfer.models import MODELS, MODELS_WITH_B, model_covariance

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "data" / "photon_transfer_reference.json").read_text()
)
A = np.array(REFERENCE["a_lag_x_lag_y"]).T
GAIN = 1.42
NOISE = 20 * np.eye(5, 5)[:1].T @ np.eye(5, 5)[:1] + 1.5


def relative_errors(pairs: int, lags: int, pixels: float = 1e6) -> Floats:
    """Return the errors of covariances over the variance for that many pixels."""
    axis = np.arange(lags) == 0
    square = np.where(axis[:, None] & axis, 2.0, np.where(axis[:, None] | axis, 1.0, 0.5))
    return np.broadcast_to(np.sqrt(square / pixels), (pairs, lags, lags)).copy()


def truth(model: str, mean: Floats, lags: int = 5) -> Floats:
    c = 1e-6 * A[:lags, :lags] if model in MODELS_WITH_B else None
    return model_covariance(A[:lags, :lags], GAIN, NOISE, mean, c=c, model=model)


def fit(
    mean: Floats, covariance: Floats, model: str, start_gain: float = 1.3, **options: int
) -> CovarianceFit:
    lags = covariance.shape[1]
    relative = relative_errors(len(mean), lags)
    sigma = relative * np.abs(covariance[:, :1, :1])
    start = starting_values(mean, covariance, sigma, gain=start_gain, a_00=-2e-6, model=model)
    return fit_covariances(mean, covariance, relative, start, model=model, **options)


@pytest.mark.parametrize("pairs", [9, 60, 400])
@pytest.mark.parametrize("model", [model for model in MODELS if model != "linear"])
def test_noiseless_data_give_back_every_parameter(model: str, pairs: int) -> None:
    mean = np.linspace(300, 9e4 / GAIN, pairs)
    found = fit(mean, truth(model, mean), model)
    lags = len(found.a)
    assert found.converged
    assert found.gain == pytest.approx(GAIN, rel=1e-9)
    np.testing.assert_allclose(found.a, A[:lags, :lags], atol=1e-13)
    np.testing.assert_allclose(found.noise, NOISE[:lags, :lags], atol=1e-5)
    if found.c is not None:
        np.testing.assert_allclose(found.c, 1e-6 * A, atol=1e-18)
    assert found.chi2 < 1e-6
    assert found.dof == pairs * lags**2 - 1 - lags**2 * (2 + (found.c is not None))


@pytest.mark.parametrize("gain", [0.4, 0.75, 3.0])
def test_the_fit_finds_its_way_from_a_poor_start(gain: float) -> None:
    mean = np.linspace(300, 9e4, 60) / gain
    covariance = model_covariance(A, gain, NOISE, mean)
    for factor in (0.6, 1.6):
        found = fit(mean, covariance, "exact", start_gain=factor * gain)
        assert found.converged
        assert found.gain == pytest.approx(gain, rel=1e-9)
        np.testing.assert_allclose(found.noise, NOISE, atol=1e-4)


def test_the_closed_loop_of_the_variance_model_recovers_its_input() -> None:
    time = np.arange(1.0, 97.0, 5.0)
    mean = 1000 * time - 5e-6 * time**2
    variance = model_covariance([[-1.2e-6]], 0.75, 1.5, mean)
    sigma = 1 / np.array(REFERENCE["closed_loop_sqrt_weights"])
    found = fit_covariances(
        mean,
        variance,
        sigma[:, None, None] / variance,
        Start(1.5, np.array([[-2e-6]]), None),
        model="exp00",
    )
    assert found.gain == pytest.approx(0.75, abs=1e-7)
    assert found.a[0, 0] == pytest.approx(-1.2e-6, rel=1e-5)
    assert np.sqrt(found.noise[0, 0]) == pytest.approx(1.224745, abs=1e-6)
    assert np.sqrt(found.noise[0, 0]) == pytest.approx(np.sqrt(1.5), abs=1e-7)


def noisy(seed: int, pairs: int, lags: int, model: str = "exact") -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    mean = np.linspace(300, 9e4 / GAIN, pairs)
    exact = truth(model, mean, lags)
    sigma = relative_errors(pairs, lags) * exact[:, :1, :1]
    return mean, exact + sigma * generator.standard_normal(exact.shape)


@pytest.mark.parametrize("model", ["exact", "exact_b", "series4"])
def test_the_fit_agrees_with_least_squares_on_the_pairs_themselves(model: str) -> None:
    mean, covariance = noisy(1, 40, 3)
    found = fit(mean, covariance, model, reweightings=3)
    lags, has_c = 3, found.c is not None
    scale = np.concatenate([[1.0], np.full(9, 1e-7), np.full(9, 10.0), np.full(9 * has_c, 1e-13)])

    def residual(scaled: Floats) -> Floats:
        values = scaled * scale
        a, noise = values[1:10].reshape(lags, lags), values[10:19].reshape(lags, lags)
        c = values[19:].reshape(lags, lags) if has_c else None
        predicted = model_covariance(a, values[0], noise, mean, c=c, model=model)
        return ((covariance - predicted) / found.sigma).ravel()

    vector = [[found.gain], found.a.ravel(), found.noise.ravel()]
    start = np.concatenate(vector + ([found.c.ravel()] if found.c is not None else [])) / scale
    other = least_squares(residual, start * 1.01, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert found.chi2 == pytest.approx(2 * other.cost, rel=1e-8)
    errors = np.linalg.inv(other.jac.T @ other.jac)
    sigma = np.sqrt(np.diag(errors)) * scale
    own = np.sqrt(np.diag(found.covariance))
    distance = (other.x - start) * scale / sigma
    assert np.max(np.abs(distance)) < 1e-3
    np.testing.assert_allclose(own[:10], sigma[:10], rtol=1e-3)
    np.testing.assert_allclose(np.sqrt(found.noise_covariance).ravel(), sigma[10:19], rtol=1e-3)
    cross = errors[10, :10] * scale[10] * scale[:10]
    np.testing.assert_allclose(
        found.noise_by_parameter[0, :10] / (sigma[10] * own[:10]),
        cross / (sigma[10] * own[:10]),
        atol=1e-3,
    )


def test_chi2_is_the_sum_over_the_pairs_and_depends_on_no_node() -> None:
    mean, covariance = noisy(2, 400, 5)
    found = fit(mean, covariance, "exact", reweightings=4)
    assert len(choose_nodes(mean, 1.5).mean) < 20
    moved = Start(found.gain * (1 + 1e-6), found.a, None)
    again = fit_covariances(
        mean,
        covariance,
        relative_errors(400, 5),
        moved,
        variance_start=found.model[:, 0, 0],
        reweightings=1,
    )
    assert again.chi2 == pytest.approx(found.chi2, rel=1e-8)
    direct = np.sum(((covariance - found.model) / found.sigma) ** 2)
    assert found.chi2 == pytest.approx(direct, rel=1e-12)
    assert found.chi2 / found.dof == pytest.approx(1, abs=5 * np.sqrt(2 / found.dof))


def test_values_without_an_error_are_left_out_whatever_they_are() -> None:
    mean, covariance = noisy(3, 60, 3)
    relative = relative_errors(60, 3)
    start = Start(1.4, A[:3, :3], None)
    relative[5], relative[7, 0, 1] = np.nan, 0.0
    first = fit_covariances(mean, covariance, relative, start)
    covariance[5], covariance[7, 0, 1] = np.nan, 1e9
    second = fit_covariances(mean, covariance, relative, start)
    assert first.dof == 60 * 9 - 10 - 19
    assert first.gain == second.gain
    np.testing.assert_array_equal(first.a, second.a)


@pytest.mark.parametrize(
    ("largest", "a_00", "a_01", "gain"),
    [
        (3e4, -0.0002, -0.0003, 6e-6),
        (5e4, -0.0008, -0.0014, 4e-5),
        (7.5e4, -0.0029, -0.0050, 2e-4),
        (1e5, -0.0073, -0.013, 6e-4),
    ],
)
def test_the_truncated_model_is_biased_by_the_stated_amounts(
    largest: float, a_00: float, a_01: float, gain: float
) -> None:
    mean = np.linspace(1000, largest, 60)
    covariance = model_covariance(A, 1.0, 0.0, mean)
    found = fit(mean, covariance, "series4_no_b", start_gain=1.0)
    # stated to one or two digits, for another spacing of the signals
    assert found.a[0, 0] / A[0, 0] - 1 == pytest.approx(a_00, rel=0.15)
    assert found.a[1, 0] / A[1, 0] - 1 == pytest.approx(a_01, rel=0.05)
    assert found.gain - 1 == pytest.approx(gain, rel=0.2)


@pytest.mark.parametrize(
    ("largest", "a_00", "gain"),
    [(3e4, -0.0035, 8e-5), (5e4, -0.0058, 1.9e-4), (7.5e4, -0.0086, 3.9e-4), (1e5, -0.011, 6.5e-4)],
)
def test_the_variance_alone_is_biased_by_the_stated_amounts(
    largest: float, a_00: float, gain: float
) -> None:
    mean = np.linspace(1000, largest, 60)
    covariance = model_covariance(A, 1.0, 0.0, mean)[:, :1, :1]
    found = fit(mean, covariance, "exp00", start_gain=1.0)
    assert found.a[0, 0] / A[0, 0] - 1 == pytest.approx(a_00, rel=0.1)
    assert found.gain - 1 == pytest.approx(gain, rel=0.2)


def test_the_number_of_threads_of_the_linear_algebra_changes_no_bit() -> None:
    mean, covariance = noisy(4, 300, 5)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            results.append(fit(mean, covariance, "exact_b"))
    first, second = results
    assert first.gain == second.gain
    for name in ("a", "c", "noise", "model", "covariance", "noise_covariance"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_fit_that_needs_more_steps_than_allowed_says_so() -> None:
    mean, covariance = noisy(5, 60, 3)
    assert not fit(mean, covariance, "exact", iterations=1, reweightings=1).converged
    assert fit(mean, covariance, "exact").converged


def test_fewer_values_than_parameters_are_refused() -> None:
    mean = np.linspace(1e3, 1e4, 2)
    with pytest.raises(ValueError, match=r"18 covariances cannot determine 19 parameters"):
        fit(mean, truth("exact", mean, 3), "exact")


def test_the_linear_model_is_the_weighted_straight_line() -> None:
    mean = np.linspace(100.0, 4000.0, 15)
    generator = np.random.default_rng(5)
    variance = (mean / 3.5 + 9.0) * (1 + 0.003 * generator.standard_normal(mean.size))
    relative = np.full((mean.size, 1, 1), 0.003)
    start = Start(3.0, np.full((1, 1), -1e-6), None)
    fit = fit_covariances(
        mean, variance[:, None, None], relative, start, model="linear", reweightings=1
    )
    # np.polyfit solves the same least squares; weights are 1 / sigma
    slope, offset = np.polyfit(mean, variance, 1, w=1 / (0.003 * variance))
    assert fit.gain == pytest.approx(1 / slope, rel=1e-9)
    assert fit.noise[0, 0] == pytest.approx(offset / slope**2, rel=1e-7)
    assert fit.a.tolist() == [[0.0]]
    assert fit.dof == mean.size - 2
    assert fit.covariance[1].tolist() == [0.0, 0.0]
    assert fit.converged
