"""The flow of sky frames, from files of a simulated night to exposures without their sky."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sky_night
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import measure_background
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate import sky_pattern
from skyloom.algorithms.sky import (
    SmoothSkyParameters,
    exposure_residuals,
    mask_objects_beside_sky,
    measure_scale,
    subtract_fit,
    subtract_sky_frame,
)
from skyloom.flows import detrend, sky_frames
from skyloom.flows.camera_constants import detector_transforms, geometry
from skyloom.flows.selection import of_types
from skyloom.flows.sky_blocks import (
    SecondBinsParameters,
    SkyBinsParameters,
    _focal_box,
    focal_plane,
    second_sky_bins,
    sky_bins,
)
from skyloom.storage.exports import export
from skyloom.storage.sky_frame_fits import read_sky_frame
from skyloom.storage.sky_products import background_of, load_sky_fit, load_sky_frame
from skyloom.storage.store import Store, create_store, open_store

MEASURED = 5


@pytest.fixture(scope="module")
def solved(sky: Any, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store in which the flow was run; calibrations are true."""
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
    # An exposure shares its noise with the frame that it is part of: its scale is not biased.
    assert float((fit["scale"] / true).mean()) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(fit["level"], true, rtol=0.03)
    assert (fit["rms"] < 0.35 * fit["rms_before"]).all()


def test_a_thousandth_of_the_sky_is_left_at_most(sky: Any, solved: Store) -> None:
    """Beyond 64 pixels, of all exposures: 0.3e-3."""
    night, _ = sky
    left = sky_night.sky_left(solved, night)
    assert (np.std(left, axis=1) < 1e-3).all()
    assert (np.abs(np.mean(left, axis=1)) < 5e-4).all()


def test_functions_take_the_frames_and_fits_of_a_flow(solved: Store) -> None:
    exposure = int(solved.labels("detrended")["exposure"][0])
    block = {"exposure": exposure, "detector": "S11"}
    image, after = (solved.read_block(name, block) for name in ("detrended", "sky_subtracted"))
    frame, fit = load_sky_frame(solved, "r", "S11"), load_sky_fit(solved, exposure)
    transform = detector_transforms(solved.camera)["S11"]
    less, _ = subtract_fit(image, fit, sky_frame=frame, transform=transform, detector="S11")
    np.testing.assert_array_equal(less["image"], after["image"])
    less, _ = subtract_sky_frame(image, frame, 100.0)
    assert less["image"].shape == image["image"].shape
    assert np.isfinite(measure_scale(image, frame)["template"]).any()
    with pytest.raises(ConfigurationError, match="S10"):
        subtract_sky_frame(image, load_sky_frame(solved, "r", "S10"), 100.0)


def test_frames_are_exported_as_exposures_of_bins(solved: Store, tmp_path: Path) -> None:
    written = export(solved, "sky_frame", tmp_path / "frames")
    names = solved.labels("sky_frame")["detector"]
    assert sorted(path.name for path in written) == sorted(f"r_{name}.fits" for name in names)
    for name in names:
        found = read_sky_frame(tmp_path / "frames" / f"r_{name}.fits")
        assert found.identical(load_sky_frame(solved, "r", str(name)))
    with pytest.raises(StoreError, match="exists: choose another name"):
        export(solved, "sky_frame", tmp_path / "frames")


def test_exposures_keep_variance_and_mask(solved: Store) -> None:
    exposure = int(solved.labels("detrended")["exposure"][0])
    block = {"exposure": exposure, "detector": "S11"}
    before, after = (solved.read_block(name, block) for name in ("detrended", "sky_subtracted"))
    for name in ("variance", "mask"):
        np.testing.assert_array_equal(before[name], after[name])
    record = solved.read_record("sky_subtracted", block)
    assert record is not None
    assert record.quality["applied"][-1].startswith("sky: ")


def test_a_second_run_does_nothing_and_other_fits_redo_only_what_follows(solved: Store) -> None:
    assert sky_frames(solved).plan().todo == 0
    plan = sky_frames(solved, {"solve": {"order": 2, "loss": "huber"}}).plan()
    todo = {step.step.name: step.count("todo") for step in plan.steps}
    count = len(solved.labels("detrended")["exposure"])
    assert todo == {
        "first_sky_bins": 0,
        "first_focal_plane_sky": 0,
        "first_sky_frame": 0,
        "sky_bins": 0,
        "focal_plane_sky": 0,
        "sky_frame": 0,
        "sky_fit": count,
        "sky_subtracted": 6 * count,
    }
    plan = sky_frames(solved, {"undo_smooth": True}).plan()
    todo = {step.step.name: step.count("todo") for step in plan.steps}
    assert {name for name, number in todo.items() if number} == {"sky_subtracted"}


