"""Dark times: one rule for the darks that are combined and for the frames they are taken from."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.combine import add_calibration_variance, combine_dark
from skyloom.algorithms.dark_times import dark_overhead, dark_times
from skyloom.algorithms.detrend import ScienceDetrendParameters, detrend, subtract_dark
from skyloom.algorithms.simulate import amplifier_grid

RATE, OVERHEAD, SHAPE = 1.5, 2.0, (12, 16)
TABLE = amplifier_grid("R0", (1, 2), (12, 8), overscan=0, gain=1.0, read_noise=1.0)
CHAIN = {"overscan": {"serial": "none"}, "variance": {"read_noise": "camera"}, "units": "adu"}


def charge(exposure_time: float, **times: float) -> xr.Dataset:
    """Return a raw frame of dark charge alone, which is collected for 2 s after the exposure."""
    level = RATE * (exposure_time + OVERHEAD)
    # Pixels that are all the same would be taken for saturated ones.
    image = np.random.default_rng(int(exposure_time)).normal(level, 1e-3, SHAPE).astype("f4")
    return xr.Dataset(
        {"image": (("y", "x"), image, {"units": "adu"})},
        coords={"exposure_time": exposure_time, **times},
    )


def darks_of(*exposure_times: float, **times: float) -> list[xr.Dataset]:
    """Return detrended darks."""
    chain = ScienceDetrendParameters.model_validate(CHAIN)
    return [
        detrend(charge(time, **times), TABLE, parameters=chain).assign_coords(exposure=i)
        for i, time in enumerate(exposure_times)
    ]


def science(frame: xr.Dataset, dark: xr.Dataset, **told: float) -> xr.Dataset:
    chain = ScienceDetrendParameters.model_validate(CHAIN | {"dark": told})
    return detrend(frame, TABLE, parameters=chain, dark=dark)


@pytest.mark.parametrize("times", [{}, {"dark_time": np.nan}])
def test_an_overhead_gives_the_true_rate_and_leaves_no_charge(times):
    dark = combine_dark(darks_of(10.0, 20.0, 10.0, **times), amplifiers=TABLE, overhead=OVERHEAD)
    np.testing.assert_allclose(dark["image"], RATE, rtol=3e-4)
    assert dark["input_scale"].values.tolist() == [12.0, 22.0, 12.0]
    for told in ({}, {"overhead": OVERHEAD}):
        left = science(charge(100.0, **times), dark, **told)
        np.testing.assert_allclose(left["image"], 0.0, atol=0.03)
    raw = charge(100.0, **times)
    np.testing.assert_allclose(subtract_dark(raw, dark)["image"], 0.0, atol=0.03)
    # A number given for the frame holds, whatever the dark was made with.
    np.testing.assert_allclose(
        science(charge(100.0, **times), dark, overhead=0.0)["image"], RATE * OVERHEAD, atol=0.03
    )


def test_known_dark_times_need_no_overhead():
    darks = [
        frame.assign_coords(dark_time=time + OVERHEAD)
        for frame, time in zip(darks_of(10.0, 20.0, 40.0), (10.0, 20.0, 40.0), strict=True)
    ]
    with_and_without = [
        combine_dark(darks, amplifiers=TABLE, overhead=more) for more in (0.0, 30.0)
    ]
    for dark in with_and_without:
        np.testing.assert_allclose(dark["image"], RATE, rtol=3e-4)
        left = science(charge(100.0, dark_time=102.0), dark)
        np.testing.assert_allclose(left["image"], 0.0, atol=0.03)


def test_each_frame_takes_the_time_that_is_known_of_it():
    frames = xr.Dataset(
        coords={
            "exposure": [7, 8, 9],
            "exposure_time": ("exposure", [10.0, 20.0, np.nan]),
            "dark_time": ("exposure", [np.nan, 23.0, np.nan]),
        }
    )
    before = frames.copy(deep=True)
    found = dark_times(frames, OVERHEAD)
    np.testing.assert_array_equal(found, [12.0, 23.0, np.nan])
    assert found.dtype == np.float64
    assert found.attrs == {"units": "s"}
    xr.testing.assert_identical(frames, before)
    lazy = dark_times(frames.reset_coords(["exposure_time", "dark_time"]).chunk(), OVERHEAD)
    np.testing.assert_array_equal(lazy, found)


def test_darks_of_unknown_time_are_named_or_left_out():
    darks = darks_of(10.0, 20.0, 30.0, 40.0)
    darks[2] = darks[2].assign_coords(exposure_time=np.nan)
    with pytest.raises(ValueError, match="exposure 2: nan"):
        combine_dark(darks, amplifiers=TABLE, overhead=OVERHEAD)
    untimed = [frame.drop_vars("exposure_time") for frame in darks]
    with pytest.raises(ValueError, match="no dark_time or exposure_time"):
        combine_dark(untimed, amplifiers=TABLE)
    dark = combine_dark(darks[:2], amplifiers=TABLE, overhead=OVERHEAD)
    with pytest.raises(ValueError, match="no finite dark_time or exposure_time"):
        science(charge(100.0).assign_coords(exposure_time=np.nan), dark)
    with pytest.raises(ValueError, match="no finite dark_time or exposure_time"):
        science(charge(100.0, dark_time=-1.0), dark)
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="overhead must be a finite number"):
            combine_dark(darks[:2], amplifiers=TABLE, overhead=wrong)


def test_the_noise_of_a_dark_in_a_flat_grows_with_the_overhead():
    scale, time = np.array([100.0, 200.0]), np.array([3.0, 6.0])
    plane = (("y", "x"), np.zeros((2, 2)))
    flat = xr.Dataset(
        {"variance": plane, "input_scale": ("input", scale), "input_exposure_time": ("input", time)}
    )
    dark = xr.Dataset({"variance": (("y", "x"), np.ones((2, 2)))})
    found = add_calibration_variance(flat, dark=dark.assign_coords(dark_overhead=OVERHEAD))
    share = ((time + OVERHEAD) / scale * scale).sum() / scale.sum()
    np.testing.assert_allclose(found["variance"], share**2)


def test_an_overhead_that_is_not_known_is_none():
    dark = xr.Dataset(coords={"dark_overhead": np.nan})
    assert dark_overhead(dark) == 0.0
