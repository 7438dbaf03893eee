"""What a solution holds in memory beyond its inputs: planes, and what is kept of visits."""

from __future__ import annotations

import gc
import tracemalloc

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, solve_dcr
from tests.algorithms.dcr.analytic import NORTH_UP, G, dozen, scene

SIDE, FWHM, ROWS = 60, 3.0, 3


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the frequencies that noise is computed at be few beside the pixels, as for a patch."""
    monkeypatch.setattr("skyloom.algorithms.dcr.solving.GRID", (24, 24))


def held_bytes(columns: int, visits: int, memory: float) -> int:
    """Return the most memory that a patch of some columns of squares takes."""
    rng = np.random.default_rng(1)
    table, stars = dozen(rng, visits), scene(rng, SIDE, 4)
    part = stars.render(table, FWHM).astype(np.float32)
    light = da.from_array(np.tile(part, (1, ROWS, columns)), chunks=(1, -1, -1))
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
    mean = np.tile(part.mean(axis=0), (ROWS, columns))
    mask = np.where(mean > 5.0, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)
    template = xr.Dataset(
        {
            "image": ((v.Y, v.X), mean, {"units": v.NANOJANSKY}),
            "variance": ((v.Y, v.X), np.full_like(mean, 25.0 / visits)),
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        }
    )
    parameters = LinearParameters(memory=memory, max_iterations=1, outlier_factor=1e9)
    with dask.config.set(scheduler="synchronous"):
        gc.collect()  # when cycles go next depends on what was made before
        tracemalloc.start()
        try:
            solve_dcr(warps, table, G, template, jacobian=NORTH_UP, parameters=parameters)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.NotConvergedWarning")
def test_a_patch_takes_a_few_images_of_each_plane_and_what_is_kept_of_visits() -> None:
    per_pixel = {}
    for memory in (0.0, 1.0):
        held_bytes(1, 4, memory)  # compiles, and fills what is kept between calls
        small, large = (held_bytes(columns, 12, memory) for columns in (1, 5))
        per_pixel[memory] = (large - small) / (4 * ROWS * SIDE**2)
    # Room above and below this narrow patch adds 22 %.
    assert per_pixel[0.0] < 1.22 * 220
    assert per_pixel[1.0] - per_pixel[0.0] < 12 * 9.5  # images and weights
