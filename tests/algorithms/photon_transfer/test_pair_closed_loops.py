"""What is put into simulated flats comes out of their pairs, whatever else is in them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.photon_transfer.extraction import extract_pair
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters

SHAPE = (600, 500)
LEVEL, SIGMA = 20_000.0, 100.0
PARAMETERS = ExtractParameters(lags=5)


def as_flat(image):
    return xr.Dataset({"image": (("y", "x"), np.asarray(image, np.float32), {"units": "adu"})})


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).normal(0.0, SIGMA, shape)


def correlated(seed, kernel):
    """Return white noise convolved with a small kernel, without wrapping around."""
    ky, kx = kernel.shape
    white = np.random.default_rng(seed).normal(0.0, SIGMA, (SHAPE[0] + ky, SHAPE[1] + kx))
    field = np.zeros(SHAPE)
    for y in range(ky):
        for x in range(kx):
            field += kernel[y, x] * white[y : y + SHAPE[0], x : x + SHAPE[1]]
    return field


def pair_of(one, two, **options):
    parameters = PARAMETERS.model_copy(update=options)
    return extract_pair(as_flat(one), as_flat(two), parameters=parameters, read_noise=0.0)


def relative_to_error(pair, expected):
    """Return how many standard errors the covariances are off."""
    return ((pair["covariance"] - expected) / pair["covariance_sigma"]).values


def test_covariances_of_white_noise_are_zero_within_their_errors():
    pair = pair_of(LEVEL + noise(1), LEVEL + noise(2))
    expected = np.zeros((5, 5))
    expected[0, 0] = SIGMA**2
    off = relative_to_error(pair, expected)
    assert np.abs(off).max() < 4.0
    assert np.std(off) == pytest.approx(1.0, abs=0.5)
    assert float(pair["variance"]) == pytest.approx(SIGMA**2, abs=4 * float(pair["variance_sigma"]))


def test_correlations_put_in_come_out_at_their_lags():
    kernel = np.array([[1.0, 0.05], [0.1, 0.02]])
    expected = np.zeros((5, 5))
    # both diagonals of (1, 1) are averaged
    for y in (0, 1):
        for x in (0, 1):
            products = [
                (kernel[max(0, -dy) : 2 - max(0, dy), max(0, -dx) : 2 - max(0, dx)]).ravel()
                @ (kernel[max(0, dy) : 2 - max(0, -dy), max(0, dx) : 2 - max(0, -dx)]).ravel()
                for dy, dx in ((y, x), (y, -x))
            ]
            expected[y, x] = SIGMA**2 * np.mean(products)
    pair = pair_of(LEVEL + correlated(3, kernel), LEVEL + correlated(4, kernel))
    assert np.abs(relative_to_error(pair, expected)).max() < 4.5
    assert float(pair["covariance"].sel(lag_y=1, lag_x=0)) > 900.0


@pytest.mark.parametrize("clip", [2.0, 2.5, 3.0, 5.5])
def test_the_clip_is_undone_whatever_its_width(clip):
    kernel = np.array([[1.0], [0.1]])
    flats = [LEVEL + correlated(seed, kernel) for seed in (5, 6)]
    pair = pair_of(*flats, clip=clip)
    assert float(pair["kurtosis"]) == pytest.approx(0.0, abs=0.03)
    errors = 4.0 * np.sqrt(2.0 / (SHAPE[0] * SHAPE[1])) * 1.5
    assert float(pair["variance"]) / (1.01 * SIGMA**2) == pytest.approx(1.0, abs=errors)
    assert float(pair["covariance"][0, 0]) / (1.01 * SIGMA**2) == pytest.approx(1.0, abs=errors)
    sigma = float(pair["covariance_sigma"][1, 0])
    assert float(pair["covariance"][1, 0]) == pytest.approx(0.1 * SIGMA**2, abs=4.5 * sigma)


def test_a_fixed_pattern_cancels_even_in_flats_that_do_not_match():
    pattern = 1.0 + np.random.default_rng(9).normal(0.0, 0.05, SHAPE)
    one = LEVEL * pattern + noise(1)
    two = 1.04 * LEVEL * pattern + noise(2)
    pair = pair_of(one, two)
    plain = pair_of(LEVEL + noise(1), LEVEL + noise(2))
    # scaling weighs the noise of both flats by their means: 1 + (mismatch / 2)²
    assert float(pair["variance"] / plain["variance"]) == pytest.approx(1.0, abs=2e-3)
    assert float(pair["nonuniformity"]) == pytest.approx(0.05**2, rel=0.02)
    assert abs(float(plain["nonuniformity"])) < 1e-7


def test_shading_is_reported_and_does_not_widen_the_difference():
    ramp = np.linspace(0.8, 1.2, SHAPE[1])
    pair = pair_of(LEVEL * ramp + noise(1), LEVEL * ramp + noise(2))
    expected = np.var(ramp)
    assert float(pair["nonuniformity"]) == pytest.approx(expected, rel=1e-2)
    assert float(pair["variance"]) == pytest.approx(SIGMA**2, rel=0.01)


def test_a_thousandth_of_the_pixels_at_a_thousand_sigma_change_nothing():
    rng = np.random.default_rng(11)
    one, two = LEVEL + noise(1), LEVEL + noise(2)
    clean = pair_of(one, two)
    hit = one.copy()
    hit[rng.random(SHAPE) < 1e-3] += 1000.0 * SIGMA
    pair = pair_of(hit, two)
    assert float(pair["variance"] / clean["variance"]) == pytest.approx(1.0, abs=5e-3)
    change = (pair["covariance"] - clean["covariance"]) / clean["covariance_sigma"]
    assert float(abs(change).max()) < 3.0
    assert int(pair["pair_status"]) == 0
    assert int(pair["count"]) == pytest.approx(int(clean["count"]) * 0.999, rel=2e-4)


@pytest.mark.parametrize("method", ["NONE", "SIMPLE", "FULL", "READNOISE", "MOMENT"])
def test_cosmic_rays_do_not_enter_any_pair_gain(method):
    one, two = LEVEL + noise(1), LEVEL + noise(2)
    clean = pair_of(one, two, gain_method=method)
    hit = one.copy()
    hit[::40, ::40] += 30_000.0
    assert float(pair_of(hit, two, gain_method=method)["pair_gain"]) == pytest.approx(
        float(clean["pair_gain"]), rel=3e-3
    )


def test_noise_common_to_rows_shows_in_row_means_and_all_serial_lags():
    ratios, raised, column = [], [], []
    for seed in range(6):
        flats = [LEVEL + 0.1 * noise(20 + 2 * seed + k) for k in (0, 1)]
        rows = [np.random.default_rng(90 + 2 * seed + k).normal(0, 1.0, SHAPE[0]) for k in (0, 1)]
        # the rms of a sample of rows is not exactly 1, nor are two samples uncorrelated
        rows[1] -= rows[0] * (rows[0] @ rows[1]) / (rows[0] @ rows[0])
        rows = [row / np.sqrt(np.mean((row - row.mean()) ** 2)) for row in rows]
        plain = pair_of(*flats)
        pair = pair_of(*(f + r[:, None] for f, r in zip(flats, rows, strict=True)))
        ratios.append(float(pair["row_mean_variance"] - plain["row_mean_variance"]))
        change = (pair["covariance"] - plain["covariance"]).values
        raised.append(change[0, 1:])
        column.append(change[1:, :])
    assert np.mean(ratios) == pytest.approx(2.0, abs=0.2)
    assert np.mean(raised, axis=0) == pytest.approx(np.ones(4), abs=0.15)
    assert np.mean(column, axis=0) == pytest.approx(np.zeros((4, 5)), abs=0.15)


def test_white_noise_has_the_row_mean_variance_of_its_columns():
    found = [
        float(pair_of(LEVEL + noise(k), LEVEL + noise(k + 50))["row_mean_variance"])
        for k in range(8)
    ]
    expected = 2.0 * SIGMA**2 / SHAPE[1]
    error = expected * np.sqrt(2.0 / (8 * SHAPE[0]))
    assert np.mean(found) == pytest.approx(expected, abs=4.0 * error)


def test_binning_keeps_the_variance_of_white_noise_and_so_the_gain():
    flats = [LEVEL + noise(seed) for seed in (1, 2)]
    for side in (2, 5):
        pair = pair_of(*flats, bin_size=side, min_pixels=1000)
        assert int(pair["count"]) == SHAPE[0] * SHAPE[1] // side**2
        error = 4.0 * float(pair["variance_sigma"])
        assert float(pair["variance"]) == pytest.approx(SIGMA**2, abs=error)
        ratio = pair_of(*flats, bin_size=side, min_pixels=1000, gain_method="NONE")
        assert float(ratio["pair_gain"]) == pytest.approx(LEVEL / SIGMA**2, rel=0.05)


def test_bins_that_are_mostly_masked_are_left_out():
    flats = [LEVEL + noise(seed) for seed in (1, 2)]
    flats[0][:, ::2] = np.nan
    flats[0][0] = np.nan
    pair = pair_of(*flats, bin_size=2, min_pixels=1000)
    assert int(pair["count"]) == (SHAPE[0] // 2 - 1) * SHAPE[1] // 2
    error = 4.0 * float(pair["variance_sigma"])
    assert float(pair["variance"]) == pytest.approx(SIGMA**2, abs=error)


def test_transposing_the_image_exchanges_the_lags():
    kernel = np.array([[1.0, 0.05], [0.1, 0.02]])
    one, two = LEVEL + correlated(3, kernel), LEVEL + correlated(4, kernel)
    straight, turned = pair_of(one, two), pair_of(one.T, two.T)
    covariance = turned["covariance"].rename(lag_y="lag_x", lag_x="lag_y")
    variance = float(straight["variance"])
    np.testing.assert_allclose(
        straight["covariance"].transpose("lag_y", "lag_x"),
        covariance.transpose("lag_y", "lag_x"),
        atol=1e-11 * variance,
        rtol=0.0,
    )


@pytest.mark.parametrize("axes", [0, 1, (0, 1)])
def test_flipping_the_image_changes_nothing(axes):
    one, two = (LEVEL + noise(seed) for seed in (1, 2))
    straight, turned = pair_of(one, two), pair_of(np.flip(one, axes), np.flip(two, axes))
    np.testing.assert_allclose(
        straight["covariance"], turned["covariance"], atol=1e-11 * SIGMA**2, rtol=0.0
    )


def test_the_gain_of_the_images_scales_everything_by_its_power():
    one, two = (LEVEL + noise(seed) for seed in (1, 2))
    pair, scaled = pair_of(one, two), pair_of(4.0 * one, 4.0 * two)
    np.testing.assert_allclose(scaled["covariance"], 16.0 * pair["covariance"], rtol=1e-10)
    assert float(scaled["variance"]) == pytest.approx(16.0 * float(pair["variance"]), rel=1e-10)
    assert float(scaled["mean"]) == pytest.approx(4.0 * float(pair["mean"]), rel=1e-12)


def test_direct_sums_and_transforms_give_the_same_pair():
    one, two = (LEVEL + noise(seed) for seed in (1, 2))
    one[np.random.default_rng(5).random(SHAPE) < 0.2] = np.nan
    direct, fft = pair_of(one, two, method="direct"), pair_of(one, two, method="fft")
    np.testing.assert_allclose(
        direct["covariance"], fft["covariance"], atol=1e-7 * SIGMA**2, rtol=0.0
    )
    np.testing.assert_array_equal(direct["covariance_count"], fft["covariance_count"])
