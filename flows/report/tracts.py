"""Tracts as reports show them: their patches, the detectors on them, coadds in bins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.boxes import Box
from skyloom.algorithms.skymap import Patch, SkyMapParameters, Tract
from skyloom.flows.patches import patch_label, sky_map_of
from skyloom.flows.report.tract_figures import BinnedPatch

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = [
    "MOST_TRACTS",
    "Seams",
    "binned_patch",
    "detector_outlines",
    "extent_of",
    "patches_of",
    "seams_of",
    "shared_box",
    "tract_named",
]

MOST_TRACTS = 6
"""Tracts that get figures; tables tell of all."""
MOST_BINS = 500  # along a side of a tract
LEAST_PIXELS = 0.5  # of a bin that has a value
MOST_DIFFERENCES = 400_000
MEAN_NOISE = 0.741301  # quartiles to standard deviations

Floats = NDArray[np.float64]


class Seams(NamedTuple):
    """How a patch and a neighbour differ at the same pixels, pixel noise as unit of ``pulls``."""

    first: str
    second: str
    pixels: int
    median: float
    rms: float
    largest: float
    pulls: Floats


def tract_named(store: Store, product: str, index: int) -> Tract:
    """Return a tract of the sky map that a product was made on."""
    parameters = SkyMapParameters.model_validate(store.attrs(product)["sky_map"])
    return sky_map_of(parameters)[index]


def patches_of(labels: set[str]) -> dict[int, list[int]]:
    """Return the patches of each tract, the tract with the most first.

    Examples
    --------
    >>> patches_of({"3-1", "7-0", "7-2"})
    {7: [0, 2], 3: [1]}
    """
    found: dict[int, list[int]] = defaultdict(list)
    for label in labels:
        tract, patch = map(int, label.split("-"))
        found[tract].append(patch)
    order = sorted(found, key=lambda tract: (-len(found[tract]), tract))
    return {tract: sorted(found[tract]) for tract in order}


def extent_of(box: Box) -> tuple[float, float, float, float]:
    """Return a box as figures take it: x_start, x_stop, y_start, y_stop.

    Examples
    --------
    >>> extent_of(Box(1, 2, 3, 4))
    (3.0, 4.0, 1.0, 2.0)
    """
    return float(box.x_start), float(box.x_stop), float(box.y_start), float(box.y_stop)


def detector_outlines(store: Store, tract: Tract, visits: list[int]) -> dict[str, list[Floats]]:
    """Return the outlines of detectors that reach into a tract, pixel, by visit."""
    corners = store.sky_corners()
    known = set(corners[v.EXPOSURE].to_numpy().tolist())
    found: dict[str, list[Floats]] = {}
    for visit in visits:
        if visit not in known:
            continue
        own = corners.sel({v.EXPOSURE: visit})
        ra, dec = (own[name].to_numpy() for name in ("right_ascension", "declination"))
        ra, dec = (part[np.isfinite(ra).all(axis=1)] for part in (ra, dec))
        x, y = tract.plane.to_pixels(ra, dec)
        height, width = tract.shape
        inside = np.isfinite(x).all(axis=-1) & np.isfinite(y).all(axis=-1)
        inside &= (x.min(axis=-1) < width) & (x.max(axis=-1) > 0)
        inside &= (y.min(axis=-1) < height) & (y.max(axis=-1) > 0)
        outlines = np.stack([x, y], axis=-1)[inside]
        if len(outlines):
            found[str(visit)] = list(outlines)
    return found


def bin_side(tract: Tract) -> int:
    """Return the side of the bins in which a tract is shown, pixel."""
    return max(4, -(-max(tract.shape) // MOST_BINS))


def binned_patch(coadd: xr.Dataset, patch: Patch, side: int) -> BinnedPatch:
    """Return means of the inner box of a coadd in bins.

    Parameters
    ----------
    coadd : Dataset, (y, x)
        Of the outer box; read here.
    patch : Patch
    side : int
        Of the bins, pixel.

    Returns
    -------
    BinnedPatch
        ``image``, ``variance`` of that mean, ``n_image`` and ``changes``, whether the number of
        visits differs within the bin.
    """
    part = _part(coadd[["image", "variance", "n_image"]], patch, patch.inner)
    image, variance, number = (part[name].to_numpy().astype(np.float64) for name in part)
    good = np.isfinite(image) & np.isfinite(variance)
    size = _summed(np.ones_like(number), side)
    count = _summed(good.astype(np.float64), side)
    over = np.where(count > LEAST_PIXELS * size, count, np.nan)
    first, second = _summed(number, side), _summed(number**2, side)
    values = {
        "image": _summed(np.where(good, image, 0.0), side) / over,
        "variance": _summed(np.where(good, variance, 0.0), side) / over**2,
        "n_image": first / size,
        "changes": (second / size - (first / size) ** 2 > 1e-9).astype(np.float64),
    }
    return BinnedPatch(values, extent_of(patch.inner))


def _summed(values: Floats, side: int) -> Floats:
    starts = [
        np.linspace(0, size, max(1, round(size / side)) + 1).astype(int)[:-1]
        for size in values.shape
    ]
    rows = np.add.reduceat(values, starts[0], axis=0)
    return np.asarray(np.add.reduceat(rows, starts[1], axis=1))


def steps_of(binned: BinnedPatch) -> tuple[Floats, Floats]:
    """Return steps between next but one bins, in their noise: across edges, and elsewhere.

    An edge of a visit or detector lies between two bins if their numbers of visits differ.
    """
    image, variance = binned.values["image"], binned.values["variance"]
    number, changes = binned.values["n_image"], binned.values["changes"] > 0
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for axis in (0, 1):
        low = (slice(None, -2), slice(None)) if axis == 0 else (slice(None), slice(None, -2))
        high = (slice(2, None), slice(None)) if axis == 0 else (slice(None), slice(2, None))
        step = (image[high] - image[low]) / np.sqrt(variance[high] + variance[low])
        whole = ~changes[high] & ~changes[low] & np.isfinite(step)
        differs = np.abs(number[high] - number[low]) > 0.5
        found[0].append(step[whole & differs])
        found[1].append(step[whole & ~differs])
    return np.concatenate(found[0]), np.concatenate(found[1])


def shared_box(one: Patch, other: Patch) -> Box | None:
    """Return the box in which two patches overlap.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import SkyMapParameters, make_skymap
    >>> tract = make_skymap(SkyMapParameters())[0]
    >>> shared_box(tract.patch(0), tract.patch(5)) is None
    True
    """
    box = Box(
        max(one.outer.y_start, other.outer.y_start),
        min(one.outer.y_stop, other.outer.y_stop),
        max(one.outer.x_start, other.outer.x_start),
        min(one.outer.x_stop, other.outer.x_stop),
    )
    return box if box.y_start < box.y_stop and box.x_start < box.x_stop else None


def _part(coadd: xr.Dataset, patch: Patch, box: Box) -> xr.Dataset:
    """Return the pixels of a box of a coadd, in memory."""
    y, x = patch.outer.y_start, patch.outer.x_start
    rows, columns = slice(box.y_start - y, box.y_stop - y), slice(box.x_start - x, box.x_stop - x)
    return coadd.isel({v.Y: rows, v.X: columns}).load()


def seams_of(coadds: Mapping[int, xr.Dataset], tract: Tract) -> list[Seams]:
    """Return the differences of neighbouring patches where they overlap.

    Parameters
    ----------
    coadds : mapping from patch to Dataset, (y, x)
        Coadds of their outer boxes; only the overlaps are read.
    tract : Tract
    """
    found = []
    for index in sorted(coadds):
        one = tract.patch(index)
        for iy, ix in ((one.iy, one.ix + 1), (one.iy + 1, one.ix)):
            if iy >= tract.grid[0] or ix >= tract.grid[1]:
                continue
            other = tract.patch((iy, ix))
            box = shared_box(one, other)
            if other.index not in coadds or box is None:
                continue
            parts = [
                _part(coadds[patch.index][["image", "variance"]], patch, box)
                for patch in (one, other)
            ]
            images = [part["image"].to_numpy().astype(np.float64) for part in parts]
            variances = [part["variance"].to_numpy().astype(np.float64) for part in parts]
            variance = 0.5 * (variances[0] + variances[1])
            difference = images[0] - images[1]
            known = np.isfinite(difference) & np.isfinite(variance) & (variance > 0)
            own = difference[known]
            pulls = own / np.sqrt(variance[known])
            some = own.size > 0
            found.append(
                Seams(
                    patch_label(tract.index, one.index),
                    patch_label(tract.index, other.index),
                    int(own.size),
                    float(np.median(own)) if some else np.nan,
                    float(np.sqrt(np.mean(pulls**2))) if some else np.nan,
                    float(np.abs(pulls).max()) if some else np.nan,
                    pulls[:: max(1, pulls.size // MOST_DIFFERENCES)],
                )
            )
    return found


def scatter(values: Floats) -> float:
    """Return the standard deviation of a Gaussian with the quartiles of some values.

    Examples
    --------
    >>> round(scatter(np.array([-1.0, 0.0, 1.0])), 4)
    0.7413
    """
    if not values.size:
        return float("nan")
    low, high = np.percentile(values, [25, 75])
    return float(MEAN_NOISE * (high - low))
