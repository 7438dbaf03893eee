"""A simulated night of the sky, ingested once for the tests of several flows."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.simulate import (
    PlanParameters,
    SceneParameters,
    night_exposure_truth,
    night_plan,
)
from skyloom.flows import ingest
from skyloom.flows.night_files import SimulatedNight, simulated_night, write_night
from skyloom.flows.progress import choose_observers
from skyloom.storage.camera import Camera, load_camera
from skyloom.storage.frame_schemas import BIAS, DARK, FLAT
from skyloom.storage.records import Record
from skyloom.storage.store import Store, create_store

FILTER = "r"
BIASES, DARKS, FLATS, SCIENCE = 5, 4, 4, 6


def sky_night(science: int = SCIENCE) -> SimulatedNight:
    """Return 5 biases, 4 darks, 4 flats and dithered exposures of the sky through one filter."""
    plan = night_plan(
        (FILTER,),
        biases=BIASES,
        darks=DARKS,
        flats=FLATS,
        science=science,
        seed=11,
        parameters=PlanParameters(dither=60.0),
    )
    scene = SceneParameters(star_density=2.0, galaxy_density=1.0)
    return simulated_night(load_camera("simulated-sky"), plan, (FILTER,), seed=11, scene=scene)


def make_store(folder: Path, night: SimulatedNight) -> Path:
    """Write the files, ingest them, and return where the store is."""
    write_night(folder / "fits", night, choose_observers(False))
    place = folder / "store"
    assert ingest(create_store(place, night.camera), folder / "fits", progress=False).exit_code == 0
    return place


def write_true_calibrations(
    store: Store,
    night: SimulatedNight,
    names: Container[str] = ("bias", "dark", "flat"),
    physical_filter: str = FILTER,
) -> None:
    """Write the true bias, dark and flat of each detector as if flows had made them.

    Frames are in electron of the camera's nominal gains; a flat made of such frames has the ratio
    of nominal to true gain in it, and sets them right.
    """
    detectors = list(night.truth)
    shape = next(iter(night.truth.values()))["bias_image"].shape
    sizes = dict(zip((v.Y, v.X), shape, strict=True))
    gains = {name: gain_images(truth, night.camera) for name, truth in night.truth.items()}
    products = (
        (BIAS, {}, lambda truth, _: truth["bias_image"]),
        (DARK, {}, lambda truth, gain: truth["dark_image"] / gain[0]),
        (
            FLAT,
            {v.FILTER: physical_filter},
            lambda truth, gain: truth["flat"].sel({v.FILTER: physical_filter}) * gain[1] / gain[0],
        ),
    )
    for schema, extra, image_of in products:
        if schema.name not in names:
            continue
        store.prepare(
            schema, {v.DETECTOR: detectors, **{k: [x] for k, x in extra.items()}}, sizes=sizes
        )
        unit = schema.variable("image").unit
        for name, truth in night.truth.items():
            image = np.asarray(image_of(truth, gains[name]), np.float32)
            planes = {
                "image": ((v.Y, v.X), image, {"units": unit}),
                "variance": (
                    (v.Y, v.X),
                    np.zeros_like(image),
                    {"units": schema.variable("variance").unit},
                ),
                v.MASK: ((v.Y, v.X), np.zeros(shape, np.int32), v.mask_attributes()),
                "count": ((v.Y, v.X), np.ones(shape, np.int16)),
                "rejected_count": ((v.Y, v.X), np.zeros(shape, np.int16)),
            }
            block = {v.DETECTOR: name, **extra}
            store.write_block(schema.name, block, xr.Dataset(planes))
            store.write_record(Record(schema.name, block, "done", fingerprint="truth"))


def sky_left(store: Store, night: SimulatedNight, bin_size: int = 64) -> np.ndarray:
    """Return the sky that the flow left in bins of every exposure, over its level: no noise.

    What the flow took off is known exactly, as is what it should have taken off.
    """
    left = []
    for exposure in store.labels("sky_subtracted")[v.EXPOSURE]:
        level = float(night.plan["level"].sel({v.EXPOSURE: exposure}))
        for name, truth in night.truth.items():
            block = {v.EXPOSURE: exposure, v.DETECTOR: name}
            sky = night_exposure_truth(
                night.plan, int(exposure), night.camera.amplifiers(name), truth
            )["background"]
            before, after = (
                store.read_block(product, block)["image"].values.astype(np.float64)
                for product in ("detrended", "sky_subtracted")
            )
            difference = (sky.values - (before - after)) / level
            height, width = (size // bin_size for size in difference.shape)
            shape = (height, bin_size, width, bin_size)
            # Defects have no value.
            left.append(np.nanmean(difference.reshape(shape), axis=(1, 3)))
    exposures = len(store.labels("sky_subtracted")[v.EXPOSURE])
    return np.stack(left).reshape(exposures, -1)


def gain_images(
    truth: xr.Dataset, camera: Camera | None = None
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the true and the nominal gain of every pixel of a trimmed detector."""
    images = xr.zeros_like(truth["bias_image"]), xr.zeros_like(truth["bias_image"])
    camera = camera or load_camera("simulated-sky")
    table = camera.amplifiers(str(truth.attrs[v.DETECTOR]))
    for amp in table[v.AMP].values:
        one = table.sel({v.AMP: amp})
        box = {
            axis: slice(int(one[f"{axis}_start"]), int(one[f"{axis}_stop"])) for axis in (v.Y, v.X)
        }
        images[0][box] = float(truth["gain"].sel({v.AMP: amp}))
        images[1][box] = float(one["gain"])
    return images
