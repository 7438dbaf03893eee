"""Source positions of target pixels: exact on a grid, cubic between.

Positions go target pixel, sky, source pixel. Nodes lie at whole multiples of the step, and the
step follows from detector and target alone, so that a pixel has the same bits in whatever box it
is computed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.warp.positions import SkyPixels

__all__ = ["PositionGrid", "position_grid"]

Floats = NDArray[np.float64]

LARGEST_STEP: Final = 64  # pixels
SMALLEST_STEP: Final = 4
PAD: Final = 3  # nodes on each side, for differences of differences
MOST_NODES: Final = 1 << 16
AROUND: Final = 2.0  # source pixels around a detector that still count as near


class PositionGrid(NamedTuple):
    """Source positions on a grid of target pixels.

    ``nodes``, (3, node_y, node_x), holds source x, source y and the area of a target pixel in
    source pixels; node (0, 0) lies at target pixel ``origin`` (y, x), nodes are ``step`` apart.
    ``touched``, (node_y - 1, node_x - 1), says which cells may meet the detector. ``box`` is the
    half-open part (y_start, y_stop, x_start, x_stop) of the wanted box that they cover, ``error``
    the largest distance (source pixel) from the exact positions at centres of cells, ``matrix``
    d(source x, y)/d(target x, y) at the node nearest to the middle of the detector.
    """

    nodes: Floats
    origin: tuple[int, int]
    step: int
    touched: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    error: float
    matrix: Floats


def position_grid(
    source: SkyPixels,
    shape: tuple[int, int],
    target: SkyPixels,
    box: tuple[int, int, int, int],
    *,
    largest_error: float = 1e-3,
) -> PositionGrid | None:
    """Return source positions over the part of a box that a detector may reach, None without.

    Parameters
    ----------
    source, target : SkyPixels
    shape : (int, int)
        Rows and columns of the source image.
    box : (int, int, int, int)
        Half-open ``(y_start, y_stop, x_start, x_stop)``, target pixels.
    largest_error : float, source pixel
        The step is halved, from 64 pixels, until interpolated positions are as good as this.

    Raises
    ------
    GeometryError
        If that is not so even with a step of 4 pixels: the relation is not smooth.

    Examples
    --------
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
    >>> grid = position_grid(plane, (100, 100), plane, (10, 30, -50, 20))
    >>> grid.box, grid.step, bool(grid.error < 1e-6)
    ((10, 30, -2, 20), 64, True)
    """
    reach = _reached(source, shape, target)
    if reach is None:
        return None
    part = _common(reach, box)
    if part is None:
        return None
    step = LARGEST_STEP
    while True:
        if (reach[1] - reach[0]) * (reach[3] - reach[2]) > MOST_NODES * step**2:
            # a detector that reaches across the projection's horizon
            reach = part
        origin, counts = _nodes_over(reach, step)
        nodes = _exact(source, target, origin, counts, step)
        touched = _touched(nodes, shape)
        error = _error(source, target, nodes, origin, step, touched)
        if error <= largest_error:
            break
        if step == SMALLEST_STEP:
            raise GeometryError(
                f"positions cannot be interpolated to {largest_error} pixel: with exact ones at "
                f"every {step}th pixel the error still is {error:.3g}"
            )
        step //= 2
    if not touched.any():
        return None
    return PositionGrid(
        np.concatenate([nodes, _areas(nodes, step)[None]]),
        origin,
        step,
        touched,
        part,
        error,
        _middle_matrix(nodes, shape, step),
    )


def _reached(
    source: SkyPixels, shape: tuple[int, int], target: SkyPixels
) -> tuple[int, int, int, int] | None:
    """Return the smallest box of target pixels around the outline of a detector."""
    height, width = shape
    along_x = np.linspace(-0.5, width - 0.5, width // 64 + 9)
    along_y = np.linspace(-0.5, height - 0.5, height // 64 + 9)
    x = np.concatenate([along_x, along_x, np.full(2 * along_y.size, -0.5)])
    y = np.concatenate([np.full(2 * along_x.size, -0.5), along_y, along_y])
    x[-along_y.size :], y[along_x.size : 2 * along_x.size] = width - 0.5, height - 0.5
    x, y = target.to_pixels(*source.to_sky(x, y))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    x, y = np.clip(x[known], -1e9, 1e9), np.clip(y[known], -1e9, 1e9)
    return (
        int(np.floor(y.min())) - 1,
        int(np.ceil(y.max())) + 2,
        int(np.floor(x.min())) - 1,
        int(np.ceil(x.max())) + 2,
    )


def _common(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    y_start, x_start = max(one[0], other[0]), max(one[2], other[2])
    y_stop, x_stop = min(one[1], other[1]), min(one[3], other[3])
    return (y_start, y_stop, x_start, x_stop) if y_start < y_stop and x_start < x_stop else None


def _nodes_over(
    reach: tuple[int, int, int, int], step: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the place of node (0, 0) and the numbers of nodes, which lie around the box too."""
    first = [start // step - PAD for start in (reach[0], reach[2])]
    last = [-(-stop // step) + PAD for stop in (reach[1], reach[3])]
    counts = last[0] - first[0] + 1, last[1] - first[1] + 1
    return (first[0] * step, first[1] * step), counts


def _exact(
    source: SkyPixels,
    target: SkyPixels,
    origin: tuple[float, float],
    counts: tuple[int, int],
    step: int,
) -> Floats:
    x, y = np.meshgrid(
        origin[1] + step * np.arange(float(counts[1])),
        origin[0] + step * np.arange(float(counts[0])),
    )
    found = source.to_pixels(*target.to_sky(x.ravel(), y.ravel()))
    return np.stack([axis.reshape(counts) for axis in found])


def _touched(nodes: Floats, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which cells may hold positions on the detector; none of those at the border."""
    corners = np.stack([nodes[:, :-1, :-1], nodes[:, :-1, 1:], nodes[:, 1:, :-1], nodes[:, 1:, 1:]])
    low, high = corners.min(axis=0) - AROUND, corners.max(axis=0) + AROUND
    touched = (high[0] >= 0) & (low[0] < shape[1]) & (high[1] >= 0) & (low[1] < shape[0])
    touched[[0, -1], :] = touched[:, [0, -1]] = False
    return np.asarray(touched)


def _error(
    source: SkyPixels,
    target: SkyPixels,
    nodes: Floats,
    origin: tuple[int, int],
    step: int,
    touched: NDArray[np.bool_],
) -> float:
    """Return the largest error at centres of touched cells."""
    cells = np.argwhere(touched)
    if not len(cells):
        return 0.0
    weights = np.array([-1.0, 9.0, 9.0, -1.0]) / 16
    found = np.zeros((2, len(cells)))
    for j in range(4):
        for i in range(4):
            place = nodes[:, cells[:, 0] + j - 1, cells[:, 1] + i - 1]
            found += weights[j] * weights[i] * place
    x = origin[1] + step * (cells[:, 1] + 0.5)
    y = origin[0] + step * (cells[:, 0] + 0.5)
    exact = source.to_pixels(*target.to_sky(x, y))
    error = np.hypot(found[0] - exact[0], found[1] - exact[1])
    known = np.isfinite(error)
    # a jump to where there is nothing is no error of the interpolation
    return float(error[known].max()) if known.any() else 0.0


def _areas(nodes: Floats, step: int) -> Floats:
    """Return the area of a target pixel in source pixels at each node, by central differences."""
    along_x, along_y = (_slopes(nodes, axis, step) for axis in (2, 1))
    return np.asarray(np.abs(along_x[0] * along_y[1] - along_x[1] * along_y[0]))


def _slopes(nodes: Floats, axis: int, step: int) -> Floats:
    """Return differences of fourth order; at the two outermost nodes, those next to them."""
    moved = np.moveaxis(nodes, axis, -1)
    slope = 8.0 * (moved[..., 3:-1] - moved[..., 1:-3]) - (moved[..., 4:] - moved[..., :-4])
    ends = [(0, 0)] * (slope.ndim - 1) + [(2, 2)]
    return np.moveaxis(np.pad(slope / (12.0 * step), ends, mode="edge"), -1, axis)


def _middle_matrix(nodes: Floats, shape: tuple[int, int], step: int) -> Floats:
    distance = np.hypot(nodes[0] - (shape[1] - 1) / 2, nodes[1] - (shape[0] - 1) / 2)
    j, i = np.unravel_index(int(np.nanargmin(distance)), distance.shape)
    return np.stack([_slopes(nodes, axis, step)[:, j, i] for axis in (2, 1)], axis=1)
