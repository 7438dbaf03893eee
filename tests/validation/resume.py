"""Runs killed at random moments: what is finished stays, the result is the same bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.validation.by_test import rows_of_tests
from tests.validation.rows import Row
from tests.validation.stores import FLOWS, identical, ingested_night, small_flow

KILLS = 25
TESTS = (
    "tests/flows/test_resume.py",
    "tests/flows/test_photon_transfer_flow.py::"
    "test_one_solver_option_redoes_only_the_solve_and_what_follows",
    "tests/flows/test_run.py::test_a_second_run_makes_nothing_and_touches_no_file",
    "tests/flows/test_run.py::test_products_of_two_runs_are_the_same_bit_for_bit",
    "tests/storage/test_integrity.py::"
    "test_an_ingest_killed_at_a_random_moment_is_finished_by_the_next",
    "tests/storage/test_store.py::test_prepare_may_die_at_any_moment",
)


def _killed(path: Path) -> dict[str, Any]:
    """Kill runs on a store again and again, then let one finish; return how it went."""
    script = [sys.executable, str(FLOWS / "kill_repeatedly.py")]
    done = subprocess.run(
        [*script, "flats:small_flow", str(path), str(KILLS), "1", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _rows_of_kills() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = ingested_night(folder)
        killed, undisturbed = folder / "killed", folder / "undisturbed"
        for copy in (killed, undisturbed):
            shutil.copytree(raw, copy)
        blocks = small_flow(undisturbed).run(progress=False).made
        told = _killed(killed)
        same, arrays = identical(killed, undisturbed)
    progress = told["progress"]
    return [
        Row("photon transfer from FITS killed (SIGKILL) at random moments of the run",
            "≥ 20 times, nothing done is lost",
            f"{told['killed']} times in the midst of {blocks} blocks; done after each: "
            f"{', '.join(map(str, progress))}",
            told["killed"] >= 20 and 0 < progress[-1] < blocks and progress == sorted(progress)),
        Row("the next run finishes, making only what was missing",
            f"{blocks - progress[-1]} blocks, no failure",
            f"{told['last']} blocks, exit code {told['exit_code']}",
            told["last"] == blocks - progress[-1] and told["exit_code"] == 0),
        Row("the run after that", "no work", f"{told['again']} blocks", told["again"] == 0),
        Row("products compared with an undisturbed run", "every array the same, bit for bit",
            f"{same} of {arrays} arrays", same == arrays),
    ]  # fmt: skip


def measure() -> list[Row]:
    """Return the rows of this topic."""
    return [*_rows_of_kills(), *rows_of_tests(*TESTS, jobs=1)]
