"""Biases, darks, frames and sky frames one after the other: schedulers, kills, additions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import assert_same, contents

from skyloom.algorithms import vocabulary as v
from skyloom.flows import biases_darks, detrend, sky_frames
from skyloom.flows.flow import Flow
from skyloom.flows.selection import of_types
from skyloom.storage.store import Store, open_store

DETECTORS = ["S00", "S01"]
EXPOSURES = 3  # of the sky
KILLS = 2
SCRIPT = Path(__file__).with_name("kill_repeatedly.py")
BLOCKS = {
    "bias_frames": 10,
    "bias": 2,
    "dark_frames": 8,
    "dark": 2,
    "detrended": 6,
    "first_sky_bins": 6,
    "first_focal_plane_sky": 3,
    "first_sky_frame": 2,
    "sky_bins": 6,
    "focal_plane_sky": 3,
    "sky_frame": 2,
    "sky_fit": 3,
    "sky_subtracted": 6,
}
MAKERS: tuple[Callable[..., Flow], ...] = (biases_darks, detrend, sky_frames)


def part(store: Store, science: int = EXPOSURES, *, without: tuple[int, ...] = ()) -> Any:
    """Return the choice of two detectors, all biases and darks, and some exposures of the sky."""
    later = of_types(store.exposures(), (v.SCIENCE,))[science:]
    chosen = {"detectors": DETECTORS, "exclude_exposures": [*later, *without]}
    return {"selection": chosen}


def run_all(store: Store, *arguments: Any, science: int = EXPOSURES, **options: Any) -> Any:
    """Run the three flows; return how many blocks each step made."""
    made = {}
    for make in MAKERS:
        summary = make(store, part(store, science)).run(*arguments, progress=False, **options)
        assert summary.exit_code == 0, str(summary)
        made |= {step: found["done"] for step, found in summary.counts.items()}
    return made


def flow_on(url: str, name: str) -> Flow:
    store = open_store(url)
    return {make.__name__: make for make in MAKERS}[name](store, part(store))


def biases_on(url: str) -> Flow:
    return flow_on(url, "biases_darks")


def frames_on(url: str) -> Flow:
    return flow_on(url, "detrend")


def sky_on(url: str) -> Flow:
    return flow_on(url, "sky_frames")


@pytest.fixture(scope="module")
def once(sky: Any, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store in which one thread has run everything."""
    place = tmp_path_factory.mktemp("once") / "store"
    shutil.copytree(sky[1], place)
    store = open_store(place)
    assert run_all(store, workers=1) == BLOCKS
    return store


def test_threads_and_a_cluster_make_the_same_bits(
    once: Store, sky: Any, tmp_path: Path, client: Any
) -> None:
    expected = contents(once)
    for name, options in {"threads": {"workers": 3}, "cluster": {"client": client}}.items():
        shutil.copytree(sky[1], tmp_path / name)
        store = open_store(tmp_path / name)
        assert run_all(store, **options) == BLOCKS
        assert_same(contents(store), expected)


def test_processes_make_the_same_bits(once: Store, sky_store: Store) -> None:
    for make in MAKERS[:-1]:
        assert make(sky_store, part(sky_store)).run(workers=1, progress=False).exit_code == 0
    flow = sky_frames(sky_store, part(sky_store))
    assert flow.run(scheduler="processes", workers=2, progress=False).exit_code == 0
    assert_same(contents(sky_store), contents(once))


def test_killed_again_and_again_the_flows_end_with_the_same_bits(
    once: Store, sky_store: Store
) -> None:
    names = [f"test_sky_flows:{make}" for make in ("biases_on", "frames_on", "sky_on")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), ",".join(names), sky_store.url, str(KILLS), "2", "4"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    for told in map(json.loads, done.stdout.splitlines()[-3:]):
        assert told["killed"] == KILLS
        assert told["progress"] == sorted(told["progress"]), "something done was lost"
        assert (told["again"], told["exit_code"]) == (0, 0)
    assert_same(contents(open_store(sky_store.url)), contents(once))


def test_a_second_run_does_nothing(once: Store) -> None:
    assert run_all(once) == dict.fromkeys(BLOCKS, 0)


def test_one_more_exposure_extends_what_is_there(once: Store, sky: Any, tmp_path: Path) -> None:
    for name, place in {"extended": once.url, "at_once": sky[1]}.items():
        shutil.copytree(place, tmp_path / name)
    extended, at_once = (open_store(tmp_path / name) for name in ("extended", "at_once"))
    more = EXPOSURES + 1
    assert run_all(extended, science=more) == {
        **dict.fromkeys(BLOCKS, 0),
        "detrended": 2,
        "first_sky_bins": 2,
        "first_focal_plane_sky": 1,
        "first_sky_frame": 2,
        "sky_bins": 2 * more,  # what objects are found beside is another now
        "focal_plane_sky": more,
        "sky_frame": 2,
        "sky_fit": more,  # the frame is another now
        "sky_subtracted": 2 * more,
    }
    run_all(at_once, science=more)
    # What a product was made with is that of the run that made something of it.
    mine, theirs = (
        {name: data.drop_attrs(deep=False) for name, data in contents(store).items()}
        for store in (extended, at_once)
    )
    assert_same(mine, theirs)


def test_a_bias_less_redoes_what_was_made_of_it(once: Store) -> None:
    first = of_types(once.exposures(), (v.BIAS,))[0]
    plan = biases_darks(once, part(once, without=(first,))).plan()
    todo = {step.step.name: step.count("todo") for step in plan.steps}
    assert todo == {"bias_frames": 0, "bias": 2, "dark_frames": 8, "dark": 2}


def test_calibrations_of_another_camera_are_refused_by_name(once: Store, tmp_path: Path) -> None:
    shutil.copytree(once.url, tmp_path / "store")
    store = open_store(tmp_path / "store")
    block = {"detector": "S00"}
    bias = store.read_block("bias", block)
    assert str(bias["camera"].values) == "simulated-sky"
    record = store.read_record("bias", block)
    assert record is not None
    store.write_block("bias", block, bias.assign_coords(camera="another-camera"))
    store.write_record(replace(record, fingerprint="another"))
    summary = detrend(store, part(store)).run(progress=False)
    assert summary.counts["detrended"]["failed"] == EXPOSURES
    assert "another-camera" in str(summary)
    assert "S01" not in str(summary)
