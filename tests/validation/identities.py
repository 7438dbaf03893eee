"""Identities that hold whatever the data: covariances, models, kernels."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.covariance import CovarianceSums, covariance_sums
from skyloom.algorithms.photon_transfer.kernel import solve_kernel
from skyloom.algorithms.photon_transfer.models import (
    MODELS,
    MODELS_OF_VARIANCE,
    MODELS_WITH_B,
    model_covariance,
    model_jacobian,
)
from tests.validation.rows import Row, at_most

__all__ = ["A", "covariance_identities", "model_identities"]

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "data" / "photon_transfer_reference.json").read_text()
)
A: Floats = np.array(REFERENCE["a_lag_x_lag_y"]).T
"""Average a-matrix of an LSST Camera detector, (lag_y, lag_x), 1/electron."""
DRIFT = A * 1e-6


def _noise(shape: tuple[int, int], seed: int = 0) -> Floats:
    """Return noise with different covariances at neighbouring lags in x and in y."""
    white = np.random.default_rng(seed).normal(0.0, 10.0, shape)
    return white + 0.3 * np.roll(white, 1, axis=0) + 0.1 * np.roll(white, 1, axis=1)


def _good(shape: tuple[int, int]) -> NDArray[np.bool_]:
    good = np.random.default_rng(1).random(shape) >= 0.2
    good[5:9, 3:12] = False
    return good


def _difference(one: CovarianceSums, other: CovarianceSums) -> float:
    """Return the largest difference in units of the variance; infinite if counts differ."""
    if not np.array_equal(one.count, other.count):
        return float("inf")
    largest = np.max(np.abs(one.covariance - other.covariance))
    return float(largest / abs(other.covariance[0, 0]))


def covariance_identities() -> list[Row]:
    """Return the rows about covariances of one difference image."""
    both = []
    for shape, lags in itertools.product([(40, 31), (31, 40), (41, 33), (64, 64)], [1, 3, 10]):
        image, good = _noise(shape) + 3.0, _good(shape)
        found = [covariance_sums(image, good, lags=lags, method=m) for m in ("fft", "direct")]
        both.append(_difference(*found))
    sizes = []
    for size in (501, 1013, 2037, 4085):
        image, good = _noise((size, 64)), _good((size, 64))
        found = [covariance_sums(image, good, lags=10, method=m) for m in ("fft", "direct")]
        sizes.append(_difference(*found))
    image, good = _noise((201, 150)), _good((201, 150))
    plain = covariance_sums(image, good, lags=10)
    poisoned = np.where(good, image, np.nan)
    turned = covariance_sums(image.T, good.T, lags=10)
    turned = CovarianceSums(turned.covariance.T, turned.count.T)
    flipped = covariance_sums(image[::-1], good[::-1], lags=10)
    moved = covariance_sums(image + 12345.0, good, lags=10)
    scaled = covariance_sums(3.0 * image, good, lags=10)
    scaled = CovarianceSums(scaled.covariance / 9.0, scaled.count)
    unit = "of the variance, counts equal"
    return [
        at_most("FFT and direct covariances, 20 % masked, odd and even sizes, 1, 3, 10 lags",
                max(both), 1e-12, unit),
        at_most("the same at sizes 501, 1013, 2037, 4085, where the reference stops",
                max(sizes), 1e-12, unit),
        at_most("NaN instead of masked pixels", max(
            _difference(covariance_sums(poisoned, lags=10), plain),
            _difference(covariance_sums(poisoned, good, lags=10), plain)), 1e-12, unit),
        at_most("a constant added", _difference(moved, plain), 1e-10, unit),
        at_most("scaled by 3, covariances by 9", _difference(scaled, plain), 1e-10, unit),
        at_most("image transposed, lags exchanged", _difference(turned, plain), 1e-12, unit),
        at_most("image flipped", _difference(flipped, plain), 1e-12, unit),
    ]  # fmt: skip


def _drift(model: str) -> Floats | None:
    return DRIFT if model in MODELS_WITH_B else None


def _without_effect() -> float:
    """Return the largest deviation of any model from Poisson and noise when a is zero."""
    mean, gain, noise = np.array([10.0, 1e3, 1e5]), 0.7, 20.0
    largest = 0.0
    for model in MODELS:
        found = model_covariance(np.zeros((5, 5)), gain, noise, mean, model=model)
        expected = np.full(found.shape, noise / gain**2)
        expected[:, 0, 0] += mean / gain
        largest = max(largest, float(np.max(np.abs(found / expected[:, :1, :1] - expected
                                                   / expected[:, :1, :1]))))  # fmt: skip
    return largest


def _with_a_00_alone() -> float:
    a = np.zeros((4, 4))
    a[0, 0] = -3e-6
    mean = np.linspace(1e2, 9e4, 7)
    exact = model_covariance(a, 1.4, 3.0, mean)
    expected = np.full(exact.shape, 3.0 / 1.4**2)
    expected[:, 0, 0] = model_covariance(a, 1.4, 3.0, mean, model="exp00")[:, 0, 0]
    return float(np.max(np.abs(exact - expected) / expected[:, :1, :1]))


def _order(series: str, exact: str) -> float:
    """Return by how much halving the signal divides the difference of two models."""
    large, small = (
        model_covariance(A, 1.0, 0.0, [signal], c=_drift(series), model=series)[0, 0, 0]
        - model_covariance(A, 1.0, 0.0, [signal], c=_drift(exact), model=exact)[0, 0, 0]
        for signal in (4e3, 2e3)
    )
    return float(large / small)


def _gain_scaling() -> float:
    largest = 0.0
    for model in MODELS:
        one, other = (
            gain**2 * model_covariance(A, gain, 0.0, [7e4 / gain], c=_drift(model), model=model)
            for gain in (0.3, 2.7)
        )
        largest = max(largest, float(np.max(np.abs(one / other - 1.0))))
    return largest


def _jacobian(model: str) -> float:
    """Return the largest difference from central differences, in units of the largest entry."""
    mean, gain, noise = np.array([1e3, 3e4, 9e4]), 1.3, 10.0
    found = model_jacobian(A, gain, np.full(A.shape, noise), mean, c=_drift(model), model=model)

    def values(a: Floats, g: float, c: Floats | None) -> Floats:
        return model_covariance(a, g, noise, mean, c=c, model=model).reshape(len(mean), -1).T

    def off(analytic: Floats, above: Floats, below: Floats, step: float) -> float:
        numeric = (above - below) / (2 * step)
        return float(np.max(np.abs(analytic - numeric)) / np.max(np.abs(numeric)))

    c = _drift(model)
    offs = [off(found.by_gain, values(A, gain + 1e-5, c), values(A, gain - 1e-5, c), 1e-5)]
    for index in range(found.by_a.shape[2]):
        unit = np.zeros_like(A)
        unit.flat[index] = 1.0
        up, down = A + 1e-9 * unit, A - 1e-9 * unit
        offs.append(off(found.by_a[:, :, index], values(up, gain, c), values(down, gain, c), 1e-9))
        if found.by_c is not None and c is not None:
            up, down = c + 1e-14 * unit, c - 1e-14 * unit
            offs.append(
                off(found.by_c[:, :, index], values(A, gain, up), values(A, gain, down), 1e-14)
            )
    return max(offs)


def _laplacian() -> float:
    largest = 0.0
    for side in (5, 9, 21):
        source = np.random.default_rng(side).normal(0, 1e-6, (side, side))
        padded = np.pad(solve_kernel(source), 1)
        found = sum(np.roll(padded, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * padded
        largest = max(largest, float(np.max(np.abs(found[1:-1, 1:-1] - source))))
    return largest


def _stated_values() -> tuple[float, float]:
    """Return the largest relative error of the stated values, and the largest in last digits."""
    stated = {  # electrons: C_00 / mu, C_01 / mu², C_10 / mu², and a unit of their last digits
        1e4: (0.96784, 3.9938e-7, 1.6931e-7),
        3e4: (0.90774, 3.6844e-7, 1.5850e-7),
        5e4: (0.85281, 3.4032e-7, 1.4852e-7),
        1e5: (0.73487, 2.8054e-7, 1.2672e-7),
    }
    units = np.array([1e-5, 1e-11, 1e-11])
    relative, digits = [], []
    for electrons, values in stated.items():
        c = model_covariance(A, 1.0, 0.0, [electrons])[0]
        found = np.array([c[0, 0] / electrons, c[1, 0] / electrons**2, c[0, 1] / electrons**2])
        relative.append(np.abs(found / values - 1.0))
        digits.append(np.abs(found - values) / units)
    return float(np.max(relative)), float(np.max(digits))


def model_identities() -> list[Row]:
    """Return the rows about models, their derivatives, and the equation of the kernel."""
    relative, digits = _stated_values()
    ratios = [_order("series4_no_b", "exact"), _order("series4", "exact_b")]
    worst = max(ratios, key=lambda ratio: abs(ratio - 32))
    return [
        at_most("a = 0: every model is mu/g + n/g²", _without_effect(), 1e-14, "of the variance"),
        at_most("only a_00: `exact` is `exp00`, other lags noise", _with_a_00_alone(), 1e-12,
                "of the variance"),
        Row("halving the signal divides series4 - exact by 32, with and without b", "32 ± 5 %",
            ", ".join(f"{ratio:.2f}" for ratio in ratios), abs(worst / 32 - 1) < 0.05),
        at_most("covariances in electrons do not depend on the gain (n = 0)", _gain_scaling(),
                1e-13, "relative"),
        at_most("Jacobians and central differences, all models of covariances",
                max(_jacobian(m) for m in MODELS if m not in MODELS_OF_VARIANCE), 1e-6,
                "of the largest entry"),
        at_most("5-point Laplacian of a kernel less its source", _laplacian(), 1e-15, "absolute"),
        Row("exact model for the LSST Camera's average a, 12 stated values of 5 digits",
            "1e-5 relative, or half a unit of the last stated digit where that is more",
            f"largest error {relative:.1e} relative, {digits:.2f} units of the last digit",
            digits <= 0.5 or relative <= 1e-5),
    ]  # fmt: skip
