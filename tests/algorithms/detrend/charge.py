"""Charge that is pushed aside as it arrives, independent of how the correction is computed."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve

STEPS = 40
REACH = 12


def collected(light, kernel):
    """Return what is collected of light that is pushed aside by what came before it."""
    charge = np.zeros(light.shape)
    for _ in range(STEPS):
        padded = np.pad(charge, 20, mode="symmetric")
        potential = fftconvolve(padded, kernel, mode="same")[20:-20, 20:-20]
        coming = light / STEPS
        arrived = coming.copy()
        for axis in (0, 1):
            ahead = [slice(None)] * 2
            behind = [slice(None)] * 2
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            ahead, behind = tuple(ahead), tuple(behind)
            through = (
                0.5 * (coming[ahead] + coming[behind]) * (potential[ahead] - potential[behind])
            )
            arrived[behind] -= through
            arrived[ahead] += through
        charge += arrived
    return charge


def mean_square_radius(image, centre, level):
    """Return the mean square radius of a star about its centre, above a level, in a window."""
    y, x = np.indices(image.shape)
    square = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    weight = np.where(square < REACH**2, image - level, 0.0)
    return float((weight * square).sum() / weight.sum())
