"""Coadds against stated values, plain numpy, and themselves in other orders and chunks."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray.backends import BackendArray
from xarray.core import indexing

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import (
    CoaddParameters,
    accumulate,
    coadd,
    finish_coadd,
    inputs,
    merge_accumulated,
    warp_weight,
    zero_point_scale,
)
from skyloom.algorithms.errors import DroppedInputWarning, GeometryError, NoUsableDataError
from skyloom.algorithms.statistics import stack

BIT = v.MASK_PLANES
SHAPE = (23, 31)


def warp_of(visit, values, variance=1.0, bits=0, shape=(1, 1), units="nJy", **coords) -> xr.Dataset:
    """Return one warp; numbers stand for all its pixels."""
    image = np.broadcast_to(np.asarray(values, np.float32), shape).copy()
    plane = np.broadcast_to(np.asarray(variance, np.float32), shape).copy()
    mask = np.broadcast_to(np.asarray(bits, np.int32), shape).copy()
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": units}),
            "variance": (("y", "x"), plane, {"units": f"{units}2"}),
            "mask": (("y", "x"), mask, v.mask_attributes()),
        },
        coords={"visit": visit, "band": "i"} | coords,
        attrs={"box": [0, shape[0], -3, shape[1] - 3]},
    )


def of_pixel(values, variance=1.0, bits=None, **options) -> xr.Dataset:
    """Return the coadd of a pixel of some warps; beside it is one that is never masked."""
    bits = np.zeros(len(values), int) if bits is None else bits
    spread = np.broadcast_to(variance, len(values))
    warps = [
        warp_of(visit, value, s, [[bit, 0]], (1, 2))
        for visit, (value, s, bit) in enumerate(zip(values, spread, bits, strict=True))
    ]
    options = {"weights": np.ones(len(values))} | options
    return coadd(warps, **options).isel(y=0, x=0)


@pytest.fixture(scope="module")
def warps() -> list[xr.Dataset]:
    """Return 7 noisy warps with outliers, of which some pixels are masked, NaN or without error."""
    rng = np.random.default_rng(5)
    made = []
    planes = np.array([0] * 12 + [BIT[name] for name in ("SAT", "EDGE", "CROSSTALK", "DETECTED")])
    for visit in range(7):
        spread = 4.0 + visit
        image = rng.normal(50.0, np.sqrt(spread), SHAPE)
        image[rng.random(SHAPE) < 0.02] += 400.0
        image[rng.random(SHAPE) < 0.03] = np.nan
        variance = spread * (1.0 + 0.1 * rng.random(SHAPE))
        variance[rng.random(SHAPE) < 0.02] = np.inf
        bits = rng.choice(planes, SHAPE)
        made.append(warp_of(100 + visit, image, variance, bits, SHAPE, mjd=6e4 + visit))
        made[-1]["image"].values[4, 5] = np.nan
    return made


def together(warps: list[xr.Dataset]) -> xr.Dataset:
    return xr.concat(warps, dim="visit", coords="different", compat="equals").assign_attrs(
        warps[0].attrs
    )


def assert_same(one: xr.Dataset, other: xr.Dataset, rtol: float = 0.0) -> None:
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        values, others = one[name].values, other[name].values
        if values.dtype.kind == "f" and rtol:
            np.testing.assert_allclose(values, others, rtol=rtol, err_msg=str(name))
        else:
            np.testing.assert_array_equal(values, others, err_msg=str(name))
    assert one.attrs == other.attrs


def test_two_values_give_the_stated_mean_and_variance():
    made = of_pixel([1.0, 3.0], [4.0, 1.0], weights=[1.0, 3.0])
    assert float(made["image"]) == pytest.approx(2.5, rel=1e-7)
    assert float(made["variance"]) == pytest.approx(0.8125, rel=1e-7)
    assert int(made["n_image"]) == 2
    assert float(made["weight_sum"]) == 4.0


@pytest.mark.parametrize(
    ("values", "mean", "planes"),
    [
        ([10, 11, 9, 10.5, 9.5, 50], 10.0, BIT["CLIPPED"] | BIT["INEXACT_PSF"]),
        ([1, 1, 1, 1, 5], 1.0, BIT["CLIPPED"] | BIT["INEXACT_PSF"]),
        ([7], 7.0, 0),
        ([2, 6], 4.0, 0),
    ],
)
def test_clipped_means_are_the_stated_ones(values, mean, planes):
    parameters = CoaddParameters(clip=3.0, iterations=2)
    made = of_pixel(values, statistic="clipped_mean", parameters=parameters)
    assert float(made["image"]) == pytest.approx(mean, abs=1e-6)
    assert int(made["n_image"]) == len(values)
    assert int(made["mask"]) == planes


def test_the_first_pass_is_as_wide_as_stated():
    # the first pass keeps 10.25 ± 2.780, so a value just inside stays and one just outside goes
    once = CoaddParameters(iterations=1)
    for last, kept in ((10.25 + 2.779, 6), (10.25 + 2.782, 5)):
        # both change the quartiles too little to move the bounds: they replace the outlier
        values = [10, 11, 9, 10.5, 9.5, last]
        lower, median, upper = np.percentile(values, [25, 50, 75])
        assert (median, lower, upper) == (10.25, 9.625, 10.875)
        made = of_pixel(values, statistic="clipped_mean", parameters=once)
        assert float(made["weight_sum"]) == kept


def test_a_clipped_coadd_is_the_stack_of_the_same_values(warps):
    weights = np.linspace(1.0, 2.0, 7)
    parameters = CoaddParameters(iterations=3, bad_planes=("SAT", "EDGE", "NO_DATA"))
    made = coadd(warps, statistic="clipped_mean", weights=weights, parameters=parameters)
    cube = together(warps)
    image = cube["image"].where(np.isfinite(cube["variance"]))
    peer = stack(
        image, cube["mask"], cube["variance"], weights, dim="visit", error="input",
        ignore=parameters.bad_planes,
    )  # fmt: skip
    np.testing.assert_array_equal(made["image"], peer["image"])
    some = peer["count"].values > 0
    np.testing.assert_allclose(
        made["variance"].values[some], peer["variance"].values[some], rtol=1e-6
    )
    np.testing.assert_array_equal(made["n_image"], peer["count"] + peer["rejected_count"])


def test_a_mean_coadd_is_that_of_plain_numpy(warps):
    made = coadd(warps)
    cube = together(warps)
    image, variance = cube["image"].values.astype(float), cube["variance"].values.astype(float)
    good = np.isfinite(image) & np.isfinite(variance)
    good &= (cube["mask"].values & (BIT["SAT"] | BIT["EDGE"])) == 0
    w = np.array([float(warp_weight(warp)["weight"]) for warp in warps])[:, None, None] * good
    with np.errstate(invalid="ignore"):
        mean = np.where(good, w * image, 0).sum(0) / w.sum(0)
        error = np.where(good, w**2 * variance, 0).sum(0) / w.sum(0) ** 2
    some = good.any(axis=0)
    np.testing.assert_allclose(made["image"].values[some], mean[some], rtol=1e-6)
    np.testing.assert_allclose(made["variance"].values[some], error[some], rtol=1e-6)
    np.testing.assert_array_equal(made["n_image"], good.sum(0))
    assert not some.all()
    assert np.isnan(made["image"].values[~some]).all()
    assert np.isposinf(made["variance"].values[~some]).all()
    assert ((made["mask"].values[~some] & BIT["NO_DATA"]) != 0).all()


def test_the_error_from_scatter_is_the_weighted_one():
    values, w = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    made = of_pixel(values, weights=w, parameters=CoaddParameters(error="scatter"))
    mean = (w * values).sum() / w.sum()
    spread = (w * (values - mean) ** 2).sum() / w.sum()
    spread *= w.sum() ** 2 / (w.sum() ** 2 - (w**2).sum())
    expected = spread * (w**2).sum() / w.sum() ** 2
    assert float(made["variance"]) == pytest.approx(expected, rel=1e-6)
    single = of_pixel([3.0], parameters=CoaddParameters(error="scatter"))
    assert np.isnan(single["variance"])


def test_a_weight_is_one_over_the_clipped_mean_variance():
    variance = np.full(SHAPE, 4.0)
    variance[3, 3:6] = 4000.0, np.inf, np.nan
    variance[2, 2] = -1.0
    found = warp_weight(warp_of(1, 0.0, variance, 0, SHAPE))
    assert float(found["weight"]) == pytest.approx(0.25, rel=1e-6)
    assert int(found["good_count"]) == SHAPE[0] * SHAPE[1] - 3
    assert found["weight"].attrs["units"] == "1/nJy2"
    masked = warp_of(1, 0.0, variance, np.where(variance == 4.0, 0, BIT["BAD"]), SHAPE)
    assert int(warp_weight(masked)["good_count"]) == SHAPE[0] * SHAPE[1] - 4


def test_weights_of_many_warps_are_those_of_each_eager_or_lazy(warps):
    cube = together(warps)
    each = [float(warp_weight(warp)["weight"]) for warp in warps]
    np.testing.assert_array_equal(warp_weight(cube)["weight"], each)
    lazy = warp_weight(cube.chunk(visit=2, y=9))
    assert lazy["weight"].chunks is not None
    np.testing.assert_array_equal(lazy["weight"], each)
    np.testing.assert_array_equal(lazy["status"], 0)


def test_saturation_of_one_warp_in_ten_is_not_told_and_of_two_is():
    for weight in (1.0, 0.37):
        weights = np.full(10, weight)
        one = of_pixel([1.0] * 10, bits=[BIT["SAT"]] + [0] * 9, weights=weights)
        two = of_pixel([1.0] * 10, bits=[BIT["SAT"]] * 2 + [0] * 8, weights=weights)
        assert int(one["mask"]) == BIT["REJECTED"] | BIT["INEXACT_PSF"]
        assert int(two["mask"]) == BIT["REJECTED"] | BIT["INEXACT_PSF"] | BIT["SAT"]


@pytest.mark.parametrize(
    ("plane", "bad", "told"),
    [
        ("EDGE", True, ("SENSOR_EDGE", "INEXACT_PSF")),
        # the reference tells an edge that was used only where another warp is masked
        ("EDGE", False, ("EDGE", "SENSOR_EDGE", "INEXACT_PSF")),
        ("CLIPPED", True, ("CLIPPED", "INEXACT_PSF")),
        ("BAD", True, ("REJECTED", "INEXACT_PSF")),
        ("NO_DATA", True, ()),
        ("DETECTED", False, ("DETECTED",)),
    ],
)
def test_planes_of_a_warp_are_told(plane, bad, told):
    parameters = CoaddParameters(bad_planes=(plane,) if bad else ("NO_DATA",))
    made = of_pixel([1.0, 2.0], bits=[0, BIT[plane]], parameters=parameters)
    assert int(made["mask"]) == v.plane_bits(told)
    assert int(made["n_image"]) == (1 if bad else 2)


def test_dropped_planes_are_forgotten():
    parameters = CoaddParameters(dropped_planes=("EDGE",))
    made = of_pixel([1.0, 2.0], bits=[0, BIT["EDGE"]], parameters=parameters)
    assert (int(made["mask"]), int(made["n_image"])) == (0, 2)


def test_masks_with_another_legend_are_read_by_it(warps):
    legend = {"flag_masks": [1, 4], "flag_meanings": "SAT HOT"}
    one = warp_of(1, 5.0, bits=[[1, 0]], shape=(1, 2))
    one["mask"].attrs = legend
    made = coadd([one, warp_of(2, 7.0, shape=(1, 2))], weights=[1, 1])
    assert float(made["image"][0, 0]) == 7.0
    assert int(made["mask"][0, 0]) == v.plane_bits(["SAT", "REJECTED", "INEXACT_PSF"])


@pytest.mark.parametrize("statistic", ["mean", "clipped_mean"])
def test_any_order_and_any_container_give_the_same_bits(warps, statistic):
    expected = coadd(warps, statistic=statistic)
    assert_same(coadd(warps[::-1], statistic=statistic), expected)
    cube = together(warps)
    assert_same(coadd(cube, statistic=statistic), expected)
    assert_same(coadd(cube.isel(visit=[3, 1, 0, 2, 6, 5, 4]), statistic=statistic), expected)
    assert_same(coadd(cube.chunk(visit=2, y=7, x=11), statistic=statistic), expected)
    assert_same(coadd([warp.chunk(y=5) for warp in warps], statistic=statistic), expected)


@settings(max_examples=5, deadline=None)
@given(st.integers(6, 23), st.integers(8, 31), st.integers(1, 7))
def test_any_chunks_give_the_same_bits(warps, height, width, number):
    cube = together(warps)
    assert_same(coadd(cube.chunk(visit=number, y=height, x=width)), coadd(cube))


class Recorded(BackendArray):
    """An array that is read as it is indexed, and remembers how much at a time."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.read: list[int] = []

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._get
        )

    def _get(self, key: tuple) -> np.ndarray:
        part = self.values[key]
        self.read.append(part.size)
        return part


