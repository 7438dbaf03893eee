"""Weights of M-estimators, what they make of a Gaussian, and scatter beyond the variances."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Expected",
    "Loss",
    "RobustOptions",
    "expected",
    "extra_variance",
    "robust_weights",
    "starting_extra_variance",
    "weighted_mean",
]

Floats = NDArray[np.float64]
Loss = Literal["tukey", "huber", "none"]

BISECTIONS = 60
MEDIAN_OF_CHI2 = 0.454936423119572  # of one degree of freedom


class RobustOptions(NamedTuple):
    """How outliers are treated: see `SolveScaleParameters`."""

    loss: Loss = "tukey"
    cut: float = 6.0
    asymmetry: float = 1.0
    extra_scatter: bool = True
    template_noise: bool = True
    iterations: int = 20
    tolerance: float = 1e-3


class Expected(NamedTuple):
    """What an M-estimator makes of a unit Gaussian: mean weight, variance of the mean, mean square
    by weight.
    """

    weight: float
    efficiency: float
    square: float


def robust_weights(t: Floats, options: RobustOptions) -> tuple[Floats, Floats]:
    """Return weight ``w(t)`` and slope ``d(t w)/dt`` of studentised residuals."""
    size = np.where(t > 0, options.asymmetry, 1.0) * np.abs(t) / options.cut
    if options.loss == "none":
        return np.ones_like(t), np.ones_like(t)
    if options.loss == "huber":
        inside = size <= 1.0
        return np.where(inside, 1.0, 1.0 / np.where(inside, 1.0, size)), inside.astype(np.float64)
    inner = np.where(size < 1.0, 1.0 - size**2, 0.0)
    return inner**2, np.where(size < 1.0, inner * (1.0 - 5.0 * size**2), 0.0)


@lru_cache
def expected(options: RobustOptions) -> Expected:
    t = np.linspace(-9.0, 9.0, 18001)
    density = np.exp(-0.5 * t**2)
    density /= density.sum()
    weight, slope = robust_weights(t, options)
    psi2 = float(np.sum(density * (t * weight) ** 2))
    return Expected(
        weight=float(np.sum(density * weight)),
        efficiency=psi2 / float(np.sum(density * slope)) ** 2,
        square=float(np.sum(density * weight * t**2) / np.sum(density * weight)),
    )


def starting_extra_variance(residual: Floats, variance: Floats) -> float:
    """Return the variance to add so that the median squared residual is as expected."""
    square = residual**2

    def excess(extra: float) -> float:
        return float(np.median(square / (variance + extra))) - MEDIAN_OF_CHI2

    return _root(excess, float(np.median(square)) / MEDIAN_OF_CHI2)


def extra_variance(
    residual: Floats, leverage: Floats, variance: Floats, robust: Floats, options: RobustOptions
) -> float:
    """Return the variance to add so that chi2 equals its degrees of freedom."""
    square = residual**2 / (1.0 - leverage)
    wanted = expected(options).square

    def excess(extra: float) -> float:
        return weighted_mean(square / (variance + extra), robust) - wanted

    return _root(excess, weighted_mean(square, robust) / wanted)


def weighted_mean(values: Floats, weight: Floats) -> float:
    total = float(weight.sum())
    return float((weight * values).sum()) / total if total > 0 else 0.0


def _root(function: Callable[[float], float], highest: float) -> float:
    """Return where a falling function is 0 between 0 and ``highest``; 0 if it nowhere is."""
    if highest <= 0.0 or function(0.0) <= 0.0:
        return 0.0
    low, high = 0.0, highest
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if function(middle) > 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
