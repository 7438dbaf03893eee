"""Kernels that match point-spread functions, and matched warps: the stated targets, failures."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import xarray as xr
from photutils.psf_matching import make_wiener_kernel
from threadpoolctl import threadpool_limits

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.psf import (
    AlardLuptonParameters,
    MatchingParameters,
    convolve,
    double_gaussian_psf,
    evaluate_kernel,
    gaussian_psf,
    match_psf,
    matching_kernel,
    moffat_psf,
    psf_at_points,
    psf_fwhm,
)
from skyloom.algorithms.psf.fourier_kernels import fourier_kernels

BOX = (0, 400, 0, 500)
COMPAT = MatchingParameters(method="alard_lupton")


def constant(image: xr.DataArray) -> xr.Dataset:
    return psf_at_points(image, 100.0, 100.0)


def varying(model=moffat_psf, box=BOX) -> xr.Dataset:
    """Return point-spread functions whose width, shape and angle change over a box."""
    y, x = (
        values.ravel()
        for values in np.meshgrid(
            np.linspace(box[0], box[1], 8), np.linspace(box[2], box[3], 8), indexing="ij"
        )
    )
    u, w = (x - box[2]) / (box[3] - box[2]), (y - box[0]) / (box[1] - box[0])
    images = [
        model(4.0 + 0.3 * a + 0.2 * b, axis_ratio=0.95 - 0.05 * a, angle=20 * b, size=93)
        for a, b in zip(u, w, strict=True)
    ]
    return psf_at_points(np.stack(images), x, y)


def warp_of(shape=(150, 160), seed: int = 0) -> xr.Dataset:
    """Return a noisy warp with missing pixels, conditions and things that are no pixels."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, 3.0, shape).astype(np.float32)
    mask = np.zeros(shape, np.int32)
    image[:10, :10], mask[:10, :10] = np.nan, v.MASK_PLANES["NO_DATA"]
    variance = np.where(np.isnan(image), np.inf, 9.0).astype(np.float32)
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": "nJy"}),
            "variance": (("y", "x"), variance, {"units": "nJy2"}),
            "mask": (("y", "x"), mask, v.mask_attributes()),
            "masked_fraction": (("y", "x"), np.zeros(shape, np.float32)),
            "airmass": ((), 1.3),
        },
        coords={"visit": 123, "band": "g", "mjd": 60000.5},
        attrs={
            "box": [-50, shape[0] - 50, 30, shape[1] + 30],
            "wcs": {"CTYPE1": "RA---TAN", "CRVAL1": 10.0},
            "conditions": {"temperature": float("inf"), "humidity": 40.0},
        },
    )


