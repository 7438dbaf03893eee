"""Bad exposures of the sky from frames to coadds: named with a reason, and the rest as without."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.skymap import SkyMapParameters, Tract, make_skymap
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.flows import coadds, match_backgrounds, warps
from skyloom.storage.camera import load_camera, parse_camera
from skyloom.storage.frame_schemas import DETRENDED
from skyloom.storage.projections import projection_text, sky_corners
from skyloom.storage.records import Record
from skyloom.storage.schemas import raw_schema
from skyloom.storage.store import Store, create_store

Floats = NDArray[np.float64]
SIDE, SCALE, SECONDS = 160, 0.25, 30.0
PLACE = (150.0, 2.0)
MATCH: dict[str, Any] = {"bin_size": 20}
PIXELS = ("image", "variance", "mask", "n_image", "weight_sum")


def sky_map(place: tuple[float, float]) -> dict[str, Any]:
    """Return a map of one tract of 2 x 2 patches of 60 pixels."""
    tract = {"right_ascension": place[0], "declination": place[1], "radius": 58 * SCALE / 3600}
    return {
        "kind": "discrete",
        "tracts": [tract],
        "pixel_scale": SCALE,
        "tract_overlap": 0.0,
        "patch_shape": [60, 60],
        "patch_border": 10,
    }


def tract_at(place: tuple[float, float] = PLACE) -> Tract:
    return make_skymap(SkyMapParameters.model_validate(sky_map(place)))[0]


@dataclass(frozen=True)
class Frame:
    """An exposure: where its middle (y, x) lies in the tract, its turn (degree), what is wrong."""

    visit: int
    middle: tuple[float, float] = (60.0, 60.0)
    turn: float = 0.0
    band: str = "r"
    image: float = 1.0
    variance: float = 100.0
    zero_point: float | None = None
    keys: dict[str, Any] | None = field(default=None, hash=False)
    corners: float | None = None


GOOD = tuple(
    Frame(visit, (60.0 + 4 * visit, 62.0 - 3 * visit), 8.0 * visit - 20) for visit in (1, 2, 4, 5)
)


def plane_of(frame: Frame, place: tuple[float, float]) -> TangentPlane:
    """Return the projection of a frame as if the tract lay anywhere else: the same pixels."""
    tract = tract_at(place)
    angle = np.deg2rad(frame.turn)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (SIDE - 1) / 2.0
    away = np.array([tract.plane.x - frame.middle[1], tract.plane.y - frame.middle[0]])
    x, y = turn.T @ away + middle
    return TangentPlane(*place, x, y, tract.plane.matrix @ turn)


def pixels_of(frame: Frame, place: tuple[float, float]) -> Floats:
    """Return noise, a sloping background of each visit, and the same stars in all."""
    tract, plane = tract_at(place), plane_of(frame, place)
    rng = np.random.default_rng(frame.visit)
    rows, columns = np.indices((SIDE, SIDE))
    level = 900.0 + 20.0 * frame.visit + 0.1 * frame.visit * rows - 0.2 * columns
    image = level + 10.0 * rng.standard_normal((SIDE, SIDE))
    stars = np.random.default_rng(0).uniform(5, 115, (2, 12))
    x, y = plane.to_pixels(*tract.plane.to_sky(*stars))
    for star_x, star_y in zip(x, y, strict=True):
        image += 800.0 * np.exp(-0.2 * ((rows - star_y) ** 2 + (columns - star_x) ** 2))
    return image * frame.image


@cache
def camera_text() -> str:
    text = load_camera("generic").text
    for old, new in (
        ("shape: [1024, 1056]", f"shape: [{SIDE}, {SIDE + 32}]"),
        ("{y: [0, 1024], x: [0, 1024]}", f"{{y: [0, {SIDE}], x: [0, {SIDE}]}}"),
        ("{y: [0, 1024], x: [1024, 1056]}", f"{{y: [0, {SIDE}], x: [{SIDE}, {SIDE + 32}]}}"),
    ):
        text = text.replace(old, new)
    return text


def store_of(folder: Path, frames: tuple[Frame, ...], place: tuple[float, float] = PLACE) -> Store:
    """Return a store with frames as if ingest and detrending had made them."""
    store = create_store(folder, parse_camera(camera_text(), "the camera of bad skies"))
    labels: dict[str, Any] = {
        v.EXPOSURE: sorted(frame.visit for frame in frames),
        v.DETECTOR: ["ccd"],
    }
    store.prepare(raw_schema("uint16"), labels, sizes={v.Y: SIDE, v.X: SIDE + 32})
    store.prepare(DETRENDED, {**labels, v.AMP: ["A"]}, sizes={v.Y: SIDE, v.X: SIDE})
    for frame in frames:
        keys = plane_of(frame, place).header() if frame.keys is None else frame.keys
        headers: dict[str, Any] = {
            "exposure_time": SECONDS,
            "observation_type": v.SCIENCE,
            "mjd_start": 60000.0 + frame.visit / 100.0,
            v.FILTER: frame.band,
        }
        if frame.zero_point is not None:
            headers["zero_point"] = frame.zero_point
        known = dict(headers)
        if frame.corners is not None:
            known["sky_corners"] = np.full((4, 2), frame.corners).tolist()
        elif keys:
            known["sky_corners"] = sky_corners(
                plane_of(frame, place).header(), (SIDE, SIDE)
            ).tolist()
        block = {v.EXPOSURE: frame.visit, v.DETECTOR: "ccd"}
        store.write_record(Record("ingest", block, "done", headers=known, fingerprint="raw"))
        dims, image = (v.Y, v.X), pixels_of(frame, place).astype(np.float32)
        data = xr.Dataset(
            {
                "image": (dims, image, {"units": v.ELECTRON}),
                "variance": (
                    dims,
                    np.full_like(image, frame.variance),
                    {"units": v.ELECTRON2},
                ),
                v.MASK: (dims, np.zeros(image.shape, np.int32), v.mask_attributes()),
            },
            coords={name: ((), value) for name, value in headers.items()},
        )
        if keys:
            data = data.assign_coords({v.WCS: ((), projection_text(keys))})
        store.write_block("detrended", block, data)
        store.write_record(Record("detrended", block, "done", fingerprint=str(frame)))
    return store


def run(
    store: Store, place: tuple[float, float] = PLACE, exit_code: int = 0, **options: Any
) -> Any:
    """Run the three flows; return the summary of the first."""
    summary = warps(store, {"sky_map": sky_map(place), "psf": None, **options}).run(progress=False)
    assert summary.exit_code == exit_code, str(summary)
    assert match_backgrounds(store, MATCH).run(progress=False).exit_code == 0
    assert coadds(store).run(progress=False).exit_code == 0
    return summary


def products(store: Store, band: str = "r", visits: tuple[int, ...] = (1, 2, 4, 5)) -> xr.Dataset:
    """Return coadds and the fields of some visits, as numbers to compare."""
    coadd = store["coadd"].sel(physical_filter=band)[[*PIXELS, "input_weight"]].load()
    match = store["background_match"].sel(physical_filter=band, tract=0)
    found = match[["coefficients", "status"]].sel(visit=list(visits)).load()
    both = xr.merge([coadd.sel(visit=list(visits)), found], compat="override")
    return both.drop_attrs().drop_vars(["done"], errors="ignore").reset_coords(drop=True)


def same(one: xr.Dataset, other: xr.Dataset) -> None:
    xr.testing.assert_equal(one.drop_vars("patch"), other.drop_vars("patch"))


def status_of(store: Store, visit: int) -> tuple[v.OffsetStatus, set[v.InputStatus]]:
    """Return what became of a visit in matching and in coadds."""
    match = store["background_match"].isel(physical_filter=0, tract=0)["status"]
    inputs = store["coadd"].isel(physical_filter=0)["input_status"]
    told = np.unique(inputs.sel(visit=visit).values).tolist()
    return v.OffsetStatus(int(match.sel(visit=visit))), {
        v.InputStatus(code) for code in told if code != 255
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Return what the good exposures alone become."""
    store = store_of(tmp_path_factory.mktemp("good") / "store", GOOD)
    run(store)
    found = products(store)
    assert (found["status"] == v.OffsetStatus.OK).all()
    assert int(found["n_image"].max()) == 4
    return found


