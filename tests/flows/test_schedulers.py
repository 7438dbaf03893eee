"""Schedulers: the same numbers everywhere, clear words when workers die or memory is short."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import LevelParameters, assert_same, contents, toy_flow, toy_store

from skyloom.algorithms.errors import ConfigurationError, SkyloomError
from skyloom.flows.environment import SINGLE_THREADED, numba_cache_dir, worker_environment
from skyloom.flows.fingerprint import dataset_fingerprint
from skyloom.flows.flow import Flow
from skyloom.flows.plan import Plan, StepPlan
from skyloom.flows.scheduler import (
    Address,
    Processes,
    Threads,
    choose_scheduler,
    fit_workers,
)
from skyloom.flows.weave import weave_plan
from skyloom.storage.store import Store

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one thread makes."""
    store = toy_store(tmp_path_factory.mktemp("expected") / "store")
    toy_flow(store).run(workers=1, progress=False)
    return contents(store)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_make_the_same_bits(store: Store, expected: dict[str, Any], threads: int) -> None:
    assert toy_flow(store).run(workers=threads, progress=False).exit_code == 0
    assert_same(contents(store), expected)


def test_processes_make_the_same_bits(
    store: Store, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(toy.__file__).parent))
    summary = toy_flow(store).run(scheduler="processes", workers=2, progress=False)
    assert summary.exit_code == 0
    assert_same(contents(store), expected)
    workers = {record.worker for record in store.records("level").values()}
    assert {worker.partition("/")[0] for worker in workers}.isdisjoint({"", str(os.getpid())})


def test_a_client_makes_the_same_bits_and_stays_open(
    store: Store, expected: dict[str, Any], client: Any
) -> None:
    assert toy_flow(store).run(client, progress=False).exit_code == 0
    assert_same(contents(store), expected)
    assert client.status == "running"
    assert toy_flow(store).run(client, progress=False).made == 0


def test_an_address_makes_the_same_bits(
    store: Store, expected: dict[str, Any], client: Any, tmp_path: Path
) -> None:
    file = tmp_path / "address.yaml"
    file.write_text(f"kind: address\naddress: {client.scheduler.address}\n")
    assert toy_flow(store).run(scheduler=file, progress=False).exit_code == 0
    assert_same(contents(store), expected)


def test_failures_and_warnings_are_the_same_on_a_cluster(store: Store, client: Any) -> None:
    parameters = LevelParameters(bad=("b",), warn=True)
    summary = toy_flow(store, level_parameters=parameters).run(client, progress=False)
    assert [found["done"] for found in summary.counts.values()] == [8, 4, 2]
    assert summary.warnings == 12
    assert "detector b is broken" in str(summary)


def test_blocks_that_kill_their_worker_are_named_and_the_others_go_on(
    store: Store, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(toy.__file__).parent))
    toy_flow(store, exposures=2).run(progress=False)
    deadly = LevelParameters(kill=("b",), scale=2.0)
    summary = toy_flow(store, exposures=2, level_parameters=deadly).run(
        scheduler="processes", workers=2, progress=False
    )
    assert summary.exit_code == 1
    assert [found["done"] for found in summary.counts.values()] == [4, 2, 2]
    failed = [problem for problem in summary.problems if problem.status == "failed"]
    assert {(problem.step, problem.block["detector"]) for problem in failed} == {("level", "b")}
    assert "its worker died" in failed[0].reason
    assert "give workers more memory" in failed[0].reason
    record = store.read_record("level", {"exposure": 0, "detector": "b"})
    assert record is not None
    assert record.status == "failed"
    assert store["total"]["done"].values.tolist() == [True, False, True]


