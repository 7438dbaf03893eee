"""Kernels of a pair of flats: scaled difference, centring with its moments, flat-pair ratio.

Arrays are flat, C-contiguous, float32 with bytes of 0 and 1 for pixels in use; sums are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

Image = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@compiled
def keep_finite(image: Image, good: Bytes) -> None:
    """Clear ``good`` where the image is not finite."""
    for i in range(image.size):
        good[i] &= np.uint8(abs(image[i]) < np.inf)


@compiled
def keep_unmasked(mask: NDArray[Any], bits: NDArray[Any], good: Bytes) -> None:
    """Clear ``good`` where one of the bits, in the dtype of the mask, is set in it."""
    for i in range(mask.size):
        good[i] &= np.uint8((mask[i] & bits[0]) == 0)


@compiled
def subtract_scaled(
    image: Image, other: Image, good: Bytes, scale: float, other_scale: float
) -> None:
    """Write ``scale image - other_scale other`` over the image, 0 where not good."""
    for i in range(image.size):
        value = np.float32(scale * np.float64(image[i]) - other_scale * np.float64(other[i]))
        image[i] = value if good[i] != 0 else np.float32(0.0)


@compiled
def common_variation(
    image_1: Image,
    image_2: Image,
    good: Bytes,
    center_1: float,
    half_width_1: float,
    center_2: float,
    half_width_2: float,
) -> tuple[float, float]:
    """Return number and sum of ``(image_1 - center_1) (image_2 - center_2)`` inside both clips."""
    n, total = 0.0, 0.0
    for i in range(image_1.size):
        d_1 = np.float64(image_1[i]) - center_1
        d_2 = np.float64(image_2[i]) - center_2
        # one condition a statement: the loop then becomes masked vectors
        weight = 1.0 if good[i] != 0 else 0.0
        weight = weight if abs(d_1) <= half_width_1 else 0.0
        weight = weight if abs(d_2) <= half_width_2 else 0.0
        n += weight
        total += d_1 * d_2 if weight > 0.0 else 0.0
    return n, total


@compiled
def centre(
    difference: Image, good: Bytes, center: float, half_width: float
) -> tuple[float, float, float, float, float]:
    """Subtract the centre inside the clip, in place, and clear all else; return power sums 0 to 4.

    Outside the clip the difference becomes 0 and ``good`` is cleared.
    """
    n, first, second, third, fourth = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(difference.size):
        value = np.float64(difference[i]) - center
        inside = (abs(value) <= half_width) & (good[i] != 0)
        d = value if inside else 0.0
        difference[i] = np.float32(d)
        good[i] = np.uint8(inside)
        n += 1.0 if inside else 0.0
        square = d * d
        first += d
        second += square
        third += square * d
        fourth += square * square
    return n, first, second, third, fourth


@compiled
def ratio_sum(difference: Image, center: float, total: Image, good: Bytes) -> tuple[float, float]:
    """Return number and sum of ``(difference + center)² / total`` over good pixels of signal."""
    n, result = 0.0, 0.0
    for i in range(difference.size):
        d = np.float64(difference[i]) + center
        used = (good[i] != 0) & (total[i] > np.float32(0.0))
        n += 1.0 if used else 0.0
        result += d * d / np.float64(total[i]) if used else 0.0
    return n, result


@compiled
def bin_sums(
    difference: Image, good: Bytes, side: int, least: int, binned: Image, kept: Bytes
) -> None:
    """Write ``sum / sqrt(number)`` of each square of good pixels (2-d arrays), a bin of unit gain.

    White noise keeps its variance. Bins with fewer than ``least`` good pixels are not kept.
    """
    for row in range(binned.shape[0]):
        for column in range(binned.shape[1]):
            n, total = 0, 0.0
            for y in range(row * side, (row + 1) * side):
                for x in range(column * side, (column + 1) * side):
                    if good[y, x] != 0:
                        n += 1
                        total += np.float64(difference[y, x])
            used = n >= least
            kept[row, column] = np.uint8(used)
            binned[row, column] = np.float32(total / np.sqrt(float(n))) if used else np.float32(0.0)
