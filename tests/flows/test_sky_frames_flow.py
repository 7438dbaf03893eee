"""The flow of sky frames, from files of a simulated night to exposures without their sky."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sky_night

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate import sky_pattern
from skyloom.flows import detrend, sky_frames
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.selection import of_types
from skyloom.storage.store import Store, create_store, open_store

MEASURED = 5


@pytest.fixture(scope="module")
def solved(sky: Any, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store in which the flow was run; calibrations are true."""
    import shutil

    night, place = sky
    copy = tmp_path_factory.mktemp("solved") / "store"
    shutil.copytree(place, copy)
    store = open_store(copy)
    sky_night.write_true_calibrations(store, night)
    assert detrend(store).run(progress=False).exit_code == 0
    assert sky_frames(store).run(progress=False).exit_code == 0
    return store


def centres(bins: int) -> np.ndarray:
    return np.arange(bins) * 32 + 15.5


def test_frames_show_the_pattern_beside_what_the_smooth_sky_takes(sky: Any, solved: Store) -> None:
    night, _ = sky
    frames = solved["sky_frame"].isel(physical_filter=0).load()
    transforms = detector_transforms(night.camera)
    found, true, x, y = [], [], [], []
    for name, truth in night.truth.items():
        frame = frames.sel(detector=name)
        row, column = np.meshgrid(
            centres(frame.sizes["bin_y"]), centres(frame.sizes["bin_x"]), indexing="ij"
        )
        often = frame["exposure_count"].values >= MEASURED
        places = to_focal_plane(transforms[name], column[often], row[often])
        found.append(frame["level"].values[often])
        true.append(np.asarray(sky_pattern(truth, row, column)).squeeze()[often])
        x.append(places[0])
        y.append(places[1])
    u, w = np.concatenate(x) / 12.0, np.concatenate(y) / 8.0
    # Cells of a quarter of the focal plane follow what is smoother than they are.
    smooth = np.stack([u**i * w**j for i in range(5) for j in range(5 - i)], axis=1)
    rest = [
        values - smooth @ np.linalg.lstsq(smooth, values)[0]
        for values in (np.concatenate(found), np.concatenate(true))
    ]
    assert u.size > 500
    assert np.std(rest[0] - rest[1]) < 0.25 * np.std(rest[1])
    assert np.corrcoef(*rest)[0, 1] > 0.95


def test_scales_follow_the_sky_within_their_errors(sky: Any, solved: Store) -> None:
    night, _ = sky
    fit = solved["sky_fit"].load()
    true = night.plan["level"].sel(exposure=fit["exposure"].values).values
    assert (fit["status"] == v.ScaleStatus.OK).all()
    pulls = (fit["scale"] - fit["level"]) / fit["scale_sigma"]
    assert (np.abs(pulls) < 5).all()
    np.testing.assert_allclose(fit["level"], true, rtol=0.03)
    assert (fit["rms"] < 0.35 * fit["rms_before"]).all()


def test_exposures_lose_their_sky_and_keep_variance_and_mask(solved: Store) -> None:
    exposure = int(solved.labels("detrended")["exposure"][0])
    block = {"exposure": exposure, "detector": "S11"}
    before, after = (solved.read_block(name, block) for name in ("detrended", "sky_subtracted"))
    good = (after["mask"] & v.plane_bits(["BAD", "SAT", "NO_DATA"])).values == 0
    level = float(np.median(before["image"].values[good]))
    assert abs(float(np.median(after["image"].values[good]))) < 0.01 * level
    for name in ("variance", "mask"):
        np.testing.assert_array_equal(before[name], after[name])
    record = solved.read_record("sky_subtracted", block)
    assert record is not None
    assert record.quality["applied"][-1].startswith("sky: ")


def test_a_second_run_does_nothing_and_other_fits_redo_only_what_follows(solved: Store) -> None:
    assert sky_frames(solved).plan().todo == 0
    plan = sky_frames(solved, {"solve": {"order": 1}}).plan()
    todo = {step.step.name: step.count("todo") for step in plan.steps}
    count = len(solved.labels("detrended")["exposure"])
    assert todo == {
        "sky_bins": 0,
        "focal_plane_sky": 0,
        "sky_frame": 0,
        "sky_fit": count,
        "sky_subtracted": 6 * count,
    }


def test_the_report_shows_frames_scales_and_residuals(solved: Store, tmp_path: Path) -> None:
    page = sky_frames(solved).report(tmp_path / "sky.html").read_text()
    for text in ("Sky frame through the filter r", "Every exposure", "Detectors, the worst first"):
        assert text in page
    assert page.count("data:image/png") == 3
    assert "could not be drawn" not in page


def test_a_lost_detector_of_one_exposure_costs_only_itself(sky: Any, tmp_path: Path) -> None:
    import shutil

    night, place = sky
    shutil.copytree(place, tmp_path / "store")
    store = open_store(tmp_path / "store")
    sky_night.write_true_calibrations(store, night)
    science = of_types(store.exposures(), (v.SCIENCE,))[:3]
    part = {"selection": {"exposures": list(science)}}
    assert detrend(store, part).run(progress=False).exit_code == 0
    for chunk in Path(store.url).glob("detrended/image/c/0/0/0/*"):
        chunk.write_bytes(b"damaged")
    summary = sky_frames(store, {**part, "minimum_exposures": 2}).run(progress=False)
    assert summary.exit_code == 1
    lost = {"exposure": science[0], "detector": "S00"}
    assert not store.done("sky_bins")[0, 0]
    assert store.done("sky_frame").all()
    assert store.done("sky_fit").all()
    assert store.done("sky_subtracted").sum() == 17
    record = store.read_record("sky_bins", lost)
    assert record is not None
    assert "ChecksumError" in record.reason


def test_what_cannot_be_done_is_said_with_a_remedy(sky_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no exposures: ingest exposures first"):
        sky_frames(create_store(tmp_path / "empty", "generic"))
    with pytest.raises(StoreError, match="no product 'detrended': run the flow detrend first"):
        sky_frames(sky_store)
    with pytest.raises(ConfigurationError, match="unknown key; did you mean 'objects'"):
        sky_frames(sky_store, {"object": {}})
