"""Kernels of merging: weights of one warp, weighted sums, and means from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled_dividing

__all__: list[str] = []  # kernels for the modules of this package

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Masks = NDArray[np.int32]

SMALLEST = 1e-30  # variance that a pixel without any is taken to have


@compiled_dividing
def weigh(
    image: NDArray[Any],
    variance: NDArray[Any],
    mask: NDArray[Any],
    no_data: int,
    weight: Floats,
    total_weight: Floats,
    count: NDArray[np.uint8],
    used_mask: Masks,
    lost_mask: Masks,
) -> None:
    """Write inverse variances, 0 where there is no data, and add up what they are used for."""
    bit = np.int32(no_data)
    largest = np.float32(3.4028235e38)
    for y in range(weight.shape[0]):
        for x in range(weight.shape[1]):
            spread, planes = np.float32(variance[y, x]), np.int32(mask[y, x])
            good = (abs(np.float32(image[y, x])) <= largest) & (spread >= 0) & (spread <= largest)
            if good and (planes & bit) == 0:
                weight[y, x] = 1.0 / max(np.float64(spread), SMALLEST)
                total_weight[y, x] += weight[y, x]
                count[y, x] += np.uint8(1)
                used_mask[y, x] |= planes
            else:
                weight[y, x] = 0.0
                lost_mask[y, x] |= planes


@compiled_dividing
def add_weighted(values: NDArray[Any], weight: Floats, total: Floats, last: Pixels) -> None:
    """Add values times their weights, and keep the last value that has one."""
    for y in range(weight.shape[0]):
        for x in range(weight.shape[1]):
            if weight[y, x] > 0.0:
                total[y, x] += weight[y, x] * values[y, x]
                last[y, x] = values[y, x]


@compiled_dividing
def take_means(
    total: Floats, total_weight: Floats, count: NDArray[np.uint8], last: Pixels, empty: float,
    out: Pixels,
) -> None:  # fmt: skip
    """Write means; a single value as it is, ``empty`` where there is none."""
    nothing = np.float32(empty)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if count[y, x] > 1:
                out[y, x] = total[y, x] / total_weight[y, x]
            else:
                out[y, x] = last[y, x] if count[y, x] == 1 else nothing
