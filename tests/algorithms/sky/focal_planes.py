"""Small cameras and skies of which everything is known."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.background import bin_centers, bin_count, bin_edges
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane

PIXEL = 0.01  # mm


def mosaic(rows, columns, shape=(512, 512), *, gap=20, rotations=None, pixel=PIXEL):
    """Return transforms and shapes of a grid of detectors named by number."""
    transforms, shapes = {}, {}
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        offset = (
            pixel * (shape[1] + gap) * (column - 0.5 * (columns - 1)),
            pixel * (shape[0] + gap) * (row - 0.5 * (rows - 1)),
        )
        turn = 0.0 if rotations is None else rotations[number % len(rotations)]
        transforms[number] = detector_transform(
            shape, pixel_size=pixel, offset=offset, rotation=turn
        )
        shapes[number] = shape
    return transforms, shapes


def background_of(level, transform, shape, *, bin_size=32, noise=0.0, rng=None, units="electron"):
    """Return a background whose bins hold a function of focal-plane x and y, and noise."""
    edges = [bin_edges(size, bin_count(size, min(bin_size, size))) for size in shape]
    y, x = (bin_centers(edge) for edge in edges)
    values = level(*to_focal_plane(transform, x[None, :], y[:, None]))
    counts = np.outer(*(np.diff(edge) for edge in edges))
    values = np.broadcast_to(values, counts.shape).astype(np.float64)
    if noise:
        values = values + rng.normal(0.0, noise, values.shape)
    dims = ("bin_y", "bin_x")
    return xr.Dataset(
        {
            "level": (dims, values, {"units": units}),
            "variance": (dims, np.full(values.shape, noise**2), {"units": f"{units}2"}),
            "count": (dims, counts),
            "count_used": (dims, counts),
            "flags": (dims, np.zeros(values.shape, np.uint8)),
        },
        coords={"bin_y": y, "bin_x": x},
        attrs={"box": [0, shape[0], 0, shape[1]]},
    )


def backgrounds_of(level, transforms, shapes, **options):
    return {
        name: background_of(level, transform, shapes[name], **options)
        for name, transform in transforms.items()
    }
