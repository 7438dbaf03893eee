"""Configuration files: every problem at once, with its line and what was probably meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from skyloom.algorithms.errors import ConfigurationError
from skyloom.flows.configuration import (
    configuration_from,
    default_text,
    load_configuration,
    model_text,
)
from skyloom.flows.photon_transfer_flow import PhotonTransferConfiguration
from skyloom.flows.scheduler import SchedulerConfiguration, Threads

WRONG = """\
# my own choices
extract:
  lgas: 8
  clip: -1
  clip: 5
solvex: {}
pairs:
  mode: banana
solve:
  turnoff:
    cut: none
"""


def test_all_problems_are_told_at_once_with_file_line_path_and_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(WRONG)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(PhotonTransferConfiguration, file, ["solve.modelx=exact", "nonsense"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "the configuration has 7 problems:"
    told = "\n".join(lines)
    assert f"{file}:5 extract.clip: given twice, first in line 4" in told
    assert f"{file}:3 extract.lgas: unknown key; did you mean 'lags'?" in told
    assert f"{file}:6 solvex: unknown key; did you mean 'solve'?" in told
    assert re.search(r"mine\.yaml:8 pairs\.mode: Input should be 'time', .* got 'banana'", told)
    assert re.search(r"mine\.yaml:11 solve\.turnoff\.cut: .*number.* got 'none'", told)
    assert "--set solve.modelx: unknown key; did you mean 'model'?" in told
    assert "--set nonsense: must be dotted.path=value" in told


def test_a_file_holds_only_what_differs_and_overrides_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extract: {lags: 8, clip: 4}\nkernel: {}\n")
    found = load_configuration(
        PhotonTransferConfiguration, file, ["extract.lags=6", "solve.turnoff.cut=1e1"]
    )
    assert (found.extract.lags, found.extract.clip, found.extract.edge) == (6, 4.0, 0)
    assert found.solve.turnoff.cut == 10.0
    assert load_configuration(PhotonTransferConfiguration).extract.lags == 10


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    found = load_configuration(PhotonTransferConfiguration, file)
    assert found == PhotonTransferConfiguration()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extract: [1, 2", "is not YAML"),
        ("- a\n- b\n", "must hold `name: value` lines"),
        ("!!python/object/apply:os.system ['true']\n", "must hold|is not YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_configuration(PhotonTransferConfiguration, file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.yaml: No such file"):
        load_configuration(PhotonTransferConfiguration, tmp_path / "nowhere.yaml")


def test_defaults_as_text_are_read_back_as_the_defaults_and_say_what_they_mean(
    tmp_path: Path,
) -> None:
    file = tmp_path / "default.yaml"
    text = default_text(PhotonTransferConfiguration)
    file.write_text(text)
    assert load_configuration(PhotonTransferConfiguration, file) == PhotonTransferConfiguration()
    keys = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert len(comments) == len(keys), "every key is explained"


def test_a_configuration_as_text_is_read_back_as_itself(tmp_path: Path) -> None:
    changed = configuration_from(
        PhotonTransferConfiguration,
        {"extract": {"lags": 5, "vignetting": [1.0]}, "selection": {"exposures": [1, 2]}},
    )
    file = tmp_path / "mine.yaml"
    file.write_text(model_text(changed))
    assert load_configuration(PhotonTransferConfiguration, file) == changed


def test_every_parameter_of_the_flow_is_described() -> None:
    def undescribed(model: Any, path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(f"{path}{name}")
            if hasattr(field.annotation, "model_fields"):
                found += undescribed(field.annotation, f"{path}{name}.")
        return found

    assert undescribed(PhotonTransferConfiguration, "") == []


def test_alternatives_of_a_value_are_not_part_of_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("solve:\n  maximum_mean: high\n")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml:2 solve\.maximum_mean: Input"):
        load_configuration(PhotonTransferConfiguration, file)


def test_a_mapping_with_a_wrong_key_is_refused_alike() -> None:
    with pytest.raises(ConfigurationError, match=r"extract\.lgas: unknown key; did you mean 'lags"):
        configuration_from(PhotonTransferConfiguration, {"extract": {"lgas": 3}})


def test_a_choice_of_models_is_suggested_by_the_model_chosen(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text("kind: processes\nprocesess: 4\n")
    with pytest.raises(ConfigurationError, match="did you mean 'processes'"):
        load_configuration(SchedulerConfiguration, file)
    assert yaml.safe_load(default_text(Threads))["kind"] == "threads"
