"""Saturated regions that grow, defects, gaps that are filled, and cosmic rays."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astroscrappy import detect_cosmics
from scipy.ndimage import binary_dilation
from threadpoolctl import threadpool_info

from skyloom.algorithms.detrend import (
    CosmicRayParameters,
    InterpolationParameters,
    SaturationParameters,
    ScienceDetrendParameters,
    detrend,
    flag_saturation,
    interpolate_pixels,
    mask_defects,
    reject_cosmic_rays,
)
from skyloom.algorithms.detrend.defects import defect_planes
from skyloom.algorithms.detrend.saturation import grow_saturation
from skyloom.algorithms.vocabulary import MASK_PLANES
from tests.algorithms.detrend.frames import read_out

SHAPE = (120, 96)
BAD, SAT, COSMIC_RAY = (MASK_PLANES[name] for name in ("BAD", "SAT", "COSMIC_RAY"))
FILLED = MASK_PLANES["INTERPOLATED"]


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_saturated_regions_grow_by_a_disc(rng, radius):
    found = rng.random((60, 70)) < 0.01
    found[20:30, 40:45] = True
    mask = np.where(found, SAT, 4).astype(np.int32)
    grow_saturation(mask, SaturationParameters(grow=radius))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    expected = binary_dilation(found, y**2 + x**2 <= radius**2)
    np.testing.assert_array_equal((mask & SAT) != 0, expected)
    np.testing.assert_array_equal((mask & 4) != 0, ~found)


def test_bleed_trails_grow_along_their_column_only():
    mask = np.zeros((40, 5), np.int32)
    mask[10:20, 2] = SAT
    mask[5:9, 4] = SAT
    grow_saturation(mask, SaturationParameters(bleed=6, bleed_length=8))
    assert np.flatnonzero(mask[:, 2]).tolist() == list(range(4, 26))
    assert np.flatnonzero(mask[:, 4]).tolist() == [5, 6, 7, 8]
    assert not mask[:, [0, 1, 3]].any()


def test_pile_ups_are_saturated_where_no_level_is_known(table):
    image = np.minimum(np.random.default_rng(1).normal(4000.0, 40.0, SHAPE), 4050.0)
    raw = read_out(image, table, level=0.0, dtype=np.uint16)
    unknown = table.drop_vars("saturation")
    found = flag_saturation(raw, unknown)
    np.testing.assert_array_equal(found == SAT, np.rint(image) == 4050.0)
    off = SaturationParameters(pile_up=False)
    assert not flag_saturation(raw, unknown, parameters=off).any()
    chain = detrend(raw, unknown)
    np.testing.assert_array_equal(chain["mask"], found)
    assert (chain["saturation"] == 4050.0).all()


def exposure(image, mask=None, variance=None, units="electron"):
    data = {"image": (("y", "x"), image, {"units": units})}
    if mask is not None:
        data["mask"] = (("y", "x"), mask.astype(np.int32))
    if variance is not None:
        data["variance"] = (("y", "x"), variance)
    return xr.Dataset(data)


BRIDGE = InterpolationParameters(planes=("BAD",), longest=3)


def test_gaps_in_a_plane_are_filled_exactly(rng):
    y, x = np.indices(SHAPE).astype(np.float64)
    plane = 100.0 + 0.5 * y - 0.25 * x
    mask = np.zeros(SHAPE, np.int32)
    mask[:, 30] = BAD  # a column
    mask[40:43, :] = BAD  # three rows
    mask[60, 60:90] = BAD
    mask[70:73, 70:73] = BAD
    mask[rng.integers(80, 118, 40), rng.integers(1, 95, 40)] = BAD
    image = np.where(mask, np.nan, plane)
    found = interpolate_pixels(exposure(image, mask, np.full(SHAPE, 8.0)), parameters=BRIDGE)
    filled = (found["mask"].values & FILLED) != 0
    # where column and rows cross no end is in reach, and the border has one end only
    open_ = np.argwhere((mask != 0) & ~filled)
    assert {(int(a), int(b)) for a, b in open_} == {(40 + i, 30) for i in range(3)}
    np.testing.assert_allclose(found["image"].values[filled], plane[filled], rtol=1e-13)
    np.testing.assert_array_equal(found["image"].values[mask == 0], plane[mask == 0])
    assert (found["mask"].values[filled] == FILLED | BAD).all()
    variance = found["variance"].values
    assert variance[5, 30] == 4.0  # the mean of two
    assert variance[40, 5] == pytest.approx(8.0 * (9 / 16 + 1 / 16))


def test_gaps_too_long_or_at_the_border_stay():
    mask = np.zeros((20, 20), np.int32)
    mask[5:9, 5:9] = BAD
    mask[0, 12], mask[12, 0], mask[0, 0] = BAD, BAD, BAD
    image = np.ones((20, 20))
    image[mask != 0] = 50.0
    found = interpolate_pixels(exposure(image, mask), parameters=BRIDGE)
    assert (found["image"].values[5:9, 5:9] == 50.0).all()
    assert (found["mask"].values[5:9, 5:9] == BAD).all()
    assert float(found["image"][0, 12]) == 1.0  # along the row, which has both ends
    assert float(found["image"][12, 0]) == 1.0
    assert float(found["image"][0, 0]) == 50.0


def test_gaps_without_a_number_are_not_leant_on_and_none_is_filled_by_default():
    mask = np.zeros((5, 7), np.int32)
    mask[2, 3] = BAD
    image = np.arange(35.0).reshape(5, 7)
    image[2, 2] = np.nan
    found = interpolate_pixels(exposure(image, mask), parameters=BRIDGE)
    assert float(found["image"][2, 3]) == 17.0
    assert np.isnan(found["image"][2, 2])
    untouched = interpolate_pixels(exposure(image, mask))
    np.testing.assert_array_equal(untouched["mask"], mask)


def test_defects_are_boxes_masks_or_truths(rng):
    bools = xr.DataArray(rng.random(SHAPE) < 0.1, dims=("y", "x"))
    expected = np.where(bools, BAD, 0)
    np.testing.assert_array_equal(defect_planes(bools, SHAPE), expected)
    np.testing.assert_array_equal(defect_planes(bools.T, SHAPE), expected)
    named = xr.Dataset({"mask": bools * np.int32(16)})
    named["mask"].attrs = {"flag_masks": [16], "flag_meanings": "BAD"}
    np.testing.assert_array_equal(defect_planes(named, SHAPE), expected)
    y, x = np.nonzero(bools.values)
    boxes = xr.Dataset(
        {
            "y_start": ("defect", y),
            "y_stop": ("defect", y + 1),
            "x_start": ("defect", x),
            "x_stop": ("defect", x + 1),
        }
    )
    np.testing.assert_array_equal(defect_planes(boxes, SHAPE), expected)
    image = exposure(np.ones(SHAPE))
    np.testing.assert_array_equal(mask_defects(image, boxes)["mask"], expected)
    backwards = boxes.isel(defect=[0]).copy(deep=True)
    backwards["y_stop"][0] = -5
    with pytest.raises(ValueError, match="ends before it starts"):
        defect_planes(backwards, SHAPE)
    outside = boxes.isel(defect=[0]) + 500
    assert not defect_planes(outside, SHAPE).any()


@pytest.fixture
def field(rng):
    """Return image, variance and where cosmic rays hit: sky, stars and rays."""
    y, x = np.indices((200, 180))
    light = np.full(y.shape, 400.0)
    for star_y, star_x, peak in ((50, 60, 2e4), (120, 90, 5e4), (150, 30, 3e3)):
        light += peak * np.exp(-((y - star_y) ** 2 + (x - star_x) ** 2) / (2 * 1.5**2))
    hit = np.zeros(y.shape, bool)
    for ray_y, ray_x in ((30, 100), (80, 20), (170, 150), (100, 140)):
        hit[ray_y, ray_x : ray_x + 6] = True
        hit[ray_y + 1, ray_x + 5 : ray_x + 9] = True
    image = rng.poisson(light) + rng.normal(0.0, 5.0, y.shape) + 3000.0 * hit
    return image.astype(np.float32), (image + 25.0).astype(np.float32), hit


def test_cosmic_rays_are_flagged_and_stars_are_not(field):
    image, variance, hit = field
    found = reject_cosmic_rays(exposure(image, variance=variance))
    flagged = found["mask"].values == COSMIC_RAY
    assert flagged[hit].all()
    assert (flagged & ~binary_dilation(hit, iterations=2)).sum() <= 2
    np.testing.assert_array_equal(found["image"], image)


def test_flags_are_those_of_the_library_with_our_variance(field):
    image, variance, _ = field
    theirs, _ = detect_cosmics(image, invar=variance, satlevel=np.inf, gain=1.0)
    ours = reject_cosmic_rays(exposure(image, variance=variance))
    np.testing.assert_array_equal(ours["mask"].values != 0, theirs)


def test_tiles_find_what_a_search_of_the_whole_image_finds(field, monkeypatch):
    image, variance, _ = field
    data = exposure(np.tile(image, (1, 2)), variance=np.tile(variance, (1, 2)))
    whole = reject_cosmic_rays(data)
    monkeypatch.setattr("skyloom.algorithms.detrend.cosmic_rays.TILE", 64)
    xr.testing.assert_identical(reject_cosmic_rays(data), whole)


def test_bad_pixels_are_no_cosmic_rays_and_hide_none_beside_them(field):
    image, variance, hit = field
    mask = np.zeros(image.shape, np.int32)
    image[:, 70] = 30_000.0
    mask[:, 70] = BAD
    image[10:14, 10:14] = np.nan
    image[120:124, 88:93], mask[120:124, 88:93] = 60_000.0, SAT
    found = reject_cosmic_rays(exposure(image, mask, variance))["mask"].values
    flagged = (found & COSMIC_RAY) != 0
    assert not flagged[mask != 0].any()
    assert flagged[hit].all()
    assert (flagged & ~binary_dilation(hit, iterations=2)).sum() <= 4
    nothing = reject_cosmic_rays(exposure(np.full((20, 20), np.nan), variance=np.ones((20, 20))))
    assert not nothing["mask"].any()


def test_options_reach_the_library(field):
    image, variance, hit = field
    data = exposure(image, variance=variance)
    counts = []
    for options in (
        {},
        {"clip": 40.0},
        {"contrast": 1e4},
        {"separable": False},
        {"fine_structure": "convolve", "star_width": 3.5},
        {"iterations": 1},
    ):
        found = reject_cosmic_rays(data, parameters=CosmicRayParameters(**options))
        counts.append(int((found["mask"] != 0).sum()))
    assert counts[0] >= hit.sum()
    assert counts[1] < counts[0]
    assert counts[2] < counts[0]
    assert min(counts[3:]) > 0.5 * hit.sum()
    assert len(set(counts)) > 4
    with pytest.raises(ValueError, match="needs 9 or more"):
        reject_cosmic_rays(data.isel(y=slice(4)))


def test_the_search_leaves_the_number_of_threads_as_it_was(field):
    def openmp():
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "openmp"]

    image, variance, _ = field
    before = openmp()
    reject_cosmic_rays(exposure(image, variance=variance))
    assert openmp() == before


def test_the_chain_finds_rays_in_adu_as_in_electrons(table, field):
    image, _, hit = field
    raw = read_out(image[:120, :96] / 1.5, table, dtype=np.float32)
    masks = []
    for units in ("electron", "adu"):
        parameters = ScienceDetrendParameters(
            units=units, cosmic_rays=CosmicRayParameters(reject=True)
        )
        found = detrend(raw, table, parameters=parameters, gain=1.5)
        masks.append(found["mask"].values)
    assert ((masks[0] & COSMIC_RAY) != 0)[hit[:120, :96]].all()
    np.testing.assert_array_equal(*masks)
