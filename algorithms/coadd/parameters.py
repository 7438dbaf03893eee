"""Parameters of coadds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters

__all__ = ["CoaddParameters", "Statistic"]

Statistic = Literal["mean", "clipped_mean"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class CoaddParameters(Parameters):
    """How warps become a coadd, `coadd` and `accumulate`."""

    statistic: Statistic = Field(
        "mean", description="weighted mean of the good values, or of those that clipping leaves"
    )
    clip: float = Field(3.0, gt=0, description="clip of the clipped mean, standard deviations")
    iterations: int = Field(2, ge=1, le=20, description="passes of the clipped mean")
    noise_clip: float | None = Field(
        None,
        gt=0,
        description="what limits the first pass of the clipped mean as well, standard deviations "
        "that the variances of the warps give: a few outliers among a few values hide behind the "
        "scatter they make",
    )
    error: Literal["input", "scatter"] = Field(
        "input",
        description="variance from those of the warps, or from the scatter of their values (NaN "
        "where one value is used)",
    )
    bad_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "SAT", "EDGE"), description="mask planes whose pixels are left out"
    )
    dropped_planes: tuple[str, ...] = Field(
        (), description="mask planes that are forgotten before anything else"
    )
    propagated: dict[str, Fraction] = Field(
        {"SAT": 0.1},
        description="planes that the coadd gets although their pixels are left out, where these "
        "have more than this fraction of the weight",
    )
    weight_clip: float = Field(
        3.0, gt=0, description="clip of the mean variance that gives a warp its weight, sigma"
    )
    weight_iterations: int = Field(2, ge=1, le=20, description="passes of the same")
