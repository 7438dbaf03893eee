"""Running flows: what is made, what is kept, what happens to bad blocks."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from toy import LevelParameters, contents, toy_flow

from skyloom.algorithms.errors import ChecksumError, ConfigurationError
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.block import Outcome
from skyloom.flows.flow import Flow
from skyloom.flows.step import Same, Step
from skyloom.storage.store import Store, open_store


def run(store: Store, **options: Any) -> Any:
    return toy_flow(store, **options).run(progress=False, workers=2)


def test_a_run_makes_every_block_and_the_numbers_are_right(store: Store) -> None:
    summary = run(store)
    assert summary.counts == {
        "level": {"done": 12, "kept": 0, "failed": 0, "skipped": 0},
        "difference": {"done": 6, "kept": 0, "failed": 0, "skipped": 0},
        "total": {"done": 3, "kept": 0, "failed": 0, "skipped": 0},
    }
    assert summary.exit_code == 0
    level = np.random.default_rng(ord("b")).normal(size=toy.WIDTH)
    found = store["total"].sel(detector="b").load()
    np.testing.assert_array_equal(found.total, (level - 2 * level) + (level - 2 * level))
    assert int(found["count"]) == 2


def test_a_second_run_makes_nothing_and_touches_no_file(store: Store, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    parameters = LevelParameters(calls=str(calls))
    run(store, level_parameters=parameters)
    before = {path: path.stat().st_mtime_ns for path in Path(store.url).rglob("*")}
    summary = run(open_store(store.url), level_parameters=parameters)
    assert summary.made == 0
    assert summary.counts["level"]["kept"] == 12
    assert calls.read_text().count("x") == 12
    assert {path: path.stat().st_mtime_ns for path in Path(store.url).rglob("*")} == before


def test_a_parameter_redoes_exactly_what_depends_on_it(store: Store) -> None:
    run(store)
    summary = run(store, offset=1.0)
    assert [found["done"] for found in summary.counts.values()] == [0, 0, 3]
    plan = toy_flow(store, offset=1.0, level_parameters=LevelParameters(scale=2.0)).plan()
    assert [step.reasons() for step in plan.steps] == [
        {"configuration changed": 12},
        {"inputs changed": 6},
        {"inputs changed": 3},
    ]


def test_a_step_made_again_repairs_damage_and_leaves_what_depends_on_it(store: Store) -> None:
    run(store)
    whole = contents(store)
    (chunk, *_) = sorted(Path(store.url).glob("level/level/c/0/0/*"))
    chunk.unlink()
    with pytest.raises(ChecksumError, match=r"make step 'level' again \(--redo level\)"):
        store["level"].load()
    assert run(store).made == 0
    summary = toy_flow(store).run(progress=False, redo=["level"])
    assert [found["done"] for found in summary.counts.values()] == [12, 0, 0]
    toy.assert_same(contents(open_store(store.url)), whole)


def test_a_step_that_is_not_there_cannot_be_made_again(store: Store) -> None:
    run(store)
    with pytest.raises(ConfigurationError, match="no step lefel to redo; it has level, difference"):
        toy_flow(store).run(progress=False, redo=["level", "lefel"])
    assert toy_flow(store).plan().todo == 0


def test_what_a_notebook_shows_of_a_flow_is_short_and_readable(store: Store) -> None:
    flow = toy_flow(store)
    plan = flow.plan()
    summary = flow.run(progress=False)
    assert repr(flow) == f"<skyloom flow toy on {store.url}: level, difference, total>"
    assert repr(plan) == str(plan)
    assert repr(summary) == str(summary)
    assert repr(flow.status()) == str(flow.status())


def test_a_code_revision_redoes_the_step_and_what_follows(store: Store) -> None:
    run(store)
    plan = toy_flow(store, revision=2).plan()
    assert [step.reasons() for step in plan.steps] == [
        {},
        {"code revision changed": 6},
        {"inputs changed": 3},
    ]


def test_the_version_of_the_package_redoes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyloom.flows.block._version", lambda: "0.0.1")
    run(store)
    monkeypatch.undo()
    assert toy_flow(store).plan().todo == 0
    record = store.read_record("total", {"detector": "a"})
    assert record is not None
    assert record.versions["skyloom"] == "0.0.1"


def test_adding_exposures_extends_what_is_there(store: Store) -> None:
    run(store)
    summary = run(store, exposures=6)
    assert [found["done"] for found in summary.counts.values()] == [6, 3, 3]
    assert store["level"].sizes["exposure"] == 6
    assert store["total"]["count"].values.tolist() == [3, 3, 3]


def test_one_bad_detector_does_not_stop_the_others(store: Store) -> None:
    summary = run(store, level_parameters=LevelParameters(bad=("b",)))
    assert summary.exit_code == 1
    assert [found["done"] for found in summary.counts.values()] == [8, 4, 2]
    text = str(summary)
    assert "level of exposure 2, detector b failed: ValueError: detector b is broken" in text
    assert "difference of pair 0-1, detector b skipped: level of exposure 0, detector b fai" in text
    assert "total of detector b skipped: needs at least 1 blocks of difference along pair" in text
    record = store.read_record("level", {"exposure": 0, "detector": "b"})
    assert record is not None
    assert record.status == "failed"
    assert 'raise ValueError(f"detector {name} is broken")' in record.traceback
    assert store["total"]["done"].values.tolist() == [True, False, True]
    assert np.isnan(store["total"].sel(detector="b").total).all()


def test_what_failed_is_tried_again_and_what_depends_on_it_follows(store: Store) -> None:
    run(store, level_parameters=LevelParameters(bad=("b",)))
    plan = toy_flow(store, level_parameters=LevelParameters(bad=("b",))).plan()
    assert [step.reasons() for step in plan.steps] == [
        {"failed before": 4},
        {"skipped before": 2},
        {"skipped before": 1},
    ]
    summary = run(store)
    assert summary.exit_code == 0
    assert store["total"]["done"].all()


@pytest.mark.parametrize(("minimum", "made"), [(1, True), (2, False)])
def test_a_reduction_goes_on_with_what_is_left_if_that_is_enough(
    store: Store, minimum: int, made: bool
) -> None:
    broken = [True, False]

    def half_broken(inputs: Any, parameters: Any) -> Any:
        if broken.pop():
            raise RuntimeError("one pair is broken")
        return toy.difference(inputs, parameters)

    level, difference, total = toy.toy_steps(detectors="a", minimum=minimum)
    flow = Flow("toy", store, (level, replace(difference, algorithm=half_broken), total))
    summary = flow.run(progress=False, workers=1)
    assert summary.counts["difference"]["failed"] == 1
    assert summary.counts["total"]["done"] == made
    if made:
        assert int(store["total"]["count"][0]) == 1
        record = store.read_record("total", {"detector": "a"})
        assert record is not None
        assert record.quality == {"pairs": 1}
    else:
        assert "needs at least 2 blocks of difference along pair, has 1 of 2; not there" in str(
            summary
        )
    # Tried again, the pair succeeds and the total follows.
    broken.append(False)
    assert flow.run(progress=False).exit_code == 0
    assert int(store["total"]["count"][0]) == 2


def test_a_reduction_that_needs_nothing_runs_without_its_input(store: Store) -> None:
    summary = run(store, minimum=0, level_parameters=LevelParameters(bad=("b",)))
    assert summary.counts["total"]["done"] == 3
    assert store["total"]["count"].values.tolist() == [2, 0, 2]


def test_when_a_failure_repeats_what_was_made_without_it_is_kept(store: Store) -> None:
    parameters = LevelParameters(bad=("b",))
    run(store, minimum=0, level_parameters=parameters)
    summary = run(store, minimum=0, level_parameters=parameters)
    assert summary.made == 0
    assert summary.counts["total"]["kept"] == 3


def test_an_input_that_is_missing_is_named_before_and_after_the_run(store: Store) -> None:
    (level, *_) = toy.toy_steps(detectors="ab", exposures=2)
    Flow("toy", store, (level,)).run(progress=False)
    known = store.read_record("level", {"exposure": 1, "detector": "b"})
    assert known is not None
    store.write_record(replace(known, status="failed", reason="lost"))
    copy = Step(
        toy_copy,
        Parameters(),
        toy.product("copied", ("exposure", "detector")),
        {"exposure": (0, 1), "detector": ("a", "b")},
        (Same("level", "level"),),
        sizes={"x": toy.WIDTH},
    )
    flow = Flow("copy", store, (copy,))
    plan = flow.plan()
    assert "copied: 1 block cannot be made: no level of exposure 1, detector b" in str(plan)
    assert plan.to_json()["steps"][0]["blocking"] == [
        {
            "reason": "no level of exposure 1, detector b",
            "count": 1,
            "blocks": [{"exposure": 1, "detector": "b"}],
        }
    ]
    summary = flow.run(progress=False)
    assert summary.counts["copied"] == {"done": 3, "kept": 0, "failed": 0, "skipped": 1}
    record = store.read_record("copied", {"exposure": 1, "detector": "b"})
    assert record is not None
    assert (record.status, record.reason) == ("skipped", "no level of exposure 1, detector b")
    again = flow.run(progress=False)
    assert (again.made, again.exit_code) == (0, 1)


def toy_copy(inputs: Any, parameters: Any) -> Any:
    return inputs["level"][["level"]].rename(level="copied").drop_vars(["exposure", "detector"])


def test_warnings_go_into_the_record_and_not_to_the_terminal(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    summary = run(store, level_parameters=LevelParameters(warn=True))
    record = store.read_record("level", {"exposure": 0, "detector": "a"})
    assert record is not None
    assert record.warnings == ("UserWarning: the overscan is noisy",)
    assert summary.warnings == 12
    assert "12 warnings, kept in the records" in str(summary)
    assert "noisy" not in "".join(capfd.readouterr())


def test_an_interrupt_by_the_user_passes_and_what_is_done_stays_done(store: Store) -> None:
    run(store, detectors="a")
    with pytest.raises(KeyboardInterrupt):
        run(store, level_parameters=LevelParameters(interrupt=True, scale=2.0))
    assert store.read_record("total", {"detector": "a"}).done  # type: ignore[union-attr]
    assert run(store).exit_code == 0


def test_a_record_says_how_a_block_came_to_be(store: Store) -> None:
    run(store)
    record = store.read_record("difference", {"pair": "0-1", "detector": "a"})
    level = store.read_record("level", {"exposure": 1, "detector": "a"})
    assert record is not None
    assert level is not None
    assert record.inputs["second"] == {
        "product": "level",
        "block": {"exposure": 1, "detector": "a"},
        "fingerprint": level.fingerprint,
    }
    assert record.bytes_read >= 2 * toy.WIDTH * 8
    assert record.bytes_written > toy.WIDTH * 8
    assert record.peak_memory_bytes > 10_000_000
    assert record.wall_seconds > 0
    assert record.end_time >= record.start_time > 1.7e9
    assert "/" in record.worker


def test_the_configuration_lies_beside_the_products(store: Store) -> None:
    flow = replace(toy_flow(store), configuration=LevelParameters(scale=3.0))
    flow.run(progress=False)
    assert store["total"].attrs["configuration"]["scale"] == 3.0
    assert store["total"].attrs["flow"] == "toy"


def test_records_of_a_run_are_compacted(store: Store) -> None:
    run(store)
    files = list((Path(store.url) / "records" / "level").rglob("*.json*"))
    assert [path.suffix for path in files] == [".jsonl"]
    assert len(store.records("level")) == 12


def test_the_status_reads_records_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, level_parameters=LevelParameters(bad=("b",)))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr("skyloom.storage.chunks.Chunks.read", never)
    status = toy_flow(store).status()
    assert [(row["step"], row["done"], row["failed"], row["skipped"]) for row in status.rows] == [
        ("level", 8, 4, 0),
        ("difference", 4, 0, 2),
        ("total", 2, 0, 1),
    ]
    assert status.exit_code == 1
    assert "detector b is broken" in str(status)


def test_an_observer_is_told_of_every_block_that_had_to_be_made(store: Store) -> None:
    class Listener:
        def __init__(self) -> None:
            self.totals: dict[str, int] = {}
            self.seen: list[Outcome] = []
            self.ended = 0

        def begin(self, totals: Any) -> None:
            self.totals = dict(totals)

        def finished(self, outcome: Outcome) -> None:
            self.seen.append(outcome)

        def end(self) -> None:
            self.ended += 1

    listener = Listener()
    toy_flow(store, level_parameters=LevelParameters(bad=("b",))).run(progress=listener)
    assert listener.totals == {"level": 12, "difference": 6, "total": 3}
    assert len(listener.seen) == 21
    assert sum(not outcome.good for outcome in listener.seen) == 7
    assert listener.ended == 1


def test_every_block_is_an_entry_of_the_log(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="skyloom"):
        run(store, detectors="a")
    blocks = [record for record in caplog.records if getattr(record, "event", "") == "block"]
    assert len(blocks) == 4 + 2 + 1
    assert {record.status for record in blocks} == {"done"}  # type: ignore[attr-defined]


def test_products_of_two_runs_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    stores = [toy.toy_store(tmp_path / name) for name in "ab"]
    for store in stores:
        run(store)
    toy.assert_same(contents(stores[0]), contents(stores[1]))


def test_misuse_of_a_step_is_an_error_at_once(store: Store) -> None:
    steps = toy.toy_steps()
    with pytest.raises(ValueError, match="'difference' reads 'level', which is written after it"):
        Flow("toy", store, steps[1::-1]).plan()
    with pytest.raises(ValueError, match="two steps write the product 'level'"):
        Flow("toy", store, (steps[0], steps[0])).plan()
    with pytest.raises(TypeError, match="not both"):
        toy_flow(store).run(object(), scheduler="threads")
