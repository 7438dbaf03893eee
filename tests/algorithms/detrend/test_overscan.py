"""Overscan of every kind: what it takes out, what it leaves, and the noise it reports."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend import OverscanParameters, detrend, subtract_overscan
from skyloom.algorithms.detrend.level_kernels import strict_row_moments
from skyloom.algorithms.detrend.overscan_curves import (
    kept_rows,
    polynomial_curve,
    smooth_curve,
    spline_curve,
)
from skyloom.algorithms.simulate import amplifier_grid

SHAPE, OVERSCAN, NOISE = (500, 80), 32, 4.0


@pytest.fixture(scope="module")
def table():
    found = amplifier_grid("R0", (1, 2), SHAPE, overscan=OVERSCAN, read_noise=6.0)
    below = {"y_start": SHAPE[0], "y_stop": SHAPE[0] + 40}
    for side, value in below.items():
        found[f"parallel_overscan_{side}"][:] = value
    for side in ("start", "stop"):
        found[f"parallel_overscan_x_{side}"][:] = found[f"data_x_{side}"]
    found["overscan_y_stop"][:] = SHAPE[0] + 40
    return found


def drift(kind):
    """Return the level of each row."""
    y = np.arange(SHAPE[0] + 40) / SHAPE[0]
    curve = {
        "level": 0 * y,
        "polynomial": 30 * y - 20 * y**2 + 10 * y**3,
        "spline": 5 * np.sin(4 * y),
        "smooth": 5 * np.sin(4 * y),
    }
    return 1000.0 + curve.get(kind, 20 * np.random.default_rng(3).standard_normal(y.size))


def frame(kind, seed=1, signal=100.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    image = drift(kind)[:, None] + rng.normal(0.0, NOISE, (SHAPE[0] + 40, 2 * (80 + OVERSCAN)))
    image[: SHAPE[0], :80] += signal
    image[: SHAPE[0], 112:192] += signal
    return xr.Dataset({"image": (("y", "x"), image.astype(dtype), {"units": "adu"})})


KINDS = ("row_mean", "row_median", "level", "polynomial", "spline", "smooth")


@pytest.mark.parametrize("kind", KINDS)
def test_the_drift_that_a_kind_is_for_is_taken_out(table, kind):
    found = subtract_overscan(frame(kind), table, parameters=OverscanParameters(serial=kind))
    rows = found["image"].isel(x=slice(80)).mean("x").values - 100.0
    levels = {
        "row_mean": NOISE**2 / OVERSCAN,
        "row_median": 1.57 * NOISE**2 / OVERSCAN,
        "smooth": NOISE**2 / OVERSCAN / 70,
        "spline": NOISE**2 / OVERSCAN / 30,
    }
    expected = np.sqrt(NOISE**2 / 80 + levels.get(kind, 0.0))
    assert rows.std() == pytest.approx(expected, rel=0.12)
    assert abs(rows.mean()) < 4 * expected / np.sqrt(SHAPE[0]) + 0.1
    np.testing.assert_allclose(found["overscan_noise"], NOISE, rtol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_stars_that_bleed_into_the_overscan_do_not_move_it(table, kind):
    clean, dirty = frame(kind), frame(kind)
    rng = np.random.default_rng(8)
    for row in rng.integers(0, SHAPE[0], 8):
        dirty["image"][row, 80:100] += 5000.0
    dirty["image"][200:203, 112 + 80 :] += 3000.0  # three whole rows of the other amplifier
    parameters = OverscanParameters(serial=kind)
    one, other = (subtract_overscan(each, table, parameters=parameters) for each in (clean, dirty))
    change = abs(one["image"] - other["image"]).values[:, :80].max(axis=1)
    if kind.startswith("row"):
        # a row has lost most of its pixels, or nearly
        assert np.quantile(change, 0.98) < 0.1
    else:
        assert change.max() < 0.5
        # and whole rows do not count at all
        assert abs(one["image"] - other["image"]).values[:, 80:].max() < 0.5
    np.testing.assert_allclose(other["overscan_noise"], NOISE, rtol=0.08)


@pytest.mark.parametrize("height", [1, 16, 37])
def test_rows_are_summed_from_left_to_right_whatever_their_number(height, rng):
    raw = rng.normal(1000.0, NOISE, (height + 2, 50)).astype(np.float32)
    raw[2, 12], raw[1, 20], raw[1, 21] = np.nan, np.inf, 1e4
    level = rng.normal(1000.0, 1.0, height)
    means, variances = np.empty((2, height))
    strict_row_moments(raw, (1, 10), 30, level, 3 * NOISE, means, variances)
    for y in range(height):
        off = raw[1 + y, 10:40].astype(np.float64) - level[y]
        kept = off[abs(off) <= 3 * NOISE]
        first, second = np.cumsum(kept)[-1], np.cumsum(kept**2)[-1]
        shift = first / kept.size
        assert means[y] == level[y] + shift
        assert variances[y] == (second - first * shift) / (kept.size - 1)


def test_curves_go_through_what_they_can_describe_exactly():
    rows = np.arange(300.0)
    line = 900.0 + 0.01 * rows
    cubic = line + 1e-7 * (rows - 100.0) ** 3
    np.testing.assert_allclose(spline_curve(line, 10, 4.0), line, rtol=1e-13)
    np.testing.assert_allclose(polynomial_curve(cubic, 3, 4.0), cubic, rtol=1e-12)
    np.testing.assert_allclose(smooth_curve(line, 5.0, 4.0)[20:-20], line[20:-20], rtol=1e-13)


def test_curves_bridge_rows_without_a_level_and_are_nan_without_any():
    rows = np.arange(300.0)
    line = 900.0 + 0.01 * rows
    broken = line.copy()
    broken[40:60], broken[100], broken[290:] = np.nan, 1500.0, np.nan
    assert not kept_rows(broken, 4.0)[[40, 100, 295]].any()
    np.testing.assert_allclose(spline_curve(broken, 10, 4.0), line, atol=1e-6)
    np.testing.assert_allclose(polynomial_curve(broken, 2, 4.0), line, rtol=1e-12)
    np.testing.assert_allclose(smooth_curve(broken, 10.0, 4.0), line, atol=0.15)
    nothing = np.full(300, np.nan)
    for curve in (
        spline_curve(nothing, 10, 4.0),
        polynomial_curve(nothing, 2, 4.0),
        smooth_curve(nothing, 10.0, 4.0),
    ):
        assert np.isnan(curve).all()
    few = np.where(rows < 1, 7.0, np.nan)
    assert (polynomial_curve(few, 5, 4.0) == 7.0).all()
    assert (spline_curve(few, 5, 4.0) == 7.0).all()


@pytest.mark.parametrize("kind", ["column_mean", "column_median"])
def test_columns_lose_the_level_of_their_parallel_overscan(table, kind):
    raw = frame("row_mean")
    columns = np.random.default_rng(2).normal(0.0, 20.0, 80)
    raw["image"][:, :80] += columns
    raw["image"][SHAPE[0] + 7, 30] += 30_000.0
    parameters = OverscanParameters(parallel=kind)
    found = subtract_overscan(raw, table, parameters=parameters)["image"].isel(x=slice(80))
    factor = 1.0 if kind == "column_mean" else 1.57
    expected = NOISE * np.sqrt(factor / 40 + 1 / SHAPE[0])
    assert float(found.mean("y").std()) == pytest.approx(expected, rel=0.25)
    assert float(found.mean()) == pytest.approx(100.0, abs=0.4)
    frame_of = detrend(raw, table, gain=1.0)
    assert float(frame_of["image"].isel(x=slice(80)).mean("y").std()) == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_variance_of_a_dark_frame_is_that_of_its_pixels(table, kind):
    from skyloom.algorithms.detrend import ScienceDetrendParameters

    parameters = ScienceDetrendParameters(
        overscan=OverscanParameters(serial=kind, parallel="column_mean")
    )
    found = detrend(frame(kind, signal=0.0), table, parameters=parameters, gain=1.5)
    readout = found["variance"].values - np.maximum(found["image"].values, 0.0)
    expected = float(((found["image"].values) ** 2).mean())
    assert readout.mean() == pytest.approx(expected, rel=0.03)


def test_without_overscan_nothing_is_subtracted_and_nothing_is_known(table):
    found = subtract_overscan(frame("level"), table, parameters=OverscanParameters(serial="none"))
    assert float(found["image"].mean()) == pytest.approx(1100.0, abs=0.1)
    assert found["overscan_level"].isnull().all()
    bare = table.copy()
    bare["overscan_x_stop"] = bare["overscan_x_start"]
    same = subtract_overscan(frame("level"), bare)
    np.testing.assert_array_equal(same["image"], found["image"])
    camera = detrend(frame("level"), bare, gain=1.0)
    assert (camera["read_noise"] == 6.0).all()
