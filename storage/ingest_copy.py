"""Copying the pixels of one FITS file into the raw product, with records of how it went."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import IngestError
from skyloom.storage.camera_geometry import trimmed_size
from skyloom.storage.fits_files import open_fits
from skyloom.storage.fits_images import read_detector
from skyloom.storage.headers import UNITS
from skyloom.storage.projections import SKY_CORNERS, projection_text, sky_corners
from skyloom.storage.records import Record, plain
from skyloom.storage.scan import DetectorFacts, FileFacts
from skyloom.storage.store import Store, open_store

__all__ = [
    "FILES_STEP",
    "STEP",
    "IngestOutcome",
    "IngestTask",
    "ingest_file",
    "raw_block",
    "raw_dataset",
    "record_outcome",
]

STEP: Final = "ingest"
"""Step of the records per exposure and detector."""
FILES_STEP: Final = "ingest_files"
"""Step of the records per file."""


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """What became of one file."""

    path: str
    status: Literal["ingested", "unchanged", "rejected"]
    exposure: int | None = None
    detectors: tuple[str, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    bytes_read: int = 0
    bytes_written: int = 0
    wall_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class IngestTask:
    """One file to copy, and what the coordinator knew of its blocks."""

    facts: FileFacts
    dtype: str
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Fingerprint and file of the detectors of this exposure that are in the store."""
    look: bool = False
    """Whether another file of this ingest may have written the same blocks meanwhile."""


def ingest_file(
    store: Store | str, task: IngestTask, *, replace_existing: bool = False
) -> IngestOutcome:
    """Copy the pixels of one file into the store and write their records.

    Parameters
    ----------
    store : Store or str
        Where to, or its URL.
    task : IngestTask
        From `plan_ingest`.
    replace_existing : bool
        As for `ingest_fits`.

    Returns
    -------
    IngestOutcome
        ``rejected`` if no detector of the file could be ingested; one that could not be while
        others were is named in ``reason``. Nothing is raised for a bad file.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    start = time.perf_counter()
    opened = open_store(store) if isinstance(store, str) else store
    facts = task.facts
    written: dict[str, int] = {}
    unchanged: list[str] = []
    problems = [f"{facts.path}: {problem}" for problem in facts.problems]
    read = 0
    try:
        with open_fits(Path(facts.path), verify=True) as hdus:
            for part in facts.detectors:
                detector = opened.camera.detector(part.name)
                begun = time.time()
                try:
                    raw = read_detector(hdus, detector, part.hdus, task.dtype)
                    fingerprint = _fingerprint(raw, {**part.headers, **part.projection})
                    read += raw.nbytes
                    if _is_known(opened, task, part.name, fingerprint, replace_existing):
                        unchanged.append(part.name)
                        continue
                except ValueError as error:
                    reason = f"{facts.path}: detector {part.name}, HDU {part.hdus[0]}: {error}"
                    problems.append(reason)
                    _write_failure(opened, task, part.name, reason)
                    continue
                written[part.name] = _write(opened, facts, part.name, raw, fingerprint, begun)
    except IngestError as error:
        problems.append(str(error))
    outcome = IngestOutcome(
        facts.path,
        "ingested" if written else "unchanged" if unchanged and not problems else "rejected",
        facts.exposure,
        (*written, *unchanged),
        "; ".join(problems),
        facts.notes,
        read,
        sum(written.values()),
        time.perf_counter() - start,
    )
    record_outcome(opened, outcome)
    return outcome


def raw_block(exposure: int, detector: str) -> dict[str, str | int]:
    """Return the block of the raw product that an exposure of a detector fills.

    Examples
    --------
    >>> raw_block(7, "ccd")
    {'exposure': 7, 'detector': 'ccd'}
    """
    return {v.EXPOSURE: exposure, v.DETECTOR: detector}


def _is_known(
    store: Store, task: IngestTask, detector: str, fingerprint: str, replace_existing: bool
) -> bool:
    """Return whether this very content is stored; raise `IngestError` if other content is."""
    facts = task.facts
    known = task.known.get(detector)
    if task.look:
        record = store.read_record(STEP, raw_block(facts.exposure, detector))
        if record and record.done:
            known = (record.fingerprint, str(record.inputs.get("file", "")))
    if known is None or known[0] == fingerprint:
        return known is not None
    if known[1] == facts.path or (replace_existing and not task.look):
        return False  # the file was corrected in place, or is meant to replace
    raise IngestError(
        f"exposure {facts.exposure} is in the store already with other content, from {known[1]}; "
        "correct the exposure id of this file, or ingest it again with replacing allowed"
    )


def _fingerprint(raw: NDArray[Any], headers: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    text = json.dumps([str(raw.dtype), raw.shape, plain(headers)], sort_keys=True)
    digest.update(text.encode())
    digest.update(np.ascontiguousarray(raw).data)
    return digest.hexdigest()


def raw_dataset(
    image: NDArray[Any],
    detector: str,
    headers: Mapping[str, Any],
    amplifiers: Sequence[str],
    projection: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return raw pixels with their header values as a dataset.

    Parameters
    ----------
    image : array, (y, x), adu
        Raw array of the detector.
    detector : str
        Its name.
    headers : mapping
        Mapped header values; ``header_read_noise`` has one per amplifier.
    amplifiers : sequence of str
        Names of the detector's amplifiers.
    projection : mapping, optional
        FITS keys of its world coordinate system, for trimmed pixels.

    Returns
    -------
    Dataset
        ``image (y, x)``; header values as scalar coordinates, NaN or "" where a file has none,
        and the projection as JSON text in ``wcs``.

    Examples
    --------
    >>> import numpy as np
    >>> headers = {"exposure": 7, "exposure_time": 1.5, "observation_type": "flat"}
    >>> raw = raw_dataset(np.zeros((2, 3), "uint16"), "ccd", headers, ["A"])
    >>> raw.image.dims, float(raw.exposure_time), str(raw.detector.values)
    (('y', 'x'), 1.5, 'ccd')
    """
    values = {"mjd_start": None, **headers}
    noise = values.pop("header_read_noise", None)
    coords: dict[str, Any] = {v.DETECTOR: detector}
    for name, value in values.items():
        empty = (
            ""
            if name in ("physical_filter", "observation_reason", "observation_program")
            else np.nan
        )
        attrs = {"units": UNITS[name]} if name in UNITS else {}
        coords[name] = xr.Variable((), empty if value is None else value, attrs)
    if noise is not None:
        coords[v.AMP] = list(amplifiers)
        column = np.array(noise, np.float64)  # None becomes NaN
        coords["header_read_noise"] = ((v.AMP,), column, {"units": v.ADU})
    if projection:
        coords[v.WCS] = projection_text(projection)
    data = {"image": ((v.Y, v.X), image, {"units": v.ADU})}
    return xr.Dataset(data, coords=coords)


