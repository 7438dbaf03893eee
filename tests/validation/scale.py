"""Plans and memory at the size of a large survey."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.benchmarks.memory_of_workers import draw, images_of_extraction, watch_run
from tests.benchmarks.task_memory import measure_task
from tests.benchmarks.test_tract_plan import measure_plans
from tests.benchmarks.tract_survey import Survey
from tests.validation.rows import Row, at_most, between

ROOT = Path(__file__).resolve().parents[2]
PICTURE = "images/memory_of_workers.png"
INFINITY = float("inf")


def _printed(*options: str) -> str:
    """Run benchmarks of the plan and return what they print; failing ones print as well."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", "-p", "no:xdist"]
        command += ["-o", "junit_logging=system-out", "tests/benchmarks/test_plan.py", *options]
        subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, check=False)
        cases = list(ET.parse(report).iter("testcase"))
    return "\n".join(case.findtext("system-out") or "" for case in cases)


def _numbers(text: str, pattern: str) -> list[float]:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"the benchmarks of the plan no longer print {pattern!r}: {text}")
    return [float(number) for number in found.groups()]


def _plan() -> list[Row]:
    text = _printed("--benchmark-only")
    blocks, tasks, imports, plan, graph, memory = _numbers(
        text,
        r"graph of (\d+) blocks, (\d+) tasks: imports ([\d.]+) s, plan ([\d.]+) s, "
        r"graph ([\d.]+) s, memory ([\d.]+) GB",
    )
    payload = _printed("-k", "payload")
    median, largest = _numbers(payload, r"median (\d+) bytes, largest (\d+) bytes")
    return [
        between(f"189 detectors x 300 pairs, {tasks:.0f} tasks of {blocks:.0f} blocks: plan "
                f"{plan:.1f} s + graph {graph:.1f} s (imports {imports:.1f} s beside)",
                plan + graph, -INFINITY, 20, "s", ".3g"),
        between("its peak memory, everything included", memory, -INFINITY, 2.0, "GB", ".3g"),
        between(f"payload of a task, the largest (median {median:.0f} bytes)", largest, -INFINITY,
                2048, "bytes", ".4g"),
        _overhead(text, "one thread", r"\{'workers': 1\}", 20),
        _overhead(text, "one worker process", r"\{'scheduler': 'processes', 'workers': 1\}", 50),
    ]  # fmt: skip


def _overhead(text: str, where: str, options: str, limit: float) -> Row:
    spent, inside, again = _numbers(
        text,
        options + r": ([\d.]+) ms a task, of which ([\d.]+) ms making and writing its block; "
        r"nothing to do: (\d+) us a block",
    )
    return Row(
        f"overhead of a task that does nothing, {where}, local disk, average of 1000",
        f"measured (below {limit:g} ms)",
        f"{spent:.2f} ms, of which {inside:.2f} ms making and writing its block; {again:.0f} us a "
        "block when there is nothing to do",
        spent < limit,
    )


def _memory() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        memory = watch_run(Path(folder))
    draw(memory, ROOT / "docs" / PICTURE)
    slopes = ", ".join(f"{slope:+.2f}" for slope in memory.slopes)
    growth, highest = max(memory.growths), max(memory.highest)
    return [
        Row(f"1000 pairs x detectors on 2 worker processes, {memory.made} blocks in "
            f"{memory.seconds:.0f} s: growth of a worker after the first fifth "
            f"([picture]({PICTURE}))",
            "below 1 MB per 100 blocks", f"{slopes} MB per 100 blocks", max(memory.slopes) < 1.0),
        Row("between the first and last quarter after that", "below 1 % of its memory",
            f"{growth:+.1f} MB of {highest:.0f} MB", growth < 0.01 * highest),
    ]  # fmt: skip


def _tract() -> list[Row]:
    survey = Survey()
    with tempfile.TemporaryDirectory() as folder:
        plans = measure_plans(Path(folder), survey)
    rows = []
    for name, found in plans.items():
        spent, most = found["plan"] + found["weave"], max(found["memory"].values())
        rows += [
            between(f"10 x 10 patches, 200 visits, 189 detectors, {name}: plan and graph of "
                    f"{sum(found['blocks'].values())} blocks", spent, -INFINITY, 60, "s", ".3g"),
            between("its largest task, as declared", most / 1e9, -INFINITY, 1.5, "GB", ".3g"),
            between("what travels to a task", found["task_bytes"], -INFINITY, 2048, "bytes",
                    ".4g"),
        ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for task, visits, what in (
            ("warps", 0, "the detectors of 2048 x 4096 that touch a patch of 4200²"),
            ("tract_levels", 3, "its levels"),
            ("coadd", 24, "24 matched warps, clipped"),
        ):
            memory = measure_task(task, Path(folder), visits)
            rows.append(
                between(f"task {task}, {what}: memory it takes, {memory.peak / 1e9:.2f} GB with "
                        "all of its process", memory.grown / 1e9, -INFINITY,
                        memory.declared / 1e9, "GB", ".3g")
            )  # fmt: skip
    return rows


def measure() -> list[Row]:
    """Return the rows of this topic."""
    extraction = [
        at_most(f"memory of the extraction of a pair, 16 amplifiers of 2002 x 512, {how}, beyond "
                "its inputs", images_of_extraction(region), 3.0, "float32 images of the detector",
                ".2f")
        for region, how in (("AMP", "amplifier by amplifier"), ("DETECTOR", "detector as a whole"))
    ]  # fmt: skip
    return [*_plan(), *_tract(), *extraction, *_memory()]
