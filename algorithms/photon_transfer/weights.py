"""Statistical errors of measured covariances, from which the weights of the fits are made."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.models import MODELS_OF_VARIANCE
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.algorithms.vocabulary import AMP, LAG_X, PAIR

__all__ = ["relative_sigma"]

Floats = NDArray[np.float64]


def relative_sigma(pairs: xr.Dataset, parameters: SolveParameters) -> Floats:
    """Return the statistical error of each covariance over the variance of its pair.

    Parameters
    ----------
    pairs : Dataset, (pair, amp, lag_y, lag_x)
        Assembled pairs. ``covariance_sigma`` over ``variance`` is used where it is finite, else
        ``covariance_count``; for ``exp00`` ``variance_sigma`` and ``count``.
    parameters : SolveParameters
        Model and kind of weights.

    Returns
    -------
    array, (pair, amp, lag_y, lag_x), float64
        sqrt(2 / n) for the variance and sqrt(1 / n) for the others, n the number of pixel pairs;
        NaN where unknown. With relative weights the same with n = 2 everywhere, the two
        diagonals of lags off both axes counted twice. ``exp00`` has one lag.

    Raises
    ------
    ValueError
        If neither errors nor counts are there and the weights are not relative.

    Examples
    --------
    >>> shape = ("pair", "amp")
    >>> pairs = xr.Dataset(
    ...     {"variance": (shape, [[4.0]]), "count": (shape, [[200]])}
    ... )
    >>> relative_sigma(pairs, SolveParameters(model="exp00")).ravel().round(3)
    array([0.1])
    """
    shape = (pairs.sizes[PAIR], pairs.sizes[AMP])
    variance_only = parameters.model in MODELS_OF_VARIANCE
    lags = 1 if variance_only else pairs.sizes[LAG_X]
    # the variance has twice the relative variance of a covariance, and where both lags are
    # not zero two diagonals are averaged
    axis = np.arange(lags) == 0
    squares = np.where(axis[:, None] & axis, 2.0, np.where(axis[:, None] | axis, 1.0, 0.5))
    if parameters.weights == "relative":
        return np.broadcast_to(np.sqrt(squares / 2), (*shape, lags, lags))
    sigma_name, count_name = (
        ("variance_sigma", "count") if variance_only else ("covariance_sigma", "covariance_count")
    )
    if sigma_name not in pairs and count_name not in pairs:
        raise ValueError(
            f"pairs has neither {sigma_name} nor {count_name}; without them the weights can only "
            "be relative: weights='relative'"
        )
    found = np.full((*shape, lags, lags), np.nan)
    if count_name in pairs:
        count = pairs[count_name].to_numpy().astype(np.float64).reshape(found.shape)
        stored = np.where(axis[:, None] & axis, 2.0, 1.0)
        found = np.sqrt(stored / np.where(count > 0, count, np.nan))
    if sigma_name in pairs:
        sigma = pairs[sigma_name].to_numpy().astype(np.float64).reshape(found.shape)
        variance = pairs["variance"].to_numpy().astype(np.float64)[:, :, None, None]
        good = np.isfinite(sigma) & (sigma > 0) & (variance > 0)
        found = np.where(good, sigma / np.where(good, variance, 1.0), found)
    return found
