"""Binned backgrounds beside the reference, sep and photutils."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sep
import xarray as xr
from astropy.stats import SigmaClip
from photutils.background import Background2D, MeanBackground

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    common_cells,
    measure_background,
    render_background,
    sketch_exposure,
)

SIDE = 4096
SIZE = "4096² float32 with mask"


@pytest.fixture(scope="module")
def exposure() -> xr.Dataset:
    """Return an image with sources on a gradient, 6 per cent of it masked."""
    rng = np.random.default_rng(1)
    image = rng.normal(1000.0, 30.0, (SIDE, SIDE)).astype(np.float32)
    image += np.where(rng.random(image.shape) < 0.05, rng.exponential(200.0, image.shape), 0.0)
    image += np.linspace(0.0, 50.0, SIDE, dtype=np.float32)
    mask = np.where(rng.random(image.shape) < 0.06, v.MASK_PLANES["DETECTED"], 0)
    return xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "electron"}),
            "mask": (("y", "x"), mask.astype(np.int32), v.mask_attributes()),
        }
    )


def reads(image):
    """Read an image four times over."""
    for _ in range(4):
        image.sum()


def photutils_background(image, mask, side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Background2D(
            image,
            side,
            mask=mask,
            filter_size=1,
            sigma_clip=SigmaClip(3.0, maxiters=3),
            bkg_estimator=MeanBackground(),
        )


def test_clipped_mean_in_bins_of_128_pixels(compare, peer, exposure):
    image, mask = exposure["image"].values, exposure["mask"].values != 0
    compare(
        "background in bins of 128 pixels, clipped mean",
        lambda: measure_background(exposure, bin_size=(128, 128)),
        size=SIZE,
        peers=(
            peer(
                "sep.Background", lambda: sep.Background(image, mask=mask, bw=128, bh=128), target=2
            ),
            peer(
                "photutils.Background2D",
                lambda: photutils_background(image, mask, 128),
                target=15,
                rounds=1,
            ),
        ),
        published_s=0.51,
        target=8,
        moved_bytes=8.0 * SIDE**2,
    )


def test_clipped_mean_in_bins_of_32_pixels(compare, peer, exposure):
    image, mask = exposure["image"].values, exposure["mask"].values != 0
    compare(
        "background in bins of 32 pixels, clipped mean",
        lambda: measure_background(exposure),
        size=SIZE,
        peers=(
            peer(
                "sep.Background", lambda: sep.Background(image, mask=mask, bw=32, bh=32), target=1
            ),
        ),
        moved_bytes=8.0 * SIDE**2,
    )


@pytest.mark.parametrize(("side", "cells"), [(128, 512), (32, 128)])
def test_mergeable_histograms_of_bins(compare, peer, exposure, side, cells):
    image, mask = exposure["image"].values, exposure["mask"].values != 0
    center, half_range = common_cells(exposure)
    compare(
        f"histograms of {cells} cells in bins of {side} pixels",
        lambda: sketch_exposure(
            exposure, center=center, half_range=half_range, cells=cells, bin_size=(side, side)
        ),
        size=SIZE,
        peers=(
            peer(
                "sep.Background",
                lambda: sep.Background(image, mask=mask, bw=side, bh=side),
                target=1,
            ),
        ),
        moved_bytes=8.0 * SIDE**2,
    )


@pytest.mark.parametrize(
    ("interpolation", "published"), [("natural_spline", 0.19), ("akima", 0.16), ("linear", None)]
)
@pytest.mark.parametrize("side", [128, 32])
def test_rendering(compare, peer, exposure, interpolation, published, side):
    image, mask = exposure["image"].values, exposure["mask"].values != 0
    background = measure_background(exposure, bin_size=(side, side))
    theirs = sep.Background(image, mask=mask, bw=side, bh=side)
    compare(
        f"rendering bins of {side} pixels, {interpolation}",
        lambda: render_background(background, interpolation=interpolation),
        size="4096² float32",
        peers=(
            peer("sep.Background.back", theirs.back, target=2, rounds=5),
            peer("four reads of an image", lambda: reads(image), target=1, rounds=7),
        ),
        published_s=published if side == 128 else None,
        target=5 if side == 128 and published else None,
        # the time to copy an image
        moved_bytes=8.0 * SIDE**2,
    )
