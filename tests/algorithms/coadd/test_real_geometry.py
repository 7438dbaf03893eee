"""Artifacts and coadds of turned, dithered, resampled and matched detectors."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import coadd, find_artifacts
from tests.algorithms.coadd.scenes import Scene, real_geometry

SIDE = 150


@pytest.fixture(scope="module")
def scene() -> Scene:
    return real_geometry(np.random.default_rng(3), visits=5, side=SIDE, stars=10, satellite=30.0)


@pytest.fixture(scope="module")
def found(scene) -> xr.Dataset:
    return find_artifacts(scene.matched, warps=scene.warps)


def test_a_satellite_is_clipped_in_its_visit_alone(scene, found):
    mask = (found["artifact_mask"].values & v.MASK_PLANES["CLIPPED"]) != 0
    hit = scene.trail[0] > 5.0
    assert hit.sum() > 800
    assert mask[0][hit].mean() >= 0.95
    assert not mask[1:].any()
    # its trail does not raise the threshold it is found by
    assert found["variance_factor"].values == pytest.approx(np.ones(5), abs=0.4)


def test_noise_is_that_of_the_variance_and_edges_are_told(scene, found):
    made = coadd(scene.warps, artifacts=found["artifact_mask"])
    y, x = np.indices((SIDE, SIDE))
    sources = zip(scene.stars["sy"].values, scene.stars["sx"].values, strict=True)
    away = np.min([np.hypot(y - sy, x - sx) for sy, sx in sources], axis=0)
    sky = (away > 14.0) & np.isfinite(made["image"].values)
    pulls = made["image"].values[sky] / np.sqrt(made["variance"].values[sky])
    assert pulls.std() == pytest.approx(1.0, abs=0.03)
    assert abs(pulls.mean()) < 0.05
    missing = np.isnan(scene.matched["image"].values).any(axis=0)
    told = (made["mask"].values & v.MASK_PLANES["SENSOR_EDGE"]) != 0
    beside = np.zeros_like(missing)
    beside[1:] |= missing[:-1]
    beside[:-1] |= missing[1:]
    assert missing.any()
    assert told[beside & ~missing].all()
