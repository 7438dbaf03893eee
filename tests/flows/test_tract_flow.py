"""Warps, matched backgrounds and coadds of a tract with a galaxy whose halo is as faint as skies
differ, against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tract_scene as scene
from galaxy_tract import ORDER, GalaxyTract

from skyloom.algorithms import vocabulary as v
from skyloom.flows import coadds, match_backgrounds, warps
from skyloom.flows.report.tracts import seams_of
from skyloom.storage.store import Store

BIN = 20


class Run(NamedTuple):
    """The scene, and the store in which the flows were run."""

    tract: GalaxyTract
    store: Store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tract = GalaxyTract(400, 200, BIN)
    store = tract.make(tmp_path_factory.mktemp("tract") / "store")
    chosen = {"sky_map": tract.sky_map, "psf": None}
    assert warps(store, chosen).run(progress=False).exit_code == 0
    fields = {"bin_size": BIN, "match": {"order": ORDER}}
    assert match_backgrounds(store, fields).run(progress=False).exit_code == 0
    assert coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False).exit_code == 0
    return Run(tract, store)


def test_visits_agree_within_the_noise_of_their_bins(run: Run) -> None:
    match = run.store["background_match"].isel(physical_filter=0, tract=0).load()
    assert (match["status"] == v.OffsetStatus.OK).all()
    assert 0.9 < float(match["overlap_ratio_after"]) < 1.3
    assert float(match["overlap_rms_after"]) < 0.02 * float(match["overlap_rms_before"])
    # The noise that is stored with each warp knows that pixels share it.
    factor = run.store["warps"]["noise_correlation"].load()
    known = np.isfinite(factor.values)
    assert factor.values[known] == pytest.approx(1.253, abs=0.01)


def test_the_halo_of_the_galaxy_keeps_its_flux(run: Run) -> None:
    assert run.tract.halo(run.store) == pytest.approx(1.0, abs=0.03)


def test_all_visits_at_once_beat_a_reference_visit(run: Run) -> None:
    levels = run.tract.levels(run.store)
    joint = run.tract.joint_error(run.store, levels)
    coverage = run.tract.coverage(levels)
    best = max(coverage, key=lambda visit: coverage[visit])
    half = min(coverage, key=lambda visit: abs(coverage[visit] - 0.5))
    assert joint < 0.3  # of the noise of a bin
    assert joint <= run.tract.reference_error(levels, best)
    assert joint <= 0.8 * run.tract.reference_error(levels, half)


def test_neighbouring_patches_of_the_coadd_have_no_seam(run: Run) -> None:
    blocks = {
        int(str(label).split("-")[1]): run.store.read_block(
            "coadd", {v.FILTER: scene.FILTER, v.PATCH: str(label)}, lazy=True
        )
        for label in run.store.labels("coadd")[v.PATCH]
    }
    seams = seams_of(blocks, run.tract.tract)
    assert len(seams) == 4
    for seam in seams:
        assert seam.pixels > 5000
        assert abs(seam.median) < 1e-3
        assert seam.rms < 0.1


def test_a_visit_that_overlaps_no_other_is_named_in_the_report(tmp_path: Path) -> None:
    sky_map = scene.sky_map(200, 100, 1.0)
    tract = scene.tract_of(sky_map)
    middles = {7: (40.0, 40.0), 8: (50.0, 60.0), 9: (170.0, 160.0)}
    planes = {
        visit: scene.frame_plane(tract, (60, 60), middle, 0.0) for visit, middle in middles.items()
    }

    def frame(visit: int, _: object) -> tuple[scene.Floats, scene.Floats]:
        noise = np.random.default_rng(visit).standard_normal((60, 60))
        return 100.0 * visit + 10.0 * noise, np.full((60, 60), 100.0)

    store = scene.make_store(tmp_path / "store", planes, (60, 60), frame)
    assert warps(store, {"sky_map": sky_map, "psf": None}).run(progress=False).exit_code == 0
    flow = match_backgrounds(store, {"bin_size": 10, "match": {"order": 0}})
    assert flow.run(progress=False).exit_code == 0
    match = store["background_match"].isel(physical_filter=0, tract=0).load()
    assert int(match["status"].sel(visit=9)) == v.OffsetStatus.ISOLATED
    page = flow.report(tmp_path / "page.html").read_text()
    assert "overlaps no other visit; keeps its own background" in page
    assert "could not be drawn" not in page
