"""Exposure ids that are not whole numbers in the header: part of a text, or of the file's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyloom.algorithms.errors import ConfigurationError
from skyloom.storage.camera import parse_camera
from skyloom.storage.ingest import ingest_fits
from skyloom.storage.store import create_store

CAMERA = r"""
name: small
header:
  exposure: {key: %s, pattern: '%s', required: true}
  observation_type: {key: IMAGETYP, required: true, values: {flat: flat}}
  exposure_time: {key: EXPTIME, required: true}
detectors:
  - name: ccd
    hdu: 0
    shape: [8, 8]
    amplifiers:
      - {name: A, data: {y: [0, 8], x: [0, 8]}}
"""


def write(path: Path, **keys: str) -> Path:
    hdu = fits.PrimaryHDU(np.ones((8, 8), np.uint16))
    hdu.header.update({"IMAGETYP": "flat", "EXPTIME": 1.0, **keys})
    hdu.writeto(path)
    return path


def test_an_id_is_cut_out_of_a_text(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", parse_camera(CAMERA % ("OBSNUM", r"n(\d+)"), "c.yaml"))
    files = [write(tmp_path / f"{i}.fits", OBSNUM=f"n{i:04d}") for i in (1, 12)]
    ingest_fits(store, files)
    assert store.exposures()["exposure"].values.tolist() == [1, 12]


def test_groups_of_a_pattern_are_joined_and_the_name_of_the_file_will_do(tmp_path: Path) -> None:
    camera = parse_camera(CAMERA % ("FILENAME", r"^b_(\d+)_(\d+)"), "c.yaml")
    store = create_store(tmp_path / "store", camera)
    ingest_fits(store, [write(tmp_path / f"b_20260102_{i:03d}.fits") for i in (1, 2)])
    assert store.exposures()["exposure"].values.tolist() == [20260102001, 20260102002]


def test_a_value_without_the_pattern_is_rejected_by_name(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", parse_camera(CAMERA % ("OBSNUM", r"n(\d+)"), "c.yaml"))
    outcomes = ingest_fits(store, [write(tmp_path / "odd.fits", OBSNUM="calibration")])
    assert "OBSNUM (exposure) is 'calibration', not of the pattern 'n" in str(outcomes)


@pytest.mark.parametrize(("pattern", "problem"), [("n[", "no regular"), (r"\d+", "no group")])
def test_a_pattern_that_cannot_work_is_refused_with_the_camera(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse_camera(CAMERA % ("OBSNUM", pattern), "c.yaml")
