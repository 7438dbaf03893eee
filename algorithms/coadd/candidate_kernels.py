"""Kernels that compare a visit with the static sky of the others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

NOTHING_LEFT = 1e-5  # weight of the other visits, relative to all, below which there are none
NAN = math.nan
LARGEST = float(np.finfo(np.float32).max)

Plane = NDArray[np.float32]


@compiled
def difference(
    image: Plane,
    variance: Plane,
    sky: Plane,
    sky_variance: Plane,
    weight_sum: Plane,
    center: Plane,
    half_width: Plane,
    mask: NDArray[np.int32],
    no_data: int,
    weight: float,
    out: Plane,
    out_variance: Plane,
) -> None:
    """Write image - sky of the others and its variance; NaN without a value or without others.

    ``weight`` is that of the visit in the sky, 0 if it isn't in it; it was used where its value
    lies within ``half_width`` of ``center``. Without it these and ``weight_sum`` may be empty.
    """
    for i in range(image.size):
        value, s = np.float64(image[i]), np.float64(variance[i])
        out[i] = NAN
        out_variance[i] = NAN
        if (mask[i] & no_data) != 0 or not (abs(value) <= LARGEST and 0.0 <= s <= LARGEST):
            continue
        c, var = np.float64(sky[i]), np.float64(sky_variance[i])
        if weight > 0.0 and abs(value - center[i]) <= half_width[i]:
            total = np.float64(weight_sum[i])
            rest = total - weight
            if rest <= NOTHING_LEFT * total:
                continue
            c = (total * c - weight * value) / rest
            left = total * total * var - weight * weight * s
            var = max(left, 0.0) / (rest * rest)
        out[i] = value - c
        out_variance[i] = s + var
