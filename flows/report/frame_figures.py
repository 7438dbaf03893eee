"""Figures of frames: overscans against time, amplifiers, levels, masks and cosmic rays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyloom.flows.report.style import (
    BLUE,
    FAINT,
    GRID,
    amp_style,
    colour_bar,
    grid_figure,
    label,
    legend,
    limits,
    no_data,
    plain,
    title,
    tune,
)

__all__ = ["amplifier_figure", "cells_figure", "hours", "masked_figure", "trend_figure"]

Floats = NDArray[np.float64]

MOST_NAMES: Final = 40


def hours(time: Floats) -> tuple[Floats, str]:
    """Return times in hours or minutes since the first, and what they are; numbers if unknown.

    Parameters
    ----------
    time : array, (exposure)
        Start of the exposures, d; NaN where unknown.

    Examples
    --------
    >>> hours(np.array([5.0, 5.5]))
    (array([ 0., 12.]), 'hours since the first exposure')
    """
    if not np.isfinite(time).any():
        return np.arange(time.size, dtype=float), "exposure"
    x = (time - np.nanmin(time)) * 24
    if np.nanmax(x) < 2:
        return 60 * x, "minutes since the first exposure"
    return x, "hours since the first exposure"


def trend_figure(
    time: Floats,
    panels: Sequence[tuple[str, Floats]],
    kinds: Sequence[str],
) -> Figure:
    """Return how amplifiers changed with time: a panel a quantity, a thin line an amplifier.

    Parameters
    ----------
    time : array, (exposure)
        Start of the exposures, d; NaN where unknown.
    panels : sequence of (name, array (exposure, channel))
        What is shown; NaN where there is nothing.
    kinds : sequence of str, (exposure)
        Observation types.
    """
    rows = len(panels)
    figure, grid = grid_figure(
        0.7 + 1.9 * rows, [1] * rows, [1], margins=(0.9, 0.15, 0.5, 0.2), gaps=(0.75, 0.3)
    )
    x, unit = hours(time)
    order = np.argsort(x, kind="stable")
    axes: Axes | None = None
    for row, (name, values) in enumerate(panels):
        axes = tune(figure.add_subplot(grid[row, 0], sharex=axes))
        label(axes, unit if row == rows - 1 else "", name)
        if not np.isfinite(values).any():
            no_data(axes, "nothing was measured", keep_x=True)
            continue
        axes.plot(x[order], values[order], color=FAINT, linewidth=0.5, alpha=0.6)
        middle = np.full(x.size, np.nan)
        known = np.isfinite(values).any(axis=1)
        middle[known] = np.nanmedian(values[known], axis=1)
        for index, kind in enumerate(dict.fromkeys(kinds)):
            own = np.array([each == kind for each in kinds])
            colour, marker = amp_style(index)
            axes.plot(
                x[own],
                middle[own],
                marker,
                color=colour,
                markersize=4,
                label=f"median, {kind}",
            )
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if row == 0:
            legend(axes)
    return figure


def amplifier_figure(
    channels: Sequence[tuple[str, str]],
    panels: Sequence[tuple[str, Floats, Floats | None]],
) -> Figure:
    """Return quantities of all amplifiers, a panel each.

    Parameters
    ----------
    channels : sequence of (detector, amplifier)
        In order.
    panels : sequence of (name, array (channel), array (channel) or None)
        Name of a quantity, its values, and what the camera says it is.
    """
    rows = max(len(panels), 1)
    figure, grid = grid_figure(
        1.0 + 1.5 * rows, [1] * rows, [1], gaps=(0.5, 0.14), margins=(0.95, 0.15, 0.78, 0.15)
    )
    names = [detector for detector, _ in channels]
    starts = [i for i, name in enumerate(names) if not i or names[i - 1] != name]
    place = np.arange(len(channels)) + np.searchsorted(starts, np.arange(len(channels)), "right")
    order: dict[str, int] = {}
    for _, amp in channels:
        order.setdefault(amp, len(order))
    for row, (name, values, nominal) in enumerate(panels):
        axes = tune(figure.add_subplot(grid[row, 0]))
        axes.xaxis.grid(visible=False)
        for start in starts[1:]:
            axes.axvline(place[start] - 1, color=GRID, linewidth=0.7)
        if nominal is not None:
            axes.plot(place, nominal, "_", color=FAINT, markersize=8, label="the camera says")
        for amp, index in order.items():
            own = np.array([each == amp for _, each in channels])
            colour, marker = amp_style(index)
            size = 4 if len(channels) <= 64 else 2.2
            axes.plot(place[own], values[own], marker, color=colour, markersize=size)
        axes.margins(y=0.15)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlim(0, float(place.max(initial=0)) + 1)
        label(axes, y=name)
        axes.yaxis.set_label_coords(-0.06, 0.5)
        axes.tick_params(labelbottom=row == rows - 1, bottom=False)
        if nominal is not None:
            legend(axes)
        if row == rows - 1:
            _name_channels(axes, channels, starts, place)
    return figure


def _name_channels(
    axes: Axes, channels: Sequence[tuple[str, str]], starts: list[int], place: NDArray[np.int64]
) -> None:
    if len(channels) <= MOST_NAMES:
        axes.set_xticks(place, [plain(" ".join(channel)) for channel in channels])
    else:
        shown = starts[:: -(-len(starts) // MOST_NAMES)]
        axes.set_xticks(place[shown], [plain(channels[i][0]) for i in shown])
    axes.tick_params(axis="x", labelrotation=90, labelsize=6.5)


def cells_figure(
    values: Floats,
    detectors: Sequence[str],
    exposures: Sequence[str],
    text: str,
    *,
    signed: bool = True,
) -> Figure:
    """Return a quantity of every exposure and detector as an image; grey where there is none.

    Parameters
    ----------
    values : array, (detector, exposure)
        What is shown.
    detectors, exposures : sequence of str
        Their names.
    text : str
        What the colours mean.
    signed : bool
        Whether values lie about 0.
    """
    height = min(1.2 + 0.22 * max(len(detectors), 4), 8.0)
    figure, grid = grid_figure(height, [1], [1], margins=(1.2, 1.35, 0.6, 0.3))
    axes = tune(figure.add_subplot(grid[0, 0]), grid=False)
    finite = values[np.isfinite(values)]
    if not finite.size:
        no_data(axes, "nothing was measured")
        return figure
    axes.set_facecolor("#c8ced4")
    reach = limits(finite)[1] if signed else float(finite.max()) or 1.0
    image = axes.imshow(
        values,
        aspect="auto",
        cmap="RdBu_r" if signed else "viridis",
        vmin=-reach if signed else 0.0,
        vmax=reach,
        interpolation="nearest",
    )
    colour_bar(axes, image)
    title(axes, text)
    rows, columns = (
        list(range(0, len(names), -(-len(names) // MOST_NAMES))) for names in (detectors, exposures)
    )
    axes.set_xticks(columns, [plain(exposures[i]) for i in columns], fontsize=6.5, rotation=60)
    axes.set_yticks(rows, [plain(detectors[i]) for i in rows], fontsize=6.5)
    label(axes, "exposure")
    return figure


def masked_figure(
    planes: Mapping[str, Floats], rays: Floats, time: Floats, exposures: Sequence[str]
) -> Figure:
    """Return what masks cover in each exposure, plane by plane, and cosmic rays against time.

    Parameters
    ----------
    planes : mapping from plane to array, (exposure)
        Part of the pixels that a plane covers, mean of detectors.
    rays : array, (exposure)
        Pixels of cosmic rays in a million pixels and a second.
    time : array, (exposure)
        Dark time of the exposures, s.
    exposures : sequence of str
        Their names.
    """
    figure, grid = grid_figure(3.6, [1], [1.5, 1], margins=(0.9, 0.15, 0.62, 0.3), gaps=(0.85, 0.5))
    first = tune(figure.add_subplot(grid[0, 0]))
    second = tune(figure.add_subplot(grid[0, 1]))
    x = np.arange(len(exposures))
    shown = {name: values for name, values in planes.items() if np.nansum(values) > 0}
    for index, (name, values) in enumerate(shown.items()):
        colour, marker = amp_style(index)
        first.plot(x, 100 * values, marker, color=colour, markersize=3.5, label=name)
    columns = x[:: -(-len(x) // MOST_NAMES)] if len(x) else x
    first.set_xticks(columns, [plain(exposures[i]) for i in columns], fontsize=6.5, rotation=60)
    label(first, "exposure", "pixels covered, % (mean of detectors)")
    title(first, "what masks cover, plane by plane")
    if shown:
        first.set_yscale("log")
        legend(first)
    else:
        no_data(first, "nothing is masked")
    if not np.isfinite(rays).any() or not np.nansum(rays):
        no_data(second, "no cosmic rays were found,\nor none were looked for")
        return figure
    second.plot(time, rays, "o", color=BLUE, markersize=3.5)
    second.set_ylim(bottom=0.0)
    label(second, "dark time (s)", "pixels hit / (10⁶ pixels · s)")
    title(second, "cosmic rays")
    return figure
