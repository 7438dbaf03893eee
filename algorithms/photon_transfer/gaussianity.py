"""Is the difference of two flats Gaussian? By its moments, or by histogram and KS test.

The moments are the primary test: they cost nothing beyond the pass that centres the difference
and have known errors, sqrt(6/n) for the skewness and sqrt(24/n) for the excess kurtosis. A noise
whose variance varies over the region with relative rms v has the excess kurtosis 3 v².
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import kolmogorov, ndtr

__all__ = [
    "GaussianTest",
    "HigherMoments",
    "gaussian_test",
    "higher_moments",
    "moments_test",
    "truncated_kurtosis",
]

SMALLEST_P = 1e-15  # probabilities below are reported as 0
CHUNK = 1 << 16  # values compared with the normal distribution at a time


class HigherMoments(NamedTuple):
    """Shape of a distribution; NaN without spread."""

    skewness: float
    kurtosis: float


class GaussianTest(NamedTuple):
    """A Gaussian fitted to a histogram, and how far the values are from it.

    ``variance`` is that of the values (of a difference: twice that of one flat), ``ks_statistic``
    the largest distance of the distributions; times the square root of the number of values it
    is below 1.035 for 99 % of Gaussian samples whose mean and width were estimated.
    """

    variance: float
    chi2_dof: float
    ks_p: float
    ks_statistic: float


def higher_moments(n: float, sums: tuple[float, float, float, float]) -> HigherMoments:
    """Return skewness and excess kurtosis from power sums of nearly centred values.

    Parameters
    ----------
    n : float
        Number of values.
    sums : tuple of 4 floats
        Sums of the values, their squares, third and fourth powers.

    Examples
    --------
    >>> higher_moments(4, (0.0, 4.0, 0.0, 4.0))
    HigherMoments(skewness=0.0, kurtosis=-2.0)
    """
    nan = HigherMoments(math.nan, math.nan)
    if n < 1:
        return nan
    m1, m2, m3, m4 = (s / n for s in sums)
    variance = m2 - m1 * m1
    if not variance > 0.0:
        return nan
    third = m3 - 3.0 * m1 * m2 + 2.0 * m1**3
    fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1**4
    return HigherMoments(third / variance**1.5, fourth / variance**2 - 3.0)


def truncated_kurtosis(threshold: float) -> float:
    """Return the excess kurtosis of a Gaussian cut at ±threshold standard deviations.

    Parameters
    ----------
    threshold : float
        Half width of the cut in units of the standard deviation before it; > 0.

    Examples
    --------
    >>> round(truncated_kurtosis(3.0), 4), round(truncated_kurtosis(5.5), 6)
    (-0.1711, -3.2e-05)
    """
    if not threshold > 0.0:
        return math.nan
    density = math.exp(-0.5 * threshold**2) / math.sqrt(2.0 * math.pi)
    edge = 2.0 * density / math.erf(threshold / math.sqrt(2.0))
    second = 1.0 - edge * threshold
    fourth = 3.0 - edge * (threshold**3 + 3.0 * threshold)
    return fourth / second**2 - 3.0


def moments_test(
    skewness: float, kurtosis: float, n: float, *, sigma: float = 5.0, floor: float = 0.01
) -> bool:
    """Return whether skewness and excess kurtosis are those of n values of a Gaussian.

    Both have to be below ``max(sigma * standard error, floor)``.

    Examples
    --------
    >>> moments_test(0.0, 0.02, 1_000_000), moments_test(0.0, 0.03, 1_000_000)
    (True, False)
    """
    if not n > 0:
        return False
    return abs(skewness) <= max(sigma * math.sqrt(6.0 / n), floor) and abs(kurtosis) <= max(
        sigma * math.sqrt(24.0 / n), floor
    )


def gaussian_test(
    values: NDArray[Any] | xr.DataArray,
    *,
    bins: int = 100,
    half_range: float = 8.0,
    min_values: int = 100,
    jitter: float = 0.0,
    seed: int | np.random.Generator = 0,
) -> GaussianTest:
    """Fit a Gaussian to a histogram of values, and compare them with one (Kolmogorov-Smirnov).

    The fit is by least squares with Poisson errors, 1 for empty bins: these count in the reduced
    chi-squared, which therefore is about 0.5 for a range of 8 sigma. The values are compared with
    the Gaussian of their own mean and standard deviation, a better estimate than the fit. As these
    are not known beforehand the probability is not uniform for Gaussian values: it is 0.8 on
    average and almost never small.

    Parameters
    ----------
    values : array, any shape, any unit
        Non-finite values are left out.
    bins : int
        Bins of the histogram.
    half_range : float
        Half its range, standard deviations of the values.
    min_values : int
        Fewer values give (NaN, NaN, 0, NaN).
    jitter : float
        Full width of a uniform random number added to each value, which makes integers
        continuous; 0 adds nothing.
    seed : int or Generator
        Of the jitter.

    Returns
    -------
    GaussianTest

    Raises
    ------
    ValueError
        If bins < 4 or half_range <= 0.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.random.default_rng(1).normal(0.0, 10.0, 100_000)
    >>> test = gaussian_test(values)
    >>> bool(abs(test.variance / 100.0 - 1.0) < 0.02), test.ks_p > 0.1
    (True, True)
    """
    if bins < 4 or not half_range > 0:
        raise ValueError(f"bins must be >= 4 and half_range > 0, got {bins} and {half_range}")
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    failed = GaussianTest(math.nan, math.nan, 0.0, math.nan)
    if finite.size < min_values:
        return failed
    if jitter > 0.0:
        generator = np.random.default_rng(seed)
        finite += generator.uniform(-0.5 * jitter, 0.5 * jitter, finite.size)
    center, width = float(finite.mean()), float(finite.std())
    if not width > 0.0:
        return failed
    reach = half_range * width
    counts, edges = np.histogram(finite, bins, (center - reach, center + reach))
    fit = _fit_histogram(counts.astype(np.float64), (edges - center) / width)
    if fit is None:
        return failed
    finite.sort()
    distance = _largest_distance(finite, center, width)
    p = float(kolmogorov(math.sqrt(finite.size) * distance))
    return GaussianTest((width * fit[2]) ** 2, fit[3], p if p >= SMALLEST_P else 0.0, distance)


def _fit_histogram(
    counts: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[float, float, float, float] | None:
    """Return amplitude, centre, width and reduced chi2 of a Gaussian integrated over the bins."""
    error = np.sqrt(np.where(counts > 0.0, counts, 1.0))

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = p[0] * np.diff(ndtr((edges - p[1]) / p[2]))
        return np.asarray((expected - counts) / error)

    start = np.array([counts.sum(), 0.0, 1.0])
    fit = least_squares(residual, start, method="lm", x_scale=[max(start[0], 1.0), 1.0, 1.0])
    if not fit.success:
        return None
    amplitude, center, width = (float(p) for p in fit.x)
    return amplitude, center, abs(width), 2.0 * float(fit.cost) / (counts.size - 3)


def _largest_distance(ordered: NDArray[np.float64], center: float, width: float) -> float:
    """Return the Kolmogorov-Smirnov distance of ordered values from a normal distribution."""
    n, distance = ordered.size, 0.0
    for start in range(0, n, CHUNK):
        part = ordered[start : start + CHUNK]
        expected = ndtr((part - center) / width)
        rank = np.arange(start, start + part.size, dtype=np.float64)
        distance = max(
            distance,
            float(((rank + 1.0) / n - expected).max()),
            float((expected - rank / n).max()),
        )
    return distance
