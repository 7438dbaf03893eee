"""Stars that a point-spread function can be measured on: bright, whole, alone, of one size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import Box, bin_count, bin_edges, bin_image, render_grid
from skyloom.algorithms.detrend.calibrations import own_planes
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

__all__ = ["StarParameters", "Stars", "find_stars", "of_one_size"]

Floats = NDArray[np.float64]

ROUNDS = 15  # of adaptive moments
FAINT_NEIGHBOUR = 0.03  # of the peak of a star, above which a neighbour counts
LEAST_SIGMAS = 5.0  # of the neighbours that count
LOCUS = 0.15  # relative half width in size in which the sizes of stars are looked for
LOCUS_CLIP = 3.0
LOCUS_ERROR = 0.02  # relative error of sizes, at least
SHIFT = 1.5  # pixel, that moments may move a star from its brightest pixel
CORE = 1.5  # FWHM around a star in which no pixel may be bad


class StarParameters(Parameters):
    """Which stars are looked for."""

    significance: float = Field(
        50.0, gt=0, description="least flux of a star, standard deviations of its flux"
    )
    width: float = Field(4.0, gt=0.5, description="expected FWHM of stars, pixel")
    narrowest: float = Field(
        1.6, gt=0, description="FWHM below which something is a cosmic ray, pixel"
    )
    radius: int = Field(
        12, ge=3, description="half side of the square around a star that is fitted, pixel"
    )
    most: int = Field(60, ge=1, description="most stars of a part of the image, the brightest")
    background_bin: int = Field(64, ge=8, description="side of the bins of the background, pixel")
    rejected_planes: tuple[str, ...] = Field(
        ("BAD", "SAT", "COSMIC_RAY", "EDGE", "NO_DATA", "SUSPECT", "INTERPOLATED"),
        description="mask planes that a star may not have in its core",
    )


class Stars(NamedTuple):
    """Stars of an image: places, widths, and stamps (star, y, x) with weights 1/variance.

    ``row`` and ``column`` are the middle pixels of the stamps; ``y``, ``x`` the offsets of the
    stars from them; the background is taken off.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    y: Floats
    x: Floats
    fwhm: Floats
    flux: Floats
    images: Floats
    weights: Floats

    def take(self, chosen: NDArray[np.bool_] | slice) -> Stars:
        """Return some of the stars."""
        return Stars(
            self.row[chosen],
            self.column[chosen],
            self.y[chosen],
            self.x[chosen],
            self.fwhm[chosen],
            self.flux[chosen],
            self.images[chosen],
            self.weights[chosen],
        )


def find_stars(exposure: xr.Dataset, parameters: StarParameters) -> Stars:
    """Return what may be stars of an image, the brightest first.

    Peaks of the image, smoothed with the expected width, are taken that are bright, have no other
    object near by and no bad pixel in their core. Galaxies are among them, see `of_one_size`.

    Parameters
    ----------
    exposure : Dataset, (y, x)
        ``image``, ``variance`` and perhaps ``mask``.
    parameters : StarParameters

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> image = np.zeros((80, 90), "float32")
    >>> image[20:61, 30:71] += 1e4 * gaussian_psf(4.0).values
    >>> plane = ("y", "x")
    >>> one = xr.Dataset({"image": (plane, image), "variance": (plane, np.ones_like(image))})
    >>> stars = find_stars(one, StarParameters())
    >>> stars.row.tolist(), stars.column.tolist(), stars.fwhm.round(2).tolist()
    ([40], [50], [4.0])
    """
    image, variance = (
        np.ascontiguousarray(exposure[name].transpose(v.Y, v.X).values, np.float32)
        for name in ("image", "variance")
    )
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    mask = exposure.get(v.MASK)
    if mask is not None:
        bits = v.plane_bits(parameters.rejected_planes)
        own = own_planes(mask.transpose(v.Y, v.X), parameters.rejected_planes)
        assert own is not None
        good &= (own.values & bits) == 0
    rest = _without_background(image, good, parameters.background_bin)
    if rest is None:
        return _nothing(parameters.radius)
    row, column = _peaks(rest, variance, good, parameters)
    stars = _stamps(rest, variance, good, row, column, parameters.radius)
    return _measured(stars, parameters)


def _nothing(radius: int) -> Stars:
    side, none = 2 * radius + 1, np.empty(0)
    stamps = np.empty((0, side, side))
    places = np.empty(0, np.int64)
    return Stars(places, places, none, none, none, none, stamps, stamps)


def _without_background(
    image: NDArray[np.float32], good: NDArray[np.bool_], side: int
) -> Floats | None:
    """Return an image less its levels in bins, 0 where it is bad; nothing if it all is."""
    edges = [bin_edges(size, bin_count(size, side)) for size in image.shape]
    bins = bin_image(np.where(good, image, np.float32(np.nan)), None, 0, edges[0], edges[1])
    if not np.isfinite(bins.level).any():
        return None
    height, width = image.shape
    level = render_grid(bins.level, Box(0, height, 0, width))
    return np.where(good, image - level, 0.0).astype(np.float64)


