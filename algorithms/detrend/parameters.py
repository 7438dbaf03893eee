"""What each step of detrending may be told, one model a step, and the model of the whole chain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters

__all__ = [
    "DarkParameters",
    "FlatParameters",
    "OverscanParameters",
    "SaturationParameters",
    "ScienceDetrendParameters",
    "VarianceParameters",
]


class OverscanParameters(Parameters):
    """What is subtracted from an amplifier before anything else."""

    serial: Literal["row_mean", "row_median", "level", "none"] = Field(
        "row_mean",
        description="serial overscan: clipped mean or median of each row, one level, or none",
    )
    parallel: Literal["none", "column_median"] = Field(
        "none",
        description="parallel overscan, after the serial one: none, or the median of each column",
    )
    clip: float = Field(
        4.0, gt=0, description="overscan pixels further from the level are outliers, sigma"
    )
    serial_skip: int = Field(
        0, ge=0, description="overscan columns next to the data section that are not used, pixel"
    )


class SaturationParameters(Parameters):
    """Which raw pixels are saturated or suspect."""

    pile_up: bool = Field(
        True, description="without a saturation level, take values that pile up at the top for it"
    )
    suspect_fraction: float | None = Field(
        None, gt=0, le=1, description="pixels from this fraction of saturation on are SUSPECT"
    )


class DarkParameters(Parameters):
    """How dark frames are scaled."""

    overhead: float = Field(
        0.0,
        ge=0,
        description="dark time beyond the exposure time where no dark time is known, s",
    )


class VarianceParameters(Parameters):
    """What the variance plane holds."""

    read_noise: Literal["given", "overscan", "camera"] = Field(
        "given",
        description="given: as passed, else of the overscan, else of the camera; or one of these",
    )
    calibrations: bool = Field(
        True, description="add the variances of bias, dark and flat where they have some"
    )


class FlatParameters(Parameters):
    """Which pixels of a flat are fit to divide by."""

    minimum: float = Field(
        0.0, ge=0, description="pixels whose response is not above are BAD and NaN"
    )


class ScienceDetrendParameters(Parameters):
    """The whole chain from a raw frame to a frame fit for science."""

    units: Literal["electron", "adu"] = Field(
        "electron", description="unit of the result; with adu the gain makes the variance only"
    )
    overscan: OverscanParameters = Field(
        default_factory=OverscanParameters, description="levels of rows and columns"
    )
    saturation: SaturationParameters = Field(
        default_factory=SaturationParameters, description="saturated and suspect pixels"
    )
    dark: DarkParameters = Field(
        default_factory=DarkParameters, description="scaling of the dark frame"
    )
    variance: VarianceParameters = Field(
        default_factory=VarianceParameters, description="the variance plane"
    )
    flat: FlatParameters = Field(
        default_factory=FlatParameters, description="guards of the division by the flat"
    )
