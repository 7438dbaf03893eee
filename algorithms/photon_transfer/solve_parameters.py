"""Parameters of the solve, one group for each of its steps."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from skyloom.algorithms.parameters import Parameters

__all__ = [
    "ALL_AMPS",
    "LinearityParameters",
    "LongRangeParameters",
    "RolloffParameters",
    "SolveParameters",
    "TurnoffParameters",
]

ALL_AMPS: Final = "ALL_AMPS"

PerAmplifier = dict[str, float]


class TurnoffParameters(Parameters):
    """How outliers and the turn-off are found on the variance curve of each amplifier."""

    mode: Literal["robust", "legacy"] = Field(
        "robust",
        description="robust: grow a window upward from low signal; legacy: the decisions of the "
        "survey pipeline, for comparison with its products",
    )
    cut: float = Field(
        5.0,
        gt=0,
        description="rejection threshold, in sigma (robust) or in sqrt(variance) units (legacy)",
    )
    fraction: float = Field(
        0.003,
        ge=0,
        description="robust: relative error of the model, added to the statistical error; it, "
        "not the noise, decides where the turn-off lies. With relative weights it is the least "
        "value of the scatter measured at low signal",
    )
    noise_fraction: float = Field(
        0.1,
        ge=0,
        description="robust: relative change of the read noise (electron2) from pair to pair that "
        "does not make an outlier",
    )
    huber: float = Field(
        2.0, gt=0, description="robust: residual in sigma beyond which a point pulls less"
    )
    start_fraction: float = Field(
        0.2,
        gt=0,
        le=1,
        description="robust: the window starts with the means below this fraction of the largest, "
        "or with the lowest few levels if these reach no further than half of it",
    )
    minimum_points: int = Field(
        5,
        ge=3,
        description="robust: fewest points in the first window; it is widened until it holds as "
        "many levels of signal, or at least 3",
    )
    iterations: int = Field(
        2, ge=0, description="legacy: rounds of outlier rejection; 0 fits once and rejects nothing"
    )
    first_signal: float = Field(
        50000.0, gt=0, description="legacy: largest signal of the first fit, electron"
    )
    largest_jump: float = Field(
        9000.0,
        gt=0,
        description="legacy: a wider gap after a rejected point ends the curve, electron",
    )
    scale_by_gain: bool = Field(
        True, description="legacy: divide both signals by the median mean/variance; False: adu"
    )


class RolloffParameters(Parameters):
    """Where the variance leaves the model just above the turn-off."""

    enabled: bool = Field(False, description="fit the roll-off and cut the curve there")
    fraction: float = Field(
        0.01, gt=0, description="largest relative difference that the roll-off may make"
    )
    reach: float = Field(5000.0, gt=0, description="points are added this far above it, adu")


class LongRangeParameters(Parameters):
    """A polynomial in lag, fitted outside the core and subtracted from every covariance."""

    enabled: bool = Field(False, description="subtract long-range covariances")
    start: int = Field(4, ge=1, description="lags below this on both axes are the core")
    degree: int = Field(1, ge=0, description="degree of the polynomial on each axis")


class LinearityParameters(Parameters):
    """Pairs whose mean does not follow the light they received."""

    against: Literal["none", "photo_charge", "exposure_time"] = Field(
        "none", description="what the mean is compared with"
    )
    tolerance: float = Field(
        0.01, gt=0, description="largest relative deviation from the neighbours in signal"
    )
    neighbours: int = Field(5, ge=2, description="neighbours on each side whose median counts")


class SolveParameters(Parameters):
    """Everything that decides the result of `solve`."""

    model: Literal["exact", "exact_b", "series4", "series4_no_b", "exp00", "linear"] = Field(
        "exact",
        description="exact: closed form; exact_b: with drift b; series4: equation 20 of Astier et "
        "al. 2019; series4_no_b: without b; exp00: equation 16, the variance alone; linear: the "
        "variance alone, proportional to the signal, as camera standards have it",
    )
    lags: int | None = Field(
        None, ge=1, description="lags that are fitted on each axis; None: all that were measured"
    )
    minimum_mean: float | PerAmplifier = Field(
        0.0,
        description="smallest mean used, adu; or a mapping from amplifier, ALL_AMPS overrides all",
    )
    maximum_mean: float | PerAmplifier = Field(
        1e6, description="largest mean used, adu; or a mapping from amplifier, as minimum_mean"
    )
    minimum_ks_p: float = Field(
        0.01, ge=0, le=1, description="smallest p-value of the Kolmogorov-Smirnov test"
    )
    weights: Literal["statistical", "relative"] = Field(
        "statistical",
        description="statistical: from pixel counts or measured sigmas; relative: every pair has "
        "the same relative error, which is estimated from the scatter around the model",
    )
    reweightings: int = Field(
        2, ge=1, description="fits, each weighted by the variance that the last model predicts"
    )
    iterations: int = Field(50, ge=1, description="most steps of one fit")
    noise_mismatch: float = Field(
        0.05,
        gt=0,
        description="relative difference of fitted and measured read noise that is flagged, if it "
        "is also beyond 3 sigma",
    )
    turnoff: TurnoffParameters = Field(TurnoffParameters(), description="outliers and turn-off")
    rolloff: RolloffParameters = Field(RolloffParameters(), description="roll-off")
    long_range: LongRangeParameters = Field(
        LongRangeParameters(), description="long-range covariances"
    )
    linearity: LinearityParameters = Field(LinearityParameters(), description="linearity check")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> SolveParameters:
        low, high = self.minimum_mean, self.maximum_mean
        if isinstance(low, float) and isinstance(high, float) and not low < high:
            raise ValueError(f"minimum_mean {low} adu is not below maximum_mean {high} adu")
        return self
