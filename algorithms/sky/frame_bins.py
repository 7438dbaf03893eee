"""Bins of a detector as samples, and the sky frame averaged over bins that are not its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import pieces, render_kernels
from skyloom.algorithms.background.geometry import (
    Box,
    bin_centers,
    bin_edges,
    box_of_background,
)
from skyloom.algorithms.background.interpolation import STYLES, Style, checked
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.focal_plane import box_corners, to_focal_plane
from skyloom.algorithms.sky.sample_arrays import OTHER
from skyloom.algorithms.units import squared_units

__all__ = [
    "FramePlanes",
    "check_inside",
    "frame_in_bins",
    "frame_planes",
    "samples_of_bins",
]

Floats = NDArray[np.float64]

NOT_OBSERVED: Final = np.uint8(v.BinFlag.EMPTY | v.BinFlag.FILLED)
LARGEST_GAP = 0.5  # part of a mean that may come from bins of the frame that were never observed


class FramePlanes(NamedTuple):
    """A sky frame as arrays over its bins.

    ``observed`` tells which bins were measured: others hold what was filled in, which says nothing
    of any exposure; their ``variance`` is the mean of the others'.
    """

    level: Floats
    variance: Floats
    observed: NDArray[np.bool_]


def frame_planes(sky_frame: xr.Dataset) -> FramePlanes:
    """Return level, variance and what was observed of a sky frame.

    A bin was observed if its level is finite, no flag says EMPTY or FILLED, and it counts an
    exposure, as far as there are flags and counts. If any bin has a variance, one without was not
    observed either; if none has, the variance is 0 without the variable and NaN with it.

    Raises
    ------
    GeometryError
        If a variable has other dimensions than bin_y and bin_x.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> frame = xr.Dataset(
    ...     {
    ...         "level": (dims, [[-0.01, 0.01, 0.0]]),
    ...         "variance": (dims, [[1e-6, 1e-6, np.nan]]),
    ...         "flags": (dims, np.array([[0, 0, 5]], np.uint8)),
    ...     }
    ... )
    >>> planes = frame_planes(frame)
    >>> planes.observed
    array([[ True,  True, False]])
    """
    level = _plane(sky_frame, "level")
    observed = np.isfinite(level)
    if "flags" in sky_frame:
        observed &= (_plane(sky_frame, "flags").astype(np.uint8) & NOT_OBSERVED) == 0
    if "exposure_count" in sky_frame:
        observed &= _plane(sky_frame, "exposure_count") > 0
    if "variance" not in sky_frame:
        return FramePlanes(level, np.zeros_like(level), observed)
    variance = _plane(sky_frame, "variance")
    known = observed & np.isfinite(variance) & (variance >= 0)
    if not known.any():
        return FramePlanes(level, np.full_like(level, np.nan), observed)
    return FramePlanes(level, np.where(known, variance, variance[known].mean()), known)


def _plane(sky_frame: xr.Dataset, name: str) -> Floats:
    plane = sky_frame[name]
    if set(plane.dims) != {v.BIN_Y, v.BIN_X}:
        raise GeometryError(
            f"{name} of the sky frame must have the dimensions bin_y and bin_x, it has "
            f"{plane.dims}: choose one detector"
        )
    return np.array(plane.transpose(v.BIN_Y, v.BIN_X), np.float64)


def check_inside(box: Box, frame: Box) -> None:
    """Raise GeometryError unless the box of an image is inside that of a sky frame."""
    inside = frame.y_start <= box.y_start and box.y_stop <= frame.y_stop
    if not (inside and frame.x_start <= box.x_start and box.x_stop <= frame.x_stop):
        raise GeometryError(f"the image covers {tuple(box)}, the sky frame only {tuple(frame)}")


def samples_of_bins(
    background: xr.Dataset,
    *,
    transform: Floats | None = None,
    sky_frame: xr.Dataset | None = None,
    minimum_fraction: float = 0.25,
    interpolation: Style = "natural_spline",
) -> xr.Dataset:
    """Return the bins of a background as samples, with the sky frame averaged over each bin.

    Parameters
    ----------
    background : Dataset, (bin_y, bin_x)
        ``level`` and ``variance``; ``count`` if bins with few pixels are to be left out.
    transform : array, (2, 3), mm, optional
        Takes pixels (x, y, 1) to the focal plane.
    sky_frame : Dataset, (bin_y, bin_x) or (template, bin_y, bin_x), optional
        Of the same detector; its bins may be others. Several templates: see `sky_templates`.
    minimum_fraction : float
        Bins with fewer valid pixels than this part of the fullest are left out.
    interpolation : str
        Interpolation between the bins of the sky frame.

    Returns
    -------
    Dataset, (sample,), float64
        As that of `measure_scale`; with several templates those after the first as
        ``other_templates`` and their ``other_variances``, (sample, other).

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> background = xr.Dataset(
    ...     {"level": (dims, [[1.0, 2.0]]), "variance": (dims, [[0.1, 0.1]])},
    ...     attrs={"box": [0, 2, 0, 4]},
    ... )
    >>> samples_of_bins(background)["x"].values
    array([0.5, 2.5])
    """
    box = box_of_background(background)
    level = background["level"].transpose(v.BIN_Y, v.BIN_X)
    edges = [bin_edges(size, n) for size, n in zip(box.shape, level.shape, strict=True)]
    y, x = np.meshgrid(
        bin_centers(edges[0], box.y_start), bin_centers(edges[1], box.x_start), indexing="ij"
    )
    good = np.isfinite(np.asarray(level))
    if "count" in background:
        count = np.asarray(background["count"].transpose(v.BIN_Y, v.BIN_X))
        nominal = max(int(count.max(initial=0)), 1)
        good &= count >= max(minimum_fraction * nominal, 1)
    units = str(level.attrs.get("units", ""))
    squared = squared_units(units)
    variance = np.asarray(background["variance"].transpose(v.BIN_Y, v.BIN_X), np.float64)
    data: dict[str, Any] = {
        "level": (v.SAMPLE, np.asarray(level, np.float64)[good], {"units": units}),
        "level_variance": (v.SAMPLE, variance[good], {"units": squared}),
    }
    if sky_frame is not None:
        number = sky_frame.sizes.get("template", 0)
        each = [sky_frame.isel(template=i) for i in range(number)] if number else [sky_frame]
        found = [frame_in_bins(one, box, *edges, interpolation=interpolation) for one in each]
        plain = {"units": ""}
        data["template"] = (v.SAMPLE, found[0][0][good], plain)
        data["template_variance"] = (v.SAMPLE, found[0][1][good], plain)
        if len(found) > 1:
            for index, name in enumerate(("other_templates", "other_variances")):
                table = np.stack([other[index][good] for other in found[1:]], axis=1)
                data[name] = ((v.SAMPLE, OTHER), table, plain)
    coords: dict[str, Any] = {
        v.X: (v.SAMPLE, x[good], {"units": v.PIXEL}),
        v.Y: (v.SAMPLE, y[good], {"units": v.PIXEL}),
    }
    corner_x, corner_y = box_corners(*box)
    if transform is not None:
        focal_x, focal_y = to_focal_plane(transform, x[good], y[good])
        coords[v.FOCAL_X] = (v.SAMPLE, focal_x, {"units": v.MILLIMETRE})
        coords[v.FOCAL_Y] = (v.SAMPLE, focal_y, {"units": v.MILLIMETRE})
        corner_x, corner_y = to_focal_plane(transform, corner_x, corner_y)
    limits = [corner_x.min(), corner_x.max(), corner_y.min(), corner_y.max()]
    return xr.Dataset(data, coords, attrs={"focal_box": [float(value) for value in limits]})


def frame_in_bins(
    sky_frame: xr.Dataset,
    box: Sequence[int],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    *,
    interpolation: Style = "natural_spline",
) -> tuple[Floats, Floats]:
    """Return the mean of the interpolated sky frame over each of other bins, and its variance.

    Over the frame's own bins these are its levels, which are means already: where they jump the
    interpolation cannot follow. Over other bins nothing is rendered either: interpolation and mean
    are linear, one axis after the other.

    Parameters
    ----------
    sky_frame : Dataset, (bin_y, bin_x)
        ``level`` and ``variance``.
    box : (y_start, y_stop, x_start, x_stop)
        What the other bins tile; inside the box of the frame.
    edges_y, edges_x : array, int, pixel
        Edges of the other bins, from 0.

    Returns
    -------
    (array, array), (bins y, bins x), float64
        The variance is infinite where a mean leans by more than half on bins of the frame that
        were never observed; a smaller part of them adds to it what levels differ by.

    Examples
    --------
    >>> level = xr.DataArray([[0.0, 4.0]], dims=("bin_y", "bin_x"))
    >>> frame = xr.Dataset({"level": level, "variance": 0 * level}, attrs={"box": [0, 1, 0, 8]})
    >>> mean, _ = frame_in_bins(
    ...     frame, (0, 1, 0, 8), np.array([0, 1]), np.array([0, 2, 4, 6, 8]), interpolation="linear"
    ... )
    >>> mean
    array([[-1.,  1.,  3.,  5.]])
    """
    checked("interpolation", interpolation, STYLES)
    style = STYLES[interpolation]
    box, frame_box = Box(*(int(limit) for limit in box)), box_of_background(sky_frame)
    check_inside(box, frame_box)
    level, variance, observed = frame_planes(sky_frame)
    variance = np.nan_to_num(variance)
    own = [bin_edges(size, n) for size, n in zip(frame_box.shape, level.shape, strict=True)]
    if box == frame_box and np.array_equal(own[0], edges_y) and np.array_equal(own[1], edges_x):
        return level, np.where(observed, variance, np.inf)
    starts = (box.y_start - frame_box.y_start, box.x_start - frame_box.x_start)
    mean, square, gap = level, variance, (~observed).astype(np.float64)
    for axis, edges in enumerate((edges_y, edges_x)):
        size = frame_box.shape[axis]
        knots = bin_centers(own[axis])
        positions = np.arange(edges[-1], dtype=np.float64) + starts[axis]
        along = [knots, positions, np.asarray(edges), style, 0.5 * size / level.shape[axis]]
        mean = np.moveaxis(_means_along(np.moveaxis(mean, axis, 0), *along), 0, axis)
        weights = _means_along(np.eye(len(knots)), *along) ** 2
        square = np.moveaxis(
            np.einsum("ij,j...->i...", weights, np.moveaxis(square, axis, 0)), 0, axis
        )
        gap = np.moveaxis(_means_along(np.moveaxis(gap, axis, 0), *along), 0, axis)
    if not observed.all():
        # what is filled in errs alike over many bins: its part of the mean errs as it does
        square = square + gap**2 * _spread(level, observed)
    return mean, np.where(gap > LARGEST_GAP, np.inf, square)


def _spread(level: Floats, observed: NDArray[np.bool_]) -> float:
    """Return the variance of the levels that were observed: the error of one that was not."""
    return float(level[observed].var()) if observed.any() else 0.0


def _means_along(
    values: Floats, knots: Floats, positions: Floats, edges: Any, style: int, reach: float
) -> Floats:
    """Return the means over bins of the interpolants along the first axis."""
    out = np.empty((len(positions), values.shape[1]))
    render_kernels.values_by_row(
        knots, np.ascontiguousarray(values), positions, style, False, pieces.LIMIT, reach, out
    )
    return np.asarray(np.add.reduceat(out, edges[:-1], axis=0) / np.diff(edges)[:, None])
