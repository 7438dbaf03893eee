"""How every figure of a report looks, and how it becomes part of a page.

Figures are made without pyplot and without changing matplotlib's settings: reports can be
written in several threads at once.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray
from PIL import Image

from skyloom.algorithms.vocabulary import PairStatus

__all__ = [
    "BLUE",
    "FAINT",
    "GRID",
    "INK",
    "MODEL",
    "WIDTH",
    "amp_style",
    "colour_bar",
    "data_uri",
    "error_bars",
    "grid_figure",
    "label",
    "legend",
    "limits",
    "no_data",
    "plain",
    "png_bytes",
    "reason_style",
    "title",
    "tune",
]

Floats = NDArray[np.float64]

WIDTH: Final = 9.8
"""Width of a figure that fills the page, inch."""
INK: Final = "#1f2933"
FAINT: Final = "#8b97a3"
GRID: Final = "#e6e9ed"
BLUE: Final = "#0072b2"
MODEL: Final = "#1f2933"
_DPI: Final = 140
_SMALL, _NORMAL = 7.5, 8.5

# Okabe and Ito's colours, which colour-blind readers can tell apart; yellow is too pale here.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b", "#4b4b4b")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")

_REASONS: Final[dict[int, tuple[str, str]]] = {
    PairStatus.OUTLIER: ("X", "#d55e00"),
    PairStatus.ABOVE_TURNOFF: ("s", "#b8860b"),
    PairStatus.MEAN_OUT_OF_RANGE: ("D", "#56b4e9"),
    PairStatus.NON_GAUSSIAN: ("^", "#cc79a7"),
    PairStatus.MEAN_MISMATCH: ("v", "#009e73"),
    PairStatus.TOO_FEW_PIXELS: ("P", "#7a5195"),
    PairStatus.AMP_BAD: ("o", "#a0a8b0"),
}


def plain(text: object) -> str:
    """Return text that matplotlib shows as it is, without taking dollars for mathematics.

    Examples
    --------
    >>> print(plain("amp $1"))
    amp \\$1
    """
    return str(text).replace("$", r"\$")


def amp_style(index: int) -> tuple[str, str]:
    """Return colour and marker of the amplifier at a place in its detector, always the same.

    Examples
    --------
    >>> amp_style(0)
    ('#0072b2', 'o')
    """
    return _COLOURS[index % len(_COLOURS)], _MARKERS[(index // len(_COLOURS)) % len(_MARKERS)]


def reason_style(code: int) -> tuple[str, str]:
    """Return marker and colour of a reason for which pairs are rejected.

    Examples
    --------
    >>> reason_style(PairStatus.OUTLIER)
    ('X', '#d55e00')
    """
    return _REASONS.get(int(code), ("d", "#4b4b4b"))


def grid_figure(
    height: float,
    rows: Sequence[float],
    columns: Sequence[float],
    *,
    width: float = WIDTH,
    margins: tuple[float, float, float, float] = (0.72, 0.15, 0.5, 0.32),
    gaps: tuple[float, float] = (0.75, 0.5),
) -> tuple[Figure, GridSpec]:
    """Return an empty figure and a grid, laid out in inches so that labels have their room.

    Parameters
    ----------
    height : float
        Height of the figure, inch.
    rows, columns : sequence of float
        Relative heights and widths.
    width : float
        Width of the figure, inch.
    margins : tuple of float
        Left, right, bottom and top, inch.
    gaps : tuple of float
        Between columns and between rows, inch.

    Examples
    --------
    >>> figure, grid = grid_figure(3.0, [3, 1], [1, 1])
    >>> grid.get_geometry(), float(figure.get_figheight())
    ((2, 2), 3.0)
    """
    left, right, bottom, top = margins
    figure = Figure(figsize=(width, height), facecolor="white")
    inner_width = (width - left - right - gaps[0] * (len(columns) - 1)) / len(columns)
    inner_height = (height - bottom - top - gaps[1] * (len(rows) - 1)) / len(rows)
    grid = figure.add_gridspec(
        len(rows),
        len(columns),
        width_ratios=columns,
        height_ratios=rows,
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=gaps[0] / inner_width,
        hspace=gaps[1] / inner_height,
    )
    return figure, grid


def tune(axes: Axes, *, grid: bool = True) -> Axes:
    """Give axes the look of the report."""
    axes.tick_params(labelsize=_SMALL, colors=INK, width=0.7, length=3, which="major")
    axes.tick_params(width=0.5, length=1.8, which="minor", colors=INK)
    for spine in axes.spines.values():
        spine.set_color("#9aa5b1")
        spine.set_linewidth(0.7)
    if grid:
        axes.grid(visible=True, color=GRID, linewidth=0.6, which="major")
        axes.set_axisbelow(True)
    axes.yaxis.get_offset_text().set_fontsize(_SMALL)
    axes.xaxis.get_offset_text().set_fontsize(_SMALL)
    return axes


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """Label axes."""
    if x:
        axes.set_xlabel(x, fontsize=_NORMAL, color=INK, labelpad=2)
    if y:
        axes.set_ylabel(y, fontsize=_NORMAL, color=INK, labelpad=3)


def title(axes: Axes, text: str, *, colour: str = INK) -> None:
    """Write a title at the left end of axes."""
    axes.set_title(text, fontsize=_NORMAL, color=colour, loc="left", pad=4)


def legend(axes: Axes, **options: object) -> None:
    """Add a legend, unless there is nothing to explain."""
    if axes.get_legend_handles_labels()[1]:
        settings = {"loc": "best", "frameon": True, "framealpha": 0.85, "edgecolor": "none"}
        settings |= {"fontsize": _SMALL, "labelcolor": INK, "handlelength": 1.6} | options
        axes.legend(**settings)


def no_data(axes: Axes, text: str, *, keep_x: bool = False) -> None:
    """Say in axes why they are empty; ``keep_x`` if others share their horizontal axis."""
    axes.text(
        *(0.5, 0.5, text), transform=axes.transAxes, ha="center", va="center",
        fontsize=_NORMAL, color=FAINT, wrap=True,
    )  # fmt: skip
    axes.set_yticks([])
    if not keep_x:
        axes.set_xticks([])
        axes.minorticks_off()


def error_bars(axes: Axes, x: Floats, y: Floats, sigma: Floats, **options: object) -> None:
    """Draw points with errors, thin ones, leaving errors out where they are not known."""
    known = np.where(np.isfinite(sigma) & (sigma >= 0), sigma, 0.0)
    settings: dict[str, object] = {
        "fmt": "o",
        "markersize": 3.2,
        "color": BLUE,
        "linestyle": "none",
    }
    settings |= {"elinewidth": 0.7, "capsize": 0, "markeredgewidth": 0.7} | options
    axes.errorbar(x, y, yerr=known, **settings)  # type: ignore[arg-type]


def colour_bar(axes: Axes, image: ScalarMappable, *, ticks: Sequence[float] | None = None) -> None:
    """Add a colour bar that is as high as its axes are, whatever their aspect."""
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.04, 0.0, 0.05, 1.0)), ticks=ticks)
    tune(bar.ax, grid=False)
    bar.ax.minorticks_off()
    bar.outline.set_linewidth(0.6)


def limits(values: Floats, *, factor: float = 4.0, least: float = 0.0) -> tuple[float, float]:
    """Return symmetric limits that show the bulk of residuals.

    Parameters
    ----------
    values : array
        Residuals; those that are not finite do not count.
    factor : float
        Limits in units of the robust scatter, no further than the largest residual.
    least : float
        Smallest half width.

    Examples
    --------
    >>> limits(np.array([1.0, -1.0, 1.0, 50.0]))
    (-5.9304, 5.9304)
    """
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size:
        return -(least or 1.0), least or 1.0
    half = min(float(1.4826 * np.median(finite)) * factor, float(finite.max()) * 1.15)
    half = max(half, least) or 1.0
    return -half, half


def png_bytes(figure: Figure, *, dpi: int = _DPI) -> bytes:
    """Return a figure as a PNG image.

    Examples
    --------
    >>> png_bytes(Figure(figsize=(1, 1)), dpi=10)[1:4]
    b'PNG'
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # 256 colours make a page three times smaller, and nobody can see the difference.
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels[..., :3])
    image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette = image.getpalette() or []
    corner = 3 * int(image.getpixel((0, 0)))  # type: ignore[arg-type]
    image.putpalette([*palette[:corner], 255, 255, 255, *palette[corner + 3 :]])
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def data_uri(figure: Figure, *, dpi: int = _DPI) -> str:
    """Return a figure as a PNG image inside a URI.

    Examples
    --------
    >>> data_uri(Figure(figsize=(1, 1)), dpi=10)[:30]
    'data:image/png;base64,iVBORw0K'
    """
    return "data:image/png;base64," + base64.b64encode(png_bytes(figure, dpi=dpi)).decode("ascii")
