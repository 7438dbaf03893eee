"""Covariances that reach beyond the charge effects: a polynomial in lag, pair by pair.

Electronic noise common to rows or to the whole region raises covariances at all lags. Where a
laboratory shows such a floor, a polynomial in ``(lag_y, lag_x)`` is fitted to the lags outside
the core and subtracted from all of them, the variance included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["subtract_long_range"]

Floats = NDArray[np.float64]


def subtract_long_range(
    covariance: Floats, sigma: Floats, *, start: int = 4, degree: int = 1
) -> tuple[Floats, Floats]:
    """Subtract long-range covariances.

    Parameters
    ----------
    covariance : array, (pair, lag_y, lag_x), float64, adu2
        Covariances of one flat.
    sigma : array, (pair, lag_y, lag_x), float64, adu2
        Their errors; values whose error is not finite and positive are left out of the fit.
    start : int
        Lags below this on both axes are the core, which is not fitted.
    degree : int
        The polynomial has every monomial lag_y^p lag_x^q with p, q <= degree.

    Returns
    -------
    subtracted : array, (pair, lag_y, lag_x), float64, adu2
        Covariances without the polynomial; NaN where it could not be fitted.
    coefficient : array, (pair, (degree + 1)^2), float64, adu2
        Coefficients, q varying fastest.

    Raises
    ------
    ValueError
        If the core leaves fewer than three lags on an axis, or the polynomial has more
        coefficients than there are lags outside the core.

    Notes
    -----
    With ``start`` 4, true covariances of lags 4 to 9 (a of order 1e-8 per electron) are partly
    removed as well: not to be used without a reason.

    Examples
    --------
    >>> covariance = np.full((1, 8, 8), 3.0)
    >>> covariance[0, 0, 0] = 1000.0
    >>> subtracted, coefficient = subtract_long_range(covariance, np.ones((1, 8, 8)))
    >>> round(float(subtracted[0, 0, 0]), 9), round(float(coefficient[0, 0]), 9)
    (997.0, 3.0)
    """
    lags = covariance.shape[-1]
    if start > lags - 3:
        raise ValueError(f"start is {start}; with {lags} lags it can be at most {lags - 3}")
    y, x = np.indices((lags, lags))
    outside = (y >= start) | (x >= start)
    terms = (degree + 1) ** 2
    if terms > outside.sum():
        raise ValueError(f"degree {degree} has {terms} coefficients for {outside.sum()} lags")
    powers = [(p, q) for p in range(degree + 1) for q in range(degree + 1)]
    # lags in units of the largest, so that high powers stay comparable
    scale = np.array([float(lags - 1) ** (p + q) for p, q in powers])
    basis = np.stack([y**p * x**q for p, q in powers], axis=-1) / scale
    coefficient = np.full((len(covariance), terms), np.nan)
    for pair in range(len(covariance)):
        good = outside & np.isfinite(covariance[pair]) & np.isfinite(sigma[pair])
        good &= np.where(np.isfinite(sigma[pair]), sigma[pair], 0.0) > 0
        if good.sum() < terms:
            continue
        error = sigma[pair][good]
        solution = np.linalg.lstsq(
            basis[good] / error[:, None], covariance[pair][good] / error, rcond=None
        )
        coefficient[pair] = solution[0]
    background = np.einsum("yxk,pk->pyx", basis, coefficient)
    return covariance - background, coefficient / scale
