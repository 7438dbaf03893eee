"""Exposures and tangent planes that tests of warps share."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.tangent_plane import TangentPlane

SCALE = 0.2  # arcsec


def plane(
    turn: float = 0.0,
    scale: float = SCALE,
    center: tuple[float, float] = (50.0, 50.0),
    sky: tuple[float, float] = (209.0, -20.25),
) -> TangentPlane:
    """Return a tangent plane, east left, with ``center`` (x, y) at a sky position."""
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    matrix = scale / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    return TangentPlane(*sky, *center, matrix)


def exposure_of(image: Any, variance: Any = 1.0, mask: Any = 0, **coords: Any) -> xr.Dataset:
    """Return an exposure with scalar coordinates."""
    pixels = np.asarray(image, np.float32)
    return xr.Dataset(
        {
            "image": (("y", "x"), pixels, {"units": "nJy"}),
            "variance": (
                ("y", "x"),
                np.broadcast_to(np.asarray(variance, np.float32), pixels.shape).copy(),
                {"units": "nJy2"},
            ),
            "mask": (
                ("y", "x"),
                np.broadcast_to(np.asarray(mask, np.int32), pixels.shape).copy(),
                v.mask_attributes(),
            ),
        },
        coords={"exposure": 12, "detector": "S1"} | coords,
    )


def stars(shape: tuple[int, int], x: Any, y: Any, fwhm: float, flux: float = 1e4) -> np.ndarray:
    """Return Gaussian stars, sampled at pixel centres."""
    sigma = fwhm / 2.3548
    image = np.zeros(shape)
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    for x_star, y_star in zip(np.atleast_1d(x), np.atleast_1d(y), strict=True):
        along_y = np.exp(-0.5 * ((rows - y_star) / sigma) ** 2)
        along_x = np.exp(-0.5 * ((columns - x_star) / sigma) ** 2)
        image += flux / (2 * np.pi * sigma**2) * np.outer(along_y, along_x)
    return image
