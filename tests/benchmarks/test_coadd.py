"""Coadds and artifact rejection beside ccdproc, SWarp, plain numpy and the reference."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData
from ccdproc import Combiner

from skyloom.algorithms.coadd import (
    accumulate,
    coadd,
    find_candidates,
    finish_coadd,
    static_sky,
    warp_weight,
)
from skyloom.algorithms.vocabulary import mask_attributes
from tests.validation.coadds import write_for_swarp

NUMBER, SIDE, MANY = 20, 1024, 50
DIMS = ("visit", "y", "x")


def warps_of(number: int) -> xr.Dataset:
    """Return noisy warps with outliers, and masks of 5 per cent of the pixels."""
    rng = np.random.default_rng(1)
    shape = (number, SIDE, SIDE)
    image = 100.0 + 30.0 * rng.standard_normal(shape, dtype=np.float32)
    image[rng.random(shape, dtype=np.float32) < 1e-3] += 5000.0
    bits = np.where(rng.random(shape, dtype=np.float32) < 0.05, np.int32(2), np.int32(0))
    variance = 900.0 + 9.0 * rng.standard_normal(shape, dtype=np.float32)
    return xr.Dataset(
        {
            "image": (DIMS, image, {"units": "nJy"}),
            "mask": (DIMS, bits, mask_attributes()),
            "variance": (DIMS, variance),
        },
        coords={"visit": np.arange(number)},
    )


@pytest.fixture(scope="module")
def warps() -> xr.Dataset:
    return warps_of(NUMBER)


def test_clipped_coadd(compare, warps):
    weights = np.linspace(0.5, 1.5, NUMBER)
    compare(
        "clipped coadd with variances, weights given",
        lambda: coadd(warps, statistic="clipped_mean", weights=weights),
        size=f"{NUMBER} x {SIDE}² float32, masked",
        published_s=1.22,
        target=8.0,
        moved_bytes=12.0 * warps["image"].size,
    )


def test_mean_coadd(compare, warps):
    weights = np.linspace(0.5, 1.5, NUMBER)
    compare(
        "mean coadd with masks and variances, weights given",
        lambda: coadd(warps, weights=weights),
        size=f"{NUMBER} x {SIDE}² float32, masked",
        published_s=0.26,
        target=5.0,
        moved_bytes=12.0 * warps["image"].size,
    )


def test_mean_coadd_without_masks(compare, peer, warps):
    bare, weights = warps.drop_vars("mask"), np.linspace(0.5, 1.5, NUMBER)
    values = warps["image"].values
    compare(
        "mean coadd with variances, weights given",
        lambda: coadd(bare, weights=weights),
        size=f"{NUMBER} x {SIDE}² float32",
        peers=(peer("numpy.average", lambda: np.average(values, axis=0, weights=weights)),),
        published_s=0.26,
        target=5.0,
        moved_bytes=8.0 * values.size,
    )


def test_coadd_of_one_warp_after_the_other(compare, warps):
    each, weights = [warps.isel(visit=i) for i in range(NUMBER)], np.linspace(0.5, 1.5, NUMBER)
    compare(
        "mean coadd, one warp after the other, weights given",
        lambda: finish_coadd(accumulate(each, weights=weights)),
        size=f"{NUMBER} x {SIDE}² float32, masked",
        published_s=0.26,
        moved_bytes=12.0 * warps["image"].size,
    )


def test_weights(compare, warps):
    compare(
        "weights of warps",
        lambda: warp_weight(warps),
        size=f"{NUMBER} x {SIDE}² float32, masked",
        moved_bytes=12.0 * warps["image"].size,
    )


def test_candidates_of_a_visit(compare, warps):
    sky = static_sky(warps)
    warp = warps.isel(visit=0)
    compare(
        "artifact candidates of a visit",
        lambda: find_candidates(warp, sky, psf_sigma=3.0),
        size=f"{SIDE}² float32",
        moved_bytes=32.0 * SIDE**2,
    )


def test_clipped_coadd_of_many_warps_beside_ccdproc(compare, peer):
    warps = warps_of(MANY)
    bad = warps["mask"].values != 0
    weights = np.linspace(0.5, 1.5, MANY)

    def by_ccdproc():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = [
                CCDData(image, unit=units.adu, mask=mask)
                for image, mask in zip(warps["image"].values, bad, strict=True)
            ]
            combiner = Combiner(images, dtype=np.float32)
            combiner.weights = weights
            combiner.sigma_clipping(low_thresh=3, high_thresh=3, func=np.ma.median)
            combiner.average_combine()

    compare(
        "clipped coadd with variances, weights given",
        lambda: coadd(warps, statistic="clipped_mean", weights=weights),
        size=f"{MANY} x {SIDE}² float32, masked",
        peers=(peer("ccdproc.Combiner", by_ccdproc, target=5.0, rounds=1),),
        rounds=3,
    )


def by_skyloom(folder: Path) -> np.ndarray:
    """Coadd what `write_for_swarp` wrote, from files to a file."""
    warps = []
    for visit in range(MANY):
        image = fits.getdata(folder / f"w{visit:03d}.fits")
        weight = fits.getdata(folder / f"w{visit:03d}.weight.fits")
        with np.errstate(divide="ignore"):
            variance = 1.0 / weight.astype(np.float32)
        planes = {"image": (("y", "x"), image), "variance": (("y", "x"), variance)}
        warps.append(xr.Dataset(planes, coords={"visit": visit}))
    made = coadd(warps, statistic="clipped_mean")
    fits.PrimaryHDU(made["image"].values).writeto(folder / "ours.fits", overwrite=True)
    fits.PrimaryHDU(made["variance"].values).writeto(folder / "var.fits", overwrite=True)
    return made["image"].values


def test_clipped_coadd_from_files_beside_swarp(benchmark, tmp_path):
    warps = warps_of(MANY)
    weights = np.where(warps["mask"].values == 0, np.float32(1.0 / 900.0), np.float32(0.0))
    command = write_for_swarp(tmp_path, warps["image"].values, weights)
    del warps
    ours = benchmark.pedantic(by_skyloom, args=(tmp_path,), rounds=3, warmup_rounds=1)
    row = {
        "name": "clipped coadd, from FITS files to FITS files, seconds of the processor",
        "size": f"{MANY} x {SIDE}² float32, weight maps",
        "ours_s": benchmark.stats.stats.min,
        "peer": "SWarp, COMBINE_TYPE CLIPPED" if command else "SWarp is not installed",
        "target": 1.0,
    }
    if command:
        taken = []
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [*command, "-COMBINE_TYPE", "CLIPPED", "-CLIP_SIGMA", "3.0"],
                cwd=tmp_path,
                check=True,
                capture_output=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        row |= {"peer_s": min(taken), "ratio": min(taken) / row["ours_s"]}
        theirs = fits.getdata(tmp_path / "out.fits")
        assert np.median(np.abs(theirs - ours)) < 1.0  # a quarter of the noise of the coadd
    print(f"\n{row}")
    results = os.environ.get("SKYLOOM_BENCHMARK_RESULTS")
    if results:
        with Path(results).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