HEADER = plane_of(Frame(20), PLACE).header()
BAD = (
    Frame(20, keys={}),
    Frame(21, corners=np.nan),
    Frame(22, corners=95.0),
    Frame(23, corners=40.0),
    Frame(24, keys=HEADER | {"CD1_1": 0.0, "CD1_2": 0.0}),
    Frame(25, keys=HEADER | {"CTYPE1": "RA---XYZ"}),
    Frame(26, (60.0, 900.0)),
    Frame(27, image=np.nan),
    Frame(28, variance=0.0),
    Frame(29, variance=-1.0),
    Frame(30, variance=np.inf),
)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Any, tuple[str, ...]]:
    """Return a store of good and bad exposures, what the flow warps said, and its notes."""
    store = store_of(tmp_path_factory.mktemp("bad") / "store", (*GOOD, *BAD))
    notes = warps(store, {"sky_map": sky_map(PLACE), "psf": None}).notes
    return store, run(store, exit_code=1), notes


def test_the_rest_is_as_without_bad_exposures(spoilt: Any, clean: xr.Dataset) -> None:
    same(products(spoilt[0]), clean)


def test_exposures_without_a_usable_place_are_left_out_by_name(spoilt: Any) -> None:
    store, _, notes = spoilt
    told = "\n".join(notes)
    assert "2 of 15 pairs of exposure and detector have no world coordinate system" in told
    assert "(22, 'ccd') are left out: 4 corners without a position" in told
    assert "(23, 'ccd') are left out: no area" in told
    assert not {20, 21, 22, 23, 26} & set(store.labels("warps")[v.VISIT])


