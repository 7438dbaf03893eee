"""Bins and fields of a tract: gradients, seams, pulls, and the reference's bins beside."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.matching import (
    PolynomialBasis,
    SplineBasis,
    field_image,
    tract_background,
    tract_grid,
    tract_image,
)
from skyloom.algorithms.matching.compat import reference_tract_background, reference_tract_image
from skyloom.algorithms.skymap import SkyMapParameters, Tract, rings_skymap
from tests.algorithms.matching.tracts import LEGACY, cut_warps
from tests.validation.rows import Row, at_most, within

__all__ = ["measure"]

SLOPE_Y, SLOPE_X = 0.9, -0.37
SURVEYS = {
    "patches of 4000": rings_skymap()[9813],
    "patches of 20 cells": rings_skymap(SkyMapParameters(patches="cells"))[9813],
}


def gradient_rows(what: str, tract: Tract) -> list[Row]:
    """Return the rows of a gradient, from pixels to bins to images.

    It is 0 where two patches meet, half-way up: far away float32 does not hold a thousandth of
    a pixel.
    """
    grid = tract_grid(tract)
    rows, columns = tract.grid
    worst, seams = 0.0, 0
    # a corner, an edge and the interior, each with its neighbour to the right
    for iy, ix in ((0, 0), (0, columns // 2), (rows // 2, 0), (rows // 2, columns // 2)):
        warps = []
        inner = tract.patch((iy, ix + 1)).inner
        origin = (inner.y_start + inner.y_stop) // 2, inner.x_start
        for patch in (tract.patch((iy, ix)), tract.patch((iy, ix + 1))):
            y, x = (
                np.arange(*patch.outer[2 * axis : 2 * axis + 2]) - origin[axis] for axis in (0, 1)
            )
            image = np.add.outer(SLOPE_Y * y, SLOPE_X * x).astype(np.float32)
            warps.append(
                xr.Dataset(
                    {"image": (("y", "x"), image)},
                    {"visit": 1, "patch": patch.index},
                    {"box": list(patch.outer)},
                )
            )
        level = tract_background(warps, grid)["level"].values[0]
        # what other patches would have measured
        full = np.add.outer(
            SLOPE_Y * (grid.centers[0] - origin[0]),
            SLOPE_X * (grid.centers[1] - origin[1]),
        )
        full = np.where(np.isfinite(level), level, full)
        images = [tract_image(full, grid, warp.attrs["box"]) for warp in warps]
        for image, warp in zip(images, warps, strict=True):
            worst = max(worst, float(np.abs(image.values - warp["image"].values).max()))
        shared = warps[0].attrs["box"][3] - warps[1].attrs["box"][2]
        seams += int((images[0].values[:, -shared:] != images[1].values[:, :shared]).sum())
        for basis in (PolynomialBasis(tract.shape, 5), SplineBasis(tract.shape)):
            theta = np.random.default_rng(1).normal(0, 1, len(basis.terms))
            one, two = (field_image(basis, theta, warp.attrs["box"]).values for warp in warps)
            seams += int((one[:, -shared:] != two[:, :shared]).sum())
    return [
        at_most(
            f"{what}: a gradient through bins to warps at corner, edges and interior, in pixels "
            "times slope",
            worst / float(np.hypot(SLOPE_Y, SLOPE_X)),
            1e-3,
            "pixel",
        ),
        Row(f"{what}: pixels that differ where patches overlap", "0", str(seams), seams == 0),
    ]


def statistics_rows() -> list[Row]:
    """Return the rows of white noise and of a wave, in ours and in the reference's bins."""
    rng = np.random.default_rng(3)
    pulls, ours, theirs = [], [], []
    grid = tract_grid(LEGACY, bin_size=20)
    for _ in range(10):
        warps = cut_warps(rng.normal(0, 1, (1300, 1300)), LEGACY)
        found = tract_background(warps, grid).isel(visit=0)
        pulls.append((found["level"] / np.sqrt(found["variance"])).values.ravel())
        other = reference_tract_background(warps, LEGACY.shape, bin_size=20)["level"].values
        for level, kept in ((found["level"].values, ours), (other[1:-1, 1:-1], theirs)):
            kept.append(np.corrcoef(level[1:].ravel(), level[:-1].ravel())[0, 1])
    x = np.arange(-50, 1250)
    wave = np.broadcast_to(np.sin(2 * np.pi * (x - 9.5) / 80), (1300, 1300))
    warps = cut_warps(wave, LEGACY)
    levels = (
        tract_background(warps, grid)["level"].values[0, 30],
        reference_tract_background(warps, LEGACY.shape, bin_size=20)["level"].values[30],
    )
    kept = [
        2 * abs((level[2:-2] * np.exp(0.5j * np.pi * np.arange(level.size - 4))).mean())
        for level in levels
    ]
    pull = np.concatenate(pulls)
    box = (3900, 4220, 3900, 8100)
    survey = tract_grid(SURVEYS["patches of 4000"], bin_size=128, allow_partials=True)
    level = np.broadcast_to(survey.centers[1], survey.bins)
    shift = reference_tract_image(level, box, (4000, 4000)).values[100] - np.arange(3900, 8100)
    return [
        within("pulls of levels, 36 000 bins of 20²: mean", float(pull.mean()), 0.0, 0.03),
        within("their standard deviation", float(pull.std()), 1.0, 0.03),
        within("correlation of neighbouring bins", float(np.mean(ours)), 0.0, 0.02),
        within("the same, reference's bins", float(np.mean(theirs)), 0.5, 0.03),
        within("amplitude kept of a wave of 4 bins", kept[0], 0.9003, 0.005),
        within("the same, reference's bins", kept[1], 0.6366, 0.03),
        within("how far its image of a warp lies aside, first columns", shift[40], 68, 1.5, "px"),
        within("last columns", shift[-40], 28, 1.5, "px"),
    ]


def measure() -> list[Row]:
    """Return the rows of this topic."""
    rows = [row for what, tract in SURVEYS.items() for row in gradient_rows(what, tract)]
    return rows + statistics_rows()
