"""What the flows of a night make of bad input: each costs itself alone, and is told by its name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sky_night
import small_night
import xarray as xr
from astropy.io import fits
from small_night import DETECTORS, EXPOSURES, MOON, assert_same_blocks, change, copied, lose

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.flows import biases_darks, detrend, ingest, sky_frames
from skyloom.storage.store import Store, create_store

BAD = EXPOSURES[-1]
OTHERS = EXPOSURES[:-1]
ODD = "S10"


def settings(*without: int, **more: Any) -> dict[str, Any]:
    """Return the configuration of sky frames without some exposures.

    With one pass, bins of an exposure do not depend on others: what is lost costs only itself.
    """
    return (
        small_night.SKY | {"passes": 1} | {"selection": {"exclude_exposures": list(without)}} | more
    )


def run(store: Store, *without: int, **more: Any) -> Any:
    return sky_frames(store, settings(*without, **more)).run(progress=False)


def frames(exposures: Any = EXPOSURES, detectors: Any = DETECTORS) -> list[dict[str, Any]]:
    """Return the blocks of exposures and detectors."""
    return [
        {"exposure": exposure, "detector": name}
        for exposure, name in itertools.product(exposures, detectors)
    ]


def reason(store: Store, step: str, block: dict[str, Any]) -> str:
    record = store.read_record(step, block)
    assert record is not None
    assert not record.done
    return record.reason


def odd_warnings(store: Store) -> list[str]:
    """Return the warnings of numbers that were not meant to be: of numpy, not of ours."""
    found = []
    for step in store.steps():
        for record in store.records(step).values():
            found += [text for text in record.warnings if text.startswith("RuntimeWarning")]
    return found


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a simulated night, its files, and a store with all frames detrended."""
    folder = tmp_path_factory.mktemp("small")
    night = small_night.small_night()
    store = small_night.make_store(folder, night)
    calibrate(store, night)
    return night, folder / "fits", store


def calibrate(store: Store, night: Any) -> Any:
    """Combine biases and darks, take the true flats, and detrend; return how the last went."""
    sky_night.write_true_calibrations(store, night, {"flat"})
    assert biases_darks(store).run(progress=False).exit_code == 0
    return detrend(store).run(progress=False)


@pytest.fixture(scope="module")
def detrended(night: Any) -> Store:
    """Return the store with all frames detrended, none of which is bad; copy it to change it."""
    store: Store = night[2]
    assert store.done("detrended").all()
    return store


@pytest.fixture(scope="module")
def whole(detrended: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with the sky frames of all exposures but that in moonlight."""
    store = copied(detrended, tmp_path_factory.mktemp("whole") / "store")
    assert run(store, MOON).exit_code == 0
    return store


@pytest.fixture(scope="module")
def without(detrended: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with the sky frames of all exposures but the one that is bad elsewhere."""
    store = copied(detrended, tmp_path_factory.mktemp("without") / "store")
    assert run(store, MOON, BAD).exit_code == 0
    return store


def assert_others_as_without(store: Store, without: Store) -> None:
    """Assert that what was made of the other exposures is as if the bad one were not there."""
    assert_same_blocks(store, without, "focal_plane_sky", [{"exposure": e} for e in OTHERS])
    every_frame = [{"physical_filter": "r", "detector": name} for name in DETECTORS]
    assert_same_blocks(store, without, "sky_frame", every_frame)
    assert_same_blocks(store, without, "sky_fit", [{"exposure": e} for e in OTHERS])
    assert_same_blocks(store, without, "sky_subtracted", frames(OTHERS))


def test_a_detector_that_half_of_the_files_lack_is_measured_from_the_others(
    night: Any, detrended: Store, whole: Store, tmp_path: Path
) -> None:
    simulated, folder, _ = night
    lacking, complete = EXPOSURES[:2], EXPOSURES[2:]
    files = tmp_path / "fits"
    files.mkdir()
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path) as hdus:
            if int(path.stem) in lacking:
                del hdus[ODD]
            hdus.writeto(files / path.name)
    store = create_store(tmp_path / "store", simulated.camera)
    assert ODD in str(ingest(store, files, progress=False))
    told = str(calibrate(store, simulated))
    for exposure in lacking:
        assert f"exposure {exposure}, detector {ODD} skipped: no raw of exposure" in told
    others = [name for name in DETECTORS if name != ODD]
    assert_same_blocks(store, detrended, "detrended", frames(EXPOSURES, others))
    assert_same_blocks(store, detrended, "detrended", frames(complete))
    run(store, MOON)
    assert_same_blocks(store, whole, "sky_bins", frames(EXPOSURES, others))
    assert_same_blocks(store, whole, "focal_plane_sky", [{"exposure": e} for e in complete])
    assert store.done("sky_fit").all()
    assert store.done("sky_subtracted").sum() == len(EXPOSURES) * len(DETECTORS) - len(lacking)
    found, all_of_it = store["sky_frame"].load(), whole["sky_frame"].load()
    assert int(found["exposure_count"].sel(detector=ODD).max()) == len(complete)
    assert int(found["exposure_count"].sel(detector=others).max()) == len(EXPOSURES)
    difference = (found["level"] - all_of_it["level"]).sel(detector=ODD)
    error = np.sqrt(found["variance"]).sel(detector=ODD)
    measured = (found["exposure_count"].sel(detector=ODD) >= 2).values
    assert float(np.median(np.abs(difference / error).values[measured])) < 2.0
    fit = store["sky_fit"].load().sel(exposure=list(lacking))
    assert np.isnan(fit["residual_mean"].sel(detector=ODD)).all()
    assert odd_warnings(store) == []


