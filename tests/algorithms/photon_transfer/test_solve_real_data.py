"""Measured pairs and covariances of real sensors through the solve."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.electrostatic_fit import (
    ElectrostaticFitParameters,
    fit_electrostatic,
)
from skyloom.algorithms.photon_transfer.kernel import brighter_fatter_kernel, full_prekernel
from skyloom.algorithms.photon_transfer.lattice import even_sum
from skyloom.algorithms.photon_transfer.solve import solve
from skyloom.algorithms.photon_transfer.solve_parameters import (
    LinearityParameters,
    SolveParameters,
    TurnoffParameters,
)
from skyloom.algorithms.vocabulary import AmplifierFlag, PairStatus
from tests.real_data.measured import SHARED, itl_covariances, lsst_camera_pairs

with_shared_data = pytest.mark.skipif(not SHARED.exists(), reason="shared data not here")


@pytest.fixture(scope="module")
def pairs() -> xr.Dataset:
    """Return the 338 measured pairs of one LSST Camera amplifier."""
    return lsst_camera_pairs()


@with_shared_data
def test_an_lsst_camera_amplifier_has_its_published_gain_and_coefficient(
    pairs: xr.Dataset,
) -> None:
    parameters = SolveParameters(model="exp00", weights="relative", maximum_mean=50000.0)
    ptc = solve(pairs, parameters=parameters).isel(amp=0)
    assert ptc["a"][0, 0].item() == pytest.approx(-3.015e-6, abs=0.04e-6)
    assert ptc["gain"].item() == pytest.approx(1.4034, abs=0.002)
    assert ptc["noise"].item() == pytest.approx(5.17, abs=0.05)
    assert ptc["a_sigma"][0, 0].item() == pytest.approx(0.035e-6, rel=0.1)
    assert np.sqrt(ptc["chi2"] / ptc["dof"]).item() == pytest.approx(0.008, abs=0.0005)
    assert ptc["amp_flag"] == AmplifierFlag.GOOD


@with_shared_data
@pytest.mark.parametrize("mode", ["robust", "legacy"])
def test_its_turnoff_is_where_its_variance_is_largest(pairs: xr.Dataset, mode: str) -> None:
    parameters = SolveParameters(
        model="exp00", weights="relative", turnoff=TurnoffParameters.model_validate({"mode": mode})
    )
    ptc = solve(pairs, parameters=parameters).isel(amp=0)
    assert abs(ptc["turnoff"] - 92670) <= ptc["turnoff_sampling_error"]


@with_shared_data
def test_its_saturated_pairs_and_its_outlier_are_rejected_with_codes(pairs: xr.Dataset) -> None:
    # the outlier follows the variance curve and only disagrees with the photodiode, so it is
    # the comparison with the light received that finds it
    parameters = SolveParameters(
        model="exp00",
        weights="relative",
        linearity=LinearityParameters(against="photo_charge"),
    )
    status = solve(pairs, parameters=parameters)["pair_status"].isel(amp=0).to_numpy()
    mean = pairs["mean"].isel(amp=0).to_numpy()
    saturated = mean > 106700
    assert saturated.sum() == 23
    assert (status[saturated] == PairStatus.ABOVE_TURNOFF).all()
    assert (status[mean > 92671] == PairStatus.ABOVE_TURNOFF).all()
    outliers = np.flatnonzero(status == PairStatus.OUTLIER)
    assert mean[outliers].round(1).tolist() == [26320.3]
    assert (status == PairStatus.OK).sum() == 338 - 29 - 1


@pytest.fixture(scope="module")
def measured_covariances() -> NDArray[np.float64]:
    """Return the covariances of an ITL sensor over its variance, as they were published."""
    return itl_covariances()[0]


@with_shared_data
def test_symmetry_weights_add_measured_covariances_up_to_conserved_charge(
    measured_covariances: NDArray[np.float64],
) -> None:
    assert measured_covariances[0, 0] == -0.101533
    # the variance deficit was set to minus the rest, rounded to six decimals
    assert abs(even_sum(measured_covariances)) <= 1.5e-6
    # so making a pre-kernel conserve charge finds the deficit from the other lags alone
    without = -measured_covariances
    without[0, 0] = 0.0
    assert full_prekernel(without)[6, 6] == pytest.approx(0.101533, abs=1.5e-6)


@with_shared_data
def test_measured_covariances_make_a_valid_kernel_and_fit_the_charge_that_makes_them(
    measured_covariances: NDArray[np.float64],
) -> None:
    signal = 8e4  # about; it only scales
    ptc = xr.Dataset(
        {
            "gain": ("amp", [1.0]),
            "a": (("amp", "lag_y", "lag_x"), measured_covariances[None] / signal),
        },
        coords={"amp": ["VBB60"]},
    )
    found = brighter_fatter_kernel(ptc)
    assert bool(found["kernel_valid"][0])
    kernel = found["kernel"][0].to_numpy()
    assert (np.diff(kernel[6, 6:]) > 0).all()
    assert (np.diff(kernel[6:, 6]) > 0).all()
    assert kernel.max() < 5e-3 * -kernel[6, 6]
    fit = fit_electrostatic(ptc, parameters=ElectrostaticFitParameters(fit_range=6))
    ratio = (fit["a_model"] / fit["a_mean"]).to_numpy()
    assert ratio[0, 0] == pytest.approx(1.0, abs=0.01)
    assert ratio[1, 0] == pytest.approx(1.0, abs=0.04)
    assert ratio[0, 1] == pytest.approx(1.0, abs=0.04)
    assert ratio[1, 1] == pytest.approx(1.0, abs=0.15)
