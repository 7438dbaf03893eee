"""Kernels of merging: warps are added one by one, and means taken where several have data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled_dividing

__all__: list[str] = []  # kernels for the modules of this package

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Masks = NDArray[np.int32]
Counts = NDArray[np.uint8]

SMALLEST = 1e-30  # variance that a pixel without any is taken to have
LARGEST = 3.4028235e38  # of float32


@compiled_dividing
def weight_of(variance: np.float32) -> float:
    """Return the weight of a pixel."""
    return 1.0 / max(np.float64(variance), SMALLEST)


@compiled_dividing
def add_warp(
    image: Pixels,
    variance: Pixels,
    mask: Masks,
    extras: Pixels,
    no_data: int,
    place: tuple[int, int],
    number: Counts,
    image_out: Pixels,
    variance_out: Pixels,
    mask_out: Masks,
    extras_out: Pixels,
    sums: Floats,
) -> int:
    """Add a warp to rows of the result from a place (y, x) on; return how many pixels have data.

    ``number`` counts what a pixel is made of. The first value is kept as it is; from the second
    on ``sums`` (plane, y, x), which need no values before, hold weights, weighted images
    and weighted ``extras`` (plane, y, x). Where nothing is added the masks are.
    """
    bit, largest = np.int32(no_data), np.float32(LARGEST)
    planes = extras.shape[0]
    added = 0
    for y in range(image.shape[0]):
        row = place[0] + y
        for x in range(image.shape[1]):
            column = place[1] + x
            value, spread, bits = image[y, x], variance[y, x], mask[y, x]
            good = (abs(value) <= largest) & (spread >= 0) & (spread <= largest)
            if not (good & ((bits & bit) == 0)):
                if number[row, column] == 0:
                    mask_out[row, column] |= bits
                continue
            added += 1
            if number[row, column] == 0:
                image_out[row, column], variance_out[row, column] = value, spread
                mask_out[row, column] = bits
                for k in range(planes):
                    extras_out[k, row, column] = extras[k, y, x]
            else:
                weight = weight_of(spread)
                if number[row, column] == 1:
                    first = weight_of(variance_out[row, column])
                    sums[0, row, column] = first
                    sums[1, row, column] = first * image_out[row, column]
                    for k in range(planes):
                        sums[2 + k, row, column] = first * extras_out[k, row, column]
                sums[0, row, column] += weight
                sums[1, row, column] += weight * value
                for k in range(planes):
                    sums[2 + k, row, column] += weight * extras[k, y, x]
                mask_out[row, column] |= bits
            number[row, column] += np.uint8(1)
    return added


@compiled_dividing
def take_means(
    number: Counts, sums: Floats, image_out: Pixels, variance_out: Pixels, extras_out: Pixels
) -> int:
    """Write means where a pixel is made of several; return how many pixels have data."""
    found = 0
    for y in range(number.shape[0]):
        for x in range(number.shape[1]):
            found += number[y, x] > 0
            if number[y, x] > 1:
                total = sums[0, y, x]
                image_out[y, x], variance_out[y, x] = sums[1, y, x] / total, 1.0 / total
                for k in range(extras_out.shape[0]):
                    extras_out[k, y, x] = sums[2 + k, y, x] / total
    return found
