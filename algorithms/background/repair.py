"""Backgrounds with their bad bins filled, or smoothed over, and flagged as such."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.filling import fill_bad, smooth_ignoring_bad
from skyloom.algorithms.background.interpolation import Style

__all__ = ["fill_background", "smooth_background"]

BAD_BINS = v.BinFlag.EMPTY | v.BinFlag.LOW_COUNT


def fill_background(
    background: xr.Dataset,
    *,
    bad: int = BAD_BINS,
    method: Literal["harmonic", "spline"] = "harmonic",
    outside: Literal["nearest", "plane", "nan"] = "nearest",
    interpolation: Style = "natural_spline",
) -> xr.Dataset:
    """Return a background whose bad bins are filled from the good ones.

    Parameters
    ----------
    background : Dataset, (bin_y, bin_x)
        ``level`` and, if present, ``variance`` and ``flags``.
    bad : int
        `BinFlag` bits of the bins to replace; bins without a finite level are replaced always.
    method, outside, interpolation
        As in `fill_bad`.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        ``level`` filled, ``variance`` NaN in filled bins, ``flags`` with FILLED inside the convex
        hull of the good bins and EXTRAPOLATED outside. Good bins do not change.

    Raises
    ------
    NoUsableDataError
        If no bin is good.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[1.0, np.nan, 3.0]]), dims=("bin_y", "bin_x"))
    >>> filled = fill_background(xr.Dataset({"level": level}))
    >>> filled["level"].values.tolist(), filled["flags"].values.tolist()
    ([[1.0, 2.0, 3.0]], [[0, 4, 0]])
    """
    level, flags = _level_and_flags(background)
    filled, marks = fill_bad(
        level.values,
        (flags & np.uint8(bad)) != 0,
        method=method,
        outside=outside,
        interpolation=interpolation,
    )
    changed = {
        "level": level.copy(data=np.where(marks > 0, filled, level.values).astype(level.dtype)),
        "flags": _flags(level, flags | marks),
    }
    if "variance" in background:
        variance = background["variance"].transpose(v.BIN_Y, v.BIN_X)
        changed["variance"] = variance.where(marks == 0)
    return background.assign(changed)


def smooth_background(background: xr.Dataset, *, sigma: float, bad: int = BAD_BINS) -> xr.Dataset:
    """Return a background smoothed by a Gaussian, bins weighted by their count.

    Parameters
    ----------
    background : Dataset, (bin_y, bin_x)
        ``level`` and, if present, ``count`` (weights) and ``flags``.
    sigma : float
        Of the Gaussian, in bins; > 0.
    bad : int
        `BinFlag` bits of the bins that do not count.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        ``level`` smoothed, ``flags`` with SMOOTHED, and FILLED where a bad bin got a value. Bad
        bins without a good one in reach are NaN. The variance of the level is NaN: smoothed bins
        are no longer independent.

    Raises
    ------
    ValueError
        If sigma is not positive.

    Examples
    --------
    >>> level = xr.DataArray(np.full((1, 3), 7.0), dims=("bin_y", "bin_x"))
    >>> smooth_background(xr.Dataset({"level": level}), sigma=1.0)["level"].values.tolist()
    [[7.0, 7.0, 7.0]]
    """
    level, flags = _level_and_flags(background)
    out = ((flags & np.uint8(bad)) != 0) | ~np.isfinite(level.values)
    weight = None
    if "count" in background:
        weight = background["count"].transpose(v.BIN_Y, v.BIN_X).values
    smooth = smooth_ignoring_bad(level.values, out, sigma=sigma, weight=weight)
    marks = np.where(np.isfinite(smooth), np.uint8(v.BinFlag.SMOOTHED), np.uint8(0))
    marks[out & np.isfinite(smooth)] |= np.uint8(v.BinFlag.FILLED)
    changed = {
        "level": level.copy(data=smooth.astype(level.dtype)),
        "flags": _flags(level, flags | marks),
    }
    if "variance" in background:
        changed["variance"] = xr.full_like(
            background["variance"].transpose(v.BIN_Y, v.BIN_X), np.nan
        )
    return background.assign(changed)


def _level_and_flags(background: xr.Dataset) -> tuple[xr.DataArray, NDArray[np.uint8]]:
    level = background["level"].transpose(v.BIN_Y, v.BIN_X)
    if "flags" not in background:
        return level, np.zeros(level.shape, np.uint8)
    return level, background["flags"].transpose(v.BIN_Y, v.BIN_X).values.astype(np.uint8)


def _flags(level: xr.DataArray, flags: NDArray[np.uint8]) -> xr.DataArray:
    return level.copy(data=flags).drop_attrs().assign_attrs(v.flag_attributes(v.BinFlag))
