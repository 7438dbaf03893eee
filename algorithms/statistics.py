"""Clipped statistics: the robust location, spread and counts everything else is built on.

A value is *valid* if it is finite and no ignored mask plane is set. Statistics are taken over
valid values only, in float64, and never raise for masked data: no valid value gives NaN and a
count of 0. Every clip pass re-tests all valid values, so a value rejected once may return; the
test is inclusive; the number of passes is fixed. Results are the same bit for bit in every run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary
from skyloom.algorithms.clip_correction import clipped_variance_factor

__all__ = ["IGNORED_PLANES", "ClippedMoments", "clipped_moments", "clipped_statistics"]

IGNORED_PLANES = ("BAD", "SAT", "SUSPECT", "NO_DATA")
"""Mask planes whose pixels no statistic uses unless told otherwise."""

QUARTILE_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian in units of its interquartile range."""


class ClippedMoments(NamedTuple):
    """Clipped statistics of one set of values; units are those of the values.

    ``count`` valid values before and ``count_used`` after clipping; ``mean`` and ``variance``
    (n - 1) of the values used; ``median`` and ``iqr`` of all valid values; ``center`` and
    ``half_width`` of the last pass: values with ``abs(value - center) <= half_width`` were used.
    """

    count: int
    count_used: int
    mean: float
    variance: float
    median: float
    iqr: float
    center: float
    half_width: float


def clipped_moments(
    values: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    clip: float = 3.0,
    iterations: int = 3,
) -> ClippedMoments:
    """Return the clipped statistics of an array, with the interval the last pass kept.

    Pass 1 keeps values within ``clip * 0.7413 IQR`` of the median, each later pass those within
    ``clip`` clipped standard deviations of the clipped mean of the pass before.

    Parameters
    ----------
    values : ndarray, any shape, any unit
        Non-finite values are left out.
    good : ndarray of bool or uint8, same shape, optional
        Values to use; all without it.
    clip : float
        Clip in standard deviations; > 0.
    iterations : int
        Number of passes; >= 1.

    Returns
    -------
    ClippedMoments
        NaN and a count of 0 where nothing is valid; a NaN variance where one value is.

    Raises
    ------
    ValueError
        If clip <= 0, iterations < 1 or the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> moments = clipped_moments(np.array([7, 7, 7, 7, 9], dtype="float32"))
    >>> moments.count, moments.count_used, moments.mean, moments.variance
    (5, 4, 7.0, 0.0)
    """
    _check_clip(clip, iterations)
    values = np.asarray(values)
    valid = np.isfinite(values)
    if good is not None:
        good = np.asarray(good)
        if good.shape != values.shape:
            raise ValueError(f"good has shape {good.shape}, values have {values.shape}")
        valid = valid & (good != 0)
    v = values[valid].astype(np.float64)
    nan = float("nan")
    n = int(v.size)
    if n == 0:
        return ClippedMoments(0, 0, nan, nan, nan, nan, nan, nan)
    q1, median, q3 = (float(q) for q in np.quantile(v, [0.25, 0.5, 0.75]))
    iqr = q3 - q1
    center, half_width = median, clip * QUARTILE_TO_SIGMA * iqr
    mean, variance, used = nan, nan, 0
    for index in range(iterations):
        if index > 0:
            center = mean
            half_width = half_width if n == 1 else clip * float(np.sqrt(variance))
        d = v - center
        d = d[np.abs(d) <= half_width]
        used = int(d.size)
        if used == 0:
            mean, variance = nan, nan
            continue
        first = float(d.mean())
        mean = center + first
        variance = nan if used == 1 else max(float(((d - first) ** 2).sum()) / (used - 1), 0.0)
    return ClippedMoments(n, used, mean, variance, median, iqr, center, half_width)


def _check_clip(clip: float, iterations: int) -> None:
    if not clip > 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")
