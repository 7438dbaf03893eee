"""The point-spread function of a warp or coadd: the mean of those of its inputs, warped.

An input is one detector of one visit, known by its weight, the way from its pixels to the sky,
its point-spread functions and the polygon of its valid pixels. At a position count the inputs
whose polygon contains it; the order in which they are given doesn't matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.psf.linear_kernels import weighted_sums
from skyloom.algorithms.psf.points import Between, psf_weights
from skyloom.algorithms.psf.stamps import fitted, stamp_values
from skyloom.algorithms.psf.warped import local_map, warp_stamp, warped_size
from skyloom.algorithms.warp.positions import SkyPixels, sky_pixels
from skyloom.algorithms.warp.resampling import Kernel

__all__ = ["PsfInput", "average_position", "coadd_psf", "coadd_psf_grid", "inside"]

Floats = NDArray[np.float64]


class PsfInput(NamedTuple):
    """One detector of one visit in a warp or coadd.

    ``weight`` is that of its pixels; ``wcs`` takes its pixels to the sky (a TangentPlane, an
    astropy WCS, FITS keys, or an object with ``pixel_to_world_values`` and
    ``world_to_pixel_values``); ``psf`` (point, psf_y, psf_x) are its point-spread functions;
    ``polygon`` (vertex, 2) are corners (x, y) of its valid pixels; ``good_pixels`` says how many of
    them the coadd has. ``visit`` and ``detector`` name it.
    """

    weight: float
    wcs: Any
    psf: xr.Dataset
    polygon: ArrayLike
    good_pixels: float = 1.0
    visit: Any = None
    detector: Any = None


class _Input(NamedTuple):
    weight: float
    pixels: SkyPixels
    psf: xr.Dataset
    images: Floats  # without any if all are missing
    polygon: Floats
    good_pixels: float


def coadd_psf(
    inputs: Sequence[PsfInput],
    wcs: Any,
    x: float,
    y: float,
    *,
    kernel: Kernel = "lanczos3",
    between: Between = "nearest",
) -> xr.DataArray:
    """Return the point-spread function of a warp or coadd at one position.

    Parameters
    ----------
    inputs : sequence of PsfInput
    wcs : Tract, TangentPlane, astropy WCS, FITS keys, or object
        From the pixels of the warp or coadd to the sky.
    x, y : float, pixel
        The position, in those pixels.
    kernel : "bilinear", "lanczos3" or "lanczos5"
        With which the inputs were warped.
    between : "nearest", "linear" or "quadratic"
        How an input's point-spread functions continue between its points.

    Returns
    -------
    DataArray, (psf_y, psf_x), float64
        sum w_i P_i / sum w_i of the warped and normalised P_i; sums to 1, and is square with the
        side of the largest of them.

    Raises
    ------
    NoUsableDataError
        If no input with a positive weight contains the position.
    ValueError
        If an input is not as described.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points, psf_moments
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> plane = TangentPlane(10.0, 0.0, 0.0, 0.0, np.diag([-0.2, 0.2]) / 3600)
    >>> square = [(-50, -50), (50, -50), (50, 50), (-50, 50)]
    >>> inputs = [
    ...     PsfInput(1.0, plane, psf_at_points(gaussian_psf(2.3548 * s, size=101), 0, 0), square)
    ...     for s in (5, 6, 7, 8)
    ... ]
    >>> round(float(psf_moments(coadd_psf(inputs, plane, 3.0, 4.0)).radius2), 2)
    43.5
    """
    at_x, at_y = np.array([x], np.float64), np.array([y], np.float64)
    images, count = _means(_checked(inputs), wcs, at_x, at_y, kernel, between)
    if count[0] == 0:
        raise NoUsableDataError(
            f"none of the {len(inputs)} inputs contains the position x={x}, y={y} with a positive "
            "weight and a point-spread function"
        )
    return xr.DataArray(images[0], dims=(v.PSF_Y, v.PSF_X), attrs={"units": v.DIMENSIONLESS})


def coadd_psf_grid(
    inputs: Sequence[PsfInput],
    wcs: Any,
    box: Sequence[int],
    *,
    spacing: int = 150,
    size: int | None = None,
    kernel: Kernel = "lanczos3",
    between: Between = "nearest",
) -> xr.Dataset:
    """Return the point-spread functions of a warp or coadd on a grid of positions.

    Parameters
    ----------
    inputs, wcs, kernel, between
        As in `coadd_psf`.
    box : sequence of 4 int
        Half-open ``[y_start, y_stop, x_start, x_stop]`` of the warp or coadd, pixel.
    spacing : int
        Largest distance between neighbouring points, pixel; the outermost lie half of it inside.
    size : int, optional
        Odd side of the images, pixel; that of the largest by default.

    Returns
    -------
    Dataset, (point, psf_y, psf_x)
        ``psf`` with coordinates ``x``, ``y``, NaN at points that no input contains, and
        ``input_count`` (point).

    Raises
    ------
    ValueError
        If the box is empty, spacing or size are none, or an input is not as described.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> plane = TangentPlane(10.0, 0.0, 0.0, 0.0, np.diag([-0.2, 0.2]) / 3600)
    >>> corners = [(0, 0), (200, 0), (200, 100), (0, 100)]
    >>> one = PsfInput(1.0, plane, psf_at_points(gaussian_psf(4.0), 0, 0), corners)
    >>> grid = coadd_psf_grid([one], plane, [0, 100, 0, 400], spacing=100)
    >>> grid["input_count"].values.tolist(), grid["x"].values.tolist()
    ([1, 1, 0, 0], [49.5, 149.5, 249.5, 349.5])
    """
    edges = [int(edge) for edge in box]
    if len(edges) != 4 or edges[1] <= edges[0] or edges[3] <= edges[2]:
        raise GeometryError(f"box must be [y_start, y_stop, x_start, x_stop], got {edges}")
    if spacing < 1 or (size is not None and (size < 1 or size % 2 == 0)):
        raise GeometryError(f"spacing must be >= 1 and size odd, got {spacing} and {size}")
    axes = []
    for start, stop in (edges[:2], edges[2:]):
        number = -(-(stop - start) // spacing)
        axes.append(start - 0.5 + (np.arange(number) + 0.5) * (stop - start) / number)
    y, x = (values.ravel() for values in np.meshgrid(*axes, indexing="ij"))
    images, count = _means(_checked(inputs), wcs, x, y, kernel, between)
    if size is not None:
        images = fitted(images, size)
        images /= images.sum((1, 2), keepdims=True)
    return xr.Dataset(
        {
            "psf": ((v.POINT, v.PSF_Y, v.PSF_X), images, {"units": v.DIMENSIONLESS}),
            "input_count": (v.POINT, count.astype(np.int32)),
        },
        coords={"x": (v.POINT, x, {"units": v.PIXEL}), "y": (v.POINT, y, {"units": v.PIXEL})},
    )


def average_position(inputs: Sequence[PsfInput], wcs: Any) -> tuple[float, float]:
    """Return a position (x, y) of a warp or coadd that stands for all of it.

    It is the mean of the middles of the inputs' polygons, with weight times good pixels as weight.
    Where no input contains it the one with the smallest is dropped, until one does.

    Parameters
    ----------
    inputs : sequence of PsfInput
    wcs : Tract, TangentPlane, astropy WCS, FITS keys, or object
        From the pixels of the warp or coadd to the sky.

    Returns
    -------
    (float, float), pixel

    Raises
    ------
    NoUsableDataError
        If no input has a positive weight, good pixels and a middle that lies in the projection.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> plane = TangentPlane(10.0, 0.0, 0.0, 0.0, np.diag([-0.2, 0.2]) / 3600)
    >>> psf = psf_at_points(gaussian_psf(4.0), 0, 0)
    >>> boxes = [[(x, 0), (x + 8, 0), (x + 8, 8), (x, 8)] for x in (0, 90)]
    >>> inputs = [PsfInput(w, plane, psf, box) for w, box in zip((2, 1), boxes)]
    >>> [round(value, 6) for value in average_position(inputs, plane)]
    [4.0, 4.0]
    """
    checked, target = _checked(inputs), sky_pixels(getattr(wcs, "plane", wcs))
    weights = np.array([one.weight * one.good_pixels for one in checked])
    middles = np.full((len(checked), 2), np.nan)
    for middle, one in zip(middles, checked, strict=True):
        middle[:] = target.to_pixels(*one.pixels.to_sky(*_middle(one.polygon)))
    usable = (weights > 0) & np.isfinite(weights) & np.isfinite(middles).all(1)
    # equal weights go in the order of their place, so that of the inputs doesn't matter
    order = np.lexsort((middles[:, 1], middles[:, 0], weights))
    left = [int(i) for i in order if usable[i]]
    while left:
        x, y = (weights[left, None] * middles[left]).sum(0) / weights[left].sum()
        if any(_contains(checked[i], target, x, y) for i in left):
            return float(x), float(y)
        left.pop(0)
    raise NoUsableDataError(
        f"none of the {len(inputs)} inputs has a positive weight, good pixels and a place"
    )


def inside(polygon: ArrayLike, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """Return which positions a polygon contains: by the even-odd rule, its outline included.

    Examples
    --------
    >>> inside([(0, 0), (4, 0), (4, 2)], [3.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    array([ True, False,  True])
    """
    corners = np.asarray(polygon, np.float64)
    at_x, at_y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    found = np.zeros(np.broadcast_shapes(at_x.shape, at_y.shape), np.bool_)
    outline = found.copy()
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        cross = (x1 - x0) * (at_y - y0) - (y1 - y0) * (at_x - x0)
        outline |= (
            (cross == 0)
            & (at_x >= min(x0, x1))
            & (at_x <= max(x0, x1))
            & (at_y >= min(y0, y1))
            & (at_y <= max(y0, y1))
        )
        # the edge is crossed to the right of the position
        found ^= ((y0 <= at_y) != (y1 <= at_y)) & ((cross > 0) == (y1 > y0))
    known = np.isfinite(at_x) & np.isfinite(at_y)
    contained: NDArray[np.bool_] = np.asarray((found | outline) & known)
    return contained


def _middle(polygon: Floats) -> tuple[float, float]:
    """Return the centroid of a polygon; the mean of its corners if it has no area."""
    x, y = polygon[:, 0], polygon[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    cross = x * next_y - next_x * y
    area = cross.sum() / 2.0
    if area == 0:
        return float(x.mean()), float(y.mean())
    return (
        float(((x + next_x) * cross).sum() / (6.0 * area)),
        float(((y + next_y) * cross).sum() / (6.0 * area)),
    )


def _checked(inputs: Sequence[PsfInput]) -> list[_Input]:
    """Return the inputs as arrays and projections; raise naming the one that is wrong."""
    found = []
    for number, one in enumerate(inputs):
        name = f"input {number}" if one.visit is None else f"input {one.visit}, {one.detector}"
        corners = np.array(one.polygon, np.float64)
        if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3:
            raise GeometryError(
                f"polygon of {name} must be at least 3 corners (x, y), got shape {corners.shape}"
            )
        if not np.isfinite(corners).all():
            raise GeometryError(f"polygon of {name} must be finite, got {corners.tolist()}")
        if "psf" not in one.psf:
            raise GeometryError(f"the point-spread functions of {name} have no variable psf")
        pixels = sky_pixels(one.wcs, name=f"wcs of {name}")
        weight = float(one.weight) if np.isfinite(one.weight) else 0.0
        images = stamp_values(one.psf["psf"].transpose(v.POINT, ...))
        known = np.isfinite(images).all((1, 2)).any()
        images = np.nan_to_num(images) if known else images[:0]
        found.append(_Input(weight, pixels, one.psf, images, corners, float(one.good_pixels)))
    return found


def _contains(one: _Input, target: SkyPixels, x: float, y: float) -> bool:
    place = one.pixels.to_pixels(*target.to_sky(np.float64(x), np.float64(y)))
    return bool(inside(one.polygon, *place))


def _means(
    inputs: Sequence[_Input],
    wcs: Any,
    x: Floats,
    y: Floats,
    kernel: Kernel,
    between: Between,
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the mean images at positions (position, side, side), and their numbers of inputs."""
    target = sky_pixels(getattr(wcs, "plane", wcs))
    maps, sides = [], [1]
    for one in inputs:
        here = local_map(one.pixels, target, x, y)
        used = np.isfinite(here.matrix).all((1, 2)) & (one.weight > 0) & (len(one.images) > 0)
        used &= inside(one.polygon, here.position[:, 0], here.position[:, 1])
        maps.append((np.flatnonzero(used), here))
        sides += [warped_size(one.images.shape[1:], matrix) for matrix in here.matrix[used]]
    total = np.zeros((len(x), max(sides), max(sides)))
    count = np.zeros(len(x), np.int64)
    for one, (places, here) in zip(inputs, maps, strict=True):
        if not len(places):
            continue
        at_x, at_y = here.position[places].T
        shares = psf_weights(one.psf, at_x, at_y, between)
        for place, share in zip(places, shares, strict=True):
            image = weighted_sums(share[None], one.images)[0]
            matrix = here.matrix[place]
            size = warped_size(image.shape, matrix)
            total[place] += one.weight * fitted(warp_stamp(image, matrix, kernel, size), max(sides))
        count[places] += 1
    total[count == 0] = np.nan
    return total / total.sum((1, 2), keepdims=True), count
