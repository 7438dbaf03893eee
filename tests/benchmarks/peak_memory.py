"""What a piece of work holds at its worst moment, beyond what its process holds already.

The high-water mark that the operating system hands to `resource` starts with that of the parent
process, so a small child of a large parent seems to grow by nothing. Linux counts anew where it
is told to, in the process's own books.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["grown_bytes", "peak_bytes"]

Result = TypeVar("Result")

STATUS, START_OVER = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def peak_bytes() -> int:
    """Return the largest memory of this process so far, in bytes."""
    if STATUS.exists():
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def grown_bytes(call: Callable[[], Result]) -> tuple[int, Result]:
    """Return how far the memory of this process rises while something is done, and its result."""
    if START_OVER.exists():
        START_OVER.write_text(RESET_PEAK)
    before = peak_bytes()
    result = call()
    return peak_bytes() - before, result
