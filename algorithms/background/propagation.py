"""What the errors of bins do to the pixels rendered from them.

Natural splines and straight lines are linear in the bins, so that independent bins of variance
``V`` give pixels of variance ``(Ay∘Ay) V (Ax∘Ax)ᵀ`` with the cardinal matrices ``A`` of both axes.
Between bins the variance falls below that of a bin (0.87 on average along an axis), at the edge
of the image it rises to 3.3 times, in a corner to 11 times.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import Box, bin_centers, bin_edges, box_of_background
from skyloom.algorithms.background.interpolation import Beyond, Style, interpolation_matrix
from skyloom.algorithms.background.rendering import (
    Reduce,
    Rendering,
    axis_styles,
    check_rendering,
    part_of,
)
from skyloom.algorithms.errors import (
    ConfigurationError,
    GeometryError,
    NonFiniteVarianceWarning,
)
from skyloom.algorithms.units import squared_units

__all__ = ["render_variance"]

Floats = NDArray[np.float64]


def render_variance(
    background: xr.Dataset,
    shape: tuple[int, int] | None = None,
    *,
    interpolation: Style = "natural_spline",
    box: Sequence[int] | None = None,
    extrapolate: Beyond = "limit",
    max_extrapolation: float = 0.5,
    reduce: Reduce = "per_axis",
) -> xr.DataArray:
    """Return the variance of the pixels that `render_background` makes of independent bins.

    Parameters
    ----------
    background : Dataset, (..., bin_y, bin_x)
        ``level`` (NaN bins are bridged by their column) and ``variance`` of the level; attribute
        ``box``. A good bin without a finite variance >= 0 takes the median of the others. May be
        lazy; the result then is.
    shape, box, extrapolate, max_extrapolation, reduce
        As in `render_background`.
    interpolation : str
        ``natural_spline``, ``linear``, ``constant`` or ``constant_compat``.

    Returns
    -------
    DataArray, (..., y, x), float32
        In the unit of ``level`` squared; NaN where no bin is good.

    Raises
    ------
    ValueError
        If a name is unknown, the style is ``akima`` (not linear in the bins) or boxes do not fit.

    Warns
    -----
    NonFiniteVarianceWarning
        If a good bin has no variance.

    Examples
    --------
    >>> level = xr.DataArray(np.zeros((1, 2)), dims=("bin_y", "bin_x"))
    >>> bins = xr.Dataset({"level": level, "variance": level + 4.0}, attrs={"box": [0, 1, 0, 4]})
    >>> render_variance(bins, interpolation="linear").values
    array([[6.5, 2.5, 2.5, 6.5]], dtype=float32)
    """
    rendering = Rendering(interpolation, extrapolate, max_extrapolation, "reduce", reduce)
    check_rendering(rendering)
    if interpolation == "akima":
        raise ConfigurationError("akima is not linear in the bins: its errors have no closed form")
    whole = box_of_background(background)
    if shape is not None and tuple(shape) != whole.shape:
        raise GeometryError(f"shape {tuple(shape)} differs from that of the box, {whole.shape}")
    part = whole if box is None else part_of(whole, box)
    planes = [background["level"], background["variance"]]
    planes = [
        plane if plane.chunks is None else plane.chunk({v.BIN_Y: -1, v.BIN_X: -1})
        for plane in planes
    ]
    image: xr.DataArray = xr.apply_ufunc(
        _variance_blocks,
        *planes,
        kwargs={"whole": whole, "part": part, "rendering": rendering},
        input_core_dims=[[v.BIN_Y, v.BIN_X]] * 2,
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": dict(zip((v.Y, v.X), part.shape, strict=True))},
    )
    units = str(planes[0].attrs.get("units", v.DIMENSIONLESS))
    return (
        image.drop_vars((v.BIN_Y, v.BIN_X), errors="ignore")
        .assign_coords(
            {
                v.Y: np.arange(part.y_start, part.y_stop),
                v.X: np.arange(part.x_start, part.x_stop),
            }
        )
        .rename("variance")
        .assign_attrs({"units": squared_units(units)})
    )


def variance_grid(
    level: NDArray[Any], variance: NDArray[Any], whole: Box, part: Box, rendering: Rendering
) -> tuple[NDArray[np.float32], int]:
    """Return the variance of the pixels of a part of a box, and how many variances were missing.

    Examples
    --------
    >>> box = Box(0, 1, 0, 2)
    >>> variance_grid(np.zeros((1, 1)), np.full((1, 1), 3.0), box, box, Rendering())
    (array([[3., 3.]], dtype=float32), 0)
    """
    good = np.isfinite(level)
    of_level = np.array(variance, dtype=np.float64)
    known = good & np.isfinite(of_level) & (of_level >= 0)
    missing = int((good & ~known).sum())
    if not known.any():
        return np.full(part.shape, np.nan, np.float32), missing
    of_level[good & ~known] = np.median(of_level[known])
    styles = axis_styles(rendering, (good.shape[0], good.shape[1]))
    columns = np.flatnonzero(good.any(axis=0))
    rows = np.empty((part.shape[0], columns.size))
    matrices: dict[bytes, Floats] = {}
    for place, column in enumerate(columns):
        kept = good[:, column]
        key = kept.tobytes()
        if key not in matrices:
            matrices[key] = _squared_matrix(whole, part, 0, good.shape[0], kept, styles, rendering)
        rows[:, place] = matrices[key] @ of_level[kept, column]
    if rendering.extrapolate != "nan":
        kept = good.any(axis=0)
        across = _squared_matrix(whole, part, 1, good.shape[1], kept, styles, rendering)
        return (rows @ across.T).astype(np.float32), missing
    image = np.full(part.shape, np.nan, np.float32)
    for pattern in np.unique(np.isfinite(rows), axis=0):
        if not pattern.any():
            continue
        chosen = np.all(np.isfinite(rows) == pattern, axis=1)
        kept = np.zeros(good.shape[1], np.bool_)
        kept[columns[pattern]] = True
        across = _squared_matrix(whole, part, 1, good.shape[1], kept, styles, rendering)
        image[chosen] = rows[np.ix_(chosen, pattern)] @ across.T
    return image, missing


def _squared_matrix(
    whole: Box,
    part: Box,
    axis: int,
    bins: int,
    kept: NDArray[np.bool_],
    styles: tuple[Style, Style],
    rendering: Rendering,
) -> Floats:
    """Return the squares of the cardinal matrix of the bins kept along an axis."""
    size, origin = whole.shape[axis], (whole.y_start, whole.x_start)[axis]
    start, stop = ((part.y_start, part.y_stop), (part.x_start, part.x_stop))[axis]
    matrix = interpolation_matrix(
        bin_centers(bin_edges(size, bins), origin)[kept],
        np.arange(start, stop),
        styles[axis],
        extrapolate=rendering.extrapolate,
        reach=rendering.max_extrapolation * size / bins,
    )
    return matrix**2


def _variance_blocks(
    level: NDArray[Any],
    variance: NDArray[Any],
    *,
    whole: Box,
    part: Box,
    rendering: Rendering,
) -> NDArray[np.float32]:
    leading = level.shape[:-2]
    variance = np.broadcast_to(variance, level.shape)
    out = np.empty((*leading, *part.shape), np.float32)
    missing = 0
    for index in np.ndindex(*leading):
        out[index], short = variance_grid(level[index], variance[index], whole, part, rendering)
        missing += short
    if missing:
        warnings.warn(
            f"{missing} good bins have no finite variance >= 0 and take the median of the others",
            NonFiniteVarianceWarning,
            stacklevel=2,
        )
    return out
