"""The flows that detrend: files of a simulated night to biases, darks and frames near the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.simulate import night_exposure_truth
from skyloom.flows import detrend
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