@pytest.mark.parametrize("rows", [6, 12])
@pytest.mark.parametrize("statistic", ["mean", "clipped_mean"])
def test_stored_warps_are_read_tile_by_tile_and_once_if_weights_are_given(
    warps, statistic, rows, monkeypatch
):
    # as many stored parts at a time as there is room for
    room = rows * 31 * inputs.PIXEL_BYTES * len(warps)
    monkeypatch.setattr(inputs, "TILE_BYTES", room)
    arrays, stored = [], []
    for warp in warps:
        variables = {}
        for name in ("image", "variance", "mask"):
            array = Recorded(warp[name].values)
            arrays.append(array)
            lazy = indexing.LazilyIndexedArray(array)
            encoding = {"preferred_chunks": {"y": 6, "x": 31}}
            variables[name] = xr.Variable(("y", "x"), lazy, warp[name].attrs, encoding)
        stored.append(xr.Dataset(variables, coords=warp.coords, attrs=warp.attrs))
    weights = np.arange(1.0, 8.0)
    assert_same(
        coadd(stored, statistic=statistic, weights=weights),
        coadd(warps, statistic=statistic, weights=weights),
    )
    for array in arrays:
        assert max(array.read) == rows * 31
        assert sum(array.read) == array.values.size
    assert_same(coadd(stored, statistic=statistic), coadd(warps, statistic=statistic))
    assert_same(accumulate(stored), accumulate(warps))


