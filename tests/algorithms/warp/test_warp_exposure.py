"""Warps: identities, stated values, closed loops, failures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.warp import WarpParameters, kernel_weights, warp_exposure
from tests.algorithms.warp.scenes import exposure_of, plane, stars

PLANE = v.MASK_PLANES
KERNELS = ("bilinear", "lanczos3", "lanczos5")


def noisy(shape=(60, 70), seed=1, **planes):
    rng = np.random.default_rng(seed)
    return exposure_of(rng.normal(100, 5, shape), rng.uniform(20, 30, shape), **planes)


def moved(dx=0.0, dy=0.0, **options):
    """Return a tangent plane on which the exposure of `plane()` lies dx, dy pixels further."""
    return plane(center=(50.0 + dx, 50.0 + dy), **options)


def direct(image, x, y, kernel):
    """Return the kernel's sum around one position, taken literally."""
    i, j = int(np.floor(x)), int(np.floor(y))
    along_x, along_y = kernel_weights(kernel, x - i), kernel_weights(kernel, y - j)
    half = along_x.size // 2
    part = image[j - half + 1 : j + half + 1, i - half + 1 : i + half + 1]
    return along_y @ part @ along_x


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_grid_gives_the_exposure_less_a_border_of_half_a_kernel(kernel):
    exposure = noisy()
    warp = warp_exposure(exposure, plane(), plane(), (0, 60, 0, 70), kernel=kernel)
    half = kernel_weights(kernel, 0.0).size // 2
    inner = slice(half - 1, 60 - half), slice(half - 1, 70 - half)
    for name in ("image", "variance"):
        found, expected = warp[name].values[inner], exposure[name].values[inner]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (warp["mask"].values[inner] == 0).all()
    empty = np.ones((60, 70), bool)
    empty[inner] = False
    assert np.isnan(warp["image"].values[empty]).all()
    assert np.isposinf(warp["variance"].values[empty]).all()
    assert (warp["mask"].values[empty] == PLANE["NO_DATA"]).all()
    assert int(warp["good_count"]) == (~empty).sum()
    assert int(warp["status"]) == v.WarpStatus.OK


