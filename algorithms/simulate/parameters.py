"""Parameters of simulated frames and of their truth: everything that is not known per amplifier."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters

__all__ = ["FrameParameters", "TruthParameters"]


class TruthParameters(Parameters):
    """How the truth of an amplifier is drawn around the nominal values of its camera."""

    gain_spread: float = Field(
        0.03, description="relative scatter of gains (1 sigma)", ge=0, lt=0.3
    )
    noise_spread: float = Field(
        0.05, description="relative scatter of read noises (1 sigma)", ge=0, lt=0.3
    )
    a_spread: float = Field(
        0.01, description="relative scatter of the whole a matrix between amplifiers", ge=0, lt=0.3
    )
    bias_level: float = Field(1000.0, description="mean bias level, adu", ge=0)
    bias_spread: float = Field(20.0, description="scatter of bias levels, adu (1 sigma)", ge=0)
    well_over_saturation: float = Field(
        1.05, description="full well over the saturation level that the camera names", gt=0
    )
    full_well: float = Field(
        1.3e5, description="full well where the camera names no saturation, electron", gt=0
    )


class FrameParameters(Parameters):
    """What a frame shows besides photons, covariances and read noise."""

    response_nonuniformity: float = Field(
        0.005, description="pixel response pattern, relative rms, the same in all exposures", ge=0
    )
    gradient_y: float = Field(
        0.0,
        description="relative change of the illumination over the detector along y",
        gt=-2,
        lt=2,
    )
    gradient_x: float = Field(
        0.0,
        description="relative change of the illumination over the detector along x",
        gt=-2,
        lt=2,
    )
    dark_current: float = Field(0.02, description="dark current, electron/s", ge=0)
    bias_structure: float = Field(
        0.5, description="bias pattern, adu rms, the same in all exposures", ge=0
    )
    bias_drift: float = Field(
        1.0, description="change of the bias level between exposures, adu rms", ge=0
    )
    row_noise: float = Field(
        0.0, description="offset common to a row and its serial overscan, adu rms", ge=0
    )
    cosmic_ray_rate: float = Field(
        0.0, description="cosmic rays per pixel and second", ge=0, lt=0.01
    )
    outlier_fraction: float = Field(
        0.0, description="fraction of the pixels that get outlier_electrons", ge=0, le=0.5
    )
    outlier_electrons: float = Field(0.0, description="charge added to outliers, electron")
    dtype: Literal["uint16", "int32", "float32"] = Field(
        "uint16",
        description="type of the pixels; integers are rounded and clipped by the converter",
    )
