"""Exposures of a mosaic with a known pattern: what the tests of scales are held to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.background.geometry import bin_edges
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

Floats = NDArray[np.float64]
PIXEL_SIZE = 0.015
GAP = 30  # pixels between detectors


def low_frequency_pattern(
    shape: tuple[int, int], rng: np.random.Generator, rms: float = 0.01
) -> Floats:
    """Return the sum of three plane waves of 0.8 to 3 cycles per detector."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    pattern = np.zeros(shape)
    for _ in range(3):
        cycles, angle, phase = rng.uniform(0.8, 3.0), *rng.uniform(0.0, 2 * np.pi, 2)
        turn = cycles * (np.cos(angle) * x / shape[1] + np.sin(angle) * y / shape[0])
        pattern += np.cos(2 * np.pi * turn + phase)
    return np.asarray(pattern * rms / pattern.std())


def bin_means(image: Floats, bin_size: int) -> Floats:
    """Return the means of an image over bins of about a size."""
    for axis in (0, 1):
        edges = bin_edges(image.shape[axis], max(round(image.shape[axis] / bin_size), 1))
        total = np.add.reduceat(image, edges[:-1], axis=axis)
        image = total / np.expand_dims(np.diff(edges), 1 - axis)
    return np.asarray(image)


def frame_of(pattern: Floats, *, bin_size: int = 16, noise: float = 0.0, rng=None) -> xr.Dataset:
    """Return the sky frame that interpolates a pattern, with noise if there is any."""
    centers = []
    for size in pattern.shape:
        edges = bin_edges(size, max(round(size / bin_size), 1))
        centers.append((edges[:-1] + edges[1:] - 1) / 2)
    # between pixels a low frequency is linear
    low = [np.floor(center).astype(int) for center in centers]
    level = sum(pattern[np.ix_(low[0] + i % 2, low[1] + i // 2)] for i in range(4)) / 4
    if noise:
        level = level + rng.normal(0.0, noise, level.shape)
    dims = ("bin_y", "bin_x")
    return xr.Dataset(
        {
            "level": (dims, level.astype(np.float32), {"units": ""}),
            "variance": (dims, np.full(level.shape, noise**2, np.float32), {"units": ""}),
        },
        attrs={"box": [0, pattern.shape[0], 0, pattern.shape[1]]},
    )


def paint_sources(
    shape: tuple[int, int], rng: np.random.Generator, *, stars: int, galaxies: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the light of stars of 12 pixels and of large galaxies, and what a mask covers."""
    light, covered = np.zeros(shape), np.zeros(shape, np.bool_)
    height, width = shape
    for _ in range(stars):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        inner = np.s_[max(y - 6, 0) : y + 6, max(x - 6, 0) : x + 6]
        outer = np.s_[max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8]
        light[inner] += rng.exponential(800.0)
        covered[outer] = True
    rows, columns = np.mgrid[:height, :width]
    for _ in range(galaxies):
        radius = rng.uniform(0.04, 0.07) * min(shape)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        distance = np.hypot(rows - y, columns - x)
        light += 2000.0 * np.exp(-distance / (radius / 6))
        covered |= distance < 1.5 * radius
    return light, covered


@dataclass
class Mosaic:
    """A camera of detectors in rows, each with a pattern of its own."""

    shape: tuple[int, int]
    grid: tuple[int, int]
    seed: int = 1
    rms: float = 0.01
    patterns: dict[str, Floats] = field(default_factory=dict)
    transforms: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows, columns = self.grid
        for index in range(rows * columns):
            name = f"D{index:02d}"
            row, column = divmod(index, columns)
            step = (np.array(self.shape) + GAP) * PIXEL_SIZE
            offset = (
                (column - (columns - 1) / 2) * step[1],
                (row - (rows - 1) / 2) * step[0],
            )
            rng = np.random.default_rng([self.seed, index])
            self.patterns[name] = low_frequency_pattern(self.shape, rng, self.rms)
            self.transforms[name] = detector_transform(
                self.shape, pixel_size=PIXEL_SIZE, offset=offset
            )

    def frames(self, *, noise: float = 0.0, bin_size: int = 16, seed: int = 0):
        """Return the sky frame of each detector."""
        rng = np.random.default_rng(seed)
        return {
            name: frame_of(pattern, bin_size=bin_size, noise=noise, rng=rng)
            for name, pattern in self.patterns.items()
        }

    def smooth(self, name: str, gradient) -> Floats:
        """Return ``1 + g_x u + g_y w`` at the pixels of a detector, u and w about -1 to 1."""
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        focal_x, focal_y = to_focal_plane(self.transforms[name], x, y)
        half = 0.5 * PIXEL_SIZE * np.array(self.shape) * np.array(self.grid)
        return 1.0 + gradient[0] * focal_x / half[1] + gradient[1] * focal_y / half[0]

    def sky(self, name: str, level: float, gradient=(0.0, 0.0)) -> Floats:
        """Return the sky of a detector without noise: smooth, plus level times pattern."""
        return level * (self.smooth(name, gradient) + self.patterns[name])

    def exposure(
        self,
        name: str,
        level: float,
        rng: np.random.Generator,
        *,
        gradient=(0.0, 0.0),
        stars: int = 60,
        galaxies: int = 0,
        subtracted: float = 0.0,
    ) -> xr.Dataset:
        """Return an exposure of a detector, in electrons, less a constant."""
        truth = self.sky(name, level, gradient)
        light, covered = paint_sources(self.shape, rng, stars=stars, galaxies=galaxies)
        signal = truth + light
        image = signal + rng.normal(0.0, 1.0, self.shape) * np.sqrt(signal) - subtracted
        mask = np.where(covered, MASK_PLANES["DETECTED"], 0).astype(np.int32)
        return xr.Dataset(
            {
                "image": (("y", "x"), image.astype(np.float32), {"units": "electron"}),
                "variance": (("y", "x"), signal.astype(np.float32), {"units": "electron2"}),
                "mask": (("y", "x"), mask, mask_attributes()),
            },
            coords={"detector": name},
        )


class StepScene:
    """Two detectors with steps of 5 in the sky, of which the frame knows the shape.

    A scene of the survey pipeline's own tests: noise of 25, a sky of 3000 that was subtracted
    before, and a frame of 128 x 125 bins with noise of 0.1. ``factor`` shrinks the detectors.
    """

    names = (0, 1)
    steps = (5.0, 5.0)
    removed = 3000.0

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor
        self.shape = (4000 // factor, 4096 // factor)
        self.transforms = {
            name: detector_transform(
                self.shape,
                pixel_size=PIXEL_SIZE * factor,
                offset=((4096 + 40) * PIXEL_SIZE * (name - 0.5), 0.0),
            )
            for name in self.names
        }

    def image(self, name: int) -> Floats:
        """Return the image less the sky of 3000."""
        image = np.random.default_rng(name).normal(0.0, 25.0, self.shape)
        image[:, 1024 // self.factor : 2048 // self.factor] += 5.0
        image[992 // self.factor : 2016 // self.factor, :] += 5.0
        return image

    def exposures(self) -> dict[int, xr.Dataset]:
        """Return the exposure of each detector."""
        return {
            name: xr.Dataset(
                {
                    "image": (
                        ("y", "x"),
                        self.image(name).astype(np.float32),
                        {"units": "electron"},
                    ),
                    "variance": (
                        ("y", "x"),
                        np.full(self.shape, 650.0, np.float32),
                        {"units": "electron2"},
                    ),
                    "mask": (("y", "x"), np.zeros(self.shape, np.int32), mask_attributes()),
                },
                coords={"detector": name},
            )
            for name in self.names
        }

    def frames(self) -> dict[int, xr.Dataset]:
        """Return the sky frame of each detector."""
        made = {}
        for name in self.names:
            level = np.random.default_rng(100 + name).normal(0.0, 0.1, (125, 128))
            level[:, 32:64] += 1.0
            level[31:63, :] += 1.0
            level -= level.mean()
            dims = ("bin_y", "bin_x")
            made[name] = xr.Dataset(
                {
                    "level": (dims, level.astype(np.float32), {"units": ""}),
                    "variance": (dims, np.full(level.shape, 0.01, np.float32), {"units": ""}),
                },
                attrs={"box": [0, self.shape[0], 0, self.shape[1]]},
            )
        return made

    def backgrounds(self) -> dict[int, list[tuple[xr.Dataset, str]]]:
        """Return what was subtracted before."""
        level = xr.DataArray(
            np.full((1, 1), self.removed, np.float32),
            dims=("bin_y", "bin_x"),
            attrs={"units": "electron"},
        )
        layer = xr.Dataset({"level": level}, attrs={"box": [0, self.shape[0], 0, self.shape[1]]})
        return {name: [(layer, "constant")] for name in self.names}
