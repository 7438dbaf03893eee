"""Object masks beside scipy and photutils; skies of the focal plane and frames by themselves."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astropy.convolution import Gaussian2DKernel, convolve_fft
from photutils.segmentation import detect_threshold
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.sky import (
    FocalPlaneParameters,
    MaskObjectsParameters,
    average_backgrounds,
    focal_plane_background,
    focal_plane_grid,
    mask_objects,
)
from skyloom.algorithms.statistics import clipped_moments
from tests.algorithms.sky.focal_planes import backgrounds_of, mosaic

SIDE = 4096


@pytest.fixture(scope="module")
def exposure() -> xr.Dataset:
    """Return a detector with stars."""
    rng = np.random.default_rng(1)
    image = rng.normal(1000.0, 30.0, (SIDE, SIDE)).astype(np.float32)
    for _ in range(3000):
        top, left = rng.integers(0, SIDE - 12, 2)
        image[top : top + 12, left : left + 12] += np.float32(rng.exponential(800.0))
    return xr.Dataset(
        {
            "image": (("y", "x"), image),
            "variance": (("y", "x"), np.full(image.shape, 900.0, np.float32)),
            "mask": (("y", "x"), np.zeros(image.shape, np.int32), v.mask_attributes()),
        }
    )


def plain_scipy(exposure, iterations=1):
    """Return the mask by the usual tools, each at its best."""
    image, variance = exposure["image"].values, exposure["variance"].values
    noise = np.sqrt(ndimage.gaussian_filter(variance, 5.0 / np.sqrt(2.0), truncate=3.5) / 314.2)
    grown = np.zeros(image.shape, bool)
    for _ in range(iterations):
        level = clipped_moments(image, ~grown).mean
        smooth = ndimage.gaussian_filter(image - np.float32(level), 5.0, truncate=3.5)
        found = smooth > 2.5 * noise
        grown = ndimage.distance_transform_edt(~found) <= 12.0
    return grown


def plain_astropy(exposure):
    """Return the mask by astropy's convolution and photutils' threshold."""
    image = exposure["image"].values
    smooth = convolve_fft(image, Gaussian2DKernel(5.0), allow_huge=True)
    found = smooth > detect_threshold(smooth, 2.5)
    return ndimage.distance_transform_edt(~found) <= 12.0


@pytest.mark.parametrize("peak", [2.5, 5.0])
def test_masking_of_objects_of_a_detector(compare, peer, exposure, peak):
    parameters = MaskObjectsParameters(iterations=1, peak_threshold=peak)
    compare(
        f"mask of objects, one iteration, peaks of {peak} sigma",
        lambda: mask_objects(exposure, parameters=parameters),
        size="4096² float32 with variance and mask",
        peers=(
            peer("scipy", lambda: plain_scipy(exposure), target=5.0, rounds=1),
            peer("astropy and photutils", lambda: plain_astropy(exposure), rounds=1),
        ),
        moved_bytes=21.0 * SIDE**2,
        rounds=3,
    )


def test_a_sky_across_a_camera(compare):
    transforms, shapes = mosaic(6, 6, (4096, 4096), pixel=0.01)
    rng = np.random.default_rng(2)
    bins = backgrounds_of(
        lambda x, y: 1000.0 + 0.1 * x - 0.2 * y, transforms, shapes, noise=1.0, rng=rng
    )
    parameters = FocalPlaneParameters(cell_size=(40.96, 40.96))
    grid = focal_plane_grid(transforms, shapes, cell_size=parameters.cell_size)
    compare(
        "sky across 36 detectors of 128² bins, three clipping passes",
        lambda: focal_plane_background(bins, transforms, parameters=parameters, grid=grid),
        size="590 000 bins",
        rounds=3,
    )


def test_a_sky_frame_of_many_exposures(compare):
    rng = np.random.default_rng(3)
    dims = ("exposure", "bin_y", "bin_x")
    level = rng.normal(0.0, 1e-3, (100, 125, 127)).astype(np.float32)
    residuals = xr.Dataset(
        {"level": (dims, level), "variance": (dims, np.full(level.shape, 1e-6, np.float32))},
        attrs={"box": [0, 4000, 0, 4072]},
    )
    compare(
        "sky frame of 100 exposures",
        lambda: average_backgrounds(residuals),
        size="125 x 127 bins",
        moved_bytes=8.0 * level.size,
        rounds=3,
    )
