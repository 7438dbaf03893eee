"""Observing conditions of real headers, whose two traps are caught by name, and of others."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyloom.algorithms.vocabulary import ConditionFlag
from skyloom.storage.camera import Camera, load_camera, parse_camera
from skyloom.storage.headers import HeaderValues, read_headers
from skyloom.storage.ingest import ingest_fits
from skyloom.storage.store import create_store

PLACE = Path(__file__).parents[1] / "data" / "decam_visits" / "decam_visit_geometry.csv"
ROWS = tuple(csv.DictReader(PLACE.read_text().splitlines()))
TRAPS = ConditionFlag.LONGITUDE_SIGN_CORRECTED | ConditionFlag.PRESSURE_UNIT_CORRECTED


def header_of(row: Mapping[str, str], **changed: object) -> fits.Header:
    """Return the cards of a visit, with the comments that DECam gives them."""
    cards: dict[str, object] = {
        "EXPNUM": int(row["expnum"]),
        "OBSTYPE": "object",
        "EXPTIME": float(row["exptime_s"]),
        "MJD-OBS": float(row["mjd_obs_start"]),
        "FILTER": row["band"],
        "TELRA": row["telra"],
        "TELDEC": row["teldec"],
        "HA": row["ha_hdr"],
        "ZD": float(row["zd_hdr_deg"]),
        "AIRMASS": float(row["airmass_hdr"]),
        "OUTTEMP": (float(row["outtemp_C"]), "[deg C] Outside temperature"),
        "PRESSURE": (float(row["pressure_torr"]), "[Torr] Barometric pressure (outside)"),
        "HUMIDITY": float(row["humidity_pct"]),
        "OBS-LAT": float(row["obs_lat"]),
        "OBS-LONG": (float(row["obs_long"]), "[deg] Observatory east longitude"),
        "OBS-ELEV": float(row["obs_elev_m"]),
    }
    header = fits.Header()
    for key, value in {**cards, **changed}.items():
        if value is not None:
            header[key] = value
    return header


def read(camera: Camera, header: fits.Header) -> HeaderValues:
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    return read_headers(hdus, camera, camera.detectors[0], [0])


@pytest.mark.parametrize("row", ROWS, ids=[row["expnum"] for row in ROWS])
@pytest.mark.parametrize("known", [True, False])
def test_the_traps_of_real_headers_are_caught_by_name(row: Mapping[str, str], known: bool) -> None:
    camera = load_camera("decam")
    if not known:  # nothing but the headers
        camera = camera.model_copy(update={"observatory": None})
    found = read(camera, header_of(row))
    values = found.values
    assert values["condition_flags"] == TRAPS
    assert not found.problems
    longitude, pressure = found.notes
    assert longitude.startswith(
        "header key OBS-LONG (longitude) is 70.8149 deg, which would be east"
    )
    assert longitude.endswith("taken as 70.8149 deg west")
    written = float(row["pressure_torr"])
    assert pressure.startswith(f"header key PRESSURE (pressure) is {written:g} Torr, which would")
    assert pressure.endswith(f"taken as {written:g} hPa")
    assert values["site_longitude"] == -70.81489
    assert values["pressure"] == 100 * written
    # The table leaves out refraction, 0.01 to 0.02 degree, and precession.
    assert 90 - values["altitude"] == pytest.approx(float(row["zd_calc_midexp_deg"]), abs=0.03)
    assert values["hour_angle"] == pytest.approx(15 * float(row["ha_calc_midexp_h"]), abs=0.3)
    assert values["parallactic_angle"] == pytest.approx(float(row["parallactic_calc_deg"]), abs=0.5)


def test_without_weather_and_with_a_wrong_altitude_every_field_is_told() -> None:
    header = header_of(ROWS[0], OUTTEMP=None, HUMIDITY=None, PRESSURE="NaN", ZD=41.0)
    found = read(load_camera("decam"), header)
    assert found.values["condition_flags"] == (
        ConditionFlag.LONGITUDE_SIGN_CORRECTED
        | ConditionFlag.TEMPERATURE_DEFAULTED
        | ConditionFlag.PRESSURE_DEFAULTED
        | ConditionFlag.HUMIDITY_DEFAULTED
        | ConditionFlag.ALTITUDE_INCONSISTENT
    )
    for text in (
        "header key OUTTEMP (temperature) is not recorded: 4.6 Celsius",
        "header key HUMIDITY (humidity) is not recorded: 40.0 %",
        "header key PRESSURE (pressure) is not recorded: 772 hPa",
        "header key 90 - ZD (altitude) is 49.000 deg",
    ):
        assert any(note.startswith(text) for note in found.notes), text


def test_an_exposure_without_pointing_has_no_conditions_and_says_why() -> None:
    found = read(load_camera("decam"), header_of(ROWS[0], TELRA=None))
    assert found.values["condition_flags"] & ConditionFlag.NOT_COMPUTED
    assert found.values["altitude"] is None
    assert any("there is no header key TELRA (right_ascension)" in note for note in found.notes)
    bias = read(load_camera("decam"), header_of(ROWS[0], OBSTYPE="zero"))
    assert bias.values["condition_flags"] is None
    assert not bias.notes


SMALL = """
name: small
header:
  exposure: EXPNUM
  observation_type: {key: OBSTYPE, values: {object: science}}
  exposure_time: EXPTIME
  mjd_start: MJD-OBS
  physical_filter: FILTER
  right_ascension: TELRA
  declination: TELDEC
  zenith_distance: ZD
  hour_angle: HA
  temperature: OUTTEMP
  pressure: PRESSURE
  humidity: HUMIDITY
  longitude: OBS-LONG
  latitude: OBS-LAT
  height: OBS-ELEV
detectors:
  - {name: ccd, hdu: 0, shape: [4, 4], amplifiers: [{name: A, data: {y: [0, 4], x: [0, 4]}}]}
"""


def test_conditions_are_kept_with_every_exposure_of_a_store(tmp_path: Path) -> None:
    for row in ROWS[:3]:
        hdu = fits.PrimaryHDU(np.zeros((4, 4), np.uint16), header_of(row))
        hdu.writeto(tmp_path / f"{row['expnum']}.fits")
    store = create_store("memory://conditions-of-exposures", parse_camera(SMALL, "small.yaml"))
    outcomes = ingest_fits(store, tmp_path)
    assert [len(outcome.notes) for outcome in outcomes] == [2, 2, 2]
    table = store.exposures()
    assert (table["condition_flags"] == TRAPS).all()
    assert table["pressure"].attrs["units"] == "Pa"
    assert (table["site_longitude"] == -70.81489).all()
    one = store.read_block("raw", {"exposure": int(ROWS[0]["expnum"]), "detector": "ccd"})
    for name in ("altitude", "parallactic_angle", "pressure", "mjd_middle"):
        assert float(one[name]) == float(table[name].sel(exposure=int(ROWS[0]["expnum"])))


def test_a_camera_with_an_impossible_observatory_is_refused_with_its_line() -> None:
    from skyloom.algorithms.errors import ConfigurationError

    text = SMALL.replace("header:", "observatory: {longitude: 400, latitude: 0}\nheader:", 1)
    with pytest.raises(ConfigurationError, match=r"observatory\.longitude"):
        parse_camera(text, "small.yaml")
