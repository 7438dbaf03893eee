"""The flows of warps and coadds, from files of a simulated night to averaged patches."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sky_night
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import center_of_mass

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.matching import offset_image
from skyloom.algorithms.skymap import SkyMapParameters, Tract, make_skymap
from skyloom.flows import coadds, detrend, match_backgrounds, warps
from skyloom.flows.report.numbers import number
from skyloom.storage.store import Store, create_store, open_store

EXPOSURES = (14, 15, 16)
SKY_MAP: dict[str, Any] = {
    "kind": "discrete",
    "tracts": [{"right_ascension": 150.0, "declination": 2.0, "radius": 0.04}],
    "pixel_scale": 0.2625,
    "tract_overlap": 0.005,
    "patch_shape": [400, 450],
    "patch_border": 50,
}
WARPS: dict[str, Any] = {"sky_map": SKY_MAP, "selection": {"exposures": EXPOSURES}}


@pytest.fixture(scope="module")
def detrended(sky: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with three detrended exposures of three detectors."""
    night, place = sky
    copy: Path = tmp_path_factory.mktemp("warped") / "store"
    shutil.copytree(place, copy)
    store = open_store(copy)
    sky_night.write_true_calibrations(store, night)
    chosen = {"exposures": EXPOSURES, "detectors": ("S01", "S10", "S11")}
    assert detrend(store, {"selection": chosen}).run(progress=False).exit_code == 0
    return copy


