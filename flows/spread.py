"""One function over many arguments, on any scheduler, with observers: a graph without edges."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from dask._task_spec import Task

from skyloom.algorithms.errors import SkyloomError
from skyloom.flows.block import Outcome
from skyloom.flows.progress import Observer
from skyloom.flows.scheduler import Lost, Scheduler
from skyloom.flows.weave import Graph, Key

__all__ = ["spread"]


def spread(
    scheduler: Scheduler,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    names: Sequence[str],
    observer: Observer,
    step: str,
    *,
    memory: int = 0,
    event: Callable[[Any], Outcome] | None = None,
    lost: Callable[[str, str], Any] | None = None,
) -> list[Any]:
    """Return ``function(*each)`` for all arguments, in their order.

    Parameters
    ----------
    scheduler : Scheduler
        Where to.
    function : callable
        Importable, if the scheduler has other processes.
    arguments : sequence of tuple
        One per call.
    names : sequence of str
        What each call is about, for messages.
    observer : Observer
        Who is told.
    step : str
        Name of what is done.
    memory : int
        Bytes one call takes.
    event : callable, optional
        Makes what observers are told from a result; "done" if not given.
    lost : callable, optional
        ``lost(name, reason)`` makes the result of a call whose worker died; raises if not given.

    Examples
    --------
    >>> from skyloom.flows.progress import choose_observers
    >>> from skyloom.flows.scheduler import Threads
    >>> spread(Threads(), pow, [(2, 3), (3, 2)], ["a", "b"], choose_observers(False), "powers")
    [8, 9]
    """
    if not arguments:
        return []
    token = uuid.uuid4().hex
    keys: list[Key] = [(f"{step}-{token}", i) for i in range(len(arguments))]
    of = dict(zip(keys, names, strict=True))
    results: dict[Key, Any] = {}

    def finished(key: Key, result: Any) -> None:
        if isinstance(result, Lost):
            if lost is None:
                raise SkyloomError(f"{step} {of[key]}: {result.reason}")
            result = lost(of[key], result.reason)
        results[key] = result
        observer.finished(event(result) if event else Outcome(step, (of[key],), "done"))

    tasks = {key: Task(key, function, *each) for key, each in zip(keys, arguments, strict=True)}
    blocks = {key: (step, (name,)) for key, name in of.items()}
    scheduler.get(Graph(tasks, blocks, memory), finished)
    return [results[key] for key in keys]
