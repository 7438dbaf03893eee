"""When the difference of two flats counts as Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from skyloom.algorithms.photon_transfer.extraction import extract_pair
from skyloom.algorithms.photon_transfer.gaussianity import (
    gaussian_test,
    higher_moments,
    moments_test,
)
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.vocabulary import PairStatus


def rounded_difference(sigma, seed, size=1_000_000):
    """Return the difference of two images of integers, of a given standard deviation."""
    rng = np.random.default_rng(seed)
    one, two = (np.round(rng.normal(0.0, sigma / np.sqrt(2.0), size)) for _ in "ab")
    return one - two


def test_gaussian_values_almost_always_pass_because_the_width_is_fitted():
    p = [
        gaussian_test(np.random.default_rng(seed).normal(3.0, 7.0, 20_000)).ks_p
        for seed in range(200)
    ]
    assert np.mean(p) == pytest.approx(0.79, abs=0.05)
    assert min(p) > 0.05


def test_the_calibrated_distance_has_its_one_percent_point_where_lilliefors_has_it():
    distances = [
        gaussian_test(np.random.default_rng(seed).normal(0.0, 1.0, 10_000)).ks_statistic * 100.0
        for seed in range(400)
    ]
    # 4 of 400 are expected above the point; more than 12 have a probability below 1e-3
    assert np.sum(np.asarray(distances) > 1.035) <= 12
    assert np.median(distances) == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize(
    ("sigma", "low", "high"),
    [(10.0, 0.0, 0.0), (30.0, 1e-48, 1e-40), (100.0, 1e-7, 1e-4), (300.0, 0.05, 0.4)],
)
def test_integers_fail_and_jitter_of_one_restores_them(sigma, low, high):
    probabilities, jittered = [], []
    for seed in range(5):
        values = rounded_difference(sigma, seed)
        distance = gaussian_test(values).ks_statistic
        probabilities.append(float(stats.kstwobign.sf(np.sqrt(values.size) * distance)))
        jittered.append(gaussian_test(values, jitter=1.0, seed=seed).ks_p)
    assert low <= np.median(probabilities) <= high
    assert np.median(jittered) > 0.5


def test_probabilities_too_small_to_mean_anything_are_zero():
    assert gaussian_test(rounded_difference(30.0, 1)).ks_p == 0.0


def test_jitter_is_the_same_in_every_run_and_with_a_generator():
    values = rounded_difference(20.0, 1, 10_000)
    first = gaussian_test(values, jitter=1.0, seed=4)
    assert gaussian_test(values, jitter=1.0, seed=4) == first
    assert gaussian_test(values, jitter=1.0, seed=np.random.default_rng(4)) == first
    assert gaussian_test(values, jitter=1.0, seed=5) != first


def test_the_width_of_the_histogram_does_not_depend_on_the_gain():
    rng = np.random.default_rng(2)
    for gain in (0.1, 1.0, 20.0):
        sigma = np.sqrt(2.0 * 1e4 / gain)
        test = gaussian_test(rng.normal(0.0, sigma, 100_000))
        assert test.variance == pytest.approx(sigma**2, rel=0.02)
        # of 100 bins within 8 sigma only those within 4.3 hold any of 100 000 values
        assert test.chi2_dof == pytest.approx(0.53, abs=0.3)


def test_too_few_or_equal_values_have_probability_zero():
    for values in (np.arange(99.0), np.full(1000, 3.0), np.full(1000, np.nan)):
        test = gaussian_test(values)
        assert test.ks_p == 0.0
        assert np.isnan(test.variance)


def test_bins_must_make_sense():
    with pytest.raises(ValueError, match="bins"):
        gaussian_test(np.arange(1000.0), bins=3)


def test_values_with_heavy_tails_fail_both_tests():
    values = np.random.default_rng(1).standard_t(6, 100_000)
    assert gaussian_test(values).ks_p < 0.01
    sums = tuple(float(np.sum(values**k)) for k in (1, 2, 3, 4))
    moments = higher_moments(values.size, sums)
    assert not moments_test(*moments, values.size)


def test_moments_are_those_of_scipy():
    values = np.random.default_rng(1).gamma(3.0, 2.0, 1000)
    sums = tuple(float(np.sum(values**k)) for k in (1, 2, 3, 4))
    moments = higher_moments(values.size, sums)
    assert moments.skewness == pytest.approx(stats.skew(values), rel=1e-9)
    assert moments.kurtosis == pytest.approx(stats.kurtosis(values), rel=1e-9)


def test_moments_without_spread_are_nan_and_never_pass():
    assert np.isnan(higher_moments(0, (0.0, 0.0, 0.0, 0.0)).skewness)
    assert np.isnan(higher_moments(3, (3.0, 3.0, 3.0, 3.0)).kurtosis)
    assert not moments_test(np.nan, np.nan, 100)


def test_moments_scatter_by_their_standard_errors():
    n, found = 20_000, []
    for seed in range(300):
        values = np.random.default_rng(seed).normal(0.0, 1.0, n)
        found.append(higher_moments(n, tuple(float(np.sum(values**k)) for k in (1, 2, 3, 4))))
    skewness, kurtosis = np.array(found).T
    # the standard deviation of 300 values has an error of 4 %
    assert np.std(skewness) == pytest.approx(np.sqrt(6.0 / n), rel=0.16)
    assert np.std(kurtosis) == pytest.approx(np.sqrt(24.0 / n), rel=0.16)


def flats(noise, shape=(1000, 1000)):
    rng = np.random.default_rng(7)
    return [
        xr.Dataset({"image": (("y", "x"), np.round(rng.normal(4000.0, noise, shape)))})
        for _ in "ab"
    ]


@pytest.mark.parametrize("relative", [0.03, 0.1])
def test_noise_that_varies_by_v_has_a_kurtosis_of_three_v_squared(relative):
    ramp = np.linspace(-1.0, 1.0, 1000) * np.sqrt(3.0) * relative
    parameters = ExtractParameters(lags=1, gaussian_test="none")
    pair = extract_pair(*flats(40.0 * np.sqrt(1.0 + ramp)), parameters=parameters)
    assert float(pair["kurtosis"]) == pytest.approx(3.0 * relative**2, abs=0.012)
    assert float(pair["skewness"]) == pytest.approx(0.0, abs=0.01)


def test_a_histogram_of_rounded_flats_is_jittered_and_agrees_with_the_variance():
    parameters = ExtractParameters(lags=1, histogram=True, gaussian_test="histogram")
    pair = extract_pair(*flats(10.0), parameters=parameters)
    assert int(pair["pair_status"]) == PairStatus.OK
    assert float(pair["ks_p"]) > 0.05
    assert float(pair["histogram_variance"] / pair["variance"]) == pytest.approx(1.0, abs=0.01)
    again = extract_pair(*flats(10.0), parameters=parameters)
    xr.testing.assert_identical(pair, again)


def test_the_histogram_is_off_by_default():
    pair = extract_pair(*flats(10.0, (200, 200)))
    assert float(pair["ks_p"]) == 1.0
    assert np.isnan(pair["histogram_variance"])