@pytest.mark.parametrize("model", [gaussian_psf, moffat_psf])
@pytest.mark.parametrize("width", [3.0, 4.0, 5.0, 6.0, 6.5])
def test_matched_images_differ_from_the_target_by_less_than_a_thousandth(model, width):
    kernel = matching_kernel(constant(model(width, size=95)), 7.7, BOX)
    assert v.MatchStatus(int(kernel["status"])) is v.MatchStatus.OK
    assert float(kernel["residual"].max()) <= 1e-3
    assert float(kernel["sum_deviation"]) <= 1e-4
    assert float(kernel["kernel"].sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("image", [gaussian_psf(4.0), moffat_psf(4.5, axis_ratio=0.85, angle=30)])
def test_kernels_are_those_of_photutils_before_they_are_cut(image):
    target, padded = gaussian_psf(7.7, size=95).values, np.zeros((95, 95))
    margin = (95 - len(image)) // 2
    padded[margin : 95 - margin, margin : 95 - margin] = image
    ours = fourier_kernels(padded[None], target, 95, 1e-3)[0]
    theirs = make_wiener_kernel(padded, target, regularization=1e-6)
    np.testing.assert_allclose(ours / ours.sum(), theirs, atol=1e-12)
    kernel = matching_kernel(constant(image), 7.7, BOX)
    cut = evaluate_kernel(kernel, 0.0, 0.0).values
    half = len(cut) // 2
    part = theirs[47 - half : 48 + half, 47 - half : 48 + half]
    np.testing.assert_allclose(cut, part, atol=1e-3 * part.max())


@pytest.mark.parametrize(("width", "factor"), [(4.0, 0.010), (6.0, 0.019)])
def test_the_variance_shrinks_by_the_stated_factor(width, factor):
    kernel = matching_kernel(constant(gaussian_psf(width, size=95)), 7.7, BOX)
    assert float((kernel["kernel"] ** 2).sum()) == pytest.approx(factor, abs=5e-4)


def test_a_target_may_be_any_image():
    target = moffat_psf(8.0, beta=4.0, size=93)
    kernel = matching_kernel(constant(moffat_psf(5.0, axis_ratio=0.8, angle=30)), target, BOX)
    assert float(kernel["residual"].max()) <= 1e-3
    assert float(kernel["target_fwhm"]) == pytest.approx(8.0, rel=1e-3)


def test_kernels_follow_a_changing_image_everywhere():
    kernel = matching_kernel(varying(), 7.7, BOX)
    assert float(kernel["residual"].max()) <= 1e-3
    assert 1 < kernel.sizes["component"] <= 6
    for x, y in ((0.0, 0.0), (250.0, 200.0), (499.0, 399.0)):
        assert float(evaluate_kernel(kernel, x, y).sum()) == pytest.approx(1.0, abs=1e-4)


def test_points_without_an_image_are_left_out():
    psf = varying()
    holed = psf.copy(deep=True)
    holed["psf"][::7] = np.nan
    before = holed.copy(deep=True)
    kernel = matching_kernel(holed, 7.7, BOX)
    xr.testing.assert_identical(holed, before)
    assert float(kernel["residual"].max()) <= 1e-3


def test_stars_of_a_changing_image_become_the_target():
    """Stars at the points of a set, each drawn with its own image, are matched in pixels."""
    box = (0, 600, 0, 600)
    psf = varying(gaussian_psf, box)
    image = np.zeros((600, 600))
    stars = [(110, 120), (110, 480), (300, 300), (480, 130), (490, 470)]
    for y, x in stars:
        u, w = x / 600, y / 600
        drawn = gaussian_psf(
            4 + 0.3 * u + 0.2 * w, axis_ratio=0.95 - 0.05 * u, angle=20 * w, size=93
        )
        image[y - 46 : y + 47, x - 46 : x + 47] += drawn.values
    warp = xr.Dataset({"image": (("y", "x"), image.astype(np.float32))})
    found = match_psf(warp, psf, 7.7)
    target = found["psf"].values[26:-26, 26:-26]
    for y, x in stars:
        part = found["image"].values[y - 20 : y + 21, x - 20 : x + 21]
        difference = np.sqrt(((part - target) ** 2).sum() / (target**2).sum())
        assert difference <= 1e-3


@pytest.mark.parametrize("total", [0.5, 1.0, 2.7])
def test_a_compatible_kernel_has_the_sum_that_is_asked_for(total):
    chosen = COMPAT.model_copy(update={"alard_lupton": AlardLuptonParameters(kernel_sum=total)})
    kernel = matching_kernel(varying(), double_gaussian_psf(7.7, size=23), BOX, parameters=chosen)
    for x, y in ((0.0, 0.0), (250.0, 200.0), (499.0, 399.0)):
        assert float(evaluate_kernel(kernel, x, y).sum()) == pytest.approx(total, abs=1e-7)


@pytest.mark.parametrize("width", [3.0, 5.0, 6.5])
def test_a_compatible_kernel_makes_a_gaussian_but_not_the_wings_of_two(width):
    psf = constant(gaussian_psf(width, size=95))
    single = matching_kernel(psf, gaussian_psf(7.7, size=95), BOX, parameters=COMPAT)
    assert single.sizes["kernel_y"] == 21
    assert float(single["residual"].max()) <= 3.5e-3
    short = double_gaussian_psf(7.7, size=23)
    truncated = matching_kernel(psf, short, BOX, parameters=COMPAT)
    assert 0.02 < float(truncated["residual"].max()) < 0.036
    assert int(truncated["status"]) == v.MatchStatus.POOR_KERNEL


def test_a_target_less_than_a_tenth_wider_is_refused_with_its_reason():
    warp, psf = warp_of(), constant(gaussian_psf(6.0))
    with pytest.warns(DroppedInputWarning, match=r"6\.5 pixels is less than 1\.1 times as wide"):
        found = match_psf(warp, psf, 6.5)
    assert v.MatchStatus(int(found["match_status"])) is v.MatchStatus.TARGET_TOO_NARROW
    assert np.isnan(found["image"]).all()
    assert np.isinf(found["variance"]).all()
    assert (found["mask"] == v.MASK_PLANES["NO_DATA"]).all()
    assert found.attrs == warp.attrs
    assert float(found["input_fwhm"]) == pytest.approx(6.0, rel=1e-3)
    assert int(match_psf(warp, psf, 6.6)["match_status"]) == v.MatchStatus.OK


def test_one_wide_corner_is_enough_to_refuse():
    images = np.stack([gaussian_psf(width, size=61) for width in (4.0, 4.0, 4.0, 7.5)])
    psf = psf_at_points(images, [40, 180, 40, 180], [-40, -40, 90, 90])
    with pytest.warns(DroppedInputWarning):
        found = match_psf(warp_of(), psf, 7.7)
    assert int(found["match_status"]) == v.MatchStatus.TARGET_TOO_NARROW


def test_no_point_spread_function_is_a_status_too():
    psf = constant(gaussian_psf(4.0)) * np.nan
    with pytest.warns(DroppedInputWarning, match="there is no point-spread function"):
        found = match_psf(warp_of(), psf, 7.7)
    assert int(found["match_status"]) == v.MatchStatus.NO_PSF
    assert found["match_status"].attrs["flag_meanings"].split()[1] == "NO_PSF"


def test_conditions_and_all_that_is_no_pixel_stay_identical():
    warp = warp_of()
    before = warp.copy(deep=True)
    psf = constant(gaussian_psf(4.0))
    found = match_psf(warp, psf, 7.7)
    xr.testing.assert_identical(warp, before)
    xr.testing.assert_identical(psf, constant(gaussian_psf(4.0)))
    assert found.attrs == warp.attrs
    xr.testing.assert_identical(found["airmass"], warp["airmass"])
    assert {name: found.coords[name].item() for name in ("visit", "band", "mjd")} == {
        "visit": 123,
        "band": "g",
        "mjd": 60000.5,
    }
    for name in ("image", "variance", "mask"):
        assert found[name].attrs == warp[name].attrs
    assert "masked_fraction" not in found


def test_matching_is_the_convolution_with_the_kernel_of_the_box():
    warp, psf = warp_of(), varying(box=(-50, 100, 30, 190))
    kernel = matching_kernel(psf, 7.7, (-50, 100, 30, 190))
    expected = convolve(warp[["image", "variance", "mask"]], kernel)
    found = match_psf(warp, psf, 7.7)
    for name in ("image", "variance", "mask"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert int(found["kernel_size"]) == kernel.sizes["kernel_y"]


def test_the_variance_of_a_matched_warp_is_its_scatter():
    warp = warp_of((400, 400), seed=3)
    found = match_psf(warp, constant(gaussian_psf(6.0, size=95)), 7.7)
    good = np.isfinite(found["image"].values)
    ratio = found["image"].values[good].var() / found["variance"].values[good].mean()
    assert ratio == pytest.approx(1.0, abs=0.04)


def test_lazy_and_eager_warps_agree():
    warp = xr.concat(
        [warp_of(seed=seed) for seed in range(2)],
        "visit",
        data_vars="all",
        coords="minimal",
        compat="override",
    )
    psf = varying(box=(-50, 100, 30, 190))
    eager = match_psf(warp, psf, 7.7)
    lazy = match_psf(warp.chunk({"visit": 1}), psf, 7.7)
    assert isinstance(lazy["image"].data, dask.array.Array)
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), eager)
    with pytest.warns(DroppedInputWarning):
        refused = match_psf(warp.chunk({"visit": 1}), psf, 4.0)
    assert isinstance(refused["image"].data, dask.array.Array)


