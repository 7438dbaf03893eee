"""The graph: one task a block, edges where data flow, payloads of some hundred bytes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import LevelParameters, toy_flow, toy_steps

from skyloom.flows.fingerprint import Gathered, digest, gathered_token, item_digest
from skyloom.flows.weave import Graph, weave
from skyloom.storage.store import Store


def names(graph: Graph) -> dict[str, list[Any]]:
    """Return the keys of each kind of task."""
    found: dict[str, list[Any]] = {}
    for key in graph.tasks:
        name = key if isinstance(key, str) else key[0]
        found.setdefault(name.rpartition("-")[0], []).append(key)
    return found


def test_there_is_one_task_for_every_block_and_one_for_every_reduction(store: Store) -> None:
    graph = weave(toy_steps(detectors="abc", exposures=8), store)
    counts = {name: len(keys) for name, keys in names(graph).items()}
    assert counts == {"context": 1, "level": 24, "difference": 12, "total": 3, "gather": 3}
    assert len(graph.keys) == 24 + 12 + 3


def test_edges_are_there_only_where_data_flow(store: Store) -> None:
    graph = weave(toy_steps(detectors="ab", exposures=4), store)
    by_block = {block: key for key, block in graph.blocks.items()}
    context = names(graph)["context"][0]
    difference = graph.tasks[by_block["difference", ("2-3", "b")]]
    assert difference.dependencies == {
        context,
        by_block["level", (2, "b")],
        by_block["level", (3, "b")],
    }
    (gather,) = graph.tasks[by_block["total", ("b",)]].dependencies - {context}
    assert graph.tasks[gather].dependencies == {
        context,
        by_block["difference", ("0-1", "b")],
        by_block["difference", ("2-3", "b")],
    }


def test_a_detector_is_finished_before_the_last_one_begins(store: Store) -> None:
    seen = []

    class Listener:
        def begin(self, totals: Any) -> None: ...
        def end(self) -> None: ...
        def finished(self, outcome: Any) -> None:
            seen.append((outcome.step, outcome.labels[-1]))

    toy_flow(store, detectors="abcdef", exposures=6).run(workers=1, progress=Listener())
    assert seen.index(("total", seen[-1][1])) > seen.index(("total", seen[8][1]))
    first_total = min(i for i, (step, _) in enumerate(seen) if step == "total")
    last_level = max(i for i, (step, _) in enumerate(seen) if step == "level")
    assert first_total < last_level


def test_the_payload_of_a_task_stays_below_two_kilobytes(store: Store) -> None:
    graph = weave(toy_steps(detectors="abc", exposures=60), store)
    sizes = [len(pickle.dumps(graph.tasks[key])) for key in graph.keys]
    assert max(sizes) < 2048
    assert sum(sizes) / len(sizes) < 1024


def test_only_what_is_not_done_is_in_the_graph(store: Store) -> None:
    toy_flow(store).run(progress=False)
    assert weave(toy_steps(), store).tasks == {}
    graph = weave(toy_steps(offset=1.0), store)
    assert {name: len(keys) for name, keys in names(graph).items()} == {"context": 1, "total": 3}


def test_fingerprints_of_a_plan_are_those_of_the_run(store: Store) -> None:
    flow = toy_flow(store)
    planned = {
        (step.step.name, labels): block.fingerprint
        for step in flow.plan().steps
        for labels, block in step.blocks.items()
    }
    flow.run(progress=False)
    for (name, labels), fingerprint in planned.items():
        step = next(step for step in flow.steps if step.name == name)
        record = store.read_record(name, step.block(labels))
        assert record is not None
        assert record.fingerprint == fingerprint


def test_equal_tasks_of_two_runs_have_different_keys(store: Store) -> None:
    one, other = (weave(toy_steps(), store) for _ in range(2))
    assert not set(one.tasks) & set(other.tasks)


def test_a_changed_constant_redoes_what_it_enters(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_flow(store).run(progress=False)
    original = toy.seed

    def changed(of: Store, block: Any) -> Any:
        return original(of, block) + (block["detector"] == "b")

    monkeypatch.setattr(toy, "seed", changed)
    plan = toy_flow(store).plan()
    assert [step.reasons() for step in plan.steps] == [
        {"inputs changed": 4},
        {"inputs changed": 2},
        {"inputs changed": 1},
    ]


def test_the_digest_of_a_reduction_tells_members_and_contents_apart() -> None:
    def token(*items: tuple[int, str]) -> str:
        found = Gathered()
        for position, fingerprint in items:
            found = found.plus(position, item_digest(position, fingerprint))
        return gathered_token(found)

    tokens = [token((0, "a")), token((1, "a")), token((0, "b")), token((0, "a"), (1, "a"))]
    assert len(set(tokens)) == 4
    assert token((0, "a"), (1, "b")) == token((1, "b"), (0, "a"))
    assert digest("a", "b") != digest("b", "a")


def test_labels_of_different_kinds_are_different_members() -> None:
    assert item_digest(1, "a") != item_digest("1", "a")


def test_parameters_and_layout_and_revision_are_the_identity_of_a_step(tmp_path: Path) -> None:
    base = toy_steps()[0]
    same = toy_steps()[0]
    other = toy_steps(level_parameters=LevelParameters(scale=2.0))[0]
    wider = toy.Step(**{**vars_of(base), "sizes": {"x": 7}})
    newer = toy.Step(**{**vars_of(base), "revision": 2})
    assert base.identity == same.identity
    assert len({step.identity for step in (base, other, wider, newer)}) == 4
    assert base.config_hash == newer.config_hash


def vars_of(step: toy.Step) -> dict[str, Any]:
    """Return the fields a step was made from."""
    return {name: getattr(step, name) for name in step.__dataclass_fields__}
