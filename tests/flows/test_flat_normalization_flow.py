"""The flow of flats, from files of a simulated night to flats near the truth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import flat_night
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.errors import ConfigurationError, NoUsableDataError, StoreError
from skyloom.algorithms.simulate import night_exposure_truth
from skyloom.algorithms.statistics import clipped_statistics
from skyloom.flows import detrend, flat_normalization
from skyloom.flows.night_files import SimulatedNight
from skyloom.storage.store import Store, create_store, open_store

RED = {"select": {"physical_filter": ["r"]}}
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


def contents(store: Store, exposures: list[int]) -> dict[tuple[str, str], np.ndarray]:
    """Return what was made of some exposures through r."""
    found = {}
    for product in PRODUCTS:
        made = store[product].sel({v.FILTER: "r"} if v.FILTER in store[product].dims else {})
        made = made.sel({v.EXPOSURE: exposures} if v.EXPOSURE in made.dims else {}).load()
        found |= {(product, str(name)): made[name].values for name in made.data_vars}
    return found


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
            pulls = (flat["image"].values - ratio * true) / np.sqrt(flat["variance"].values)
            assert 0.94 < robust_width(pulls[good]) < 1.06
            number = flat_night.FLATS
            first, last = np.array(flat_night.flats_through(night, name))[[0, -1]]
            wanted = f"{name} flat of {detector} from {number} exposures {first} to {last}"
            assert str(flat["id"].values) == wanted
            response = solved["flat_scales"]["detector_scale"].sel(block)
            assert float(flat["detector_scale"]) == float(response)


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


def test_frames_divided_by_the_flat_are_flat_to_a_thousandth(
    night: SimulatedNight, solved: Store
) -> None:
    assert detrend(solved).run(progress=False).exit_code == 0
    for exposure in solved.labels("detrended")[v.EXPOSURE]:
        bins = []
        for detector in flat_night.DETECTORS:
            block = {v.EXPOSURE: exposure, v.DETECTOR: detector}
            frame, truth = solved.read_block("detrended", block), night.truth[detector]
            table = night.camera.amplifiers(detector)
            light = night_exposure_truth(night.plan, int(exposure), table, truth)["background"]
            good = (frame["mask"].values == 0) & (truth["defects"].values == 0)
            ratio = np.where(good, frame["image"].values / light.values, 0.0)
            good &= np.abs(ratio / np.median(ratio[good]) - 1) < 0.06  # no cosmic rays
            total, count = (
                plane.reshape(3, 32, 4, 32).sum((1, 3), dtype=float)
                for plane in (np.where(good, ratio, 0.0), good)
            )
            bins.append((total / count).ravel())
        relative = np.concatenate(bins)
        assert np.std(relative) / np.mean(relative) < 1e-3


def test_a_second_run_does_nothing_and_another_exposure_extends(
    night: SimulatedNight, prepared: Path, tmp_path: Path
) -> None:
    store = copied(prepared, tmp_path)
    last = flat_night.flats_through(night, "r")[-1]
    without = {**RED, "selection": {"exclude_exposures": [last]}}
    assert flat_normalization(store, without).run(progress=False).exit_code == 0
    assert flat_normalization(store, without).plan().todo == 0
    plan = flat_normalization(store, RED).plan()
    todo = {step.step.name: step.count("todo") for step in plan.steps}
    assert todo == {
        "flat_frames": 4,
        "flat_statistics": 4,
        "flat_levels": 1,
        "flat_scales": 1,
        "flat": 4,
    }
    assert flat_normalization(store, RED).run(progress=False).exit_code == 0
    assert int(store["flat"].sel({v.FILTER: "r"})["count"].max()) == flat_night.FLATS
    assert flat_normalization(store, RED).plan().todo == 0


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


def test_the_report_shows_residuals_responses_light_and_flats(
    solved: Store, tmp_path: Path
) -> None:
    page = flat_normalization(solved).report(tmp_path / "flats.html").read_text()
    for text in (
        "Filter g",
        "Filter r",
        "Left out, and why",
        "Nothing: every level enters the solution.",
        "Every exposure",
        "Detectors, the worst first",
        "Every flat",
    ):
        assert text in page
    assert page.count("data:image/png") == 2 * 4 + 2
    assert "could not be drawn" not in page
    assert "Error" not in page


class BadNight(NamedTuple):
    """A run on bad flats: what was bad, and what came of it."""

    store: Store
    exit_code: int
    saturated: int
    wrong: int
    once: int


@pytest.fixture(scope="module")
def bad(night: SimulatedNight, tmp_path_factory: pytest.TempPathFactory) -> BadNight:
    """Return a run on flats with one saturated, one of a wrong filter, a dead amplifier of S3, and
    S2 seen once through r."""
    saturated, wrong, *others, once = flat_night.flats_through(night, "r")
    plan = night.plan.copy(deep=True)
    plan["level"].loc[{v.EXPOSURE: saturated}] = 1e6

    def change(number: int, frames: flat_night.Frames) -> flat_night.Frames:
        if plan["observation_type"].sel({v.EXPOSURE: number}) == v.FLAT:
            frames["S3"] = flat_night.with_dead_amplifier(night, frames["S3"], "D")
        if number == wrong:
            frames = {name: each.assign_coords({v.FILTER: "g"}) for name, each in frames.items()}
        if number in (saturated, *others):
            del frames["S2"]
        return frames

    folder = tmp_path_factory.mktemp("bad")
    place = flat_night.make_store(folder, night._replace(plan=plan), change)
    store = flat_night.with_biases(open_store(place))
    summary = flat_normalization(store).run(progress=False)
    return BadNight(store, summary.exit_code, saturated, wrong, once)


def test_bad_flats_are_left_out_by_name(bad: BadNight, tmp_path: Path) -> None:
    scales = bad.store["flat_scales"].load()
    red, green = scales.sel({v.FILTER: "r"}), scales.sel({v.FILTER: "g"})
    assert red["exposure_status"].sel({v.EXPOSURE: bad.saturated}) == v.CellStatus.MISSING
    assert green["exposure_status"].sel({v.EXPOSURE: bad.wrong}) == v.CellStatus.OUTLIER
    assert (green["exposure_status"] == v.CellStatus.OUTLIER).sum() == 1
    assert int((red["exposure_status"] == v.CellStatus.OK).sum()) == flat_night.FLATS - 2
    record = bad.store.read_record("flat_scales", {v.FILTER: "g"})
    assert record is not None
    assert record.quality["exposures_left_out"] == {str(bad.wrong): "OUTLIER"}
    assert f"{bad.wrong} contradict the others" in " ".join(record.warnings)
    page = flat_normalization(bad.store).report(tmp_path / "bad.html").read_text()
    assert "no usable pixel: 100 % SAT" in page
    assert "contradicts the others in 4 of 4" in page or "contradicts the others in 3 of 4" in page
    assert f"no raw of exposure {bad.once - 1}, detector S2" in page


def test_a_dead_amplifier_is_bad_by_name_and_the_rest_is_right(
    night: SimulatedNight, bad: BadNight
) -> None:
    for name in flat_night.FILTERS:
        record = bad.store.read_record("flat", {v.FILTER: name, v.DETECTOR: "S3"})
        assert record is not None
        assert "amplifiers D respond with less than 0.1" in " ".join(record.warnings)
    for detector in ("S0", "S1", "S3"):
        flat = bad.store.read_block("flat", {v.FILTER: "r", v.DETECTOR: detector})
        is_bad = (flat["mask"].values & v.plane_bits(["BAD"])) != 0
        part = np.zeros(is_bad.shape, bool)
        if detector == "S3":
            part[48:, 64:] = True
            assert is_bad[part].all()
        true = flat_night.true_flat(night, detector, "r")
        good = (flat["mask"].values == 0) & (night.truth[detector]["defects"].values == 0)
        assert good[~part].mean() > 0.9
        ratio = np.median(flat["image"].values[good] / true[good])
        pulls = (flat["image"].values - ratio * true) / np.sqrt(flat["variance"].values)
        assert 0.94 < robust_width(pulls[good]) < 1.06
        assert int(flat["count"].max()) == flat_night.FLATS - 2


def test_a_detector_seen_once_has_a_response_but_no_flat(bad: BadNight) -> None:
    record = bad.store.read_record("flat", {v.FILTER: "r", v.DETECTOR: "S2"})
    assert record is not None
    assert record.status == "skipped"
    assert "needs at least 3 blocks of flat_frames along exposure, has 1 of 5" in record.reason
    scales = bad.store["flat_scales"].sel({v.FILTER: "r", v.DETECTOR: "S2"}).load()
    assert scales["detector_cell_count"] == 1
    assert scales["cell_status"].sel({v.EXPOSURE: bad.once}) == v.CellStatus.OK
    assert np.isfinite(scales["detector_scale_sigma"])
    assert bad.store.done("flat").sum() == 7


def test_a_damaged_frame_costs_only_itself(prepared: Path, tmp_path: Path) -> None:
    store = copied(prepared, tmp_path)
    first = int(flat_normalization(store, RED).steps[0].labels[v.EXPOSURE][0])
    place = store.labels("raw")[v.EXPOSURE].index(first)
    for chunk in Path(store.url).glob(f"raw/image/c/{place}/1/*/*"):
        chunk.write_bytes(b"damaged")
    summary = flat_normalization(store, RED).run(progress=False)
    assert summary.exit_code == 1
    assert "ChecksumError" in str(summary)
    assert store.done("flat").all()
    scales = store["flat_scales"].load()
    lost = {v.FILTER: "r", v.DETECTOR: "S1", v.EXPOSURE: first}
    assert scales["cell_status"].sel(lost) == v.CellStatus.MISSING
    assert int((scales["cell_status"] != v.CellStatus.OK).sum()) == 1
    counts = store["flat"]["count"].max((v.Y, v.X)).sel({v.FILTER: "r"}).values
    assert counts.tolist() == [flat_night.FLATS - (name == "S1") for name in flat_night.DETECTORS]


def test_processes_make_the_same_bits_as_threads(
    night: SimulatedNight, solved: Store, prepared: Path, tmp_path: Path, client: Any
) -> None:
    store = copied(prepared, tmp_path)
    assert flat_normalization(store, RED).run(client, progress=False).exit_code == 0
    red = flat_night.flats_through(night, "r")
    mine, theirs = contents(solved, red), contents(store, red)
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        assert values.tobytes() == theirs[name].tobytes(), name


def test_amplifiers_get_responses_of_their_own(
    night: SimulatedNight, prepared: Path, tmp_path: Path
) -> None:
    store = copied(prepared, tmp_path)
    red = {
        **RED,
        "level": "AMP",
        "scales": {"gradient_order": 1},
        "normalization": "detector",
    }
    assert flat_normalization(store, red).run(progress=False).exit_code == 0
    scales = store["flat_scales"].isel({v.FILTER: 0}).load()
    record = store.read_record("flat_scales", {v.FILTER: "r"})
    assert record is not None
    assert record.warnings == ()
    found, true = [], []
    for detector in flat_night.DETECTORS:
        flat = flat_night.true_flat(night, detector, "r")
        for row in amplifier_rows(night.camera.amplifiers(detector)):
            part = xr.DataArray(flat[row.trimmed.slices], dims=(v.Y, v.X))
            true.append(float(clipped_statistics(part)["mean"]))
            at = {v.DETECTOR: detector, v.AMP: row.name}
            found.append(float(scales["detector_scale"].sel(at)))
    np.testing.assert_allclose(found / np.mean(found), true / np.mean(true), rtol=3e-3)
    assert scales["gradient"].sizes == {v.EXPOSURE: flat_night.FLATS, "term": 2}
    flat = store.read_block("flat", {v.FILTER: "r", v.DETECTOR: "S1"})
    assert str(flat["normalization"].values) == "detector"
    good = flat["mask"].values == 0
    assert float(np.median(flat["image"].values[good])) == pytest.approx(1.0, abs=5e-3)
    page = flat_normalization(store, red).report(tmp_path / "amps.html").read_text()
    assert "S1 D" in page
    assert "S0 C" not in page
    assert "Gradients of illumination" in page
