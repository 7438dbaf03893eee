"""What is measured on one pair of flats: clips, stated values of mock flats, gains, robustness."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.clip_correction import truncation_factor, unclipped_variance
from skyloom.algorithms.photon_transfer.covariance import covariance_sums
from skyloom.algorithms.photon_transfer.gaussianity import gaussian_test
from skyloom.algorithms.photon_transfer.pair_gain import pair_gain
from skyloom.algorithms.simulate import TYPICAL_A, correlated_field, flat_covariance
from skyloom.algorithms.statistics import clipped_moments
from tests.algorithms.photon_transfer.test_gaussianity import rounded_difference
from tests.algorithms.photon_transfer.test_pair_closed_loops import LEVEL, SHAPE, noise, pair_of
from tests.algorithms.photon_transfer.test_pair_gain import METHODS, poisson_ratio
from tests.algorithms.photon_transfer.test_pair_values import EXPECTED, mock_pair
from tests.validation.rows import Row, at_most, within

__all__ = ["clips", "gains", "mock_flats", "robustness", "simulated_covariances"]


def clips() -> list[Row]:
    """Return the rows about what clipping does to a Gaussian."""
    stated = {2.0: 1.136847, 3.0: 1.013604, 5.5: 1.0000005924}
    rows = [
        within(f"clip at {clip:g} sigma: factor on sigma", float(truncation_factor(clip)) ** -0.5,
               factor, 1e-6, form=".10g")
        for clip, factor in stated.items()
    ]  # fmt: skip
    values = np.random.default_rng(5).standard_normal(4_000_000)
    left = []
    for clip in stated:
        moments = clipped_moments(values, clip=clip, iterations=3)
        left.append(float(unclipped_variance(moments.variance, moments.half_width)) / values.var())
    worst = max((ratio - 1 for ratio in left), key=abs)
    return [
        *rows,
        at_most("three passes undone, 2, 3, 5.5 sigma, 4e6 Gaussian numbers: variance off by",
                worst, 4e-3, "relative (the reference: -20 %, -0.35 %, 0)", "+.1e"),
    ]  # fmt: skip


def mock_flats() -> list[Row]:
    """Return the rows of the reference's mock flats, made anew."""
    first = [mock_pair(time) for time in EXPECTED]
    rows = []
    for name, column in (("mean", 0), ("variance", 1)):
        off = [
            float(pair[name]) / EXPECTED[time][column] - 1
            for pair, time in zip(first, EXPECTED, strict=True)
        ]
        rows.append(at_most(f"mock flats, first three levels: {name}", max(off, key=abs), 1e-4,
                            "relative", "+.1e"))  # fmt: skip
    for method, column in (("FULL", 2), ("NONE", 3)):
        for time, expected in EXPECTED.items():
            found = float(mock_pair(time, gain_method=method)["pair_gain"])
            rows.append(within(f"mock flats, t = {time}: gain by {method} (stated for images "
                               "that are not scaled)", found, expected[column], 5e-5,
                               "electron/adu"))  # fmt: skip
    pair = first[1]
    stated = {
        "C_01": (float(pair["covariance"].sel(lag_y=1, lag_x=0)), 17.03, 5e-3),
        "C_10": (float(pair["covariance"].sel(lag_y=0, lag_x=1)), -5.55, 5e-3),
        "row-mean variance": (float(pair["row_mean_variance"]), 113.12, 1e-4),
    }
    for name, (found, target, relative) in stated.items():
        rows.append(within(f"mock flats, t = 6: {name}", found, target, abs(relative * target),
                           "adu2"))  # fmt: skip
    return rows


def _biases(
    electrons: float, gain: float, read_noise: float, sets: int = 24, size: int = 1_000_000
) -> dict[str, tuple[float, float]]:
    """Return the relative bias of each method of pair gains and its standard error, in 1e-4.

    Most of the scatter of a gain is that of the sample variance, whose expectation is known: what
    follows it is taken out by regression, which leaves the bias and a smaller error.
    """
    control = np.empty(sets)
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(sets):
        mean, variance, ratio, delta = poisson_ratio(electrons, gain, read_noise, size, seed)
        control[seed] = variance * gain**2 / (electrons + read_noise**2) - 1.0
        for method in METHODS:
            one = pair_gain(mean, variance, method=method, mean_delta=delta, ratio=ratio,
                            read_noise=read_noise / gain, count=size)  # fmt: skip
            found[method].append(float(one["gain"]) / gain - 1.0)
    biases = {}
    for method, values in found.items():
        y = np.array(values)
        slope = np.cov(control, y)[0, 1] / control.var(ddof=1)
        rest = y - slope * control
        biases[method] = 1e4 * rest.mean(), 1e4 * rest.std(ddof=2) / np.sqrt(sets)
    return biases