@pytest.fixture(scope="module")
def warped(detrended: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with their warps and coadds."""
    copy = tmp_path_factory.mktemp("coadded") / "store"
    shutil.copytree(detrended, copy)
    store = open_store(copy)
    assert warps(store, WARPS).run(progress=False).exit_code == 0
    assert coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False).exit_code == 0
    return store


def tract() -> Tract:
    return make_skymap(SkyMapParameters.model_validate(SKY_MAP))[0]


def star_of(sky: Any, store: Store) -> tuple[float, float, int, str, float, float]:
    """Return the brightest star well inside a detector: ra, dec, exposure, detector, x, y there."""
    scene = sky[0].scene
    stars = np.flatnonzero(scene["scale"].values == 0)
    order = stars[np.argsort(-scene["flux"].values[0, stars])]
    for index in order:
        ra, dec = (float(scene[name][index]) for name in ("right_ascension", "declination"))
        for exposure in EXPOSURES:
            for detector in ("S01", "S10", "S11"):
                block = {"exposure": exposure, "detector": detector}
                frame = store.read_block("detrended", block, lazy=True)
                projection = WCS(fits.Header(json.loads(str(frame[v.WCS].values))))
                x, y = (float(value) for value in projection.all_world2pix(ra, dec, 0))
                inside = 40 < x < 470 and 40 < y < 470
                near = frame["mask"].isel(
                    y=slice(int(y) - 15, int(y) + 16), x=slice(int(x) - 15, int(x) + 16)
                )
                if inside and not (near.values & v.plane_bits(["SAT", "COSMIC_RAY", "BAD"])).any():
                    return ra, dec, exposure, detector, x, y
    raise AssertionError("no star lies in a detector")


def flux_at(image: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    """Return the flux within 9 pixels above its surroundings, and the centroid (x, y)."""
    rows, columns = np.indices(image.shape)
    radius = np.hypot(rows - y, columns - x)
    level = np.median(image[(radius > 12) & (radius < 15)])
    core = np.where(radius < 9, image - level, 0.0)
    middle = center_of_mass(np.where(core > 0.1 * core.max(), core, 0.0))
    return float(core.sum()), float(middle[1]), float(middle[0])


def test_a_star_keeps_its_flux_and_lies_where_the_tract_says(sky: Any, warped: Store) -> None:
    ra, dec, exposure, detector, x, y = star_of(sky, warped)
    frame = warped.read_block("detrended", {"exposure": exposure, "detector": detector})
    expected, *_ = flux_at(frame["image"].values, x, y)
    grid = tract()
    column, row = (float(value) for value in grid.plane.to_pixels(ra, dec))
    inside = [p for p in grid if p.inner.y_start <= row < p.inner.y_stop]
    (patch,) = [p for p in inside if p.inner.x_start <= column < p.inner.x_stop]
    block: dict[str, Any] = {"visit": exposure, "patch": f"0-{patch.index}"}
    warp = warped.read_block("warps", block)
    place = column - patch.outer.x_start, row - patch.outer.y_start
    flux, found_x, found_y = flux_at(warp["image"].values, *place)
    assert flux == pytest.approx(expected / 60.0, rel=0.01)
    assert (found_x, found_y) == pytest.approx(place, abs=0.1)
    assert warp["image"].attrs["units"] == "electron/s"
    record = warped.read_record("warps", block)
    assert record is not None
    assert 0 < record.quality["covered"] <= 1
    coadd = warped.read_block("coadd", {"physical_filter": "r", "patch": block["patch"]})
    flux, found_x, found_y = flux_at(coadd["image"].values, *place)
    assert (found_x, found_y) == pytest.approx(place, abs=0.1)


def test_neighbouring_patches_agree_where_they_overlap(warped: Store) -> None:
    grid, compared = tract(), 0
    data = warped["coadd"].isel(physical_filter=0).load()
    labels = list(data["patch"].values)
    for label in labels:
        one = grid.patch(int(str(label).split("-")[1]))
        other = grid.patch((one.iy, one.ix + 1)) if one.ix + 1 < grid.grid[1] else None
        if other is None or f"0-{other.index}" not in labels:
            continue
        shared = slice(other.outer.x_start, one.outer.x_stop)
        pieces = []
        for patch in (one, other):
            image = data.sel(patch=f"0-{patch.index}")[["image", "mask", "n_image"]]
            columns = slice(shared.start - patch.outer.x_start, shared.stop - patch.outer.x_start)
            pieces.append(image.isel(x=columns, y=slice(0, patch.outer.shape[0])))
        np.testing.assert_array_equal(*(np.isnan(piece["image"].values) for piece in pieces))
        for name, tolerance in (("image", 2e-3), ("n_image", 0)):
            # Weights come from what each patch sees of a visit.
            values = [piece[name].where(piece["n_image"] == 1).values for piece in pieces]
            np.testing.assert_allclose(*values, rtol=tolerance, atol=1e-3)
            compared += int(np.isfinite(values[0]).sum())
    assert compared > 10_000


def test_pixels_of_a_coadd_are_the_mean_of_its_visits(warped: Store) -> None:
    coadd = warped["coadd"].isel(physical_filter=0).load()
    patch = coadd["patch"].values[int(np.argmax(coadd["n_image"].max(("y", "x")).values))]
    coadd = coadd.sel(patch=patch)
    stack = warped["warps"].sel(patch=patch).load()
    good = (stack["mask"] & v.plane_bits(["NO_DATA", "BAD", "SAT", "EDGE"])) == 0
    weight = coadd["input_weight"].fillna(0.0)
    good = good & np.isfinite(stack["image"])
    total = (weight * good).sum("visit")
    expected = (weight * stack["image"].where(good, 0.0)).sum("visit") / total.where(total > 0)
    assert int(coadd["n_image"].max()) == 3
    np.testing.assert_allclose(coadd["image"], expected, rtol=2e-6)
    np.testing.assert_array_equal(coadd["n_image"], good.sum("visit"))


def test_running_again_does_nothing_and_a_new_visit_extends(
    warped: Store, detrended: Path, tmp_path: Path
) -> None:
    assert warps(warped, WARPS).plan().todo == 0
    assert coadds(warped, {"coadd": {"statistic": "mean"}}).plan().todo == 0
    shutil.copytree(detrended, tmp_path / "store")
    store = open_store(tmp_path / "store")
    fewer = {**WARPS, "selection": {"exposures": EXPOSURES[:2]}}
    assert warps(store, fewer).run(progress=False).exit_code == 0
    assert coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False).exit_code == 0
    plan = warps(store, WARPS).plan()
    assert {labels[0] for labels, b in plan.steps[0].blocks.items() if b.state == "todo"} == {16}
    assert warps(store, WARPS).run(progress=False).exit_code == 0
    assert coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False).exit_code == 0
    xr.testing.assert_identical(
        store["coadd"][["image", "variance", "mask"]].load().drop_attrs(),
        warped["coadd"][["image", "variance", "mask"]].load().drop_attrs(),
    )


def test_the_same_bits_on_processes(detrended: Path, warped: Store, tmp_path: Path) -> None:
    shutil.copytree(detrended, tmp_path / "store")
    store = open_store(tmp_path / "store")
    fewer = {**WARPS, "selection": {"exposures": EXPOSURES[:1]}, "psf": None}
    assert warps(store, fewer).run(scheduler="processes", progress=False).exit_code == 0
    for visit, patch in warps(store, fewer).steps[0].blocks():
        block = {"visit": visit, "patch": patch}
        xr.testing.assert_identical(
            store.read_block("warps", block).drop_attrs(),
            warped.read_block("warps", block).drop_attrs(),
        )


def test_a_flow_without_what_it_needs_says_what_to_do(
    detrended: Path, tmp_path: Path, sky_store: Store
) -> None:
    with pytest.raises(StoreError, match="run the flow detrend first"):
        warps(sky_store)
    with pytest.raises(StoreError, match="run the flow warps first"):
        coadds(sky_store)
    with pytest.raises(StoreError, match="ingest exposures first"):
        warps(create_store(tmp_path / "empty", "simulated-sky"))
    store = open_store(detrended)
    with pytest.raises(ConfigurationError, match=r"zero point of every exposure; 3 have none"):
        warps(store, {"units": "nJy"} | {"sky_map": SKY_MAP})
    elsewhere = {**SKY_MAP, "tracts": [{"right_ascension": 10, "declination": 2, "radius": 0.04}]}
    with pytest.raises(StoreError, match="touches a patch"):
        warps(store, {"sky_map": elsewhere})


def test_an_exposure_without_a_good_pixel_in_a_patch_is_a_warp_without_data(
    detrended: Path, tmp_path: Path
) -> None:
    shutil.copytree(detrended, tmp_path / "store")
    store = open_store(tmp_path / "store")
    for detector in ("S01", "S10", "S11"):
        block = {"exposure": 14, "detector": detector}
        frame, record = store.read_block("detrended", block), store.read_record("detrended", block)
        assert record is not None
        store.write_block("detrended", block, frame.assign(image=frame["image"] * np.nan))
        store.write_record(replace(record, fingerprint="none"))
    chosen = {**WARPS, "selection": {"exposures": EXPOSURES[:1]}}
    flow = warps(store, chosen)
    assert flow.run(progress=False).exit_code == 0
    visit, patch = next(flow.steps[0].blocks())
    warp = store.read_block("warps", {"visit": visit, "patch": patch})
    assert int(warp["status"]) == v.WarpStatus.NO_GOOD_PIXEL
    assert int(warp["good_count"]) == 0
    assert np.isnan(warp["image"]).all()
    assert np.isinf(warp["variance"]).all()
    assert (warp["mask"] == v.MASK_PLANES["NO_DATA"]).all()


MATCH: dict[str, Any] = {"bin_size": 50}


@pytest.fixture(scope="module")
def matched(warped: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store whose coadds are made of matched warps."""
    copy = tmp_path_factory.mktemp("matched") / "store"
    shutil.copytree(warped.url, copy)
    store = open_store(copy)
    assert match_backgrounds(store, MATCH).run(progress=False).exit_code == 0
    assert coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False).exit_code == 0
    return store


