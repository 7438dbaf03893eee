"""Where pixels lie in the focal plane.

A transform is an array (2, 3) that takes trimmed pixels ``(x, y, 1)`` of a detector to the focal
plane ``(x, y)`` in mm. Pixel centres are integers; the centre of a detector of ``height`` rows
is row ``(height - 1) / 2``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["box_corners", "detector_transform", "to_focal_plane", "to_pixels"]

Floats = NDArray[np.float64]


def detector_transform(
    shape: tuple[int, int],
    *,
    pixel_size: float,
    offset: tuple[float, float] = (0.0, 0.0),
    rotation: float = 0.0,
) -> Floats:
    """Return the transform from trimmed pixels of a detector to the focal plane.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the trimmed detector, pixel.
    pixel_size : float
        Distance of pixels, mm; > 0.
    offset : (float, float)
        x, y of the detector's centre in the focal plane, mm.
    rotation : float
        Angle from the x axis of the focal plane to that of the detector, degree.

    Returns
    -------
    ndarray, (2, 3), mm

    Raises
    ------
    ValueError
        If the pixel size is not positive or the shape is empty.

    Examples
    --------
    >>> transform = detector_transform((100, 200), pixel_size=0.01, offset=(5.0, 0.0))
    >>> to_focal_plane(transform, 99.5, 49.5)
    (array(5.), array(0.))
    """
    if not pixel_size > 0:
        raise ValueError(f"pixel_size must be > 0 mm, got {pixel_size}")
    if min(shape) < 1:
        raise ValueError(f"shape must be at least (1, 1), got {shape}")
    turn = np.deg2rad(rotation)
    matrix = pixel_size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = 0.5 * (np.array(shape[::-1], dtype=np.float64) - 1.0)
    return np.column_stack([matrix, np.array(offset) - matrix @ middle])


def to_focal_plane(transform: Floats, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Return the focal-plane positions (x, y), mm, of pixel positions.

    Examples
    --------
    >>> to_focal_plane(np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0]]), 3, 4)
    (array(7.), array(8.))
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    (a, b, c), (d, e, f) = transform
    return np.asarray(a * x + b * y + c), np.asarray(d * x + e * y + f)


def to_pixels(transform: Floats, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Return the pixel positions (x, y) of focal-plane positions (mm).

    Examples
    --------
    >>> to_pixels(np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0]]), 7, 8)
    (array(3.), array(4.))
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    inverse = np.linalg.inv(transform[:, :2])
    dx, dy = x - transform[0, 2], y - transform[1, 2]
    return (
        np.asarray(inverse[0, 0] * dx + inverse[0, 1] * dy),
        np.asarray(inverse[1, 0] * dx + inverse[1, 1] * dy),
    )


def box_corners(y_start: int, y_stop: int, x_start: int, x_stop: int) -> tuple[Floats, Floats]:
    """Return the outer corners (x, y), pixel, of a half-open box of pixels.

    Examples
    --------
    >>> box_corners(0, 2, 0, 4)
    (array([-0.5,  3.5, -0.5,  3.5]), array([-0.5, -0.5,  1.5,  1.5]))
    """
    x = np.array([x_start, x_stop, x_start, x_stop]) - 0.5
    y = np.array([y_start, y_start, y_stop, y_stop]) - 0.5
    return x, y
