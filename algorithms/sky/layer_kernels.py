"""Kernels that make pixels of layers and take them off an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]


@compiled
def subtract_plane(image: NDArray[Any], plane: NDArray[np.float32]) -> None:
    """Take a plane off an image, in place."""
    for y in range(image.shape[0]):
        line, less = image[y], plane[y]
        for x in range(line.size):
            line[x] -= less[x]
