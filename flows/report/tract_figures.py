"""Figures of tracts: what visits cover, bins before and after, fields, patches and their seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.flows.report.numbers import short
from skyloom.flows.report.style import (
    BLUE,
    FAINT,
    INK,
    MODEL,
    amp_style,
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

__all__ = [
    "BinnedPatch",
    "bins_figure",
    "cost_figure",
    "coverage_figure",
    "fields_figure",
    "levels_figure",
    "mosaic_figure",
    "seam_figure",
    "sky_figure",
]

Floats = NDArray[np.float64]
Extent = tuple[float, float, float, float]
RED = "#d55e00"
MOST_NUMBERS = 120
MOST_NAMES = 40
PANELS_A_ROW = 6
SHADES = 3.0  # of the noise of the sky that an image is shown to, in its arcsinh


class BinnedPatch(NamedTuple):
    """Means of a patch in bins (y, x), and its box x_start, x_stop, y_start, y_stop, pixel."""

    values: Mapping[str, Floats]
    extent: Extent


def coverage_figure(
    boxes: Sequence[Extent],
    counts: Sequence[int],
    footprints: Mapping[str, Sequence[Floats]],
    shape: tuple[int, int],
) -> Figure:
    """Return the patches of a tract with their numbers of visits, and where the detectors lie.

    Parameters
    ----------
    boxes : sequence of (x_start, x_stop, y_start, y_stop), pixel
        Inner boxes of the patches.
    counts : sequence of int
        Visits with data in each.
    footprints : mapping from visit to arrays, (corner, xy), pixel
        Outlines of its detectors.
    shape : (rows, columns)
        Of the tract, pixel.
    """
    figure, grid = grid_figure(6.4, [1], [1], margins=(0.8, 0.95, 0.5, 0.32))
    axes = tune(figure.add_subplot(grid[0, 0]), grid=False)
    if not boxes:
        no_data(axes, "no patch has a warp")
        return figure
    top = max(1, *counts)
    patches = PolyCollection(
        [np.array([(a, c), (b, c), (b, d), (a, d)]) for a, b, c, d in boxes],
        cmap="Blues",
        norm=Normalize(0, top),
        edgecolors="white",
        linewidths=1.0,
    )
    patches.set_array(np.asarray(counts, np.float64))
    axes.add_collection(patches)
    if len(boxes) <= MOST_NUMBERS:
        for (a, b, c, d), count in zip(boxes, counts, strict=True):
            colour = "white" if count > 0.7 * top else INK
            axes.text((a + b) / 2, (c + d) / 2, str(count), ha="center", va="center",
                      fontsize=7.5, color=colour)  # fmt: skip
    for index, (name, outlines) in enumerate(footprints.items()):
        colour = amp_style(index)[0]
        lines = PolyCollection(
            list(outlines), facecolors="none", edgecolors=colour, linewidths=0.7, alpha=0.8
        )
        if len(footprints) <= 14:
            lines.set_label(name)
        axes.add_collection(lines)
    pad = 0.04 * max(shape)
    axes.set_xlim(-pad, shape[1] + pad)
    axes.set_ylim(-pad, shape[0] + pad)
    axes.set_aspect("equal")
    colour_bar(axes, patches)
    if 1 < len(footprints) <= 14:
        place = (-0.16, 1.0)
        legend(axes, title="visit", title_fontsize=7, loc="upper right", bbox_to_anchor=place)
    title(axes, "visits with data in each patch; outlines: detectors")
    label(axes, "tract x (pixel)", "tract y (pixel)")
    return figure


def levels_figure(visits: Sequence[str], values: Floats, noise: Floats, unit: str) -> Figure:
    """Return the median levels of the warps of each visit, and their noise.

    Parameters
    ----------
    visits : sequence of str
        Their names.
    values, noise : array, (visit, patch)
        Median and noise of a pixel of each warp; NaN where there is none.
    unit : str
        Of both.
    """
    figure, grid = grid_figure(3.0, [1], [1, 1], margins=(0.9, 0.15, 0.62, 0.3), gaps=(0.9, 0.5))
    for place, (data, text) in enumerate(((values, "median level"), (noise, "noise of a pixel"))):
        axes = tune(figure.add_subplot(grid[0, place]))
        if not np.isfinite(data).any():
            no_data(axes, "no warp has data")
            continue
        for index, row in enumerate(data):
            own = row[np.isfinite(row)]
            axes.plot(np.full(own.size, index), own, "_", color=FAINT, markersize=6)
            if own.size:
                axes.plot(index, np.median(own), "o", color=BLUE, markersize=3.5)
        _name_visits(axes, visits)
        title(axes, f"{text}, {unit}; lines: patches, dots: their median")
    return figure


def _name_visits(axes: Axes, visits: Sequence[str]) -> None:
    step = -(-len(visits) // MOST_NAMES) if visits else 1
    axes.set_xticks(range(0, len(visits), step), list(visits)[::step], rotation=60, fontsize=6.5)
    axes.set_xlim(-0.7, len(visits) - 0.3)
    label(axes, "visit")


def bins_figure(
    panels: Sequence[tuple[str, Floats]],
    unit: str,
    *,
    least: float = 0.0,
    span: tuple[float, float] | None = None,
    colours: str = "RdBu_r",
) -> Figure:
    """Return bins of a tract as small images with one scale of colours.

    Parameters
    ----------
    panels : sequence of (title, array (tract_y, tract_x))
        NaN where there is no value.
    unit : str
        What the colours mean.
    least : float
        Smallest half width of the scale.
    span : (float, float), optional
        Ends of the scale; symmetric about 0 by default.
    colours : str
        Name of the colours.
    """
    columns = max(2, min(PANELS_A_ROW, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    side = 8.2 / columns
    figure, grid = grid_figure(
        rows * (side + 0.28) + 0.25,
        [1] * rows,
        [1] * columns,
        margins=(0.15, 1.1, 0.1, 0.3),
        gaps=(0.1, 0.28),
    )
    everything = [values[np.isfinite(values)] for _, values in panels]
    joined = np.concatenate(everything) if everything else np.empty(0)
    low, high = span if span is not None else limits(joined, least=least)
    last = None
    for place, (text, values) in enumerate(panels):
        axes = tune(figure.add_subplot(grid[place // columns, place % columns]), grid=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#c8ced4")
        image = axes.imshow(
            np.ma.masked_invalid(values), origin="lower", cmap=colours, vmin=low, vmax=high,
            interpolation="nearest",
        )  # fmt: skip
        title(axes, text)
        if place == columns - 1 or (place == len(panels) - 1 and last is None):
            last = axes
            colour_bar(axes, image)
            axes.text(1.42, 0.5, unit, transform=axes.transAxes, rotation=90, va="center",
                      fontsize=7.5, color=INK)  # fmt: skip
    if not panels:
        no_data(tune(figure.add_subplot(grid[0, 0])), "no bins")
    return figure


def sky_figure(sky: Floats, count: Floats, unit: str) -> Figure:
    """Return the sky that visits share, and how many have data, in bins of a tract.

    Parameters
    ----------
    sky, count : array, (tract_y, tract_x)
        NaN and 0 where no visit has data.
    unit : str
        Of the sky.
    """
    figure, grid = grid_figure(4.6, [1], [1, 1], margins=(0.3, 0.85, 0.2, 0.35), gaps=(1.1, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place]), grid=False) for place in (0, 1))
    if not np.isfinite(sky).any():
        no_data(left, "no bin has data")
        return figure
    middle = float(np.nanmedian(sky))
    low, high = limits(sky - middle)
    drawn: dict[str, Any] = {"origin": "lower", "interpolation": "nearest"}
    image = left.imshow(
        np.ma.masked_invalid(sky - middle), cmap="RdBu_r", vmin=low, vmax=high, **drawn
    )
    top = max(1.0, float(count.max()))
    number = right.imshow(
        np.ma.masked_less_equal(count, 0), cmap="viridis", vmin=0, vmax=top, **drawn
    )
    for axes, part in ((left, image), (right, number)):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#c8ced4")
        colour_bar(axes, part)
    title(left, f"sky that visits share − {short(middle)}, {unit}")
    title(right, "visits")
    return figure


def fields_figure(
    visits: Sequence[str], level: Floats, sigma: Floats, slope: Floats, error: Floats, unit: str
) -> Figure:
    """Return the field of each visit with errors: its mean and how far it changes.

    Parameters
    ----------
    visits : sequence of str
        Their names.
    level, sigma : array, (visit)
        Constant term of the field and its error.
    slope : array, (visit)
        Rms of the rest of the field over the tract.
    error : array, (visit)
        Rms error of the field over the bins of the visit.
    unit : str
        Of all of these.
    """
    figure, grid = grid_figure(3.1, [1], [1, 1], margins=(0.9, 0.15, 0.62, 0.3), gaps=(0.9, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place])) for place in (0, 1))
    if not np.isfinite(level).any():
        no_data(left, "no visit was matched")
        return figure
    x = np.arange(len(visits), dtype=np.float64)
    left.axhline(0.0, color=FAINT, linewidth=0.8)
    error_bars(left, x, level, sigma, color=BLUE)
    title(left, f"level of the field, {unit}")
    right.plot(x, slope, "o", color=BLUE, markersize=3.5, label="rms of its gradients")
    right.plot(x, error, "s", color=RED, markersize=3.2, label="rms error of the field")
    shown = np.concatenate([slope, error])
    if (shown[np.isfinite(shown)] > 0).any():
        right.set_yscale("log")
        right.tick_params(which="both", labelsize=7)
    title(right, f"rest of the field over the tract, {unit}")
    legend(right)
    for axes in (left, right):
        _name_visits(axes, visits)
    return figure


def cost_figure(visits: Sequence[str], parts: Mapping[str, Floats], chosen: int | None) -> Figure:
    """Return what each visit costs as a reference, term by term; the best or chosen is marked.

    Parameters
    ----------
    visits : sequence of str
        Their names.
    parts : mapping from term to array, (visit)
        Parts of the cost; NaN where a visit cannot be the reference.
    chosen : int, optional
        Place of the visit to be marked.
    """
    figure, grid = grid_figure(2.8, [1], [1], margins=(0.9, 0.15, 0.62, 0.3))
    axes = tune(figure.add_subplot(grid[0, 0]))
    total = np.zeros(len(visits))
    x = np.arange(len(visits))
    if not any(np.isfinite(values).any() for values in parts.values()):
        no_data(axes, "no visit can be a reference")
        return figure
    for index, (name, values) in enumerate(parts.items()):
        own = np.nan_to_num(values)
        axes.bar(x, own, bottom=total, color=amp_style(index)[0], label=name, width=0.7)
        total += own
    if chosen is not None:
        axes.plot(chosen, total[chosen] + 0.03, "v", color=MODEL, markersize=6, label="best")
    for place in np.flatnonzero(~np.isfinite(next(iter(parts.values())))):
        axes.plot(place, 0.02, "x", color=RED, markersize=5)
    axes.set_ylim(0, 1.15 * max(float(total.max()), 0.1))
    label(axes, "", "cost")
    title(axes, "cost as a reference: the smallest is best; crosses: cannot be one")
    legend(axes)
    _name_visits(axes, visits)
    return figure


def mosaic_figure(patches: Sequence[BinnedPatch], shape: tuple[int, int], unit: str) -> Figure:
    """Return a coadd and its numbers of visits, binned, patch beside patch.

    Parameters
    ----------
    patches : sequence of BinnedPatch
        With ``image`` and ``n_image``.
    shape : (rows, columns)
        Of the tract, pixel.
    unit : str
        Of the image.
    """
    figure, grid = grid_figure(4.6, [1], [1, 1], margins=(0.75, 0.75, 0.5, 0.35), gaps=(1.25, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place]), grid=False) for place in (0, 1))
    pixels = [p.values["image"][np.isfinite(p.values["image"])] for p in patches]
    joined = np.concatenate(pixels) if pixels else np.empty(0)
    if not joined.size:
        no_data(left, "no coadd has data")
        return figure
    middle = float(np.median(joined))
    spread = 1.4826 * float(np.median(np.abs(joined - middle))) or 1.0

    def stretched(values: Floats) -> Floats:
        return np.asarray(np.arcsinh((values - middle) / (SHADES * spread)))

    low, high = np.percentile(stretched(joined), [0.5, 99.8])
    most = max(1.0, *(float(np.nanmax(p.values["n_image"], initial=0.0)) for p in patches))
    images: list[Any] = [None, None]
    for patch in patches:
        given: dict[str, Any] = {
            "origin": "lower",
            "extent": patch.extent,
            "interpolation": "nearest",
        }
        image = np.ma.masked_invalid(stretched(patch.values["image"]))
        images[0] = left.imshow(image, cmap="gray_r", vmin=low, vmax=high, **given)
        count = np.ma.masked_less_equal(patch.values["n_image"], 0)
        images[1] = right.imshow(count, cmap="viridis", vmin=0, vmax=most, **given)
    for axes, drawn in zip((left, right), images, strict=True):
        axes.set_facecolor("#eef1f4")
        axes.set_xlim(0, shape[1])
        axes.set_ylim(0, shape[0])
        axes.set_aspect("equal")
        label(axes, "tract x (pixel)", "tract y (pixel)")
        if drawn is not None:
            colour_bar(axes, drawn)
    title(left, f"coadd: arcsinh((level − median) / {SHADES:g} scatters), {unit}")
    title(right, "visits")
    return figure


def seam_figure(differences: Floats, edges: Floats, inner: Floats) -> Figure:
    """Return how patches differ where they overlap, and steps at the edges of visits.

    Parameters
    ----------
    differences : array
        Differences of neighbouring patches at the same pixels, in the noise of the coadd.
    edges, inner : array
        Steps between neighbouring bins, in their noise: where the number of visits changes, and
        where it does not.
    """
    figure, grid = grid_figure(3.0, [1], [1, 1], margins=(0.9, 0.15, 0.5, 0.3), gaps=(0.9, 0.5))
    left, right = (tune(figure.add_subplot(grid[0, place])) for place in (0, 1))
    title(left, "neighbouring patches, same pixels")
    own = differences[np.isfinite(differences)]
    if own.size:
        reach = max(float(np.percentile(np.abs(own), 99.5)), 1e-6)
        bins = np.linspace(-reach, reach, 61).tolist()
        left.hist(np.clip(own, -reach, reach), bins, color=BLUE, alpha=0.8)
        left.set_yscale("log")
        label(left, "difference / noise of a pixel", "pixels")
    else:
        no_data(left, "no patches overlap")
    title(right, "steps between neighbouring bins")
    bins = np.linspace(-8, 8, 65).tolist()
    drawn = False
    for values, colour, text in ((inner, BLUE, "same visits"), (edges, RED, "visits change")):
        known = values[np.isfinite(values)]
        if known.size:
            weights = np.full(known.size, 1.0 / known.size)
            right.hist(
                np.clip(known, -8, 8), bins, color=colour, histtype="step", label=text,
                weights=weights, linewidth=1.1,
            )  # fmt: skip
            drawn = True
    if drawn:
        label(right, "step / its noise", "fraction of steps")
        legend(right)
    else:
        no_data(right, "no neighbouring bins")
    return figure
