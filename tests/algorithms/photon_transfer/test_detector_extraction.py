"""All amplifiers of a detector from raw frames: regions, edges, noise sources, what is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend import DetrendParameters, detrend_amplifier
from skyloom.algorithms.photon_transfer.extraction import (
    extract_dark_pair,
    extract_detector,
    extract_pair,
)
from skyloom.algorithms.photon_transfer.offsets import dark_offset
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.simulate.amplifiers import amplifier_grid
from skyloom.algorithms.vocabulary import PairStatus, ReadNoiseSource

SHAPE = (120, 100)
OVERSCAN = 16
LEVELS = np.array([[3000.0, 4000.0], [5000.0, 6000.0]])
GAIN, READ_NOISE = 1.5, 5.0
FEW = ExtractParameters(lags=4, min_pixels=1000)


@pytest.fixture
def amplifiers():
    return amplifier_grid("R0", (2, 2), SHAPE, overscan=OVERSCAN, gain=GAIN, read_noise=7.5)


def raw(seed, *, exposure=0, level=1.0, bias=1000.0, **coords):
    """Return a raw frame of 2 x 2 amplifiers whose rows drift."""
    rng = np.random.default_rng(seed)
    width = SHAPE[1] + OVERSCAN
    image = np.zeros((2 * SHAPE[0], 2 * width))
    for row in range(2):
        for column in range(2):
            place = (
                slice(row * SHAPE[0], (row + 1) * SHAPE[0]),
                slice(column * width, column * width + SHAPE[1]),
            )
            electrons = level * LEVELS[row, column] * GAIN
            image[place] = rng.poisson(electrons, SHAPE) / GAIN
    image += rng.normal(bias, READ_NOISE, image.shape)
    image += np.linspace(0.0, 40.0, image.shape[0])[:, None]
    scalars = {
        "exposure": exposure,
        "exposure_time": 2.0,
        "mjd_start": 60000.0 + exposure,
        "observation_type": "flat",
        "detector": "R0",
    }
    return xr.Dataset(
        {"image": (("y", "x"), image.round().astype(np.uint16), {"units": "adu"})},
        coords=scalars | coords,
    )


@pytest.fixture
def flats():
    return raw(1, exposure=7), raw(2, exposure=9)


def test_levels_gains_and_noise_are_those_put_in(flats, amplifiers):
    pair = extract_detector(*flats, amplifiers, parameters=FEW)
    assert pair["pair_status"].values.tolist() == [PairStatus.OK] * 4
    np.testing.assert_allclose(pair["mean"], LEVELS.ravel(), atol=4.0)
    off = (pair["pair_gain"] - GAIN) / pair["pair_gain_sigma"]
    assert float(abs(off).max()) < 4.0
    # rounding to integers adds 1/12 adu² to the variance
    np.testing.assert_allclose(pair["read_noise"], np.hypot(READ_NOISE, 12**-0.5), rtol=0.06)
    assert (pair["read_noise_source"] == ReadNoiseSource.OVERSCAN).all()
    np.testing.assert_allclose(pair["overscan_median"], [1010.0, 1010.0, 1030.0, 1030.0], atol=2.0)


def test_the_block_has_the_names_units_and_dtypes_of_the_product(flats, amplifiers):
    pair = extract_detector(*flats, amplifiers, parameters=FEW)
    assert pair["covariance"].dims == ("amp", "lag_y", "lag_x")
    assert pair["mean"].dims == ("amp",)
    assert pair["covariance_count"].dtype == np.int64
    assert pair["pair_status"].dtype == np.uint8
    assert "MEAN_MISMATCH" in pair["pair_status"].attrs["flag_meanings"]
    assert pair["covariance"].dtype == np.float64
    units = {name: pair[name].attrs["units"] for name in pair.data_vars}
    assert units["covariance"] == units["variance"] == units["row_mean_variance"] == "adu2"
    assert units["pair_gain"] == "electron/adu"
    assert units["mean"] == units["read_noise"] == "adu"
    assert units["exposure_time"] == "s"
    assert units["mjd_start"] == "d"
    assert pair["amp"].values.tolist() == amplifiers["amp"].values.tolist()


def test_scalars_of_the_pair_are_recorded(flats, amplifiers):
    one = flats[0].assign_coords(exposure_time=2.0, photodiode_charge=5.0, airmass=1.3)
    two = flats[1].assign_coords(exposure_time=2.2, photodiode_charge=6.0, mjd_start=np.nan)
    parameters = FEW.model_copy(update={"auxiliary_keys": ("airmass", "seeing", "detector")})
    pair = extract_detector(one, two, amplifiers, parameters=parameters, pair_key=0.25)
    assert int(pair["exposure_1"]) == 7
    assert int(pair["exposure_2"]) == 9
    assert pair["exposure_1"].dtype == np.int64
    assert float(pair["exposure_time"]) == pytest.approx(2.1)
    assert float(pair["pair_key"]) == 0.25
    assert float(pair["mjd_start"]) == 60007.0
    assert float(pair["photo_charge"]) == 5.5
    assert float(pair["photo_charge_delta"]) == 1.0
    assert float(pair["aux_airmass"]) == 1.3
    assert np.isnan(pair["aux_seeing"])
    assert np.isnan(pair["aux_detector"])


def test_the_earlier_date_does_not_depend_on_the_order(flats, amplifiers):
    one, two = flats[0].assign_coords(mjd_start=np.nan), flats[1]
    for pair in ((one, two), (two, one)):
        found = extract_detector(*pair, amplifiers, parameters=FEW)
        assert float(found["mjd_start"]) == 60009.0


def test_without_dates_and_times_there_is_nan_and_no_error(flats, amplifiers):
    bare = [flat.drop_vars(["mjd_start", "exposure_time", "exposure"]) for flat in flats]
    pair = extract_detector(*bare, amplifiers, parameters=FEW)
    assert np.isnan(pair["mjd_start"])
    assert np.isnan(pair["exposure_time"])
    assert int(pair["exposure_1"]) == -1


def test_one_amplifier_detrended_first_gives_the_same(flats, amplifiers):
    pair = extract_detector(*flats, amplifiers, parameters=FEW)
    for index in range(4):
        row = amplifiers.isel(amp=index)
        signals = [detrend_amplifier(flat, row) for flat in flats]
        one = extract_pair(*signals, parameters=FEW)
        same = pair.isel(amp=index).drop_vars("amp")
        for name in same.data_vars:
            np.testing.assert_allclose(one[name], same[name], rtol=1e-12, err_msg=name)


def test_every_amplifier_gets_the_numbers_of_the_whole_detector(flats, amplifiers):
    parameters = FEW.model_copy(update={"region": "DETECTOR", "gaussian_test": "none"})
    pair = extract_detector(*flats, amplifiers, parameters=parameters)
    names = [name for name in pair.data_vars if "amp" in pair[name].dims]
    for name in set(names) - {"overscan_median", "read_noise", "pair_gain", "pair_gain_sigma"}:
        values = pair[name].values
        assert (values == values[:1]).all() or np.isnan(values).all(), name
    assert int(pair["count"][0]) == pytest.approx(4 * SHAPE[0] * SHAPE[1], abs=5)
    np.testing.assert_allclose(pair["mean"], LEVELS.mean(), rtol=2e-3)
    np.testing.assert_allclose(pair["variance"], (LEVELS / GAIN + READ_NOISE**2).mean(), rtol=0.02)


def test_amplifiers_are_put_where_they_lie_and_turned(flats, amplifiers):
    # amplifiers of equal statistics: only pairs of pixels across their border can tell
    table = amplifiers.copy(deep=True)
    table["flip_x"][:] = True
    parameters = FEW.model_copy(update={"region": "DETECTOR", "gaussian_test": "none"})
    turned = extract_detector(*flats, table, parameters=parameters)
    straight = extract_detector(*flats, amplifiers, parameters=parameters)
    assert float(turned["variance"][0]) == pytest.approx(float(straight["variance"][0]), rel=1e-9)
    assert not np.array_equal(turned["covariance"], straight["covariance"])
    assert (turned["covariance_count"] == straight["covariance_count"]).all()


@pytest.mark.parametrize("region", ["AMP", "DETECTOR"])
def test_edges_are_left_out_of_amplifiers_or_of_the_detector(flats, amplifiers, region):
    options = {"region": region, "edge": 10, "gaussian_test": "none"}
    amp_edges = FEW.model_copy(update=options | {"edge_level": "AMP"})
    detector_edges = FEW.model_copy(update=options | {"edge_level": "DETECTOR"})
    by_amp = extract_detector(*flats, amplifiers, parameters=amp_edges)
    by_detector = extract_detector(*flats, amplifiers, parameters=detector_edges)
    inner, corner = (SHAPE[0] - 20) * (SHAPE[1] - 20), (SHAPE[0] - 10) * (SHAPE[1] - 10)
    if region == "AMP":
        assert by_amp["count"].values == pytest.approx([inner] * 4, abs=2)
        assert by_detector["count"].values == pytest.approx([corner] * 4, abs=2)
    else:
        assert int(by_amp["count"][0]) == pytest.approx(4 * inner, abs=4)
        assert int(by_detector["count"][0]) == pytest.approx(4 * corner, abs=4)


def test_vignetting_keeps_the_even_part_and_warns_when_it_has_to_give_way(flats, amplifiers):
    transform = [[1e-5, 0.0, 0.0], [0.0, 1e-5, 0.0]]
    options = {"vignetting": (-1e4, 0.0, 1.0), "vignetting_min_pixels": 1000, "min_pixels": 500}
    parameters = FEW.model_copy(update=options)
    with pytest.raises(ValueError, match="focal_plane"):
        extract_detector(*flats, amplifiers, parameters=parameters)
    pair = extract_detector(*flats, amplifiers, parameters=parameters, focal_plane=transform)
    # throughput 0.98 at a radius of 141 pixels from the first corner
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    kept = np.sum(rows**2 + columns**2 < 0.02 / 1e4 / 1e-10)
    assert int(pair["count"][0]) == pytest.approx(kept, abs=150)
    assert int(pair["count"][3]) < SHAPE[0] * SHAPE[1]
    greedy = parameters.model_copy(update={"vignetting_min_pixels": 11_900})
    with pytest.warns(UserWarning, match="11900 pixels needed vignetting of up to") as caught:
        wide = extract_detector(*flats, amplifiers, parameters=greedy, focal_plane=transform)
    assert len(caught) == 1
    assert (wide["count"] >= 11_850).all()


def test_a_saturation_level_or_a_pile_up_of_pixels_is_left_out(flats, amplifiers):
    one, two = (flat.copy(deep=True) for flat in flats)
    one["image"].values[:10, :20] = 4095 + 40_000
    piled = extract_detector(one, two, amplifiers, parameters=FEW)
    table = amplifiers.copy(deep=True)
    table["saturation"][:] = 40_000.0
    known = extract_detector(one, two, table, parameters=FEW)
    for pair in (piled, known):
        assert int(pair["count"][0]) == pytest.approx(SHAPE[0] * SHAPE[1] - 200, abs=2)
        assert float(pair["saturated_fraction"][0]) == 100 / (SHAPE[0] * SHAPE[1])
        assert (pair["saturated_fraction"][1:] == 0.0).all()


def test_read_noise_comes_from_the_best_source_that_knows_it(flats, amplifiers):
    names = amplifiers["amp"].values
    nan = np.nan
    headers = [
        flat.assign_coords(amp=names, header_read_noise=("amp", values))
        for flat, values in zip(flats, ([4.0, nan, nan, nan], [6.0, 4.5, nan, nan]), strict=True)
    ]
    dark = xr.Dataset({"read_noise": ("amp", [9.0, 9.0, 5.5, nan])}, coords={"amp": names})
    none = DetrendParameters(serial="none")
    pair = extract_detector(*headers, amplifiers, parameters=FEW, offsets=dark)
    source = ReadNoiseSource
    codes = [source.HEADER, source.HEADER, source.DARK_PAIRS, source.OVERSCAN]
    assert pair["read_noise_source"].values.tolist() == codes
    assert pair["read_noise"].values[:3].tolist() == [5.0, 4.5, 5.5]
    # the nominal read noise is in electron
    bare = extract_detector(*headers, amplifiers, parameters=FEW, offsets=dark, detrend=none)
    assert int(bare["read_noise_source"][3]) == source.CAMERA
    assert float(bare["read_noise"][3]) == pytest.approx(7.5 / GAIN)
    given = extract_detector(*headers, amplifiers, parameters=FEW, header_read_noise=[3.0] * 4)
    assert (given["read_noise"] == 3.0).all()


def test_offsets_are_found_by_name_and_subtracted(flats, amplifiers):
    names = amplifiers["amp"].values[::-1]
    offsets = xr.Dataset({"offset": ("amp", [4.0, 3.0, 2.0, np.nan])}, coords={"amp": names})
    plain = extract_detector(*flats, amplifiers, parameters=FEW)
    pair = extract_detector(*flats, amplifiers, parameters=FEW, offsets=offsets)
    expected = np.array([0.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(plain["mean"] - pair["mean"], expected, atol=1e-3)
    assert pair["amp_offset"].values.tolist() == expected.tolist()


def test_darks_give_offset_and_noise_where_there_is_no_overscan(amplifiers):
    none = DetrendParameters(serial="none")
    darks = [raw(seed, exposure=seed, level=0.0) for seed in (3, 4)]
    dark = extract_dark_pair(*darks, amplifiers, parameters=FEW, detrend=none)
    assert set(dark.dims) == {"amp"}
    assert (dark["pair_status"] == PairStatus.OK).all()
    np.testing.assert_allclose(dark["variance"], READ_NOISE**2 + 1 / 12, rtol=0.06)
    np.testing.assert_allclose(dark["mean"], [1010.0, 1010.0, 1030.0, 1030.0], atol=0.5)
    flats = raw(1), raw(2)
    offsets = dark_offset(dark.expand_dims("pair"), 2.0)
    parameters = FEW.model_copy(update={"gaussian_test": "none"})
    pair = extract_detector(
        *flats, amplifiers, parameters=parameters, detrend=none, offsets=offsets
    )
    np.testing.assert_allclose(pair["mean"], LEVELS.ravel(), atol=4.0)
    assert (pair["read_noise_source"] == ReadNoiseSource.DARK_PAIRS).all()


def test_darks_may_lie_below_their_overscan(amplifiers):
    darks = [raw(seed, level=0.0) for seed in (3, 4)]
    dark = extract_dark_pair(*darks, amplifiers, parameters=FEW)
    assert (abs(dark["mean"]) < 1.0).all()
    assert (dark["pair_status"] == PairStatus.OK).all()


def test_big_endian_and_float_frames_give_the_same(flats, amplifiers):
    expected = extract_detector(*flats, amplifiers, parameters=FEW)
    for dtype in (">u2", "<i4", ">i4", "<f4", ">f8"):
        converted = [
            flat.assign(image=(("y", "x"), flat["image"].values.astype(dtype), {"units": "adu"}))
            for flat in flats
        ]
        xr.testing.assert_identical(
            extract_detector(*converted, amplifiers, parameters=FEW), expected
        )


def test_axes_are_found_by_name(flats, amplifiers):
    turned = [flat.transpose("x", "y") for flat in flats]
    xr.testing.assert_identical(
        extract_detector(*turned, amplifiers, parameters=FEW),
        extract_detector(*flats, amplifiers, parameters=FEW),
    )
