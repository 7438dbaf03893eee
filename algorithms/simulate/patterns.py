"""Patterns of a detector that stay the same all night, on plain arrays ``(y, x)``.

Smooth patterns are sums of waves, functions of position that can be evaluated anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Waves", "column_piece", "draw_waves", "glow"]

Floats = NDArray[np.float64]


class Waves(NamedTuple):
    """A sum of waves a cos(2 pi (f_y y + f_x x) + p), each an array over ``wave``.

    Frequencies are cycles per pixel, phases radians.
    """

    amplitude: Floats
    frequency_y: Floats
    frequency_x: Floats
    phase: Floats

    def at(self, y: ArrayLike, x: ArrayLike) -> Floats:
        """Return the sum at positions that broadcast against each other.

        Examples
        --------
        >>> waves = Waves(*np.array([[2.0], [0.0], [0.25], [0.0]]))
        >>> waves.at(0.0, [0.0, 1.0, 2.0]).round(6).tolist()
        [2.0, 0.0, -2.0]
        """
        y, x = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
        found = np.zeros(np.broadcast_shapes(y.shape, x.shape))
        for amplitude, along_y, along_x, phase in zip(*self, strict=True):
            if not amplitude:
                continue
            # the product form costs two rows of cosines instead of an image of them
            angle_y, angle_x = 2 * np.pi * along_y * y, 2 * np.pi * along_x * x + phase
            found += (amplitude * np.cos(angle_y)) * np.cos(angle_x)
            found -= (amplitude * np.sin(angle_y)) * np.sin(angle_x)
        return found

    def grid(self, shape: tuple[int, int]) -> Floats:
        """Return the sum at the pixels of a detector."""
        return self.at(np.arange(shape[0])[:, None], np.arange(shape[1]))


def draw_waves(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    number: int,
    cycles: tuple[float, float],
    rms: float,
) -> Waves:
    """Draw waves of random directions and phases.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the randomness comes from.
    shape : (int, int)
        Pixels of the detector.
    number : int
        Waves.
    cycles : (float, float)
        Fewest and most cycles of a wave over the detector.
    rms : float
        Root of the mean square of the sum over the detector.
    """
    angle = rng.uniform(0, 2 * np.pi, number)
    turns = rng.uniform(*cycles, number)
    waves = Waves(
        rng.uniform(0.5, 1.0, number),
        turns * np.sin(angle) / shape[0],
        turns * np.cos(angle) / shape[1],
        rng.uniform(0, 2 * np.pi, number),
    )
    y, x = ((np.arange(64) + 0.5) / 64 * size - 0.5 for size in shape)
    size = float(np.sqrt(np.mean(waves.at(y[:, None], x) ** 2)))
    return waves._replace(amplitude=waves.amplitude * (rms / size))


def glow(shape: tuple[int, int], amplitude: float, scale: float) -> Floats:
    """Return light that falls off exponentially from pixel (0, 0), ``scale`` in detector sizes."""
    y, x = (np.arange(size) / (scale * size) for size in shape)
    return amplitude * np.exp(-np.hypot(y[:, None], x))


def column_piece(
    rng: np.random.Generator, shape: tuple[int, int], shortest: float
) -> tuple[slice, int]:
    """Draw a piece of a column that ends at an edge; its length is a part of the column."""
    column = int(rng.integers(shape[1]))
    length = max(int(rng.uniform(shortest, 1.0) * shape[0]), 1)
    if rng.random() < 0.5:
        return slice(0, length), column
    return slice(shape[0] - length, shape[0]), column
