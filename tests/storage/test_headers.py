"""Header values of an observation mean what observatories write."""

from __future__ import annotations

import pytest
from astropy.io import fits

from skyloom.storage.camera import Camera, parse_camera
from skyloom.storage.headers import HeaderValues, read_headers

CAMERA = """
name: pointed
header:
  exposure: EXPID
  observation_type: OBSTYPE
  exposure_time: EXPTIME
  dark_time: DARKTIME
  right_ascension: [RA, TELRA]
  declination: DEC
  rotator_angle: {key: ROT, scale: 57.29577951308232}
  airmass: AIRMASS
detectors:
  - {name: ccd, hdu: 0, shape: [4, 4], amplifiers: [{name: A, data: {y: [0, 4], x: [0, 4]}}]}
"""


@pytest.fixture
def pointed() -> Camera:
    return parse_camera(CAMERA, "pointed.yaml")


def read(camera: Camera, **keys: object) -> HeaderValues:
    header = fits.Header({"EXPID": 1, "OBSTYPE": "science", "EXPTIME": 5.0, **keys})
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    return read_headers(hdus, camera, camera.detectors[0], [0])


def test_numbers_of_an_observation_are_read(pointed: Camera) -> None:
    found = read(pointed, DARKTIME=6.5, RA=123.25, DEC=-5.5, ROT=0.5, AIRMASS="1.25")
    assert found.values["dark_time"] == 6.5
    assert found.values["right_ascension"] == 123.25
    assert found.values["declination"] == -5.5
    assert found.values["rotator_angle"] == pytest.approx(28.64788975654116)
    assert found.values["airmass"] == 1.25
    assert not found.problems
    assert not found.notes


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        ("10:30:00.0", "-00:30:36", (157.5, -0.51)),
        ("10 30 36", "+20 15 00.5", (157.65, 20.25 + 0.5 / 3600)),
        ("10h30m36s", "20d15m00s", (157.65, 20.25)),
        ("157.65", "-20.25", (157.65, -20.25)),
    ],
)
def test_angles_are_degrees_or_hours_and_degrees_of_60_minutes(
    pointed: Camera, ra: str, dec: str, expected: tuple[float, float]
) -> None:
    found = read(pointed, TELRA=ra, DEC=dec)
    assert found.values["right_ascension"] == pytest.approx(expected[0], abs=1e-12)
    assert found.values["declination"] == pytest.approx(expected[1], abs=1e-12)
    assert not found.notes


@pytest.mark.parametrize(("text", "wanted"), [("10:61:00", "an angle"), ("Vega", "a number")])
def test_an_angle_that_makes_no_sense_is_noted(pointed: Camera, text: str, wanted: str) -> None:
    found = read(pointed, RA=text)
    assert found.values["right_ascension"] is None
    assert found.notes == [f"header key RA (right_ascension) is {text!r}, not {wanted}"]


def test_what_a_file_does_not_say_is_none(pointed: Camera) -> None:
    found = read(pointed)
    for name in ("dark_time", "right_ascension", "declination", "rotator_angle", "airmass"):
        assert found.values[name] is None
