"""Parameters of warps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.warp.resampling import Kernel

__all__ = ["WarpParameters"]


class WarpParameters(Parameters):
    """How an exposure is resampled onto a grid of the sky."""

    kernel: Kernel = Field(
        "lanczos3", description="resampling kernel: bilinear, lanczos3 or lanczos5"
    )
    bad_pixels: Literal["weigh", "spread"] = Field(
        "weigh",
        description="leave bad pixels out and divide by the weight of the others (weigh), or use "
        "all and lose every pixel whose kernel meets one that is not finite (spread)",
    )
    excluded_planes: tuple[str, ...] = Field(
        ("BAD", "COSMIC_RAY", "NO_DATA"),
        description="mask planes whose pixels are bad; those not finite always are",
    )
    least_weight: float = Field(
        0.5,
        description="least weight of good pixels in the kernel, as a fraction of all",
        gt=0,
        le=1,
    )
    position_error: float = Field(
        1e-3, description="largest error of interpolated source positions, pixel", gt=0, le=0.1
    )
    crop: bool = Field(False, description="keep only the part of the box that the detector reaches")
    masked_fraction: bool = Field(
        True, description="also make the plane of the fraction that is masked"
    )
    noise_realizations: int = Field(
        0, description="number of planes of pure noise to warp along", ge=0, le=3
    )
    noise_variance: Literal["median", "pixel"] = Field(
        "median", description="variance of that noise: the detector's median or each pixel's own"
    )
