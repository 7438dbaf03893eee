"""Covariances of the difference of two flats (Astier et al. 2019, appendix A).

For a lag ``k = (lag_y, lag_x)`` and weights ``w`` of 0 or 1, sums over all pixel pairs inside the
region, without wrapping around, give ``cov(k) = P(k)/n(k) - M(k) M(-k)/n(k)²`` with the products
``P``, the sums ``M`` of one side of the pairs and their number ``n``. The two diagonals of a lag
with both components are averaged and their counts added. Everything measured on the difference is
halved once, because its variance is that of two flats: **the covariances are those of one flat.**
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary
from skyloom.algorithms.compiled import compiled_fast
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["CovarianceSums", "covariance_sums", "pair_covariance", "row_mean_variance"]

Method = Literal["auto", "direct", "fft"]


class CovarianceSums(NamedTuple):
    """Covariances of one flat and the number of pixel pairs, both indexed [lag_y, lag_x]."""

    covariance: NDArray[np.float64]
    count: NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.count


def covariance_sums(
    difference: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    lags: int = 10,
    method: Method = "auto",
) -> CovarianceSums:
    """Return the covariances of one flat from the difference of two.

    Parameters
    ----------
    difference : ndarray, (y, x), adu
        Scaled difference of the two flats. Non-finite pixels are left out.
    good : ndarray of bool or uint8, (y, x), optional
        Pixels to use; all without it.
    lags : int
        Lags 0 to ``lags - 1`` are measured along each axis.
    method : {"auto", "direct", "fft"}
        Direct sums cost a multiply-add a pixel and lag, the Fourier transform about as much as
        20 lags an axis; ``auto`` takes the cheaper. They agree to rounding.

    Returns
    -------
    CovarianceSums
        ``covariance`` (lag_y, lag_x), adu², **halved**, NaN at a lag without pixel pairs, and
        ``count`` (lag_y, lag_x). No correction for clipping is made.

    Raises
    ------
    ValueError
        If lags < 1 or more than half the region, the shapes differ or the method is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> sums = covariance_sums(np.array([[1.0, -1.0], [1.0, -1.0]]), lags=1)
    >>> float(sums.covariance[0, 0]), int(sums.count[0, 0])
    (0.5, 4)
    """
    if method not in ("auto", "direct", "fft"):
        raise ValueError(f"method must be 'auto', 'direct' or 'fft', got {method!r}")
    difference = np.asarray(difference)
    weight = np.isfinite(difference)
    if good is not None:
        weight &= np.asarray(good) != 0
    if lags < 1 or 2 * lags > min(difference.shape):
        raise ValueError(f"lags {lags}")
    values = np.where(weight, difference, 0.0).astype(np.float64)
    values = np.where(weight, values - values.sum() / max(weight.sum(), 1), 0.0)
    shape = [scipy.fft.next_fast_len(int(size) + lags, real=True) for size in values.shape]
    transform = scipy.fft.rfft2(values, shape, workers=1)
    weights = scipy.fft.rfft2(weight.astype(np.float64), shape, workers=1)
    products = scipy.fft.irfft2(np.abs(transform) ** 2, shape, workers=1)
    sums = scipy.fft.irfft2(transform * np.conj(weights), shape, workers=1)
    counts = np.rint(scipy.fft.irfft2(np.abs(weights) ** 2, shape, workers=1))
    y, x = np.arange(lags)[:, None], np.arange(lags)[None, :]
    halves = []
    total = np.zeros((lags, lags))
    for sign in (1, -1):
        n = counts[y, sign * x]
        with np.errstate(invalid="ignore", divide="ignore"):
            halves.append(
                products[y, sign * x] / n - sums[y, sign * x] * sums[-y, -sign * x] / n**2
            )
        total += np.where((sign == 1) | ((x > 0) & (y > 0)), n, 0)
    return CovarianceSums(0.25 * (halves[0] + halves[1]), total.astype(np.int64))


def row_mean_variance(
    difference: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    clip: float = 3.0,
    iterations: int = 3,
) -> float:
    """Return the clipped variance of the means of the rows of a difference image."""
    weight = np.isfinite(difference)
    if good is not None:
        weight &= np.asarray(good) != 0
    count = weight.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(weight, difference, 0.0).sum(axis=1, dtype=np.float64) / count
    return clipped_moments(means, clip=clip, iterations=iterations).variance
