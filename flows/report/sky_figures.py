"""Figures of the sky: frames as a mosaic, scales against time, residuals before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.flows.report.style import (
    BLUE,
    FAINT,
    INK,
    colour_bar,
    error_bars,
    grid_figure,
    label,
    legend,
    limits,
    no_data,
    title,
    tune,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["mosaic_figure", "residual_figure", "scale_figure"]

Floats = NDArray[np.float64]


def mosaic_figure(
    images: Mapping[str, Floats],
    transforms: Mapping[str, Floats],
    shapes: Mapping[str, Any],
    unit: str,
    *,
    signed: bool = True,
    empty: str = "no sky frame was made",
) -> Figure:
    """Return binned images of detectors at their places in the focal plane.

    Parameters
    ----------
    images : mapping from detector to array, (bin_y, bin_x)
        Values in bins; NaN where there are none.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    shapes : mapping from detector to (rows, columns)
        Shape of the detectors, pixel.
    unit : str
        What the colours mean.
    signed : bool
        Whether values lie about 0; else colours span the bulk of them.
    empty : str
        What is said if there is no image.
    """
    figure, grid = grid_figure(6.2, [1], [1], margins=(0.72, 0.9, 0.55, 0.15))
    axes = tune(figure.add_subplot(grid[0, 0]), grid=False)
    finite = [values[np.isfinite(values)] for values in images.values()]
    everything = np.concatenate(finite) if finite else np.empty(0)
    if not everything.size:
        no_data(axes, empty)
        return figure
    low, high = limits(everything) if signed else np.percentile(everything, [1, 99])
    mesh = None
    for name, values in images.items():
        height, width = (float(side) for side in shapes[name])
        y = np.linspace(-0.5, height - 0.5, values.shape[0] + 1)
        x = np.linspace(-0.5, width - 0.5, values.shape[1] + 1)
        grid_x, grid_y = np.meshgrid(x, y)
        places = transforms[name] @ np.stack([grid_x.ravel(), grid_y.ravel(), np.ones(grid_x.size)])
        focal = places.reshape(2, *grid_x.shape)
        mesh = axes.pcolormesh(
            focal[0],
            focal[1],
            np.ma.masked_invalid(values),
            vmin=low,
            vmax=high,
            cmap="RdBu_r" if signed else "viridis",
            rasterized=True,
        )
        axes.annotate(
            name,
            (focal[0].mean(), focal[1].max()),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7,
            color=FAINT,
            annotation_clip=False,
        )
    axes.set_aspect("equal")
    label(axes, "focal plane x (mm)", "focal plane y (mm)")
    if mesh is not None:
        bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.03)
        bar.set_label(unit, fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=7)
    return figure


def scale_figure(fits: xr.Dataset, time: Floats) -> Figure:
    """Return the scales of the sky frame against time, with errors, and over the sky level.

    Parameters
    ----------
    fits : Dataset, (exposure)
        ``scale``, ``scale_sigma`` and ``level``, electron.
    time : array, (exposure)
        Start of the exposures, d; NaN where unknown.
    """
    figure, grid = grid_figure(4.6, [1, 1], [1], margins=(0.9, 0.15, 0.5, 0.2), gaps=(0.75, 0.35))
    scale, sigma = fits["scale"].to_numpy(), fits["scale_sigma"].to_numpy()
    level = fits["level"].to_numpy()
    known = np.isfinite(time).any()
    x = (time - np.nanmin(time)) * 24 if known else np.arange(scale.size, dtype=float)
    first = tune(figure.add_subplot(grid[0, 0]))
    second = tune(figure.add_subplot(grid[1, 0], sharex=first))
    if not np.isfinite(scale).any():
        no_data(first, "no scale was measured")
        return figure
    error_bars(first, x, scale, sigma, color=BLUE, label="scale of the sky frame")
    first.plot(x, level, ".", color=FAINT, markersize=5, label="level of the smooth sky")
    label(first, "", "electron")
    legend(first)
    error_bars(second, x, scale / level, sigma / level, color=BLUE)
    second.axhline(1.0, color=FAINT, linewidth=0.8)
    label(second, "hours since the first exposure" if known else "exposure", "scale / level")
    return figure


def residual_figure(fits: xr.Dataset) -> Figure:
    """Return the rms of bins before and after the sky frame, and residuals of detectors.

    Parameters
    ----------
    fits : Dataset, (exposure, detector)
        ``rms_before``, ``rms``, ``level`` (electron), ``residual_mean`` (electron).
    """
    figure, grid = grid_figure(3.6, [1], [1, 1], margins=(0.9, 0.7, 0.5, 0.3), gaps=(0.95, 0.5))
    first = tune(figure.add_subplot(grid[0, 0]))
    second = tune(figure.add_subplot(grid[0, 1]), grid=False)
    level = fits["level"].to_numpy()
    before, after = (100 * fits[name].to_numpy() / level for name in ("rms_before", "rms"))
    if not np.isfinite(after).any():
        no_data(first, "no residual was measured")
        return figure
    first.plot(before, "o", color=FAINT, markersize=4, label="smooth sky alone")
    first.plot(after, "o", color=BLUE, markersize=4, label="with the sky frame")
    first.set_ylim(bottom=0.0)
    label(first, "exposure", "rms of bins, % of sky")
    legend(first)
    residual = 100 * (fits["residual_mean"] / fits["level"]).transpose("exposure", "detector")
    values = residual.to_numpy()
    reach = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    image = second.imshow(
        values, aspect="auto", cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest"
    )
    colour_bar(second, image)
    title(second, "mean residual of detectors, % of sky")
    names = [str(name) for name in fits["detector"].to_numpy()]
    if len(names) <= 24:
        second.set_xticks(range(len(names)), names, rotation=60, fontsize=6)
    label(second, "detector", "exposure")
    return figure