def test_an_offset_by_whole_pixels_copies_exactly():
    exposure = noisy(mask=np.arange(4200).reshape(60, 70) % 2 * PLANE["SUSPECT"])
    warp = warp_exposure(exposure, plane(), moved(7, -4), (0, 40, 10, 70))
    for name in ("image", "variance", "mask"):
        np.testing.assert_allclose(
            warp[name].values[:40], exposure[name].values[4:44, 3:63], rtol=1e-6
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pixel_is_the_sum_over_its_kernel(kernel):
    exposure = noisy()
    warp = warp_exposure(exposure, plane(), moved(0.3, -0.85), (0, 60, 0, 70), kernel=kernel)
    image = exposure["image"].values.astype(float)
    variance = exposure["variance"].values.astype(float)
    for y, x in ((20, 30), (40, 11), (33, 50)):
        expected = direct(image, x - 0.3, y + 0.85, kernel)
        assert float(warp["image"][y, x]) == pytest.approx(expected, rel=1e-6)
        i, j = int(np.floor(x - 0.3)), int(np.floor(y + 0.85))
        weights = np.outer(kernel_weights(kernel, 0.85), kernel_weights(kernel, 0.7))
        half = weights.shape[0] // 2
        part = variance[j - half + 1 : j + half + 1, i - half + 1 : i + half + 1]
        expected = (weights**2 * part).sum()
        # the table of weights is good to 5e-7 along each axis, and variances take their squares
        assert float(warp["variance"][y, x]) == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize(("turn", "scale"), [(0, 0.2), (33, 0.16), (170, 0.24), (90, 0.2)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_becomes_the_constant_times_the_ratio_of_areas(turn, scale, kernel):
    exposure = exposure_of(np.full((150, 150), 7.0))
    target = plane(turn, scale, center=(75.0, 75.0))
    source = plane(center=(75.0, 75.0))
    warp = warp_exposure(exposure, source, target, (50, 100, 50, 100), kernel=kernel)
    np.testing.assert_allclose(warp["image"], 7.0 * (scale / 0.2) ** 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("turn", "scale", "fwhm", "flux", "center", "profile"),
    [
        (10, 0.2, 4.0, 3e-4, 0.004, 0.009),
        (33, 0.25, 4.0, 3e-4, 0.004, 0.009),
        (45, 0.2 / 1.2, 4.0, 3e-4, 0.004, 0.009),
        (10, 0.2, 2.5, 1e-3, 0.01, 0.024),
    ],
)
def test_stars_keep_flux_centre_and_profile(turn, scale, fwhm, flux, center, profile):
    source, target = plane(center=(100.2, 99.7)), plane(turn, scale, center=(60.0, 60.0))
    x, y = source.to_pixels(*target.to_sky(60.37, 59.81))
    exposure = exposure_of(stars((200, 200), x, y, fwhm))
    warp = warp_exposure(exposure, source, target, (30, 91, 30, 91))
    image = warp["image"].values.astype(float)
    rows, columns = np.mgrid[30:91, 30:91]
    assert image.sum() == pytest.approx(1e4, rel=1.5 * flux)
    assert (image * columns).sum() / image.sum() == pytest.approx(60.37, abs=1.5 * center)
    assert (image * rows).sum() / image.sum() == pytest.approx(59.81, abs=1.5 * center)
    truth = stars((121, 121), 60.37, 59.81, fwhm * 0.2 / scale)[30:91, 30:91]
    assert np.sqrt(((image - truth) ** 2).sum() / (truth**2).sum()) < 1.5 * profile


def test_the_variance_plane_is_that_of_warped_white_noise():
    rng = np.random.default_rng(3)
    exposure = exposure_of(rng.normal(0, 3, (400, 400)), 9.0)
    source, target = plane(center=(200.0, 200.0)), plane(17, center=(200.0, 200.0))
    warp = warp_exposure(exposure, source, target, (80, 320, 80, 320))
    pulls = warp["image"] / np.sqrt(warp["variance"])
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.02)
    assert float(warp["variance"].mean()) == pytest.approx(9 * 0.799, rel=0.005)


def pixels_with(warp, name):
    return np.argwhere((warp["mask"].values & PLANE[name]) != 0)


def test_half_a_pixel_away_a_bad_pixel_makes_four_and_an_edge_pixel_makes_36():
    for name, number in (("BAD", 4), ("SUSPECT", 4), ("EDGE", 36)):
        exposure = noisy()
        exposure["mask"][30, 33] = PLANE[name]
        warp = warp_exposure(exposure, plane(), moved(0.5, 0.5), (10, 50, 10, 60))
        found = pixels_with(warp, name)
        assert len(found) == number
        assert np.ptp(found[:, 0]) == np.ptp(found[:, 1]) == np.sqrt(number) - 1


@pytest.mark.parametrize("name", ["BAD", "SUSPECT", "EDGE"])
def test_on_the_same_grid_a_flagged_pixel_stays_one(name):
    exposure = noisy()
    exposure["mask"][30, 33] = PLANE[name]
    warp = warp_exposure(exposure, plane(), moved(1, 2), (0, 60, 0, 70))
    assert pixels_with(warp, name).tolist() == [[32, 34]]


def test_on_one_axis_only_edges_spread_along_the_other():
    exposure = noisy()
    exposure["mask"][30, 33] = PLANE["EDGE"]
    warp = warp_exposure(exposure, plane(), moved(0.5, 0.0), (0, 60, 0, 70))
    found = pixels_with(warp, "EDGE")
    assert found[:, 0].tolist() == [30] * 6


def test_a_bad_pixel_is_left_out_of_its_neighbours():
    flat = np.full((60, 70), 50.0)
    flat[30, 33] = 1e6
    mask = np.where(flat > 100, PLANE["BAD"], 0)
    clean = exposure_of(flat, 2.0, mask)
    warp = warp_exposure(clean, plane(), moved(0.5, 0.5), (10, 50, 10, 60))
    np.testing.assert_allclose(warp["image"], 50.0, rtol=1e-5)
    assert not (warp["mask"].values & PLANE["NO_DATA"]).any()
    # weights squared over the square of their sum
    y, x = 30, 34
    weights = np.outer(kernel_weights("lanczos3", 0.5), kernel_weights("lanczos3", 0.5))
    good = np.ones((6, 6))
    # position (33.5, 29.5) has the pixels 31 to 36 and 27 to 32 around it
    good[30 - 27, 33 - 31] = 0
    expected = 2.0 * (good * weights**2).sum() / (good * weights).sum() ** 2
    assert float(warp["variance"][y - 10, x - 10]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["image", "variance"])
def test_what_is_not_finite_never_spreads(name, value):
    exposure = exposure_of(np.full((60, 70), 50.0))
    exposure[name][20:23, 33] = value
    warp = warp_exposure(exposure, plane(), moved(0.25, 0.25), (10, 50, 10, 60))
    data = (warp["mask"] & PLANE["NO_DATA"]) == 0
    np.testing.assert_allclose(warp["image"].values[data], 50.0, rtol=1e-5)
    assert np.isfinite(warp["variance"].values[data]).all()
    lost = np.argwhere(~data.values) + 10
    assert lost.tolist() == [[20, 33], [21, 33], [22, 33]]
    assert np.isnan(warp["image"].values[~data]).all()
    assert np.isposinf(warp["variance"].values[~data]).all()


def test_where_less_than_half_of_the_kernel_is_good_there_is_no_data():
    exposure = exposure_of(np.full((60, 70), 50.0))
    exposure["mask"][:, 35:] = PLANE["BAD"]
    warp = warp_exposure(exposure, plane(), moved(0.3, 0.0), (10, 50, 10, 60))
    along = kernel_weights("lanczos3", 0.7)
    for x in range(10, 60):
        first = x - 1 - 2
        weight = along[[first + tap < 35 for tap in range(6)]].sum()
        assert bool(np.isfinite(warp["image"][5, x - 10])) == bool(weight >= 0.5)
        bad = x >= 35
        assert bool(warp["mask"][5, x - 10] & PLANE["BAD"]) == bad
    strict = WarpParameters(least_weight=1.0)
    few = warp_exposure(exposure, plane(), moved(0.3, 0.0), (10, 50, 10, 60), parameters=strict)
    assert int(few["good_count"]) < int(warp["good_count"])


def test_the_plain_rule_uses_flagged_pixels_and_spreads_nan_over_the_kernel():
    exposure = noisy()
    exposure["mask"][40, 20] = PLANE["BAD"]
    exposure["image"][20, 33] = np.nan
    plain = WarpParameters(bad_pixels="spread")
    warp = warp_exposure(exposure, plane(), moved(0.5, 0.5), (10, 50, 10, 60), parameters=plain)
    assert int(warp["image"].isnull().sum()) == 36
    image = exposure["image"].values.astype(float)
    expected = direct(image, 20 + 0.5, 40 + 0.5, "lanczos3")
    assert float(warp["image"].sel(y=41, x=21)) == pytest.approx(expected, rel=1e-6)


def test_the_masked_fraction_is_a_bilinear_sum_between_nought_and_one():
    exposure = noisy()
    exposure["mask"][30, 33] = PLANE["BAD"]
    exposure["variance"][20, 20] = -1.0
    warp = warp_exposure(exposure, plane(), moved(0.25, 0.5), (10, 50, 10, 60))
    fraction = warp["masked_fraction"]
    assert float(fraction.min()) == 0.0
    assert float(fraction.max()) <= 1.0
    np.testing.assert_allclose(
        fraction.sel(y=[30, 31], x=[33, 34]), [[0.375, 0.125], [0.375, 0.125]], atol=1e-6
    )
    assert float(fraction.sum()) == pytest.approx(2.0, abs=1e-5)


def test_a_polygon_leaves_out_what_is_outside():
    exposure = noisy()
    corners = [(5, 5), (60, 5), (60, 40), (5, 40)]
    warp = warp_exposure(exposure, plane(), plane(), (0, 60, 0, 70), polygon=corners)
    data = np.argwhere(np.isfinite(warp["image"].values))
    assert data.min(axis=0).tolist() == [5, 5]
    assert data.max(axis=0).tolist() == [40, 60]


def test_noise_goes_through_the_same_kernel_and_depends_on_detector_and_number():
    exposure = exposure_of(np.full((120, 120), 50.0), 4.0)
    wanted = WarpParameters(noise_realizations=2)
    source, target = plane(center=(60.0, 60.0)), plane(20, center=(60.0, 60.0))
    box = (30, 90, 30, 90)
    warp = warp_exposure(exposure, source, target, box, parameters=wanted)
    noise = warp["noise"]
    assert noise.dims == ("realization", "y", "x")
    pulls = noise / np.sqrt(warp["variance"])
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.05)
    assert abs(np.corrcoef(noise[0].values.ravel(), noise[1].values.ravel())[0, 1]) < 0.1
    again = warp_exposure(exposure, source, target, box, parameters=wanted)
    xr.testing.assert_identical(again, warp)
    other = warp_exposure(
        exposure.assign_coords(detector="S2"), source, target, box, parameters=wanted
    )
    assert not np.array_equal(other["noise"], noise)
    xr.testing.assert_equal(
        other["image"].drop_vars("detector"), warp["image"].drop_vars("detector")
    )
    part = warp_exposure(exposure, source, target, (40, 50, 33, 77), parameters=wanted)
    xr.testing.assert_equal(part["noise"], noise.sel(y=part["y"], x=part["x"]))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(-40, 60), st.integers(1, 70), st.integers(-40, 60), st.integers(1, 70),
    st.sampled_from(KERNELS),
)  # fmt: skip
def test_a_part_has_the_bits_of_the_whole(y, height, x, width, kernel):
    exposure = noisy(mask=np.where(np.random.default_rng(2).random((60, 70)) < 0.05, 1, 0))
    target = plane(25, 0.23, center=(40.0, 30.0))
    box = (y, y + height, x, x + width)
    whole = warp_exposure(exposure, plane(), target, (-40, 130, -40, 130), kernel=kernel)
    part = warp_exposure(exposure, plane(), target, box, kernel=kernel)
    if int(part["status"]) == v.WarpStatus.OK:
        names = ["image", "variance", "mask", "masked_fraction"]
        expected = whole[names].sel(y=slice(y, y + height - 1), x=slice(x, x + width - 1))
        xr.testing.assert_equal(part[names], expected)
    else:
        window = whole["image"].sel(y=slice(y, y + height - 1), x=slice(x, x + width - 1))
        assert window.isnull().all()


