"""What clipping does to the variance of a Gaussian, and how to undo it.

Discarding values further than ``T`` standard deviations from the centre of a Gaussian leaves the
fraction ``f(T) = 1 - 2 T φ(T) / (2 Φ(T) - 1)`` of its variance. A clip that is iterated cuts at
``k`` times the *clipped* standard deviation, so the true threshold is lower than ``k``: the
correction has to use the half width that was really applied.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

__all__ = ["clipped_variance_factor", "truncation_factor", "unclipped_variance"]

NEWTON_STEPS = 60
SERIES_BELOW = 0.02  # the closed form loses digits to cancellation below this threshold


def truncation_factor(threshold: ArrayLike) -> NDArray[np.float64]:
    """Return the fraction of its variance that a Gaussian keeps when cut at ±threshold sigma.

    Parameters
    ----------
    threshold : array_like
        Half width ``T`` of the cut in units of the true standard deviation; >= 0.

    Returns
    -------
    ndarray, float64
        ``f(T) = 1 - 2 T φ(T) / (2 Φ(T) - 1)``, between 0 and 1; 1 for an infinite threshold.

    Raises
    ------
    ValueError
        If a threshold is negative.

    Examples
    --------
    >>> [round(float(f), 6) for f in truncation_factor([2.0, 3.0, np.inf])]
    [0.773741, 0.973337, 1.0]
    """
    t = np.asarray(threshold, dtype=np.float64)
    if np.any(t < 0):
        raise ValueError(f"threshold must be >= 0, got {float(np.nanmin(t))}")
    factor, _ = _factor_and_slope(t)
    return factor


def _factor_and_slope(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return f(t) and df/dt."""
    safe = np.where((t < SERIES_BELOW) | np.isinf(t), 1.0, t)
    inside = erf(safe / math.sqrt(2.0))
    density = np.exp(-0.5 * safe**2) / math.sqrt(2.0 * math.pi)
    ratio = density / inside
    factor = 1.0 - 2.0 * safe * ratio
    slope = -2.0 * ratio * (1.0 - safe**2) + 4.0 * safe * ratio**2
    # f = t²/3 - 2 t⁴/45 + 2 t⁶/945 + O(t⁸)
    small = np.minimum(t, SERIES_BELOW)
    series = small**2 / 3.0 - 2.0 * small**4 / 45.0 + 2.0 * small**6 / 945.0
    series_slope = 2.0 * small / 3.0 - 8.0 * small**3 / 45.0 + 4.0 * small**5 / 315.0
    factor = np.where(t < SERIES_BELOW, series, factor)
    slope = np.where(t < SERIES_BELOW, series_slope, slope)
    return np.where(np.isinf(t), 1.0, factor), np.where(np.isinf(t), 0.0, slope)


def unclipped_variance(variance: ArrayLike, half_width: ArrayLike) -> NDArray[np.float64]:
    """Return the variance of the Gaussian whose cut at ±half_width has the variance given.

    Solves ``s² = σ² f(T/σ)`` for ``σ²`` by Newton's method from ``σ = s``: exact for a Gaussian at
    any threshold, however many passes chose it.

    Parameters
    ----------
    variance : array_like
        Variance ``s²`` of the values kept, e.g. adu².
    half_width : array_like
        Half width ``T`` of the last pass, in the unit of the values, e.g. adu; infinite for no cut.

    Returns
    -------
    ndarray, float64
        ``σ²`` in the unit of ``variance``. NaN where an input is NaN or where no Gaussian fits
        (``s² >= T²/3``, the variance of a uniform distribution); 0 where the variance is 0.

    Raises
    ------
    ValueError
        If a variance or a half width is negative.

    Examples
    --------
    >>> round(float(unclipped_variance(0.969922, 3 * 0.969922**0.5)), 4)
    1.0
    """
    s2, cut = np.broadcast_arrays(
        np.asarray(variance, dtype=np.float64), np.asarray(half_width, dtype=np.float64)
    )
    for name, values in (("variance", s2), ("half_width", cut)):
        if np.any(values < 0):
            raise ValueError(f"{name} must be >= 0, got {float(np.nanmin(values))}")
    zero = s2 == 0.0
    solvable = ~zero & np.isfinite(s2) & (s2 < cut * (cut / 3.0))
    s2_safe, cut_safe = np.where(solvable, s2, 1.0), np.where(solvable, cut, np.inf)
    sigma = np.sqrt(s2_safe)
    for _ in range(NEWTON_STEPS):
        factor, slope = _factor_and_slope(cut_safe / sigma)
        # at an infinite cut the slope is 0 and the product must be too
        bend = np.where(np.isinf(cut_safe), 0.0, np.where(slope == 0.0, 0.0, cut_safe) * slope)
        step = (sigma**2 * factor - s2_safe) / (2.0 * sigma * factor - bend)
        sigma = sigma - step
        if np.all(np.abs(step) <= 1e-15 * sigma):
            break
    return np.where(zero & ~np.isnan(cut), 0.0, np.where(solvable, sigma**2, np.nan))


def clipped_variance_factor(clip: float, iterations: int) -> float:
    """Return the expected variance of clipped statistics for a Gaussian of unit variance.

    The first pass cuts at ``clip`` true standard deviations (through the interquartile range), each
    later one at ``clip`` times the standard deviation that the pass before it left.

    Parameters
    ----------
    clip : float
        Clip ``k`` in standard deviations; > 0.
    iterations : int
        Number of passes; >= 1.

    Raises
    ------
    ValueError
        If clip <= 0 or iterations < 1.

    Examples
    --------
    >>> [round(clipped_variance_factor(3.0, passes), 6) for passes in (1, 2, 3)]
    [0.973337, 0.97033, 0.969971]
    """
    if not clip > 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")
    variance = 1.0
    for _ in range(iterations):
        variance = float(truncation_factor(clip * math.sqrt(variance)))
    return variance
