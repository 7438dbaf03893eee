"""The photon transfer flow: what it pairs, what depends on what, and that it can be killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import flats
import numpy as np
import pytest
from astropy.io import fits
from flats import CONFIGURATION, DETECTORS, LEVELS, small_flow
from kill_repeatedly import __file__ as kill_repeatedly
from toy import assert_same, contents

from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.simulate import flat_truth
from skyloom.flows.block import Context, run_block
from skyloom.flows.fingerprint import Gathered, dataset_fingerprint
from skyloom.flows.photon_transfer_flow import photon_transfer
from skyloom.storage.camera import load_camera, parse_camera
from skyloom.storage.ingest import ingest_fits
from skyloom.storage.records import block_key
from skyloom.storage.store import Store, create_store, open_store

KILLS = 20
BLOCKS = {
    "dark_pairs": 3 * len(DETECTORS),
    "flat_pairs": LEVELS * len(DETECTORS),
    "ptc": len(DETECTORS),
    "brighter_fatter": len(DETECTORS),
}


@pytest.fixture(scope="module")
def solved(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store on which the flow ran undisturbed."""
    path = tmp_path_factory.mktemp("solved") / "store"
    shutil.copytree(ingested, path)
    summary = small_flow(str(path)).run(progress=False)
    assert summary.exit_code == 0, str(summary)
    assert {step: found["done"] for step, found in summary.counts.items()} == BLOCKS
    return open_store(path)


def test_gains_of_a_simulation_are_recovered(solved: Store) -> None:
    camera = flats.two_detectors()
    ptc = solved["ptc"].load()
    for detector in DETECTORS:
        truth = flat_truth(camera.amplifiers(detector), seed=3)
        found = ptc.sel(detector=detector)
        pulls = (found.gain - truth.gain) / found.gain_sigma
        assert (abs(pulls) < 5).all()
        assert (found.gain_sigma / found.gain < 0.02).all()


def test_biases_make_consecutive_pairs_and_flats_pairs_of_equal_time(solved: Store) -> None:
    assert solved["dark_pairs"].pair.values.tolist() == ["1-2", "3-4", "5-6"]
    assert solved["dark_pairs"].exposure_time.isel(detector=0).values.tolist() == [0, 0, 20]
    pairs = solved["flat_pairs"].isel(detector=0).load()
    assert (pairs.exposure_2 == pairs.exposure_1 + 1).all()
    assert (pairs.pair_key == pairs.exposure_time).all()
    assert (pairs.read_noise_source == 2).all(), "the darks say what the read noise is"


def test_every_product_carries_the_configuration_and_what_was_left_unpaired(
    raw_store: Store,
) -> None:
    configuration = {**CONFIGURATION, "selection": {"exclude_exposures": [8], "detectors": ["S00"]}}
    photon_transfer(raw_store, configuration).run(progress=False)
    attrs = raw_store["flat_pairs"].attrs
    assert attrs["unpaired_exposures"] == {"7": "UNPAIRED"}
    assert attrs["configuration"]["selection"]["exclude_exposures"] == [8]
    assert attrs["flow"] == "photon_transfer"


def test_one_solver_option_redoes_only_the_solve_and_what_follows(solved: Store) -> None:
    changed = {**CONFIGURATION, "solve": {**CONFIGURATION["solve"], "maximum_mean": 3e4}}  # type: ignore[dict-item]
    plan = photon_transfer(solved, changed).plan()
    assert {step.step.name: step.reasons() for step in plan.steps} == {
        "dark_pairs": {},
        "flat_pairs": {},
        "ptc": {"configuration changed": 2},
        "brighter_fatter": {"inputs changed": 2},
    }
    kernel = {**CONFIGURATION, "kernel": {"zero_sum": False}}
    found = {s.step.name: s.count("todo") for s in photon_transfer(solved, kernel).plan().steps}
    assert found == {"dark_pairs": 0, "flat_pairs": 0, "ptc": 0, "brighter_fatter": 2}


