"""What a worker of a Dask cluster is told before it runs tasks of ours."""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from skyloom.flows.environment import SINGLE_THREADED, set_environment

__all__ = ["SingleThreaded"]


class SingleThreaded(WorkerPlugin):
    """Keep a worker's numerical libraries at one thread: tasks are the parallelism.

    Environment variables act on libraries that are loaded later, limits on those loaded
    already. A numba cache is set if numba is not loaded yet.
    """

    name = "skyloom-single-threaded"

    def setup(self, worker: Any) -> None:
        """Set the environment and limit thread pools, once per worker."""
        import os

        from threadpoolctl import threadpool_limits

        set_environment()
        os.environ.update(SINGLE_THREADED)
        threadpool_limits(limits=1)
