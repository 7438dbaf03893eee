"""Figures of many curves at a glance: the amplifiers of a detector, the detectors of a camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skyloom.algorithms.vocabulary import AMP, DETECTOR, LAG_X, LAG_Y, PAIR
from skyloom.flows.report import style
from skyloom.flows.report.blocks import flag_names
from skyloom.flows.report.curves import (
    draw_points,
    draw_turnoff,
    limit_ratio,
    model_curve,
    shown_pairs,
    signal_grid,
)

__all__ = ["curves_figure", "detectors_figure"]


def curves_figure(block: xr.Dataset, *, columns: int = 4) -> Figure:
    """Draw variance over mean of every amplifier of a detector, small.

    Parameters
    ----------
    block : Dataset, (pair, amp, lag_y, lag_x)
        From `detector_block`.
    columns : int
        Panels in a row.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> block = detector_block(with_detectors(xr.Dataset(coords={"amp": ["A", "B"]})), "detector")
    >>> len(curves_figure(block).axes)
    2
    """
    amplifiers = block.sizes[AMP]
    columns = max(1, min(columns, amplifiers))
    rows = max(1, -(-amplifiers // columns))
    figure, grid = style.grid_figure(
        0.75 + 1.5 * rows,
        [1] * rows,
        [1] * columns,
        gaps=(0.48, 0.36),
        margins=(0.66, 0.15, 0.45, 0.3),
    )
    if not amplifiers:
        style.no_data(style.tune(figure.add_subplot(grid[0, 0])), "no amplifiers")
    for index in range(amplifiers):
        amplifier = block.isel({AMP: index})
        row, column = divmod(index, columns)
        axes = style.tune(figure.add_subplot(grid[row, column]))
        _small_curve(axes, amplifier)
        last = index + columns >= amplifiers
        style.label(
            axes, "mean  (10³ adu)" if last else "", "var / mean  (adu)" if column == 0 else ""
        )
    return figure


def _small_curve(axes: Axes, amplifier: xr.Dataset) -> None:
    name = style.plain(amplifier[AMP].item())
    flags = flag_names(int(amplifier["amp_flag"].item()))
    text = f"{name}   {', '.join(flags).lower().replace('_', ' ')}" if flags else name
    style.title(axes, text, colour="#b3261e" if flags else style.INK)
    shown = shown_pairs(amplifier)
    if not shown.any():
        style.no_data(axes, "no pair was measured")
        return
    mean, variance = amplifier["mean"].to_numpy(), amplifier["variance"].to_numpy()
    scaled = amplifier.assign(mean=amplifier["mean"] / 1e3)
    for name in ("turnoff", "turnoff_sampling_error"):
        scaled[name] = amplifier[name] / 1e3
    line = signal_grid(mean[shown], logarithmic=False)
    model = model_curve(amplifier, line).isel({LAG_Y: 0, LAG_X: 0}).to_numpy() / line
    draw_points(axes, scaled, mean, size=1.8)
    axes.plot(line / 1e3, model, color=style.MODEL, linewidth=0.9)
    draw_turnoff(axes, scaled)
    limit_ratio(axes, amplifier, mean, variance)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def detectors_figure(blocks: Sequence[xr.Dataset], *, columns: int = 7) -> Figure:
    """Draw the relative residuals of the variance of many detectors, all amplifiers together.

    Parameters
    ----------
    blocks : sequence of Dataset, (pair, amp, lag_y, lag_x)
        From `detector_block`; only lags 0, 0 are read.
    columns : int
        Panels in a row.

    Examples
    --------
    >>> len(detectors_figure([]).axes)
    0
    """
    rows = max(1, -(-len(blocks) // columns))
    figure, grid = style.grid_figure(
        0.75 + 1.2 * rows,
        [1] * rows,
        [1] * columns,
        gaps=(0.16, 0.34),
        margins=(0.6, 0.1, 0.45, 0.3),
    )
    for index, block in enumerate(blocks):
        row, column = divmod(index, columns)
        axes = style.tune(figure.add_subplot(grid[row, column]))
        bad = int((block["amp_flag"].to_numpy() != 0).sum())
        text = style.plain(block[DETECTOR].item()) + (f"   {bad} flagged" if bad else "")
        style.title(axes, text, colour="#b3261e" if bad else style.INK)
        _draw_all_residuals(axes, block)
        if column:
            axes.tick_params(labelleft=False)
        last = index + columns >= len(blocks)
        style.label(axes, "mean  (10³ adu)" if last else "", "residual  (%)" if not column else "")
    return figure


def _draw_all_residuals(axes: Axes, block: xr.Dataset) -> None:
    mean = block["mean"].transpose(PAIR, AMP).to_numpy()
    model = block["covariance_model"].isel({LAG_Y: 0, LAG_X: 0}).transpose(PAIR, AMP).to_numpy()
    used = block["used"].transpose(PAIR, AMP).to_numpy() & np.isfinite(model)
    if not used.any():
        style.no_data(axes, "no fit")
        return
    residual = 100 * (block["variance"].transpose(PAIR, AMP).to_numpy() / model - 1)
    axes.axhline(0, color=style.MODEL, linewidth=0.7)
    for index in range(block.sizes[AMP]):
        chosen = used[:, index]
        axes.plot(
            mean[chosen, index] / 1e3, residual[chosen, index], linestyle="none", marker=".",
            markersize=2.0, color=style.amp_style(index)[0],
        )  # fmt: skip
    axes.set_ylim(-2, 2)
    axes.xaxis.set_major_locator(MaxNLocator(3))
