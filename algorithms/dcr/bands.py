"""Bands of filters and their division into sub-bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.refraction import WAVELENGTHS

__all__ = ["Band", "effective_wavelength", "subband_edges", "subband_places"]

Floats = NDArray[np.float64]

FINE: Final = 4001
"""Wavelengths over which throughput is integrated."""
FAINT: Final = 0.01
"""Throughput, over that of the peak, at which a band ends."""


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
    division: Literal["width", "throughput"] = Field(
        "width",
        description="sub-bands of equal width, or of equal throughput: equal parts of the photons "
        "of a flat spectrum",
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

    @classmethod
    def from_throughput(
        cls, name: str, wavelength: ArrayLike, throughput: ArrayLike, **more: Any
    ) -> Self:
        """Return the band of a measured band-pass, divided by its throughput.

        Parameters
        ----------
        name : str
        wavelength : array_like, nm
            Ascending.
        throughput : array_like
            In any unit; what is below 0, as noise makes it, counts as 0.
        **more
            Other fields. Without ``lambda_min`` and ``lambda_max`` the band ends where the
            throughput falls below 1 % of its peak for good; without ``lambda_ref`` it is the mean
            wavelength of the photons of a flat spectrum.

        Raises
        ------
        ValueError
            If the arrays are not of one length, not finite, or no light passes.

        Examples
        --------
        >>> at = [390.0, 400.0, 410.0, 540.0, 550.0, 560.0]
        >>> band = Band.from_throughput("g", at, [0.0, 0.0, 0.8, 0.8, 0.0, 0.0])
        >>> round(band.lambda_min, 1), round(band.lambda_max, 1), round(band.lambda_ref, 1)
        (400.1, 549.9, 475.0)
        """
        at, passed = np.asarray(wavelength, float), np.asarray(throughput, float)
        if at.ndim != 1 or at.shape != passed.shape or at.size < 2:
            raise ValueError(
                "wavelength and throughput must be of one length of at least 2, got "
                f"{at.shape} and {passed.shape}"
            )
        if not (np.isfinite(at).all() and np.isfinite(passed).all() and (np.diff(at) > 0).all()):
            raise ValueError("wavelength must ascend, and throughput be finite")
        passed = np.clip(passed, 0.0, None)
        if not passed.any():
            raise ValueError(f"throughput of {name} is nowhere above 0")
        level = FAINT * passed.max()
        first, last = np.flatnonzero(passed > level)[[0, -1]]
        low, high = at[first], at[last]
        if first > 0:
            low = np.interp(level, passed[first - 1 : first + 1], at[first - 1 : first + 1])
        if last < at.size - 1:
            falling = slice(last, last + 2)
            high = np.interp(level, passed[falling][::-1], at[falling][::-1])
        table = tuple(zip(at.tolist(), passed.tolist(), strict=True))
        values: dict[str, Any] = {
            "name": name, "lambda_min": float(low), "lambda_max": float(high),
            "throughput": table, "division": "throughput",
        } | more  # fmt: skip
        if "lambda_ref" not in values:
            middle = 0.5 * (values["lambda_min"] + values["lambda_max"])
            values["lambda_ref"] = effective_wavelength(cls(**values, lambda_ref=middle))
        return cls(**values)

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


def effective_wavelength(band: Band, spectrum: Callable[[Floats], Floats] | None = None) -> float:
    """Return the mean wavelength of the photons of a spectrum that a band lets pass, nm.

    Parameters
    ----------
    band : Band
    spectrum : callable, optional
        From wavelengths (nm) to photons per nm, in any unit; flat if not given.

    Examples
    --------
    >>> band = Band.from_effective("g", 476.31, 147.0)
    >>> round(effective_wavelength(band), 2)
    476.31
    >>> round(effective_wavelength(band, lambda nm: nm), 2)
    480.09
    """
    nm = np.linspace(band.lambda_min, band.lambda_max, FINE)
    photons = band.transmission(nm) * (1.0 if spectrum is None else spectrum(nm))
    return float(np.trapezoid(nm * photons, nm) / np.trapezoid(photons, nm))


def subband_edges(band: Band, subfilters: int) -> Floats:
    """Return the edges of the sub-bands of a band, nm, blue to red.

    They are of equal width, or of equal throughput, as the band says (``division``).

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
    if band.division == "width":
        return np.linspace(band.lambda_min, band.lambda_max, int(subfilters) + 1)
    nm, passed = _cumulative(band)
    edges = np.interp(np.linspace(0.0, 1.0, int(subfilters) + 1), passed, nm)
    edges[0], edges[-1] = band.lambda_min, band.lambda_max
    return edges


def subband_places(band: Band, wavelengths: Floats) -> Floats:
    """Return where wavelengths are in their sub-bands, from -1/2 to 1/2.

    Parameters
    ----------
    band : Band
    wavelengths : array, (subfilter, node), nm
        Of each sub-band.

    Returns
    -------
    ndarray, (subfilter, node)
        In parts of the width, or of the throughput, as the band is divided: in these, neighbouring
        sub-bands are equally far apart.

    Examples
    --------
    >>> band = Band.from_effective("g", 476.31, 147.0)
    >>> subband_places(band, np.array([[402.81, 427.31], [476.31, 500.81]])).round(3).tolist()
    [[-0.5, -0.167], [-0.5, -0.167]]
    """
    edges = subband_edges(band, len(wavelengths))
    if band.division == "throughput":
        nm, passed = _cumulative(band)
        wavelengths, edges = (np.interp(each, nm, passed) for each in (wavelengths, edges))
    low, high = edges[:-1, None], edges[1:, None]
    return np.asarray((wavelengths - (low + high) / 2.0) / (high - low))


def _cumulative(band: Band) -> tuple[Floats, Floats]:
    """Return wavelengths and the part of the throughput that lies below them."""
    nm = np.linspace(band.lambda_min, band.lambda_max, FINE)
    passed = band.transmission(nm)
    total = np.concatenate([[0.0], np.cumsum(passed[1:] + passed[:-1])])
    return nm, total / total[-1]