@pytest.mark.parametrize("realizations", [0, 2])
def test_lazy_and_eager_warps_are_the_same(realizations):
    exposure = noisy()
    wanted = WarpParameters(noise_realizations=realizations)
    lazy = warp_exposure(
        exposure.chunk({"y": 17}), plane(), plane(5), (5, 50, 10, 60), parameters=wanted
    )
    assert lazy["image"].chunks is not None
    eager = warp_exposure(exposure, plane(), plane(5), (5, 50, 10, 60), parameters=wanted)
    xr.testing.assert_identical(lazy.compute(), eager)


def test_only_the_part_that_a_box_needs_is_read():
    read = []

    def rows_of(block, block_info=None):
        read.append(block_info[0]["array-location"][0])
        return block

    exposure = noisy((200, 70))
    lazy = exposure.chunk({"y": 20})
    lazy["image"] = lazy["image"].copy(data=lazy["image"].data.map_blocks(rows_of, dtype="f4"))
    read.clear()
    box, corners = (104, 118, 10, 60), [(15, 90), (50, 90), (50, 130), (15, 130)]
    part = warp_exposure(lazy, plane(), plane(), box, polygon=corners)
    assert not read
    part = part.compute()
    # rows of the cells of 64 pixels that the box meets, and half a kernel around
    assert sorted(read) == [(start, start + 20) for start in range(40, 140, 20)]
    xr.testing.assert_identical(
        part, warp_exposure(exposure, plane(), plane(), box, polygon=corners)
    )


