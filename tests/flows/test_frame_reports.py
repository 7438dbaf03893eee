"""The reports of biases and darks, and of detrended exposures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import small_night
from small_night import DETECTORS, EXPOSURES, MOON

from skyloom.algorithms import vocabulary as v
from skyloom.flows import biases_darks, detrend
from skyloom.flows.report.frame_figures import (
    amplifier_figure,
    cells_figure,
    masked_figure,
    trend_figure,
)
from skyloom.flows.report.mosaics import bin_means
from skyloom.flows.report.overscans import overscans
from skyloom.flows.report.style import png_bytes
from skyloom.storage.store import Store

LOST = {"exposure": EXPOSURES[1], "detector": "S10"}
ODD_BIAS = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with calibrations of all biases but one, and frames, one of them damaged."""
    folder = tmp_path_factory.mktemp("reports")
    store = small_night.make_store(folder, small_night.small_night())
    few = {"selection": {"exclude_exposures": [ODD_BIAS]}, "minimum": 2}
    assert biases_darks(store, few).run(progress=False).exit_code == 0
    row, column = (store.labels("raw")[dim].index(LOST[dim]) for dim in ("exposure", "detector"))
    for chunk in Path(store.url).glob(f"raw/image/c/{row}/{column}/*/*"):
        chunk.write_bytes(b"damaged")
    rays = {"detrend": {"cosmic_rays": {"reject": True}}}
    assert detrend(store, rays).run(progress=False).exit_code == 1
    return store


def cells(page: str, title: str) -> list[list[str]]:
    """Return the rows of a table of a page by its title."""
    part = page[page.index(f"<h3>{title}</h3>") :]
    body = part[part.index("<tbody>") : part.index("</tbody>")]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]


def test_the_report_of_calibrations_shows_mosaics_amplifiers_trends_and_inputs(
    made: Store, tmp_path: Path
) -> None:
    page = biases_darks(made, {"minimum": 2}).report(tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 6
    assert "could not be drawn" not in page
    inputs = cells(page, "Every bias of the store")
    assert [row[0] for row in inputs] == ["1", "2", "3"]
    assert [row[3] for row in inputs] == ["4 of 4", "0", "4 of 4"]
    assert inputs[1][4] == "not selected by the configuration"
    assert [row[1] for row in cells(page, "Every bias")] == ["2"] * len(DETECTORS)
    amplifiers = {tuple(row[:2]): row for row in cells(page, "Amplifiers, the oddest first")}
    assert len(amplifiers) == 2 * len(DETECTORS)
    noises = [float(row[5]) for row in amplifiers.values()]
    assert 4.0 < min(noises) <= max(noises) < 6.5
    currents = [float(row[7]) for row in amplifiers.values()]
    assert 0.01 < min(currents) <= max(currents) < 0.04


def test_figures_of_amplifiers_are_those_of_the_pixels(made: Store, tmp_path: Path) -> None:
    page = biases_darks(made, {"minimum": 2}).report(tmp_path / "page.html").read_text()
    (row,) = [row for row in cells(page, "Amplifiers, the oddest first") if row[:2] == ["S01", "B"]]
    bias = made.read_block("bias", {"detector": "S01"})
    image = bias["image"].values[:, 80:][bias["mask"].values[:, 80:] == 0]
    assert float(row[2].replace("−", "-")) == pytest.approx(float(np.median(image)), rel=0.01)
    low, high = np.percentile(image, [25, 75])
    assert float(row[3]) == pytest.approx(0.7413 * (high - low), rel=0.01)


def test_the_report_of_frames_tells_what_was_applied_and_what_is_odd(
    made: Store, tmp_path: Path
) -> None:
    page = detrend(made).report(tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 5
    assert "could not be drawn" not in page
    number = len(DETECTORS) * (len(EXPOSURES) + 1) - 1
    steps = {row[0]: row for row in cells(page, "Steps")}
    assert steps["bias"][1:3] == ["bias from 2 exposures 1 to 3", f"{number} of {number}"]
    assert "dark from 3 exposures 4 to 6" in steps["dark"][1]
    assert steps["bias"][3] == f"{EXPOSURES[0]}–{MOON}"
    exposures = {int(row[0]): row for row in cells(page, "Every exposure")}
    assert exposures[LOST["exposure"]][4] == "3 of 4"
    assert "S10 failed: ChecksumError" in exposures[LOST["exposure"]][-1]
    assert float(exposures[MOON][6]) > 10 * float(exposures[EXPOSURES[0]][6])
    detectors = cells(page, "Detectors, the worst first")
    assert detectors[0][:2] == ["S10", "1"]
    assert [row[1] for row in detectors[1:]] == ["0"] * (len(DETECTORS) - 1)
    assert any(float(row[5]) > 0 for row in detectors)


def test_reports_of_stores_without_results_are_written(tmp_path: Path) -> None:
    from skyloom.flows.flow import write_report
    from skyloom.storage.store import create_store

    store = create_store(tmp_path / "empty", small_night.small_camera())
    for name in ("biases_darks", "detrend"):
        page = write_report(name, store, tmp_path / f"{name}.html").read_text()
        assert "could not be drawn" not in page


def test_overscans_lie_in_order_of_exposures_and_are_unknown_where_frames_lack(
    made: Store,
) -> None:
    found = overscans(made, ("detrended", "bias_frames"))
    assert found is not None
    assert found.exposures == [1, 3, *EXPOSURES, MOON]
    assert found.kinds[:3] == [v.BIAS, v.BIAS, v.SCIENCE]
    unknown = np.isnan(found.values["overscan_level"])
    row = found.exposures.index(LOST["exposure"])
    columns = [i for i, channel in enumerate(found.channels) if channel[0] == LOST["detector"]]
    assert np.argwhere(unknown).tolist() == [[row, column] for column in columns]
    assert overscans(made, ("flat_frames",)) is None


def test_bins_leave_out_what_is_not_good() -> None:
    values = np.arange(32.0 * 20).reshape(32, 20)
    good = np.ones(values.shape, bool)
    good[:16] = False
    values[0, 0] = np.nan
    found = bin_means(values, good)
    assert found.shape == (2, 1)
    assert np.isnan(found[0, 0])
    assert found[1, 0] == values[16:].mean()


def test_figures_without_anything_say_so() -> None:
    nothing = np.full((2, 3), np.nan)
    figures = [
        cells_figure(nothing, ["a", "b"], ["1", "2", "3"], "level"),
        trend_figure(np.full(2, np.nan), [("level", nothing)], ["bias", "bias"]),
        masked_figure({"BAD": np.zeros(2)}, np.full(2, np.nan), np.zeros(2), ["1", "2"]),
        amplifier_figure([("a", "A")], [("noise", np.full(1, np.nan), None)]),
    ]
    assert all(png_bytes(figure).startswith(b"\x89PNG") for figure in figures)
