"""Tangent planes are those of FITS and of the focal plane."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.tangent_plane import (
    TangentPlane,
    from_tangent_plane,
    tangent_plane,
    to_tangent_plane,
)


def plane(
    rotation: float = 0.0, detector_rotation: float = 0.0, dec: float = -35.0
) -> TangentPlane:
    transform = detector_transform(
        (400, 300), pixel_size=0.015, offset=(12.0, -7.0), rotation=detector_rotation
    )
    return tangent_plane(
        transform,
        right_ascension=359.99,
        declination=dec,
        rotator_angle=rotation,
        plate_scale=17.5,
    )


@pytest.mark.parametrize("rotation", [0.0, 33.0, 180.0, -120.0])
@pytest.mark.parametrize("detector_rotation", [0.0, 90.0, 180.0])
def test_astropy_reads_the_header_as_it_was_meant(
    rotation: float, detector_rotation: float
) -> None:
    ours = plane(rotation, detector_rotation)
    theirs = WCS(fits.Header(ours.header()))
    x, y = np.random.default_rng(1).uniform(-100, 500, (2, 50))
    ra, dec = ours.to_sky(x, y)
    expected = theirs.wcs_pix2world(x, y, 0)
    np.testing.assert_allclose(ra, expected[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(dec, expected[1], rtol=0, atol=1e-10)
    back = ours.to_pixels(ra, dec)
    np.testing.assert_allclose(back, (x, y), rtol=0, atol=1e-6)


def test_north_is_up_and_east_to_the_left_without_rotation() -> None:
    ours = plane()
    ra, dec = ours.to_sky([ours.x, ours.x - 10], [ours.y + 10, ours.y])
    assert dec[0] - ours.declination == pytest.approx(10 * 0.015 * 17.5 / 3600, rel=1e-6)
    assert (ra[1] - ours.right_ascension) % 360 > 0


def test_the_rotator_angle_is_that_of_the_y_axis_from_north_through_east() -> None:
    ours = plane(rotation=90.0, dec=0.0)
    ra, dec = ours.to_sky(ours.x, ours.y + 10)
    assert (float(ra) - 359.99) * 3600 == pytest.approx(10 * 0.015 * 17.5, rel=1e-6)
    assert float(dec) == pytest.approx(0.0, abs=1e-9)


def test_detectors_agree_on_where_a_point_of_the_focal_plane_lies() -> None:
    one, two = plane(20.0), plane(20.0, 180.0)
    transform = detector_transform((400, 300), pixel_size=0.015, offset=(12.0, -7.0))
    turned = detector_transform((400, 300), pixel_size=0.015, offset=(12.0, -7.0), rotation=180)
    np.testing.assert_allclose(
        to_focal_plane(transform, 10, 20), to_focal_plane(turned, 289, 379), atol=1e-12
    )
    np.testing.assert_allclose(one.to_sky(10, 20), two.to_sky(289, 379), rtol=0, atol=1e-11)


def test_projection_and_back_is_the_same_anywhere_but_behind_the_horizon() -> None:
    east, north = np.random.default_rng(2).uniform(-5, 5, (2, 100))
    for ra_0, dec_0 in ((10.0, 0.0), (200.0, 89.9), (0.0, -90.0)):
        there = from_tangent_plane(east, north, ra_0, dec_0)
        np.testing.assert_allclose(
            to_tangent_plane(*there, ra_0, dec_0), (east, north), rtol=0, atol=1e-9
        )
    assert np.isnan(to_tangent_plane(190.0, 0.0, 10.0, 0.0)).all()


def test_what_cannot_be_is_refused() -> None:
    transform = detector_transform((4, 4), pixel_size=0.015)
    with pytest.raises(ValueError, match="plate_scale must be > 0"):
        tangent_plane(transform, right_ascension=0, declination=0, plate_scale=0)
    with pytest.raises(ValueError, match="declination must be -90 to 90"):
        tangent_plane(transform, right_ascension=0, declination=91, plate_scale=1)
