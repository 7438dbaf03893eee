"""Objects found beside a first sky: the masks of images that never had that sky."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import render_background
from skyloom.algorithms.sky import (
    FocalPlaneParameters,
    MaskObjectsParameters,
    focal_plane_background,
    mask_objects,
    mask_objects_beside_sky,
)

SIDE, BINS, LEVEL, NOISE = 256, 8, 500.0, 20.0
TRANSFORM = np.array([[0.015, 0.0, 0.0], [0.0, 0.015, 0.0]])
PARAMETERS = MaskObjectsParameters(background_bin=1024)


def binned(level: Any) -> xr.Dataset:
    dims = (v.BIN_Y, v.BIN_X)
    values = np.broadcast_to(np.asarray(level, np.float64), (BINS, BINS))
    count = np.full((BINS, BINS), (SIDE // BINS) ** 2)
    return xr.Dataset(
        {"level": (dims, values.copy(), {"units": "electron"}), "count": (dims, count)},
        attrs={"box": [0, SIDE, 0, SIDE]},
    )


def smooth_sky() -> xr.Dataset:
    cells = FocalPlaneParameters(cell_size=(SIDE * 0.015, SIDE * 0.015))
    return focal_plane_background({"A": binned(LEVEL)}, {"A": TRANSFORM}, parameters=cells)


def pattern() -> xr.Dataset:
    row, column = np.mgrid[:BINS, :BINS]
    return binned(0.15 * np.sin(2 * np.pi * row / BINS) * np.cos(2 * np.pi * column / BINS))


def exposure(frame: xr.Dataset | None) -> xr.Dataset:
    """Return noise with two objects, on a sky with the pattern or on none at all."""
    image = np.random.default_rng(3).normal(0.0, NOISE, (SIDE, SIDE))
    image[60:70, 60:70] += 8 * NOISE
    image[180:192, 100:112] += 4 * NOISE
    if frame is not None:
        sky = frame.assign(level=LEVEL * (1.0 + frame["level"]))
        image += render_background(sky).values
    return xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "electron"}),
            "variance": (("y", "x"), np.full((SIDE, SIDE), NOISE**2, np.float32)),
            "mask": (("y", "x"), np.zeros((SIDE, SIDE), np.int32), v.mask_attributes()),
        },
        attrs={"kept": 1},
    )


def test_masks_beside_the_true_sky_are_those_of_an_image_without_sky() -> None:
    frame = pattern()
    without = mask_objects(exposure(None), parameters=PARAMETERS)
    once = mask_objects(exposure(frame), parameters=PARAMETERS)
    found = mask_objects_beside_sky(
        exposure(frame), frame, smooth_sky(), TRANSFORM, scale=LEVEL, parameters=PARAMETERS
    )
    assert found is not None
    assert np.mean(found.values != without.values) < 2e-3
    assert np.mean(once.values != without.values) > 0.1, "the pattern looks like objects"
    assert found.attrs["flag_meanings"] == v.mask_attributes()["flag_meanings"]


def test_inputs_stay_as_they_are() -> None:
    inputs = exposure(pattern()), pattern(), smooth_sky()
    before = [item.copy(deep=True) for item in inputs]
    mask_objects_beside_sky(*inputs, TRANSFORM, scale=LEVEL, parameters=PARAMETERS)
    for one, other in zip(inputs, before, strict=True):
        xr.testing.assert_identical(one, other)


@pytest.mark.parametrize("scale", [0.0, -3.0, np.nan])
def test_without_a_sky_level_there_is_no_mask(scale: float) -> None:
    assert mask_objects_beside_sky(
        exposure(None), pattern(), smooth_sky(), TRANSFORM, scale=scale
    ) is None  # fmt: skip


def test_without_any_measured_bin_there_is_no_mask() -> None:
    frame = binned(np.nan)
    assert (
        mask_objects_beside_sky(exposure(None), frame, smooth_sky(), TRANSFORM, scale=LEVEL) is None
    )


def test_an_image_that_the_frame_does_not_cover_is_refused() -> None:
    part = exposure(None).isel(y=slice(0, 100))
    with pytest.raises(ValueError, match=r"image has shape \(100, 256\), the box of the sky frame"):
        mask_objects_beside_sky(part, pattern(), smooth_sky(), TRANSFORM, scale=LEVEL)
