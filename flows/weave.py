"""Steps and a store become one Dask graph.

One task per block to be made and one small task per reduction; an edge only where a block is
really needed, so that a detector is solved while others are still being measured. A task's
payload is the name of its step, its labels and fingerprints: some hundred bytes. What all tasks
share is one node of the graph. Pixels never travel: tasks read and write the store.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dask._task_spec import DataNode, GraphNode, Task, TaskRef

from skyloom.flows.block import Context, gather, run_block
from skyloom.flows.plan import Pending, PendingGathering, Plan, Planned
from skyloom.flows.planner import make_plan
from skyloom.flows.step import Labels, Step

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["Graph", "Key", "weave", "weave_plan"]

Key: TypeAlias = str | tuple[str, int]


@dataclass(frozen=True)
class Graph:
    """A Dask graph and what its keys mean.

    Parameters
    ----------
    tasks : mapping
        The graph, as any Dask scheduler takes it.
    blocks : mapping of key to (step, labels)
        The block that each wanted key makes.
    task_bytes : int
        Memory of the largest task, in bytes.
    """

    tasks: Mapping[Key, GraphNode]
    blocks: Mapping[Key, tuple[str, Labels]]
    task_bytes: int = 0

    @property
    def keys(self) -> list[Key]:
        """The wanted keys."""
        return list(self.blocks)


def weave(steps: Sequence[Step], store: Store) -> Graph:
    """Return the graph that makes all blocks that are not done.

    Parameters
    ----------
    steps : sequence of Step
        Each after those whose products it reads.
    store : Store
        Where inputs and products are.

    Raises
    ------
    ValueError, StoreError
        As `skyloom.flows.planner.make_plan`.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> weave([], create_store("memory://doctest-weave", "generic")).keys
    []
    """
    return weave_plan(make_plan(steps, store), store)


def weave_plan(plan: Plan, store: Store) -> Graph:
    """Return the graph that carries out a plan."""
    token = uuid.uuid4().hex  # a cluster may still remember the tasks of an earlier run
    context_key = f"context-{token}"
    keys: dict[tuple[str, Labels], Key] = {}
    for planned in plan.steps:
        wanted = [
            labels
            for labels, block in planned.blocks.items()
            if block.state == "todo" or (block.state == "blocked" and not block.recorded)
        ]
        for i, labels in enumerate(wanted):
            keys[planned.step.name, labels] = (f"{planned.step.name}-{token}", i)
    if not keys:
        return Graph({}, {})
    steps = {planned.step.name: planned.step for planned in plan.steps}
    tasks: dict[Key, GraphNode] = {
        context_key: DataNode(context_key, Context(store, steps, plan.sources))
    }
    context = TaskRef(context_key)
    gather_name = f"gather-{token}"
    for i, found in enumerate(plan.gatherings):
        refs = [TaskRef(keys[found.product, labels]) for labels in found.pending]
        key: Key = (gather_name, i)
        tasks[key] = Task(key, gather, context, found.product, found.dim, found.known, *refs)

    def argument(what: Planned) -> Any:
        if isinstance(what, Pending):
            return TaskRef(keys[what.step, what.labels])
        if isinstance(what, PendingGathering):
            return TaskRef((gather_name, what.number))
        return what

    blocks_of = {planned.step.name: planned.blocks for planned in plan.steps}
    for (name, labels), key in keys.items():
        block = blocks_of[name][labels]
        given = [argument(what) for what in block.given]
        tasks[key] = Task(key, run_block, context, name, labels, block.previous, *given)
    blocks = {key: block for block, key in keys.items()}
    return Graph(tasks, blocks, plan.task_bytes)
