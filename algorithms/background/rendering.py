"""From bins back to pixels.

Each column of bins is interpolated along y to every row of pixels, without its NaN bins; then
each row along x, without the columns that hold nothing there. A single good bin gives a constant
image, none gives NaN. Arithmetic is float64, pixels are float32; a pixel has the same bits
whatever box it is rendered in.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.filling import harmonic_fill
from skyloom.algorithms.background.geometry import Box, bin_centers, bin_edges, box_of_background
from skyloom.algorithms.background.interpolation import (
    BEYOND,
    NEEDED,
    STYLES,
    UNDERSAMPLING,
    Beyond,
    Style,
    Undersampling,
    checked,
    style_for,
)
from skyloom.algorithms.background.render_kernels import render
from skyloom.algorithms.errors import (
    ConfigurationError,
    EmptyBackgroundWarning,
    GeometryError,
    ReducedInterpolationWarning,
)

__all__ = ["render_background", "render_grid"]

Reduce = Literal["per_axis", "joint"]
NanFill = Literal["column", "harmonic"]


class Rendering(NamedTuple):
    """How bins become pixels; see `render_background`."""

    interpolation: Style = "natural_spline"
    extrapolate: Beyond = "limit"
    max_extrapolation: float = 0.5
    undersampling: Undersampling = "reduce"
    reduce: Reduce = "per_axis"
    nan_fill: NanFill = "column"


def render_background(
    background: xr.Dataset,
    shape: tuple[int, int] | None = None,
    *,
    interpolation: Style = "natural_spline",
    box: Sequence[int] | None = None,
    extrapolate: Beyond = "limit",
    max_extrapolation: float = 0.5,
    undersampling: Undersampling = "reduce",
    reduce: Reduce = "per_axis",
    nan_fill: NanFill = "column",
) -> xr.DataArray:
    """Return a binned background, or sky frame, as an image.

    Parameters
    ----------
    background : Dataset, (..., bin_y, bin_x)
        ``level``, any unit, and the attribute ``box``, as `measure_background` returns it. NaN
        bins are interpolated over. May be lazy; the result then is.
    shape : (int, int), optional
        Rows and columns of the whole image, a check against ``box``.
    interpolation : str
        ``natural_spline``, ``akima``, ``linear``, ``constant`` or ``constant_compat``; see
        `interpolate`.
    box : sequence of 4 int, optional
        Half-open part ``[y_start, y_stop, x_start, x_stop]`` to render, in parent pixels; all by
        default. The pixels are the same bit for bit.
    extrapolate : str
        Beyond the outermost good bin centres: ``limit``, ``reference``, ``nearest`` or ``nan``;
        see `interpolate`.
    max_extrapolation : float
        How far ``limit`` and ``nan`` continue the curve, in bins; 0.5 reaches the edge of a fully
        measured grid.
    undersampling : "reduce" or "throw"
        If bins are too few for the style, take the highest that they allow, or raise.
    reduce : "per_axis" or "joint"
        Whether each axis is reduced on its own, or both to the style of the shorter axis.
    nan_fill : "column" or "harmonic"
        Whether a NaN bin is bridged by its column, or first filled from all sides (least sum of
        squared differences of neighbours).

    Returns
    -------
    DataArray, (..., y, x), float32
        In the unit of ``level``, with integer coordinates ``y``, ``x`` of the parent. All NaN,
        with a warning, where no bin is good.

    Raises
    ------
    ValueError
        If a name is unknown, ``shape`` or ``box`` do not fit, or bins are too few under
        ``throw``.

    Warns
    -----
    ReducedInterpolationWarning
        If an axis has too few bins for the style.
    EmptyBackgroundWarning
        If no bin is good.

    Notes
    -----
    With the defaults ``extrapolate="reference"``, ``reduce="joint"`` and ``constant_compat`` the
    values are those of the LSST Science Pipelines. Structures broader than about four bins pass
    into the background; of wavelength 3, 4, 6, 8, 12, 16 bins the fraction 0.23, 0.11, 0.047,
    0.026, 0.011, 0.0064 stays out.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[1.0, 2.0], [3.0, 4.0]]), dims=("bin_y", "bin_x"))
    >>> background = xr.Dataset({"level": level}, attrs={"box": [0, 4, 0, 4]})
    >>> image = render_background(background, interpolation="linear")
    >>> image.values[0].tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    rendering = Rendering(
        interpolation, extrapolate, max_extrapolation, undersampling, reduce, nan_fill
    )
    check_rendering(rendering)
    whole = box_of_background(background)
    if shape is not None and tuple(shape) != whole.shape:
        raise GeometryError(f"shape {tuple(shape)} differs from that of the box, {whole.shape}")
    part = whole if box is None else part_of(whole, box)
    level = background["level"]
    bins = (level.sizes[v.BIN_Y], level.sizes[v.BIN_X])
    styles = axis_styles(rendering, bins)
    chosen = [style for style, number in zip(styles, bins, strict=True) if style != interpolation]
    if chosen:
        warnings.warn(
            f"{bins} bins (y, x) are too few for {interpolation}: {styles} is used",
            ReducedInterpolationWarning,
            stacklevel=2,
        )
    if level.chunks is not None:
        level = level.chunk({v.BIN_Y: -1, v.BIN_X: -1})
    image: xr.DataArray = xr.apply_ufunc(
        _render_blocks,
        level,
        kwargs={"whole": whole, "part": part, "rendering": rendering},
        input_core_dims=[[v.BIN_Y, v.BIN_X]],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": dict(zip((v.Y, v.X), part.shape, strict=True))},
    )
    return (
        image.drop_vars((v.BIN_Y, v.BIN_X), errors="ignore")
        .assign_coords(
            {
                v.Y: np.arange(part.y_start, part.y_stop),
                v.X: np.arange(part.x_start, part.x_stop),
            }
        )
        .rename("background")
        .assign_attrs({"units": str(level.attrs.get("units", v.DIMENSIONLESS))})
    )


