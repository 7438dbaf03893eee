"""What is recorded as the memory of a block."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import toy
import xarray as xr

from skyloom.algorithms.parameters import Parameters
from skyloom.flows import process_memory
from skyloom.flows.flow import Flow
from skyloom.flows.process_memory import watched_memory
from skyloom.flows.step import Constant, Step
from skyloom.storage.store import Store

LARGE = 200 << 20


def hold(size: int) -> None:
    np.ones(size, np.uint8).sum()


def test_each_watch_is_told_of_its_own_time() -> None:
    with watched_memory() as first:
        before = first()
        hold(LARGE)
        with watched_memory() as second:
            inner = second()
        assert first() - before > 0.9 * LARGE
    assert before <= inner < before + 0.1 * LARGE
    with watched_memory() as later:
        assert later() < before + 0.1 * LARGE


def test_watches_that_overlap_are_both_told_of_what_was_held_meanwhile() -> None:
    with watched_memory() as first:
        before = first()
        with watched_memory() as second:
            hold(LARGE)
            assert second() - before > 0.9 * LARGE
        assert first() - before > 0.9 * LARGE


def test_a_small_child_of_a_large_process_is_told_of_itself() -> None:
    script = (
        "from skyloom.flows.process_memory import watched_memory\n"
        "with watched_memory() as peak:\n"
        "    print(peak())"
    )
    large = np.ones(2 * LARGE, np.uint8)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, close_fds=False
    )
    assert large.sum() > 0
    assert int(done.stdout) < LARGE


def test_where_the_mark_cannot_be_started_over_it_counts_from_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hold(LARGE)
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(process_memory, "_START_OVER", tmp_path / "no" / "clear_refs")
    with watched_memory() as peak:
        assert peak() > 0.9 * LARGE


class Size(Parameters):
    """Which exposure holds much."""

    large: int = 0


def number(store: Store, block: Mapping[str, object]) -> xr.Dataset:
    return xr.Dataset({"number": ((), int(str(block["exposure"])), {"units": ""})})


def level(inputs: Mapping[str, xr.Dataset], parameters: Size) -> xr.Dataset:
    if int(inputs["number"].number) == parameters.large:
        hold(LARGE)
    return xr.Dataset({"level": ("x", np.zeros(toy.WIDTH), {"units": "adu"})})


def test_a_record_tells_the_memory_of_its_own_block(store: Store) -> None:
    step = Step(
        level,
        Size(large=1),
        toy.product("level", ("exposure",)),
        {"exposure": (0, 1, 2)},
        (Constant("number", number, ("exposure",)),),
        sizes={"x": toy.WIDTH},
    )
    assert Flow("toy", store, (step,)).run(workers=1, progress=False).exit_code == 0
    records = [store.read_record("level", {"exposure": i}) for i in range(3)]
    peaks = [record.peak_memory_bytes for record in records if record]
    assert peaks[1] - max(peaks[0], peaks[2]) > 0.8 * LARGE
