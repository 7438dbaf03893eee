"""Block records: what became of each block of each step, and under which circumstances.

A record is one small JSON file, written last, so a block is finished if and only if its newest
record says so. Every write makes a file with a name of its own that is never changed again;
the newest stamp wins. Compaction copies many records into one table and then deletes exactly
the files it has read: as those never change, no order of writers, compactors and crashes can
lose a record. A damaged record is a block that is not done, with a warning.

On disk, below ``records/<step>/``: ``<shard>/<block key>~<stamp>-<token>.json`` and
``tables/<highest stamp>-<token>.jsonl`` with one such JSON document a line.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import time
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

import numpy as np
import pandas as pd

from skyloom.algorithms.errors import StoreError
from skyloom.storage.objects import Objects

__all__ = [
    "DamagedRecordWarning",
    "Label",
    "Record",
    "RecordBook",
    "Status",
    "block_key",
    "plain",
]

Label: TypeAlias = str | int
Status: TypeAlias = Literal["started", "done", "failed", "skipped"]
_ROOT: Final = "records"
_TABLES: Final = "tables"
_PREFIX: Final = '{"checksum":"'
_RETRIES: Final = 20
_SIMPLE = re.compile(r"[a-z0-9_.=,%-]{1,120}")


class DamagedRecordWarning(UserWarning):
    """A record could not be read; its block counts as not done."""


def block_key(block: Mapping[str, Label]) -> str:
    """Return a name for a block that is safe on every file system, and unique.

    Parameters
    ----------
    block : mapping of str to str or int
        Label along each dimension the step fans out over. Labels may hold any character.

    Returns
    -------
    str
        At most 140 characters. Letters that some file systems cannot tell apart, and long
        labels, are told apart by a hash at the end.

    Raises
    ------
    ValueError
        If the block has no dimension.

    Examples
    --------
    >>> block_key({"exposure": 42})
    'exposure=42'
    >>> block_key({"pair": "1/2", "detector": "R22_S11"})
    'pair=1%2F2,detector=R22_S11~d8573a1e'
    """
    if not block:
        raise ValueError("a block needs at least one dimension")
    # quote() leaves "~" alone, which is kept here to set off hashes and stamps.
    key = ",".join(f"{dim}={quote(str(label), safe='')}" for dim, label in block.items())
    key = key.replace("~", "%7E")
    if _SIMPLE.fullmatch(key):
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
    return f"{key[:120]}~{digest}"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one block.

    ``started`` marks a block whose chunks are being replaced: an older ``done`` no longer holds.
    ``peak_memory_bytes`` is the most that the process held while the block was made, all its
    threads together; a process that makes one block at a time held it for this block.
    """

    step: str
    block: Mapping[str, Label]
    status: Status
    reason: str = ""
    traceback: str = ""
    fingerprint: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    worker: str = ""
    start_time: float = 0.0  # Unix time, s
    end_time: float = 0.0  # Unix time, s
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    warnings: tuple[str, ...] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    stamp: int = 0

    @property
    def key(self) -> str:
        """Name of the block, see `block_key`."""
        return block_key(self.block)

    @property
    def done(self) -> bool:
        """Whether the block's chunks are complete."""
        return self.status == "done"


