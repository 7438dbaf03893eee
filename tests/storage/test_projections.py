"""World coordinate systems of detectors: read as astropy reads them, whatever was trimmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from skyloom.storage.camera import Camera, load_camera
from skyloom.storage.ingest import ingest_fits
from skyloom.storage.projections import (
    PixelMove,
    detector_move,
    moved,
    projection_keys,
    sky_corners,
)
from skyloom.storage.raw_fits import write_raw_fits
from skyloom.storage.store import create_store

TAN = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CUNIT1": "deg",
    "CUNIT2": "deg",
    "CRVAL1": 359.99,
    "CRVAL2": -30.0,
    "CRPIX1": 120.5,
    "CRPIX2": 77.25,
    "CD1_1": -7e-5,
    "CD1_2": 1e-6,
    "CD2_1": 2e-6,
    "CD2_2": 7.1e-5,
    "RADESYS": "ICRS",
}
SIP = TAN | {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 3,
    "B_ORDER": 2,
    "A_2_0": 1e-6,
    "A_1_1": -3e-6,
    "A_0_3": 2e-9,
    "B_0_2": 4e-6,
    "B_1_1": 2e-6,
}
TPV = TAN | {
    "CTYPE1": "RA---TPV",
    "CTYPE2": "DEC--TPV",
    "PV1_0": 1e-4,
    "PV1_1": 1.001,
    "PV1_4": 0.02,
    "PV1_7": -0.3,
    "PV2_0": -2e-4,
    "PV2_1": 0.999,
    "PV2_5": 0.01,
}
ZPN = TAN | {
    "CTYPE1": "RA---ZPN",
    "CTYPE2": "DEC--ZPN",
    "PV2_1": 1.0,
    "PV2_3": 30.0,
}


def sky(keys: dict[str, Any], x: Any, y: Any) -> Any:
    return np.array(WCS(fits.Header(keys)).all_pix2world(x, y, 0))


@pytest.mark.parametrize("keys", [TAN, SIP, TPV, ZPN], ids=["TAN", "SIP", "TPV", "ZPN"])
@given(
    sign=st.tuples(st.sampled_from([-1, 1]), st.sampled_from([-1, 1])),
    offset=st.tuples(st.integers(-60, 3000), st.integers(-60, 3000)),
)
def test_a_moved_projection_shows_the_same_sky(
    keys: dict[str, Any], sign: tuple[int, int], offset: tuple[int, int]
) -> None:
    move = PixelMove(sign, offset)
    x, y = np.array([0.0, 100.0, 31.5, 240.0]), np.array([0.0, 80.25, 200.0, 10.0])
    there = [s * p + o for s, p, o in zip(sign, (x, y), offset, strict=True)]
    turned = moved(keys, move)
    np.testing.assert_allclose(sky(turned, *there), sky(keys, x, y), rtol=0, atol=1e-10)
    assert moved(turned, move.reversed()) == pytest.approx(keys, abs=1e-9)


@pytest.mark.parametrize("keys", [TAN, SIP, TPV, ZPN], ids=["TAN", "SIP", "TPV", "ZPN"])
def test_the_keys_of_a_projection_are_all_that_it_needs(keys: dict[str, Any]) -> None:
    header = fits.Header(keys | {"EXPTIME": 3.0, "OBJECT": "M 33", "BAND": "r"})
    found = projection_keys(header)
    assert "EXPTIME" not in found
    x, y = np.array([0.0, 100.0, 31.5]), np.array([0.0, 80.25, 200.0])
    np.testing.assert_allclose(sky(found, x, y), sky(keys, x, y), rtol=0, atol=1e-12)
    assert json.loads(json.dumps(found)) == found


def test_scale_and_rotation_may_be_written_in_the_old_ways() -> None:
    old = {key: value for key, value in TAN.items() if not key.startswith("CD")}
    turned = old | {"CDELT1": -7e-5, "CDELT2": 7e-5, "CROTA2": 30.0}
    x, y = np.array([0.0, 100.0]), np.array([5.0, 80.0])
    found = projection_keys(fits.Header(turned))
    np.testing.assert_allclose(sky(found, x, y), sky(turned, x, y), rtol=0, atol=1e-12)
    arcsec = TAN | {"CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRVAL1": 36000.0, "CRVAL2": -3600.0}
    arcsec |= {key: 3600 * float(TAN[key]) for key in TAN if key.startswith("CD")}  # type: ignore[arg-type]
    found = projection_keys(fits.Header(arcsec))
    np.testing.assert_allclose(sky(found, x, y), sky(arcsec, x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "."),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "."),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no sky coordinates"),
        ({"CPDIS1": "LOOKUP"}, "tables"),
    ],
)
def test_a_projection_that_makes_no_sense_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        projection_keys(fits.Header(TAN | change))
    assert projection_keys(fits.Header({"EXPTIME": 3.0})) == {}


def test_amplifiers_with_overscan_between_them_are_no_piece_of_the_detector() -> None:
    camera = load_camera("simulated-mosaic")
    with pytest.raises(ValueError, match=r"header\.wcs: trimmed"):
        detector_move(camera, camera.detector("S00"))
    decam = load_camera("decam")
    assert detector_move(decam, decam.detector("N4")) == PixelMove((1, 1), (-56, 0))


def test_corners_lie_half_a_pixel_outside() -> None:
    found = sky_corners(TAN, (200, 300))
    expected = sky(TAN, [-0.5, 299.5, 299.5, -0.5], [-0.5, -0.5, 199.5, 199.5])
    np.testing.assert_allclose(found.T, expected, rtol=0, atol=1e-12)


def raw(camera: Camera, detector: str, keys: dict[str, Any] | None) -> xr.Dataset:
    shape = camera.detector(detector).shape
    coords: dict[str, Any] = {"exposure": 7, "exposure_time": 1.5, "observation_type": "science"}
    if keys:
        coords["wcs"] = json.dumps(keys)
    return xr.Dataset({"image": (("y", "x"), np.ones(shape, "uint16"))}, coords=coords)


def test_what_is_written_is_read_and_its_corners_are_known(tmp_path: Path) -> None:
    camera = load_camera("decam")
    raws = {"S29": raw(camera, "S29", TPV), "N4": raw(camera, "N4", SIP)}
    raws["N5"] = raw(camera, "N5", None)
    path = write_raw_fits(tmp_path / "7.fits", camera, raws)
    with fits.open(path) as hdus:
        assert hdus["S29"].header["CRPIX1"] == pytest.approx(float(TPV["CRPIX1"]) + 56)  # type: ignore[arg-type]
        assert "CTYPE1" not in hdus["N5"].header
        hdus["N4"].header["CTYPE1"] = "RA---XYZ"
        hdus.writeto(tmp_path / "8.fits")
    store = create_store(tmp_path / "store", camera)
    (outcome,) = ingest_fits(store, path)
    assert outcome.status == "ingested"
    found = store.read_block("raw", {"exposure": 7, "detector": "S29"})
    assert json.loads(str(found.wcs.values)) == pytest.approx(TPV)
    corners = store.sky_corners().sel(exposure=7)
    np.testing.assert_allclose(
        [corners.right_ascension.sel(detector="S29"), corners.declination.sel(detector="S29")],
        sky_corners(TPV, (4096, 2048)).T,
    )
    assert np.isnan(corners.declination.sel(detector="N5")).all()
    assert "wcs" not in store.read_block("raw", {"exposure": 7, "detector": "N5"}).coords


def test_a_broken_projection_is_noted_and_spoils_nothing(tmp_path: Path) -> None:
    camera = load_camera("decam")
    path = write_raw_fits(tmp_path / "7.fits", camera, {"N4": raw(camera, "N4", TAN)})
    with fits.open(path, mode="update") as hdus:
        hdus["N4"].header["CTYPE1"] = "RA---XYZ"
    store = create_store(tmp_path / "store", camera)
    (outcome,) = ingest_fits(store, path)
    assert outcome.status == "ingested"
    assert any("detector N4" in note and "left out" in note for note in outcome.notes)
