"""Figures of chromatic coadds: displacements of visits, how well they agree, colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from skyloom.flows.report.style import (
    BLUE,
    FAINT,
    INK,
    MODEL,
    grid_figure,
    label,
    legend,
    no_data,
    title,
    tune,
)

__all__ = ["agreement_figure", "colour_figure", "held_out_figure", "shift_figure"]

Floats = NDArray[np.float64]
RED = "#d55e00"
MOST_NAMES = 40
STRETCH = 8.0  # of the noise, in the arcsinh of colour images
MOST_PANELS = 6


def shift_figure(visits: Sequence[str], vectors: Floats, used: NDArray[np.bool_]) -> Figure:
    """Return how far the blue end of the band is displaced from the red one in each visit.

    Parameters
    ----------
    visits : sequence of str
        Their names.
    vectors : array, (visit, 2), pixel
        Displacements (dy, dx), which point towards the zenith.
    used : array of bool, (visit)
        Whether the visit is part of the model.
    """
    figure, grid = grid_figure(4.4, [1], [1.15, 1], margins=(0.8, 0.2, 0.55, 0.35), gaps=(0.9, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place])) for place in (0, 1))
    if not np.isfinite(vectors).any():
        no_data(left, "no visit has a displacement")
        return figure
    for name, (dy, dx), good in zip(visits, vectors, used, strict=True):
        colour = BLUE if good else RED
        left.annotate(
            "", (dx, dy), (0.0, 0.0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.1}
        )
        if len(visits) <= MOST_NAMES:
            left.text(1.08 * dx, 1.08 * dy, name, fontsize=6.5, color=INK, ha="center", va="center")
    middle = vectors[used].mean(axis=0) if used.any() else np.zeros(2)
    if used.sum() > 1:
        values, directions = np.linalg.eigh(np.cov(vectors[used].T, bias=True))
        sides = 2.0 * np.sqrt(np.maximum(values, 0.0))
        turn = float(np.rad2deg(np.arctan2(directions[0, 1], directions[1, 1])))
        left.add_patch(
            Ellipse(
                (middle[1], middle[0]), sides[1], sides[0], angle=turn, fill=False,
                edgecolor=MODEL, linestyle="--", linewidth=1.0,
            )
        )  # fmt: skip
    reach = 1.25 * max(float(np.nanmax(np.abs(vectors))), 0.1)
    left.set_xlim(-reach, reach)
    left.set_ylim(-reach, reach)
    left.set_aspect("equal")
    left.axhline(0.0, color=FAINT, linewidth=0.6)
    left.axvline(0.0, color=FAINT, linewidth=0.6)
    title(left, "blue end from red end; dashes: their scatter")
    label(left, "tract x (pixel)", "tract y (pixel)")
    length = np.hypot(*vectors.T)
    x = np.arange(len(visits))
    right.bar(x[used], length[used], color=BLUE, width=0.7, label="in the model")
    if not used.all():
        right.bar(x[~used], length[~used], color=RED, width=0.7, label="left out")
        legend(right)
    _name(right, visits)
    title(right, "length, pixel")
    return figure


def agreement_figure(
    visits: Sequence[str], chi2: Floats, airmass: Floats, used: NDArray[np.bool_]
) -> Figure:
    """Return how well each visit agrees with the model, and at which airmass it was taken.

    Parameters
    ----------
    visits : sequence of str
    chi2 : array, (visit)
        Chi-square per pixel in detected regions.
    airmass : array, (visit)
    used : array of bool, (visit)
    """
    figure, grid = grid_figure(2.9, [1], [1, 1], margins=(0.8, 0.2, 0.6, 0.35), gaps=(0.9, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place])) for place in (0, 1))
    if not np.isfinite(chi2).any():
        no_data(left, "nothing is detected")
        return figure
    x = np.arange(len(visits))
    for axes, at in ((left, x.astype(float)), (right, airmass)):
        axes.axhline(1.0, color=FAINT, linewidth=0.8)
        axes.plot(at[used], chi2[used], "o", color=BLUE, markersize=4, label="in the model")
        if not used.all():
            axes.plot(at[~used], chi2[~used], "X", color=RED, markersize=5, label="left out")
            legend(axes)
        axes.set_ylim(0.0, 1.15 * max(1.2, float(np.nanmax(chi2))))
    _name(left, visits)
    label(right, "airmass")
    title(left, "chi-square per pixel of objects")
    title(right, "the same against airmass")
    return figure


def colour_figure(patches: Sequence[tuple[str, Floats, Floats]]) -> Figure:
    """Return the sub-bands of patches as images in colour beside their sums.

    Parameters
    ----------
    patches : sequence of (name, planes (subfilter, y, x), noise (subfilter))
        Blue to red; noise of a pixel of each plane.
    """
    shown = list(patches)[:MOST_PANELS]
    columns = 2 if len(shown) == 1 else min(3, len(shown))
    rows = 1 if len(shown) == 1 else -(-len(shown) // columns)
    figure, grid = grid_figure(
        rows * (9.0 / columns) + 0.4,
        [1] * rows,
        [1] * columns,
        margins=(0.15, 0.15, 0.1, 0.3),
        gaps=(0.15, 0.35),
    )
    if not shown:
        no_data(tune(figure.add_subplot(grid[0, 0])), "no patch has a model")
    for place, (name, planes, noise) in enumerate(shown):
        axes = tune(figure.add_subplot(grid[place // columns, place % columns]), grid=False)
        axes.imshow(_colours(planes, noise), origin="lower", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        title(axes, f"{name}: blue to red")
        if len(shown) == 1:
            beside = tune(figure.add_subplot(grid[0, 1]), grid=False)
            total = planes.sum(axis=0)
            sigma = float(np.sqrt((noise**2).sum())) or 1.0
            grey = np.arcsinh((total - np.nanmedian(total)) / (STRETCH * sigma))
            high = float(np.nanmax(grey))
            beside.imshow(grey, origin="lower", cmap="gray_r", vmin=-0.05 * high, vmax=high,
                          interpolation="nearest")  # fmt: skip
            beside.set_xticks([])
            beside.set_yticks([])
            title(beside, f"{name}: sum of sub-bands")
    return figure


def _colours(planes: Floats, noise: Floats) -> Floats:
    """Return red, green, blue of sub-bands by one stretch of their sum, so that colours stay."""
    number = len(planes)
    levels = np.nanmedian(planes, axis=(1, 2))[:, None, None]
    clean = np.nan_to_num(planes - levels) * number
    # Reddest, middle and bluest; two sub-bands share the middle, one is grey.
    red, blue = clean[-1], clean[0]
    green = clean[(number - 1) // 2 : number // 2 + 1].mean(axis=0)
    total = clean.mean(axis=0)
    sigma = STRETCH * (float(np.sqrt(np.nansum(noise**2))) or 1.0)
    # Differences of sub-bands are noise between objects.
    seen = 1.0 / (1.0 + (sigma / np.maximum(np.abs(total), 1e-30)) ** 2)
    stretched = np.arcsinh(np.maximum(total, 0.0) / sigma)
    top = np.arcsinh(max(float(np.nanpercentile(total, 99.95)), sigma) / sigma)
    light = np.where(total > 0, stretched / np.maximum(total, 1e-30), 0.0) / max(top, 1e-30)
    colours = np.stack(
        [(total + 3.0 * seen * (each - total)) * light for each in (red, green, blue)], axis=-1
    )
    # What is too bright for the screen keeps its colour.
    colours = np.maximum(colours, 0.0)
    colours /= np.maximum(colours.max(axis=-1, keepdims=True), 1.0)
    return np.asarray(np.clip(0.06 + colours, 0.0, 1.0))


def held_out_figure(names: Sequence[str], residual: Floats, dipole: Floats, units: str) -> Figure:
    """Return what templates and the plain coadd leave of visits that no model is made of.

    Parameters
    ----------
    names : sequence of str
        Of the visits.
    residual, dipole : array, (visit, 2)
        Of the template, and of the plain coadd.
    units : str
        Of the residuals.
    """
    figure, grid = grid_figure(3.1, [1], [1, 1], margins=(0.8, 0.2, 0.62, 0.35), gaps=(0.9, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place])) for place in (0, 1))
    if not len(names):
        no_data(left, "no visit was held out")
        return figure
    x = np.arange(len(names))
    for axes, values, text in (
        (left, residual, f"rms near objects, {units}"),
        (right, dipole, "rms dipole along the vertical, pixel"),
    ):
        axes.bar(x - 0.2, values[:, 0], 0.38, color=BLUE, label="template")
        axes.bar(x + 0.2, values[:, 1], 0.38, color=RED, label="plain coadd")
        title(axes, text)
        _name(axes, names)
        legend(axes)
    return figure


def _name(axes: object, visits: Sequence[str]) -> None:
    step = -(-len(visits) // MOST_NAMES) if visits else 1
    axes.set_xticks(range(0, len(visits), step), list(visits)[::step], rotation=60, fontsize=6.5)  # type: ignore[attr-defined]
    axes.set_xlim(-0.7, len(visits) - 0.3)  # type: ignore[attr-defined]
    label(axes, "visit")  # type: ignore[arg-type]