def _peaks(
    rest: Floats,
    variance: NDArray[np.float32],
    good: NDArray[np.bool_],
    parameters: StarParameters,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels of bright peaks that stand alone, the brightest first."""
    sigma = parameters.width / SIGMA_TO_FWHM
    smooth = gaussian_filter(rest, sigma, mode="constant")
    # the sum of the squares of a sampled Gaussian of unit sum, and the flux that it filters
    noise = np.sqrt(float(np.median(variance[good])) / (4.0 * np.pi * sigma**2))
    side = 2 * max(1, round(0.5 * parameters.width)) + 1
    peak = (smooth == maximum_filter(smooth, side, mode="constant")) & (
        smooth > LEAST_SIGMAS * noise
    )
    peak &= good
    rows, columns = np.nonzero(peak)
    height = smooth[rows, columns]
    bright = height > parameters.significance * noise
    reach = parameters.radius
    inside = (rows >= reach) & (rows < rest.shape[0] - reach)
    inside &= (columns >= reach) & (columns < rest.shape[1] - reach)
    places = np.stack([rows, columns], axis=1).astype(np.float64)
    alone = np.zeros(len(rows), bool)
    if len(rows):
        tree = cKDTree(places)
        for index in np.flatnonzero(bright & inside):
            near = tree.query_ball_point(places[index], reach + parameters.width)
            others = [other for other in near if other != index]
            alone[index] = not (height[others] > FAINT_NEIGHBOUR * height[index]).any()
    chosen = np.flatnonzero(alone)
    core = int(np.ceil(CORE * parameters.width / 2))
    whole = [
        good[r - core : r + core + 1, c - core : c + core + 1].all()
        for r, c in zip(rows[chosen], columns[chosen], strict=True)
    ]
    chosen = chosen[np.array(whole, bool)]
    order = chosen[np.argsort(-height[chosen], kind="stable")]
    return rows[order].astype(np.int64), columns[order].astype(np.int64)


def _stamps(
    rest: Floats,
    variance: NDArray[np.float32],
    good: NDArray[np.bool_],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    radius: int,
) -> Stars:
    side = 2 * radius + 1
    images, weights = (np.zeros((len(row), side, side)) for _ in range(2))
    for index, (r, c) in enumerate(zip(row, column, strict=True)):
        part = slice(r - radius, r + radius + 1), slice(c - radius, c + radius + 1)
        images[index] = rest[part]
        with np.errstate(divide="ignore"):
            weights[index] = np.where(good[part], 1.0 / variance[part], 0.0)
    none = np.zeros(len(row))
    return Stars(row, column, none, none.copy(), none.copy(), none.copy(), images, weights)


def _measured(stars: Stars, parameters: StarParameters) -> Stars:
    """Return stars with places, sizes and fluxes by moments under a Gaussian as wide as they are.

    Those that wander off, or are as narrow as cosmic rays, are left out.
    """
    radius = parameters.radius
    at = np.arange(-radius, radius + 1, dtype=np.float64)
    y, x = np.zeros(len(stars.row)), np.zeros(len(stars.row))
    sigma = np.full(len(stars.row), parameters.width / SIGMA_TO_FWHM)
    flux = np.zeros(len(stars.row))
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(ROUNDS):
            along = np.exp(-0.5 * ((at - y[:, None]) / sigma[:, None]) ** 2)
            across = np.exp(-0.5 * ((at - x[:, None]) / sigma[:, None]) ** 2)
            shape = along[:, :, None] * across[:, None, :]
            weighted = stars.images * shape
            total = weighted.sum((1, 2))
            dy = (weighted.sum(2) * (at - y[:, None])).sum(1) / total
            dx = (weighted.sum(1) * (at - x[:, None])).sum(1) / total
            square = (weighted.sum(2) * (at - y[:, None]) ** 2).sum(1) / total
            square = 0.5 * (
                square + (weighted.sum(1) * (at - x[:, None]) ** 2).sum(1) / total
            ) - 0.5 * (dy**2 + dx**2)
            # the product of two equal Gaussians has half the variance of each
            y, x = y + 2.0 * dy, x + 2.0 * dx
            sigma = np.sqrt(np.clip(2.0 * square, 0.1, radius**2))
            flux = total / shape.sum((1, 2)) * 4.0 * np.pi * sigma**2
    fwhm = SIGMA_TO_FWHM * sigma
    kept = np.isfinite(fwhm) & np.isfinite(y) & np.isfinite(x) & (flux > 0)
    kept &= (np.hypot(y, x) < SHIFT) & (fwhm > parameters.narrowest) & (fwhm < radius)
    stars = stars._replace(y=y, x=x, fwhm=fwhm, flux=flux)
    return stars.take(kept)


def of_one_size(stars: Stars) -> Stars:
    """Return the stars whose size is the most common.

    Examples
    --------
    >>> two = np.zeros((2, 3, 3))
    >>> stars = Stars(*[np.zeros(2, int)] * 2, *[np.zeros(2)] * 2, np.array([3.0, 4.0]),
    ...               np.ones(2), two, two)
    >>> of_one_size(stars).fwhm.tolist()  # too few to tell
    [3.0, 4.0]
    """
    if len(stars.fwhm) < 3:
        return stars
    size = np.log(stars.fwhm)
    kept = np.abs(size - _mode(size)) < LOCUS
    for _ in range(3):
        middle = float(np.median(size[kept]))
        spread = max(1.4826 * float(np.median(np.abs(size[kept] - middle))), LOCUS_ERROR)
        kept = np.abs(size - middle) < min(LOCUS, LOCUS_CLIP * spread)
        if not kept.any():
            return stars.take(slice(0))
    return stars.take(kept)


def _mode(values: Floats) -> float:
    """Return the middle of the shortest half of the shortest half, and so on, of some values.

    Examples
    --------
    >>> round(_mode(np.array([0.0, 1.0, 1.01, 1.02, 5.0, 9.0])), 6)
    1.01
    """
    left = np.sort(values)
    while left.size > 3:
        half = (left.size + 1) // 2
        width = left[half - 1 :] - left[: left.size - half + 1]
        first = int(np.argmin(width))
        left = left[first : first + half]
    return float(np.median(left))
