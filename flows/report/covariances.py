"""Figures of covariances against the flux, one amplifier at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyloom.algorithms.vocabulary import LAG_X, LAG_Y, PAIR
from skyloom.flows.report import style
from skyloom.flows.report.curves import model_curve

__all__ = ["SHOWN_LAGS", "covariance_figure"]

Floats = NDArray[np.float64]

SHOWN_LAGS: Final = (((0, 1),), ((1, 0),), ((1, 1),), ((0, 2), (2, 0)))
"""Lags (lag_x, lag_y) that share a panel."""
_NAMES: Final = {(0, 1): "parallel neighbour", (1, 0): "serial neighbour", (1, 1): "diagonal"}


def covariance_figure(amplifier: xr.Dataset) -> Figure:
    """Draw covariances with near neighbours against the mean, with their model.

    Above the covariances themselves, below C g / mean: a straight line whose slope is a g, bent
    by the higher orders of the brighter-fatter effect.

    Parameters
    ----------
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector, see `detector_block`.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> empty = detector_block(with_detectors(xr.Dataset(coords={"amp": ["C00"]})), "detector")
    >>> len(covariance_figure(empty.isel(amp=0)).axes)
    8
    """
    figure, grid = style.grid_figure(
        4.1, [1, 1], [1] * len(SHOWN_LAGS), gaps=(0.5, 0.14), margins=(0.66, 0.12, 0.45, 0.32)
    )
    gain = float(amplifier["gain"].item())
    for column, lags in enumerate(SHOWN_LAGS):
        upper = style.tune(figure.add_subplot(grid[0, column]))
        lower = style.tune(figure.add_subplot(grid[1, column]))
        names = " and ".join(f"$C_{{{i}{j}}}$" for i, j in lags)
        style.title(upper, f"{names}   {_NAMES.get(lags[0], '')}".rstrip())
        there = [
            (i, j) for i, j in lags if i < amplifier.sizes[LAG_X] and j < amplifier.sizes[LAG_Y]
        ]
        first = _draw(upper, amplifier, there, 1.0, "none")
        second = _draw(lower, amplifier, there, gain, "mean")
        if first:
            upper.tick_params(labelbottom=False)
            lower.set_xlim(upper.get_xlim())
        if second:
            lower.xaxis.set_major_locator(MaxNLocator(4))
            upper.xaxis.set_major_locator(MaxNLocator(4))
        if len(lags) > 1 and first:
            style.legend(upper, loc="upper left")
        style.label(upper, y="covariance  (adu²)" if column == 0 else "")
        style.label(
            lower, "mean  (10³ adu)", r"$C_{ij}\, g\, /\, \mu$  (10⁻³)" if not column else ""
        )
    return figure


def _draw(
    axes: Axes, amplifier: xr.Dataset, lags: list[tuple[int, int]], gain: float, divide: str
) -> bool:
    """Draw data and model of some lags; return whether there was anything."""
    mean = np.asarray(amplifier["mean"].to_numpy(), np.float64)
    used = amplifier["used"].to_numpy()
    shown = np.isfinite(mean) & (mean > 0)
    if divide == "mean" and not np.isfinite(gain):
        style.no_data(axes, "no gain")
        return False
    scale = np.where(shown, 1e3 * gain / np.where(shown, mean, 1.0), np.nan)
    scale = scale if divide == "mean" else np.ones_like(mean)
    drawn = False
    for place, (i, j) in enumerate(lags):
        inside = {LAG_X: i, LAG_Y: j}
        value = amplifier["covariance"].isel(inside).transpose(PAIR).to_numpy() * scale
        sigma = amplifier["covariance_sigma"].isel(inside).transpose(PAIR).to_numpy() * scale
        finite = shown & np.isfinite(value)
        if not finite.any():
            continue
        drawn = True
        colour, marker = style.amp_style(0 if place == 0 else 1)[0], "os"[place]
        _draw_lag(axes, mean, value, sigma, finite, used, colour, marker, f"$C_{{{i}{j}}}$")
        line = np.linspace(max(float(mean[finite].min()), 1.0), float(mean[finite].max()), 120)
        model = model_curve(amplifier, line).isel(inside).to_numpy()
        model = model * (1e3 * gain / line if divide == "mean" else 1.0)
        axes.plot(line / 1e3, model, color=style.MODEL if place == 0 else colour, linewidth=1.0)
    if not drawn:
        style.no_data(axes, "not measured")
    return drawn


def _draw_lag(
    axes: Axes, mean: Floats, value: Floats, sigma: Floats, finite: NDArray[np.bool_],
    used: NDArray[np.bool_], colour: str, marker: str, name: str,
) -> None:  # fmt: skip
    chosen, rest = finite & used, finite & ~used
    if chosen.any():
        # Saturated pairs would squeeze the others: they may lie outside, the used ones may not.
        with_errors = np.where(np.isfinite(sigma), sigma, 0.0)[chosen]
        reach = np.median(with_errors) if len(with_errors) else 0.0
        low = float(value[chosen].min() - reach)
        high = float(value[chosen].max() + reach)
        room = 0.12 * (high - low) or 1.0
        before = axes.get_ylim() if axes.lines or axes.containers else (low - room, high + room)
        axes.set_ylim(min(before[0], low - room), max(before[1], high + room))
    style.error_bars(
        axes, mean[chosen] / 1e3, value[chosen], sigma[chosen], color=colour,
        markersize=2.4, fmt=marker, label=name,
    )  # fmt: skip
    axes.plot(
        mean[rest] / 1e3, value[rest], linestyle="none", marker=marker, markersize=3.0,
        markerfacecolor="none", markeredgecolor="#a0a8b0", markeredgewidth=0.7,
    )  # fmt: skip
