"""Where tasks run: threads, local processes, or a Dask cluster; one method, chosen by one file.

Whatever runs the graph, each finished key is handed to the caller at once, in the caller's
thread; a key whose worker died is handed over as `Lost` and the others go on.
"""

from __future__ import annotations

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import Field, RootModel, ValidationError, model_validator

from skyloom.algorithms.errors import ConfigurationError, SkyloomError
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.cluster import Finished, Lost, cluster_settings, run_on_client
from skyloom.flows.configuration import load_configuration
from skyloom.flows.environment import single_threaded, worker_environment
from skyloom.flows.plan import readable_bytes
from skyloom.flows.weave import Graph, Key

__all__ = [
    "Address",
    "Finished",
    "GivenClient",
    "Lost",
    "Processes",
    "Scheduler",
    "Threads",
    "choose_scheduler",
]

BASE_BYTES = 300 << 20
"""What a worker process takes before it does anything: the interpreter and its libraries."""


_NO_PORT: Final = "127.0.0.1:0"


class Scheduler(Protocol):
    """What a flow asks of the thing that runs its graph."""

    def get(self, graph: Graph, finished: Finished) -> None:
        """Run a graph and call ``finished(key, result)`` for every wanted key."""


class Threads(Parameters):
    """Threads of this process: nothing to start, results are there at once."""

    kind: Literal["threads"] = Field("threads", description="where tasks run")
    threads: int | None = Field(
        None, ge=1, description="tasks at a time; as many as cores and memory allow if not given"
    )
    memory_limit: int | None = Field(
        None,
        ge=1,
        description="bytes all tasks together may use; the machine's memory if not given",
    )

    def get(self, graph: Graph, finished: Finished) -> None:
        """Run a graph on threads; on an interrupt, blocks under way are finished first."""
        import dask.threaded  # heavy
        from dask.callbacks import Callback

        count = fit_workers(self.threads, graph.task_bytes, self.memory_limit or memory_limit())
        wanted = graph.blocks

        def posttask(key: Key, result: Any, *_: Any) -> None:
            if key in wanted:
                finished(key, result)

        pool = ThreadPoolExecutor(count, thread_name_prefix="skyloom")
        try:
            with single_threaded(), Callback(posttask=posttask):
                dask.threaded.get(graph.tasks, graph.keys, pool=pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Processes(Parameters):
    """Processes of this machine, one thread each, started for the run."""

    kind: Literal["processes"] = Field("processes", description="where tasks run")
    processes: int | None = Field(
        None, ge=1, description="tasks at a time; as many as cores and memory allow if not given"
    )
    memory_limit: int | None = Field(
        None,
        ge=1,
        description="bytes all tasks together may use; the machine's memory if not given",
    )
    dashboard: str | None = Field(
        None, description='address of Dask\'s dashboard, e.g. "127.0.0.1:8787"; none if not given'
    )
    local_directory: str | None = Field(
        None, description="where workers keep scratch files; the temporary directory if not given"
    )

    def get(self, graph: Graph, finished: Finished) -> None:
        """Start a cluster on this machine, run a graph on it, close it."""
        import tempfile

        from distributed import Client, LocalCluster  # heavy

        limit = self.memory_limit or memory_limit()
        count = fit_workers(self.processes, graph.task_bytes + BASE_BYTES, limit)
        environment = worker_environment()
        with (
            cluster_settings(environment),
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=limit // count,
                dashboard_address=self.dashboard or _NO_PORT,
                # Without one, Dask would still listen, on every network interface.
                scheduler_kwargs={} if self.dashboard else {"dashboard": False},
                local_directory=self.local_directory or tempfile.gettempdir(),
                env=environment,
                silence_logs=logging.CRITICAL,  # what matters of a death is in the record
            ) as cluster,
            Client(cluster) as client,
        ):
            run_on_client(client, graph, finished)


class Tls(Parameters):
    """Certificates for a scheduler that wants encrypted connections."""

    ca_file: str = Field(description="certificate authority, a PEM file")
    certificate: str = Field(description="certificate of this client, a PEM file")
    key: str = Field(description="key of this client, a PEM file")


