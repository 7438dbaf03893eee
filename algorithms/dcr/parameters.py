"""Parameters of the solution for sub-bands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.dcr.operator import InBand
from skyloom.algorithms.parameters import Parameters

__all__ = ["LinearParameters"]


class LinearParameters(Parameters):
    """How the linear problem of sub-bands is solved, `solve_dcr`."""

    solver: Literal["linear"] = Field("linear", description="how: by weighted least squares")
    subfilters: int = Field(3, ge=1, le=16, description="number of sub-bands")
    in_band: InBand = Field(
        "linear",
        description="spectrum inside a sub-band: linear, from its neighbours, or flat",
    )
    match_seeing: bool = Field(
        True, description="whether the PSFs of the visits, where known, are part of the model"
    )
    chromatic_seeing: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="power of the wavelength that the FWHM of stars follows: -0.2 in turbulent "
        "air; 0 if it does not depend on it",
    )
    curvature: float = Field(
        0.03, ge=0, description="prior on the curvature of spectra over the weight of the data"
    )
    slope: float = Field(
        3e-4, ge=0, description="prior on the slope of spectra over the weight of the data"
    )
    adherence: float | None = Field(
        None,
        ge=0,
        description="prior on the difference to the coadd over the weight of the data; if not "
        "given 1e-5, or 1e-4 if no pixel has a signal to noise of 100 in a visit",
    )
    taper: float = Field(
        0.1,
        ge=0,
        description="prior on the difference to the coadd far from sources over the weight of the "
        "data",
    )
    taper_floor: float = Field(
        1e-6, gt=0, description="the same at sources; it keeps the problem positive"
    )
    tolerance: float = Field(1e-4, gt=0, description="relative residual at which to stop")
    max_iterations: int = Field(60, ge=1, description="most iterations")
    reject_threshold: float = Field(
        7.5, gt=0, description="deviation of a pixel of few visits that is rejected, sigma"
    )
    reject_rounds: int = Field(1, ge=0, description="rounds of rejection")
    match_flux: bool = Field(
        True,
        description="whether visits whose sources are all too bright or too faint are scaled to "
        "the others",
    )
    outlier_factor: float = Field(
        3.0,
        gt=1,
        description="chi2 of a visit over the median of all at which it disagrees with them",
    )
    max_offset: float = Field(
        3.0,
        ge=0,
        description="largest offset that is fitted to a visit that disagrees, pixel; it is left "
        "out if it disagrees still, or at once if this is 0",
    )
    chi2_limit: float = Field(
        5.0, gt=1, description="chi2 per pixel at sources above which the fit is called bad"
    )
    reject_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "SAT", "COSMIC_RAY", "CLIPPED", "REJECTED"),
        description="mask planes of warps whose pixels do not count",
    )
    margin: int | None = Field(
        None, ge=0, description="pixels around the patch; from shifts if not given"
    )
    memory: float = Field(
        2.5,
        ge=0,
        description="weights and images of visits that are kept in memory, GB; what has no room "
        "is read again, weights in every iteration",
    )
