"""Media that refuse: a read-only store, a full disk. Clear words, nothing half done counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import LevelParameters, assert_same, contents, toy_flow, toy_store

from skyloom.algorithms.errors import StoreError
from skyloom.storage.records import Record, RecordBook
from skyloom.storage.store import open_store

# A limit on the size of files makes the kernel refuse a write in the middle of a file, as a full
# disk does, also where no small disk can be mounted.
LIMITED = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
import toy
from skyloom.algorithms.errors import StoreError
from skyloom.storage.records import Record, RecordBook
from skyloom.storage.store import open_store
calls = {calls!r}
flow = toy.toy_flow(open_store({url!r}), level_parameters=toy.LevelParameters(calls=calls))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    flow.run(progress=False, workers=2)
except StoreError as error:
    print(error)
"""


def mount(*arguments: str) -> None:
    """Call mount, or skip where that is not allowed."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk needs more rights: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """Return a disk of 512 KiB and a function that mounts it again with other options."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path))
    try:
        yield path, lambda options: mount("-o", f"remount,{options}", str(path))
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_fails_blocks_by_name_and_the_rest_is_done_when_there_is_room(
    disk: tuple[Path, Callable[[str], None]], tmp_path: Path
) -> None:
    path, remount = disk
    store = toy_store(path / "store")
    options: dict[str, Any] = {"detectors": "abcdef", "exposures": 8}
    summary = toy_flow(store, **options).run(progress=False, workers=2)
    assert summary.exit_code == 1
    failed = [problem for problem in summary.problems if problem.status == "failed"]
    assert failed
    assert all("no room is left: free some space, then run again" in p.reason for p in failed)
    made = summary.made
    assert made > 0
    done = [r for step in store.steps() for r in store.records(step).values() if r.done]
    assert len(done) == made
    remount("size=64m")
    again = toy_flow(store, **options).run(progress=False)
    assert again.exit_code == 0
    assert again.made == 48 + 24 + 6 - made
    undisturbed = toy_store(tmp_path / "undisturbed")
    toy_flow(undisturbed, **options).run(progress=False)
    assert_same(contents(store), contents(undisturbed))


def test_a_read_only_store_is_read_and_refuses_to_be_written(
    disk: tuple[Path, Callable[[str], None]],
) -> None:
    path, remount = disk
    remount("size=64m")
    store = toy_store(path / "store")
    toy_flow(store).run(progress=False)
    remount("ro,size=64m")
    store = open_store(path / "store")
    assert toy_flow(store).plan().todo == 0
    assert toy_flow(store).run(progress=False).exit_code == 0
    assert toy_flow(store).status().exit_code == 0
    calls = path.parent / "calls"
    parameters = LevelParameters(calls=str(calls))
    with pytest.raises(StoreError, match="the file system is read-only: make it writable"):
        toy_flow(store, level_parameters=parameters).run(progress=False)
    assert not calls.exists(), "nothing is computed that cannot be kept"
    assert toy_flow(store).plan().todo == 0, "what was there is as it was"


def test_a_medium_that_refuses_from_the_start_stops_the_run_before_it_computes(
    tmp_path: Path,
) -> None:
    store = toy_store(tmp_path / "store")
    calls = tmp_path / "calls"
    code = LIMITED.format(tests=str(Path(toy.__file__).parent), url=store.url, calls=str(calls))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the file would be larger than this medium allows: free some space" in done.stdout
    assert "then run again; nothing half-written counts as done" in done.stdout
    assert not calls.exists()
    assert toy_flow(open_store(store.url)).run(progress=False).exit_code == 0


def test_a_block_whose_record_cannot_be_written_is_reported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = toy_store(tmp_path / "store")
    toy_flow(store).run(progress=False)
    before = contents(store)
    write = RecordBook.write

    def refuse(book: RecordBook, record: Record) -> Record:
        if record.step == "level":
            raise StoreError("no room is left")
        return write(book, record)

    changed = LevelParameters(scale=2.0)
    with monkeypatch.context() as patched:
        patched.setattr(RecordBook, "write", refuse)
        summary = toy_flow(store, level_parameters=changed).run(progress=False)
    assert summary.counts["level"]["failed"] == 12
    assert summary.counts["difference"]["skipped"] == 6
    reason = summary.problems[0].reason
    assert reason.startswith("StoreError: no room is left; nor could its record be written")
    assert_same({"level": contents(store)["level"]}, {"level": before["level"]})
    assert toy_flow(store, level_parameters=changed).plan().todo == 21
    assert toy_flow(store, level_parameters=changed).run(progress=False).exit_code == 0