def test_weights_follow_their_visits_in_any_order(warps):
    weights = np.arange(1.0, 8.0)
    expected = coadd(warps, weights=weights)
    assert_same(coadd(warps[::-1], weights=weights[::-1]), expected)
    labelled = xr.DataArray(weights, dims="visit", coords={"visit": np.arange(100, 107)})
    assert_same(coadd(warps[::-1], weights=labelled), expected)


def test_inputs_stay_as_they_are(warps):
    before = copy.deepcopy(warps)
    coadd(warps, statistic="clipped_mean")
    total = accumulate(warps)
    kept = total.copy(deep=True)
    finish_coadd(total)
    merge_accumulated(total, accumulate([warp_of(9, 1.0, shape=SHAPE)]))
    assert total.identical(kept)
    for warp, old in zip(warps, before, strict=True):
        assert warp.identical(old)
        assert warp["mask"].attrs == old["mask"].attrs


@pytest.mark.parametrize("error", ["input", "scatter"])
def test_warps_added_one_by_one_give_the_coadd_of_all(warps, error):
    parameters = CoaddParameters(error=error)
    expected = coadd(warps, parameters=parameters)
    total = accumulate(iter(warps), parameters=parameters)
    assert_same(finish_coadd(total), expected, rtol=1e-6)
    parts = [accumulate(warps[i : i + 2], parameters=parameters) for i in (4, 0, 6, 2)]
    left = merge_accumulated(merge_accumulated(parts[0], parts[1]), merge_accumulated(*parts[2:]))
    assert_same(finish_coadd(left), expected, rtol=1e-6)
    assert_same(finish_coadd(left), finish_coadd(left))  # finishing changes nothing


