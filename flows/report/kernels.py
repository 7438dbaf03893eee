"""Figure of brighter-fatter kernels."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyloom.algorithms.vocabulary import AMP, KERNEL_X, KERNEL_Y
from skyloom.flows.report import style

__all__ = ["kernel_figure"]

Floats = NDArray[np.float64]


def kernel_figure(kernel: xr.Dataset) -> Figure:
    """Draw the brighter-fatter kernel of a detector, and the profiles of its amplifiers.

    Parameters
    ----------
    kernel : Dataset, (amp, kernel_y, kernel_x)
        ``kernel``, ``kernel_valid`` and ``detector_kernel`` of one detector.

    Examples
    --------
    >>> shape = ("kernel_y", "kernel_x")
    >>> kernel = xr.Dataset(
    ...     {
    ...         "detector_kernel": (shape, np.zeros((3, 3))),
    ...         "kernel": (("amp", *shape), np.zeros((1, 3, 3))),
    ...         "kernel_valid": ("amp", [False]),
    ...     },
    ...     coords={"amp": ["C00"]},
    ... )
    >>> len(kernel_figure(kernel).axes)
    3
    """
    figure, grid = style.grid_figure(3.1, [1], [1, 1, 1], gaps=(1.35, 0.5))
    axes = [style.tune(figure.add_subplot(grid[0, column])) for column in range(3)]
    values = np.asarray(kernel["detector_kernel"].transpose(KERNEL_Y, KERNEL_X), np.float64) * 1e6
    half = values.shape[0] // 2
    style.title(axes[0], "mean of valid  (10⁻⁶ / electron)")
    if not np.isfinite(values).any() or not np.any(values):
        style.no_data(axes[0], "no valid kernel")
    else:
        _draw_image(axes[0], values, half)
    valid = kernel["kernel_valid"].to_numpy()
    each = np.asarray(kernel["kernel"].transpose(AMP, KERNEL_Y, KERNEL_X), np.float64) * 1e6
    lag = np.arange(values.shape[1]) - values.shape[1] // 2
    for place, text in ((1, "along x, through the centre"), (2, "along y, through the centre")):
        style.title(axes[place], text)
        for index, amplifier in enumerate(each):
            if not np.any(np.nan_to_num(amplifier)):
                continue
            profile = amplifier[half, :] if place == 1 else amplifier[:, half]
            colour, marker = style.amp_style(index)
            name = style.plain(kernel[AMP].to_numpy()[index])
            axes[place].plot(
                lag, profile, color=colour, linewidth=0.8, marker=marker, markersize=2.4,
                linestyle="-" if valid[index] else ":",
                label=name,
            )  # fmt: skip
        if not axes[place].lines:
            style.no_data(axes[place], "no kernel")
            continue
        axes[place].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        style.label(axes[place], "pixel", "kernel  (10⁻⁶ / electron)")
    if 0 < len(axes[2].lines) <= 8:
        style.legend(axes[2], loc="lower right")
    return figure


def _draw_image(axes: Axes, values: Floats, half: int) -> None:
    axes.grid(visible=False)
    top = float(np.nanmax(np.abs(values)))
    image = axes.imshow(
        values, origin="lower", cmap="PuOr_r", norm=Normalize(-top, top),
        extent=(-half - 0.5, half + 0.5, -half - 0.5, half + 0.5), interpolation="nearest",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.label(axes, "x  (pixel)", "y  (pixel)")
    style.colour_bar(axes, image)
