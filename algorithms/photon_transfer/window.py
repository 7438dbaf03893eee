"""Huber-weighted fits of the variance model on a growing window of means, compiled.

The model is V(mu) = (mu / g) phi(2 a_00 g mu) + n / g^2 (equation 16 of Astier et al. 2019) with
three values ``(a_00, g, n)`` in 1/electron, electron/adu and electron2. Errors are relative to
the model: sigma = scatter * V.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["fit_window", "grow_window", "relative_residuals"]

Floats = NDArray[np.float64]

ROUNDS = 5
STEPS = 40


@compiled
def _variance(values: Floats, mean: float) -> tuple[float, float, float, float]:
    """Return the model and its derivatives by a_00, g and n at one mean."""
    a_00, gain, noise = values
    x = 2 * a_00 * gain * mean
    if abs(x) < 0.1:
        slope, power = 0.0, 1.0
        for k in range(10):
            # x^k (k + 1) / (k + 2)!, the factorial kept in `power`
            power = power * (x / (k + 2)) if k else 0.5
            slope += power * (k + 1)
        value = 1.0 + x * 0.5 if abs(x) < 1e-9 else np.expm1(x) / x
    else:
        value = np.expm1(x) / x
        slope = (np.exp(x) - value) / x
    model = mean / gain * value + noise / gain**2
    by_gain = -mean / gain**2 * value + mean / gain * slope * 2 * a_00 * mean - 2 * noise / gain**3
    return model, 2 * mean**2 * slope, by_gain, 1 / gain**2


@compiled
def relative_residuals(mean: Floats, variance: Floats, values: Floats) -> Floats:
    """Return variance / model - 1 at each mean.

    Parameters
    ----------
    mean, variance : array, (pair), float64, adu and adu2
        Points of a curve.
    values : array, (3), float64
        a_00 (1/electron), gain (electron/adu), noise (electron2).

    Returns
    -------
    array, (pair), float64

    Examples
    --------
    >>> relative_residuals(np.array([1e3]), np.array([1010.0]), np.array([0.0, 1.0, 0.0])).round(3)
    array([0.01])
    """
    out = np.empty_like(mean)
    for index in range(len(mean)):
        out[index] = variance[index] / _variance(values, mean[index])[0] - 1
    return out


@compiled
def _step(
    mean: Floats, variance: Floats, sigma: Floats, huber: float, values: Floats
) -> tuple[Floats, float]:
    """Return the weighted Gauss-Newton step and its size in units of its error."""
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for index in range(len(mean)):
        model, by_a, by_gain, by_noise = _variance(values, mean[index])
        residual = (variance[index] - model) / sigma[index]
        weight = min(1.0, huber / max(abs(residual), 1e-12))
        row = np.array([by_a, by_gain, by_noise]) / sigma[index]
        for i in range(3):
            right[i] += weight * row[i] * residual
            for j in range(3):
                normal[i, j] += weight * row[i] * row[j]
    scale = np.sqrt(np.diag(normal))
    for i in range(3):
        for j in range(3):
            normal[i, j] /= scale[i] * scale[j]
        right[i] /= scale[i]
    lower = np.zeros((3, 3))
    for i in range(3):
        for j in range(i + 1):
            total = normal[i, j]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(total) if i == j else total / lower[j, j]
    step = right.copy()
    for i in range(3):
        for k in range(i):
            step[i] -= lower[i, k] * step[k]
        step[i] /= lower[i, i]
    size = np.sum(step**2)
    for i in range(2, -1, -1):
        for k in range(i + 1, 3):
            step[i] -= lower[k, i] * step[k]
        step[i] /= lower[i, i]
    return step / scale, np.sqrt(size)


@compiled
def _fit(
    mean: Floats, variance: Floats, scatter: Floats, huber: float, values: Floats, rounds: int
) -> Floats:
    sigma = np.empty_like(mean)
    for _ in range(rounds):
        for index in range(len(mean)):
            sigma[index] = scatter[index] * abs(_variance(values, mean[index])[0])
        for _ in range(STEPS):
            step, size = _step(mean, variance, sigma, huber, values)
            if not np.isfinite(size):
                return values
            # a gain may not change sign, nor by more than a factor of two at once
            largest = abs(step[1]) / (0.5 * values[1])
            values = values + step / max(1.0, largest)
            if size < 1e-6:
                break
    return values


@compiled
def fit_window(
    mean: Floats, variance: Floats, scatter: Floats, huber: float, values: Floats
) -> Floats:
    """Fit the variance model to all points of a window, robustly.

    Parameters
    ----------
    mean, variance : array, (pair), float64, adu and adu2
        Points of the window.
    scatter : array, (at least pair), float64
        Relative error of each variance.
    huber : float
        Residual in sigma beyond which a point pulls less.
    values : array, (3), float64
        Start: a_00 (1/electron), gain (electron/adu), noise (electron2).

    Returns
    -------
    array, (3), float64
        The fitted values.

    Examples
    --------
    >>> mean = np.linspace(100.0, 30000.0, 30)
    >>> fitted = fit_window(mean, mean / 2 + 4, np.full(30, 0.01), 2.0, np.array([-2e-6, 1.5, 9.0]))
    >>> fitted[1:].round(6)
    array([ 2., 16.])
    """
    return _fit(mean, variance, scatter, huber, values, ROUNDS)


@compiled
def grow_window(
    mean: Floats,
    variance: Floats,
    scatter: Floats,
    huber: float,
    cut: float,
    start: int,
    values: Floats,
) -> tuple[int, Floats]:
    """Grow the window upward while points agree with the model, fitting again at each step.

    Parameters
    ----------
    mean, variance : array, (pair), float64, adu and adu2
        All points, sorted by mean.
    scatter : array, (pair), float64
        Relative error of each variance.
    huber, cut : float
        Transition of the weights and threshold of agreement, in sigma.
    start : int
        Number of points in the first window.
    values : array, (3), float64
        The model fitted to the first window.

    Returns
    -------
    stop : int
        Number of points in the last window.
    values : array, (3), float64
        The model fitted to it.

    Examples
    --------
    >>> mean = np.linspace(100.0, 30000.0, 30)
    >>> variance = mean / 2 + 4
    >>> variance[20:] *= 0.5
    >>> grow_window(mean, variance, np.full(30, 0.01), 2.0, 5.0, 9, np.array([0.0, 2.0, 16.0]))[0]
    20
    """
    stop = start
    while stop < len(mean):
        grown = 0
        for ahead in range(min(2, len(mean) - stop)):
            model = _variance(values, mean[stop + ahead])[0]
            if abs(variance[stop + ahead] / model - 1) < cut * scatter[stop + ahead]:
                grown = ahead + 1
                break
        if not grown:
            break
        stop += grown
        values = _fit(mean[:stop], variance[:stop], scatter, huber, values, 1)
    return stop, _fit(mean[:stop], variance[:stop], scatter, huber, values, ROUNDS)
