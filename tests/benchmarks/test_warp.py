"""Warps beside the reference, SWarp and reproject."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.algorithms.warp import merge_warps, warp_exposure

SWARP = shutil.which("SWarp") or shutil.which("swarp")
MULTIPLY_ADDS = {"bilinear": 2 * 4, "lanczos3": 2 * 36, "lanczos5": 2 * 100}
SETTINGS = {
    "SUBTRACT_BACK": "N", "COMBINE": "N", "RESAMPLING_TYPE": "LANCZOS3", "NTHREADS": "1",
    "WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "in.weight.fits", "VERBOSE_TYPE": "QUIET",
    "WRITE_XML": "N", "IMAGEOUT_NAME": "out.fits", "DELETE_TMPFILES": "N",
}  # fmt: skip


def plane(turn: float, shape: tuple[int, int]) -> TangentPlane:
    """Return a tangent plane of 0.2 arcsec pixels around the centre of an image."""
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    matrix = 0.2 / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    return TangentPlane(150.0, 2.0, shape[1] / 2, shape[0] / 2, matrix)


def frame(shape: tuple[int, int]) -> xr.Dataset:
    """Return an exposure with 0.3 per cent of its pixels bad and 10 per cent flagged."""
    rng = np.random.default_rng(1)
    mask = np.where(rng.random(shape) < 0.003, v.MASK_PLANES["BAD"], 0)
    mask[:, : shape[1] // 10] |= v.MASK_PLANES["DETECTED"]
    return xr.Dataset(
        {
            "image": (("y", "x"), rng.normal(1e3, 30, shape).astype("f4"), {"units": "nJy"}),
            "variance": (("y", "x"), np.full(shape, 900, "f4")),
            "mask": (("y", "x"), mask.astype("i4"), v.mask_attributes()),
        }
    )


def swarp_folder(folder: Path, exposure: xr.Dataset, source: TangentPlane, target: TangentPlane):
    """Write what SWarp reads."""
    image = exposure["image"].values
    fits.writeto(folder / "in.fits", image, fits.Header(source.header()))
    fits.writeto(folder / "in.weight.fits", 1 / exposure["variance"].values)
    header = fits.PrimaryHDU(image).header
    header.update(target.header())
    (folder / "out.head").write_text(header.tostring(sep="\n", endcard=True, padding=False))


@pytest.mark.parametrize(("kernel", "published", "goal"), [
    ("lanczos3", 1.3, 10), ("bilinear", 0.3, 5), ("lanczos5", None, None),
])  # fmt: skip
def test_warp_with_variance_and_mask(compare, kernel, published, goal):
    shape = (2048, 2048)
    exposure, source, target = frame(shape), plane(3, shape), plane(0, shape)
    compare(
        f"warp with variance and mask, {kernel}",
        lambda: warp_exposure(exposure, source, target, (0, 2048, 0, 2048), kernel=kernel),
        size="2048², 0.3 % bad",
        published_s=published,
        target=goal,
        # planes in and out: image, variance, mask, and the masked fraction out
        moved_bytes=28.0 * shape[0] * shape[1],
        multiply_adds=float(MULTIPLY_ADDS[kernel] * shape[0] * shape[1]),
    )


def test_warp_onto_a_patch_beside_its_peers(compare, peer, tmp_path):
    reproject = pytest.importorskip("reproject")
    shape = (4096, 2048)
    exposure, source, target = frame(shape), plane(3, shape), plane(0, shape)
    given = exposure["image"].values, WCS(fits.Header(source.header()))
    wanted = WCS(fits.Header(target.header()))
    peers = [
        peer(
            "reproject_interp bicubic, the image alone",
            lambda: reproject.reproject_interp(given, wanted, shape_out=shape, order="bicubic"),
            target=2,
            rounds=1,
        ),
        peer(
            "reproject_adaptive, the image alone",
            lambda: reproject.reproject_adaptive(
                given, wanted, shape_out=shape, conserve_flux=True
            ),
            target=5,
            rounds=1,
        ),
    ]
    if SWARP is None:
        print("\nSWarp is not installed: no comparison with it")
    else:
        swarp_folder(tmp_path, exposure, source, target)
        options = [text for key, value in SETTINGS.items() for text in (f"-{key}", value)]
        command = [SWARP, "in.fits", "-c", "/dev/null", *options]

        def swarp():
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
            assert (tmp_path / "in.resamp.weight.fits").exists()

        peers.append(peer("SWarp, image and weight, files included", swarp, target=1.5, rounds=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(
            "warp of a detector onto a patch, lanczos3",
            lambda: warp_exposure(exposure, given[1], target, (0, shape[0], 0, shape[1])),
            size="2048 × 4096, variance and mask, 0.3 % bad",
            peers=tuple(peers),
            moved_bytes=28.0 * shape[0] * shape[1],
            multiply_adds=72.0 * shape[0] * shape[1],
            rounds=5,
        )


def test_merging_detectors_onto_a_patch(compare):
    shape = (2048, 2048)
    exposure, source = frame(shape), plane(0, shape)
    warps = [
        warp_exposure(
            exposure.assign_coords(detector=index),
            source._replace(x=source.x + 50.3 - 2000.0 * index),
            source,
            (0, 4200, 0, 4200),
        )
        for index in range(2)
    ]
    compare(
        "merging two detectors on a patch",
        lambda: merge_warps(warps),
        size="4200², image, variance, mask, fraction",
        moved_bytes=(2 + 1) * 16.0 * 4200**2,
        rounds=3,
    )
