"""Light spread by the atmosphere: every source in as many places as it has wavelengths.

The spectrum of a source is one of a scene's optional variables: ``spectrum`` (source, wavelength),
photons per nm in any unit, with a coordinate ``wavelength`` (nm); else ``temperature`` (source), K,
of a black body; where both are NaN or absent, photons are spread evenly. The flux of a scene is
that of the whole pass-band, whatever the spectrum; it is found where astrometry says if it has the
reference wavelength, nearer to the zenith if it is bluer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.conditions import ObservingConditions, conditions_at, observing_conditions
from skyloom.algorithms.refraction import Weather, differential_refraction
from skyloom.algorithms.simulate.night_parameters import NightParameters, PassBand
from skyloom.algorithms.tangent_plane import TangentPlane

__all__ = [
    "Filter",
    "Light",
    "band_fractions",
    "black_body",
    "dispersed",
    "midpoints",
    "row_conditions",
    "source_spectra",
]

Floats = NDArray[np.float64]

WAVELENGTH: Final = "wavelength"
SECOND_RADIATION_CONSTANT: Final = 1.438776877e7
"""nm K."""
FINE: Final = 400
"""Wavelengths over which spectra are integrated."""


class Filter(Protocol):
    """What a filter lets pass: a `PassBand`, or a band of `skyloom.algorithms.dcr`."""

    @property
    def lambda_min(self) -> float:
        """Return the shortest wavelength, nm."""

    @property
    def lambda_max(self) -> float:
        """Return the longest wavelength, nm."""

    @property
    def throughput(self) -> tuple[tuple[float, float], ...]:
        """Return pairs of wavelength (nm) and throughput; none if it is flat."""


class Light(NamedTuple):
    """Sources in one or several wavelengths: ``x``, ``y`` (pixel), ``flux`` (…, source).

    ``widths`` are those of the point-spread function, relative to the seeing.
    """

    x: Floats
    y: Floats
    flux: Floats
    widths: Floats = np.ones(1)

    def parts(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Yield position and flux of all sources, wavelength by wavelength."""
        yield from zip(*(np.atleast_2d(each) for each in self[:3]), strict=True)


def black_body(wavelength: ArrayLike, temperature: ArrayLike) -> Floats:
    """Return the photons per nm of a black body, in any unit.

    Parameters
    ----------
    wavelength : array_like, nm
    temperature : array_like, K

    Examples
    --------
    >>> bluer = black_body([400.0, 550.0], 10000.0)
    >>> redder = black_body([400.0, 550.0], 4000.0)
    >>> bool(bluer[0] > bluer[1]), bool(redder[0] < redder[1])
    (True, True)
    """
    nm = np.asarray(wavelength, np.float64)
    exponent = SECOND_RADIATION_CONSTANT / (nm * np.asarray(temperature, np.float64))
    return np.asarray((500.0 / nm) ** 4 / np.expm1(exponent))


def source_spectra(scene: xr.Dataset, band: Filter, wavelengths: ArrayLike) -> Floats:
    """Return the photons per nm of each source behind a filter, in any unit of its own.

    Parameters
    ----------
    scene : Dataset, (source)
        See the module.
    band : PassBand or Band
        The filter.
    wavelengths : array_like, (n), nm

    Returns
    -------
    ndarray, (source, n)
    """
    nm = np.asarray(wavelengths, np.float64)
    spectra = np.ones((scene.sizes["source"], nm.size))
    if "temperature" in scene:
        temperature = scene["temperature"].to_numpy()
        known = np.isfinite(temperature)
        spectra[known] = black_body(nm, temperature[known, None])
    if "spectrum" in scene:
        given = scene["spectrum"].transpose("source", WAVELENGTH).to_numpy()
        at = scene[WAVELENGTH].to_numpy()
        for index in np.flatnonzero(np.isfinite(given).all(axis=1)):
            spectra[index] = np.interp(nm, at, given[index])
    if band.throughput:
        at, passed = np.transpose(band.throughput)
        spectra *= np.interp(nm, at, passed)
    return spectra


