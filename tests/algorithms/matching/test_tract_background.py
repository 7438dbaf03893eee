"""Levels of visits in the bins of a tract: every pixel once, with true variances."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.matching import (
    TractBackgroundParameters,
    TractGrid,
    fill_tract_background,
    merge_tract_sums,
    tract_background,
    tract_grid,
    tract_levels,
    tract_sums,
)
from tests.algorithms.matching.tracts import LEGACY, WITH_CELLS, cut_warps, one_warp

MARGIN = 50
SIDE = 1200
GRID = tract_grid(LEGACY, bin_size=25)
SMALL = TractGrid((600, 600), (50, 50), (300, 300))


def noise(seed: int = 0, level: float = 10.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    image = rng.normal(level, 2.0, (SIDE + 2 * MARGIN, SIDE + 2 * MARGIN))
    image[rng.random(image.shape) < 0.01] = np.nan
    return image.astype(np.float32)


def clipped(values: NDArray[np.float64]) -> tuple[float, float, int]:
    """Return clipped mean, its variance and the number used, the plain way."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    center, half = middle, 3 * 0.741301109252802 * (high - low)
    for _ in range(3):
        kept = values[np.abs(values - center) <= half]
        center, half = kept.mean(), 3 * kept.std(ddof=1)
    return kept.mean(), kept.var(ddof=1) / kept.size / 0.969971, kept.size


@pytest.mark.parametrize("tract", [LEGACY, WITH_CELLS], ids=["legacy", "cells"])
def test_each_pixel_counts_in_one_bin(tract: object) -> None:
    image = noise()
    found = tract_background(cut_warps(image, tract), tract_grid(tract, bin_size=25))
    inside = image[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float64)
    blocks = inside.reshape(48, 25, 48, 25).swapaxes(1, 2).reshape(48, 48, -1)
    assert found.sizes == {"visit": 1, "tract_y": 48, "tract_x": 48}
    assert found["count"].sum() == np.isfinite(inside).sum()
    np.testing.assert_array_equal(found["count"][0], np.isfinite(blocks).sum(axis=2))
    for j, i in ((0, 0), (11, 12), (12, 11), (47, 30)):
        level, variance, used = clipped(blocks[j, i][np.isfinite(blocks[j, i])])
        assert float(found["level"][0, j, i]) == pytest.approx(level, rel=1e-6)
        assert float(found["variance"][0, j, i]) == pytest.approx(variance, rel=1e-5)
        assert int(found["count_used"][0, j, i]) == used
    np.testing.assert_array_equal(found["tract_y"], np.arange(48) * 25 + 12.0)
    assert not found["flags"].any()
    assert found["level"].attrs["units"] == "nJy"
    assert found["variance"].attrs["units"] == "nJy2"
    assert {name: array.dtype for name, array in found.data_vars.items()} == {
        "level": np.float32,
        "variance": np.float32,
        "count": np.int32,
        "count_used": np.int32,
        "flags": np.uint8,
    }


def test_the_order_of_warps_does_not_matter() -> None:
    warps = [warp for visit in (3, 1, 2) for warp in cut_warps(noise(visit), LEGACY, visit)]
    there = tract_background(warps, GRID)
    order = np.random.default_rng(1).permutation(len(warps))
    again = tract_background([warps[int(index)] for index in order], GRID)
    xr.testing.assert_identical(there, again)
    assert there["visit"].values.tolist() == [1, 2, 3]


def test_patches_that_a_visit_lacks_are_empty() -> None:
    image = noise()
    warps = [*cut_warps(image, LEGACY, 1)[:4], *cut_warps(image, LEGACY, 2)[4:]]
    found = tract_background(warps, GRID)
    whole = tract_background(cut_warps(image, LEGACY, 1), GRID)
    empty = np.uint8(v.BinFlag.EMPTY | v.BinFlag.BAD_VARIANCE)
    assert (found["flags"][0, 12:] == empty).all()
    assert (found["flags"][1, :12] == empty).all()
    assert found["level"][0, 12:].isnull().all()
    joined = np.where(np.arange(48)[:, None] < 12, found["level"][0], found["level"][1])
    np.testing.assert_array_equal(joined, whole["level"][0])


