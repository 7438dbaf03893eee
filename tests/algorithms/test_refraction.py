"""Refraction against printed tables, other packages and its own limits."""

from __future__ import annotations

import warnings

import erfa
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.wcs import WCS

from skyloom.algorithms.refraction import (
    DefaultWeatherWarning,
    LowAltitudeWarning,
    Weather,
    complete_weather,
    default_weather,
    differential_refraction,
    parallactic_angle,
    refraction,
    refractivity,
    vapour_pressure,
    zenith_direction,
)

AIR = Weather(20.0, 73892.0, 40.0)
PLACE = {"latitude": -30.244639, "height": 2663.0}
WAVELENGTHS = np.array([350.0, 400.0, 450.0, 550.0, 600.0, 700.0, 900.0, 1000.0])
TABLE = {
    80: (7.2512, 0.1866, 0.0989, 0.0407, -0.0297, -0.0520, -0.0827, -0.1159, -0.1255),
    65: (19.1719, 0.4935, 0.2615, 0.1077, -0.0784, -0.1374, -0.2187, -0.3065, -0.3318),
    60: (23.7339, 0.6109, 0.3238, 0.1333, -0.0971, -0.1701, -0.2708, -0.3794, -0.4107),
    45: (41.0740, 1.0573, 0.5603, 0.2307, -0.1680, -0.2944, -0.4686, -0.6567, -0.7109),
    30: (70.9646, 1.8271, 0.9683, 0.3986, -0.2903, -0.5087, -0.8098, -1.1348, -1.2284),
    20: (111.9268, 2.8830, 1.5279, 0.6290, -0.4582, -0.8026, -1.2779, -1.7906, -1.9384),
}


@pytest.mark.parametrize("altitude", sorted(TABLE))
def test_refraction_is_that_of_the_table(altitude: int) -> None:
    total, *differences = TABLE[altitude]
    assert refraction(500.0, altitude, AIR, **PLACE) == pytest.approx(total, abs=2e-4)
    found = differential_refraction(WAVELENGTHS, 500.0, altitude, AIR, **PLACE)
    np.testing.assert_allclose(found, differences, rtol=0, atol=2e-4)


def test_nothing_is_lifted_at_the_zenith_and_no_wavelength_against_itself() -> None:
    assert abs(refraction(500.0, 90.0, AIR, **PLACE)) < 1e-12
    assert differential_refraction(620.0, 620.0, 40.0, AIR, **PLACE) == 0.0


