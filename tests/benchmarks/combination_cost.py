"""Time and memory of reading frames from a store, and of combining them to a flat.

``python -m tests.benchmarks.combination_cost WAY FOLDER`` does it in a process of its own and
prints seconds of the processor (of all threads), seconds of the clock and the growth of the process
in bytes, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.storage.camera import parse_camera
from skyloom.storage.frame_schemas import FLAT_FRAMES
from skyloom.storage.records import Record
from skyloom.storage.store import Store, create_store, open_store
from tests.benchmarks.peak_memory import grown_bytes

ROOT = Path(__file__).resolve().parents[2]
FILTER, DETECTOR = "r", "S0"
ROUNDS = 6
CAMERA = """
name: large
description: one large detector
pixel_type: uint16
layout: {{file: exposure, hdu: detector, identify: EXTNAME}}
header:
  exposure: {{key: EXPID, required: true}}
  observation_type: {{key: OBSTYPE, required: true, values: {{flat: flat}}}}
  exposure_time: {{key: EXPTIME, required: true}}
detectors:
  - name: S0
    hdu: S0
    shape: [{rows}, {columns}]
    amplifiers:
      - {{name: A, data: {{y: [0, {rows}], x: [0, {half}]}}, gain: 1.5, read_noise: 6.0}}
      - {{name: B, data: {{y: [0, {rows}], x: [{half}, {columns}]}}, gain: 1.5, read_noise: 6.0}}
"""


class Cost(NamedTuple):
    """What a way took: the least seconds of some rounds, and the memory of the first."""

    processor_s: float
    clock_s: float
    grown_bytes: int


def write_frames(folder: Path, shape: tuple[int, int], number: int) -> None:
    """Write a store with detrended flats of one large detector."""
    text = CAMERA.format(rows=shape[0], columns=shape[1], half=shape[1] // 2)
    store = create_store(folder / "store", parse_camera(text, "large.yaml"))
    labels = {v.EXPOSURE: list(range(number)), v.DETECTOR: [DETECTOR], v.AMP: ["A", "B"]}
    store.prepare(FLAT_FRAMES, labels, sizes=dict(zip((v.Y, v.X), shape, strict=True)))
    for exposure in range(number):
        rng = np.random.default_rng(exposure)
        level = 20000.0 + 500.0 * exposure
        image = level + np.sqrt(level) * rng.standard_normal(shape, dtype=np.float32)
        mask = np.where(rng.random(shape, dtype=np.float32) < 1e-3, np.int32(2), np.int32(0))
        block = {v.EXPOSURE: exposure, v.DETECTOR: DETECTOR}
        planes = {
            "image": ((v.Y, v.X), image.astype(np.float32), {"units": v.ELECTRON}),
            "variance": ((v.Y, v.X), image.astype(np.float32), {"units": v.ELECTRON2}),
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        }
        coords = {**block, v.FILTER: FILTER, "exposure_time": 10.0, "observation_type": v.FLAT}
        store.write_block("flat_frames", block, xr.Dataset(planes, coords=coords))
        store.write_record(Record("flat_frames", block, "done", fingerprint=str(exposure)))


def read(store: Store) -> None:
    """Read every frame as a whole, one after the other."""
    for exposure in store.labels("flat_frames")[v.EXPOSURE]:
        store.read_block("flat_frames", {v.EXPOSURE: exposure, v.DETECTOR: DETECTOR})


def combine(store: Store) -> None:
    """Combine all frames as the task of the flow does."""
    from skyloom.flows.flat_blocks import FlatBlockParameters, combined_flat

    exposures = list(store.labels("flat_frames")[v.EXPOSURE])
    frames = store.read_block(
        "flat_frames", {v.EXPOSURE: exposures, v.DETECTOR: DETECTOR}, lazy=True
    )
    number = len(exposures)
    scales = xr.Dataset(
        {
            "exposure_scale": (v.EXPOSURE, 20000.0 + 500.0 * np.arange(number)),
            "exposure_status": (v.EXPOSURE, np.zeros(number, np.uint8)),
            "detector_scale": (v.DETECTOR, [1.0]),
            "cell_status": ((v.DETECTOR, v.EXPOSURE), np.zeros((1, number), np.uint8)),
        },
        coords={v.EXPOSURE: exposures, v.DETECTOR: [DETECTOR]},
    )
    inputs = {
        "frames": frames,
        "scales": scales,
        "amplifiers": store.camera.amplifiers(DETECTOR),
    }
    combined_flat(inputs, FlatBlockParameters())


WAYS = {"read": read, "combine": combine}


def cost_of(way: str, folder: Path) -> Cost:
    """Return what a way takes, in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.combination_cost", way, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def main(way: str, folder: Path) -> None:
    """Do it with few rows to load and compile everything, then with all; print the cost."""
    warnings.simplefilter("ignore")
    small = folder / "small"
    if not small.exists():
        write_frames(small, (64, 64), 4)
    WAYS[way](open_store(small / "store"))
    store = open_store(folder / "store")
    grown, _ = grown_bytes(lambda: WAYS[way](store))
    times = []
    for _ in range(ROUNDS):
        clock, processor = time.perf_counter(), time.process_time()
        WAYS[way](store)
        times.append((time.process_time() - processor, time.perf_counter() - clock))
    print(json.dumps([*map(min, zip(*times, strict=True)), grown]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
