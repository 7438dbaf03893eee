"""The light of a flat as a photodiode saw it: four ways to integrate its current."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.statistics import clipped_moments

__all__ = ["PhotodiodeMethod", "integrate_photodiode", "pair_photo_charge"]

PhotodiodeMethod = Literal["DIRECT_SUM", "TRIMMED_SUM", "CHARGE_SUM", "MEAN"]

DARK_RANGE = 0.2  # samples in the lowest fifth of the range are dark
LIT_RANGE = 0.05  # samples above a twentieth of the range are lit
LIT_MARGIN = 2  # samples next to the lit ones are taken for lit as well


def integrate_photodiode(
    time: ArrayLike,
    current: ArrayLike,
    *,
    method: PhotodiodeMethod = "TRIMMED_SUM",
    exposure_time: float = float("nan"),
    current_scale: float = -1.0,
) -> float:
    """Return the charge that a photodiode collected during an exposure.

    Parameters
    ----------
    time : array_like, (sample,), float64, s
        Times of the samples, ascending.
    current : array_like, (sample,), float64
        Current, such as A; for CHARGE_SUM the charge of the interval that ends at each time.
    method : {"DIRECT_SUM", "TRIMMED_SUM", "CHARGE_SUM", "MEAN"}
        DIRECT_SUM: the trapezoid rule. TRIMMED_SUM: the same above the clipped mean of the dark
        samples, those in the lowest fifth of the range. CHARGE_SUM: the sum of the charges above
        the current outside the lit span. MEAN: mean current times exposure time.
    exposure_time : float, s
        Needed by MEAN.
    current_scale : float
        What the samples are multiplied by; -1 where a photodiode delivers negative currents.

    Returns
    -------
    float
        Charge, such as C; NaN with fewer than two finite samples, or where the exposure time is
        missing.

    Raises
    ------
    ValueError
        If the method is unknown, the lengths differ or the times do not ascend.

    Examples
    --------
    >>> integrate_photodiode([0, 1, 2, 3], [0, -2, -2, 0], method="DIRECT_SUM")
    4.0
    """
    if method not in get_args(PhotodiodeMethod):
        known = ", ".join(get_args(PhotodiodeMethod))
        raise ValueError(f"photodiode method must be one of {known}, got {method!r}")
    t, samples = np.asarray(time, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if t.ndim != 1 or t.shape != samples.shape:
        raise ValueError(f"time has shape {t.shape}, current has {samples.shape}")
    finite = np.isfinite(t) & np.isfinite(samples)
    t, samples = t[finite], samples[finite] * current_scale
    if np.any(np.diff(t) <= 0):
        raise ValueError("time must ascend")
    if t.size < 2:
        return float("nan")
    if method == "MEAN":
        return float(samples.mean() * exposure_time)
    if method == "CHARGE_SUM":
        return _charge_sum(t, samples)
    if method == "TRIMMED_SUM":
        dark = samples[samples < samples.min() + DARK_RANGE * np.ptp(samples)]
        if dark.size:
            samples = samples - clipped_moments(dark).mean
    return float(np.trapezoid(samples, t))


def _charge_sum(time: NDArray[np.float64], samples: NDArray[np.float64]) -> float:
    """Return the sum of charges per interval above the current outside the lit span."""
    interval, charge = np.diff(time), samples[1:]
    current = charge / interval
    lit = np.flatnonzero(current > current.min() + LIT_RANGE * np.ptp(current))
    dark = np.ones(charge.size, dtype=np.bool_)
    if lit.size:
        dark[max(lit[0] - LIT_MARGIN, 0) : lit[-1] + LIT_MARGIN + 1] = False
    baseline = charge[dark].sum() / interval[dark].sum() if dark.any() else 0.0
    return float((charge - baseline * interval).sum())


def pair_photo_charge(first: float, second: float) -> tuple[float, float]:
    """Return the mean charge of the exposures that have one, and second minus first if both do.

    Examples
    --------
    >>> pair_photo_charge(1.0, 3.0), pair_photo_charge(float("nan"), 3.0)
    ((2.0, 2.0), (3.0, nan))
    """
    known = [charge for charge in (first, second) if np.isfinite(charge)]
    mean = float(np.mean(known)) if known else float("nan")
    return mean, second - first if len(known) == 2 else float("nan")
