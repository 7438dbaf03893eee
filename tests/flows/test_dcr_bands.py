"""Bands of chromatic coadds from files of band-passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from skyloom.algorithms.dcr import Band, effective_wavelength, subband_edges
from skyloom.algorithms.errors import ConfigurationError
from skyloom.flows.dcr_bands import band_values
from skyloom.flows.dcr_coadds_flow import DcrCoaddsConfiguration
from skyloom.flows.selection import configured

NM = np.arange(390.0, 561.0, 2.0)
PASSED = np.clip(np.minimum((NM - 395.0) / 20.0, (555.0 - NM) / 10.0), 0.0, 0.8)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rows = zip(NM, PASSED, strict=True)
    (tmp_path / "g.txt").write_text("".join(f"{nm} {passed}\n" for nm, passed in rows))
    (tmp_path / "air.txt").write_text("300 0.2\n1100 1.0\n")
    return tmp_path


def test_a_file_gives_limits_reference_and_sub_bands(place: Path) -> None:
    given = {"bands": {"g": {"file": str(place / "g.txt")}, "r": {"lambda_min": 550.0,
             "lambda_max": 690.0, "lambda_ref": 620.0}}}  # fmt: skip
    found = configured(DcrCoaddsConfiguration, given).bands
    assert found["g"] == Band.from_throughput("g", NM, PASSED)
    assert found["g"].division == "throughput"
    assert (
        subband_edges(found["g"], 3)[1]
        > subband_edges(found["g"].model_copy(update={"division": "width"}), 3)[1]
    )
    assert found["r"].name == "r"
    assert not found["r"].throughput
    # What is kept of a configuration is the band-pass, not where it lay.
    kept = configured(DcrCoaddsConfiguration, {"bands": {"g": found["g"].model_dump()}})
    assert kept.bands["g"] == found["g"]


def test_fields_that_are_given_win_and_air_makes_a_band_redder(place: Path) -> None:
    file = str(place / "g.txt")
    band = Band(**band_values("g", {"file": file, "lambda_ref": 480.5, "division": "width"}))
    assert (band.lambda_ref, band.division) == (480.5, "width")
    plain, below = (
        Band(**band_values("g", {"file": file, **more}))
        for more in ({}, {"atmosphere": str(place / "air.txt")})
    )
    passed = PASSED * np.interp(NM, [300.0, 1100.0], [0.2, 1.0])
    assert below == Band.from_throughput("g", NM, passed)
    assert effective_wavelength(below) > effective_wavelength(plain) + 2


def test_a_configuration_file_may_name_band_passes(place: Path) -> None:
    text = yaml.safe_dump({"bands": {"g": {"file": str(place / "g.txt"), "name": "green"}}})
    found = configured(DcrCoaddsConfiguration, yaml.safe_load(text))
    assert found.bands["g"].name == "green"


def test_files_that_cannot_be_used_are_named(place: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.txt: no table of throughput"):
        configured(DcrCoaddsConfiguration, {"bands": {"g": {"file": str(place / "none.txt")}}})
    (place / "dark.txt").write_text("400 0\n500 0\n")
    with pytest.raises(ConfigurationError, match="throughput of g is nowhere above 0"):
        configured(DcrCoaddsConfiguration, {"bands": {"g": {"file": str(place / "dark.txt")}}})
    given = {"bands": {"g": {"file": str(place / "g.txt"), "colour": 1}}}
    with pytest.raises(ConfigurationError, match=r"bands\.g\.colour: unknown key"):
        configured(DcrCoaddsConfiguration, given)
    given = {"bands": {"g": {"file": str(place / "g.txt"), "lambda_ref": 3000.0}}}
    with pytest.raises(ConfigurationError, match=r"bands\.g: .*lambda_ref must be from 230"):
        configured(DcrCoaddsConfiguration, given)
