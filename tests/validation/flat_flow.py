"""Flats of a simulated night, from raw files to frames divided by them, against the truth."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.simulate import (
    PlanParameters,
    night_exposure_truth,
    night_plan,
    night_truth,
    simulate_night_exposure,
)
from skyloom.flows import biases_darks, detrend, flat_normalization, ingest
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.night_files import write_exposures
from skyloom.flows.progress import choose_observers
from skyloom.storage.camera import Camera, load_camera
from skyloom.storage.frame_schemas import TILE
from skyloom.storage.store import Store, create_store
from tests.benchmarks.combination_cost import cost_of, write_frames
from tests.validation.by_test import rows_of_tests
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

FILTER, SEED, BIN = "r", 21, 32
BIASES, DARKS, FLATS, SCIENCE = 9, 5, 16, 2
DETECTORS = ("S00", "S02", "S12")
SKY = PlanParameters(faintest_sky=2e4, brightest_sky=3e4)
"""So bright that the photons of a bin allow to see a thousandth."""


class Night(NamedTuple):
    """A night with its truth, and the store in which its flows were run."""

    camera: Camera
    plan: xr.Dataset
    truth: dict[str, xr.Dataset]
    store: Store


def made_night(folder: Path) -> Night:
    """Return a night without stars, run from its raw files to detrended frames."""
    camera = load_camera("simulated-sky")
    plan = night_plan(
        (FILTER,),
        biases=BIASES,
        darks=DARKS,
        flats=FLATS,
        science=SCIENCE,
        seed=SEED,
        parameters=SKY,
    )
    tables = {name: camera.amplifiers(name) for name in DETECTORS}
    transforms = {name: detector_transforms(camera)[name] for name in DETECTORS}
    truth = night_truth(tables, transforms, (FILTER,), seed=SEED)

    def make(number: int) -> dict[str, xr.Dataset]:
        return {
            name: simulate_night_exposure(
                plan, number, tables[name], truth[name], shape=camera.detector(name).shape
            )
            for name in DETECTORS
        }

    quiet = choose_observers(False)
    write_exposures(folder / "fits", camera, plan[v.EXPOSURE].values, make, quiet)
    store = create_store(folder / "store", camera)
    ingest(store, folder / "fits", progress=False)
    chosen = {"selection": {"detectors": list(DETECTORS)}}
    for flow in (biases_darks, flat_normalization, detrend):
        flow(store, chosen).run(progress=False)
    return Night(camera, plan, truth, store)


def binned(
    values: NDArray[np.float64], good: NDArray[np.bool_], size: int = BIN
) -> NDArray[np.float64]:
    """Return the mean of good pixels in bins, NaN where they are fewer than half."""
    rows, columns = (side // size for side in values.shape)
    shape = (rows, size, columns, size)
    part = slice(0, rows * size), slice(0, columns * size)
    total = np.where(good, values, 0.0)[part].reshape(shape).sum(axis=(1, 3))
    count = good[part].reshape(shape).sum(axis=(1, 3))
    return np.where(count >= size * size / 2, total / np.maximum(count, 1), np.nan)


def bins_over_truth(
    night: Night, exposure: int, detector: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a frame over its true light in bins, and the noise of that by its variances.

    The light is that which fell before any response: level, gradient and pattern of the sky.
    """
    frame = night.store.read_block("detrended", {v.EXPOSURE: exposure, v.DETECTOR: detector})
    table, truth = night.camera.amplifiers(detector), night.truth[detector]
    light = night_exposure_truth(night.plan, exposure, table, truth)["background"].values
    true = light.astype(np.float64)
    image, variance = (frame[name].values.astype(np.float64) for name in ("image", "variance"))
    good = (frame[v.MASK].values == 0) & (truth["defects"].values == 0)
    ratio = np.where(good, image / true, 0.0)
    middle = np.median(ratio[good])
    # Cosmic rays of the frame say nothing of the flat.
    good &= np.abs(image - true * middle) < 6 * np.sqrt(variance)
    count = binned(good.astype(np.float64), np.ones_like(good)) * BIN**2
    level, noise = binned(ratio, good), binned(variance / true**2, good)
    known = np.isfinite(level)
    return level[known], np.sqrt(noise[known] / count[known])


