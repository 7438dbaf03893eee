"""Where bins lie."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.background import (
    bin_centers,
    bin_count,
    bin_edges,
    box_of_background,
    box_of_image,
)
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from tests.algorithms.background.scenes import bins_of


@pytest.mark.parametrize(
    ("width", "bins", "ends"),
    [
        (99, 10, [10, 20, 30, 40, 50, 59, 69, 79, 89, 99]),
        (100, 7, [14, 29, 43, 57, 71, 86, 100]),
        (4072, 32, [127, 255, 382, 509, 636, 764, 891, 1018]),
    ],
)
def test_edges_spread_the_remainder(width, bins, ends):
    edges = bin_edges(width, bins)
    assert edges[0] == 0
    assert edges[-1] == width
    assert edges[1 : len(ends) + 1].tolist() == ends


def test_bins_tile_any_width_evenly():
    for width in range(1, 60):
        for bins in range(1, width + 1):
            sizes = np.diff(bin_edges(width, bins))
            assert sizes.sum() == width
            assert sizes.min() >= 1
            assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("width", "nearest", "ceil"), [(47, 1, 2), (4072, 127, 128), (48, 2, 2), (3, 1, 1), (64, 2, 2)]
)
def test_the_two_rules_count_bins_as_specified(width, nearest, ceil):
    assert bin_count(width, 32) == nearest
    assert bin_count(width, 32, rule="ceil") == ceil


def test_more_bins_than_pixels_are_refused():
    with pytest.raises(ConfigurationError, match="3 pixels, got 5"):
        bin_edges(3, 5)


@pytest.mark.parametrize(("width", "size"), [(0, 32), (10, 0)])
def test_nothing_to_tile_is_refused(width, size):
    with pytest.raises(GeometryError, match=">= 1"):
        bin_count(width, size)


def test_an_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="'nearest' or 'ceil', got 'floor'"):
        bin_count(10, 2, rule="floor")


def test_centres_are_those_of_the_pixels_in_a_bin():
    edges = bin_edges(99, 10)
    expected = [100 + np.arange(a, b).mean() for a, b in itertools.pairwise(edges)]
    assert bin_centers(edges, 100).tolist() == expected


def test_the_box_of_an_image_is_that_of_its_coordinates():
    image = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"), coords={"y": [-5, -4, -3]})
    assert box_of_image(image) == (-5, -2, 0, 4)
    with pytest.raises(GeometryError, match="one by one"):
        box_of_image(image.isel(y=[0, 2]))
    with pytest.raises(GeometryError, match="pixels along x"):
        box_of_image(image.isel(x=slice(0, 0)))


def test_the_box_of_a_background_must_hold_its_bins():
    assert box_of_background(bins_of(np.zeros((2, 3)), [0, 2, 5, 9])).shape == (2, 4)
    with pytest.raises(GeometryError, match="cannot be tiled"):
        box_of_background(bins_of(np.zeros((2, 3)), [0, 1, 5, 9]))
    with pytest.raises(GeometryError, match="box must be"):
        box_of_background(bins_of(np.zeros((2, 3)), [0, 1]))
    with pytest.raises(GeometryError, match="no attribute box"):
        box_of_background(bins_of(np.zeros((2, 3)), [0, 2, 0, 3]).drop_attrs())