def test_lazy_warps_add_up_to_the_same(warps):
    assert_same(accumulate([warp.chunk(y=6, x=8) for warp in warps]), accumulate(warps))


def test_unmasked_nan_does_not_spread_when_warps_are_added_up():
    warps = [warp_of(1, np.nan), warp_of(2, 3.0)]
    with pytest.warns(DroppedInputWarning, match="NO_DATA"):
        whole = coadd(warps)
    finished = finish_coadd(accumulate(warps))
    assert float(finished["image"][0, 0]) == float(whole["image"][0, 0]) == 3.0
    assert finished["input_status"].values.tolist() == [v.InputStatus.NO_DATA, v.InputStatus.OK]


def test_accumulated_sums_made_in_different_ways_do_not_merge(warps):
    total = accumulate(warps[:2])
    with pytest.raises(ValueError, match="parameters"):
        merge_accumulated(
            total, accumulate(warps[2:3], parameters=CoaddParameters(bad_planes=("BAD",)))
        )
    with pytest.raises(ValueError, match="twice: 101"):
        merge_accumulated(total, accumulate(warps[1:2]))
    with pytest.raises(ValueError, match="several bands"):
        merge_accumulated(total, accumulate([warps[3].assign_coords(band="r")]))
    with pytest.raises(ValueError, match="units"):
        merge_accumulated(total, accumulate([warp_of(1, 1.0, shape=SHAPE, units="adu")]))
    with pytest.raises(GeometryError, match="shape"):
        merge_accumulated(total, accumulate([warp_of(1, 1.0, shape=(2, 2))]))
    with pytest.raises(GeometryError, match="box"):
        accumulate([warps[0], warps[1].assign_attrs(box=[0, 23, 0, 31])])
    with pytest.raises(ValueError, match="clipped_mean"):
        accumulate(warps, parameters=CoaddParameters(statistic="clipped_mean"))
    with pytest.raises(NoUsableDataError, match="no inputs"):
        accumulate([])