def gains() -> list[Row]:
    """Return the table of biases of pair gains, and what a mismatch of levels does."""
    stated = [  # electrons, gain, noise, biases in 1e-4 with their own errors
        (100.0, 1.0, 5.0, {"NONE": -2016, "FULL": -75, "READNOISE": -25, "MOMENT": 3}, 1.2),
        (100.0, 1.0, 0.0, {"NONE": 1, "FULL": -50}, 0.75),
        (1000.0, 1.5, 5.0, {"NONE": -245, "FULL": -6, "READNOISE": -1, "MOMENT": -0.8}, 1.8),
    ]
    rows = []
    for electrons, gain, sigma, expected, error in stated:
        found = _biases(electrons, gain, sigma)
        flats = f"Poisson flats of {electrons:g} electron, noise {sigma:g} electron"
        for method, bias in expected.items():
            value, own = found[method]
            tolerance = 4 * float(np.hypot(own, error))
            if not sigma:
                tolerance = 3.0
            rows.append(within(f"{flats}: bias of {method} (± {own:.1f})", value, bias, tolerance,
                               "1e-4", ".1f"))  # fmt: skip
        if electrons == 100.0:
            value, own = found["MOMENT"]
            rows.append(at_most(f"{flats}: bias of MOMENT, the default (± {own:.1f})", value, 5.0,
                                "1e-4", "+.1f"))  # fmt: skip
    moments, unscaled = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        one, two = (rng.poisson(5e4 * level, (1000, 1000)) / 1.0 for level in (0.9985, 1.0015))
        moments.append(float(pair_of(one, two, gain_method="MOMENT", lags=1)["pair_gain"]))
        unscaled.append(1.0 / float(np.mean((one - two) ** 2 / (one + two))))
    return [
        *rows,
        within("levels 0.3 % apart at 5e4 electron: MOMENT / true gain, 24 pairs",
               float(np.mean(moments)), 1.0, 1e-3, form=".5f"),
        within("the same, NONE on images that are not scaled", float(np.mean(unscaled)), 0.8163,
               1e-3, form=".4f"),
    ]  # fmt: skip


def robustness() -> list[Row]:
    """Return the rows about outliers, row noise, rounding and the shape of the distribution."""
    rng = np.random.default_rng(11)
    one, two = LEVEL + noise(1), LEVEL + noise(2)
    clean = pair_of(one, two)
    hit = one.copy()
    hit[rng.random(SHAPE) < 1e-3] += 1e5
    pair = pair_of(hit, two)
    change = (pair["covariance"] - clean["covariance"]) / clean["covariance_sigma"]
    rows = [
        at_most("0.1 % of the pixels at +1000 sigma: change of the variance",
                float(pair["variance"] / clean["variance"]) - 1, 5e-3, "relative", "+.1e"),
        at_most("and of C_01", float(change.sel(lag_y=1, lag_x=0)), 3.0, "sigma", "+.2f"),
        *_row_noise(),
    ]  # fmt: skip
    for sigma in (10.0, 30.0, 100.0, 300.0):
        tests = [
            gaussian_test(rounded_difference(sigma, seed), jitter=1.0, seed=seed)
            for seed in range(5)
        ]
        p = float(np.median([test.ks_p for test in tests]))
        rows.append(
            Row(f"whole numbers of sigma {sigma:g} adu, jitter of one quantum: median KS p",
                "about 0.7 … 0.96, from 0.5 on counts as met", f"{p:.2f}", 0.5 < p <= 1.0)
        )  # fmt: skip
    return rows