def test_a_projection_that_turns_out_illegal_fails_its_warps_only(spoilt: Any) -> None:
    store, summary, _ = spoilt
    failed = [r for r in store.records("warps").values() if r.status == "failed"]
    assert {record.block[v.VISIT] for record in failed} == {24, 25}
    for record in failed:
        assert f"the WCS of exposure {record.block[v.VISIT]}, detector ccd" in record.reason
        assert record.reason in str(summary)


def test_exposures_without_numbers_have_no_data_or_no_weight(spoilt: Any) -> None:
    store = spoilt[0]
    warp = store.read_block("warps", {v.VISIT: 27, v.PATCH: "0-0"})
    assert int(warp["status"]) == v.WarpStatus.NO_GOOD_PIXEL
    for visit in (27, 28, 29, 30):
        assert status_of(store, visit) == (v.OffsetStatus.NO_DATA, {v.InputStatus.NO_OFFSET})
    inputs = store["coadd"].sel(visit=[27, 28, 29, 30])
    assert (inputs["input_weight"] == 0).all()
    # nor does a visit count whose background nobody looked at
    plain = coadds(store, {"match": "none"})
    assert plain.run(progress=False).exit_code == 0
    told = {visit: status_of(store, visit)[1] for visit in (27, 28, 29, 30)}
    assert told.pop(28) == {v.InputStatus.BAD_VARIANCE}
    assert all(codes == {v.InputStatus.NO_DATA} for codes in told.values())