def test_zero_points_bring_warps_to_nanojanskys():
    assert zero_point_scale(31.4) == 1.0
    assert zero_point_scale(26.4) == pytest.approx(100.0, rel=1e-12)
    warps = [warp_of(1, 2.0, 1.0, units="adu"), warp_of(2, 20.0, 100.0, units="adu")]
    made = coadd(warps, zero_points=[28.9, 31.4])
    assert made["image"].attrs["units"] == "nJy"
    assert made["variance"].attrs["units"] == "nJy2"
    assert float(made["image"][0, 0]) == pytest.approx(20.0, rel=1e-6)
    assert float(made["variance"][0, 0]) == pytest.approx(50.0, rel=1e-6)
    added = finish_coadd(accumulate(warps, zero_points=[28.9, 31.4]))
    assert_same(added, made, rtol=1e-6)
    with pytest.raises(ValueError, match="finite"):
        coadd(warps, zero_points=[np.nan, 31.4])


def test_warps_that_cannot_be_used_are_left_out_and_named(warps):
    useless = [
        warp_of(1, np.nan, shape=SHAPE),
        warp_of(2, 5.0, 0.0, shape=SHAPE),
        warp_of(3, 5.0, np.inf, shape=SHAPE),
        warp_of(4, 5.0, np.nan, shape=SHAPE),
        warp_of(5, 5.0, bits=BIT["NO_DATA"], shape=SHAPE),
    ]
    with pytest.warns(DroppedInputWarning, match="1: NO_DATA, 2: BAD_VARIANCE") as told:
        made = coadd(useless + warps)
    assert len(told) == 1
    codes = v.InputStatus
    status = [codes.NO_DATA, *[codes.BAD_VARIANCE] * 3, codes.NO_DATA, *[codes.OK] * 7]
    assert made["input_status"].values.tolist() == status
    assert (made["input_weight"].values[:5] == 0).all()
    expected = coadd(warps)
    for name in ("image", "variance", "mask", "n_image"):
        np.testing.assert_array_equal(made[name], expected[name])
    with pytest.raises(NoUsableDataError, match="visit 1: NO_DATA, 2: BAD_VARIANCE"):
        coadd(useless)
    with pytest.raises(NoUsableDataError, match="visit 1: NO_DATA"):
        finish_coadd(accumulate(useless))
    with pytest.raises(NoUsableDataError, match="no inputs"):
        coadd([])