class Address(Parameters):
    """A Dask scheduler that runs already, on this or another machine."""

    kind: Literal["address"] = Field("address", description="where tasks run")
    address: str = Field(description="e.g. tcp://127.0.0.1:8786 or tls://host:8786")
    tls: Tls | None = Field(None, description="certificates, for tls:// addresses")
    timeout: float = Field(30.0, gt=0, description="how long to wait for the scheduler, s")

    @model_validator(mode="after")
    def _encrypted_with_certificates(self) -> Address:
        if self.address.startswith("tls://") and self.tls is None:
            raise ValueError(
                f"{self.address} is encrypted: give tls with ca_file, certificate and key, "
                "in a scheduler file"
            )
        return self

    def get(self, graph: Graph, finished: Finished) -> None:
        """Connect and run a graph; the scheduler and its workers stay as they are."""
        from distributed import Client, Security  # heavy

        security = None
        if self.tls:
            security = Security(
                tls_ca_file=self.tls.ca_file,
                tls_client_cert=self.tls.certificate,
                tls_client_key=self.tls.key,
                require_encryption=True,
            )
        try:
            client = Client(self.address, security=security, timeout=self.timeout)
        except (OSError, TimeoutError, ValueError) as error:
            raise SkyloomError(
                f"no Dask scheduler answers at {self.address} ({error}): start one with "
                "`dask scheduler`, or correct the address"
            ) from error
        with client:
            run_on_client(client, graph, finished)


class GivenClient:
    """A `distributed.Client` that the caller has and keeps."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self, graph: Graph, finished: Finished) -> None:
        """Run a graph on the client's cluster."""
        run_on_client(self._client, graph, finished)


class SchedulerConfiguration(RootModel[Threads | Processes | Address]):
    """A scheduler file."""

    root: Annotated[Threads | Processes | Address, Field(discriminator="kind")]


_ADDRESS = re.compile(r"^(tcp|tls|ws|wss|ucx)://")


def choose_scheduler(
    chosen: str | os.PathLike[str] | Scheduler | None = None, *, workers: int | None = None
) -> Scheduler:
    """Return the scheduler that a user names.

    Parameters
    ----------
    chosen : str, path or Scheduler, optional
        A scheduler file, an address, "threads" or "processes"; threads if not given.
    workers : int, optional
        Tasks at a time, for threads and processes.

    Raises
    ------
    ConfigurationError
        If the file does not exist or is wrong; all problems with their lines.

    Examples
    --------
    >>> choose_scheduler("threads", workers=2)
    Threads(kind='threads', threads=2, memory_limit=None)
    >>> choose_scheduler("tcp://127.0.0.1:8786").address
    'tcp://127.0.0.1:8786'
    """
    if chosen is not None and not isinstance(chosen, str | os.PathLike):
        return chosen
    text = os.fspath(chosen) if chosen is not None else "threads"
    found: Threads | Processes | Address
    if text == "threads":
        found = Threads()
    elif text == "processes":
        found = Processes()
    elif _ADDRESS.match(text):
        try:
            found = Address(address=text)
        except ValidationError as error:
            raise ConfigurationError(str(error.errors()[0]["ctx"]["error"])) from error
    else:
        found = load_configuration(SchedulerConfiguration, Path(text)).root
    if workers is not None:
        if isinstance(found, Address):
            raise ConfigurationError(
                f"the number of workers is that of the cluster at {found.address}: leave it out"
            )
        name = "threads" if isinstance(found, Threads) else "processes"
        found = type(found).model_validate({**found.model_dump(), name: workers})
    return found


def memory_limit() -> int:
    """Return the memory this process may use, in bytes, as its container says."""
    from distributed.system import MEMORY_LIMIT  # heavy

    return int(MEMORY_LIMIT)


def fit_workers(asked: int | None, task_bytes: int, limit: int) -> int:
    """Return how many tasks may run at a time.

    Parameters
    ----------
    asked : int, optional
        What the user wants; as many as there are cores, if memory allows, when not given.
    task_bytes : int
        Memory of one task, in bytes.
    limit : int
        Memory of all, in bytes.

    Raises
    ------
    ConfigurationError
        If a task, or as many tasks as asked for, need more than there is.

    Examples
    --------
    >>> fit_workers(4, 1 << 30, 8 << 30)
    4
    >>> fit_workers(16, 1 << 30, 8 << 30)
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: 16 tasks of 1.0 GiB at a time need 16.0 GiB, \
but only 8.0 GiB are allowed: use at most 8 workers or raise memory_limit
    """
    fitting = limit // task_bytes if task_bytes else 1 << 30
    if fitting < 1:
        raise ConfigurationError(
            f"one task needs {readable_bytes(task_bytes)}, but only {readable_bytes(limit)} are "
            "allowed: raise memory_limit or use a machine with more memory"
        )
    if asked is None:
        return max(1, min(available_cores(), fitting))
    if asked > fitting:
        raise ConfigurationError(
            f"{asked} tasks of {readable_bytes(task_bytes)} at a time need "
            f"{readable_bytes(asked * task_bytes)}, but only {readable_bytes(limit)} are "
            f"allowed: use at most {fitting} workers or raise memory_limit"
        )
    return asked


def available_cores() -> int:
    """Return how many cores this process may use."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)
