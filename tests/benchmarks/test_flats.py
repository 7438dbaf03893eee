"""Scales of exposures and detectors, and levels of flats, beside the reference and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.flats import (
    FlatScaleParameters,
    inside_polygon,
    measure_flat,
    measure_scales,
    solve_flat_scales,
)

SIDE = 4096


def levels(channels: int, exposures: int) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return levels, counts and scatter of flats, (detector, exposure)."""
    rng = np.random.default_rng(1)
    response = 1.0 + 0.03 * rng.normal(size=channels)
    light = 1e4 * np.exp(rng.uniform(0.0, 1.4, exposures))
    values = np.outer(response, light) * (1.0 + 1e-3 * rng.normal(size=(channels, exposures)))
    level = xr.DataArray(
        values,
        dims=("detector", "exposure"),
        coords={"detector": np.arange(channels), "exposure": np.arange(exposures)},
    )
    return level, xr.full_like(level, 1e6), np.sqrt(level)


def plain_numpy(values, count, iterations=10):
    """Return the scales by the reference's scheme, written with numpy."""
    log, gamma = np.log(values), np.zeros(len(values))
    eps = np.average(log, axis=0, weights=count)
    for _ in range(iterations):
        gamma = np.average(log - eps, axis=1, weights=count)
        eps = np.average(log - gamma[:, None], axis=0, weights=count)
    gamma -= np.log(np.average(np.exp(gamma), weights=count.sum(axis=1)))
    return np.exp(gamma), np.exp(np.average(log - gamma[:, None], axis=0, weights=count))


@pytest.mark.parametrize(("channels", "published"), [(189, 0.078), (3024, 1.10)])
def test_scales_of_a_camera(compare, peer, channels, published):
    level, count, sigma = levels(channels, 20)
    compare(
        "exposure and detector scales with errors, outliers looked for, a dataset",
        lambda: solve_flat_scales(level, count, sigma),
        size=f"{channels} x 20",
        peers=(peer("plain numpy, scales alone", lambda: plain_numpy(level.values, count.values)),),
        published_s=published,
        target=100.0,
        multiply_adds=channels * 20.0**2,
        rounds=50,
    )


@pytest.mark.parametrize(("channels", "published"), [(189, 0.078), (3024, 1.10)])
def test_scales_of_a_camera_from_weights_alone(compare, channels, published):
    level, count, _ = levels(channels, 20)
    compare(
        "exposure and detector scales from weights alone",
        lambda: measure_scales(level, count),
        size=f"{channels} x 20",
        published_s=published,
        target=100.0,
        rounds=50,
    )


def test_scales_of_a_large_camera_with_missing_levels(compare):
    level, count, sigma = levels(3024, 40)
    level = level.where(np.random.default_rng(2).random(level.shape) > 0.03)
    compare(
        "exposure and amplifier scales, 3 % missing (goal: below 1 s)",
        lambda: solve_flat_scales(level, count, sigma),
        size="3024 x 40",
        rounds=10,
    )


def test_scales_with_outliers_and_gradients(compare):
    level, count, sigma = levels(3024, 40)
    rng = np.random.default_rng(2)
    level = level * np.where(rng.random(level.shape) < 0.01, 1.1, 1.0)
    level = level.assign_coords(
        focal_x=("detector", rng.uniform(-300, 300, 3024)),
        focal_y=("detector", rng.uniform(-300, 300, 3024)),
    )
    compare(
        "the same, 1 % outliers and a plane for each exposure",
        lambda: solve_flat_scales(level, count, sigma, parameters=FlatScaleParameters(
            gradient_order=1
        )),
        size="3024 x 40",
        rounds=3,
    )  # fmt: skip


def test_levels_of_a_detector(compare):
    rng = np.random.default_rng(3)
    image = rng.normal(30_000.0, 150.0, (SIDE, SIDE)).astype(np.float32)
    mask = np.where(rng.random(image.shape) < 0.01, 1, 0).astype(np.int32)
    exposure = xr.Dataset({"image": (("y", "x"), image), "mask": (("y", "x"), mask)})
    starts = [(y, x) for y in (0, SIDE // 2) for x in range(0, SIDE, SIDE // 8)]
    sides = {
        "y_start": [y for y, _ in starts],
        "y_stop": [y + SIDE // 2 for y, _ in starts],
        "x_start": [x for _, x in starts],
        "x_stop": [x + SIDE // 8 for _, x in starts],
    }
    columns = {name: ("amp", values) for name, values in sides.items()}
    raw = {f"data_{name}": column for name, column in columns.items()}
    amplifiers = xr.Dataset(columns | raw, coords={"amp": [f"C{i:02d}" for i in range(16)]})
    compare(
        "levels of 16 amplifiers and the detector",
        lambda: measure_flat(exposure, amplifiers),
        size="4096² float32 with mask",
        published_s=2 * 0.476,
        moved_bytes=2 * 8.0 * SIDE**2,
    )


def test_pixels_of_a_polygon(compare):
    corners = [(300, 0), (4095, 800), (3000, 4095), (0, 3500)]
    compare(
        "pixels inside a polygon",
        lambda: inside_polygon((SIDE, SIDE), corners),
        size="4096²",
        moved_bytes=1.0 * SIDE**2,
    )