def test_given_weights_are_trusted_and_warps_without_values_told(warps):
    weights = np.ones(8)
    empty = warp_of(1, 5.0, bits=BIT["NO_DATA"], shape=SHAPE)
    with pytest.warns(DroppedInputWarning, match="visit 1: NO_DATA"):
        made = coadd([empty, *warps], weights=weights)
    expected = coadd(warps, weights=weights[1:])
    np.testing.assert_array_equal(made["image"], expected["image"])
    assert made["input_weight"].values.tolist() == [0.0] + [1.0] * 7
    assert np.isnan(made["input_mean_variance"].values).all()
    good = np.isfinite(warps[0]["image"].values) & np.isfinite(warps[0]["variance"].values)
    good &= (warps[0]["mask"].values & v.plane_bits(["SAT", "EDGE"])) == 0
    assert made["input_good_count"].values[:2].tolist() == [0, good.sum()]
    assert_same(finish_coadd(accumulate([empty, *warps], weights=weights)), made, rtol=1e-6)
    assert_same(finish_coadd(accumulate(warps, weights=weights[1:])), expected, rtol=1e-6)
    with pytest.raises(NoUsableDataError, match="visit 1: NO_DATA"):
        coadd([empty], weights=[1.0])


def test_a_weight_of_zero_leaves_a_warp_out(warps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = coadd(warps, weights=[0, 1, 1, 1, 1, 1, 1])
    assert made["input_status"].values[0] == v.InputStatus.NO_WEIGHT
    np.testing.assert_array_equal(made["image"], coadd(warps[1:], weights=np.ones(6))["image"])


def test_a_variance_of_exactly_zero_is_no_data():
    made = coadd([warp_of(i, [[5.0, 6.0]], [[0.0, 1.0]], shape=(1, 2)) for i in (1, 2)])
    assert np.isnan(made["image"].values[0, 0])
    assert np.isposinf(made["variance"].values[0, 0])
    assert made["mask"].values.tolist() == [[BIT["NO_DATA"], 0]]


def test_what_is_known_of_the_warps_stays_with_the_coadd(warps):
    made = coadd(warps)
    assert made.attrs == {"box": [0, 23, -3, 28], "band": "i"}
    assert made["visit"].values.tolist() == list(range(100, 107))
    assert made["mjd"].dims == ("visit",)
    assert made["band"].item() == "i"
    assert made["n_image"].dtype == np.int16
    assert made["image"].dtype == made["variance"].dtype == np.float32
    assert made["mask"].attrs == v.mask_attributes()


def test_warps_that_do_not_belong_together_are_refused(warps):
    one, two = warps[:2]
    with pytest.raises(ValueError, match=r"several bands: \['i', 'r'\]"):
        coadd([one, two.assign_coords(band="r")])
    with pytest.raises(ValueError, match="visits occur twice: 100"):
        coadd([one, two.assign_coords(visit=100)])
    with pytest.raises(ValueError, match=r"one unit, got \['adu', 'nJy'\]"):
        coadd([one, two.assign(image=two["image"].assign_attrs(units="adu"))])
    with pytest.raises(ValueError, match="coordinate visit"):
        coadd([one, two.drop_vars("visit")])
    with pytest.raises(ValueError, match="dimension visit"):
        coadd(one)
    with pytest.raises(GeometryError, match="one shape"):
        coadd([one, two.isel(y=slice(0, 5))])
    with pytest.raises(GeometryError, match="one box"):
        coadd([one, two.assign_attrs(box=[1, 24, -3, 28])])
    with pytest.raises(KeyError, match="variance"):
        coadd([one, two.drop_vars("variance")])
    with pytest.raises(KeyError, match="no variable 'variance'"):
        warp_weight(one.drop_vars("variance"))
    with pytest.raises(TypeError, match="bit planes"):
        coadd([one, two.assign(mask=two["mask"].astype(float))])
    with pytest.raises(GeometryError, match="weights have shape"):
        coadd(warps, weights=[1.0])
    with pytest.raises(ValueError, match="weights must be finite"):
        coadd(warps, weights=[-1.0] * 7)


def test_an_unknown_plane_is_an_error_not_a_rejection_that_never_happens(warps):
    with pytest.raises(KeyError, match="unknown mask plane 'SATURATED'"):
        coadd(warps, parameters=CoaddParameters(bad_planes=("SATURATED",)))
    with pytest.raises(KeyError, match="unknown mask plane"):
        coadd(warps, parameters=CoaddParameters(propagated={"SATURATED": 0.1}))
    with pytest.raises(ValueError, match="statistic"):
        coadd(warps, statistic="median")
