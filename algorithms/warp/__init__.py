"""Exposures on the grid of the sky: resampled, merged, calibrated, chosen.

A warp is a Dataset over ``y``, ``x`` of tract pixels with ``image``, ``variance`` and ``mask``.
Where there is no data the image is NaN, the variance infinite and the mask NO_DATA. Flux is
conserved: a source has the same sum of pixels before and after. No function changes its input.
"""

from skyloom.algorithms.psf.matching import match_psf
from skyloom.algorithms.warp.calibration import (
    BackgroundChange,
    calibrate_exposure,
    change_background,
)
from skyloom.algorithms.warp.exposure import warp_exposure
from skyloom.algorithms.warp.merge import merge_warps
from skyloom.algorithms.warp.noise import noise_seed, variance_of_sum, warp_noise_covariance
from skyloom.algorithms.warp.parameters import WarpParameters
from skyloom.algorithms.warp.positions import PixelsOnSky, sky_pixels
from skyloom.algorithms.warp.resampling import kernel_weights
from skyloom.algorithms.warp.selection import SelectionParameters, select_inputs

__all__ = [
    "BackgroundChange",
    "PixelsOnSky",
    "SelectionParameters",
    "WarpParameters",
    "calibrate_exposure",
    "change_background",
    "kernel_weights",
    "match_psf",
    "merge_warps",
    "noise_seed",
    "select_inputs",
    "sky_pixels",
    "variance_of_sum",
    "warp_exposure",
    "warp_noise_covariance",
]
