"""Darks of a camera that does not say its dark times, from files to science without dark charge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyloom.flows import biases_darks, detrend, ingest
from skyloom.storage.camera import parse_camera
from skyloom.storage.store import Store, create_store

OVERHEAD, RATE, BIAS, NOISE, SIDE = 2.0, 3.0, 1000.0, 0.1, 48
KINDS = {"bias": 0.0, "dark": 10.0, "science": 100.0}
CAMERA = f"""
name: plain
description: one small detector whose headers have no dark time
pixel_type: float32
layout: {{file: exposure, hdu: detector}}
header:
  exposure: {{key: EXPID, required: true}}
  observation_type:
    key: OBSTYPE
    required: true
    values: {{bias: bias, dark: dark, science: science}}
  exposure_time: {{key: EXPTIME, required: true}}
  mjd_start: MJD-OBS
detectors:
  - name: ccd
    hdu: 0
    shape: [{SIDE}, {SIDE + 8}]
    amplifiers:
      - name: A
        data: {{y: [0, {SIDE}], x: [0, {SIDE}]}}
        overscan: {{y: [0, {SIDE}], x: [{SIDE}, {SIDE + 8}]}}
        gain: 1.0
        read_noise: {NOISE}
        saturation: 60000
"""


@pytest.fixture
def plain_store(tmp_path: Path) -> Store:
    """Return a store of biases, darks and one exposure without light."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, kind in enumerate(("bias", "bias", "bias", "dark", "dark", "dark", "science")):
        image = rng.normal(BIAS, NOISE, (SIDE, SIDE + 8)).astype(np.float32)
        if kind != "bias":
            image[:, :SIDE] += np.float32(RATE * (KINDS[kind] + OVERHEAD))
        header = fits.Header(
            {
                "EXPID": number + 1,
                "OBSTYPE": kind,
                "EXPTIME": KINDS[kind],
                "MJD-OBS": 60000.0 + number / 100,
            }
        )
        fits.PrimaryHDU(image, header).writeto(folder / f"{number}.fits")
    store = create_store(tmp_path / "store", parse_camera(CAMERA, "plain.yaml"))
    assert ingest(store, folder, progress=False).exit_code == 0
    return store


def test_an_overhead_told_once_reaches_darks_and_the_frames_they_are_taken_from(
    plain_store: Store,
) -> None:
    flow = biases_darks(plain_store, {"overhead": OVERHEAD})
    assert flow.run(progress=False).exit_code == 0
    dark = plain_store.read_block("dark", {"detector": "ccd"})
    assert float(dark["dark_overhead"]) == OVERHEAD
    assert float(dark["image"].mean()) == pytest.approx(RATE, abs=2e-3)
    chain = {"calibrations": {"gain": "none"}}
    assert detrend(plain_store, chain).run(progress=False).exit_code == 0
    frame = plain_store.read_block("detrended", {"exposure": 7, "detector": "ccd"})
    # A tenth of an electron is that of the dark, 0.0003 for a second, and of the overscan.
    assert abs(float(frame["image"].mean())) < 0.1
    assert biases_darks(plain_store, {"overhead": OVERHEAD}).plan().todo == 0
    # A number given to the flow of science holds instead.
    told = detrend(plain_store, chain | {"detrend": {"dark": {"overhead": 0.0}}})
    assert told.run(progress=False).exit_code == 0
    frame = plain_store.read_block("detrended", {"exposure": 7, "detector": "ccd"})
    assert float(frame["image"].mean()) == pytest.approx(RATE * OVERHEAD, abs=0.1)
