"""Resume: killed at any moment, a run goes on where it was, and the numbers are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import LevelParameters, assert_same, contents, toy_flow, toy_store

from skyloom.flows.flow import Flow
from skyloom.storage.store import open_store

KILLS = 20
SCRIPT = Path(__file__).with_name("kill_repeatedly.py")
SIZE: dict[str, Any] = {"detectors": "abcdefgh", "exposures": 20}
BLOCKS = 160 + 80 + 8


def slow_flow(url: str) -> Flow:
    """Return a flow of about 250 blocks that take a few hundredths of a second each."""
    return toy_flow(open_store(url), level_parameters=LevelParameters(sleep=0.03), **SIZE)


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_like_one_that_was_not(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "killed")
    done = subprocess.run(
        [
            sys.executable,
            str(SCRIPT),
            "test_resume:slow_flow",
            store.url,
            str(KILLS),
            "1",
            "8",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == KILLS
    assert told["progress"] == sorted(told["progress"]), "something done was lost"
    assert 0 < told["progress"][-1] < BLOCKS, "kills must fall into the work"
    assert told["last"] == BLOCKS - told["progress"][-1]
    assert (told["again"], told["exit_code"]) == (0, 0)
    undisturbed = toy_store(tmp_path / "undisturbed")
    slow_flow(undisturbed.url).run(progress=False)
    assert_same(contents(open_store(store.url)), contents(undisturbed))


def test_a_block_that_was_begun_does_not_look_done(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "store")
    toy_flow(store).run(progress=False)
    chunk = store.read_record("level", {"exposure": 0, "detector": "a"})
    assert chunk is not None
    store.write_record(replace(chunk, status="started"))
    plan = toy_flow(store).plan()
    assert [step.reasons() for step in plan.steps] == [{"interrupted before": 1}, {}, {}]
    summary = toy_flow(store).run(progress=False)
    assert [found["done"] for found in summary.counts.values()] == [1, 0, 0]


def test_the_toys_do_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    first, second = toy_store(tmp_path / "a"), toy_store(tmp_path / "b")
    toy_flow(first, detectors="a").run(progress=False)
    toy_flow(first, detectors="ab").run(progress=False)
    toy_flow(second, detectors="ab").run(progress=False)
    assert_same(contents(first), contents(second))
    assert first["total"].sizes["x"] == toy.WIDTH
