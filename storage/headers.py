"""Header values by the camera's map: found, translated, converted, or named as missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from astropy.io import fits

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.recorded_conditions import PRESSURE_UNITS
from skyloom.algorithms.vocabulary import OBSERVATION_TYPES, OTHER
from skyloom.storage.camera import Camera
from skyloom.storage.camera_file import suggestion
from skyloom.storage.camera_model import Detector, HeaderKey
from skyloom.storage.observing import CONDITION_UNITS, observing_values

__all__ = ["ANGLES", "NUMBERS", "TEXTS", "UNITS", "HeaderValues", "read_headers"]

FILENAME = "FILENAME"  # in place of a header key: the name of the file
_MJD_ZERO = datetime(1858, 11, 17)
NUMBERS = (
    "mjd_start",
    "dark_time",
    "rotator_angle",
    "airmass",
    "seeing",
    "zero_point",
    "flux",
    "photodiode_charge",
)
ANGLES: Final[Mapping[str, float]] = {"right_ascension": 15.0, "declination": 1.0}
"""Angles that may be written as h:m:s or d:m:s, and the degrees of one h or d."""
TEXTS = ("physical_filter", "observation_reason", "observation_program")
UNITS: Final[Mapping[str, str]] = {
    "exposure_time": v.SECOND,
    "dark_time": v.SECOND,
    "mjd_start": v.DAY,
    "right_ascension": v.DEGREE,
    "declination": v.DEGREE,
    "rotator_angle": v.DEGREE,
    "airmass": v.DIMENSIONLESS,
    "seeing": v.ARCSECOND,
    "zero_point": v.MAGNITUDE,
    **CONDITION_UNITS,
}
_SEXAGESIMAL = re.compile(
    r"([+-]?)\s*(\d+)\s*[:hd°\s]\s*(\d+)\s*[:m'\s]\s*(\d+(?:\.\d*)?)\s*[s\"]?"
)


@dataclass
class HeaderValues:
    """The mapped values of one detector, and what was wrong with them."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_headers(
    hdus: fits.HDUList, camera: Camera, detector: Detector, where: Sequence[int]
) -> HeaderValues:
    """Return what the headers say about one detector of an exposure.

    Parameters
    ----------
    hdus : HDUList
        The file.
    camera : Camera
        Says which key means what.
    detector : Detector
        The detector.
    where : sequence of int
        Its HDUs.

    Returns
    -------
    HeaderValues
        ``exposure`` (int), ``exposure_time`` (s), ``observation_type``; the optional ones of
        the camera, None where a file lacks them; observing conditions at mid exposure, see
        `skyloom.storage.observing`; ``header_read_noise`` per amplifier (adu).
        A required key that is missing or makes no sense is a problem, a value without
        translation is a note.
    """
    found = HeaderValues()
    reader = _Reader(hdus, where, found)
    header = camera.header
    found.values["exposure"] = reader.whole_number("exposure", header.exposure)
    found.values["exposure_time"] = reader.exposure_time(header.exposure_time)
    found.values["observation_type"] = reader.observation_type(header.observation_type)
    for name in NUMBERS:
        if (key := getattr(header, name)) is not None:
            convert = reader.time if name == "mjd_start" else reader.number
            found.values[name] = convert(name, key)
    for name, degrees in ANGLES.items():
        if (key := getattr(header, name)) is not None:
            found.values[name] = reader.angle(name, key, degrees)
    for name in TEXTS:
        if (key := getattr(header, name)) is not None:
            found.values[name] = reader.text(name, key)
    conditions, notes = observing_values(reader, camera, found.values)
    found.values |= conditions
    found.notes += notes
    for name, key in header.auxiliary.items():
        found.values[name] = reader.anything(name, key)
    if header.read_noise is not None:
        found.values["header_read_noise"] = [
            reader.number(f"read noise of {amp.name}", _for_amplifier(header.read_noise, amp.name))
            for amp in detector.amplifiers
        ]
    return found


def _for_amplifier(key: HeaderKey, name: str) -> HeaderKey:
    names = tuple(each.replace("{amplifier}", name) for each in key.key)
    return key.model_copy(update={"key": names})


