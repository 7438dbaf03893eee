"""Figures of the variance against the mean: one amplifier in full.

Every function takes an amplifier, a dataset over ``pair, lag_y, lag_x`` as `detector_block` gives
it (one of its ``amp``), and copes with any of its numbers missing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.models import evaluate_model
from skyloom.algorithms.vocabulary import AMP, LAG_X, LAG_Y, PairStatus
from skyloom.flows.report import style
from skyloom.flows.report.blocks import status_name

__all__ = [
    "draw_points",
    "draw_turnoff",
    "limit_ratio",
    "model_curve",
    "photon_transfer_figure",
    "shown_pairs",
    "signal_grid",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_POINTS: Final = 160


def _values(amplifier: xr.Dataset, name: str) -> Floats:
    return np.asarray(amplifier[name].to_numpy(), dtype=np.float64)


def _at_zero(amplifier: xr.Dataset, name: str) -> Floats:
    return _values(amplifier.isel({LAG_Y: 0, LAG_X: 0}), name)


def _number(amplifier: xr.Dataset, name: str) -> float:
    return float(amplifier[name].item())


def model_curve(amplifier: xr.Dataset, mean: Floats) -> xr.DataArray:
    """Return the fitted covariances of an amplifier at any signal.

    Parameters
    ----------
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector, with the attribute ``model``; without it the values at the
        pairs are interpolated.
    mean : array, adu
        Signals.

    Returns
    -------
    DataArray, (mean, lag_y, lag_x), adu2
        NaN where nothing was fitted.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> empty = detector_block(with_detectors(xr.Dataset(coords={"amp": ["C00"]})), "detector")
    >>> model_curve(empty.isel(amp=0), np.array([1e3])).shape
    (1, 1, 1)
    """
    if "model" in amplifier.attrs:
        return evaluate_model(amplifier.expand_dims(AMP), mean).isel({AMP: 0})
    known = np.isfinite(_values(amplifier, "mean")) & np.isfinite(
        _at_zero(amplifier, "covariance_model")
    )
    lags = (amplifier.sizes[LAG_Y], amplifier.sizes[LAG_X])
    result = np.full((len(mean), *lags), np.nan)
    if known.any():
        at = _values(amplifier, "mean")[known]
        order = np.argsort(at)
        model = _values(amplifier, "covariance_model")[known][order]
        for row, column in np.ndindex(*lags):
            result[:, row, column] = np.interp(
                mean, at[order], model[:, row, column], left=np.nan, right=np.nan
            )
    return xr.DataArray(result, dims=("mean", LAG_Y, LAG_X), coords={"mean": mean})


def signal_grid(mean: Floats, *, logarithmic: bool) -> Floats:
    """Return signals at which a model is drawn, from the lowest to the highest.

    Examples
    --------
    >>> grid = signal_grid(np.array([1e3, 1e1, 1e5]), logarithmic=True)
    >>> float(grid[0]), float(grid[-1])
    (10.0, 100000.0)
    """
    low, high = float(mean.min()), float(mean.max())
    return np.geomspace(low, high, _POINTS) if logarithmic else np.linspace(low, high, _POINTS)


def shown_pairs(amplifier: xr.Dataset) -> Flags:
    """Return which pairs of an amplifier have a place on logarithmic axes.

    Examples
    --------
    >>> pairs = xr.Dataset({"mean": ("pair", [1.0, 2.0]), "variance": ("pair", [np.nan, 1.0])})
    >>> shown_pairs(pairs).tolist()
    [False, True]
    """
    mean, variance = _values(amplifier, "mean"), _values(amplifier, "variance")
    finite = np.isfinite(mean) & np.isfinite(variance)
    return np.asarray(finite & (mean > 0) & (variance > 0), dtype=bool)


def _rejected(amplifier: xr.Dataset, shown: Flags) -> list[tuple[int, Flags]]:
    """Return the codes of pairs that are not used, and where they are."""
    status, used = amplifier["pair_status"].to_numpy(), amplifier["used"].to_numpy()
    codes = sorted({int(code) for code in status[shown & ~used]})
    return [(code, shown & ~used & (status == code)) for code in codes]


def _reason(code: int, count: int) -> str:
    # A pair may be OK by itself and yet not be used, as all those of a bad amplifier.
    name = "not used" if code == PairStatus.OK else status_name(code)
    return f"{name} ({count})"


def draw_turnoff(axes: Axes, amplifier: xr.Dataset) -> None:
    """Draw the turn-off with its sampling error, if there is one.

    Examples
    --------
    >>> axes = Figure().add_subplot()
    >>> draw_turnoff(axes, xr.Dataset({"turnoff": 7e4, "turnoff_sampling_error": 1e3}))
    >>> len(axes.lines), len(axes.patches)
    (1, 1)
    """
    turnoff = _number(amplifier, "turnoff")
    if not np.isfinite(turnoff):
        return
    error = _number(amplifier, "turnoff_sampling_error")
    if np.isfinite(error) and error > 0:
        axes.axvspan(turnoff - error, turnoff + error, color="#b8860b", alpha=0.12, linewidth=0)
    axes.axvline(turnoff, color="#b8860b", linewidth=0.9, linestyle=(0, (4, 2)))


def draw_points(
    axes: Axes, amplifier: xr.Dataset, divide: Floats, *, errors: bool = True, size: float = 3.2
) -> None:
    """Draw used pairs and, with a marker for each reason, the others.

    Parameters
    ----------
    axes : Axes
        Where to.
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector.
    divide : array, (pair)
        What the variance is divided by.
    errors : bool
        Draw error bars.
    size : float
        Size of the markers, point.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> pairs = xr.Dataset({name: (("pair", "amp"), [[1e3]]) for name in ("mean", "variance")})
    >>> block = detector_block(with_detectors(pairs), "detector")
    >>> axes = Figure().add_subplot()
    >>> draw_points(axes, block.isel(amp=0), np.ones(1))
    >>> axes.get_legend_handles_labels()[1]
    ['used (1)']
    """
    mean, variance = _values(amplifier, "mean"), _values(amplifier, "variance")
    sigma = _values(amplifier, "variance_sigma") if errors else np.full_like(mean, np.nan)
    shown, used = shown_pairs(amplifier), amplifier["used"].to_numpy()
    for code, where in _rejected(amplifier, shown):
        marker, colour = style.reason_style(code)
        axes.plot(
            mean[where], variance[where] / divide[where], linestyle="none", marker=marker,
            markersize=size + 1.2, markerfacecolor="white", markeredgecolor=colour,
            markeredgewidth=1.0, label=_reason(code, int(where.sum())), zorder=2.5,
        )  # fmt: skip
    used = used & shown
    style.error_bars(
        axes, mean[used], variance[used] / divide[used], sigma[used] / divide[used],
        markersize=size, label=f"used ({int(used.sum())})", zorder=3,
    )  # fmt: skip


def _draw_model(axes: Axes, amplifier: xr.Dataset, grid: Floats, divide: Floats) -> None:
    model = model_curve(amplifier, grid).isel({LAG_Y: 0, LAG_X: 0}).to_numpy() / divide
    turnoff = _number(amplifier, "turnoff")
    below = grid <= (turnoff if np.isfinite(turnoff) else np.inf)
    if not np.isfinite(model).any():
        return
    axes.plot(grid, np.where(below, model, np.nan), color=style.MODEL, linewidth=1.1, label="model")
    axes.plot(grid, np.where(below, np.nan, model), color=style.MODEL, linewidth=0.8, linestyle=":")


def _draw_residuals(
    axes: Axes, amplifier: xr.Dataset, residual: Floats, sigma: Floats, *, least: float
) -> None:
    """Draw residuals; those beyond the limits become arrow heads at the edge."""
    mean, shown = _values(amplifier, "mean"), shown_pairs(amplifier)
    used = amplifier["used"].to_numpy() & shown
    low, high = style.limits(residual[used], least=least)
    axes.set_ylim(low, high)
    axes.axhline(0, color=style.MODEL, linewidth=0.8)
    parts = [
        (code, where, *style.reason_style(code)) for code, where in _rejected(amplifier, shown)
    ]
    for _, where, marker, colour in [*parts, (0, used, "o", style.BLUE)]:
        inside = where & (residual >= low) & (residual <= high)
        if colour == style.BLUE:
            style.error_bars(axes, mean[inside], residual[inside], sigma[inside], zorder=3)
        else:
            axes.plot(
                mean[inside], residual[inside], linestyle="none", marker=marker, markersize=4.2,
                markerfacecolor="white", markeredgecolor=colour, markeredgewidth=0.9,
            )  # fmt: skip
        for edge, beyond, arrow in ((high, residual > high, "^"), (low, residual < low, "v")):
            at = mean[where & beyond]
            axes.plot(
                at, np.full(len(at), edge * 0.93), linestyle="none", marker=arrow, markersize=3.6,
                markerfacecolor="none", markeredgecolor=colour, markeredgewidth=0.8,
            )  # fmt: skip


def photon_transfer_figure(amplifier: xr.Dataset) -> Figure:
    """Draw the photon transfer curve of one amplifier, its model and its residuals.

    Left, on logarithmic axes, the variance and its relative residuals; right, the variance over
    the mean, where a departure from Poisson's law shows, and residuals in units of their errors.

    Parameters
    ----------
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector, see `detector_block`.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> empty = detector_block(with_detectors(xr.Dataset(coords={"amp": ["C00"]})), "detector")
    >>> len(photon_transfer_figure(empty.isel(amp=0)).axes)
    4
    """
    figure, grid = style.grid_figure(
        4.4, [3.0, 1.25], [1, 1], gaps=(0.8, 0.12), margins=(0.72, 0.15, 0.45, 0.1)
    )
    top_left, top_right, low_left, low_right = (
        style.tune(figure.add_subplot(grid[row, column])) for row in (0, 1) for column in (0, 1)
    )
    shown = shown_pairs(amplifier)
    if not shown.any():
        for axes in (top_left, top_right, low_left, low_right):
            style.no_data(axes, "no pair was measured")
        return figure
    mean, variance = _values(amplifier, "mean"), _values(amplifier, "variance")
    model = _at_zero(amplifier, "covariance_model")
    sigma = _values(amplifier, "variance_sigma")
    ones = np.ones_like(mean)
    line = signal_grid(mean[shown], logarithmic=True)
    _draw_model(top_left, amplifier, line, np.ones_like(line))
    gain = _number(amplifier, "gain")
    if np.isfinite(gain) and gain > 0:
        top_left.plot(
            line, line / gain, color=style.FAINT, linewidth=0.8, linestyle="--", label="Poisson"
        )
    draw_points(top_left, amplifier, ones)
    line = signal_grid(mean[shown], logarithmic=False)
    _draw_model(top_right, amplifier, line, line)
    draw_points(top_right, amplifier, mean)
    top_left.set_xscale("log")
    top_left.set_yscale("log")
    low_left.set_xscale("log")
    limit_ratio(top_right, amplifier, mean, variance)
    for axes in (top_left, top_right, low_left, low_right):
        draw_turnoff(axes, amplifier)
    if np.isfinite(model[shown]).any():
        _draw_residuals(
            low_left, amplifier, 100 * (variance / model - 1), 100 * sigma / model, least=0.2
        )
        known = np.where(sigma > 0, sigma, np.nan)
        if np.isfinite(known).any():
            _draw_residuals(low_right, amplifier, (variance - model) / known, ones, least=3.0)
        else:
            style.no_data(low_right, "errors of the variance are not known", keep_x=True)
    else:
        style.no_data(low_left, "no model was fitted", keep_x=True)
        style.no_data(low_right, "no model was fitted", keep_x=True)
    for upper, lower in ((top_left, low_left), (top_right, low_right)):
        lower.set_xlim(upper.get_xlim())
        upper.tick_params(labelbottom=False)
        upper.xaxis.set_minor_formatter(NullFormatter())
    style.label(top_left, y="variance  (adu²)")
    style.label(top_right, y="variance / mean  (adu)")
    style.label(low_left, "mean  (adu)", "residual  (%)")
    style.label(low_right, "mean  (adu)", "residual  (σ)")
    top_right.xaxis.set_major_locator(MaxNLocator(6))
    style.legend(top_left, loc="upper left")
    return figure


def limit_ratio(axes: Axes, amplifier: xr.Dataset, mean: Floats, variance: Floats) -> None:
    """Keep read noise at low signal and saturated pairs from squeezing the curve.

    Parameters
    ----------
    axes : Axes
        Of variance over mean.
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector, with at least one measured pair.
    mean, variance : array, (pair)
        Its signal and variance.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> dims = ("pair", "amp")
    >>> pairs = xr.Dataset({"mean": (dims, [[10.0], [1e3]]), "variance": (dims, [[9.0], [5e2]])})
    >>> amplifier = detector_block(with_detectors(pairs), "detector").isel(amp=0)
    >>> axes = Figure().add_subplot()
    >>> limit_ratio(axes, amplifier, np.array([10.0, 1e3]), np.array([9.0, 5e2]))
    >>> [round(float(end), 2) for end in axes.get_ylim()]
    [0.45, 0.55]
    """
    used = amplifier["used"].to_numpy() & shown_pairs(amplifier)
    chosen = used if used.any() else shown_pairs(amplifier)
    bright = chosen & (mean > 0.03 * mean[chosen].max())
    ratio = variance[bright] / mean[bright]
    low, high = float(np.min(ratio)), float(np.max(ratio))
    room = 0.3 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