def test_what_a_lost_worker_had_done_is_not_done_again(store: Store, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    flow = toy_flow(store, level_parameters=LevelParameters(calls=str(calls)))
    flow.run(progress=False)
    for record in store.records("level").values():
        store.write_record(record)  # as they lay there before the records were compacted
    constant = {name: dataset_fingerprint(toy.seed(store, {"detector": name})) for name in "abc"}
    # The graph as it was before anything was done: what a cluster runs again that has forgotten.
    forgotten = Plan(
        tuple(
            StepPlan(
                step.step,
                {
                    labels: block._replace(state="todo", previous="", given=(constant[labels[1]],))
                    for labels, block in step.blocks.items()
                },
            )
            for step in flow.plan().steps[:1]
        )
    )
    outcomes: list[str] = []
    Threads(threads=1).get(
        weave_plan(forgotten, store), lambda _, outcome: outcomes.append(outcome.status)
    )
    assert outcomes == ["done"] * 12
    assert calls.read_text().count("x") == 12


def test_local_processes_listen_to_this_machine_only(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setenv("PYTHONPATH", str(Path(toy.__file__).parent))
    addresses: set[str] = set()

    class Listener:
        def begin(self, totals: Any) -> None: ...
        def end(self) -> None: ...
        def finished(self, outcome: Any) -> None:
            me = psutil.Process()
            for process in (me, *me.children(recursive=True)):
                for found in process.net_connections(kind="inet"):
                    if found.status == psutil.CONN_LISTEN:
                        addresses.add(found.laddr.ip)

    toy_flow(store, detectors="a").run(scheduler="processes", workers=1, progress=Listener())
    assert addresses == {"127.0.0.1"}


def test_numerical_libraries_use_one_thread_in_tasks(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(toy.__file__).parent))
    for name, options in {
        "threads": {"workers": 1},
        "processes": {"scheduler": "processes", "workers": 1},
        "client": {"client": client},
    }.items():
        store = toy_store(tmp_path / name)
        step = toy.Step(
            toy.thread_counts,
            toy.Parameters(),
            toy.product("threads", ("detector",)),
            {"detector": ("a",)},
            (),
            sizes={"x": 2},
        )
        summary = Flow("threads", store, (step,)).run(progress=False, **options)  # type: ignore[arg-type]
        assert str(summary).startswith("threads: 1 done"), name
        blas, numba = store["threads"].threads.values[0]
        assert (blas, numba) == (1, 1), name


def test_thread_limits_of_this_process_are_as_before_after_a_run(store: Store) -> None:
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    before = [pool["num_threads"] for pool in threadpool_info()]
    variables = {name: os.environ.get(name) for name in SINGLE_THREADED}
    toy_flow(store).run(progress=False)
    assert [pool["num_threads"] for pool in threadpool_info()][: len(before)] == before
    assert {name: os.environ.get(name) for name in SINGLE_THREADED} == variables


def test_the_numba_cache_is_local_private_and_set_before_numba_is_imported() -> None:
    cache = numba_cache_dir()
    assert cache is not None
    assert Path(cache).stat().st_mode & 0o077 == 0
    code = (
        "import sys, os\n"
        "os.environ.pop('NUMBA_CACHE_DIR', None)\n"
        "from skyloom.flows.environment import set_environment\n"
        "set_environment()\n"
        "assert 'numba' not in sys.modules\n"
        "import numba\n"
        "print(numba.config.CACHE_DIR, numba.config.NUMBA_NUM_THREADS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [cache, "1"]
    assert worker_environment()["OMP_NUM_THREADS"] == "1"


def test_a_cache_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    unsafe = tmp_path / f"skyloom-numba-{os.getuid()}"
    unsafe.mkdir()
    unsafe.chmod(0o777)
    assert numba_cache_dir() is None


@pytest.mark.parametrize(
    ("file", "kind"),
    [("threads.yaml", Threads), ("processes.yaml", Processes), ("address.yaml", Address)],
)
def test_the_files_that_come_along_are_right(file: str, kind: type) -> None:
    assert isinstance(choose_scheduler(DEPLOY / file), kind)


def test_a_wrong_scheduler_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("kind: threads\n\ntreads: 3\n")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml:3 treads: unknown key; did you mean"):
        choose_scheduler(file)
    file.write_text("kind: slurm\n")
    with pytest.raises(ConfigurationError, match="'threads', 'processes', 'address'"):
        choose_scheduler(file)
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere"):
        choose_scheduler("nowhere.yaml")
    with pytest.raises(ConfigurationError, match="leave it out"):
        choose_scheduler("tcp://127.0.0.1:1", workers=3)


def test_an_address_where_nobody_answers_is_an_error_with_a_remedy(store: Store) -> None:
    nobody = Address(address="tcp://127.0.0.1:9", timeout=0.5)
    with pytest.raises(SkyloomError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        toy_flow(store).run(scheduler=nobody, progress=False)


def test_a_run_that_needs_more_memory_than_there_is_does_not_start(store: Store) -> None:
    steps = tuple(dataclasses.replace(step, memory_bytes=3 << 30) for step in toy.toy_steps())
    flow = Flow("big", store, steps)
    with pytest.raises(ConfigurationError, match=r"2 tasks of 3\.0 GiB .* need 6\.0 GiB"):
        flow.run(scheduler=Threads(threads=2, memory_limit=4 << 30), progress=False)
    with pytest.raises(ConfigurationError, match=r"one task needs 3\.0 GiB"):
        flow.run(scheduler=Threads(memory_limit=2 << 30), progress=False)
    assert store.records("level") == {}
    assert flow.run(scheduler=Threads(memory_limit=4 << 30), progress=False).exit_code == 0


def test_as_many_tasks_run_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyloom.flows.scheduler.available_cores", lambda: 8)
    assert fit_workers(None, 0, 1) == 8
    assert fit_workers(None, 1 << 30, 4 << 30) == 4
    assert fit_workers(None, 1 << 30, 64 << 30) == 8


@pytest.fixture
def short_of_memory() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, processes=False, memory_limit="1GiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):
        yield found


def test_workers_with_too_little_memory_are_named(store: Store, short_of_memory: Any) -> None:
    steps = tuple(dataclasses.replace(step, memory_bytes=3 << 30) for step in toy.toy_steps())
    with pytest.raises(ConfigurationError, match=r"one task needs 3\.0 GiB, but worker .* have 1"):
        Flow("big", store, steps).run(short_of_memory, progress=False)
