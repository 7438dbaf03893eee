"""The parameters of the bins of warps on a tract."""

from __future__ import annotations

from pydantic import Field

from skyloom.algorithms.background.binning import Statistic, VarianceFrom
from skyloom.algorithms.parameters import Parameters

__all__ = ["TRACT_REJECTED_PLANES", "TractBackgroundParameters"]

TRACT_REJECTED_PLANES = ("NO_DATA", "SAT", "BAD", "EDGE", "COSMIC_RAY", "SUSPECT")
"""Mask planes whose pixels no bin of a tract uses unless told otherwise.

Objects stay: with the same sources in every visit they drop out of differences.
"""


class TractBackgroundParameters(Parameters):
    """How the pixels of warps become levels of bins."""

    statistic: Statistic = Field("meanclip", description="level of a bin: meanclip, mean, median")
    clip: float = Field(3.0, gt=0, description="clip of meanclip, standard deviations")
    iterations: int = Field(3, ge=1, description="clip passes of meanclip")
    reject: tuple[str, ...] = Field(
        TRACT_REJECTED_PLANES, description="mask planes whose pixels are left out"
    )
    min_fraction: float = Field(
        0.1, ge=0, le=1, description="bins with less of their area valid are flagged LOW_COUNT"
    )
    debias: bool = Field(
        True, description="undo what clipping takes from the variance of a Gaussian"
    )
    noise_correlation: float | None = Field(
        None,
        ge=1,
        description="factor on the variance of levels, the sum over lags of the autocorrelation of "
        "the pixel noise; that in the attributes of a warp, or 1, by default",
    )
    variance_from: VarianceFrom = Field(
        "scatter",
        description="variance of a level from the scatter of its pixels, their input variances, or "
        "input_correlated: those of fully correlated pixels",
    )
