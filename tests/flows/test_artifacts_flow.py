"""Artifacts in coadds: from frames with a satellite, cosmic rays and a moving object to the patch.

The same frames without them, averaged, are what the coadd should be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tract_scene as scene
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import StoreError
from skyloom.algorithms.psf import evaluate_psf, psf_at_points
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.flows import coadds, warps
from skyloom.storage.store import Store

Floats = NDArray[np.float64]
VISITS, SIDE, FRAME, STARS = 8, 240, 320, 30
SKY = 900.0  # electron
SKY_MAP = scene.sky_map(SIDE, SIDE, 0.25)
BETA = 3.5


class Made(NamedTuple):
    """Stores of frames with artifacts and without, and the truth."""

    dirty: Store
    clean: Store
    x: Floats
    y: Floats
    flux: Floats
    seeing: Floats


def artifacts(visit: int, plane: TangentPlane, width: float) -> Floats:
    """Return what only one exposure shows: a trail, cosmic rays, an asteroid where it is then."""
    image = np.zeros((FRAME, FRAME))
    rows, columns = np.indices(image.shape)
    if visit == 1:
        distance = (columns - 150.0) * np.sin(0.6) - (rows - 140.0) * np.cos(0.6)
        image += 600.0 * np.exp(-0.5 * (distance / (width / 2.3548)) ** 2)
    if visit == 2:
        rng = np.random.default_rng(6)
        for row, column in rng.integers(70, FRAME - 70, (6, 2)):
            image[row, column : column + 3] += 3000.0
            image[row + 1, column + 1 : column + 5] += 2000.0
    ra, dec = scene.tract_of(SKY_MAP).plane.to_sky(40.0 + 20.0 * visit, 60.0 + 14.0 * visit)
    x, y = plane.to_pixels(ra, dec)
    asteroid = scene.moffat_stars(
        image.shape, np.atleast_1d(x), np.atleast_1d(y), np.array([3e4]), width, BETA
    )
    return image + asteroid


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    rng = np.random.default_rng(5)
    tract = scene.tract_of(SKY_MAP)
    x, y = rng.uniform(10, SIDE - 10, (2, STARS))
    flux = rng.uniform(1e4, 1.5e5, STARS)
    seeing = rng.uniform(2.9, 4.6, VISITS)
    middles = SIDE / 2 + rng.uniform(-12, 12, (VISITS, 2))
    turns = rng.uniform(-20, 20, VISITS)
    planes = {
        visit: scene.frame_plane(
            tract, (FRAME, FRAME), (middles[visit - 1][0], middles[visit - 1][1]), turns[visit - 1]
        )
        for visit in range(1, VISITS + 1)
    }

    def frame(visit: int, plane: TangentPlane, spoilt: bool) -> tuple[Floats, Floats]:
        shape, width = (FRAME, FRAME), float(seeing[visit - 1])
        star_x, star_y = plane.to_pixels(*tract.plane.to_sky(x, y))
        light = SKY + scene.moffat_stars(shape, star_x, star_y, flux, width, BETA)
        noise = np.random.default_rng(100 + visit).standard_normal(shape)
        image = light + np.sqrt(light) * noise
        return image + (artifacts(visit, plane, width) if spoilt else 0.0), light

    folder = tmp_path_factory.mktemp("artifacts")
    stores = [
        scene.make_store(
            folder / name,
            planes,
            (FRAME, FRAME),
            lambda visit, plane, spoilt=spoilt: frame(visit, plane, spoilt),
        )
        for name, spoilt in (("dirty", True), ("clean", False))
    ]
    for store in stores:
        assert warps(store, {"sky_map": SKY_MAP}).run(progress=False).exit_code == 0
    return Made(stores[0], stores[1], x, y, flux, seeing)


@pytest.fixture(scope="module")
def images(made: Made) -> dict[str, xr.Dataset]:
    """Return the coadds: of frames as they are, without artifacts, and of clean frames."""
    found = {}
    plain: dict[str, Any] = {"coadd": {"statistic": "mean"}}
    for name, store, chosen in (
        ("dirty", made.dirty, plain),
        ("rejected", made.dirty, {"artifacts": {}}),
        ("clean", made.clean, plain),
    ):
        assert coadds(store, chosen).run(progress=False).exit_code == 0
        found[name] = store.read_block("coadd", {"physical_filter": "r", "patch": "0-0"})
    return found


def covered(one: xr.Dataset) -> NDArray[np.bool_]:
    return np.asarray(one["n_image"].values >= VISITS - 1)


def test_the_psf_of_every_exposure_is_measured(made: Made) -> None:
    for visit in range(1, VISITS + 1):
        block = {"exposure": visit, "detector": "ccd"}
        psf = made.clean.read_block("psf", block)
        assert int(psf["psf_status"][0]) == v.PsfStatus.OK
        assert float(psf["fwhm"][0]) == pytest.approx(made.seeing[visit - 1], rel=0.01)
        warp = made.clean.read_block("warp_psf", {"visit": visit, "patch": "0-0"})
        assert float(warp["fwhm"][0]) == pytest.approx(made.seeing[visit - 1], rel=0.03)
        assert float(warp["psf"][0].sum()) == pytest.approx(1.0, abs=1e-5)


def test_trail_rays_and_moving_object_leave_no_trace_in_the_coadd(
    images: dict[str, xr.Dataset],
) -> None:
    dirty, rejected, clean = (images[name] for name in ("dirty", "rejected", "clean"))
    noise = np.sqrt(clean["variance"].values)
    here = np.isfinite(rejected["image"].values) & (clean["n_image"].values == VISITS)
    before, after = (
        np.where(here, (one["image"] - clean["image"]).values / noise, 0.0)
        for one in (dirty, rejected)
    )
    spoilt = before > 5.0
    assert spoilt.sum() > 1000
    clipped = (rejected["mask"].values & v.MASK_PLANES["CLIPPED"]) != 0
    assert clipped[spoilt].mean() > 0.99
    # A visit less is noise of its own: what is left of it is no larger than that.
    assert np.sqrt(np.mean(after[spoilt] ** 2)) < 0.6
    assert np.abs(after[spoilt].mean()) < 0.05
    assert np.sqrt(np.mean(before[spoilt] ** 2)) > 8.0
    assert clipped[here].mean() < 4.0 * spoilt[here].mean()


def test_stars_keep_their_flux(made: Made, images: dict[str, xr.Dataset]) -> None:
    tract = scene.tract_of(SKY_MAP)
    outer = tract.patch(0).outer
    rejected, clean = images["rejected"], images["clean"]
    rows, columns = np.indices(clean["image"].shape)
    differences, errors = [], []
    for x, y, flux in zip(made.x, made.y, made.flux, strict=True):
        near = np.hypot(made.x - x, made.y - y)
        if np.sort(near)[1] < 18 or not (14 < x < SIDE - 14 and 14 < y < SIDE - 14):
            continue
        inside = np.hypot(columns + outer.x_start - x, rows + outer.y_start - y) < 8
        whole = (rejected["n_image"].values[inside] == VISITS).all()
        if not whole or (rejected["mask"].values[inside] & v.MASK_PLANES["CLIPPED"]).any():
            continue
        sums = [float(one["image"].values[inside].sum()) for one in (rejected, clean)]
        differences.append((sums[0] - sums[1]) * scene.SECONDS / flux)
        errors.append(psf_flux(rejected, x, y, outer) * scene.SECONDS / flux - 1)
    assert len(differences) >= 8
    assert np.abs(differences).max() < 0.001
    # With the point-spread function that the coadd keeps, fluxes are those of the truth.
    assert abs(np.mean(errors)) < 0.005


def psf_flux(one: xr.Dataset, x: float, y: float, outer: Any) -> float:
    """Return the flux of a star by the point-spread function of the coadd."""
    known = np.isfinite(one["fwhm"].values)
    points = psf_at_points(
        one["psf"].values[known], one["point_x"].values[known], one["point_y"].values[known]
    )
    stamp = evaluate_psf(points, x, y)
    radius = 9
    row, column = round(y) - outer.y_start, round(x) - outer.x_start
    cut = slice(row - radius, row + radius + 1), slice(column - radius, column + radius + 1)
    image = one["image"].values[cut].astype(np.float64)
    # The star lies between pixels: its profile is moved there.
    moved = np.fft.fftfreq(stamp.shape[0])
    phase = np.exp(
        -2j * np.pi * (moved[:, None] * (y - round(y)) + moved[None, :] * (x - round(x)))
    )
    profile = np.real(np.fft.ifft2(np.fft.fft2(stamp.values) * phase))
    middle = stamp.shape[0] // 2
    part = slice(middle - radius, middle + radius + 1)
    shape = profile[part, part]
    design = np.stack([shape.ravel(), np.ones(shape.size)], axis=1)
    return float(np.linalg.lstsq(design, image.ravel(), rcond=None)[0][0])


def test_the_product_says_what_was_found_and_with_which_target(
    made: Made, images: dict[str, xr.Dataset]
) -> None:
    rejected = images["rejected"]
    count = rejected["artifact_count"].values
    assert count[0] >= 1  # the trail, and the asteroid
    assert count[1] >= 6
    assert (rejected["artifact_pixels"].values > 0).all()
    record = made.dirty.read_record("coadd", {"physical_filter": "r", "patch": "0-0"})
    assert record is not None
    assert record.quality["artifacts"] == int(count.sum())
    matched = made.dirty["matched_warps"].load()
    assert (matched["match_status"] == v.MatchStatus.OK).all()
    target = float(matched["target_fwhm"].max())
    assert 1.1 * made.seeing.max() < target < 1.2 * made.seeing.max()
    assert float(matched["match_residual"].max()) < 1e-3


def test_again_is_nothing_to_do_and_a_fixed_target_too_narrow_is_told(
    made: Made, images: dict[str, xr.Dataset], tmp_path: Path
) -> None:
    assert coadds(made.dirty, {"artifacts": {}}).plan().todo == 0
    flow = coadds(made.dirty, {"artifacts": {}, "target_fwhm": 4.0})
    assert flow.run(progress=False).exit_code == 0
    block = {"physical_filter": "r", "patch": "0-0"}
    status = made.dirty.read_block("coadd", block)["input_status"].values
    wide = 1.1 * made.seeing > 4.0 * 1.01
    assert (status[wide] == v.InputStatus.NO_MATCHED_WARP).all()
    record = made.dirty.read_record("coadd", block)
    assert record is not None
    assert any("left out of the coadd" in text for text in record.warnings)
    page = flow.report(tmp_path / "page.html").read_text()
    assert "NO_MATCHED_WARP" in page
    assert "could not be drawn" not in page
    assert "FWHM of stars (pixel)" in page
    assert coadds(made.dirty, {"artifacts": {}}).run(progress=False).exit_code == 0


def test_without_point_spread_functions_artifacts_cannot_be_found(
    made: Made, tmp_path: Path
) -> None:
    planes = {1: scene.frame_plane(scene.tract_of(SKY_MAP), (64, 64), (120, 120), 0.0)}
    empty = np.full((64, 64), 100.0)
    store = scene.make_store(tmp_path / "store", planes, (64, 64), lambda *_: (empty, empty))
    assert warps(store, {"sky_map": SKY_MAP, "psf": None}).run(progress=False).exit_code == 0
    with pytest.raises(StoreError, match="run the flow warps"):
        coadds(store, {"artifacts": {}})
    assert warps(store, {"sky_map": SKY_MAP}).run(progress=False).exit_code == 0
    with pytest.raises(StoreError, match=r"no warp of .* has a point-spread function"):
        coadds(store, {"artifacts": {}})
