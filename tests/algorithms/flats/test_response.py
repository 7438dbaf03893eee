"""Pixels and amplifiers that do not respond are BAD, and named."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.flats import UnresponsiveWarning, flag_unresponsive


def table() -> xr.Dataset:
    """Return two amplifiers of 4 x 3 pixels side by side."""
    edges = {"y_start": [0, 0], "y_stop": [4, 4], "x_start": [0, 3], "x_stop": [3, 6]}
    columns = edges | {f"data_{name}": value for name, value in edges.items()}
    return xr.Dataset({k: ("amp", x) for k, x in columns.items()}, coords={"amp": ["A", "B"]})


def flat(planes: int = 2) -> xr.Dataset:
    image = np.ones((4, 6), np.float32)
    mask = np.full(image.shape, planes, np.int32)
    return xr.Dataset(
        {
            "image": ((v.Y, v.X), image, {"units": ""}),
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        }
    )


def test_low_pixels_get_the_plane_and_keep_value_and_other_planes() -> None:
    given = flat()
    given["image"][1, 2] = 0.05
    before = given.copy(deep=True)
    found = flag_unresponsive(given, 0.1, amplifiers=table())
    wanted = np.full((4, 6), 2)
    wanted[1, 2] = 3
    np.testing.assert_array_equal(found["mask"], wanted)
    assert found["mask"].dtype == np.int32
    assert found["mask"].attrs == before["mask"].attrs
    np.testing.assert_array_equal(found["image"], before["image"])
    xr.testing.assert_identical(given, before)


def test_amplifiers_are_named_from_half_their_pixels_on() -> None:
    given = flat()
    given["image"][:2, 3:] = 0.0
    with pytest.warns(UnresponsiveWarning, match=r"amplifiers B respond with less than 0\.1"):
        flag_unresponsive(given, 0.1, amplifiers=table())
    given["image"][0, 3] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = flag_unresponsive(given, 0.1, amplifiers=table())
    assert int((found["mask"] & 1).sum()) == 5


def test_the_order_of_dimensions_does_not_matter_and_nan_is_not_low() -> None:
    given = flat(0)
    given["image"][0, 0] = 0.0
    given["image"][3, 5] = np.nan
    turned = given.transpose(v.X, v.Y)
    found = flag_unresponsive(turned, 0.1, amplifiers=table())
    np.testing.assert_array_equal(
        found["mask"].transpose(v.Y, v.X), [[1, *[0] * 5], *[[0] * 6] * 3]
    )


def test_planes_of_another_legend_are_set_by_it() -> None:
    given = flat(0)
    given[v.MASK].attrs = {"flag_masks": [1, 8], "flag_meanings": "SAT BAD"}
    given["image"][0, 0] = 0.0
    assert flag_unresponsive(given, 0.1)["mask"][0, 0] == 8


def test_a_flat_without_mask_or_plane_is_refused() -> None:
    with pytest.raises(KeyError, match="no variable 'mask', it has"):
        flag_unresponsive(flat().drop_vars("mask"), 0.1)
    given = flat()
    given[v.MASK].attrs = {"flag_masks": [1], "flag_meanings": "SAT"}
    with pytest.raises(KeyError, match="unknown mask plane 'BAD'"):
        flag_unresponsive(given, 0.1)
