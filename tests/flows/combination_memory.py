"""Memory of combining frames of a store tile by tile, in a process of its own.

``python combination_memory.py FOLDER`` prints, as JSON, for each calibration the bytes that the
process grows by at its worst, and those of all inputs and of the result.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[2]))

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.combine import CombineParameters
from skyloom.flows.biases_darks_flow import DarkBlockParameters, combined_bias, combined_dark
from skyloom.storage.camera import parse_camera
from skyloom.storage.dataset_schema import ProductSchema
from skyloom.storage.frame_schemas import BIAS_FRAMES, DARK_FRAMES
from skyloom.storage.store import Store, create_store
from tests.benchmarks.peak_memory import grown_bytes

DETECTOR = "S0"
SHAPE, SMALL = (8192, 128), (64, 64)
NUMBER = 24
BYTES = 12  # of a pixel with variance and mask
CAMERA = """
name: tall
pixel_type: uint16
layout: {{file: exposure, hdu: detector, identify: EXTNAME}}
header:
  exposure: {{key: EXPID, required: true}}
  observation_type: {{key: OBSTYPE, required: true, values: {{bias: bias}}}}
  exposure_time: {{key: EXPTIME, required: true}}
detectors:
  - name: S0
    hdu: S0
    shape: [{rows}, {columns}]
    amplifiers:
      - {{name: A, data: {{y: [0, {rows}], x: [0, {columns}]}}, gain: 1.5, read_noise: 6.0}}
"""


def write_frames(store: Store, schema: ProductSchema, shape: tuple[int, int], kind: str) -> None:
    """Write frames of noise, as the flow leaves them."""
    labels = {v.EXPOSURE: list(range(NUMBER)), v.DETECTOR: [DETECTOR], v.AMP: ["A"]}
    store.prepare(schema, labels, sizes=dict(zip((v.Y, v.X), shape, strict=True)))
    for exposure in range(NUMBER):
        image = np.random.default_rng(exposure).standard_normal(shape, np.float32) * np.float32(4)
        planes = {
            "image": ((v.Y, v.X), image, {"units": v.ADU}),
            "variance": ((v.Y, v.X), np.full(shape, 16, np.float32), {"units": v.ADU2}),
            v.MASK: ((v.Y, v.X), np.zeros(shape, np.int32), v.mask_attributes()),
        }
        block = {v.EXPOSURE: exposure, v.DETECTOR: DETECTOR}
        coords = {**block, "exposure_time": 10.0, "dark_time": 10.0, "observation_type": kind}
        store.write_block(schema.name, block, xr.Dataset(planes, coords=coords))


def frames_of(store: Store, product: str) -> xr.Dataset:
    """Return all frames, to be read piece by piece, as a task of the flow is given them."""
    block = {v.EXPOSURE: list(range(NUMBER)), v.DETECTOR: DETECTOR}
    return store.read_block(product, block, lazy=True)


def calls(folder: Path, shape: tuple[int, int]) -> dict[str, Callable[[], xr.Dataset]]:
    """Return what combines frames of a shape, by calibration."""
    text = CAMERA.format(rows=shape[0], columns=shape[1])
    store = create_store(folder / str(shape[0]), parse_camera(text, "tall.yaml"))
    write_frames(store, BIAS_FRAMES, shape, v.BIAS)
    write_frames(store, DARK_FRAMES, shape, v.DARK)
    amplifiers = store.camera.amplifiers(DETECTOR)
    parameters = CombineParameters()

    def bias() -> xr.Dataset:
        inputs = {"frames": frames_of(store, "bias_frames"), "amplifiers": amplifiers}
        return combined_bias(inputs, parameters)

    made = bias()

    def dark() -> xr.Dataset:
        inputs = {"frames": frames_of(store, "dark_frames"), "amplifiers": amplifiers}
        return combined_dark({**inputs, "bias": made}, DarkBlockParameters(combine=parameters))

    return {"bias": bias, "dark": dark}


def main(folder: Path) -> None:
    """Combine few pixels to load and compile everything, then many; print what they took."""
    warnings.simplefilter("ignore")
    for call in calls(folder, SMALL).values():
        call()
    found = {}
    for name, call in calls(folder, SHAPE).items():
        grown, result = grown_bytes(call)
        found[name] = {
            "grown": grown,
            "inputs": BYTES * NUMBER * SHAPE[0] * SHAPE[1],
            "result": result.nbytes,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
