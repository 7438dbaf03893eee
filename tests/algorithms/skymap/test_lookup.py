"""Every position of the sky belongs to one tract and, there, to one inner patch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.skymap import (
    SkyMap,
    SkyMapParameters,
    discrete_skymap,
    find_patch,
    find_tract,
    locate,
    patch_boxes,
    rings_skymap,
)

MAPS = {
    "survey": rings_skymap(),
    "cells": rings_skymap(SkyMapParameters(patches="cells")),
    "coarse": rings_skymap(SkyMapParameters(rings=3, pixel_scale=20.0, patch_shape=(700, 500))),
    "turned": rings_skymap(
        SkyMapParameters(rings=40, rotation=33.0, first_right_ascension=11.0, pixel_scale=1.0)
    ),
    "no overlap": rings_skymap(SkyMapParameters(tract_overlap=0.0, patch_shape=(700, 900))),
}
DECLINATIONS = st.one_of(
    st.floats(-90, 90),
    # near the poles, where tracts are smallest for what belongs to them
    st.floats(0, 8).map(lambda distance: 90 - distance),
    st.floats(0, 8).map(lambda distance: distance - 90),
)


def whole_sky(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, count), np.rad2deg(np.arcsin(rng.uniform(-1, 1, count)))


@pytest.mark.parametrize("name", MAPS)
@given(ra=st.floats(-10, 370), dec=DECLINATIONS)
@settings(deadline=None, max_examples=60)
def test_every_position_has_one_inner_patch_in_its_own_tract(
    name: str, ra: float, dec: float
) -> None:
    sky_map = MAPS[name]
    tract = sky_map[int(find_tract(sky_map, ra, dec))]
    x, y = tract.plane.to_pixels(ra, dec)
    boxes = patch_boxes(tract, region="inner") - 0.5
    inside = (boxes[:, 0] <= y) & (y < boxes[:, 1]) & (boxes[:, 2] <= x) & (x < boxes[:, 3])
    assert np.flatnonzero(inside).tolist() == [int(find_patch(tract, ra, dec))]


def test_a_tract_of_four_points_leaves_positions_near_the_poles_out() -> None:
    reference = rings_skymap(SkyMapParameters(sizing="four_points"))
    with pytest.raises(LookupError, match="outside tract 1,"):
        locate(reference, 17.9999, -89.2561)
    assert locate(MAPS["survey"], 17.9999, -89.2561)[0] == 1


@pytest.mark.parametrize("name", MAPS)
def test_the_tract_of_a_position_is_the_nearest_of_its_ring(name: str) -> None:
    sky_map = MAPS[name]
    ra, dec = whole_sky(2000, 1)
    height = 180.0 / (sky_map.parameters.rings + 1)
    for index in np.unique(found := find_tract(sky_map, ra, dec)):
        tract = sky_map[int(index)]
        here = found == index
        assert (np.abs(dec[here] - tract.declination) <= height / 2 + 1e-9).all()
        turned = (ra[here] - tract.right_ascension + 180) % 360 - 180
        row = next(row for row in reversed(sky_map.rows) if row.first <= index)
        assert (np.abs(turned) <= 180 / row.count + 1e-9).all()


def test_centres_belong_to_their_tracts() -> None:
    sky_map = MAPS["survey"]
    chosen = np.r_[0:30, 9600:9900, 18900:18938]
    tracts = [sky_map[int(index)] for index in chosen]
    ra, dec = np.array([(tract.right_ascension, tract.declination) for tract in tracts]).T
    assert find_tract(sky_map, ra, dec).tolist() == chosen.tolist()


def test_right_ascensions_a_turn_apart_are_the_same() -> None:
    sky_map = MAPS["survey"]
    for ra in (-0.2, 359.8, 719.8):
        tract, patch = locate(sky_map, ra, 2.2)
        assert (int(tract), int(patch)) == tuple(map(int, locate(sky_map, -0.2, 2.2)))
    assert find_tract(sky_map, [0.2, 359.8], [2.2, 2.2]).tolist() == [9712, 9712]


def test_the_poles_are_the_first_and_the_last_tract() -> None:
    for sky_map in MAPS.values():
        assert find_tract(sky_map, [5, 200], [-90, 90]).tolist() == [0, len(sky_map) - 1]


def test_looking_up_many_positions_is_looking_up_each() -> None:
    sky_map: SkyMap = MAPS["turned"]
    ra, dec = whole_sky(60, 3)
    tract, patch = locate(sky_map, ra.reshape(3, 20), dec.reshape(3, 20))
    assert tract.shape == patch.shape == (3, 20)
    each = [locate(sky_map, one, two) for one, two in zip(ra, dec, strict=True)]
    assert tract.ravel().tolist() == [int(pair[0]) for pair in each]
    assert patch.ravel().tolist() == [int(pair[1]) for pair in each]


def test_the_patch_of_a_position_is_that_of_its_pixel() -> None:
    tract = MAPS["survey"][9813]
    plane = tract.plane
    for x, y, patch in ((3999.49, 0, 0), (3999.51, 0, 1), (0, 3999.51, 7), (-0.49, -0.49, 0)):
        assert int(find_patch(tract, *plane.to_sky(x, y))) == patch


def test_positions_outside_a_tract_are_refused() -> None:
    tract = MAPS["survey"][9813]
    for ra, dec in ((152.0, 2.2), (330.0, -2.2), tract.plane.to_sky(-0.51, 10)):
        with pytest.raises(LookupError, match="outside tract 9813"):
            find_patch(tract, ra, dec)


def test_positions_in_no_tract_of_a_discrete_map_are_refused() -> None:
    fields = discrete_skymap([(0.0, 0.0, 0.2), (0.3, 0.0, 0.2), (0.0, 90.0, 0.1)])
    found = find_tract(fields, [0.1, 0.2, 359.9, 77.0], [0.0, 0.0, 0.0, 89.95])
    assert found.tolist() == [0, 1, 0, 2]
    with pytest.raises(LookupError, match="1 of 2 positions are in no tract, the first at 20"):
        find_tract(fields, [0.0, 20.0], [0.0, 0.0])


@pytest.mark.parametrize(("ra", "dec"), [(np.nan, 0), (np.inf, 0), (0, np.nan), (0, 90.1)])
def test_what_is_no_position_is_refused(ra: float, dec: float) -> None:
    with pytest.raises(ValueError, match="finite and declination -90 to 90"):
        find_tract(MAPS["survey"], ra, dec)
    with pytest.raises(ValueError, match="finite and declination -90 to 90"):
        find_patch(MAPS["survey"][0], ra, dec)


def test_positions_are_not_changed() -> None:
    ra, dec = whole_sky(10, 4)
    before = ra.copy(), dec.copy()
    locate(MAPS["survey"], ra, dec)
    assert np.array_equal(ra, before[0])
    assert np.array_equal(dec, before[1])
