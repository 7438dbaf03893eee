"""What goes wrong with a pair is a code, and what is used wrongly is an error."""

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
from skyloom.algorithms.vocabulary import PairStatus, mask_attributes, plane_bits

SHAPE = (160, 150)
FEW = ExtractParameters(lags=4, min_pixels=1000)


def flat(seed=0, level=4000.0, shape=SHAPE, noise=50.0):
    image = np.random.default_rng(seed).normal(level, noise, shape).astype(np.float32)
    return xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})


def masked(exposure, plane, where):
    mask = np.zeros(exposure["image"].shape, np.int32)
    mask[where] = plane_bits([plane])
    return exposure.assign({"mask": (("y", "x"), mask, mask_attributes())})


def table(**options):
    return amplifier_grid("R0", (1, 4), SHAPE, overscan=16, **options)


def raw(seed, levels=(4000.0, 5000.0, 6000.0, 7000.0), exposure=1):
    rng = np.random.default_rng(seed)
    parts = []
    for level in levels:
        parts.append(rng.normal(1000.0 + level, 50.0, SHAPE))
        parts.append(rng.normal(1000.0, 5.0, (SHAPE[0], 16)))
    image = np.concatenate(parts, axis=1).round().clip(0, 60000).astype(np.uint16)
    coords = {"exposure": exposure, "exposure_time": 2.0, "mjd_start": 6e4, "detector": "R0"}
    return xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})}, coords=coords)


def test_pixels_saturated_in_one_flat_only_are_left_out_of_the_pair():
    one = masked(flat(1), "SAT", (slice(10, 20), slice(30, 50)))
    two = masked(flat(2), "SAT", (slice(0, 0), slice(0, 0)))
    pair = extract_pair(one, two, parameters=FEW)
    assert int(pair["pair_status"]) == PairStatus.OK
    assert int(pair["count"]) == SHAPE[0] * SHAPE[1] - 200
    assert float(pair["saturated_fraction"]) == pytest.approx(100 / (SHAPE[0] * SHAPE[1]))


def test_nan_pixels_masked_or_not_give_what_masked_pixels_give():
    one, two = flat(1), flat(2)
    where = np.random.default_rng(3).random(SHAPE) < 0.1
    with_mask = extract_pair(masked(one, "BAD", where), two, parameters=FEW)
    broken = one.copy(deep=True)
    broken["image"].values[where] = np.nan
    for candidate in (broken, masked(broken, "BAD", where), masked(broken, "CLIPPED", where)):
        pair = extract_pair(candidate, two, parameters=FEW)
        assert np.isfinite(pair["covariance"]).all()
        xr.testing.assert_equal(
            pair.drop_vars("saturated_fraction"), with_mask.drop_vars("saturated_fraction")
        )


def test_planes_that_are_not_ignored_leave_pixels_in():
    one = masked(flat(1), "COSMIC_RAY", slice(0, 10))
    assert int(extract_pair(one, flat(2), parameters=FEW)["count"]) == SHAPE[0] * SHAPE[1]


def test_identical_flats_have_no_variance_and_no_weight():
    with pytest.warns(UserWarning, match="NONFINITE_STAT") as caught:
        pair = extract_pair(flat(1), flat(1), parameters=FEW)
    assert len(caught) == 1
    assert int(pair["pair_status"]) == PairStatus.NONFINITE_STAT
    assert (pair["covariance"] == 0.0).all()
    assert np.isnan(pair["covariance_sigma"]).all()
    assert np.isnan(pair["pair_gain"])


@pytest.mark.parametrize("level", [-4000.0, np.nan])
def test_one_bad_mean_is_illegal_even_if_the_pair_average_is_positive(level):
    with pytest.warns(UserWarning, match="ILLEGAL_MEAN"):
        pair = extract_pair(flat(1, 9000.0), flat(2, level), parameters=FEW)
    assert int(pair["pair_status"]) == PairStatus.ILLEGAL_MEAN
    assert np.isnan(pair["variance"])
    assert np.isfinite(pair["mean"]) == np.isfinite(level)


def test_a_mean_mismatch_is_coded_and_everything_is_still_measured():
    with pytest.warns(UserWarning, match="MEAN_MISMATCH"):
        pair = extract_pair(flat(1, 4000.0), flat(2, 4400.0), parameters=FEW)
    assert int(pair["pair_status"]) == PairStatus.MEAN_MISMATCH
    assert float(pair["mean_delta"]) == pytest.approx(400.0, abs=2.0)
    assert np.isfinite(pair["covariance"]).all()
    assert np.isfinite(pair["pair_gain"])


def test_noise_that_varies_over_the_region_is_not_gaussian():
    rng = np.random.default_rng(1)
    width = np.linspace(10.0, 90.0, 400)
    flats = [
        xr.Dataset({"image": (("y", "x"), rng.normal(4000.0, width, (400, 400)))}) for _ in range(2)
    ]
    with pytest.warns(UserWarning, match="NON_GAUSSIAN"):
        pair = extract_pair(*flats, parameters=FEW)
    assert int(pair["pair_status"]) == PairStatus.NON_GAUSSIAN
    off = extract_pair(*flats, parameters=FEW.model_copy(update={"gaussian_test": "none"}))
    assert int(off["pair_status"]) == PairStatus.OK
    assert float(off["kurtosis"]) == pytest.approx(float(pair["kurtosis"]))


