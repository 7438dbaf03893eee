"""Figures of flats: residuals of levels as a matrix, responses, light against time, pulls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.flows.report.style import (
    BLUE,
    FAINT,
    INK,
    MODEL,
    colour_bar,
    error_bars,
    grid_figure,
    label,
    legend,
    no_data,
    plain,
    title,
    tune,
)

__all__ = ["light_figure", "matrix_figure", "pull_figure", "response_figure"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_NAMES = 40
MOST_NUMBERS = 60
RED = "#d55e00"


def matrix_figure(
    residual: Floats, left_out: Flags, channels: Sequence[str], exposures: Sequence[str]
) -> Figure:
    """Return the residuals of all levels as an image; those left out are crossed.

    Parameters
    ----------
    residual : array, (channel, exposure)
        Level over model, less 1; NaN without a level.
    left_out : array of bool, (channel, exposure)
        Levels that do not enter the solution.
    channels, exposures : sequence of str
        Their names.
    """
    height = min(1.2 + 0.22 * max(len(channels), 4), 8.0)
    figure, grid = grid_figure(height, [1], [1], margins=(1.2, 1.35, 0.6, 0.3))
    axes = tune(figure.add_subplot(grid[0, 0]), grid=False)
    used = np.where(left_out, np.nan, residual) * 100
    if not np.isfinite(residual).any():
        no_data(axes, "no level was measured")
        return figure
    finite = np.abs(used[np.isfinite(used)])
    reach = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    axes.set_facecolor("#c8ced4")
    image = axes.imshow(
        residual * 100,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
        interpolation="nearest",
    )
    y, x = np.nonzero(left_out & np.isfinite(residual))
    cross = {"markerfacecolor": "white", "markeredgecolor": MODEL, "markeredgewidth": 0.7}
    axes.plot(x, y, "X", markersize=6, linestyle="none", **cross)  # type: ignore[arg-type]
    colour_bar(axes, image)
    title(axes, "level / (light × response) − 1, %; crossed: left out; grey: no level")
    columns, rows = (_shown(len(names)) for names in (exposures, channels))
    axes.set_xticks(columns, [plain(exposures[i]) for i in columns], fontsize=6.5, rotation=60)
    axes.set_yticks(rows, [plain(channels[i]) for i in rows], fontsize=6.5)
    label(axes, "exposure")
    return figure


def _shown(number: int) -> list[int]:
    """Return which of many names are written."""
    return list(range(0, number, -(-number // MOST_NAMES)))


def response_figure(polygons: Sequence[Floats], values: Floats, names: Sequence[str]) -> Figure:
    """Return the response of detectors or amplifiers at their places in the focal plane.

    Parameters
    ----------
    polygons : sequence of array, (corner, xy)
        Where they lie.
    values : array, (channel)
        Response relative to the focal plane; NaN without one.
    names : sequence of str
        Names of the channels.
    """
    figure, grid = grid_figure(5.2, [1], [1], margins=(0.9, 0.95, 0.5, 0.3))
    axes = tune(figure.add_subplot(grid[0, 0]), grid=False)
    finite = values[np.isfinite(values)]
    if not finite.size:
        no_data(axes, "no response was measured")
        return figure
    low, high = float(finite.min()), float(finite.max())
    norm = Normalize(low, high if high > low else low + 1e-6)
    axes.set_facecolor("#eef1f4")
    known = np.isfinite(values)
    patches = PolyCollection(
        [polygon for polygon, has in zip(polygons, known, strict=True) if has],
        cmap="viridis",
        norm=norm,
        edgecolors="white",
        linewidths=0.8,
    )
    patches.set_array(values[known])
    axes.add_collection(patches)
    corners = np.concatenate(list(polygons))
    pad = 0.03 * float(np.ptp(corners, axis=0).max())
    axes.set_xlim(corners[:, 0].min() - pad, corners[:, 0].max() + pad)
    axes.set_ylim(corners[:, 1].min() - pad, corners[:, 1].max() + pad)
    axes.set_aspect("equal")
    if len(names) <= MOST_NUMBERS:
        for polygon, value, name in zip(polygons, values, names, strict=True):
            bright = np.isfinite(value) and norm(value) < 0.6
            number = f"{value:.4f}" if np.isfinite(value) else "–"
            x, y = polygon.mean(axis=0)
            axes.text(
                float(x),
                float(y),
                f"{plain(name)}\n{number}",
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if bright else INK,
            )
    colour_bar(axes, patches)
    title(axes, "response relative to the focal plane")
    label(axes, "focal plane x (mm)", "focal plane y (mm)")
    return figure


def light_figure(time: Floats, scale: Floats, sigma: Floats, good: Flags) -> Figure:
    """Return the light of the exposures against time, and how it changes.

    Parameters
    ----------
    time : array, (exposure)
        Start, d; NaN where unknown.
    scale, sigma : array, (exposure)
        Scale of the exposures and its error, electron.
    good : array of bool, (exposure)
        Whether the exposure is used.
    """
    figure, grid = grid_figure(4.4, [1, 1], [1], margins=(0.9, 0.15, 0.5, 0.2), gaps=(0.75, 0.35))
    first = tune(figure.add_subplot(grid[0, 0]))
    second = tune(figure.add_subplot(grid[1, 0], sharex=first))
    if not np.isfinite(scale).any():
        no_data(first, "no light was measured")
        return figure
    known = bool(np.isfinite(time).any())
    x, unit = np.arange(scale.size, dtype=float), "exposure"
    if known:
        x, unit = (time - np.nanmin(time)) * 24, "hours since the first flat"
        if np.nanmax(x) < 2:
            x, unit = 60 * x, "minutes since the first flat"
    middle = float(np.nanmedian(scale[good])) if good.any() else float(np.nanmedian(scale))
    for axes, values, errors in (
        (first, scale, sigma),
        (second, 100 * (scale / middle - 1), 100 * sigma / middle),
    ):
        error_bars(axes, x[good], values[good], errors[good], color=BLUE, label="used")
        if (~good & np.isfinite(values)).any():
            rest = ~good & np.isfinite(values)
            axes.plot(x[rest], values[rest], "X", color=RED, markersize=5, label="left out")
    label(first, "", "light (electron)")
    legend(first)
    second.axhline(0.0, color=FAINT, linewidth=0.8)
    label(second, unit, "light / its median − 1, %")
    return figure


def pull_figure(pull: Floats, left_out: Flags) -> Figure:
    """Return the residuals in units of their expected scatter, beside the normal distribution.

    Parameters
    ----------
    pull : array, (channel, exposure)
        Residuals over their expected scatter.
    left_out : array of bool, (channel, exposure)
        Levels that do not enter the solution.
    """
    figure, grid = grid_figure(3.2, [1], [1], margins=(0.9, 0.15, 0.5, 0.2))
    axes = tune(figure.add_subplot(grid[0, 0]))
    used = pull[np.isfinite(pull) & ~left_out]
    if not used.size:
        no_data(axes, "no residual was measured")
        return figure
    edges = np.linspace(-6, 6, 49).tolist()
    axes.hist(np.clip(used, -6, 6), edges, color=BLUE, alpha=0.75, label="levels used")
    rest = pull[np.isfinite(pull) & left_out]
    if rest.size:
        axes.hist(np.clip(rest, -6, 6), edges, color=RED, alpha=0.75, label="left out")
    x = np.linspace(-6, 6, 241)
    width = edges[1] - edges[0]
    normal = used.size * width * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(x, normal, color=MODEL, linewidth=1.0, label="expected")
    label(axes, "residual / expected scatter (those beyond 6 at the edges)", "levels")
    legend(axes)
    return figure
