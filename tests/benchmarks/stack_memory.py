"""Time and memory of stacking large images from disk, each way in a process of its own.

``python -m tests.benchmarks.stack_memory WAY FOLDER`` stacks what `write_images` wrote and prints
seconds of work and the growth of the process in bytes, as JSON. Work is counted in seconds of the
processor, of all threads: other work on the machine lengthens it least; the seconds that passed
are told beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks.peak_memory import grown_bytes

ROOT = Path(__file__).resolve().parents[2]


class Cost(NamedTuple):
    """What a way of stacking took."""

    seconds: float
    wall_seconds: float
    grown_bytes: int
    mean: float


def write_images(folder: Path, side: int, number: int) -> None:
    """Write noisy images with outliers, each as FITS and all as one Zarr array of 1024² chunks."""
    import zarr
    from astropy.io import fits

    chunk = min(side, 1024)
    array = zarr.create_array(
        store=folder / "images.zarr",
        shape=(number, side, side),
        chunks=(1, chunk, chunk),
        dtype="float32",
        compressors=None,
    )
    for i in range(number):
        rng = np.random.default_rng(i)
        image = 1000.0 + 30.0 * rng.standard_normal((side, side), dtype=np.float32)
        hits = rng.integers(0, side, (2, side * side // 1000))
        image[hits[0], hits[1]] += 5000.0
        array[i] = image
        hdu = fits.PrimaryHDU(image)
        hdu.header["BUNIT"] = "adu"
        hdu.writeto(folder / f"image_{i:02d}.fits")


def _ours(folder: Path) -> Any:
    import xarray as xr
    import zarr
    from xarray.backends.zarr import ZarrArrayWrapper
    from xarray.core.indexing import LazilyIndexedArray

    from skyloom.algorithms.statistics import stack

    array = zarr.open_array(store=folder / "images.zarr", mode="r")
    lazily = xr.Variable(("exposure", "y", "x"), LazilyIndexedArray(ZarrArrayWrapper(array)))
    return stack(xr.DataArray(lazily, attrs={"units": "adu"}))["image"].values


def _ccdproc(folder: Path) -> Any:
    from ccdproc import combine

    files = sorted(map(str, folder.glob("image_*.fits")))
    return combine(
        files,
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=3,
        sigma_clip_high_thresh=3,
        sigma_clip_func=np.ma.median,
        unit="adu",
        dtype="float32",
    ).data


def _astropy(folder: Path) -> Any:
    from astropy.io import fits
    from astropy.stats import sigma_clip

    images = np.stack([fits.getdata(name) for name in sorted(folder.glob("image_*.fits"))])
    return sigma_clip(images, sigma=3, maxiters=3, axis=0, copy=False).mean(axis=0)


WAYS = {"skyloom": _ours, "ccdproc.combine": _ccdproc, "astropy.stats.sigma_clip": _astropy}


def cost_of(way: str, folder: Path) -> Cost:
    """Return what a way of stacking takes, in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.stack_memory", way, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def main(way: str, folder: Path) -> None:
    """Stack a few rows to load and compile everything, then all; print the cost of all."""
    warnings.simplefilter("ignore")
    small = folder / "small"
    if not small.exists():
        small.mkdir()
        write_images(small, 32, 4)
    WAYS[way](small)
    start, passed = time.process_time(), time.perf_counter()
    grown, stacked = grown_bytes(lambda: WAYS[way](folder))
    seconds, passed = time.process_time() - start, time.perf_counter() - passed
    print(json.dumps([seconds, passed, grown, float(np.mean(stacked, dtype=np.float64))]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
