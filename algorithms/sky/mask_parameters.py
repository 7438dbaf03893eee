"""Parameters of object masks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters

__all__ = ["ImputeObjectsParameters", "MaskObjectsParameters"]


class MaskObjectsParameters(Parameters):
    """How objects are found and covered, `mask_objects`."""

    iterations: int = Field(3, ge=1, description="rounds of background and detection")
    background_bin: int = Field(
        1024, ge=8, description="size of the bins of the coarse background, pixel"
    )
    background_ignored_planes: tuple[str, ...] = Field(
        ("BAD", "SAT", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "NO_DATA"),
        description="mask planes whose pixels the coarse background leaves out",
    )
    excluded_planes: tuple[str, ...] = Field(
        ("BAD", "NO_DATA"), description="mask planes whose pixels cannot be part of an object"
    )
    smoothing: float = Field(
        5.0, gt=0, le=30, description="sigma of the Gaussian that images are smoothed with, pixel"
    )
    threshold: float = Field(
        2.5, gt=0, description="detection threshold, standard deviations of the smoothed image"
    )
    peak_threshold: float = Field(
        5.0,
        gt=0,
        description="detections that nowhere reach this many standard deviations stay unmasked: "
        "most are peaks of the noise, and masking these lowers the sky. The survey pipeline masks "
        "all, 2.5",
    )
    growth: int = Field(
        12, ge=0, le=250, description="radius of the disk that detections grow by, pixel"
    )
    border: Literal["detect", "mark"] = Field(
        "detect",
        description="detect: find objects up to the edge of the detector; mark: set EDGE where the "
        "smoothing reaches beyond it and find nothing there, as the survey pipeline does",
    )
    keep_detected: bool = Field(
        False, description="pixels that are DETECTED already stay so: deeper masks are kept"
    )


class ImputeObjectsParameters(Parameters):
    """How masked pixels are replaced, `impute_objects`."""

    method: Literal["model", "median"] = Field(
        "model",
        description="model: a smooth model of the other pixels, after which DETECTED is cleared; "
        "median: their median, DETECTED stays",
    )
    planes: tuple[str, ...] = Field(
        ("DETECTED", "BAD", "NO_DATA", "SAT"), description="mask planes whose pixels are replaced"
    )
    bin_size: int = Field(256, ge=8, description="size of the bins of the model, pixel")
