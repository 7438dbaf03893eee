"""Positions on the sky and on grids: every WCS, poles, frames, errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel

from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.warp import sky_pixels, warp_exposure
from skyloom.algorithms.warp.position_grid import position_grid
from skyloom.algorithms.warp.row_kernels import cubic_weights
from tests.algorithms.warp.headers import distorted, keys_of
from tests.algorithms.warp.scenes import exposure_of, plane, stars

KINDS = ("TAN", "SIP", "TPV", "ZPN", "STG", "ZEA", "ARC", "SIN")
SHAPE = (1000, 600)


def interpolated(grid, x, y):
    """Return what the grid says of positions, from its nodes."""
    found = []
    for column, row in zip(x, y, strict=True):
        j, v = divmod((row - grid.origin[0]) / grid.step, 1)
        i, u = divmod((column - grid.origin[1]) / grid.step, 1)
        part = grid.nodes[:2, int(j) - 1 : int(j) + 3, int(i) - 1 : int(i) + 3]
        found.append(np.einsum("kji,j,i->k", part, cubic_weights(v), cubic_weights(u)))
    return np.array(found).T


@pytest.mark.parametrize("kind", KINDS)
def test_interpolated_positions_are_as_exact_as_they_say(kind):
    source = WCS(distorted(kind, plane(7, center=(300.0, 500.0))))
    target = plane(center=(2000.0, 100.0), scale=0.25)
    grid = position_grid(sky_pixels(source, shape=SHAPE), SHAPE, target, (-900, 900, 1500, 2500))
    rng = np.random.default_rng(1)
    y, x = (rng.integers(*limits, 300) for limits in (grid.box[:2], grid.box[2:]))
    exact = source.world_to_pixel_values(*target.to_sky(x, y))
    error = np.hypot(*(interpolated(grid, x, y) - exact))
    on_detector = (np.abs(exact[0] - 300) < 300) & (np.abs(exact[1] - 500) < 500)
    assert on_detector.sum() > 100
    # astropy inverts SIP to 1e-4 pixel by default
    assert error[on_detector].max() < grid.error + 2e-4
    assert grid.error < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_star_is_put_where_the_sky_says(kind):
    source = WCS(distorted(kind, plane(7, center=(100.0, 100.0))))
    target = plane(33, center=(60.0, 60.0))
    x, y = source.world_to_pixel_values(*target.to_sky(61.3, 58.2))
    exposure = exposure_of(stars((200, 200), x, y, 4.0))
    image = warp_exposure(exposure, source, target, (30, 91, 30, 91))["image"].values.astype(float)
    rows, columns = np.mgrid[30:91, 30:91]
    assert (image * columns).sum() / image.sum() == pytest.approx(61.3, abs=0.006)
    assert (image * rows).sum() / image.sum() == pytest.approx(58.2, abs=0.006)
    assert image.sum() == pytest.approx(1e4, rel=1e-3)


@pytest.mark.parametrize("sky", [(0.0, 0.0), (359.9999, 45.0), (120.0, 89.999), (3.0, -90.0)])
def test_poles_and_the_meridian_are_places_like_others(sky):
    exposure = exposure_of(np.random.default_rng(1).normal(50, 1, (150, 150)))
    here = warp_exposure(
        exposure, plane(3, center=(75.0, 75.0)), plane(20, center=(60.0, 60.0)), (0, 120, 0, 120)
    )
    there = warp_exposure(
        exposure,
        WCS(fits.Header(plane(3, center=(75.0, 75.0), sky=sky).header())),
        plane(20, center=(60.0, 60.0), sky=sky),
        (0, 120, 0, 120),
    )
    np.testing.assert_allclose(there["image"], here["image"], rtol=1e-4)


@pytest.mark.parametrize(
    "keys",
    [
        {"RADESYS": "FK5", "EQUINOX": 2000.0},
        {"RADESYS": "FK5", "EQUINOX": 1975.0},
        {"RADESYS": "FK4", "EQUINOX": 1950.0},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
        {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": -20.25, "CRVAL2": 209.0},
    ],
)
def test_other_frames_and_orders_of_axes_are_taken_to_icrs(keys):
    given = WCS(keys_of(plane(7), **keys))
    target = WCS(keys_of(plane()))
    pixels = sky_pixels(given)
    x, y = np.array([3.0, 40.0]), np.array([10.0, 77.0])
    expected = pixel_to_pixel(given, target, x, y)
    found = sky_pixels(target).to_pixels(*pixels.to_sky(x, y))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(pixels.to_pixels(*pixels.to_sky(x, y)), (x, y), atol=1e-6)
    sky = given.pixel_to_world(x, y)
    assert isinstance(sky, SkyCoord)
    np.testing.assert_allclose(pixels.to_sky(x, y)[1], sky.icrs.dec.deg, atol=1e-10)


def test_an_object_with_the_two_methods_is_enough():
    class Described:
        def pixel_to_world_values(self, x, y):
            return plane().to_sky(x, y)

        def world_to_pixel_values(self, ra, dec):
            return plane().to_pixels(ra, dec)

    exposure = exposure_of(np.random.default_rng(1).normal(50, 1, (60, 70)))
    expected = warp_exposure(exposure, plane(), plane(5), (5, 50, 10, 60))
    found = warp_exposure(exposure, Described(), plane(5), (5, 50, 10, 60))
    np.testing.assert_array_equal(found["image"], expected["image"])


def test_far_positions_of_a_distortion_are_nowhere_and_not_an_error():
    pixels = sky_pixels(WCS(distorted("SIP", plane())))
    x, y = pixels.to_pixels(np.array([209.0, 260.0, 29.0]), np.array([-20.25, 60.0, 20.25]))
    assert np.isfinite([x[0], y[0]]).all()
    assert abs(x[0] - 50) < 1e-3
    assert np.isnan(x[1:]).all() or (np.abs(x[1:]) > 1e4).all()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"CTYPE1": "", "CTYPE2": ""}, "no celestial axes"),
        ({"CTYPE1": "RA---TAN", "CTYPE2": "FREQ"}, "cannot be read|no celestial axes"),
        (dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), 1e-4), "contradicts itself"),
        ({"CRVAL2": 100.0}, "cannot be"),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "cannot be"),
        ({"WCSAXES": 3}, "3 axes|cannot be"),
    ],
)
def test_an_illegal_wcs_is_named(header, text):
    with pytest.raises(GeometryError, match=text) as caught:
        sky_pixels(keys_of(plane(), **header), name="the WCS of detector S1", shape=(60, 70))
    assert "the WCS of detector S1" in str(caught.value)


def test_a_relation_that_contradicts_itself_is_refused():
    class Wrong:
        def pixel_to_world_values(self, x, y):
            return plane().to_sky(x, y)

        def world_to_pixel_values(self, ra, dec):
            x, y = plane().to_pixels(ra, dec)
            return x + 0.5, y

    with pytest.raises(GeometryError, match=r"ends 0\.5 pixels away"):
        sky_pixels(Wrong(), shape=(60, 70))


def test_a_relation_that_jumps_is_refused_and_one_that_bends_gets_a_finer_grid():
    class Bent:
        def __init__(self, amplitude, period):
            self.amplitude, self.period = amplitude, period

        def pixel_to_world_values(self, x, y):
            return plane().to_sky(x - self.amplitude * np.sin(y / self.period), y)

        def world_to_pixel_values(self, ra, dec):
            x, y = plane().to_pixels(ra, dec)
            return x + self.amplitude * np.sin(y / self.period), y

    shape, box = (200, 200), (0, 200, 0, 200)
    steps = [
        position_grid(sky_pixels(Bent(0.2, period), shape=shape), shape, plane(), box).step
        for period in (1000.0, 50.0, 20.0)
    ]
    assert steps[0] == 64
    assert sorted(steps, reverse=True) == steps
    assert steps[2] < 64
    with pytest.raises(GeometryError, match="cannot be interpolated"):
        position_grid(sky_pixels(Bent(3.0, 0.5)), shape, plane(), box)


def test_threads_share_a_wcs_without_harm():
    wcs = WCS(distorted("TPV", plane(7)))
    exposure = exposure_of(np.random.default_rng(1).normal(50, 1, (60, 70)))
    expected = warp_exposure(exposure, wcs, plane(5), (5, 50, 10, 60))["image"].values
    found = [None] * 8

    def work(index):
        found[index] = warp_exposure(exposure, wcs, plane(5), (5, 50, 10, 60))["image"].values

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for image in found:
        np.testing.assert_array_equal(image, expected)
