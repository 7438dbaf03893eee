"""Parameters of the combination of calibration exposures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters

__all__ = ["COMBINE_IGNORED_PLANES", "CombineParameters"]

COMBINE_IGNORED_PLANES = ("SAT", "DETECTED", "INTERPOLATED", "COSMIC_RAY", "NO_DATA")
"""Mask planes whose pixels no combination uses unless told otherwise; BAD pixels are used."""


class CombineParameters(Parameters):
    """How exposures are combined, `combine_bias`, `combine_dark` and `combine_flats`."""

    method: Literal["clip_model", "clip_reference"] = Field(
        "clip_model",
        description="clip_model: leave out what is further from the mean of the other exposures "
        "than the noise of both, that of their variances or else of gain and read noise; "
        "clip_reference: clip by the scatter, in passes, as the survey pipeline does",
    )
    model_clip: float = Field(
        5.0, gt=0, description="clip of clip_model, standard deviations of that difference"
    )
    pattern: float = Field(
        0.005,
        ge=0,
        description="scatter that clip_model allows beyond the noise, for changes of the "
        "pattern, as a part of the level",
    )
    weights: Literal["noise", "equal"] = Field(
        "noise",
        description="weights of clip_model: inverse variances, or the same for all",
    )
    reference_clip: float = Field(
        3.0, gt=0, description="clip of clip_reference, standard deviations"
    )
    iterations: int = Field(3, ge=1, description="clip passes of clip_reference")
    scatter_inputs: int = Field(
        5,
        ge=2,
        description="clip_reference takes the variance from the scatter of so many inputs or "
        "more, from the variances of fewer",
    )
    ignored_planes: tuple[str, ...] = Field(
        COMBINE_IGNORED_PLANES, description="mask planes whose pixels are left out"
    )
    censor: bool = Field(
        True,
        description="clear mask planes that belong to single exposures; BAD, NO_DATA and those "
        "of vignetting stay",
    )
    no_data: Literal["raise", "keep"] = Field(
        "raise",
        description="pixels that are NO_DATA in every input are an error, or stay NO_DATA and NaN",
    )
    skip_bad_scales: bool = Field(
        False,
        description="leave out exposures whose scale is not a positive number instead of raising",
    )
    fill_reach: int = Field(
        32,
        ge=1,
        description="pixels without value get the median of their amplifier's pixels so far "
        "along y and x, else that of the amplifier, pixel",
    )

    @property
    def equal_weights(self) -> bool:
        """Return whether all exposures have the same weight, as those of clip_reference always."""
        return self.method == "clip_reference" or self.weights == "equal"
