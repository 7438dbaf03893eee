"""Warps on a tract: their levels in bins, and the images of their offsets, beside the reference."""

from __future__ import annotations

import numpy as np
import pytest
import sep
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.matching import (
    PolynomialBasis,
    SplineBasis,
    field_image,
    tract_grid,
    tract_image,
    tract_sums,
)
from skyloom.algorithms.skymap import rings_skymap, tract_wcs

SIDE = 4100
TRACT = rings_skymap()[9813]
PATCH = TRACT.patch(0)
BOX = (7900, 12000, 11900, 16000)


@pytest.fixture(scope="module")
def warp() -> xr.Dataset:
    """Return a warp of a corner patch, 6 per cent of it masked."""
    rng = np.random.default_rng(1)
    image = rng.normal(100.0, 30.0, (SIDE, SIDE)).astype(np.float32)
    image += np.where(rng.random(image.shape) < 0.05, rng.exponential(200.0, image.shape), 0.0)
    mask = np.where(rng.random(image.shape) < 0.06, v.MASK_PLANES["NO_DATA"], 0)
    return xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "nJy"}),
            "mask": (("y", "x"), mask.astype(np.int32), v.mask_attributes()),
        },
        {"visit": 1, "tract": TRACT.index, "patch": PATCH.index},
        {"box": list(PATCH.outer), "wcs": tract_wcs(TRACT).header()},
    )


@pytest.mark.parametrize("side", [125, 100])
def test_binning_a_warp(compare, peer, warp, side):
    grid = tract_grid(TRACT, bin_size=side)
    image, mask = warp["image"].values, warp["mask"].values != 0
    compare(
        f"binning one warp into the tract model, bins of {side} pixels",
        lambda: tract_sums(warp, grid),
        size="4100² float32 with mask",
        peers=(
            peer(
                "sep.Background",
                lambda: sep.Background(image, mask=mask, bw=side, bh=side),
                target=2,
            ),
        ),
        published_s=2.81,
        target=40,
        moved_bytes=8.0 * 4000**2,
    )


FIELDS = {
    "plane": PolynomialBasis(TRACT.shape, 1),
    "order 5": PolynomialBasis(TRACT.shape, 5),
    "8 x 8 splines": SplineBasis(TRACT.shape),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_offset_image_of_a_field(compare, name):
    basis = FIELDS[name]
    coefficients = np.random.default_rng(2).normal(0, 1, len(basis.terms))
    compare(
        f"offset image of one warp, {name}",
        lambda: field_image(basis, coefficients, BOX),
        size="4100² float32",
        published_s=0.18,
        target=5,
        moved_bytes=4.0 * SIDE**2,
    )


@pytest.mark.parametrize("interpolation", ["akima", "natural_spline"])
def test_the_offset_image_of_bins(compare, interpolation):
    grid = tract_grid(TRACT, bin_size=125)
    level = np.random.default_rng(3).normal(0, 1, grid.bins)
    compare(
        f"offset image of one warp, bins of 125 pixels, {interpolation}",
        lambda: tract_image(level, grid, BOX, interpolation=interpolation),
        size="4100² float32",
        published_s=0.18,
        target=5,
        moved_bytes=4.0 * SIDE**2,
    )