def test_matched_visits_agree_far_better_than_before(matched: Store) -> None:
    match = matched["background_match"].isel(physical_filter=0, tract=0).load()
    assert (match["status"] == v.OffsetStatus.OK).all()
    # What is left is the pattern of the detectors, which no plane follows.
    assert float(match["overlap_rms_after"]) < 0.05 * float(match["overlap_rms_before"])
    np.testing.assert_allclose(match["coefficients"].mean("visit"), 0.0, atol=1e-9)
    record = matched.read_record("background_match", {"physical_filter": "r", "tract": 0})
    assert record is not None
    assert record.quality["matched"] == 3


def test_coadds_add_the_offsets_and_show_no_steps(matched: Store, warped: Store) -> None:
    grid = tract()
    match = matched["background_match"].isel(physical_filter=0, tract=0).load()
    match = match.assign_attrs(tract_shape=list(grid.shape))
    after, before = (store["coadd"].isel(physical_filter=0).load() for store in (matched, warped))
    label = str(after["patch"].values[int(np.argmax(after["n_image"].max(("y", "x")).values))])
    patch = grid.patch(int(label.split("-")[1]))
    there = {"y": slice(0, patch.outer.shape[0]), "x": slice(0, patch.outer.shape[1])}
    coadd = after.sel(patch=label).isel(there)
    stack = matched["warps"].sel(patch=label).isel(there).load()
    offsets = xr.concat(
        [offset_image(match, int(visit), patch.outer) for visit in stack["visit"]], "visit"
    )
    image = stack["image"].copy(data=stack["image"].values + offsets.values)
    good = (stack["mask"] & v.plane_bits(["NO_DATA", "BAD", "SAT", "EDGE"])) == 0
    good = good & np.isfinite(image)
    weight = coadd["input_weight"].fillna(0.0)
    total = (weight * good).sum("visit")
    expected = (weight * image.where(good, 0.0)).sum("visit") / total.where(total > 0)
    np.testing.assert_allclose(coadd["image"], expected, rtol=3e-6)
    scatter = [
        float((data.sel(patch=label)["image"]).quantile([0.16, 0.84]).diff("quantile").squeeze())
        for data in (before, after)
    ]
    assert scatter[1] < 0.3 * scatter[0]


