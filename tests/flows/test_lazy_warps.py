"""Stacks of images that are changed as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dcr_scene import DcrScene
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows.lazy_warps import changed


class Reading:
    """A change that knows where it is, and remembers what was read."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, slice, slice]] = []

    def __call__(
        self, image: NDArray[np.float32], index: int, rows: slice, columns: slice
    ) -> NDArray[np.float32]:
        self.parts.append((index, rows, columns))
        y, x = np.mgrid[rows, columns]
        return (image.astype(float) + 100 * index + 10 * y + x).astype(np.float32)


def whole(stack: xr.DataArray) -> NDArray[Any]:
    index, y, x = np.indices(stack.shape)
    return np.asarray(stack.values.astype(float) + 100 * index + 10 * y + x, np.float32)


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(2, 5), slice(1, 7)),
        (1, slice(None), slice(None)),
        (slice(None, None, -1), slice(1, 6, 2), 3),
        ([2, 0], slice(None), [6, 1, 1]),
        (2, 4, 5),
        (np.array([True, False, True]), [0, 5], [2, 3, 6]),
    ],
)
def test_every_part_is_what_it_is_in_the_whole(key: tuple[Any, ...]) -> None:
    stack = xr.DataArray(np.random.default_rng(1).random((3, 6, 8), "f4"), dims=("visit", "y", "x"))
    found = changed(stack, Reading()).isel(dict(zip(stack.dims, key, strict=True)))
    expected = stack.copy(data=whole(stack)).isel(dict(zip(stack.dims, key, strict=True)))
    np.testing.assert_array_equal(found.values, expected.values)


def test_nothing_is_read_before_it_is_needed_and_then_only_that(tmp_path: Path) -> None:
    store = DcrScene([-20.0, 0.0, 20.0], side=64, patch=64, stars=2).make(tmp_path / "store")
    block = {v.VISIT: [1, 2, 3], v.PATCH: "0-0"}
    stored = store.read_block("warps", block, lazy=True)["image"]
    reading = Reading()
    found = changed(stored, reading)
    part = found.isel({v.VISIT: [0, 2], v.Y: slice(8, 20)}).isel({v.X: slice(3, 9)})
    assert not reading.parts
    expected = whole(store.read_block("warps", block)["image"])
    np.testing.assert_array_equal(part.values, expected[[0, 2], 8:20, 3:9])
    assert reading.parts == [(0, slice(8, 20), slice(3, 9)), (2, slice(8, 20), slice(3, 9))]
    assert found.attrs == stored.attrs
