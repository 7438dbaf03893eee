"""Rows from tests: what they promise is their name, and they pass or they do not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.validation.rows import Row

__all__ = ["rows_of_tests"]

ROOT = Path(__file__).resolve().parents[2]


def rows_of_tests(*selected: str, jobs: int = 2, options: tuple[str, ...] = ()) -> list[Row]:
    """Run tests and return one row for each: its name as a sentence, passed or not."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options]
        if jobs > 1:
            command += ["-n", str(jobs), "--dist", "worksteal"]
        subprocess.run(
            [*command, *selected], cwd=ROOT, env=dict(os.environ), capture_output=True, check=False
        )
        cases = list(ET.parse(report).iter("testcase"))
    if not cases:
        raise RuntimeError(f"no test was run for {', '.join(selected)}")
    return [_row(case) for case in sorted(cases, key=lambda case: case.get("name", ""))]


def _row(case: ET.Element) -> Row:
    name = case.get("name", "").removeprefix("test_").replace("_", " ")
    place = case.get("classname", "").rsplit(".", 1)[-1]
    failed = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
    outcome = failed[0] if failed else "passes"
    seconds = float(case.get("time", 0))
    return Row(f"{place}: {name}", "passes", f"{outcome} ({seconds:.1f} s)", not failed)
