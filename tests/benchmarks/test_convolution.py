"""Convolution beside scipy, astropy and the reference, and matching of a warp."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import xarray as xr
from astropy.convolution import convolve as astropy_convolve
from astropy.convolution import convolve_fft as astropy_convolve_fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf import convolve, gaussian_psf, match_psf, moffat_psf, psf_at_points

SIDE = 2048
KERNEL = 21


def kernel_of(side: int) -> xr.DataArray:
    """Return a kernel without symmetry, which no shortcut fits."""
    values = np.random.default_rng(2).random((side, side))
    return xr.DataArray(values / values.sum(), dims=("kernel_y", "kernel_x"))


@pytest.fixture(scope="module")
def exposure() -> xr.Dataset:
    """Return noise in which one pixel of a hundred has a bit."""
    rng = np.random.default_rng(1)
    image = 3.0 * rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    mask = np.where(rng.random(image.shape) < 0.01, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": "nJy"}),
            "variance": (("y", "x"), np.full_like(image, 9.0), {"units": "nJy2"}),
            "mask": (("y", "x"), mask, v.mask_attributes()),
        }
    )


def with_gaps(exposure: xr.Dataset) -> xr.Dataset:
    """Return the exposure with one pixel of a thousand missing."""
    missing = np.random.default_rng(3).random((SIDE, SIDE)) < 1e-3
    good = xr.DataArray(~missing, dims=("y", "x"))
    mask = exposure["mask"] | np.where(missing, np.int32(v.MASK_PLANES["NO_DATA"]), np.int32(0))
    return exposure.assign(
        image=exposure["image"].where(good),
        variance=exposure["variance"].where(good, np.float32(np.inf)),
        mask=mask.assign_attrs(v.mask_attributes()),
    )


def test_image_alone(compare, peer, exposure):
    image, kernel = exposure["image"].values, kernel_of(KERNEL)
    taps = kernel.values
    compare(
        f"convolution {KERNEL}×{KERNEL}, image",
        lambda: convolve(exposure["image"], kernel),
        size=f"{SIDE}² float32",
        peers=(
            peer(
                "scipy.signal.fftconvolve (float32)",
                lambda: scipy.signal.fftconvolve(image, taps.astype("f4"), mode="same"),
            ),
            peer(
                "scipy.signal.oaconvolve (float32)",
                lambda: scipy.signal.oaconvolve(image, taps.astype("f4"), mode="same"),
            ),
            peer(
                "scipy.signal.oaconvolve (float64)",
                lambda: scipy.signal.oaconvolve(image.astype("f8"), taps, mode="same"),
            ),
            peer(
                "scipy.ndimage.convolve",
                lambda: scipy.ndimage.convolve(image, taps, mode="constant"),
                rounds=1,
            ),
            peer(
                "astropy.convolution.convolve",
                lambda: astropy_convolve(image, taps, boundary="fill"),
                rounds=1,
            ),
        ),
        published_s=1.56,
        target=10,
        moved_bytes=8.0 * SIDE**2,
    )


@pytest.mark.parametrize("gaps", [False, True])
def test_image_variance_and_mask(compare, exposure, gaps):
    given, kernel = with_gaps(exposure) if gaps else exposure, kernel_of(KERNEL)
    told = ", 0.1 % missing" if gaps else ""
    compare(
        f"convolution {KERNEL}×{KERNEL}, image, variance and mask{told}",
        lambda: convolve(given, kernel),
        size=f"{SIDE}² float32",
        published_s=1.56,
        target=10,
        moved_bytes=24.0 * SIDE**2,
    )


def test_missing_pixels_as_astropy_leaves_them_out(compare, peer, exposure):
    image = with_gaps(exposure)["image"]
    kernel = kernel_of(KERNEL)

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return astropy_convolve_fft(image.values, kernel.values, boundary="fill")

    compare(
        f"convolution {KERNEL}×{KERNEL}, image, 0.1 % missing",
        lambda: convolve(image, kernel),
        size=f"{SIDE}² float32",
        peers=(peer("astropy.convolution.convolve_fft", theirs, rounds=1),),
        moved_bytes=8.0 * SIDE**2,
    )


@pytest.mark.parametrize("points", [1, 196])
def test_matching_a_warp(compare, exposure, points):
    place = (np.arange(round(points**0.5)) + 0.5) * SIDE / round(points**0.5)
    y, x = (values.ravel() for values in np.meshgrid(place, place, indexing="ij"))
    images = np.stack([moffat_psf(4.0 + a / SIDE, size=61) for a in x])
    psf, target = psf_at_points(images, x, y), gaussian_psf(7.7, size=93)
    compare(
        f"matching to 7.7 pixels, {points} point-spread functions",
        lambda: match_psf(exposure, psf, target),
        size=f"{SIDE}² float32 with variance and mask",
        moved_bytes=24.0 * SIDE**2,
        rounds=3,
    )
