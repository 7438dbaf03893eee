"""Progress, logs and captured warnings."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings

import pytest

from skyloom.flows.block import Outcome
from skyloom.flows.captured_warnings import captured_warnings
from skyloom.flows.progress import Bars, JsonFormatter, Lines, choose_observers

DONE = Outcome("solve", ("a",), "done")
FAILED = Outcome("solve", ("b",), "failed", reason="no pairs")


def test_bars_show_failures_and_progress() -> None:
    stream = io.StringIO()
    bars = Bars(stream)
    bars.begin({"solve": 3})
    for outcome in (DONE, FAILED):
        bars.finished(outcome)
    bars.end()
    assert "solve" in stream.getvalue()
    assert "2/3" in stream.getvalue()
    assert "1 failed or skipped" in stream.getvalue()


def test_lines_are_few_and_the_last_one_counts() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin({"solve": 500})
    for _ in range(499):
        lines.finished(DONE)
    lines.finished(FAILED)
    lines.end()
    (only,) = stream.getvalue().splitlines()
    assert only.startswith("solve: 500 of 500, 1 failed or skipped in 0 s")


def test_a_long_run_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.0, 60.0, 61.0])
    monkeypatch.setattr("skyloom.flows.progress.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin({"solve": 4})
    lines.finished(DONE)
    lines.finished(DONE)
    assert stream.getvalue() == "solve: 1 of 4 in 60 s, about 180 s left\n"


def test_nothing_is_printed_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    observer = choose_observers(None)
    observer.begin({"solve": 1})
    observer.finished(DONE)
    observer.end()
    assert capsys.readouterr() == ("", "")


def test_a_log_entry_is_one_line_of_json_with_its_fields() -> None:
    record = logging.makeLogRecord(
        {"name": "skyloom", "levelname": "INFO", "msg": "x\ny", "event": "block", "step": "solve"}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["event"], told["step"], told["message"]) == ("block", "solve", "x\ny")
    assert told["time"].endswith("Z")


def test_warnings_of_threads_are_told_apart() -> None:
    caught: dict[str, list[str]] = {}
    barrier = threading.Barrier(4)

    def work(name: str) -> None:
        with captured_warnings() as found:
            barrier.wait()
            for i in range(20):
                warnings.warn(f"{name} {i}", stacklevel=1)
            barrier.wait()
        caught[name] = found

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == {name: [f"UserWarning: {name} {i}" for i in range(20)] for name in "abcd"}


def test_warnings_outside_of_blocks_go_where_they_always_went() -> None:
    with captured_warnings() as found:
        pass
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn("outside", stacklevel=1)
    assert found == []
    with pytest.raises(UserWarning, match="an error again"):
        warnings.warn("an error again", stacklevel=1)


def test_a_flood_of_warnings_is_cut_and_repetitions_are_one() -> None:
    with captured_warnings() as found:
        for i in range(1000):
            warnings.warn("the same", stacklevel=1)
            warnings.warn(f"another {i}", stacklevel=1)
    assert len(found) == 50
    assert found.count("UserWarning: the same") == 1
