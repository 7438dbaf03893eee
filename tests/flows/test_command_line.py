"""The command line: what people type, what they read, and what scripts see as exit code."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flats import FILES, LEVELS
from typer.testing import CliRunner

from skyloom.flows.command_line import app
from skyloom.storage.store import open_store

SMALL = ["--set", "extract.lags=3", "--set", "solve.model=exp00"]
SMALL += ["--set", "selection.detectors=[S00]"]


def skyloom(*arguments: str) -> Any:
    """Call the command line in this process."""
    return CliRunner().invoke(app, list(arguments))


def test_from_files_to_numbers_in_the_order_of_the_readme(night: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "ptc.store")
    check = skyloom("camera", "check", "simulated-mosaic", str(night / "0001.fits"))
    assert check.exit_code in (0, 1), check.output
    found = skyloom("ingest", url, str(night), "--camera", "simulated-mosaic", "--quiet")
    assert found.exit_code == 0, found.output
    assert f"{FILES} files: {FILES} ingested" in found.output
    again = skyloom("ingest", url, str(night), "--quiet")
    assert f"{FILES} files: {FILES} unchanged" in again.output
    plan = skyloom("plan", url, "photon_transfer", "--json", *SMALL)
    told = json.loads(plan.output)
    assert [(step["step"], step["todo"]) for step in told["steps"]] == [
        ("dark_pairs", 3),
        ("flat_pairs", LEVELS),
        ("ptc", 1),
        ("brighter_fatter", 1),
    ]
    assert told["steps"][1]["reasons"] == {"no record": LEVELS}
    assert told["steps"][1]["read_bytes"] == LEVELS * 2 * 512 * 576 * 2
    log = tmp_path / "run.jsonl"
    run = skyloom(
        "run", url, "photon_transfer", *SMALL, "--workers", "2", "--quiet", "--log", str(log)
    )
    assert run.exit_code == 0, run.output
    assert f"{LEVELS + 5} blocks made" in run.output
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    blocks = [entry for entry in entries if entry.get("event") == "block"]
    assert len(blocks) == LEVELS + 5
    assert {entry["status"] for entry in blocks} == {"done"}
    assert {"time", "level", "message", "step", "block", "seconds"} <= set(blocks[0])
    run = skyloom("run", url, "photon_transfer", *SMALL, "--quiet", "--json")
    assert json.loads(run.output)["counts"]["ptc"] == {
        "done": 0,
        "kept": 1,
        "failed": 0,
        "skipped": 0,
    }
    status = skyloom("status", url, "--json")
    assert {row["step"]: row["done"] for row in json.loads(status.output)["steps"]} == {
        "ingest": 2 * FILES,
        "ingest_files": FILES,
        "dark_pairs": 3,
        "flat_pairs": LEVELS,
        "ptc": 1,
        "brighter_fatter": 1,
    }
    page = tmp_path / "report.html"
    report = skyloom("report", url, "photon_transfer", "--output", str(page))
    assert report.exit_code == 0, report.output
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    table = tmp_path / "gains.ecsv"
    export = skyloom("export", url, "ptc", str(table))
    assert export.exit_code == 0, export.output
    assert "gain" in table.read_text()
    both = f"{table}\n{table.with_name('gains_pairs.ecsv')}\n"
    assert export.stdout == both
    again = skyloom("export", url, "ptc", str(table))
    assert again.exit_code == 2
    assert "exists: choose another name, or allow overwriting (--overwrite)" in again.stderr
    assert skyloom("export", url, "ptc", str(table), "--overwrite").stdout == both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raw", "{tmp}/x.foo", "--format", "foo"], "must be one of ecsv, csv, parquet, fits"),
        (["raw", "{tmp}/x", "--format", "csv"], "'raw' cannot be exported as 'csv'"),
        (["ptcc", "{tmp}/x.csv"], "has no product 'ptcc'; it has raw"),
    ],
)
def test_an_export_that_is_not_possible_is_one_clean_message(
    raw_store: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    found = skyloom("export", raw_store.url, *filled)
    assert found.exit_code == 2
    assert found.stderr.startswith("error: ")
    assert message in found.stderr


def test_a_report_that_cannot_be_written_is_one_clean_message(
    raw_store: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = skyloom(
        "report", raw_store.url, "photon_transfer", "--output", str(tmp_path / "file" / "r.html")
    )
    assert found.exit_code == 2
    assert "error: cannot write the report" in found.stderr


def test_a_problem_that_many_files_have_is_told_once(night: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(skyloom("camera", "show", "simulated-mosaic").output.replace("EXPID", "EXPIT"))
    found = skyloom("camera", "check", str(mine), str(night))
    assert found.exit_code == 1
    (line,) = [line for line in found.stderr.splitlines() if "EXPIT" in line]
    assert "0001.fits: header key EXPIT (exposure) is missing; did you mean EXPID?" in line
    assert line.endswith(f"(and so in {FILES - 1} more)")


def test_a_block_that_fails_makes_the_exit_code_one(raw_store: Any) -> None:
    (chunk,) = (Path(raw_store.url) / "raw" / "image" / "c" / "8").glob("0/*/*")
    chunk.write_bytes(b"\0" * 100)
    run = skyloom("run", raw_store.url, "photon_transfer", *SMALL, "--quiet")
    assert run.exit_code == 1
    assert "flat_pairs of pair 9-10, detector S00 failed: ChecksumError" in run.output
    status = skyloom("status", raw_store.url)
    assert status.exit_code == 1
    assert "ChecksumError" in status.output


def test_a_bad_file_is_named_and_makes_the_exit_code_one(night: Path, tmp_path: Path) -> None:
    folder = tmp_path / "night"
    folder.mkdir()
    shutil.copy(night / "0001.fits", folder)
    (folder / "0002.fits").write_bytes((night / "0002.fits").read_bytes()[:5000])
    (folder / "0003.fits").write_bytes(b"this is no FITS file")
    url = str(tmp_path / "store")
    found = skyloom("ingest", url, str(folder), "--camera", "simulated-mosaic", "--quiet")
    assert found.exit_code == 1
    assert "3 files: 1 ingested, 2 rejected" in found.output
    assert "0002.fits" in found.output
    assert "0003.fits" in found.output
    assert len(open_store(url).records("ingest")) >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "{tmp}/nowhere"], "is not a store"),
        (["run", "{tmp}/nowhere", "photon_transfer"], "is not a store"),
        (["ingest", "{tmp}/new", "{tmp}/a.fits"], "is not a store"),
        (["ingest", "{tmp}/new", "{tmp}/a.fits", "--camera", "hubble"], "hubble"),
        (["plan", "{tmp}/nowhere", "photon_transfer", "--set", "a=1"], "unknown key"),
        (["run", "{tmp}/nowhere", "photon_transfer", "--config", "{tmp}/no.yaml"], "cannot read"),
        (["config", "check", "scheduler", "{tmp}/no.yaml"], "cannot read"),
        (["export", "{tmp}/nowhere", "ptc", "{tmp}/x.ecsv"], "is not a store"),
    ],
)
def test_what_cannot_be_done_is_one_clean_message_and_exit_code_two(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    found = skyloom(*[argument.format(tmp=tmp_path) for argument in arguments])
    assert found.exit_code == 2
    assert "error: " in found.stderr
    assert message in found.stderr
    assert "Traceback" not in found.output + found.stderr


def test_another_camera_than_the_store_has_is_refused(raw_store: Any, night: Path) -> None:
    found = skyloom("ingest", raw_store.url, str(night), "--camera", "generic")
    assert found.exit_code == 2
    assert "was made for the camera 'simulated-mosaic'" in found.stderr


def test_cameras_and_configurations_can_be_listed_and_shown(tmp_path: Path) -> None:
    assert "simulated-mosaic: " in skyloom("camera", "list").output
    mine = tmp_path / "mine.yaml"
    mine.write_text(skyloom("camera", "show", "generic").output)
    assert "all is well" in skyloom("camera", "check", str(mine)).output
    assert "lags: 10" in skyloom("config", "show", "photon_transfer").output
    shown = skyloom("config", "show", "photon_transfer", "--set", "extract.lags=4")
    assert "lags: 4" in shown.output
    default = tmp_path / "default.yaml"
    default.write_text(skyloom("config", "default", "photon_transfer").output)
    checked = skyloom("config", "check", "photon_transfer", str(default))
    assert checked.output == f"{default}: all is well\n"
    assert skyloom("config", "default", "scheduler").output.startswith(
        "# where tasks run\nkind: threads"
    )


def test_a_camera_with_overlapping_amplifiers_is_refused_by_name(tmp_path: Path) -> None:
    text = skyloom("camera", "show", "simulated-mosaic").output
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        text.replace(
            "{name: B, template: segment, origin: [0, 288]}",
            "{name: B, template: segment, origin: [0, 200]}",
        )
    )
    found = skyloom("camera", "check", str(mine))
    assert found.exit_code == 2
    assert "overlap" in found.stderr


def test_help_and_version_work_as_a_program() -> None:
    program = [sys.executable, "-m", "skyloom"]
    shown = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "camera", "ingest", "plan", "run", "status", "report", "export"):
        assert command in shown.stdout
    version = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("skyloom ")


def test_an_interrupted_run_says_that_nothing_is_lost(raw_store: Any) -> None:
    # Pixels of a pair come from a pipe that is held back: while they are read the run is under way.
    (pixels,) = (Path(raw_store.url) / "raw" / "image" / "c" / "8").glob("0/*/*")
    stored = pixels.read_bytes()
    pixels.unlink()
    os.mkfifo(pixels)
    command = [sys.executable, "-m", "skyloom", "run", raw_store.url, "photon_transfer", *SMALL]
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what runs in the background ignore interrupts, also the tests themselves.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        with os.fdopen(opened_when_read(pixels, process), "wb") as pipe:
            process.send_signal(signal.SIGINT)
            pixels.unlink()
            pixels.write_bytes(stored)
            pipe.write(stored)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "what is finished stays finished; run again" in errors
    assert "Traceback" not in errors
    # The block under way was finished first, and others are left to do.
    assert raw_store.read_record("flat_pairs", {"pair": "9-10", "detector": "S00"}).done
    left = [step["todo"] for step in told_plan(raw_store.url)["steps"]]
    assert sum(left) > 0
    assert left[1] < LEVELS
    assert skyloom("run", raw_store.url, "photon_transfer", *SMALL, "--quiet").exit_code == 0
    assert sum(step["todo"] for step in told_plan(raw_store.url)["steps"]) == 0


def opened_when_read(pipe: Path, reader: subprocess.Popen[str]) -> int:
    """Open a pipe for writing as soon as another process wants to read it."""
    deadline = time.monotonic() + 120
    while reader.poll() is None and time.monotonic() < deadline:
        try:
            opened = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.02)
        else:
            os.set_blocking(opened, True)
            return opened
    reader.kill()
    raise AssertionError(f"nothing read {pipe}: {reader.communicate()[1]}")


def told_plan(url: str) -> Any:
    return json.loads(skyloom("plan", url, "photon_transfer", "--json", *SMALL).output)
