"""Speed: every benchmark beside its peers, and the published times of the reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from tests.benchmarks.conftest import REFERENCE_COPY_S, REFERENCE_SORT_S, Calibrators
from tests.validation.rows import Row

ROOT = Path(__file__).resolve().parents[2]
IGNORED = ("test_memory.py", "test_plan.py")
"""Measured in the topic `scale`."""


def _results() -> list[dict[str, Any]]:
    """Run the benchmarks and return their rows."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        command = [sys.executable, "-m", "pytest", "tests/benchmarks", "--benchmark-only", "-q"]
        command += ["-p", "no:xdist", *(f"--ignore=tests/benchmarks/{name}" for name in IGNORED)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"SKYLOOM_BENCHMARK_RESULTS": str(results)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the benchmarks failed:\n{done.stdout[-3000:]}")
        return [json.loads(line) for line in results.read_text().splitlines()]


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _row(result: dict[str, Any]) -> Row:
    """Return the row of a peer, or of the reference on an equal core by three calibrators."""
    what = f"{result['name']}, {result['size']}"
    ours, target = result["ours_s"], result["target"]
    goal = "no target" if target is None else f"≥ {target:g} times faster"
    if result["peer"] is not None:
        ratio = result["ratio"]
        told = f"{ratio:.3g} times faster ({_seconds(ours)} against {_seconds(result['peer_s'])})"
        return Row(
            f"{what}; beside {result['peer']}", goal, told, target is None or ratio >= target
        )
    if result["reference_ratio"] is None:
        return Row(what, "no target", _seconds(ours), True)
    plain = result["reference_ratio"]
    told = (
        f"{plain:.3g} times faster by the plain sort ({_seconds(ours)} against "
        f"{_seconds(result['reference_s'])}); {result['reference_ratio_by_copy']:.3g} by the copy; "
        f"{result['reference_ratio_by_vector_sort']:.3g} by the sort with vector instructions"
    )
    return Row(f"{what}; beside the reference", goal, told, target is None or plain >= target)


def _calibration() -> Row:
    """Return the row that says how published times of the reference are brought to this core."""
    with threadpool_limits(1):
        found = Calibrators.measure()
    scales = (
        found.plain_sort_s / REFERENCE_SORT_S,
        found.copy_s / REFERENCE_COPY_S,
        found.vector_sort_s / REFERENCE_SORT_S,
    )
    return Row(
        "how the published times of the reference, of a core that sorts 1e7 float64 in 0.656 s "
        "and copies 4096² float32 in 4.2 ms, are brought to this core. A row counts as met by "
        "the plain sort alone, that is numpy's with vector instructions switched off: with them "
        "this core sorts many times faster than the stated one although it copies about as fast, "
        "so the stated time must be of the plain sort. What the other two calibrators would give "
        "stands beside it in every row",
        "no target",
        f"plain sort {found.plain_sort_s:.3f} s, times x {scales[0]:.2f}; copy "
        f"{1e3 * found.copy_s:.1f} ms, times x {scales[1]:.2f}; sort with vector instructions "
        f"{found.vector_sort_s:.3f} s, times x {scales[2]:.2f}",
        True,
    )


def measure() -> list[Row]:
    """Return the rows of this topic."""
    return [_calibration(), *map(_row, _results())]