def test_an_exposure_masked_everywhere_is_left_out_and_says_so(
    detrended: Store, without: Store, tmp_path: Path
) -> None:
    store = copied(detrended, tmp_path / "store")
    for block in frames([BAD]):
        change(store, "detrended", block, saturated)
    summary = run(store, MOON)
    assert summary.exit_code == 1
    assert "nothing was measured in any bin of S00, S01, S10, S11" in reason(
        store, "focal_plane_sky", {"exposure": BAD}
    )
    assert f"focal_plane_sky of exposure {BAD} failed" in reason(
        store, "sky_fit", {"exposure": BAD}
    )
    bins = store.read_block("sky_bins", {"exposure": BAD, "detector": "S00"})
    assert np.isnan(bins["level"]).all()
    assert (bins["flags"] & v.BinFlag.EMPTY != 0).all()
    assert_others_as_without(store, without)


def test_an_exposure_without_light_is_not_in_the_frame_and_is_named(
    detrended: Store, without: Store, tmp_path: Path
) -> None:
    store = copied(detrended, tmp_path / "store")
    for block in frames([BAD]):
        change(store, "detrended", block, lambda frame: even(frame, -20.0))
    run(store, MOON)
    for detector in DETECTORS:
        block = {"physical_filter": "r", "detector": detector}
        record = store.read_record("sky_frame", block)
        assert record is not None
        (warning,) = [str(found) for found in record.warnings if "no measure" in str(found)]
        assert f"the sky of exposures {BAD} (NONPOSITIVE: -20 ±" in warning
        assert f"they are not in the sky frame of {detector}" in warning
        frame, other = (each.read_block("sky_frame", block) for each in (store, without))
        assert str(frame["id"].values) == str(other["id"].values)
        np.testing.assert_array_equal(frame["level"], other["level"])


def saturated(frame: xr.Dataset) -> xr.Dataset:
    return frame.assign({v.MASK: frame[v.MASK] | v.MASK_PLANES["SAT"]})


