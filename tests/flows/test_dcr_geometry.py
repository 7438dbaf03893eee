"""Chromatic coadds of visits that tell little, and of bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dcr_scene
import numpy as np
import pytest
import xarray as xr
from dcr_scene import FILTER, DcrScene
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows import dcr_coadds
from skyloom.flows.templates import template
from skyloom.storage.records import Record
from skyloom.storage.store import Store

BANDS = {FILTER: dcr_scene.BAND}
BLOCK = {v.FILTER: FILTER, v.PATCH: "0-0"}
SMALL: dict[str, Any] = {"side": 64, "patch": 64, "stars": 6}


def solved(store: Store, **dcr: Any) -> tuple[xr.Dataset, Record]:
    """Run the flow; return the model of the patch and its record."""
    summary = dcr_coadds(store, {"bands": BANDS, "dcr": dcr}).run(progress=False)
    assert summary.exit_code == 0, str(summary)
    record = store.read_record("dcr", BLOCK)
    assert record is not None
    return store.read_block("dcr", BLOCK), record


def colour(scene: DcrScene, block: xr.Dataset) -> float:
    """Return the largest first moment of a star, in units of the band, without the level."""
    planes = block["model"].values - float(block["sky_level"]) / 3.0
    y, x = np.indices(planes.shape[1:])
    moments = []
    for at_y, at_x in zip(scene.stars.y, scene.stars.x, strict=True):
        flux = planes[:, np.hypot(y - at_y, x - at_x) < 6.0].sum(axis=1)
        moments.append((flux[2] - flux[0]) / (3.0 * flux.sum()))
    return float(np.abs(moments).max())


# Hour angles, declination and expected status: all visits alike, one airmass at one angle but for
# a little, and all so near to the zenith that nothing is moved.
@pytest.mark.parametrize("solver", ["linear", "iterative"])
@pytest.mark.parametrize(
    ("angles", "declination"),
    [([40.0] * 4, -12.0), ([40.0, 40.3, 40.6, 40.9], -12.0), ([-0.6, -0.2, 0.2, 0.6], -30.2)],
    ids=["identical", "one airmass", "zenith"],
)
def test_visits_that_hardly_differ_are_warned_of_and_give_no_colour(
    tmp_path: Path, solver: str, angles: list[float], declination: float
) -> None:
    scene = DcrScene(angles, declination=declination, **SMALL)
    store = scene.make(tmp_path / "store")
    block, record = solved(store, solver=solver)
    text = next(one for one in record.warnings if one.startswith("DegenerateGeometryWarning"))
    assert "colours are those of the prior" in text
    assert np.isfinite(block["model"].values).all()
    assert np.isfinite(block["variance"].values).all()
    error = float(block["colour_error"])
    assert error > 0.05
    assert record.quality["colour_error"] == (error if np.isfinite(error) else None)
    if solver == "linear":
        assert colour(scene, block) < 0.03  # true ones reach 0.05
    page = dcr_coadds(store, {"bands": BANDS, "dcr": {"solver": solver}}).report(
        tmp_path / "page.html"
    )
    assert "hardly differ in refraction" in page.read_text()
    place = scene.conditions().isel({v.VISIT: [0]})
    seen = template(
        store, altitude=float(place["altitude"][0]),
        parallactic_angle=float(place["parallactic_angle"][0]),
    )  # fmt: skip
    plain = store.read_block("coadd", BLOCK)["image"].values
    near = scene.stars.near(8.0)[: plain.shape[0], : plain.shape[1]]
    truth = scene.truth()[0][: plain.shape[0], : plain.shape[1]]
    left, coadded = ((truth - one)[near] for one in (seen["image"].values, plain))
    assert left.std() < 2.0 * coadded.std() + dcr_scene.NOISE  # near these visits it holds


def test_a_single_sub_band_of_identical_visits_is_not_warned_of(tmp_path: Path) -> None:
    store = DcrScene([40.0] * 3, **SMALL).make(tmp_path / "store")
    block, record = solved(store, subfilters=1)
    assert not record.warnings
    assert block.sizes[v.SUBFILTER] == 1
    assert np.isfinite(block["model"].values).all()


def test_visits_that_are_mirrored_are_a_bad_fit_and_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mirrored(visit: int, image: NDArray[np.float32], mask: NDArray[np.int32]) -> None:
        image[:] = image[:, ::-1].copy()

    pages = {}
    for name, change in (("right", None), ("wrong", mirrored)):
        scene = DcrScene(dcr_scene.SPREAD, stars=10)
        store = scene.make(tmp_path / name, *([] if change is None else [change]))
        block, record = solved(store)
        said = any("mirrored along x" in one for one in record.warnings)
        assert said == (name == "wrong")
        assert (record.quality["status"] == "BAD_FIT") == (name == "wrong")
        assert float(block["geometry_mirrored"]) == float(name == "wrong")
        assert float(block["geometry_contrast"]) > 25
        assert abs(float(block["geometry_angle"])) < 2.0
        flow = dcr_coadds(store, {"bands": BANDS})
        pages[name] = flow.report(tmp_path / f"{name}.html").read_text()
    assert "displacements seen" in pages["right"]
    assert "mirrored, turned by" in pages["wrong"]
    assert "mirrored" not in pages["right"]
    assert "of 9 rows" not in pages["right"]
    monkeypatch.setattr("skyloom.flows.report.dcr_coadds.MOST_ROWS", 4)
    assert "Visits (the first 4 of 9 rows)" in flow.report(tmp_path / "cut.html").read_text()


def test_visits_that_are_held_out_but_known_to_the_coadd_are_named(tmp_path: Path) -> None:
    notes, said, pages = {}, {}, {}
    for name, without in (("apart", (3, 5)), ("known", (5,))):
        scene = DcrScene(dcr_scene.SPREAD, **SMALL)
        store = scene.make(tmp_path / name, held_out=without)
        flow = dcr_coadds(store, {"bands": BANDS, "held_out": (3, 5)})
        notes[name] = " ".join(flow.notes)
        assert flow.run(progress=False).exit_code == 0
        records = [store.read_record("dcr_scores", {v.VISIT: n, v.PATCH: "0-0"}) for n in (3, 5)]
        said[name] = [bool(record and record.warnings) for record in records]
        pages[name] = flow.report(tmp_path / f"{name}.html").read_text()
    assert "held_out: " not in notes["apart"]
    assert "held_out: visits 3 are part of the coadds" in notes["known"]
    assert "selection.exclude_exposures=[3]" in notes["known"]
    assert said == {"apart": [False, False], "known": [True, False]}
    assert "visit 3 is part of the coadd" in pages["known"]
    assert "is part of the coadd" not in pages["apart"]


def test_cosmic_rays_that_survive_into_one_warp_leave_no_trace(tmp_path: Path) -> None:
    scene = DcrScene(dcr_scene.SPREAD, stars=10)
    places = [(20, 20), (30, 70), (64, 33), (48, 50)]

    def struck(visit: int, image: NDArray[np.float32], mask: NDArray[np.int32]) -> None:
        if visit == 4:
            for y, x in places:
                image[y : y + 3, x : x + 2] += 40 * dcr_scene.NOISE

    hit, record = solved(scene.make(tmp_path / "hit", struck))
    clean, _ = solved(scene.make(tmp_path / "clean"))
    assert int(hit["rejected"].sel({v.VISIT: 4})) >= 6 * len(places)
    assert int(hit["rejected"].sum()) == int(hit["rejected"].sel({v.VISIT: 4}))
    assert hit["used"].values.all()
    noise = np.sqrt(clean["variance"].values)
    trace = (hit["model"].values - clean["model"].values) / noise
    for y, x in places:
        assert np.abs(trace[:, y - 3 : y + 6, x - 3 : x + 5]).max() < 3.0
    assert not any("VisitOutlier" in one for one in record.warnings)


def test_a_visit_that_lies_elsewhere_is_fitted_there_and_reported(tmp_path: Path) -> None:
    scene = DcrScene(dcr_scene.SPREAD, stars=10)

    def moved(visit: int, image: NDArray[np.float32], mask: NDArray[np.int32]) -> None:
        if visit == 3:
            image[:] = np.roll(image, 1, axis=1)

    store = scene.make(tmp_path / "store", moved)
    block, record = solved(store)
    assert float(block["offset_x"].sel({v.VISIT: 3})) == pytest.approx(1.0, abs=0.01)
    assert float(block["offset_y"].sel({v.VISIT: 3})) == pytest.approx(0.0, abs=0.01)
    assert any("visits lie elsewhere than the others, 3 by" in one for one in record.warnings)
    page = dcr_coadds(store, {"bands": BANDS}).report(tmp_path / "page.html").read_text()
    assert "fitted at an offset of" in page


def test_weather_that_was_not_recorded_is_named_with_its_visits(tmp_path: Path) -> None:
    flags = v.ConditionFlag.PRESSURE_DEFAULTED | v.ConditionFlag.ALTITUDE_INCONSISTENT
    store = DcrScene([-40.0, 0.0, 40.0], flags=int(flags), **SMALL).make(tmp_path / "store")
    block, record = solved(store)
    assert (
        "DefaultWeatherWarning: the pressure of visits 1, 2, 3 was not recorded: the usual one is "
        "used"
    ) in record.warnings
    assert any(one.startswith("AltitudeWarning: altitude or hour") for one in record.warnings)
    assert (block["condition_flags"].values == int(flags)).all()
    page = dcr_coadds(store, {"bands": BANDS}).report(tmp_path / "page.html").read_text()
    assert "usual weather, headers contradict the time" in page
