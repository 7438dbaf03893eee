"""Levels of visits in bins of a tract as arrays, and which visits can be matched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.matching.fields import (
    FieldBasis,
    PolynomialBasis,
    SplineBasis,
    basis_at_bins,
)
from skyloom.algorithms.matching.match_parameters import MatchParameters
from skyloom.algorithms.matching.tract_grid import TractGrid

__all__ = [
    "MatchInput",
    "basis_of_parameters",
    "functions_of_bins",
    "grid_of_background",
    "match_input",
    "merged_codes",
]

Floats = NDArray[np.float64]
DIMS = (v.VISIT, v.TRACT_Y, v.TRACT_X)
UNUSABLE = int(v.BinFlag.EMPTY | v.BinFlag.LOW_COUNT | v.BinFlag.BAD_VARIANCE)


class MatchInput(NamedTuple):
    """Levels and weights, (bin, visit), visits ascending, and the status of each visit."""

    visits: NDArray[np.int64]
    order: NDArray[np.int64]
    level: Floats
    weight: Floats
    status: NDArray[np.uint8]


def match_input(background: xr.Dataset, scatter: float = 0.0) -> MatchInput:
    """Return the arrays of a tract background; bins that cannot be used have weight 0.

    Raises
    ------
    ConfigurationError
        If there is no visit, or one twice.
    KeyError
        If the background has no ``level`` or ``variance``.
    """
    for name in ("level", "variance"):
        if name not in background:
            raise KeyError(f"the background needs {name}; it has {list(background.data_vars)}")
    visits = np.atleast_1d(background[v.VISIT].values).astype(np.int64)
    if not visits.size:
        raise ConfigurationError("there is nothing to match: the background has no visit")
    if np.unique(visits).size < visits.size:
        raise ConfigurationError(f"visits are there twice: {visits.tolist()}")
    # sums in one order give the same bits, whatever the order of visits
    order = np.argsort(visits)
    ordered = background[["level", "variance", *(["flags"] if "flags" in background else [])]]
    ordered = ordered.transpose(*DIMS).isel({v.VISIT: order})
    level = ordered["level"].values.reshape(len(visits), -1).astype(np.float64)
    variance = ordered["variance"].values.reshape(len(visits), -1).astype(np.float64)
    usable = np.isfinite(level)
    known = np.isfinite(variance) & (variance > 0)
    if "flags" in ordered:
        flags = ordered["flags"].values.reshape(len(visits), -1).astype(np.int64)
        usable &= (flags & (UNUSABLE & ~int(v.BinFlag.BAD_VARIANCE))) == 0
        known &= (flags & int(v.BinFlag.BAD_VARIANCE)) == 0
    status = np.full(len(visits), v.OffsetStatus.OK, np.uint8)
    good = usable & known
    status[~good.any(axis=1)] = v.OffsetStatus.BAD_VARIANCE
    status[~usable.any(axis=1)] = v.OffsetStatus.NO_DATA
    level[~good] = 0.0
    variance[~good] = np.inf
    variance += scatter**2
    np.reciprocal(variance, out=variance)
    level = np.ascontiguousarray(level.T)
    return MatchInput(visits[order], order, level, np.ascontiguousarray(variance.T), status)


def grid_of_background(background: xr.Dataset) -> TractGrid:
    """Return the bins of a tract background from its attributes.

    Raises
    ------
    ConfigurationError
        If the attributes ``tract_shape`` and ``bin_size`` are missing or do not fit.
    """
    found = []
    for name in ("tract_shape", "bin_size"):
        if name not in background.attrs:
            raise ConfigurationError(f"the background has no attribute {name}")
        first, second = (int(value) for value in background.attrs[name])
        found.append((first, second))
    shape, size = found
    grid = TractGrid(shape, size, shape, allow_partials=True)
    given = background.sizes[v.TRACT_Y], background.sizes[v.TRACT_X]
    if grid.bins != given:
        raise ConfigurationError(
            f"the background has {given} bins (y, x), its tract of {shape} pixels {grid.bins}"
        )
    return grid


def basis_of_parameters(parameters: MatchParameters, shape: tuple[int, int]) -> FieldBasis:
    """Return the basis that parameters ask for."""
    if parameters.basis == "spline":
        return SplineBasis(shape, parameters.knots)
    return PolynomialBasis(shape, parameters.order)


def functions_of_bins(basis: FieldBasis, grid: TractGrid) -> Floats:
    """Return the mean of each term over each bin, (bin, term)."""
    functions = basis_at_bins(basis, grid)
    return np.ascontiguousarray(functions.reshape(-1, functions.shape[-1]))


def merged_codes(status: NDArray[np.uint8], chosen: NDArray[np.bool_], code: int) -> None:
    """Give visits a code that have none yet."""
    status[chosen & (status == v.OffsetStatus.OK)] = code
