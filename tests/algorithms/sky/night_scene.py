"""Nights of a small mosaic, pixels and all, whose sky frame is known.

Each detector has a pattern of three slow waves, one per cent rms. Each exposure has a level, a
gradient across the focal plane and photon noise; stars are masked, fainter sources are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import measure_background
from skyloom.algorithms.focal_plane import to_focal_plane
from tests.algorithms.sky.focal_planes import background_of, mosaic


class Night(NamedTuple):
    """Transforms and shapes of detectors, their patterns (by focal-plane pixel), and levels."""

    transforms: dict[int, np.ndarray]
    shapes: dict[int, tuple[int, int]]
    patterns: dict[int, np.ndarray]
    levels: np.ndarray
    gradients: np.ndarray
    half_width: float


def night(exposures=24, rows=4, columns=4, shape=(512, 512), *, seed=1, rms=0.01):
    """Return what a night is made of."""
    rng = np.random.default_rng(seed)
    transforms, shapes = mosaic(rows, columns, shape)
    y, x = (np.arange(size)[:, None] / size for size in shape)
    patterns = {}
    for name in transforms:
        own = np.random.default_rng(1000 + name)
        pattern = np.zeros(shape)
        for _ in range(3):
            cycles = own.uniform(0.8, 3.0) * np.exp(1j * own.uniform(0, 2 * np.pi))
            phase = own.uniform(0, 2 * np.pi)
            pattern += np.sin(2 * np.pi * (cycles.real * x.T + cycles.imag * y) + phase)
        patterns[name] = rms * pattern / pattern.std()
    corner = max(np.abs(to_focal_plane(t, 0.0, 0.0)).max() for t in transforms.values())
    return Night(
        transforms,
        shapes,
        patterns,
        rng.uniform(500.0, 3000.0, exposures),
        rng.normal(0.0, 0.03, (exposures, 2)),
        corner,
    )


def expected_sky(of: Night, exposure: int, name: int) -> np.ndarray:
    """Return the expected pixels of a detector."""
    height, width = of.shapes[name]
    y, x = np.mgrid[:height, :width]
    u, w = to_focal_plane(of.transforms[name], x, y)
    slope = of.gradients[exposure]
    return of.levels[exposure] * (
        1.0 + of.patterns[name] + slope[0] * u / of.half_width + slope[1] * w / of.half_width
    )


def image_of(of: Night, exposure: int, name: int, *, faint=False, seed=7) -> xr.Dataset:
    """Return one detector of one exposure with noise, masked stars and unmasked faint sources."""
    rng = np.random.default_rng([seed, exposure, name])
    sky = expected_sky(of, exposure, name)
    height, width = sky.shape
    image = sky + np.sqrt(of.levels[exposure]) * rng.standard_normal(sky.shape)
    mask = np.zeros(sky.shape, np.int32)
    area = height * width / 512**2
    for _ in range(round(60 * area)):
        top, left = rng.integers(0, height - 12), rng.integers(0, width - 12)
        image[top : top + 12, left : left + 12] += rng.exponential(800.0)
        around = np.s_[max(top - 2, 0) : top + 14, max(left - 2, 0) : left + 14]
        mask[around] = v.plane_bits(["DETECTED"])
    if faint:
        for _ in range(round(300 * area)):
            top, left = rng.integers(0, height - 6), rng.integers(0, width - 6)
            image[top : top + 6, left : left + 6] += rng.exponential(
                0.5 * np.sqrt(of.levels[exposure])
            )
    return xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "electron"}),
            "mask": (("y", "x"), mask, v.mask_attributes()),
        }
    )


def backgrounds(of: Night, exposure: int, **options: Any) -> dict[int, xr.Dataset]:
    """Return the measured bins of one exposure."""
    return {
        name: measure_background(
            image_of(of, exposure, name, **options), debias=True
        ).assign_coords(exposure=exposure)
        for name in of.transforms
    }


def true_backgrounds(of: Night) -> dict[int, xr.Dataset]:
    """Return bins of an exposure of level 1 without gradient or noise: the pattern plus one."""
    found = {}
    for name, pattern in of.patterns.items():
        empty = background_of(lambda x, y: 0 * x * y, of.transforms[name], of.shapes[name])
        bins = empty["level"].shape
        size = [n // b for n, b in zip(pattern.shape, bins, strict=True)]
        blocks = pattern.reshape(bins[0], size[0], bins[1], size[1]).mean(axis=(1, 3))
        found[name] = empty.assign(
            level=empty["level"].copy(data=1.0 + blocks),
            variance=empty["variance"].copy(data=np.full(bins, 1e-6)),
        )
    return found


def by_exposure(
    residuals: Mapping[int, Mapping[Any, xr.Dataset]],
) -> Iterator[tuple[Any, list[xr.Dataset]]]:
    """Yield detector and its residuals of all exposures."""
    for name in next(iter(residuals.values())):
        yield name, [one[name] for one in residuals.values()]
