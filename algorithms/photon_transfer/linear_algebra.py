"""Small dense linear algebra whose bits do not depend on threads.

A BLAS splits its sums over as many threads as it may use, and its last bits change with that
number. These kernels sum in one fixed order, and at a few hundred unknowns cost no more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled_fast

__all__ = ["cholesky", "gram", "inverse", "solve", "solve_lower"]

Floats = NDArray[np.float64]


@compiled_fast
def gram(rows: Floats) -> Floats:
    """Return the lower triangle of rows^T rows; the sum runs in a fixed order on one thread.

    Parameters
    ----------
    rows : array, (row, column), float64
        A tall matrix.

    Returns
    -------
    array, (column, column), float64
        Zero above the diagonal.

    Examples
    --------
    >>> gram(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[10.,  0.],
           [14., 20.]])
    """
    number, columns = rows.shape
    total = np.zeros((columns, columns))
    whole = number - number % 4
    for row in range(0, whole, 4):
        for i in range(columns):
            a, b, c, d = rows[row, i], rows[row + 1, i], rows[row + 2, i], rows[row + 3, i]
            for j in range(i + 1):
                total[i, j] += (
                    a * rows[row, j]
                    + b * rows[row + 1, j]
                    + c * rows[row + 2, j]
                    + d * rows[row + 3, j]
                )
    for row in range(whole, number):
        for i in range(columns):
            for j in range(i + 1):
                total[i, j] += rows[row, i] * rows[row, j]
    return total


@compiled_fast
def cholesky(matrix: Floats) -> Floats:
    """Return the Cholesky factor of a matrix given by its lower triangle.

    NaN wherever the matrix is not positive definite, so that a solver can see it.

    Parameters
    ----------
    matrix : array, (n, n), float64
        Symmetric matrix; only the lower triangle is read.

    Returns
    -------
    array, (n, n), float64
        Lower triangular factor.

    Examples
    --------
    >>> cholesky(np.array([[4.0, 0.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    size = len(matrix)
    lower = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i != j:
                lower[i, j] = total / lower[j, j]
            else:
                lower[i, i] = np.sqrt(total) if total > 0 else np.nan
    return lower


@compiled_fast
def solve_lower(lower: Floats, right: Floats) -> Floats:
    """Solve L X = B for lower triangular L and many right-hand sides.

    Parameters
    ----------
    lower : array, (n, n), float64
        Lower triangular matrix.
    right : array, (n, m), float64
        Right-hand sides.

    Returns
    -------
    array, (n, m), float64

    Examples
    --------
    >>> solve_lower(np.array([[2.0, 0.0], [1.0, 2.0]]), np.array([[2.0], [5.0]]))
    array([[1.],
           [2.]])
    """
    out = right.copy()
    for i in range(len(lower)):
        for k in range(i):
            factor = lower[i, k]
            for column in range(out.shape[1]):
                out[i, column] -= factor * out[k, column]
        for column in range(out.shape[1]):
            out[i, column] /= lower[i, i]
    return out


@compiled_fast
def solve(lower: Floats, right: Floats) -> Floats:
    """Solve L L^T x = b.

    Parameters
    ----------
    lower : array, (n, n), float64
        Cholesky factor.
    right : array, (n), float64
        Right-hand side.

    Returns
    -------
    array, (n), float64

    Examples
    --------
    >>> solve(np.array([[2.0, 0.0], [1.0, 2.0]]), np.array([8.0, 9.0])).round(12)
    array([1.375, 1.25 ])
    """
    out = right.copy()
    for i in range(len(lower)):
        for k in range(i):
            out[i] -= lower[i, k] * out[k]
        out[i] /= lower[i, i]
    for i in range(len(lower) - 1, -1, -1):
        out[i] /= lower[i, i]
        for k in range(i):
            out[k] -= lower[i, k] * out[i]
    return out


def inverse(lower: Floats) -> Floats:
    """Return the inverse of L L^T.

    Parameters
    ----------
    lower : array, (n, n), float64
        Cholesky factor.

    Returns
    -------
    array, (n, n), float64

    Examples
    --------
    >>> inverse(np.array([[2.0, 0.0], [1.0, 2.0]])) * 16
    array([[ 5., -2.],
           [-2.,  4.]])
    """
    half = gram(solve_lower(lower, np.eye(len(lower))))
    return np.asarray(half + np.tril(half, -1).T)
