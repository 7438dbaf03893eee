"""A flow: steps on one store, with a plan, a run, a status and a report."""

from __future__ import annotations

import importlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from skyloom.algorithms.errors import ConfigurationError, SkyloomError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.block import Outcome
from skyloom.flows.catalogue import CATALOGUE
from skyloom.flows.plan import Plan
from skyloom.flows.planner import make_plan
from skyloom.flows.progress import Observer, choose_observers, logger
from skyloom.flows.scheduler import GivenClient, Lost, Scheduler, choose_scheduler
from skyloom.flows.step import Labels, Step
from skyloom.flows.summary import RUNS, Status, Summary, store_status, summarise
from skyloom.flows.weave import Graph, Key, weave_plan
from skyloom.storage.objects import medium_errors
from skyloom.storage.records import Record

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["Flow"]

RunState: TypeAlias = Literal["started", "done", "failed"]
_MOST_LOSSES: Final = 100
"""Rounds of lost workers after which a run gives up."""


@dataclass(frozen=True)
class Flow:
    """Steps on one store.

    Parameters
    ----------
    name : str
        Name of the flow.
    store : Store
        Where everything is read and written.
    steps : tuple of Step
        In order: each after those whose products it reads.
    configuration : Parameters
        What the steps were made from; kept beside the products.
    notes : tuple of str
        What a user should know before running it, such as exposures that are not used.
    """

    name: str
    store: Store
    steps: tuple[Step, ...]
    configuration: Parameters = field(default_factory=Parameters)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        steps = ", ".join(step.name for step in self.steps)
        return f"<skyloom flow {self.name} on {self.store.url}: {steps}>"

    def plan(self) -> Plan:
        """Return what a run would do, and why."""
        return make_plan(self.steps, self.store)

    def status(self) -> Status:
        """Return what the records of the flow's steps say; nothing else is read."""
        return store_status(self.store, [step.name for step in self.steps])

    def run(
        self,
        client: Any = None,
        *,
        scheduler: str | os.PathLike[str] | Scheduler | None = None,
        workers: int | None = None,
        progress: bool | Observer | None = None,
        redo: Collection[str] = (),
    ) -> Summary:
        """Make every block that is not there or not up to date.

        Parameters
        ----------
        client : distributed.Client, optional
            A Dask client to run on.
        scheduler : str, path or Scheduler, optional
            A scheduler file, an address, "threads" or "processes"; threads by default.
        workers : int, optional
            Tasks at a time, for threads and processes.
        progress : bool or Observer, optional
            Show progress or not, or an observer of your own; bars on a terminal by default.
        redo : collection of str
            Steps whose blocks are all made again though they are done: the way out when stored
            bytes are damaged.

        Returns
        -------
        Summary
            With every failure and its reason; ``exit_code`` is 1 if there are any.

        Raises
        ------
        SkyloomError
            If the run as a whole is impossible: a store that cannot be written, too little
            memory, no cluster. A bad block raises nothing.
        """
        if client is not None and scheduler is not None:
            raise TypeError("give a client or a scheduler, not both")
        chosen = (
            GivenClient(client)
            if client is not None
            else choose_scheduler(scheduler, workers=workers)
        )
        self._forget(redo)
        return _Run(self, choose_observers(progress)).execute(chosen)

    def _forget(self, steps: Collection[str]) -> None:
        names = [step.name for step in self.steps]
        if unknown := [name for name in steps if name not in names]:
            raise ConfigurationError(
                f"the flow {self.name} has no step {', '.join(unknown)} to redo; it has "
                f"{', '.join(names)}"
            )
        for name in steps:
            self.store.forget(name)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the flow's report, one self-contained HTML page; return its path.

        Raises
        ------
        SkyloomError
            If the flow has no report.
        """
        return write_report(self.name, self.store, path)


def write_report(name: str, store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a flow from what its store holds; return its path.

    Raises
    ------
    SkyloomError
        If the flow has no report.

    Examples
    --------
    >>> write_report("toy", None, "report.html")
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.SkyloomError: the flow 'toy' has no report
    """
    entry = CATALOGUE.get(name)
    if entry is None or not entry.report:
        raise SkyloomError(f"the flow {name!r} has no report")
    write: Callable[[Store, Path], object] = importlib.import_module(entry.report).write_report
    target = Path(path)
    with medium_errors(f"write the report {target}"):
        write(store, target)
    return target


