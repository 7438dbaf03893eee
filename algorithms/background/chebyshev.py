"""Two-dimensional Chebyshev polynomials over a box of pixels: design matrix, fit, evaluation.

The box maps to [-1, 1] by its outer edges, half a pixel beyond the centres of its first and last
pixels. Terms ``T_i(x) T_j(y)`` with ``i <= order_x``, ``j <= order_y`` and ``i + j <= the larger``
are packed by order in y, then in x; the first is the constant.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import Box, bin_centers, bin_edges, box_of_background
from skyloom.algorithms.background.render_kernels import combine_rows
from skyloom.algorithms.errors import (
    ConfigurationError,
    GeometryError,
    NonFiniteVarianceWarning,
    NoUsableDataError,
    ReducedOrderWarning,
)

__all__ = [
    "ChebyshevFit",
    "chebyshev_design",
    "chebyshev_image",
    "chebyshev_terms",
    "fit_background",
    "fit_chebyshev",
]

Floats = NDArray[np.float64]
Order = int | tuple[int, int]


class ChebyshevFit(NamedTuple):
    """A fitted polynomial; coefficients are in the unit of the values.

    ``terms`` holds (order in x, order in y) of each coefficient; those of dropped terms are 0 with
    covariance 0. ``rank`` terms were determined, ``condition`` is that of their scaled design.
    ``chi2`` and ``dof`` speak for the values with weight.
    """

    terms: NDArray[np.int64]
    coefficients: Floats
    covariance: Floats
    box: Box
    rank: int
    condition: float
    chi2: float
    dof: int


def chebyshev_terms(order: Order) -> NDArray[np.int64]:
    """Return (order in x, order in y) of each term.

    Parameters
    ----------
    order : int or (int, int)
        Of both axes (triangular set), or along y and x (trapezoidal set); >= 0.

    Returns
    -------
    ndarray, (terms, 2), int

    Raises
    ------
    ValueError
        If an order is negative.

    Examples
    --------
    >>> chebyshev_terms(1).tolist(), len(chebyshev_terms(6))
    ([[0, 0], [1, 0], [0, 1]], 28)
    """
    order_y, order_x = _orders(order)
    largest = max(order_y, order_x)
    return np.array(
        [(i, j) for j in range(order_y + 1) for i in range(order_x + 1) if i + j <= largest]
    )


def chebyshev_design(x: ArrayLike, y: ArrayLike, box: Sequence[int], order: Order) -> Floats:
    """Return the terms of a Chebyshev polynomial at some positions.

    Parameters
    ----------
    x, y : array_like, same shape, pixel
        Parent pixels.
    box : sequence of 4 int
        Half-open ``[y_start, y_stop, x_start, x_stop]`` that maps to [-1, 1].
    order : int or (int, int)
        Of both axes, or along y and x.

    Returns
    -------
    ndarray, (..., terms), float64

    Raises
    ------
    ValueError
        If the box is empty, the shapes differ or an order is negative.

    Examples
    --------
    >>> chebyshev_design([-0.5, 9.5], [0.0, 0.0], (0, 1, 0, 10), 1).tolist()
    [[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]
    """
    terms = chebyshev_terms(order)
    limits = Box(*(int(value) for value in box))
    if min(limits.shape) < 1:
        raise GeometryError(f"box {tuple(limits)} is empty")
    at_x, at_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if at_x.shape != at_y.shape:
        raise GeometryError(f"x has shape {at_x.shape}, y has {at_y.shape}")
    in_x = chebyshev_values(at_x, limits.x_start, limits.x_stop, int(terms[:, 0].max()))
    in_y = chebyshev_values(at_y, limits.y_start, limits.y_stop, int(terms[:, 1].max()))
    return in_x[..., terms[:, 0]] * in_y[..., terms[:, 1]]


def chebyshev_values(positions: Floats, start: int, stop: int, order: int) -> Floats:
    """Return T_0 to T_order, along a new last axis, on pixels ``[start, stop)``.

    Examples
    --------
    >>> chebyshev_values(np.array([4.5, 9.5]), 0, 10, 2).tolist()
    [[1.0, 0.0, -1.0], [1.0, 1.0, 1.0]]
    """
    u = (2.0 * positions - (start + stop - 1)) / (stop - start)
    values = np.ones((*np.shape(positions), order + 1))
    if order > 0:
        values[..., 1] = u
    for k in range(2, order + 1):
        values[..., k] = 2.0 * u * values[..., k - 1] - values[..., k - 2]
    return values


def fit_chebyshev(
    x: ArrayLike,
    y: ArrayLike,
    values: ArrayLike,
    box: Sequence[int],
    order: Order,
    *,
    weight: ArrayLike | None = None,
) -> ChebyshevFit:
    """Fit a Chebyshev polynomial to values at positions by weighted least squares.

    Values that are not finite and weights that are not finite and positive are left out. Terms
    that the positions do not determine are dropped, the highest orders first.

    Parameters
    ----------
    x, y : array_like, pixel
        Parent pixels.
    values : array_like, any unit
    box : sequence of 4 int
        Half-open ``[y_start, y_stop, x_start, x_stop]`` that maps to [-1, 1].
    order : int or (int, int)
        Of both axes, or along y and x.
    weight : array_like, optional
        1 / variance of each value; equal by default, which makes the covariance that of values of
        unit variance.

    Returns
    -------
    ChebyshevFit

    Raises
    ------
    NoUsableDataError
        If nothing is left to fit.
    ValueError
        If shapes differ, the box is empty or an order is negative.

    Examples
    --------
    >>> y, x = np.mgrid[:4, :4]
    >>> fit = fit_chebyshev(x, y, 5.0 + 2.0 * (x - 1.5), (0, 4, 0, 4), 1)
    >>> bool(np.allclose(fit.coefficients, [5.0, 4.0, 0.0])), fit.rank
    (True, 3)
    """
    data = np.asarray(values, dtype=np.float64)
    w = np.ones(data.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if np.shape(x) != data.shape or w.shape != data.shape:
        raise GeometryError(
            f"x, y, values and weight must have one shape, got {np.shape(x)}, {np.shape(y)}, "
            f"{data.shape}, {w.shape}"
        )
    limits = Box(*(int(value) for value in box))
    terms = chebyshev_terms(order)
    design = chebyshev_design(x, y, limits, order).reshape(-1, len(terms))
    good = (np.isfinite(data) & np.isfinite(w) & (w > 0)).ravel()
    if not good.any():
        raise NoUsableDataError("no value is finite and has a positive, finite weight")
    root = np.sqrt(w.ravel()[good])
    matrix, right = design[good] * root[:, None], data.ravel()[good] * root
    chosen = _independent(matrix, terms)
    q, r = np.linalg.qr(matrix[:, chosen])
    coefficients, covariance = np.zeros(len(terms)), np.zeros((len(terms), len(terms)))
    coefficients[chosen] = solve_triangular(r, q.T @ right)
    inverse = solve_triangular(r, np.eye(len(chosen)))
    covariance[np.ix_(chosen, chosen)] = inverse @ inverse.T
    residual = right - matrix @ coefficients
    scale = np.linalg.norm(matrix[:, chosen], axis=0)
    return ChebyshevFit(
        terms=terms,
        coefficients=coefficients,
        covariance=covariance,
        box=limits,
        rank=len(chosen),
        condition=float(np.linalg.cond(matrix[:, chosen] / scale)),
        chi2=float(residual @ residual),
        dof=int(good.sum()) - len(chosen),
    )


def fit_background(
    background: xr.Dataset,
    order: Order = 6,
    *,
    weighted: bool = True,
    undersampling: Literal["reduce", "throw"] = "reduce",
) -> ChebyshevFit:
    """Fit a Chebyshev polynomial to the bins of one background.

    Parameters
    ----------
    background : Dataset, (bin_y, bin_x)
        ``level`` and, if weighted, ``variance`` of the level; attribute ``box``.
    order : int or (int, int)
        Of both axes, or along y and x; must be less than the number of bins along each axis.
    weighted : bool
        Weight by 1 / variance. Bins without a positive, finite variance are left out, with a
        warning.
    undersampling : "reduce" or "throw"
        If bins are too few, take the highest order they allow, with a warning, or raise.

    Returns
    -------
    ChebyshevFit

    Raises
    ------
    NoUsableDataError
        If no bin can be used.
    ValueError
        If bins are too few under ``throw``, or a name is unknown.

    Examples
    --------
    >>> level = xr.DataArray(np.full((3, 3), 2.0), dims=("bin_y", "bin_x"))
    >>> background = xr.Dataset({"level": level}, attrs={"box": [0, 9, 0, 9]})
    >>> float(fit_background(background, 1, weighted=False).coefficients[0].round(6))
    2.0
    """
    if undersampling not in ("reduce", "throw"):
        raise ConfigurationError(f"undersampling must be reduce or throw, got {undersampling!r}")
    box = box_of_background(background)
    level = background["level"].transpose(v.BIN_Y, v.BIN_X).values.astype(np.float64)
    wanted = _orders(order)
    possible = (
        (min(wanted[0], min(level.shape) - 1),) * 2
        if isinstance(order, int)
        else (min(wanted[0], level.shape[0] - 1), min(wanted[1], level.shape[1] - 1))
    )
    if possible != wanted:
        text = f"order {order} needs more than {level.shape} bins (y, x)"
        if undersampling == "throw":
            raise ConfigurationError(text)
        warnings.warn(f"{text}: {possible} is used", ReducedOrderWarning, stacklevel=2)
    weight = None
    if weighted:
        variance = background["variance"].transpose(v.BIN_Y, v.BIN_X).values.astype(np.float64)
        usable = np.isfinite(variance) & (variance > 0)
        bad = int((np.isfinite(level) & ~usable).sum())
        if bad:
            warnings.warn(
                f"{bad} bins without a positive, finite variance are left out of the fit",
                NonFiniteVarianceWarning,
                stacklevel=2,
            )
        weight = np.where(usable, 1.0 / np.where(usable, variance, 1.0), 0.0)
    height, width = box.shape
    y = bin_centers(bin_edges(height, level.shape[0]), box.y_start)
    x = bin_centers(bin_edges(width, level.shape[1]), box.x_start)
    grid_x, grid_y = np.meshgrid(x, y)
    return fit_chebyshev(grid_x, grid_y, level, box, possible, weight=weight)


def chebyshev_image(fit: ChebyshevFit, box: Sequence[int] | None = None) -> xr.DataArray:
    """Return a fitted polynomial as an image.

    Parameters
    ----------
    fit : ChebyshevFit
    box : sequence of 4 int, optional
        Half-open part ``[y_start, y_stop, x_start, x_stop]`` of the fitted box; all by default.

    Returns
    -------
    DataArray, (y, x), float32
        In the unit of the fitted values.

    Raises
    ------
    GeometryError
        If the box is empty or not inside the fitted one.

    Examples
    --------
    >>> y, x = np.mgrid[:4, :4]
    >>> fit = fit_chebyshev(x, y, np.full((4, 4), 3.0), (0, 4, 0, 4), 0)
    >>> chebyshev_image(fit, (0, 1, 0, 2)).values.round(6).tolist()
    [[3.0, 3.0]]
    """
    whole = fit.box
    part = whole if box is None else Box(*(int(value) for value in box))
    inside = whole.y_start <= part.y_start < part.y_stop <= whole.y_stop
    if not inside or not whole.x_start <= part.x_start < part.x_stop <= whole.x_stop:
        raise GeometryError(f"box {tuple(part)} must be a part of the fitted {tuple(whole)}")
    y, x = np.arange(part.y_start, part.y_stop), np.arange(part.x_start, part.x_stop)
    order_x, order_y = fit.terms.max(axis=0)
    matrix = np.zeros((order_y + 1, order_x + 1))
    matrix[fit.terms[:, 1], fit.terms[:, 0]] = fit.coefficients
    in_y = chebyshev_values(y.astype(np.float64), whole.y_start, whole.y_stop, int(order_y))
    in_x = chebyshev_values(x.astype(np.float64), whole.x_start, whole.x_stop, int(order_x))
    image = np.empty(part.shape, np.float32)
    combine_rows(np.einsum("yj,ji->yi", in_y, matrix), np.ascontiguousarray(in_x.T), image)
    return xr.DataArray(image, dims=(v.Y, v.X), coords={v.Y: y, v.X: x}, name="background")


def _orders(order: Order) -> tuple[int, int]:
    """Return the orders along y and x."""
    pair = (order, order) if isinstance(order, int) else (int(order[0]), int(order[1]))
    if min(pair) < 0:
        raise ConfigurationError(f"order must be >= 0, got {order}")
    return pair


def _independent(matrix: Floats, terms: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the columns to keep: from low order to high, those that add to the rank."""
    tolerance = max(matrix.shape) * np.finfo(np.float64).eps
    ranked = np.lexsort((terms[:, 1], terms.max(axis=1), terms.sum(axis=1)))
    basis = np.empty((matrix.shape[0], 0))
    kept = []
    for column in ranked:
        vector = matrix[:, column]
        norm = float(np.linalg.norm(vector))
        rest = vector
        for _ in range(2):  # twice is enough for an orthogonal rest
            rest = rest - basis @ (basis.T @ rest)
        size = float(np.linalg.norm(rest))
        if norm > 0 and size > 100.0 * tolerance * norm:
            basis = np.column_stack([basis, rest / size])
            kept.append(column)
    return np.sort(np.array(kept, dtype=np.intp))
