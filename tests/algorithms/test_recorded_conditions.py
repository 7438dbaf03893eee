"""What observatories write down is used where it can be true, corrected by name where it cannot."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest

from skyloom.algorithms.conditions import observing_conditions
from skyloom.algorithms.recorded_conditions import Record, Site, recorded_conditions
from skyloom.algorithms.refraction import default_weather, usual_pressure
from skyloom.algorithms.vocabulary import ConditionFlag

CTIO = Site(-70.81489, -30.16606, 2215.0)
KEYS = {
    "altitude": "ALT",
    "hour_angle": "HA",
    "temperature": "OUTTEMP",
    "pressure": "PRESSURE",
    "humidity": "HUMIDITY",
    "longitude": "OBS-LONG",
    "time": "MJD-OBS",
}
TRUE = observing_conditions(
    58012.2, 347.12, 13.2, scale="utc", **CTIO._asdict(),
    temperature=14.8, pressure=78000.0, humidity=18.0,
)  # fmt: skip


def record(**values: object) -> Record:
    given = {
        "time": 58012.2, "exposure_time": 0.0, "right_ascension": 347.12, "declination": 13.2,
        "altitude": TRUE.altitude, "hour_angle": TRUE.hour_angle, "temperature": 14.8,
        "pressure": 780.0, "humidity": 18.0, "pressure_unit": "hPa", "site": CTIO, "keys": KEYS,
    }  # fmt: skip
    return Record(**{**given, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("site", [None, CTIO])
def test_a_good_record_is_taken_as_it_is(site: Site | None) -> None:
    found = recorded_conditions(record(), site)
    assert found.flags == ConditionFlag.GOOD
    assert found.notes == ()
    assert found.conditions == dataclasses.replace(
        TRUE, exposure_time=0.0, airmass=TRUE.airmass, flags=0
    )


@pytest.mark.parametrize("unit", ["Torr", "mmHg", "Pa", "kPa", "inHg", "bar"])
def test_a_pressure_that_can_only_be_in_another_unit_is_taken_in_that(unit: str) -> None:
    found = recorded_conditions(record(pressure_unit=unit), CTIO)
    assert found.flags == ConditionFlag.PRESSURE_UNIT_CORRECTED
    assert found.conditions is not None
    assert found.conditions.pressure == pytest.approx(78000.0)
    (note,) = found.notes
    assert note.startswith(f"header key PRESSURE (pressure) is 780 {unit}, which would mean")
    assert note.endswith("taken as 780 hPa")


@pytest.mark.parametrize(("value", "unit"), [(585.0, "Torr"), (78.0, "kPa"), (23.03, "inHg")])
def test_other_units_are_understood(value: float, unit: str) -> None:
    found = recorded_conditions(record(pressure=value, pressure_unit=unit), CTIO)
    assert found.flags == 0
    assert found.conditions is not None
    assert found.conditions.pressure == pytest.approx(78000.0, rel=1e-3)


def test_a_pressure_that_no_unit_explains_is_the_usual_one() -> None:
    found = recorded_conditions(record(pressure=3.0), CTIO)
    assert found.flags == ConditionFlag.PRESSURE_DEFAULTED
    assert found.conditions is not None
    assert found.conditions.pressure == usual_pressure(14.8, 2215.0)
    assert "no unit makes sense" in found.notes[0]


def test_weather_is_filled_field_by_field() -> None:
    usual = default_weather(2215.0)
    for name, flag in (
        ("temperature", ConditionFlag.TEMPERATURE_DEFAULTED),
        ("pressure", ConditionFlag.PRESSURE_DEFAULTED),
        ("humidity", ConditionFlag.HUMIDITY_DEFAULTED),
    ):
        found = recorded_conditions(record(**{name: math.nan}), CTIO)
        assert found.flags == flag
        assert found.conditions is not None
        assert f"({name}) is not recorded" in found.notes[0]
        for other in {"temperature", "pressure", "humidity"} - {name}:
            assert getattr(found.conditions, other) == getattr(TRUE, other)
        if name != "pressure":  # which follows from the temperature
            assert getattr(found.conditions, name) == getattr(usual, name)
    impossible = recorded_conditions(record(temperature=288.0, humidity=-1.0), CTIO)
    assert impossible.flags == (
        ConditionFlag.TEMPERATURE_DEFAULTED | ConditionFlag.HUMIDITY_DEFAULTED
    )
    assert "OUTTEMP (temperature) is 288, which cannot be Celsius" in impossible.notes[0]


def test_a_longitude_of_the_wrong_sign_is_turned_by_what_else_is_known() -> None:
    wrong = record(site=CTIO._replace(longitude=70.81489))
    for given, site in (
        (wrong, CTIO),
        (wrong, None),
        (dataclasses.replace(wrong, hour_angle=math.nan), None),
        (dataclasses.replace(wrong, altitude=math.nan), None),
        (dataclasses.replace(wrong, altitude=math.nan, hour_angle=math.nan, time=58012.15), None),
    ):
        found = recorded_conditions(given, site)
        assert found.flags == ConditionFlag.LONGITUDE_SIGN_CORRECTED
        assert found.conditions is not None
        assert found.conditions.longitude == -70.81489
        (note,) = found.notes
        assert note.startswith(
            "header key OBS-LONG (longitude) is 70.8149 deg, which would be east"
        )
        assert note.endswith("taken as 70.8149 deg west")


def test_a_longitude_that_nothing_contradicts_stays() -> None:
    # Above the horizon on both sides of the Earth, and nothing else is recorded.
    east = record(
        site=CTIO._replace(longitude=10.0), altitude=math.nan, hour_angle=math.nan, time=58012.0
    )
    found = recorded_conditions(east)
    assert found.flags == 0
    assert found.conditions is not None
    assert found.conditions.longitude == 10.0


def test_another_observatory_than_the_known_one_is_told() -> None:
    found = recorded_conditions(record(site=Site(20.0, -30.2, 1000.0)), CTIO)
    assert found.flags == ConditionFlag.SITE_DIFFERS
    assert found.conditions is not None
    assert (found.conditions.longitude, found.conditions.height) == (-70.81489, 2215.0)


def test_longitudes_beyond_180_degrees_are_west() -> None:
    found = recorded_conditions(record(site=CTIO._replace(longitude=360 - 70.81489)), CTIO)
    assert found.flags == 0


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("altitude", ConditionFlag.ALTITUDE_INCONSISTENT),
        ("hour_angle", ConditionFlag.HOUR_ANGLE_INCONSISTENT),
    ],
)
def test_the_computed_angle_is_used_and_a_recorded_one_that_differs_is_flagged(
    name: str, flag: ConditionFlag
) -> None:
    true = getattr(TRUE, name)
    near = recorded_conditions(record(**{name: true + 0.04}), CTIO)
    assert near.flags == 0
    found = recorded_conditions(record(**{name: true + 0.06}), CTIO)
    assert found.flags == flag
    assert found.conditions is not None
    assert getattr(found.conditions, name) == true
    assert found.conditions.flags == flag
    assert "+0.060 deg from what position, time and observatory give" in found.notes[0]


def test_a_record_may_be_of_the_start_or_the_end_of_the_exposure() -> None:
    for shift in (0.0, 1.0):  # 1.25 degree of hour angle in 300 s
        long = record(time=58012.2 - shift * 300 / 86400, exposure_time=300.0)
        assert recorded_conditions(long, CTIO).flags == 0


def test_what_is_lacking_is_named() -> None:
    found = recorded_conditions(record(time=math.nan, site=Site()))
    assert found.conditions is None
    assert found.flags == ConditionFlag.NOT_COMPUTED
    assert found.notes[0] == (
        "no observing conditions, for there is no header key MJD-OBS (time), header key OBS-LONG "
        "(longitude), latitude"
    )
    with pytest.raises(ValueError, match="pressure_unit must be one of Pa, hPa"):
        recorded_conditions(record(pressure_unit="psi"))


def test_no_warning_is_given_for_what_flags_tell() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded_conditions(record(pressure=math.nan, altitude=10.0), CTIO)
