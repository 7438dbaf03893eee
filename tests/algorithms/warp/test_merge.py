"""Merged warps: identities, overlaps, order, failures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from skyloom.algorithms.warp import WarpParameters, merge_warps, warp_exposure
from tests.algorithms.warp.scenes import exposure_of, plane

PLANE = v.MASK_PLANES
BOX = (0, 60, 0, 150)


def detector(index, x, *, turn=0.0, seed=None, box=BOX, **options):
    """Return the warp of a detector whose first pixel lies at a column of the tract."""
    rng = np.random.default_rng(index if seed is None else seed)
    mask = np.where(rng.random((60, 60)) < 0.03, PLANE["BAD"], 0) | PLANE["SUSPECT"] * (index % 2)
    exposure = exposure_of(
        rng.normal(100, 5, (60, 60)), rng.uniform(20, 30, (60, 60)), mask, detector=index
    )
    source = plane(turn, center=(30.0, 30.0))
    target = plane(center=(30.0 + x, 30.0))
    return warp_exposure(exposure, source, target._replace(x=30.0), _moved(box, x), **options)


def _moved(box, x):
    return box[0], box[1], box[2] - round(x), box[3] - round(x)


def shared_grid(warp, x):
    """Return a warp as if its grid began ``x`` pixels further on the common tract."""
    box = warp.attrs["box"]
    moved = [box[0], box[1], box[2] + round(x), box[3] + round(x)]
    attrs = {"box": moved, "wcs": {"CRPIX1": 1.0}}
    return warp.assign_coords(x=warp["x"] + round(x)).assign_attrs(attrs)


def row_of_detectors(places=(0, 50, 90), **options):
    return [shared_grid(detector(i, x, **options), x) for i, x in enumerate(places)]


def test_one_warp_is_merged_into_itself():
    (warp,) = row_of_detectors((20,))
    merged = merge_warps([warp])
    for name in ("image", "variance", "mask", "masked_fraction"):
        xr.testing.assert_equal(
            merged[name].drop_vars("visit"), warp[name].drop_vars(["visit", "detector"])
        )
    assert merged.attrs["inputs"] == [0]
    assert int(merged["good_count"]) == int(warp["good_count"])
    assert "detector" not in merged.coords
    assert merged["visit"].item() == 12


def test_overlaps_are_weighted_by_inverse_variance_and_the_rest_is_copied():
    warps = row_of_detectors()
    merged = merge_warps(warps)
    image, variance, mask = (
        np.stack([warp[name].values for warp in warps]) for name in ("image", "variance", "mask")
    )
    good = np.isfinite(image)
    weight = np.where(good, 1.0 / variance.astype(float), 0.0)
    number = good.sum(axis=0)
    assert (number == 2).sum() > 500
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(good, weight * image, 0.0).sum(axis=0) / weight.sum(axis=0)
        spread = 1.0 / weight.sum(axis=0)
    np.testing.assert_allclose(merged["image"], mean, rtol=1e-6)
    np.testing.assert_allclose(merged["variance"], spread, rtol=1e-6)
    single = number == 1
    np.testing.assert_array_equal(
        merged["image"].values[single], np.where(good, image, 0).sum(axis=0)[single]
    )
    used = np.bitwise_or.reduce(np.where(good, mask, 0))
    lost = np.bitwise_or.reduce(mask)
    np.testing.assert_array_equal(merged["mask"], np.where(number > 0, used, lost))
    assert ((merged["mask"].values & PLANE["NO_DATA"]) != 0).sum() == (number == 0).sum()
    assert np.isposinf(merged["variance"].values[number == 0]).all()


def test_the_order_of_detectors_changes_no_bit():
    wanted = WarpParameters(noise_realizations=1)
    warps = row_of_detectors((0, 20, 30, 40), parameters=wanted)
    expected = merge_warps(warps)
    for order in itertools.permutations(warps):
        xr.testing.assert_identical(merge_warps(order), expected)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_cut_warps_are_merged_like_whole_ones(data):
    warps = row_of_detectors()
    expected = merge_warps(warps, box=BOX)
    cut = []
    for warp in warps:
        known = np.argwhere(np.isfinite(warp["image"].values))
        low, high = known.min(axis=0), known.max(axis=0) + 1
        y = data.draw(st.integers(0, int(low[0]))), data.draw(st.integers(int(high[0]), 60))
        x = data.draw(st.integers(0, int(low[1]))), data.draw(st.integers(int(high[1]), 150))
        part = warp.isel(y=slice(*y), x=slice(*x))
        cut.append(part.assign_attrs(box=[*y, *x]))
    merged = merge_warps(cut, box=BOX)
    for name in ("image", "variance", "masked_fraction"):
        xr.testing.assert_equal(merged[name], expected[name])


def test_lazy_warps_give_the_same_and_nothing_changes():
    warps = row_of_detectors(parameters=WarpParameters(noise_realizations=2))
    before = [warp.copy(deep=True) for warp in warps]
    merged = merge_warps(warps)
    assert merged["noise"].dims == ("realization", "y", "x")
    for warp, kept in zip(warps, before, strict=True):
        xr.testing.assert_identical(warp, kept)
    xr.testing.assert_identical(merge_warps(warp.chunk({"y": 13}) for warp in warps), merged)


def test_merged_noise_has_the_merged_variance():
    wanted = WarpParameters(noise_realizations=3)
    merged = merge_warps(row_of_detectors((0, 20, 40), parameters=wanted))
    pulls = merged["noise"] / np.sqrt(merged["variance"])
    # its variance is the median one, and pixels have from 20 to 30
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.04)


def test_a_pixel_without_variance_outweighs_others():
    warps = row_of_detectors((0, 0))
    warps[0]["variance"] = warps[0]["variance"] * np.float32(0.0)
    merged = merge_warps(warps)
    good = np.isfinite(warps[0]["image"].values) & np.isfinite(warps[0]["variance"].values)
    np.testing.assert_allclose(
        merged["image"].values[good], warps[0]["image"].values[good], rtol=1e-6
    )


def test_no_warp_is_an_error_and_nothing_good_a_code():
    with pytest.raises(NoUsableDataError, match="no warp"):
        merge_warps([])
    missing = warp_exposure(
        exposure_of(np.ones((60, 60))), plane(), plane(center=(5000.0, 50.0)), BOX
    )
    merged = merge_warps([missing, missing])
    assert int(merged["status"]) == v.WarpStatus.NO_OVERLAP
    assert list(merged.data_vars) == ["status"]
    (warp,) = row_of_detectors((20,))
    empty = warp.assign(image=warp["image"] * np.float32(np.nan))
    merged = merge_warps([empty])
    assert int(merged["status"]) == v.WarpStatus.NO_GOOD_PIXEL
    assert "image" not in merged
    assert merged.attrs["inputs"] == []


def test_a_detector_that_misses_the_patch_changes_nothing():
    warps = row_of_detectors()
    other = xr.Dataset(coords={"visit": 12, "detector": 9}, attrs={"wcs": {"CRPIX1": 1.0}})
    other["status"] = np.uint8(v.WarpStatus.NO_OVERLAP)
    merged = merge_warps([other, *warps])
    xr.testing.assert_equal(merged["image"], merge_warps(warps)["image"])
    assert merged.attrs["inputs"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda warp: warp.assign_coords(visit=13), ConfigurationError, "visit"),
        (lambda warp: warp.assign_attrs(wcs={"CRPIX1": 2.0}), GeometryError, "grids"),
        (lambda warp: warp.assign_attrs(box=[0, 60, 0, 99]), GeometryError, "cannot have the box"),
        (
            lambda warp: warp.assign(image=warp["image"].assign_attrs(units="adu")),
            ConfigurationError,
            "units",
        ),
    ],
)
def test_warps_that_do_not_belong_together_are_refused(change, error, text):
    one, other = row_of_detectors((0, 20))
    with pytest.raises(error, match=text):
        merge_warps([one, change(other)])
    with pytest.raises(GeometryError, match="pixels in it"):
        merge_warps([one], box=(5, 5, 0, 1))


def test_one_warp_after_the_other_merges_into_the_same_bits():
    options = {"parameters": WarpParameters(noise_realizations=2)}
    warps = row_of_detectors((0, 50, 50, 90), **options)  # three overlap
    attrs = {name: warps[0].attrs[name] for name in ("box", "wcs")}
    missed = detector(4, 300).assign_attrs(attrs)
    assert "image" not in missed
    before = [warp.copy(deep=True) for warp in warps]
    for box in (BOX, (10, 55, 20, 60), (-5, 70, -20, 400), (200, 210, 0, 10)):
        merged = merge_warps(iter([*warps, missed]), box=box, in_order=True)
        xr.testing.assert_identical(merged, merge_warps([missed, *warps], box=box))
    for warp, old in zip(warps, before, strict=True):
        xr.testing.assert_identical(warp, old)
    alone = merge_warps(iter([missed]), box=BOX, in_order=True)
    xr.testing.assert_identical(alone, merge_warps([missed], box=BOX))


def test_warps_that_are_not_in_order_are_refused():
    warps = row_of_detectors()
    with pytest.raises(ValueError, match="not in the order of their detectors"):
        merge_warps(warps[::-1], box=BOX, in_order=True)
    with pytest.raises(ValueError, match="box must be given"):
        merge_warps(warps, in_order=True)
    with pytest.raises(ConfigurationError, match="must have the same planes"):
        merge_warps([warps[0], warps[1].drop_vars("masked_fraction")], box=BOX, in_order=True)
    with pytest.raises(NoUsableDataError, match="no warp"):
        merge_warps(iter([]), box=BOX, in_order=True)