def test_a_store_of_exposures_without_a_projection_says_so(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", (Frame(3, keys={}),))
    with pytest.raises(StoreError, match="no world coordinate system"):
        warps(store, {"sky_map": sky_map(PLACE)})


@pytest.mark.parametrize("place", [(0.0, 2.0), (30.0, -90.0)])
def test_coadds_are_the_same_across_right_ascension_zero_and_at_a_pole(
    clean: xr.Dataset, tmp_path: Path, place: tuple[float, float]
) -> None:
    store = store_of(tmp_path / "store", GOOD, place)
    run(store, place)
    found = products(store)
    for name in ("image", "variance", "coefficients"):
        np.testing.assert_allclose(found[name], clean[name], rtol=2e-5, atol=1e-4)
    for name in ("n_image", "status"):
        np.testing.assert_array_equal(found[name], clean[name])


def test_filters_do_not_meet(clean: xr.Dataset, tmp_path: Path) -> None:
    others = tuple(replace(frame, visit=frame.visit + 10, band="g") for frame in GOOD[:2])
    store = store_of(tmp_path / "store", (*GOOD, *others))
    run(store)
    same(products(store), clean)
    alone = store_of(tmp_path / "alone", others)
    run(alone)
    same(products(store, "g", (11, 12)), products(alone, "g", (11, 12)))


def test_units_are_those_that_all_exposures_can_have(clean: xr.Dataset, tmp_path: Path) -> None:
    frames = (*GOOD, Frame(3, (60.0, 900.0), zero_point=28.0))
    store = store_of(tmp_path / "store", frames)
    with pytest.raises(ConfigurationError, match="zero point of every exposure; 4 have none"):
        warps(store, {"sky_map": sky_map(PLACE), "units": "nJy"})
    run(store)
    assert store["coadd"]["image"].attrs["units"] == "electron/s"
    same(products(store), clean)


def test_other_units_are_made_anew_throughout(clean: xr.Dataset, tmp_path: Path) -> None:
    frames = tuple(replace(frame, zero_point=31.4) for frame in GOOD)
    store = store_of(tmp_path / "store", frames)
    run(store, units="electron/s")
    assert store["coadd"]["image"].attrs["units"] == "electron/s"
    run(store)
    for product, name in (("coadd", "image"), ("background_match", "coefficients")):
        assert store[product][name].attrs["units"] == "nJy"
    same(products(store), clean)


def test_an_exposure_that_overlaps_no_other_keeps_its_own_level(
    clean: xr.Dataset, tmp_path: Path
) -> None:
    left = tuple(replace(frame, middle=(frame.middle[0], -30.0)) for frame in GOOD[:2])
    apart = Frame(3, (60.0, 160.0))
    alone = store_of(tmp_path / "alone", left)
    run(alone)
    both = store_of(tmp_path / "both", (*left, apart))
    run(both)
    one, other = (products(store, visits=(1, 2)) for store in (alone, both))
    np.testing.assert_array_equal(one["coefficients"], other["coefficients"])
    assert status_of(both, 3) == (v.OffsetStatus.ISOLATED, {v.InputStatus.OK})

    chosen = {**MATCH, "match": {"mode": "reference", "reference_visit": 1}}
    assert match_backgrounds(both, chosen).run(progress=False).exit_code == 0
    assert coadds(both).run(progress=False).exit_code == 0
    told = v.OffsetStatus.NO_REFERENCE_OVERLAP, {v.InputStatus.NO_OFFSET}
    assert status_of(both, 3) == told
    match = both["background_match"].isel(physical_filter=0, tract=0)
    assert (match["status"].sel(visit=[1, 2]) == v.OffsetStatus.OK).all()


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", GOOD[:2])
    run(store)
    chosen = {**MATCH, "match": {"mode": "reference", "reference_visit": 9}}
    summary = match_backgrounds(store, chosen).run(progress=False)
    assert "the reference visit 9 is not among [1, 2]" in str(summary)


def test_an_exposure_that_is_there_twice_counts_once_or_as_two(
    clean: xr.Dataset, tmp_path: Path
) -> None:
    store = store_of(tmp_path / "store", GOOD)
    run(store, selection={"exposures": [1, 1, 2, 4, 5, 5]})
    same(products(store), clean)
    with pytest.raises(ValueError, match="exposure"):
        store_of(tmp_path / "twice", (*GOOD, GOOD[0]))
