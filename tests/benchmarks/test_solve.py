"""Full covariance fits beside the reference and a finite-difference fit of the same model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from skyloom.algorithms.photon_transfer.fit import Start, fit_covariances, starting_values
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.photon_transfer.solve import solve

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "data" / "photon_transfer_reference.json").read_text()
)
A = np.array(REFERENCE["a_lag_x_lag_y"]).T
GAIN = 1.42
PUBLISHED_S = {8: 0.68, 10: 1.8}
"""The middle of 0.55 to 0.81 and of 1.6 to 2.0 seconds."""


def curve(pairs: int, lags: int) -> tuple[Floats, Floats, Floats]:
    """Return mean, covariances with the noise of a million pixels, and their relative errors."""
    a = np.zeros((lags, lags))
    a[:5, :5] = A
    y, x = np.indices(a.shape)
    far = np.maximum(y, x) >= 5
    a[far] = 5e-7 / (x + y + 1.0)[far] ** 2.5
    mean = np.linspace(500, 9e4, pairs) / GAIN
    exact = model_covariance(a, GAIN, 30 * np.equal(x + y, 0), mean)
    axis = np.where((x == 0) & (y == 0), 2.0, np.where((x == 0) | (y == 0), 1.0, 0.5))
    relative = np.broadcast_to(np.sqrt(axis / 1e6), exact.shape).copy()
    noise = np.random.default_rng(1).standard_normal(exact.shape)
    return mean, exact + relative * exact[:, :1, :1] * noise, relative


def start_of(mean: Floats, covariance: Floats, relative: Floats) -> Start:
    sigma = relative * covariance[:, :1, :1]
    return starting_values(mean, covariance, sigma, gain=1.4, a_00=-3e-6, model="exact")


def finite_differences(
    mean: Floats, covariance: Floats, sigma: Floats, start: Start
) -> OptimizeResult:
    """Return what MINPACK makes of all pairs, without derivatives."""
    lags = covariance.shape[1]
    scale = np.concatenate([[1.0], np.full(lags**2, 1e-7), np.full(lags**2, 10.0)])

    def residual(scaled: Floats) -> Floats:
        values = scaled * scale
        a, noise = values[1:].reshape(2, lags, lags)
        return ((covariance - model_covariance(a, values[0], noise, mean)) / sigma).ravel()

    first = np.concatenate([[start.gain], start.a.ravel(), np.zeros(lags**2)]) / scale
    return least_squares(residual, first, method="lm", xtol=1e-8, ftol=1e-8)


@pytest.mark.parametrize("lags", [8, 10])
def test_full_covariance_fit_of_60_pairs(compare, lags: int) -> None:
    mean, covariance, relative = curve(60, lags)
    start = start_of(mean, covariance, relative)
    compare(
        "full covariance fit",
        lambda: fit_covariances(mean, covariance, relative, start),
        size=f"60 pairs, {lags} x {lags} lags",
        published_s=PUBLISHED_S[lags],
        target=10.0,
        rounds=25,
    )


@pytest.mark.parametrize("lags", [8, 10])
def test_whole_solve_of_an_amplifier(compare, lags: int) -> None:
    mean, covariance, relative = curve(60, lags)
    lagged = ("pair", "amp", "lag_y", "lag_x")
    sigma = relative * covariance[:, :1, :1]
    pairs = xr.Dataset(
        {
            "mean": (("pair", "amp"), mean[:, None], {"units": "adu"}),
            "variance": (("pair", "amp"), covariance[:, None, 0, 0], {"units": "adu2"}),
            "covariance": (lagged, covariance[:, None], {"units": "adu2"}),
            "covariance_sigma": (lagged, sigma[:, None], {"units": "adu2"}),
        },
        coords={"amp": ["C00"]},
    )
    compare(
        "whole solve: turn-off, fit, errors, dataset",
        lambda: solve(pairs),
        size=f"60 pairs, {lags} x {lags} lags",
        published_s=PUBLISHED_S[lags],
        target=10.0,
        rounds=25,
    )


def test_full_covariance_fit_of_400_pairs(compare, peer) -> None:
    mean, covariance, relative = curve(400, 10)
    start = start_of(mean, covariance, relative)
    fit = fit_covariances(mean, covariance, relative, start)
    found: list[OptimizeResult] = []
    compare(
        "full covariance fit",
        lambda: fit_covariances(mean, covariance, relative, start),
        size="400 pairs, 10 x 10 lags",
        peers=(
            peer(
                "finite-difference least squares of the same model",
                lambda: found.append(finite_differences(mean, covariance, fit.sigma, start)),
                target=20.0,
                rounds=1,
            ),
        ),
    )
    assert fit.chi2 == pytest.approx(2 * found[-1].cost, rel=1e-8)
