"""The demo of a night of sky, from simulated files to a comparison with the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from skyloom.algorithms.errors import SkyloomError
from skyloom.flows.sky_demo import run_sky_demo
from skyloom.storage.store import open_store


def test_the_demo_finds_levels_and_patterns_and_leaves_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "sky"
    found = run_sky_demo(place, science=4, progress=False)
    assert found.exit_code == 0
    difference = (found.levels["level"] / found.levels["truth"] - 1).to_numpy()
    assert difference.size == 4
    assert np.abs(difference).max() < 0.03
    ratio = found.levels["ratio"].to_numpy()
    assert np.abs(ratio - 1).max() < 0.15
    assert np.ptp(ratio) < 0.05
    assert found.frames.sizes["detector"] == 6
    assert (found.frames["error"] < 0.3 * found.frames["pattern"]).all()
    assert [report.name for report in found.reports] == [
        "biases_darks.html",
        "flat_normalization.html",
        "detrend.html",
        "sky_frames.html",
    ]
    for report in found.reports:
        assert "could not be drawn" not in report.read_text()
    assert set(json.loads((place / "truth.json").read_text())) == {"levels", "frames"}
    printed = capsys.readouterr().out
    assert "sky of each exposure, electron" in printed
    assert "frame less truth, rms" in printed
    assert open_store(place / "store").done("sky_subtracted").all()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SkyloomError, match="is not empty and not of a demo"):
        run_sky_demo(tmp_path, progress=False)