def test_a_cropped_warp_is_the_part_that_the_detector_reaches():
    exposure = noisy()
    box = (-200, 300, -300, 400)
    cropped = warp_exposure(exposure, plane(), plane(25), box, parameters=WarpParameters(crop=True))
    whole = warp_exposure(exposure, plane(), plane(25), box)
    assert cropped["image"].size < 0.2 * whole["image"].size
    assert int(cropped["good_count"]) == int(whole["good_count"])
    box = cropped.attrs["box"]
    names = ["image", "variance", "mask", "masked_fraction"]
    expected = whole[names].sel(y=slice(box[0], box[1] - 1), x=slice(box[2], box[3] - 1))
    xr.testing.assert_equal(cropped[names], expected)


def test_leading_dimensions_are_warped_one_by_one():
    stack = xr.concat([noisy(seed=1), noisy(seed=2)], dim="layer", coords="minimal")
    warp = warp_exposure(stack.chunk({"layer": 1}), plane(), plane(5), (5, 50, 10, 60))
    for layer in range(2):
        one = warp_exposure(stack.isel(layer=layer), plane(), plane(5), (5, 50, 10, 60))
        xr.testing.assert_equal(warp.isel(layer=layer).compute(), one)


def test_nothing_that_is_given_changes():
    exposure = noisy()
    exposure.attrs["conditions"] = {"altitude": 45.0}
    wcs = WCS(fits.Header(plane().header()))
    before, header = exposure.copy(deep=True), wcs.to_header_string()
    corners = np.array([(5.0, 5.0), (60.0, 5.0), (60.0, 40.0)])
    warp = warp_exposure(
        exposure, wcs, plane(5), (5, 50, 10, 60), polygon=corners,
        parameters=WarpParameters(noise_realizations=1),
    )  # fmt: skip
    xr.testing.assert_identical(exposure, before)
    assert wcs.to_header_string() == header
    assert warp.attrs["conditions"] == exposure.attrs["conditions"]