class _Run:
    """One run of a flow: what became of each block, and who is told."""

    def __init__(self, flow: Flow, observer: Observer) -> None:
        self._flow = flow
        self._observer = observer
        self._outcomes: dict[tuple[str, Labels], Outcome] = {}
        self._accused: set[tuple[str, Labels]] = set()
        self._lost: dict[tuple[str, Labels], str] = {}
        self._begun = False
        self._start = time.time()
        moment = time.strftime("%Y%m%dt%H%M%S", time.gmtime(self._start))
        self._name = f"{flow.name}-{moment}-{secrets.token_hex(2)}"

    def execute(self, scheduler: Scheduler) -> Summary:
        """Run the flow; again without them if blocks take their workers down.

        A dying worker also takes blocks with it that only waited there. So a block is tried
        again after the first time, and given up after the second.
        """
        clock = time.perf_counter()
        plan = first = self._flow.plan()
        if plan.todo:
            self._note("started", first)
        try:
            for _ in range(_MOST_LOSSES):
                graph = weave_plan(plan, self._flow.store)
                if not graph.keys:
                    break
                if not self._round(plan, graph, scheduler):
                    break
                plan = make_plan(self._flow.steps, self._flow.store, lost=self._lost)
            else:
                raise SkyloomError(
                    f"workers keep dying, on {len(self._accused)} blocks so far: see the "
                    "workers' logs, give them more memory, and run again"
                )
        finally:
            if self._begun:
                self._observer.end()
        self._compact()
        summary = summarise(first, self._outcomes.values(), time.perf_counter() - clock)
        if first.todo:
            try:
                self._note("failed" if summary.problems else "done", first, summary)
            except StoreError as error:  # a disk that is full now; the summary says so
                logger.warning("the end of the run was not recorded: %s", error)
        return summary

    def _note(self, status: RunState, plan: Plan, summary: Summary | None = None) -> None:
        """Keep a record of the run itself: when, where, with which configuration, how it went.

        Written before anything is computed, it also finds out whether the store can be written.
        """
        counts = {} if summary is None else {"counts": summary.to_json()["counts"]}
        record = Record(
            step=RUNS,
            block={"run": self._name},
            status=status,
            versions={"skyloom": version("skyloom")},
            host=socket.gethostname(),
            start_time=self._start,
            end_time=time.time(),
            wall_seconds=0.0 if summary is None else summary.seconds,
            quality={
                "flow": self._flow.name,
                "configuration": self._flow.configuration.model_dump(mode="json"),
                "todo": plan.todo,
                **counts,
            },
        )
        self._flow.store.write_record(record)

    def _round(self, plan: Plan, graph: Graph, scheduler: Scheduler) -> bool:
        """Run one graph; return whether workers were lost."""
        self._prepare(plan)
        if not self._begun:
            self._observer.begin(_totals(graph))
            self._begun = True
        lost: dict[Key, str] = {}

        def finished(key: Key, result: Any) -> None:
            if isinstance(result, Lost):
                lost[result.culprit] = result.reason
            else:
                self._take(result)

        scheduler.get(graph, finished)
        for key, reason in lost.items():
            if key not in graph.blocks:
                raise SkyloomError(f"the worker of task {key} died: {reason}")
            block = graph.blocks[key]
            if block in self._accused:
                self._lose(block, reason)
            self._accused.add(block)
        return bool(lost)

    def _take(self, outcome: Outcome) -> None:
        key = (outcome.step, outcome.labels)
        known = key in self._outcomes
        if known and outcome.status == "kept":
            return
        self._outcomes[key] = outcome
        if not known:
            self._observer.finished(outcome)

    def _lose(self, block: tuple[str, Labels], reason: str) -> None:
        """Record a block whose worker died, since its task could not."""
        name, labels = block
        self._lost[block] = reason
        step = next(step for step in self._flow.steps if step.name == name)
        record = Record(
            step=name,
            block=step.block(labels),
            status="failed",
            reason=reason,
            config_hash=step.config_hash,
            end_time=time.time(),
        )
        try:
            self._flow.store.write_record(record)
        except StoreError as error:
            reason = f"{reason}; nor could its record be written: {error}"
        self._take(Outcome(name, labels, "failed", reason=reason))

    def _prepare(self, plan: Plan) -> None:
        """Lay out the products of steps that have something to do."""
        configuration = self._flow.configuration.model_dump(mode="json")
        for planned in plan.steps:
            step = planned.step
            if planned.count("todo"):
                attrs: Mapping[str, Any] = {
                    **step.attrs,
                    "flow": self._flow.name,
                    "configuration": configuration,
                }
                self._flow.store.prepare(step.schema, step.labels, sizes=step.sizes, attrs=attrs)

    def _compact(self) -> None:
        for name in sorted({name for name, _ in self._outcomes}):
            try:
                self._flow.store.compact(name)
            except StoreError as error:  # the run is complete without it
                logger.warning("the records of %s were not compacted: %s", name, error)


def _totals(graph: Graph) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, _ in graph.blocks.values():
        totals[name] = totals.get(name, 0) + 1
    return totals
