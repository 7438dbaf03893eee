"""What a solution holds in memory beyond its inputs: a tile of all visits, and the planes."""

from __future__ import annotations

import tracemalloc

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, solve_dcr
from tests.algorithms.dcr.analytic import NORTH_UP, G, dozen, scene

SIDE, FWHM = 60, 3.0


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the frequencies that noise is computed at be few beside the pixels, as for a patch."""
    monkeypatch.setattr("skyloom.algorithms.dcr.solving.GRID", (24, 24))


def held_bytes(columns: int, visits: int, tile: int) -> int:
    """Return the most memory that a patch of a few squares beside each other takes."""
    rng = np.random.default_rng(1)
    table, stars = dozen(rng, visits), scene(rng, SIDE, 4)
    part = stars.render(table, FWHM).astype(np.float32)
    light = da.tile(da.from_array(part, chunks=(1, SIDE, SIDE)), (1, 1, columns))
    dims = (v.VISIT, v.Y, v.X)
    warps = xr.Dataset(
        {
            "image": (dims, light, {"units": v.NANOJANSKY}),
            "variance": (dims, da.full_like(light, 25.0)),
            v.MASK: (dims, da.zeros_like(light, dtype=np.int32), v.mask_attributes()),
            "psf_fwhm": (v.VISIT, np.full(visits, FWHM)),
        },
        {v.VISIT: np.arange(visits)},
    )
    mean = np.tile(part.mean(axis=0), (1, columns))
    mask = np.where(mean > 5.0, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)
    template = xr.Dataset(
        {
            "image": ((v.Y, v.X), mean, {"units": v.NANOJANSKY}),
            "variance": ((v.Y, v.X), np.full_like(mean, 25.0 / visits)),
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        }
    )
    parameters = LinearParameters(tile=tile, max_iterations=1, outlier_factor=1e9)
    with dask.config.set(scheduler="synchronous"):
        tracemalloc.start()
        try:
            solve_dcr(warps, table, G, template, jacobian=NORTH_UP, parameters=parameters)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.NotConvergedWarning")
def test_a_patch_takes_little_more_than_one_of_its_tiles() -> None:
    held_bytes(1, 4, SIDE)  # compiles
    small, large = (held_bytes(columns, 12, SIDE) for columns in (3, 6))
    per_pixel = (large - small) / (3 * SIDE**2)
    assert per_pixel < 80  # planes, sums and masks; what twelve visits are is 144


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.NotConvergedWarning")
def test_a_tile_takes_a_few_images_of_each_visit() -> None:
    columns, visits = 4, 24
    per_pixel = held_bytes(columns, visits, columns * SIDE) / (columns * SIDE**2)
    assert per_pixel < 31 * visits  # image and weight, and what they are read and made from
