"""The plan: what there is to do and why, before anything runs, to be read and printed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from skyloom.flows.block import Unavailable
from skyloom.flows.fingerprint import Gathered
from skyloom.flows.inputs import Source
from skyloom.flows.step import Labels, Step

if TYPE_CHECKING:
    from rich.table import Table


__all__ = ["BlockPlan", "Gathering", "Pending", "PendingGathering", "Plan", "StepPlan"]


class Pending(NamedTuple):
    """An input that an earlier task of the same run makes."""

    step: str
    labels: Labels


class PendingGathering(NamedTuple):
    """A reduction some of whose blocks are made in the same run."""

    number: int


Planned: TypeAlias = str | Gathered | Unavailable | Pending | PendingGathering


class BlockPlan(NamedTuple):
    """One block: whether it is to be made, why, and from what.

    ``blocked`` blocks cannot be made; ``recorded`` if their record says so already.
    """

    state: Literal["done", "todo", "blocked"]
    why: str = ""
    fingerprint: str = ""
    previous: str = ""
    given: tuple[Planned, ...] = ()
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Gathering:
    """The blocks of one reduction: those that are there, and those that will be."""

    product: str
    dim: str
    known: Gathered
    expected: Gathered
    pending: tuple[Labels, ...]


@dataclass(frozen=True)
class StepPlan:
    """What there is to do for one step."""

    step: Step
    blocks: Mapping[Labels, BlockPlan]

    def count(self, state: str) -> int:
        """Return how many blocks are in a state."""
        return sum(block.state == state for block in self.blocks.values())

    def reasons(self) -> dict[str, int]:
        """Return why blocks are to be done, with how many, most frequent first."""
        found = Counter(block.why for block in self.blocks.values() if block.state == "todo")
        return dict(found.most_common())

    def blocked(self) -> dict[str, list[Labels]]:
        """Return the blocks that cannot be made, by what they lack."""
        found: dict[str, list[Labels]] = {}
        for labels, block in self.blocks.items():
            if block.state == "blocked":
                found.setdefault(block.why, []).append(labels)
        return found


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do; print it, or `to_json` it.

    Parameters
    ----------
    steps : tuple of StepPlan
        In order.
    gatherings : tuple of Gathering
        Reductions with blocks that are made in the same run.
    sources : mapping of str to Source
        Which blocks there are of every product that is made or read.
    """

    steps: tuple[StepPlan, ...]
    gatherings: tuple[Gathering, ...] = field(default=(), repr=False)
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)

    @property
    def todo(self) -> int:
        """Number of blocks to make."""
        return sum(step.count("todo") for step in self.steps)

    @property
    def task_bytes(self) -> int:
        """Memory of the largest task to run, in bytes."""
        return max((s.step.memory_bytes for s in self.steps if s.count("todo")), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON knows it."""
        return {
            "todo": self.todo,
            "task_memory_bytes": self.task_bytes,
            "steps": [_step_json(planned) for planned in self.steps],
        }

    def table(self) -> Table:
        """Return the plan as a table to print."""
        from rich.table import Table  # heavy, and only needed here

        table = Table(title=f"{self.todo} blocks to do" if self.todo else "nothing to do")
        for name in ("step", "over", "blocks", "done", "to do", "blocked"):
            table.add_column(name, justify="left" if name in {"step", "over"} else "right")
        for name in ("read", "write", "memory/task"):
            table.add_column(name, justify="right")
        table.add_column("why")
        for found in self.to_json()["steps"]:
            counts = [str(found[name]) for name in ("blocks", "done", "todo", "blocked")]
            sizes = ("read_bytes", "write_bytes", "task_memory_bytes")
            why = [f"{count} {text}" for text, count in found["reasons"].items()]
            table.add_row(
                found["step"],
                " × ".join(found["dims"]),
                *counts,
                *(readable_bytes(found[name]) for name in sizes),
                "\n".join(why),
            )
        return table

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows

    def __str__(self) -> str:
        from rich.console import Console  # heavy, and only needed here

        console = Console(width=140, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get() + "".join(f"{problem}\n" for problem in self.problems())

    def problems(self) -> list[str]:
        """Return what keeps blocks from being made, one line per reason and step."""
        found = []
        for planned in self.steps:
            for reason, blocks in planned.blocked().items():
                count = "1 block" if len(blocks) == 1 else f"{len(blocks)} blocks"
                found.append(f"{planned.step.name}: {count} cannot be made: {reason}")
        return found


def _step_json(planned: StepPlan) -> dict[str, Any]:
    step, todo = planned.step, planned.count("todo")
    return {
        "step": step.name,
        "dims": list(step.dims),
        "blocks": len(planned.blocks),
        "done": planned.count("done"),
        "todo": todo,
        "blocked": planned.count("blocked"),
        "reasons": planned.reasons(),
        "blocking": [
            {
                "reason": reason,
                "count": len(blocks),
                "blocks": [step.block(labels) for labels in blocks[:10]],
            }
            for reason, blocks in planned.blocked().items()
        ],
        "read_bytes": todo * step.read_bytes,
        "write_bytes": todo * step.write_bytes,
        "task_memory_bytes": step.memory_bytes,
    }


def readable_bytes(count: float) -> str:
    """Return a number of bytes as people say it.

    Examples
    --------
    >>> readable_bytes(0), readable_bytes(2048), readable_bytes(3.2e9)
    ('0 B', '2.0 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def plan_text(plan: Plan) -> str:
    """Return a plan as indented JSON text."""
    return json.dumps(plan.to_json(), indent=1)