def test_objects_are_found_beside_the_first_sky_as_the_functions_do(solved: Store) -> None:
    exposure = int(solved.labels("detrended")["exposure"][2])
    block = {"exposure": exposure, "detector": "S01"}
    chosen = sky_frames(solved).configuration
    frame = solved.read_block("detrended", block)
    transforms = detector_transforms(solved.camera)
    first = {
        name: background_of(solved.read_block("first_sky_bins", block | {"detector": name}))
        for name in transforms
    }
    smooth = exposure_residuals(
        first,
        transforms,
        parameters=SmoothSkyParameters(order=2),
        focal_box=_focal_box(geometry(solved, {})),
    )
    first_frame = solved.read_block("first_sky_frame", {"physical_filter": "r", "detector": "S01"})
    mask = mask_objects_beside_sky(
        frame,
        background_of(first_frame),
        smooth.model,
        transforms["S01"],
        scale=smooth.scale,
        parameters=chosen.objects_again,
    )
    assert mask is not None
    expected = measure_background(frame[["image"]].assign(mask=mask), **dict(chosen.background))
    found = solved.read_block("sky_bins", block)
    np.testing.assert_allclose(found["level"], expected["level"], rtol=1e-6)
    assert np.mean(found["count"].values != expected["count"].values) < 0.02
    assert int(found["mask_passes"]) == 2
    record = solved.read_record("sky_bins", block)
    assert record is not None
    assert record.quality["mask_passes"] == 2


def small_frame(level: float) -> xr.Dataset:
    rng = np.random.default_rng(1)
    return xr.Dataset(
        {
            "image": (("y", "x"), rng.normal(level, 10.0, (128, 128)).astype(np.float32)),
            "variance": (("y", "x"), np.full((128, 128), 100.0, np.float32)),
            "mask": (("y", "x"), np.zeros((128, 128), np.int32), v.mask_attributes()),
        },
        coords={"detector": "A"},
    )


SMOOTH = SecondBinsParameters(smooth=SmoothSkyParameters(order=0))


def test_a_detector_without_a_first_frame_keeps_its_first_bins() -> None:
    inputs = {"frame": small_frame(100.0)}
    once = sky_bins(inputs, SkyBinsParameters())
    again = second_sky_bins({**inputs, "first": once}, SMOOTH)
    xr.testing.assert_identical(once, again)
    assert int(again["mask_passes"]) == 1


@pytest.mark.parametrize(("wrong", "passes"), [(0.0, 2), (0.5, 1)])
def test_a_first_sky_that_is_wrong_changes_no_mask(wrong: float, passes: int) -> None:
    """Half of the detector, which the frame has too low, would be taken for an object."""
    frame = small_frame(100.0)
    once = sky_bins({"frame": frame}, SkyBinsParameters())
    level = xr.zeros_like(once["level"])
    level[:, :2] = -wrong
    first_frame = once.drop_vars(["count_used"]).assign(level=level).expand_dims("detector")
    places = xr.Dataset(
        {
            "transform": (("detector", "axis", "term"), [[[0.01, 0.0, 0.0], [0.0, 0.01, 0.0]]]),
            "shape": (("detector", "axis"), [[128, 128]]),
        },
        coords={"detector": ["A"]},
    )
    bins = once.expand_dims(detector=["A"])
    sky = focal_plane({"bins": bins, "places": places}, SMOOTH.smooth)
    inputs = {
        "frame": frame,
        "first": once,
        "sky": sky.expand_dims(exposure=[1]),
        "sky_frame": first_frame,
        "places": places,
    }
    again = second_sky_bins(inputs, SMOOTH)
    assert int(again["mask_passes"]) == passes
    if wrong:
        xr.testing.assert_identical(once, again)


def test_with_one_pass_there_is_no_first_sky(solved: Store) -> None:
    steps = [step.name for step in sky_frames(solved, {"passes": 1}).steps]
    assert steps == ["sky_bins", "focal_plane_sky", "sky_frame", "sky_fit", "sky_subtracted"]


def test_the_report_shows_frames_scales_and_residuals(solved: Store, tmp_path: Path) -> None:
    page = sky_frames(solved).report(tmp_path / "sky.html").read_text()
    for text in ("Sky frame through the filter r", "Every exposure", "Detectors, the worst first"):
        assert text in page
    assert page.count("data:image/png") == 3
    assert "could not be drawn" not in page


def test_a_lost_detector_of_one_exposure_costs_only_itself(sky: Any, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("solve", "remedy"),
    [
        ({"mode": "compat"}, r"solve\.mode: .* use joint"),
        ({"order": None}, r"solve\.order: .* give 0 or more"),
        ({"steps": "type"}, r"solve\.steps: .* use detector"),
    ],
)
def test_fits_that_the_flow_cannot_make_are_refused(
    solved: Store, solve: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        sky_frames(solved, {"solve": solve})


@pytest.mark.parametrize(
    ("background", "what"),
    [
        ({"median_filter": 2}, "background: median_filter must be odd, got 2"),
        ({"bins": [1000, 1000]}, "background: .*1000"),
        ({"reject": ["FOO"]}, "background: .*FOO"),
    ],
)
def test_bins_that_detectors_cannot_have_are_refused(
    solved: Store, background: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        sky_frames(solved, {"background": background})


def test_variances_of_bins_may_be_those_of_frames(solved: Store, tmp_path: Path) -> None:
    shutil.copytree(solved.url, tmp_path / "store")
    store = open_store(tmp_path / "store")
    settings = {"background": {"variance_from": "input"}, "passes": 1}
    assert sky_frames(store, settings).run(progress=False).exit_code == 0
    block = {"exposure": int(store.labels("detrended")["exposure"][0]), "detector": "S11"}
    ours, scatter = (each.read_block("sky_bins", block)["variance"] for each in (store, solved))
    ratio = float((ours / scatter).median())
    assert 0.8 < ratio < 1.2
    assert ratio != 1.0
