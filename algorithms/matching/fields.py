"""Smooth fields on the pixels of a tract: polynomials and splines, and how they become images.

A field is a sum of products of a function of y and one of x over the whole tract, so that a pixel
has the same value, to the last bit, whichever patch it is rendered in. Beyond the tract, where
outer boxes of patches may reach, fields continue as the curve at its edge does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.chebyshev import chebyshev_terms
from skyloom.algorithms.background.interpolation import (
    BEYOND,
    STYLES,
    Beyond,
    Style,
    checked,
    style_for,
)
from skyloom.algorithms.background.render_kernels import combine_rows, render
from skyloom.algorithms.boxes import Box
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.matching.tract_grid import TractGrid

__all__ = [
    "FieldBasis",
    "PolynomialBasis",
    "SplineBasis",
    "basis_at_bins",
    "field_image",
    "field_values",
    "tract_image",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class FieldBasis(Protocol):
    """Functions on the pixels of a tract, each a product of one of y and one of x."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width) of the tract, pixel."""
        ...

    @property
    def terms(self) -> Integers:
        """Return which functions of (y, x) make up each term, (term, 2)."""
        ...

    def along(self, axis: int, positions: ArrayLike) -> Floats:
        """Return the functions of y (axis 0) or x (axis 1) at pixels, (position, function)."""
        ...


@dataclass(frozen=True)
class PolynomialBasis:
    """Chebyshev polynomials ``T_i(x) T_j(y)`` with ``i + j <= order`` on a tract of ``shape``.

    Order 0 is a level, order 1 a plane. The tract maps to [-1, 1] by the outer edges of its
    pixels; terms are ordered by their order in y, then in x.
    """

    shape: tuple[int, int]
    order: int

    def __post_init__(self) -> None:
        """Check the order."""
        if self.order < 0:
            raise ConfigurationError(f"order must be >= 0, got {self.order}")

    @property
    def terms(self) -> Integers:
        """Return the orders in (y, x) of each term, (term, 2)."""
        return np.ascontiguousarray(chebyshev_terms(self.order)[:, ::-1], dtype=np.int64)

    def along(self, axis: int, positions: ArrayLike) -> Floats:
        """Return the polynomials of y (axis 0) or x (axis 1) at pixels, (position, order)."""
        at = (2.0 * np.asarray(positions, np.float64) + 1.0) / self.shape[axis] - 1.0
        values = np.ones((at.size, self.order + 1))
        for order in range(1, self.order + 1):
            values[:, order] = at if order == 1 else 2 * at * values[:, order - 1]
            if order > 1:
                values[:, order] -= values[:, order - 2]
        return values


