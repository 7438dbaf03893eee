"""Parameters of flat statistics and of the separation of exposures from detectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters

__all__ = ["FLAT_IGNORED_PLANES", "FlatScaleParameters", "FlatStatisticsParameters", "Gauge"]

FLAT_IGNORED_PLANES = ("DETECTED", "BAD", "NO_DATA", "SAT")
"""Mask planes whose pixels no statistic of a flat uses unless told otherwise."""

Gauge = Literal["counts", "equal", "median", "reference"]


class FlatStatisticsParameters(Parameters):
    """How the level of a flat is measured, `measure_flat`."""

    clip: float = Field(3.0, gt=0, description="clip, standard deviations")
    iterations: int = Field(3, ge=1, description="clip passes")
    ignored_planes: tuple[str, ...] = Field(
        FLAT_IGNORED_PLANES, description="mask planes whose pixels are left out"
    )
    edge: int = Field(
        0, ge=0, description="pixels at each edge of the detector that are left out, pixel"
    )


class FlatScaleParameters(Parameters):
    """How levels are split into a scale per exposure and one per detector, `solve_flat_scales`."""

    method: Literal["wls", "alternating"] = Field(
        "wls",
        description="wls: weighted least squares in closed form; alternating: means over detectors "
        "and exposures in turn until they stay, as the survey pipeline does",
    )
    weights: Literal["variance", "counts", "uniform"] = Field(
        "variance",
        description="weight of a level: its inverse variance, its number of pixels, or the same "
        "for all",
    )
    systematic: float | None = Field(
        1e-3,
        ge=0,
        description="scatter of levels beyond their noise, as a part of the level; None: from the "
        "residuals",
    )
    gauge: Gauge = Field(
        "counts",
        description="what makes detector scales relative: their mean weighted by pixels is 1, "
        "their plain mean is 1, their median is 1, or one reference detector is 1",
    )
    reference: str | int | tuple[str | int, ...] | None = Field(
        None,
        description="the reference detector, or (detector, amplifier), of gauge `reference`",
    )
    outliers: Literal["reject", "huber", "none"] = Field(
        "reject",
        description="reject: levels beyond `cut` do not count; huber: they pull weakly; none",
    )
    transition: float = Field(
        2.5, gt=0, description="residual from which a level pulls less than its weight, sigma"
    )
    cut: float = Field(5.0, gt=0, description="residual from which a level is an outlier, sigma")
    largest_outlier_fraction: float = Field(
        0.3,
        gt=0,
        le=1,
        description="exposures with a larger part of outliers are left out as a whole",
    )
    gradient_order: Literal[0, 1, 2] = Field(
        0,
        description="illumination of each exposure: 0 uniform, 1 with a plane, 2 and a parabola "
        "about the centre",
    )
    gradient_prior: float = Field(
        0.1,
        gt=0,
        description="largest expected change of illumination from centre to edge, as a part of "
        "it; holds gradients of exposures with few detectors",
    )
    on_disconnected: Literal["raise", "per_component"] = Field(
        "raise",
        description="sets of detectors without a common exposure: an error, or scales relative "
        "within each set",
    )
    smallest_link_strength: float = Field(
        0.05, ge=0, le=1, description="weaker links between sets of detectors are warned of"
    )
    tolerance: float = Field(
        1e-10, gt=0, description="alternating: largest change of a log scale in the last iteration"
    )
    iterations: int = Field(10_000, ge=1, description="alternating: most iterations")