class _Reader:
    """Looks keys up in the HDUs that may hold them; notes what is wrong."""

    def __init__(self, hdus: fits.HDUList, where: Sequence[int], found: HeaderValues) -> None:
        self._hdus = hdus
        self._where = where
        self._found = found

    def _headers(self, key: HeaderKey) -> list[fits.Header]:
        if key.hdu is None:
            places = [*self._where[:1], 0]
        elif isinstance(key.hdu, int):
            places = [key.hdu]
        elif key.hdu == "primary":
            places = [0]
        elif key.hdu == "detector":
            places = list(self._where[:1])
        else:
            places = [i for i, hdu in enumerate(self._hdus) if hdu.name == key.hdu.upper()]
        return [self._hdus[place].header for place in places if place < len(self._hdus)]

    def _look_up(self, name: str, key: HeaderKey) -> tuple[str, Any] | None:
        headers = self._headers(key)
        for each in key.key:
            value = self._value(each, headers)
            if value is not None and key.pattern is not None:
                match = re.search(key.pattern, str(value))
                if match is None:
                    wanted = f"of the pattern {key.pattern!r}"
                    self._wrong(each, name, value, wanted, key.required)
                    return None
                value = "".join(group or "" for group in match.groups())
            if value is not None:
                return each, value
        if key.required:
            known = [word for header in headers for word in header]
            hint = next(filter(None, (suggestion(each, known) for each in key.key)), "")
            keys = " or ".join(key.key)
            self._found.problems.append(
                f"header key {keys} ({name}) is missing{hint}; add it to the file or correct "
                "the camera's header map"
            )
        return None

    def _value(self, key: str, headers: Sequence[fits.Header]) -> Any:
        if key == FILENAME:
            return Path(self._hdus.filename() or "").name or None
        for header in headers:
            if key in header and not isinstance(header[key], fits.card.Undefined):
                value = header[key]
                return value.strip() if isinstance(value, str) else value
        return None

    def _wrong(self, key: str, name: str, value: Any, wanted: str, required: bool) -> None:
        text = f"header key {key} ({name}) is {value!r}, not {wanted}"
        (self._found.problems if required else self._found.notes).append(text)

    def key_of(self, key: HeaderKey) -> str:
        """Return the header key that is there, or the first if none is."""
        headers = self._headers(key)
        return next(
            (each for each in key.key if self._value(each, headers) is not None), key.key[0]
        )

    def unit(self, key: HeaderKey) -> str:
        """Return the unit of a pressure: the camera's, or that in the comment of the card."""
        if key.unit is not None:
            return key.unit
        known = {name.casefold(): name for name in PRESSURE_UNITS}
        name = self.key_of(key)
        for header in self._headers(key):
            if name in header:
                stated = re.match(r"\s*\[\s*(\w+)\s*\]", header.comments[name])
                return known.get(stated[1].casefold() if stated else "", v.PASCAL)
        return v.PASCAL

    def number(self, name: str, key: HeaderKey) -> float | None:
        item = self._look_up(name, key)
        if item is None:
            return None
        try:
            value = float(item[1]) * key.scale
        except (TypeError, ValueError):
            self._wrong(item[0], name, item[1], "a number", key.required)
            return None
        return value if math.isfinite(value) else None

    def angle(self, name: str, key: HeaderKey, degrees: float) -> float | None:
        item = self._look_up(name, key)
        if item is None:
            return None
        parts = _SEXAGESIMAL.fullmatch(item[1]) if isinstance(item[1], str) else None
        if parts is None:
            return self.number(name, key)
        sign, whole, minutes, seconds = parts.groups()
        if int(minutes) >= 60 or float(seconds) >= 60:
            self._wrong(item[0], name, item[1], "an angle", key.required)
            return None
        size = int(whole) + int(minutes) / 60 + float(seconds) / 3600
        return degrees * (-size if sign == "-" else size)

    def whole_number(self, name: str, key: HeaderKey) -> int | None:
        item = self._look_up(name, key)
        if item is None:
            if not key.required:  # without an id nothing can be stored
                keys = " or ".join(key.key)
                self._found.problems.append(f"header key {keys} ({name}) is missing")
            return None
        try:
            value = int(item[1]) if isinstance(item[1], int | str) else float(item[1])
            if isinstance(item[1], bool) or value != int(value) or abs(value) >= 2**63:
                raise ValueError(item[1])
        except (TypeError, ValueError, OverflowError):
            self._wrong(item[0], name, item[1], "a whole number", True)
            return None
        return int(value)

    def exposure_time(self, key: HeaderKey) -> float | None:
        item = self._look_up("exposure_time", key)
        if item is None:
            return None
        try:
            value = float(item[1]) * key.scale
            if isinstance(item[1], bool) or not (math.isfinite(value) and value >= 0):
                raise ValueError(item[1])
        except (TypeError, ValueError):
            self._wrong(item[0], "exposure_time", item[1], "a time in seconds", True)
            return None
        return value

    def observation_type(self, key: HeaderKey) -> str:
        item = self._look_up("observation_type", key)
        if item is None:
            return OTHER
        value = str(item[1])
        table = {given.casefold(): meaning for given, meaning in key.values.items()}
        table = {**{kind: kind for kind in OBSERVATION_TYPES}, **table}
        meaning = table.get(value.casefold())
        if meaning is None:
            known = ", ".join(key.values) or "none"
            self._found.notes.append(
                f"header key {item[0]} (observation_type) is {value!r}, which the camera does not "
                f"translate: taken as {OTHER!r} (translated: {known}){suggestion(value, table)}"
            )
        return meaning or OTHER

    def text(self, name: str, key: HeaderKey) -> str | None:
        item = self._look_up(name, key)
        if item is None:
            return None
        value = str(item[1])
        table = {given.casefold(): meaning for given, meaning in key.values.items()}
        return table.get(value.casefold(), value)

    def anything(self, name: str, key: HeaderKey) -> float | str | None:
        item = self._look_up(name, key)
        if item is None or isinstance(item[1], str):
            return None if item is None else self.text(name, key)
        return self.number(name, key)

    def time(self, name: str, key: HeaderKey) -> float | None:
        item = self._look_up(name, key)
        if item is None:
            return None
        kind = key.format
        if kind == "auto":
            kind = "iso" if isinstance(item[1], str) and "-" in item[1] else "mjd"
        try:
            if kind == "iso":
                return _iso_to_mjd(str(item[1]))
            value = float(item[1]) * key.scale
        except (TypeError, ValueError):
            self._wrong(item[0], name, item[1], "a time", key.required)
            return None
        return value - 2400000.5 if kind == "jd" else value


def _iso_to_mjd(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _MJD_ZERO) / timedelta(days=1)
