"""Refraction by the atmosphere: how far light of each wavelength is lifted, and which way.

Angles are degrees, wavelengths nm, results arcsec. All functions take numbers, arrays and
DataArrays and broadcast them. A positive refraction brings a source closer to the zenith; blue
light is lifted more than red.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = [
    "ALTITUDES",
    "DefaultWeatherWarning",
    "LowAltitudeWarning",
    "Weather",
    "complete_weather",
    "default_weather",
    "differential_refraction",
    "parallactic_angle",
    "refraction",
    "refractivity",
    "usual_pressure",
    "vapour_pressure",
    "zenith_direction",
]

Numbers: TypeAlias = float | NDArray[np.float64] | xr.DataArray
"""A number, an array or a DataArray."""

WAVELENGTHS: Final = (230.2, 2058.6)
"""Shortest and longest wavelength (nm) that the refractivity holds for."""
_KELVIN: Final = 273.15
_ARCSEC: Final = math.degrees(1.0) * 3600.0
ALTITUDES: Final = (5.0, 90.0)
"""Lowest and highest altitude (degree) that refraction is computed for."""
_DOUBTFUL_ALTITUDE: Final = 15.0
_AT_ZENITH: Final = 1e-6


class DefaultWeatherWarning(UserWarning):
    """Weather that was not recorded was replaced by the usual weather of the height."""


class LowAltitudeWarning(UserWarning):
    """A source is so low that its refraction is not well known."""


class Weather(NamedTuple):
    """Air at the observatory: ``temperature`` (Celsius), ``pressure`` (Pa), ``humidity`` (%)."""

    temperature: Numbers
    pressure: Numbers
    humidity: Numbers


def default_weather(height: float) -> Weather:
    """Return the usual weather at a height above sea level.

    Parameters
    ----------
    height : float, m
        Height of the observatory.

    Examples
    --------
    >>> temperature, pressure, humidity = default_weather(2663.0)
    >>> round(temperature, 4), round(pressure, 1), humidity
    (1.6905, 72771.4, 40.0)
    """
    temperature = 19.0 - 0.0065 * height
    return Weather(temperature, usual_pressure(temperature, height), 40.0)


def usual_pressure(temperature: float, height: float) -> float:
    """Return the usual air pressure (Pa) at a temperature (Celsius) and height (m).

    Examples
    --------
    >>> round(usual_pressure(1.6905, 2663.0), 1)
    72771.4
    """
    scale = 8.31447 * (temperature + _KELVIN) / (9.80665 * 0.0289644)
    return 101325.0 * math.exp(-height / scale)


def complete_weather(
    temperature: float, pressure: float, humidity: float, height: float
) -> tuple[Weather, tuple[str, ...]]:
    """Return the weather with what is not finite replaced, and the names of what was.

    Parameters
    ----------
    temperature : float, Celsius
    pressure : float, Pa
    humidity : float, %
        As recorded; NaN where they were not.
    height : float, m
        Height of the observatory.

    Warns
    -----
    DefaultWeatherWarning
        If something was replaced: the measured weather matters by 5 % of the dispersion.

    Examples
    --------
    >>> weather, replaced = complete_weather(8.0, 73892.0, 30.0, 2663.0)
    >>> weather.temperature, replaced
    (8.0, ())
    """
    usual = default_weather(height)
    given = Weather(temperature, pressure, humidity)
    replaced = tuple(
        name for name, value in zip(Weather._fields, given, strict=True) if not np.isfinite(value)
    )
    if "pressure" in replaced and "temperature" not in replaced:
        # The pressure depends on the temperature, which is known.
        usual = usual._replace(pressure=usual_pressure(temperature, height))
    if replaced:
        warnings.warn(
            f"{', '.join(replaced)} not recorded: the usual values at {height:.0f} m are used",
            DefaultWeatherWarning,
            stacklevel=2,
        )
    return given._replace(**{name: getattr(usual, name) for name in replaced}), replaced


def vapour_pressure(temperature: Any, humidity: Any) -> Any:
    """Return the partial pressure of water vapour (Buck 1981).

    Parameters
    ----------
    temperature : number or array, Celsius
    humidity : number or array, %
        Relative humidity.

    Returns
    -------
    number or array, Pa

    Examples
    --------
    >>> round(float(vapour_pressure(20.0, 40.0)), 1), float(vapour_pressure(20.0, 0.0))
    (935.3, 0.0)
    """
    saturated = 611.21 * np.exp(
        (18.678 - temperature / 234.5) * temperature / (257.14 + temperature)
    )
    return humidity / 100.0 * saturated


def refractivity(wavelength: Any, weather: Weather, *, vapour: Any = None) -> Any:
    """Return the index of refraction of air less one (Owens 1967, as in Stone 1996, eq. 14-20).

    Parameters
    ----------
    wavelength : number or array, nm
        In vacuum, 230.2 to 2058.6.
    weather : Weather
        The air.
    vapour : number or array, optional, Pa
        Partial pressure of water vapour in place of the humidity.

    Raises
    ------
    ValueError
        If a wavelength is outside, or temperature or pressure cannot be.

    Examples
    --------
    >>> f"{float(refractivity(500.0, Weather(20.0, 73892.0, 40.0))):.4e}"
    '1.9955e-04'
    """
    low, high = WAVELENGTHS
    outside = ~((np.asarray(wavelength) >= low) & (np.asarray(wavelength) <= high))
    if outside.any():
        first = np.asarray(wavelength, float)[outside].flat[0]
        raise ValueError(f"wavelength must be from {low} to {high} nm, got {first:g}")
    kelvin = weather.temperature + _KELVIN
    if not (np.all(np.asarray(kelvin) > 0) and np.all(np.asarray(weather.pressure) >= 0)):
        raise ValueError(
            "temperature must be above -273.15 Celsius and pressure not negative, got "
            f"{weather.temperature} Celsius, {weather.pressure} Pa"
        )
    water = vapour_pressure(weather.temperature, weather.humidity) if vapour is None else vapour
    dry, wet = (weather.pressure - water) / 100.0, water / 100.0
    dry_density = dry / kelvin * (1.0 + dry * (57.90e-8 - 9.3250e-4 / kelvin + 0.25844 / kelvin**2))
    wet_density = (
        wet
        / kelvin
        * (
            1.0
            + wet
            * (1.0 + 3.7e-4 * wet)
            * (-2.37321e-3 + 2.23366 / kelvin - 710.792 / kelvin**2 + 7.75141e4 / kelvin**3)
        )
    )
    squared = (1000.0 / wavelength) ** 2
    of_dry = 2371.34 + 683939.7 / (130.0 - squared) + 4547.3 / (38.9 - squared)
    of_wet = 6487.31 + squared * (58.058 + squared * (-0.71150 + squared * 0.08851))
    return 1e-8 * (dry_density * of_dry + wet_density * of_wet)


def refraction(
    wavelength: Any,
    altitude: Any,
    weather: Weather,
    *,
    latitude: Any,
    height: Any,
    vapour: Any = None,
) -> Any:
    """Return how far the atmosphere lifts a source (Stone 1996, eq. 8-9).

    Good to 10 mas above an altitude of 25 degree.

    Parameters
    ----------
    wavelength : number or array, nm
        230.2 to 2058.6.
    altitude : number or array, degree
        Apparent altitude.
    weather : Weather
        The air at the observatory.
    latitude : number or array, degree
        Of the observatory.
    height : number or array, m
        Of the observatory, above sea level.
    vapour : number or array, optional, Pa
        Partial pressure of water vapour in place of the humidity.

    Returns
    -------
    number or array, arcsec

    Raises
    ------
    ValueError
        If a wavelength is outside the range, or an altitude below 5 or above 90 degree.

    Warns
    -----
    LowAltitudeWarning
        Below an altitude of 15 degree.

    Examples
    --------
    >>> air = Weather(20.0, 73892.0, 40.0)
    >>> round(float(refraction(500.0, 45.0, air, latitude=-30.244639, height=2663.0)), 3)
    41.074
    """
    _check_altitude(altitude)
    return _refraction(wavelength, altitude, weather, latitude, height, vapour)


def _check_altitude(altitude: Any) -> None:
    """Refuse altitudes that refraction is not computed for, and warn of doubtful ones."""
    lowest, highest = float(np.min(altitude)), float(np.max(altitude))
    if not (lowest >= ALTITUDES[0] and highest <= ALTITUDES[1]):
        raise ValueError(
            f"altitude must be from {ALTITUDES[0]:g} to {ALTITUDES[1]:g} degree, got {lowest:g} to "
            f"{highest:g}"
        )
    if lowest < _DOUBTFUL_ALTITUDE:
        warnings.warn(
            f"at an altitude of {lowest:.1f} degree the refraction is not well known",
            LowAltitudeWarning,
            stacklevel=3,
        )


def _refraction(
    wavelength: Any, altitude: Any, weather: Weather, latitude: Any, height: Any, vapour: Any
) -> Any:
    index = refractivity(wavelength, weather, vapour=vapour)
    sine = np.sin(np.deg2rad(latitude)) ** 2
    doubled = np.sin(2.0 * np.deg2rad(latitude)) ** 2
    gravity = 1.0 + 0.005302 * sine - 5.83e-6 * doubled - 3.15e-7 * height
    scale_height = 4.5908e-6 * (weather.temperature + _KELVIN)
    tangent = np.tan(np.deg2rad(90.0 - altitude))
    radians = (
        gravity
        * index
        * ((1.0 - scale_height) * tangent - (scale_height - index / 2.0) * tangent**3)
    )
    return _ARCSEC * radians


def differential_refraction(
    wavelength: Any,
    reference_wavelength: Any,
    altitude: Any,
    weather: Weather,
    *,
    latitude: Any,
    height: Any,
    vapour: Any = None,
) -> Any:
    """Return how much more light of a wavelength is lifted than light of the reference.

    Parameters
    ----------
    wavelength : number or array, nm
    reference_wavelength : number or array, nm
        Whose position astrometry calls the source's.
    altitude, weather, latitude, height, vapour
        As for `refraction`.

    Returns
    -------
    number or array, arcsec
        Positive for light bluer than the reference: it is displaced towards the zenith.

    Examples
    --------
    >>> air = Weather(20.0, 73892.0, 40.0)
    >>> place = {"latitude": -30.244639, "height": 2663.0}
    >>> round(float(differential_refraction(350.0, 500.0, 45.0, air, **place)), 4)
    1.0573
    """
    _check_altitude(altitude)
    lifted = _refraction(wavelength, altitude, weather, latitude, height, vapour)
    return lifted - _refraction(reference_wavelength, altitude, weather, latitude, height, vapour)


def parallactic_angle(hour_angle: Any, declination: Any, latitude: Any) -> Any:
    """Return the position angle of the zenith, from north through east.

    Parameters
    ----------
    hour_angle : number or array, degree
        Positive west of the meridian.
    declination : number or array, degree
        Of the source.
    latitude : number or array, degree
        Of the observatory.

    Returns
    -------
    number or array, degree
        Of the sign of the hour angle; 0 at the zenith, where it means nothing.

    Examples
    --------
    >>> round(float(parallactic_angle(90.0, 0.0, 30.0)), 1)
    60.0
    >>> float(parallactic_angle(0.0, 30.0, 30.0))
    0.0
    """
    hour, dec, lat = (np.deg2rad(angle) for angle in (hour_angle, declination, latitude))
    east = np.cos(lat) * np.sin(hour)
    north = np.sin(lat) * np.cos(dec) - np.cos(lat) * np.sin(dec) * np.cos(hour)
    angle = np.rad2deg(np.arctan2(east, north))
    # Sine of the zenith distance; near the zenith every direction is up.
    return angle * (np.hypot(east, north) > _AT_ZENITH)


def zenith_direction(jacobian: NDArray[np.float64], angle: Any) -> tuple[Any, Any]:
    """Return how many pixels one arcsec towards the zenith is.

    Parameters
    ----------
    jacobian : array, (2, 2), arcsec/pixel
        Offsets on the sky (east, north) per pixel (x, y), at the centre of the patch.
    angle : number or array, degree
        Parallactic angle there.

    Returns
    -------
    (dy, dx) : pixel/arcsec

    Raises
    ------
    ValueError
        If the matrix has no inverse.

    Examples
    --------
    North is up and east is left, 0.2 arcsec a pixel; the zenith is in the north-east:

    >>> import numpy as np
    >>> dy, dx = zenith_direction(np.diag([-0.2, 0.2]), 30.0)
    >>> round(float(dy), 4), round(float(dx), 4)
    (4.3301, -2.5)
    """
    matrix = np.asarray(jacobian, float)
    if matrix.shape != (2, 2) or not abs(np.linalg.det(matrix)) > 0:
        raise ValueError(f"jacobian must be a matrix (2, 2) that has an inverse, got {matrix}")
    inverse = np.linalg.inv(matrix)
    east, north = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    return (
        inverse[1, 0] * east + inverse[1, 1] * north,
        inverse[0, 0] * east + inverse[0, 1] * north,
    )
