"""Under which conditions the sky was observed: one record per visit, valid at mid exposure.

Angles are degrees. Altitude and azimuth are those that the telescope saw: topocentric, lifted by
refraction; azimuth counts from north through east. The hour angle is that of the apparent place
without refraction, positive west. The parallactic angle is the position angle of the zenith, from
the north of ICRS through east, so that it holds on images whose grid is ICRS.

All of it follows from position, time and observatory by the IAU 2006/2000A transformation with
polar motion and UT1 (ERFA, as in astropy).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final, Literal

import erfa
import numpy as np
from astropy.utils import iers

from skyloom.algorithms.errors import SkyloomWarning
from skyloom.algorithms.refraction import default_weather

__all__ = [
    "AltitudeWarning",
    "ObservingConditions",
    "airmass",
    "conditions_at",
    "observing_conditions",
]

MJD_ZERO: Final = 2400000.5
NAN: Final = math.nan
MICROMETRE: Final = 0.5
"""Wavelength whose refraction lifts altitude and azimuth."""
ALTITUDE_TOLERANCE: Final = 0.05
"""Degrees between recorded and computed altitude that need no warning."""


class AltitudeWarning(SkyloomWarning):
    """The altitude in a header isn't that which position, time and observatory give."""


@dataclass(frozen=True)
class ObservingConditions:
    """What is known of the sky, the air and the telescope at mid exposure.

    ``time`` (MJD TAI) and ``ut1`` (MJD UT1); ``exposure_time`` (s); ``right_ascension`` and
    ``declination`` (deg, ICRS) of the position that the angles hold for, ``boresight`` (right
    ascension, declination) of the pointing; ``azimuth``, ``altitude`` (deg, apparent),
    ``airmass``; ``earth_rotation_angle``, ``longitude`` (east positive), ``latitude`` (deg),
    ``height`` (m); ``hour_angle``, ``parallactic_angle`` (deg); ``rotation_angle`` (deg, the
    camera's +Y from north through east if ``rotation_type`` is "sky"); ``temperature`` (Celsius),
    ``pressure`` (Pa), ``humidity`` (%), NaN where not recorded; ``instrument``, ``observatory``,
    ``physical_filter``; ``flags``, bits of `vocabulary.ConditionFlag`.
    """

    time: float
    ut1: float
    exposure_time: float
    right_ascension: float
    declination: float
    boresight: tuple[float, float]
    azimuth: float
    altitude: float
    airmass: float
    earth_rotation_angle: float
    longitude: float
    latitude: float
    height: float
    hour_angle: float
    parallactic_angle: float
    rotation_angle: float = NAN
    rotation_type: str = "sky"
    temperature: float = NAN
    pressure: float = NAN
    humidity: float = NAN
    instrument: str = ""
    observatory: str = ""
    physical_filter: str = ""
    flags: int = 0

    @property
    def weather_missing(self) -> tuple[str, ...]:
        """Return the names of weather fields that were not recorded."""
        names = ("temperature", "pressure", "humidity")
        return tuple(name for name in names if not math.isfinite(getattr(self, name)))

    def to_attributes(self) -> dict[str, Any]:
        """Return the record as a dictionary that JSON can hold; NaN becomes None.

        Examples
        --------
        >>> record = observing_conditions(60000.0, 10.0, -30.0, longitude=-70.7, latitude=-30.2)
        >>> found = record.to_attributes()
        >>> round(found["altitude"], 3), found["pressure"] is None
        (27.664, True)
        >>> ObservingConditions.from_attributes(found).to_attributes() == found
        True
        """
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in (asdict(self) | {"boresight": list(self.boresight)}).items()
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> ObservingConditions:
        """Return the record that a dictionary holds.

        Raises
        ------
        KeyError
            If a field without a default is missing or a name is unknown.
        """
        known = {field.name for field in fields(cls)}
        needed = [field.name for field in fields(cls)][:15]
        missing = [name for name in needed if name not in attributes]
        unknown = sorted(set(attributes) - known)
        if missing or unknown:
            raise KeyError(
                f"conditions lack {', '.join(missing) or 'nothing'} and have unknown "
                f"{', '.join(unknown) or 'nothing'}"
            )
        values: dict[str, Any] = {
            name: NAN if value is None else value for name, value in attributes.items()
        }
        values["boresight"] = tuple(
            NAN if angle is None else float(angle) for angle in values["boresight"]
        )
        return cls(**values)


