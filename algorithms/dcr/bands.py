"""Bands of filters and their division into sub-bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.refraction import WAVELENGTHS

__all__ = ["Band", "subband_edges"]

Floats = NDArray[np.float64]


class Band(Parameters):
    """A band-pass: its limits, and the wavelength that astrometry refers to."""

    name: str = Field(description="name of the band")
    lambda_min: float = Field(description="shortest wavelength, nm")
    lambda_max: float = Field(description="longest wavelength, nm")
    lambda_ref: float = Field(
        description="wavelength whose place astrometry calls that of a source, nm: the mean one of "
        "the photons of the stars that the projection was fitted to"
    )
    throughput: tuple[tuple[float, float], ...] = Field(
        (), description="pairs of wavelength (nm, ascending) and throughput; flat if there are none"
    )
    extinction: tuple[tuple[float, float], ...] = Field(
        (),
        description="pairs of wavelength (nm, ascending) and extinction by the air, mag per "
        "airmass; alike at all wavelengths if there are none. Only the linear solution uses it",
    )
    extinction_airmass: float = Field(
        1.0, ge=0, description="airmass whose extinction the throughput has in it already"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = WAVELENGTHS
        for name in ("lambda_min", "lambda_max", "lambda_ref"):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} must be from {low} to {high} nm, got {getattr(self, name):g}"
                )
        if not self.lambda_min < self.lambda_max:
            raise ValueError(
                f"lambda_min must be below lambda_max, got {self.lambda_min:g} and "
                f"{self.lambda_max:g}"
            )
        table = np.array(self.throughput, float).reshape(-1, 2)
        if len(table) == 1 or (np.diff(table[:, 0]) <= 0).any() or (table[:, 1] < 0).any():
            raise ValueError(
                "throughput must be two or more pairs of an ascending wavelength and a number that "
                "is not negative"
            )
        air = np.array(self.extinction, float).reshape(-1, 2)
        if len(air) == 1 or (np.diff(air[:, 0]) <= 0).any() or (air[:, 1] < 0).any():
            raise ValueError(
                "extinction must be two or more pairs of an ascending wavelength and a number that "
                "is not negative"
            )
        if (
            len(table)
            and not self.transmission(np.linspace(self.lambda_min, self.lambda_max)).any()
        ):
            raise ValueError("throughput is 0 all over the band")
        return self

    @classmethod
    def from_effective(cls, name: str, wavelength: float, width: float, **more: Any) -> Self:
        """Return a band of some width about an effective wavelength, which is its reference too.

        Examples
        --------
        >>> band = Band.from_effective("g", 476.31, 147.0)
        >>> round(band.lambda_min, 2), round(band.lambda_max, 2), band.lambda_ref
        (402.81, 549.81, 476.31)
        """
        half = width / 2.0
        values: Mapping[str, Any] = {"lambda_ref": wavelength} | more
        return cls(name=name, lambda_min=wavelength - half, lambda_max=wavelength + half, **values)

    def transmission(self, wavelength: Any) -> Floats:
        """Return the throughput at wavelengths (nm), linear between those given.

        Examples
        --------
        >>> Band.from_effective("g", 476.31, 147.0).transmission([450.0, 500.0]).tolist()
        [1.0, 1.0]
        """
        at = np.asarray(wavelength, float)
        if not self.throughput:
            return np.ones_like(at)
        table = np.array(self.throughput, float)
        return np.asarray(np.interp(at, table[:, 0], table[:, 1]))


def subband_edges(band: Band, subfilters: int) -> Floats:
    """Return the edges of sub-bands of equal width, nm, blue to red.

    Parameters
    ----------
    band : Band
    subfilters : int
        Number N of sub-bands.

    Returns
    -------
    ndarray, (N + 1,)

    Raises
    ------
    ValueError
        If there is not at least one sub-band.

    Examples
    --------
    >>> subband_edges(Band.from_effective("g", 476.31, 147.0), 3).round(2).tolist()
    [402.81, 451.81, 500.81, 549.81]
    """
    if isinstance(subfilters, bool) or int(subfilters) != subfilters or subfilters < 1:
        raise ValueError(f"subfilters must be an integer of at least 1, got {subfilters!r}")
    return np.linspace(band.lambda_min, band.lambda_max, int(subfilters) + 1)