def test_a_warp_says_what_and_where_it_is():
    exposure = noisy(physical_filter="r", mjd_start=60000.5)
    warp = warp_exposure(exposure, plane(), plane(5), (5, 50, -10, 60))
    assert warp.attrs["box"] == [5, 50, -10, 60]
    assert warp["y"].values[[0, -1]].tolist() == [5, 49]
    assert warp["x"].values[[0, -1]].tolist() == [-10, 59]
    assert WCS(fits.Header(warp.attrs["wcs"])).wcs.crpix.tolist() == [51.0, 51.0]
    assert {name: warp[name].item() for name in ("visit", "detector", "physical_filter")} == {
        "visit": 12,
        "detector": "S1",
        "physical_filter": "r",
    }
    assert (warp["image"].attrs["units"], warp["variance"].attrs["units"]) == ("nJy", "nJy2")
    assert "exposure" not in warp.coords
    assert [warp[name].dtype.name for name in ("image", "variance", "mask")] == [
        "float32",
        "float32",
        "int32",
    ]


def test_the_wcs_that_an_exposure_carries_is_used_where_none_is_given_and_ends_there():
    expected = warp_exposure(noisy(), plane(7), plane(5), (5, 50, 10, 60))
    exposure = noisy(wcs=json.dumps(plane(7).header()))
    found = warp_exposure(exposure, None, plane(5), (5, 50, 10, 60))
    np.testing.assert_allclose(found["image"], expected["image"], rtol=1e-4)
    assert "wcs" not in found.coords
    with pytest.raises(GeometryError, match="S1 is missing"):
        warp_exposure(noisy(wcs=""), None, plane(5), (5, 50, 10, 60))
    with pytest.raises(GeometryError, match="S1 is no JSON text"):
        warp_exposure(noisy(wcs="RA---TAN"), None, plane(5), (5, 50, 10, 60))


