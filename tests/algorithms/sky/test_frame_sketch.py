"""Sky frames of exposures that come one by one: as those of all at once, and undone again."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.sky import (
    AverageParameters,
    FrameSketchParameters,
    average_backgrounds,
    merge_sky_frame_sketches,
    remove_from_sky_frame_sketch,
    sky_frame_from_sketch,
    sky_frame_sketch,
)

BINS = ("bin_y", "bin_x")


def exposures(number=24, *, seed=1, shape=(10, 12), outliers=0.02):
    """Return residuals of different levels, the truth, and some outliers."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 0.01, shape)
    parts = []
    for k in range(number):
        sigma = 1e-3 * rng.uniform(0.7, 1.8)
        level = truth + rng.normal(0.0, sigma, shape)
        level[rng.random(shape) < outliers] += 0.03
        level[rng.random(shape) < 0.03] = np.nan
        parts.append(
            xr.Dataset(
                {
                    "level": (BINS, level.astype(np.float32)),
                    "variance": (BINS, np.full(shape, sigma**2, np.float32)),
                },
                coords={"exposure": k},
                attrs={"box": [0, 320, 0, 384], "grid_rule": "nearest"},
            )
        )
    return truth, parts


def weighted_mean(parts):
    level = np.stack([part["level"].values.astype(float) for part in parts])
    w = np.stack([1 / part["variance"].values.astype(float) for part in parts])
    return np.nansum(w * level, axis=0) / (w * np.isfinite(level)).sum(axis=0)


def test_the_weighted_mean_is_exact():
    _, parts = exposures()
    sketch = merge_sky_frame_sketches(sky_frame_sketch([part]) for part in parts)
    frame = sky_frame_from_sketch(sketch, clipped=False)
    np.testing.assert_allclose(frame["level"], weighted_mean(parts), atol=1e-6 * 0.01, rtol=1e-6)
    xr.testing.assert_allclose(frame, sky_frame_from_sketch(sky_frame_sketch(parts), clipped=False))


@pytest.mark.parametrize("with_reference", [True, False])
def test_clipping_by_histogram_is_nearly_that_of_all_exposures_at_once(with_reference):
    _, parts = exposures(outliers=0.02, shape=(30, 30))
    whole = average_backgrounds(parts)
    reference, parameters = None, FrameSketchParameters(half_range=0.08, cells=512)
    if with_reference:
        reference = average_backgrounds(parts[:16])
        parameters = FrameSketchParameters(half_range=0.01, cells=64)
    sketch = merge_sky_frame_sketches(
        sky_frame_sketch([part], reference=reference, parameters=parameters) for part in parts
    )
    frame = sky_frame_from_sketch(sketch)
    sigma = np.sqrt(whole["variance"].values)
    difference = (frame["level"].values - whole["level"].values) / sigma
    assert np.sqrt(np.mean(difference**2)) <= 0.1
    plain = sky_frame_from_sketch(sketch, clipped=False)
    assert np.sqrt(np.mean(((plain["level"] - whole["level"]) / sigma) ** 2)) > 1.0
    np.testing.assert_allclose(np.sqrt(frame["variance"]), sigma, rtol=0.15)


def test_an_exposure_can_be_taken_off_again():
    _, parts = exposures(9)
    sketch = sky_frame_sketch(parts)
    copy = sketch.copy(deep=True)
    left = remove_from_sky_frame_sketch(sketch, sky_frame_sketch([parts[3]]))
    xr.testing.assert_identical(sketch, copy)
    expected = sky_frame_sketch([part for k, part in enumerate(parts) if k != 3])
    for clipped in (True, False):
        one, two = (sky_frame_from_sketch(item, clipped=clipped) for item in (left, expected))
        np.testing.assert_allclose(one["level"], two["level"], rtol=1e-6)
        np.testing.assert_array_equal(one["exposure_count"], two["exposure_count"])
    nothing = remove_from_sky_frame_sketch(sketch, sketch)
    assert np.isnan(sky_frame_from_sketch(nothing)["level"]).all()
    with pytest.raises(ValueError, match="not in the sketch"):
        remove_from_sky_frame_sketch(sky_frame_sketch(parts[:2]), sky_frame_sketch(parts[2:6]))


def test_order_and_grouping_make_no_difference():
    _, parts = exposures(12)
    ones = [sky_frame_sketch([part]) for part in parts]
    copies = [one.copy(deep=True) for one in ones]
    straight = merge_sky_frame_sketches(ones)
    nested = merge_sky_frame_sketches(
        [merge_sky_frame_sketches(ones[7:][::-1]), merge_sky_frame_sketches(ones[:7])]
    )
    xr.testing.assert_allclose(nested, straight, rtol=1e-12)
    np.testing.assert_array_equal(nested["cell_count"], straight["cell_count"])
    for one, copy in zip(ones, copies, strict=True):
        xr.testing.assert_identical(one, copy)


def test_bins_never_observed_are_filled():
    _, parts = exposures(6)
    for part in parts:
        part["level"][2, 2] = np.nan
    frame = sky_frame_from_sketch(sky_frame_sketch(parts))
    assert int(frame["flags"][2, 2]) == v.BinFlag.EMPTY | v.BinFlag.FILLED
    assert np.isfinite(frame["level"][2, 2])
    assert frame.attrs["box"] == [0, 320, 0, 384]
    none = sky_frame_from_sketch(sky_frame_sketch(parts), parameters=AverageParameters(fill="none"))
    assert np.isnan(none["level"][2, 2])


def test_misuse_is_named():
    _, parts = exposures(3)
    one = sky_frame_sketch(parts[:1])
    with pytest.raises(ConfigurationError, match="sketches is empty"):
        merge_sky_frame_sketches([])
    with pytest.raises(ConfigurationError, match="variance"):
        sky_frame_sketch([part.drop_vars("variance") for part in parts])
    wide = sky_frame_sketch(parts[1:2], parameters=FrameSketchParameters(half_range=0.2))
    with pytest.raises(GeometryError, match="range"):
        merge_sky_frame_sketches([one, wide])
    moved = sky_frame_sketch(parts[1:2], reference=average_backgrounds(parts))
    with pytest.raises(GeometryError, match="reference"):
        merge_sky_frame_sketches([one, moved])
    small = sky_frame_sketch([part.isel(bin_x=slice(4)) for part in parts])
    with pytest.raises(GeometryError, match="bins"):
        merge_sky_frame_sketches([one, small])
    with pytest.raises(GeometryError, match="reference has"):
        sky_frame_sketch(parts, reference=average_backgrounds(parts).isel(bin_x=slice(4)))