def band_fractions(scene: xr.Dataset, band: Filter, edges: Sequence[float]) -> xr.DataArray:
    """Return which part of the flux of each source lies between wavelengths: the truth of planes.

    Parameters
    ----------
    scene : Dataset, (source)
        See the module.
    band : PassBand or Band
        The filter.
    edges : sequence of float, (n + 1), nm
        Where sub-bands end.

    Returns
    -------
    DataArray, (source, subfilter)
        Their sum over the pass-band is 1.

    Examples
    --------
    >>> scene = xr.Dataset({"temperature": ("source", [np.nan, 10000.0])})
    >>> band = PassBand(lambda_min=400.0, lambda_max=550.0, lambda_ref=475.0)
    >>> band_fractions(scene, band, [400.0, 450.0, 500.0, 550.0]).values.round(3).tolist()
    [[0.333, 0.333, 0.333], [0.36, 0.335, 0.305]]
    """
    whole = midpoints(band.lambda_min, band.lambda_max, FINE)
    total = source_spectra(scene, band, whole).mean(axis=1) * (band.lambda_max - band.lambda_min)
    parts = [
        source_spectra(scene, band, midpoints(low, high, FINE)).mean(axis=1) * (high - low)
        for low, high in pairwise(edges)
    ]
    return xr.DataArray(np.stack(parts, axis=1) / total[:, None], dims=("source", "subfilter"))


def midpoints(low: float, high: float, number: int) -> Floats:
    """Return the middles of intervals of equal width.

    Examples
    --------
    >>> midpoints(400.0, 600.0, 2).tolist()
    [450.0, 550.0]
    """
    return low + (high - low) * (np.arange(number) + 0.5) / number


def row_conditions(row: xr.Dataset) -> ObservingConditions:
    """Return the conditions of one exposure of a plan at its boresight, at mid exposure.

    Raises
    ------
    ValueError
        If the plan was not scheduled.
    """
    site = row.attrs.get("site")
    if site is None or not np.isfinite(float(row["altitude"])):
        raise ValueError(
            f"exposure {int(row['exposure'])} has no altitude: only exposures of a plan that "
            "`schedule_plan` made can be dispersed"
        )
    return observing_conditions(
        float(row["mjd_start"]) + 0.5 * float(row["exposure_time"]) / 86400.0,
        float(row["right_ascension"]),
        float(row["declination"]),
        longitude=float(site["longitude"]),
        latitude=float(site["latitude"]),
        height=float(site["height"]),
        scale="utc",
        exposure_time=float(row["exposure_time"]),
        temperature=float(row["temperature"]),
        pressure=float(row["pressure"]),
        humidity=float(row["humidity"]),
    )


def dispersed(
    row: xr.Dataset,
    plane: TangentPlane,
    shape: tuple[int, int],
    scene: xr.Dataset,
    light: Light,
    band: PassBand,
    parameters: NightParameters,
) -> Light:
    """Return the light of sources in the wavelengths of a pass-band, at mid exposure.

    Altitude and parallactic angle are those at the centre of the image.
    """
    height, width = shape
    ra, dec = plane.to_sky(np.array([0.5 * (width - 1)]), np.array([0.5 * (height - 1)]))
    there = conditions_at(row_conditions(row), float(ra[0]), float(dec[0]))
    nm = midpoints(band.lambda_min, band.lambda_max, parameters.wavelengths)
    lifted = differential_refraction(
        nm,
        band.lambda_ref,
        there.altitude,
        Weather(there.temperature, there.pressure, there.humidity),
        latitude=there.latitude,
        height=there.height,
    )[:, None]
    angle = np.deg2rad(there.parallactic_angle)
    right, up = (scene[name].to_numpy() for name in ("right_ascension", "declination"))
    x, y = plane.to_pixels(
        right + lifted * np.sin(angle) / (3600.0 * np.cos(np.deg2rad(up))),
        up + lifted * np.cos(angle) / 3600.0,
    )
    spectra = source_spectra(scene, band, nm)
    parts = spectra / spectra.sum(axis=1, keepdims=True)
    widths = (nm / band.lambda_ref) ** parameters.chromatic_seeing
    return Light(x, y, parts.T * light.flux, widths)
