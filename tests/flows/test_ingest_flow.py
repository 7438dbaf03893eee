"""The ingest as a flow: any scheduler, bad files by name, no work twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flats
import pytest
from flats import FILES
from toy import assert_same, contents

from skyloom.flows.block import Outcome
from skyloom.flows.ingest_flow import ingest
from skyloom.storage.store import Store, create_store, open_store


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    """Return an empty store of the camera."""
    return create_store(tmp_path / "empty", flats.two_detectors())


def test_every_scheduler_ingests_the_same_bits(
    empty: Store, ingested: Path, night: Path, client: Any
) -> None:
    assert ingest(empty, night, client=client, progress=False).counts["ingested"] == FILES
    assert_same(contents(empty), contents(open_store(ingested)))


def test_a_second_ingest_does_nothing(raw_store: Store, night: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(raw_store.url).glob("raw/**/*")}
    summary = ingest(raw_store, night, progress=False)
    assert summary.counts == {"ingested": 0, "unchanged": FILES, "rejected": 0}
    assert summary.exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in Path(raw_store.url).glob("raw/**/*")}
    assert before == after


def test_bad_files_are_named_and_the_rest_is_ingested(
    empty: Store, night: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.fits"
    cut.write_bytes((night / "0007.fits").read_bytes()[:200_000])
    files = [night / "0001.fits", cut, tmp_path / "missing.fits"]
    summary = ingest(empty, files, progress=False)
    assert summary.counts == {"ingested": 1, "unchanged": 0, "rejected": 2}
    assert summary.exit_code == 1
    assert "cut.fits" in str(summary)
    assert "missing.fits" in str(summary)
    assert empty["raw"].sizes["exposure"] >= 1


def test_an_observer_is_told_of_every_file(empty: Store, night: Path) -> None:
    seen: list[Outcome] = []

    class Listener:
        def begin(self, totals: Any) -> None:
            assert dict(totals) == {"scan": FILES, "copy": FILES}

        def finished(self, outcome: Outcome) -> None:
            seen.append(outcome)

        def end(self) -> None: ...

    ingest(empty, night, progress=Listener(), workers=2)
    assert [sum(o.step == step for o in seen) for step in ("scan", "copy")] == [FILES, FILES]


def test_a_reader_that_breaks_costs_one_file(
    empty: Store, night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skyloom.flows import ingest_flow

    original = ingest_flow.scan_file

    def fragile(camera: Any, path: Path) -> Any:
        if path.name == "0003.fits":
            raise RuntimeError("unforeseen")
        return original(camera, path)

    monkeypatch.setattr(ingest_flow, "scan_file", fragile)
    summary = ingest(empty, night, progress=False)
    assert summary.counts == {"ingested": FILES - 1, "unchanged": 0, "rejected": 1}
    assert "0003.fits: RuntimeError: unforeseen" in str(summary)
