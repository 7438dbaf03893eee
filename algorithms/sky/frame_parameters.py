"""Parameters of sky frames."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky.focal_plane_parameters import FocalPlaneParameters

__all__ = ["AverageParameters", "FrameSketchParameters", "SmoothSkyParameters"]


class FrameSketchParameters(Parameters):
    """What is kept of exposures that come one by one, `sky_frame_sketch`."""

    half_range: float = Field(
        0.1, gt=0, description="residuals up to this size are told apart by the histogram"
    )
    cells: int = Field(64, ge=4, le=4096, description="cells of the histogram of a bin")


class SmoothSkyParameters(Parameters):
    """What of an exposure's sky is smooth and no part of the sky frame, `exposure_residuals`."""

    order: int = Field(1, ge=0, le=12, description="order of the polynomials over the focal plane")
    cells: FocalPlaneParameters | None = Field(
        None, description="cells of the focal plane instead of polynomials"
    )
    steps: Literal["none", "detector", "type"] = Field(
        "none", description="offsets fitted with polynomials: of detectors, or of their types"
    )
    minimum_fraction: float = Field(
        0.25,
        ge=0,
        le=1,
        description="bins with fewer valid pixels than this part of the fullest have no say in "
        "the polynomials",
    )


class AverageParameters(Parameters):
    """How the residuals of many exposures are combined, `average_backgrounds`."""

    weights: Literal["inverse_variance", "equal"] = Field(
        "inverse_variance",
        description="weight of an exposure in a bin: the inverse variance of its residual, which "
        "is about level² / noise², or the same for all",
    )
    clip: float = Field(3.0, gt=0, description="clip over exposures, standard deviations")
    iterations: int = Field(3, ge=1, description="clip passes")
    error: Literal["propagated", "scatter"] = Field(
        "propagated",
        description="variance of the frame: from the variances of the bins, raised where exposures "
        "of a detector scatter more; or of each bin from the scatter of its own exposures",
    )
    minimum_exposures: int = Field(
        5, ge=1, description="bins of fewer exposures are flagged LOW_COUNT"
    )
    fill: Literal["harmonic", "median", "none"] = Field(
        "harmonic",
        description="bins never observed: the smoothest surface between the others (the nearest "
        "outside), the median of the detector, or NaN",
    )
