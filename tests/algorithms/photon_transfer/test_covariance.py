"""Covariances of a pair: identities, the plain sums, errors in the white-noise limit, misuse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skyloom.algorithms.photon_transfer import pair_sums
from skyloom.algorithms.photon_transfer.covariance import (
    covariance_sums,
    pair_covariance,
    row_mean_variance,
)
from skyloom.algorithms.statistics import clipped_moments

METHODS = ("direct", "fft")


def plain_covariance(difference, good, lags):
    """Return covariance and count by the definition: shifted products, diagonal by diagonal."""
    weight = np.isfinite(difference) & (good if good is not None else True)
    d = np.where(weight, difference, 0.0).astype(float)
    d = np.where(weight, d - d[weight].mean(), 0.0)
    ny, nx = d.shape
    covariance, count = np.empty((lags, lags)), np.empty((lags, lags), int)
    for dy, dx in np.ndindex(lags, lags):
        found, total = [], 0
        for sign in (1, -1) if dx and dy else (1,):
            left, right = slice(0, nx - dx), slice(dx, nx)
            p = (slice(0, ny - dy), left if sign > 0 else right)
            q = (slice(dy, ny), right if sign > 0 else left)
            n = int((weight[p] & weight[q]).sum())
            products, first, second = (
                (d[p] * d[q]).sum(), (d[p] * weight[q]).sum(), (weight[p] * d[q]).sum(),
            )  # fmt: skip
            found.append(products / n - first * second / n**2)
            total += n
        covariance[dy, dx], count[dy, dx] = 0.5 * np.mean(found), total
    return covariance, count


def correlated_noise(shape, seed=0):
    """Return noise with distinct covariances at neighbouring lags in x and in y."""
    white = np.random.default_rng(seed).normal(0.0, 10.0, shape)
    return white + 0.3 * np.roll(white, 1, axis=0) + 0.1 * np.roll(white, 1, axis=1)


def assert_same(a, b, tolerance=1e-12):
    np.testing.assert_array_equal(a.count, b.count)
    assert np.abs(a.covariance - b.covariance).max() <= tolerance * abs(b.covariance[0, 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lags", [1, 3, 10])
@pytest.mark.parametrize("shape", [(40, 31), (31, 40), (41, 32), (64, 64), (20, 21)])
@pytest.mark.parametrize("masked", [0.0, 0.03, 0.3])
def test_both_methods_give_the_plain_sums(shape, lags, masked, method):
    difference = correlated_noise(shape) + 3.0
    good = np.random.default_rng(1).random(shape) >= masked
    if masked:
        good[5:9, 3:12] = False
    found = covariance_sums(difference, good, lags=lags, method=method)
    covariance, count = plain_covariance(difference, good, lags)
    np.testing.assert_array_equal(found.count, count)
    assert np.abs(found.covariance - covariance).max() <= 1e-12 * covariance[0, 0]


@pytest.mark.parametrize("size", [501, 1013, 2037, 4085])
def test_transform_and_direct_sums_agree_at_sizes_that_trouble_powers_of_two(size):
    difference = correlated_noise((size, 64)).astype(np.float32)
    good = np.random.default_rng(2).random(difference.shape) > 0.2
    for pixels, mask in ((difference, good), (difference.T, good.T)):
        direct, fft = (covariance_sums(pixels, mask, lags=10, method=m) for m in METHODS)
        assert_same(fft, direct)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("masked", [0.02, 0.4])
def test_walking_over_bad_pixels_gives_what_sums_over_all_pairs_give(monkeypatch, masked, method):
    difference = correlated_noise((90, 70))
    good = np.random.default_rng(3).random(difference.shape) >= masked
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(pair_sums, "SPARSE_BELOW", share)
        found.append(covariance_sums(difference, good, lags=7, method=method))
    assert_same(*found)


@pytest.mark.parametrize("method", METHODS)
def test_pixels_that_are_not_finite_count_as_masked(method):
    difference = correlated_noise((60, 50))
    good = np.random.default_rng(4).random(difference.shape) > 0.1
    expected = covariance_sums(difference, good, lags=5, method=method)
    for bad in (np.nan, np.inf):
        poisoned = np.where(good, difference, bad)
        assert_same(covariance_sums(poisoned, lags=5, method=method), expected, 0.0)
        assert_same(covariance_sums(poisoned, good, lags=5, method=method), expected, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_adding_a_constant_changes_nothing_and_scaling_scales(method):
    difference = correlated_noise((60, 50))
    good = np.random.default_rng(5).random(difference.shape) > 0.1
    expected = covariance_sums(difference, good, lags=5, method=method)
    moved = covariance_sums(difference + 12345.0, good, lags=5, method=method)
    assert_same(moved, expected, 1e-10)
    scaled = covariance_sums(3.0 * difference, good, lags=5, method=method)
    assert np.abs(scaled.covariance / 9.0 - expected.covariance).max() <= (
        1e-10 * expected.covariance[0, 0]
    )


@pytest.mark.parametrize("method", METHODS)
def test_transposing_exchanges_the_lags_and_flipping_changes_nothing(method):
    difference = correlated_noise((60, 50))
    good = np.random.default_rng(6).random(difference.shape) > 0.1
    expected = covariance_sums(difference, good, lags=5, method=method)
    assert abs(expected.covariance[1, 0]) > 2 * abs(expected.covariance[0, 1])
    turned = covariance_sums(difference.T, good.T, lags=5, method=method)
    np.testing.assert_array_equal(turned.count.T, expected.count)
    assert np.abs(turned.covariance.T - expected.covariance).max() <= (
        1e-12 * expected.covariance[0, 0]
    )
    for flip in (np.flipud, np.fliplr):
        assert_same(covariance_sums(flip(difference), flip(good), lags=5, method=method), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 / 3.0])
def test_a_constant_has_no_covariance(method, value):
    difference = np.full((40, 30), value, np.float32)
    found = covariance_sums(difference, lags=4, method=method)
    np.testing.assert_array_equal(found.covariance, 0.0)


def test_covariances_of_known_noise_come_back_halved_and_by_name():
    noise = correlated_noise((1500, 1500)).astype(np.float32)
    image = xr.DataArray(noise, dims=("y", "x"), attrs={"units": "adu"})
    found = pair_covariance(image, lags=3)
    # white noise of variance 100 plus 0.3 of its neighbour in y and 0.1 of that in x
    expected = {(0, 0): 110.0, (1, 0): 30.0, (0, 1): 10.0, (1, 1): 1.5, (2, 0): 0.0, (2, 2): 0.0}
    for (lag_y, lag_x), covariance in expected.items():
        measured = float(found["covariance"].sel(lag_y=lag_y, lag_x=lag_x))
        sigma = 110.0 / 1500 * (2**0.5 if lag_y == lag_x == 0 else 1.0)
        assert measured == pytest.approx(covariance / 2.0, abs=4.0 * sigma / 2.0)
    assert found["covariance"].units == "adu2"
    assert found["count"].dtype == np.int64


def test_covariances_of_white_noise_scatter_as_the_formula_says():
    rng = np.random.default_rng(8)
    good = rng.random((60, 50)) > 0.15
    good[20:30] = False
    sums = [covariance_sums(rng.normal(0, 10.0, good.shape), good, lags=4) for _ in range(2000)]
    covariance, count = np.array([s.covariance for s in sums]), sums[0].count
    variance = covariance[:, 0, 0].mean()
    formula = variance / np.sqrt(count)
    formula[0, 0] *= np.sqrt(2.0)
    np.testing.assert_allclose(covariance.std(axis=0) / formula, 1.0, atol=0.07)
    pulls = covariance.mean(axis=0) / (formula / np.sqrt(len(sums)))
    assert np.abs(pulls.ravel()[1:]).max() < 4.0
    assert variance == pytest.approx(50.0, abs=4.0 * formula[0, 0] / np.sqrt(len(sums)))


@pytest.mark.parametrize("method", METHODS)
def test_a_lag_without_pixel_pairs_is_nan_with_count_zero(method):
    good = np.zeros((204, 200), bool)
    good[:9, :5] = True
    found = covariance_sums(correlated_noise(good.shape), good, lags=10, method=method)
    empty = np.add.outer(np.arange(10) >= 9, np.arange(10) >= 5)
    np.testing.assert_array_equal(found.count == 0, empty)
    np.testing.assert_array_equal(np.isnan(found.covariance), empty)


@pytest.mark.parametrize("method", METHODS)
def test_a_lag_with_pixel_pairs_along_one_diagonal_only_is_empty_too(method):
    good = np.zeros((20, 20), bool)
    good[3, 3] = good[3, 4] = good[4, 4] = True
    found = covariance_sums(correlated_noise(good.shape), good, lags=2, method=method)
    np.testing.assert_array_equal(found.count > 0, [[True, True], [True, False]])
    np.testing.assert_array_equal(np.isnan(found.covariance), found.count == 0)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_good_gives_nan_everywhere_without_a_warning(method):
    found = covariance_sums(np.full((20, 20), np.nan), lags=3, method=method)
    assert np.isnan(found.covariance).all()
    assert (found.count == 0).all()


@given(
    seed=st.integers(0, 999),
    ny=st.integers(8, 30),
    nx=st.integers(8, 30),
    masked=st.floats(0.0, 0.6),
    lags=st.integers(1, 4),
)
@example(seed=10, ny=8, nx=8, masked=0.5625, lags=3)
@settings(deadline=None, max_examples=60)
def test_methods_agree_whatever_the_mask(seed, ny, nx, masked, lags):
    rng = np.random.default_rng(seed)
    difference = rng.normal(2.0, 5.0, (ny, nx)).astype(np.float32)
    good = rng.random((ny, nx)) >= masked
    direct, fft = (covariance_sums(difference, good, lags=lags, method=m) for m in METHODS)
    np.testing.assert_array_equal(direct.count, fft.count)
    np.testing.assert_array_equal(np.isnan(direct.covariance), direct.count == 0)
    np.testing.assert_allclose(direct.covariance, fft.covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_lazy_covariances_equal_eager_ones(masked):
    images = np.stack([correlated_noise((40, 30), seed) for seed in range(3)])
    image = xr.DataArray(images, dims=("amp", "y", "x"), coords={"amp": ["a", "b", "c"]})
    good = xr.DataArray(np.abs(images[0]) < 15.0, dims=("y", "x")) if masked else None
    eager = pair_covariance(image, good, lags=5)

    def refuse(*arguments, **options):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        lazy_good = None if good is None else good.chunk(y=7)
        lazy = pair_covariance(image.chunk(amp=1, y=10, x=20), lazy_good, lags=5)
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), eager)


def test_threads_and_repeats_agree_bit_for_bit():
    images = [correlated_noise((300, 200), seed).astype(np.float32) for seed in range(8)]
    serial = [covariance_sums(image, lags=6) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, expected in zip(
                pool.map(lambda image: covariance_sums(image, lags=6), images), serial, strict=True
            ):
                assert_same(found, expected, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_unchanged_and_may_be_read_only_or_strided(method):
    whole = correlated_noise((80, 120))
    whole.flags.writeable = False
    part = whole[10:70:2, 5:65]
    good = np.abs(part) < 15.0
    before = good.copy()
    found = covariance_sums(part, good, lags=5, method=method)
    assert_same(found, covariance_sums(part.copy(), good, lags=5, method=method), 0.0)
    np.testing.assert_array_equal(good, before)
    assert good.flags.writeable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lags": 0}, "lags must be at least 1"),
        ({"lags": 11}, "at most half the region"),
        ({"method": "quick"}, "method must be one of auto, direct, fft"),
        ({"good": np.ones((3, 3), bool)}, "good has shape"),
    ],
)
def test_misuse_is_named_before_anything_is_computed(arguments, message):
    with pytest.raises(ValueError, match=message):
        covariance_sums(np.ones((20, 30)), **arguments)

    def refuse(*arguments, **options):
        raise AssertionError("something was computed")

    image = xr.DataArray(np.ones((20, 30)), dims=("y", "x")).chunk()
    named = {
        name: xr.DataArray(value, dims=("y", "x")) if name == "good" else value
        for name, value in arguments.items()
    }
    with dask.config.set(scheduler=refuse), pytest.raises(ValueError, match=message):
        pair_covariance(image, **named)


def test_an_image_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match="2 dimensions"):
        covariance_sums(np.ones(100))
    with pytest.raises(ValueError, match="lacks"):
        pair_covariance(xr.DataArray(np.ones((20, 20)), dims=("row", "x")))


def test_the_row_means_of_white_noise_scatter_as_expected():
    rng = np.random.default_rng(9)
    difference = rng.normal(0.0, 10.0, (20_000, 64))
    found = row_mean_variance(difference, clip=5.5)
    assert found == pytest.approx(100.0 / 64.0, rel=4.0 * np.sqrt(2.0 / 20_000))
    rows = rng.normal(0.0, 2.0, (20_000, 1))
    assert row_mean_variance(difference + rows, clip=5.5) == pytest.approx(
        100.0 / 64.0 + 4.0, rel=4.0 * np.sqrt(2.0 / 20_000)
    )


def test_every_row_counts_the_last_one_too_and_rows_without_pixels_do_not():
    difference = correlated_noise((50, 20)).astype(np.float32)
    good = np.abs(difference) < 15.0
    good[7] = False
    means = [
        row[use].mean(dtype=float) for row, use in zip(difference, good, strict=True) if use.any()
    ]
    expected = clipped_moments(np.array(means)).variance
    assert row_mean_variance(difference, good) == pytest.approx(expected, rel=1e-12)
    changed = difference.copy()
    changed[-1] += 3.0
    assert row_mean_variance(changed, good) != row_mean_variance(difference, good)
