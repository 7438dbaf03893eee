"""Records: nothing is lost, nothing damaged counts, every name is safe."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import warnings
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from skyloom.storage import records as records_module
from skyloom.storage.objects import open_objects
from skyloom.storage.records import (
    DamagedRecordWarning,
    Record,
    RecordBook,
    block_key,
    plain,
    records_table,
)

LABELS = st.one_of(st.text(min_size=0, max_size=300), st.integers(-(2**63), 2**63 - 1))


@pytest.fixture
def book(tmp_path: Path) -> RecordBook:
    return RecordBook(open_objects(str(tmp_path)))


def files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "records").rglob("*") if path.is_file())


@given(LABELS, LABELS)
def test_any_label_makes_a_key_that_is_safe_in_a_path(one: str | int, two: str | int) -> None:
    key = block_key({"pair": one, "detector": two})
    assert len(key) <= 140
    assert not set(key) & set('/\\:*?"<>|~ \0\n') - {"~"}
    assert key.startswith("pair=")


@given(st.lists(st.text(max_size=400), min_size=2, max_size=2, unique_by=str.casefold))
def test_different_labels_make_keys_that_differ_even_without_regard_to_case(
    labels: list[str],
) -> None:
    one, two = (block_key({"pair": label}) for label in labels)
    assert one.casefold() != two.casefold()


def test_labels_that_differ_in_case_alone_make_keys_that_differ_without_regard_to_case() -> None:
    one, two = block_key({"detector": "r22"}), block_key({"detector": "R22"})
    assert one.casefold() != two.casefold()


def test_a_block_without_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one dimension"):
        block_key({})


def test_a_step_named_like_a_path_is_refused(book: RecordBook) -> None:
    with pytest.raises(ValueError, match="a step is named"):
        book.write(Record("../solve", {"detector": "a"}, "done"))


def test_every_field_comes_back(book: RecordBook) -> None:
    record = Record(
        "solve",
        {"detector": "R22/S11", "pair": 3},
        "failed",
        reason="no pairs",
        traceback="Traceback ...",
        fingerprint="abc",
        inputs={"flat_pairs": ["x"]},
        config_hash="123",
        versions={"skyloom": "1"},
        host="h",
        worker="w",
        start_time=1.5,
        end_time=2.5,
        wall_seconds=1.0,
        cpu_seconds=0.5,
        peak_memory_bytes=7,
        bytes_read=8,
        bytes_written=9,
        warnings=("one", "two"),
        quality={"gain": 1.25, "pairs": 3, "bad": None},
        headers={"EXPTIME": 2.0},
    )
    stamped = book.write(record)
    assert book.read("solve", record.block) == stamped
    assert book.read_all("solve") == {record.key: stamped}
    assert book.compact("solve") == 1
    assert book.read("solve", record.block) == stamped
    assert book.steps() == ["solve"]


def test_a_record_is_one_json_document(book: RecordBook, tmp_path: Path) -> None:
    book.write(Record("solve", {"detector": "a"}, "done", quality={"gain": np.float64("nan")}))
    (path,) = files(tmp_path)
    document = json.loads(path.read_text())
    assert document["record"]["quality"] == {"gain": None}


def test_the_newest_record_counts_even_if_clocks_run_back(
    book: RecordBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"detector": "a"}
    times = iter([5000, 4000, 3000, 2000])
    monkeypatch.setattr(records_module.time, "time_ns", lambda: next(times))
    book.write(Record("solve", block, "failed"))
    book.write(Record("solve", block, "started"))
    book.compact("solve")
    book.write(Record("solve", block, "done"))
    assert book.read_all("solve")["detector=a"].done
    book.compact("solve")
    assert book.read_all("solve")["detector=a"].done


def test_old_records_of_a_block_are_deleted(book: RecordBook, tmp_path: Path) -> None:
    for _ in range(5):
        book.write(Record("solve", {"detector": "a"}, "failed"))
    assert len(files(tmp_path)) == 1


def test_any_flipped_byte_of_a_record_makes_its_block_not_done(
    book: RecordBook, tmp_path: Path
) -> None:
    book.write(Record("solve", {"detector": "a"}, "done", quality={"gain": 1.5}))
    (path,) = files(tmp_path)
    intact = path.read_bytes()
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = book.read_all("solve")
        # The frame around checksum and content carries nothing.
        if found:
            assert found["detector=a"].quality == {"gain": 1.5}
        else:
            assert caught[0].category is DamagedRecordWarning
            assert path.name in str(caught[0].message)


@pytest.mark.parametrize("size", [0, 1, 40, 100])
def test_a_cut_record_makes_its_block_not_done(book: RecordBook, tmp_path: Path, size: int) -> None:
    book.write(Record("solve", {"detector": "a"}, "done"))
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.warns(DamagedRecordWarning, match="not done"):
        assert book.read("solve", {"detector": "a"}) is None


def test_a_damaged_new_record_does_not_bring_back_an_older_one(
    book: RecordBook, tmp_path: Path
) -> None:
    book.write(Record("solve", {"detector": "a"}, "done"))
    book.compact("solve")
    book.write(Record("solve", {"detector": "a"}, "started"))
    loose = next(path for path in files(tmp_path) if path.suffix == ".json")
    loose.write_bytes(b"{")
    with pytest.warns(DamagedRecordWarning):
        assert book.read_all("solve") == {}


def test_a_damaged_line_of_a_table_costs_one_block(book: RecordBook, tmp_path: Path) -> None:
    for name in "abc":
        book.write(Record("solve", {"detector": name}, "done"))
    book.compact("solve")
    (table,) = files(tmp_path)
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(lines[0] + lines[1].replace(b"done", b"dome") + lines[2])
    with pytest.warns(DamagedRecordWarning):
        assert len(book.read_all("solve")) == 2


def test_compaction_may_die_after_any_of_its_operations(tmp_path: Path) -> None:
    """Let the objects fail after n operations that change something, for every n."""
    original = tmp_path / "original"
    book = RecordBook(open_objects(str(original)))
    for number in range(3):
        book.write(Record("solve", {"detector": number}, "failed"))
    book.compact("solve")
    for number in (1, 2, 3):
        book.write(Record("solve", {"detector": number}, "done"))
    wanted = book.read_all("solve")

    class Dying:
        def __init__(self, root: Path, operations: int) -> None:
            self._objects = open_objects(str(root))
            self._left = operations

        def __getattr__(self, name: str) -> object:
            return getattr(self._objects, name)

        def _spend(self) -> None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt

        def write(self, key: str, data: bytes) -> None:
            self._spend()
            self._objects.write(key, data)

        def delete(self, keys: list[str]) -> None:
            for key in keys:
                self._spend()
                self._objects.delete([key])

    for operations in itertools.count():
        copy = tmp_path / str(operations)
        shutil.copytree(original, copy)
        dying = RecordBook(Dying(copy, operations))  # type: ignore[arg-type]
        try:
            dying.compact("solve")
        except KeyboardInterrupt:
            assert RecordBook(open_objects(str(copy))).read_all("solve") == wanted
        else:
            break
    assert operations == 5  # one table written; three loose files and one table deleted
    assert RecordBook(open_objects(str(copy))).read_all("solve") == wanted
    assert len(files(copy)) == 1


def test_nothing_is_lost_while_writers_compactors_and_readers_meet(tmp_path: Path) -> None:
    blocks = [{"detector": number} for number in range(20)]
    problems: list[BaseException] = []
    writing = threading.Event()

    def guarded(action: object) -> threading.Thread:
        def run() -> None:
            try:
                action()  # type: ignore[operator]
            except BaseException as error:
                problems.append(error)

        return threading.Thread(target=run)

    def write(part: int) -> None:
        book = RecordBook(open_objects(str(tmp_path)))
        for attempt in range(6):
            for block in blocks[part::2]:
                book.write(Record("solve", block, "done", quality={"attempt": attempt}))

    def compact() -> None:
        book = RecordBook(open_objects(str(tmp_path)))
        while not writing.is_set():
            book.compact("solve")

    def read() -> None:
        book = RecordBook(open_objects(str(tmp_path)))
        seen: dict[str, int] = {}
        while not writing.is_set():
            for key, record in book.read_all("solve").items():
                assert record.quality["attempt"] >= seen.get(key, 0)
                seen[key] = record.quality["attempt"]

    writers = [guarded(lambda part=part: write(part)) for part in range(2)]
    others = [guarded(compact), guarded(compact), guarded(read)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    for thread in others:
        thread.join()
    assert not problems
    found = RecordBook(open_objects(str(tmp_path))).read_all("solve")
    assert {record.quality["attempt"] for record in found.values()} == {5}
    assert len(found) == 20


def test_a_forgotten_step_has_no_records(book: RecordBook) -> None:
    book.write(Record("solve", {"detector": "a"}, "done"))
    book.write(Record("extract", {"detector": "a"}, "done"))
    book.forget("solve")
    assert book.read_all("solve") == {}
    assert len(book.read_all("extract")) == 1


def test_a_table_has_a_row_a_block(book: RecordBook) -> None:
    for name in "ba":
        book.write(Record("solve", {"detector": name}, "done", quality={"gain": 1.5}))
    table = records_table(book.read_all("solve"))
    assert table["detector"].tolist() == ["a", "b"]
    assert table["quality.gain"].tolist() == [1.5, 1.5]


def test_values_of_any_kind_become_plain() -> None:
    value = {1: np.arange(2), "set": {3}, "flag": np.True_, "path": Path("a"), "inf": np.inf}
    assert plain(value) == {"1": [0, 1], "set": [3], "flag": True, "path": "a", "inf": None}


def test_a_later_version_may_write_more_fields(book: RecordBook, tmp_path: Path) -> None:
    import zlib

    book.write(Record("solve", {"detector": "a"}, "done"))
    (path,) = files(tmp_path)
    content = json.loads(path.read_text())["record"] | {"colour": "red"}
    body = json.dumps(content, separators=(",", ":"))
    path.write_text(f'{{"checksum":"{zlib.crc32(body.encode()):08x}","record":{body}}}')
    assert book.read("solve", {"detector": "a"}) is not None


class Books(RuleBasedStateMachine):
    """Two books over one place behave like one dictionary."""

    @initialize()
    def start(self) -> None:
        import uuid

        url = f"memory://{uuid.uuid4().hex}"
        self.books = [RecordBook(open_objects(url)) for _ in range(2)]
        self.model: dict[str, tuple[str, int]] = {}
        self.count = 0

    @rule(
        which=st.integers(0, 1),
        label=st.sampled_from(["a", "A", "b/c", "~", "é"]),
        status=st.sampled_from(["started", "done", "failed", "skipped"]),
    )
    def write(self, which: int, label: str, status: str) -> None:
        self.count += 1
        record = Record("s", {"pair": label}, status, quality={"n": self.count})  # type: ignore[arg-type]
        self.books[which].write(record)
        self.model[record.key] = (status, self.count)

    @rule(which=st.integers(0, 1))
    def compact(self, which: int) -> None:
        assert self.books[which].compact("s") == len(self.model)

    @rule(which=st.integers(0, 1))
    def forget(self, which: int) -> None:
        self.books[which].forget("s")
        self.model.clear()

    @rule(which=st.integers(0, 1), label=st.sampled_from(["a", "A", "b/c"]))
    def read(self, which: int, label: str) -> None:
        record = self.books[which].read("s", {"pair": label})
        found = (record.status, record.quality["n"]) if record else None
        assert found == self.model.get(block_key({"pair": label}))

    @invariant()
    def both_agree(self) -> None:
        for book in getattr(self, "books", []):
            found = {k: (r.status, r.quality["n"]) for k, r in book.read_all("s").items()}
            assert found == self.model


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