def test_a_tract_and_a_patch_name_themselves():
    class Tract:
        index, plane = 7, plane(5)

    class Patch:
        index, outer = 3, (5, 50, 10, 60)

    warp = warp_exposure(noisy(), plane(), Tract(), Patch())
    assert (warp["tract"].item(), warp["patch"].item()) == (7, 3)
    plain = warp_exposure(noisy(), plane(), plane(5), (5, 50, 10, 60))
    np.testing.assert_array_equal(warp["image"], plain["image"])


@pytest.mark.parametrize("target", [plane(center=(5000.0, 50.0)), plane(sky=(29.0, 20.25))])
def test_an_exposure_that_misses_the_box_gives_a_code_and_no_planes(target):
    warp = warp_exposure(noisy(), plane(), target, (0, 60, 0, 70))
    assert int(warp["status"]) == v.WarpStatus.NO_OVERLAP
    assert list(warp.data_vars) == ["status"]
    assert warp["visit"].item() == 12


def test_an_exposure_without_a_good_pixel_has_a_count_of_none():
    warp = warp_exposure(noisy(mask=PLANE["BAD"]), plane(), plane(5), (5, 50, 10, 60))
    assert int(warp["good_count"]) == 0
    assert warp["image"].isnull().all()
    assert float(warp["masked_fraction"].min()) == pytest.approx(1.0, abs=1e-6)


def test_float64_and_big_endian_pixels_are_read_as_they_are():
    exposure = noisy()
    expected = warp_exposure(exposure, plane(), plane(5), (5, 50, 10, 60))
    for dtype in (">f4", "f8"):
        other = exposure.assign(image=exposure["image"].astype(dtype))
        xr.testing.assert_identical(
            warp_exposure(other, plane(), plane(5), (5, 50, 10, 60)), expected
        )


def test_a_mask_with_a_legend_of_its_own_is_translated():
    exposure = noisy()
    exposure["mask"][30, 33] = 64
    exposure["mask"].attrs = {"flag_masks": [64], "flag_meanings": "BAD"}
    warp = warp_exposure(exposure, plane(), plane(), (0, 60, 0, 70))
    assert warp["mask"].values[30, 33] == PLANE["BAD"] | PLANE["NO_DATA"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"kernel": "cubic"}, ConfigurationError, "kernel must be one of"),
        ({"box": (0, 10)}, GeometryError, "y_start, y_stop"),
        ({"box": (5, 5, 0, 10)}, GeometryError, "pixels in it"),
        ({"wcs": None}, GeometryError, "the WCS of exposure 12, detector S1 is missing"),
        ({"wcs": 3}, GeometryError, "got int"),
        ({"target": None}, GeometryError, "target is missing"),
        ({"parameters": WarpParameters(excluded_planes=("HOT",))}, KeyError, "HOT"),
        ({"polygon": [(0, 0), (1, 1)]}, ValueError, "corners"),
    ],
)
def test_misuse_is_named(arguments, error, text):
    given = {"wcs": plane(), "target": plane(), "box": (0, 60, 0, 70)} | arguments
    with pytest.raises(error, match=text):
        warp_exposure(noisy(), given.pop("wcs"), given.pop("target"), given.pop("box"), **given)


