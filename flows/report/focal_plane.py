"""Amplifiers as rectangles at their place in the focal plane, coloured by what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.algorithms.vocabulary import AMP, DETECTOR
from skyloom.flows.report import style
from skyloom.flows.report.numbers import short

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera

__all__ = ["FocalPlane", "focal_plane", "focal_plane_figure"]

Floats = NDArray[np.float64]

_FILL: Final = 0.88
"""Part of the distance between detectors that they fill, where pixel sizes are not known."""
_MAPS: Final[tuple[tuple[str, str, float], ...]] = (
    ("gain", "gain  (electron / adu)", 1.0),
    ("noise", "read noise  (electron)", 1.0),
    ("a_00", "a₀₀  (10⁻⁶ / electron)", 1e6),
    ("turnoff", "turn-off  (10³ adu)", 1e-3),
    ("chi2_dof", "χ² / dof", 1.0),
    ("used_fraction", "pairs used  (%)", 100.0),
)


@dataclass(frozen=True)
class FocalPlane:
    """Where amplifiers lie.

    Parameters
    ----------
    amplifiers : mapping of (detector, amp) to array, (corner, xy)
        Corners of each amplifier.
    detectors : mapping of str to array, (corner, xy)
        Corners of each detector.
    unit : str
        Unit of the axes, "" if the places are only schematic.
    """

    amplifiers: dict[tuple[str, str], Floats]
    detectors: dict[str, Floats]
    unit: str


def focal_plane(overview: xr.Dataset, camera: Camera | None = None) -> FocalPlane:
    """Return where the amplifiers of a report lie.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`.
    camera : Camera, optional
        Without it, or if it gives all its detectors the same place, detectors stand side by side
        in the order of their names.

    Examples
    --------
    >>> overview = xr.Dataset(coords={"detector": ["S00"], "amp": ["A", "B"]})
    >>> plane = focal_plane(overview)
    >>> len(plane.amplifiers), plane.unit
    (2, '')
    """
    names = [str(name) for name in overview[DETECTOR].to_numpy()]
    known = set(camera.detector_names()) if camera else set()
    if camera is None or not set(names) <= known:
        boxes = {
            name: _grid_boxes([str(amp) for amp in overview[AMP].to_numpy()]) for name in names
        }
        return _side_by_side(boxes)
    boxes = {name: _boxes(camera.amplifiers(name)) for name in names}
    every = [camera.detector(name).offset_mm for name in names]
    if len(set(every)) < len(every) or len(every) < 2:
        return _side_by_side(boxes)
    sizes = {name: _extent(boxes[name]) for name in names}
    scale = _millimetres_per_pixel(
        np.array([camera.detector(name).offset_mm for name in names], float),
        np.array([_turned(sizes[name], camera.detector(name).rotation) for name in names], float),
    )
    amplifiers, detectors = {}, {}
    for name in names:
        detector = camera.detector(name)
        turn = np.deg2rad(detector.rotation)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        center, offset = np.array(sizes[name]) / 2, np.array(detector.offset_mm)
        for amp, box in boxes[name].items():
            amplifiers[name, amp] = ((box - center) * scale) @ rotation.T + offset
        outline = _corners(0, 0, *sizes[name])
        detectors[name] = ((outline - center) * scale) @ rotation.T + offset
    return FocalPlane(amplifiers, detectors, "mm")


def _turned(size: tuple[float, float], degrees: float) -> tuple[float, float]:
    """Return the extent in x and y of a rectangle that is turned."""
    turn = np.deg2rad(degrees)
    cosine, sine = abs(np.cos(turn)), abs(np.sin(turn))
    return size[0] * cosine + size[1] * sine, size[0] * sine + size[1] * cosine


def _millimetres_per_pixel(offsets: Floats, sizes: Floats) -> float:
    """Return a scale at which detectors just do not touch each other.

    The camera does not say how large a pixel is, but detectors do not overlap.
    """
    distance = np.abs(offsets[:, None] - offsets[None])
    reach = (sizes[:, None] + sizes[None]) / 2
    free = np.max(distance / np.maximum(reach, 1e-9), axis=-1)
    np.fill_diagonal(free, np.inf)
    closest = float(free.min())
    return _FILL * closest if np.isfinite(closest) else 1.0


def _corners(x_start: float, y_start: float, x_stop: float, y_stop: float) -> Floats:
    return np.array(
        [[x_start, y_start], [x_stop, y_start], [x_stop, y_stop], [x_start, y_stop]], float
    )


def _boxes(amplifiers: xr.Dataset) -> dict[str, Floats]:
    edges = [amplifiers[name].to_numpy() for name in ("x_start", "y_start", "x_stop", "y_stop")]
    names = [str(name) for name in amplifiers[AMP].to_numpy()]
    return {name: _corners(*box) for name, box in zip(names, zip(*edges, strict=True), strict=True)}


def _grid_boxes(names: Sequence[str]) -> dict[str, Floats]:
    columns = max(1, int(np.ceil(np.sqrt(len(names)))))
    rows = max(1, -(-len(names) // columns))
    return {
        name: _corners(c / columns, r / rows, (c + 1) / columns, (r + 1) / rows)
        for name, (r, c) in zip(names, (divmod(i, columns) for i in range(len(names))), strict=True)
    }


def _extent(boxes: dict[str, Floats]) -> tuple[float, float]:
    if not boxes:
        return 1.0, 1.0
    x, y = np.max(np.concatenate(list(boxes.values())), axis=0)
    return float(x), float(y)


def _side_by_side(boxes: dict[str, dict[str, Floats]]) -> FocalPlane:
    columns = max(1, int(np.ceil(np.sqrt(len(boxes)))))
    sizes = [_extent(found) for found in boxes.values()]
    width, height = (max((s[axis] for s in sizes), default=1.0) / _FILL for axis in (0, 1))
    amplifiers, detectors = {}, {}
    for index, (name, found) in enumerate(boxes.items()):
        row, column = divmod(index, columns)
        origin = np.array([column * width, -row * height])
        amplifiers.update({(name, amp): box + origin for amp, box in found.items()})
        detectors[name] = _corners(0, 0, *_extent(found)) + origin
    return FocalPlane(amplifiers, detectors, "")


def focal_plane_figure(overview: xr.Dataset, plane: FocalPlane) -> Figure:
    """Draw gain, noise, a_00, turn-off, chi2 and used pairs over the focal plane.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`.
    plane : FocalPlane
        Where the amplifiers lie.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> overview = amplifier_overview(with_detectors(xr.Dataset(coords={"amp": ["A"]})))
    >>> len(focal_plane_figure(overview, focal_plane(overview)).axes)
    6
    """
    dof = overview["dof"].where(overview["dof"] > 0)
    pairs = overview["pairs"].where(overview["pairs"] > 0)
    overview = overview.assign(
        chi2_dof=overview["chi2"] / dof, used_fraction=overview["pairs_used"] / pairs
    )
    # Axes are as high as the camera needs: panels are about 2.15 inches wide.
    height = 2.15 * float(np.clip(_aspect(plane), 0.25, 1.3))
    figure, grid = style.grid_figure(
        2 * height + 1.35, [1, 1], [1, 1, 1], gaps=(1.2, 0.62), margins=(0.55, 0.7, 0.42, 0.3)
    )
    for place, (name, text, scale) in enumerate(_MAPS):
        axes = style.tune(figure.add_subplot(grid[place // 3, place % 3]), grid=False)
        style.title(axes, text)
        _draw(axes, scale * overview[name], overview, plane)
        unit = plane.unit and f"  ({plane.unit})"
        style.label(axes, f"x{unit}" if place > 2 and unit else "", f"y{unit}" if unit else "")
    return figure


def _aspect(plane: FocalPlane) -> float:
    """Return height over width of what is drawn."""
    if not plane.detectors:
        return 1.0
    extent = np.ptp(np.concatenate(list(plane.detectors.values())), axis=0)
    return float(extent[1] / max(extent[0], 1e-9))


def _draw(axes: Axes, values: xr.DataArray, overview: xr.Dataset, plane: FocalPlane) -> None:
    cells = list(plane.amplifiers)
    if not cells:
        style.no_data(axes, "no amplifiers")
        return
    table = {
        (str(detector), str(amp)): float(values.to_numpy()[row, column])
        for row, detector in enumerate(overview[DETECTOR].to_numpy())
        for column, amp in enumerate(overview[AMP].to_numpy())
    }
    found = np.array([table.get(cell, np.nan) for cell in cells])
    corners = np.array([plane.amplifiers[cell] for cell in cells])
    bad = ~np.isfinite(found)
    if bad.any():
        hatched: dict[str, Any] = {"facecolor": "#eef0f2", "edgecolor": "#b3261e", "linewidth": 0.4}
        axes.add_collection(PolyCollection(list(corners[bad]), hatch="////", **hatched))
    if (~bad).any():
        low, high = np.quantile(found[~bad], [0.01, 0.99])
        if not high > low:
            low, high = low - 0.02 * abs(low) - 1e-9, high + 0.02 * abs(high) + 1e-9
        good = PolyCollection(
            list(corners[~bad]), array=found[~bad], cmap="cividis", norm=Normalize(low, high),
            edgecolor="white", linewidth=0.3 if len(cells) < 400 else 0.1,
        )  # fmt: skip
        axes.add_collection(good)
        style.colour_bar(axes, good)
        _write_values(axes, found, corners, cells, good)
    axes.add_collection(
        PolyCollection(
            list(plane.detectors.values()), facecolor="none", edgecolor=style.INK, linewidth=0.6
        )
    )
    axes.set_aspect("equal")
    axes.margins(x=0.05, y=0.08 / min(1.0, max(_aspect(plane), 0.25)))
    axes.autoscale_view()
    if not plane.unit:
        axes.set_xticks([])
        axes.set_yticks([])
    _write_names(axes, plane)


def _write_values(
    axes: Axes, found: Floats, corners: Floats, cells: list[tuple[str, str]], good: PolyCollection
) -> None:
    """Write values into few rectangles, where they can be read."""
    if len(cells) > 24:
        return
    middle = corners.mean(axis=1)
    for value, (x, y) in zip(found, middle, strict=True):
        if np.isfinite(value):
            red, green, blue, _ = good.to_rgba(value)
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            axes.text(
                float(x), float(y), short(value), ha="center", va="center", fontsize=6,
                color="white" if dark else style.INK,
            )  # fmt: skip


def _write_names(axes: Axes, plane: FocalPlane) -> None:
    """Write the names of few detectors above them."""
    if not 1 < len(plane.detectors) <= 25:
        return
    for name, corners in plane.detectors.items():
        x, y = corners[:, 0].min(), corners[:, 1].max()
        axes.text(
            float(x), float(y), style.plain(name), ha="left", va="bottom", fontsize=5.5,
            color=style.INK,
        )  # fmt: skip
