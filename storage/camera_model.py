"""What a camera is made of: detectors, amplifiers, files and header keys. Data, not code.

Boxes are half-open and count from 0 in the detector's raw array, the one 2-d array that a
detector has however many HDUs its file keeps it in.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import OBSERVATION_TYPES

__all__ = [
    "Amplifier",
    "Box",
    "Detector",
    "FileLayout",
    "HduName",
    "HeaderKey",
    "HeaderMap",
    "Observatory",
]

HduName: TypeAlias = int | str
Interval: TypeAlias = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class Box(Parameters):
    """A half-open rectangle of pixels."""

    y: Interval = Field(description="rows, [start, stop)")
    x: Interval = Field(description="columns, [start, stop)")

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        for name, (start, stop) in (("y", self.y), ("x", self.x)):
            if stop < start:
                raise ValueError(f"{name} ends at {stop} before it starts at {start}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.y[1] - self.y[0], self.x[1] - self.x[0])

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def shifted(self, origin: tuple[int, int]) -> Box:
        """Return the box moved by ``(y, x)``.

        Examples
        --------
        >>> Box(y=(0, 2), x=(0, 3)).shifted((10, 20)).x
        (20, 23)
        """
        (dy, dx) = origin
        y, x = self.y, self.x
        return Box(y=(y[0] + dy, y[1] + dy), x=(x[0] + dx, x[1] + dx))

    def overlaps(self, other: Box) -> bool:
        """Return whether two boxes share a pixel.

        Examples
        --------
        >>> Box(y=(0, 2), x=(0, 3)).overlaps(Box(y=(1, 2), x=(2, 9)))
        True
        """
        return all(
            max(mine[0], theirs[0]) < min(mine[1], theirs[1])
            for mine, theirs in ((self.y, other.y), (self.x, other.x))
        )

    def inside(self, shape: tuple[int, int]) -> bool:
        """Return whether the box lies in an array of this shape.

        Examples
        --------
        >>> Box(y=(0, 2), x=(0, 3)).inside((2, 2))
        False
        """
        return self.y[1] <= shape[0] and self.x[1] <= shape[1]

    def __str__(self) -> str:
        return f"y [{self.y[0]}, {self.y[1]}) x [{self.x[0]}, {self.x[1]})"


EMPTY = Box(y=(0, 0), x=(0, 0))


class Amplifier(Parameters):
    """One read-out channel of a detector; its boxes count from its origin."""

    name: str = Field(min_length=1, description="name of the amplifier")
    hdu: HduName | None = Field(
        None, description="HDU of the amplifier, where each amplifier has one of its own"
    )
    origin: tuple[int, int] = Field((0, 0), description="y, x that all boxes are shifted by, pixel")
    segment: Box | None = Field(
        None, description="where the amplifier's HDU goes in the raw array, if it has its own"
    )
    data: Box = Field(description="imaging pixels in the raw array")
    overscan: Box = Field(EMPTY, description="serial overscan in the raw array; empty = none")
    parallel_overscan: Box = Field(
        EMPTY, description="parallel overscan in the raw array; empty = none"
    )
    trimmed: Box | None = Field(
        None, description="imaging pixels in the trimmed detector; derived when left out"
    )
    flip_x: bool = Field(
        False, description="raw data run against x of the detector; they are turned"
    )
    flip_y: bool = Field(
        False, description="raw data run against y of the detector; they are turned"
    )
    gain: float = Field(1.0, gt=0, description="nominal gain, electron/adu")
    read_noise: float = Field(0.0, ge=0, description="nominal read noise, electron")
    saturation: float | None = Field(
        None, gt=0, description="saturation level, adu; none = unknown"
    )

    def placed(self) -> Amplifier:
        """Return the amplifier with its boxes moved to where they lie in the raw array."""
        moved = {
            name: box.shifted(self.origin)
            for name in ("segment", "data", "overscan", "parallel_overscan")
            if (box := getattr(self, name)) is not None and (box.size or name == "data")
        }
        return self.model_copy(update={**moved, "origin": (0, 0)})


class Detector(Parameters):
    """One sensor with one raw array."""

    name: str = Field(min_length=1, description="name of the detector")
    id: int | None = Field(
        None, description="number of the detector; its place in the list if none"
    )
    hdu: HduName | None = Field(None, description="HDU that holds the raw array")
    shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = Field(
        description="rows, columns of the raw array, pixel"
    )
    offset_mm: tuple[float, float] = Field(
        (0.0, 0.0), description="x, y of the detector's centre in the focal plane, mm"
    )
    rotation: float = Field(0.0, description="rotation in the focal plane, degree")
    amplifiers: tuple[Amplifier, ...] = Field(min_length=1, description="the amplifiers")


class FileLayout(Parameters):
    """How files hold exposures."""

    file: Literal["exposure", "detector"] = Field(
        "exposure", description="what one file holds: a whole exposure, or one detector of it"
    )
    hdu: Literal["detector", "amplifier"] = Field(
        "detector", description="what one HDU holds: a detector's raw array, or one amplifier"
    )
    identify: str = Field(
        "EXTNAME", description="header key by which an HDU given as text is found"
    )
    detector: tuple[str, ...] = Field(
        (), description="header keys that name the detector, for one file per detector"
    )


class HeaderKey(Parameters):
    """Where one value stands in the headers, and what it means."""

    key: tuple[str, ...] = Field(
        description="header keys; the first that is there counts. FILENAME is the file's name"
    )
    pattern: str | None = Field(
        None, description="regular expression whose groups, joined, are the value, e.g. 'n(\\d+)'"
    )
    hdu: HduName | None = Field(
        None, description="HDU to look in; by default the detector's, then the primary"
    )
    required: bool = Field(False, description="a file without it is rejected")
    scale: float = Field(1.0, description="factor to the unit skyloom uses")
    format: Literal["auto", "mjd", "jd", "iso"] = Field(
        "auto", description="how a time is written; auto: text is ISO 8601, a number is MJD"
    )
    unit: Literal["Pa", "hPa", "kPa", "mbar", "bar", "Torr", "mmHg", "inHg"] | None = Field(
        None,
        description="unit of a pressure; by default the one in brackets in the card's comment, or "
        "else Pa. One that cannot be true is noted",
    )
    values: dict[str, str] = Field(
        default_factory=dict, description="translation of values, without regard to case"
    )

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
            if not groups:
                raise ValueError(f"{pattern!r} has no group: put what counts in parentheses")
        return pattern

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        """Accept a key or a list of keys in place of the whole form."""
        if isinstance(value, str | list | tuple):
            value = {"key": value}
        if isinstance(value, dict) and isinstance(value.get("key"), str):
            value = {**value, "key": [value["key"]]}
        return value


class Observatory(Parameters):
    """Where the camera observes the sky; wins over what headers say of it."""

    name: str = Field("", description="name of the observatory")
    longitude: float = Field(ge=-180, le=180, description="longitude, degree, east positive")
    latitude: float = Field(ge=-90, le=90, description="latitude, degree")
    height: float = Field(0.0, ge=-500, le=10000, description="height above sea level, m")


class HeaderMap(Parameters):
    """Which header values skyloom reads."""

    exposure: HeaderKey = Field(description="whole number that identifies the exposure")
    observation_type: HeaderKey = Field(
        description=f"translated to one of {', '.join(OBSERVATION_TYPES)}"
    )
    exposure_time: HeaderKey = Field(description="exposure time, s")
    mjd_start: HeaderKey | None = Field(None, description="start of the exposure, MJD")
    dark_time: HeaderKey | None = Field(
        None, description="time over which dark current was collected, s"
    )
    physical_filter: HeaderKey | None = Field(None, description="name of the filter")
    observation_reason: HeaderKey | None = Field(None, description="why it was taken")
    observation_program: HeaderKey | None = Field(None, description="programme it belongs to")
    right_ascension: HeaderKey | None = Field(
        None, description="where the telescope points: degree, or hours as h:m:s"
    )
    declination: HeaderKey | None = Field(
        None, description="where the telescope points: degree, or as d:m:s"
    )
    rotator_angle: HeaderKey | None = Field(
        None, description="position angle of the focal plane's y axis, north through east, degree"
    )
    airmass: HeaderKey | None = Field(None, description="airmass")
    altitude: HeaderKey | None = Field(
        None, description="altitude of the telescope, degree; compared with the computed one"
    )
    zenith_distance: HeaderKey | None = Field(
        None, description="its zenith distance, degree, in place of the altitude"
    )
    hour_angle: HeaderKey | None = Field(
        None, description="hour angle, degree or hours as h:m:s; compared with the computed one"
    )
    temperature: HeaderKey | None = Field(None, description="temperature of the air, Celsius")
    pressure: HeaderKey | None = Field(None, description="air pressure")
    humidity: HeaderKey | None = Field(None, description="relative humidity, %")
    longitude: HeaderKey | None = Field(
        None, description="longitude of the observatory, degree, east positive"
    )
    latitude: HeaderKey | None = Field(None, description="its latitude, degree")
    height: HeaderKey | None = Field(None, description="its height above sea level, m")
    time_scale: Literal["utc", "tai"] = Field("utc", description="time scale of mjd_start")
    seeing: HeaderKey | None = Field(
        None, description="FWHM of stars, arcsec, if someone has measured it"
    )
    zero_point: HeaderKey | None = Field(
        None, description="AB magnitude of one electron per second, if someone has measured it"
    )
    flux: HeaderKey | None = Field(None, description="illumination level, any unit")
    photodiode_charge: HeaderKey | None = Field(None, description="photodiode integral, any unit")
    read_noise: HeaderKey | None = Field(
        None, description="read noise per amplifier, adu; '{amplifier}' in the key is its name"
    )
    wcs: Literal["raw", "trimmed", "none"] = Field(
        "raw",
        description="which pixels the world coordinate system of a detector's HDU counts: those "
        "of the raw array or of the trimmed detector; none: it is not read",
    )
    auxiliary: dict[str, HeaderKey] = Field(
        default_factory=dict, description="further numbers or texts to keep, by name"
    )
