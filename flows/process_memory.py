"""The memory of this process at its worst while something is done.

The operating system keeps one high-water mark a process, for all its threads and from its start.
Linux starts it over where it is asked to; what others had seen until then is kept for them.
"""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["watched_memory"]

_STATUS: Final = Path("/proc/self/status")
_START_OVER: Final = Path("/proc/self/clear_refs")
_PEAK: Final = "5"
"""What tells Linux to start the high-water mark over at what is resident now."""

_lock = threading.Lock()
_seen: dict[object, int] = {}
"""The highest mark that each watch has seen before it was started over."""


@contextmanager
def watched_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the largest resident memory of this process since, in bytes.

    It is that of all threads together: of several that run at a time each is told what all of
    them held while it ran. Where the mark cannot be started over it counts from the start of the
    process.

    Examples
    --------
    >>> with watched_memory() as peak:
    ...     peak() > 1_000_000
    True
    """
    watch = object()
    with _lock:
        high = _high_water_mark()
        for other in _seen:
            _seen[other] = max(_seen[other], high)
        _start_over()
        _seen[watch] = 0

    def peak() -> int:
        with _lock:
            return max(_seen.get(watch, 0), _high_water_mark())

    try:
        yield peak
    finally:
        with _lock:
            del _seen[watch]


def _high_water_mark() -> int:
    try:
        # Unlike this, what `resource` says begins with the peak of the parent process.
        return 1024 * int(_STATUS.read_text().split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _start_over() -> None:
    with suppress(OSError):  # another system, or one that forbids it
        _START_OVER.write_text(_PEAK)
