"""Objects are covered: as by the plain procedure, at edges and beside bad pixels."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import EmptyBackgroundWarning
from skyloom.algorithms.sky import (
    ImputeObjectsParameters,
    MaskObjectsParameters,
    impute_objects,
    mask_objects,
)
from skyloom.algorithms.sky.mask_kernels import regions_with_peak
from skyloom.algorithms.statistics import clipped_moments

DETECTED = v.plane_bits(["DETECTED"])
SMALL = MaskObjectsParameters(background_bin=4096, peak_threshold=2.5)


def exposure_of(image, mask=None, variance=None, lead=()):
    image = np.asarray(image, np.float32)
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    variance = np.full(image.shape, 900.0) if variance is None else variance
    dims = (*lead, "y", "x")
    return xr.Dataset(
        {
            "image": (dims, image, {"units": "electron"}),
            "variance": (dims, np.asarray(variance, np.float32), {"units": "electron2"}),
            "mask": (dims, mask, v.mask_attributes()),
        },
        attrs={"origin": "test"},
    )


def sky(shape=(300, 280), *, seed=1, stars=20, gradient=0.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = 1000.0 + gradient * (x + 0.5 * y) + rng.normal(0.0, 30.0, shape)
    for _ in range(stars):
        at_y, at_x, width = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(1.5, 6)
        image += rng.exponential(2e3) * np.exp(
            -0.5 * ((y - at_y) ** 2 + (x - at_x) ** 2) / width**2
        )
    return image


def plain_procedure(image, variance, usable, peak=2.5, iterations=3):
    """Return detected pixels by textbook tools: one clipped level, full kernels, distances."""
    x = np.arange(-17, 18)
    kernel = np.exp(-0.5 * (x / 5.0) ** 2)
    kernel /= kernel.sum()

    def convolve(plane, taps):
        rows = ndimage.convolve1d(plane, taps, axis=0, mode="constant")
        return ndimage.convolve1d(rows, taps, axis=1, mode="constant")

    noise = np.sqrt(convolve(np.where(usable, variance, 0.0), kernel**2))
    good = usable
    for _ in range(iterations):
        level = clipped_moments(image.astype(np.float32), good).mean
        smooth = convolve(np.where(usable, image - level, 0.0), kernel)
        found = (smooth > 2.5 * noise) & (smooth > 0)
        if peak > 2.5:
            labels, _ = ndimage.label(found, structure=np.ones((3, 3)))
            found &= np.isin(labels, np.unique(labels[smooth > peak * noise]))
        grown = ndimage.distance_transform_edt(~found) <= 12.0
        good = usable & ~grown
    return grown


@pytest.mark.parametrize("peak", [2.5, 5.0])
def test_the_mask_is_that_of_the_plain_procedure(peak):
    rng = np.random.default_rng(2)
    image = sky()
    mask = np.zeros(image.shape, np.int32)
    mask[rng.random(image.shape) < 0.01] = v.plane_bits(["BAD"])
    mask[:, 100] = v.plane_bits(["NO_DATA"])
    variance = rng.uniform(600.0, 1200.0, image.shape)
    parameters = MaskObjectsParameters(background_bin=4096, peak_threshold=peak)
    found = mask_objects(exposure_of(image, mask, variance), parameters=parameters)
    expected = plain_procedure(image, variance, mask == 0, peak)
    same = ((found.values & DETECTED) != 0) == expected
    assert 0.1 < expected.mean() < 0.9
    assert same.mean() >= 0.999
    np.testing.assert_array_equal(found.values & ~DETECTED, mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (150, 1), (64, 64), (90, 131)])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.45, 1.0])
def test_regions_with_a_peak_are_those_of_scipy(shape, density):
    rng = np.random.default_rng(30)
    detected = np.where(rng.random(shape) < density, 1 + (rng.random(shape) < 0.02), 0)
    labels, _ = ndimage.label(detected, structure=np.ones((3, 3)))
    expected = (detected > 0) & np.isin(labels, np.unique(labels[detected == 2]))
    before = detected.astype(np.uint8)
    np.testing.assert_array_equal(regions_with_peak(before), expected)
    np.testing.assert_array_equal(before, detected)


def test_objects_are_found_over_a_gradient_in_bins():
    bins = MaskObjectsParameters(background_bin=100, peak_threshold=2.5)
    flat = mask_objects(exposure_of(sky(stars=3)), parameters=bins)
    tilted = mask_objects(exposure_of(sky(stars=3, gradient=0.03)), parameters=bins)
    changed = (flat.values ^ tilted.values) & DETECTED
    assert (changed != 0).mean() < 0.05
    in_one_bin = mask_objects(exposure_of(sky(stars=3, gradient=0.03)), parameters=SMALL)
    masked = [(mask.values & DETECTED != 0).mean() for mask in (tilted, in_one_bin)]
    assert masked[1] > 1.5 * masked[0]


def test_noise_alone_is_not_masked_unless_asked_for():
    image = np.random.default_rng(3).normal(0.0, 30.0, (1024, 1024))
    masks = {
        peak: mask_objects(
            exposure_of(image), parameters=MaskObjectsParameters(peak_threshold=peak)
        ).values
        & DETECTED
        for peak in (2.5, 5.0)
    }
    assert (masks[5.0] != 0).mean() < 1e-3
    # 0.6 per cent of the area exceeds 2.5 sigma, in spots that grow by 12 pixels
    assert 0.07 < (masks[2.5] != 0).mean() < 0.15
    sky = {peak: image[mask == 0].mean() / (30.0 / 1024) for peak, mask in masks.items()}
    assert sky[2.5] < -5.0
    assert abs(sky[5.0]) < 3.0


def test_an_object_at_the_very_edge_is_found():
    image = np.random.default_rng(4).normal(1000.0, 30.0, (200, 200))
    image[0, 100] += 2e4
    mask = mask_objects(exposure_of(image))
    assert mask.values[0, 100] & DETECTED
    assert not (mask.values & v.plane_bits(["EDGE"])).any()
    marked = mask_objects(exposure_of(image), parameters=MaskObjectsParameters(border="mark"))
    edge = (marked.values & v.plane_bits(["EDGE"])) != 0
    assert edge.sum() == 200**2 - (200 - 34) ** 2
    assert not marked.values[0, 100] & DETECTED


def test_masks_of_earlier_steps_are_replaced_or_kept():
    image = np.random.default_rng(5).normal(1000.0, 30.0, (128, 128))
    old = np.zeros(image.shape, np.int32)
    old[10:20, 10:20] = v.plane_bits(["DETECTED", "DETECTED_NEGATIVE", "SAT"])
    fresh = mask_objects(exposure_of(image, old), parameters=MaskObjectsParameters(threshold=9.0))
    assert set(np.unique(fresh.values)) == {0, v.plane_bits(["SAT"])}
    kept = mask_objects(
        exposure_of(image, old), parameters=MaskObjectsParameters(threshold=9.0, keep_detected=True)
    )
    assert (kept.values[10:20, 10:20] == v.plane_bits(["DETECTED", "SAT"])).all()


def test_level_and_unit_of_the_image_make_no_difference():
    image = sky(stars=5)
    base = mask_objects(exposure_of(image))
    for changed in (
        exposure_of(image + 4096.0),
        exposure_of(image * 4.0, variance=np.full(image.shape, 900.0 * 16.0)),
    ):
        assert (mask_objects(changed).values == base.values).mean() > 0.9995


def test_values_of_excluded_pixels_make_no_difference():
    image, mask = sky(stars=5), np.zeros((300, 280), np.int32)
    mask[40:60, 200] = v.plane_bits(["BAD"])
    mask[100, :] = v.plane_bits(["NO_DATA"])
    base = mask_objects(exposure_of(image, mask))
    image[mask != 0] += 1e6
    image[40, 200] = np.nan
    xr.testing.assert_identical(mask_objects(exposure_of(image, mask)), base)


def test_not_a_number_and_bad_variance_are_like_masked():
    image, variance = sky(stars=5), np.full((300, 280), 900.0)
    image[5, 5] = np.inf
    variance[50, 60], variance[51, 60] = -1.0, np.nan
    mask = np.zeros(image.shape, np.int32)
    mask[5, 5] = mask[50:52, 60] = v.plane_bits(["NO_DATA"])
    found = mask_objects(exposure_of(image, variance=variance)).values
    expected = mask_objects(exposure_of(image, mask, variance)).values
    assert ((found ^ expected) & DETECTED != 0).mean() < 1e-3


def test_without_a_variance_the_scatter_of_the_image_stands_in():
    exposure = exposure_of(sky(stars=5))
    with_variance = mask_objects(exposure).values
    without = mask_objects(exposure.drop_vars(["variance", "mask"]))
    assert ((without.values ^ with_variance) & DETECTED != 0).mean() < 0.02
    assert without.attrs == v.mask_attributes()
    nothing = exposure.assign(variance=xr.zeros_like(exposure["variance"])).drop_vars("mask")
    xr.testing.assert_identical(mask_objects(nothing), without)


def test_a_detector_without_usable_pixels_keeps_its_mask_and_says_so():
    exposure = exposure_of(np.full((40, 40), np.nan))
    with pytest.warns(EmptyBackgroundWarning, match="mask stays"):
        mask = mask_objects(exposure)
    np.testing.assert_array_equal(mask, exposure["mask"])


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 20), (20, 600)])
def test_small_images_are_masked_too(shape):
    image = np.random.default_rng(6).normal(100.0, 30.0, shape)
    image[0, 0] += 1e6
    mask = mask_objects(exposure_of(image))
    assert mask.shape == shape
    for border in ("detect", "mark"):
        mask_objects(exposure_of(image), parameters=MaskObjectsParameters(border=border))


def test_lazy_and_eager_agree_and_inputs_stay_as_they_were():
    images = np.stack([sky((64, 70), seed=seed, stars=2) for seed in (7, 8, 9)])
    exposure = exposure_of(images, lead=("exposure",))
    copy = exposure.copy(deep=True)
    eager = mask_objects(exposure)
    lazy = mask_objects(exposure.chunk({"exposure": 1, "y": 32}))
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), eager)
    xr.testing.assert_identical(exposure, copy)
    one = mask_objects(exposure.isel(exposure=1))
    np.testing.assert_array_equal(one, eager.isel(exposure=1))
    replaced = impute_objects(exposure.assign(mask=eager))
    later = impute_objects(exposure.assign(mask=eager).chunk({"exposure": 1}))
    xr.testing.assert_identical(later.compute(), replaced)
    xr.testing.assert_identical(exposure, copy)


def test_imputed_pixels_follow_the_sky_around_them():
    y, x = np.mgrid[:256, :256]
    plane = (1000.0 + 0.3 * x - 0.1 * y).astype(np.float32)
    image = plane.copy()
    image[100:120, 60:90] += 500.0
    mask = np.zeros(image.shape, np.int32)
    mask[100:120, 60:90] = DETECTED | v.plane_bits(["SAT"])
    exposure = exposure_of(image, mask)
    replaced = impute_objects(exposure, parameters=ImputeObjectsParameters(bin_size=32))
    np.testing.assert_allclose(replaced["image"], plane, atol=1.5)
    np.testing.assert_array_equal(replaced["image"].values[mask == 0], image[mask == 0])
    assert (replaced["mask"].values[mask != 0] == v.plane_bits(["SAT"])).all()
    assert replaced["image"].attrs == exposure["image"].attrs
    assert replaced.attrs == exposure.attrs


def test_the_median_ignores_what_is_not_finite():
    image = np.full((40, 40), 5.0)
    image[0, 0], image[3, 3] = np.nan, 90.0
    mask = np.zeros(image.shape, np.int32)
    mask[3, 3] = DETECTED
    replaced = impute_objects(
        exposure_of(image, mask), parameters=ImputeObjectsParameters(method="median")
    )
    assert float(replaced["image"][3, 3]) == 5.0
    assert int(replaced["mask"][3, 3]) == DETECTED
    assert np.isnan(replaced["image"].values[0, 0])


def test_nothing_is_replaced_where_nothing_is_good():
    exposure = exposure_of(np.ones((9, 9)), np.full((9, 9), DETECTED, np.int32))
    np.testing.assert_array_equal(impute_objects(exposure)["image"], exposure["image"])


def test_misuse_is_named():
    exposure = exposure_of(np.ones((9, 9)))
    with pytest.raises(ValueError, match="image"):
        mask_objects(exposure.drop_vars("image"))
    with pytest.raises(ValueError, match="y and x"):
        mask_objects(exposure.rename(x="column"))
    with pytest.raises(KeyError, match="HOT"):
        mask_objects(exposure, parameters=MaskObjectsParameters(excluded_planes=("HOT",)))
    with pytest.raises(ValueError, match="mask"):
        impute_objects(exposure.drop_vars("mask"))
    with pytest.raises(ValueError, match="threshold"):
        MaskObjectsParameters(threshold=0.0)