def test_a_matched_star_has_the_width_of_the_target():
    star = gaussian_psf(4.2, size=121, axis_ratio=0.9, angle=20)
    warp = xr.Dataset({"image": (("y", "x"), 1e4 * star.values.astype(np.float32))})
    found = match_psf(warp, constant(star), 7.7)
    part = found["image"][30:-30, 30:-30].rename(y="psf_y", x="psf_x")
    assert float(psf_fwhm(part)) == pytest.approx(7.7, rel=1e-3)
    assert float(part.sum()) == pytest.approx(1e4, rel=1e-3)


def test_misuse_is_named():
    psf = constant(gaussian_psf(4.0))
    with pytest.raises(ValueError, match="fwhm must be > 0"):
        matching_kernel(psf, 0.0, BOX)
    with pytest.raises(ValueError, match="one finite image"):
        matching_kernel(psf, gaussian_psf(4.0) * np.nan, BOX)
    with pytest.raises(ValueError, match="a width at half maximum"):
        matching_kernel(psf, xr.DataArray(np.ones((5, 5)), dims=("psf_y", "psf_x")), BOX)
    with pytest.raises(ValueError, match=r"box .* is empty"):
        matching_kernel(psf, 7.7, (0, 0, 0, 10))
    with pytest.raises(KeyError, match="no variable image"):
        match_psf(warp_of()[["variance"]], psf, 7.7)
    with pytest.raises(ValueError, match="extra"):
        MatchingParameters(technique="fourier")


@pytest.mark.parametrize(
    ("settings", "box", "message"),
    [
        ({"kernel_size": 51, "padding": 0}, BOX, "kernel_size 51 must be at most"),
        ({"padding": 3}, BOX, "padding must be even"),
        ({"kernel_size": 20}, BOX, "kernel_size must be odd"),
        ({"degrees": (4, 2)}, BOX, "3 sigmas need as many degrees, got 2"),
        ({"sigmas": (1.0, 2.0, -1.0)}, BOX, "sigmas must be > 0"),
        ({}, (0, 100, 0, 500), "smaller than one cell"),
    ],
)
def test_wrong_settings_of_a_compatible_kernel_are_named(settings, box, message):
    chosen = MatchingParameters(
        method="alard_lupton", alard_lupton=AlardLuptonParameters(**settings)
    )
    with pytest.raises(ValueError, match=message):
        matching_kernel(constant(gaussian_psf(4.0)), 7.7, box, parameters=chosen)


@pytest.mark.parametrize("method", ["fourier", "alard_lupton"])
def test_kernels_have_the_same_bits_on_any_number_of_threads(method):
    chosen = MatchingParameters(method=method)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(matching_kernel(varying(), 7.7, BOX, parameters=chosen))
    xr.testing.assert_identical(*found)
