"""Tracks of cosmic rays through a detector, on plain arrays ``(y, x)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cosmic_rays"]

Floats = NDArray[np.float64]

STEPS = 4
"""Points per pixel of a track."""


def cosmic_rays(
    shape: tuple[int, int],
    expected: float,
    rng: np.random.Generator,
    *,
    charge: float,
    length: float,
) -> Floats:
    """Draw straight tracks of random directions.

    Parameters
    ----------
    shape : (int, int)
        Pixels of the detector.
    expected : float
        Mean number of tracks.
    rng : numpy.random.Generator
        Where the randomness comes from.
    charge : float, electron
        Median charge per pixel of a track; each ray has its own.
    length : float, pixel
        Mean length of a track, exponential.

    Returns
    -------
    ndarray, (y, x), electron

    Examples
    --------
    >>> image = cosmic_rays((50, 60), 20.0, np.random.default_rng(1), charge=1e3, length=5.0)
    >>> bool(0 < (image > 0).sum() < 400)
    True
    """
    image = np.zeros(shape)
    number = int(rng.poisson(expected))
    y, x = rng.uniform(-0.5, shape[0] - 0.5, number), rng.uniform(-0.5, shape[1] - 0.5, number)
    angle = rng.uniform(0, 2 * np.pi, number)
    points = 1 + (STEPS * rng.exponential(length, number)).astype(np.int64)
    density = charge * np.exp(0.5 * rng.standard_normal(number)) / STEPS
    track = np.repeat(np.arange(number), points)
    step = (np.arange(track.size) - np.repeat(np.cumsum(points) - points, points)) / STEPS
    rows = np.rint(y[track] + step * np.sin(angle[track])).astype(np.int64)
    columns = np.rint(x[track] + step * np.cos(angle[track])).astype(np.int64)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    np.add.at(image, (rows[inside], columns[inside]), density[track[inside]])
    return image