def check_rendering(rendering: Rendering) -> None:
    """Raise if a choice is unknown."""
    checked("interpolation", rendering.interpolation, STYLES)
    checked("extrapolate", rendering.extrapolate, BEYOND)
    checked("undersampling", rendering.undersampling, UNDERSAMPLING)
    checked("reduce", rendering.reduce, ("per_axis", "joint"))
    checked("nan_fill", rendering.nan_fill, ("column", "harmonic"))
    if not rendering.max_extrapolation >= 0:
        raise ConfigurationError(
            f"max_extrapolation must be >= 0 bins, got {rendering.max_extrapolation}"
        )


def part_of(whole: Box, box: Sequence[int]) -> Box:
    """Return a box as such; raise unless it lies inside another and is not empty."""
    if len(box) != 4:
        raise GeometryError(f"box must be [y_start, y_stop, x_start, x_stop], got {list(box)}")
    part = Box(*(int(value) for value in box))
    inside = whole.y_start <= part.y_start < part.y_stop <= whole.y_stop
    if not inside or not whole.x_start <= part.x_start < part.x_stop <= whole.x_stop:
        raise GeometryError(f"box {tuple(part)} must be a part of the background's {tuple(whole)}")
    return part


def axis_styles(rendering: Rendering, bins: tuple[int, int]) -> tuple[Style, Style]:
    """Return the styles along y and x that the numbers of bins allow."""
    style = rendering.interpolation
    if rendering.undersampling == "throw" and min(bins) < NEEDED[style]:
        raise ConfigurationError(
            f"{style} needs {NEEDED[style]} bins along each axis, the background has {bins} (y, x)"
        )
    if rendering.reduce == "joint":
        return style_for(style, min(bins)), style_for(style, min(bins))
    return style_for(style, bins[0]), style_for(style, bins[1])


def short_of_bins(rendering: Rendering) -> ConfigurationError:
    """Return the error of a column or row with too few finite bins."""
    return ConfigurationError(
        f"{rendering.interpolation} needs {NEEDED[rendering.interpolation]} finite bins in every "
        "row and column that has any; undersampling='reduce' takes what there is"
    )


def render_grid(
    level: NDArray[Any],
    whole: Box,
    part: Box | None = None,
    rendering: Rendering | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return a grid of bins that tile a box as pixels; see `render_background`.

    Parameters
    ----------
    level : ndarray, (bins_y, bins_x)
    whole : Box
        What the bins tile.
    part : Box, optional
        What to render.
    rendering : Rendering, optional
    out : ndarray, shape of the part, float32, optional
        Where to write the pixels; a new array by default.

    Returns
    -------
    ndarray, shape of the part, float32

    Examples
    --------
    >>> render_grid(np.full((1, 1), 2.0), Box(0, 1, 0, 2))
    array([[2., 2.]], dtype=float32)
    """
    rendering = rendering or Rendering()
    part = part or whole
    grid = np.array(level, dtype=np.float64, order="C")
    out = np.empty(part.shape, np.float32) if out is None else out
    good = np.isfinite(grid)
    if not good.any():
        out[:] = np.nan
        return out
    if rendering.nan_fill == "harmonic" and not good.all():
        grid = harmonic_fill(grid)
    styles = axis_styles(rendering, (grid.shape[0], grid.shape[1]))
    height, width = whole.shape
    knots_y = bin_centers(bin_edges(height, grid.shape[0]), whole.y_start)
    knots_x = bin_centers(bin_edges(width, grid.shape[1]), whole.x_start)
    enough = render(
        knots_y,
        knots_x,
        grid,
        (part.y_start, part.x_start),
        (STYLES[styles[0]], STYLES[styles[1]]),
        rendering.undersampling == "throw",
        BEYOND[rendering.extrapolate],
        (
            rendering.max_extrapolation * height / grid.shape[0],
            rendering.max_extrapolation * width / grid.shape[1],
        ),
        out,
    )
    if not enough:
        raise short_of_bins(rendering)
    return out


def _render_blocks(
    level: NDArray[Any], *, whole: Box, part: Box, rendering: Rendering
) -> NDArray[np.float32]:
    """Render the last two axes of a block."""
    leading = level.shape[:-2]
    out = np.empty((*leading, *part.shape), np.float32)
    empty = 0
    for index in np.ndindex(*leading):
        empty += not np.isfinite(level[index]).any()
        render_grid(level[index], whole, part, rendering, out[index])
    if empty:
        warnings.warn(
            f"{empty} of {max(int(np.prod(leading)), 1)} backgrounds have no good bin: their "
            "pixels are NaN",
            EmptyBackgroundWarning,
            stacklevel=2,
        )
    return out