def airmass(altitude: float) -> float:
    """Return the airmass at an apparent altitude (degree; Kasten & Young 1989).

    NaN below the horizon.

    Examples
    --------
    >>> round(airmass(90.0), 4), round(airmass(30.0), 4)
    (0.9997, 1.9943)
    """
    if not 0.0 <= altitude <= 90.0:
        return NAN
    softened = float(0.50572 * (altitude + 6.07995) ** -1.6364)
    return 1.0 / (math.sin(math.radians(altitude)) + softened)


def observing_conditions(
    time: float,
    right_ascension: float,
    declination: float,
    *,
    longitude: float,
    latitude: float,
    height: float = 0.0,
    scale: Literal["tai", "utc"] = "tai",
    recorded_altitude: float | None = None,
    recorded_airmass: float | None = None,
    temperature: float = NAN,
    pressure: float = NAN,
    humidity: float = NAN,
    exposure_time: float = NAN,
    rotation_angle: float = NAN,
    rotation_type: str = "sky",
    instrument: str = "",
    observatory: str = "",
    physical_filter: str = "",
) -> ObservingConditions:
    """Return the conditions of a visit at its boresight.

    Parameters
    ----------
    time : float, d
        Modified Julian Date of mid exposure.
    right_ascension, declination : float, degree, ICRS
        Boresight.
    longitude, latitude : float, degree
        Of the observatory, geodetic (WGS84), east positive.
    height : float, m
    scale : "tai" or "utc"
        Time scale of ``time``.
    recorded_altitude : float, degree, optional
        Altitude in the header, compared with the computed one.
    recorded_airmass : float, optional
        Taken as it is; else from the altitude by `airmass`.
    temperature, pressure, humidity : float, Celsius, Pa, %
        Weather; usual values lift the altitude where it is not known.
    exposure_time, rotation_angle, rotation_type, instrument, observatory, physical_filter
        Kept with the record, see `ObservingConditions`.

    Returns
    -------
    ObservingConditions

    Raises
    ------
    ValueError
        If time or a position is not finite, a latitude or declination is beyond a pole, or the
        scale is unknown.

    Warns
    -----
    AltitudeWarning
        If the recorded altitude differs by more than 0.05 degree.

    Examples
    --------
    >>> record = observing_conditions(
    ...     60000.3, 150.0, 2.0, longitude=-70.749417, latitude=-30.244639, height=2663.0
    ... )
    >>> round(record.altitude, 3), round(record.hour_angle, 3), round(record.airmass, 4)
    (38.93, 41.689, 1.5889)
    """
    if scale not in ("tai", "utc"):
        raise ValueError(f"scale must be 'tai' or 'utc', got {scale!r}")
    given = {
        "time": time, "right_ascension": right_ascension, "declination": declination,
        "longitude": longitude, "latitude": latitude, "height": height,
    }  # fmt: skip
    wrong = [f"{name} {value}" for name, value in given.items() if not math.isfinite(value)]
    wrong += [f"{name} {given[name]}" for name in ("declination", "latitude")
              if abs(given[name]) > 90]  # fmt: skip
    if wrong:
        raise ValueError(f"conditions cannot be computed from {', '.join(wrong)}")
    tai = time if scale == "tai" else _sum(erfa.ufunc.utctai(MJD_ZERO, time))
    record = ObservingConditions(
        time=float(tai),
        ut1=NAN,
        exposure_time=float(exposure_time),
        right_ascension=float(right_ascension),
        declination=float(declination),
        boresight=(float(right_ascension), float(declination)),
        azimuth=NAN,
        altitude=NAN,
        airmass=NAN,
        earth_rotation_angle=NAN,
        longitude=float(longitude),
        latitude=float(latitude),
        height=float(height),
        hour_angle=NAN,
        parallactic_angle=NAN,
        rotation_angle=float(rotation_angle),
        rotation_type=rotation_type,
        temperature=float(temperature),
        pressure=float(pressure),
        humidity=float(humidity),
        instrument=instrument,
        observatory=observatory,
        physical_filter=physical_filter,
    )
    found = conditions_at(record, right_ascension, declination)
    if recorded_altitude is not None and math.isfinite(recorded_altitude):
        difference = recorded_altitude - found.altitude
        if abs(difference) > ALTITUDE_TOLERANCE:
            warnings.warn(
                f"the recorded altitude of {recorded_altitude:.3f} deg is {difference:+.3f} deg "
                "from what position, time and observatory give: one of them is wrong",
                AltitudeWarning,
                stacklevel=2,
            )
    if recorded_airmass is not None and math.isfinite(recorded_airmass):
        found = replace(found, airmass=float(recorded_airmass))
    return found


