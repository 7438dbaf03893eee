"""Detectors and calibrations that the tests of detrending share."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.simulate import amplifier_grid

HEIGHT, WIDTH, OVERSCAN = 60, 48, 16


@pytest.fixture
def table() -> xr.Dataset:
    """Return four amplifiers that are read towards the four corners."""
    found = amplifier_grid(
        "R0", (2, 2), (HEIGHT, WIDTH), overscan=OVERSCAN, read_noise=5.0, saturation=60_000.0
    )
    found["gain"][:] = [1.2, 1.5, 1.8, 0.9]
    found["flip_x"][:] = [False, True, False, True]
    found["flip_y"][:] = [False, False, True, True]
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(12)
