"""Which pixels are measured, what darks and headers know, and how much light there was."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.amplifiers import Box
from skyloom.algorithms.photon_transfer.known_noise import chosen_read_noise, per_amplifier
from skyloom.algorithms.photon_transfer.offsets import dark_offset, read_noise_from_headers
from skyloom.algorithms.photon_transfer.photodiode import integrate_photodiode, pair_photo_charge
from skyloom.algorithms.photon_transfer.regions import (
    focal_plane_radius,
    inside_edges,
    vignetting_selection,
)
from skyloom.algorithms.vocabulary import PairStatus, ReadNoiseSource


@pytest.mark.parametrize(
    ("box", "edge", "around", "expected"),
    [
        (Box(0, 10, 0, 10), 0, Box(0, 10, 0, 10), (slice(0, 10), slice(0, 10))),
        (Box(0, 10, 0, 10), 2, Box(0, 10, 0, 10), (slice(2, 8), slice(2, 8))),
        (Box(10, 20, 0, 10), 3, Box(0, 20, 0, 10), (slice(0, 7), slice(3, 7))),
        (Box(8, 12, 8, 12), 5, Box(0, 20, 0, 20), (slice(0, 4), slice(0, 4))),
        (Box(0, 4, 0, 10), 5, Box(0, 20, 0, 20), (slice(4, 4), slice(5, 10))),
        (Box(0, 4, 0, 4), 3, Box(0, 4, 0, 4), (slice(3, 3), slice(3, 3))),
    ],
)
def test_edges_are_counted_from_the_start_of_the_box(box, edge, around, expected):
    assert inside_edges(box, edge, around) == expected


def test_the_radius_follows_the_transform_of_x_and_y():
    transform = [[0.0, 2.0, 1.0], [3.0, 0.0, -1.0]]
    radius = focal_plane_radius(Box(5, 7, 10, 13), transform)
    assert radius.dims == ("y", "x")
    x, y = 11, 6
    expected = np.hypot(2.0 * y + 1.0, 3.0 * x - 1.0)
    assert float(radius.sel(y=y, x=x)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(3, 3\)"):
        focal_plane_radius(Box(0, 1, 0, 1), np.eye(3))


def test_the_tolerance_of_vignetting_grows_by_one_percent_until_enough_is_kept():
    radius = np.linspace(0.0, 1.0, 10_001)[None]
    # throughput 1 - r: a tolerance of p percent keeps p percent of the pixels
    for wanted, percent in ((100, 2.0), (201, 3.0), (1000, 10.0), (1001, 11.0), (10_001, 100.0)):
        found = vignetting_selection(radius, [-1.0, 1.0], min_pixels=wanted)
        assert found.percent == pytest.approx(percent, abs=1.0), wanted
        assert np.count_nonzero(found.good) >= min(wanted, 10_000)
    with pytest.raises(ValueError, match="empty"):
        vignetting_selection(radius, [])
    with pytest.raises(ValueError, match="percent"):
        vignetting_selection(radius, [1.0], percent=0.0)


def test_the_polynomial_has_its_highest_power_first():
    radius = np.array([[0.0, 0.1, 0.2]])
    found = vignetting_selection(radius, [-2.0, 0.0, 1.0], percent=5.0, min_pixels=1)
    assert found.good.tolist() == [[True, True, False]]


def darks(**changes):
    data = {
        "mean": (("pair", "amp"), [[10.0, 5.0], [30.0, np.nan], [12.0, 7.0]]),
        "variance": (("pair", "amp"), [[4.0, 9.0], [8.0, 9.0], [4.0, 9.0]]),
        "exposure_time": ("pair", [1.0, 5.0, 1.0]),
    }
    return xr.Dataset(data | changes, coords={"amp": ["A", "B"]})


def test_darks_are_interpolated_in_exposure_time_and_held_beyond():
    at = {time: dark_offset(darks(), time) for time in (0.1, 1.0, 3.0, 50.0, np.nan)}
    assert [float(at[time]["offset"].sel(amp="A")) for time in (0.1, 1.0, 3.0, 50.0)] == [
        11.0,
        11.0,
        20.5,
        30.0,
    ]
    assert float(at[np.nan]["offset"].sel(amp="A")) == 11.0
    assert float(at[3.0]["read_noise"].sel(amp="A")) == pytest.approx(np.sqrt(6.0))
    # the longer dark of B was not measured: one level is a constant
    assert float(at[50.0]["offset"].sel(amp="B")) == 6.0
    assert at[1.0]["offset"].attrs["units"] == "adu"


def test_dark_pairs_with_a_failure_code_are_left_out():
    status = np.array([[0, 0], [PairStatus.TOO_FEW_PIXELS, 0], [PairStatus.MEAN_MISMATCH, 255]])
    found = dark_offset(darks(pair_status=(("pair", "amp"), status.astype(np.uint8))), 5.0)
    assert found["offset"].values.tolist() == [11.0, 5.0]
    none = dark_offset(darks(pair_status=(("pair", "amp"), np.full((3, 2), 5, np.uint8))), 5.0)
    assert np.isnan(none["offset"]).all()
    assert np.isnan(none["read_noise"]).all()


def test_headers_give_the_median_of_the_first_key_they_have():
    new, old = "LSST ISR OVERSCAN RESIDUAL SERIAL STDEV", "RESIDUAL STDEV"
    headers = [
        {f"{new} C00": 4.0, f"{old} C00": 90.0},
        {f"{old} C00": 5.0, f"{old} C01": "text"},
        {f"{new} C00": np.nan, f"{old} C00": 9.0},
    ]
    with pytest.warns(UserWarning, match="no header gives a read noise for C01, C02") as caught:
        noise = read_noise_from_headers(headers, ["C00", "C01", "C02"])
    assert len(caught) == 1
    assert float(noise.sel(amp="C00")) == 5.0
    assert np.isnan(noise.sel(amp=["C01", "C02"])).all()
    assert noise.attrs["units"] == "adu"
    assert chosen_read_noise(header=noise.values)[1].tolist() == [ReadNoiseSource.HEADER, 0, 0]


def test_values_per_amplifier_are_found_by_name_and_counted_without():
    named = xr.DataArray([1.0, 2.0], coords={"amp": ["B", "A"]}, dims="amp")
    assert per_amplifier(named, ["A", "B"]).tolist() == [2.0, 1.0]
    assert np.isnan(per_amplifier(named, ["A", "C"])[1])
    assert per_amplifier(3.0, ["A", "B"]).tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="expected 2 values"):
        per_amplifier([1.0, 2.0, 3.0], ["A", "B"])


TIME = np.arange(0.0, 20.0, 0.1)
LIT = (TIME >= 5.0) & (TIME < 15.0)
CURRENT = np.where(LIT, -3.0, 0.0) - 0.25


def test_a_trapezoid_counts_the_dark_current_and_a_trimmed_one_does_not():
    light = 3.0 * 10.0
    direct = integrate_photodiode(TIME, CURRENT, method="DIRECT_SUM")
    assert direct == pytest.approx(light + 0.25 * TIME[-1], rel=1e-9)
    assert integrate_photodiode(TIME, CURRENT) == pytest.approx(light, rel=1e-9)


def test_noise_of_the_dark_samples_averages_out_of_the_trimmed_sum():
    rng = np.random.default_rng(1)
    noisy = CURRENT + rng.normal(0.0, 0.02, TIME.size)
    assert integrate_photodiode(TIME, noisy) == pytest.approx(30.0, abs=4 * 0.02 * 0.1 * 20)


def test_charges_per_interval_lose_the_current_outside_the_lit_span():
    interval = np.append(0.1, np.diff(TIME))
    charge = CURRENT * interval
    charge[0] = 1e6  # the first sample says nothing
    found = integrate_photodiode(TIME, charge, method="CHARGE_SUM")
    assert found == pytest.approx(30.0, rel=1e-9)


def test_the_mean_current_is_multiplied_by_the_exposure_time():
    found = integrate_photodiode([0, 1, 2], [2, 4, 6], method="MEAN", exposure_time=5.0)
    assert found == -20.0
    same = {"exposure_time": 5.0, "current_scale": 1.0}
    assert integrate_photodiode([0, 1, 2], [2, 4, 6], method="MEAN", **same) == 20.0
    assert np.isnan(integrate_photodiode([0, 1, 2], [2, 4, 6], method="MEAN"))


@pytest.mark.parametrize("method", ["DIRECT_SUM", "TRIMMED_SUM", "CHARGE_SUM", "MEAN"])
def test_missing_samples_are_skipped_and_too_few_are_nan(method):
    for samples in ([], [1.0], [np.nan, np.nan, 3.0]):
        times = np.arange(len(samples))
        assert np.isnan(integrate_photodiode(times, samples, method=method, exposure_time=1.0))
    holed = CURRENT.copy()
    holed[3] = np.nan
    full = integrate_photodiode(TIME, CURRENT, method=method, exposure_time=10.0)
    if method != "CHARGE_SUM":
        found = integrate_photodiode(TIME, holed, method=method, exposure_time=10.0)
        assert found == pytest.approx(full, rel=0.01)


def test_photodiode_misuse_is_named():
    with pytest.raises(ValueError, match="DIRECT_SUM, TRIMMED_SUM, CHARGE_SUM, MEAN, got 'SUM'"):
        integrate_photodiode([0, 1], [1, 1], method="SUM")
    with pytest.raises(ValueError, match=r"shape \(3,\), current has \(2,\)"):
        integrate_photodiode([0, 1, 2], [1, 1])
    with pytest.raises(ValueError, match="ascend"):
        integrate_photodiode([0, 2, 1], [1, 1, 1])


def test_the_charge_of_a_pair_is_the_mean_of_those_that_are_known():
    assert pair_photo_charge(2.0, 5.0) == (3.5, 3.0)
    mean, delta = pair_photo_charge(np.nan, 5.0)
    assert (mean, np.isnan(delta)) == (5.0, True)
    assert np.isnan(pair_photo_charge(np.nan, np.nan)).all()
