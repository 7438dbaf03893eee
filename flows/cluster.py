"""Running a graph on a `distributed` cluster: settings, plugins, results as they come, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from skyloom.algorithms.errors import ConfigurationError, SkyloomError
from skyloom.flows.plan import readable_bytes
from skyloom.flows.weave import Graph, Key

__all__ = ["Finished", "Lost", "cluster_settings", "run_on_client"]


class Lost(NamedTuple):
    """In place of a result: the key whose worker died, and why."""

    culprit: Key
    reason: str


Finished: TypeAlias = Callable[[Key, Any], None]


@contextmanager
def cluster_settings(environment: Mapping[str, str]) -> Iterator[None]:
    """Set what Dask reads from its configuration while a cluster starts and runs."""
    import dask

    settings = {
        "distributed.nanny.pre-spawn-environ": dict(environment),
        # One task waits at its worker at most: fewer innocents when a worker dies.
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.allowed-failures": 1,
        # A worker would keep a profile of itself for every second of the last hour.
        "distributed.worker.profile.enabled": False,
    }
    with dask.config.set(settings):
        yield


def run_on_client(client: Any, graph: Graph, finished: Finished) -> None:
    """Run a graph on a `distributed` client, handing over results as they come.

    Raises
    ------
    ConfigurationError
        If a worker has less memory than a task needs.
    SkyloomError
        If the cluster has no workers, or its scheduler goes away.
    """
    import dask
    from distributed import as_completed

    from skyloom.flows.worker import SingleThreaded

    _check_memory(client, graph.task_bytes)
    client.register_plugin(SingleThreaded())
    # The graph grows with the number of blocks, by some hundred bytes each: that is no mistake.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        futures = client.get(dict(graph.tasks), graph.keys, sync=False)
    remaining = {future.key: future for future in futures}
    del futures
    try:
        # A worker keeps a result as long as somebody wants it, and makes it again elsewhere if
        # it dies: let go of each as soon as it is here.
        for batch in as_completed(
            list(remaining.values()),
            loop=client.loop,  # else that of the default client, which may be another
            with_results=True,
            raise_errors=False,
        ).batches():
            for future, result in batch:
                failed = future.status != "finished"
                finished(future.key, _lost(future, result) if failed else result)
                remaining.pop(future.key).release()
                del future
    except BaseException:
        client.cancel(list(remaining.values()))
        raise


def _check_memory(client: Any, task_bytes: int) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    limits = {name: found.get("memory_limit") or 0 for name, found in workers.items()}
    small = {name: limit for name, limit in limits.items() if 0 < limit < task_bytes}
    if small:
        name, limit = next(iter(small.items()))
        raise ConfigurationError(
            f"one task needs {readable_bytes(task_bytes)}, but worker {name} and "
            f"{len(small) - 1} others have {readable_bytes(limit)}: give workers more memory"
        )


def _lost(future: Any, result: Any) -> Lost:
    """Return which key a failed future stands for, and why."""
    from distributed import KilledWorker

    error = result[1] if isinstance(result, tuple) and len(result) == 3 else result
    if isinstance(error, KilledWorker):
        return Lost(
            error.task,
            f"its worker died {error.allowed_failures + 1} times while doing this block, probably "
            "of memory (see the worker's log): give workers more memory or use fewer of them, "
            "then run again",
        )
    if future.status in {"cancelled", "lost"}:
        raise SkyloomError(
            "the Dask scheduler went away or cancelled the run; what is finished stays finished: "
            "run again to do the rest"
        )
    if isinstance(error, BaseException):
        raise error
    raise SkyloomError(f"task {future.key} ended as {future.status}")