def conditions_at(
    conditions: ObservingConditions, right_ascension: float, declination: float
) -> ObservingConditions:
    """Return the conditions with all angles, and the airmass, at another position.

    Parameters
    ----------
    conditions : ObservingConditions
    right_ascension, declination : float, degree, ICRS
        Where, for example the centre of a patch.

    Examples
    --------
    >>> record = observing_conditions(60000.3, 150.0, 2.0, longitude=-70.7, latitude=-30.2)
    >>> there = conditions_at(record, 151.0, 2.0)
    >>> round(record.hour_angle - there.hour_angle, 2), there.boresight
    (1.0, (150.0, 2.0))
    """
    # the functions below erfa's own do not warn: far from today leap seconds are not known, but
    # some seconds are all they can amount to
    day, fraction, _ = erfa.ufunc.taiutc(MJD_ZERO, conditions.time)
    utc = (day, fraction)
    ut1_utc, pole_x, pole_y = _earth_orientation(_sum(utc))
    place = (
        np.deg2rad(conditions.longitude), np.deg2rad(conditions.latitude), conditions.height,
        pole_x, pole_y,
    )  # fmt: skip
    ra, dec = np.deg2rad(right_ascension), np.deg2rad(declination)
    still, vacuum = (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    moment = (*utc, ut1_utc, *place)
    observed = erfa.ufunc.atco13(ra, dec, *still, *moment, *_air(conditions), MICROMETRE)
    apparent = erfa.ufunc.atco13(ra, dec, *still, *moment, *vacuum, MICROMETRE)
    zenith = erfa.ufunc.atoc13(b"A", 0.0, 0.0, *moment, *vacuum, MICROMETRE)
    ut1 = erfa.ufunc.utcut1(*utc, ut1_utc)
    altitude = 90.0 - float(np.rad2deg(observed[1]))
    return replace(
        conditions,
        ut1=_sum(ut1),
        right_ascension=float(right_ascension),
        declination=float(declination),
        azimuth=float(np.rad2deg(observed[0])),
        altitude=altitude,
        airmass=airmass(altitude),
        earth_rotation_angle=float(np.rad2deg(erfa.ufunc.era00(ut1[0], ut1[1]))),
        hour_angle=float(np.rad2deg(apparent[2])),
        parallactic_angle=float(np.rad2deg(erfa.ufunc.pas(ra, dec, zenith[0], zenith[1]))),
    )


def _sum(date: Any) -> float:
    """Return the Modified Julian Date of a date in two parts."""
    return float((date[0] - MJD_ZERO) + date[1])


def _air(conditions: ObservingConditions) -> tuple[float, float, float]:
    """Return pressure (hPa), temperature (Celsius) and humidity (0 to 1) that lift the altitude."""
    given = (conditions.temperature, conditions.pressure, conditions.humidity)
    temperature, pressure, humidity = (
        float(value if math.isfinite(value) else usual)
        for value, usual in zip(given, default_weather(conditions.height), strict=True)
    )
    return pressure / 100.0, temperature, humidity / 100.0


@lru_cache(maxsize=1)
def _table() -> Any:
    """Return the orientation of the Earth that astropy brings along; nothing is downloaded."""
    return iers.IERS_A.open(iers.IERS_A_FILE)


def _earth_orientation(utc: float) -> tuple[float, float, float]:
    """Return UT1 - UTC (s) and the pole's x and y (rad); 0 at dates that the table lacks."""
    table = _table()
    ut1_utc, status = table.ut1_utc(MJD_ZERO, utc, return_status=True)
    x, y, pole_status = table.pm_xy(MJD_ZERO, utc, return_status=True)
    # 0.9 s is the most that UT1 differs, 0.004 degree
    seconds = float(ut1_utc.to_value("s")) if int(status) >= 0 else 0.0
    if int(pole_status) < 0:
        return seconds, 0.0, 0.0
    return seconds, float(x.to_value("rad")), float(y.to_value("rad"))
