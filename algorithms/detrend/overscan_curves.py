"""Smooth curves through the levels of overscan rows, for levels that are noisier than they drift.

Rows whose level lies off its surroundings, as behind a bright star, are left out first. A level
of NaN is a row without one. Curves are defined for every row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.interpolate
import scipy.ndimage
from numpy.typing import NDArray

__all__ = ["kept_rows", "polynomial_curve", "smooth_curve", "spline_curve"]

Floats = NDArray[np.float64]

SURROUNDINGS: Final = 31
"""Rows whose median a level is compared with."""
MAD_TO_SIGMA: Final = 1.4826
POLYNOMIAL_PASSES: Final = 3


def _scatter(residuals: Floats) -> float:
    return MAD_TO_SIGMA * float(np.median(np.abs(residuals - np.median(residuals))))


def kept_rows(levels: Floats, clip: float) -> NDArray[np.bool_]:
    """Return which rows have a level that agrees with its surroundings.

    Examples
    --------
    >>> levels = np.arange(40.0)
    >>> levels[7] = 500.0
    >>> np.flatnonzero(~kept_rows(levels, 4.0))
    array([7])
    """
    known = np.flatnonzero(np.isfinite(levels))
    kept = np.zeros(levels.size, np.bool_)
    if known.size:
        values = levels[known]
        off = values - scipy.ndimage.median_filter(values, SURROUNDINGS, mode="nearest")
        steps = np.diff(values)
        # neighbours differ by noise alone, however the levels drift
        sigma = _scatter(steps) / np.sqrt(2.0) if steps.size else 0.0
        drift = abs(float(np.median(steps))) * SURROUNDINGS if steps.size else 0.0
        kept[known] = np.abs(off) <= clip * sigma + drift
    return kept


def spline_curve(levels: Floats, knots: int, clip: float) -> Floats:
    """Return a natural cubic spline through the means of groups of rows.

    Parameters
    ----------
    levels : ndarray, (row), adu
        NaN where a row has none.
    knots : int
        Number of groups.
    clip : float
        Rows further off their surroundings are left out, sigma.

    Returns
    -------
    ndarray, (row), adu
        Straight beyond the middle of the first and the last group; NaN without levels.

    Examples
    --------
    >>> bool(np.allclose(spline_curve(np.arange(64.0), 4, 4.0), np.arange(64.0)))
    True
    """
    rows = np.arange(levels.size, dtype=np.float64)
    kept = kept_rows(levels, clip)
    groups = [group[kept[group]] for group in np.array_split(np.arange(levels.size), knots)]
    groups = [group for group in groups if group.size]
    if not groups:
        return np.full(levels.size, np.nan)
    places = np.array([rows[group].mean() for group in groups])
    means = np.array([levels[group].mean() for group in groups])
    if len(groups) == 1:
        return np.full(levels.size, means[0])
    spline = scipy.interpolate.CubicSpline(places, means, bc_type="natural")
    inside = np.clip(rows, places[0], places[-1])
    return np.asarray(spline(inside) + (rows - inside) * spline(inside, 1))


def smooth_curve(levels: Floats, width: float, clip: float) -> Floats:
    """Return the running average of levels with Gaussian weights.

    Parameters
    ----------
    levels : ndarray, (row), adu
        NaN where a row has none.
    width : float
        Standard deviation of the weights, rows.
    clip : float
        Rows further off their surroundings are left out, sigma.

    Returns
    -------
    ndarray, (row), adu
        NaN further than four widths from any level.

    Examples
    --------
    >>> bool(np.allclose(smooth_curve(np.full(50, 7.0), 5.0, 4.0), 7.0))
    True
    """
    kept = kept_rows(levels, clip).astype(np.float64)
    values = np.where(kept > 0, levels, 0.0)
    total, weight = (
        scipy.ndimage.gaussian_filter1d(each, width, mode="constant") for each in (values, kept)
    )
    average = np.full(levels.size, np.nan)
    np.divide(total, weight, out=average, where=weight > 0)
    return average


def polynomial_curve(levels: Floats, degree: int, clip: float) -> Floats:
    """Return a polynomial fitted to levels, in several passes without those far off it.

    Parameters
    ----------
    levels : ndarray, (row), adu
        NaN where a row has none.
    degree : int
        Degree; less where there are too few levels.
    clip : float
        Rows further off the polynomial are left out, sigma.

    Returns
    -------
    ndarray, (row), adu
        NaN without levels.

    Examples
    --------
    >>> rows = np.arange(50.0)
    >>> bool(np.allclose(polynomial_curve(0.1 * rows**2, 2, 4.0), 0.1 * rows**2))
    True
    """
    place = np.linspace(-1.0, 1.0, levels.size)
    kept = kept_rows(levels, clip)
    curve = np.full(levels.size, np.nan)
    for _ in range(POLYNOMIAL_PASSES):
        number = int(kept.sum())
        if number == 0:
            break
        basis = np.polynomial.legendre.legvander(place, min(degree, number - 1))
        used, values = basis[kept], levels[kept]
        # sums in one order, whatever library multiplies matrices
        normal = (used[:, :, None] * used[:, None, :]).sum(axis=0)
        curve = (basis * np.linalg.solve(normal, (used * values[:, None]).sum(axis=0))).sum(axis=1)
        off = np.where(np.isfinite(levels), levels, np.inf) - curve
        kept = np.abs(off) <= clip * max(
            _scatter(off[kept]), np.finfo(np.float64).eps * abs(values).max()
        )
    return curve
