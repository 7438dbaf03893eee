"""Figures of all amplifiers together: how they spread, and whether noises agree."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyloom.algorithms.vocabulary import AMP, DETECTOR
from skyloom.flows.report import style

__all__ = ["noise_figure", "values_figure"]

Floats = NDArray[np.float64]

_ROWS: Final[tuple[tuple[str, str, float], ...]] = (
    ("gain", "gain\n(electron / adu)", 1.0),
    ("noise", "read noise\n(electron)", 1.0),
    ("a_00", "a₀₀\n(10⁻⁶ / electron)", 1e6),
    ("turnoff", "turn-off\n(10³ adu)", 1e-3),
)
_ERRORS: Final = {"turnoff": "turnoff_sampling_error"}


def values_figure(overview: xr.Dataset) -> Figure:
    """Draw gain, noise, a_00 and turn-off of every amplifier with their errors.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> overview = amplifier_overview(with_detectors(xr.Dataset(coords={"amp": ["A"]})))
    >>> len(values_figure(overview).axes)
    4
    """
    figure, grid = style.grid_figure(
        5.6, [1] * 4, [1], gaps=(0.5, 0.12), margins=(0.85, 0.15, 0.72, 0.15)
    )
    detectors = [str(name) for name in overview[DETECTOR].to_numpy()]
    amps = overview.sizes[AMP]
    place = np.arange(len(detectors) * amps, dtype=np.float64).reshape(len(detectors), amps)
    place += 1.0 * np.arange(len(detectors))[:, None]  # a gap between detectors
    starts = place[1:, 0] if amps and len(detectors) <= 40 else ()
    few = place.size <= 64
    for row, (name, text, scale) in enumerate(_ROWS):
        axes = style.tune(figure.add_subplot(grid[row, 0]))
        axes.xaxis.grid(visible=False)
        value = scale * overview[name].transpose(DETECTOR, AMP).to_numpy()
        error = scale * overview[_ERRORS.get(name, f"{name}_sigma")].to_numpy()
        for index in range(amps):
            colour, marker = style.amp_style(index)
            good = np.isfinite(value[:, index])
            style.error_bars(
                axes, place[good, index], value[good, index], error[good, index], color=colour,
                fmt=marker if few else ".", markersize=3.4 if few else 2.5,
            )  # fmt: skip
        _mark_missing(axes, place[~np.isfinite(value)])
        for start in starts:
            axes.axvline(start - 1, color=style.GRID, linewidth=0.6)
        axes.margins(y=0.14)
        axes.set_xlim(-1, max(float(place.max(initial=0)), 0) + 1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        style.label(axes, y=text)
        axes.yaxis.set_label_coords(-0.055, 0.5)
        axes.tick_params(labelbottom=False, bottom=False)
    _name_places(axes, overview, place, detectors)
    return figure


def _mark_missing(axes: Axes, at: Floats) -> None:
    if at.size:
        axes.plot(
            at, np.full(at.shape, 0.06), transform=axes.get_xaxis_transform(), linestyle="none",
            marker="x", markersize=4, markeredgewidth=0.9, color="#b3261e", clip_on=False,
        )  # fmt: skip


def _name_places(axes: Axes, overview: xr.Dataset, place: Floats, detectors: list[str]) -> None:
    """Name every amplifier below the last panel, or every detector if they are many."""
    if not place.size:
        return
    axes.tick_params(labelbottom=True)
    if place.size <= 40:
        names = [
            f"{detector} {amp}" if len(detectors) > 1 else str(amp)
            for detector in detectors
            for amp in overview[AMP].to_numpy()
        ]
        axes.set_xticks(place.ravel(), [style.plain(name) for name in names])
    else:
        step = max(1, -(-len(detectors) // 40))
        middle = place.mean(axis=1)[::step]
        axes.set_xticks(middle, [style.plain(name) for name in detectors[::step]])
    axes.tick_params(axis="x", labelrotation=90, labelsize=6.5)


def noise_figure(overview: xr.Dataset) -> Figure:
    """Draw the noise of the fit against what was measured without light, and chi2.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`; ``dark_noise`` (electron), if there is one, is shown as well.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> overview = amplifier_overview(with_detectors(xr.Dataset(coords={"amp": ["A"]})))
    >>> len(noise_figure(overview).axes)
    3
    """
    figure, grid = style.grid_figure(3.2, [1], [1, 1, 1], gaps=(0.8, 0.5))
    left, middle, right = (style.tune(figure.add_subplot(grid[0, place])) for place in range(3))
    _draw_noises(left, overview)
    style.title(middle, "gain against a₀₀")
    gain, a_00 = overview["gain"].to_numpy(), 1e6 * overview["a_00"].to_numpy()
    _scatter(middle, a_00, gain, 1e6 * overview["a_00_sigma"].to_numpy(), overview)
    style.label(middle, "a₀₀  (10⁻⁶ / electron)", "gain  (electron / adu)")
    style.title(right, "χ² / dof of all amplifiers")
    dof = overview["dof"].where(overview["dof"] > 0)
    chi2 = (overview["chi2"] / dof).to_numpy().ravel()
    chi2 = chi2[np.isfinite(chi2)]
    if not chi2.size:
        style.no_data(right, "no fit")
        return figure
    top = max(2.0, float(np.quantile(chi2, 0.98)) * 1.1)
    right.hist(np.minimum(chi2, top), bins=24, range=(0, top), color=style.BLUE, alpha=0.85)
    right.axvline(1, color=style.MODEL, linewidth=0.8)
    right.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.label(right, "χ² / dof", "amplifiers")
    return figure


def _draw_noises(axes: Axes, overview: xr.Dataset) -> None:
    style.title(axes, "noise of the fit against measured noise")
    fitted, sigma = overview["noise"].to_numpy(), overview["noise_sigma"].to_numpy()
    drawn = []
    for name, text, marker, colour in (
        ("dark_noise", "pairs of darks", "s", "#d55e00"),
        ("read_noise_electron", "read noise of the pairs", "o", style.BLUE),
    ):
        if name not in overview:
            continue
        measured = overview[name].transpose(DETECTOR, AMP).to_numpy()
        good = np.isfinite(measured) & np.isfinite(fitted)
        if good.any():
            style.error_bars(
                axes, measured[good], fitted[good], sigma[good], fmt=marker, color=colour,
                label=text, markerfacecolor="white" if marker == "s" else colour,
                markersize=5.2 if marker == "s" else 3.0,
            )  # fmt: skip
            error = np.maximum(np.nan_to_num(sigma[good]), 0.0)
            drawn += [measured[good], fitted[good] - error, fitted[good] + error]
    if not drawn:
        style.no_data(axes, "no measured read noise")
        return
    both = np.concatenate(drawn)
    room = 0.08 * float(both.max() - both.min()) or 0.05 * float(both.max()) or 1.0
    ends = (float(both.min()) - room, float(both.max()) + room)
    axes.plot(ends, ends, color=style.MODEL, linewidth=0.8)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    style.label(axes, "measured  (electron)", "fit  (electron)")
    style.legend(axes, loc="upper left")


def _scatter(axes: Axes, x: Floats, y: Floats, error: Floats, overview: xr.Dataset) -> None:
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        style.no_data(axes, "no fit")
        return
    few = good.sum() <= 64
    for index in range(overview.sizes[AMP]):
        colour, marker = style.amp_style(index)
        chosen = good[:, index]
        axes.errorbar(
            x[chosen, index], y[chosen, index],
            xerr=np.maximum(np.nan_to_num(error[chosen, index]), 0.0),
            fmt=marker if few else ".", color=colour,
            markersize=3.4 if few else 2.5, elinewidth=0.7,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5))