def test_a_new_visit_is_binned_alone(detrended: Path, matched: Store, tmp_path: Path) -> None:
    shutil.copytree(detrended, tmp_path / "store")
    store = open_store(tmp_path / "store")
    for exposures in (EXPOSURES[:2], EXPOSURES):
        chosen = {**WARPS, "selection": {"exposures": exposures}}
        assert warps(store, chosen).run(progress=False).exit_code == 0
        flow = match_backgrounds(store, MATCH)
        todo = [labels for labels, b in flow.plan().steps[0].blocks.items() if b.state == "todo"]
        assert todo == [(visit, 0) for visit in (EXPOSURES[:2] if exposures[2:] == () else (16,))]
        assert flow.run(progress=False).exit_code == 0
    xr.testing.assert_identical(
        store["background_match"].load().drop_attrs(),
        matched["background_match"].load().drop_attrs(),
    )
    assert match_backgrounds(store, MATCH).plan().todo == 0


def test_matching_that_is_required_and_missing_is_an_error(warped: Store) -> None:
    with pytest.raises(StoreError, match="run the flow match_backgrounds first"):
        coadds(warped, {"match": "required"})
    assert "backgrounds are not matched" in coadds(warped).notes[0]
    with pytest.raises(ConfigurationError, match="joint or reference"):
        match_backgrounds(warped, {"match": {"mode": "reference_bins"}})
    with pytest.raises(ConfigurationError, match="bin_size"):
        match_backgrounds(warped, {"bin_size": 7})


def test_the_reports_show_coverage_matching_and_seams(matched: Store, tmp_path: Path) -> None:
    pages = {}
    for name, flow in (
        ("warps", warps(matched, WARPS)),
        ("match", match_backgrounds(matched, MATCH)),
        ("coadds", coadds(matched)),
    ):
        pages[name] = flow.report(tmp_path / f"{name}.html").read_text()
        assert "could not be drawn" not in pages[name]
        assert "http" not in pages[name].replace("http://www.w3.org", "")
        for exposure in EXPOSURES:
            assert str(exposure) in pages[name]
    assert [page.count("data:image/png") for page in pages.values()] == [2, 5, 2]
    match = matched["background_match"].isel(physical_filter=0, tract=0).load()
    for name in ("overlap_rms_before", "overlap_rms_after"):
        assert number(float(match[name])) in pages["match"]
    assert "the mean of the fields of all visits is zero" in pages["match"]
    assert "None: all visits hang together." in pages["match"]
    assert "neighbour" in pages["coadds"]


def test_a_reference_visit_is_named_with_its_cost(matched: Store, tmp_path: Path) -> None:
    shutil.copytree(matched.url, tmp_path / "store")
    store = open_store(tmp_path / "store")
    flow = match_backgrounds(store, MATCH | {"match": {"mode": "reference"}})
    assert flow.run(progress=False).exit_code == 0
    match = store["background_match"].isel(physical_filter=0, tract=0).load()
    cost = match["reference_cost"]
    reference = int(match["reference_visit"])
    assert reference == int(match["visit"][int(np.argmin(cost.values))])
    page = flow.report(tmp_path / "page.html").read_text()
    assert f"matched to the reference visit {reference}" in page
    assert "the reference</td>" in page.replace(" </td>", "</td>")
