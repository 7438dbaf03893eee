"""A hundred simulated sets of covariances: estimates scatter as their errors say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.fit import Start, fit_covariances
from skyloom.algorithms.photon_transfer.models import MODELS_WITH_B, model_covariance

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "data" / "photon_transfer_reference.json").read_text()
)
A = np.array(REFERENCE["a_lag_x_lag_y"]).T
GAIN, SETS, PAIRS, LAGS = 1.42, 100, 60, 5


@pytest.fixture(scope="module", params=["exact", "exact_b"])
def pulls(request: pytest.FixtureRequest) -> dict[str, Floats]:
    """Return (estimate - truth) / error of each set, and chi2 / dof."""
    model = str(request.param)
    axis = np.arange(LAGS) == 0
    square = np.where(axis[:, None] & axis, 2.0, np.where(axis[:, None] | axis, 1.0, 0.5))
    relative = np.broadcast_to(np.sqrt(square / 1e6), (PAIRS, LAGS, LAGS))
    mean = np.linspace(500, 9e4, PAIRS) / GAIN
    noise = np.zeros((LAGS, LAGS))
    noise[0, 0] = 30.0
    c = 5e-7 * A if model in MODELS_WITH_B else None
    exact = model_covariance(A, GAIN, noise, mean, c=c, model=model)
    generator = np.random.default_rng(20)
    rows = []
    for _ in range(SETS):
        errors = relative * exact[:, :1, :1] * generator.standard_normal(exact.shape)
        start = Start(1.4, 0.9 * A, None if c is None else 0 * c)
        fit = fit_covariances(mean, exact + errors, relative, start, model=model)
        assert fit.converged
        sigma = np.sqrt(np.diag(fit.covariance))
        rows.append(
            {
                "gain": (fit.gain - GAIN) / sigma[0],
                "a_00": (fit.a[0, 0] - A[0, 0]) / sigma[1],
                "a_01": (fit.a[1, 0] - A[1, 0]) / sigma[1 + LAGS],
                "n_00": (fit.noise[0, 0] - 30) / np.sqrt(fit.noise_covariance[0, 0]),
                "n_01": fit.noise[1, 0] / np.sqrt(fit.noise_covariance[1, 0]),
                "chi2": fit.chi2 / fit.dof,
                "dof": fit.dof,
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("name", ["gain", "a_00", "a_01", "n_00", "n_01"])
def test_pulls_have_mean_zero_and_width_one(pulls: dict[str, Floats], name: str) -> None:
    # of 100 sets the mean of pulls has an error of 0.1, their width of 0.07
    assert abs(pulls[name].mean()) < 0.3
    assert pulls[name].std(ddof=1) == pytest.approx(1, abs=0.15)


def test_chi2_per_degree_of_freedom_is_one(pulls: dict[str, Floats]) -> None:
    error = np.sqrt(2 / pulls["dof"][0])
    assert abs(pulls["chi2"].mean() - 1) < 3 * error / np.sqrt(SETS)
    assert pulls["chi2"].std() == pytest.approx(error, rel=0.3)
