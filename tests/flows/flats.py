"""Simulated flats as FITS files for the tests of whole flows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyloom.algorithms.simulate import flat_plan, flat_truth, simulate_exposure
from skyloom.flows.flow import Flow
from skyloom.flows.photon_transfer_flow import photon_transfer
from skyloom.storage.camera import Camera, load_camera
from skyloom.storage.raw_fits import write_raw_fits
from skyloom.storage.store import open_store

DETECTORS = ("S00", "S01")
LEVELS = 12
FILES = 4 + 2 + 2 * LEVELS  # biases, darks, flats
CONFIGURATION = {
    "selection": {"detectors": list(DETECTORS)},
    "extract": {"lags": 3},
    "solve": {"model": "exp00"},
    "kernel": {},
}


def two_detectors() -> Camera:
    """Return the camera of the demo; the tests use two of its detectors."""
    return load_camera("simulated-mosaic")


def write_night(folder: Path, *, levels: int = LEVELS, seed: int = 3) -> list[Path]:
    """Write biases, darks and flats of two detectors, a file per exposure; return the files."""
    camera = two_detectors()
    plan = flat_plan(np.geomspace(1000, 4e4, levels), biases=4, dark_times=(20.0,), seed=seed)
    truth = {name: flat_truth(camera.amplifiers(name), seed=seed) for name in DETECTORS}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in map(int, plan["exposure"].values):
        raws = {
            name: simulate_exposure(
                plan, number, camera.amplifiers(name), table, shape=camera.detector(name).shape
            )
            for name, table in truth.items()
        }
        paths.append(write_raw_fits(folder / f"{number:04d}.fits", camera, raws))
    return paths


def small_flow(url: str) -> Flow:
    """Return the photon transfer flow of the tests on a store."""
    return photon_transfer(open_store(url), CONFIGURATION)
