"""Plans and graphs of a tract of 10 x 10 patches that 189 detectors saw in 200 visits.

Warps, matched backgrounds and coadds: 60 s for the graph, 1.5 GB a task, 2 kB a task through the
scheduler. What a task really takes is measured at its real size.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.task_memory import measure_task
from tests.benchmarks.tract_survey import Survey

ROOT = Path(__file__).resolve().parents[2]
FLOWS = ("warps", "match_backgrounds", "coadds")
MEASURE = """
import json, pickle, sys, time
from dataclasses import asdict
from pathlib import Path
start = time.perf_counter()
from skyloom import flows
from skyloom.flows.weave import weave_plan
from skyloom.storage.store import open_store
from tests.benchmarks.peak_memory import peak_bytes
from tests.benchmarks.tract_survey import Survey, pretend, survey_store
folder, survey = Path(sys.argv[1]), Survey(*map(int, sys.argv[2:]))
imports = time.perf_counter() - start
survey_store(folder, survey)
told = {}
for name in ("warps", "match_backgrounds", "coadds"):
    given = ({"sky_map": survey.sky_map},) if name == "warps" else ()
    start = time.perf_counter()
    flow = getattr(flows, name)(open_store(folder / "store"), *given)
    plan = flow.plan()
    planned = time.perf_counter()
    graph = weave_plan(plan, flow.store)
    woven = time.perf_counter()
    sizes = {key: len(pickle.dumps(task)) for key, task in graph.tasks.items()}
    told[name] = {
        "plan": planned - start,
        "weave": woven - planned,
        "blocks": {step.step.name: len(step.blocks) for step in plan.steps},
        "memory": {step.step.name: step.step.memory_bytes for step in plan.steps},
        "tasks": len(graph.tasks),
        "task_bytes": max(sizes[key] for key in graph.keys),
        "gathered_bytes": max(
            (size for key, size in sizes.items() if key not in graph.blocks and "gather" in key[0]),
            default=0,
        ),
        "shared_bytes": max(size for key, size in sizes.items() if isinstance(key, str)),
        "peak": peak_bytes(),
    }
    pretend(flow)
print(json.dumps(told))
"""


def measure_plans(folder: Path, survey: Survey) -> dict[str, dict[str, Any]]:
    """Return times (s), counts and sizes (bytes) of the three flows, in a process of its own."""
    numbers = map(str, (survey.patches, survey.visits, survey.detectors, survey.inner))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), *numbers],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    for name, found in told.items():
        blocks = ", ".join(f"{count} {step}" for step, count in found["blocks"].items())
        most = max(found["memory"].values())
        print(
            f"\n{name}: {blocks}; plan {found['plan']:.1f} s, graph {found['weave']:.2f} s; "
            f"largest task declared {most / 1e9:.2f} GB; through the scheduler "
            f"{found['task_bytes']} bytes a task, {found['gathered_bytes']} a gathering, "
            f"{found['shared_bytes']} once a worker"
        )
    return told


def check_plans(told: dict[str, dict[str, Any]], survey: Survey) -> None:
    """Assert what was promised and does not depend on the load of the machine."""
    patches = survey.patches**2
    assert told["coadds"]["blocks"] == {"coadd": patches}
    assert told["match_backgrounds"]["blocks"]["tract_levels"] == survey.visits
    assert told["match_backgrounds"]["blocks"]["background_match"] == 1
    assert 0.3 * patches * survey.visits < told["warps"]["blocks"]["warps"]
    assert told["warps"]["blocks"]["warps"] <= patches * survey.visits
    for found in told.values():
        # nothing but blocks, what they share, and one gathering for each reduction
        gathered = found["blocks"].get("warp_psf", 0) + 1
        assert found["tasks"] <= sum(found["blocks"].values()) + gathered + 1
        assert found["task_bytes"] <= 2048
        assert max(found["memory"].values()) <= 1.5e9
        assert found["peak"] < 2e9
    assert told["match_backgrounds"]["gathered_bytes"] <= 2048 + 80 * survey.visits
    assert told["warps"]["shared_bytes"] <= 2048 + 200 * told["warps"]["blocks"]["warps"]


@pytest.mark.slow
def test_plans_of_a_small_tract_are_small(tmp_path: Path) -> None:
    survey = Survey(patches=4, visits=30, detectors=36)
    check_plans(measure_plans(tmp_path, survey), survey)


def test_plans_of_a_tract_of_two_hundred_visits(benchmark: Any, tmp_path: Path) -> None:
    survey = Survey()
    told = benchmark.pedantic(measure_plans, (tmp_path, survey), rounds=1)
    check_plans(told, survey)
    assert all(found["plan"] + found["weave"] < 60 for found in told.values())


@pytest.mark.parametrize(("task", "visits"), [("warps", 0), ("tract_levels", 3), ("coadd", 24)])
def test_a_task_takes_no_more_memory_than_its_plan_says(
    benchmark: Any, tmp_path: Path, task: str, visits: int
) -> None:
    told = benchmark.pedantic(measure_task, (task, tmp_path, visits), rounds=1)
    print(
        f"\n{task}: declared {told.declared / 1e9:.2f} GB, grown by {told.grown / 1e9:.2f} GB in "
        f"{told.seconds:.0f} s, process {told.peak / 1e9:.2f} GB"
    )
    assert told.grown <= told.declared <= 1.5e9
