"""Threads and caches of the processes that compute: one thread per task, caches on local disk."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["SINGLE_THREADED", "numba_cache_dir", "set_environment", "single_threaded"]

SINGLE_THREADED: Final[Mapping[str, str]] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
"""Libraries read these when they are loaded. Dask's workers are the parallelism."""


def numba_cache_dir() -> str | None:
    """Return this user's cache of compiled kernels on this node, None if it cannot be trusted.

    Home directories are often shared between nodes, where concurrent writers corrupt the cache;
    the temporary directory is local. A cache holds code, so one that others could have written
    is not used.

    Examples
    --------
    >>> import os
    >>> cache = numba_cache_dir()
    >>> cache is None or os.path.isdir(cache)
    True
    """
    path = Path(tempfile.gettempdir()) / f"skyloom-numba-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return str(path) if mine and not found.st_mode & 0o022 else None


def set_environment() -> None:
    """Set thread counts and the numba cache of this process, where the user has not set them.

    To be called before numpy and numba are imported, which read them once.
    """
    for name, value in SINGLE_THREADED.items():
        os.environ.setdefault(name, value)
    cache = numba_cache_dir()
    if cache:
        os.environ.setdefault("NUMBA_CACHE_DIR", cache)


def worker_environment() -> dict[str, str]:
    """Return the environment that processes of a local cluster start with."""
    cache = os.environ.get("NUMBA_CACHE_DIR") or numba_cache_dir()
    return {**SINGLE_THREADED, **({"NUMBA_CACHE_DIR": cache} if cache else {})}


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep the thread pools of numerical libraries at one thread while tasks run in threads.

    Libraries already loaded are told so; those loaded meanwhile read it from the environment.

    Examples
    --------
    >>> with single_threaded():
    ...     import os
    ...     print(os.environ["OMP_NUM_THREADS"])
    1
    """
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in SINGLE_THREADED}
    os.environ.update(SINGLE_THREADED)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
