"""Stacks: clipped, weighted and plain means and medians of every pixel over many images."""

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

from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.statistics import clipped_statistics, stack
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

SAT, CLIPPED, NO_DATA = (MASK_PLANES[name] for name in ("SAT", "CLIPPED", "NO_DATA"))
ONE_INPUT, CROSSTALK = MASK_PLANES["ONE_INPUT"], MASK_PLANES["CROSSTALK"]


def images_of(values, **attributes) -> xr.DataArray:
    values = np.asarray(values)
    dims = ("exposure", "y", "x") if values.ndim == 3 else ("exposure", "x")
    labels = [f"e{i}" for i in range(values.shape[0])]
    attrs = {"units": "adu"} | attributes
    return xr.DataArray(values, dims=dims, attrs=attrs, coords={"exposure": labels})


def masks_of(bits, dims=("exposure", "x")) -> xr.DataArray:
    return xr.DataArray(np.asarray(bits, np.int32), dims=dims, attrs=mask_attributes())


def of_one_pixel(values, bits=None, **options) -> dict[str, float]:
    """Return the stack of the values of a single pixel as numbers."""
    images = images_of(np.asarray(values, np.float64)[:, None])
    masks = None if bits is None else masks_of(np.asarray(bits)[:, None])
    return {str(name): float(array[0]) for name, array in stack(images, masks, **options).items()}


@pytest.fixture(scope="module")
def noisy() -> xr.Dataset:
    """Return 9 noisy images with outliers, of which 8 per cent of the pixels are masked or NaN."""
    rng = np.random.default_rng(3)
    values = rng.normal(1000.0, 30.0, (9, 40, 50)).astype(np.float32)
    values[rng.random(values.shape) < 0.03] += 5000.0
    values[rng.random(values.shape) < 0.02] = np.nan
    bits = np.where(rng.random(values.shape) < 0.06, SAT, 0) | np.where(
        rng.random(values.shape) < 0.1, CROSSTALK, 0
    )
    values[:, 3, 4] = np.nan
    bits[:-1, 5, 6] = SAT
    variance = (20.0**2 + 30.0 * rng.random(values.shape)).astype(np.float32)
    variance[0, :2] = np.nan
    variance[1, :2] = 0.0
    dims = ("exposure", "y", "x")
    return xr.Dataset(
        {
            "image": images_of(values),
            "mask": masks_of(bits, dims),
            "variance": (dims, variance, {"units": "adu2"}),
        }
    )


def plain(values, good, weights=None, clip=3.0, iterations=3):
    """Return mean, variance and used values of a stack in plain numpy, with NaN for not used."""
    weights = np.ones(values.shape) if weights is None else weights
    good = good & np.isfinite(values) & (weights > 0) & np.isfinite(weights)
    values = np.where(good, values, np.nan).astype(np.float64)
    weights = np.where(good, weights, 0.0)
    lower, center, upper = np.nanpercentile(values, [25, 50, 75], axis=0)
    half_width = clip * 0.741301109252802 * (upper - lower)
    for _ in range(iterations):
        used = np.abs(values - center) <= half_width
        w = np.where(used, weights, 0.0)
        total, squares = w.sum(0), (w**2).sum(0)
        mean = np.where(used, w * values, 0.0).sum(0) / total
        second = np.where(used, w * (values - mean) ** 2, 0.0).sum(0) / total
        variance = second * total**2 / (total**2 - squares)
        center = mean
        half_width = np.where(good.sum(0) == 1, half_width, clip * np.sqrt(variance))
    return mean, variance * squares / total**2, used


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the oracle, where nothing is valid
        yield