_FIELDS = tuple(f.name for f in fields(Record))


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: numpy scalars become numbers, NaN becomes None.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"mean": np.float64(1.5), "bad": np.nan, "ids": (np.int64(1), 2)})
    {'mean': 1.5, 'bad': None, 'ids': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def _encode(record: Record) -> bytes:
    body = json.dumps(
        {name: plain(getattr(record, name)) for name in _FIELDS}, separators=(",", ":")
    )
    return f'{_PREFIX}{zlib.crc32(body.encode()):08x}","record":{body}}}'.encode()


def _decode(data: bytes) -> Record | None:
    """Return the record in these bytes, None if they are damaged."""
    start = len(_PREFIX)
    body = data[start + 8 + len('","record":') : -1]
    if data[start : start + 8] != f"{zlib.crc32(body):08x}".encode():
        return None
    content = json.loads(body)
    content["warnings"] = tuple(content["warnings"])
    # A later version may know more fields than this one.
    return Record(**{name: content[name] for name in _FIELDS if name in content})


@dataclass(frozen=True, slots=True)
class _Loose:
    """One record file."""

    path: str
    key: str
    stamp: int


class RecordBook:
    """All records of one store.

    Parameters
    ----------
    objects : Objects
        The place of the store.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def steps(self) -> list[str]:
        """Return the steps that have records."""
        return [name for name in self._objects.names(_ROOT) if name != "zarr.json"]

    def write(self, record: Record) -> Record:
        """Write a record, newer than all others of its block; return it with its stamp."""
        key = record.key
        folder = f"{_step_folder(record.step)}/{_shard(key)}"
        older = [loose for loose in self._loose_in(folder) if loose.key == key]
        tables = self._tables(record.step)
        latest = max([_stamp(name) for name in tables] + [loose.stamp for loose in older] + [0])
        # Clocks of hosts differ: a stamp is never smaller than one already seen.
        stamped = replace(record, stamp=max(time.time_ns(), latest + 1))
        name = f"{key}~{stamped.stamp:020d}-{secrets.token_hex(4)}.json"
        self._objects.write(f"{folder}/{name}", _encode(stamped))
        self._objects.delete(loose.path for loose in older)
        return stamped

    def read(self, step: str, block: Mapping[str, Label], *, tables: bool = True) -> Record | None:
        """Return the newest record of a block, None if there is none or it is damaged.

        Without ``tables`` only records written since the last compaction are seen: one look,
        however many blocks the step has.
        """
        key = block_key(block)
        for _ in range(_RETRIES):
            folder = f"{_step_folder(step)}/{_shard(key)}"
            found = [loose for loose in self._loose_in(folder) if loose.key == key]
            if not found:
                return self.read_all(step).get(key) if tables else None
            newest = max(found, key=lambda loose: loose.stamp)
            data = self._objects.read(newest.path)
            if data is not None:
                return self._decoded(newest.path, data)
        raise StoreError(_busy(step))

    def read_all(self, step: str) -> dict[str, Record]:
        """Return the newest record of every block of a step by block key."""
        for _ in range(_RETRIES):
            # Loose files first: what disappears from them is in a table listed afterwards.
            loose = self._loose(step)
            tables = [f"{_step_folder(step)}/{_TABLES}/{name}" for name in self._tables(step)]
            newest: dict[str, _Loose] = {}
            for item in loose:
                if item.key not in newest or newest[item.key].stamp < item.stamp:
                    newest[item.key] = item
            wanted = [item.path for item in newest.values()]
            contents = self._objects.read_many([*tables, *wanted])
            if len(contents) == len(tables) + len(wanted):
                return self._merge([(path, contents[path]) for path in tables], newest, contents)
        raise StoreError(_busy(step))

    def compact(self, step: str) -> int:
        """Copy all records of a step into one table; return how many there are.

        Safe beside writers, readers and other compactions, and at any moment to be killed.
        """
        folder = _step_folder(step)
        loose = [item.path for item in self._loose(step)]
        tables = [f"{folder}/{_TABLES}/{name}" for name in self._tables(step)]
        if not loose and len(tables) <= 1:
            return len(self.read_all(step))
        # Everything listed above is also seen here, in this or in a newer form.
        records = self.read_all(step)
        if records:
            highest = max(record.stamp for record in records.values())
            name = f"{highest:020d}-{secrets.token_hex(4)}.jsonl"
            lines = b"".join(_encode(record) + b"\n" for record in records.values())
            self._objects.write(f"{folder}/{_TABLES}/{name}", lines)
        self._objects.delete([*loose, *tables])
        return len(records)

    def forget(self, step: str) -> None:
        """Delete all records of a step: none of its blocks is done any more."""
        self._objects.delete_tree(_step_folder(step))

    def _loose(self, step: str) -> list[_Loose]:
        folder = _step_folder(step)
        shards = [name for name in self._objects.names(folder) if name != _TABLES]
        return [item for shard in shards for item in self._loose_in(f"{folder}/{shard}")]

    def _loose_in(self, folder: str) -> list[_Loose]:
        found = []
        for name in self._objects.names(folder):
            key, _, rest = name.rpartition("~")
            if key and rest.endswith(".json"):
                found.append(_Loose(f"{folder}/{name}", key, _stamp(rest)))
        return found

    def _tables(self, step: str) -> list[str]:
        names = self._objects.names(f"{_step_folder(step)}/{_TABLES}")
        return [name for name in names if name.endswith(".jsonl")]

    def _merge(
        self,
        tables: Iterable[tuple[str, bytes]],
        newest: Mapping[str, _Loose],
        contents: Mapping[str, bytes],
    ) -> dict[str, Record]:
        records: dict[str, Record] = {}
        for path, table in tables:
            for line in table.splitlines():
                record = self._decoded(path, line)
                if record is None:
                    continue
                key = record.key
                if key not in records or records[key].stamp < record.stamp:
                    records[key] = record
        for key, item in newest.items():
            if key in records and records[key].stamp > item.stamp:
                continue
            record = self._decoded(item.path, contents[item.path])
            if record is None:
                records.pop(key, None)
            else:
                records[key] = record
        return records

    def _decoded(self, path: str, data: bytes) -> Record | None:
        record = _decode(data)
        if record is None:
            warnings.warn(
                f"the record in {self._objects.location(path)} is damaged; its block counts as "
                "not done and will be done again",
                DamagedRecordWarning,
                stacklevel=2,
            )
        return record


def records_table(records: Mapping[str, Record]) -> pd.DataFrame:
    """Return records as a table, one row a block, sorted by key.

    Parameters
    ----------
    records : mapping of str to Record
        As `RecordBook.read_all` returns them.

    Returns
    -------
    DataFrame
        A column per block dimension, one per field, and ``quality.<name>`` per quality figure.

    Examples
    --------
    >>> record = Record("solve", {"detector": "a"}, "done", quality={"pairs": 3})
    >>> records_table({record.key: record})[["detector", "status", "quality.pairs"]].values.tolist()
    [['a', 'done', 3]]
    """
    rows = []
    for key in sorted(records):
        record = records[key]
        row: dict[str, Any] = {"key": key, **record.block}
        skip = {"block", "quality"}
        row.update({name: getattr(record, name) for name in _FIELDS if name not in skip})
        row.update({f"quality.{name}": value for name, value in record.quality.items()})
        rows.append(row)
    return pd.DataFrame(rows)


def _step_folder(step: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", step):
        raise ValueError(f"a step is named with letters, digits, '-' and '_', not {step!r}")
    return f"{_ROOT}/{step}"


def _shard(key: str) -> str:
    return f"{zlib.crc32(key.encode()) & 0xFF:02x}"


def _stamp(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def _busy(step: str) -> str:
    return f"the records of step {step!r} change faster than they can be read; try again"
