"""Point-spread functions of warps and coadds: stated moments, geometry, inputs that are none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astropy.wcs import WCS

from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.psf import (
    PsfInput,
    average_position,
    coadd_psf,
    coadd_psf_grid,
    gaussian_psf,
    local_map,
    moffat_psf,
    psf_at_points,
    psf_fwhm,
    psf_moments,
    warp_psf,
)
from skyloom.algorithms.psf.coadded import inside
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.algorithms.warp import sky_pixels, warp_exposure

SCALE = 0.2 / 3600
SQUARE = [(-0.5, -0.5), (999.5, -0.5), (999.5, 999.5), (-0.5, 999.5)]


def plane(x: float = 500.0, y: float = 500.0, angle: float = 0.0, scale: float = 1.0):
    """Return a tangent plane, east left, whose pixels are turned and scaled."""
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return TangentPlane(150.0, 2.0, x, y, scale * SCALE * np.diag([-1.0, 1.0]) @ rotation)


def gaussian_input(sigma: float, weight: float = 1.0, **options):
    width = sigma * SIGMA_TO_FWHM
    psf = psf_at_points(gaussian_psf(width, size=121, **options), 500.0, 500.0)
    return PsfInput(weight, plane(300.0 + sigma, 640.25 - sigma), psf, SQUARE)


@pytest.mark.parametrize(("weights", "expected"), [((1, 1, 1, 1), 43.5), ((1, 2, 3, 4), 50.0)])
def test_the_second_moment_is_the_weighted_mean(weights, expected):
    inputs = [gaussian_input(s, w) for s, w in zip((5, 6, 7, 8), weights, strict=True)]
    psf = coadd_psf(inputs, plane(), 480.3, 390.7)
    moments = psf_moments(psf)
    assert float(moments["radius2"]) == pytest.approx(expected, abs=0.01)
    assert float(moments["xx"]) == pytest.approx(expected, abs=0.01)
    assert float(psf.sum()) == pytest.approx(1.0, abs=1e-12)


def test_an_elongated_image_turns_with_the_grid():
    psf = psf_at_points(gaussian_psf(6.0, axis_ratio=0.6), 500.0, 500.0)
    before = psf_moments(psf["psf"][0])
    assert float(before["xx"]) > 2 * float(before["yy"])
    turned = PsfInput(1.0, plane(angle=90.0), psf, SQUARE)
    after = psf_moments(coadd_psf([turned], plane(), 500.0, 500.0))
    assert float(after["yy"]) == pytest.approx(float(before["xx"]), rel=1e-6)
    assert float(after["xx"]) == pytest.approx(float(before["yy"]), rel=1e-6)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
def test_widths_scale_with_the_pixels(scale):
    psf = psf_at_points(moffat_psf(5.0, size=61), 500.0, 500.0)
    one = PsfInput(1.0, plane(scale=scale, angle=33.0), psf, SQUARE)
    found = coadd_psf([one], plane(), 500.0, 500.0)
    assert float(psf_fwhm(found)) == pytest.approx(5.0 * scale, rel=5e-3)


@pytest.mark.parametrize("kernel", ["lanczos3", "lanczos5"])
def test_on_the_same_grid_an_image_stays_as_it_is(kernel):
    image = moffat_psf(4.0, axis_ratio=0.8, angle=20.0)
    np.testing.assert_allclose(warp_psf(image, np.eye(2), kernel=kernel), image, atol=1e-15)


def test_a_warped_image_is_the_image_of_a_warped_star():
    """The matrix taken from the WCS makes of a star on a pixel what resampling makes of it."""
    source, target = plane(211.0, 305.0, angle=17.0, scale=1.1), plane(80.0, 90.0)
    here = local_map(sky_pixels(source), sky_pixels(target), 80.0, 90.0)
    np.testing.assert_allclose(here.position, [211.0, 305.0], atol=1e-6)
    found = warp_psf(gaussian_psf(5.0), here.matrix)
    y, x = np.mgrid[-15:16, -15:16]
    ra, dec = target.to_sky(80.0 + x, 90.0 + y)
    at_x, at_y = source.to_pixels(ra, dec)
    r2 = (at_x - 211.0) ** 2 + (at_y - 305.0) ** 2
    star = np.exp(-0.5 * r2 * (SIGMA_TO_FWHM / 5.0) ** 2)
    middle = found.shape[0] // 2
    part = found.values[middle - 15 : middle + 16, middle - 15 : middle + 16]
    np.testing.assert_allclose(part / part.max(), star / star.max(), atol=5e-3)


@pytest.mark.parametrize("kernel", ["lanczos3", "lanczos5"])
def test_a_star_in_a_warp_has_the_point_spread_function_of_the_warp(kernel):
    source, target = plane(50.0, 60.0, angle=25.0, scale=0.9), plane(40.0, 45.0)
    image = moffat_psf(4.5, axis_ratio=0.8, angle=70.0, size=61)
    pixels = np.zeros((121, 111), np.float32)
    pixels[30:91, 20:81] = image
    star = xr.DataArray(pixels, dims=("y", "x"))
    exposure = xr.Dataset({"image": star, "variance": xr.ones_like(star)})
    warp = warp_exposure(exposure, source, target, (15, 76, 10, 71), kernel=kernel)
    corners = [(0, 0), (110, 0), (110, 120), (0, 120)]
    one = PsfInput(1.0, source, psf_at_points(image, 50.0, 60.0), corners)
    psf = coadd_psf([one], target, 40.0, 45.0, kernel=kernel)
    middle = psf.shape[0] // 2
    part = psf.values[middle - 15 : middle + 16, middle - 15 : middle + 16]
    found = warp["image"].values[15:46, 15:46]
    np.testing.assert_allclose(found / found.max(), part / part.max(), atol=2e-4)


def test_only_inputs_that_contain_the_position_count():
    near, far = gaussian_input(3.0), gaussian_input(5.0)
    far = far._replace(polygon=[(0, 0), (100, 0), (100, 100), (0, 100)])
    found = coadd_psf([near, far], plane(), 480.0, 390.0)
    alone = coadd_psf([near], plane(), 480.0, 390.0)
    np.testing.assert_allclose(found, alone, atol=1e-15)


def test_the_order_of_inputs_does_not_matter():
    inputs = [gaussian_input(s, 1.0 + s, axis_ratio=0.8, angle=10 * s) for s in (3, 4, 5)]
    one = coadd_psf(inputs, plane(), 480.3, 390.7)
    other = coadd_psf(inputs[::-1], plane(), 480.3, 390.7)
    np.testing.assert_allclose(one, other, atol=1e-15)
    assert average_position(inputs, plane()) == pytest.approx(
        average_position(inputs[::-1], plane()), abs=1e-9
    )


def test_a_query_without_inputs_is_an_error():
    one = gaussian_input(4.0)
    with pytest.raises(NoUsableDataError, match="none of the 1 inputs contains"):
        coadd_psf([one], plane(), 5000.0, 0.0)
    for useless in (
        one._replace(weight=0.0),
        one._replace(weight=float("nan")),
        one._replace(psf=one.psf * np.nan),
    ):
        with pytest.raises(NoUsableDataError):
            coadd_psf([useless], plane(), 480.0, 390.0)
    with pytest.raises(NoUsableDataError):
        coadd_psf([], plane(), 0.0, 0.0)


def test_a_grid_has_nan_where_no_input_is():
    inputs = [gaussian_input(4.0), gaussian_input(5.0)]
    corners = [(-0.5, -0.5), (399.5, -0.5), (399.5, 999.5), (-0.5, 999.5)]
    inputs[1] = inputs[1]._replace(polygon=corners)
    grid = coadd_psf_grid(inputs, plane(300.0, 640.0), (0, 1300, 0, 1300), spacing=150)
    assert len(set(grid["x"].values)) == 9
    assert np.diff(np.unique(grid["x"])).max() <= 150
    outside = (grid["x"] > 1000) | (grid["y"] > 1000)
    np.testing.assert_array_equal(np.isnan(grid["psf"]).all(("psf_y", "psf_x")), outside)
    expected = np.where(outside, 0, np.where(grid["x"] < 398, 2, 1))
    np.testing.assert_array_equal(grid["input_count"], expected)
    place = int(np.flatnonzero(~outside.values)[3])
    x, y = float(grid["x"][place]), float(grid["y"][place])
    single = coadd_psf(inputs, plane(300.0, 640.0), x, y)
    np.testing.assert_allclose(grid["psf"][place], single, atol=1e-15)
    cut = coadd_psf_grid(inputs, plane(300.0, 640.0), (0, 300, 0, 300), size=41)
    assert cut["psf"].shape[1:] == (41, 41)
    np.testing.assert_allclose(cut["psf"].sum(("psf_y", "psf_x")), 1.0, rtol=1e-12)


def test_the_grid_of_a_warp_is_a_set_that_others_take():
    grid = coadd_psf_grid([gaussian_input(3.0)], plane(), (0, 400, 0, 400))
    again = psf_at_points(grid["psf"], grid["x"], grid["y"])
    np.testing.assert_allclose(again["psf"], grid["psf"], rtol=1e-12)


def test_the_average_position_is_the_weighted_middle_that_an_input_covers():
    image = psf_at_points(gaussian_psf(4.0), 0.0, 0.0)
    boxes = [[(x, 0), (x + 40, 0), (x + 40, 20), (x, 20)] for x in (0, 30, 400)]
    inputs = [
        PsfInput(weight, plane(), image, box, good)
        for weight, box, good in zip((2.0, 1.0, 0.5), boxes, (800, 800, 100), strict=True)
    ]
    total = 2.0 * 800 + 1.0 * 800 + 0.5 * 100
    expected = (1600 * 20 + 800 * 50 + 50 * 420) / total
    assert average_position(inputs, plane()) == pytest.approx((expected, 10.0), abs=1e-6)
    # the mean of these two lies in the gap between them: the lighter is dropped
    apart = [inputs[0], inputs[2]._replace(good_pixels=1600)]
    assert average_position(apart, plane()) == pytest.approx((20.0, 10.0), abs=1e-6)
    with pytest.raises(NoUsableDataError, match="none of the 1 inputs"):
        average_position([inputs[0]._replace(good_pixels=0)], plane())


def test_any_description_of_the_sky_will_do():
    one = gaussian_input(4.0)
    expected = coadd_psf([one], plane(), 480.0, 390.0)
    header = one.wcs.header()
    for wcs in (header, WCS(header)):
        np.testing.assert_allclose(
            coadd_psf([one._replace(wcs=wcs)], plane().header(), 480.0, 390.0), expected, atol=1e-12
        )


def test_inputs_stay_as_they_are():
    one = gaussian_input(4.0)
    before = one.psf.copy(deep=True)
    coadd_psf_grid([one], plane(), (0, 300, 0, 300))
    assert one.psf.identical(before)


@pytest.mark.parametrize("corner", [(0.0, 0.0), (4.0, 0.0), (4.0, 2.0)])
def test_a_polygon_contains_its_outline(corner):
    triangle = [(0, 0), (4, 0), (4, 2)]
    assert inside(triangle, *corner)
    assert inside(triangle, 2.0, 1.0)
    assert not inside(triangle, 1.9, 1.0)
    assert inside(triangle[::-1], 3.0, 1.0)
    assert not inside(triangle, np.nan, 1.0)


def test_misuse_is_named():
    one = gaussian_input(4.0)
    with pytest.raises(ValueError, match="polygon of input 0 must be at least 3 corners"):
        coadd_psf([one._replace(polygon=[(0, 0), (1, 1)])], plane(), 0.0, 0.0)
    with pytest.raises(ValueError, match="polygon of input 12, 3 must be finite"):
        coadd_psf(
            [one._replace(polygon=[(0, 0), (1, np.nan), (1, 1)], visit=12, detector=3)],
            plane(),
            0.0,
            0.0,
        )
    with pytest.raises(ValueError, match="wcs of input 0"):
        coadd_psf([one._replace(wcs=None)], plane(), 0.0, 0.0)
    with pytest.raises(ValueError, match="no variable psf"):
        coadd_psf([one._replace(psf=one.psf.rename(psf="image"))], plane(), 0.0, 0.0)
    with pytest.raises(ValueError, match="box must be"):
        coadd_psf_grid([one], plane(), (0, 0, 0, 10))
    with pytest.raises(ValueError, match="spacing must be >= 1"):
        coadd_psf_grid([one], plane(), (0, 10, 0, 10), spacing=0)
    with pytest.raises(ValueError, match="matrix must be"):
        warp_psf(gaussian_psf(3.0), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="size must be odd"):
        warp_psf(gaussian_psf(3.0), np.eye(2), size=10)
