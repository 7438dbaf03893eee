"""Extraction of pairs: beside the reference's time, and beside its own covariance kernels."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import fft, stats

from skyloom.algorithms.detrend import detrend_amplifier
from skyloom.algorithms.photon_transfer.covariance import covariance_sums
from skyloom.algorithms.photon_transfer.extraction import extract_detector, extract_pair
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.simulate.amplifiers import amplifier_grid

GRID, AMPLIFIER = (2, 8), (2002, 512)
LEVEL, NOISE, BIAS = 20_000.0, 120.0, 1000.0


def flats(grid, shape, overscan):
    """Return two raw flats; without overscan they start at the bias level."""
    table = amplifier_grid("R0", grid, shape, overscan=overscan)
    raws = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        size = grid[0] * shape[0], grid[1] * (shape[1] + overscan)
        image = BIAS + LEVEL + NOISE * rng.standard_normal(size, dtype=np.float32)
        for start in table["overscan_x_start"].values if overscan else ():
            image[:, start : start + overscan] = rng.normal(BIAS, 5.0, (size[0], overscan))
        pixels = image.round().astype(np.uint16)
        raws.append(xr.Dataset({"image": (("y", "x"), pixels, {"units": "adu"})}))
    return raws, table


def differences(raws, table):
    """Return the centred difference of each amplifier and the pixels it uses, as measured."""
    found = []
    for index in range(table.sizes["amp"]):
        one, two = (
            detrend_amplifier(raw, table.isel(amp=index))["image"].values.astype(np.float64)
            for raw in raws
        )
        mean = 0.5 * (one.mean() + two.mean())
        difference = (two.mean() * one - one.mean() * two) / mean
        good = np.abs(difference - difference.mean()) <= 5.5 * difference.std()
        centred = np.where(good, difference - difference.mean(), 0.0)
        found.append((centred.astype(np.float32), good))
    return found


@pytest.mark.parametrize("overscan", [0, 64])
def test_a_detector_beside_the_sum_of_its_covariance_kernels(compare, peer, overscan):
    raws, table = flats(GRID, AMPLIFIER, overscan)
    kernels = differences(raws, table)

    def covariances_alone():
        for difference, good in kernels:
            covariance_sums(difference, good, lags=10)

    # at most 1.6 times the kernels: a ratio of at least 1 / 1.6
    compare(
        f"extraction of a detector, {overscan} overscan columns",
        lambda: extract_detector(*raws, table),
        size="16 amplifiers of 2002 x 512",
        peers=(peer("its 16 covariance kernels", covariances_alone, 0.625, 7),),
        rounds=7,
    )


def plain_numpy(one, two, lags=10):
    """Return mean, clipped variance and covariances as one writes them with numpy and scipy."""
    one, two = one.astype(np.float64), two.astype(np.float64)
    means = [stats.sigmaclip(image, 5.5, 5.5).clipped.mean() for image in (one, two)]
    mean = 0.5 * (means[0] + means[1])
    difference = (means[1] * one - means[0] * two) / mean
    clipped = stats.sigmaclip(difference, 5.5, 5.5)
    good = (difference >= clipped.lower) & (difference <= clipped.upper)
    weight = good.astype(np.float64)
    shape = [fft.next_fast_len(size + lags, real=True) for size in difference.shape]
    transform = fft.rfft2(np.where(good, difference, 0.0), shape)
    weights = fft.rfft2(weight, shape)
    sums = fft.irfft2(np.abs(transform) ** 2, shape) / fft.irfft2(np.abs(weights) ** 2, shape)
    return mean, 0.5 * clipped.clipped.var(), 0.5 * sums[:lags, :lags]


@pytest.mark.parametrize(
    ("shape", "published_s"), [((2000, 512), 0.47), ((4072, 576), 1.30)], ids=["2000", "4072"]
)
def test_one_amplifier_beside_the_reference(compare, peer, shape, published_s):
    raws, table = flats((1, 1), shape, 64)
    signals = [detrend_amplifier(raw, table.isel(amp=0)) for raw in raws]
    images = [signal["image"].values for signal in signals]
    pixels = float(np.prod(shape))
    compare(
        "pair statistics and covariances, 10 lags",
        lambda: extract_pair(*signals, parameters=ExtractParameters(lags=10)),
        size=f"{shape[0]} x {shape[1]}",
        peers=(peer("numpy and scipy", lambda: plain_numpy(*images), None, 2),),
        published_s=published_s,
        target=10.0,
        multiply_adds=pixels * (9 * 19 + 10),
        moved_bytes=10.0 * pixels,
    )
