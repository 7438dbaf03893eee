"""Memory of tasks of warps, levels and coadds at their real size, beside what plans declare.

``python -m tests.benchmarks.task_memory TASK FOLDER VISITS`` makes one block in a process of its
own and prints what plans declare and by how much the process grew, in bytes, as JSON. Detectors
have 2048 x 4096 pixels, the patch 4200². Warps of many visits are links to those of three.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.skymap import SkyMapParameters, make_skymap
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.flows import coadds, match_backgrounds, warps
from skyloom.flows.block import Context, run_block
from skyloom.flows.flow import Flow
from skyloom.storage.match_schemas import background_match_schema
from skyloom.storage.records import Record
from skyloom.storage.store import Store, open_store
from skyloom.storage.warp_schemas import warps_schema
from tests.benchmarks.peak_memory import grown_bytes, peak_bytes
from tests.benchmarks.tract_survey import HEIGHT, WIDTH, Survey, placement, survey_store

ROOT = Path(__file__).resolve().parents[2]
SURVEY = Survey(patches=3, visits=8)
PATCH = "0-4"
"""The patch in the middle, whose box is 4200 pixels wide."""
WRITE = """
import sys
from pathlib import Path
from tests.benchmarks.task_memory import frames_store, warps_store
task, folder, visits = sys.argv[1:]
frames_store(Path(folder)) if task == "warps" else warps_store(Path(folder), int(visits))
"""
DRAWN = 3
"""Warps that differ."""


class TaskMemory(NamedTuple):
    """What a task takes, and what plans say that it does."""

    declared: int
    grown: int
    peak: int
    seconds: float


def measure_task(task: str, folder: Path, visits: int = 0) -> TaskMemory:
    """Make one block of "warps", "tract_levels" or "coadd" in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.task_memory", task, str(folder), str(visits)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return TaskMemory(**json.loads(done.stdout.splitlines()[-1]))


def most_turned() -> int:
    """Return the index of the visit whose detectors lie most aslant, which takes most memory."""
    angle, _, _ = placement(SURVEY)
    return int(np.argmax(np.abs(np.sin(2 * angle))))


def frames_store(folder: Path) -> None:
    """Write a store with the frames of a visit that touch the patch."""
    store = survey_store(folder, SURVEY)
    index = most_turned()
    chosen: dict[str, Any] = {"sky_map": SURVEY.sky_map, "selection": {"exposures": (index + 1,)}}
    flow = warps(store, chosen)
    step = next(step for step in flow.steps if step.name == "warps")
    detectors = step.inputs[0].chosen({v.VISIT: index + 1, v.PATCH: PATCH})
    tract = make_skymap(SkyMapParameters.model_validate(SURVEY.sky_map))[0]
    angle, middle, centers = placement(SURVEY)
    cosine, sine = np.cos(angle[index]), np.sin(angle[index])
    turn = np.array([[cosine, -sine], [sine, cosine]])
    names = store.camera.detector_names()
    rng = np.random.default_rng(2)
    for name in sorted(detectors):
        center = centers[names.index(name)] - np.array([WIDTH - 1, HEIGHT - 1]) / 2
        away = np.array([tract.plane.x, tract.plane.y]) - middle[index]
        x, y = turn.T @ away - center
        plane = TangentPlane(
            tract.right_ascension, tract.declination, x, y, tract.plane.matrix @ turn
        )
        frame = planes_of((HEIGHT, WIDTH), "electron", rng).assign_coords(
            exposure_time=30.0,
            physical_filter="r",
            zero_point=28.0,
            wcs=json.dumps(plane.header()),
        )
        block = {v.EXPOSURE: index + 1, v.DETECTOR: name}
        store.write_block("detrended", block, frame)
        store.write_record(Record("detrended", block, "done", fingerprint=name))


def planes_of(shape: tuple[int, int], unit: str, rng: np.random.Generator) -> xr.Dataset:
    """Return an image of noise, its variance and its mask."""
    dims = (v.Y, v.X)
    mask = np.where(rng.random(shape, np.float32) < 1e-3, v.MASK_PLANES["BAD"], 0)
    image = 100.0 + 10.0 * rng.standard_normal(shape, np.float32)
    return xr.Dataset(
        {
            "image": (dims, image, {"units": unit}),
            "variance": (dims, np.full(shape, 100.0, np.float32), {"units": f"{unit}2"}),
            v.MASK: (dims, mask.astype(np.int32), v.mask_attributes()),
        }
    )