def test_rejected_pixels_do_not_count_and_objects_do() -> None:
    image = noise()
    mask = np.zeros(image.shape, np.int32)
    mask[MARGIN : MARGIN + 25, MARGIN : MARGIN + 20] = v.MASK_PLANES["SAT"]
    mask[MARGIN : MARGIN + 25, MARGIN + 20 : MARGIN + 25] = v.MASK_PLANES["DETECTED"]
    mask[MARGIN + 25 : MARGIN + 50, MARGIN : MARGIN + 25] = v.MASK_PLANES["NO_DATA"]
    mask[MARGIN + 25 : MARGIN + 48, MARGIN + 25 : MARGIN + 50] = v.MASK_PLANES["COSMIC_RAY"]
    warps = cut_warps(image, LEGACY, mask=mask)
    found = tract_background(warps, GRID).isel(visit=0)
    finite = np.isfinite(image)
    assert (
        int(found["count"][0, 0]) == finite[MARGIN : MARGIN + 25, MARGIN + 20 : MARGIN + 25].sum()
    )
    assert int(found["flags"][1, 0]) == v.BinFlag.EMPTY | v.BinFlag.BAD_VARIANCE
    assert int(found["flags"][1, 1]) == v.BinFlag.LOW_COUNT
    assert np.isfinite(found["level"][1, 1])
    fewer = TractBackgroundParameters(reject=("DETECTED",), min_fraction=0.0)
    other = tract_background(warps, GRID, parameters=fewer).isel(visit=0)
    assert int(other["count"][0, 0]) == finite[MARGIN : MARGIN + 25, MARGIN : MARGIN + 20].sum()
    assert int(other["flags"][1, 1]) == 0
    with pytest.raises(KeyError, match="unknown mask plane 'SATURATED'"):
        tract_background(warps, GRID, parameters=TractBackgroundParameters(reject=("SATURATED",)))


def test_pixels_left_out_are_those_of_every_visit() -> None:
    rng = np.random.default_rng(8)
    objects = rng.random((SIDE + 2 * MARGIN, SIDE + 2 * MARGIN)) < 0.2
    mask = np.where(rng.random(objects.shape) < 0.1, v.MASK_PLANES["SAT"], 0)
    image = noise()
    warps = cut_warps(image, LEGACY, mask=mask)
    exclude = {
        patch: one_warp(objects, LEGACY, patch)["image"].assign_attrs(
            box=list(LEGACY.patch(patch).outer)
        )
        for patch in range(LEGACY.patch_count)
    }
    found = tract_background(warps, GRID, exclude=exclude)
    hidden = np.where(objects, np.float32(np.nan), image)
    expected = tract_background(cut_warps(hidden, LEGACY, mask=mask), GRID)
    xr.testing.assert_identical(found, expected)
    unmasked = [warp.drop_vars("mask") for warp in warps]
    xr.testing.assert_equal(
        tract_background(unmasked, GRID, exclude=exclude),
        tract_background(cut_warps(hidden, LEGACY), GRID),
    )
    whole = xr.DataArray(
        objects, dims=("y", "x"), attrs={"box": [-MARGIN, SIDE + MARGIN, -MARGIN, SIDE + MARGIN]}
    )
    xr.testing.assert_identical(
        tract_sums(warps[5], GRID, exclude=whole), tract_sums(warps[5], GRID, exclude=exclude[5])
    )
    lazy = tract_sums(warps[5].chunk({"y": 100}), GRID, exclude=whole)
    xr.testing.assert_identical(lazy.compute(), tract_sums(warps[5], GRID, exclude=whole))
    with pytest.raises(GeometryError, match="exclude covers"):
        tract_sums(warps[5], GRID, exclude=exclude[6])
    with pytest.raises(GeometryError, match="does not fit"):
        tract_sums(warps[5], GRID, exclude=whole.isel(y=slice(5)))
    with pytest.raises(KeyError, match="no coordinate patch"):
        tract_background([warps[5].drop_vars("patch")], GRID, exclude=exclude)


def test_variances_are_those_of_levels() -> None:
    pulls = []
    for seed in range(4):
        found = tract_background(cut_warps(noise(seed), LEGACY), GRID)
        pulls.append(((found["level"] - 10.0) / np.sqrt(found["variance"])).values.ravel())
    pull = np.concatenate(pulls)
    assert pull.mean() == pytest.approx(0.0, abs=0.05)
    assert pull.std() == pytest.approx(1.0, abs=0.03)


def test_correlated_noise_makes_levels_less_certain_by_the_factor_given() -> None:
    warps = cut_warps(noise(), LEGACY)
    plain = tract_background(warps, GRID)
    given = tract_background(
        warps, GRID, parameters=TractBackgroundParameters(noise_correlation=2.0)
    )
    np.testing.assert_allclose(given["variance"], 2 * plain["variance"], rtol=1e-6)
    carried = [warp.assign_attrs(noise_correlation=2.0) for warp in warps]
    xr.testing.assert_equal(tract_background(carried, GRID), given)
    np.testing.assert_array_equal(given["level"], plain["level"])
    with pytest.raises(ConfigurationError, match="noise_correlation must be >= 1"):
        tract_sums(warps[0].assign_attrs(noise_correlation=0.5), GRID)


