"""Observing conditions from what an observatory wrote down, with its mistakes found by name.

Headers are written by hand-made software: a pressure whose stated unit cannot be true, a longitude
whose sign is that of the other hemisphere, an altitude of another moment. What contradicts the
laws of nature or another record is corrected where only one reading is possible, replaced by what
is usual otherwise; each time a flag is set and a note says which record, what it would mean, and
what is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from skyloom.algorithms.conditions import (
    ALTITUDE_TOLERANCE,
    ObservingConditions,
    observing_conditions,
)
from skyloom.algorithms.refraction import default_weather, usual_pressure
from skyloom.algorithms.vocabulary import ConditionFlag

__all__ = [
    "HUMIDITIES",
    "PRESSURE_UNITS",
    "TEMPERATURES",
    "Record",
    "RecordedConditions",
    "Site",
    "possible_pressures",
    "recorded_conditions",
]

NAN: Final = math.nan
PRESSURE_UNITS: Final[Mapping[str, float]] = {
    "Pa": 1.0,
    "hPa": 100.0,
    "kPa": 1000.0,
    "mbar": 100.0,
    "bar": 1e5,
    "Torr": 133.322,
    "mmHg": 133.322,
    "inHg": 3386.39,
}
"""Pascals of the units that pressures are written in."""
TEMPERATURES: Final = (-60.0, 60.0)
"""Celsius that air can have."""
HUMIDITIES: Final = (0.0, 100.0)
"""Relative humidities, %, that air can have."""
PRESSURE_SPREAD: Final = 0.12
"""Weather moves the pressure by a few per cent; the units above differ by 33 % and more."""
SITE_TOLERANCE: Final = 0.1
"""Degrees between two records of one observatory that need no note."""
DECISIVE: Final = 1.0
"""Degrees of hour angle or altitude that tell one longitude from another."""


class Site(NamedTuple):
    """Where an observatory is: degree (east positive), degree, m; NaN where not known."""

    longitude: float = NAN
    latitude: float = NAN
    height: float = NAN


@dataclass(frozen=True)
class Record:
    """What is recorded of one exposure; NaN where nothing is.

    ``time`` (MJD in ``scale``) of the start, ``exposure_time`` (s), ``right_ascension`` and
    ``declination`` (degree), ``altitude`` and ``hour_angle`` (degree), ``temperature`` (Celsius),
    ``pressure`` in ``pressure_unit``, ``humidity`` (%), ``site``; ``keys`` has the header key of a
    field by its name, for notes.
    """

    time: float = NAN
    exposure_time: float = NAN
    right_ascension: float = NAN
    declination: float = NAN
    altitude: float = NAN
    hour_angle: float = NAN
    temperature: float = NAN
    pressure: float = NAN
    humidity: float = NAN
    pressure_unit: str = "Pa"
    site: Site = field(default_factory=Site)
    scale: Literal["utc", "tai"] = "utc"
    keys: Mapping[str, str] = field(default_factory=dict)

    def named(self, name: str) -> str:
        """Return a field as notes call it."""
        return f"header key {self.keys[name]} ({name})" if name in self.keys else name


class RecordedConditions(NamedTuple):
    """Conditions at mid exposure, None if they cannot be computed; bits of what is wrong; notes."""

    conditions: ObservingConditions | None
    flags: ConditionFlag
    notes: tuple[str, ...]


def recorded_conditions(record: Record, site: Site | None = None) -> RecordedConditions:
    """Return the conditions that a record means.

    Parameters
    ----------
    record : Record
        What headers say.
    site : Site, optional
        Where the observatory is known to be; it wins over what headers say.

    Returns
    -------
    RecordedConditions
        Weather that is not recorded, or cannot be, is the usual one of the height. A pressure
        that is impossible in its unit and possible in exactly one other is taken in that. A
        longitude of the wrong sign is turned round if the known site says so, or the recorded
        hour angle or altitude, or if the telescope would look into the ground. Altitude and
        hour angle are always the computed ones; records that differ from them by more than
        0.05 degree at the start, the middle and the end of the exposure are flagged.

    Raises
    ------
    ValueError
        If the unit of the pressure is not known.

    Examples
    --------
    The two traps of DECam: hPa stated to be Torr, and west stated to be east.

    >>> record = Record(
    ...     time=58012.20188241, exposure_time=101.0, right_ascension=347.121946,
    ...     declination=13.199416, altitude=45.52, temperature=14.8, pressure=780.0,
    ...     humidity=18.0, pressure_unit="Torr", site=Site(70.81489, -30.16606, 2215.0),
    ...     keys={"pressure": "PRESSURE", "longitude": "OBS-LONG"})
    >>> found = recorded_conditions(record)
    >>> found.conditions.pressure, found.conditions.longitude
    (78000.0, -70.81489)
    >>> for note in found.notes: print(note)
    header key OBS-LONG (longitude) is 70.8149 deg, which would be east and put the telescope at \
