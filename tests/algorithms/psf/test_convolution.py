"""Convolved images, variances and masks: identities, independent packages, failures."""

from __future__ import annotations

import astropy.convolution
import dask.array
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import chebyshev_design
from skyloom.algorithms.psf import ConvolutionParameters, convolve, evaluate_kernel, gaussian_psf
from skyloom.algorithms.psf.fields import KernelField, squared
from skyloom.algorithms.psf.tile_kernels import spread_bits

BITS = v.MASK_PLANES


def kernel_of(values) -> xr.DataArray:
    return xr.DataArray(np.asarray(values, float), dims=("kernel_y", "kernel_x"))


def lopsided(height: int = 7, width: int = 11) -> xr.DataArray:
    """Return a kernel without any symmetry."""
    values = np.random.default_rng(3).random((height, width)) ** 3
    return kernel_of(values / values.sum())


def exposure_of(shape=(90, 110), seed: int = 0, holes: int = 12) -> xr.Dataset:
    """Return noise with some missing pixels and some bits."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100.0, 5.0, shape).astype(np.float32)
    variance = rng.uniform(20.0, 30.0, shape).astype(np.float32)
    mask = np.zeros(shape, np.int32)
    for bit in ("SAT", "DETECTED", "EDGE", "NO_DATA"):
        y, x = rng.integers(0, shape[0], holes), rng.integers(0, shape[1], holes)
        mask[y, x] |= BITS[bit]
    image[(mask & BITS["NO_DATA"]) != 0] = np.nan
    variance[(mask & BITS["NO_DATA"]) != 0] = np.inf
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": "nJy"}),
            "variance": (("y", "x"), variance, {"units": "nJy2"}),
            "mask": (("y", "x"), mask, v.mask_attributes()),
        },
        coords={"visit": 17, "band": "g"},
        attrs={"box": [-20, shape[0] - 20, 40, shape[1] + 40], "conditions": {"airmass": 1.2}},
    )


def field_over(box, order: int = 2, sides=(7, 9)) -> xr.Dataset:
    """Return a field with three components that sums to 1 everywhere."""
    rng = np.random.default_rng(5)
    images = rng.random((3, *sides))
    images[0] /= images[0].sum()
    images[1:] -= images[1:].mean((1, 2), keepdims=True)
    terms = (order + 1) * (order + 2) // 2
    coefficients = 0.01 * rng.normal(size=(3, terms))
    coefficients[0] = 0.0
    coefficients[0, 0] = 1.0
    return xr.Dataset(
        {
            "kernel": (("component", "kernel_y", "kernel_x"), images),
            "coefficients": (("component", "coefficient"), coefficients),
        },
        attrs={"box": list(box), "order": order},
    )


def test_a_kernel_of_one_pixel_returns_the_exposure():
    given = exposure_of()
    found = convolve(given, kernel_of([[1.0]]))
    np.testing.assert_allclose(found["image"], given["image"], rtol=1e-6)
    np.testing.assert_allclose(found["variance"], given["variance"], rtol=1e-6)
    np.testing.assert_array_equal(found["mask"], given["mask"])


def test_a_bright_pixel_becomes_the_kernel():
    image = np.zeros((31, 41), np.float32)
    image[12, 20] = 1.0
    kernel = lopsided()
    found = convolve(xr.DataArray(image, dims=("y", "x")), kernel)["image"]
    np.testing.assert_allclose(found[9:16, 15:26], kernel, atol=1e-7)


@pytest.mark.parametrize("shape", [(20, 30), (300, 411), (513, 70)])
def test_pixels_agree_with_scipy_whatever_the_tiles(shape):
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, shape).astype(np.float32)
    kernel = lopsided(9, 13)
    found = convolve(xr.DataArray(image, dims=("y", "x")), kernel)["image"].values
    expected = scipy.signal.convolve2d(image.astype(float), kernel.values, mode="same")
    inner = np.s_[4 : shape[0] - 4, 6 : shape[1] - 6]
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-6)
    direct = scipy.ndimage.convolve(image.astype(float), kernel.values, mode="constant")
    np.testing.assert_allclose(found[inner], direct[inner], atol=1e-6)


def test_a_bright_star_costs_its_neighbours_no_digits():
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (128, 128)).astype(np.float32)
    image[64, 64] = 1e9
    kernel = gaussian_psf(3.0, size=15).rename(psf_y="kernel_y", psf_x="kernel_x")
    found = convolve(xr.DataArray(image, dims=("y", "x")), kernel)["image"].values
    expected = scipy.signal.convolve2d(image.astype(float), kernel.values, mode="same")
    np.testing.assert_allclose(found[7:40, 7:40], expected[7:40, 7:40], atol=2e-6)


def test_missing_pixels_are_left_out_as_astropy_does():
    given = exposure_of(holes=40)
    kernel = gaussian_psf(5.0, size=11).rename(psf_y="kernel_y", psf_x="kernel_x")
    parameters = ConvolutionParameters(min_fraction=0.0)
    found = convolve(given[["image"]], kernel, parameters=parameters)["image"]
    expected = astropy.convolution.convolve(
        given["image"].values.astype(float), kernel.values, boundary="fill", fill_value=np.nan
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_constant_stays_that_constant_beside_borders_and_missing_pixels():
    given = exposure_of(holes=60)
    given["image"] = given["image"].where(given["image"].isnull(), np.float32(7.5))
    found = convolve(given, lopsided(), parameters=ConvolutionParameters(min_fraction=0.2))
    good = np.isfinite(found["image"].values)
    assert good.mean() > 0.95
    np.testing.assert_allclose(found["image"].values[good], 7.5, rtol=1e-6)


def test_pixels_whose_kernel_misses_a_tenth_have_no_data():
    given = exposure_of(holes=60)
    kernel = lopsided()
    found = convolve(given, kernel)
    valid = np.isfinite(given["image"].values).astype(float)
    fraction = scipy.signal.convolve2d(valid, kernel.values, mode="same")
    missing = fraction <= 0.9
    np.testing.assert_array_equal(np.isnan(found["image"]), missing)
    np.testing.assert_array_equal(np.isinf(found["variance"]), missing)
    np.testing.assert_array_equal((found["mask"] & BITS["NO_DATA"]) != 0, missing)
    inexact = ~missing & (1 - fraction > 1e-3)
    np.testing.assert_array_equal((found["mask"] & BITS["INEXACT_PSF"]) != 0, inexact)
    assert (inexact & ~np.isfinite(given["image"].values)).any(), "some missing pixels are filled"


def test_a_variance_that_is_none_makes_a_pixel_missing():
    given = exposure_of(holes=0)
    for value in (np.nan, np.inf, -1.0):
        given["variance"][40, 50] = value
        found = convolve(given, kernel_of(np.full((3, 3), 1 / 9)))
        assert np.isnan(found["image"][40, 50])
        assert int((found["mask"] & BITS["NO_DATA"]).astype(bool).sum()) == 9 + 2 * (90 + 108)


def test_the_variance_is_the_scatter_of_many_noise_images():
    rng = np.random.default_rng(4)
    given = exposure_of((24, 26), holes=4)
    valid = np.isfinite(given["image"].values)
    noise = rng.normal(size=(4000, 24, 26)) * np.sqrt(np.where(valid, given["variance"], 0.0))
    images = xr.DataArray(
        np.where(valid, noise, np.nan).astype(np.float32), dims=("trial", "y", "x")
    )
    kernel = lopsided(5, 5)
    scatter = convolve(images, kernel)["image"].var("trial").values
    stated = convolve(given, kernel)["variance"].values
    good = np.isfinite(stated)
    ratio = scatter[good] / stated[good]
    assert ratio.mean() == pytest.approx(1.0, abs=0.006)
    assert ratio.std() < 1.3 * np.sqrt(2 / 4000)


def test_the_edge_reaches_exactly_half_a_kernel_in():
    image = xr.DataArray(np.ones((60, 70), np.float32), dims=("y", "x"))
    kernel = kernel_of(np.full((21, 11), 1 / 231))
    edge = (convolve(image, kernel)["mask"].values & BITS["EDGE"]) != 0
    assert edge[9].all()
    assert not edge[10, 5:-5].any()
    assert edge[30, 4]
    assert not edge[30, 5]
    assert int((~edge).sum()) == 40 * 60


def test_the_edge_of_a_detector_inside_the_image_is_an_edge_and_that_of_a_hole_is_not():
    given = exposure_of((80, 90), holes=0)
    image = given["image"].values
    image[:, 50:] = np.nan
    image[30:33, 20:23] = np.nan
    found = convolve(given, kernel_of(np.full((9, 11), 1 / 99)))
    edge = (found["mask"].values & BITS["EDGE"]) != 0
    assert edge[4:-4, 45:].all()
    assert not edge[4:-4, 5:45].any()
    assert ((found["mask"].values[4:-4, 5:45] & BITS["INEXACT_PSF"]) != 0).any()


@pytest.mark.parametrize(
    ("plane", "threshold", "half"),
    [("SAT", 0.0, 7), ("SAT", 0.5, 3), ("SAT", 1.0, 0), ("EDGE", 0.5, 7), ("COSMIC_RAY", 0.5, 3)],
)
def test_bits_spread_as_far_as_their_rule_says(plane, threshold, half):
    given = exposure_of((61, 61), holes=0)
    given["mask"][30, 28] |= BITS[plane]
    kernel = gaussian_psf(7.0, size=15).rename(psf_y="kernel_y", psf_x="kernel_x")
    found = convolve(given, kernel, parameters=ConvolutionParameters(spread_threshold=threshold))
    mask = found["mask"].values[7:-7, 7:-7] & BITS[plane]
    expected = np.zeros((61, 61), bool)
    expected[30 - half : 31 + half, 28 - half : 29 + half] = True
    np.testing.assert_array_equal(mask != 0, expected[7:-7, 7:-7])


@pytest.mark.parametrize("half", [(0, 0), (1, 0), (0, 3), (5, 2), (40, 50)])
@pytest.mark.parametrize("shape", [(1, 1), (17, 23), (33, 8)])
def test_bits_spread_over_the_box_as_a_maximum_filter_says(half, shape):
    rng = np.random.default_rng(7)
    bits = np.where(rng.random(shape) < 0.05, 1 << rng.integers(0, 5, shape), 0).astype(np.int32)
    out = np.empty_like(bits)
    spread_bits(bits, *half, out)
    size = (2 * half[0] + 1, 2 * half[1] + 1)
    for bit in range(5):
        flag = (bits >> bit) & 1
        expected = scipy.ndimage.maximum_filter(flag, size=size, mode="constant")
        np.testing.assert_array_equal((out >> bit) & 1, expected)


def test_a_field_gives_each_pixel_the_kernel_of_its_position():
    given = exposure_of((40, 50), holes=3)
    box = (-20, 20, 40, 90)
    field = field_over(box)
    found = convolve(given, field)
    valid = np.isfinite(given["image"].values)
    image = np.where(valid, given["image"], 0.0).astype(float)
    variance = np.where(valid, given["variance"], 0.0).astype(float)
    for y, x in ((3, 4), (20, 25), (36, 45), (3, 45), (11, 11)):
        kernel = evaluate_kernel(field, x + 40, y - 20).values[::-1, ::-1]
        part = np.s_[y - 3 : y + 4, x - 4 : x + 5]
        fraction = (kernel * valid[part]).sum()
        if fraction <= 0.9:
            assert np.isnan(found["image"][y, x])
            continue
        expected = (kernel * image[part]).sum() / fraction
        assert float(found["image"][y, x]) == pytest.approx(expected, rel=1e-6)
        expected = (kernel**2 * variance[part]).sum() / fraction**2
        assert float(found["variance"][y, x]) == pytest.approx(expected, rel=1e-4)


def test_a_field_of_order_zero_is_a_constant_kernel():
    given = exposure_of()
    kernel = lopsided()
    field = KernelField(2.0 * kernel.values[None], np.full((1, 1), 0.5)).dataset()
    xr.testing.assert_allclose(convolve(given, field), convolve(given, kernel), rtol=1e-6)


def test_the_square_of_a_field_is_the_square_of_its_kernels():
    field = field_over((0, 100, 0, 200))
    one = KernelField(field["kernel"].values, field["coefficients"].values, 2, (0, 100, 0, 200))
    x, y = np.array([3.0, 150.0, 199.0]), np.array([90.0, 10.0, 50.0])
    design = chebyshev_design(x, y, (0, 100, 0, 200), 2)
    kernels = np.tensordot(design @ field["coefficients"].values.T, field["kernel"].values, 1)
    difference = squared(one, 1e-12).at(x, y) - kernels**2
    assert np.abs(difference).max() < 1e-14


@pytest.mark.parametrize("total", [0.5, 2.7])
def test_a_kernel_of_another_sum_scales_the_image_by_it(total):
    given = exposure_of(holes=20)
    kernel = lopsided()
    one, other = convolve(given, kernel), convolve(given, total * kernel)
    np.testing.assert_allclose(other["image"], total * one["image"], rtol=2e-6)
    np.testing.assert_allclose(other["variance"], total**2 * one["variance"], rtol=2e-6)
    np.testing.assert_array_equal(other["mask"], one["mask"])


def test_coordinates_and_attributes_stay_and_the_input_too():
    given = exposure_of()
    before = given.copy(deep=True)
    kernel = lopsided()
    found = convolve(given, kernel)
    xr.testing.assert_identical(given, before)
    xr.testing.assert_identical(kernel, lopsided())
    assert found.attrs == given.attrs
    assert found["image"].attrs == given["image"].attrs
    assert found["variance"].attrs == given["variance"].attrs
    assert set(found.coords) == set(given.coords)
    assert found["image"].dtype == found["variance"].dtype == np.float32
    assert found["mask"].dtype == np.int32


@pytest.mark.parametrize("kernel", [lopsided(), field_over((-20, 70, 40, 150))])
def test_lazy_and_eager_agree_over_leading_dimensions(kernel):
    parts = [exposure_of(seed=seed) for seed in range(3)]
    given = xr.concat(parts, "visit", data_vars="all", coords="minimal", compat="override")
    eager = convolve(given, kernel)
    lazy = convolve(given.chunk({"visit": 1, "y": 50}), kernel)
    assert isinstance(lazy["image"].data, dask.array.Array)
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), eager)
    for number, part in enumerate(parts):
        single = convolve(part, kernel)
        np.testing.assert_array_equal(eager["image"][number], single["image"])


def test_a_mask_is_read_by_its_own_legend():
    given = exposure_of(holes=0)
    mask = np.zeros((90, 110), np.uint8)
    mask[40, 50], mask[60, 60] = 1, 2
    given["mask"] = (
        ("y", "x"),
        mask,
        {"flag_masks": [1, 2], "flag_meanings": "NO_DATA HOT"},
    )
    found = convolve(given, kernel_of(np.full((3, 3), 1 / 9)))["mask"]
    assert int(found[40, 50]) == BITS["NO_DATA"]
    assert int(found[60, 60]) == 0
    assert found.attrs == v.mask_attributes()


def test_an_image_without_any_data_stays_so():
    given = exposure_of((20, 20), holes=0)
    given["image"][:] = np.nan
    found = convolve(given, lopsided())
    assert np.isnan(found["image"]).all()
    assert ((found["mask"] & BITS["NO_DATA"]) != 0).all()


def test_a_kernel_larger_than_the_image_leaves_no_data():
    given = exposure_of((5, 6), holes=0)
    found = convolve(given, kernel_of(np.full((21, 21), 1 / 441)))
    assert np.isnan(found["image"]).all()


def test_misuse_is_named():
    given = exposure_of((20, 20))
    with pytest.raises(ValueError, match="odd sides"):
        convolve(given, kernel_of(np.ones((2, 3))))
    with pytest.raises(ValueError, match="not finite"):
        convolve(given, kernel_of([[np.nan]]))
    with pytest.raises(ValueError, match="sums to 0"):
        convolve(given, kernel_of([[-1.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="needs kernel_y"):
        convolve(given, xr.DataArray(np.ones((3, 3)), dims=("y", "x")))
    with pytest.raises(ValueError, match="no coefficients, box, order"):
        convolve(given, xr.Dataset({"kernel": lopsided().expand_dims("component")}))
    with pytest.raises(ValueError, match="coefficients have shape"):
        convolve(given, field_over((0, 9, 0, 9)).assign_attrs(order=3))
    with pytest.raises(TypeError, match="kernel must be an xarray object"):
        convolve(given, np.ones((3, 3)))
    with pytest.raises(TypeError, match="exposure must be an xarray object"):
        convolve(np.ones((3, 3)), lopsided())
    with pytest.raises(TypeError, match="integer bit planes"):
        convolve(given.assign(mask=given["mask"].astype(float)), lopsided())
    with pytest.raises(KeyError, match="no variable image"):
        convolve(given[["variance"]], lopsided())
    with pytest.raises(ValueError, match="variance has shape"):
        convolve(given.assign(variance=given["variance"].isel(x=0)), lopsided())
    with pytest.raises(KeyError, match="NOWHERE"):
        convolve(
            given, lopsided(), parameters=ConvolutionParameters(whole_kernel_planes=("NOWHERE",))
        )


@pytest.mark.parametrize("share", [1e-4, 0.02])
@pytest.mark.parametrize("varies", [False, True])
def test_few_and_many_missing_pixels_are_left_out_alike(share, varies):
    """Few are taken off one by one, many in Fourier space: both agree with a plain sum."""
    rng = np.random.default_rng(6)
    shape = (320, 330)
    image = rng.normal(10, 1, shape).astype(np.float32)
    image[rng.random(shape) < share] = np.nan
    box = (0, shape[0], 0, shape[1])
    field = field_over(box) if varies else lopsided(7, 9)
    given = xr.DataArray(image, dims=("y", "x"))
    found = convolve(given, field, parameters=ConvolutionParameters(min_fraction=0.1))["image"]
    valid = np.isfinite(image)
    some = rng.integers(10, 300, (60, 2))
    some = [*some, *(np.argwhere(~valid[10:300, 10:300])[:20] + 10)]
    for y, x in some:
        kernel = evaluate_kernel(field, x, y).values[::-1, ::-1]
        part = np.s_[y - 3 : y + 4, x - 4 : x + 5]
        fraction = (kernel * valid[part]).sum() / kernel.sum()
        expected = (kernel * np.where(valid, image, 0)[part].astype(float)).sum() / fraction
        assert float(found[y, x]) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    half=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    share=st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_any_image_kernel_and_gaps_agree_with_a_plain_convolution(shape, half, share, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(50, 1, shape).astype(np.float32)
    variance = rng.uniform(1, 2, shape).astype(np.float32)
    missing = rng.random(shape) < share
    image[missing] = np.nan
    sides = (2 * half[0] + 1, 2 * half[1] + 1)
    kernel = rng.random(sides)
    kernel /= kernel.sum()
    given_exposure = xr.Dataset({"image": (("y", "x"), image), "variance": (("y", "x"), variance)})
    found = convolve(given_exposure, kernel_of(kernel))

    def plain(values, weights):
        padded = np.pad(values.astype(float), [(half[0], half[0]), (half[1], half[1])])
        return scipy.signal.convolve2d(padded, weights, mode="valid")

    fraction = plain(~missing, kernel)
    sure = np.abs(fraction - 0.9) > 1e-9  # that the fraction is on one side
    np.testing.assert_array_equal(np.isnan(found["image"].values)[sure], (fraction <= 0.9)[sure])
    good = np.isfinite(found["image"].values)
    expected = plain(np.where(missing, 0, image), kernel)[good] / fraction[good]
    np.testing.assert_allclose(found["image"].values[good], expected, rtol=1e-6)
    expected = plain(np.where(missing, 0, variance), kernel**2)[good] / fraction[good] ** 2
    np.testing.assert_allclose(found["variance"].values[good], expected, rtol=1e-6)
