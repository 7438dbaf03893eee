"""Clipped statistics of images: identities, published values, masks, units, laziness."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.stats import sigma_clip
from astropy.units import Unit
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.statistics import clipped_statistics
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes


def image_of(values, **attributes) -> xr.DataArray:
    values = np.asarray(values)
    dims = ("exposure", "y", "x")[-max(values.ndim, 2) :]
    return xr.DataArray(np.atleast_2d(values), dims=dims, attrs={"units": "adu"} | attributes)


def mask_of(bits) -> xr.DataArray:
    return xr.DataArray(np.asarray(bits, np.int32), dims=("y", "x"), attrs=mask_attributes())


def numbers(statistics: xr.Dataset) -> dict[str, float]:
    return {str(name): float(value) for name, value in statistics.items()}


@pytest.fixture(scope="module")
def gaussian() -> xr.DataArray:
    noise = np.random.RandomState(666).normal(10.5, 1.0, (1500, 900))
    return image_of(noise.astype(np.float32))


def test_clipped_spread_of_a_gaussian_has_the_published_value(gaussian):
    values = gaussian.values.astype(float)
    found = numbers(clipped_statistics(gaussian))
    deviation = values.std(ddof=1)
    assert found["stdev"] == pytest.approx(np.sqrt(0.9733369) * deviation, abs=0.0015)
    assert found["variance"] == pytest.approx(0.9733369 * deviation**2, abs=0.0028)
    assert found["count_used"] / found["count"] == pytest.approx(0.996875, abs=1e-4)
    assert found["iqr"] == pytest.approx(deviation / 0.741301109, abs=0.00011)
    assert found["median"] == pytest.approx(np.median(values), abs=7.5e-7)


def test_a_wide_clip_rejects_nothing_of_a_gaussian(gaussian):
    found = numbers(clipped_statistics(gaussian, clip=6.0))
    assert found["count"] == found["count_used"] == 1_350_000
    assert found["mean"] == pytest.approx(gaussian.values.mean(dtype=float), abs=4e-6)


def test_one_wild_pixel_is_rejected_and_counted(gaussian):
    values = gaussian.values.copy()
    values[450, 750] *= 1000.0
    found = numbers(clipped_statistics(image_of(values), clip=10.0))
    assert (found["count"], found["count_used"]) == (1_350_000, 1_349_999)
    assert found["mean"] == pytest.approx(gaussian.values.mean(dtype=float), abs=4e-5)


def test_a_ramp_has_exact_statistics():
    ramp = np.broadcast_to(10.0 + np.arange(101, dtype=np.float32), (64, 101))
    found = numbers(clipped_statistics(image_of(ramp)))
    assert (found["mean"], found["median"], found["iqr"]) == (60.0, 60.0, 50.0)


def test_stripes_add_to_the_spread_in_quadrature(gaussian):
    values = gaussian.values.copy()
    values[1::2] += 1.0
    found = numbers(clipped_statistics(image_of(values), clip=20.0))
    n = values.size
    expected = np.hypot(gaussian.values.std(ddof=1, dtype=float), 0.5 * np.sqrt(n / (n - 1)))
    assert found["stdev"] == pytest.approx(expected, abs=1.1e-4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            [np.nan, np.inf, -np.inf],
            {"count": 0, "count_used": 0, "mean": np.nan, "median": np.nan},
        ),
        ([4.0], {"count": 1, "count_used": 1, "mean": 4.0, "mean_variance": np.nan, "iqr": 0.0}),
        ([1.0, 2.0], {"count_used": 2, "mean": 1.5, "variance": 0.5, "mean_variance": 0.25}),
        ([5.0, 5.0], {"mean": 5.0, "stdev": 0.0, "mean_variance": 0.0}),
        ([1.0, 2.0, 100.0], {"count_used": 3, "mean": 34.333333333333336}),
        ([7, 7, 7, 7, 9], {"count": 5, "count_used": 4, "mean": 7.0, "mean_variance": 0.0}),
        (np.arange(10), {"count_used": 10, "mean": 4.5, "iqr": 4.5}),
        ([1.0, 2.0, np.inf], {"count": 2, "mean": 1.5}),
    ],
    ids=["none valid", "one", "two", "two equal", "three", "ties", "ten", "infinite"],
)
def test_tiny_sets_have_the_specified_statistics(values, expected):
    found = numbers(clipped_statistics(image_of(np.asarray(values, dtype=float))))
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "error"), [([1.0, 2.0, 100.0], 32.834), (np.arange(10.0), 0.957427)]
)
def test_the_error_of_a_mean_has_the_specified_value(values, error):
    found = numbers(clipped_statistics(image_of(values)))
    assert found["mean_variance"] ** 0.5 == pytest.approx(error, abs=1e-3 * error)


def test_a_value_exactly_on_the_edge_is_kept_and_one_beyond_is_not():
    half_width = 1.5 * 0.741301109252802 * 8.0  # the quartiles are -4, 0 and 4
    values = [-half_width, -4.0, -4.0, 0.0, 4.0, 4.0, half_width]
    kept = numbers(clipped_statistics(image_of(values), clip=1.5, iterations=1))
    assert kept["count_used"] == 7
    values[-1] = np.nextafter(half_width, np.inf)
    beyond = numbers(clipped_statistics(image_of(values), clip=1.5, iterations=1))
    assert beyond["count_used"] == 6


def test_a_value_rejected_once_may_return():
    # the quartiles see a core only, the second pass the wider spread of core and shoulders
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0.0, 1.0, 6000), rng.normal(0.0, 4.0, 4000)])
    first, second = (
        int(clipped_statistics(image_of(values), clip=5.5, iterations=n)["count_used"])
        for n in (1, 2)
    )
    assert first < second


@pytest.mark.parametrize("size", [500, 600_000])
@pytest.mark.parametrize("shift", [1e3, -7.0])
def test_adding_a_constant_moves_the_location_only(size, shift):
    values = np.random.default_rng(1).normal(5.0, 2.0, size)
    plain = numbers(clipped_statistics(image_of(values)))
    moved = numbers(clipped_statistics(image_of(values + shift)))
    for name in ("mean", "median"):
        assert moved[name] - plain[name] == pytest.approx(shift, rel=1e-12)
    assert (moved["count"], moved["count_used"]) == (plain["count"], plain["count_used"])
    assert moved["variance"] == pytest.approx(plain["variance"], rel=1e-11)


@pytest.mark.parametrize("factor", [3.7, 1e-8])
def test_scaling_scales_the_statistics(factor):
    values = np.random.default_rng(1).normal(5.0, 2.0, 500)
    plain = numbers(clipped_statistics(image_of(values)))
    scaled = numbers(clipped_statistics(image_of(values * factor)))
    for name, power in (("mean", 1), ("stdev", 1), ("variance", 2), ("mean_variance", 2)):
        assert scaled[name] == pytest.approx(plain[name] * factor**power, rel=1e-12)


@pytest.mark.parametrize(
    ("fraction", "flux", "mean_bias", "median_bias"),
    [(0.01, 5.0, 0.0066, 0.0119), (0.1, 5.0, 0.064, 0.117), (0.2, 20.0, 0.052, 0.302)],
)
def test_sources_bias_mean_and_median_as_published(fraction, flux, mean_bias, median_bias):
    rng = np.random.default_rng(8)
    size = 4_000_000
    values = rng.standard_normal(size)
    values += np.where(rng.random(size) < fraction, rng.exponential(flux, size), 0.0)
    found = numbers(clipped_statistics(image_of(values)))
    assert found["mean"] == pytest.approx(mean_bias, abs=0.0025)
    assert found["median"] == pytest.approx(median_bias, abs=0.0025)


def test_pulls_of_the_mean_have_the_specified_width():
    rng = np.random.default_rng(9)
    parts = []
    for _ in range(10):
        pixels = rng.standard_normal((1000, 128, 128), dtype=np.float32)
        parts.append(clipped_statistics(xr.DataArray(pixels, dims=("bin", "y", "x"))))
    bins = xr.concat(parts, "bin")
    raw = bins["mean"] / np.sqrt(bins["mean_variance"])
    unbiased = raw * np.sqrt(0.969971)
    assert float(unbiased.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(unbiased.std()) == pytest.approx(1.00, abs=0.03)
    assert float(raw.std()) == pytest.approx(1.016, abs=0.03)
    sample = xr.DataArray(pixels[0], dims=("y", "x"))
    ratio = clipped_statistics(sample, debias=True) / clipped_statistics(sample)
    for name in ("variance", "mean_variance"):
        assert float(ratio[name]) == pytest.approx(1.030959, rel=1e-6)
    assert float(ratio["stdev"]) == pytest.approx(1.030959**0.5, rel=1e-6)
    assert float(ratio["mean"]) == 1.0


def test_astropy_finds_the_same_mean_within_its_error():
    values = np.random.default_rng(10).normal(100.0, 5.0, (300, 300))
    clipped = sigma_clip(values, sigma=3, maxiters=3, cenfunc="median", stdfunc="std")
    found = numbers(clipped_statistics(image_of(values)))
    assert found["mean"] == pytest.approx(clipped.mean(), abs=0.05 * found["mean_variance"] ** 0.5)


def test_ignored_planes_are_left_out_and_others_are_not():
    values = np.array([[1.0, 2.0, 3.0], [400.0, 5.0, 600.0]])
    bits = np.zeros((2, 3), int)
    bits[1, 0], bits[1, 2] = MASK_PLANES["BAD"], MASK_PLANES["SAT"] | MASK_PLANES["DETECTED"]
    bits[0, 1] = MASK_PLANES["DETECTED"]
    found = clipped_statistics(image_of(values), mask_of(bits))
    assert (int(found["count"]), float(found["median"])) == (4, 2.5)
    found = clipped_statistics(image_of(values), mask_of(bits), ignore=["DETECTED"])
    assert int(found["count"]) == 4
    found = clipped_statistics(image_of(values), mask_of(bits), ignore=[])
    assert int(found["count"]) == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.uint64])
def test_bits_are_read_by_the_legend_of_the_mask_whatever_its_dtype(dtype):
    top = np.iinfo(dtype).max // 2 + 1
    bits = np.zeros((2, 3), dtype)
    bits[0, 0] = top
    mask = xr.DataArray(bits, dims=("y", "x"), attrs={"flag_masks": [top], "flag_meanings": "MINE"})
    image = image_of(np.arange(6.0).reshape(2, 3))
    assert int(clipped_statistics(image, mask, ignore=["MINE"])["count"]) == 5


@pytest.mark.parametrize("dtype", [">i2", ">u2", ">i4", ">u4", ">i8"])
def test_masks_in_the_byte_order_of_fits_mask_the_same_pixels(dtype):
    bits = np.zeros((2, 3), dtype)
    bits[0, :2] = MASK_PLANES["SAT"]
    mask = xr.DataArray(bits, dims=("y", "x"), attrs=mask_attributes())
    image = image_of(np.arange(6.0).reshape(2, 3).astype(">f4"))
    assert int(clipped_statistics(image, mask)["count"]) == 4


def test_the_sign_bit_of_a_mask_counts():
    mask = xr.DataArray(
        np.array([[-(2**31), 0]], np.int32),
        dims=("y", "x"),
        attrs={"flag_masks": [-(2**31)], "flag_meanings": "LAST"},
    )
    assert int(clipped_statistics(image_of([1.0, 2.0]), mask, ignore=["LAST"])["count"]) == 1


def test_an_unknown_plane_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match=r"HOT.*BAD, SAT"):
        clipped_statistics(image_of([1.0, 2.0]), mask_of([[0, 0]]), ignore=["HOT"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clip": 0.0}, ValueError, "clip must be > 0"),
        ({"clip": -3.0}, ValueError, "clip must be > 0"),
        ({"iterations": 0}, ValueError, "iterations must be >= 1"),
        ({"mask": mask_of(np.zeros((2, 3)))}, ValueError, "mask has shape"),
        ({"mask": mask_of(np.zeros((2, 2))).isel(x=0)}, ValueError, "mask has shape"),
        ({"mask": mask_of(np.zeros((2, 2))).astype(bool)}, TypeError, "integer bit planes"),
        ({"image": np.zeros((2, 2))}, TypeError, "must be an xarray.DataArray, got ndarray"),
        ({"dim": "time"}, ValueError, "must be among the dimensions"),
    ],
)
def test_misuse_is_named_before_anything_is_computed(arguments, error, message):
    arguments = {"image": image_of(np.ones((2, 2))).chunk(), **arguments}
    with dask.config.set(scheduler=refuse), pytest.raises(error, match=message):
        clipped_statistics(**arguments)


def test_an_empty_image_is_an_error():
    with pytest.raises(ValueError, match="size 0"):
        clipped_statistics(image_of(np.ones((0, 3))))


def refuse(*arguments, **options):
    raise AssertionError("something was computed")


@given(
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 30)),
    masked=st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_lazy_results_equal_eager_ones_for_any_chunks(chunks, masked):
    rng = np.random.default_rng(11)
    image = image_of(rng.normal(0.0, 1.0, (3, 40, 30)).astype(np.float32))
    mask = mask_of(rng.random((40, 30)) < 0.1) if masked else None
    eager = clipped_statistics(image, mask)
    lazy_image = image.chunk(dict(zip(("exposure", "y", "x"), chunks, strict=True)))
    lazy_mask = None if mask is None else mask.chunk(y=chunks[1], x=chunks[2])
    with dask.config.set(scheduler=refuse):
        lazy = clipped_statistics(lazy_image, lazy_mask)
    assert all(variable.chunks is not None for variable in lazy.values())
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), eager)


def test_leading_dimensions_coordinates_and_units_are_kept():
    image = image_of(np.ones((3, 4, 5)))
    image = image.assign_coords(exposure=[5, 6, 7], detector="R22_S11")
    found = clipped_statistics(image)
    assert found["mean"].dims == ("exposure",)
    assert found["exposure"].values.tolist() == [5, 6, 7]
    assert str(found["detector"].values) == "R22_S11"
    assert (found["mean"].units, found["variance"].units, found["count"].units) == (
        "adu", "adu2", "",
    )  # fmt: skip
    assert (found["count"].dtype, found["mean"].dtype) == (np.int64, np.float64)
    along_y = clipped_statistics(image, dim="y")
    assert along_y["mean"].dims == ("exposure", "x")


@pytest.mark.parametrize(
    "units", ["adu", "electron", "1/electron", "", "electron/adu", "adu s-1", "m**3"]
)
def test_units_are_squared_as_astropy_reads_them(units):
    found = clipped_statistics(image_of([1.0, 2.0], units=units))
    assert Unit(found["variance"].units) == Unit(units) ** 2


def test_inputs_are_unchanged():
    image, mask = image_of(np.arange(6.0).reshape(2, 3)), mask_of([[0, 1, 0], [2, 0, 0]])
    before = image.copy(deep=True), mask.copy(deep=True)
    clipped_statistics(image, mask)
    xr.testing.assert_identical(image, before[0])
    xr.testing.assert_identical(mask, before[1])


ROOT = Path(__file__).resolve().parents[2]
MEMORY = """
import numpy as np
from skyloom.algorithms.statistics import clipped_moments
from tests.benchmarks.peak_memory import grown_bytes
image = np.random.default_rng(1).standard_normal((4096, 4096), dtype=np.float32)
good = np.ones(image.shape, dtype=bool)
clipped_moments(image[:600], good[:600])
print(grown_bytes(lambda: clipped_moments(image, good))[0])
"""


def test_statistics_of_a_large_image_need_a_fraction_of_it_in_memory():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    image = 4096**2 * 4
    assert 0 < int(done.stdout) < 0.5 * image
