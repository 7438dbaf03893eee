"""What the extraction of a pair holds at its worst moment, in images of its block."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Compiled code allocates beside Python's own books, so the process is asked for its size.
MEASURE = """
import json, sys
import numpy as np, xarray as xr
from skyloom.algorithms.photon_transfer.extraction import extract_detector
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.simulate.amplifiers import amplifier_grid
from tests.benchmarks.peak_memory import grown_bytes

def flats(shape, grid):
    table = amplifier_grid("R0", grid, shape, overscan=32)
    rng = np.random.default_rng(1)
    size = grid[0] * shape[0], grid[1] * (shape[1] + 32)
    images = []
    for _ in "ab":
        image = np.empty(size, np.uint16)
        for row in image:
            row[:] = rng.normal(21_000.0, 100.0, size[1])
        for column in range(grid[1]):
            start = column * (shape[1] + 32) + shape[1]
            image[:, start : start + 32] = rng.normal(1000.0, 5.0, (size[0], 32))
        images.append(xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})}))
    return images, table

side, grid, region = json.loads(sys.argv[1])
parameters = ExtractParameters(region=region, gaussian_test="none")
small, table = flats((800 // grid[0], 800 // grid[1]), grid)
extract_detector(*small, table, parameters=parameters)
large, table = flats((side // grid[0], side // grid[1]), grid)
grown, pair = grown_bytes(lambda: extract_detector(*large, table, parameters=parameters))
assert (pair["pair_status"] == 0).all()
print(grown / (4.0 * side * side))
"""


@pytest.mark.parametrize(
    ("grid", "region", "limit"),
    [((1, 1), "AMP", 3.0), ((2, 8), "AMP", 0.5), ((2, 8), "DETECTOR", 3.0)],
)
def test_a_pair_needs_at_most_three_images_beyond_its_inputs(grid, region, limit):
    arguments = json.dumps([4000, grid, region])
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    images = float(found.stdout)
    print(f"{grid} {region}: {images:.2f} float32 images of the block")
    assert 0.0 < images <= limit
