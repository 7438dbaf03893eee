"""Levels of flats: stated values, masks, polygons, edges, laziness, keys, misuse."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.flats import (
    FlatStatisticsParameters,
    mask_vignetted,
    measure_flat,
    reference_keys,
)
from skyloom.algorithms.statistics import clipped_statistics
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

HEIGHT, WIDTH = 120, 160
BOXES = {"A": (0, 60, 0, 80), "B": (0, 60, 80, 160), "C": (60, 120, 0, 80), "D": (60, 120, 80, 160)}


def table(boxes=BOXES) -> xr.Dataset:
    sides = ("y_start", "y_stop", "x_start", "x_stop")
    columns = {name: ("amp", [box[i] for box in boxes.values()]) for i, name in enumerate(sides)}
    raw = {f"data_{name}": column for name, column in columns.items()}
    return xr.Dataset(columns | raw, coords={"amp": list(boxes)})


def flat(*leading: int, seed=1) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    shape = (*leading, HEIGHT, WIDTH)
    image = rng.normal(1000.0, 20.0, shape).astype(np.float32)
    image += 50.0 * (np.arange(WIDTH) >= 80)
    mask = np.where(rng.random(shape) < 0.03, MASK_PLANES["BAD"], 0).astype(np.int32)
    dims = ("exposure", "y", "x")[-len(shape) :]
    return xr.Dataset(
        {
            "image": (dims, image, {"units": "adu"}),
            "mask": (dims, mask, mask_attributes()),
        },
        coords={"detector": "S00", "exposure_time": 5.0},
    )


def test_amplifiers_and_detector_are_measured_from_their_pixels():
    exposure = flat()
    found = measure_flat(exposure, table())
    expected = clipped_statistics(exposure["image"], exposure["mask"])
    assert float(found["mean"]) == float(expected["mean"])
    assert int(found["count"]) == int((exposure["mask"] == 0).sum())
    for name, (y0, y1, x0, x1) in BOXES.items():
        part = exposure.isel(y=slice(y0, y1), x=slice(x0, x1))
        expected = clipped_statistics(part["image"], part["mask"])
        row = found.sel(amp=name)
        assert float(row["amp_mean"]) == float(expected["mean"])
        assert float(row["amp_median"]) == float(expected["median"])
        assert float(row["amp_clipped_sigma"]) == float(expected["stdev"])
        assert int(row["amp_count_used"]) == int(expected["count_used"])
    assert found["amp_mean"].attrs["units"] == "adu"
    assert float(found["amp_mean"].sel(amp="B") - found["amp_mean"].sel(amp="A")) == pytest.approx(
        50.0, abs=3.0
    )
    assert (str(found["detector"].values), float(found["exposure_time"])) == ("S00", 5.0)


def test_what_clipping_takes_from_the_scatter_is_given_back():
    rng = np.random.default_rng(5)
    image = rng.normal(1000.0, 20.0, (2000, 1000)).astype(np.float32)
    exposure = xr.Dataset({"image": (("y", "x"), image)})
    found = measure_flat(exposure, table({"A": (0, 2000, 0, 1000)}))
    assert float(found["sigma"]) ** 2 == pytest.approx(400.0, rel=0.003)
    assert float(found["clipped_sigma"]) ** 2 == pytest.approx(400.0 * 0.969971, rel=0.003)
    assert float(found["clip_limit"]) == pytest.approx(3 * 20.0 * 0.97033**0.5, rel=0.003)


def test_pixels_without_light_are_left_out():
    exposure = flat()
    exposure["image"][0, 0] = np.nan
    corners = [(10, 10), (150, 10), (150, 110), (10, 110)]
    found = measure_flat(exposure, table(), polygon=corners)
    masked = exposure.assign(mask=mask_vignetted(exposure["mask"], corners))
    xr.testing.assert_identical(found, measure_flat(masked, table()))
    edge = measure_flat(exposure, table(), parameters=FlatStatisticsParameters(edge=10))
    inner = (exposure["mask"] == 0)[10:-10, 10:-10]
    assert int(edge["count"]) == int(inner.sum())
    whole = [(0, 0), (WIDTH - 1, 0), (WIDTH - 1, HEIGHT - 1), (0, HEIGHT - 1)]
    xr.testing.assert_identical(
        measure_flat(exposure, table(), polygon=whole), measure_flat(exposure, table())
    )


def test_saturated_and_detected_pixels_are_left_out_unless_asked_for():
    exposure = flat()
    exposure["mask"][:60, :80] = MASK_PLANES["SAT"]
    found = measure_flat(exposure, table())
    assert int(found["amp_count"].sel(amp="A")) == 0
    assert np.isnan(found["amp_mean"].sel(amp="A"))
    assert np.isnan(found["amp_sigma"].sel(amp="A"))
    kept = measure_flat(exposure, table(), parameters=FlatStatisticsParameters(ignored_planes=()))
    assert int(kept["amp_count"].sel(amp="A")) == 60 * 80


def test_nothing_valid_is_nan_and_zero():
    exposure = flat()
    exposure["mask"][:] = MASK_PLANES["NO_DATA"]
    found = measure_flat(exposure, table())
    assert np.isnan(found["mean"])
    assert int(found["count"]) == int(found["count_used"]) == 0


def test_a_constant_image_has_no_scatter():
    exposure = xr.Dataset({"image": (("y", "x"), np.full((HEIGHT, WIDTH), 1234.5, np.float32))})
    found = measure_flat(exposure, table())
    assert (float(found["mean"]), float(found["sigma"])) == (1234.5, 0.0)
    assert (found["amp_count_used"] == 60 * 80).all()


def test_lazy_exposures_give_the_same_and_stay_lazy():
    exposure = flat(3)
    before = exposure.copy(deep=True)
    found = measure_flat(exposure, table())
    lazy = measure_flat(exposure.chunk(exposure=1, y=50), table())
    assert lazy["amp_mean"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)
    xr.testing.assert_identical(exposure, before)
    for index in range(3):
        xr.testing.assert_identical(
            measure_flat(exposure.isel(exposure=index), table()), found.isel(exposure=index)
        )


def test_keys_are_those_of_the_survey_pipeline():
    found = measure_flat(flat(), table())
    keys = reference_keys(found)
    assert keys["DETECTOR_MEDIAN"] == float(found["mean"])
    assert keys["DETECTOR_SIGMA"] == float(found["clipped_sigma"])
    assert keys["DETECTOR_N"] == int(found["count"])
    assert [keys[f"AMP_NAME_{k}"] for k in range(4)] == list("ABCD")
    assert keys["AMP_MEDIAN_2"] == float(found["amp_mean"][2])
    assert len(keys) == 3 + 4 * 4
    with pytest.raises(ValueError, match="choose one along exposure"):
        reference_keys(measure_flat(flat(2), table()))


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"E \(0, 60, 100, 200\)"):
        measure_flat(flat(), table(BOXES | {"E": (0, 60, 100, 200)}))
    with pytest.raises(KeyError, match="no variable 'image'"):
        measure_flat(flat().drop_vars("image"), table())
    with pytest.raises(KeyError, match="HOT"):
        measure_flat(flat(), table(), parameters=FlatStatisticsParameters(ignored_planes=("HOT",)))