def warps_store(folder: Path, visits: int) -> None:
    """Write a store with the warps of a patch, and fields that match them."""
    store = survey_store(folder, Survey(patches=3, visits=visits, detectors=9))
    sky_map = SkyMapParameters.model_validate(SURVEY.sky_map)
    labels = {v.VISIT: list(range(1, visits + 1)), v.PATCH: [PATCH]}
    side = make_skymap(sky_map)[0].patch(4).outer.shape
    schema = warps_schema(v.NANOJANSKY)
    attrs = {"sky_map": sky_map.model_dump(mode="json")}
    sizes = dict(zip((v.Y, v.X), side, strict=True))
    store.prepare(schema, labels, sizes=sizes, attrs=attrs)
    rng = np.random.default_rng(3)
    for visit in labels[v.VISIT]:
        block = {v.VISIT: visit, v.PATCH: PATCH}
        if visit <= DRAWN:
            warp = planes_of(side, v.NANOJANSKY, rng)
            fraction = np.zeros(side, np.float32)
            warp["masked_fraction"] = ((v.Y, v.X), fraction, {"units": ""})
            warp["status"] = ((), np.uint8(v.WarpStatus.OK))
            warp["good_count"] = ((), np.int64(fraction.size), {"units": v.PIXEL})
            store.write_block("warps", block, warp)
        else:
            for array in (Path(store.url) / "warps").glob("*/c"):
                _link(array / str(visit % DRAWN), array / str(visit - 1))
        store.write_record(Record("warps", block, "done", fingerprint=f"{visit:032x}"))
    _write_match(store, labels[v.VISIT])


def _link(one: Path, other: Path) -> None:
    for path in one.rglob("*"):
        if path.is_file():
            there = other / path.relative_to(one)
            there.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, there)


def _write_match(store: Store, visits: list[int]) -> None:
    schema = background_match_schema(v.NANOJANSKY)
    sizes = {v.COEFFICIENT: 3, f"{v.COEFFICIENT}_2": 3, v.TRACT_Y: 75, v.TRACT_X: 75}
    labels: dict[str, list[Any]] = {v.FILTER: ["r"], v.TRACT: [0], v.VISIT: visits}
    attrs = {"basis": "polynomial", "order": 1, "knots": [8, 8]}
    store.prepare(schema, labels, sizes=sizes, attrs=attrs)
    lengths = sizes | {v.VISIT: len(visits)}
    planes = {}
    for variable in schema.variables:
        dims = variable.dims[2:]
        values = np.zeros([lengths[dim] for dim in dims], variable.dtype)
        planes[variable.name] = (dims, values, {"units": variable.unit})
    block = {v.FILTER: "r", v.TRACT: 0}
    store.write_block(schema.name, block, xr.Dataset(planes, {v.VISIT: visits}))
    store.write_record(Record(schema.name, block, "done", fingerprint="match"))


def make_block(flow: Flow, labels: tuple[Any, ...]) -> dict[str, float]:
    """Make one block of the first step of a flow; return declared and measured memory."""
    step = flow.steps[0]
    flow.store.forget(step.name)
    plan = flow.plan()
    flow.store.prepare(step.schema, step.labels, sizes=step.sizes, attrs=step.attrs)
    context = Context(flow.store, {step.name: step}, plan.sources)
    given = plan.steps[0].blocks[labels].given
    start = time.perf_counter()
    grown, outcome = grown_bytes(lambda: run_block(context, step.name, labels, "", *given))
    seconds = time.perf_counter() - start
    if outcome.status != "done":
        raise RuntimeError(outcome.reason)
    return {
        "declared": step.memory_bytes,
        "grown": grown,
        "peak": peak_bytes(),
        "seconds": seconds,
    }


def main(task: str, folder: Path, visits: int) -> None:
    """Make one block; what it reads is written by a process of its own."""
    place = folder / f"{task}-{visits}"
    if not place.exists():
        place.mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-c", WRITE, task, place, str(visits)], cwd=ROOT, check=True
        )
    store = open_store(place / "store")
    if task == "warps":
        index = most_turned()
        chosen = {"sky_map": SURVEY.sky_map, "selection": {"exposures": (index + 1,)}}
        told = make_block(warps(store, chosen), (index + 1, PATCH))
    elif task == "tract_levels":
        told = make_block(match_backgrounds(store), (1, 0))
    else:
        told = make_block(coadds(store), ("r", PATCH))
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
