"""Kernels of linear least squares: normal equations in strict order, and their elimination.

Designs are (sample, column), float64, C-contiguous. Every sum runs over the samples in their
order, so the bits of a solution depend on nothing but its input.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]


@compiled
def add_normal(design: Floats, weight: Floats, data: Floats, matrix: Floats, right: Floats) -> None:
    """Add ``A^T W A`` (lower triangle) and ``A^T W z`` of some samples."""
    number, columns = design.shape
    for row in range(number):
        w = weight[row]
        if w == 0.0:
            continue
        line = design[row]
        for i in range(columns):
            a = w * line[i]
            right[i] += a * data[row]
            for j in range(i + 1):
                matrix[i, j] += a * line[j]


@compiled
def apply_design(design: Floats, solution: Floats, out: Floats) -> None:
    """Write ``A x``."""
    for row in range(design.shape[0]):
        total = 0.0
        for column in range(design.shape[1]):
            total += design[row, column] * solution[column]
        out[row] = total


@compiled
def quadratic_forms(design: Floats, matrix: Floats, out: Floats) -> None:
    """Write ``a^T C a`` for the row a of each sample."""
    number, columns = design.shape
    product = np.empty(columns)
    for row in range(number):
        line = design[row]
        product[:] = 0.0
        for i in range(columns):
            a = line[i]
            for j in range(columns):
                product[j] += a * matrix[i, j]
        total = 0.0
        for j in range(columns):
            total += product[j] * line[j]
        out[row] = total


@compiled
def eliminate(
    matrix: Floats, tolerance: float, kept: NDArray[np.bool_], pivots: Floats
) -> tuple[Floats, Floats]:
    """Return the Cholesky factor of a matrix with unit diagonal, and its inverse.

    A column whose pivot is not above the tolerance depends on those before it: it is left out,
    its rows and columns are 0 in the inverse. ``kept`` and ``pivots`` are written.
    """
    size = matrix.shape[0]
    lower = np.zeros((size, size))
    for i in range(size):
        for j in range(i):
            if kept[j]:
                total = matrix[i, j]
                for k in range(j):
                    total -= lower[i, k] * lower[j, k]
                lower[i, j] = total / lower[j, j]
        pivot = matrix[i, i]
        for k in range(i):
            pivot -= lower[i, k] * lower[i, k]
        pivots[i] = pivot
        kept[i] = pivot > tolerance
        if kept[i]:
            lower[i, i] = math.sqrt(pivot)
        else:
            lower[i, :] = 0.0
    half = np.zeros((size, size))
    for column in range(size):
        if not kept[column]:
            continue
        for i in range(column, size):
            if not kept[i]:
                continue
            total = 1.0 if i == column else 0.0
            for k in range(column, i):
                total -= lower[i, k] * half[k, column]
            half[i, column] = total / lower[i, i]
    inverse = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1):
            total = 0.0
            for k in range(i, size):
                total += half[k, i] * half[k, j]
            inverse[i, j] = total
            inverse[j, i] = total
    return lower, inverse
