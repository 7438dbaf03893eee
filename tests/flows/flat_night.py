"""A simulated night of flats through two filters, with a small camera whose detectors differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.simulate import (
    CameraParameters,
    PlanParameters,
    night_plan,
    night_truth,
    simulate_night_exposure,
)
from skyloom.flows import biases_darks, ingest
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.night_files import SimulatedNight, write_exposures
from skyloom.flows.progress import choose_observers
from skyloom.storage.camera import Camera, parse_camera
from skyloom.storage.store import Store, create_store

FILTERS = ("g", "r")
BIASES, DARKS, FLATS, SCIENCE = 5, 3, 6, 1
SEED = 1
LAMP = "lamp"
SKY = PlanParameters(faintest_sky=2e4, brightest_sky=3e4)
"""So bright that the photons of a bin allow to see a thousandth."""

CAMERA = """
name: four
description: four small detectors of two or four amplifiers
pixel_type: uint16
pixel_size: 60
layout: {file: exposure, hdu: detector, identify: EXTNAME}
header:
  exposure: {key: EXPID, required: true}
  observation_type:
    key: OBSTYPE
    required: true
    values: {bias: bias, dark: dark, flat: flat, science: science}
  exposure_time: {key: EXPTIME, required: true}
  dark_time: DARKTIME
  mjd_start: MJD-OBS
  physical_filter: FILTER
  observation_reason: REASON
  wcs: trimmed
templates:
  detectors:
    two:
      shape: [96, 160]
      amplifiers:
        - &side
          name: A
          data: {y: [0, 96], x: [0, 64]}
          overscan: {y: [0, 96], x: [64, 80]}
          gain: 1.5
          read_noise: 6.0
          saturation: 60000
        - {<<: *side, name: B, origin: [0, 80], gain: 1.2}
    four:
      shape: [96, 160]
      amplifiers:
        - &part
          name: A
          data: {y: [0, 48], x: [0, 64]}
          overscan: {y: [0, 48], x: [64, 80]}
          gain: 1.5
          read_noise: 6.0
          saturation: 60000
        - {<<: *part, name: B, origin: [0, 80], gain: 1.2}
        - {<<: *part, name: C, origin: [48, 0], gain: 1.4}
        - {<<: *part, name: D, origin: [48, 80], gain: 1.3}
detectors:
  - {name: S0, hdu: S0, template: two, offset_mm: [-5, -5]}
  - {name: S1, hdu: S1, template: four, offset_mm: [5, -5]}
  - {name: S2, hdu: S2, template: two, offset_mm: [-5, 5]}
  - {name: S3, hdu: S3, template: four, offset_mm: [5, 5]}
"""
DETECTORS = ("S0", "S1", "S2", "S3")

Frames = dict[str, xr.Dataset]
Change = Callable[[int, Frames], Mapping[str, xr.Dataset]]


def small_camera() -> Camera:
    """Return four detectors of 96 x 128 pixels, two of them of two amplifiers."""
    return parse_camera(CAMERA, "four.yaml")


def flat_night(*, flats: int = FLATS, science: int = SCIENCE) -> SimulatedNight:
    """Return biases, darks, and flats and exposures of the sky through two filters."""
    camera = small_camera()
    plan = night_plan(
        FILTERS, biases=BIASES, darks=DARKS, flats=flats, science=science, seed=SEED, parameters=SKY
    )
    parameters = CameraParameters(colour_response=0.02, glow=0.0)
    tables = {name: camera.amplifiers(name) for name in camera.detector_names()}
    truth = night_truth(
        tables, detector_transforms(camera), FILTERS, seed=SEED, parameters=parameters
    )
    return SimulatedNight(camera, plan, truth, xr.Dataset())


def frames_of(night: SimulatedNight, number: int) -> Frames:
    """Return the raw frames of an exposure; every second flat is of the lamp."""
    reason = LAMP if number % 2 else "other"
    return {
        name: simulate_night_exposure(
            night.plan,
            number,
            night.camera.amplifiers(name),
            truth,
            shape=night.camera.detector(name).shape,
        ).assign_coords(observation_reason=reason)
        for name, truth in night.truth.items()
    }


def with_dead_amplifier(night: SimulatedNight, frame: xr.Dataset, name: str) -> xr.Dataset:
    """Return a raw frame in which an amplifier sees no light: its pixels are as its overscan."""
    table = night.camera.amplifiers(str(frame[v.DETECTOR].values))
    (row,) = (row for row in amplifier_rows(table) if row.name == name)
    image = frame["image"].values.copy()
    dark = image[row.overscan.slices]
    image[row.data.slices] = np.tile(dark, (1, row.data.shape[1] // dark.shape[1]))
    return frame.assign(image=frame["image"].copy(data=image))


def make_store(folder: Path, night: SimulatedNight, change: Change | None = None) -> Path:
    """Write the files, ingest them, and return where the store is; frames may be changed."""

    def make(number: int) -> Mapping[str, xr.Dataset]:
        frames = frames_of(night, number)
        return frames if change is None else change(number, frames)

    write_exposures(
        folder / "fits",
        night.camera,
        night.plan[v.EXPOSURE].values,
        make,
        choose_observers(False),
    )
    place = folder / "store"
    assert ingest(create_store(place, night.camera), folder / "fits", progress=False).exit_code == 0
    return place


def with_biases(store: Store) -> Store:
    """Make biases and darks."""
    assert biases_darks(store).run(progress=False).exit_code == 0
    return store


def flats_through(night: SimulatedNight, name: str) -> list[int]:
    """Return the numbers of the flats through a filter."""
    plan = night.plan
    chosen = (plan["observation_type"] == v.FLAT) & (plan[v.FILTER] == name)
    return [int(number) for number in plan[v.EXPOSURE].values[chosen.values]]


def true_flat(night: SimulatedNight, detector: str, name: str) -> np.ndarray:
    """Return the true flat of frames in electron by the camera's gains."""
    truth = night.truth[detector]
    flat = truth["flat"].sel({v.FILTER: name}).values.astype(np.float64)
    table = night.camera.amplifiers(detector)
    for row in amplifier_rows(table):
        flat[row.trimmed.slices] *= row.gain / float(truth["gain"].sel({v.AMP: row.name}))
    return flat
