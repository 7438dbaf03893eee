"""The flows that detrend: files of a simulated night to biases, darks and frames near the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend import detrend as detrend_raw
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.simulate import night_exposure_truth
from skyloom.flows import detrend
from skyloom.storage.corrections import read_corrections
from skyloom.storage.store import Store, create_store


def test_frames_without_calibrations_are_signal_in_electron(sky: Any, sky_store: Store) -> None:
    night, _ = sky
    science = [int(e) for e in night.plan.exposure[night.plan.observation_type == "science"]]
    flow = detrend(sky_store, {"selection": {"detectors": ["S01"], "exposures": science[:1]}})
    assert [note.split(":")[0] for note in flow.notes] == [
        f"no {name} is applied" for name in ("bias", "dark", "flat", "gain")
    ]
    assert flow.run(progress=False).exit_code == 0
    frame = sky_store.read_block("detrended", {"exposure": science[0], "detector": "S01"})
    truth = night_exposure_truth(
        night.plan, science[0], night.camera.amplifiers("S01"), night.truth["S01"], night.scene
    )
    level = float(np.median(truth["background"]))
    assert frame["image"].shape == truth["background"].shape
    assert float(np.nanmedian(frame["image"])) == pytest.approx(level, rel=0.1)
    assert frame["physical_filter"] == "r"
    record = sky_store.read_record("detrended", {"exposure": science[0], "detector": "S01"})
    assert record is not None
    assert record.quality["applied"][0] == "overscan: row_mean"


def test_what_cannot_be_detrended_is_said_with_a_remedy(sky_store: Store, tmp_path: Any) -> None:
    with pytest.raises(StoreError, match="holds no exposures: ingest exposures first"):
        detrend(create_store(tmp_path / "empty", "generic"))
    with pytest.raises(StoreError, match=r"no product 'bias', which calibrations\.bias requires"):
        detrend(sky_store, {"calibrations": {"bias": "required"}})
    with pytest.raises(ConfigurationError, match="types: sciences are no observation types"):
        detrend(sky_store, {"types": ["sciences"]})
    with pytest.raises(StoreError, match="has no other exposures among those selected"):
        detrend(sky_store, {"types": ["other"]})


def test_an_opened_product_shows_a_cut_out_of_one_exposure(sky_store: Store) -> None:
    flow = detrend(sky_store, {"selection": {"detectors": ["S01"]}})
    first = int(flow.steps[0].labels["exposure"][0])
    detrend(sky_store, {"selection": {"detectors": ["S01"], "exposures": [first]}}).run(
        progress=False
    )
    opened = sky_store["detrended"]
    cut = opened.sel(exposure=first, detector="S01").isel(y=slice(10, 20), x=slice(0, 5)).load()
    whole = sky_store.read_block("detrended", {"exposure": first, "detector": "S01"})
    np.testing.assert_array_equal(cut["image"], whole["image"][10:20, :5])


def test_measured_corrections_are_applied_as_the_functions_do(
    sky_store: Store, tmp_path: Path
) -> None:
    camera = sky_store.camera
    amps = camera.amplifier_names("S01")
    file = tmp_path / "corrections.yaml"
    content: dict[str, Any] = {
        "crosstalk": {amps[0]: {amps[1]: 1e-3}},
        "linearity": {amp: {"polynomial": [1e-6]} for amp in amps},
        "defects": [{"y": [3, 5], "x": [7, 9]}],
    }
    file.write_text(yaml.safe_dump({"detectors": {"S01": content}}))
    selection = {"detectors": ["S00", "S01"]}
    first = int(detrend(sky_store, {"selection": selection}).steps[0].labels["exposure"][0])
    chosen: dict[str, Any] = {"selection": {**selection, "exposures": [first]}}
    assert detrend(sky_store, chosen).run(progress=False).exit_code == 0
    plain = {
        name: sky_store.read_block("detrended", {"exposure": first, "detector": name})
        for name in selection["detectors"]
    }
    chosen["calibrations"] = {"corrections": str(file)}
    flow = detrend(sky_store, chosen)
    assert flow.run(progress=False).exit_code == 0
    frame = sky_store.read_block("detrended", {"exposure": first, "detector": "S01"})
    corrections = read_corrections(file, camera)
    table = camera.amplifiers("S01").assign_attrs(camera=camera.name)
    expected = detrend_raw(
        sky_store.read_block("raw", {"exposure": first, "detector": "S01"}).assign_coords(
            camera=camera.name
        ),
        table,
        **{kind: corrections.dataset("S01", kind) for kind in corrections.kinds()},
    )
    for name in ("image", "variance", "mask"):
        np.testing.assert_array_equal(frame[name], expected[name], err_msg=name)
    assert (frame["mask"].values[3:5, 7:9] & v.MASK_PLANES["BAD"]).all()
    assert not np.array_equal(frame["image"], plain["S01"]["image"], equal_nan=True)
    record = sky_store.read_record("detrended", {"exposure": first, "detector": "S01"})
    assert record is not None
    applied = " ".join(record.quality["applied"])
    assert all(kind in applied for kind in corrections.kinds())
    # Nothing was measured of the other detector: it is as it was.
    other = sky_store.read_block("detrended", {"exposure": first, "detector": "S00"})
    np.testing.assert_array_equal(other["image"], plain["S00"]["image"])
    assert detrend(sky_store, chosen).run(progress=False).made == 0
    content["defects"][0]["y"] = [3, 6]
    file.write_text(yaml.safe_dump({"detectors": {"S01": content}}))
    assert detrend(sky_store, chosen).run(progress=False).made == 1


def test_wrong_corrections_stop_a_flow_before_it_starts(sky_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "corrections.yaml"
    file.write_text("detectors: {S01: {crosstalk: {Q: {A: 1}}}}")
    with pytest.raises(ConfigurationError, match=r"Q: there is no such amplifier"):
        detrend(sky_store, {"calibrations": {"corrections": str(file)}})
