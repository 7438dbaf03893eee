"""The bias of each way to a pair gain, against closed forms and simulated flats."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.photon_transfer.extraction import extract_pair
from skyloom.algorithms.photon_transfer.pair_gain import pair_gain
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters

METHODS = ("MOMENT", "NONE", "SIMPLE", "FULL", "READNOISE")


def poisson_ratio(electrons, gain, noise, size, seed):
    """Return mean, variance and flat-pair ratio of Poisson flats with Gaussian noise; adu."""
    rng = np.random.default_rng(seed)
    flats = [(rng.poisson(electrons, size) + rng.normal(0.0, noise, size)) / gain for _ in "ab"]
    mean = 0.5 * (flats[0].mean() + flats[1].mean())
    delta = flats[1].mean() - flats[0].mean()
    difference = (flats[1].mean() * flats[0] - flats[0].mean() * flats[1]) / mean
    scaled = [flat * mean / flat.mean() for flat in flats]
    ratio = np.mean((scaled[0] - scaled[1]) ** 2 / (scaled[0] + scaled[1]))
    return mean, 0.5 * difference.var(ddof=1), ratio, delta


def biases(electrons, gain, noise, size, sets):
    """Return the mean relative bias of each method and its standard error, in 1e-4."""
    found = {method: [] for method in METHODS}
    for seed in range(sets):
        mean, variance, ratio, delta = poisson_ratio(electrons, gain, noise, size, seed)
        for method in METHODS:
            one = pair_gain(
                mean,
                variance,
                method=method,
                mean_delta=delta,
                ratio=ratio,
                read_noise=noise / gain,
                count=size,
            )
            found[method].append(float(one["gain"]) / gain - 1.0)
    return {
        method: (1e4 * np.mean(values), 1e4 * np.std(values) / np.sqrt(sets))
        for method, values in found.items()
    }


def test_at_a_hundred_electrons_with_noise_only_the_moments_are_unbiased():
    found = biases(100.0, 1.0, 5.0, 1_000_000, 24)
    expected = {"NONE": -2016.0, "FULL": -75.0, "READNOISE": -25.0, "MOMENT": 3.0}
    for method, bias in expected.items():
        measured, error = found[method]
        # the published numbers have errors of 1.2 of their own
        assert measured == pytest.approx(bias, abs=4.0 * np.hypot(error, 1.2)), method
    assert abs(found["MOMENT"][0]) < 5.0


def test_without_noise_the_published_relation_is_half_an_electron_off():
    found = biases(100.0, 1.0, 0.0, 1_000_000, 24)
    assert found["FULL"][0] == pytest.approx(-50.0, abs=4.0 * found["FULL"][1])
    assert found["NONE"][0] == pytest.approx(0.0, abs=4.0 * found["NONE"][1])
    assert found["MOMENT"][0] == pytest.approx(0.0, abs=4.0 * found["MOMENT"][1])


def test_at_a_thousand_electrons_biases_are_those_published():
    found = biases(1000.0, 1.5, 5.0, 1_000_000, 16)
    for method, bias in {"NONE": -245.0, "FULL": -6.0, "READNOISE": -1.0, "MOMENT": -0.8}.items():
        measured, error = found[method]
        assert measured == pytest.approx(bias, abs=4.0 * np.hypot(error, 1.8)), method


def test_the_full_method_solves_the_published_relation():
    mean, ratio, noise = 5000.0, 0.7, 6.0
    gain = float(pair_gain(mean, 1.0, method="FULL", ratio=ratio, read_noise=noise)["gain"])
    assert 1.0 / gain == pytest.approx(ratio - (noise**2 - 0.5 / gain**2) / mean, rel=1e-12)


def test_the_simple_method_substitutes_one_over_twice_the_gain_squared():
    mean, ratio, noise = 5000.0, 0.5, 6.0
    gain = float(pair_gain(mean, 1.0, method="SIMPLE", ratio=ratio, read_noise=noise)["gain"])
    assert 1.0 / gain == pytest.approx(ratio - (noise**2 - 0.5 * ratio**2) / mean, rel=1e-12)


def test_the_moment_method_undoes_the_mismatch_exactly():
    gain, noise, levels = 1.7, 4.0, np.array([900.0, 1100.0])
    mean, delta = levels.mean(), np.diff(levels)[0]
    variance = 0.5 * (
        (levels[1] / mean) ** 2 * (levels[0] / gain + noise**2)
        + (levels[0] / mean) ** 2 * (levels[1] / gain + noise**2)
    )
    found = pair_gain(mean, variance, mean_delta=delta, read_noise=noise)
    assert float(found["gain"]) == pytest.approx(gain, rel=1e-12)


def test_the_standard_error_is_that_of_the_variance():
    found = pair_gain(1000.0, 700.0, read_noise=10.0, count=10_000)
    assert float(found["gain"]) == pytest.approx(1000.0 / 600.0)
    expected = 1000.0 / 600.0 * np.sqrt(2.0 / 10_000) * 700.0 / 600.0
    assert float(found["gain_sigma"]) == pytest.approx(expected)


def test_the_brighter_fatter_correction_recovers_the_gain_it_was_taken_from():
    gain, a_00, electrons = 1.5, -3.3e-6, 1e4
    mean = electrons / gain
    variance = mean / gain * (1.0 + a_00 * electrons)
    plain = float(pair_gain(mean, variance, read_noise=0.0)["gain"])
    assert plain / gain - 1.0 == pytest.approx(0.034, abs=0.001)
    corrected = pair_gain(mean, variance, read_noise=0.0, bf_a_00=a_00)
    assert float(corrected["gain"]) == pytest.approx(gain, rel=1e-12)


def test_gains_keep_the_dimensions_of_pairs_and_amplifiers():
    mean = xr.DataArray(np.full((3, 2), 1000.0), dims=("pair", "amp"))
    found = pair_gain(mean, mean / 2.0, read_noise=xr.DataArray([0.0, 1.0], dims="amp"))
    assert found["gain"].dims == ("pair", "amp")
    assert found["gain"].attrs["units"] == "electron/adu"
    lazy = pair_gain(mean.chunk(pair=1), mean.chunk(pair=1) / 2.0, read_noise=0.0)
    assert lazy["gain"].chunks is not None
    assert lazy["gain"].values.tolist() == [[2.0, 2.0]] * 3


@pytest.mark.parametrize(("mean", "variance"), [(-5.0, 10.0), (1000.0, 4.0), (np.nan, 10.0)])
def test_a_gain_that_cannot_be_is_nan(mean, variance):
    assert np.isnan(pair_gain(mean, variance, read_noise=3.0)["gain"])


def test_unknown_methods_and_missing_ratios_are_errors():
    with pytest.raises(ValueError, match="MOMENT, NONE, SIMPLE, FULL, READNOISE, got 'BEST'"):
        pair_gain(1.0, 1.0, method="BEST")
    with pytest.raises(ValueError, match="NONE needs the flat-pair ratio"):
        pair_gain(1.0, 1.0, method="NONE")


@pytest.mark.parametrize("read_noise", [None, np.nan])
@pytest.mark.parametrize("method", ["SIMPLE", "FULL"])
def test_a_missing_read_noise_falls_back_to_no_correction_with_a_warning(method, read_noise):
    with pytest.warns(UserWarning, match="method NONE is used"):
        found = pair_gain(1000.0, 700.0, method=method, ratio=0.5, read_noise=read_noise)
    assert float(found["gain"]) == 2.0


def mismatched_flats(delta, electrons=5e4, shape=(1000, 1000)):
    rng = np.random.default_rng(3)
    return [
        xr.Dataset({"image": (("y", "x"), rng.poisson(electrons * (1 + s), shape) / 1.0)})
        for s in (-0.5 * delta, 0.5 * delta)
    ]


@pytest.mark.parametrize("delta", [0.003, 0.01])
def test_flats_that_do_not_match_still_give_the_gain(delta):
    flats = mismatched_flats(delta)
    for method in ("MOMENT", "NONE"):
        parameters = ExtractParameters(gain_method=method, lags=1)
        pair = extract_pair(*flats, parameters=parameters, read_noise=0.0)
        error = float(pair["pair_gain_sigma"])
        assert float(pair["pair_gain"]) == pytest.approx(1.0, abs=4.0 * error), method
    # the same ratio of images that were not scaled is off by the mismatch: 0.8163 at 0.3 %
    one, two = (flat["image"].values for flat in flats)
    unscaled = 1.0 / np.mean((one - two) ** 2 / (one + two))
    assert unscaled == pytest.approx(1.0 / (1.0 + delta**2 * 5e4 / 2.0), rel=5e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("delta", [0.003, 0.04])
def test_a_mismatch_moves_no_gain_by_more_than_a_ten_thousandth(method, delta):
    # the same noise in flats that match and in flats that do not: nothing scatters
    rng = np.random.default_rng(12)
    noise = rng.standard_normal((2, 500, 500))

    def gain(mismatch):
        levels = 5e4 * (1.0 + np.array([-0.5, 0.5]) * mismatch)
        flats = [
            xr.Dataset({"image": (("y", "x"), level + np.sqrt(level) * one)})
            for level, one in zip(levels, noise, strict=True)
        ]
        parameters = ExtractParameters(gain_method=method, lags=1)
        return float(extract_pair(*flats, parameters=parameters, read_noise=0.0)["pair_gain"])

    assert gain(delta) / gain(0.0) == pytest.approx(1.0, abs=1e-4)
