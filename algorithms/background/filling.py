"""Bad cells of a grid: filled from the good ones, or smoothed over.

A grid is (y, x); ``bad`` is true where a cell is not to be believed, and a cell that is not finite
is always bad. Good cells never change when others are filled.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve
from scipy.spatial import ConvexHull, Delaunay, QhullError

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.interpolation import Style, interpolate
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError

__all__ = ["fill_bad", "harmonic_fill", "smooth_ignoring_bad"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
TRUNCATE = 4.0  # sigmas that a smoothing kernel reaches
CELLS_AT_ONCE = 256  # whose distances to all others are in memory together


def fill_bad(
    grid: ArrayLike,
    bad: ArrayLike | None = None,
    *,
    method: Literal["harmonic", "spline"] = "harmonic",
    outside: Literal["nearest", "plane", "nan"] = "nearest",
    interpolation: Style = "natural_spline",
    weight: ArrayLike | None = None,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Return a grid with its bad cells filled, and what was filled.

    Cells inside the convex hull of the good ones are interpolated, those outside are extrapolated.

    Parameters
    ----------
    grid : array_like, (y, x), any unit
    bad : array_like, (y, x), bool, optional
        Cells to replace; cells that are not finite are replaced always.
    method : "harmonic" or "spline"
        Inside: the surface with the least sum of squared differences between neighbours, or
        splines along rows and then along columns, never beyond their ends. What splines leave is
        filled as by ``harmonic``.
    outside : "nearest", "plane" or "nan"
        Outside: the value of the nearest good cell (the mean of several equally near), the plane
        that fits the good cells best, or NaN.
    interpolation : str
        Style of ``spline``; see `interpolate`.
    weight : array_like, (y, x), optional
        Weights of the cells in the fit of the plane; equal by default.

    Returns
    -------
    filled : ndarray, (y, x), float64
    flags : ndarray, (y, x), uint8
        `BinFlag`: FILLED inside, EXTRAPOLATED outside, 0 where the cell is as it was.

    Raises
    ------
    NoUsableDataError
        If no cell is good.
    ValueError
        If shapes differ or a name is unknown.

    Examples
    --------
    >>> fill_bad([[1.0, np.nan, 3.0]])[0]
    array([[1., 2., 3.]])
    """
    values, good = _good_cells(grid, bad)
    if method not in ("harmonic", "spline"):
        raise ConfigurationError(f"method must be 'harmonic' or 'spline', got {method!r}")
    if outside not in ("nearest", "plane", "nan"):
        raise ConfigurationError(f"outside must be nearest, plane or nan, got {outside!r}")
    if not good.any():
        raise NoUsableDataError(f"all {good.size} cells are bad: there is nothing to fill from")
    flags = np.zeros(values.shape, np.uint8)
    hull = inside_hull(good)
    flags[~good & hull] = v.BinFlag.FILLED
    flags[~good & ~hull] = v.BinFlag.EXTRAPOLATED
    filled = values.copy()
    if method == "spline":
        for axis in (1, 0):
            filled = _spline_fill(filled, axis, interpolation)
    filled[~hull] = np.nan
    filled[good] = values[good]
    if outside == "plane":
        filled[~hull] = _plane(values, good, weight)[~hull]
    elif outside == "nearest":
        filled[~hull] = _nearest(values, good)[~hull]
    inner = harmonic_fill(filled)
    return np.where(hull, inner, filled), flags


