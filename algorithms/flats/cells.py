"""The table of levels that scales are made from: which cells are usable, and what they weigh."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.flats.parameters import FlatScaleParameters
from skyloom.algorithms.vocabulary import CellStatus

__all__ = ["Cells", "arrange_cells", "cell_weights"]

Floats = NDArray[np.float64]


class Cells(NamedTuple):
    """Levels over (channel, exposure); a channel is a detector or an amplifier of one.

    ``data`` are log levels, ``noise`` their variances and ``counts`` their pixels, 0 where a cell
    is not usable.
    ``pixels`` (channel) are those of all usable cells. ``exists`` (channel) is false for
    combinations of labels that no exposure has, such as amplifier 16 of a detector with 8.
    """

    data: Floats
    noise: Floats
    counts: Floats
    usable: NDArray[np.bool_]
    status: NDArray[np.uint8]
    pixels: Floats
    exists: NDArray[np.bool_]


def arrange_cells(
    level: xr.DataArray,
    count: xr.DataArray | None,
    sigma: xr.DataArray | None,
) -> Cells:
    """Return levels, their pixels and scatter as one table, by label.

    Parameters
    ----------
    level : DataArray, (exposure, ...), float64
        Clipped means; dimensions besides ``exposure`` make up the channels.
    count : DataArray, optional
        Pixels each was measured with; 1 without it.
    sigma : DataArray, unit of the level, optional
        Scatter of pixels; without it levels have no noise.

    Raises
    ------
    ValueError
        If a dimension is missing or a label repeats.
    NoUsableDataError
        If no cell is usable.

    Warns
    -----
    UserWarning
        If finite levels have a count or a sigma that gives them no weight.

    Examples
    --------
    >>> level = xr.DataArray([[10.0, np.nan]], dims=("exposure", "detector"))
    >>> arrange_cells(level, None, None).status.tolist()
    [[0], [1]]
    """
    channel_dims = _channel_dims(level)
    dims = (*channel_dims, v.EXPOSURE)
    table = level if level.dims == dims else level.transpose(*dims)
    shape = (-1, table.shape[-1])
    levels = np.asarray(table.values, dtype=np.float64).reshape(shape)
    counts = np.ones(levels.shape) if count is None else _like(count, table, "count")
    scatter = np.zeros(levels.shape) if sigma is None else _like(sigma, table, "sigma")
    finite = np.isfinite(levels)
    positive = finite & (levels > 0.0)
    weighted = (counts > 0.0) & (scatter >= 0.0) & (counts < np.inf) & (scatter < np.inf)
    usable = positive & weighted
    status = np.zeros(levels.shape, np.uint8)
    exists = np.ones(len(levels), np.bool_)
    if not usable.all():
        measured = counts > 0.0 if count is not None else ~np.isnan(levels)
        status = np.select(
            [~finite & ~measured, ~finite, finite & ~positive, ~usable],
            [CellStatus.MISSING, CellStatus.NONFINITE, CellStatus.NONPOSITIVE, CellStatus.MISSING],
            CellStatus.OK,
        ).astype(np.uint8)
        known = ~np.isnan(levels) if count is None else ~np.isnan(counts)
        if len(channel_dims) > 1:
            exists = np.any(known, axis=1)
        if not usable.any():
            raise NoUsableDataError(
                f"none of {levels.size} levels is finite, positive and of positive weight"
            )
        lost = int((positive & ~weighted).sum())
        if lost:
            warnings.warn(
                f"{lost} finite levels have a count or sigma that gives no weight (not finite, "
                "count <= 0 or sigma < 0) and are taken as missing",
                UserWarning,
                stacklevel=3,
            )
        levels = np.where(usable, levels, 1.0)
        counts = np.where(usable, counts, 0.0)
        scatter = np.where(usable, scatter, 0.0)
    noise = (scatter / levels) ** 2 / np.where(usable, counts, 1.0)
    return Cells(np.log(levels), noise, counts, usable, status, counts.sum(axis=1), exists)


def cell_weights(cells: Cells, parameters: FlatScaleParameters, systematic: float) -> Floats:
    """Return the weights of the cells; 0 for those not usable.

    Raises
    ------
    ValueError
        If a level has neither noise nor systematic scatter.

    Examples
    --------
    >>> level = xr.DataArray([[10.0, 20.0]], dims=("exposure", "detector"))
    >>> cell_weights(arrange_cells(level, None, None), FlatScaleParameters(), 0.1).round(9)
    array([[100.],
           [100.]])
    """
    if parameters.weights == "counts":
        return cells.counts
    if parameters.weights == "uniform":
        return cells.usable.astype(np.float64)
    variance = cells.noise + systematic**2
    bad = cells.usable & ~(variance > 0.0)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} levels have no noise (sigma is 0 or not given) and systematic is 0, "
            "so they have no weight: give systematic > 0, or weights='counts' or 'uniform'"
        )
    return np.where(cells.usable, 1.0 / np.where(bad | ~cells.usable, 1.0, variance), 0.0)


def _channel_dims(level: xr.DataArray) -> tuple[str, ...]:
    if not isinstance(level, xr.DataArray):
        raise TypeError(
            f"level must be an xarray.DataArray, got {type(level).__name__}: name its dimensions, "
            "xarray.DataArray(level, dims=('detector', 'exposure'))"
        )
    if v.EXPOSURE not in level.dims or level.ndim < 2:
        raise ValueError(
            f"level needs the dimension {v.EXPOSURE!r} and one or more others, got {level.dims}"
        )
    dims = tuple(str(name) for name in level.dims if name != v.EXPOSURE)
    if set(dims) == {v.DETECTOR, v.AMP}:
        dims = (v.DETECTOR, v.AMP)
    if 0 in level.shape:
        raise NoUsableDataError(f"there are no levels: {dict(level.sizes)}")
    indexes = dict(level.indexes)
    for name in (*dims, v.EXPOSURE):
        index = indexes.get(name)
        if index is not None and not index.is_unique:
            twice = index[index.duplicated()].unique().tolist()
            raise ValueError(f"{name} {', '.join(map(str, twice))} occurs more than once")
    return dims


def _like(array: xr.DataArray, table: xr.DataArray, name: str) -> Floats:
    """Return an array in the order of the table, by label; NaN where it has no value."""
    foreign = [str(dim) for dim in array.dims if dim not in table.dims]
    if foreign:
        raise ValueError(f"{name} has dimensions {foreign} that level, {table.dims}, has not")
    own, wanted = dict(array.indexes), dict(table.indexes)
    for dim in array.dims:
        if dim in own and dim in wanted and not own[dim].equals(wanted[dim]):
            array = array.reindex({dim: wanted[dim]})
        elif array.sizes[dim] != table.sizes[dim]:
            raise ValueError(
                f"{name} has {array.sizes[dim]} along {dim!r}, level has {table.sizes[dim]}"
            )
    if array.dims == table.dims:
        values = array.values
    else:
        values = array.broadcast_like(table).transpose(*table.dims).values
    return np.asarray(values, dtype=np.float64).reshape(-1, table.shape[-1])
