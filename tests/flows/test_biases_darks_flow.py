"""The flow of biases and darks, from files of a simulated night to frames near the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sky_night

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import StoreError
from skyloom.flows import biases_darks, detrend
from skyloom.storage.store import Store, create_store

DETECTORS = {"selection": {"detectors": ["S00", "S12"]}}


def test_biases_and_darks_are_the_true_ones_within_their_noise(sky: Any, sky_store: Store) -> None:
    night, _ = sky
    flow = biases_darks(sky_store, DETECTORS)
    assert flow.run(progress=False).exit_code == 0
    for name in DETECTORS["selection"]["detectors"]:
        truth = night.truth[name]
        bias, dark = (
            sky_store.read_block(product, {"detector": name}) for product in ("bias", "dark")
        )
        defect = truth["defects"].values != 0
        gain = sky_night.gain_images(truth, night.camera)[0].values
        for frame, true in (
            (bias, truth["bias_image"].values),
            (dark, truth["dark_image"].values / gain),
        ):
            good = (frame["mask"].values == 0) & ~defect
            assert good.mean() > 0.95
            pulls = ((frame["image"].values - true) / np.sqrt(frame["variance"].values))[good]
            # Robust width: columns share the noise of their overscan, and few pixels saw rays.
            width = 0.7413 * np.subtract(*np.percentile(pulls, [75, 25]))
            assert abs(np.median(pulls)) < 0.15
            assert 0.85 < width < 1.15
        assert str(bias["id"].values) == f"bias of {name} from 5 exposures 1 to 5"
        record = sky_store.read_record("dark", {"detector": name})
        assert record is not None
        assert record.quality["frames"] == sky_night.DARKS
    assert biases_darks(sky_store, DETECTORS).plan().todo == 0


def test_frames_are_detrended_with_what_was_made_and_say_so(sky_store: Store) -> None:
    one = {"selection": {"detectors": ["S00"]}}
    biases_darks(sky_store, one).run(progress=False)
    flow = detrend(sky_store, one)
    first = int(flow.steps[0].labels[v.EXPOSURE][0])
    flow = detrend(sky_store, {"selection": {"detectors": ["S00"], "exposures": [first]}})
    assert flow.run(progress=False).exit_code == 0
    record = sky_store.read_record("detrended", {"exposure": first, "detector": "S00"})
    assert record is not None
    applied = " / ".join(record.quality["applied"])
    assert "bias: bias of S00 from 5 exposures 1 to 5" in applied
    assert f"dark: dark of S00 from {sky_night.DARKS} exposures" in applied


def test_too_few_frames_and_none_at_all_are_said(sky_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no exposures: ingest biases first"):
        biases_darks(create_store(tmp_path / "empty", "generic"))
    with pytest.raises(StoreError, match="has no biases among the exposures selected"):
        biases_darks(sky_store, {"selection": {"exposures": [8]}})
    few = {"selection": {"detectors": ["S00"], "exposures": [1, 2]}}
    summary = biases_darks(sky_store, few).run(progress=False)
    assert summary.exit_code == 1
    record = sky_store.read_record("bias", {"detector": "S00"})
    assert record is not None
    assert "needs at least 3 blocks of bias_frames along exposure, has 2 of 2" in record.reason