def test_variances_of_pixels_may_be_used_instead_of_their_scatter() -> None:
    image = np.nan_to_num(noise(), nan=10.0)
    warps = [
        warp.assign(variance=(("y", "x"), np.full(warp["image"].shape, 9.0, np.float32)))
        for warp in cut_warps(image, LEGACY)
    ]
    chosen = TractBackgroundParameters(statistic="mean", variance_from="input")
    found = tract_background(warps, GRID, parameters=chosen)
    np.testing.assert_allclose(found["variance"], 9.0 / 625, rtol=1e-6)
    with pytest.raises(ConfigurationError, match="needs warps with a variance"):
        tract_background(cut_warps(image, LEGACY), GRID, parameters=chosen)


def test_neighbouring_bins_share_no_pixels() -> None:
    level = tract_background(cut_warps(noise(5), LEGACY), GRID)["level"].values[0]
    for one, two in ((level[1:], level[:-1]), (level[:, 1:], level[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.06


def test_a_wave_of_four_bins_keeps_nine_tenths_of_its_amplitude() -> None:
    x = np.arange(-MARGIN, SIDE + MARGIN)
    wave = np.sin(2 * np.pi * (x - 12.0) / 100.0)
    image = np.broadcast_to(wave, (x.size, x.size))
    found = tract_background(cut_warps(image, LEGACY), GRID)["level"].values[0]
    phases = np.exp(2j * np.pi * np.arange(48) / 4)
    assert 2 * abs((found[20] * phases).mean()) == pytest.approx(0.9003, abs=2e-3)


@pytest.mark.parametrize("side", [(40, 40), (128, 70), (600, 600)])
def test_bins_across_patches_hold_the_pixels_of_all(side: tuple[int, int]) -> None:
    grid = TractGrid(LEGACY.shape, side, LEGACY.inner_shape, True, LEGACY)
    image = noise(2)
    mean = TractBackgroundParameters(statistic="mean")
    warps = cut_warps(image, LEGACY)
    found = tract_background(warps, grid, parameters=mean).isel(visit=0)
    inside = image[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float64)
    for j in range(grid.bins[0]):
        for i in (0, grid.bins[1] // 2, grid.bins[1] - 1):
            part = inside[
                grid.edges[0][j] : grid.edges[0][j + 1], grid.edges[1][i] : grid.edges[1][i + 1]
            ]
            assert int(found["count"][j, i]) == np.isfinite(part).sum()
            assert float(found["level"][j, i]) == pytest.approx(np.nanmean(part), rel=1e-6)
    pieces = [tract_sums(warp, grid, parameters=mean) for warp in warps]
    one = merge_tract_sums(pieces, grid)
    two = merge_tract_sums(
        [merge_tract_sums(pieces[5:], grid), merge_tract_sums(pieces[:5], grid)], grid
    )
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-12)
    assert one.attrs == two.attrs


def test_sums_of_a_patch_give_the_levels_of_the_tract_there() -> None:
    image = noise(4)
    warp = one_warp(image, LEGACY, 6)
    part = tract_levels(tract_sums(warp, GRID), GRID)
    whole = tract_background(cut_warps(image, LEGACY), GRID)
    rows, columns = GRID.slices(LEGACY.patch(6).inner)
    there = whole.isel(tract_y=rows, tract_x=columns)
    for name in part.data_vars:
        np.testing.assert_array_equal(part[name], there[name])
    np.testing.assert_array_equal(part["tract_x"], there["tract_x"])


def test_a_lazy_warp_gives_the_same_lazily() -> None:
    mask = np.where(np.random.default_rng(1).random((SIDE + 100, SIDE + 100)) < 0.1, 1, 0)
    warp = one_warp(noise(), LEGACY, 5, mask=mask)
    lazy = tract_sums(warp.chunk({"y": 100, "x": 130}), GRID)
    assert lazy["sum"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), tract_sums(warp, GRID))
    levels = tract_levels(lazy, GRID)
    assert levels["level"].chunks is not None
    xr.testing.assert_identical(levels.compute(), tract_levels(tract_sums(warp, GRID), GRID))
    chunked = [warp.chunk({"y": 100}) for warp in cut_warps(noise(), LEGACY)]
    xr.testing.assert_identical(
        tract_background(chunked, GRID), tract_background(cut_warps(noise(), LEGACY), GRID)
    )


def test_a_stack_of_visits_is_its_visits() -> None:
    warps = [one_warp(noise(visit), LEGACY, 5, visit) for visit in (1, 2)]
    stacked = xr.concat(warps, "visit", coords="minimal", compat="override", join="override")
    found = tract_background([stacked], GRID)
    xr.testing.assert_identical(found, tract_background(warps, GRID))


def test_without_the_number_of_the_patch_the_middle_of_the_box_tells() -> None:
    warp = one_warp(noise(), LEGACY, 3)
    xr.testing.assert_identical(tract_sums(warp.drop_vars("patch"), GRID), tract_sums(warp, GRID))
    inner = (300, 350, 325, 400)
    part = tract_sums(one_warp(noise(), LEGACY, 5), GRID, inner=inner)
    assert part.attrs["bins"] == [12, 14, 13, 16]
    assert part.attrs["covered"] == [list(inner)]


def test_a_warp_that_covers_part_of_its_patch_counts_as_far_as_it_goes() -> None:
    warp = one_warp(noise(), LEGACY, 5)
    part = warp.isel(y=slice(40, None), x=slice(0, -50)).assign_attrs(
        box=[310, 630, 270, 580], wcs=warp.attrs["wcs"]
    )
    found = tract_background([part], GRID).isel(visit=0)
    assert int((found["count"] > 0).sum()) == 12 * 12
    assert int(found["count"][12].max()) <= 15 * 25
    assert int(found["count"][13, 23]) <= 5 * 25


def test_inputs_are_not_changed() -> None:
    warps = cut_warps(noise(), LEGACY)
    before = [warp.copy(deep=True) for warp in warps]
    attributes = [dict(warp.attrs) for warp in warps]
    found = tract_background(warps, GRID)
    kept = found.copy(deep=True)
    fill_tract_background(found.assign(level=found["level"].where(found["tract_y"] > 100)))
    fill_tract_background(found)
    xr.testing.assert_identical(found, kept)
    for warp, old, attrs in zip(warps, before, attributes, strict=True):
        xr.testing.assert_identical(warp, old)
        assert warp.attrs == attrs


def test_filling_keeps_good_bins_and_says_what_it_filled() -> None:
    found = tract_background(cut_warps(noise(), LEGACY)[4:], GRID)
    level = found["level"].copy()
    level[0, 20, 20] = np.nan
    filled = fill_tract_background(found.assign(level=level))
    assert np.isfinite(filled["level"]).all()
    good = np.isfinite(level.values)
    np.testing.assert_array_equal(filled["level"].values[good], level.values[good])
    assert int(filled["flags"][0, 20, 20]) == v.BinFlag.FILLED
    assert ((filled["flags"].values[0, :12] & v.BinFlag.EXTRAPOLATED) > 0).all()
    assert np.isnan(filled["variance"].values[~good]).all()
    np.testing.assert_array_equal(filled["level"][0, 0], filled["level"][0, 12])
    nothing = found.assign(level=xr.full_like(found["level"], np.nan))
    assert fill_tract_background(nothing)["level"].isnull().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w.assign_coords(tract=5), GeometryError, "lies on tract 5, the grid on 0"),
        (
            lambda w: w.assign_attrs(wcs=w.attrs["wcs"] | {"CRPIX1": 17.0}),
            GeometryError,
            "CRPIX1 is 17.0",
        ),
        (
            lambda w: w.assign_attrs(wcs=w.attrs["wcs"] | {"CTYPE1": "RA---STG"}),
            GeometryError,
            "CTYPE1 is RA---STG",
        ),
        (lambda w: w.assign_attrs(box=[0, 10, 0, 10]), GeometryError, "does not fit"),
        (lambda w: w.assign_attrs(box=[0, 10]), GeometryError, "needs the attribute box"),
        (lambda w: w.assign_coords(patch=15), GeometryError, "nothing of the inner box"),
        (lambda w: w.drop_vars("visit"), KeyError, "needs the coordinate visit"),
        (lambda w: w.drop_vars("image"), KeyError, "no variable image"),
    ],
)
def test_warps_that_do_not_lie_on_the_tract_are_refused(
    change: object, error: type[Exception], message: str
) -> None:
    warp = one_warp(noise(), LEGACY, 0)
    with pytest.raises(error, match=message):
        tract_background([change(warp)], GRID)  # type: ignore[operator]


def test_what_cannot_be_merged_is_refused() -> None:
    one, two = cut_warps(noise(), LEGACY)[:2]
    with pytest.raises(ConfigurationError, match="visit 1 covers pixels twice"):
        tract_background([one, two, one], GRID)
    with pytest.raises(ConfigurationError, match="differ in band: 'r' and 'g'"):
        tract_background([one, two.assign_coords(band="g")], GRID)
    electrons = two.assign(image=two["image"].assign_attrs(units="electron"))
    with pytest.raises(ConfigurationError, match="differ in units"):
        tract_background([one, electrons], GRID)
    with pytest.raises(ConfigurationError, match="no sums of any warp"):
        tract_background([], GRID)
    with pytest.raises(GeometryError, match="bin_size"):
        merge_tract_sums([tract_sums(one, GRID)], tract_grid(LEGACY, bin_size=50))
