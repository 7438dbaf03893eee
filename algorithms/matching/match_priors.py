"""What is known of fields beforehand, and the simpler fields that each basis contains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.chebyshev import chebyshev_terms
from skyloom.algorithms.matching.fields import FieldBasis, PolynomialBasis, SplineBasis

__all__ = ["nested_maps", "roughness", "slope_terms"]

Floats = NDArray[np.float64]


def nested_maps(basis: FieldBasis) -> list[Floats]:
    """Return the fields that a basis contains, the richest first: (term, parameter) each.

    Polynomials contain those of lower order, splines planes and levels.

    Examples
    --------
    >>> [part.shape[1] for part in nested_maps(PolynomialBasis((4, 4), 2))]
    [6, 3, 1]
    >>> [part.shape[1] for part in nested_maps(SplineBasis((4, 4), (4, 4)))]
    [16, 3, 1]
    """
    terms = np.asarray(basis.terms)
    whole = np.eye(len(terms))
    if isinstance(basis, PolynomialBasis):
        total = terms.sum(axis=1)
        return [whole[:, total <= order] for order in range(basis.order, -1, -1)]
    if isinstance(basis, SplineBasis):
        # the coefficients of a plane are its values where each spline has its middle
        plane = np.column_stack([np.ones(len(terms)), terms - terms.mean(axis=0)])
        return [whole, plane, plane[:, :1]]
    return [whole]


def roughness(basis: SplineBasis) -> Floats:
    """Return the matrix of the squared second differences along y and x, (term, term).

    Examples
    --------
    >>> basis = SplineBasis((4, 4), (4, 4))
    >>> plane = basis.terms @ [2.0, 3.0]
    >>> float(plane @ roughness(basis) @ plane)
    0.0
    """
    parts = []
    for count in basis.knots:
        second = np.diff(np.eye(count), 2, axis=0)
        parts.append(second.T @ second)
    rows, columns = (np.eye(count) for count in basis.knots)
    return np.kron(parts[0], columns) + np.kron(rows, parts[1])


def slope_terms(basis: PolynomialBasis) -> Floats:
    """Return the matrix that selects all terms but the level, (term, term)."""
    selected = np.ones(len(chebyshev_terms(basis.order)))
    selected[0] = 0.0
    return np.diag(selected)
