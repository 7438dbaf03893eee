"""Figures of what was fitted at every lag: a, b, their sums, and how well it fits."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyloom.algorithms.vocabulary import LAG_X, LAG_Y
from skyloom.flows.report import style
from skyloom.flows.report.numbers import short

__all__ = ["cumulative_sum", "matrix_figure", "old_fashioned_a"]

Floats = NDArray[np.float64]


def _matrix(amplifier: xr.Dataset, name: str) -> Floats:
    return np.asarray(amplifier[name].transpose(LAG_Y, LAG_X).to_numpy(), np.float64)


def _distance(shape: tuple[int, ...]) -> Floats:
    lag_y, lag_x = np.indices(shape)
    return np.asarray(np.hypot(lag_y, lag_x))


def cumulative_sum(a: Floats) -> Floats:
    """Return the sum of a over all lags of |i|, |j| < n, in units of a_00, for n = 1, 2, ...

    Parameters
    ----------
    a : array, (lag_y, lag_x), 1/electron
        Quadrant of lags >= 0. Lags on an axis count twice, others four times.

    Returns
    -------
    array, (n)
        It begins with 1 and falls to 0 if charge is conserved.

    Examples
    --------
    >>> cumulative_sum(np.array([[-4.0, 0.5], [0.5, 0.25]])).tolist()
    [1.0, 0.25]
    """
    images = np.where(np.arange(len(a)) > 0, 2.0, 1.0)
    weighted = a * np.outer(images, images)
    sums = np.array([weighted[:n, :n].sum() for n in range(1, len(a) + 1)])
    return np.asarray(sums / a[0, 0])


def old_fashioned_a(amplifier: xr.Dataset, signal: float) -> tuple[Floats, float]:
    """Return C_ij / (V mu_e), taken for a before higher orders were known, at one signal.

    Parameters
    ----------
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector.
    signal : float, adu
        The signal wanted; that of the nearest used pair is taken.

    Returns
    -------
    (array, float)
        (lag_y, lag_x), 1/electron, from the fitted model, NaN without one; and the signal, adu.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> empty = detector_block(with_detectors(xr.Dataset(coords={"amp": ["C00"]})), "detector")
    >>> old_fashioned_a(empty.isel(amp=0), 1e4)
    (array([[nan]]), nan)
    """
    model = amplifier["covariance_model"].transpose("pair", LAG_Y, LAG_X).to_numpy()
    mean = amplifier["mean"].to_numpy()
    known = np.flatnonzero(amplifier["used"].to_numpy() & np.isfinite(model[:, 0, 0]))
    if not known.size or not np.isfinite(signal):
        return np.full(model.shape[1:], np.nan), float("nan")
    nearest = known[np.argmin(np.abs(mean[known] - signal))]
    electrons = float(amplifier["gain"].item()) * mean[nearest]
    return model[nearest] / (model[nearest, 0, 0] * electrons), float(mean[nearest])


def matrix_figure(amplifier: xr.Dataset) -> Figure:
    """Draw the matrix a and how well the covariances are fitted.

    Parameters
    ----------
    amplifier : Dataset, (pair, lag_y, lag_x)
        One amplifier of a detector, see `detector_block`. A third row shows b if it was fitted.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> empty = detector_block(with_detectors(xr.Dataset(coords={"amp": ["C00"]})), "detector")
    >>> len(matrix_figure(empty.isel(amp=0)).axes)
    6
    """
    with_b = bool(np.isfinite(_matrix(amplifier, "b")).sum() > 1)
    rows = 3 if with_b else 2
    figure, grid = style.grid_figure(
        2.75 * rows, [1] * rows, [1, 1, 1], gaps=(1.1, 0.62), margins=(0.62, 0.2, 0.45, 0.32)
    )
    axes = [
        style.tune(figure.add_subplot(grid[place // 3, place % 3])) for place in range(3 * rows)
    ]
    _draw_a_map(axes[0], amplifier)
    _draw_against_distance(axes[1], amplifier, "a", 1e6, "|a|  (10⁻⁶ / electron)")
    _draw_cumulative(axes[2], amplifier)
    _draw_chi2_map(axes[3], amplifier)
    _draw_chi2_profile(axes[4], amplifier)
    _draw_old_fashioned(axes[5], amplifier)
    if with_b:
        _draw_b_map(axes[6], amplifier)
        _draw_against_distance(axes[7], amplifier, "b", 1e6, "|b|  (10⁻⁶ / electron)")
        axes[8].set_axis_off()
    return figure


def _draw_map(
    axes: Axes, values: Floats, norm: Normalize, colours: str, ticks: list[float] | None = None
) -> None:
    axes.grid(visible=False)
    image = axes.imshow(values, origin="lower", cmap=colours, norm=norm, interpolation="nearest")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.label(axes, "lag x  (pixel)", "lag y  (pixel)")
    style.colour_bar(axes, image, ticks=ticks)
    if len(values) <= 4:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                axes.text(
                    column, row, short(value), ha="center", va="center", fontsize=6.5,
                    color=style.INK, bbox={"facecolor": "white", "alpha": 0.6, "pad": 1, "lw": 0},
                )  # fmt: skip


def _draw_a_map(axes: Axes, amplifier: xr.Dataset) -> None:
    a = _matrix(amplifier, "a")
    fitted = int(np.isfinite(a[0]).sum())
    style.title(axes, "a  (10⁻⁶ / electron)")
    if not fitted:
        style.no_data(axes, "not fitted")
        return
    values = 1e6 * a[:fitted, :fitted]
    top = float(np.abs(values).max()) or 1.0
    # What is not significant is nearly white.
    sigma = 1e6 * _matrix(amplifier, "a_sigma")[:fitted, :fitted]
    linear = float(np.clip(2 * np.median(np.nan_to_num(sigma)), 1e-3 * top, 0.1 * top))
    norm = SymLogNorm(linear, vmin=-top, vmax=top, linscale=0.5)
    step = 10 ** np.floor(np.log10(top))
    sizes = [size for size in (step, 0.1 * step, 0.01 * step) if size >= linear]
    ticks = [*(-size for size in sizes), 0.0, *sizes]
    _draw_map(axes, values, norm, "PuOr_r", ticks)


def _draw_b_map(axes: Axes, amplifier: xr.Dataset) -> None:
    values = 1e6 * _matrix(amplifier, "b")
    finite = np.abs(values[np.isfinite(values)])
    top = float(np.quantile(finite, 0.9)) or 1.0
    style.title(axes, "b  (10⁻⁶ / electron, where a is significant)")
    _draw_map(axes, values, Normalize(-top, top), "PuOr_r")


def _draw_against_distance(
    axes: Axes, amplifier: xr.Dataset, name: str, scale: float, text: str
) -> None:
    value, sigma = scale * _matrix(amplifier, name), scale * _matrix(amplifier, f"{name}_sigma")
    style.title(axes, f"|{name}| against distance")
    known = np.isfinite(value) & (value != 0)
    if not known.any():
        style.no_data(axes, "not fitted")
        return
    lag_y, lag_x = np.indices(value.shape)
    distance = _distance(value.shape)
    for where, marker, colour, along in (
        (lag_y > lag_x, "o", style.BLUE, "lag y > lag x"),
        (lag_y <= lag_x, "s", "#d55e00", "lag y ≤ lag x"),
    ):
        for positive in (True, False):
            chosen = known & where & ((value > 0) == positive)
            magnitude = np.abs(value[chosen])
            error = np.minimum(sigma[chosen], 0.9 * magnitude)  # stays on logarithmic axes
            style.error_bars(
                axes, distance[chosen], magnitude, error, fmt=marker, color=colour,
                markersize=3.4, elinewidth=0.6, markerfacecolor=colour if positive else "white",
                label=along if positive else None,
            )  # fmt: skip
    axes.set_yscale("log")
    magnitude, typical = np.abs(value[known]), float(np.median(np.nan_to_num(sigma[known])))
    lowest = max(float(magnitude.min()), 0.2 * typical)
    axes.set_ylim(0.6 * min(lowest, float(magnitude.max())), 2.0 * float(magnitude.max()))
    style.label(axes, "distance  (pixel)", text)
    style.legend(axes, loc="upper right", title="open: negative", title_fontsize=7)


def _draw_cumulative(axes: Axes, amplifier: xr.Dataset) -> None:
    a = _matrix(amplifier, "a")
    fitted = int(np.isfinite(a[0]).sum())
    style.title(axes, "cumulative sum of a")
    if fitted < 2:
        style.no_data(axes, "not fitted")
        return
    sums = cumulative_sum(a[:fitted, :fitted])
    axes.axhline(0, color=style.MODEL, linewidth=0.8)
    axes.plot(np.arange(fitted), sums, color=style.BLUE, marker="o", markersize=3.6, linewidth=0.9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    style.label(axes, "largest lag  (pixel)", r"$\sum a\,/\,a_{00}$")
    axes.annotate(
        short(sums[-1]), (fitted - 1, sums[-1]), textcoords="offset points", xytext=(0, 6),
        ha="right", fontsize=7.5, color=style.INK,
    )  # fmt: skip


def _draw_chi2_map(axes: Axes, amplifier: xr.Dataset) -> None:
    chi2 = _matrix(amplifier, "chi2_lag")
    pairs = int(amplifier["used"].to_numpy().sum())
    fitted = int(np.isfinite(chi2[0]).sum())
    style.title(axes, "χ² per pair, by lag")
    if not fitted or not pairs:
        style.no_data(axes, "not fitted")
        return
    values = chi2[:fitted, :fitted] / pairs
    reach = max(float(np.abs(values - 1).max()), 0.3)
    _draw_map(axes, values, Normalize(1 - reach, 1 + reach), "RdBu_r")


def _draw_chi2_profile(axes: Axes, amplifier: xr.Dataset) -> None:
    chi2, mean = amplifier["chi2_pair"].to_numpy(), amplifier["mean"].to_numpy()
    lags = int(np.isfinite(_matrix(amplifier, "chi2_lag")).sum())
    known = np.isfinite(chi2) & np.isfinite(mean)
    style.title(axes, "χ² per lag, by flux")
    if not known.any() or not lags:
        style.no_data(axes, "not fitted")
        return
    expected = np.sqrt(2 / lags)
    axes.axhspan(1 - expected, 1 + expected, color=style.GRID, linewidth=0)
    axes.axhline(1, color=style.MODEL, linewidth=0.8)
    axes.plot(
        mean[known] / 1e3, chi2[known] / lags, linestyle="none", marker="o", markersize=3.2,
        color=style.BLUE,
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    style.label(axes, "mean  (10³ adu)", "χ² / lags")


def _draw_old_fashioned(axes: Axes, amplifier: xr.Dataset) -> None:
    a, sigma = _matrix(amplifier, "a"), _matrix(amplifier, "a_sigma")
    old, signal = old_fashioned_a(amplifier, 0.75 * float(amplifier["turnoff"].item()))
    significant = np.isfinite(a) & np.isfinite(old) & (np.abs(a) > 3 * sigma)
    significant[0, 0] = False  # it has Poisson's noise in it and is no estimate of a
    style.title(axes, "$C\\,/\\,(V\\mu)$ taken for a")
    if not significant.any():
        style.no_data(axes, "no lag with a significant a")
        return
    axes.axhline(0, color=style.MODEL, linewidth=0.8)
    axes.plot(
        _distance(a.shape)[significant], 100 * (old / a - 1)[significant], linestyle="none",
        marker="o", markersize=3.4, color=style.BLUE,
    )  # fmt: skip
    axes.set_xlim(0, 1.08 * float(_distance(a.shape)[significant].max()))
    style.label(axes, f"distance  (pixel), at {signal / 1e3:.3g}·10³ adu", "relative bias  (%)")
