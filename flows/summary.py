"""What became of a run, and what a store holds: counts, and every failure with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skyloom.flows.block import Outcome
from skyloom.flows.plan import Plan
from skyloom.storage.records import Label

if TYPE_CHECKING:
    from rich.table import Table

    from skyloom.storage.store import Store

__all__ = ["Problem", "Status", "Summary", "store_status", "summarise"]

RUNS: Final = "runs"
"""Name under which the records of the runs themselves are kept."""
STATES: Final = ("done", "kept", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Problem:
    """One block that is not there, and why."""

    step: str
    block: Mapping[str, Label]
    status: str
    reason: str

    def __str__(self) -> str:
        block = ", ".join(f"{dim} {label}" for dim, label in self.block.items())
        return f"{self.step} of {block} {self.status}: {self.reason}"


def problem_lines(problems: Sequence[Problem], most: int = 100) -> list[str]:
    """Return one line per block; of a flood, how many more there are of each step and status.

    Examples
    --------
    >>> many = [Problem("solve", {"detector": i}, "failed", "no pairs") for i in range(3)]
    >>> problem_lines(many, most=2)
    ['solve of detector 0 failed: no pairs', 'solve of detector 1 failed: no pairs', \
'and 1 more of solve failed: see the records (--json lists all)']
    """
    lines = [str(problem) for problem in problems[:most]]
    rest = Counter(f"{problem.step} {problem.status}" for problem in problems[most:])
    hint = "see the records (--json lists all)"
    return lines + [f"and {count} more of {what}: {hint}" for what, count in rest.items()]


@dataclass(frozen=True, repr=False)
class Summary:
    """What a run did.

    Parameters
    ----------
    counts : mapping of str to mapping
        Per step, how many blocks are ``done`` (made now), ``kept`` (there already), ``failed``
        and ``skipped`` (an input is missing).
    problems : tuple of Problem
        Every block that failed or was skipped.
    warnings : int
        Warnings raised by algorithms; their texts are in the records.
    seconds : float
        Wall clock.
    """

    counts: Mapping[str, Mapping[str, int]]
    problems: tuple[Problem, ...]
    warnings: int
    seconds: float

    @property
    def made(self) -> int:
        """Number of blocks made in this run."""
        return sum(found["done"] for found in self.counts.values())

    @property
    def exit_code(self) -> int:
        """0 if every block is there, 1 if some failed or were skipped."""
        return 1 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON knows it."""
        return {
            "counts": {step: dict(found) for step, found in self.counts.items()},
            "problems": [
                {"step": p.step, "block": dict(p.block), "status": p.status, "reason": p.reason}
                for p in self.problems
            ],
            "warnings": self.warnings,
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows

    def __str__(self) -> str:
        lines = []
        for step, found in self.counts.items():
            parts = [f"{found[state]} {state}" for state in STATES if found[state]]
            lines.append(f"{step}: {', '.join(parts) or 'no blocks'}")
        if self.warnings:
            warnings = "1 warning" if self.warnings == 1 else f"{self.warnings} warnings"
            lines.append(f"{warnings}, kept in the records")
        blocks = "1 block" if self.made == 1 else f"{self.made} blocks"
        lines.append(f"{blocks} made in {self.seconds:.1f} s")
        if self.problems:
            count = len(self.problems)
            lines.append("1 block is missing:" if count == 1 else f"{count} blocks are missing:")
            lines += [f"  {line}" for line in problem_lines(self.problems)]
        return "\n".join(lines)


def summarise(plan: Plan, outcomes: Iterable[Outcome], seconds: float) -> Summary:
    """Return the summary of a run from its plan and what became of each block.

    Examples
    --------
    >>> print(summarise(Plan(()), [], 0.0))
    0 blocks made in 0.0 s
    """
    found = {(outcome.step, outcome.labels): outcome for outcome in outcomes}
    counts: dict[str, Counter[str]] = {}
    problems = []
    for planned in plan.steps:
        step = planned.step
        counter = counts[step.name] = Counter(dict.fromkeys(STATES, 0))
        for labels, block in planned.blocks.items():
            outcome = found.get((step.name, labels))
            if outcome is not None:
                status, reason = outcome.status, outcome.reason
            else:
                status = "skipped" if block.state == "blocked" else "kept"
                reason = block.why
            counter[status] += 1
            if status in {"failed", "skipped"}:
                problems.append(Problem(step.name, step.block(labels), status, reason))
    return Summary(counts, tuple(problems), sum(o.warnings for o in found.values()), seconds)


@dataclass(frozen=True, repr=False)
class Status:
    """What a store's records say.

    Parameters
    ----------
    rows : tuple of mapping
        Per step: ``step``, ``done``, ``failed``, ``skipped``, ``started``, ``seconds`` of work,
        ``warnings``, ``last`` (Unix time of the newest record).
    problems : tuple of Problem
        Every block that failed, was skipped or was interrupted.
    """

    rows: tuple[Mapping[str, Any], ...]
    problems: tuple[Problem, ...]

    @property
    def exit_code(self) -> int:
        """0 if no block failed, 1 otherwise."""
        return 1 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON knows it."""
        return {
            "steps": [dict(row) for row in self.rows],
            "problems": [
                {"step": p.step, "block": dict(p.block), "status": p.status, "reason": p.reason}
                for p in self.problems
            ],
        }

    def table(self) -> Table:
        """Return the status as a table to print."""
        import datetime as dt

        from rich.table import Table  # heavy

        table = Table()
        names = ("step", "done", "failed", "skipped", "started", "warnings", "work (s)", "last")
        for name in names:
            table.add_column(name, justify="left" if name in {"step", "last"} else "right")
        for row in self.rows:
            when = dt.datetime.fromtimestamp(row["last"], dt.UTC)
            table.add_row(
                *(str(row[name]) for name in names[:6]),
                f"{row['seconds']:.1f}",
                f"{when:%Y-%m-%d %H:%M:%S} UTC",
            )
        return table

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows

    def __str__(self) -> str:
        from rich.console import Console  # heavy

        console = Console(width=120, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get() + "".join(f"{line}\n" for line in problem_lines(self.problems))


def store_status(store: Store, steps: Sequence[str] | None = None) -> Status:
    """Return what the records of a store say; nothing else is read.

    Parameters
    ----------
    store : Store
        The store.
    steps : sequence of str, optional
        Steps to look at, all by default.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> store_status(create_store("memory://doctest-status", "generic")).rows
    ()
    """
    rows, problems = [], []
    for name in steps if steps is not None else (name for name in store.steps() if name != RUNS):
        records = store.records(name)
        counter = Counter(record.status for record in records.values())
        rows.append(
            {
                "step": name,
                **{state: counter[state] for state in ("done", "failed", "skipped", "started")},
                "seconds": sum(record.wall_seconds for record in records.values()),
                "warnings": sum(len(record.warnings) for record in records.values()),
                "last": max((record.stamp for record in records.values()), default=0) / 1e9,
            }
        )
        problems += [
            Problem(name, record.block, record.status, record.reason or "interrupted")
            for _, record in sorted(records.items())
            if not record.done
        ]
    return Status(tuple(rows), tuple(problems))
