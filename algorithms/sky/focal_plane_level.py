"""The level of the sky in cells of the focal plane, and anywhere between them.

The level of a cell is its weighted mean, moved from the mean position of its data to its centre
along the gradient of the cells around: a plane is exact however a cell is covered. Cells that are
not measured never enter a statistic; they are filled so that the surface can be evaluated: up to
two cells from measured ones by the planes through these, further inside with the smoothest
surface, further out with the nearest value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import fill_bad, smooth_ignoring_bad
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.sky.focal_plane_cells import DIMS, SUMS, cell_places
from skyloom.algorithms.sky.focal_plane_parameters import FocalPlaneParameters
from skyloom.algorithms.units import squared_units

__all__ = ["focal_plane_level"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_SPREAD = 1e-3  # cells²; along a direction of less spread the gradient is taken to be 0
MARGIN = 3  # cells added around the grid to interpolate at its edge
REACH = 0.5  # cells that the surface continues beyond the outermost centres
MEDIAN_TO_MEAN = np.pi / 2  # variance of the median of Gaussian numbers over that of their mean


def focal_plane_level(sums: xr.Dataset, *, parameters: FocalPlaneParameters) -> xr.Dataset:
    """Return the sky of one exposure across the focal plane from the sums in its cells.

    Parameters
    ----------
    sums : Dataset, (focal_y, focal_x)
        See `focal_plane_sums` and `merge_focal_plane_sums`.
    parameters : FocalPlaneParameters

    Returns
    -------
    Dataset, (focal_y, focal_x)
        The sums, and float64 ``level`` [unit of the bins], ``variance`` of the level (NaN where
        filled) and uint8 ``flags`` (`BinFlag`: EMPTY without data and LOW_COUNT below the minimum
        fraction, both with FILLED or EXTRAPOLATED; SMOOTHED); scalar ``scale`` and ``scale_sigma``:
        the level of the exposure over *measured* cells. Attribute ``interpolation``.

    Raises
    ------
    NoUsableDataError
        If no cell reaches the minimum fraction.

    Examples
    --------
    >>> from skyloom.algorithms.sky.focal_plane_cells import focal_plane_grid, focal_plane_sums
    >>> dims = ("bin_y", "bin_x")
    >>> x = np.arange(8.0) * 2 + 0.5
    >>> background = xr.Dataset(
    ...     {"level": (dims, [100 + x]), "count": (dims, np.full((1, 8), 4))},
    ...     attrs={"box": [0, 2, 0, 16]},
    ... )
    >>> transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> parameters = FocalPlaneParameters(cell_size=(4.0, 6.0))
    >>> grid = focal_plane_grid({1: transform}, {1: (2, 16)}, cell_size=parameters.cell_size)
    >>> sums = focal_plane_sums(background, transform, grid)
    >>> model = focal_plane_level(sums, parameters=parameters)
    >>> (model["level"] - model["focal_x"]).values.round(9)
    array([[100., 100., 100.]])
    """
    arrays = {name: np.asarray(sums[name].transpose(*DIMS).values) for name in SUMS}
    found = solve_level(arrays, sums.attrs["cell_size"], parameters)
    units = {"units": str(sums["sum"].attrs.get("units", v.DIMENSIONLESS))}
    square = {"units": squared_units(units["units"])}
    model = sums.assign(
        level=(DIMS, found.level, units),
        variance=(DIMS, found.variance, square),
        flags=(DIMS, found.flags, v.flag_attributes(v.BinFlag)),
    ).assign_coords(scale=((), found.scale, units), scale_sigma=((), found.scale_sigma, units))
    model.attrs["interpolation"] = parameters.interpolation
    return model


class Level(NamedTuple):
    """The level of cells, (focal_y, focal_x), and the scale; see `focal_plane_level`."""

    level: Floats
    variance: Floats
    flags: NDArray[np.uint8]
    scale: float
    scale_sigma: float


def solve_level(
    sums: Mapping[str, Floats], cell_size: Sequence[float], parameters: FocalPlaneParameters
) -> Level:
    """Return the level of cells from their sums; see `focal_plane_level`."""
    weight = sums["weight"]
    fraction = sums["area"] / float(np.prod(cell_size))
    measured = (weight > 0) & (fraction >= parameters.minimum_fraction)
    if not measured.any():
        raise NoUsableDataError(
            f"no cell of the focal plane has {parameters.minimum_fraction:g} of its area measured; "
            f"the fullest has {float(fraction.max(initial=0.0)):.3g}"
        )
    fit = _local_planes(sums, measured)
    level = np.where(measured, fit.mean - fit.slope_y * fit.y - fit.slope_x * fit.x, np.nan)
    variance = np.full(weight.shape, np.nan)
    variance[measured] = sums["sum_variance"][measured] / weight[measured] ** 2
    scale, scale_sigma = _scale(level, variance, weight, measured, parameters.scale_statistic)
    flags = np.zeros(weight.shape, np.uint8)
    flags[weight == 0] |= np.uint8(v.BinFlag.EMPTY)
    flags[(weight > 0) & ~measured] |= np.uint8(v.BinFlag.LOW_COUNT)
    if parameters.smoothing > 0:
        weights = np.where(measured, weight, 0.0)
        smooth = smooth_ignoring_bad(level, ~measured, sigma=parameters.smoothing, weight=weights)
        level = np.where(measured, smooth, np.nan)
        flags[measured] |= np.uint8(v.BinFlag.SMOOTHED)
    if not measured.all():
        _, filled = fill_bad(level)
        level, _ = fill_bad(_continued(level, fit))
        flags |= filled
    return Level(level, variance, flags, scale, scale_sigma)


class _Planes(NamedTuple):
    """Planes around each cell: the mean level and position of its own data (of those around it
    where it has none), and the gradient, per cell, of its 3 x 3 neighbourhood.
    """

    mean: Floats
    mean_around: Floats
    y: Floats
    x: Floats
    slope_y: Floats
    slope_x: Floats
    reached: Bools


def _local_planes(sums: Mapping[str, Floats], measured: Bools) -> _Planes:
    """Fit a plane to the data of each cell and its neighbours, about the centre of the cell."""
    names = [name for name in SUMS if name not in ("sum_variance", "area")]
    own = {name: np.where(measured, sums[name], 0.0) for name in names}
    w = own["weight"]
    # levels are taken from their mean, so that squares of large numbers do not cancel
    center = float(own["sum"].sum() / w.sum())
    own["sum_level_y"] = own["sum_level_y"] - center * own["sum_y"]
    own["sum_level_x"] = own["sum_level_x"] - center * own["sum_x"]
    own["sum"] = own["sum"] - center * w
    around = {name: np.zeros(w.shape) for name in names}
    rows, columns = w.shape
    padded = {name: np.pad(array, 1) for name, array in own.items()}
    for dy in (-1.0, 0.0, 1.0):
        for dx in (-1.0, 0.0, 1.0):
            part = np.s_[1 + int(dy) : 1 + int(dy) + rows, 1 + int(dx) : 1 + int(dx) + columns]
            n = {name: array[part] for name, array in padded.items()}
            around["weight"] += n["weight"]
            around["sum"] += n["sum"]
            around["sum_y"] += n["sum_y"] + dy * n["weight"]
            around["sum_x"] += n["sum_x"] + dx * n["weight"]
            around["sum_yy"] += n["sum_yy"] + dy * (2.0 * n["sum_y"] + dy * n["weight"])
            around["sum_xx"] += n["sum_xx"] + dx * (2.0 * n["sum_x"] + dx * n["weight"])
            around["sum_xy"] += (
                n["sum_xy"] + dy * n["sum_x"] + dx * n["sum_y"] + dy * dx * n["weight"]
            )
            around["sum_level_y"] += n["sum_level_y"] + dy * n["sum"]
            around["sum_level_x"] += n["sum_level_x"] + dx * n["sum"]
    reached = around["weight"] > 0
    total = np.where(reached, around["weight"], 1.0)
    mean_y, mean_x = around["sum_y"] / total, around["sum_x"] / total
    mean = around["sum"] / total
    spread = np.empty((rows, columns, 2, 2))
    spread[..., 0, 0] = around["sum_yy"] / total - mean_y**2
    spread[..., 1, 1] = around["sum_xx"] / total - mean_x**2
    spread[..., 0, 1] = spread[..., 1, 0] = around["sum_xy"] / total - mean_y * mean_x
    together = np.stack(
        [
            around["sum_level_y"] / total - mean * mean_y,
            around["sum_level_x"] / total - mean * mean_x,
        ],
        axis=-1,
    )
    values, vectors = np.linalg.eigh(spread)
    known = values > LEAST_SPREAD
    inverse = np.where(known, 1.0 / np.where(known, values, 1.0), 0.0)
    slope = np.einsum("...ij,...j,...kj,...k->...i", vectors, inverse, vectors, together)
    own_weight = np.where(measured, w, 1.0)
    return _Planes(
        mean=center + own["sum"] / own_weight,
        mean_around=center + mean,
        y=np.where(measured, own["sum_y"] / own_weight, mean_y),
        x=np.where(measured, own["sum_x"] / own_weight, mean_x),
        slope_y=slope[..., 0],
        slope_x=slope[..., 1],
        reached=reached,
    )


def _continued(level: Floats, fit: _Planes) -> Floats:
    """Return levels continued by two cells: along their own planes, then along those of these."""
    ring = np.isnan(level) & fit.reached
    level = np.where(ring, fit.mean_around - fit.slope_y * fit.y - fit.slope_x * fit.x, level)
    rows, columns = level.shape
    known = np.isfinite(level)
    fields = [np.where(known, field, 0.0) for field in (level, fit.slope_y, fit.slope_x)]
    value, slope_y, slope_x, number = (np.pad(field, 1) for field in (*fields, 1.0 * known))
    total, count = np.zeros(level.shape), np.zeros(level.shape)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            part = np.s_[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
            total += value[part] - dy * slope_y[part] - dx * slope_x[part]
            count += number[part]
    return np.where(known | (count == 0), level, total / np.maximum(count, 1.0))


def _scale(
    level: Floats, variance: Floats, weight: Floats, measured: Bools, statistic: str
) -> tuple[float, float]:
    """Return the level of the exposure over measured cells and its standard error."""
    levels, w = level[measured], weight[measured]
    if statistic == "mean":
        value = float(np.sum(w * levels) / np.sum(w))
        return value, float(np.sqrt(np.sum(w**2 * variance[measured]))) / float(np.sum(w))
    spread = MEDIAN_TO_MEAN if len(levels) > 2 else 1.0
    mean_variance = float(np.mean(variance[measured])) / len(levels)
    return float(np.median(levels)), float(np.sqrt(spread * mean_variance))


class Surface:
    """The level of a focal-plane background as a function of the place.

    ``cubic`` is the convolution of Keys (1981) with a = -1/2: it goes through the levels of cells,
    is smooth, and no cell is felt further than two cells away.
    """

    def __init__(self, level: Floats, grid: xr.Dataset, interpolation: str) -> None:
        self._grid = grid
        # differences keep a constant exact
        self._center = float(level.flat[0])
        self._last = [n - 1.0 for n in level.shape]
        for axis in (0, 1):
            level = _prolonged(level - self._center * (axis == 0), axis)
        self._level = level
        self._weights = _cubic if interpolation == "cubic" else _linear

    @classmethod
    def of(cls, model: xr.Dataset) -> Surface:
        """Return the surface of a focal-plane background."""
        level = np.asarray(model["level"].transpose(*DIMS).values, np.float64)
        return cls(level, model, str(model.attrs["interpolation"]))

    def __call__(self, y: Floats, x: Floats) -> Floats:
        """Return the level at places in mm, continued by straight lines for half a cell."""
        y, x = np.broadcast_arrays(y, x)
        places = [
            np.clip(place, -REACH, last + REACH)
            for place, last in zip(cell_places(self._grid, y, x), self._last, strict=True)
        ]
        cell_y, cell_x = (np.floor(place).astype(np.int64) for place in places)
        rows = self._weights(places[0] - cell_y)
        columns = self._weights(places[1] - cell_x)
        total = np.zeros(y.shape)
        for i, row in enumerate(rows):
            along = np.zeros(y.shape)
            for j, column in enumerate(columns):
                along += column * self._level[cell_y + i + MARGIN - 1, cell_x + j + MARGIN - 1]
            total += row * along
        return total + self._center


def _prolonged(level: Floats, axis: int) -> Floats:
    """Return levels continued by straight lines through the last two on both sides."""
    level = np.moveaxis(level, axis, 0)
    first, last = level[:1], level[-1:]
    one = level.shape[0] == 1
    slope_first, slope_last = (
        (0 * first, 0 * last) if one else (level[1:2] - first, last - level[-2:-1])
    )
    steps = np.arange(1.0, MARGIN + 1.0).reshape(-1, 1)
    before, after = first - steps[::-1] * slope_first, last + steps * slope_last
    return np.moveaxis(np.concatenate([before, level, after]), 0, axis)


def _cubic(t: Floats) -> list[Floats]:
    """Return the weights of the cells at -1, 0, 1, 2 for a place t in [0, 1)."""
    return [
        -0.5 * t * (1.0 - t) ** 2,
        1.0 + t * t * (1.5 * t - 2.5),
        0.5 * t + t * t * (2.0 - 1.5 * t),
        -0.5 * t * t * (1.0 - t),
    ]


def _linear(t: Floats) -> list[Floats]:
    return [np.zeros_like(t), 1.0 - t, t]


def surface_flags(model: xr.Dataset, y: Floats, x: Floats) -> NDArray[np.uint8]:
    """Return EXTRAPOLATED or FILLED where a place lies in a cell that is not measured."""
    own = np.asarray(model["flags"].transpose(*DIMS).values, np.uint8)
    own = own & np.uint8(v.BinFlag.EXTRAPOLATED | v.BinFlag.FILLED)
    row, column = (
        np.clip(np.floor(place + 0.5).astype(np.int64), 0, size - 1)
        for place, size in zip(cell_places(model, y, x), own.shape, strict=True)
    )
    found: NDArray[np.uint8] = own[row, column]
    return found
