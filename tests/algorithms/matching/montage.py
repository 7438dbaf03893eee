"""Montage, where its programs are installed: planes that match images, from files.

Images of a scene lie on one tangent plane; a table of overlaps and one of the planes of
differences is what `mBgModel` solves.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v

__all__ = [
    "MontageScene",
    "binned_scene",
    "montage_is_there",
    "montage_scene",
    "plane_error",
    "planes_of_match",
    "prepare_montage",
    "run_model",
]

PROGRAMS = ("mImgtbl", "mOverlaps", "mDiffExec", "mFitExec", "mBgModel")
FRAME = 2000  # pixel; all images lie in it
SCALE = 1.0 / 3600


class MontageScene(NamedTuple):
    """Images (visit, y, x), NaN-free, and the corners (y, x) of each in the frame."""

    images: NDArray[np.float32]
    corners: NDArray[np.int64]


def montage_is_there() -> bool:
    """Return whether all programs are found."""
    return all(shutil.which(program) for program in PROGRAMS)


def header_of(corner: NDArray[np.int64]) -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"] = FRAME / 2 + 0.5 - float(corner[1])
    header["CRPIX2"] = FRAME / 2 + 0.5 - float(corner[0])
    header["CDELT1"], header["CDELT2"] = -SCALE, SCALE
    header["CROTA2"] = 0.0
    header["EQUINOX"] = 2000.0
    return header


def run(folder: Path, *command: str) -> str:
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    if 'stat="ERROR"' in answer:
        raise RuntimeError(f"{' '.join(command)}: {answer}")
    return answer


def prepare_montage(folder: Path, scene: MontageScene) -> int:
    """Write images and fit the planes of all differences; return how many overlaps there are."""
    (folder / "images").mkdir()
    (folder / "diffs").mkdir()
    for index, (image, corner) in enumerate(zip(*scene, strict=True)):
        header = header_of(corner)
        fits.PrimaryHDU(image, header).writeto(folder / "images" / f"v{index:03d}.fits")
        # differences want the area of each image
        area = fits.PrimaryHDU(np.ones_like(image), header)
        area.writeto(folder / "images" / f"v{index:03d}_area.fits")
    lines = ["SIMPLE  = T", "BITPIX  = -64", "NAXIS   = 2"]
    lines += [f"NAXIS{axis}  = {FRAME}" for axis in (1, 2)]
    lines += [f"{key:8s}= {value!r}" for key, value in header_of(np.zeros(2, np.int64)).items()]
    (folder / "frame.hdr").write_text("\n".join([*lines, "END"]) + "\n")
    run(folder, "mImgtbl", "images", "images.tbl")
    text = (folder / "images.tbl").read_text().splitlines()
    kept = [line for line in text if "_area" not in line]
    (folder / "images.tbl").write_text("\n".join(kept) + "\n")
    run(folder, "mOverlaps", "images.tbl", "diffs.tbl")
    run(folder, "mDiffExec", "-p", "images", "diffs.tbl", "frame.hdr", "diffs")
    run(folder, "mFitExec", "diffs.tbl", "fits.tbl", "diffs")
    return len(table_rows(folder / "diffs.tbl"))


def run_model(
    folder: Path, iterations: int = 5000, *options: str
) -> tuple[NDArray[np.float64], float]:
    """Return the level, slope in y and slope in x about the middle of the frame, and seconds."""
    started = time.perf_counter()
    command = ["mBgModel", "-i", str(iterations), *options]
    run(folder, *command, "images.tbl", "fits.tbl", "corrections.tbl")
    seconds = time.perf_counter() - started
    names = {}
    for line in table_rows(folder / "images.tbl"):
        names[int(line[0])] = int(Path(line[-1]).stem[1:])
    planes = np.zeros((len(names), 3))
    for line in table_rows(folder / "corrections.tbl"):
        in_x, in_y, level = (float(word) for word in line[1:4])
        planes[names[int(line[0])]] = level, in_y, in_x
    return planes, seconds


def table_rows(path: Path) -> list[list[str]]:
    lines = path.read_text().splitlines()
    return [line.split() for line in lines if line[:1] not in ("|", "\\")]


def montage_scene(
    rng: np.random.Generator, side: int, spacing: int, count: int
) -> tuple[MontageScene, NDArray[np.float64]]:
    """Return ``count`` by ``count`` images of stars and one wide, faint object, noise 1 a pixel.

    Corners are multiples of 10 pixels. With it the level and slopes (y, x) of each image about the
    middle of the frame.
    """
    first = FRAME // 20 * 10 - (spacing * (count - 1) + side) // 20 * 10
    grid = np.indices((count, count)).reshape(2, -1).T * spacing + first
    y, x = np.mgrid[:FRAME, :FRAME] - (FRAME / 2 - 0.5)
    sky = 10.0 * np.exp(-0.5 * (y**2 + x**2) / 60.0**2)
    stars = rng.integers(first, FRAME - first, (2, 4 * count**2))
    sky[stars[0], stars[1]] += rng.exponential(100.0, stars.shape[1])
    planes = rng.normal(0.0, 1.0, (count**2, 3)) * [50.0, 0.1, 0.1]
    images = np.empty((count**2, side, side), np.float32)
    for image, (level, in_y, in_x), (row, column) in zip(images, planes, grid, strict=True):
        part = slice(row, row + side), slice(column, column + side)
        image[:] = sky[part] + level + in_y * y[part] + in_x * x[part]
        image += rng.standard_normal(image.shape)
    return MontageScene(images, grid), planes


def binned_scene(scene: MontageScene, size: int = 10) -> xr.Dataset:
    """Return the levels of the images in bins of the part of the frame that they cover."""
    low = scene.corners.min(axis=0)
    shape = scene.corners.max(axis=0) - low + scene.images.shape[1]
    bins = shape // size
    level = np.full((len(scene.images), *bins), np.nan)
    cut = scene.images.shape[1] // size
    for visit, (image, corner) in enumerate(zip(*scene, strict=True)):
        row, column = (corner - low) // size
        means = image.astype(np.float64).reshape(cut, size, cut, size).mean(axis=(1, 3))
        level[visit, row : row + cut, column : column + cut] = means
    variance = np.where(np.isfinite(level), 1.0 / size**2, np.nan)
    dims = (v.VISIT, v.TRACT_Y, v.TRACT_X)
    return xr.Dataset(
        {"level": (dims, level), "variance": (dims, variance)},
        {v.VISIT: np.arange(len(level))},
        {"tract_shape": [int(side) for side in shape], "bin_size": [size, size]},
    )


def plane_error(
    planes: NDArray[np.float64], truth: NDArray[np.float64], scene: MontageScene
) -> float:
    """Return the rms over all pixels of images of what planes leave, less a common plane."""
    rest = planes - truth
    rest -= rest.mean(axis=0)
    at = np.arange(scene.images.shape[1]) - (FRAME / 2 - 0.5)
    squares = []
    for (level, in_y, in_x), (row, column) in zip(rest, scene.corners, strict=True):
        field = level + np.add.outer(in_y * (at + row), in_x * (at + column))
        squares.append((field**2).mean())
    return float(np.sqrt(np.mean(squares)))


def planes_of_match(match: xr.Dataset, scene: MontageScene) -> NDArray[np.float64]:
    """Return the fields of a match as level, slope in y and slope in x about the frame's middle."""
    height, width = match.attrs["tract_shape"]
    level, in_x, in_y = match["coefficients"].values.T
    # positions of the middle of the frame in the part that has bins
    y, x = FRAME / 2 - 0.5 - scene.corners.min(axis=0)
    in_y, in_x = 2.0 * in_y / height, 2.0 * in_x / width
    level = level + in_y * (y - (height - 1) / 2) + in_x * (x - (width - 1) / 2)
    return np.column_stack([level, in_y, in_x])