@dataclass(frozen=True)
class SplineBasis:
    """Cubic B-splines on an even grid of ``knots`` (y, x) functions over a tract of ``shape``.

    Their sum is 1 everywhere. Along each axis at least 4; terms are ordered by rows.
    """

    shape: tuple[int, int]
    knots: tuple[int, int] = (8, 8)

    def __post_init__(self) -> None:
        """Check the number of functions."""
        if min(self.knots) < 4:
            raise ConfigurationError(f"knots must be >= 4 along each axis, got {self.knots}")

    @property
    def terms(self) -> Integers:
        """Return the indices (y, x) of the splines of each term, (term, 2)."""
        return np.ascontiguousarray(np.indices(self.knots).reshape(2, -1).T, dtype=np.int64)

    def along(self, axis: int, positions: ArrayLike) -> Floats:
        """Return the splines of y (axis 0) or x (axis 1) at pixels, (position, spline)."""
        count = self.knots[axis]
        at = (np.asarray(positions, np.float64) + 0.5) * ((count - 3) / self.shape[axis])
        first = np.clip(np.floor(at), 0, count - 4).astype(np.int64)
        u = at - first
        pieces = (
            (1 - u) ** 3 / 6,
            (3 * u**3 - 6 * u**2 + 4) / 6,
            (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
            u**3 / 6,
        )
        values = np.zeros((at.size, count))
        for offset, piece in enumerate(pieces):
            values[np.arange(at.size), first + offset] = piece
        return values


def basis_at_bins(basis: FieldBasis, grid: TractGrid) -> Floats:
    """Return the mean of each term over the pixels of each bin.

    Parameters
    ----------
    basis : PolynomialBasis, SplineBasis or the like
    grid : TractGrid

    Returns
    -------
    ndarray, (tract_y, tract_x, term), float64

    Raises
    ------
    GeometryError
        If basis and grid are of different tracts.

    Examples
    --------
    >>> grid = TractGrid((2, 4), (2, 2), (2, 2))
    >>> basis_at_bins(PolynomialBasis((2, 4), 1), grid).tolist()
    [[[1.0, -0.5, 0.0], [1.0, 0.5, 0.0]]]
    """
    if basis.shape != grid.shape:
        raise GeometryError(f"the basis covers {basis.shape} pixels, the grid {grid.shape}")
    means = []
    for axis, edges in enumerate(grid.edges):
        values = basis.along(axis, np.arange(grid.shape[axis]))
        sums = np.add.reduceat(values, edges[:-1], axis=0)
        means.append(sums / np.diff(edges)[:, None])
    terms = basis.terms
    product: Floats = means[0][:, None, terms[:, 0]] * means[1][None, :, terms[:, 1]]
    return product


def field_values(basis: FieldBasis, coefficients: ArrayLike, y: ArrayLike, x: ArrayLike) -> Floats:
    """Return a field at the crossings of rows and columns, which need not be pixels.

    Parameters
    ----------
    basis : PolynomialBasis, SplineBasis or the like
    coefficients : array_like, (term,), any unit
    y, x : array_like, (n,), (m,), float
        Positions in pixels of the tract.

    Returns
    -------
    ndarray, (n, m), float64

    Raises
    ------
    ValueError
        If there are not as many coefficients as terms.

    Examples
    --------
    >>> field_values(PolynomialBasis((2, 4), 1), [5.0, 1.0, 0.0], [0.0], [-0.5, 3.5]).tolist()
    [[4.0, 6.0]]
    """
    rows, columns = _factors(basis, coefficients, np.atleast_1d(y), np.atleast_1d(x))
    total = np.zeros((rows.shape[0], columns.shape[1]))
    for function in range(rows.shape[1]):
        total += rows[:, function, None] * columns[function]
    return total


def field_image(
    basis: FieldBasis,
    coefficients: ArrayLike,
    box: Sequence[int],
    *,
    units: str = v.DIMENSIONLESS,
) -> xr.DataArray:
    """Return a field on a box of pixels of the tract, as the offset image of a warp.

    Parameters
    ----------
    basis : PolynomialBasis, SplineBasis or the like
    coefficients : array_like, (term,), any unit
    box : (y_start, y_stop, x_start, x_stop), pixel
        Half-open, in pixels of the tract; may reach beyond it.
    units : str
        Unit of the coefficients.

    Returns
    -------
    DataArray, (y, x), float32
        Without coordinates, as warps are; attribute ``box``. A pixel has the same bits in every
        box that holds it.

    Raises
    ------
    ValueError
        If there are not as many coefficients as terms, or the box is empty.

    Examples
    --------
    >>> field_image(PolynomialBasis((2, 4), 0), [5.0], (0, 1, 2, 4)).values.tolist()
    [[5.0, 5.0]]
    """
    place = _checked_box(box)
    rows, columns = _factors(
        basis,
        coefficients,
        np.arange(place.y_start, place.y_stop),
        np.arange(place.x_start, place.x_stop),
    )
    out = np.empty(place.shape, np.float32)
    combine_rows(rows, columns, out)
    return _image(out, place, units)


def tract_image(
    level: xr.DataArray | ArrayLike,
    grid: TractGrid,
    box: Sequence[int],
    *,
    interpolation: Style = "natural_spline",
    extrapolate: Beyond = "limit",
    max_extrapolation: float = 2.0,
) -> xr.DataArray:
    """Return levels of bins interpolated on a box of pixels of the tract.

    Bins are interpolated over the whole tract, at their exact centres, and the box is cut out of
    that, so that patches have no seams.

    Parameters
    ----------
    level : DataArray or array_like, (tract_y, tract_x), any unit
        Of all bins of the tract. NaN bins are bridged by their column; fill them first, see
        `fill_tract_background`.
    grid : TractGrid
    box : (y_start, y_stop, x_start, x_stop), pixel
        Half-open, in pixels of the tract; may reach beyond it.
    interpolation : str
        ``natural_spline``, ``akima``, ``linear`` or ``constant``; with too few bins along an axis
        the highest of them that they allow.
    extrapolate : str
        Beyond the outermost bin centres, see `skyloom.algorithms.background.interpolate`.
    max_extrapolation : float
        How far ``limit`` and ``nan`` continue the curve, in bins; beyond, ``limit`` holds the
        value reached.

    Returns
    -------
    DataArray, (y, x), float32
        Without coordinates, as warps are; attribute ``box``. A pixel has the same bits in every
        box that holds it.

    Raises
    ------
    ValueError
        If the level does not have the bins of the grid, the box is empty or a name is unknown.

    Examples
    --------
    >>> grid = TractGrid((2, 4), (2, 2), (2, 2))
    >>> tract_image([[1.0, 3.0]], grid, (0, 1, -1, 4), interpolation="linear").values.tolist()
    [[-0.5, 0.5, 1.5, 2.5, 3.5]]
    """
    checked("interpolation", interpolation, STYLES)
    checked("extrapolate", extrapolate, BEYOND)
    if not max_extrapolation >= 0:
        raise ConfigurationError(f"max_extrapolation must be >= 0 bins, got {max_extrapolation}")
    units = v.DIMENSIONLESS
    if isinstance(level, xr.DataArray):
        units = str(level.attrs.get("units", units))
        level = level.transpose(v.TRACT_Y, v.TRACT_X).values
    values = np.array(level, dtype=np.float64, order="C")
    if values.shape != grid.bins:
        raise GeometryError(f"level has {values.shape} bins (y, x), the grid {grid.bins}")
    place = _checked_box(box)
    out = np.full(place.shape, np.nan, np.float32)
    if np.isfinite(values).any():
        knots_y, knots_x = grid.centers
        render(
            knots_y,
            knots_x,
            values,
            (place.y_start, place.x_start),
            (
                STYLES[style_for(interpolation, grid.bins[0])],
                STYLES[style_for(interpolation, grid.bins[1])],
            ),
            False,
            BEYOND[extrapolate],
            (
                max_extrapolation * grid.bin_size[0],
                max_extrapolation * grid.bin_size[1],
            ),
            out,
        )
    return _image(out, place, units)


def _factors(
    basis: FieldBasis, coefficients: ArrayLike, y: ArrayLike, x: ArrayLike
) -> tuple[Floats, Floats]:
    """Return matrices (y, function) and (function, x) whose product is the field."""
    terms = basis.terms
    given = np.asarray(coefficients, np.float64)
    if given.shape != (len(terms),):
        raise ConfigurationError(
            f"the basis has {len(terms)} terms, coefficients have shape {given.shape}"
        )
    rows, functions = basis.along(0, y), basis.along(1, x)
    columns = np.zeros((rows.shape[1], functions.shape[0]))
    # one after the other: a matrix product may sum in another order for another size
    for (iy, ix), coefficient in zip(terms, given, strict=True):
        columns[iy] += coefficient * functions[:, ix]
    return np.ascontiguousarray(rows), columns


def _checked_box(box: Sequence[int]) -> Box:
    if len(box) != 4:
        raise GeometryError(f"box must be [y_start, y_stop, x_start, x_stop], got {list(box)}")
    place = Box(*(int(value) for value in box))
    if min(place.shape) < 1:
        raise GeometryError(f"box {tuple(place)} is empty")
    return place


def _image(out: NDArray[np.float32], box: Box, units: str) -> xr.DataArray:
    return xr.DataArray(
        out, dims=(v.Y, v.X), name="background", attrs={"units": units, "box": list(box)}
    )
