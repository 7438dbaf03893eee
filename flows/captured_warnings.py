"""Warnings of one block, kept for its record instead of flooding the terminal.

Python's own way to catch warnings changes global state and mixes up threads. Here one hook
serves the process while any block runs, and hands each warning to the block whose thread
raised it; warnings of other threads go where they always went.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["captured_warnings"]

MOST: Final = 50  # a flood of different texts must not make records grow without bound
_current: ContextVar[list[str] | None] = ContextVar("warnings of this block", default=None)
_lock = threading.Lock()
_users = 0
_outer: Any = None


@contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Collect the texts of warnings raised in this thread, each once.

    Examples
    --------
    >>> with captured_warnings() as caught:
    ...     warnings.warn("overscan is noisy", stacklevel=1)
    >>> caught
    ['UserWarning: overscan is noisy']
    """
    caught: list[str] = []
    _enter()
    token = _current.set(caught)
    try:
        yield caught
    finally:
        _current.reset(token)
        _leave()


def _enter() -> None:
    global _users, _outer
    with _lock:
        _users += 1
        if _users == 1:
            _outer = warnings.catch_warnings()
            _outer.__enter__()
            previous = warnings.showwarning
            warnings.simplefilter("always")
            warnings.showwarning = _dispatch(previous)


def _leave() -> None:
    global _users, _outer
    with _lock:
        _users -= 1
        if _users == 0:
            _outer.__exit__(None, None, None)
            _outer = None


def _dispatch(previous: Any) -> Any:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        caught = _current.get()
        if caught is None:
            previous(message, category, filename, lineno, file, line)
            return
        text = f"{category.__name__}: {message}"
        if text not in caught and len(caught) < MOST:
            caught.append(text)

    return show