def _row_noise() -> list[Row]:
    """Return the rows of a noise common to each row, of rms 1 adu."""
    changes: list[xr.Dataset] = []
    for seed in range(12):
        flats = [LEVEL + 0.1 * noise(20 + 2 * seed + k) for k in (0, 1)]
        rows = [np.random.default_rng(90 + 2 * seed + k).normal(0, 1.0, SHAPE[0]) for k in (0, 1)]
        # the rms of a sample of rows is not exactly 1, nor are two samples uncorrelated
        rows[1] -= rows[0] * (rows[0] @ rows[1]) / (rows[0] @ rows[0])
        rows = [row / np.sqrt(np.mean((row - row.mean()) ** 2)) for row in rows]
        added = pair_of(*(f + r[:, None] for f, r in zip(flats, rows, strict=True)))
        changes.append((added - pair_of(*flats))[["row_mean_variance", "covariance"]])
    change = xr.concat(changes, dim="set").mean("set")
    covariance = change["covariance"].transpose("lag_y", "lag_x").to_numpy()
    serial, others = covariance[0, 1:], covariance[1:]
    return [
        within("row noise of 1 adu rms: rise of the row-mean variance",
               float(change["row_mean_variance"]), 2.0, 0.2, "adu2"),
        Row("the same: rise of C_i0, i = 1 … 4", "1 ± 0.15 adu2",
            f"{serial.min():.3f} … {serial.max():.3f} adu2", bool(np.all(abs(serial - 1) < 0.15))),
        at_most("the same: largest change of C_ij, j > 0", float(others.flat[abs(others).argmax()]),
                0.15, "adu2", "+.3f"),
    ]  # fmt: skip


def simulated_covariances() -> list[Row]:
    """Return the rows of the Fourier simulator and of charge collected step by step."""
    electrons, number, lags = 7e4, 200, 5
    covariance = flat_covariance(np.array(TYPICAL_A), electrons)
    rng = np.random.default_rng(4)
    measured = np.empty((number, lags, lags))
    for pair in range(number):
        first, second = (correlated_field(covariance, (100, 121), rng) for _ in range(2))
        measured[pair] = covariance_sums(first - second, lags=lags).covariance
    mean, sigma = measured.mean(axis=0), measured.std(axis=0) / np.sqrt(number)
    # subtracting the mean of the image removes the sum of all covariances over the pixels
    images = np.where(np.arange(len(covariance)) > 0, 2, 1)
    bias = (np.outer(images, images) * covariance).sum() / (100 * 121)
    pulls = (mean - (covariance[:lags, :lags] - bias)) / sigma
    return [
        at_most("Fourier simulator, 200 pairs at 7e4 electron: C_ij less the truth, the worst of "
                "25 lags", float(pulls.flat[abs(pulls).argmax()]), 4.0, "sigma", "+.2f"),
        *_charge_by_charge(),
    ]  # fmt: skip


def _charge_by_charge(electrons: float = 8e4, steps: int = 200, side: int = 1024) -> list[Row]:
    """Return covariances of charge that arrives in steps, into pixels that change meanwhile.

    The same random numbers without the effect are subtracted, which removes most of the noise.
    """
    a = np.array(TYPICAL_A)[:5, :5].copy()
    images = np.outer([1, 2, 2, 2, 2], [1, 2, 2, 2, 2])
    a[0, 0] -= (a * images).sum()  # what one pixel loses its neighbours gain
    exact = flat_covariance(a, electrons)
    kernel = np.zeros((side, side))
    for y in range(-4, 5):
        for x in range(-4, 5):
            kernel[y, x] = a[abs(y), abs(x)]
    modes = np.fft.rfft2(kernel)
    rng = np.random.default_rng(7)
    step = electrons / steps
    charge, plain = np.zeros((side, side)), np.zeros((side, side))
    for _ in range(steps):
        area = 1.0 + np.fft.irfft2(np.fft.rfft2(charge) * modes, s=charge.shape)
        arrived = rng.normal(0.0, np.sqrt(step), charge.shape)
        charge += step * area + np.sqrt(area) * arrived
        plain += arrived
    # covariance_sums halves, as for a difference of two flats; this is one flat
    found, free = (2 * covariance_sums(field, lags=2).covariance for field in (charge, plain))
    found = found - free
    found[0, 0] += electrons
    rows = []
    for name, y, x in (("C_01", 1, 0), ("C_10", 0, 1)):
        rows.append(
            within(f"charge collected in {steps} steps, {electrons:g} electron: {name} (target: "
                   "exact model)", float(found[y, x]), float(exact[y, x]),
                   0.02 * float(exact[y, x]), "electron2", ".0f")
        )  # fmt: skip
    rows.append(
        within("the same: C_00 (about +80 electron2 are expected of finite steps)",
               float(found[0, 0]), float(exact[0, 0]), 250.0, "electron2", ".0f")
    )  # fmt: skip
    return rows
