"""Resampling kernels: weights of source pixels for a position between them, and their tables.

A kernel of 2 a taps (1 in bilinear interpolation counts as a = 1) weighs the pixels ``i - a + 1``
to ``i + a`` of each axis around position ``i + f``, 0 <= f < 1. Weights are divided by their sum,
so that a constant stays that constant; the kernel of an image is the product of those of its axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.errors import ConfigurationError

__all__ = ["LANES", "PHASES", "TAPS", "Kernel", "kernel_table", "kernel_taps", "kernel_weights"]

Kernel = Literal["bilinear", "lanczos3", "lanczos5"]

TAPS: Final[Mapping[str, int]] = {"bilinear": 2, "lanczos3": 6, "lanczos5": 10}
LANES: Final[Mapping[int, int]] = {2: 2, 6: 8, 10: 16}
"""Numbers that a vector holds for each number of taps; the rest of them is 0."""
PHASES: Final = 1024
"""Steps of the table between one pixel and the next; linear between, good to 5e-7."""


def kernel_taps(kernel: str) -> int:
    """Return how many pixels along each axis a kernel weighs.

    Raises
    ------
    ConfigurationError
        If there is no such kernel.

    Examples
    --------
    >>> kernel_taps("lanczos3")
    6
    """
    if kernel not in TAPS:
        raise ConfigurationError(f"kernel must be one of {', '.join(TAPS)}, got {kernel!r}")
    return TAPS[kernel]


def kernel_weights(kernel: str, fraction: ArrayLike) -> NDArray[np.float64]:
    """Return the normalised weights along one axis.

    Parameters
    ----------
    kernel : "bilinear", "lanczos3" or "lanczos5"
        Lanczos: sinc(d) sinc(d / a) with d the distance to the position.
    fraction : array_like, float, pixel
        Position after its pixel, 0 to 1.

    Returns
    -------
    ndarray, (..., taps), float64
        Weights of the pixels -a + 1 to a from that pixel; they sum to 1.

    Raises
    ------
    ConfigurationError
        If there is no such kernel.

    Examples
    --------
    >>> kernel_weights("bilinear", 0.25).tolist()
    [0.75, 0.25]
    >>> kernel_weights("lanczos3", 0.5).round(4).tolist()
    [0.0245, -0.1359, 0.6114, 0.6114, -0.1359, 0.0245]
    """
    half = kernel_taps(kernel) // 2
    place = np.asarray(fraction, np.float64)[..., None]
    distance = np.arange(1 - half, half + 1) - place
    if kernel == "bilinear":
        weights = np.maximum(1.0 - np.abs(distance), 0.0)
    else:
        weights = np.sinc(distance) * np.sinc(distance / half)
        # sinc leaves 1e-17 at whole numbers, where the kernel is that of one pixel
        weights[(distance == np.rint(distance)) & (distance != 0.0)] = 0.0
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


@lru_cache
def kernel_table(kernel: str) -> NDArray[np.float32]:
    """Return the weights at `PHASES` + 1 fractions, one vector each, flat and read-only.

    Examples
    --------
    >>> kernel_table("lanczos3").reshape(-1, 8)[0].tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    taps = kernel_taps(kernel)
    table = np.zeros((PHASES + 1, LANES[taps]), np.float32)
    table[:, :taps] = kernel_weights(kernel, np.arange(PHASES + 1) / PHASES)
    table.flags.writeable = False
    return table.ravel()
