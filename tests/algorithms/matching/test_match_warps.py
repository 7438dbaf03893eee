"""From the pixels of warps to matched warps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.matching import (
    MatchParameters,
    apply_offset,
    match_backgrounds,
    tract_background,
    tract_grid,
)
from tests.algorithms.matching.tracts import LEGACY, cut_warps

MARGIN = 50
SIDE = LEGACY.shape[0] + 2 * MARGIN
PLANES = np.array([[5.0, 4e-3, -2e-3], [-3.0, -5e-3, 1e-3], [40.0, 1e-3, 6e-3]])


@pytest.fixture(scope="module")
def warps() -> list[xr.Dataset]:
    """Return warps of three visits: stars, a wide galaxy, planes, a visit without two patches."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2.0
    sky = 30.0 * np.exp(-0.5 * (y**2 + x**2) / 200.0**2)
    for row, column in rng.integers(20, SIDE - 20, (80, 2)):
        sky[row - 6 : row + 7, column - 6 : column + 7] += 2000 * np.exp(
            -0.5 * np.add.outer(np.arange(-6, 7) ** 2, np.arange(-6, 7) ** 2) / 2.0**2
        )
    found = []
    for visit, (level, in_y, in_x) in enumerate(PLANES):
        image = sky + level + in_y * y + in_x * x + rng.normal(0, 2, sky.shape)
        mask = np.where(rng.random(sky.shape) < 0.02, v.MASK_PLANES["BAD"], 0)
        image[mask != 0] = 1e6
        found += cut_warps(image, LEGACY, visit + 1, mask=mask)
    return [
        warp for warp in found if not (int(warp[v.VISIT]) == 2 and int(warp[v.PATCH]) in (0, 5))
    ]


def test_warps_agree_after_matching_and_the_galaxy_stays(warps):
    grid = tract_grid(LEGACY, bin_size=50)
    levels = tract_background(warps, grid)
    found = match_backgrounds(
        levels, parameters=MatchParameters(gauge="reference", reference_visit=1)
    )
    assert float(found["overlap_ratio_after"]) == pytest.approx(1.0, abs=0.06)
    height = LEGACY.shape[0]
    # planes of the tract, whose coordinates run from -1 to 1
    in_y, in_x = (PLANES - PLANES[0])[:, 1:].T * height / 2
    level = (PLANES - PLANES[0])[:, 0]
    error = np.sqrt(np.einsum("vkk->vk", found["coefficient_covariance"].values))
    truth = np.column_stack([level, in_x, in_y])
    # the middle of the image is half a pixel from that of the tract
    np.testing.assert_allclose(found["coefficients"], truth, atol=0.01 + 4 * error.max())
    matched = {
        (int(warp[v.VISIT]), int(warp[v.PATCH])): apply_offset(warp, found) for warp in warps
    }
    for patch in (1, 6, 15):
        one, two, three = (matched[visit, patch] for visit in (1, 2, 3))
        for other in (two, three):
            good = (one["mask"] == 0) & (other["mask"] == 0)
            assert abs(float((other["image"] - one["image"]).where(good).mean())) < 0.03
    center = found["sky"].sel({v.TRACT_Y: 600, v.TRACT_X: 600}, method="nearest")
    corner = found["sky"].sel({v.TRACT_Y: 1100, v.TRACT_X: 1100}, method="nearest")
    expected = 30.0 + PLANES[0, 0] - (PLANES[0, 0] + 500 * PLANES[0, 1:].sum())
    assert float(center - corner) == pytest.approx(expected, abs=2.0)


def test_offsets_have_no_seams_where_patches_overlap(warps):
    found = match_backgrounds(tract_background(warps, tract_grid(LEGACY, bin_size=50)))
    third = {int(warp[v.PATCH]): warp for warp in warps if int(warp[v.VISIT]) == 3}
    left, right = (apply_offset(third[patch], found)["image"] for patch in (5, 6))
    shared = third[5].attrs["box"][3] - third[6].attrs["box"][2]
    assert shared > 0
    np.testing.assert_array_equal(left[:, -shared:], right[:, :shared])
