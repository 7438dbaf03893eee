"""Ingest: FITS files into the raw product, a block per exposure and detector.

Three steps, so that a flow can spread the first and the last over many workers:
`scan_file` reads headers and finds what a file holds; `plan_ingest`, called by the coordinator
alone, refuses duplicates and makes room; `ingest_file` copies pixels and writes records. A bad
file, or a bad detector in a good file, is refused by name and reason; the rest goes on.

What lies in the store is known by its content: the fingerprint covers pixels and mapped header
values, not the file. The same exposure in another file is no work if its content is the same,
and is refused if it differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dask

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import IngestError
from skyloom.storage.camera import Camera
from skyloom.storage.fits_files import Places, find_files
from skyloom.storage.ingest_copy import (
    STEP,
    IngestOutcome,
    IngestTask,
    ingest_file,
    raw_block,
    record_outcome,
)
from skyloom.storage.records import Record, plain
from skyloom.storage.scan import FileFacts, scan_file
from skyloom.storage.schemas import raw_schema
from skyloom.storage.store import Store

__all__ = [
    "IngestOutcome",
    "IngestPlan",
    "IngestTask",
    "ingest_file",
    "ingest_fits",
    "plan_ingest",
    "scan_file",
]

_WIDER = ("uint16", "int32", "float32")


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Files to copy, in waves to be run one after another, and outcomes known already."""

    waves: tuple[tuple[IngestTask, ...], ...]
    outcomes: tuple[IngestOutcome, ...]


def ingest_fits(
    store: Store, files: Places, *, replace_existing: bool = False
) -> list[IngestOutcome]:
    """Ingest FITS files and directories of them, in parallel on Dask's current scheduler.

    Parameters
    ----------
    store : Store
        Where to.
    files : path or sequence of path
        Files and directories.
    replace_existing : bool
        Let a file replace an exposure that is in the store with other content.

    Returns
    -------
    list of IngestOutcome
        One per file, sorted by path. Nothing is raised for a bad file.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    paths = find_files(files)
    scan = dask.delayed(_scan_quietly, pure=False)
    scanned = dask.compute(*[scan(store.camera, path) for path in paths])
    plan = plan_ingest(store, scanned, replace_existing=replace_existing)
    outcomes = list(plan.outcomes)
    copy = dask.delayed(ingest_file, pure=False)
    for wave in plan.waves:
        outcomes += dask.compute(
            *[copy(store, task, replace_existing=replace_existing) for task in wave]
        )
    return sorted(outcomes, key=lambda outcome: outcome.path)


def _scan_quietly(camera: Camera, path: Path) -> FileFacts | IngestOutcome:
    """Return the facts of a file, or its rejection: an exception would stop the others."""
    try:
        return scan_file(camera, path)
    except IngestError as error:
        return IngestOutcome(str(path), "rejected", reason=str(error))


def plan_ingest(
    store: Store,
    scanned: Iterable[FileFacts | IngestOutcome],
    *,
    replace_existing: bool = False,
) -> IngestPlan:
    """Decide what is to be copied, and make room for it. Only the coordinator calls this.

    Parameters
    ----------
    store : Store
        Where to.
    scanned : iterable of FileFacts or IngestOutcome
        What `scan_file` found, or the rejection of the file.
    replace_existing : bool
        As for `ingest_fits`.

    Returns
    -------
    IngestPlan
        Files whose name, size and time are those of an earlier ingest need no work.
    """
    records = store.records(STEP) if "raw" in store else {}
    outcomes: list[IngestOutcome] = []
    wanted: list[FileFacts] = []
    for item in scanned:
        if isinstance(item, IngestOutcome):
            outcomes.append(item)
        elif _untouched(item, records):
            outcomes.append(
                IngestOutcome(item.path, "unchanged", item.exposure, item.detector_names)
            )
        else:
            wanted.append(item)
    dtype = _stored_type(store, wanted)
    tasks: list[list[IngestTask]] = []
    claimed: dict[tuple[int, str], int] = {}
    for facts in sorted(wanted, key=lambda facts: facts.path):
        blocks = [(facts.exposure, name) for name in facts.detector_names]
        wave = max(claimed.get(block, 0) for block in blocks)
        claimed.update(dict.fromkeys(blocks, wave + 1))
        known = {} if replace_existing and not wave else _known(facts, records)
        while len(tasks) <= wave:
            tasks.append([])
        tasks[wave].append(IngestTask(facts, dtype, known, look=wave > 0))
    if wanted:
        store.prepare(
            raw_schema(dtype),
            {
                v.EXPOSURE: sorted({facts.exposure for facts in wanted}),
                v.DETECTOR: store.camera.detector_names(),
            },
            sizes=_raw_sizes(store.camera),
            replace=False,
        )
    for outcome in outcomes:
        if outcome.status == "rejected":
            record_outcome(store, outcome)
    return IngestPlan(tuple(map(tuple, tasks)), tuple(outcomes))


def _raw_sizes(camera: Camera) -> dict[str, int]:
    shapes = [detector.shape for detector in camera.detectors]
    return {v.Y: max(shape[0] for shape in shapes), v.X: max(shape[1] for shape in shapes)}


def _stored_type(store: Store, wanted: Sequence[FileFacts]) -> str:
    """Return the pixel type: the store's, the camera's, or the widest of the first files."""
    if "raw" in store:
        return store.schema("raw").variable("image").dtype
    if store.camera.pixel_type != "auto":
        return store.camera.pixel_type
    found = {part.dtype for facts in wanted for part in facts.detectors}
    return max(found, key=_WIDER.index, default="float32")


def _stored(facts: FileFacts, records: Mapping[str, Record]) -> dict[str, Record]:
    """Return the records of a file's blocks that are done."""
    found = {}
    for name in facts.detector_names:
        record = records.get(Record(STEP, raw_block(facts.exposure, name), "done").key)
        if record and record.done:
            found[name] = record
    return found


def _known(facts: FileFacts, records: Mapping[str, Record]) -> dict[str, tuple[str, str]]:
    return {
        name: (record.fingerprint, str(record.inputs.get("file", "")))
        for name, record in _stored(facts, records).items()
    }


def _untouched(facts: FileFacts, records: Mapping[str, Record]) -> bool:
    stored = _stored(facts, records)
    identity = plain(facts.identity)
    return bool(facts.detectors) and all(
        name in stored and all(stored[name].inputs.get(key) == identity[key] for key in identity)
        for name in facts.detector_names
    )