def test_a_second_run_does_nothing(solved: Store) -> None:
    summary = small_flow(solved.url).run(progress=False)
    assert summary.made == 0
    assert {step: found["kept"] for step, found in summary.counts.items()} == BLOCKS


def test_processes_and_threads_make_the_same_bits(solved: Store, raw_store: Store) -> None:
    summary = small_flow(raw_store.url).run(scheduler="processes", workers=2, progress=False)
    assert summary.exit_code == 0, str(summary)
    assert_same(contents(raw_store), contents(solved))


def test_a_client_makes_the_same_bits(solved: Store, raw_store: Store, client: Any) -> None:
    assert small_flow(raw_store.url).run(client, progress=False).exit_code == 0
    assert_same(contents(raw_store), contents(solved))


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_like_one_that_was_not(
    solved: Store, raw_store: Store
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            kill_repeatedly,
            "flats:small_flow",
            raw_store.url,
            str(KILLS),
            "2",
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == KILLS
    assert told["progress"] == sorted(told["progress"]), "something done was lost"
    assert 0 < told["progress"][-1] < sum(BLOCKS.values()), "kills must fall into the work"
    assert told["last"] == sum(BLOCKS.values()) - told["progress"][-1]
    assert (told["again"], told["exit_code"]) == (0, 0)
    assert_same(contents(open_store(raw_store.url)), contents(solved))


def test_a_damaged_exposure_costs_its_pair_and_nothing_else(raw_store: Store) -> None:
    (chunk,) = (Path(raw_store.url) / "raw" / "image" / "c" / "8").glob("0/*/*")
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    summary = small_flow(raw_store.url).run(progress=False)
    (problem,) = summary.problems
    assert (problem.step, problem.status) == ("flat_pairs", "failed")
    assert problem.block == {"pair": "9-10", "detector": "S00"}
    assert "ChecksumError" in problem.reason
    assert "raw" in problem.reason
    ptc = raw_store["ptc"].load()
    assert np.isfinite(ptc.gain.sel(detector=list(DETECTORS))).all()


def test_an_exposure_that_lacks_a_detector_is_named_as_what_blocks_its_pair(
    raw_store: Store,
) -> None:
    record = raw_store.read_record("ingest", {"exposure": 9, "detector": "S01"})
    assert record is not None
    raw_store.write_record(replace(record, status="failed", reason="unreadable"))
    plan = small_flow(raw_store.url).plan()
    assert plan.problems() == [
        "flat_pairs: 1 block cannot be made: no raw of exposure 9, detector S01"
    ]


def test_other_lags_do_not_measure_the_darks_again(solved: Store) -> None:
    plan = photon_transfer(solved, {**CONFIGURATION, "extract": {"lags": 4}}).plan()
    found = {step.step.name: step.count("todo") for step in plan.steps}
    assert found == {**BLOCKS, "dark_pairs": 0}


def test_more_lags_than_are_measured_cannot_be_fitted(raw_store: Store) -> None:
    wrong = {**CONFIGURATION, "extract": {"lags": 3}, "solve": {"lags": 4}}
    with pytest.raises(ConfigurationError, match=r"solve\.lags is 4, but only extract\.lags = 3"):
        photon_transfer(raw_store, wrong)


def test_pixels_are_selected_by_their_place_in_the_focal_plane(raw_store: Store) -> None:
    vignetted = {
        **CONFIGURATION,
        # The corner of the detector nearest to the centre of the mosaic is lit best.
        "extract": {"lags": 3, "vignetting": [-40.0, 1.0], "vignetting_min_pixels": 20_000},
        "selection": {"detectors": ["S00"], "exposures": [7, 8]},
    }
    flow = photon_transfer(raw_store, vignetted)
    flow.run(progress=False)
    count = raw_store["flat_pairs"]["count"].sel(detector="S00").values[0]
    assert (count < 256 * 256 - 1000).any()
    assert (count >= 19_000).all()


def test_what_is_missing_altogether_is_said_with_a_remedy(tmp_path: Path, raw_store: Store) -> None:
    empty = create_store(tmp_path / "empty", "generic")
    with pytest.raises(ConfigurationError, match="the camera generic needs a pixel_size"):
        photon_transfer(empty, {"extract": {"vignetting": [-40.0, 1.0]}})
    with pytest.raises(StoreError, match=r"holds no exposures: ingest flats first"):
        photon_transfer(empty)
    with pytest.raises(StoreError, match=r"no two flats .* make a pair \(it has 2 bias\)"):
        photon_transfer(raw_store, {"selection": {"exposures": [1, 2]}})
    with pytest.raises(ConfigurationError, match=r"selection\.detectors: S77 not in .* S00, S01"):
        photon_transfer(raw_store, {"selection": {"detectors": ["S77"]}})
    with pytest.raises(ConfigurationError, match=r"pairs\.mode is flux, but the exposures have no"):
        photon_transfer(raw_store, {"pairs": {"mode": "flux"}})


def test_a_task_stays_within_its_memory_estimate(raw_store: Store) -> None:
    flow = small_flow(raw_store.url)
    flow.run(progress=False)  # compiles and imports
    step = next(step for step in flow.steps if step.name == "flat_pairs")
    context = Context(raw_store, {each.name: each for each in flow.steps}, flow.plan().sources)
    raw = raw_store.records("ingest")
    first, second = (
        raw[block_key({"exposure": exposure, "detector": "S00"})].fingerprint for exposure in (7, 8)
    )
    table = dataset_fingerprint(raw_store.camera.amplifiers("S00"))
    darks = Gathered(digest=1, present=0b111)
    tracemalloc.start()
    outcome = run_block(context, "flat_pairs", ("7-8", "S00"), "", first, second, table, darks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.status == "done", outcome.reason
    assert peak < step.memory_bytes


def test_long_range_covariances_are_kept_beside_what_they_were_subtracted_from(
    raw_store: Store,
) -> None:
    long_range = {"enabled": True, "start": 3, "degree": 1}
    flow = photon_transfer(
        raw_store,
        {
            "selection": {"detectors": ["S00"]},
            "extract": {"lags": 6},
            "solve": {"model": "exact", "lags": 2, "long_range": long_range},
        },
    )
    assert flow.run(progress=False).exit_code == 0
    ptc, measured = raw_store["ptc"].load(), raw_store["flat_pairs"].load()
    background = ptc["covariance_background"].sel(detector="S00")
    assert background.sizes["coefficient"] == 4
    used = ptc["used"].sel(detector="S00")
    assert np.isfinite(background.where(used, drop=True)).any()
    # the constant term is what the polynomial takes from the variance
    taken = (measured["covariance"] - ptc["covariance"]).sel(detector="S00")[..., 0, 0]
    constant = background.isel(coefficient=0)
    np.testing.assert_allclose(
        taken.where(used).values, constant.where(used).values, rtol=1e-9, atol=1e-6
    )


def test_flats_without_a_partner_are_told_before_anything_runs(raw_store: Store) -> None:
    alone = photon_transfer(raw_store, {"selection": {"exclude_exposures": [8]}})
    assert alone.notes == (
        "1 of 23 flats are in no pair (UNPAIRED): take another of its level, or widen pairs.atol",
    )
    assert photon_transfer(raw_store, CONFIGURATION).notes == ()


def test_flats_without_overscan_and_darks_are_told_to_keep_their_offset(tmp_path: Path) -> None:
    camera = load_camera("generic").text.replace(
        "        overscan: {y: [0, 1024], x: [1024, 1056]}\n", ""
    )
    store = create_store(tmp_path / "store", parse_camera(camera, "bare.yaml"))
    for number in (1, 2):
        image = np.full((1024, 1056), 1000.0, np.float32)
        hdu = fits.PrimaryHDU(image, fits.Header({"EXPID": number}))
        hdu.header.update({"OBSTYPE": "flat", "EXPTIME": 1.0})
        hdu.writeto(tmp_path / f"{number}.fits")
    ingest_fits(store, [tmp_path])
    (note,) = photon_transfer(store).notes
    assert note.startswith("no overscan in ccd and no pairs of biases or darks: no offset")
