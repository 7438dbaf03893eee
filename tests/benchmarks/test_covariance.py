"""Covariances of a pair beside Fourier transforms at powers of two and plain shifted products."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms.photon_transfer.covariance import covariance_sums

AMPLIFIER = (2002, 512)


def a_pair(shape, masked=0.005):
    rng = np.random.default_rng(1)
    difference = rng.normal(0.0, 100.0, shape).astype(np.float32)
    return difference, rng.random(shape) >= masked


def transforms_at_powers_of_two(difference, good, lags):
    """Return the sums as most codes do: two forward and three inverse padded transforms."""
    shape = [1 << (size + lags).bit_length() for size in difference.shape]
    weight = good.astype(np.float64)
    transform = np.fft.rfft2(np.where(good, difference, 0.0).astype(np.float64), shape)
    weights = np.fft.rfft2(weight, shape)
    products = np.fft.irfft2(transform * transform.conj(), shape)
    counts = np.rint(np.fft.irfft2(weights * weights.conj(), shape))
    sums = np.fft.irfft2(transform * weights.conj(), shape)
    y, x = np.arange(lags)[:, None], np.arange(1 - lags, lags)
    return products[y, x] / counts[y, x] - sums[y, x] * sums[-y, -x] / counts[y, x] ** 2


def shifted_products(difference, good, lags):
    """Return the sums by one product of shifted images a lag."""
    weight = good.astype(np.float64)
    d = np.where(good, difference, 0.0).astype(np.float64)
    ny, nx = d.shape
    found = np.empty((lags, 2 * lags - 1))
    for dy in range(lags):
        for dx in range(0 if dy == 0 else 1 - lags, lags):
            p = (slice(0, ny - dy), slice(max(0, -dx), nx - max(0, dx)))
            q = (slice(dy, ny), slice(max(0, dx), nx - max(0, -dx)))
            n = (weight[p] * weight[q]).sum()
            sums = (d[p] * weight[q]).sum() * (weight[p] * d[q]).sum()
            found[dy, dx + lags - 1] = (d[p] * d[q]).sum() / n - sums / n**2
    return found


def number_of_products(shape, lags):
    return float(np.prod(shape)) * ((lags - 1) * (2 * lags - 1) + lags)


def test_covariances_of_an_amplifier(compare, peer):
    difference, good = a_pair(AMPLIFIER)
    peers = (
        peer(
            "numpy transforms at powers of two",
            lambda: transforms_at_powers_of_two(difference, good, 10),
            5.0,
        ),
        peer("numpy shifted products", lambda: shifted_products(difference, good, 10), 30.0, 1),
    )
    compare(
        "covariances, 10 lags",
        lambda: covariance_sums(difference, good, lags=10),
        size="2002 x 512",
        peers=peers,
        multiply_adds=number_of_products(AMPLIFIER, 10),
    )


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("lags", [4, 8, 10, 16, 20, 30])
@pytest.mark.parametrize("masked", [0.005, 0.3])
def test_where_transforms_overtake_direct_sums(compare, lags, method, masked):
    difference, good = a_pair(AMPLIFIER, masked)
    compare(
        f"covariances, {lags} lags, {method}, {masked:.1%} masked",
        lambda: covariance_sums(difference, good, lags=lags, method=method),
        size="2002 x 512",
        multiply_adds=number_of_products(AMPLIFIER, lags),
        rounds=3,
    )


def test_covariances_of_a_long_amplifier(compare, peer):
    difference, good = a_pair((4072, 576))
    compare(
        "covariances, 10 lags",
        lambda: covariance_sums(difference, good, lags=10),
        size="4072 x 576",
        peers=(
            peer(
                "numpy transforms at powers of two",
                lambda: transforms_at_powers_of_two(difference, good, 10),
                5.0,
            ),
        ),
        multiply_adds=number_of_products((4072, 576), 10),
    )
