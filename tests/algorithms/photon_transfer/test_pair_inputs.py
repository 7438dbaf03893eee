"""Flats as files and notebooks hand them over: any number type, byte order, layout and mask."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.photon_transfer.extraction import (
    extract_dark_pair,
    extract_detector,
    extract_pair,
)
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.simulate.amplifiers import amplifier_grid

SHAPE = (90, 80)
FEW = ExtractParameters(lags=4, min_pixels=1000)


def counts(seed):
    """Return whole numbers near the upper end of 16 bits, whose sums do not fit."""
    return np.random.default_rng(seed).normal(60_000.0, 200.0, SHAPE).round().astype(np.uint16)


def flat(image):
    return xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})


def raw(seed):
    rng = np.random.default_rng(seed)
    overscan = rng.normal(1000.0, 5.0, (SHAPE[0], 16)).round().astype(np.uint16)
    return flat(np.concatenate([counts(seed), overscan, counts(seed + 10), overscan], axis=1))


def as_type(exposure, dtype):
    return exposure.assign(image=exposure["image"].astype(dtype))


def masked(exposure, dtype, bit, name="BAD"):
    mask = np.zeros(SHAPE, dtype)
    mask[:7] = bit
    legend = {"flag_masks": [bit], "flag_meanings": name}
    return exposure.assign(mask=(("y", "x"), mask, legend))


@pytest.mark.parametrize("dtype", [">u2", "<i4", ">i4", "<f4", ">f4", "<f8", ">f8", "<i8"])
def test_number_type_and_byte_order_change_no_bit_of_a_result(dtype):
    pair = extract_pair(flat(counts(1)), flat(counts(2)), parameters=FEW)
    other = extract_pair(*(as_type(flat(counts(k)), dtype) for k in (1, 2)), parameters=FEW)
    xr.testing.assert_identical(other, pair)
    amplifiers = amplifier_grid("R0", (1, 2), SHAPE, overscan=16, saturation=65_000.0)
    for extract in (extract_detector, extract_dark_pair):
        expected = extract(raw(1), raw(2), amplifiers, parameters=FEW)
        found = extract(*(as_type(raw(k), dtype) for k in (1, 2)), amplifiers, parameters=FEW)
        xr.testing.assert_identical(found, expected)


def test_lazy_and_transposed_and_strided_images_change_no_bit_of_a_result():
    amplifiers = amplifier_grid("R0", (1, 2), SHAPE, overscan=16, saturation=65_000.0)
    expected = extract_detector(raw(1), raw(2), amplifiers, parameters=FEW)
    wide = np.repeat(raw(2)["image"].values, 2, axis=1)[:, ::2]
    wide.flags.writeable = False
    for one, two in (
        (raw(1).chunk(y=31, x=17), raw(2).chunk(y=50)),
        (raw(1).transpose("x", "y"), flat(wide)),
    ):
        found = extract_detector(one, two, amplifiers, parameters=FEW)
        xr.testing.assert_identical(found, expected)


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<u4", "<u1", ">i2", "<i8", ">u8"])
def test_masks_of_any_integer_type_and_byte_order_leave_out_the_same_pixels(dtype):
    two = flat(counts(2))
    pair = extract_pair(masked(flat(counts(1)), dtype, 1), two, parameters=bad_plane())
    assert int(pair["count"]) == (SHAPE[0] - 7) * SHAPE[1]


@pytest.mark.parametrize(
    ("dtype", "bit"),
    [("u4", 1 << 31), ("i4", -(1 << 31)), ("i8", 1 << 40), ("u8", 1 << 63), ("u1", 128)],
)
def test_the_highest_bit_of_a_mask_is_a_plane_like_any_other(dtype, bit):
    one = masked(flat(counts(1)), dtype, bit)
    pair = extract_pair(one, flat(counts(2)), parameters=bad_plane())
    assert int(pair["count"]) == (SHAPE[0] - 7) * SHAPE[1]
    full = masked(flat(counts(1)), dtype, bit, "SAT")
    parameters = FEW.model_copy(update={"planes": ("SAT",)})
    pair = extract_pair(full, flat(counts(2)), parameters=parameters)
    assert float(pair["saturated_fraction"]) == pytest.approx(0.5 * 7 / SHAPE[0])


def bad_plane():
    return FEW.model_copy(update={"planes": ("BAD",)})


def test_a_mask_that_holds_no_integers_is_refused():
    one = flat(counts(1)).assign(mask=(("y", "x"), np.zeros(SHAPE)))
    with pytest.raises(TypeError, match="integer bit planes"):
        extract_pair(one, flat(counts(2)), parameters=FEW)


def test_images_of_other_dimensions_are_named():
    stack = flat(counts(1)).expand_dims(exposure=[1])
    with pytest.raises(ValueError, match=r"dimensions y and x, got \('exposure', 'y', 'x'\)"):
        extract_pair(stack, stack, parameters=FEW)


def test_a_clip_too_narrow_to_be_undone_is_refused():
    # what the last pass leaves is then nearly uniform, whatever the width of the Gaussian
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        ExtractParameters(clip=1.5)
