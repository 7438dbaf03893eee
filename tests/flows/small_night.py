"""A night of a small camera, run once for the tests of what goes wrong: 2 x 2 CCDs of 160 pixels.

The last exposure of the sky is dominated by the Moon: 20 times as bright as the others, and half
again as bright on one side of the camera as on the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.simulate import (
    CameraParameters,
    PlanParameters,
    SceneParameters,
    night_plan,
    night_scene,
    night_truth,
)
from skyloom.flows import ingest
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.night_files import SimulatedNight, write_night
from skyloom.flows.progress import choose_observers
from skyloom.storage.camera import Camera, parse_camera
from skyloom.storage.store import Store, create_store, open_store

SIDE, OVERSCAN = 160, 16
BIASES, DARKS, SCIENCE = 3, 3, 4
FIRST = BIASES + DARKS + 1
EXPOSURES = tuple(range(FIRST, FIRST + SCIENCE))
MOON = FIRST + SCIENCE
BRIGHTER, MOON_GRADIENT = 20.0, 0.08  # times, 1/mm
OBJECTS = {"background_bin": 32, "smoothing": 2.0, "growth": 6}
SKY = {
    "objects": OBJECTS,
    "objects_again": OBJECTS,
    "minimum_exposures": 2,
}
"""What suits so small detectors."""
DETECTORS = ("S00", "S01", "S10", "S11")
PITCH = 2.7  # mm
CAMERA = """
name: small-sky
description: four small simulated CCDs of two amplifiers each
pixel_type: uint16
pixel_size: 15
observatory: {{name: simulated, longitude: -70.7, latitude: -30.2, height: 2663}}
layout: {{file: exposure, hdu: detector, identify: EXTNAME}}
header:
  exposure: {{key: EXPID, required: true}}
  observation_type:
    key: OBSTYPE
    required: true
    values: {{bias: bias, dark: dark, flat: flat, science: science}}
  exposure_time: {{key: EXPTIME, required: true}}
  dark_time: DARKTIME
  mjd_start: MJD-OBS
  physical_filter: FILTER
  right_ascension: RA
  declination: DEC
  rotator_angle: ROTPA
  wcs: trimmed
templates:
  amplifiers:
    half:
      segment: {{y: [0, {side}], x: [0, {width}]}}
      data: {{y: [0, {side}], x: [0, {half}]}}
      overscan: {{y: [0, {side}], x: [{half}, {width}]}}
      gain: 1.5
      read_noise: 5.0
      saturation: 60000
  detectors:
    two:
      shape: [{side}, {shape}]
      amplifiers:
        - {{name: A, template: half, origin: [0, 0]}}
        - {{name: B, template: half, origin: [0, {width}], flip_x: true}}
detectors:
{detectors}
"""


def small_camera() -> Camera:
    """Return a camera of 2 x 2 detectors of 160 x 160 pixels."""
    half = SIDE // 2
    width = half + OVERSCAN
    detectors = "\n".join(
        f"  - {{name: S{row}{column}, id: {2 * row + column}, hdu: S{row}{column}, template: two, "
        f"offset_mm: [{PITCH * (column - 0.5)}, {PITCH * (row - 0.5)}]}}"
        for row in range(2)
        for column in range(2)
    )
    text = CAMERA.format(side=SIDE, half=half, width=width, shape=2 * width, detectors=detectors)
    return parse_camera(text, "small.yaml")


def small_night() -> SimulatedNight:
    """Return 3 biases, 3 darks, 4 dithered exposures of the sky and one in moonlight."""
    plan = night_plan(
        ("r",),
        biases=BIASES,
        darks=DARKS,
        flats=0,
        science=SCIENCE + 1,
        seed=5,
        parameters=PlanParameters(dither=20.0),
    )
    moon = plan[v.EXPOSURE] == MOON
    level = float(plan["level"].sel({v.EXPOSURE: list(EXPOSURES)}).mean())
    plan["level"] = plan["level"].where(~moon, BRIGHTER * level).assign_attrs(units=v.ELECTRON)
    gradient = plan["gradient_x"].where(~moon, MOON_GRADIENT)
    plan["gradient_x"] = gradient.assign_attrs(plan["gradient_x"].attrs)
    camera = small_camera()
    tables = {name: camera.amplifiers(name) for name in camera.detector_names()}
    # Waves as long as on detectors of 512 pixels: shorter ones would be taken for objects.
    waves = CameraParameters(lowest_wave=0.3, highest_wave=0.9)
    truth = night_truth(tables, detector_transforms(camera), ["r"], seed=5, parameters=waves)
    scene = SceneParameters(star_density=2.0, galaxy_density=1.0)
    return SimulatedNight(camera, plan, truth, night_scene(plan, truth, seed=5, parameters=scene))


def make_store(folder: Path, night: SimulatedNight) -> Store:
    """Write the files, ingest them, and return the store."""
    write_night(folder / "fits", night, choose_observers(False))
    store = create_store(folder / "store", night.camera)
    assert ingest(store, folder / "fits", progress=False).exit_code == 0
    return store


def copied(store: Store, folder: Path) -> Store:
    """Return a copy of a store."""
    shutil.copytree(store.url, folder)
    return open_store(folder)


def change(
    store: Store,
    product: str,
    block: Mapping[str, Any],
    edit: Callable[[xr.Dataset], xr.Dataset],
    *,
    fingerprint: str | None = "changed",
) -> None:
    """Replace a block as if it had always been so; another fingerprint redoes what follows."""
    record = store.read_record(product, block)
    assert record is not None
    store.write_block(product, block, edit(store.read_block(product, block)))
    store.write_record(record if fingerprint is None else replace(record, fingerprint=fingerprint))


def lose(store: Store, product: str, block: Mapping[str, Any]) -> None:
    """Let a block fail as if it had never been made."""
    record = store.read_record(product, block)
    assert record is not None
    store.write_record(replace(record, status="failed", fingerprint="", reason="lost"))


def assert_same_blocks(
    one: Store,
    other: Store,
    product: str,
    blocks: Iterable[Mapping[str, Any]],
) -> None:
    """Assert that blocks of two stores are the same, bit for bit."""
    for block in blocks:
        mine, theirs = (store.read_block(product, block) for store in (one, other))
        for name in mine.data_vars:
            a, b = mine[name].values, theirs[name].values
            assert a.tobytes() == b.tobytes(), (product, block, name, np.nanmax(np.abs(a - b)))
