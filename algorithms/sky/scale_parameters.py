"""Parameters of sky samples and of the fit of a scale to them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky.m_estimator import RobustOptions

__all__ = ["SAMPLE_IGNORED_PLANES", "MeasureScaleParameters", "SolveScaleParameters"]

SAMPLE_IGNORED_PLANES = ("SAT", "DETECTED", "DETECTED_NEGATIVE", "BAD", "NO_DATA")
"""Mask planes whose pixels no sample uses unless told otherwise."""

FEWEST_SAMPLES, MOST_SAMPLES = 4, 16
SMALLEST_SAMPLE = 32  # pixels
CUTS = {"tukey": 6.0, "huber": 2.5, "none": 1.0}


class MeasureScaleParameters(Parameters):
    """How exposure and sky frame are sampled, `measure_scale`."""

    mode: Literal["exact", "compat"] = Field(
        "exact",
        description="exact: the template is averaged over the pixels that the image's statistic "
        "used; compat: it is clipped on its own over all pixels, as the survey pipeline does",
    )
    samples: tuple[int, int] | None = Field(
        None,
        description="samples along y and x of a detector, never more than pixels; None: 16, fewer "
        "where they would be smaller than 32 pixels, and 4 in the compatible mode",
    )
    clip: float = Field(3.0, gt=0, description="clip of a sample, standard deviations")
    iterations: int = Field(3, ge=1, description="clip passes of a sample")
    ignored_planes: tuple[str, ...] = Field(
        SAMPLE_IGNORED_PLANES, description="mask planes whose pixels are left out"
    )
    interpolation: Style = Field(
        "natural_spline", description="interpolation between the bins of the sky frame"
    )
    noise_correlation: float = Field(
        1.0,
        ge=1,
        description="variance of the mean of many pixels over that of independent ones, >= 1",
    )

    def cells(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the number of samples along each axis of an image.

        Few samples waste what the pattern tells inside each of them: with a pattern of up to three
        cycles per detector, 4 x 4 samples make the error of the scale half again as large as the
        pixels allow, 8 x 8 an eighth larger, 16 x 16 a twentieth.

        Examples
        --------
        >>> MeasureScaleParameters().cells((4096, 300))
        (16, 9)
        """
        if self.samples is not None:
            wanted = self.samples
        elif self.mode == "compat":
            wanted = FEWEST_SAMPLES, FEWEST_SAMPLES
        else:
            most = [min(size // SMALLEST_SAMPLE, MOST_SAMPLES) for size in shape]
            wanted = max(most[0], FEWEST_SAMPLES), max(most[1], FEWEST_SAMPLES)
        return min(wanted[0], shape[0]), min(wanted[1], shape[1])


class SolveScaleParameters(Parameters):
    """How the scale of a sky frame is fitted to the samples of a focal plane, `solve_scales`."""

    mode: Literal["joint", "compat"] = Field(
        "joint",
        description="joint: weighted robust fit together with smooth functions; compat: through "
        "the origin with equal weights and permanent rejection, as the survey pipeline does",
    )
    order: int | None = Field(
        1,
        ge=0,
        le=12,
        description="order of the smooth sky over the focal plane that is fitted with the scale; "
        "None: through the origin",
    )
    steps: Literal["none", "detector", "type"] = Field(
        "none", description="offsets fitted besides: of each detector, or of each detector type"
    )
    step_sigma: float | None = Field(
        None, gt=0, description="expected size of the offsets, image units; None: any size"
    )
    weights: Literal["inverse_variance", "equal"] = Field(
        "inverse_variance", description="weight of a sample"
    )
    template_noise: bool = Field(
        True, description="correct the scale for the noise of the sky frame, which lowers it"
    )
    loss: Literal["tukey", "huber", "none"] = Field(
        "tukey", description="tukey: far outliers do not pull; huber: they pull weakly; none"
    )
    cut: float | None = Field(
        None,
        gt=0,
        description="residual in sigma from which a sample pulls less (huber, default 2.5) or not "
        "at all (tukey, default 6)",
    )
    asymmetry: float = Field(
        1.0,
        ge=1,
        description="positive residuals, which sources leave, count this many times; above 1 the "
        "errors hold no longer exactly",
    )
    extra_scatter: bool = Field(
        True, description="estimate the scatter that the variances do not explain, and add it"
    )
    iterations: int = Field(20, ge=1, description="most solutions of the robust fit")
    tolerance: float = Field(1e-3, gt=0, description="last change of the scale, in its sigma")
    largest_collinearity: float = Field(
        0.999,
        gt=0,
        lt=1,
        description="part of the sky frame's variance that the smooth functions may explain",
    )
    on_degenerate: Literal["prior", "raise"] = Field(
        "prior",
        description="what to do beyond it: take the scale from the level of the sky, flagged, or "
        "raise",
    )
    prior_sigma: float = Field(
        0.3, gt=0, description="sigma of the scale that the prior expects, as a part of the level"
    )
    minimum_samples: int = Field(
        8, ge=1, description="fewer samples used are flagged as too few to be robust"
    )
    compat_iterations: int = Field(3, ge=0, description="compat: rounds of rejection")
    compat_rejection: float = Field(
        3.0, gt=0, description="compat: rejection, standard deviations from the interquartile range"
    )

    def robust_options(self) -> RobustOptions:
        """Return what the robust fit needs of these."""
        return RobustOptions(
            loss=self.loss,
            cut=CUTS[self.loss] if self.cut is None else self.cut,
            asymmetry=self.asymmetry,
            extra_scatter=self.extra_scatter,
            template_noise=self.template_noise,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
