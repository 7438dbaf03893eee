"""Tables made from records: what failed, what was warned of, times, versions.

Rows are plain tuples of text; everything that comes from files is escaped where the page is made.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from skyloom.flows.report.numbers import duration

if TYPE_CHECKING:
    from skyloom.storage.records import Record

__all__ = ["problem_rows", "step_rows", "version_rows", "warning_rows"]


def problem_rows(records: Iterable[Record]) -> list[tuple[str, str, str, str]]:
    """Return blocks that are not done: step, block, status, reason.

    Examples
    --------
    >>> from skyloom.storage.records import Record
    >>> problem_rows([Record("ptc", {"detector": "S0"}, "failed", "disk full")])
    [('ptc', 'detector S0', 'failed', 'disk full')]
    """
    order = {"failed": 0, "started": 1, "skipped": 2}
    found = [record for record in records if not record.done]
    found.sort(key=lambda record: (order.get(record.status, 3), record.step, record.key))
    return [
        (
            record.step,
            ", ".join(f"{dim} {label}" for dim, label in record.block.items()),
            "interrupted" if record.status == "started" else record.status,
            record.reason or "no reason was recorded",
        )
        for record in found
    ]


def warning_rows(records: Iterable[Record]) -> list[tuple[str, str, int]]:
    """Return what algorithms warned of: step, text, in how many blocks; most frequent first.

    Examples
    --------
    >>> from skyloom.storage.records import Record
    >>> warning_rows([Record("ptc", {"detector": "S0"}, "done", warnings=("no overscan",))])
    [('ptc', 'no overscan', 1)]
    """
    counts = Counter((record.step, text) for record in records for text in set(record.warnings))
    return [(step, text, count) for (step, text), count in counts.most_common()]


def step_rows(records: Iterable[Record]) -> list[tuple[str, ...]]:
    """Return a row for each step: blocks, times, memory, machines.

    Returns
    -------
    list of tuple
        Step, done, failed, skipped, work, time of the processor, highest memory, hosts, end.

    Examples
    --------
    >>> from skyloom.storage.records import Record
    >>> record = Record("ptc", {"detector": "S0"}, "done", wall_seconds=2.0, host="node1")
    >>> step_rows([record])[0][:5]
    ('ptc', '1', '0', '0', '2.00 s')
    """
    steps: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        steps[record.step].append(record)
    rows: list[tuple[str, ...]] = []
    first = {step: min(record.start_time for record in found) for step, found in steps.items()}
    for step in sorted(steps, key=lambda name: (first[name], name)):
        found = steps[step]
        counts = Counter(record.status for record in found)
        memory = max(record.peak_memory_bytes for record in found)
        end = max(record.end_time for record in found)
        rows.append(
            (
                step,
                str(counts["done"]),
                str(counts["failed"]),
                str(counts["skipped"]),
                duration(sum(record.wall_seconds for record in found)),
                duration(sum(record.cpu_seconds for record in found)),
                f"{memory / 2**20:.0f} MiB" if memory else "–",
                str(len({record.host for record in found if record.host}) or "–"),
                f"{dt.datetime.fromtimestamp(end, dt.UTC):%Y-%m-%d %H:%M:%S} UTC" if end else "–",
            )
        )
    return rows


def version_rows(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Return the versions with which blocks were made; several if they differ.

    Examples
    --------
    >>> from skyloom.storage.records import Record
    >>> version_rows([Record("ptc", {"detector": "S0"}, "done", versions={"numpy": "2.4"})])
    [('numpy', '2.4')]
    """
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for package, version in record.versions.items():
            # The revision belongs to each step, and is not a package.
            key = f"{record.step} (revision of the step)" if package == "revision" else package
            found[str(key)].add(str(version))
    return [(package, ", ".join(sorted(versions))) for package, versions in sorted(found.items())]
