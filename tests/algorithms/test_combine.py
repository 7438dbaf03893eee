"""Master biases, darks and flats: what is left out, noise, planes, holes, scales, provenance."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.nddata import CCDData
from astropy.units import Unit
from ccdproc import Combiner
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.combine import (
    CombineParameters,
    combine_bias,
    combine_dark,
    combine_flats,
    combine_two_flats,
)
from skyloom.algorithms.errors import (
    DroppedInputWarning,
    FilledPixelsWarning,
    GeometryError,
    NoUsableDataError,
)
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

BAD, SAT, NO_DATA = (MASK_PLANES[name] for name in ("BAD", "SAT", "NO_DATA"))
DIMS = ("exposure", "y", "x")
REFERENCE = CombineParameters(method="clip_reference")
GAIN, READ_NOISE = (1.5, 0.8), (6.0, 5.0)


def table(height=40, width=60, gain=GAIN, read_noise=READ_NOISE) -> xr.Dataset:
    """Return two amplifiers side by side."""
    half = width // 2
    columns = {
        "y_start": [0, 0], "y_stop": [height, height],
        "x_start": [0, half], "x_stop": [half, width],
    }  # fmt: skip
    columns |= {f"data_{name}": value for name, value in columns.items()}
    columns |= {"gain": list(gain), "read_noise": list(read_noise)}
    return xr.Dataset(
        {name: ("amp", value) for name, value in columns.items()}, coords={"amp": ["A", "B"]}
    )


def exposures_of(values, bits=None, variance=None, units="adu", **coords) -> xr.Dataset:
    values = np.asarray(values, np.float32)
    planes = {"image": (DIMS, values, {"units": units})}
    if bits is not None:
        planes["mask"] = (DIMS, np.asarray(bits, np.int32), mask_attributes())
    if variance is not None:
        planes["variance"] = (DIMS, np.broadcast_to(np.float32(variance), values.shape).copy())
    labels = [f"e{i}" for i in range(values.shape[0])]
    return xr.Dataset(planes, coords={"exposure": labels, "detector": "S00"} | coords)


def flats(n=20, shape=(40, 60), seed=1, rays=2e-3, electrons=None):
    """Return flats in adu of two amplifiers, with cosmic rays, their scales and the true flat."""
    rng = np.random.default_rng(seed)
    response = 1.0 + 0.03 * rng.standard_normal(shape)
    scales = rng.uniform(8e3, 32e3, n) if electrons is None else np.full(n, electrons)
    gain, noise = (np.repeat(np.asarray(a), shape[1] // 2)[None, :] for a in (GAIN, READ_NOISE))
    expected = scales[:, None, None] * response
    values = rng.poisson(expected * gain) + noise * rng.standard_normal(expected.shape)
    hits = rng.random(expected.shape) < rays
    values = values + np.where(hits, rng.uniform(3e3, 3e4, expected.shape), 0.0)
    found = exposures_of(
        values / gain,
        exposure_time=("exposure", np.linspace(2.0, 8.0, n)),
        mjd_start=("exposure", 60000.0 + np.arange(n) / 24.0),
        physical_filter="r",
    )
    return found, xr.DataArray(scales, coords={"exposure": found.exposure.values}), response


@pytest.fixture(scope="module")
def twenty():
    return flats()


def quiet(call, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedInputWarning)
        warnings.simplefilter("ignore", FilledPixelsWarning)
        return call(*arguments, **options)


def test_identical_inputs_give_that_input_and_its_variance_over_their_number():
    image = np.random.default_rng(1).normal(10.0, 3.0, (12, 15))
    for n in (1, 2, 3, 7):
        found = combine_bias(exposures_of(np.repeat(image[None], n, axis=0), variance=4.0))
        np.testing.assert_allclose(found["image"], image, rtol=1e-6)
        np.testing.assert_allclose(found["variance"], 4.0 / n, rtol=1e-6)
        assert (found["count"] == n).all()
        assert not found["rejected_count"].any()
    few = exposures_of(np.repeat(image[None], 3, axis=0), variance=4.0)
    np.testing.assert_allclose(combine_bias(few, parameters=REFERENCE)["variance"], 4.0 / 3)


@pytest.mark.parametrize("method", ["clip_model", "clip_reference"])
def test_scaled_inputs_of_one_flat_give_that_flat(method):
    flat = np.random.default_rng(2).uniform(0.7, 1.3, (40, 60))
    scales = np.array([1000.0, 2500.0, 31000.0, 700.0, 1234.5, 5e4])
    exposures = exposures_of(scales[:, None, None] * flat)
    parameters = CombineParameters(method=method)
    found = combine_flats(exposures, scales, amplifiers=table(), parameters=parameters)
    np.testing.assert_allclose(found["image"], flat, rtol=1e-6)
    per_amp = xr.DataArray(
        scales[:, None] * [1.0, 2.0],
        coords={"exposure": exposures.exposure.values, "amp": ["A", "B"]},
    )
    halves = np.where(np.arange(60) < 30, 1.0, 2.0)
    twice = exposures_of(scales[:, None, None] * flat * halves)
    found = combine_flats(
        twice, per_amp.sel(amp=["B", "A"]), amplifiers=table(), parameters=parameters
    )
    np.testing.assert_allclose(found["image"], flat, rtol=1e-6)
    assert found["input_scale"].dims == ("input", "amp")


def test_twenty_flats_have_the_noise_that_is_expected_and_said_and_no_cosmic_rays(twenty):
    exposures, scales, response = twenty
    found = combine_flats(exposures, scales, amplifiers=table())
    error = found["image"].values - response
    for amp, part in enumerate((slice(0, 30), slice(30, 60))):
        e, g = scales.values[:, None, None], GAIN[amp]
        variance = response[:, part] / (e * g) + (READ_NOISE[amp] / g / e) ** 2
        best = 1.0 / (1.0 / variance).sum(axis=0)
        # a pixel in 25 has lost one of its values to a cosmic ray
        np.testing.assert_allclose(found["variance"].values[:, part], best, rtol=0.2)
        assert float(found["variance"][:, part].mean()) == pytest.approx(best.mean(), rel=0.03)
        pulls = error[:, part] / np.sqrt(found["variance"].values[:, part])
        assert pulls.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * pulls.size))
    assert abs(error / np.sqrt(found["variance"])).max() < 5.0
    assert int(found["rejected_count"].sum()) > 60


def test_variances_of_the_inputs_are_propagated(twenty):
    exposures, scales, response = twenty
    gain = np.repeat(GAIN, 30)
    variance = exposures["image"] / gain + (np.repeat(READ_NOISE, 30) / gain) ** 2
    found = combine_flats(exposures.assign(variance=variance), scales, amplifiers=table())
    predicted = combine_flats(exposures, scales, amplifiers=table())
    np.testing.assert_allclose(found["image"], predicted["image"], rtol=1e-7)
    ratio = found["variance"] / predicted["variance"]
    assert float(ratio.mean()) == pytest.approx(1.0, abs=1e-3)
    bare = table(read_noise=(np.nan, np.nan))
    unknown = combine_flats(exposures.assign(variance=variance), scales, amplifiers=bare)
    np.testing.assert_allclose(unknown["image"], predicted["image"], rtol=1e-4)
    assert abs(unknown["image"] - response).max() < 5 * np.sqrt(found["variance"].max())


def test_a_cosmic_ray_in_one_of_three_leaves_no_trace():
    rng = np.random.default_rng(4)
    values = 1000.0 + rng.normal(0.0, 5.0, (3, 100, 100))
    hit = rng.random((100, 100)) < 0.01
    values[0][hit] += 5000.0
    found = combine_bias(exposures_of(values, units="electron", variance=25.0),
                         parameters=CombineParameters(pattern=0.0))  # fmt: skip
    assert float(abs(found["image"] - 1000.0).max()) < 5 * 5.0 / np.sqrt(2)
    np.testing.assert_array_equal(found["count"].values[hit], 2)
    assert int((found["count"].values[~hit] < 3).sum()) <= 1


def test_of_two_values_that_disagree_the_lower_is_believed():
    values = np.full((2, 4, 5), 100.0)
    values[1, 2, 3] = 900.0
    found = combine_bias(exposures_of(values, variance=25.0))
    assert float(found["image"][2, 3]) == 100.0
    assert (int(found["count"][2, 3]), int(found["rejected_count"][2, 3])) == (1, 1)


def test_the_reference_method_clips_by_the_scatter(twenty):
    exposures, scales, _ = twenty
    found = combine_flats(exposures, scales, amplifiers=table(), parameters=REFERENCE)
    values = exposures["image"].values / scales.values[:, None, None]
    lower, center, upper = np.percentile(values, [25, 50, 75], axis=0)
    half_width = 3.0 * 0.741301109252802 * (upper - lower)
    for _ in range(3):
        used = np.where(np.abs(values - center) <= half_width, values, np.nan)
        center, deviation = np.nanmean(used, axis=0), np.nanstd(used, axis=0, ddof=1)
        half_width = 3.0 * deviation
    np.testing.assert_allclose(found["image"], center, rtol=1e-6)
    count = np.isfinite(used).sum(axis=0)
    np.testing.assert_array_equal(found["count"], count)
    # Inputs near 1 are rounded to 6e-8, a few 1e-5 of their scatter of about 2e-3.
    np.testing.assert_allclose(found["variance"], deviation**2 / count, rtol=5e-5)


def test_darks_are_per_second_and_hot_pixels_stay():
    rng = np.random.default_rng(5)
    times = np.array([100.0, 200.0, 300.0, 300.0, 600.0])
    rate = np.full((40, 60), 0.02)
    rate[7, 8] = 5.0
    charge = rng.poisson(times[:, None, None] * rate) + rng.normal(0.0, 5.0, (5, 40, 60))
    charge[2, 10, 11] += 3000.0
    darks = exposures_of(charge, units="electron", dark_time=("exposure", times),
                         exposure_time=("exposure", times - 5.0))  # fmt: skip
    found = combine_dark(darks, amplifiers=table(read_noise=(5.0, 5.0)))
    assert (found["image"].units, found["variance"].units) == ("electron/s", "electron2/s2")
    assert float(found["image"][7, 8]) == pytest.approx(5.0, abs=0.4)
    assert float(found["image"][10, 11]) == pytest.approx(0.02, abs=0.1)
    assert float(found["image"].mean()) == pytest.approx(0.02 + 5.0 / 2400, abs=5e-4)
    pulls = (found["image"] - rate) / np.sqrt(found["variance"])
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.06)
    np.testing.assert_array_equal(found["input_scale"], times)
    by_exposure_time = combine_dark(darks.drop_vars("dark_time"), amplifiers=table())
    np.testing.assert_array_equal(by_exposure_time["input_scale"], times - 5.0)
    noise = table(read_noise=(5.0, 5.0))
    given_times = combine_dark(darks, times=times * 2, amplifiers=noise)
    np.testing.assert_allclose(given_times["image"] * 2, found["image"], rtol=1e-5)


def test_planes_of_single_exposures_are_cleared_unless_asked_for():
    bits = np.zeros((4, 6, 7), np.int32)
    bits[:, 1, 2] = BAD
    bits[1, 2, 3] = SAT
    bits[2, 3, 4] = MASK_PLANES["CROSSTALK"]
    values = np.full((4, 6, 7), 10.0)
    values[1, 2, 3] = 1e5
    exposures = exposures_of(values, bits, variance=1.0)
    found = combine_bias(exposures)
    expected = np.zeros((6, 7), np.int32)
    expected[1, 2] = BAD
    np.testing.assert_array_equal(found["mask"], expected)
    assert (found["image"] == 10.0).all()
    assert int(found["count"][2, 3]) == 3
    assert found["mask"].attrs == mask_attributes()
    expected[3, 4] = MASK_PLANES["CROSSTALK"]
    np.testing.assert_array_equal(
        combine_bias(exposures, parameters=CombineParameters(censor=False))["mask"], expected
    )


def test_holes_are_filled_from_their_own_amplifier():
    rng = np.random.default_rng(6)
    values = np.where(np.arange(60) < 30, 100.0, 500.0) + rng.normal(0.0, 1.0, (5, 40, 60))
    values[:, 20, 28:32] = np.nan
    bits = np.zeros(values.shape, np.int32)
    bits[:, 3, 40] = SAT
    with pytest.warns(FilledPixelsWarning, match="5 pixels have no usable value"):
        found = combine_bias(exposures_of(values, bits, variance=1.0), amplifiers=table())
    np.testing.assert_allclose(found["image"][20, 28:30], 100.0, atol=0.2)
    np.testing.assert_allclose(found["image"][20, 30:32], 500.0, atol=0.2)
    assert (found["mask"][20, 28:32] == BAD).all()
    assert (found["count"][20, 28:32] == 0).all()
    assert found["bad_count"].values.tolist() == [2, 3]
    near = combined_window(found["image"].values, 20, 28, 0, 30)
    assert float(found["image"][20, 28]) == pytest.approx(near, rel=1e-6)


def combined_window(image, y, x, left, right):
    window = image[max(y - 32, 0) : y + 33, max(x - 32, left) : min(x + 33, right)].copy()
    window[y - max(y - 32, 0)][[28, 29]] = np.nan
    return np.nanmedian(window)


def test_far_holes_get_the_median_of_the_amplifier_and_lost_amplifiers_stay_empty():
    values = np.full((3, 10, 300), 7.0)
    values[:, :, 100:] = np.nan
    with pytest.warns(FilledPixelsWarning, match="left to fill them from: B"):
        found = combine_bias(exposures_of(values, variance=1.0), amplifiers=table(10, 300))
    assert (found["image"][:, :150] == 7.0).all()
    assert np.isnan(found["image"][:, 150:]).all()
    assert (found["mask"][:, 100:] == BAD).all()
    assert np.isnan(found["percentiles"].sel(amp="B")).all()


@pytest.mark.parametrize("method", ["clip_model", "clip_reference"])
def test_a_detector_without_any_good_pixel_is_bad_with_one_warning(method):
    exposures = exposures_of(np.full((5, 6, 7), np.nan), variance=1.0)
    with pytest.warns(FilledPixelsWarning) as told:
        found = combine_bias(exposures, parameters=CombineParameters(method=method))
    assert len(told) == 1
    assert np.isnan(found["image"]).all()
    assert (found["mask"] == BAD).all()


def test_pixels_outside_of_all_amplifiers_are_bad_and_not_filled():
    amplifiers = table(40, 60).assign(x_stop=("amp", [30, 50]), data_x_stop=("amp", [30, 50]))
    found = combine_bias(exposures_of(np.ones((3, 40, 60))), amplifiers=amplifiers)
    assert np.isnan(found["image"][:, 50:]).all()
    assert (found["mask"][:, 50:] == BAD).all()
    assert not found["mask"][:, :50].any()
    beyond = table(40, 62)
    with pytest.raises(GeometryError, match="B reach beyond images of shape"):
        combine_bias(exposures_of(np.ones((3, 40, 60))), amplifiers=beyond)


def test_pixels_without_data_in_every_exposure_are_an_error_unless_kept():
    bits = np.zeros((3, 6, 7), np.int32)
    bits[:, 1, 2:4] = NO_DATA
    bits[0, 5, 5] = NO_DATA
    exposures = exposures_of(np.ones((3, 6, 7)), bits, variance=1.0)
    with pytest.raises(NoUsableDataError, match="2 pixels are NO_DATA"):
        combine_bias(exposures)
    found = combine_bias(exposures, parameters=CombineParameters(no_data="keep"))
    assert (found["mask"][1, 2:4] == NO_DATA).all()
    assert np.isnan(found["image"][1, 2:4]).all()
    assert int(found["count"][5, 5]) == 2


def test_vignetted_pixels_of_a_flat_are_zero_and_marked():
    full, part = (MASK_PLANES[name] for name in ("VIGNETTED", "PARTLY_VIGNETTED"))
    bits = np.zeros((3, 6, 7), np.int32)
    bits[:, 0] = NO_DATA
    corner = np.zeros((6, 7), np.int32)
    corner[0], corner[1] = full | SAT, part
    corner = xr.DataArray(corner, dims=("y", "x"), attrs=mask_attributes())
    exposures = exposures_of(np.full((3, 6, 7), 100.0), bits, variance=1.0)
    found = combine_flats(exposures, [100.0] * 3, vignetting=corner)
    assert (found["image"][0] == 0.0).all()
    assert (found["mask"][0] == full | NO_DATA).all()
    assert (found["mask"][1] == part).all()
    assert (found["image"][1:] == 1.0).all()
    assert float(found["percentiles"][0]) == 1.0
    with pytest.raises(GeometryError, match="vignetting has shape"):
        combine_flats(exposures, [100.0] * 3, vignetting=corner[1:])


@pytest.mark.parametrize("bad", [0.0, -3.0, np.nan])
def test_bad_scales_are_named_or_skipped(twenty, bad):
    exposures, scales, _ = twenty
    wrong = scales.copy()
    wrong[3] = bad
    with pytest.raises(ValueError, match=f"exposure e3: {bad:g}"):
        combine_flats(exposures, wrong, amplifiers=table())
    skip = CombineParameters(skip_bad_scales=True)
    with pytest.warns(DroppedInputWarning, match="exposure e3"):
        found = combine_flats(exposures, wrong, amplifiers=table(), parameters=skip)
    rest = [i for i in range(20) if i != 3]
    expected = combine_flats(exposures.isel(exposure=rest), scales, amplifiers=table())
    xr.testing.assert_identical(found, expected)
    with pytest.raises(ValueError, match="no inputs: no exposure has a usable scale"):
        combine_flats(exposures, wrong * np.nan, amplifiers=table(), parameters=skip)


def test_a_bad_scale_of_one_amplifier_leaves_the_exposure_out_there_alone(twenty):
    exposures, scales, _ = twenty
    per_amp = scales.expand_dims(amp=["A", "B"]).copy()
    per_amp[1, 4] = -1.0
    skip = CombineParameters(skip_bad_scales=True)
    with pytest.warns(DroppedInputWarning, match="exposure e4, amplifier B: -1"):
        found = combine_flats(exposures, per_amp, amplifiers=table(), parameters=skip)
    assert int(found["count"][:, :30].max()) == 20
    assert int(found["count"][:, 30:].max()) == 19


def test_exposures_without_a_scale_are_left_out(twenty):
    exposures, scales, _ = twenty
    with pytest.warns(DroppedInputWarning, match="2 exposures have no scale.*e0, e1"):
        found = combine_flats(exposures, scales[2:], amplifiers=table())
    assert found["input"].values.tolist() == [f"e{i}" for i in range(2, 20)]
    with pytest.raises(ValueError, match="none of the exposures has a scale"):
        combine_flats(exposures, scales.assign_coords(exposure=range(20)), amplifiers=table())
    of_detector = scales.expand_dims(detector=["S01", "S00"]) * xr.DataArray(
        [2.0, 1.0], dims="detector"
    )
    chosen = combine_flats(exposures, of_detector, amplifiers=table())
    xr.testing.assert_identical(chosen, combine_flats(exposures, scales, amplifiers=table()))


def test_scales_may_be_measured_or_be_exposure_times(twenty):
    exposures, _, _ = twenty
    own = combine_flats(exposures, "own_mean", amplifiers=table())
    assert float(own["image"].mean()) == pytest.approx(1.0, abs=2e-3)
    assert own["input_scale"].units == "adu"
    timed = combine_flats(exposures, "exposure_time", amplifiers=table(), parameters=REFERENCE)
    assert timed["image"].units == "adu/s"
    np.testing.assert_array_equal(timed["input_scale"], exposures["exposure_time"])


def test_a_frame_says_what_it_is_made_of(twenty):
    exposures, scales, _ = twenty
    exposures = exposures.assign_attrs(camera="north", history=["read"])
    before = exposures.copy(deep=True)
    found = combine_flats(exposures, scales, amplifiers=table(), source="DOME")
    xr.testing.assert_identical(exposures, before)
    assert found["input"].values.tolist() == exposures["exposure"].values.tolist()
    np.testing.assert_array_equal(found["input_scale"], scales)
    np.testing.assert_array_equal(found["input_mjd_start"], exposures["mjd_start"])
    np.testing.assert_array_equal(found["input_exposure_time"], exposures["exposure_time"])
    assert (str(found["detector"].values), str(found["physical_filter"].values)) == ("S00", "r")
    assert (found.attrs["camera"], found.attrs["flat_source"]) == ("north", "DOME")
    assert (str(found["observation_type"].values), float(found["exposure_time"])) == ("flat", 1.0)
    assert float(found["mjd_start"]) == 60000.0
    end = 60000.0 + 19 / 24 + 8.0 / 86400
    assert float(found["mjd_end"]) == pytest.approx(end, abs=1e-9)
    assert float(found["mjd_middle"]) == pytest.approx((60000.0 + end) / 2, abs=1e-9)
    assert found["percentiles"].sel(amp="A", percent=50.0) == pytest.approx(1.0, abs=0.01)
    expected = np.percentile(found["image"].values[:, :30], found["percent"].values)
    np.testing.assert_allclose(found["percentiles"].sel(amp="A"), expected, rtol=1e-6)
    assert found["image"].dtype == found["variance"].dtype == np.float32
    bias = combine_bias(exposures * 0.0, amplifiers=table())
    assert float(bias["exposure_time"]) == 0.0


def test_single_datasets_lazy_and_stored_exposures_give_the_same(twenty, tmp_path):
    exposures, scales, _ = twenty
    bits = np.where(np.random.default_rng(7).random(exposures["image"].shape) < 0.05, SAT, 0)
    exposures = exposures.assign(mask=(DIMS, bits.astype(np.int32), mask_attributes()))
    expected = combine_flats(exposures, scales, amplifiers=table())
    several = [exposures.isel(exposure=i) for i in range(20)]
    xr.testing.assert_identical(combine_flats(several, scales, amplifiers=table()), expected)
    stored = exposures.assign_coords(exposure=np.arange(20)).drop_vars(
        ["detector", "physical_filter"]
    )
    stored.to_zarr(tmp_path / "flats.zarr", consolidated=False,
                   encoding={"image": {"chunks": (1, 16, 17)}})  # fmt: skip
    with xr.open_zarr(tmp_path / "flats.zarr", chunks=None, consolidated=False) as read:
        found = combine_flats(read, scales.values, amplifiers=table())
    for name in ("image", "variance", "mask", "count", "rejected_count"):
        np.testing.assert_array_equal(found[name], expected[name])


@given(chunks=st.tuples(st.integers(1, 20), st.integers(9, 40), st.integers(9, 60)))
@settings(deadline=None, max_examples=6)
def test_any_tiling_gives_the_same(twenty, chunks):
    exposures, scales, _ = twenty
    lazy = exposures.chunk(dict(zip(DIMS, chunks, strict=True)))
    with dask.config.set(scheduler="synchronous"):
        found = combine_flats(lazy, scales, amplifiers=table())
    xr.testing.assert_identical(found, combine_flats(exposures, scales, amplifiers=table()))


@pytest.mark.parametrize("method", ["clip_model", "clip_reference"])
def test_the_order_of_the_exposures_does_not_matter(twenty, method):
    exposures, scales, _ = twenty
    parameters = CombineParameters(method=method)
    found, turned = (
        combine_flats(e, scales, amplifiers=table(), parameters=parameters)
        for e in (exposures, exposures.isel(exposure=slice(None, None, -1)))
    )
    for name in ("image", "variance"):
        np.testing.assert_allclose(found[name], turned[name], rtol=3e-7)
    xr.testing.assert_equal(found["count"], turned["count"])


def test_means_agree_with_ccdproc_where_nothing_is_left_out():
    values = np.random.default_rng(8).normal(100.0, 2.0, (6, 20, 30))
    found = combine_bias(
        exposures_of(values, variance=4.0), parameters=CombineParameters(model_clip=50)
    )
    peer = Combiner([CCDData(image, unit=Unit("adu")) for image in values]).average_combine()
    np.testing.assert_allclose(found["image"], peer.data, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda e: [], ValueError, "no inputs"),
        (lambda e: e.isel(exposure=slice(0, 0)), ValueError, "no inputs"),
        (lambda e: e.isel(exposure=0), ValueError, "need an image over exposure, y and x"),
        (lambda e: e.isel(exposure=[0, 1, 0]), ValueError, "occur twice: e0"),
        (
            lambda e: [e.isel(exposure=0), e.isel(exposure=1, x=slice(9))],
            GeometryError,
            "one shape.*'x': 60.*'x': 9",
        ),
        (
            lambda e: e.assign_coords(detector=("exposure", ["S00"] * 19 + ["S01"])),
            ValueError,
            "several detectors",
        ),
        (
            lambda e: e.assign_coords(physical_filter=("exposure", ["g"] * 19 + ["r"])),
            ValueError,
            "several filters: g, r",
        ),
        (
            lambda e: [e.isel(exposure=0), e.isel(exposure=1).assign(mask=e["image"][0] * 0)],
            ValueError,
            "same variables",
        ),
    ],
)
def test_exposures_that_do_not_belong_together_are_named(twenty, change, error, message):
    exposures, _, _ = twenty
    with pytest.raises(error, match=message):
        combine_flats(change(exposures), "own_mean", amplifiers=table())


def test_misuse_is_named(twenty):
    exposures, scales, _ = twenty
    with pytest.raises(ValueError, match=r"needs the noise.*gain and read noise"):
        combine_flats(exposures, scales)
    with pytest.raises(ValueError, match="read noise of A, B"):
        combine_flats(exposures, scales, amplifiers=table(gain=(np.nan, np.nan)))
    with pytest.raises(ValueError, match="have none"):
        combine_bias(exposures.isel(exposure=slice(4)), amplifiers=table(), parameters=REFERENCE)
    with pytest.raises(ValueError, match="need the amplifier table"):
        combine_flats(exposures, scales.expand_dims(amp=["A", "B"]))
    with pytest.raises(ValueError, match="no scales of amp B"):
        combine_flats(exposures, scales.expand_dims(amp=["A", "C"]), amplifiers=table())
    with pytest.raises(ValueError, match="scales have shape"):
        combine_flats(exposures, [1.0, 2.0], amplifiers=table())
    with pytest.raises(ValueError, match="scales must be numbers"):
        combine_flats(exposures, "median", amplifiers=table())
    with pytest.raises(ValueError, match="source must be one of"):
        combine_flats(exposures, scales, amplifiers=table(), source="LAMP")
    with pytest.raises(ValueError, match="no dark_time or exposure_time"):
        combine_dark(exposures.drop_vars("exposure_time"), amplifiers=table())


def flat_of(values, bits=None, variance=1.0, **attrs) -> xr.Dataset:
    values = np.atleast_2d(np.asarray(values, np.float32))
    bits = np.zeros(values.shape) if bits is None else np.atleast_2d(bits)
    return xr.Dataset(
        {
            "image": (("y", "x"), values, {"units": ""}),
            "variance": (("y", "x"), np.full(values.shape, variance, np.float32)),
            "mask": (("y", "x"), bits.astype(np.int32), mask_attributes()),
        },
        attrs=attrs,
    )


@pytest.mark.parametrize(("weight", "value"), [(0.0, 0.97), (0.3, 0.985), (1.0, 1.02)])
def test_two_flats_are_averaged_by_weight(weight, value):
    found = combine_two_flats(flat_of(1.02, variance=2.0), flat_of(0.97, variance=3.0), weight)
    assert float(found["image"][0, 0]) == pytest.approx(value, rel=1e-6)
    expected = 2.0 * weight**2 + 3.0 * (1.0 - weight) ** 2
    assert float(found["variance"][0, 0]) == pytest.approx(expected, rel=1e-6)
    assert int(found["mask"][0, 0]) == 0


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_where_one_flat_is_not_valid_the_other_one_stands(weight):
    one_input = MASK_PLANES["ONE_INPUT"]
    first = flat_of([1.02, 1.02, np.nan, np.nan], [SAT, 0, BAD, 0], 2.0)
    second = flat_of([0.97, np.nan, 0.97, np.nan], [BAD, 0, 0, NO_DATA], 3.0)
    found = combine_two_flats(first, second, weight)
    np.testing.assert_allclose(found["image"][0], np.float32([1.02, 1.02, 0.97, np.nan]))
    np.testing.assert_allclose(found["variance"][0], [2.0, 2.0, 3.0, np.nan])
    planes = [SAT | one_input, one_input, one_input, BAD | NO_DATA]
    assert found["mask"].values[0].tolist() == planes
    lazy = combine_two_flats(first.chunk(x=2), second.chunk(x=2), weight)
    assert lazy["image"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)


def test_two_flats_that_do_not_belong_together_are_named():
    good = flat_of(1.0, detector="S00", kind="flat")
    assert combine_two_flats(good, good).attrs["detector"] == "S00"
    for weight in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="weight must be between 0 and 1"):
            combine_two_flats(good, good, weight)
    with pytest.raises(GeometryError, match="different shapes"):
        combine_two_flats(good, flat_of([1.0, 1.0]))
    with pytest.raises(ValueError, match="different detectors, 'S00' and 'S01'"):
        combine_two_flats(good, flat_of(1.0, detector="S01"))
    other = good.assign(image=good["image"].assign_attrs(units="adu"))
    with pytest.raises(ValueError, match="different units"):
        combine_two_flats(good, other)
    before = good.copy(deep=True)
    combine_two_flats(good, good)
    xr.testing.assert_identical(good, before)
