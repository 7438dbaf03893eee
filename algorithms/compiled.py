"""How every kernel is compiled: without the interpreter lock, cached, on one thread.

Dask's threads are the parallelism, so kernels never start threads of their own.

numba keeps a compiled kernel as long as the file of the kernel is unchanged, although the code of
the kernels it calls is compiled into it. A change of a kernel in another file would go unnoticed,
so here a kernel is kept as long as its module *and the modules that module imports* are unchanged.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba

__all__ = ["compiled", "compiled_dividing", "compiled_fast"]

Function = TypeVar("Function", bound=Callable[..., Any])

ROOM = Path(__file__).resolve().parent
IMPORT = re.compile(r"^from skyloom\.algorithms\.?([\w.]*) import (\w[^\n]*|\([^)]*\))", re.M)


def compiled(function: Function) -> Function:
    """Compile a kernel with strict IEEE arithmetic: NaN and infinities mean what they say."""
    kernel: Function = numba.njit(nogil=True, cache=True)(function)
    return _stamped(kernel)


def compiled_dividing(function: Function) -> Function:
    """Compile a strict kernel in which a division by zero gives infinity or NaN, not an error.

    Loops that divide have no vectors otherwise.
    """
    kernel: Function = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return _stamped(kernel)


def compiled_fast(function: Function) -> Function:
    """Compile a kernel whose sums may be reordered, to vectorise them; NaN still propagates."""
    fast = {"contract", "reassoc", "nsz"}
    kernel: Function = numba.njit(nogil=True, cache=True, fastmath=fast)(function)
    return _stamped(kernel)


def _stamped(kernel: Function) -> Function:
    """Let the cached code of a kernel depend on all source that may be compiled into it."""
    index: Any = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if hasattr(index, "_source_stamp"):  # absent where numba is told not to compile
        source: Any = inspect.unwrap(kernel)
        index._source_stamp = source_stamp(Path(source.__code__.co_filename).resolve())
    return kernel


@lru_cache
def source_stamp(module: Path, room: Path = ROOM) -> str:
    """Return the digest of a module and of all that it imports from the room, directly or not."""
    found: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = path.read_text(encoding="utf-8")
            waiting.extend(_imported(found[path], room))
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(found[path].encode())
    return digest.hexdigest()


def _imported(source: str, room: Path) -> Iterator[Path]:
    """Yield the modules of the room that a source imports."""
    for dotted, names in IMPORT.findall(source):
        target = room.joinpath(*dotted.split(".")) if dotted else room
        choices = [target, *(target / name for name in re.findall(r"\w+", names))]
        yield from (
            path.with_suffix(".py") for path in choices if path.with_suffix(".py").is_file()
        )
