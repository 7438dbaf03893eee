"""Values that the reference's tests give, from the same mock flats made anew."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.photon_transfer.extraction import extract_pair
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.vocabulary import PairStatus

SHAPE = (204, 200)
GAIN = 0.75
READ_NOISE = 3.0 / GAIN


def as_flat(image):
    return xr.Dataset({"image": (("y", "x"), np.asarray(image, np.float32), {"units": "adu"})})


def mock_flat(seed, time):
    """Return a flat whose generator starts anew at each time: signal first, then noise."""
    electrons = 1000.0 * time
    random = np.random.RandomState(seed)
    signal = random.normal(electrons, np.sqrt(electrons), SHAPE)
    return as_flat((signal + random.normal(0.0, 3.0, SHAPE)) / GAIN)


def mock_pair(time, **options):
    return extract_pair(
        mock_flat(1984, time),
        mock_flat(666, time),
        parameters=ExtractParameters(**options),
        read_noise=READ_NOISE,
    )


EXPECTED = {
    1: (1333.2674, 1789.835, 0.75064, 0.74430),
    6: (7999.8590, 10661.883, 0.75123, 0.75017),
    11: (14666.4808, 19534.490, 0.75128, 0.75070),
}


@pytest.mark.parametrize("time", EXPECTED)
def test_means_and_variances_of_mock_flats_are_the_published_ones(time):
    mean, variance, _, _ = EXPECTED[time]
    pair = mock_pair(time)
    assert float(pair["mean"]) == pytest.approx(mean, rel=1e-6)
    assert float(pair["variance"]) == pytest.approx(variance, rel=1e-6)
    assert int(pair["pair_status"]) == PairStatus.OK


@pytest.mark.parametrize("time", EXPECTED)
def test_flat_pair_gains_of_mock_flats_are_the_published_ones(time):
    _, _, full, none = EXPECTED[time]
    # ours are of scaled images: the published ones of unscaled images differ by the mismatch
    assert float(mock_pair(time, gain_method="FULL")["pair_gain"]) == pytest.approx(full, abs=5e-5)
    assert float(mock_pair(time, gain_method="NONE")["pair_gain"]) == pytest.approx(none, abs=5e-5)


def test_neighbour_covariances_keep_the_parallel_and_serial_axis_apart():
    pair = mock_pair(6)
    assert float(pair["covariance"].sel(lag_y=1, lag_x=0)) == pytest.approx(17.03, rel=5e-3)
    assert float(pair["covariance"].sel(lag_y=0, lag_x=1)) == pytest.approx(-5.55, rel=5e-3)


def test_the_row_mean_variance_of_mock_flats_is_the_published_one():
    pair = mock_pair(6)
    assert float(pair["row_mean_variance"]) == pytest.approx(113.12, rel=1e-4)
    expected = 2.0 * float(pair["variance"]) / SHAPE[1]
    assert expected == pytest.approx(106.62, abs=0.01)


@pytest.mark.parametrize("method", ["MOMENT", "NONE", "SIMPLE", "FULL", "READNOISE"])
def test_every_gain_method_finds_the_gain_of_mock_flats(method):
    rng = np.random.default_rng(5)
    gains = []
    for time in (10, 40, 80):
        electrons = 100.0 * time
        flats = [
            as_flat((rng.normal(electrons, np.sqrt(electrons + 1.5), (1000, 1000))) / GAIN)
            for _ in range(2)
        ]
        parameters = ExtractParameters(gain_method=method, lags=1)
        pair = extract_pair(*flats, parameters=parameters, read_noise=np.sqrt(1.5) / GAIN)
        gains.append(float(pair["pair_gain"]))
    assert gains == pytest.approx([GAIN] * 3, abs=0.004)  # the published tolerance is 0.04


def test_mean_and_variance_of_a_plain_gaussian_pair_are_right_on_both_sides():
    rng = np.random.default_rng(1)
    flats = [as_flat(rng.normal(2000.0, np.sqrt(2000.0) + 10.0, SHAPE)) for _ in range(2)]
    pair = extract_pair(*flats)
    assert float(pair["mean"]) == pytest.approx(2000.0, abs=1.0)
    assert float(np.sqrt(pair["variance"])) == pytest.approx(54.72, abs=1.0)


def test_too_few_pixels_keep_the_mean_and_warn_with_the_counts():
    flats = [mock_flat(seed, 6) for seed in (1984, 666)]
    for flat in flats:
        flat["image"][:190] = np.nan
    with pytest.warns(UserWarning, match=r"TOO_FEW_PIXELS.*2800 of 40800; needed: 10000") as caught:
        pair = extract_pair(*flats)
    assert len(caught) == 1
    assert int(pair["pair_status"]) == PairStatus.TOO_FEW_PIXELS
    assert float(pair["mean"]) == pytest.approx(8000.0, rel=1e-2)
    assert int(pair["count"]) == 2800
    for name in ("variance", "pair_gain", "row_mean_variance", "skewness", "nonuniformity"):
        assert np.isnan(pair[name]), name
    assert np.isnan(pair["covariance"]).all()
    assert (pair["covariance_count"] == 0).all()


def test_a_corner_smaller_than_the_lags_has_empty_lags():
    flats = [mock_flat(seed, 6) for seed in (1984, 666)]
    for flat in flats:
        corner = flat["image"][:9, :5].copy()
        flat["image"][:] = np.nan
        flat["image"][:9, :5] = corner
    with pytest.warns(UserWarning, match="EMPTY_LAG"):
        pair = extract_pair(*flats, parameters=ExtractParameters(min_pixels=10, lags=10))
    assert int(pair["pair_status"]) == PairStatus.EMPTY_LAG
    counts = pair["covariance_count"].values
    covariance = pair["covariance"].values
    assert (np.isfinite(covariance) == (counts > 0)).all()
    assert counts[0, 4] == 9
    assert counts[0, 5] == 0
    assert np.isfinite(pair["variance"])


def test_nothing_but_nan_is_an_illegal_mean():
    empty = as_flat(np.full(SHAPE, np.nan))
    with pytest.warns(UserWarning, match="ILLEGAL_MEAN") as caught:
        pair = extract_pair(empty, empty)
    assert len(caught) == 1
    assert int(pair["pair_status"]) == PairStatus.ILLEGAL_MEAN
    for name in ("mean", "mean_delta", "variance", "pair_gain", "covariance", "covariance_sigma"):
        assert np.isnan(pair[name]).all(), name
