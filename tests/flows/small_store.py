"""A small store with photon transfer of simulated flats, made once and used by several tests.

Two detectors of two amplifiers, twelve levels of flats up to beyond saturation, one flat without
a partner and one pair with a lamp that failed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits

from skyloom.algorithms.simulate import flat_plan, flat_truth, simulate_exposure
from skyloom.flows import ingest, photon_transfer
from skyloom.storage import Store, create_store
from skyloom.storage.camera import Camera, parse_camera

CAMERA = """
name: two
description: two small detectors of two amplifiers
pixel_type: uint16
layout: {file: exposure, hdu: detector, identify: EXTNAME}
header:
  exposure: {key: EXPID, required: true}
  observation_type: {key: OBSTYPE, required: true, values: {bias: bias, flat: flat}}
  exposure_time: {key: EXPTIME, required: true}
  mjd_start: MJD-OBS
templates:
  detectors:
    ccd:
      shape: [160, 352]
      amplifiers:
        - &amp
          name: A
          data: {y: [0, 160], x: [0, 160]}
          overscan: {y: [0, 160], x: [160, 176]}
          gain: 1.5
          read_noise: 6.0
          saturation: 60000
        - {<<: *amp, name: B, origin: [0, 176]}
detectors:
  - {name: R0, hdu: R0, template: ccd, offset_mm: [-5, 0]}
  - {name: R1, hdu: R1, template: ccd, offset_mm: [5, 0]}
"""
SEED = 7
UNPAIRED = 999
LAMP_FAILED = "21-22"


def write_exposure(
    camera: Camera, plan: xr.Dataset, exposure: int, truth: dict[str, xr.Dataset], folder: Path
) -> None:
    """Write one exposure of a plan as a multi-extension FITS file."""
    row = plan.sel(exposure=exposure)
    primary = fits.PrimaryHDU()
    primary.header["EXPID"] = exposure
    primary.header["OBSTYPE"] = str(row["observation_type"].item())
    primary.header["EXPTIME"] = float(row["exposure_time"])
    primary.header["MJD-OBS"] = float(row["mjd_start"])
    hdus = [primary]
    for name in camera.detector_names():
        frame = simulate_exposure(plan, exposure, camera.amplifiers(name), truth[name])
        hdus.append(fits.ImageHDU(frame["image"].to_numpy(), name=name))
    fits.HDUList(hdus).writeto(folder / f"{exposure:04d}.fits")


def make_store(folder: Path) -> Store:
    """Simulate, ingest and run photon transfer; return the store."""
    camera = parse_camera(CAMERA, "two.yaml")
    truth = {
        name: flat_truth(camera.amplifiers(name), seed=SEED) for name in camera.detector_names()
    }
    plan = flat_plan(np.geomspace(500, 1.1e5, 12), biases=2, first_exposure=1, seed=3)
    electrons = plan["electrons"].to_numpy().copy()
    electrons[plan["exposure"].to_numpy() == 22] *= 0.8
    lonely = plan.isel(exposure=[-1]).assign_coords(exposure=[UNPAIRED])
    lonely = lonely.assign(
        exposure_time=lonely["exposure_time"] * 3, electrons=lonely.electrons / 3
    )
    plan = xr.concat([plan.assign(electrons=("exposure", electrons)), lonely], "exposure")
    raw = folder / "raw"
    raw.mkdir()
    for exposure in plan["exposure"].to_numpy():
        write_exposure(camera, plan, int(exposure), truth, raw)
    store = create_store(folder / "store", camera)
    assert ingest(store, raw, progress=False).exit_code == 0
    configuration = {"extract": {"lags": 4}}
    assert photon_transfer(store, configuration).run(progress=False).exit_code == 0
    return store
