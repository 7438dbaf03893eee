"""Observing conditions: exact angles, stated values, records that survive."""

from __future__ import annotations

import dataclasses
import json
import math

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, HADec, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.conditions import (
    AltitudeWarning,
    ObservingConditions,
    airmass,
    conditions_at,
    observing_conditions,
)

PLACE = {"longitude": -70.749417, "latitude": -30.244639, "height": 2663.0}
WEATHER = {"temperature": 8.0, "pressure": 73892.0, "humidity": 40.0}


def simple_hour_angle(record):
    """Return earth rotation angle plus longitude less ICRS right ascension."""
    angle = record.earth_rotation_angle + record.longitude - record.right_ascension
    return (angle + 180) % 360 - 180


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 360), st.floats(-88, 25), st.floats(52000, 61000))
def test_angles_are_those_of_astropy(ra, dec, time):
    record = observing_conditions(time, ra, dec, **PLACE, **WEATHER)
    location = EarthLocation.from_geodetic(
        PLACE["longitude"] * u.deg, PLACE["latitude"] * u.deg, PLACE["height"] * u.m
    )
    with iers.conf.set_temp("auto_download", False):
        moment = Time(time, format="mjd", scale="tai", location=location)
        sky = SkyCoord(ra, dec, unit="deg")
        still = sky.transform_to(AltAz(obstime=moment, location=location))
        hour = sky.transform_to(HADec(obstime=moment, location=location)).ha.wrap_at(180 * u.deg)
        air = AltAz(
            obstime=moment, location=location, pressure=738.92 * u.hPa,
            temperature=8 * u.deg_C, relative_humidity=0.4, obswl=0.5 * u.um,
        )  # fmt: skip
        lifted = sky.transform_to(air)
    turn = (record.hour_angle - hour.deg + 180) % 360 - 180
    assert turn * math.cos(math.radians(dec)) == pytest.approx(0, abs=1e-6)
    if still.alt.deg > 5:
        assert record.altitude == pytest.approx(lifted.alt.deg, abs=1e-6)
        turn = (record.azimuth - still.az.deg + 180) % 360 - 180
        assert turn * math.cos(still.alt.rad) == pytest.approx(0, abs=1e-6)
        assert record.altitude > still.alt.deg


def test_at_epoch_2000_the_simple_hour_angle_is_good_to_a_minute_of_arc():
    record = observing_conditions(51544.5, 100.0, -20.0, **PLACE)
    assert record.hour_angle == pytest.approx(simple_hour_angle(record), abs=1 / 60)
    later = observing_conditions(60676.5, 100.0, -20.0, **PLACE)
    assert 0.02 < abs(later.hour_angle - simple_hour_angle(later)) < 0.4


def test_the_parallactic_angle_is_where_the_zenith_is_on_icrs():
    for ra in (60.0, 100.0, 140.0):
        record = observing_conditions(51544.5, ra, -20.0, **PLACE)
        hour, dec, latitude = np.deg2rad([record.hour_angle, -20.0, record.latitude])
        expected = np.arctan2(
            np.sin(hour), np.cos(dec) * np.tan(latitude) - np.sin(dec) * np.cos(hour)
        )
        turn = (record.parallactic_angle - np.rad2deg(expected) + 180) % 360 - 180
        assert turn == pytest.approx(0.0, abs=0.02)
        assert np.sign(record.parallactic_angle) == np.sign(record.hour_angle)


def test_a_step_towards_the_zenith_raises_the_altitude_and_keeps_the_azimuth():
    record = observing_conditions(60676.3, 150.0, 2.0, **PLACE)
    angle = math.radians(record.parallactic_angle)
    above = conditions_at(
        record,
        150.0 + 0.1 * math.sin(angle) / math.cos(math.radians(2.0)),
        2.0 + 0.1 * math.cos(angle),
    )
    assert above.altitude - record.altitude == pytest.approx(0.1, abs=1e-3)
    assert above.azimuth == pytest.approx(record.azimuth, abs=1e-3)


def test_airmass_is_that_of_kasten_and_young():
    assert airmass(90.0) == pytest.approx(0.99971, abs=1e-5)
    assert airmass(0.0) == pytest.approx(37.92, abs=0.01)
    assert math.isnan(airmass(-1.0))
    record = observing_conditions(60000.3, 150.0, 2.0, **PLACE)
    assert record.airmass == pytest.approx(airmass(record.altitude))
    given_one = observing_conditions(60000.3, 150.0, 2.0, **PLACE, recorded_airmass=1.5)
    assert given_one.airmass == 1.5


def test_a_wrong_recorded_altitude_is_noticed():
    record = observing_conditions(60000.3, 150.0, 2.0, **PLACE)
    observing_conditions(60000.3, 150.0, 2.0, **PLACE, recorded_altitude=record.altitude + 0.04)
    observing_conditions(60000.3, 150.0, 2.0, **PLACE, recorded_altitude=math.nan)
    with pytest.warns(AltitudeWarning, match=r"\+0\.060 deg"):
        observing_conditions(60000.3, 150.0, 2.0, **PLACE, recorded_altitude=record.altitude + 0.06)


def test_both_time_scales_mean_the_same_moment():
    tai = observing_conditions(60000.3, 150.0, 2.0, **PLACE)
    utc = observing_conditions(60000.3 - 37 / 86400, 150.0, 2.0, **PLACE, scale="utc")
    assert utc.time == pytest.approx(60000.3, abs=1e-9)
    assert utc.altitude == pytest.approx(tai.altitude, abs=1e-6)
    assert abs(tai.ut1 - (60000.3 - 37 / 86400)) < 1 / 86400


def test_dates_beyond_the_table_of_the_earth_are_computed_too():
    record = observing_conditions(80000.3, 150.0, 2.0, **PLACE)
    assert math.isfinite(record.altitude)


def test_a_record_survives_json_and_is_frozen():
    record = observing_conditions(60000.3, 150.0, 2.0, **PLACE, temperature=8.0, exposure_time=30)
    text = json.dumps(record.to_attributes(), allow_nan=False)
    again = ObservingConditions.from_attributes(json.loads(text))
    assert again.to_attributes() == record.to_attributes()
    assert again.boresight == (150.0, 2.0)
    assert record.weather_missing == ("pressure", "humidity")
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.altitude = 3.0
    with pytest.raises(KeyError, match="altitude"):
        ObservingConditions.from_attributes({"time": 1.0})
    with pytest.raises(KeyError, match="unknown colour"):
        ObservingConditions.from_attributes(record.to_attributes() | {"colour": 1})


@pytest.mark.parametrize(
    "change",
    [{"time": math.nan}, {"declination": 91.0}, {"latitude": -91.0}, {"scale": "ut1"}],
)
def test_misuse_is_named(change):
    arguments = {"time": 60000.0, "right_ascension": 1.0, "declination": 2.0} | PLACE | change
    with pytest.raises(ValueError, match=next(iter(change))):
        observing_conditions(**arguments)
