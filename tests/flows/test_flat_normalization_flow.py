"""The flow of flats, from files of a simulated night to flats near the truth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import flat_night
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, NoUsableDataError, StoreError
from skyloom.algorithms.statistics import clipped_statistics
from skyloom.flows import detrend, flat_normalization
from skyloom.flows.night_files import SimulatedNight
from skyloom.storage.store import Store, create_store, open_store

PRODUCTS = ("flat_frames", "flat_statistics", "flat_levels", "flat_scales", "flat")


@pytest.fixture(scope="module")
def night() -> SimulatedNight:
    return flat_night.flat_night()


@pytest.fixture(scope="module")
def prepared(night: SimulatedNight, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with biases and darks; copy it to change it."""
    place = flat_night.make_store(tmp_path_factory.mktemp("flats"), night)
    flat_night.with_biases(open_store(place))
    return place


@pytest.fixture(scope="module")
def solved(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store in which the flow was run."""
    store = copied(prepared, tmp_path_factory.mktemp("solved"))
    assert flat_normalization(store).run(progress=False).exit_code == 0
    return store


def copied(place: Path, folder: Path) -> Store:
    shutil.copytree(place, folder / "store")
    return open_store(folder / "store")


def contents(store: Store) -> dict[tuple[str, str], np.ndarray]:
    return {
        (product, str(name)): store[product][name].values
        for product in PRODUCTS
        for name in store[product].data_vars
    }


def true_response(night: SimulatedNight, detector: str, name: str) -> float:
    flat = xr.DataArray(flat_night.true_flat(night, detector, name), dims=(v.Y, v.X))
    return float(clipped_statistics(flat)["mean"])


def robust_width(values: np.ndarray) -> float:
    return float(0.7413 * np.subtract(*np.percentile(values, [75, 25])))


def test_flats_are_the_true_ones_within_their_noise(night: SimulatedNight, solved: Store) -> None:
    for name in flat_night.FILTERS:
        for detector in flat_night.DETECTORS:
            block = {v.FILTER: name, v.DETECTOR: detector}
            flat = solved.read_block("flat", block)
            true = flat_night.true_flat(night, detector, name)
            good = (flat["mask"].values == 0) & (night.truth[detector]["defects"].values == 0)
            assert good.mean() > 0.9
            ratio = np.median(flat["image"].values[good] / true[good])
            pulls = (flat["image"].values / ratio - true) / np.sqrt(flat["variance"].values)
            assert 0.94 < robust_width(pulls[good]) < 1.06
            number = flat_night.FLATS
            first, last = np.array(flat_night.flats_through(night, name))[[0, -1]]
            wanted = f"{name} flat of {detector} from {number} exposures {first} to {last}"
            assert str(flat["id"].values) == wanted


def test_scales_are_the_light_of_the_exposures_and_the_response_of_the_detectors(
    night: SimulatedNight, solved: Store
) -> None:
    scales = solved["flat_scales"].load()
    for name in flat_night.FILTERS:
        one = scales.sel({v.FILTER: name})
        exposures = flat_night.flats_through(night, name)
        light = night.plan["level"].sel({v.EXPOSURE: exposures}).values
        found = one["exposure_scale"].sel({v.EXPOSURE: exposures})
        relative = found.values / light
        np.testing.assert_allclose(relative / relative.mean(), 1.0, atol=2e-3)
        assert float(one["chi2"]) / int(one["dof"]) < 2.5
        others = one["exposure_status"].drop_sel({v.EXPOSURE: exposures})
        assert (others == v.CellStatus.NOT_MEASURED).all()
        true = np.array([true_response(night, d, name) for d in flat_night.DETECTORS])
        response = one["detector_scale"].sel({v.DETECTOR: list(flat_night.DETECTORS)}).values
        np.testing.assert_allclose(response / np.mean(response), true / np.mean(true), rtol=2e-3)


def test_frames_are_divided_by_the_flat_of_their_filter(solved: Store) -> None:
    flow = detrend(solved, {"selection": {"detectors": ["S1"]}})
    assert flow.run(progress=False).exit_code == 0
    for exposure in flow.steps[0].labels[v.EXPOSURE]:
        block = {v.EXPOSURE: exposure, v.DETECTOR: "S1"}
        frame = solved.read_block("detrended", block)
        record = solved.read_record("detrended", block)
        assert record is not None
        applied = " / ".join(record.quality["applied"])
        assert f"flat: {frame[v.FILTER].values} flat of S1 from 6 exposures" in applied
        flat = solved.read_block("flat", {v.FILTER: str(frame[v.FILTER].values), v.DETECTOR: "S1"})
        bad = (flat["mask"].values & v.plane_bits(["BAD"])) != 0
        assert ((frame["mask"].values[bad] & v.plane_bits(["BAD"])) != 0).all()


def test_a_second_run_does_nothing_and_another_exposure_extends(
    night: SimulatedNight, prepared: Path, tmp_path: Path
) -> None:
    store = copied(prepared, tmp_path)
    last = flat_night.flats_through(night, "r")[-1]
    without = {"selection": {"exclude_exposures": [last]}}
    assert flat_normalization(store, without).run(progress=False).exit_code == 0
    assert flat_normalization(store, without).plan().todo == 0
    plan = flat_normalization(store).plan()
    todo = {step.step.name: step.count("todo") for step in plan.steps}
    assert todo == {
        "flat_frames": 4,
        "flat_statistics": 4,
        "flat_levels": 1,
        "flat_scales": 1,
        "flat": 4,
    }
    assert flat_normalization(store).run(progress=False).exit_code == 0
    assert int(store["flat"].sel({v.FILTER: "r"})["count"].max()) == flat_night.FLATS
    assert flat_normalization(store).plan().todo == 0


def test_what_cannot_be_done_is_said_with_a_remedy(prepared: Path, tmp_path: Path) -> None:
    store = open_store(prepared)
    with pytest.raises(StoreError, match="holds no exposures: ingest flats first"):
        flat_normalization(create_store(tmp_path / "empty", "generic"))
    with pytest.raises(StoreError, match="has no flats among the exposures selected"):
        flat_normalization(store, {"selection": {"exposures": [1]}})
    with pytest.raises(NoUsableDataError, match="no inputs match"):
        flat_normalization(store, {"select": {"observation_reason": ["twilight"]}})
    with pytest.raises(ConfigurationError, match="select: no 'reason' over exposures"):
        flat_normalization(store, {"select": {"reason": ["lamp"]}})
    with pytest.raises(ConfigurationError, match="flats are made of frames in electron"):
        flat_normalization(store, {"detrend": {"units": "adu"}})
    with pytest.raises(StoreError, match="no product 'brighter_fatter'"):
        flat_normalization(store, {"calibrations": {"brighter_fatter": "required"}})
    flow = flat_normalization(store, {"selection": {"exposures": [9, 10]}})
    assert "2 flats through g are fewer than `minimum`, 3" in flow.notes[-1]


def test_flats_are_chosen_by_header_values(prepared: Path) -> None:
    flow = flat_normalization(open_store(prepared), {"select": {"observation_reason": ["LAMP"]}})
    chosen: Any = flow.steps[0].labels[v.EXPOSURE]
    assert len(chosen) == flat_night.FLATS
    assert all(number % 2 for number in chosen)