def test_lags_beyond_half_the_region_are_refused_before_any_compute():
    with pytest.raises(ValueError, match="half the shorter side"):
        extract_pair(flat(1), flat(2), parameters=ExtractParameters(lags=76))
    with pytest.raises(ValueError, match="C00"):
        extract_detector(raw(1), raw(2), table(), parameters=ExtractParameters(lags=76))
    with pytest.raises(ValueError, match="binned by 10"):
        extract_pair(flat(1), flat(2), parameters=ExtractParameters(lags=8, bin_size=10))


def test_shapes_units_and_methods_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(160, 150\) and \(100, 150\)"):
        extract_pair(flat(1), flat(2, shape=(100, 150)))
    electrons = flat(1)
    electrons["image"].attrs["units"] = "electron"
    with pytest.raises(ValueError, match="'adu', got 'electron'"):
        extract_pair(electrons, flat(2))
    with pytest.raises(ValueError, match=r"MOMENT.*NONE.*SIMPLE.*FULL.*READNOISE"):
        ExtractParameters(gain_method="MEDIAN")
    with pytest.raises(KeyError, match="HOT"):
        extract_pair(
            masked(flat(1), "BAD", slice(0, 1)),
            flat(2),
            parameters=ExtractParameters(planes=("HOT",)),
        )


def test_boxes_beyond_the_raw_image_are_named_before_any_compute():
    amplifiers = table()
    short = raw(1).isel(x=slice(0, 600))
    with pytest.raises(ValueError, match="C03"):
        extract_detector(short, short, amplifiers)


def test_an_amplifier_fully_masked_leaves_the_others_alone_and_warns_once():
    amplifiers = table()
    one, two = raw(1), raw(2)
    whole = extract_detector(one, two, amplifiers, parameters=FEW)
    for exposure in (one, two):
        exposure["image"][:, : SHAPE[1]] = 65535  # what never was read
    message = r"pair 1-1, detector R0: ILLEGAL_MEAN in C00 \(up to 100.0% saturated\)"
    with pytest.warns(UserWarning, match=message) as caught:
        pair = extract_detector(one, two, amplifiers, parameters=FEW)
    assert len(caught) == 1
    assert pair["pair_status"].values.tolist() == [PairStatus.ILLEGAL_MEAN, 0, 0, 0]
    assert float(pair["saturated_fraction"][0]) == 1.0
    xr.testing.assert_equal(pair.isel(amp=slice(1, 4)), whole.isel(amp=slice(1, 4)))
    assert pair.attrs["failed"] == 0


def test_a_detector_without_any_measured_amplifier_says_so_in_one_warning():
    one, two = raw(1), raw(2)
    one["image"][:] = 65535
    with pytest.warns(UserWarning, match="ILLEGAL_MEAN in all 4 amplifiers") as caught:
        pair = extract_detector(one, two, table(), parameters=FEW)
    assert len(caught) == 1
    assert pair.attrs["failed"] == 1


def test_a_gain_method_without_read_noise_warns_once_and_falls_back():
    parameters = FEW.model_copy(update={"gain_method": "FULL"})
    with pytest.warns(UserWarning, match="no read noise for gain method FULL") as caught:
        pair = extract_pair(flat(1), flat(2), parameters=parameters)
    assert len(caught) == 1
    none = extract_pair(flat(1), flat(2), parameters=FEW.model_copy(update={"gain_method": "NONE"}))
    assert float(pair["pair_gain"]) == float(none["pair_gain"])


def test_inputs_are_not_changed():
    one, two, amplifiers = raw(1), raw(2), table()
    before = [x.copy(deep=True) for x in (one, two, amplifiers)]
    extract_detector(one, two, amplifiers, parameters=FEW)
    extract_detector(one, two, amplifiers, parameters=FEW.model_copy(update={"region": "DETECTOR"}))
    extract_dark_pair(one, two, amplifiers, parameters=FEW)
    for exposure, copy in zip((one, two, amplifiers), before, strict=True):
        xr.testing.assert_identical(exposure, copy)
    flats = [masked(flat(seed), "BAD", slice(0, 3)) for seed in (1, 2)]
    copies = [x.copy(deep=True) for x in flats]
    for method in ("MOMENT", "FULL"):
        parameters = FEW.model_copy(update={"gain_method": method, "bin_size": 2})
        extract_pair(*flats, parameters=parameters, read_noise=1.0)
    for exposure, copy in zip(flats, copies, strict=True):
        xr.testing.assert_identical(exposure, copy)


def test_read_only_inputs_are_fine():
    one, two = flat(1), flat(2)
    for exposure in (one, two):
        exposure["image"].values.flags.writeable = False
    assert int(extract_pair(one, two, parameters=FEW)["pair_status"]) == PairStatus.OK
