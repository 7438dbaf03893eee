"""Parameters of the iterative solution for sub-bands."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from skyloom.algorithms.parameters import Parameters

__all__ = ["IterativeParameters"]


class IterativeParameters(Parameters):
    """How sub-bands are iterated to, `solve_iterative`."""

    solver: Literal["iterative"] = Field("iterative", description="how: by iteration")
    subfilters: int = Field(3, ge=1, le=16, description="number of sub-bands")
    max_iterations: int | None = Field(
        None, ge=1, description="most iterations; 3 times the number of sub-bands if not given"
    )
    min_iterations: int | None = Field(
        None, ge=0, description="least iterations; the number of sub-bands if not given"
    )
    convergence_threshold: float = Field(
        0.001, ge=0, description="relative improvement of the convergence below which to stop"
    )
    use_convergence: bool = Field(
        True, description="stop on convergence; all iterations are made if not"
    )
    base_gain: float | None = Field(
        None, gt=0, description="weight of a new solution over the old; 1 / (N - 1) if not given"
    )
    progressive_gain: bool = Field(True, description="let the gain follow the convergence")
    airmass_weight: bool = Field(False, description="weigh visits by their airmass too")
    use_model_weights: bool = Field(
        True, description="let the planes go over into equal parts of the coadd far from sources"
    )
    model_weights_width: float = Field(3.0, ge=0, description="sigma of that transition, pixel")
    split_subfilters: bool = Field(True, description="shift each half of a sub-band by itself")
    split_threshold: float = Field(
        0.1, ge=0, description="difference of the shifts of halves from which on they are, pixel"
    )
    clamp_iteration: float = Field(
        2.0, ge=0, description="largest change of a plane in an iteration, as a ratio; 0 is off"
    )
    clamp_frequency: float = Field(
        4.0, ge=0, description="largest ratio between planes before amplification; 0 is off"
    )
    clamp_width: int = Field(2, ge=1, description="radius of the smallest region clamped, pixel")
    order: Literal[1, 3, 5] = Field(3, description="order of the splines that shift images")
    accelerate: float = Field(3.0, gt=0, description="amplification of differences between planes")
    convergence_planes: tuple[str, ...] = Field(
        ("DETECTED",),
        min_length=1,
        description="mask planes of the coadd whose pixels say whether planes converge",
    )
    measure_psf: bool = Field(
        False,
        description="measure the PSF on the sum of planes; else, or with too few stars, it is the "
        "mean of those of the sharper visits",
    )
    reject_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "SAT", "COSMIC_RAY", "CLIPPED", "REJECTED"),
        description="mask planes of warps whose pixels do not count",
    )
    tile: int = Field(2000, ge=16, description="side of a tile, pixel")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(
                f"min_iterations must not be above max_iterations, got {self.least} and {self.most}"
            )
        return self

    @property
    def most(self) -> int:
        """Return the largest number of iterations."""
        return self.max_iterations or 3 * self.subfilters

    @property
    def least(self) -> int:
        """Return the smallest number of iterations."""
        return (
            min(self.subfilters, self.most)
            if self.min_iterations is None
            else (self.min_iterations)
        )

    @property
    def gain(self) -> float:
        """Return the gain that iterations begin with."""
        if self.base_gain is not None:
            return self.base_gain
        return 1.0 / (self.subfilters - 1) if self.subfilters > 1 else 1.0
