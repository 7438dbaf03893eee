"""When an iteration has converged, and how far the next one may go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["convergence_metric", "next_gain", "visit_convergence"]

Images = NDArray[np.float32]
Bools = NDArray[np.bool_]


def visit_convergence(image: Images, predicted: Images, significance: Images, at: Bools) -> float:
    """Return the relative difference between a visit and its prediction.

    Parameters
    ----------
    image, predicted, significance : array, (y, x)
    at : array, (y, x)
        Pixels that are good and show sources.

    Returns
    -------
    float
        0 if they are equal; NaN without pixels.

    Examples
    --------
    >>> one = np.ones((2, 2), "f4")
    >>> visit_convergence(one, 3 * one, one, one > 0)
    1.0
    """
    y, t, s = (plane[at].astype(float) for plane in (image, predicted, significance))
    if not y.size:
        return float("nan")
    scale = (np.abs(y + t) / 2.0 * s).sum()
    difference = (np.abs(y - t) * s).sum()
    return float(difference / scale) if scale > 0 else float(difference > 0)


def convergence_metric(values: Sequence[float]) -> float:
    """Return the mean over visits that have pixels; NaN if none has.

    Examples
    --------
    >>> convergence_metric([0.25, float("nan"), 0.75])
    0.5
    """
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def next_gain(
    convergence: Sequence[float], gains: Sequence[float], base_gain: float, progressive: bool
) -> float:
    """Return the gain of the next iteration.

    The faster the convergence follows what the last gains promise, the larger it is.

    Parameters
    ----------
    convergence : sequence of float
        So far, the first one before any iteration.
    gains : sequence of float
        One less.
    base_gain : float
        The smallest gain, and the first two.
    progressive : bool
        Whether it ever changes.

    Raises
    ------
    ValueError
        If there is not one gain less than values of the convergence.

    Examples
    --------
    >>> next_gain([0.2, 0.1, 0.05], [0.5, 0.5], 0.5, True)
    0.625
    >>> round(next_gain([0.2, 0.2 / 1.5, 0.2 / 1.5**2], [0.5, 0.5], 0.5, True), 12)
    0.75
    """
    if len(convergence) != len(gains) + 1:
        raise ValueError(
            "there must be one gain less than values of the convergence, got "
            f"{len(gains)} and {len(convergence)}"
        )
    if not progressive or len(gains) < 2:
        return base_gain
    c, g = np.asarray(convergence, float), np.asarray(gains, float)
    finals = np.maximum(((1.0 + g) * c[1:] - c[:-1]) / g, 0.0)
    final = float(np.median(finals[max(len(c) - 5, 0) :]))
    if c[-2] == final:
        return base_gain
    predicted = (final * g[-1] + c[-2]) / (1.0 + g[-1])
    delta = (predicted - c[-1]) * (1.0 + g[-1]) / (c[-2] - final)
    return float(max(base_gain, ((1.0 - abs(delta)) + g[-1]) / 2.0))
