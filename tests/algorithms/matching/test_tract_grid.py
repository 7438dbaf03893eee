"""Bins tile a tract, each in one patch unless told otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.matching import TractGrid, tract_grid
from skyloom.algorithms.skymap import SkyMapParameters, patch_boxes, rings_skymap
from tests.algorithms.matching.tracts import LEGACY

SURVEY = rings_skymap()[9813]
CELLS = rings_skymap(SkyMapParameters(patches="cells"))[9813]


def test_bins_divide_patches_unless_chosen() -> None:
    assert tract_grid(SURVEY).bin_size == (160, 160)
    assert tract_grid(SURVEY, bin_size=125).bins == (224, 224)
    cells = tract_grid(CELLS)
    assert cells.bin_size == (150, 150)
    assert cells.bins == (200, 200)
    assert tract_grid(SURVEY, bin_size=(100, 125)).bins == (280, 224)


def test_a_size_that_does_not_divide_the_patch_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match="128 along y does not divide the 4000") as caught:
        tract_grid(SURVEY, bin_size=128)
    assert "100, 125, 160" in str(caught.value)
    assert "allow_partials" in str(caught.value)
    partial = tract_grid(SURVEY, bin_size=128, allow_partials=True)
    assert partial.has_partials
    assert partial.bins == (219, 219)
    assert not tract_grid(SURVEY).has_partials


def test_bins_larger_than_patches_must_tile_the_tract() -> None:
    assert tract_grid(CELLS, bin_size=6000).bins == (5, 5)
    assert tract_grid(CELLS, bin_size=6000).has_partials
    with pytest.raises(ConfigurationError, match="7000 along y does not divide"):
        tract_grid(CELLS, bin_size=7000)


@given(side=st.tuples(st.integers(1, 400), st.integers(1, 400)))
def test_every_pixel_is_in_one_bin(side: tuple[int, int]) -> None:
    grid = TractGrid((600, 900), side, (300, 300), allow_partials=True)
    assert grid.areas.sum() == 600 * 900
    assert grid.areas.shape == grid.bins
    assert grid.areas.min() > 0
    for edges, centers, size, width in zip(grid.edges, grid.centers, grid.shape, side, strict=True):
        assert edges[0] == 0
        assert edges[-1] == size
        assert (np.diff(edges)[:-1] == width).all()
        np.testing.assert_array_equal(centers, 0.5 * (edges[:-1] + edges[1:] - 1))
        np.testing.assert_array_equal(centers[:-1], (np.arange(edges.size - 2) + 0.5) * width - 0.5)


@pytest.mark.parametrize("tract", [SURVEY, CELLS])
def test_bins_lie_in_one_patch(tract: object) -> None:
    grid = tract_grid(tract)
    counted = np.zeros(grid.bins, int)
    for index, box in enumerate(patch_boxes(tract, region="inner")):
        counted[grid.slices(box)] += 1
        assert grid.inner_box(index) == tuple(box)
    assert (counted == 1).all()


@pytest.mark.parametrize(
    "box", [(0, 100, 0, 99), (1, 100, 0, 100), (0, 0, 0, 100), (0, 1250, 0, 25)]
)
def test_boxes_that_bins_do_not_tile_are_refused(box: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="not tiled by bins"):
        tract_grid(LEGACY, bin_size=25).slices(box)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(GeometryError, match=">= 1 pixel"):
        tract_grid(LEGACY, bin_size=0)
    with pytest.raises(GeometryError, match="do not tile 1000 along x"):
        TractGrid((900, 1000), (25, 25), (300, 300))
    with pytest.raises(IndexError, match="patches 0 to 15"):
        tract_grid(LEGACY).inner_box(16)
    with pytest.raises(GeometryError, match="box must be"):
        tract_grid(LEGACY).slices((0, 300))
