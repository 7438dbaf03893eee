"""The patches that a detector touches, anywhere on the sky."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.skymap import (
    PatchOverlaps,
    SkyMap,
    SkyMapParameters,
    discrete_skymap,
    find_tract,
    locate,
    overlapping_patches,
    rings_skymap,
    sky_polygon,
    tract_header,
)
from skyloom.algorithms.tangent_plane import TangentPlane, from_tangent_plane, tangent_plane
from tests.algorithms.skymap.footprints import overlaps_by_clipping

SURVEY = rings_skymap()
CELLS = rings_skymap(SkyMapParameters(patches="cells"))
Floats = NDArray[np.float64]


def mosaic(ra: float, dec: float, angle: float, count: int = 12) -> tuple[Floats, Floats]:
    """Return the corners of detectors of 2048 x 4176 pixels around a pointing."""
    rng = np.random.default_rng(7)
    corners = []
    for place in rng.uniform(-60, 60, (count, 2)):
        transform = detector_transform(
            (4176, 2048), pixel_size=0.015, offset=tuple(place), rotation=rng.uniform(0, 360)
        )
        plane = tangent_plane(
            transform,
            right_ascension=ra,
            declination=dec,
            rotator_angle=angle,
            plate_scale=11.2,
        )
        corners.append(sky_polygon(plane, (4176, 2048)))
    return np.array(corners)[:, 0], np.array(corners)[:, 1]


def triples(found: PatchOverlaps) -> set[tuple[int, int, int]]:
    return set(zip(found.polygon.tolist(), found.tract.tolist(), found.patch.tolist(), strict=True))


@pytest.mark.parametrize("sky_map", [SURVEY, CELLS], ids=["legacy", "cells"])
@pytest.mark.parametrize(
    ("ra", "dec"), [(150.2, 2.2), (0.01, 0.0), (359.9, -45.0), (77.0, 89.95), (200.0, -89.3)]
)
def test_detectors_touch_the_patches_that_clipping_finds(
    sky_map: SkyMap, ra: float, dec: float
) -> None:
    polygons = mosaic(ra, dec, 25.0)
    found = overlapping_patches(sky_map, *polygons)
    assert found.unusable == ()
    near = sorted(set(found.tract.tolist()))
    assert triples(found) == overlaps_by_clipping(sky_map, *polygons, near)


@pytest.mark.parametrize(("ra", "dec"), [(0.01, 0.0), (77.0, 89.95), (200.0, -89.3)])
def test_no_tract_is_missed(ra: float, dec: float) -> None:
    polygons = mosaic(ra, dec, 25.0)
    found = overlapping_patches(SURVEY, *polygons)
    centers = np.array([(t.right_ascension, t.declination) for t in SURVEY])
    away = np.sin(np.deg2rad(centers[:, 1])) * np.sin(np.deg2rad(dec)) + np.cos(
        np.deg2rad(centers[:, 1])
    ) * np.cos(np.deg2rad(dec)) * np.cos(np.deg2rad(centers[:, 0] - ra))
    near = np.flatnonzero(away > np.cos(np.deg2rad(3.0))).tolist()
    assert len(near) > len(set(found.tract.tolist()))
    assert triples(found) == overlaps_by_clipping(SURVEY, *polygons, near)


@given(
    ra=st.floats(0, 360),
    dec=st.floats(-90, 90),
    angle=st.floats(0, 360),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=30)
def test_every_position_of_a_detector_is_in_a_patch_it_touches(
    ra: float, dec: float, angle: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    transform = detector_transform((2000, 4000), pixel_size=0.01, offset=(20.0, 30.0))
    plane = tangent_plane(
        transform, right_ascension=ra, declination=dec, rotator_angle=angle, plate_scale=20.0
    )
    corners = [angles[None] for angles in sky_polygon(plane, (2000, 4000))]
    inner = triples(overlapping_patches(CELLS, *corners, region="inner"))
    outer = triples(overlapping_patches(CELLS, *corners))
    assert inner <= outer
    position = plane.to_sky(rng.uniform(0, 3999, 50), rng.uniform(0, 1999, 50))
    tract, patch = locate(CELLS, *position)
    assert {(0, int(t), int(p)) for t, p in zip(tract, patch, strict=True)} <= inner


def test_the_order_of_corners_and_corners_inside_do_not_matter() -> None:
    ra, dec = mosaic(0.0, 30.0, 10.0)
    expected = triples(overlapping_patches(SURVEY, ra, dec))
    mixed = [2, 0, 3, 1]
    assert triples(overlapping_patches(SURVEY, ra[:, mixed], dec[:, mixed])) == expected
    more = np.concatenate([ra + 360.0, ra[:, :1]], axis=1), np.concatenate([dec, dec[:, :1]], 1)
    assert triples(overlapping_patches(SURVEY, *more)) == expected
    assert triples(overlapping_patches(SURVEY, ra[::-1], dec[::-1])) == {
        (len(ra) - 1 - polygon, tract, patch) for polygon, tract, patch in expected
    }


def test_a_polygon_that_holds_a_patch_or_a_pole_overlaps_it() -> None:
    large = [[0.0, 90.0, 180.0, 270.0]], [[85.0, 85.0, 85.0, 85.0]]
    found = overlapping_patches(SURVEY, *large)
    cap = len(SURVEY) - 1
    assert found.patch[found.tract == cap].tolist() == list(range(SURVEY[cap].patch_count))
    assert len(set(found.tract.tolist())) > 1 + SURVEY.rows[-2].count


def test_touching_is_no_overlap_and_growing_makes_it_one() -> None:
    tract = discrete_skymap([(10.0, 0.0, 0.1)])
    plane = tract[0].plane

    def square(high: float) -> tuple[Floats, Floats]:
        corners = plane.to_sky([3800.0, high, high, 3800.0], [0.0, 0.0, 10.0, 10.0])
        return corners[0][None], corners[1][None]

    # the second patch begins at pixel 3900
    assert overlapping_patches(tract, *square(3899.5 + 1e-6)).patch.tolist() == [0, 1]
    assert overlapping_patches(tract, *square(3899.5 - 1e-6)).patch.tolist() == [0]
    assert overlapping_patches(tract, *square(3899.5 - 1e-6), grow=1).patch.tolist() == [0, 1]


def test_detectors_with_a_bad_wcs_touch_nothing_and_are_named() -> None:
    ra, dec = mosaic(150.2, 2.2, 0.0, 6)
    clean = overlapping_patches(SURVEY, ra[[0, 5]], dec[[0, 5]])
    ra[1, 2] = np.nan
    dec[2, 0] = 95.0
    ra[3], dec[3] = ra[3, 0], dec[3, 0]
    ra[4] = [0.0, 90.0, 180.0, 270.0]
    dec[4] = 0.0
    found = overlapping_patches(SURVEY, ra, dec, names=["a", "b", "c", "d", "e", "f"])
    assert dict(found.unusable) == {
        "b": "1 corners without a position",
        "c": "1 corners without a position",
        "d": "no area",
        "e": "corners more than 20 deg from their middle",
    }
    assert triples(found) == {
        ((0, 5)[polygon], tract, patch) for polygon, tract, patch in triples(clean)
    }
    nothing = overlapping_patches(SURVEY, ra[1:2], dec[1:2])
    assert nothing.patch.size == nothing.tract.size == nothing.polygon.size == 0
    assert nothing.unusable == ((0, "1 corners without a position"),)
    none = overlapping_patches(SURVEY, np.empty((0, 4)), np.empty((0, 4)))
    assert none.patch.size == 0


def test_corners_of_a_detector_are_those_of_its_outer_pixels() -> None:
    tract = SURVEY[int(find_tract(SURVEY, 10.0, -30.0))]
    plane = tract.plane
    ra, dec = sky_polygon(plane, (100, 200))
    x, y = plane.to_pixels(ra, dec)
    np.testing.assert_allclose(x, [-0.5, 199.5, 199.5, -0.5], atol=1e-8)
    np.testing.assert_allclose(y, [-0.5, -0.5, 99.5, 99.5], atol=1e-8)
    theirs = sky_polygon(WCS(fits.Header(tract_header(tract))), (100, 200))
    np.testing.assert_allclose(theirs, (ra, dec), atol=1e-9)
    assert np.isnan(sky_polygon(None, (100, 200))).all()
    broken = TangentPlane(np.nan, 0.0, 0.0, 0.0, np.eye(2))
    assert np.isnan(sky_polygon(broken, (100, 200))[0]).all()


def test_inputs_are_not_changed() -> None:
    ra, dec = from_tangent_plane([0.0, 0.1, 0.1], [0.0, 0.0, 0.1], 359.95, 3.0)
    before = ra.copy(), dec.copy()
    overlapping_patches(SURVEY, ra[None], dec[None])
    assert np.array_equal(ra, before[0])
    assert np.array_equal(dec, before[1])


def test_what_cannot_be_is_refused() -> None:
    corners = np.zeros((2, 4))
    with pytest.raises(ValueError, match="at least 3 corners"):
        overlapping_patches(SURVEY, corners[:, :2], corners[:, :2])
    with pytest.raises(ValueError, match=r"\(polygon, corner\)"):
        overlapping_patches(SURVEY, corners, corners[:1])
    with pytest.raises(ValueError, match="names must name 2 polygons"):
        overlapping_patches(SURVEY, corners, corners, names=["one"])
    with pytest.raises(ValueError, match="grow must be >= 0"):
        overlapping_patches(SURVEY, corners, corners, grow=-1)
    with pytest.raises(ValueError, match="region must be"):
        overlapping_patches(SURVEY, corners, corners, region="all")  # type: ignore[arg-type]
