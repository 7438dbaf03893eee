"""Small linear algebra in one fixed order: the bits of a BLAS depend on its number of threads."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["gram_of", "least_squares", "solve_positive", "weighted_sums"]

Floats = NDArray[np.float64]


@compiled
def add_weighted(weights: Floats, rows: Floats, out: Floats) -> None:
    """Write the sums of rows (row, value) with each set of weights (set, row)."""
    out[:] = 0.0
    for i in range(weights.shape[0]):
        total = out[i]
        for j in range(weights.shape[1]):
            weight, row = weights[i, j], rows[j]
            if weight != 0.0:
                for k in range(total.size):
                    total[k] += weight * row[k]


def weighted_sums(weights: Floats, images: Floats) -> Floats:
    """Return the sums of images (image, ...) with each set of weights (set, image).

    Examples
    --------
    >>> weighted_sums(np.array([[1.0, 2.0]]), np.array([[[3.0]], [[4.0]]]))
    array([[[11.]]])
    """
    rows = np.ascontiguousarray(images, np.float64).reshape(len(images), -1)
    out = np.empty((len(weights), rows.shape[1]))
    add_weighted(np.ascontiguousarray(weights, np.float64), rows, out)
    return out.reshape(len(weights), *images.shape[1:])


@compiled
def gram_of(rows: Floats) -> Floats:
    """Return rows^T rows of a tall matrix (row, column).

    Examples
    --------
    >>> gram_of(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[10., 14.],
           [14., 20.]])
    """
    columns = rows.shape[1]
    total = np.zeros((columns, columns))
    for row in rows:
        for i in range(columns):
            value, sums = row[i], total[i]
            for j in range(columns):
                sums[j] += value * row[j]
    return total


@compiled
def solve_positive(matrix: Floats, right: Floats) -> Floats:
    """Return the solution X of A X = B for a positive definite A; NaN if it is none.

    Examples
    --------
    >>> solve_positive(np.array([[4.0, 2.0], [2.0, 5.0]]), np.array([[8.0], [12.0]]))
    array([[1.],
           [2.]])
    """
    size = len(matrix)
    lower = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i == j:
                lower[i, i] = math.sqrt(total) if total > 0.0 else np.nan
            else:
                lower[i, j] = total / lower[j, j]
    out = right.copy()
    for i in range(size):
        for k in range(i):
            for column in range(out.shape[1]):
                out[i, column] -= lower[i, k] * out[k, column]
        for column in range(out.shape[1]):
            out[i, column] /= lower[i, i]
    for i in range(size - 1, -1, -1):
        for column in range(out.shape[1]):
            out[i, column] /= lower[i, i]
        for k in range(i):
            for column in range(out.shape[1]):
                out[k, column] -= lower[i, k] * out[i, column]
    return out


def least_squares(design: Floats) -> Floats:
    """Return what takes values (row) to the coefficients that fit them best, (term, row).

    Examples
    --------
    >>> least_squares(np.array([[1.0, 0.0], [1.0, 2.0]])).round(12) + 0.0
    array([[ 1. ,  0. ],
           [-0.5,  0.5]])
    """
    rows = np.ascontiguousarray(design)
    return solve_positive(gram_of(rows), np.ascontiguousarray(rows.T))
