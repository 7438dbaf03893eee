"""Overscan, offset, saturation and orientation of one amplifier of a raw frame."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.detrend import DetrendParameters, detrend_amplifier
from skyloom.algorithms.detrend.saturation import saturation_level
from skyloom.algorithms.vocabulary import MASK_PLANES

SHAPE = (300, 200)
OVERSCAN = 40
NOISE = 5.0


def amplifier(**changes):
    table = {
        "data_y_start": 0,
        "data_y_stop": SHAPE[0],
        "data_x_start": 0,
        "data_x_stop": SHAPE[1],
        "overscan_y_start": 0,
        "overscan_y_stop": SHAPE[0],
        "overscan_x_start": SHAPE[1],
        "overscan_x_stop": SHAPE[1] + OVERSCAN,
        "y_start": 100,
        "y_stop": 100 + SHAPE[0],
        "x_start": 50,
        "x_stop": 50 + SHAPE[1],
        "saturation": 60_000.0,
    }
    return xr.Dataset(table | changes, coords={"amp": "C03"})


def bias(seed=0, drift=0.0, shape=(SHAPE[0], SHAPE[1] + OVERSCAN)):
    rng = np.random.default_rng(seed)
    return 1000.0 + drift * np.arange(shape[0])[:, None] + rng.normal(0.0, NOISE, shape)


def as_raw(image, dtype=np.uint16, **coords):
    values = np.round(image).astype(dtype) if np.dtype(dtype).kind in "iu" else image.astype(dtype)
    return xr.Dataset({"image": (("y", "x"), values, {"units": "adu"})}, coords=coords)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_drifting_rows_lose_their_own_level(statistic):
    image = bias(drift=0.5)
    image[:, : SHAPE[1]] += 500.0
    signal = detrend_amplifier(
        as_raw(image), amplifier(), parameters=DetrendParameters(statistic=statistic)
    )
    rows = signal["image"].mean("x")
    # a row level has the error of the mean (or median) of 40 pixels, and 200 data pixels
    factor = 1.0 if statistic == "mean" else 1.57
    expected = np.sqrt(factor * NOISE**2 / OVERSCAN + NOISE**2 / SHAPE[1])
    assert float(rows.mean()) == pytest.approx(500.0, abs=4 * expected / np.sqrt(SHAPE[0]))
    assert float(rows.std()) == pytest.approx(expected, rel=0.2)
    noise = np.hypot(NOISE, 12**-0.5)
    assert float(signal["overscan_noise"]) == pytest.approx(noise, rel=0.03)
    assert float(signal["overscan_median"]) == pytest.approx(1000.0 + 0.25 * SHAPE[0], abs=2.0)


def test_one_level_for_the_amplifier_keeps_the_drift():
    image = bias(drift=0.5)
    signal = detrend_amplifier(
        as_raw(image), amplifier(), parameters=DetrendParameters(serial="level")
    )
    slope = np.polyfit(np.arange(SHAPE[0]), signal["image"].mean("x"), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.01)
    assert float(signal["image"].mean()) == pytest.approx(0.0, abs=0.5)


def test_no_overscan_subtracts_the_offset_alone():
    bare = amplifier(overscan_x_stop=SHAPE[1])
    signal = detrend_amplifier(as_raw(bias()), bare, offset=990.0)
    assert float(signal["image"].mean()) == pytest.approx(10.0, abs=0.1)
    assert np.isnan(signal["overscan_median"])
    assert np.isnan(signal["overscan_noise"])
    assert float(signal["amp_offset"]) == 990.0


def test_charge_in_the_overscan_does_not_move_its_level():
    clean, dirty = bias(), bias()
    dirty[:, SHAPE[1]] += 60.0  # deferred charge in the first column
    rng = np.random.default_rng(5)
    dirty[rng.integers(0, SHAPE[0], 60), SHAPE[1] + rng.integers(2, OVERSCAN, 60)] += 20_000.0
    expected = detrend_amplifier(as_raw(clean), amplifier())
    for options in ({}, {"serial_skip": 1}, {"statistic": "median"}):
        signal = detrend_amplifier(
            as_raw(dirty), amplifier(), parameters=DetrendParameters(**options)
        )
        change = signal["image"].mean("x") - expected["image"].mean("x")
        assert float(abs(change.mean())) < 0.35
        assert float(abs(change).max()) < 4.0
        assert float(signal["overscan_noise"]) == pytest.approx(NOISE, rel=0.06)


def test_columns_to_skip_are_those_next_to_the_data_on_either_side():
    image = bias()
    image[:, SHAPE[1] : SHAPE[1] + 2] += 30.0
    skipping = DetrendParameters(serial_skip=2, clip=50.0)
    right = detrend_amplifier(as_raw(image), amplifier(), parameters=skipping)
    assert float(right["overscan_median"]) == pytest.approx(1000.0, abs=0.3)
    turned = amplifier(
        data_x_start=OVERSCAN,
        data_x_stop=OVERSCAN + SHAPE[1],
        overscan_x_start=0,
        overscan_x_stop=OVERSCAN,
    )
    left = detrend_amplifier(as_raw(image[:, ::-1]), turned, parameters=skipping)
    assert float(left["overscan_median"]) == float(right["overscan_median"])


def test_rows_that_the_overscan_lacks_get_the_median_level():
    signal = detrend_amplifier(as_raw(bias()), amplifier(overscan_y_stop=250))
    rows = signal["image"].isel(y=slice(250, None)).mean("x")
    assert np.isfinite(rows).all()
    assert float(rows.mean()) == pytest.approx(0.0, abs=0.3)


def test_parallel_overscan_takes_out_columns():
    image = bias(shape=(SHAPE[0] + 60, SHAPE[1] + OVERSCAN))
    columns = np.random.default_rng(2).normal(0.0, 20.0, SHAPE[1])
    image[:, : SHAPE[1]] += columns
    image[: SHAPE[0], : SHAPE[1]] += 500.0
    boxes = {
        "parallel_overscan_y_start": SHAPE[0],
        "parallel_overscan_y_stop": SHAPE[0] + 60,
        "parallel_overscan_x_start": 0,
        "parallel_overscan_x_stop": SHAPE[1],
        "overscan_y_stop": SHAPE[0] + 60,
    }
    table = amplifier(**boxes)
    plain = detrend_amplifier(as_raw(image), table)
    signal = detrend_amplifier(as_raw(image), table, parameters=DetrendParameters(parallel=True))
    assert float(plain["image"].mean("y").std()) == pytest.approx(20.0, rel=0.2)
    expected = np.sqrt(1.57 * NOISE**2 / 60 + NOISE**2 / SHAPE[0])
    assert float(signal["image"].mean("y").std()) == pytest.approx(expected, rel=0.25)
    assert float(signal["image"].mean()) == pytest.approx(500.0, abs=0.3)


@pytest.mark.parametrize("serial", ["row", "level", "none"])
def test_an_offset_is_subtracted_after_any_overscan(serial):
    boxes = {
        "parallel_overscan_y_start": SHAPE[0],
        "parallel_overscan_y_stop": SHAPE[0] + 60,
        "parallel_overscan_x_start": 0,
        "parallel_overscan_x_stop": SHAPE[1],
        "overscan_y_stop": SHAPE[0] + 60,
    }
    image = bias(shape=(SHAPE[0] + 60, SHAPE[1] + OVERSCAN))
    image[: SHAPE[0], : SHAPE[1]] += 500.0
    parameters = DetrendParameters(serial=serial, parallel=True)
    plain, lower = (
        detrend_amplifier(as_raw(image), amplifier(**boxes), parameters=parameters, offset=offset)
        for offset in (0.0, 7.0)
    )
    assert float(plain["image"].mean()) == pytest.approx(500.0, abs=0.3)
    np.testing.assert_allclose(plain["image"] - lower["image"], 7.0, atol=1e-3)


def test_saturated_pixels_and_pixels_without_a_number_are_masked():
    image = bias()
    image[10, 20] = 60_000.0
    image[11, 21] = 59_999.0
    whole = detrend_amplifier(as_raw(image), amplifier())
    assert int((whole["mask"] == MASK_PLANES["SAT"]).sum()) == 1
    assert int(whole["mask"][10, 20]) == MASK_PLANES["SAT"]
    image[12, 22], image[13, 23] = np.nan, np.inf
    broken = detrend_amplifier(as_raw(image, np.float32), amplifier())
    assert int(broken["mask"][12, 22]) == MASK_PLANES["NO_DATA"]
    assert int(broken["mask"][13, 23]) == MASK_PLANES["NO_DATA"]
    assert int((broken["mask"] != 0).sum()) == 3
    unread = as_raw(bias(), np.int32)
    unread["image"][14, 24] = np.iinfo(np.int32).min
    assert int(detrend_amplifier(unread, amplifier())["mask"][14, 24]) == MASK_PLANES["NO_DATA"]


def test_an_overscan_of_nan_does_not_spread():
    image = bias()
    image[5:8, SHAPE[1] :] = np.nan
    image[9, SHAPE[1]] = np.nan
    signal = detrend_amplifier(as_raw(image, np.float32), amplifier())
    assert np.isfinite(signal["image"]).all()
    assert float(signal["image"][5:8].mean()) == pytest.approx(0.0, abs=1.5)
    image[:, SHAPE[1] :] = np.nan
    lost = detrend_amplifier(as_raw(image, np.float32), amplifier())
    assert np.isnan(lost["overscan_noise"])
    assert np.isnan(lost["image"]).all()


def test_a_data_section_read_backwards_is_turned():
    image = bias()
    image[:, : SHAPE[1]] += np.arange(SHAPE[1])
    image[: SHAPE[0]] += 0.0
    straight = detrend_amplifier(as_raw(image), amplifier())
    turned = detrend_amplifier(as_raw(image), amplifier(flip_x=True, flip_y=True))
    np.testing.assert_array_equal(straight["image"].values, turned["image"].values[::-1, ::-1])
    assert straight["x"].values.tolist() == list(range(50, 50 + SHAPE[1]))
    assert turned["y"].values.tolist() == list(range(100, 100 + SHAPE[0]))


def test_scalars_of_the_exposure_are_kept_and_the_input_is_not_changed():
    raw = as_raw(bias(), exposure=5, exposure_time=2.0)
    before = raw.copy(deep=True)
    signal = detrend_amplifier(raw, amplifier())
    xr.testing.assert_identical(raw, before)
    assert int(signal["exposure"]) == 5
    assert str(signal["amp"].values) == "C03"
    assert signal["image"].dtype == np.float32
    assert signal["mask"].dtype == np.int32
    assert signal["image"].attrs["units"] == "adu"


def test_a_table_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="C03"):
        detrend_amplifier(as_raw(bias()), amplifier(y_stop=399))
    with pytest.raises(ValueError, match="C03: box"):
        detrend_amplifier(as_raw(bias()), amplifier(overscan_x_stop=999))
    with pytest.raises(ValueError, match="lacks data_y_start"):
        amplifier_rows(amplifier().drop_vars("data_y_start"))
    both = xr.concat([amplifier(), amplifier()], "amp")
    with pytest.raises(ValueError, match="one row of the table, got 2"):
        detrend_amplifier(as_raw(bias()), both)


def flat_of(level, sigma, dtype, seed=1, size=(400, 400)):
    return np.round(np.random.default_rng(seed).normal(level, sigma, size)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_cut_off_at_a_level_are_saturated_there(dtype):
    for level in (4000, 4060, 4200):
        assert saturation_level(np.minimum(flat_of(level, 25, dtype), dtype(4095))) == 4095.0


@pytest.mark.parametrize("sigma", [1.0, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("step", [1, 4])
def test_images_that_are_not_cut_off_are_not_saturated(sigma, step):
    for seed in range(5):
        image = flat_of(3000 // step, sigma, np.int32, seed) * step
        assert saturation_level(image) == np.inf
    hot = flat_of(3000, sigma, np.uint16)
    hot[0, :9] = 50_000
    assert saturation_level(hot) == np.inf


def test_all_pixels_at_one_value_are_saturated_and_no_pixels_are_not():
    assert saturation_level(np.full((20, 20), 4095, np.uint16)) == 4095.0
    assert saturation_level(np.empty((0, 5), np.uint16)) == np.inf


def test_the_largest_number_of_the_dtype_is_never_signal():
    image = flat_of(3000, 30, np.uint16)
    image[0, 0] = 65535
    assert saturation_level(image) == 65535.0


def test_numbers_that_are_not_finite_do_not_hide_saturation():
    image = np.minimum(flat_of(4060, 25, np.float32), np.float32(4095))
    image[0, 0], image[0, 1] = np.nan, np.inf
    assert saturation_level(image) == 4095.0
