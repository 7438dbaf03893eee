"""A real camera through the command line, as its owner would use it."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from skyloom.algorithms.vocabulary import PairStatus
from tests.real_data.emva import EMVA, run_command_line, standard_options

pytestmark = pytest.mark.skipif(not EMVA.exists(), reason="shared data not here")

SATURATED = 4079.0


@pytest.fixture(scope="module")
def emva(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, Path]:
    folder = tmp_path_factory.mktemp("emva")
    curve, _ = run_command_line(folder, *standard_options())
    return curve, folder


def test_its_gain_and_dark_noise_are_the_published_ones(emva: tuple[xr.Dataset, Path]) -> None:
    curve, _ = emva
    assert float(curve["gain"]) == pytest.approx(3.57, rel=0.01)
    assert float(curve["read_noise_median"]) == pytest.approx(3.07, rel=0.02)


def test_every_pair_is_found_although_levels_step_by_less_than_the_tolerance(
    emva: tuple[xr.Dataset, Path],
) -> None:
    curve, _ = emva
    measured = curve["pair_status"] != PairStatus.NOT_MEASURED
    assert int(measured.sum()) == 17


def test_its_saturated_pairs_are_flagged_and_named_in_the_report(
    emva: tuple[xr.Dataset, Path],
) -> None:
    curve, folder = emva
    saturated = curve["saturated_fraction"] > 0.5
    assert int(saturated.sum()) == 4
    page = (folder / "report.html").read_text()
    for name, code in zip(
        curve["pair"].values[saturated], curve["pair_status"].values[saturated], strict=True
    ):
        assert PairStatus(int(code)) in (PairStatus.TOO_FEW_PIXELS, PairStatus.ILLEGAL_MEAN)
        assert str(name) in page
        assert PairStatus(int(code)).name in page