@pytest.mark.parametrize(("clip", "iterations"), [(3.0, 3), (2.0, 1), (1.5, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_stacks_are_those_of_plain_numpy(noisy, quiet, clip, iterations, weighted):
    weights = np.linspace(0.5, 2.0, 9) if weighted else None
    found = stack(noisy["image"], noisy["mask"], None, weights, clip=clip, iterations=iterations)
    good = (noisy["mask"].values & SAT) == 0
    shape = noisy["image"].shape
    each = None if weights is None else np.broadcast_to(weights[:, None, None], shape)
    mean, variance, used = plain(noisy["image"].values, good, each, clip, iterations)
    count = used.sum(0)
    np.testing.assert_array_equal(found["count"], count)
    valid = (good & np.isfinite(noisy["image"].values)).sum(0)
    np.testing.assert_array_equal(found["rejected_count"], valid - count)
    np.testing.assert_allclose(found["image"], mean, rtol=2e-7)
    several = count > 1
    np.testing.assert_allclose(found["variance"].values[several], variance[several], rtol=2e-7)
    assert np.isnan(found["variance"].values[~several]).all()
    planes = np.bitwise_or.reduce(np.where(used, noisy["mask"].values, 0), axis=0)
    planes |= np.where(valid > count, CLIPPED, 0) | np.where(count == 1, ONE_INPUT, 0)
    np.testing.assert_array_equal(found["mask"], np.where(count == 0, NO_DATA, planes))


def test_weights_from_variances_leave_out_those_that_are_not_positive(noisy, quiet):
    found = stack(noisy, weights="inverse_variance", error="input")
    variance = noisy["variance"].values.astype(float)
    with np.errstate(divide="ignore"):
        weights = np.where(variance > 0, 1.0 / variance, 0.0)
    good = (noisy["mask"].values & SAT) == 0
    mean, _, used = plain(noisy["image"].values, good, weights)
    np.testing.assert_array_equal(found["count"], used.sum(0))
    np.testing.assert_allclose(found["image"], mean, rtol=2e-7)
    expected = 1.0 / np.where(used, weights, 0.0).sum(0)
    some = used.any(0)
    np.testing.assert_allclose(found["variance"].values[some], expected[some], rtol=3e-7)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 19, 33])
def test_every_pixel_has_the_clipped_statistics_of_its_values(size):
    rng = np.random.default_rng(size)
    values = rng.standard_t(2, (size, 60))
    values[rng.random(values.shape) < 0.1] = np.nan
    found = stack(images_of(values))
    expected = clipped_statistics(images_of(values), dim="exposure")
    np.testing.assert_allclose(found["image"], expected["mean"], rtol=1e-12)
    np.testing.assert_allclose(found["variance"], expected["mean_variance"], rtol=1e-10)
    np.testing.assert_array_equal(found["count"], expected["count_used"])
    np.testing.assert_array_equal(
        found["rejected_count"], expected["count"] - expected["count_used"]
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.nan, np.inf, -np.inf], {"image": np.nan, "variance": np.nan, "mask": NO_DATA}),
        ([4.0], {"image": 4.0, "variance": np.nan, "count": 1, "mask": ONE_INPUT}),
        ([1.0, 2.0], {"image": 1.5, "variance": 0.25, "count": 2, "mask": 0}),
        ([1.0, 2.0, 100.0], {"image": 34.333333333333336, "count": 3}),
        ([7, 7, 7, 7, 9], {"image": 7.0, "variance": 0.0, "count": 4, "mask": CLIPPED}),
        (np.arange(10), {"image": 4.5, "count": 10, "rejected_count": 0}),
        ([0.1, 0.1, 0.1, 0.1], {"image": 0.1, "variance": 0.0, "count": 4}),
        ([3.0, np.inf, 3.0], {"image": 3.0, "variance": 0.0, "count": 2}),
    ],
)
def test_tiny_stacks_have_the_specified_values(values, expected):
    found = of_one_pixel(values)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_errors_come_from_the_scatter_or_from_the_inputs():
    images = images_of(np.ones((100, 1)))
    variances = xr.full_like(images, 10.0)
    weights = np.full(100, 0.1)
    from_inputs = stack(images, None, variances, weights, error="input")
    assert float(from_inputs["variance"][0]) == pytest.approx(0.1)
    assert float(stack(images, None, variances)["variance"][0]) == 0.0
    one = stack(images[:1], None, variances[:1])
    assert float(one["variance"][0]) == 10.0
    assert int(one["mask"][0]) == ONE_INPUT


def test_the_error_of_a_median_is_that_of_the_mean_times_a_constant(noisy):
    values = noisy["image"].values.astype(float)
    values = np.where((noisy["mask"].values & SAT) == 0, values, np.nan)[:, 10:]
    found = stack(noisy, statistic="median").isel(y=slice(10, None))
    np.testing.assert_allclose(found["image"], np.nanmedian(values, axis=0), rtol=1e-7)
    count = np.isfinite(values).sum(0)
    expected = 0.5 * np.pi * np.nanvar(values, axis=0, ddof=1) / count
    np.testing.assert_allclose(found["variance"], expected, rtol=3e-7)
    assert int(found["rejected_count"].sum()) == 0
    from_inputs = stack(images_of([[1.0], [3.0]]), None, images_of([[2.0], [4.0]]),
                        statistic="median", error="input")  # fmt: skip
    assert float(from_inputs["variance"][0]) == pytest.approx(0.5 * np.pi * 6.0 / 4.0)


