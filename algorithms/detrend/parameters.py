"""What each step of detrending may be told, one model a step, and the model of the whole chain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from skyloom.algorithms.detrend.brighter_fatter import CorrectionParameters
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import MASK_PLANES

__all__ = [
    "BrighterFatterParameters",
    "CosmicRayParameters",
    "CrosstalkParameters",
    "DarkParameters",
    "FlatParameters",
    "InterpolationParameters",
    "OverscanParameters",
    "SaturationParameters",
    "ScienceDetrendParameters",
    "VarianceParameters",
]


class OverscanParameters(Parameters):
    """What is subtracted from an amplifier before anything else."""

    serial: Literal["row_mean", "row_median", "level", "spline", "smooth", "polynomial", "none"] = (
        Field(
            "row_mean",
            description="serial overscan: clipped mean or median of each row; one level; a natural "
            "spline, running average or polynomial of the rows' means; or none",
        )
    )
    parallel: Literal["none", "column_mean", "column_median"] = Field(
        "none",
        description="parallel overscan, after the serial one: none, or clipped mean or median of "
        "each column",
    )
    clip: float = Field(
        4.0, gt=0, description="overscan pixels further from the level are outliers, sigma"
    )
    serial_skip: int = Field(
        0, ge=0, description="overscan columns next to the data section that are not used, pixel"
    )
    knots: int = Field(16, ge=2, description="groups of rows that a spline goes through")
    smoothing: float = Field(
        20.0, gt=0, description="Gaussian width of the running average along rows, pixel (1 sigma)"
    )
    degree: int = Field(3, ge=0, le=20, description="degree of a polynomial")


class SaturationParameters(Parameters):
    """Which pixels are saturated or suspect."""

    pile_up: bool = Field(
        True, description="without a saturation level, take values that pile up at the top for it"
    )
    suspect_fraction: float | None = Field(
        None, gt=0, le=1, description="pixels from this fraction of saturation on are SUSPECT"
    )
    grow: int = Field(
        0, ge=0, le=50, description="saturated regions grow by a disc of this radius, pixel"
    )
    bleed: int = Field(
        0, ge=0, description="bleed trails grow by this much along their column, pixel"
    )
    bleed_length: int = Field(
        8, ge=1, description="saturated pixels in a row of a column that make a bleed trail, pixel"
    )


class CrosstalkParameters(Parameters):
    """Where crosstalk is too strong to be trusted after its correction."""

    threshold: float = Field(
        45_000.0,
        gt=0,
        description="pixels read with one above, or with a saturated one, get CROSSTALK, adu",
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


class BrighterFatterParameters(CorrectionParameters):
    """How the brighter-fatter effect is undone."""

    level: Literal["detector", "amplifier"] = Field(
        "detector", description="one kernel for the detector, or one for each amplifier"
    )


class DarkParameters(Parameters):
    """How dark frames are scaled."""

    overhead: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="dark time beyond the exposure time where no dark time is known, s; without a "
        "number that which the dark frame was made with",
    )


class FlatParameters(Parameters):
    """Which pixels of a flat are fit to divide by."""

    minimum: float = Field(
        0.0, ge=0, description="pixels whose response is not above are BAD and NaN"
    )


class CosmicRayParameters(Parameters):
    """How cosmic rays are told from stars, by the Laplacian of the image."""

    reject: bool = Field(False, description="whether cosmic rays are looked for")
    clip: float = Field(
        4.5, gt=0, description="least Laplacian of the brightest pixels of a ray, sigma"
    )
    neighbour_fraction: float = Field(
        0.3, gt=0, le=1, description="the same for their neighbours, relative to clip"
    )
    contrast: float = Field(
        5.0, gt=0, description="least Laplacian over the fine structure, as sharp stars have some"
    )
    iterations: int = Field(4, ge=1, le=20, description="largest number of iterations")
    fine_structure: Literal["median", "convolve"] = Field(
        "median", description="fine structure by medians, or by matching a Gaussian star"
    )
    star_width: float = Field(
        2.5, gt=0, description="width of the Gaussian star at half its height, pixel"
    )
    separable: bool = Field(True, description="faster medians along rows, then along columns")


class InterpolationParameters(Parameters):
    """Which small gaps are filled from their neighbours."""

    planes: tuple[str, ...] = Field(
        (), description="mask planes whose pixels are filled, e.g. BAD, COSMIC_RAY; none of them"
    )
    longest: int = Field(
        3, ge=1, le=100, description="widest gap along the shorter direction, pixel"
    )

    @field_validator("planes")
    @classmethod
    def _known(cls, planes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in planes if name not in MASK_PLANES]
        if unknown:
            raise ValueError(f"unknown mask planes {', '.join(unknown)}: {', '.join(MASK_PLANES)}")
        return planes


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
    crosstalk: CrosstalkParameters = Field(
        default_factory=CrosstalkParameters, description="flags of strong crosstalk"
    )
    variance: VarianceParameters = Field(
        default_factory=VarianceParameters, description="the variance plane"
    )
    brighter_fatter: BrighterFatterParameters = Field(
        default_factory=BrighterFatterParameters, description="the brighter-fatter effect"
    )
    dark: DarkParameters = Field(
        default_factory=DarkParameters, description="scaling of the dark frame"
    )
    flat: FlatParameters = Field(
        default_factory=FlatParameters, description="guards of the division by the flat"
    )
    cosmic_rays: CosmicRayParameters = Field(
        default_factory=CosmicRayParameters, description="rejection of cosmic rays"
    )
    interpolation: InterpolationParameters = Field(
        default_factory=InterpolationParameters, description="filling of small gaps"
    )
