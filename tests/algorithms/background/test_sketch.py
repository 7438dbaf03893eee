"""Histograms of bins that add up."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    common_cells,
    measure_background,
    merge_sketches,
    remove_from_sketch,
    sketch_exposure,
    sketch_statistics,
)
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from tests.algorithms.background.scenes import exposure, image_of

CELLS = {"center": 1000.0, "half_range": 250.0}


def with_sources(seed=0, shape=(768, 768)):
    rng = np.random.default_rng(seed)
    image = rng.normal(1000.0, 30.0, shape)
    sources = rng.random(shape) < 0.03
    image[sources] += rng.exponential(150.0, int(sources.sum()))
    return image_of(image)


def test_statistics_of_a_histogram_are_near_those_of_the_pixels():
    image = with_sources()
    center, half_range = common_cells(image)
    sketch = sketch_exposure(image, center=center, half_range=half_range, bin_size=(128, 128))
    found = sketch_statistics(sketch)
    exact = measure_background(image, bin_size=(128, 128))
    difference = (found["level"] - exact["level"]) / np.sqrt(exact["variance"])
    assert float(np.sqrt((difference**2).mean())) <= 0.04
    assert float(np.abs(difference).max()) <= 0.25
    np.testing.assert_allclose(found["variance"], exact["variance"], rtol=0.01)
    xr.testing.assert_equal(found["count"], exact["count"])
    assert set(found.data_vars) == set(exact.data_vars)
    assert found.attrs["box"] == exact.attrs["box"]
    assert found["variance"].attrs == exact["variance"].attrs
    xr.testing.assert_equal(found["bin_y"], exact["bin_y"])


def test_every_valid_pixel_is_counted_once_and_summed():
    given = exposure()
    sketch = sketch_exposure(given, **CELLS, bin_size=(32, 64))
    background = measure_background(given, bin_size=(32, 64), statistic="mean")
    counts = sketch["cell_count"].sum("level_cell")
    np.testing.assert_array_equal(counts, background["count"])
    means = 1000.0 + sketch["cell_sum"].sum("level_cell") / counts
    np.testing.assert_allclose(means, background["level"], rtol=1e-7)


def test_parts_merge_to_the_whole():
    image = with_sources(1, (64, 1024))
    whole = sketch_exposure(image, **CELLS, bins=(1, 1))
    parts = [
        sketch_exposure(image.isel(x=slice(64 * i, 64 * i + 64)), **CELLS, bins=(1, 1))
        for i in range(16)
    ]
    rng = np.random.default_rng(0)
    levels = []
    for _ in range(3):
        merged = merge_sketches([parts[i] for i in rng.permutation(16)])
        np.testing.assert_array_equal(merged["cell_count"], whole["cell_count"])
        levels.append(sketch_statistics(merged)["level"].item())
    tree = merge_sketches([merge_sketches(parts[:5]), merge_sketches(parts[5:])])
    np.testing.assert_allclose(tree["cell_sum"], whole["cell_sum"], rtol=1e-12, atol=1e-9)
    expected = sketch_statistics(whole)["level"].item()
    np.testing.assert_allclose(levels, expected, rtol=1e-7)


def test_one_population_is_clipped_where_averages_of_parts_are_biased():
    # half of the detectors see a bright object in most of the shared bin
    rng = np.random.default_rng(3)
    clean = image_of(rng.normal(1000.0, 30.0, (64, 64)))
    spoilt = image_of(rng.normal(1000.0, 30.0, (64, 8)) + rng.exponential(3000.0, (64, 8)))
    parts = [sketch_exposure(part, **CELLS, bins=(1, 1)) for part in (clean, spoilt)]
    merged = sketch_statistics(merge_sketches(parts))["level"].item()
    apart = [measure_background(part, bins=(1, 1)) for part in (clean, spoilt)]
    weights = [part["count"].item() for part in apart]
    average = np.average([part["level"].item() for part in apart], weights=weights)
    assert abs(merged - 1000.0) < 3.0
    assert average > 1100.0


def test_what_was_added_can_be_taken_away():
    one, other = (sketch_exposure(exposure(seed=seed), **CELLS) for seed in (1, 2))
    left = remove_from_sketch(merge_sketches([one, other]), other)
    np.testing.assert_array_equal(left["cell_count"], one["cell_count"])
    np.testing.assert_allclose(left["cell_sum"], one["cell_sum"], atol=1e-9)
    assert (left["cell_sum"].values[left["cell_count"].values == 0] == 0).all()


def test_lazy_and_eager_sketches_are_the_same():
    given = xr.concat([exposure(seed=1), exposure(seed=2)], dim="detector")
    eager = sketch_exposure(given, **CELLS)
    lazy = sketch_exposure(given.chunk({"detector": 1, "y": 40}), **CELLS)
    assert lazy["cell_count"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), eager)
    statistics = sketch_statistics(lazy.chunk({"level_cell": 100}))
    xr.testing.assert_identical(statistics.compute(), sketch_statistics(eager))


def test_nothing_that_is_given_changes():
    given = exposure()
    before = given.copy(deep=True)
    sketch = sketch_exposure(given, **CELLS)
    xr.testing.assert_identical(given, before)
    copied = sketch.copy(deep=True)
    merge_sketches([sketch, sketch])
    remove_from_sketch(sketch, sketch)
    sketch_statistics(sketch)
    xr.testing.assert_identical(sketch, copied)


def test_values_beyond_the_cells_are_counted_but_not_used():
    values = np.random.default_rng(5).normal(1000.0, 10.0, (40, 40))
    values[:2] = 1e6
    values[2, :5] = -1e6
    sketch = sketch_exposure(image_of(values), **CELLS, bins=(1, 1))
    assert sketch["cell_count"].values[0, 0, [0, -1]].tolist() == [5, 80]
    found = sketch_statistics(sketch)
    assert found["count"].item() == 1600
    assert found["count_used"].item() <= 1515
    assert found["level"].item() == pytest.approx(1000.0, abs=1.5)


def test_a_level_outside_the_cells_is_unknown():
    sketch = sketch_exposure(image_of(np.full((8, 8), 5000.0)), **CELLS, bins=(1, 1))
    found = sketch_statistics(sketch)
    assert np.isnan(found["level"].item())
    assert found["count"].item() == 64
    assert found["flags"].item() == v.BinFlag.BAD_VARIANCE


def test_empty_and_thin_bins_are_flagged():
    pixels = np.full((4, 12), np.nan)
    pixels[0, 4] = 1001.0
    pixels[:, 8:] = np.random.default_rng(0).normal(1000.0, 5.0, (4, 4))
    found = sketch_statistics(sketch_exposure(image_of(pixels), **CELLS, bins=(1, 3)), min_count=9)
    flags = found["flags"].values[0]
    assert flags[0] == v.BinFlag.EMPTY
    assert flags[1] == v.BinFlag.LOW_COUNT | v.BinFlag.BAD_VARIANCE
    assert flags[2] == 0
    assert found["level"].values[0, 1] == 1001.0


def test_clipping_and_correlation_scale_the_variance():
    sketch = sketch_exposure(exposure(), **CELLS)
    plain = sketch_statistics(sketch)
    scaled = sketch_statistics(sketch, debias=True, noise_correlation=2.0)
    np.testing.assert_allclose(scaled["variance"], plain["variance"] * 2.0 * 1.030959, rtol=1e-6)


def test_common_cells_hold_six_interquartile_ranges_on_either_side():
    given = exposure(512, 512)
    center, half_range = common_cells(given)
    assert center == pytest.approx(1000.0, abs=1.0)
    assert half_range == pytest.approx(6 * 30 / 0.7413, rel=0.02)
    masked = given.assign(mask=given["mask"] | v.MASK_PLANES["BAD"])
    with pytest.raises(NoUsableDataError, match="no sampled pixel"):
        common_cells(masked)
    assert common_cells(masked, reject=())[0] == pytest.approx(1000.0, abs=1.0)
    with pytest.raises(NoUsableDataError, match=r"all 3\.0"):
        common_cells(image_of(np.full((4, 4), 3.0)))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"half_range": 0.0}, "half_range > 0"),
        ({"center": np.nan}, "center must be finite"),
        ({"cells": 4}, "between 8 and 65000"),
        ({"grid_rule": "floor"}, "grid_rule"),
    ],
)
def test_misuse_is_named(changed, text):
    with pytest.raises(ConfigurationError, match=text):
        sketch_exposure(exposure(), **(CELLS | changed))


def test_sketches_that_do_not_fit_are_not_merged():
    one = sketch_exposure(exposure(), **CELLS)
    with pytest.raises(GeometryError, match="different center"):
        merge_sketches([one, sketch_exposure(exposure(), **(CELLS | {"center": 999.0}))])
    with pytest.raises(GeometryError, match="different sizes"):
        merge_sketches([one, sketch_exposure(exposure(), **CELLS, bins=(1, 1))])
    with pytest.raises(ConfigurationError, match="at least one"):
        merge_sketches([])
    with pytest.raises(ConfigurationError, match="iterations"):
        sketch_statistics(one, iterations=0)
