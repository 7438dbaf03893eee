"""Smooth functions over the focal plane, and steps between detectors: what is not the sky frame.

The smooth part is a sum of products of Chebyshev polynomials ``T_i(u) T_j(v)``, where u and v run
from -1 to 1 over a box of the focal plane. All products with ``i + j <= order`` are taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from skyloom.algorithms.errors import GeometryError

__all__ = ["FocalBox", "Regressors", "chebyshev_terms", "chebyshev_values", "scaled_to_box"]

Floats = NDArray[np.float64]


class FocalBox(NamedTuple):
    """A box of the focal plane, in the units of the positions (mm, or pixel without a camera)."""

    x_start: float
    x_stop: float
    y_start: float
    y_stop: float


def chebyshev_terms(order: int | None) -> list[tuple[int, int]]:
    """Return the degrees (in x, in y) of the terms, by degree in y and then in x.

    Examples
    --------
    >>> chebyshev_terms(1)
    [(0, 0), (1, 0), (0, 1)]
    >>> len(chebyshev_terms(6)), chebyshev_terms(None)
    (28, [])
    """
    if order is None:
        return []
    return [(i, j) for j in range(order + 1) for i in range(order + 1 - j)]


def scaled_to_box(x: Floats, y: Floats, box: FocalBox) -> tuple[Floats, Floats]:
    """Return positions scaled so that the box runs from -1 to 1.

    Raises
    ------
    GeometryError
        If the box is empty.

    Examples
    --------
    >>> scaled_to_box(np.array([0.0, 10.0]), np.array([5.0, 7.5]), FocalBox(0, 10, 5, 10))
    (array([-1.,  1.]), array([-1.,  0.]))
    """
    box = FocalBox(*box)
    width, height = box.x_stop - box.x_start, box.y_stop - box.y_start
    if not (width > 0 and height > 0):
        raise GeometryError(f"the box of the focal plane is empty: {box}")
    return (
        (2.0 * np.asarray(x) - box.x_start - box.x_stop) / width,
        (2.0 * np.asarray(y) - box.y_start - box.y_stop) / height,
    )


def chebyshev_values(u: Floats, v: Floats, terms: list[tuple[int, int]]) -> Floats:
    """Return the value of each term at each position.

    Parameters
    ----------
    u, v : array, (sample), float64
        Positions scaled to the box.
    terms : list of (int, int)
        Degrees in x and y.

    Returns
    -------
    array, (sample, term), float64

    Examples
    --------
    >>> chebyshev_values(np.array([0.5]), np.array([-1.0]), [(0, 0), (2, 1)])
    array([[1. , 0.5]])
    """
    degree = max((max(term) for term in terms), default=0)
    along_x = chebyshev.chebvander(np.asarray(u, dtype=np.float64), degree)
    along_y = chebyshev.chebvander(np.asarray(v, dtype=np.float64), degree)
    values = np.empty((len(along_x), len(terms)))
    for column, (i, j) in enumerate(terms):
        values[:, column] = along_x[:, i] * along_y[:, j]
    return values


class Regressors(NamedTuple):
    """The columns of a linear model at all samples, made in pieces so that no table is kept.

    Columns are the ``terms`` by rising degree, then one step less than there are groups (the steps
    of all groups sum to zero), then other templates, (sample, template), then the template.
    """

    u: Floats
    v: Floats
    terms: list[tuple[int, int]]
    group: NDArray[np.int64]
    groups: int
    template: Floats | None
    others: Floats | None = None

    @property
    def size(self) -> int:
        """Return the number of samples."""
        return len(self.u)

    @property
    def steps(self) -> slice:
        """Return the columns of the steps between groups."""
        return slice(len(self.terms), len(self.terms) + max(self.groups - 1, 0))

    @property
    def templates(self) -> slice:
        """Return the columns of all templates, the first of which is the last column."""
        others = 0 if self.others is None else self.others.shape[1]
        return slice(self.steps.stop, self.steps.stop + others + (self.template is not None))

    @property
    def columns(self) -> int:
        """Return the number of columns."""
        return int(self.templates.stop)

    def rows(self, start: int, stop: int) -> Floats:
        """Return the rows of some samples, (sample, column)."""
        part = slice(start, min(stop, self.size))
        table = np.zeros((part.stop - start, self.columns))
        if self.terms:
            table[:, : len(self.terms)] = chebyshev_values(self.u[part], self.v[part], self.terms)
        if self.groups > 1:
            group = self.group[part]
            ordinary = group < self.groups - 1
            table[np.flatnonzero(ordinary), len(self.terms) + group[ordinary]] = 1.0
            table[~ordinary, self.steps] = -1.0
        if self.others is not None:
            table[:, self.steps.stop : self.steps.stop + self.others.shape[1]] = self.others[part]
        if self.template is not None:
            table[:, -1] = self.template[part]
        return table

    def step_values(self, solution: Floats) -> Floats:
        """Return the step of every group, (group), whose sum is zero."""
        free = solution[self.steps]
        return np.append(free, -free.sum()) if self.groups > 1 else np.zeros(self.groups)
