"""The parameters of background matching."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.parameters import Parameters

__all__ = ["MatchParameters", "SelectionParameters"]


class SelectionParameters(Parameters):
    """How the reference visit is chosen, `choose_reference_visit`."""

    coverage: float = Field(0.4, ge=0, description="weight of the fraction of the tract covered")
    complexity: float = Field(0.3, ge=0, description="weight of the misfit of a plane")
    noise: float = Field(0.3, ge=0, description="weight of the noise of bins")
    conditions: float = Field(
        0.0, ge=0, description="weight of each condition given (seeing, airmass, moonlight)"
    )
    min_coverage: float = Field(
        0.5, ge=0, le=1, description="least coverage, as a fraction of the largest"
    )
    mode: Literal["measured", "compat"] = Field(
        "measured",
        description="ranks on measured bins, or compat: costs as the LSST Science Pipelines",
    )

    @model_validator(mode="after")
    def _some_weight(self) -> SelectionParameters:
        if not self.coverage + self.complexity + self.noise + self.conditions > 0:
            raise ValueError("all weights are zero: at least one must be positive")
        return self


class MatchParameters(Parameters):
    """How visits are matched, `match_backgrounds`."""

    mode: Literal["joint", "reference", "reference_bins"] = Field(
        "joint",
        description="all visits at once, each to a reference visit by a smooth field, or each to "
        "it bin by bin",
    )
    basis: Literal["polynomial", "spline"] = Field("polynomial", description="fields of visits")
    order: int = Field(1, ge=0, le=12, description="of polynomials: 0 a level, 1 a plane")
    knots: tuple[int, int] = Field((8, 8), description="splines along y and x, at least 4 each")
    gauge: Literal["mean", "reference", "absolute"] = Field(
        "mean",
        description="common field that matching cannot know: their mean is zero, that of the "
        "reference visit is zero, or they agree in the mean with fits to each visit alone",
    )
    gauge_weights: Literal["equal", "inverse_variance"] = Field(
        "equal", description="weights of visits in the mean of fields"
    )
    reference_visit: int | None = Field(
        None, description="reference visit; chosen by choose_reference_visit by default"
    )
    selection: SelectionParameters = Field(
        SelectionParameters(), description="how a reference visit is chosen"
    )
    scatter: float = Field(
        0.0, ge=0, description="scatter of levels beyond their variances, unit of the levels"
    )
    robust: bool = Field(True, description="give outlying bins less weight")
    huber: float = Field(2.5, gt=0, description="where weights begin to fall, standard deviations")
    cut: float = Field(25.0, gt=0, description="beyond which bins have none, standard deviations")
    sweeps: int = Field(12, ge=1, description="most sweeps of reweighting")
    tolerance: float = Field(
        0.02, gt=0, description="change of fields at which sweeps end, standard deviations"
    )
    smoothing: Literal["gcv", "evidence"] | float = Field(
        "gcv", description="prior on second differences of splines, 1/unit²: chosen, or a number"
    )
    slope_prior: Literal["auto", "none"] | float = Field(
        "auto",
        description="standard deviation of all terms of polynomials but the level, unit; auto: "
        "from the levels themselves, where overlaps hardly determine them",
    )
    on_degenerate: Literal["reduce", "raise"] = Field(
        "reduce", description="lower the basis of visits that overlaps do not determine, or raise"
    )
    require_connected: bool = Field(False, description="raise if visits fall apart into groups")
    dense_limit: int = Field(
        6000, ge=1, description="number of unknowns above which conjugate gradients solve"
    )
    rescale_errors: bool = Field(True, description="enlarge errors by chi²/dof where above 1")
    interpolation: Style = Field(
        "akima", description="of offsets bin by bin, in the mode reference_bins"
    )
    extrapolate: bool = Field(
        False, description="fill offsets bin by bin where a visit and the reference do not overlap"
    )

    @model_validator(mode="after")
    def _numbers(self) -> MatchParameters:
        if min(self.knots) < 4:
            raise ValueError(f"knots must be >= 4 along each axis, got {self.knots}")
        for name in ("smoothing", "slope_prior"):
            value = getattr(self, name)
            if isinstance(value, float) and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
        if self.cut <= self.huber:
            raise ValueError(f"cut must exceed huber, got {self.cut} and {self.huber}")
        return self
