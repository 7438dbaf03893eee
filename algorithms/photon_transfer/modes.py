"""The covariance of one Fourier mode as a function of signal: the physics behind every model.

Charge fluctuations move pixel boundaries, so a mode obeys dC/dM = 2 (a + c M) C + 1 with C(0) = 0
(the closed form of the series in Astier et al. 2019, arXiv:1905.08677). Each function returns
C and its derivatives, element by element.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Modes", "growth", "growth_slope", "mode_covariance", "mode_derivatives"]

Floats = NDArray[np.float64]

SERIES_LIMIT = 0.1
SERIES = tuple((k + 1) / math.factorial(k + 2) for k in range(10))
"""Power series of the slope of the growth; ten terms are exact to rounding below the limit."""

LEAST_QUADRATURE_POINTS = 8


def growth(x: ArrayLike) -> Floats:
    """Return phi(x) = expm1(x) / x, with its limit 1 at 0.

    Parameters
    ----------
    x : array_like, float64
        Twice the coefficient times the charge, dimensionless.

    Returns
    -------
    array, float64
        Relative growth of the covariance.

    Examples
    --------
    >>> [round(float(value), 6) for value in growth([0.0, 1.0])]
    [1.0, 1.718282]
    """
    x = np.asarray(x, dtype=np.float64)
    value = np.empty_like(x)
    np.expm1(x, out=value)
    zero = x == 0
    np.divide(value, x, out=value, where=~zero)
    value[zero] = 1.0
    return value


def growth_slope(x: ArrayLike) -> Floats:
    """Return the derivative of `growth`, [e^x (x - 1) + 1] / x^2, with its limit 1/2 at 0.

    Below 0.1 the power series sum_k x^k (k + 1) / (k + 2)! takes over, because the closed form
    cancels there.

    Parameters
    ----------
    x : array_like, float64
        Twice the coefficient times the charge, dimensionless.

    Returns
    -------
    array, float64

    Examples
    --------
    >>> [round(float(value), 6) for value in growth_slope([0.0, 1.0])]
    [0.5, 1.0]
    """
    return _growth_and_slope(np.asarray(x, dtype=np.float64))[1]


def _growth_and_slope(x: Floats) -> tuple[Floats, Floats]:
    value = growth(x)
    near = np.abs(x) < SERIES_LIMIT
    small = np.where(near, x, 0.0)
    series = np.full_like(small, SERIES[-1])
    for factor in SERIES[-2::-1]:
        series *= small
        series += factor
    closed = (np.exp(x) - value) / np.where(near, 1.0, x)
    return value, np.where(near, series, closed)


class Modes(NamedTuple):
    """Covariance of each mode, (..., mode_y, mode_x) electron2, and its derivatives.

    By the signal M (electron), by ``a`` (1/electron) and by ``c`` (1/electron2, None if absent).
    """

    value: Floats
    by_signal: Floats
    by_a: Floats
    by_c: Floats | None


def _exact_modes(a: Floats, signal: Floats) -> Modes:
    x = 2 * a * signal
    value, slope = _growth_and_slope(x)
    return Modes(value * signal, x * value + 1, 2 * signal**2 * slope, None)


def _exact_b_modes(a: Floats, c: Floats, signal: Floats) -> Modes:
    largest = float(np.max(np.abs(2 * a * signal) + np.abs(c * signal**2), initial=0.0))
    extra = int(min(2 * largest, 56)) if np.isfinite(largest) else 0
    nodes, weights = np.polynomial.legendre.leggauss(LEAST_QUADRATURE_POINTS + extra)
    value, by_a, by_c = (np.zeros(np.broadcast_shapes(a.shape, signal.shape)) for _ in range(3))
    x, drift = 2 * a * signal, c * signal**2
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        term = weight * np.exp(x * (1 - node) + drift * (1 - node**2))
        value += term
        by_a += term * (1 - node)
        by_c += term * (1 - node**2)
    value = value * signal
    slope = 2 * (a + c * signal) * value + 1
    return Modes(value, slope, 2 * signal**2 * by_a, signal**3 * by_c)


def _series_modes(a: Floats, c: Floats, signal: Floats) -> Modes:
    second, third = 2 / 3 * (a * a + c), a**3 / 3 + 5 / 6 * a * c
    value = signal * (1 + signal * (a + signal * (second + signal * third)))
    slope = 1 + signal * (2 * a + signal * (3 * second + signal * 4 * third))
    by_a = signal**2 * (1 + signal * (4 / 3 * a + signal * (a * a + 5 / 6 * c)))
    by_c = signal**3 * (2 / 3 + 5 / 6 * signal * a)
    return Modes(value, slope, by_a, by_c)


def mode_covariance(model: str, a: Floats, c: Floats | None, signal: Floats) -> Floats:
    """Return the covariance of each mode, without derivatives.

    Parameters
    ----------
    model, a, c, signal
        As in `mode_derivatives`.

    Returns
    -------
    array, (..., mode_y, mode_x), float64, electron2

    Examples
    --------
    >>> float(mode_covariance("exact", np.zeros((1, 1)), None, np.full((1, 1, 1), 7.0))[0, 0, 0])
    7.0
    """
    if model in ("exact", "exp00", "linear") or (model == "exact_b" and c is None):
        value = growth(2 * a * signal)
        value *= signal
        return value
    return mode_derivatives(model, a, c, signal).value


def mode_derivatives(model: str, a: Floats, c: Floats | None, signal: Floats) -> Modes:
    """Return the covariance of each mode and its derivatives.

    Parameters
    ----------
    model : {"exact", "exact_b", "series4", "series4_no_b", "exp00", "linear"}
        The model.
    a : array, (mode_y, mode_x), 1/electron
        Modes of the symmetrised coefficients.
    c : array, (mode_y, mode_x), 1/electron2, or None
        Modes of their drift; None is zero.
    signal : array, (..., 1, 1), electron
        Charge per pixel.

    Returns
    -------
    Modes

    Examples
    --------
    >>> modes = mode_derivatives("exact", np.zeros((1, 1)), None, np.full((1, 1, 1), 7.0))
    >>> float(modes.by_a[0, 0, 0])
    49.0
    """
    if model in ("exact", "exp00", "linear") or (model == "exact_b" and c is None):
        return _exact_modes(a, signal)
    drift = np.zeros_like(a) if c is None else c
    if model == "exact_b":
        return _exact_b_modes(a, drift, signal)
    return _series_modes(a, drift, signal)
