"""A hundred amplifiers, from simulated pixels to fitted parameters: do the error bars hold?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.extraction import extract_detector
from skyloom.algorithms.photon_transfer.lattice import even_sum
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.photon_transfer.solve import solve
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.algorithms.simulate import (
    FrameParameters,
    amplifier_grid,
    flat_plan,
    flat_truth,
    simulate_exposure,
)
from tests.validation.rows import Row, between

DETECTORS, GRID, SHAPE = 25, (2, 2), (256, 256)
LEVELS = np.linspace(2e3, 8e4, 30)
LAGS = 5
NAMES = (
    "gain",
    "a_00",
    "a_01",
    "sum of a (subtracting the mean of 65 536 pixels costs each lag V/n)",
)


def pulls_of_detector(number: int) -> NDArray[np.float64]:
    """Return pulls of gain, a_00, a_01 and sum of a, chi2 and dof, (amp, 6), of one detector."""
    name = f"D{number:02d}"
    amplifiers = amplifier_grid(name, GRID, SHAPE)
    truth = flat_truth(amplifiers, seed=100 + number)
    plan = flat_plan(LEVELS, seed=1000 + number)
    look = FrameParameters(dtype="float32", bias_structure=0.0)
    pairs = xr.concat(list(_pairs(plan, amplifiers, truth, look)), dim="pair")
    solved = solve(pairs, parameters=SolveParameters(model="exact"))
    a = solved["a"] - truth["a"].isel(lag_y=slice(LAGS), lag_x=slice(LAGS))
    columns = [
        (solved["gain"] - truth["gain"]) / solved["gain_sigma"],
        a.isel(lag_y=0, lag_x=0) / solved["a_sigma"].isel(lag_y=0, lag_x=0),
        a.isel(lag_y=1, lag_x=0) / solved["a_sigma"].isel(lag_y=1, lag_x=0),
        (solved["sum_a"] - _sum_over_images(truth)) / solved["sum_a_sigma"],
        solved["chi2"],
        solved["dof"],
    ]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _sum_over_images(truth: xr.Dataset) -> NDArray[np.float64]:
    fitted = truth["a"].isel(lag_y=slice(LAGS), lag_x=slice(LAGS)).transpose("amp", ...)
    return np.array([even_sum(matrix) for matrix in fitted.to_numpy()])


def _pairs(
    plan: xr.Dataset, amplifiers: xr.Dataset, truth: xr.Dataset, look: FrameParameters
) -> Iterator[xr.Dataset]:
    numbers = plan["exposure"].to_numpy()
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        frames = [
            simulate_exposure(plan, int(number), amplifiers, truth, parameters=look)
            for number in (first, second)
        ]
        yield extract_detector(*frames, amplifiers, parameters=ExtractParameters(lags=LAGS))


def measure() -> list[Row]:
    """Return the rows of this topic."""
    with ProcessPoolExecutor(2) as pool:
        found = np.concatenate(list(pool.map(pulls_of_detector, range(DETECTORS))))
    rows = []
    for name, pull in zip(
        (
            "gain",
            "a_00",
            "a_01",
            "sum of a (subtracting the mean of 65 536 pixels costs each lag V/n)",
        ),
        found[:, :4].T,
        strict=True,
    ):
        rows.append(between(f"{name}: mean of {len(pull)} pulls", pull.mean(), -0.3, 0.3))
        rows.append(between(f"{name}: width of the pulls", pull.std(ddof=1), 0.85, 1.15))
    chi2, dof = found[:, 4], found[:, 5]
    error = np.sqrt(2 / dof.mean() / len(dof))
    rows.append(
        between(
            f"chi2/dof, mean of all (its statistical error is {error:.4f})",
            float((chi2 / dof).mean()), 1 - 3 * error, 1 + 3 * error, form=".4f",
        )
    )  # fmt: skip
    return rows
