"""Plan and graph of a whole survey camera, and what a task costs when it does nothing.

189 detectors and 300 pairs: 600 exposures of raw records, 56 700 blocks of pairs, as many darks
as a calibration night has. The target is 20 s and 2 GB. Runs as an ordinary test as well.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from skyloom.algorithms.parameters import Parameters
from skyloom.flows.flow import Flow
from skyloom.flows.step import Step
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.store import Store, create_store

ROOT = Path(__file__).resolve().parents[2]
DETECTORS = 189
PAIRS = 300
DARKS = 20
MEASURE = """
import json, sys, time
start = time.perf_counter()
from skyloom.flows.photon_transfer_flow import photon_transfer
from skyloom.flows.weave import weave_plan
from skyloom.storage.store import open_store
from tests.benchmarks.peak_memory import peak_bytes
imported = time.perf_counter()
flow = photon_transfer(open_store(sys.argv[1]))
plan = flow.plan()
planned = time.perf_counter()
graph = weave_plan(plan, flow.store)
woven = time.perf_counter()
print(json.dumps({
    "imports": imported - start,
    "plan": planned - imported,
    "weave": woven - planned,
    "tasks": len(graph.tasks),
    "blocks": len(graph.keys),
    "peak": peak_bytes(),
}))
"""


def survey_camera(path: Path) -> Path:
    """Write a camera of 189 detectors of 16 amplifiers of 2002 x 512 pixels."""
    amps = [
        f"    - {{name: C{i // 8}{i % 8}, data: {{y: [{(i // 8) * 2048}, "
        f"{(i // 8) * 2048 + 2002}], x: [{(i % 8) * 576}, {(i % 8) * 576 + 512}]}}}}"
        for i in range(16)
    ]
    lines = [
        "name: survey",
        "pixel_type: int32",
        "layout: {file: exposure, hdu: detector}",
        "header:",
        "  exposure: {key: EXPID, required: true}",
        "  observation_type: {key: OBSTYPE, required: true, values: {flat: flat, bias: bias}}",
        "  exposure_time: {key: EXPTIME, required: true}",
        "templates:",
        "  detectors:",
        "    ccd:",
        "      shape: [4096, 4608]",
        "      amplifiers:",
        *(f"    {line}" for line in amps),
        "detectors:",
        *(
            f"- {{name: R{i // 9:02d}S{i % 9}, id: {i}, hdu: R{i // 9:02d}S{i % 9}, template: ccd}}"
            for i in range(DETECTORS)
        ),
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store whose records say that everything was ingested; no pixels are needed."""
    from dataclasses import replace

    from skyloom.storage import records as book
    from skyloom.storage.records import Record
    from skyloom.storage.schemas import raw_schema

    folder = tmp_path_factory.mktemp("survey")
    store = create_store(folder / "store", survey_camera(folder / "survey.yaml"))
    detectors = store.camera.detector_names()
    exposures = list(range(1, 2 * (PAIRS + DARKS) + 1))
    store.prepare(
        raw_schema("int32"),
        {"exposure": exposures, "detector": detectors},
        sizes={"y": 4096, "x": 4608},
    )
    lines = []
    for exposure in exposures:
        dark = exposure <= 2 * DARKS
        headers = {
            "exposure": exposure,
            "observation_type": "bias" if dark else "flat",
            "exposure_time": 0.0 if dark else 0.1 * ((exposure + 1) // 2),
            "mjd_start": 60000.0 + exposure / 1000,
        }
        inputs = {"file": f"/data/night/{exposure:06d}.fits", "size": 7e9, "mtime_ns": 1}
        for detector in detectors:
            block = {"exposure": exposure, "detector": detector}
            record = Record("ingest", block, "done", headers=headers, inputs=inputs)
            fingerprint = f"{exposure:016x}{detectors.index(detector):016x}"
            lines.append(book._encode(replace(record, fingerprint=fingerprint, stamp=1)))
    tables = folder / "store" / "records" / "ingest" / "tables"
    tables.mkdir(parents=True)
    (tables / f"{1:020d}-00000000.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return store


def measure_plan(url: str) -> dict[str, float]:
    """Return times (s), memory (bytes) and sizes of plan and graph, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, url], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout)
    print(
        f"\nplan and graph of {told['blocks']} blocks, {told['tasks']} tasks: imports "
        f"{told['imports']:.1f} s, plan {told['plan']:.1f} s, graph {told['weave']:.1f} s, "
        f"memory {told['peak'] / 1e9:.2f} GB"
    )
    return told


def check_plan(told: dict[str, float]) -> None:
    """Assert what was promised and does not depend on the load of the machine."""
    assert told["blocks"] == DETECTORS * (PAIRS + DARKS + 2)
    assert told["tasks"] <= told["blocks"] + 2 * DETECTORS + 1
    assert told["peak"] < 2e9


@pytest.mark.slow
def test_the_plan_of_a_survey_camera_takes_little_memory(survey: Store) -> None:
    check_plan(measure_plan(survey.url))


def test_time_of_the_plan_of_a_survey_camera(benchmark: Any, survey: Store) -> None:
    check_plan(benchmark.pedantic(measure_plan, (survey.url,), rounds=1))


@pytest.mark.slow
def test_the_payload_of_a_survey_task_is_small(survey: Store) -> None:
    from skyloom.flows.photon_transfer_flow import photon_transfer
    from skyloom.flows.weave import weave

    flow = photon_transfer(survey, {"selection": {"detectors": ["R00S0", "R01S1"]}})
    graph = weave(flow.steps, survey)
    sizes = sorted(len(pickle.dumps(graph.tasks[key])) for key in graph.keys)
    print(f"\npayload of a task: median {sizes[len(sizes) // 2]} bytes, largest {sizes[-1]} bytes")
    assert sizes[-1] < 2048


class Nothing(Parameters):
    """No parameters."""


def no_op(inputs: Any, parameters: Nothing) -> xr.Dataset:
    """Return one number."""
    return xr.Dataset({"zero": ((), 0.0, {"units": ""})})


def measure_overhead(folder: Path, **options: Any) -> float:
    """Run many tasks that do nothing; return the time of one, s."""
    blocks = 1000
    schema = ProductSchema("zero", ("exposure",), ("exposure",), (Variable("zero", ("exposure",)),))
    step = Step(no_op, Nothing(), schema, {"exposure": tuple(range(blocks))}, ())
    flow = Flow("nothing", create_store(folder, "generic"), (step,))
    start = time.perf_counter()
    summary = flow.run(progress=False, **options)
    spent = (time.perf_counter() - start) / blocks
    assert summary.made == blocks
    records = flow.store.records("zero").values()
    inside = sum(record.wall_seconds for record in records) / blocks
    start = time.perf_counter()
    flow.run(progress=False, **options)
    again = (time.perf_counter() - start) / blocks
    print(
        f"\n{options}: {1e3 * spent:.2f} ms a task, of which {1e3 * inside:.2f} ms making and "
        f"writing its block; nothing to do: {1e6 * again:.0f} us a block"
    )
    return spent


@pytest.mark.slow
def test_a_task_that_does_nothing_costs_milliseconds(tmp_path: Path) -> None:
    assert measure_overhead(tmp_path / "store", workers=1) < 0.02


def test_time_of_a_task_that_does_nothing(benchmark: Any, tmp_path: Path) -> None:
    def both() -> None:
        assert measure_overhead(tmp_path / "threads", workers=1) < 0.02
        assert measure_overhead(tmp_path / "processes", scheduler="processes", workers=1) < 0.05

    benchmark.pedantic(both, rounds=1)