an altitude of -58.9 deg where 45.5 deg is recorded: taken as 70.8149 deg west
    header key PRESSURE (pressure) is 780 Torr, which would mean 1040 hPa where 779 hPa is usual \
(2215 m): taken as 780 hPa
    """
    if record.pressure_unit not in PRESSURE_UNITS:
        raise ValueError(
            f"pressure_unit must be one of {', '.join(PRESSURE_UNITS)}, got "
            f"{record.pressure_unit!r}"
        )
    notes: list[str] = []
    place, flags = _site(record, site, notes)
    lacking = _lacking(record, place)
    if lacking:
        named = ", ".join(record.named(name) for name in lacking)
        notes.append(f"no observing conditions, for there is no {named}")
        return RecordedConditions(None, flags | ConditionFlag.NOT_COMPUTED, tuple(notes))
    record, more = _weather(record, place, notes)
    flags |= more
    moments = _moments(record, place)
    for name, flag in (
        ("altitude", ConditionFlag.ALTITUDE_INCONSISTENT),
        ("hour_angle", ConditionFlag.HOUR_ANGLE_INCONSISTENT),
    ):
        recorded = getattr(record, name)
        apart = _apart(recorded, [getattr(moment, name) for moment in moments])
        if abs(apart) > ALTITUDE_TOLERANCE:
            notes.append(
                f"{record.named(name)} is {recorded:.3f} deg, {apart:+.3f} deg from what position, "
                "time and observatory give during the exposure: the computed one is used"
            )
            flags |= flag
    middle = replace(moments[len(moments) // 2], flags=int(flags))
    return RecordedConditions(middle, flags, tuple(notes))


def _lacking(record: Record, place: Site) -> list[str]:
    needed = {
        name: getattr(record, name) for name in ("time", "right_ascension", "declination")
    } | {"longitude": place.longitude, "latitude": place.latitude}
    return [name for name, value in needed.items() if not math.isfinite(value)]


def _moments(record: Record, place: Site) -> list[ObservingConditions]:
    """Return the conditions at start, middle and end, as far as the exposure time is known."""
    length = record.exposure_time if math.isfinite(record.exposure_time) else 0.0
    height = place.height if math.isfinite(place.height) else 0.0
    return [
        observing_conditions(
            record.time + part * length / 86400.0,
            record.right_ascension,
            record.declination,
            longitude=place.longitude,
            latitude=place.latitude,
            height=height,
            scale=record.scale,
            exposure_time=record.exposure_time,
            temperature=record.temperature,
            pressure=record.pressure,
            humidity=record.humidity,
        )
        for part in ((0.0, 0.5, 1.0) if length else (0.0,))
    ]


def _apart(recorded: float, computed: list[float]) -> float:
    """Return how far a record is from the nearest computed angle, degree; 0 if there is none."""
    if not math.isfinite(recorded):
        return 0.0
    return min((_turn(recorded - value) for value in computed), key=abs)


def _turn(angle: float) -> float:
    """Return an angle between -180 and 180 degree."""
    return (angle + 180.0) % 360.0 - 180.0


def _site(record: Record, known: Site | None, notes: list[str]) -> tuple[Site, ConditionFlag]:
    """Return where the observatory is."""
    said = record.site
    if abs(said.longitude) > 180.0:
        said = said._replace(longitude=_turn(said.longitude))
    if known is None:
        return _by_record(record, said, notes)
    flags, place = ConditionFlag.GOOD, dict(said._asdict())
    for name, tolerance in (
        ("longitude", SITE_TOLERANCE),
        ("latitude", SITE_TOLERANCE),
        ("height", NAN),
    ):
        true, written = getattr(known, name), getattr(said, name)
        if not math.isfinite(true):
            continue
        place[name] = true
        if not abs(_turn(written - true)) > tolerance:
            continue
        if name == "longitude" and abs(_turn(written + true)) <= tolerance:
            flags |= ConditionFlag.LONGITUDE_SIGN_CORRECTED
            notes.append(
                f"{record.named(name)} is {written:.4f} deg, which would be {_side(written)}; the "
                f"observatory lies {_side(true)}: taken as {abs(true):.4f} deg {_side(true)}"
            )
        else:
            flags |= ConditionFlag.SITE_DIFFERS
            notes.append(
                f"{record.named(name)} is {written:.4f} deg, but the observatory is at "
                f"{true:.4f} deg: this is used"
            )
    return Site(**place), flags


def _side(longitude: float) -> str:
    return "west" if longitude < 0 else "east"


def _by_record(record: Record, said: Site, notes: list[str]) -> tuple[Site, ConditionFlag]:
    """Return the site of the headers, turned round if what else they say leaves no other way."""
    if _lacking(record, said):
        return said, ConditionFlag.GOOD
    turned = said._replace(longitude=-said.longitude)
    # The weather lifts altitudes by minutes of arc, which decides nothing here.
    plain = replace(record, temperature=NAN, pressure=NAN, humidity=NAN)
    stated, other = _moments(plain, said), _moments(plain, turned)
    for name in ("hour_angle", "altitude"):
        recorded = getattr(record, name)
        if not math.isfinite(recorded):
            continue
        angle = getattr(stated[len(stated) // 2], name)
        if abs(_apart(recorded, [getattr(each, name) for each in stated])) <= DECISIVE:
            return said, ConditionFlag.GOOD
        if abs(_apart(recorded, [getattr(each, name) for each in other])) <= DECISIVE:
            why = (
                f"put the telescope at an {name.replace('_', ' ')} of {angle:.1f} deg where "
                f"{recorded:.1f} deg is recorded"
            )
            return _turned(record, said, turned, why, notes)
    if stated[-1].altitude < 0 <= other[-1].altitude and not math.isfinite(record.altitude):
        why = f"put the telescope at an altitude of {stated[-1].altitude:.1f} deg, into the ground"
        return _turned(record, said, turned, why, notes)
    return said, ConditionFlag.GOOD


def _turned(
    record: Record, said: Site, turned: Site, why: str, notes: list[str]
) -> tuple[Site, ConditionFlag]:
    notes.append(
        f"{record.named('longitude')} is {said.longitude:.4f} deg, which would be "
        f"{_side(said.longitude)} and {why}: taken as {abs(turned.longitude):.4f} deg "
        f"{_side(turned.longitude)}"
    )
    return turned, ConditionFlag.LONGITUDE_SIGN_CORRECTED


def _weather(record: Record, place: Site, notes: list[str]) -> tuple[Record, ConditionFlag]:
    """Return the record with weather that can be, and the pressure in Pa."""
    height = place.height if math.isfinite(place.height) else 0.0
    usual, flags = default_weather(height), ConditionFlag.GOOD
    values = {"temperature": record.temperature, "humidity": record.humidity}
    for name, low, high, unit, flag in (
        ("temperature", *TEMPERATURES, "Celsius", ConditionFlag.TEMPERATURE_DEFAULTED),
        ("humidity", *HUMIDITIES, "%", ConditionFlag.HUMIDITY_DEFAULTED),
    ):
        value = values[name]
        if low <= value <= high:
            continue
        values[name] = float(getattr(usual, name))
        flags |= flag
        what = (
            f"is {value:g}, which cannot be {unit}" if math.isfinite(value) else "is not recorded"
        )
        notes.append(
            f"{record.named(name)} {what}: {values[name]:.1f} {unit}, usual at {height:.0f} m, is "
            "used"
        )
    pressure, more = _pressure(record, values["temperature"], place.height, notes)
    checked = replace(
        record,
        temperature=values["temperature"],
        humidity=values["humidity"],
        pressure=pressure,
        pressure_unit="Pa",
    )
    return checked, flags | more


def possible_pressures(temperature: float, height: float) -> tuple[float, float]:
    """Return the lowest and the highest pressure (Pa) that air can have.

    Parameters
    ----------
    temperature : float, Celsius
    height : float, m
        Above sea level; NaN where it is not known.

    Examples
    --------
    >>> [round(pressure, -2) for pressure in possible_pressures(8.0, 2663.0)]
    [64500.0, 82100.0]
    """
    if not math.isfinite(height):  # nothing but a vacuum is impossible
        return 4e4, 1.1e5
    usual = usual_pressure(temperature, height)
    return usual * (1.0 - PRESSURE_SPREAD), usual * (1.0 + PRESSURE_SPREAD)


def _pressure(
    record: Record, temperature: float, height: float, notes: list[str]
) -> tuple[float, ConditionFlag]:
    """Return the pressure, Pa."""
    known = math.isfinite(height)
    usual = usual_pressure(temperature, height if known else 0.0)
    low, high = possible_pressures(temperature, height)
    where = f"({height:.0f} m)" if known else "(no height is known)"
    value, unit = record.pressure, record.pressure_unit
    if not math.isfinite(value):
        notes.append(
            f"{record.named('pressure')} is not recorded: {usual / 100:.0f} hPa, usual {where}, is "
            "used"
        )
        return usual, ConditionFlag.PRESSURE_DEFAULTED
    stated = value * PRESSURE_UNITS[unit]
    if low <= stated <= high:
        return stated, ConditionFlag.GOOD
    said = (
        f"{record.named('pressure')} is {value:g} {unit}, which would mean {stated / 100:.0f} hPa "
        f"where {usual / 100:.0f} hPa is usual {where}"
    )
    possible = {factor: name for name, factor in reversed(list(PRESSURE_UNITS.items()))
                if low <= value * factor <= high}  # fmt: skip
    if len(possible) == 1:
        ((factor, name),) = possible.items()
        notes.append(f"{said}: taken as {value:g} {name}")
        return value * factor, ConditionFlag.PRESSURE_UNIT_CORRECTED
    notes.append(f"{said}, and no unit makes sense of it: the usual one is used")
    return usual, ConditionFlag.PRESSURE_DEFAULTED
