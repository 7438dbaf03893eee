"""Parameters of artifact rejection."""

from __future__ import annotations

from pydantic import Field

from skyloom.algorithms.detrend.parameters import CosmicRayParameters
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf import VarianceScalingParameters

__all__ = ["ArtifactParameters"]


class ArtifactParameters(Parameters):
    """How artifacts are found by comparing visits, `find_artifacts`."""

    sky_clip: float = Field(
        2.5, gt=0, description="clip of the static sky, a clipped mean, standard deviations"
    )
    sky_noise_clip: float | None = Field(
        5.0,
        gt=0,
        description="what its first pass is limited to, standard deviations of the warps; without "
        "it two visits in seven hide in the scatter they make, one in three sometimes",
    )
    sky_iterations: int = Field(3, ge=1, le=20, description="passes of the same")
    threshold: float = Field(
        7.5, gt=0, description="what is a candidate, standard deviations of the difference"
    )
    least_pixels: int = Field(4, ge=1, description="least number of pixels of a candidate")
    growth: float = Field(
        0.4, ge=0, le=20, description="what candidates grow by, sigmas of the PSF"
    )
    unusable_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "SUSPECT"), description="mask planes whose pixels say nothing"
    )
    least_usable: float = Field(
        0.05, ge=0, le=1, description="a candidate needs more than this fraction of usable pixels"
    )
    few_fraction: float = Field(
        0.4,
        ge=0,
        le=1,
        description="what few visits show is an artifact: few are at most this fraction of them,",
    )
    few_offset: float = Field(2.0, ge=0, description="and at most this number")
    few_slope: float = Field(0.03, ge=0, le=1, description="plus this fraction of the visits")
    few_pixels: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="fraction of the pixels of an artifact that few visits show exceeds this",
    )
    protect_threshold: float = Field(
        300.0,
        gt=0,
        description="brightness of objects inside which nothing is an artifact, standard "
        "deviations of the static sky",
    )
    protect_growth: float = Field(
        2.4, ge=0, le=50, description="what these objects grow by, sigmas of the PSF"
    )
    protect_bin: int = Field(
        128, ge=8, description="size of the bins of the background these stand out from, pixel"
    )
    protect_retries: int = Field(
        10, ge=0, le=50, description="how often the threshold is raised where nothing is left over"
    )
    retry_factor: float = Field(1.25, gt=1, description="what it is multiplied by each time")
    retry_negative: float = Field(
        0.4,
        ge=0,
        le=1,
        description="fraction of the retries that raise the negative threshold only",
    )
    rescale: bool = Field(
        True, description="rescale the variance of each difference to what it scatters by"
    )
    rescaling: VarianceScalingParameters = Field(
        VarianceScalingParameters(), description="how the factor on the variance is measured"
    )
    cosmic_rays: CosmicRayParameters = Field(
        CosmicRayParameters(),
        description="search for cosmic rays in single warps, where there are less than three",
    )