def test_weights_of_zero_are_not_used_and_equal_weights_change_nothing():
    values = np.random.default_rng(5).normal(100.0, 1.0, (6, 30))
    some = stack(images_of(values), weights=[1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    fewer = stack(images_of(np.delete(values, 3, axis=0)))
    np.testing.assert_allclose(some["image"], fewer["image"], rtol=1e-13)
    np.testing.assert_array_equal(some["count"], fewer["count"])
    each = stack(images_of(values), weights=images_of(np.full(values.shape, 0.3)))
    whole = stack(images_of(values))
    np.testing.assert_allclose(each["image"], whole["image"], rtol=1e-13)
    np.testing.assert_allclose(each["variance"], whole["variance"], rtol=1e-9)


def test_scaled_images_of_one_sky_give_that_sky():
    sky = np.random.default_rng(6).uniform(0.5, 1.5, (20, 30)).astype(np.float32)
    scales = np.array([1000.0, 2500.0, 31000.0, 700.0, 1234.5])
    images = images_of((scales[:, None, None] * sky).astype(np.float32))
    variances = images_of(np.broadcast_to(scales[:, None, None] ** 2, images.shape))
    found = stack(images, None, variances, scales=scales, error="input")
    np.testing.assert_allclose(found["image"], sky, rtol=1e-6)
    np.testing.assert_allclose(found["variance"], 1.0 / found["count"], rtol=1e-6)
    by_label = xr.DataArray(
        scales[::-1], dims="exposure", coords={"exposure": images.exposure[::-1]}
    )
    xr.testing.assert_identical(
        stack(images, None, variances, scales=by_label, error="input"), found
    )


@given(shift=st.floats(-1e4, 1e4), factor=st.floats(0.1, 100.0))
@settings(deadline=None, max_examples=20)
def test_adding_and_multiplying_numbers_carries_through(shift, factor):
    values = np.random.default_rng(7).normal(0.0, 1.0, (7, 40))
    values[2, ::5] += 100.0
    found, moved = (stack(images_of(v)) for v in (values, factor * values + shift))
    np.testing.assert_allclose(
        moved["image"], factor * found["image"] + shift, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(moved["variance"], factor**2 * found["variance"], rtol=1e-6)
    np.testing.assert_array_equal(moved["count"], found["count"])


@pytest.mark.parametrize("statistic", ["clipped_mean", "mean", "median"])
def test_the_order_of_the_images_does_not_matter(noisy, statistic):
    shuffled = noisy.isel(exposure=np.random.default_rng(8).permutation(9))
    xr.testing.assert_identical(
        stack(shuffled, statistic=statistic).drop_vars("variance"),
        stack(noisy, statistic=statistic).drop_vars("variance"),
    )
    bare = noisy["image"], noisy["mask"]
    xr.testing.assert_identical(
        stack(*(a.isel(exposure=slice(None, None, -1)) for a in bare), statistic=statistic),
        stack(*bare, statistic=statistic),
    )


@given(
    chunks=st.tuples(st.integers(1, 9), st.integers(11, 40), st.integers(13, 50)),
    options=st.sampled_from(
        [{}, {"statistic": "median"}, {"weights": "inverse_variance"}, {"scales": np.arange(1, 10)}]
    ),
)
@settings(deadline=None, max_examples=8)
def test_lazy_stacks_equal_eager_ones_for_any_chunks(noisy, chunks, options):
    def refuse(*arguments, **keywords):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        lazy = stack(noisy.chunk(dict(zip(("exposure", "y", "x"), chunks, strict=True))), **options)
    assert all(variable.chunks is not None for variable in lazy.values())
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), stack(noisy, **options))


def test_images_that_are_read_as_they_are_indexed_are_read_tile_by_tile(noisy, tmp_path):
    noisy = noisy.drop_vars("exposure")
    path = tmp_path / "noisy.zarr"
    noisy.to_zarr(path, encoding={"image": {"chunks": (1, 16, 16)}}, consolidated=False)
    with xr.open_zarr(path, chunks=None, consolidated=False) as stored:
        found = stack(stored)
    xr.testing.assert_identical(found, stack(noisy))


def test_any_dtype_and_axis_order_gives_the_same(noisy):
    whole = np.rint(noisy["image"].where(np.isfinite(noisy["image"]), 0.0)).clip(0, 60000)
    expected = stack(whole, noisy["mask"])
    for dtype in (np.uint16, ">u2", ">f4"):
        xr.testing.assert_identical(stack(whole.astype(dtype), noisy["mask"]), expected)
    for dtype in (np.int32, np.float64):
        found = stack(whole.astype(dtype), noisy["mask"].astype(np.int64))
        assert found["image"].dtype == np.float64
        np.testing.assert_allclose(found["image"], expected["image"], rtol=1e-6)
    turned = stack(whole.transpose("y", "x", "exposure"), noisy["mask"])
    xr.testing.assert_identical(turned, expected)


def test_one_mask_may_hold_for_all_images_and_planes_may_be_joined(noisy):
    whole = images_of(np.ones((4, 3)))
    found = stack(whole, masks_of([SAT, 0, CROSSTALK], ("x",)))
    assert found["mask"].values.tolist() == [NO_DATA, 0, CROSSTALK]
    masks = np.zeros((4, 3), np.int32)
    masks[1, 0] = SAT
    assert stack(whole, masks_of(masks))["mask"].values.tolist() == [0, 0, 0]
    joined = stack(whole, masks_of(masks), joined={"SAT": "SUSPECT"})
    assert joined["mask"].values.tolist() == [MASK_PLANES["SUSPECT"], 0, 0]


def test_units_coordinates_and_legend_are_kept_and_inputs_unchanged(noisy):
    noisy = noisy.assign_coords(detector="S00", y=np.arange(40) + 100)
    before = noisy.copy(deep=True)
    found = stack(noisy)
    xr.testing.assert_identical(noisy, before)
    assert str(found["detector"].values) == "S00"
    assert int(found["y"][0]) == 100
    assert "exposure" not in found.coords
    assert (found["image"].units, found["variance"].units) == ("adu", "adu2")
    assert found["mask"].attrs == noisy["mask"].attrs
    foreign = {"flag_masks": [1, 2], "flag_meanings": "HOT NO_DATA"}
    masks = masks_of([[1], [0], [0]]).assign_attrs(foreign)
    one = stack(images_of([[5.0], [6.0], [np.nan]]), masks, ignore=["HOT"])
    assert (float(one["image"][0]), int(one["mask"][0]), one["mask"].attrs) == (6.0, 0, foreign)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": np.ones((3, 4))}, TypeError, "must be an xarray.DataArray, got ndarray"),
        ({"dim": "time"}, ValueError, "'time' must be among the dimensions"),
        ({"images": images_of(np.ones((0, 4)))}, ValueError, "no inputs"),
        ({"clip": 0.0}, ValueError, "clip must be > 0"),
        ({"iterations": 0}, ValueError, "iterations must be >= 1"),
        ({"statistic": "mode"}, ValueError, "statistic must be one of"),
        ({"error": "none"}, ValueError, "error must be"),
        ({"error": "input"}, ValueError, "need variances"),
        ({"weights": "variance"}, ValueError, "weights must be numbers"),
        ({"weights": "inverse_variance"}, ValueError, "need variances"),
        ({"weights": [1.0, 2.0]}, GeometryError, "weights have shape"),
        ({"weights": [1.0, -2.0, 1.0]}, ValueError, "exposure e1: -2.0"),
        ({"weights": np.ones(3), "statistic": "median"}, ValueError, "median has no weights"),
        ({"scales": [1.0, 0.0, np.nan]}, ValueError, "exposure e1: 0.0, exposure e2: nan"),
        ({"masks": masks_of(np.zeros((3, 5)))}, GeometryError, "masks have shape"),
        ({"masks": masks_of(np.zeros((3, 4))).astype(float)}, TypeError, "bit planes"),
        ({"masks": masks_of(np.zeros((3, 4))), "ignore": ["HOT"]}, KeyError, "HOT"),
    ],
)
def test_misuse_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        stack(**{"images": images_of(np.ones((3, 4))), **arguments})


def test_means_agree_with_ccdproc(noisy):
    values = noisy["image"].values.astype(float)[:, 10:]
    bad = (noisy["mask"].values[:, 10:] & SAT != 0) | ~np.isfinite(values)
    peer = Combiner(
        [CCDData(a, mask=m, unit=Unit("adu")) for a, m in zip(values, bad, strict=True)]
    )
    found = stack(noisy.isel(y=slice(10, None)), statistic="mean")
    np.testing.assert_allclose(found["image"], peer.average_combine().data, rtol=1e-6)
    median = stack(noisy.isel(y=slice(10, None)), statistic="median")
    np.testing.assert_allclose(median["image"], peer.median_combine().data, rtol=1e-6)


def test_stacked_noise_is_as_the_variance_says():
    values = np.random.default_rng(9).normal(0.0, 1.0, (20, 200, 200)).astype(np.float32)
    values[np.random.default_rng(10).random(values.shape) < 1e-3] += 100.0
    found = stack(images_of(values))
    # clipping takes 3 per cent of the variance of a Gaussian, and more where few values are left
    assert float(found["variance"].mean()) == pytest.approx(found["image"].values.var(), rel=0.15)
    assert float(abs(found["image"]).max()) < 6.0 / 20**0.5