def test_an_exposure_that_overlaps_no_sky_frame_gets_none(whole: Store, tmp_path: Path) -> None:
    """All that is left of the bad exposure is a detector that no other exposure has."""
    store = copied(whole, tmp_path / "store")
    for block in frames([BAD], [name for name in DETECTORS if name != ODD]):
        lose(store, "detrended", block)
    for block in frames(OTHERS, [ODD]):
        lose(store, "detrended", block)
    run(store, MOON)
    assert "needs at least 2 blocks of sky_bins along exposure, has 1 of 4" in reason(
        store, "sky_frame", {"physical_filter": "r", "detector": ODD}
    )
    why = "no detector has both bins and a sky frame: there are bins of S10 and frames of S00, S01"
    assert why in reason(store, "sky_fit", {"exposure": BAD})
    done = store.done("sky_fit")
    assert done.tolist() == [True] * len(OTHERS) + [False]
    assert store.done("sky_subtracted").sum() == len(OTHERS) * (len(DETECTORS) - 1)


def test_a_night_without_any_pattern_has_a_frame_of_zeros_and_no_scale(
    detrended: Store, tmp_path: Path
) -> None:
    store = copied(detrended, tmp_path / "store")
    for block in frames():
        change(store, "detrended", block, lambda frame: even(frame, 100.0 * frame["exposure"]))
    assert run(store, MOON).exit_code == 0
    assert (store["sky_frame"]["level"].values == 0).all()
    fit = store["sky_fit"].load()
    assert (fit["status"] == v.ScaleStatus.DEGENERATE).all()
    assert (fit["scale"] == 0).all()
    np.testing.assert_allclose(fit["level"], 100.0 * fit["exposure"], rtol=1e-6)
    np.testing.assert_allclose(store["sky_subtracted"]["image"].values, 0.0, atol=1e-3)
    assert odd_warnings(store) == []


def even(frame: xr.Dataset, level: Any) -> xr.Dataset:
    image = frame["image"].copy(data=np.full(frame["image"].shape, level, np.float32))
    return frame.assign({"image": image, v.MASK: xr.zeros_like(frame[v.MASK])})


def test_a_frame_that_the_smooth_sky_explains_gives_a_scale_from_the_level(
    whole: Store, tmp_path: Path
) -> None:
    """A constant frame cannot be told from the sky: its scale is what the level says, flagged."""
    store = copied(whole, tmp_path / "store")
    for name in DETECTORS:
        block = {"physical_filter": "r", "detector": name}
        change(
            store,
            "sky_frame",
            block,
            lambda frame: frame.assign(level=xr.full_like(frame["level"], 0.01)),
            fingerprint=None,
        )
    store.forget("sky_fit")
    assert run(store, MOON).exit_code == 0
    fit = store["sky_fit"].load()
    assert (fit["status"] == v.ScaleStatus.FROM_PRIOR).all()
    np.testing.assert_allclose(fit["scale"], fit["level"], rtol=0.5)
    # Nothing of that is seen in the frames: what the frame takes, the smooth sky does not.
    before = [whole.read_record("sky_subtracted", block) for block in frames()]
    after = [store.read_record("sky_subtracted", block) for block in frames()]
    for one, other in zip(before, after, strict=True):
        assert one is not None
        assert other is not None
        level = float(fit["level"].sel(exposure=int(one.block["exposure"])))
        assert abs(one.quality["median"] - other.quality["median"]) < 0.005 * level


def test_an_exposure_in_moonlight_does_not_spoil_the_frame(
    detrended: Store, whole: Store, tmp_path: Path
) -> None:
    store = copied(detrended, tmp_path / "store")
    assert run(store).exit_code == 0
    assert_same_blocks(store, whole, "sky_bins", frames())
    assert_same_blocks(store, whole, "focal_plane_sky", [{"exposure": e} for e in EXPOSURES])
    found, usual = store["sky_frame"].load(), whole["sky_frame"].load()
    moved = (found["level"] - usual["level"]).values
    assert np.std(moved) < 0.2 * float(usual["level"].std())
    fit, before = store["sky_fit"].load(), whole["sky_fit"].load()
    assert (fit["status"] == v.ScaleStatus.OK).all()
    part = fit.sel(exposure=list(EXPOSURES))
    # The usual frame has the noise of these exposures in it, that with moonlight hardly: scales
    # move by their error, and are as right as before.
    moved = ((part["scale"] - before["scale"]) / before["scale_sigma"]).values
    assert np.abs(moved).max() < 2.0
    for one in (part, before):
        pulls = ((one["scale"] - one["level"]) / one["scale_sigma"]).values
        assert np.sqrt(np.mean(pulls**2)) < 1.5
    level = float(fit["level"].sel(exposure=MOON))
    assert level > 15 * float(part["level"].mean())
    record = store.read_record("sky_subtracted", {"exposure": MOON, "detector": "S00"})
    assert record is not None
    assert abs(record.quality["median"]) < 0.01 * level