def _flatness(night: Night) -> list[Row]:
    rows = []
    science = night.plan[v.EXPOSURE].values[(night.plan["observation_type"] == v.SCIENCE).values]
    for index, exposure in enumerate(map(int, science)):
        parts = [bins_over_truth(night, exposure, name) for name in DETECTORS]
        ratio, noise = (np.concatenate(part) for part in zip(*parts, strict=True))
        relative, sigma = ratio / np.mean(ratio) - 1, noise / np.mean(ratio)
        photons = float(np.sqrt(np.mean(sigma**2)))
        rms = float(np.std(relative))
        steps = [float(np.mean(part[0])) / float(np.mean(ratio)) - 1 for part in parts]
        what = f"sky {index + 1} divided by the flat, {ratio.size} bins of {BIN} px: "
        rest = np.sqrt(max(rms**2 - photons**2, 0.0))
        rows += [
            at_most(f"{what}rms about the light that fell, % (noise {100 * photons:.3f} %)",
                    100 * rms, 0.1, "%", form=".3f"),
            at_most(f"{what}the same less the noise of the frame", 100 * rest, 0.1, "%",
                    form=".3f"),
            at_most(f"{what}largest step of a detector", 100 * max(map(abs, steps)), 0.1, "%",
                    form=".3f"),
        ]  # fmt: skip
    return rows


def _flats(night: Night) -> list[Row]:
    """Return the rows of flats and scales against the truth."""
    pulls, responses, found = [], [], []
    for name in DETECTORS:
        flat = night.store.read_block("flat", {v.FILTER: FILTER, v.DETECTOR: name})
        truth = night.truth[name]
        true = truth["flat"].sel({v.FILTER: FILTER}).values.astype(np.float64)
        for row in amplifier_rows(night.camera.amplifiers(name)):
            gain = float(truth["gain"].sel({v.AMP: row.name}))
            true[row.trimmed.slices] *= row.gain / gain
        good = (flat[v.MASK].values == 0) & (truth["defects"].values == 0)
        image = flat["image"].values
        ratio = float(np.mean(image[good], dtype=np.float64) / np.mean(true[good]))
        pulls.append(((image - ratio * true) / np.sqrt(flat["variance"].values))[good])
        responses.append(float(np.mean(true[good])))
        found.append(float(np.mean(image[good], dtype=np.float64)))
    scales = night.store["flat_scales"].isel({v.FILTER: 0}).load()
    light = night.plan["level"].sel({v.EXPOSURE: scales[v.EXPOSURE].values}).values
    lamp = scales["exposure_scale"].values / light
    relative = np.array(found) / np.array(responses)
    width = 0.7413 * float(np.subtract(*np.percentile(np.concatenate(pulls), [75, 25])))
    chi2 = float(scales["chi2"]) / int(scales["dof"])
    what = f"{FLATS} flats: "
    return [
        within(f"{what}robust rms of (pixel − truth) / sigma, combined flats", width, 1.0, 0.03),
        at_most(f"{what}response of detectors relative to each other, % of the truth",
                100 * float(np.abs(relative / relative.mean() - 1).max()), 0.1, "%", form=".3f"),
        at_most(f"{what}light of exposures relative to each other, rms, % of the truth",
                100 * float(np.std(lamp / lamp.mean())), 0.1, "%", form=".3f"),
        between(f"{what}chi-squared over degrees of freedom, gradients of 0.1 % not fitted",
                chi2, 0.0, 1.2),
    ]  # fmt: skip


def _streaming(folder: Path) -> list[Row]:
    """Return the rows of time and memory, beside reading the same frames from the same store."""
    shape, number = (4096, 2048), 10
    write_frames(folder, shape, number)
    plain, ours = (cost_of(way, folder) for way in ("read", "combine"))
    flat = 20 * shape[0] * shape[1]
    tile = 12 * TILE * shape[1] * number
    what = f"{number} flats of {shape[0]} x {shape[1]} combined from a store: "
    return [
        between(f"{what}speed over that of reading them, seconds of the processor (of the clock, "
                f"with whatever else runs: {plain.clock_s / ours.clock_s:.2f})",
                plain.processor_s / ours.processor_s, 0.6, float("inf"), form=".2f"),
        between(f"{what}memory beside the flat itself, in tiles of all exposures",
                (ours.grown_bytes - flat) / tile, float("-inf"), 3.0, form=".2f"),
    ]  # fmt: skip


def measure() -> list[Row]:
    """Return the rows of this topic."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        night = made_night(Path(folder))
        rows = _flats(night) + _flatness(night) + _streaming(Path(folder) / "large")
    return rows + rows_of_tests("tests/flows/test_flat_normalization_flow.py", jobs=1)