def test_humid_and_usual_air_at_thirty_degrees() -> None:
    wavelengths = np.array([370.0, 480.0, 620.0, 860.0, 960.0, 1025.0])
    dry = AIR._replace(humidity=10.0)
    expected = [72.503, 71.212, 70.488, 69.983, 69.876, 69.823]
    found = refraction(wavelengths, 30.0, dry, **PLACE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    reference = [73.049, 71.749, 71.021, 70.512, 70.404, 70.351]
    np.testing.assert_allclose(found, reference, rtol=0.01)
    usual = refraction(wavelengths, 30.0, default_weather(PLACE["height"]), **PLACE)
    expected = [76.191, 74.834, 74.073, 73.542, 73.430, 73.374]
    np.testing.assert_allclose(usual, expected, rtol=0, atol=2e-3)
    np.testing.assert_allclose(usual[[0, -1]], [76.734, 73.901], rtol=0.01)


def test_dry_air_at_sea_level_has_the_index_of_owens() -> None:
    found = refractivity(500.0, Weather(15.0, 101325.0, 0.0))
    assert found == pytest.approx(27896.94e-8, abs=1e-10)


def test_published_differential_refraction_of_filippenko() -> None:
    published = {
        300: 2.37, 350: 1.34, 400: 0.71, 450: 0.29, 550: -0.21, 600: -0.37, 700: -0.60, 1000: -0.91,
    }  # fmt: skip
    air = Weather(7.0, 600 * 133.322, 0.0)
    altitude = 90.0 - np.rad2deg(np.arccos(1 / 1.5))
    wavelengths = np.array(list(published), float)
    found = differential_refraction(
        wavelengths, 500.0, altitude, air, vapour=1066.6, latitude=45.0, height=2000.0
    )
    np.testing.assert_allclose(found, list(published.values()), rtol=0, atol=0.012)


@pytest.mark.parametrize("altitude", [30.0, 45.0, 60.0, 80.0])
def test_total_and_differential_refraction_agree_with_erfa(altitude: float) -> None:
    zenith = np.deg2rad(90.0 - altitude)

    def theirs(wavelength: float) -> float:
        a, b = erfa.refco(AIR.pressure / 100, AIR.temperature, 0.40, wavelength / 1000)
        return float(np.rad2deg(a * np.tan(zenith) + b * np.tan(zenith) ** 3) * 3600)

    assert refraction(500.0, altitude, AIR, **PLACE) == pytest.approx(theirs(500.0), rel=5e-4)
    limits = dict.fromkeys((450.0, 550.0, 600.0, 700.0, 900.0, 1000.0), 0.005)
    limits |= {350.0: 0.013, 400.0: 0.008}
    for wavelength, limit in limits.items():
        found = differential_refraction(wavelength, 500.0, altitude, AIR, **PLACE)
        assert found == pytest.approx(theirs(wavelength) - theirs(500.0), rel=limit)


@pytest.mark.parametrize(
    ("altitude", "limit", "theirs"),
    [
        (80, 0.005, (7.2549, 7.44181, 7.35403, 7.29572, 7.22515, 7.20277, 7.17189, 7.13857,
                     7.12897)),
        (60, 0.005, (23.75483, 24.36685, 24.07941, 23.8885, 23.65741, 23.58415, 23.48304,
                     23.37394, 23.34249)),
        (45, 0.005, (41.14457, 42.20462, 41.70676, 41.37609, 40.97584, 40.84894, 40.67383,
                     40.48486, 40.43038)),
        (30, 0.008, (71.26448, 73.10055, 72.23823, 71.66549, 70.97224, 70.75244, 70.44913,
                     70.12183, 70.02747)),
        (20, 0.013, (113.04377, 115.95624, 114.58838, 113.67987, 112.5802, 112.23154, 111.75042,
                     111.23123, 111.08155)),
    ],
)  # fmt: skip
def test_differential_refraction_agrees_with_galsim(
    altitude: float, limit: float, theirs: tuple[float, ...]
) -> None:
    """`galsim.dcr.get_refraction` of GalSim 2.8.5 at 500 nm and the wavelengths of the table."""
    found = differential_refraction(WAVELENGTHS, 500.0, altitude, AIR, **PLACE)
    np.testing.assert_allclose(found, np.array(theirs[1:]) - theirs[0], rtol=limit)


def test_weather_that_was_not_recorded_is_the_usual_one_of_its_height() -> None:
    with pytest.warns(DefaultWeatherWarning, match="temperature, pressure, humidity"):
        weather, replaced = complete_weather(np.nan, np.nan, np.nan, 2663.0)
    assert weather.temperature == pytest.approx(1.6905)
    assert weather.pressure == pytest.approx(72771.4, abs=0.05)
    assert weather.humidity == 40.0
    assert replaced == ("temperature", "pressure", "humidity")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert complete_weather(*AIR, 2663.0) == (AIR, ())
    with pytest.warns(DefaultWeatherWarning, match="^humidity not recorded"):
        assert complete_weather(20.0, 73892.0, np.inf, 2663.0) == (AIR, ("humidity",))
    assert vapour_pressure(20.0, 40.0) == pytest.approx(935.3, abs=0.05)
    assert vapour_pressure(20.0, 0.0) == 0.0


@pytest.mark.parametrize("wavelength", [230.0, 2059.0, np.nan])
def test_wavelengths_outside_the_range_are_refused(wavelength: float) -> None:
    with pytest.raises(ValueError, match=r"wavelength must be from 230\.2 to 2058\.6 nm"):
        refraction(wavelength, 45.0, AIR, **PLACE)


def test_sources_near_the_horizon_are_warned_of_or_refused() -> None:
    with pytest.raises(ValueError, match=r"altitude must be from 5 to 90 degree, got 4\.9"):
        refraction(500.0, [4.9, 45.0], AIR, **PLACE)
    with pytest.raises(ValueError, match="altitude"):
        refraction(500.0, np.nan, AIR, **PLACE)
    with pytest.warns(LowAltitudeWarning, match=r"14\.0 degree"):
        refraction(500.0, 14.0, AIR, **PLACE)
    with pytest.raises(ValueError, match="temperature must be above"):
        refractivity(500.0, Weather(-300.0, 73892.0, 40.0))


def test_blue_light_goes_towards_the_zenith_and_further_than_red() -> None:
    altitude = np.random.default_rng(5).uniform(20.0, 85.0, 10)
    blue, red = (differential_refraction(w, 500.0, altitude, AIR, **PLACE) for w in (400.0, 600.0))
    assert (blue > 0).all()
    assert (red < 0).all()
    assert (blue > -red).all()


def test_arrays_of_xarray_keep_their_dimensions() -> None:
    wavelength = xr.DataArray([400.0, 500.0, 600.0], dims="wavelength")
    altitude = xr.DataArray([30.0, 60.0], dims="visit")
    found = differential_refraction(wavelength, 500.0, altitude, AIR, **PLACE)
    assert set(found.dims) == {"wavelength", "visit"}
    one = differential_refraction(400.0, 500.0, 60.0, AIR, **PLACE)
    assert float(found.isel(wavelength=0, visit=1)) == pytest.approx(one, rel=1e-14)


def test_the_parallactic_angle_is_the_position_angle_of_the_zenith() -> None:
    place = EarthLocation.from_geodetic(-70.749417, PLACE["latitude"], PLACE["height"])
    frame = AltAz(obstime=Time("2000-01-01T06:00:00"), location=place)
    lst = frame.obstime.sidereal_time("apparent", longitude=place.lon)
    zenith = SkyCoord(lst, place.lat, frame="tete", obstime=frame.obstime, location=place)
    for hour, declination in ((-30.0, -10.0), (50.0, -60.0), (5.0, 15.0), (-80.0, -75.0)):
        star = SkyCoord(
            lst - hour * u.deg, declination * u.deg, frame=zenith.frame.replicate_without_data()
        )
        expected = star.position_angle(zenith).wrap_at(180 * u.deg).deg
        found = parallactic_angle(hour, declination, PLACE["latitude"])
        assert found == pytest.approx(expected, abs=1e-9)
        assert np.sign(found) == np.sign(hour)
    assert parallactic_angle(0.0, -60.0, PLACE["latitude"]) == 0.0
    assert abs(parallactic_angle(0.0, 10.0, -30.0)) == pytest.approx(180.0)
    assert parallactic_angle(0.0, -30.0, -30.0) == 0.0


def test_the_parallactic_angle_of_a_place_above_the_horizon_is_the_stated_one() -> None:
    azimuth, altitude, latitude = np.deg2rad([130.0, 70.0, -30.2446])
    sine = np.sin(latitude) * np.sin(altitude)
    declination = np.arcsin(sine + np.cos(latitude) * np.cos(altitude) * np.cos(azimuth))
    hour = np.arctan2(
        -np.sin(azimuth) * np.cos(altitude),
        np.sin(altitude) * np.cos(latitude) - np.cos(altitude) * np.cos(azimuth) * np.sin(latitude),
    )
    found = parallactic_angle(np.rad2deg(hour), np.rad2deg(declination), -30.2446)
    assert found == pytest.approx(-62.155, abs=0.02)
    assert np.deg2rad(found) == pytest.approx(-1.0848033, abs=np.deg2rad(0.02))


def test_one_arcsec_towards_the_zenith_in_pixels() -> None:
    angle = parallactic_angle(30.0, -10.0, PLACE["latitude"])
    assert angle == pytest.approx(130.2857, abs=1e-4)
    found = zenith_direction(np.diag([-1.0, 1.0]), angle)
    np.testing.assert_allclose(found, (-0.6466, -0.7628), rtol=0, atol=1e-4)
    mirrored = zenith_direction(np.diag([1.0, 1.0]), angle)
    np.testing.assert_allclose(mirrored, (-0.6466, 0.7628), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="inverse"):
        zenith_direction(np.zeros((2, 2)), 10.0)


def test_a_lifted_star_moves_by_as_many_pixels_as_a_projection_says() -> None:
    projection = WCS(naxis=2)
    projection.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    projection.wcs.crval, projection.wcs.crpix = [50.0, -10.0], [500.0, 500.0]
    turn, scale = np.deg2rad(33.0), 0.2 / 3600
    matrix = scale * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    projection.wcs.cd = matrix
    angle, lifted = parallactic_angle(30.0, -10.0, PLACE["latitude"]), 1.5
    star = SkyCoord(50.0, -10.0, unit="deg")
    moved = star.directional_offset_by(angle * u.deg, lifted * u.arcsec)
    x, y = projection.world_to_pixel(moved)
    dy, dx = zenith_direction(3600 * matrix, angle)
    np.testing.assert_allclose((y - 499.0, x - 499.0), (lifted * dy, lifted * dx), atol=1e-3)