def test_a_bias_of_another_shape_and_a_dark_of_another_camera_stop_their_detectors_alone(
    detrended: Store, tmp_path: Path
) -> None:
    store = copied(detrended, tmp_path / "store")
    change(store, "bias", {"detector": "S00"}, lambda bias: bias.isel(y=slice(0, 96)))
    change(
        store, "dark", {"detector": "S01"}, lambda dark: dark.assign_coords(camera="another-camera")
    )
    store.forget("detrended")
    summary = detrend(store).run(progress=False)
    assert summary.counts["detrended"]["failed"] == 2 * (len(EXPOSURES) + 1)
    why = reason(store, "detrended", {"exposure": BAD, "detector": "S00"})
    assert "bias has shape (96, 160), the trimmed frame (160, 160)" in why
    why = reason(store, "detrended", {"exposure": BAD, "detector": "S01"})
    assert "dark" in why
    assert "another-camera" in why
    assert_same_blocks(store, detrended, "detrended", frames(EXPOSURES, ("S10", "S11")))


def test_frames_without_any_value_count_as_if_they_were_not_there(
    whole: Store, tmp_path: Path
) -> None:
    empty, masked = ({"exposure": e, "detector": ODD} for e in (BAD, OTHERS[0]))
    store, lost = copied(whole, tmp_path / "store"), copied(whole, tmp_path / "lost")
    for block, edit in ((empty, without_value), (masked, saturated)):
        lose(lost, "detrended", block)
        change(store, "detrended", block, edit)
    run(lost, MOON)
    assert run(store, MOON).exit_code == 0
    for product in ("focal_plane_sky", "sky_fit"):
        assert_same_blocks(store, lost, product, [{"exposure": e} for e in EXPOSURES])
    every_frame = [{"physical_filter": "r", "detector": name} for name in DETECTORS]
    assert_same_blocks(store, lost, "sky_frame", every_frame)
    others = [block for block in frames() if block not in (empty, masked)]
    assert_same_blocks(store, lost, "sky_subtracted", others)
    for block in (empty, masked):
        record = store.read_record("sky_bins", block)
        assert record is not None
        assert (record.quality["level"], record.quality["empty_bins"]) == (None, 25)
        assert "has no pixel to measure a background from" in record.warnings[0]
    record = store.read_record("sky_subtracted", empty)
    assert record is not None
    assert record.quality["median"] is None
    assert odd_warnings(store) == []


def without_value(frame: xr.Dataset) -> xr.Dataset:
    return frame.assign(image=xr.full_like(frame["image"], np.nan))


def test_bins_larger_than_the_detectors_are_one_bin_each(detrended: Store, tmp_path: Path) -> None:
    store = copied(detrended, tmp_path / "store")
    large = {"background": {"bin_size": [256, 256]}, "solve": {"order": 0}}
    assert run(store, MOON, **large, objects={"background_bin": 1024}).exit_code == 0
    frame = store.read_block("sky_frame", {"physical_filter": "r", "detector": "S00"})
    assert (int(frame["bins_y"]), int(frame["bins_x"])) == (1, 1)
    fit = store["sky_fit"].load()
    assert (fit["status"] != v.ScaleStatus.OK).all()
    assert (fit["used_count"] == len(DETECTORS)).all()
    assert odd_warnings(store) == []


def test_cells_smaller_than_bins_are_refused_before_anything_is_done(detrended: Store) -> None:
    with pytest.raises(ConfigurationError, match=r"focal_plane\.cell_size: cells of .* mm are sm"):
        sky_frames(detrended, settings(focal_plane={"cell_size": [0.3, 1.0]}))