def harmonic_fill(grid: ArrayLike) -> Floats:
    """Return a grid whose NaN cells give the least sum of squared differences of neighbours.

    Every filled cell is the mean of its (up to four) neighbours. A constant stays constant, a
    plane is kept wherever the holes do not touch the border.

    Parameters
    ----------
    grid : array_like, (y, x), any unit

    Returns
    -------
    ndarray, (y, x), float64
        All NaN if no cell is finite.

    Examples
    --------
    >>> harmonic_fill([[1.0, np.nan, 3.0]])
    array([[1., 2., 3.]])
    """
    values = np.array(grid, dtype=np.float64)
    good = np.isfinite(values)
    if good.all() or not good.any():
        return np.where(good, values, np.nan)
    height, width = values.shape
    number = np.full(values.shape, -1)
    number[~good] = np.arange(int((~good).sum()))
    index = np.arange(height * width).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()]),
            np.stack([index[:-1].ravel(), index[1:].ravel()]),
        ],
        axis=1,
    )
    pairs = np.concatenate([pairs, pairs[::-1]], axis=1)
    here, there = number.ravel()[pairs[0]], pairs[1]
    here, there = here[here >= 0], there[here >= 0]
    unknown = number.ravel()[there]
    size = int((~good).sum())
    # solving for the difference to a good value keeps a constant exact
    center = float(values[good][0])
    known = unknown < 0
    right = np.bincount(here[known], values.ravel()[there[known]] - center, minlength=size)
    degree = np.bincount(here, minlength=size).astype(np.float64)
    rows = np.concatenate([np.arange(size), here[~known]])
    columns = np.concatenate([np.arange(size), unknown[~known]])
    entries = np.concatenate([degree, np.full(int((~known).sum()), -1.0)])
    matrix = coo_array((entries, (rows, columns)), shape=(size, size)).tocsc()
    values[~good] = center + np.atleast_1d(spsolve(matrix, right))
    return values


def smooth_ignoring_bad(
    grid: ArrayLike,
    bad: ArrayLike | None = None,
    *,
    sigma: float,
    weight: ArrayLike | None = None,
) -> Floats:
    """Return a grid smoothed by a Gaussian over its good cells: ``G*(w grid) / G*w``.

    Parameters
    ----------
    grid : array_like, (y, x), any unit
    bad : array_like, (y, x), bool, optional
        Cells that do not count, as those that are not finite never do.
    sigma : float
        Of the Gaussian, in cells; > 0. The kernel ends at 4 sigma; beyond the grid there is
        nothing.
    weight : array_like, (y, x), >= 0, optional
        Weight ``w`` of each cell, such as its count or 1 / variance; equal by default.

    Returns
    -------
    ndarray, (y, x), float64
        NaN only where no good cell is in reach. A constant stays that constant.

    Raises
    ------
    ValueError
        If sigma is not positive or shapes differ.

    Examples
    --------
    >>> smooth_ignoring_bad([[7.0, np.nan, 7.0]], sigma=1.0)
    array([[7., 7., 7.]])
    """
    values, good = _good_cells(grid, bad)
    if not sigma > 0:
        raise ConfigurationError(f"sigma must be > 0 cells, got {sigma}")
    w = np.where(good, 1.0 if weight is None else _like(weight, values, "weight"), 0.0)
    if not np.all(w >= 0) or not np.all(np.isfinite(w)):
        raise ConfigurationError("weight must be finite and >= 0 in all good cells")
    if not np.any(w > 0):
        return np.full(values.shape, np.nan)
    # differences to one value keep a constant exact; scaled weights cannot underflow together
    center = float(values[w > 0][0])
    w = w / w.max()
    numerator, denominator = np.where(good, w * (values - center), 0.0), w
    for axis in (0, 1):
        numerator = _smooth(numerator, sigma, axis)
        denominator = _smooth(denominator, sigma, axis)
    reached = denominator > 0
    return np.where(reached, center + numerator / np.where(reached, denominator, 1.0), np.nan)


def _smooth(values: Floats, sigma: float, axis: int) -> Floats:
    smoothed: Floats = gaussian_filter1d(
        values, sigma, axis=axis, mode="constant", cval=0.0, truncate=TRUNCATE
    )
    return smoothed


