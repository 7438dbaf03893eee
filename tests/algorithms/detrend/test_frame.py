"""The whole chain: frames of known truth, variances, planes, calibrations that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend import FlatParameters, ScienceDetrendParameters, detrend
from skyloom.algorithms.vocabulary import MASK_PLANES
from tests.algorithms.detrend.frames import calibration, plane_of_amplifiers, read_out

SHAPE = (120, 96)
CAMERA = ScienceDetrendParameters.model_validate({"variance": {"read_noise": "camera"}})


@pytest.fixture
def calibrations(rng):
    """Return bias, dark, flat and the response without numbers lost to float32."""
    bias = rng.normal(0.0, 3.0, SHAPE)
    dark = rng.exponential(0.5, SHAPE)
    flat = rng.normal(1.0, 0.05, SHAPE)
    return {
        "bias": calibration(bias, "adu", variance=np.full(SHAPE, 0.5), id="B7"),
        "dark": calibration(dark, "electron/s", variance=np.full(SHAPE, 0.01), id="D7"),
        "flat": calibration(flat, "", variance=np.full(SHAPE, 1e-6), id="F7"),
    }


def exposed(electrons, table, calibrations, **options):
    """Return a raw frame of a signal, and its charge in electron."""
    dark_time = options.get("dark_time", 10.0)
    gain = plane_of_amplifiers(table, table["gain"].values)
    charge = electrons * calibrations["flat"]["image"].values.astype(float)
    charge = charge + dark_time * calibrations["dark"]["image"].values
    adu = charge / gain + calibrations["bias"]["image"].values
    return read_out(adu, table, **options), charge


def test_a_signal_comes_back_through_every_step(table, calibrations, rng):
    signal = rng.uniform(10.0, 4e4, SHAPE)
    raw, charge = exposed(signal, table, calibrations, dtype=np.float64, dark_time=12.5)
    frame = detrend(raw, table, parameters=CAMERA, **calibrations)
    np.testing.assert_allclose(frame["image"], signal, rtol=2e-7, atol=1e-4)
    gain = plane_of_amplifiers(table, table["gain"].values)
    flat = calibrations["flat"]["image"].values.astype(float)
    expected = (charge + 25.0 + gain**2 * 0.5 + 12.5**2 * 0.01) / flat**2
    expected += (signal / flat) ** 2 * 1e-6
    np.testing.assert_allclose(frame["variance"], expected, rtol=1e-6)
    assert not frame["mask"].any()
    assert frame.attrs["applied"] == [
        "overscan: row_mean",
        "bias: B7",
        "gain: camera",
        "variance: camera",
        "dark: D7",
        "flat: F7",
    ]
    assert {name: frame[name].dtype.name for name in ("image", "variance", "mask")} == {
        "image": "float32",
        "variance": "float32",
        "mask": "int32",
    }
    assert (frame["image"].units, frame["variance"].units) == ("electron", "electron2")
    assert int(frame["exposure"]) == 3


def test_in_adu_everything_is_the_same_but_for_the_gain(table, calibrations, rng):
    raw, _ = exposed(rng.uniform(10.0, 4e4, SHAPE), table, calibrations)
    gain = plane_of_amplifiers(table, table["gain"].values)
    electron = detrend(raw, table, parameters=CAMERA, **calibrations)
    adu = detrend(raw, table, parameters=CAMERA.model_copy(update={"units": "adu"}), **calibrations)
    np.testing.assert_allclose(adu["image"] * gain, electron["image"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(adu["variance"] * gain**2, electron["variance"], rtol=1e-6)
    assert (adu["image"].units, adu["variance"].units) == ("adu", "adu2")
    assert "gain: camera, not applied" in adu.attrs["applied"]


def test_a_dark_in_adu_is_that_in_electrons_over_the_gain(table, calibrations, rng):
    raw, _ = exposed(rng.uniform(10.0, 4e4, SHAPE), table, calibrations)
    gain = plane_of_amplifiers(table, table["gain"].values)
    expected = detrend(raw, table, **calibrations)
    dark = calibrations["dark"]
    in_adu = calibration(dark["image"] / gain, "adu/s", variance=dark["variance"] / gain**2)
    found = detrend(raw, table, **calibrations | {"dark": in_adu})
    np.testing.assert_allclose(found["image"], expected["image"], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(found["variance"], expected["variance"], rtol=1e-6)


def test_pixels_without_a_number_are_flagged_and_nan(table, calibrations):
    signal = np.full(SHAPE, 1000.0)
    raw, _ = exposed(signal, table, calibrations)
    raw["image"][3, 5] = np.nan  # read-out and trimmed orientation agree in the first amplifier
    raw["image"][4, 6] = np.inf
    raw["image"][5, 7] = 60_000.0
    calibrations["bias"]["image"][7, 1] = np.nan
    calibrations["flat"]["image"][7, 2] = 0.0
    calibrations["flat"]["image"][7, 3] = np.nan
    calibrations["flat"]["image"][7, 4] = -0.5
    parameters = CAMERA.model_copy(
        update={"saturation": CAMERA.saturation.model_copy(update={"suspect_fraction": 0.5})}
    )
    raw["image"][5, 8] = 30_000.0
    frame = detrend(raw, table, parameters=parameters, **calibrations)
    planes = MASK_PLANES
    expected = {
        (3, 5): planes["NO_DATA"],
        (4, 6): planes["NO_DATA"],
        (5, 7): planes["SAT"] | planes["SUSPECT"],
        (5, 8): planes["SUSPECT"],
        **{(7, x): planes["BAD"] for x in (1, 2, 3, 4)},
    }
    assert {
        (int(y), int(x)): int(frame["mask"][y, x]) for y, x in np.argwhere(frame["mask"].values)
    } == expected
    lost = [place for place, plane in expected.items() if plane in (1, planes["NO_DATA"])]
    unknown = np.zeros(SHAPE, bool)
    unknown[tuple(np.transpose(lost))] = True
    np.testing.assert_array_equal(np.isnan(frame["image"]), unknown)
    np.testing.assert_array_equal(np.isnan(frame["variance"]), unknown)


def test_calibrations_that_change_nothing_are_as_good_as_none(table, rng):
    raw = read_out(rng.uniform(-20.0, 4e4, SHAPE), table)
    neutral = {
        "bias": calibration(np.zeros(SHAPE), "adu"),
        "dark": calibration(np.zeros(SHAPE), "electron/s"),
        "flat": calibration(np.ones(SHAPE), ""),
    }
    with_them, without = detrend(raw, table, **neutral), detrend(raw, table)
    for name in ("image", "variance", "mask"):
        np.testing.assert_array_equal(with_them[name], without[name])


def test_pixels_need_a_response_above_the_least_where_there_is_a_flat(table, calibrations):
    flat = calibrations["flat"]
    raw = read_out(np.full(SHAPE, 500.0), table)
    parameters = CAMERA.model_copy(update={"flat": FlatParameters(minimum=1.0)})
    frame = detrend(raw, table, parameters=parameters, flat=flat)
    weak = flat["image"].values <= 1.0
    np.testing.assert_array_equal(np.isnan(frame["image"]), weak)
    np.testing.assert_array_equal(np.isnan(frame["variance"]), weak)
    np.testing.assert_array_equal(frame["mask"], np.where(weak, MASK_PLANES["BAD"], 0))
    assert not detrend(raw, table, parameters=parameters)["mask"].any()


def test_never_read_integers_and_gaps_between_amplifiers_hold_no_data(table):
    raw = read_out(np.full(SHAPE, 50.0), table, dtype=np.int32)
    raw["image"][2, 2] = np.iinfo(np.int32).min
    frame = detrend(raw, table, parameters=CAMERA)
    assert np.argwhere(frame["mask"].values).tolist() == [[2, 2]]
    gap = table.copy(deep=True)
    for side in ("start", "stop"):
        gap[f"x_{side}"][1::2] += 10
    spread = detrend(raw, gap, parameters=CAMERA)
    assert spread["image"].shape == (120, 106)
    assert (spread["mask"][:, 48:58] == MASK_PLANES["NO_DATA"]).all()
    assert spread["image"][:, 48:58].isnull().all()


def test_planes_of_calibrations_and_defects_are_taken_over(table, calibrations):
    raw, _ = exposed(np.full(SHAPE, 1000.0), table, calibrations)
    mask = np.zeros(SHAPE, np.int32)
    mask[1, 1], mask[1, 2] = MASK_PLANES["BAD"], MASK_PLANES["CLIPPED"]
    calibrations["bias"]["mask"] = (("y", "x"), mask)
    vignetted = np.zeros(SHAPE, np.int32)
    vignetted[2, 2] = 1
    calibrations["flat"]["mask"] = xr.DataArray(
        vignetted, dims=("y", "x"), attrs={"flag_masks": [1], "flag_meanings": "VIGNETTED"}
    )
    boxes = xr.Dataset(
        {
            "y_start": ("defect", [5]),
            "y_stop": ("defect", [7]),
            "x_start": ("defect", [95]),
            "x_stop": ("defect", [99]),
        },
        attrs={"id": "hot"},
    )
    frame = detrend(raw, table, parameters=CAMERA, defects=boxes, **calibrations)
    expected = np.zeros(SHAPE, np.int32)
    expected[1, 1], expected[2, 2] = MASK_PLANES["BAD"], MASK_PLANES["VIGNETTED"]
    expected[5:7, 95] = MASK_PLANES["BAD"]
    np.testing.assert_array_equal(frame["mask"], expected)
    assert frame.attrs["applied"][-1] == "defects: hot"
    image = xr.DataArray(expected == 1, dims=("y", "x"))
    again = detrend(raw, table, parameters=CAMERA, defects=image)
    np.testing.assert_array_equal(again["mask"], expected == 1)


def test_frames_of_many_exposures_are_those_of_each_and_lazy_is_eager(table, calibrations, rng):
    frames = [
        exposed(rng.uniform(10.0, 4e4, SHAPE), table, calibrations, dark_time=time, exposure=n)[0]
        for n, time in enumerate((0.0, 5.0, 11.0))
    ]
    night = xr.concat(frames, "exposure", data_vars="all", coords="different", compat="equals")
    before = night.copy(deep=True), {k: c.copy(deep=True) for k, c in calibrations.items()}
    eager = detrend(night, table, **calibrations)
    for index, raw in enumerate(frames):
        one = detrend(raw, table, **calibrations)
        xr.testing.assert_identical(
            eager.isel(exposure=index).drop_vars("dark_time"), one.drop_vars("dark_time")
        )
    chunks = {"exposure": 1, "y": 40, "x": 50}
    lazy = detrend(
        night.chunk(chunks), table, **{k: c.chunk({"y": 30}) for k, c in calibrations.items()}
    )
    assert all(lazy[name].chunks is not None for name in ("image", "variance", "mask", "gain"))
    xr.testing.assert_identical(lazy.compute(), eager)
    xr.testing.assert_identical(night, before[0])
    for name, calibrated in calibrations.items():
        xr.testing.assert_identical(calibrated, before[1][name])


def test_gains_come_from_the_camera_one_number_a_table_or_a_photon_transfer(table):
    raw = read_out(np.full(SHAPE, 100.0), table)
    names = table["amp"].values
    assert (detrend(raw, table, gain=2.0)["image"] == 200.0).all()
    by_name = xr.DataArray([4.0, 3.0, 2.0, 1.0], dims="amp", coords={"amp": names[::-1]})
    found = detrend(raw, table, gain=by_name)
    expected = plane_of_amplifiers(table, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(found["image"], 100.0 * expected)
    solved = xr.Dataset(
        {
            "gain": ("amp", [2.0, np.nan, 2.0, 2.0]),
            "noise": ("amp", [7.0, 7.0, np.nan, 7.0]),
            "amp_flag": ("amp", [0, 1, 0, 64]),
        },
        coords={"amp": names},
        attrs={"detector": "R0", "id": "P1"},
    )
    with pytest.warns(UserWarning, match="C01, C11"):
        found = detrend(raw, table, gain=solved)
    assert found["gain"].values.tolist() == [2.0, 1.5, 2.0, 0.9]
    assert found["read_noise"].values.tolist() == [7.0, 7.0, 0.0, 7.0]
    bad = plane_of_amplifiers(table, [0, 1, 0, 1])
    np.testing.assert_array_equal(found["mask"], bad * MASK_PLANES["BAD"])
    assert "gain: P1" in found.attrs["applied"]


def test_what_does_not_fit_is_named(table, calibrations):
    raw = read_out(np.full(SHAPE, 100.0), table, physical_filter="r", camera="mine")
    bias, dark, flat = (calibrations[name] for name in ("bias", "dark", "flat"))
    for changes, message in (
        (
            {"bias": bias.assign_attrs(detector="R1")},
            r"bias is of detector 'R1', .* 'R0'",
        ),
        ({"dark": dark.assign_attrs(camera="yours")}, r"dark is of camera 'yours', .* 'mine'"),
        (
            {"flat": flat.assign_attrs(physical_filter="g")},
            r"is of physical_filter 'g', .* 'r'",
        ),
        (
            {"bias": bias.isel(y=slice(9))},
            r"bias has shape \(9, 96\), .* \(120, 96\)",
        ),
        ({"bias": flat}, r"bias has units '', needs 'adu'"),
        ({"dark": bias}, r"dark has units 'adu', needs 'adu/s' or 'electron/s'"),
        ({"bias": bias.rename(image="level")}, r"bias B7 has no variable 'image'"),
        ({"flat": flat.expand_dims("amp")}, r"flat has dimensions"),
        (
            {"gain": xr.Dataset({"gain": 1.0}, attrs={"detector": "R9"})},
            r"gain is of detector 'R9'",
        ),
        ({"gain": xr.Dataset()}, r"no variable 'gain'"),
        ({"gain": xr.DataArray([1.0], dims="amp", coords={"amp": ["C00"]})}, r"lacks .* C01, C10"),
        ({"gain": xr.DataArray([1.0], dims="amp")}, r"1 values without names for 4"),
        ({"gain": xr.DataArray([1.0], dims="x")}, r"dimensions \('x',\)"),
        ({"defects": xr.Dataset({"y_start": ("defect", [1])})}, r"lack y_stop, x_start, x_stop"),
        ({"defects": xr.DataArray(np.zeros((2, 2), bool), dims=("y", "x"))}, r"defects have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            detrend(raw, table, **changes)
    both = {"bias": bias.assign_attrs(detector="R1"), "flat": flat.isel(x=slice(3))}
    with pytest.raises(ValueError, match=r"bias is of .*; flat has shape"):
        detrend(raw, table, **both)
    with pytest.raises(ValueError, match="table is of detector 'R0', the frame of 'R5'"):
        detrend(raw.assign_coords(detector="R5"), table)
    with pytest.raises(ValueError, match="no finite dark_time or exposure_time"):
        detrend(raw.drop_vars("exposure_time"), table, dark=dark)
    with pytest.raises(ValueError, match="C01: box"):
        detrend(raw.isel(x=slice(100)), table)
    with pytest.raises(ValueError, match="no positive gain is known of the amplifiers C00"):
        detrend(raw, table.drop_vars("gain"))
    with pytest.raises(ValueError, match="units 'electron', needs 'adu'"):
        detrend(raw.assign(image=raw["image"].assign_attrs(units="electron")), table)
    with pytest.raises(KeyError, match="no variable 'image'"):
        detrend(raw.rename(image="pixels"), table)
    with pytest.raises(TypeError, match="integer bit planes"):
        detrend(raw, table, defects=xr.DataArray(np.zeros(SHAPE), dims=("y", "x")))
    with pytest.raises(TypeError, match="real numbers"):
        detrend(raw.assign(image=raw["image"].astype(complex)), table)


@pytest.mark.parametrize("dtype", [">u2", "<i4", ">i2", "u1", "<f8", ">f4", "i8"])
def test_raw_pixels_of_any_type_give_the_same(table, dtype):
    raw = read_out(np.arange(120.0)[:, None] + np.arange(96.0) / 2, table, level=10.0, dtype="u2")
    other = raw.assign(image=raw["image"].astype(dtype))
    xr.testing.assert_identical(detrend(other, table), detrend(raw, table))


def test_the_order_of_amplifiers_does_not_matter(table, calibrations, rng):
    raw, _ = exposed(rng.uniform(10.0, 4e4, SHAPE), table, calibrations)
    expected = detrend(raw, table, **calibrations)
    found = detrend(raw, table.isel(amp=[2, 0, 3, 1]), **calibrations)
    xr.testing.assert_identical(found.sel(amp=expected["amp"]), expected)


def test_amplifiers_may_differ_in_size(table, rng):
    signal = rng.uniform(10.0, 4e4, SHAPE)
    odd = table.copy(deep=True)
    odd["y_start"][2:] += 0
    for name, amount in (("data_y_stop", -10), ("y_stop", -10)):
        odd[name][0] += amount  # the first amplifier ends early
    frame = detrend(read_out(signal, table, dtype=np.float64), odd, gain=1.0)
    np.testing.assert_allclose(frame["image"].values[:50], signal[:50], rtol=1e-6, atol=1e-3)
    assert (frame["mask"].values[50:60, :48] == MASK_PLANES["NO_DATA"]).all()
    np.testing.assert_allclose(frame["image"].values[50:, 48:], signal[50:, 48:], rtol=1e-6)


def test_a_fringe_that_scales_with_the_exposure_is_taken_out(table, calibrations, rng):
    raw, _ = exposed(np.full(SHAPE, 1000.0), table, calibrations)
    night = xr.concat([raw, raw], "exposure", coords="minimal", compat="override")
    fringe = calibration(rng.normal(0.0, 1.0, SHAPE), "")
    scales = xr.DataArray([0.0, 30.0], dims="exposure")
    found = detrend(night, table, fringe=fringe, fringe_scale=scales, **calibrations)["image"]
    difference = (found[0] - found[1]).values
    np.testing.assert_allclose(difference, 30.0 * fringe["image"].values, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="fringe_scale must be finite"):
        detrend(raw, table, fringe=fringe, fringe_scale=np.inf)
