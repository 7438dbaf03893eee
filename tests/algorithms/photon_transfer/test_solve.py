"""The solve of a detector: values, codes, flags, and what it does with bad input."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.assembly import assemble_pairs
from skyloom.algorithms.photon_transfer.bootstrap import bootstrap
from skyloom.algorithms.photon_transfer.models import evaluate_model, model_covariance
from skyloom.algorithms.photon_transfer.solve import fill_bad_amps, solve
from skyloom.algorithms.photon_transfer.solve_parameters import (
    LinearityParameters,
    LongRangeParameters,
    RolloffParameters,
    SolveParameters,
    TurnoffParameters,
)
from skyloom.algorithms.vocabulary import AmplifierFlag, PairStatus

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "data" / "photon_transfer_reference.json").read_text()
)
A = np.array(REFERENCE["a_lag_x_lag_y"]).T
GAINS = (1.2, 1.5)
NOISE = 36.0
PIXELS = 1_000_000
LAGGED = ("pair", "amp", "lag_y", "lag_x")


def detector(
    pairs: int = 60,
    lags: int = 4,
    *,
    seed: int | None = None,
    largest: float = 9e4,
    pixels: int = PIXELS,
    noise: float = NOISE,
) -> xr.Dataset:
    """Return pairs of two amplifiers, noiseless or with the noise of that many pixels."""
    axis = np.arange(lags) == 0
    count = np.where(axis[:, None] | axis, pixels, 2 * pixels)
    relative = np.sqrt(np.where(axis[:, None] & axis, 2.0, 1.0) / count)
    generator = np.random.default_rng(seed)
    mean, covariance = np.empty((pairs, 2)), np.empty((pairs, 2, lags, lags))
    noises = np.zeros((lags, lags))
    noises[0, 0] = noise
    coefficients = np.zeros((lags, lags))
    coefficients[:5, :5] = A[:lags, :lags]
    for index, gain in enumerate(GAINS):
        mean[:, index] = np.linspace(400, largest, pairs) / gain
        exact = model_covariance(coefficients, gain, noises, mean[:, index])
        error = relative * exact[:, :1, :1]
        if seed is not None:
            exact = exact + error * generator.standard_normal(exact.shape)
        covariance[:, index] = exact
    two = ("pair", "amp")
    return xr.Dataset(
        {
            "mean": (two, mean, {"units": "adu"}),
            "variance": (two, covariance[:, :, 0, 0].copy(), {"units": "adu2"}),
            "covariance": (LAGGED, covariance, {"units": "adu2"}),
            "covariance_count": (LAGGED, np.broadcast_to(count, covariance.shape).copy()),
            "count": (two, np.full((pairs, 2), pixels)),
            "read_noise": (two, np.full((pairs, 2), np.sqrt(abs(noise))) / GAINS, {"units": "adu"}),
            "pair_status": (two, np.zeros((pairs, 2), dtype=np.uint8)),
            "exposure_time": ("pair", np.linspace(400, largest, pairs) / 1000, {"units": "s"}),
        },
        coords={"amp": ["C00", "C01"], "lag_y": np.arange(lags), "lag_x": np.arange(lags)},
    )


def changed(pairs: xr.Dataset, name: str, where: Any, value: float) -> xr.Dataset:
    """Return a copy in which some values of a variable are multiplied."""
    values = pairs[name].to_numpy().astype(np.float64)
    values[where] *= value
    return pairs.assign({name: pairs[name].copy(data=values)})


def test_every_number_of_noiseless_pairs_comes_back() -> None:
    ptc = solve(detector())
    np.testing.assert_allclose(ptc["gain"], GAINS, rtol=1e-8)
    np.testing.assert_allclose(ptc["noise"], 6.0, rtol=1e-5)
    np.testing.assert_allclose(ptc["a"], np.stack([A[:4, :4]] * 2), atol=1e-12)
    np.testing.assert_allclose(ptc["covariance_model"], ptc["covariance"], rtol=1e-6, atol=1e-3)
    assert ptc["used"].all()
    assert (ptc["pair_status"] == PairStatus.OK).all()
    assert (ptc["amp_flag"] == AmplifierFlag.GOOD).all()
    np.testing.assert_allclose(ptc["turnoff"], 9e4 / np.array(GAINS))
    np.testing.assert_allclose(ptc["dof"], 60 * 16 - 33)
    weights = np.array([1.0, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(ptc["sum_a"], np.sum(np.outer(weights, weights) * A[:4, :4]))
    assert ptc["chi2"].max() < 1e-3


def test_units_dimensions_and_legends_are_as_promised() -> None:
    pairs = detector()
    before = pairs.copy(deep=True)
    ptc = solve(pairs)
    xr.testing.assert_identical(pairs, before)
    units = {
        "gain": "electron/adu",
        "gain_sigma": "electron/adu",
        "noise": "electron",
        "noise_sigma": "electron",
        "turnoff": "adu",
        "rolloff": "adu",
        "a": "1/electron",
        "b": "1/electron",
        "c": "1/electron2",
        "noise_matrix": "electron2",
        "covariance_model": "adu2",
        "covariance": "adu2",
        "sum_a": "1/electron",
        "read_noise_median": "adu",
    }
    assert {name: ptc[name].attrs["units"] for name in units} == units
    assert ptc["covariance_model"].dims == LAGGED
    assert ptc["a"].dims == ("amp", "lag_y", "lag_x")
    assert ptc["pair_status"].dtype == np.uint8
    assert ptc["amp_flag"].dtype == np.int32
    assert ptc["dof"].dtype == np.int64
    assert "ABOVE_TURNOFF" in ptc["pair_status"].attrs["flag_meanings"]
    assert "NEGATIVE_NOISE" in ptc["amp_flag"].attrs["flag_meanings"]
    assert ptc.attrs["model"] == "exact"
    assert ptc["exposure_time"].attrs["units"] == "s"


def test_errors_chi2_maps_and_named_parameters_agree_with_each_other() -> None:
    ptc = solve(detector(seed=1))
    np.testing.assert_allclose(ptc["chi2_lag"].sum(["lag_y", "lag_x"]), ptc["chi2"], rtol=1e-6)
    np.testing.assert_allclose(ptc["chi2_pair"].sum("pair"), ptc["chi2"], rtol=1e-6)
    ratio = ptc["chi2"] / ptc["dof"]
    assert abs(ratio - 1).max() < 4 * np.sqrt(2 / ptc["dof"][0])
    named = ptc["parameter_value"].isel(amp=0)
    assert named.sel(parameter="a_01").item() == ptc["a"].isel(amp=0, lag_y=1, lag_x=0).item()
    assert named.sel(parameter="a_10").item() == ptc["a"].isel(amp=0, lag_y=0, lag_x=1).item()
    assert named.sel(parameter="a_11").item() == ptc["a"].isel(amp=0, lag_y=1, lag_x=1).item()
    assert named.sel(parameter="n_00").item() == ptc["noise_matrix"][0, 0, 0].item()
    covariance = ptc["parameter_covariance"].isel(amp=0).to_numpy()
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-12)
    assert np.linalg.eigvalsh(covariance / np.sqrt(np.outer(*[np.diag(covariance)] * 2))).min() > 0
    expected = [
        ptc["gain_sigma"][0],
        ptc["noise_matrix_sigma"][0, 0, 0],
        *(ptc["a_sigma"][0, y, x] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))),
    ]
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), expected, rtol=1e-12)
    truth = [GAINS[0], NOISE, A[0, 0], A[1, 0], A[0, 1], A[1, 1]]
    assert np.max(np.abs(named - truth) / np.sqrt(np.diag(covariance))) < 4


def test_evaluation_at_the_means_is_the_stored_model() -> None:
    ptc = solve(detector(seed=2))
    found = evaluate_model(ptc, ptc["mean"].isel(amp=1)).isel(amp=1)
    np.testing.assert_allclose(found, ptc["covariance_model"].isel(amp=1), rtol=1e-12)


def test_pairs_come_sorted_and_their_order_changes_nothing() -> None:
    pairs = detector(seed=3)
    order = np.random.default_rng(3).permutation(60)
    xr.testing.assert_identical(solve(pairs.isel(pair=order)), solve(pairs))


def test_several_datasets_are_joined_and_what_one_lacks_is_nan() -> None:
    pairs = detector(seed=4).assign(aux_temperature=("pair", np.full(60, -100.0)))
    parts = [
        pairs.isel(pair=slice(30)),
        pairs.isel(pair=slice(30, 60)).drop_vars("aux_temperature"),
    ]
    joined = solve([parts[0], parts[1].drop_vars("pair_status")])
    assert (joined["pair_status"] == PairStatus.OK).all()
    joined = solve(parts)
    assert joined.sizes["pair"] == 60
    assert joined["aux_temperature"].isnull().sum() == 30
    np.testing.assert_array_equal(joined["gain"], solve(pairs)["gain"])


def test_dask_arrays_give_the_same_numbers() -> None:
    pairs = detector(seed=5)
    xr.testing.assert_identical(solve(pairs.chunk({"pair": 10})), solve(pairs))


@pytest.mark.parametrize("model", ["exact_b", "series4"])
def test_b_is_c_over_a_and_nan_where_a_is_not_significant(model: str) -> None:
    ptc = solve(detector(seed=6, pixels=20_000), parameters=SolveParameters(model=model))
    significant = (abs(ptc["a"]) >= 2 * ptc["a_sigma"]).to_numpy()
    assert 0 < significant.sum() < significant.size
    np.testing.assert_array_equal(np.isfinite(ptc["b"]), significant)
    ratio = (ptc["c"] / ptc["a"]).to_numpy()
    np.testing.assert_allclose(ptc["b"].to_numpy()[significant], ratio[significant])
    pull = (ptc["b"] / ptc["b_sigma"]).to_numpy()[significant]  # the true b is zero
    assert np.abs(pull).max() < 4
    assert solve(detector())["b"].isnull().all()


def test_exp00_needs_only_means_and_variances() -> None:
    pairs = detector()[["mean", "variance", "count"]]
    ptc = solve(pairs, parameters=SolveParameters(model="exp00"))
    assert dict(ptc["a"].sizes) == {"amp": 2, "lag_y": 1, "lag_x": 1}
    np.testing.assert_allclose(ptc["gain"], GAINS, rtol=1e-3)
    assert (ptc["dof"] == 57).all()
    assert ptc["parameter_value"].sel(parameter="a_01").isnull().all()


def test_exp00_leaves_other_lags_empty() -> None:
    ptc = solve(detector(), parameters=SolveParameters(model="exp00"))
    assert dict(ptc["a"].sizes) == {"amp": 2, "lag_y": 4, "lag_x": 4}
    assert ptc["a"].notnull().sum() == 2
    assert ptc["covariance_model"].notnull().sum() == 2 * 60


def test_fewer_lags_can_be_fitted_than_were_measured() -> None:
    pairs = detector(lags=5, seed=7)
    inner = pairs.isel(lag_y=slice(3), lag_x=slice(3))
    ptc = solve(pairs, parameters=SolveParameters(lags=3))
    np.testing.assert_array_equal(ptc["gain"], solve(inner)["gain"])
    assert ptc["a"].isel(lag_y=slice(3, None)).isnull().all()
    assert ptc["a"].isel(lag_y=slice(3), lag_x=slice(3)).notnull().all()


def test_lags_that_are_not_fitted_need_not_be_finite() -> None:
    pairs = detector(seed=7)
    holed = changed(pairs, "covariance", (slice(None), 0, 3, 3), np.nan)
    with pytest.warns(UserWarning, match="C00: no usable pair"):
        assert solve(holed)["gain"].isnull().sum() == 1
    inner = SolveParameters(lags=3)
    found = solve(holed, parameters=inner)
    np.testing.assert_array_equal(found["gain"], solve(pairs, parameters=inner)["gain"])


def test_relative_weights_estimate_the_scatter_and_scale_the_errors() -> None:
    pairs = detector(pairs=200, seed=8, pixels=50_000)
    relative = SolveParameters(model="exp00", weights="relative", maximum_mean=50000.0)
    found = solve(pairs[["mean", "variance"]], parameters=relative)
    known = solve(pairs, parameters=SolveParameters(model="exp00", maximum_mean=50000.0))
    np.testing.assert_allclose(np.sqrt(found["chi2"] / found["dof"]), np.sqrt(2 / 50_000), rtol=0.2)
    np.testing.assert_allclose(found["gain"], known["gain"], rtol=1e-8)  # 1e-5 of its error
    np.testing.assert_allclose(found["gain_sigma"], known["gain_sigma"], rtol=0.2)


def test_outliers_and_points_above_the_turnoff_carry_their_codes() -> None:
    pairs = detector(seed=9)
    variance = pairs["variance"].to_numpy().copy()
    variance[20, 0] *= 0.8
    variance[55:, 1] *= 0.5
    ptc = solve(pairs.assign(variance=pairs["variance"].copy(data=variance)))
    status = ptc["pair_status"].to_numpy()
    assert np.flatnonzero(status[:, 0]).tolist() == [20]
    assert status[20, 0] == PairStatus.OUTLIER
    assert np.flatnonzero(status[:, 1]).tolist() == [55, 56, 57, 58, 59]
    assert (status[55:, 1] == PairStatus.ABOVE_TURNOFF).all()
    np.testing.assert_array_equal(ptc["used"], status == PairStatus.OK)
    assert ptc["chi2_pair"].isnull().sum() == 6
    assert ptc["covariance_model"].notnull().all()
    assert ptc["turnoff"][1] == ptc["mean"][54, 1]


def test_codes_of_the_extraction_stay_and_their_pairs_are_not_used() -> None:
    pairs = detector(seed=10)
    status = pairs["pair_status"].to_numpy().copy()
    status[10, 0], status[11], status[12] = PairStatus.MEAN_MISMATCH, PairStatus.UNPAIRED, 255
    ptc = solve(pairs.assign(pair_status=pairs["pair_status"].copy(data=status)))
    assert ptc.sizes["pair"] == 59  # a pair that never was one has no row
    codes = ptc["pair_status"].to_numpy()
    assert codes[10].tolist() == [PairStatus.MEAN_MISMATCH, PairStatus.OK]
    assert codes[11].tolist() == [PairStatus.NOT_MEASURED] * 2
    assert not ptc["used"][10, 0]
    assert not ptc["used"][11].any()


def test_ranges_of_the_mean_hold_for_one_amplifier_or_all() -> None:
    pairs = detector()
    one = solve(pairs, parameters=SolveParameters(maximum_mean={"C01": 30000.0}))
    out = one["pair_status"] == PairStatus.MEAN_OUT_OF_RANGE
    np.testing.assert_array_equal(out.sel(amp="C01"), pairs["mean"].sel(amp="C01") > 30000)
    assert not out.sel(amp="C00").any()
    every = {"C01": 1e5, "ALL_AMPS": 30000.0}
    all_of_them = solve(pairs, parameters=SolveParameters(maximum_mean=every, minimum_mean=1000.0))
    out = all_of_them["pair_status"] == PairStatus.MEAN_OUT_OF_RANGE
    np.testing.assert_array_equal(out, (pairs["mean"] > 30000) | (pairs["mean"] < 1000))


def test_values_that_are_not_finite_or_not_gaussian_are_told_apart() -> None:
    pairs = changed(detector(), "covariance", (7, 0, 2, 1), np.nan)
    p_value = np.ones((60, 2))
    p_value[8, 1] = 1e-5
    ptc = solve(pairs.assign(ks_p=(("pair", "amp"), p_value)))
    assert ptc["pair_status"][7].to_numpy().tolist() == [PairStatus.NONFINITE_STAT, 0]
    assert ptc["pair_status"][8].to_numpy().tolist() == [0, PairStatus.NON_GAUSSIAN]
    exp00 = solve(pairs, parameters=SolveParameters(model="exp00"))
    assert exp00["pair_status"][7, 0] == PairStatus.OK


def test_a_mean_that_does_not_follow_the_exposure_time_is_an_outlier() -> None:
    pairs = changed(detector(), "exposure_time", 30, 1.03)
    parameters = SolveParameters(linearity=LinearityParameters(against="exposure_time"))
    ptc = solve(pairs, parameters=parameters)
    assert np.argwhere(ptc["pair_status"].to_numpy()).tolist() == [[30, 0], [30, 1]]
    assert (ptc["pair_status"][30] == PairStatus.OUTLIER).all()
    with pytest.raises(ValueError, match="photo_charge"):
        solve(pairs, parameters=SolveParameters(linearity={"against": "photo_charge"}))


def test_an_amplifier_without_data_is_bad_and_the_others_are_not_touched() -> None:
    pairs = detector(seed=11)
    alone = solve(pairs)
    broken = changed(pairs, "mean", (slice(None), 0), np.nan)
    with pytest.warns(UserWarning, match=r"1 of 2 amplifiers.*C00: no usable pair") as caught:
        ptc = solve(broken)
    assert len(caught) == 1
    assert ptc["amp_flag"][0] == AmplifierFlag.NO_DATA | AmplifierFlag.BAD
    assert np.isnan(ptc["gain"][0])
    assert ptc["gain"][1] == alone["gain"][1]


def test_too_few_pairs_make_an_amplifier_bad_with_the_counts_in_the_warning() -> None:
    pairs = detector().isel(pair=[0, 10, 20, 59])
    with pytest.warns(UserWarning, match=r"2 of 2 .*of 4 usable pairs.*5 are needed"):
        ptc = solve(pairs)
    assert (ptc["pair_status"] == PairStatus.AMP_BAD).all()
    assert (ptc["amp_flag"] == AmplifierFlag.BAD | AmplifierFlag.TOO_FEW_PAIRS).all()
    assert not ptc["used"].any()


@pytest.mark.parametrize("mode", ["robust", "legacy"])
def test_many_pairs_at_two_levels_make_an_amplifier_bad(mode: str) -> None:
    pairs = detector(seed=16).isel(pair=[5] * 20 + [30] * 20)
    parameters = SolveParameters.model_validate({"turnoff": {"mode": mode}})
    with pytest.warns(UserWarning, match=r"2 of 2 .* levels"):
        ptc = solve(pairs, parameters=parameters)
    assert (ptc["amp_flag"] == AmplifierFlag.BAD | AmplifierFlag.TOO_FEW_PAIRS).all()
    assert ptc["gain"].isnull().all()


def test_ten_pairs_at_each_of_seven_levels_have_their_gain() -> None:
    pairs = detector().isel(pair=np.repeat([3, 6, 12, 20, 30, 40, 50], 10))
    noise = np.random.default_rng(17).standard_normal(pairs["covariance"].shape)
    sigma = pairs["variance"] / np.sqrt(pairs["covariance_count"])
    noisy = pairs["covariance"] + sigma.transpose(*LAGGED) * noise
    noisy.attrs["units"] = "adu2"
    ptc = solve(pairs.assign(covariance=noisy, variance=noisy[:, :, 0, 0]))
    assert ptc["used"].all()
    assert (abs(ptc["gain"] - GAINS) < 4 * ptc["gain_sigma"]).all()
    assert (ptc["gain_sigma"] < 3e-3 * ptc["gain"]).all()


def test_points_above_the_limit_of_the_first_legacy_fit_make_an_amplifier_bad() -> None:
    legacy = SolveParameters(turnoff=TurnoffParameters(mode="legacy", first_signal=300.0))
    with pytest.warns(UserWarning, match=r"limit of the first fit.*smallest mean is 333"):
        ptc = solve(detector(), parameters=legacy)
    assert (ptc["pair_status"] == PairStatus.AMP_BAD).all()


def test_legacy_without_iterations_is_a_single_fit() -> None:
    once = SolveParameters(turnoff=TurnoffParameters(mode="legacy", iterations=0))
    np.testing.assert_allclose(solve(detector(), parameters=once)["gain"], GAINS, rtol=1e-8)


def test_no_pairs_give_an_empty_dataset_with_bad_amplifiers() -> None:
    with pytest.warns(UserWarning, match="2 of 2 amplifiers"):
        ptc = solve(detector().isel(pair=slice(0)))
    assert ptc.sizes["pair"] == 0
    assert (ptc["amp_flag"] & AmplifierFlag.BAD).all()
    assert ptc["gain"].isnull().all()


def test_a_negative_noise_is_nan_with_a_flag_and_never_its_root() -> None:
    ptc = solve(detector(noise=-50.0).drop_vars("read_noise"))
    assert ptc["noise"].isnull().all()
    assert ptc["noise_sigma"].isnull().all()
    np.testing.assert_allclose(ptc["noise_matrix"][:, 0, 0], -50, rtol=1e-4)
    assert (ptc["amp_flag"] == AmplifierFlag.NEGATIVE_NOISE).all()


def test_a_noise_that_differs_from_the_overscan_is_flagged() -> None:
    ptc = solve(changed(detector(), "read_noise", (slice(None), 1), 1.1))
    assert ptc["amp_flag"].to_numpy().tolist() == [0, AmplifierFlag.NOISE_MISMATCH]
    loose = SolveParameters(noise_mismatch=0.2)
    ptc = solve(changed(detector(), "read_noise", (slice(None), 1), 1.1), parameters=loose)
    assert (ptc["amp_flag"] == 0).all()


def test_a_fit_that_did_not_converge_is_flagged() -> None:
    parameters = SolveParameters(iterations=1, reweightings=1)
    ptc = solve(detector(seed=12), parameters=parameters)
    assert (ptc["amp_flag"] & AmplifierFlag.NOT_CONVERGED).all()


def test_long_range_covariances_are_subtracted_from_everything_and_kept() -> None:
    clean = detector(lags=8)
    y, x = np.indices((8, 8))
    floor = 2.0 + 0.1 * y - 0.2 * x + 0.01 * x * y
    # true covariances at far lags would be taken for the floor
    core = clean["covariance"].where((clean["lag_y"] < 4) & (clean["lag_x"] < 4), 0.0)
    raised = clean.assign(
        covariance=(core + xr.DataArray(floor, dims=("lag_y", "lag_x"))).assign_attrs(units="adu2"),
        variance=(clean["variance"] + floor[0, 0]).assign_attrs(units="adu2"),
    )
    parameters = SolveParameters(long_range=LongRangeParameters(enabled=True))
    ptc = solve(raised, parameters=parameters)
    np.testing.assert_allclose(ptc["covariance"], core, atol=1e-6)
    np.testing.assert_allclose(ptc["variance"], clean["variance"], atol=1e-6)
    expected = np.broadcast_to([2.0, -0.2, 0.1, 0.01], ptc["covariance_background"].shape)
    np.testing.assert_allclose(ptc["covariance_background"], expected, atol=1e-6)
    with pytest.raises(ValueError, match="at most 1"):
        solve(detector(lags=4), parameters=parameters)


def test_the_rolloff_cuts_the_curve_and_is_reported() -> None:
    pairs = detector(pairs=300, seed=13, largest=1.2e5)
    mean, variance = pairs["mean"].to_numpy(), pairs["variance"].to_numpy().copy()
    excess = np.clip((mean - 5e4) / 1200, 0, 9)
    variance -= 3e-4 * variance.max() * np.expm1(excess)
    rolled = pairs.assign(variance=pairs["variance"].copy(data=variance))
    parameters = SolveParameters(rolloff=RolloffParameters(enabled=True, fraction=0.002))
    ptc = solve(rolled, parameters=parameters)
    plain = solve(rolled)
    assert (ptc["rolloff"] <= plain["turnoff"]).all()
    assert (ptc["rolloff_scale_sigma"] > 0).all()
    assert (ptc["used"].sum("pair") < plain["used"].sum("pair")).all()
    np.testing.assert_array_equal(ptc["mean"].where(ptc["used"]).max("pair"), ptc["rolloff"])
    assert plain["rolloff"].isnull().all()


def test_bad_amplifiers_are_filled_on_request_only() -> None:
    broken = changed(detector(), "mean", (slice(None), 0), np.nan)
    with pytest.warns(UserWarning, match="C00"):
        ptc = solve(broken)
    filled = fill_bad_amps(ptc, gain=1.0, noise=5.0)
    assert filled["gain"].to_numpy().tolist() == [1.0, ptc["gain"][1].item()]
    assert filled["noise"][0] == 5.0
    assert filled["turnoff"][0] == 2e19
    assert filled["gain"].attrs == ptc["gain"].attrs
    assert filled["amp_flag"].identical(ptc["amp_flag"])
    assert np.isnan(ptc["gain"][0])


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        (lambda p: p, {"lags": 5}, "lags is 5, but only 4"),
        (lambda p: p.drop_vars("mean"), {}, "no variable mean"),
        (lambda p: p.drop_vars("covariance"), {}, "no covariance"),
        (lambda p: p.drop_vars("covariance_count"), {}, "weights='relative'"),
        (lambda p: p.expand_dims("detector"), {}, "select one detector"),
        (lambda p: p.rename(amp="segment"), {}, "no dimension amp"),
        (
            lambda p: p.assign(mean=p["mean"].assign_attrs(units="electron")),
            {},
            "mean in 'electron' where 'adu'",
        ),
        (
            lambda p: p.assign(covariance=p["covariance"].assign_attrs(units="adu")),
            {},
            "covariance in 'adu' where 'adu2'",
        ),
        (lambda p: p.isel(lag_y=slice(3)), {}, "3 x 4 lags"),
        (lambda p: p, {"model": "exp00", "long_range": {"enabled": True}}, "model of covariances"),
    ],
)
def test_misuse_is_refused_before_any_fit(
    change: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        solve(change(detector()), parameters=SolveParameters(**parameters))


def test_parameters_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="not below maximum_mean"):
        SolveParameters(minimum_mean=10.0, maximum_mean=5.0)
    with pytest.raises(ValueError, match="extra"):
        SolveParameters(gain="exact")
    with pytest.raises(ValueError, match="empty sequence"):
        assemble_pairs([])


def mock_curve(lags: int) -> xr.Dataset:
    """Return the pairs of Gaussian flats that share one noise realisation, as others make them."""
    times = np.arange(1.0, 97.0, 5.0)
    rows = []
    for time in times:
        flats = []
        for seed in (1984, 666):
            state = np.random.RandomState(seed)  # the stated values need this one
            signal = state.normal(1000 * time, np.sqrt(1000 * time), (204, 200))
            flats.append((signal + state.normal(0, 3, (204, 200))).astype(np.float32) / 0.75)
        means = [float(np.mean(flat, dtype=np.float64)) for flat in flats]
        mean = np.mean(means)
        scaled = (means[1] * flats[0] - means[0] * flats[1]).astype(np.float64) / mean
        scaled -= scaled.mean()
        covariance, count = np.empty((lags, lags)), np.empty((lags, lags), dtype=np.int64)
        for y in range(lags):
            for x in range(lags):
                values = []
                for flip in (1, -1) if x and y else (1,):
                    image = scaled[:, ::flip]
                    first, second = image[: 204 - y, : 200 - x], image[y:, x:]
                    values.append(np.mean(first * second) - np.mean(first) * np.mean(second))
                covariance[y, x] = np.mean(values) / 2
                count[y, x] = (204 - y) * (200 - x) * len(values)
        rows.append((mean, covariance, count))
    mean, covariance, count = (np.array(values) for values in zip(*rows, strict=True))
    return xr.Dataset(
        {
            "mean": (("pair", "amp"), mean[:, None], {"units": "adu"}),
            "variance": (("pair", "amp"), covariance[:, None, 0, 0], {"units": "adu2"}),
            "covariance": (LAGGED, covariance[:, None], {"units": "adu2"}),
            "covariance_count": (LAGGED, count[:, None]),
            "count": (("pair", "amp"), count[:, None, 0, 0]),
        },
        coords={"amp": ["C00"]},
    )


@pytest.mark.parametrize("model", ["exact", "exact_b", "series4", "series4_no_b", "exp00"])
def test_mock_flats_have_the_gain_they_were_made_with(model: str) -> None:
    pairs = mock_curve(3)
    assert pairs["mean"][0, 0] == pytest.approx(1333.2674, rel=1e-4)
    assert pairs["variance"][0, 0] == pytest.approx(1789.835, rel=1e-4)
    assert pairs["covariance"][1, 0, 1, 0] == pytest.approx(17.03, rel=5e-3)
    assert pairs["covariance"][1, 0, 0, 1] == pytest.approx(-5.55, rel=5e-3)
    ptc = solve(pairs, parameters=SolveParameters(model=model, minimum_mean=2000.0))
    assert ptc["gain"][0] == pytest.approx(0.75, abs=0.01)
    stated = {"series4": 0.7501, "series4_no_b": 0.7511}
    if model in stated:
        assert ptc["gain"][0] == pytest.approx(stated[model], abs=6e-5)


@pytest.mark.parametrize("method", ["parametric", "resample"])
def test_the_bootstrap_confirms_the_errors_of_the_fit(method: Any) -> None:
    # resampling needs many pairs: few of them carry most of what is known of the gain
    ptc = solve(detector(pairs=600, lags=3, seed=14, pixels=100_000))
    found = bootstrap(ptc, generator=np.random.default_rng(1), method=method, replicas=200)
    again = bootstrap(ptc, generator=np.random.default_rng(1), method=method, replicas=200)
    xr.testing.assert_identical(found, again)
    assert (found["replicas"] == 200).all()
    # 200 draws give a standard deviation to 5 %, 600 pairs its expectation to about as much
    np.testing.assert_allclose(found["gain"].sel(summary="stdev"), ptc["gain_sigma"], rtol=0.25)
    np.testing.assert_allclose(
        found["a"].sel(summary="stdev")[:, 0, 0], ptc["a_sigma"][:, 0, 0], rtol=0.25
    )
    half = (found["gain"].sel(summary="p84") - found["gain"].sel(summary="p16")) / 2
    np.testing.assert_allclose(half, ptc["gain_sigma"], rtol=0.35)
    assert (abs(found["gain"].sel(summary="mean") - ptc["gain"]) < ptc["gain_sigma"]).all()


def test_the_bootstrap_refuses_what_it_cannot_do() -> None:
    ptc, generator = solve(detector()), np.random.default_rng(1)
    with pytest.raises(ValueError, match=r"'jackknife'.*parametric, resample"):
        bootstrap(ptc, generator=generator, method="jackknife")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap(ptc, generator=generator, replicas=1)
    with pytest.raises(ValueError, match=r"'exact'.*'exp00'"):
        bootstrap(ptc, generator=generator, parameters=SolveParameters(model="exp00"))


def test_a_good_detector_is_solved_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(detector(seed=15))
