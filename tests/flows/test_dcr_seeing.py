"""Templates at the seeing of visits: scores of a flow, and the command line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import dcr_scene
import numpy as np
import pytest
from astropy.io import fits
from click.testing import Result
from dcr_scene import FILTER, DcrScene
from typer.testing import CliRunner

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.flows import dcr_coadds
from skyloom.flows.command_line import app
from skyloom.flows.templates import template
from skyloom.storage.store import Store, open_store

HELD_OUT = (2, 4, 7)
SEEING = (3.6, 3.9, 4.4, 3.3, 4.0, 3.5, 4.9, 3.7, 4.2)
CONFIGURATION: dict[str, Any] = {"bands": {FILTER: dcr_scene.BAND}, "held_out": HELD_OUT}


class Made(NamedTuple):
    """A scene whose visits differ in seeing, and the store with its chromatic coadds."""

    scene: DcrScene
    store: Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    scene = DcrScene(dcr_scene.SPREAD, fwhm=SEEING, beta=3.0)
    store = scene.make(tmp_path_factory.mktemp("seeing") / "store", held_out=HELD_OUT)
    summary = dcr_coadds(store, CONFIGURATION).run(progress=False)
    assert summary.exit_code == 0, str(summary)
    return Made(scene, store)


@pytest.mark.parametrize("visit", HELD_OUT)
def test_templates_leave_less_than_the_coadd_whatever_the_seeing(made: Made, visit: int) -> None:
    score = made.store.read_block("dcr_scores", {v.VISIT: visit, v.PATCH: "0-0"})
    assert int(score["objects"]) >= 8
    assert float(score["ratio"]) < 0.06
    assert int(score["detections_template"]) <= 0.1 * int(score["detections_coadd"])
    assert float(score["psf_fwhm"]) == pytest.approx(SEEING[visit - 1])
    # That of the coadd where it is worse than that of the visit.
    assert float(score["compared_fwhm"]) == pytest.approx(max(SEEING[visit - 1], 3.85), abs=0.03)


def test_a_template_of_the_command_line_has_the_seeing_that_is_asked_for(
    made: Made, tmp_path: Path
) -> None:
    visit = 7
    place = made.scene.conditions().sel({v.VISIT: visit})
    arguments = ["template", made.store.url, str(tmp_path / "t.fits"), "--seeing", "0.98"]
    for name in ("altitude", "parallactic_angle"):
        arguments += [f"--{name.replace('_', '-')}", str(float(place[name]))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    with fits.open(tmp_path / "t.fits") as hdus:
        image = hdus["IMAGE"].data.astype(float)
        assert hdus[0].header["SEEING"] == 0.98
    true = made.scene.truth()[made.scene.visits.index(visit)]
    near = made.scene.stars.near(8.0)
    assert np.sqrt(((true - image)[near] ** 2).mean() / (true[near] ** 2).mean()) < 0.01


def test_without_a_seeing_a_template_is_as_sharp_as_the_model(made: Made) -> None:
    where = {"altitude": 60.0, "parallactic_angle": 120.0}
    found = template(made.store, **where)
    assert found.attrs["conditions"]["seeing"] == pytest.approx(0.2 * 3.5, rel=2e-3)
    wider = template(made.store, seeing=1.0, **where)
    assert float(wider["variance"].mean()) < 0.6 * float(found["variance"].mean())
    with pytest.raises(ConfigurationError, match="seeing must be positive, in arcsec, got -1"):
        template(made.store, seeing=-1.0, **where)


WHERE = {"altitude": 60.0, "parallactic_angle": 120.0}


@pytest.mark.parametrize(
    ("weather", "message"),
    [
        ({"pressure": 739.0}, r"pressure must be from \d+ to \d+ Pa at a height of 2663 m, got 739 "
                              r"\(739 hPa are 73900 Pa\)"),
        ({"temperature": 281.0}, r"temperature must be from -60 to 60 Celsius, got 281 "
                                 r"\(281 K are 7.85 Celsius\)"),
        ({"humidity": 500.0}, "humidity must be from 0 to 100 %, got 500$"),
        ({"humidity": -5.0}, "humidity must be from 0 to 100 %, got -5$"),
        ({"pressure": float("nan")}, "pressure must be from .* got nan$"),
    ],
)  # fmt: skip
def test_weather_that_cannot_be_is_refused_by_name(
    made: Made, weather: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        template(made.store, **WHERE, **weather)


def test_weather_of_the_command_line_is_said_in_the_header(made: Made, tmp_path: Path) -> None:
    found = template(made.store, temperature=0.0, **WHERE)
    assert found.attrs["conditions"]["temperature"] == 0.0
    assert found.attrs["conditions"]["weather"] == "given: temperature"
    assert template(made.store, **WHERE).attrs["conditions"]["weather"] == "median of the visits"
    refused = command(made, tmp_path / "no.fits", "60", "--pressure", "739")
    assert refused.exit_code == 2
    assert "pressure must be from" in refused.output
    assert not (tmp_path / "no.fits").exists()


def test_a_header_says_what_a_template_is_made_of(made: Made, tmp_path: Path) -> None:
    result = command(made, tmp_path / "low.fits", "25", "--temperature", "0")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert "pixel outside of those of the model's visits" in lines[0]
    assert ".py" not in result.output
    header = fits.getheader(tmp_path / "low.fits")
    assert header["WARN1"] == lines[0].removeprefix("warning: ")
    assert header["VISITS"] == "1,3,5,6,8,9"
    record = made.store.read_record("dcr", {v.FILTER: FILTER, v.PATCH: "0-0"})
    assert record is not None
    assert header["CFGHASH"] == record.config_hash
    assert header["SWVERS"] == version("skyloom")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(header["DATE"] + "Z")).seconds) < 60
    assert header["WEATHER"] == "given: temperature"
    assert header["AIRTEMP"] == 0.0


def test_exposures_at_the_horizon_are_refused_by_name(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store.url.removeprefix("file://"), tmp_path / "store")
    store = open_store(tmp_path / "store")
    for record in store.records("ingest").values():
        if record.block[v.EXPOSURE] == 3:
            later = {**record.headers, "mjd_middle": record.headers["mjd_middle"] + 0.4}
            store.write_record(replace(record, headers=later))
    with pytest.raises(ConfigurationError, match="exposures 3 are below 5 degree of altitude"):
        dcr_coadds(store, CONFIGURATION)
    left_out = {**CONFIGURATION, "selection": {"exclude_exposures": (3,)}}
    assert dcr_coadds(store, left_out).plan().todo > 0


def command(made: Made, path: Path, altitude: str, *more: str) -> Result:
    """Return what the command line does with a template."""
    place = ["--altitude", altitude, "--parallactic-angle", "120"]
    return CliRunner().invoke(app, ["template", made.store.url, str(path), *place, *more])
