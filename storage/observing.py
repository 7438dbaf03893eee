"""Observing conditions as headers record them, and what is wrong with those records.

What a header says is checked and completed by `skyloom.algorithms.recorded_conditions`; the values
kept beside the pixels are those to be used, and `condition_flags` tells what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.recorded_conditions import Record, Site, recorded_conditions
from skyloom.storage.camera import Camera
from skyloom.storage.camera_model import HeaderKey

__all__ = ["CONDITION_UNITS", "Reader", "observing_values"]

CONDITION_UNITS: Final[Mapping[str, str]] = {
    "mjd_middle": v.DAY,
    "altitude": v.DEGREE,
    "azimuth": v.DEGREE,
    "hour_angle": v.DEGREE,
    "parallactic_angle": v.DEGREE,
    "temperature": v.CELSIUS,
    "pressure": v.PASCAL,
    "humidity": v.PERCENTAGE,
    "site_longitude": v.DEGREE,
    "site_latitude": v.DEGREE,
    "site_height": v.METRE,
    "condition_flags": v.DIMENSIONLESS,
}
"""Conditions that are kept with every exposure, at its boresight; the time is TAI."""
_NUMBERS: Final = ("altitude", "zenith_distance", "temperature", "pressure", "humidity", "height")
_ANGLES: Final[Mapping[str, float]] = {"hour_angle": 15.0, "longitude": 1.0, "latitude": 1.0}


class Reader(Protocol):
    """Looks header values up; what makes no sense is noted."""

    def number(self, name: str, key: HeaderKey) -> float | None: ...
    def angle(self, name: str, key: HeaderKey, degrees: float) -> float | None: ...
    def key_of(self, key: HeaderKey) -> str: ...
    def unit(self, key: HeaderKey) -> str: ...


def observing_values(
    reader: Reader, camera: Camera, values: Mapping[str, Any]
) -> tuple[dict[str, float | int | None], list[str]]:
    """Return the observing conditions of an exposure, and notes on what was wrong with them.

    Parameters
    ----------
    reader : Reader
        Of the headers.
    camera : Camera
        Says which keys there are, and where the observatory is.
    values : mapping
        What else was read: type, start, exposure time and pointing.

    Returns
    -------
    values, notes
        The values of `CONDITION_UNITS`, None for an exposure that is not of the sky; nothing if
        the camera has neither an observatory nor a header key of its longitude.
    """
    header = camera.header
    if camera.observatory is None and header.longitude is None:
        return {}, []
    if values["observation_type"] != v.SCIENCE:
        return dict.fromkeys(CONDITION_UNITS), []
    found: dict[str, float] = {}
    keys: dict[str, str] = {}
    for name in (*_NUMBERS, *_ANGLES):
        key: HeaderKey | None = getattr(header, name)
        if key is None:
            continue
        degrees = _ANGLES.get(name)
        value = reader.number(name, key) if degrees is None else reader.angle(name, key, degrees)
        keys[name] = reader.key_of(key)
        found[name] = math.nan if value is None else value
    for name, field in (
        ("time", "mjd_start"),
        ("right_ascension", "right_ascension"),
        ("declination", "declination"),
    ):
        own: HeaderKey | None = getattr(header, field)
        if own is not None:
            keys[name] = reader.key_of(own)
    distance = found.pop("zenith_distance", math.nan)
    if not math.isfinite(found.get("altitude", math.nan)) and math.isfinite(distance):
        found["altitude"] = 90.0 - distance
        keys["altitude"] = f"90 - {keys['zenith_distance']}"
    site = Site(*(found.pop(name, math.nan) for name in Site._fields))
    known = camera.observatory
    result = recorded_conditions(
        Record(
            time=_number(values.get("mjd_start")),
            exposure_time=_number(values.get("exposure_time")),
            right_ascension=_number(values.get("right_ascension")),
            declination=_number(values.get("declination")),
            site=site,
            scale=header.time_scale,
            pressure_unit=reader.unit(header.pressure) if header.pressure else v.PASCAL,
            keys=keys,
            **found,
        ),
        Site(known.longitude, known.latitude, known.height) if known else None,
    )
    kept: dict[str, float | int | None] = dict.fromkeys(CONDITION_UNITS)
    kept["condition_flags"] = int(result.flags)
    conditions = result.conditions
    if conditions is not None:
        kept["mjd_middle"] = conditions.time
        kept |= {name: getattr(conditions, name) for name in CONDITION_UNITS
                 if hasattr(conditions, name)}  # fmt: skip
        # Height is also what an image has.
        kept |= {f"site_{name}": getattr(conditions, name) for name in Site._fields}
    return kept, list(result.notes)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
