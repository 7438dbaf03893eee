"""Samples of a detector and its sky frame, and the scale from those of a camera.

The time of the reference is that of its samples: 4 x 4 cells, a sky model of full resolution.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import bin_centers, bin_edges
from skyloom.algorithms.sky import MeasureScaleParameters, measure_scale, solve_scales

SIDE = 4096
LEVEL = 1000.0
GRID = MeasureScaleParameters(samples=(4, 4))


@pytest.fixture(scope="module")
def detector() -> tuple[xr.Dataset, xr.Dataset]:
    """Return an exposure with a pattern, 6 per cent of it masked, and its sky frame."""
    rng = np.random.default_rng(1)
    centers = bin_centers(bin_edges(SIDE, SIDE // 32), 0)
    dims = ("bin_y", "bin_x")

    def pattern(positions):
        phases = 2 * np.pi * positions / SIDE
        return 0.01 * np.add.outer(np.sin(3.0 * phases), np.cos(2.0 * phases))

    frame = xr.Dataset(
        {
            "level": (dims, pattern(centers).astype(np.float32)),
            "variance": (dims, np.full((128, 128), 1e-9, np.float32)),
        },
        attrs={"box": [0, SIDE, 0, SIDE]},
    )
    image = rng.normal(LEVEL, np.sqrt(LEVEL), (SIDE, SIDE)) + LEVEL * pattern(np.arange(SIDE))
    mask = np.where(rng.random(image.shape) < 0.06, v.MASK_PLANES["DETECTED"], 0)
    exposure = xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "electron"}),
            "mask": (("y", "x"), mask.astype(np.int32), v.mask_attributes()),
        }
    )
    return exposure, frame


def camera(detectors: int, side: int) -> list[xr.Dataset]:
    """Return samples of a camera, one in a hundred of them off."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:side, :side].reshape(2, -1) * 40.0 / side
    parts = []
    for index in range(detectors):
        template = rng.normal(0.0, 0.01, x.size)
        level = LEVEL * (1.0 + template) + rng.normal(0.0, 0.2, x.size)
        level += (rng.random(x.size) < 0.01) * 20.0
        variables = {
            "level": level,
            "level_variance": np.full(x.size, 0.04),
            "template": template,
            "template_variance": np.full(x.size, 1e-9),
        }
        row, column = divmod(index, 14)
        parts.append(
            xr.Dataset(
                {name: ("sample", values) for name, values in variables.items()},
                coords={
                    "focal_x": ("sample", 42.0 * column + x),
                    "focal_y": ("sample", 42.0 * row + y),
                    "detector": index,
                },
            )
        )
    return parts


def test_samples_of_a_detector(compare, detector):
    compare(
        "sky scale samples, 4 x 4",
        lambda: measure_scale(*detector, parameters=GRID),
        size="4096² float32 with mask",
        published_s=0.88,
        target=10,
        moved_bytes=8.0 * SIDE**2,
    )


def test_samples_of_a_detector_around_its_pattern(compare, detector):
    compare(
        "sky scale samples, 4 x 4, clipped around the pattern",
        lambda: measure_scale(*detector, expected_scale=LEVEL, parameters=GRID),
        size="4096² float32 with mask",
        published_s=0.88,
        target=10,
        moved_bytes=8.0 * SIDE**2,
    )


def test_samples_as_many_as_the_pattern_needs(compare, detector):
    compare(
        "sky scale samples, 16 x 16, clipped around the pattern",
        lambda: measure_scale(*detector, expected_scale=LEVEL),
        size="4096² float32 with mask",
        published_s=0.88,
        target=10,
        moved_bytes=8.0 * SIDE**2,
    )


@pytest.mark.parametrize("side", [4, 16])
def test_scale_of_a_camera(compare, side):
    samples = camera(189, side)
    compare(
        "scale and plane of a focal plane, robust",
        lambda: solve_scales(samples),
        size=f"189 detectors of {side} x {side} samples",
        rounds=5,
    )
