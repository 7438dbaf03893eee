"""Templates at the seeing of visits: scores of a flow, and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import dcr_scene
import numpy as np
import pytest
from astropy.io import fits
from dcr_scene import FILTER, DcrScene
from typer.testing import CliRunner

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.flows import dcr_coadds
from skyloom.flows.command_line import app
from skyloom.flows.templates import template
from skyloom.storage.store import Store

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
