"""Progress: observers fed by the same events on every scheduler.

An observer sees how many blocks each step has to make, then every outcome as it comes. Bars are
for people at a terminal, lines for log files of batch jobs, JSON lines for machines.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

from skyloom.flows.block import Outcome

__all__ = ["Bars", "JsonFormatter", "Lines", "Log", "Observer", "Observers", "choose_observers"]

logger = logging.getLogger("skyloom")
logger.addHandler(logging.NullHandler())


class Observer(Protocol):
    """Something that is told how a run goes."""

    def begin(self, totals: Mapping[str, int]) -> None:
        """Take note of how many blocks each step will try to make."""

    def finished(self, outcome: Outcome) -> None:
        """Take note of one block."""

    def end(self) -> None:
        """Take note that no more will come, finished or interrupted."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def begin(self, totals: Mapping[str, int]) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.begin(totals)

    def finished(self, outcome: Outcome) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.finished(outcome)

    def end(self) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.end()


class Bars:
    """One bar per step with its failures and the time left, for a terminal."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._progress: Any = None
        self._bars: dict[str, Any] = {}
        self._bad: Counter[str] = Counter()

    def begin(self, totals: Mapping[str, int]) -> None:
        """Draw a bar per step."""
        from rich.console import Console  # heavy
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("[red]{task.fields[bad]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
        )
        for step, total in totals.items():
            self._bars[step] = self._progress.add_task(step, total=total, bad="")
        self._progress.start()

    def finished(self, outcome: Outcome) -> None:
        """Advance the bar of the block's step."""
        if not outcome.good:
            self._bad[outcome.step] += 1
        bad = self._bad[outcome.step]
        text = f"{bad} failed or skipped" if bad else ""
        self._progress.update(self._bars[outcome.step], advance=1, bad=text)

    def end(self) -> None:
        """Leave the bars as they are."""
        if self._progress is not None:
            self._progress.stop()


class Lines:
    """A line now and then and at the end of each step, for a log file."""

    EVERY: Final = 30.0
    """Seconds between lines of one step."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._totals: Mapping[str, int] = {}
        self._seen: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()
        self._last: dict[str, float] = {}
        self._start = time.monotonic()

    def begin(self, totals: Mapping[str, int]) -> None:
        """Remember the totals."""
        self._totals = totals
        self._start = time.monotonic()

    def finished(self, outcome: Outcome) -> None:
        """Print a line if the last one is old enough or the step is complete."""
        step, now = outcome.step, time.monotonic()
        self._seen[step] += 1
        self._bad[step] += not outcome.good
        seen, total = self._seen[step], self._totals.get(step, 0)
        if seen < total and now - self._last.get(step, self._start) < self.EVERY:
            return
        self._last[step] = now
        spent = now - self._start
        bad = f", {self._bad[step]} failed or skipped" if self._bad[step] else ""
        left = f", about {spent * (total - seen) / seen:.0f} s left" if seen < total else ""
        print(f"{step}: {seen} of {total}{bad} in {spent:.0f} s{left}", file=self._stream)

    def end(self) -> None:
        """Say nothing more."""


class Log:
    """Every block as one entry of Python's log ``skyloom``, with its figures as fields."""

    def begin(self, totals: Mapping[str, int]) -> None:
        """Log the totals."""
        logger.info("run starts", extra={"event": "begin", "totals": dict(totals)})

    def finished(self, outcome: Outcome) -> None:
        """Log one block; those that were not made as warnings."""
        level = logging.INFO if outcome.good else logging.WARNING
        fields = {
            "event": "block",
            "step": outcome.step,
            "block": list(outcome.labels),
            "status": outcome.status,
            "reason": outcome.reason,
            "seconds": round(outcome.seconds, 6),
            "warnings": outcome.warnings,
            "bytes_written": outcome.bytes_written,
        }
        logger.log(level, "%s %s %s", outcome.step, outcome.labels, outcome.status, extra=fields)

    def end(self) -> None:
        """Log the end."""
        logger.info("run ends", extra={"event": "end"})


_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A log entry as one line of JSON: time, level, message, and the fields given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def log_to(path: Path) -> logging.Handler:
    """Append every entry of the log ``skyloom`` to a file as JSON lines; return the handler."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # A log file is asked for instead of the terminal, not in addition to it.
    logger.propagate = False
    return handler


def choose_observers(progress: bool | Observer | None = None) -> Observer:
    """Return who is told: bars on a terminal, lines elsewhere, nobody if False.

    Examples
    --------
    >>> observers = choose_observers(False)
    >>> observers.begin({"solve": 1})
    """
    chosen: list[Observer] = [Log()]
    if progress is True or (progress is None and sys.stderr.isatty()):
        chosen.append(Bars() if sys.stderr.isatty() else Lines())
    elif progress is not None and not isinstance(progress, bool):
        chosen.append(progress)
    return Observers(chosen)
