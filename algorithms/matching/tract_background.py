"""The levels of many warps in the bins of one tract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.filling import fill_bad
from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.background.repair import BAD_BINS
from skyloom.algorithms.matching.tract_grid import TractGrid
from skyloom.algorithms.matching.tract_parameters import TractBackgroundParameters
from skyloom.algorithms.matching.tract_sums import merge_tract_sums, tract_levels, tract_sums

__all__ = ["fill_tract_background", "tract_background"]

DIMS = (v.VISIT, v.TRACT_Y, v.TRACT_X)


def tract_background(
    warps: Iterable[xr.Dataset],
    grid: TractGrid,
    *,
    exclude: Mapping[int, xr.DataArray] | None = None,
    parameters: TractBackgroundParameters | None = None,
) -> xr.Dataset:
    """Return the level of each visit in each bin of a tract.

    Every warp is read once, one after the other; only the inner box of its patch counts, so that
    each pixel of the tract is in exactly one bin.

    Parameters
    ----------
    warps : iterable of Dataset, (y, x) or (visit, y, x)
        Warps of any visits and patches of the tract, in any order: ``image`` (float32, any unit),
        optionally ``mask`` and ``variance``; coordinates ``visit`` and, where known, ``patch``;
        attribute ``box``, the half-open box of tract pixels. May be lazy and is loaded.
    grid : TractGrid
    exclude : mapping of patch to DataArray, (y, x), bool, optional
        Pixels of patches that do not count in any visit: the objects of a coadd. Sources drop out
        of differences only if all visits leave out the same pixels, or have the same
        point-spread function. Attribute ``box`` as in `tract_sums`.
    parameters : TractBackgroundParameters, optional

    Returns
    -------
    Dataset, (visit, tract_y, tract_x)
        ``level`` float32 [unit of the warps], ``variance`` float32 (of the level: a true variance
        with the noise correlation of the warps in it), ``count`` of valid pixels and
        ``count_used`` after clipping, int32, ``flags`` uint8 (`BinFlag`: EMPTY, LOW_COUNT,
        BAD_VARIANCE). Visits ascend; coordinates are centres of bins in tract pixels. Patches
        that a visit lacks are EMPTY.

    Raises
    ------
    GeometryError
        If a warp does not lie on the tract.
    ConfigurationError
        If there is no warp, a patch of a visit is there twice, or units or bands differ.
    KeyError
        If a warp has no ``visit``, or its mask does not know a plane.

    Notes
    -----
    The LSST Science Pipelines take boxes of twice the size of a bin, so that neighbours share half
    of their pixels, count pixels in overlaps of patches twice and store the mean variance of
    pixels.

    Examples
    --------
    >>> image = xr.DataArray(np.array([[1.0, 3.0], [5.0, 7.0]], np.float32), dims=("y", "x"))
    >>> warp = xr.Dataset({"image": image}, {"visit": 7}, {"box": [0, 2, 0, 2]})
    >>> levels = tract_background([warp], TractGrid((2, 4), (2, 2), (2, 2)))
    >>> levels["level"].values.tolist(), levels["count"].values.tolist()
    ([[[4.0, nan]]], [[[4, 0]]])
    """
    chosen = parameters or TractBackgroundParameters()
    pieces = []
    for warp in warps:
        patch = int(warp.coords[v.PATCH]) if v.PATCH in warp.coords else None
        if exclude and patch is None:
            raise KeyError("exclude is by patch, and a warp has no coordinate patch")
        hidden = (exclude or {}).get(patch) if patch is not None else None
        pieces.append(tract_sums(warp, grid, exclude=hidden, parameters=chosen).load())
    merged = merge_tract_sums(pieces, grid)
    return tract_levels(merged, grid, min_fraction=chosen.min_fraction)


def fill_tract_background(
    background: xr.Dataset,
    *,
    bad: int = BAD_BINS,
    method: Literal["harmonic", "spline"] = "harmonic",
    outside: Literal["nearest", "plane", "nan"] = "nearest",
    interpolation: Style = "natural_spline",
) -> xr.Dataset:
    """Return levels whose bad bins are filled from the good ones of their visit.

    Parameters
    ----------
    background : Dataset, (visit, tract_y, tract_x)
        From `tract_background`.
    bad : int
        `BinFlag` bits of the bins to replace; bins without a finite level are replaced always.
    method, outside, interpolation
        As in `skyloom.algorithms.background.fill_bad`.

    Returns
    -------
    Dataset, (visit, tract_y, tract_x)
        ``level`` filled, ``variance`` NaN in filled bins, ``flags`` with FILLED inside the convex
        hull of the good bins and EXTRAPOLATED outside. Good bins do not change; a visit without a
        good bin stays as it is.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[[1.0, np.nan, 3.0]]]), dims=("visit", "tract_y", "tract_x"))
    >>> filled = fill_tract_background(xr.Dataset({"level": level}))
    >>> filled["level"].values.tolist(), filled["flags"].values.tolist()
    ([[[1.0, 2.0, 3.0]]], [[[0, 4, 0]]])
    """
    level = background["level"].transpose(*DIMS)
    values = level.values.copy()
    flags = (
        background["flags"].transpose(*DIMS).values.astype(np.uint8)
        if "flags" in background
        else np.zeros(values.shape, np.uint8)
    )
    replaced = np.zeros(values.shape, bool)
    for index in range(values.shape[0]):
        unusable = ((flags[index] & np.uint8(bad)) != 0) | ~np.isfinite(values[index])
        if unusable.all():
            continue
        filled, marks = fill_bad(
            values[index], unusable, method=method, outside=outside, interpolation=interpolation
        )
        replaced[index] = marks > 0
        values[index] = np.where(marks > 0, filled, values[index])
        flags[index] |= marks
    changed = {
        "level": level.copy(data=values),
        "flags": (DIMS, flags, v.flag_attributes(v.BinFlag)),
    }
    if "variance" in background:
        variance = background["variance"].transpose(*DIMS)
        changed["variance"] = variance.copy(data=np.where(replaced, np.nan, variance.values))
    return background.assign(changed)
