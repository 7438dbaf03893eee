"""What the reference's bins on a tract do, beside ours: numbers that say why ours are others."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.matching import TractGrid, tract_background, tract_image
from skyloom.algorithms.matching.compat import reference_tract_background, reference_tract_image
from tests.algorithms.matching.tracts import LEGACY, cut_warps

WIDTH = 1300


def clipped(values: np.ndarray) -> float:
    low, center, high = np.percentile(values, [25, 50, 75])
    half = 3 * 0.741301109252802 * (high - low)
    for _ in range(3):
        kept = values[np.abs(values - center) <= half]
        center, half = kept.mean(), 3 * kept.std(ddof=1)
    return float(kept.mean())


def test_each_of_its_bins_holds_the_pixels_of_a_box_of_twice_the_size() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(10, 2, (100, 120)).astype(np.float32)
    mask = np.where(rng.random(image.shape) < 0.1, v.MASK_PLANES["SAT"], 0).astype(np.int32)
    warp = xr.Dataset(
        {"image": (("y", "x"), image), "mask": (("y", "x"), mask, v.mask_attributes())},
        attrs={"box": [20, 120, -10, 110]},
    )
    found = reference_tract_background([warp], (130, 115), bin_size=20)
    assert found["level"].shape == (6, 5)
    for j, i in ((0, 0), (2, 3), (5, 4), (3, 0)):
        rows = slice(max(20 * j - 10 - 20, 0), max(20 * j + 30 - 20, 0))
        columns = slice(20 * i - 10 + 10, 20 * i + 30 + 10)
        values = image[rows, columns][mask[rows, columns] == 0].astype(np.float64)
        assert int(found["count"][j, i]) == values.size
        assert float(found["level"][j, i]) == pytest.approx(clipped(values), rel=1e-9)


def test_its_neighbours_share_half_of_their_noise_and_ours_none() -> None:
    rng = np.random.default_rng(2)
    warps = cut_warps(rng.normal(0, 1, (WIDTH, WIDTH)), LEGACY)
    theirs = reference_tract_background(warps, LEGACY.shape, bin_size=20)["level"].values[
        1:-1, 1:-1
    ]
    assert np.corrcoef(theirs[1:].ravel(), theirs[:-1].ravel())[0, 1] == pytest.approx(
        0.5, abs=0.06
    )
    grid = TractGrid(LEGACY.shape, (20, 20), LEGACY.inner_shape)
    ours = tract_background(warps, grid)["level"].values[0]
    assert abs(np.corrcoef(ours[1:].ravel(), ours[:-1].ravel())[0, 1]) < 0.06


def test_it_keeps_less_of_a_wave_of_four_bins() -> None:
    x = np.arange(-50, WIDTH - 50)
    wave = np.broadcast_to(np.sin(2 * np.pi * (x - 9.5) / 80), (WIDTH, WIDTH))
    level = reference_tract_background(cut_warps(wave, LEGACY), LEGACY.shape, bin_size=20)["level"]
    part = level.values[30, 2:-2]
    amplitude = 2 * abs((part * np.exp(0.5j * np.pi * np.arange(part.size))).mean())
    assert amplitude == pytest.approx(0.6366, abs=0.03)


@pytest.mark.parametrize(
    ("axis", "box", "inner", "first", "last"),
    [
        (1, (3900, 4220, 3900, 8100), (4000, 4000), 68, 28),
        (0, (3900, 8100, 0, 320), (4000, 4000), -32, -72),
        (1, (2800, 3200, 2800, 6200), (3000, 3000), 168, 160),
    ],
    ids=["interior", "left edge", "cells"],
)
def test_its_images_lie_beside_their_place_and_ours_do_not(
    axis: int, box: tuple[int, int, int, int], inner: tuple[int, int], first: float, last: float
) -> None:
    grid = TractGrid((12800, 12800), (128, 128), (12800, 12800))
    level = np.stack(np.meshgrid(*grid.centers, indexing="ij"))[axis]
    true = np.arange(*box[2 * axis : 2 * axis + 2])
    middle = (slice(None), 100) if axis == 0 else (100, slice(None))
    ours = tract_image(level, grid, box).values[middle]
    assert float(np.abs(ours - true).max()) <= 1e-3
    shift = reference_tract_image(level, box, inner).values[middle] - true
    assert shift[40] == pytest.approx(first, abs=1.5)
    assert shift[-40] == pytest.approx(last, abs=1.5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="bin_size must be even"):
        reference_tract_background([], (100, 100), bin_size=25)
    with pytest.raises(GeometryError, match="has no bin of 128"):
        reference_tract_background([], (100, 100))
    with pytest.raises(GeometryError, match="has no cell of 64"):
        reference_tract_image(np.ones((3, 3)), (0, 50, 0, 50), (100, 100))