def test_misuse_of_planes_is_named():
    exposure = noisy()
    box = (0, 60, 0, 70)
    with pytest.raises(KeyError, match="variance"):
        warp_exposure(exposure.drop_vars("variance"), plane(), plane(), box)
    with pytest.raises(KeyError, match="image"):
        warp_exposure(exposure.drop_vars("image"), plane(), plane(), box)
    with pytest.raises(TypeError, match="floating"):
        warp_exposure(exposure.assign(image=exposure["image"].astype(int)), plane(), plane(), box)
    with pytest.raises(ValueError, match="noise_realizations"):
        warp_exposure(
            exposure.expand_dims(layer=2), plane(), plane(), box,
            parameters=WarpParameters(noise_realizations=1),
        )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 360), st.floats(0.7, 1.3), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5),
    st.sampled_from(KERNELS), st.sampled_from(["weigh", "spread"]), st.integers(0, 2**16),
)  # fmt: skip
def test_whatever_the_grids_planes_agree_with_each_other(
    turn, ratio, dx, dy, kernel, bad_pixels, seed
):
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random((120, 120)) < 0.02, rng.integers(1, 1 << 17, (120, 120)), 0)
    image = rng.normal(100, 5, (120, 120))
    image[rng.random((120, 120)) < 0.005] = np.nan
    exposure = exposure_of(image, rng.uniform(20, 30, (120, 120)), mask)
    target = plane(turn, 0.2 * ratio, center=(50 + dx, 50 + dy))
    warp = warp_exposure(
        exposure, plane(center=(60.0, 60.0)), target, (0, 100, 0, 100), kernel=kernel,
        parameters=WarpParameters(bad_pixels=bad_pixels),
    )  # fmt: skip
    empty = (warp["mask"].values & PLANE["NO_DATA"]) != 0
    taken = np.isfinite(warp["image"].values)
    # a pixel with data can carry the plane NO_DATA of a source pixel beside it
    assert not (~taken & ~empty).any()
    assert (np.isposinf(warp["variance"].values) == ~taken).all()
    assert (warp["variance"].values[taken] > 0).all()
    assert int(warp["good_count"]) == taken.sum()
    fraction = warp["masked_fraction"].values
    assert ((fraction >= 0) & (fraction <= 1)).all()
    known = int(np.bitwise_or.reduce(mask, axis=None)) | PLANE["NO_DATA"]
    assert not (warp["mask"].values & ~np.int32(known)).any()


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 360), st.floats(0.8, 1.2), st.floats(-3, 3), st.floats(-3, 3))
def test_a_star_keeps_its_flux_and_place_on_any_grid(turn, ratio, dx, dy):
    source = plane(center=(70.0, 70.0))
    target = plane(turn, 0.2 * ratio, center=(60 + dx, 60 + dy))
    x, y = source.to_pixels(*target.to_sky(60.0, 60.0))
    warp = warp_exposure(
        exposure_of(stars((140, 140), x, y, 4.0)), source, target, (35, 86, 35, 86)
    )
    image = warp["image"].values.astype(float)
    rows, columns = np.mgrid[35:86, 35:86]
    # worst where grids are almost parallel and of almost the same scale: there the kernel's
    # response around one cycle a pixel meets the star's own spectrum
    assert image.sum() == pytest.approx(1e4, rel=0.01)
    assert (image * columns).sum() / image.sum() == pytest.approx(60.0, abs=0.025)
    assert (image * rows).sum() / image.sum() == pytest.approx(60.0, abs=0.025)


def test_a_sum_of_exposures_is_warped_into_the_sum_of_warps():
    one, other = noisy(seed=1), noisy(seed=2)
    both = one.assign(
        image=one["image"] + other["image"], variance=one["variance"] + other["variance"]
    )
    warps = [
        warp_exposure(given, plane(), plane(33), (5, 50, 10, 60)) for given in (one, other, both)
    ]
    for name in ("image", "variance"):
        np.testing.assert_allclose(
            warps[0][name] + warps[1][name], warps[2][name], rtol=1e-5, equal_nan=True
        )
