"""What makes the scales of detectors relative: the shift between exposures and detectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.flats.parameters import Gauge

__all__ = ["gauge_shift"]

Floats = NDArray[np.float64]


def gauge_shift(
    gamma: Floats, pixels: Floats, gauge: Gauge, reference: int | None = None
) -> tuple[float, Floats]:
    """Return what to subtract from log scales, and its derivative by them.

    Parameters
    ----------
    gamma : array, (channel), float64
        Log scales of the channels of one component.
    pixels : array, (channel), float64
        Pixels that each channel was measured with, over all exposures.
    gauge : {"counts", "equal", "median", "reference"}
        See `FlatScaleParameters`.
    reference : int, optional
        Index of the reference channel.

    Returns
    -------
    float, and array, (channel), float64
        The derivatives add up to 1.

    Examples
    --------
    >>> shift, slope = gauge_shift(np.log([0.8, 1.0, 1.2]), np.array([1.0, 1.0, 2.0]), "counts")
    >>> round(float(np.exp(shift)), 6), slope.round(6).tolist()
    (1.05, [0.190476, 0.238095, 0.571429])
    """
    if gauge == "reference":
        slope = np.zeros(gamma.size)
        slope[reference] = 1.0
        return float(gamma[reference]), slope
    top = float(gamma.max())
    scale = np.exp(gamma - top)
    if gauge == "counts":
        part = pixels / pixels.sum()
    elif gauge == "equal":
        part = np.full(gamma.size, 1.0 / gamma.size)
    else:
        order = np.argsort(gamma, kind="stable")
        part = np.zeros(gamma.size)
        part[order[(gamma.size - 1) // 2]] += 0.5
        part[order[gamma.size // 2]] += 0.5
    weighted = part * scale
    mean = float(weighted.sum())
    return top + float(np.log(mean)), weighted / mean
