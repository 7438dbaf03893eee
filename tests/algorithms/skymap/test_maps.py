"""Numbers, sizes and places of tracts and patches are those of the sky maps that surveys use."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.skymap import (
    DiscreteTract,
    SkyMapParameters,
    discrete_skymap,
    make_skymap,
    patch_boxes,
    rings_skymap,
    tract_header,
    tract_wcs,
)

SURVEY = rings_skymap()
CELLS = SkyMapParameters(patches="cells")


def test_a_map_of_three_rings_has_26_tracts() -> None:
    small = rings_skymap(SkyMapParameters(rings=3))
    assert [row.count for row in small.rows] == [1, 8, 8, 8, 1]
    assert len(small) == 26


def test_a_map_of_120_rings_has_18938_tracts() -> None:
    assert len(SURVEY) == 18938
    assert [row.count for row in SURVEY.rows[1:6]] == [10, 16, 22, 29, 35]
    assert SURVEY.rows[61].count == 243
    height = SURVEY.rows[62].declination - SURVEY.rows[61].declination
    assert height == pytest.approx(1.4876033, abs=5e-8)


@pytest.mark.parametrize(
    ("index", "right_ascension", "declination"),
    [
        (9813, 150.2479338843, 2.2314049587),
        (9712, 0.0, 2.2314049587),
        (0, 0.0, -90.0),
        (18937, 0.0, 90.0),
    ],
)
def test_tracts_lie_where_they_are_published(
    index: int, right_ascension: float, declination: float
) -> None:
    tract = SURVEY[index]
    assert tract.right_ascension == pytest.approx(right_ascension, abs=1e-9)
    assert tract.declination == pytest.approx(declination, abs=1e-9)
    ra, dec = tract.plane.to_sky(tract.x, tract.y)
    assert (float(ra), float(dec)) == pytest.approx((right_ascension, declination), abs=1e-9)


def test_a_ring_may_begin_anywhere() -> None:
    turned = rings_skymap(SkyMapParameters(first_right_ascension=350.0))
    assert turned[9712].right_ascension == 350.0
    assert turned[9813].right_ascension == pytest.approx(140.2479338843, abs=1e-9)


@pytest.mark.parametrize("sizing", ["covering", "four_points"])
@pytest.mark.parametrize(
    ("pixel_scale", "patches", "grid", "size"),
    [(0.168, "legacy", 9, 36000), (0.2, "legacy", 7, 28000), (0.2, "cells", 10, 30000)],
)
def test_tracts_have_the_sizes_of_surveys(
    sizing: str, pixel_scale: float, patches: str, grid: int, size: int
) -> None:
    tract = rings_skymap(SkyMapParameters(pixel_scale=pixel_scale, patches=patches, sizing=sizing))[
        9813
    ]
    assert tract.grid == (grid, grid)
    assert tract.shape == (size, size)
    assert tract.patch_count == grid * grid == len(list(tract))
    # one pixel holds the centre; what is missing to whole patches goes to both sides, less below
    assert tract.x == tract.y == size / 2 - 1


def test_half_a_tract_is_13689_pixels_wide_before_it_grows() -> None:
    one = rings_skymap(SkyMapParameters(patch_shape=(1, 1)))[9813]
    assert one.shape == (2 * 13689 + 1, 2 * 13689 + 1)
    _, dec = one.plane.to_sky(one.x, one.y + 13689.2)
    assert dec - one.declination == pytest.approx(180 / 121 / 2 + 1 / 60, abs=2e-6)


def test_legacy_patches_end_at_the_tract_and_those_of_cells_do_not() -> None:
    legacy = SURVEY[9813]
    assert legacy.patch(0).inner == (0, 4000, 0, 4000)
    assert legacy.patch(0).outer == (0, 4100, 0, 4100)
    assert legacy.patch((1, 2)).outer == (3900, 8100, 7900, 12100)
    assert legacy.patch(48).outer == (23900, 28000, 23900, 28000)
    cells = rings_skymap(CELLS)[9813]
    assert cells.patch(0).inner == (0, 3000, 0, 3000)
    assert cells.patch(0).outer == (-200, 3200, -200, 3200)
    assert all(patch.outer.shape == (3400, 3400) for patch in cells)


def test_patches_count_along_rows() -> None:
    tract = discrete_skymap(
        [(10.0, 0.0, 0.3)], parameters=SkyMapParameters(patch_shape=(4000, 3000))
    )[0]
    rows, columns = tract.grid
    assert (rows, columns) == (3, 4)
    for iy in range(rows):
        for ix in range(columns):
            patch = tract.patch((iy, ix))
            assert patch.index == columns * iy + ix
            assert patch == tract.patch(patch.index)
            assert (patch.iy, patch.ix) == (iy, ix)


@pytest.mark.parametrize("parameters", [SkyMapParameters(), CELLS])
def test_inner_boxes_tile_the_tract(parameters: SkyMapParameters) -> None:
    tract = rings_skymap(parameters)[5]
    step = 500
    covered = np.zeros((tract.shape[0] // step, tract.shape[1] // step), int)
    for y_start, y_stop, x_start, x_stop in patch_boxes(tract, region="inner") // step:
        covered[y_start:y_stop, x_start:x_stop] += 1
    assert (covered == 1).all()
    outer = patch_boxes(tract)
    inner = patch_boxes(tract, region="inner")
    assert (outer[:, ::2] <= inner[:, ::2]).all()
    assert (outer[:, 1::2] >= inner[:, 1::2]).all()
    assert outer.tolist() == [list(patch.outer) for patch in tract]


@pytest.mark.parametrize("index", [-1, 49, (7, 0), (0, 7), (-1, 0)])
def test_patches_that_are_not_there_are_refused(index: int | tuple[int, int]) -> None:
    with pytest.raises(IndexError, match=r"7 x 7 patches.*there is no patch"):
        SURVEY[9813].patch(index)


@pytest.mark.parametrize("index", [-1, 18938])
def test_tracts_that_are_not_there_are_refused(index: int) -> None:
    with pytest.raises(IndexError, match="tracts 0 to 18937; there is no tract"):
        SURVEY[index]


def test_an_arcsecond_east_is_one_over_the_scale_to_the_left() -> None:
    for index in (0, 9813, 12000, 18937):
        tract = SURVEY[index]
        plane = tract_wcs(tract)
        cos = np.cos(np.deg2rad(tract.declination))
        if cos > 1e-3:
            x, y = plane.to_pixels(tract.right_ascension + 1 / 3600 / cos, tract.declination)
            assert float(x) - tract.x == pytest.approx(-1 / 0.2, abs=1e-6)
            assert float(y) - tract.y == pytest.approx(0.0, abs=1e-3)
        north = min(tract.declination + 1 / 3600, 90.0)
        x, y = plane.to_pixels(tract.right_ascension, north)
        assert float(y) - tract.y == pytest.approx((north - tract.declination) * 18000, abs=1e-6)


@pytest.mark.parametrize("rotation", [0.0, 30.0, -100.0])
@given(index=st.integers(0, 18937), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_pixels_go_to_the_sky_and_back_as_in_fits(rotation: float, index: int, seed: int) -> None:
    tract = rings_skymap(SkyMapParameters(pixel_scale=0.168, rotation=rotation))[index]
    x, y = np.random.default_rng(seed).uniform(0, 1, (2, 50)) * np.array(tract.shape)[::-1, None]
    ra, dec = tract.plane.to_sky(x, y)
    np.testing.assert_allclose(tract.plane.to_pixels(ra, dec), (x, y), rtol=0, atol=1e-9)
    theirs = WCS(fits.Header(tract_header(tract)))
    their_ra, their_dec = theirs.wcs_pix2world(x, y, 0)
    np.testing.assert_allclose(dec, their_dec, rtol=0, atol=1e-9)
    turned = ((ra - their_ra + 180) % 360 - 180) * np.cos(np.deg2rad(dec))
    np.testing.assert_allclose(turned, 0, rtol=0, atol=1e-9)


def test_the_first_pixel_comes_back() -> None:
    plane = SURVEY[9813].plane
    x, y = plane.to_pixels(*plane.to_sky(0, 0))
    assert (float(x), float(y)) == pytest.approx((0, 0), abs=1e-9)


def test_the_header_of_a_patch_is_that_of_its_tract_moved() -> None:
    tract = SURVEY[9813]
    patch = tract.patch((2, 3))
    whole = WCS(fits.Header(tract_header(tract)))
    header = tract_header(tract, patch.outer)
    part = WCS(fits.Header(header))
    assert (header["NAXIS2"], header["NAXIS1"]) == patch.outer.shape
    np.testing.assert_allclose(
        part.wcs_pix2world(5.0, 6.0, 0),
        whole.wcs_pix2world(patch.outer.x_start + 5.0, patch.outer.y_start + 6.0, 0),
        rtol=0,
        atol=1e-12,
    )


def test_a_turned_tract_has_its_y_axis_from_north_towards_east() -> None:
    tract = discrete_skymap(
        [(30.0, 0.0, 0.2)], parameters=SkyMapParameters(rotation=90.0, pixel_scale=1.0)
    )[0]
    ra, dec = tract.plane.to_sky(tract.x, tract.y + 1)
    assert (float(ra) - 30.0) * 3600 == pytest.approx(1.0, abs=1e-6)
    assert float(dec) == pytest.approx(0.0, abs=1e-12)


def test_a_discrete_map_holds_the_tracts_it_was_given() -> None:
    named = [DiscreteTract(right_ascension=209.0, declination=-20.25, radius=0.2), (0.0, 89.9, 0.1)]
    sky_map = discrete_skymap(named)
    assert len(sky_map) == 2
    assert [(tract.right_ascension, tract.declination) for tract in sky_map] == [
        (209.0, -20.25),
        (0.0, 89.9),
    ]
    assert sky_map[0].grid == (2, 2)
    assert make_skymap(sky_map.parameters) == sky_map


def test_maps_are_values() -> None:
    assert rings_skymap() == SURVEY
    assert hash(rings_skymap()) == hash(SURVEY)
    assert pickle.loads(pickle.dumps(SURVEY)) == SURVEY
    assert len(pickle.dumps(SURVEY)) < 20_000
    assert pickle.loads(pickle.dumps(SURVEY[9813])) == SURVEY[9813]
    with pytest.raises(AttributeError):
        SURVEY[9813].index = 1  # type: ignore[misc]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="more rings"):
        rings_skymap(SkyMapParameters(rings=1, tract_overlap=10.0))
    with pytest.raises(ConfigurationError, match="would reach"):
        rings_skymap(SkyMapParameters(pixel_scale=100.0))
    with pytest.raises(ConfigurationError, match="kind='rings'"):
        rings_skymap(discrete_skymap([(1, 2, 0.1)]).parameters)
    with pytest.raises(ValueError, match="tracts must be given for a discrete map"):
        SkyMapParameters(kind="discrete")
    with pytest.raises(ValueError, match="tracts must be given for a discrete map"):
        discrete_skymap([])
    with pytest.raises(ValueError, match="declination"):
        discrete_skymap([(1, 91, 0.1)])
    with pytest.raises(ValueError, match="region must be"):
        patch_boxes(SURVEY[0], region="middle")  # type: ignore[arg-type]