def _write(
    store: Store,
    facts: FileFacts,
    detector: str,
    raw: NDArray[Any],
    fingerprint: str,
    begun: float,
) -> int:
    part = facts.part(detector)
    block = raw_block(facts.exposure, detector)
    names = store.camera.amplifier_names(detector)
    dataset = raw_dataset(raw, detector, part.headers, names, part.projection)
    written = store.write_block("raw", block, dataset)
    ended = time.time()
    store.write_record(
        Record(
            STEP,
            block,
            "done",
            fingerprint=fingerprint,
            inputs=facts.identity,
            versions={"skyloom": version("skyloom")},
            host=socket.gethostname(),
            worker=str(os.getpid()),
            start_time=begun,
            end_time=ended,
            wall_seconds=ended - begun,
            bytes_read=raw.nbytes,
            bytes_written=written,
            warnings=facts.notes,
            headers={**part.headers, **_corners(store, part)},
        )
    )
    return written


def _corners(store: Store, part: DetectorFacts) -> dict[str, list[list[float]]]:
    """Return where the corners of a detector lie: what overlaps are found by, without pixels."""
    if not part.projection:
        return {}
    shape = trimmed_size(store.camera.detector(part.name))
    return {SKY_CORNERS: sky_corners(part.projection, shape).tolist()}


def _write_failure(store: Store, task: IngestTask, detector: str, reason: str) -> None:
    # A good block of the same exposure, from another file, stays good.
    if detector in task.known or task.look:
        return
    block = raw_block(task.facts.exposure, detector)
    store.write_record(Record(STEP, block, "failed", reason=reason, inputs=task.facts.identity))


def record_outcome(store: Store, outcome: IngestOutcome) -> None:
    """Write what became of a file as a record of its own."""
    status: Literal["done", "failed"] = "failed" if outcome.status == "rejected" else "done"
    store.write_record(
        Record(
            FILES_STEP,
            {"file": outcome.path},
            status,
            reason=outcome.reason,
            warnings=outcome.notes,
            host=socket.gethostname(),
            end_time=time.time(),
            wall_seconds=outcome.wall_seconds,
            bytes_read=outcome.bytes_read,
            bytes_written=outcome.bytes_written,
            quality={"exposure": outcome.exposure, "detectors": list(outcome.detectors)},
        )
    )
