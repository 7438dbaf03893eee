"""Polygons: brute force as oracle, outlines, laziness, mask planes, misuse."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.flats import inside_polygon, mask_vignetted
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

SHAPE = (14, 11)
CORNER = st.tuples(
    st.floats(-3, 15, allow_subnormal=False).map(lambda x: round(x, 3)),
    st.floats(-3, 15, allow_subnormal=False).map(lambda x: round(x, 3)),
)


def even_odd(shape, corners) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels are inside, and which are within rounding of the outline."""
    y, x = np.indices(shape).astype(float)
    inside, near = np.zeros(shape, bool), np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y0 != y1:
            crosses = (y0 <= y) != (y1 <= y)
            inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-30)
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1)
        distance = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
        near |= distance < 1e-9
    return inside, near


def empty_mask(*leading: int) -> xr.DataArray:
    dims = ("exposure", "y", "x")[-2 - len(leading) :]
    return xr.DataArray(np.zeros((*leading, *SHAPE), np.int32), dims=dims, attrs=mask_attributes())


@settings(max_examples=150, deadline=None)
@given(st.lists(CORNER, min_size=3, max_size=8))
def test_pixels_are_inside_by_the_even_odd_rule(corners):
    expected, near = even_odd(SHAPE, corners)
    found = inside_polygon(SHAPE, corners)
    np.testing.assert_array_equal(found[~near], expected[~near])


@pytest.mark.parametrize("turn", [1, -1])
def test_centres_on_the_outline_are_inside(turn):
    corners = [(2, 3), (7, 3), (7, 9), (2, 9)][::turn]
    found = inside_polygon(SHAPE, corners)
    expected = np.zeros(SHAPE, bool)
    expected[3:10, 2:8] = True
    np.testing.assert_array_equal(found, expected)
    diamond = inside_polygon(SHAPE, [(5, 1), (9, 5), (5, 9), (1, 5)][::turn])
    y, x = np.indices(SHAPE)
    np.testing.assert_array_equal(diamond, abs(y - 5) + abs(x - 5) <= 4)


def test_a_polygon_around_the_detector_masks_nothing():
    corners = [(0, 0), (SHAPE[1] - 1, 0), (SHAPE[1] - 1, SHAPE[0] - 1), (0, SHAPE[0] - 1)]
    assert inside_polygon(SHAPE, corners).all()
    xr.testing.assert_identical(mask_vignetted(empty_mask(), corners), empty_mask())
    xr.testing.assert_identical(mask_vignetted(empty_mask(), None), empty_mask())


def test_pixels_outside_are_vignetted_and_hold_no_data():
    mask = empty_mask(3)
    mask[1, 0, 0] = MASK_PLANES["BAD"]
    before = mask.copy(deep=True)
    corners = [(2, 3), (7, 3), (7, 9), (2, 9)]
    found = mask_vignetted(mask, corners)
    outside = MASK_PLANES["VIGNETTED"] | MASK_PLANES["NO_DATA"]
    expected = np.where(inside_polygon(SHAPE, corners), 0, outside)
    np.testing.assert_array_equal(found, mask.values | expected)
    assert (found.dims, found.dtype, found.attrs) == (mask.dims, mask.dtype, mask.attrs)
    xr.testing.assert_identical(mask, before)
    lazy = mask_vignetted(mask.chunk(exposure=1, y=5), corners)
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)


def test_a_mask_with_its_own_legend_keeps_it():
    legend = {"flag_masks": [1, 2], "flag_meanings": "NO_DATA VIGNETTED"}
    mask = xr.DataArray(np.zeros(SHAPE, np.uint8), dims=("y", "x"), attrs=legend)
    found = mask_vignetted(mask, [(0, 0), (3, 0), (0, 3)])
    assert set(np.unique(found)) == {0, 3}
    bare = mask.assign_attrs(flag_masks=[1], flag_meanings="NO_DATA").drop_attrs(deep=False)
    bare.attrs = {"flag_masks": [1], "flag_meanings": "NO_DATA"}
    with pytest.raises(KeyError, match="VIGNETTED"):
        mask_vignetted(bare, [(0, 0), (3, 0), (0, 3)])


def test_what_is_no_polygon_is_refused():
    with pytest.raises(ValueError, match="at least 3 corners"):
        inside_polygon(SHAPE, [(0, 0), (1, 1)])
    with pytest.raises(ValueError, match="must be finite"):
        inside_polygon(SHAPE, [(0, 0), (1, np.nan), (3, 3)])