def _good_cells(grid: ArrayLike, bad: ArrayLike | None) -> tuple[Floats, Bools]:
    """Return the values with NaN in bad cells, and which cells are good."""
    values = np.array(grid, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise GeometryError(f"grid must be (y, x) and not empty, got shape {values.shape}")
    good = np.isfinite(values)
    if bad is not None:
        good &= ~_like(bad, values, "bad").astype(bool)
    values[~good] = np.nan
    return values, good


def _like(array: ArrayLike, values: Floats, name: str) -> NDArray[Any]:
    """Return an array of the shape of the grid, or raise."""
    found = np.asarray(array)
    if found.shape != values.shape:
        raise GeometryError(f"{name} has shape {found.shape}, the grid has {values.shape}")
    return found


def inside_hull(good: Bools) -> Bools:
    """Return which cells lie in the convex hull of the good ones, its border included.

    Examples
    --------
    >>> inside_hull(np.array([[True, False, True, False]])).tolist()
    [[True, True, True, False]]
    """
    points = np.argwhere(good).astype(np.float64)
    if len(points) == 0:
        return good.copy()
    directions = points - points[0]
    if np.linalg.matrix_rank(directions) < 2:
        return _on_segment(points, good)
    try:
        corners = points[ConvexHull(points).vertices]
        found = Delaunay(corners).find_simplex(np.argwhere(np.ones_like(good)), tol=1e-9) >= 0
    except QhullError:
        return good.copy()
    inside: Bools = found.reshape(good.shape) | good
    return inside


def _on_segment(points: Floats, good: Bools) -> Bools:
    """Return the cells on the line between good cells that all lie on one line."""
    cells = np.argwhere(np.ones_like(good)).astype(np.float64)
    along = points[-1] - points[0]
    length = float(along @ along)
    if length == 0.0:
        return good.copy()
    offset = cells - points[0]
    across = offset[:, 0] * along[1] - offset[:, 1] * along[0]
    fraction = offset @ along / length
    inside: Bools = (across == 0.0) & (fraction >= 0.0) & (fraction <= 1.0)
    return inside.reshape(good.shape)


def _spline_fill(values: Floats, axis: int, style: Style) -> Floats:
    """Bridge the gaps in each row (axis 1) or column (axis 0), none beyond the end cells."""
    filled = values.copy()
    lines = filled if axis == 1 else filled.T
    places = np.arange(lines.shape[1], dtype=np.float64)
    for line in lines:
        good = np.flatnonzero(np.isfinite(line))
        if good.size:
            gaps = np.flatnonzero(~np.isfinite(line))
            gaps = gaps[(gaps > good[0]) & (gaps < good[-1])]
            line[gaps] = interpolate(places, line, places[gaps], style)
    return filled


def _nearest(values: Floats, good: Bools) -> Floats:
    """Return the value of the nearest good cell, the mean if several are equally near."""
    nearest = values.copy()
    # whatever good cell is nearest has a neighbour that is not good
    shore = np.argwhere(good & ~binary_erosion(good, border_value=True))
    levels = values[shore[:, 0], shore[:, 1]]
    cells = np.argwhere(~good)
    for start in range(0, len(cells), CELLS_AT_ONCE):
        part = cells[start : start + CELLS_AT_ONCE]
        distance = ((part[:, None, :] - shore[None, :, :]) ** 2).sum(axis=2)
        chosen = distance == distance.min(axis=1, keepdims=True)
        nearest[part[:, 0], part[:, 1]] = np.where(chosen, levels, 0.0).sum(axis=1) / chosen.sum(
            axis=1
        )
    return nearest


def _plane(values: Floats, good: Bools, weight: ArrayLike | None) -> Floats:
    """Return the plane through the good cells, or what of it they determine."""
    w = np.ones(values.shape) if weight is None else _like(weight, values, "weight")
    cells: Floats = np.indices(values.shape, dtype=np.float64)
    y, x = cells[0], cells[1]
    root = np.sqrt(np.where(good, w, 0.0)[good])
    terms = np.stack([np.ones(values.shape), y - y[good].mean(), x - x[good].mean()], axis=-1)
    solution = np.linalg.lstsq(terms[good] * root[:, None], values[good] * root, rcond=None)[0]
    plane: Floats = terms @ solution
    return plane
