"""Blocks of the sky on frames made here: what is fitted, and what of it is taken off."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import BackgroundParameters, render_background
from skyloom.algorithms.sky import MaskObjectsParameters, SmoothSkyParameters, SolveScaleParameters
from skyloom.flows.sky_blocks import (
    SkyBinsParameters,
    SubtractSkyParameters,
    focal_plane,
    sky_bins,
    sky_fit,
    sky_subtracted,
)
from skyloom.storage.sky_products import background_of

SIDE = 128
BINS = SkyBinsParameters(
    objects=MaskObjectsParameters(threshold=1e3),
    background=BackgroundParameters(bin_size=(16, 16)),
)


def inputs_of_subtraction() -> dict[str, xr.Dataset]:
    """Return what the last step reads of a detector whose sky frame is a wave."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE]
    pattern = 0.02 * np.sin(2 * np.pi * x / SIDE) * np.cos(2 * np.pi * y / SIDE)
    image = 1000.0 * (1.0 + pattern) + 0.3 * x + rng.normal(0.0, 5.0, (SIDE, SIDE))
    frame = xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "electron"}),
            "variance": (("y", "x"), np.full((SIDE, SIDE), 25.0, np.float32)),
            "mask": (("y", "x"), np.zeros((SIDE, SIDE), np.int32), v.mask_attributes()),
        },
        coords={"detector": "A", "exposure": 1},
    )
    places = xr.Dataset(
        {
            "transform": (("detector", "axis", "term"), [[[0.01, 0.0, 0.0], [0.0, 0.01, 0.0]]]),
            "shape": (("detector", "axis"), [[SIDE, SIDE]]),
        },
        coords={"detector": ["A"]},
    )
    bins = sky_bins({"frame": frame}, BINS)
    shown = frame.assign(image=(("y", "x"), pattern.astype(np.float32), {"units": ""}))
    sky_frame = sky_bins({"frame": shown}, BINS)
    sky_frame = sky_frame.assign(variance=sky_frame["variance"] * 0 + np.float32(1e-10))
    each = {name: block.expand_dims(detector=["A"]) for name, block in
            (("bins", bins), ("frames", sky_frame))}  # fmt: skip
    sky = focal_plane({"bins": each["bins"], "places": places}, SmoothSkyParameters(order=1))
    fit = sky_fit({**each, "sky": sky, "places": places}, SolveScaleParameters(order=1))
    return {"frame": frame, "fit": fit, "sky_frame": sky_frame, "places": places}


def test_the_smooth_sky_is_left_in_exposures_if_so_chosen() -> None:
    inputs = inputs_of_subtraction()
    image = inputs["frame"]["image"].values
    whole = sky_subtracted(inputs, SubtractSkyParameters())
    undone = sky_subtracted(inputs, SubtractSkyParameters(undo_smooth=True))
    assert abs(float(whole["image"].mean())) < 0.5
    scale = float(inputs["fit"]["scale"])
    assert abs(scale - 1000.0) < 5.0 * float(inputs["fit"]["scale_sigma"])
    taken = scale * render_background(background_of(inputs["sky_frame"])).values
    np.testing.assert_allclose(undone["image"], image - taken, atol=1e-3)
    assert [data.attrs["applied"][-1] for data in (whole, undone)] == [
        "sky: 2 layers",
        "sky: 1 layers",
    ]
    for name in ("variance", "mask"):
        np.testing.assert_array_equal(undone[name], inputs["frame"][name])
