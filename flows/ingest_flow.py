"""The ingest as a flow: files scanned, room made, pixels copied, on any scheduler.

The same schedulers and observers as every other flow; what one file is, `skyloom.storage.ingest`
says. A bad file is named with its reason and stops nothing; files that are there are no work.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from skyloom.algorithms.errors import SkyloomError
from skyloom.flows.block import Outcome, describe
from skyloom.flows.progress import Observer, choose_observers
from skyloom.flows.scheduler import GivenClient, Scheduler, choose_scheduler
from skyloom.flows.spread import spread
from skyloom.storage.camera import Camera
from skyloom.storage.fits_files import Places, find_files
from skyloom.storage.ingest import IngestOutcome, IngestTask, ingest_file, plan_ingest
from skyloom.storage.scan import FileFacts, scan_file

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["IngestSummary", "ingest"]

_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?")
PIXEL_BYTES = 4 * 3
"""Memory per pixel of a detector while it is copied: read, converted, compressed."""


@dataclass(frozen=True)
class IngestSummary:
    """What became of every file, sorted by path."""

    outcomes: tuple[IngestOutcome, ...]
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """How many files were ``ingested``, ``unchanged`` and ``rejected``."""
        found = Counter(outcome.status for outcome in self.outcomes)
        return {str(status): found[status] for status in ("ingested", "unchanged", "rejected")}

    @property
    def exit_code(self) -> int:
        """0 if every file is in the store with all it holds, 1 if something was refused."""
        return 1 if any(outcome.reason for outcome in self.outcomes) else 0

    def __str__(self) -> str:
        total = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        files = "1 file" if len(self.outcomes) == 1 else f"{len(self.outcomes)} files"
        lines = [f"{files}: {total or 'none'} in {self.seconds:.1f} s"]
        lines += [f"  {outcome.reason}" for outcome in self.outcomes if outcome.reason]
        notes = [note for outcome in self.outcomes for note in outcome.notes]
        # A night has hundreds of files that say the same with other numbers.
        alike = Counter(_NUMBER.sub("#", note) for note in notes)
        first = {_NUMBER.sub("#", note): note for note in reversed(notes)}
        lines += [
            f"  note ({'1 file' if count == 1 else f'{count} files'}): {first[kind]}"
            for kind, count in alike.most_common()
        ]
        return "\n".join(lines)


def ingest(
    store: Store,
    files: Places,
    *,
    client: Any = None,
    scheduler: str | os.PathLike[str] | Scheduler | None = None,
    workers: int | None = None,
    progress: bool | Observer | None = None,
    replace_existing: bool = False,
) -> IngestSummary:
    """Ingest FITS files and directories of them.

    Parameters
    ----------
    store : Store
        Where to.
    files : path or sequence of path
        Files and directories; workers must see the same paths.
    client, scheduler, workers, progress
        As for `skyloom.flows.flow.Flow.run`.
    replace_existing : bool
        Let a file replace an exposure that is in the store with other content.

    Returns
    -------
    IngestSummary
        One outcome per file; nothing is raised for a bad one.

    Raises
    ------
    StoreError
        If the store cannot be written.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> store = create_store("memory://doctest-ingest-flow", "generic")
    >>> print(ingest(store, [], progress=False).counts)
    {'ingested': 0, 'unchanged': 0, 'rejected': 0}
    """
    clock = time.perf_counter()
    chosen = (
        GivenClient(client) if client is not None else choose_scheduler(scheduler, workers=workers)
    )
    observer = choose_observers(progress)
    paths = find_files(files)
    observer.begin({"scan": len(paths), "copy": len(paths)})
    try:
        scanned = spread(
            chosen,
            _scan,
            [(store.camera, path) for path in paths],
            _named(paths),
            observer,
            "scan",
            event=partial(_event, "scan"),
            lost=_lost,
        )
        plan = plan_ingest(store, scanned, replace_existing=replace_existing)
        outcomes = list(plan.outcomes)
        for outcome in outcomes:
            observer.finished(_event("copy", outcome))
        for wave in plan.waves:
            tasks = [(store, task, replace_existing) for task in wave]
            names = _named(task.facts.path for task in wave)
            memory = PIXEL_BYTES * _largest(store.camera)
            outcomes += spread(
                chosen,
                _copy,
                tasks,
                names,
                observer,
                "copy",
                memory=memory,
                event=partial(_event, "copy"),
                lost=_lost,
            )
        if "raw" in store:
            store.compact("ingest")
        store.compact("ingest_files")
    finally:
        observer.end()
    ordered = sorted(outcomes, key=lambda outcome: outcome.path)
    return IngestSummary(tuple(ordered), time.perf_counter() - clock)


def _named(paths: Any) -> list[str]:
    return [str(path) for path in paths]


def _largest(camera: Camera) -> int:
    """Return the pixels of the largest detector."""
    return max(detector.shape[0] * detector.shape[1] for detector in camera.detectors)


def _scan(camera: Camera, path: Path) -> FileFacts | IngestOutcome:
    """Return the facts of a file, or its rejection: one file must not stop the others."""
    try:
        return scan_file(camera, path)
    except SkyloomError as error:
        return IngestOutcome(str(path), "rejected", reason=str(error))
    except Exception as error:  # a file may be broken in ways no reader foresees
        return IngestOutcome(str(path), "rejected", reason=f"{path}: {describe(error)}")


def _copy(store: Store, task: IngestTask, replace_existing: bool) -> IngestOutcome:
    """Copy one file; what goes wrong with it becomes its outcome."""
    try:
        return ingest_file(store, task, replace_existing=replace_existing)
    except SkyloomError as error:
        reason = str(error)
    except Exception as error:  # as for scanning
        reason = describe(error)
    path = task.facts.path
    return IngestOutcome(path, "rejected", task.facts.exposure, reason=f"{path}: {reason}")


def _lost(path: str, reason: str) -> IngestOutcome:
    return IngestOutcome(path, "rejected", reason=f"{path}: {reason}")


def _event(step: str, result: FileFacts | IngestOutcome) -> Outcome:
    """Return what observers are told of one file."""
    if isinstance(result, FileFacts):
        return Outcome(step, (result.path,), "done")
    status = {"ingested": "done", "unchanged": "kept", "rejected": "failed"}[result.status]
    return Outcome(
        step,
        (result.path,),
        status,  # type: ignore[arg-type]
        reason=result.reason,
        seconds=result.wall_seconds,
        bytes_written=result.bytes_written,
    )
