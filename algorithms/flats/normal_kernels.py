"""Kernels of the separation of two factors: normal equations, their inverse, and what follows.

The model of a cell is ``L_de = g_d + f_d . t_e``: one number g for each row d, a vector t for each
column e, and regressors f of the row, the first of them 1. The rows are eliminated, which leaves
a system in ``s = (t_00, t_01, ..., t_10, ...)``. ``u_d`` is row d of its design, ``w_de f_dj``.
Weights of 0 take a cell out. Sums run in one order, so bits depend on the input alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this package

Floats = NDArray[np.float64]


@compiled
def add_scaled(row: Floats, factor: float, other: Floats) -> None:
    """Add a multiple of one vector to another."""
    for i in range(row.size):
        row[i] += factor * other[i]


@compiled
def row_sums(weight: Floats, data: Floats, total: Floats, mean: Floats) -> None:
    """Write the sum of weights and the weighted mean of each row."""
    for d in range(weight.shape[0]):
        w, first = 0.0, 0.0
        for e in range(weight.shape[1]):
            w += weight[d, e]
            first += weight[d, e] * data[d, e]
        total[d] = w
        mean[d] = first / w


@compiled
def design_row(weight: Floats, terms: Floats, u: Floats) -> None:
    """Write ``u_d``, from the weights and regressors of a row."""
    count = terms.size
    if count == 1:
        u[:] = weight
        return
    for e in range(weight.size):
        for j in range(count):
            u[e * count + j] = weight[e] * terms[j]


@compiled
def subtract_rows(matrix: Floats, a: Floats, b: Floats, c: Floats, d: Floats) -> None:
    """Subtract the upper triangle of ``a a^T + b b^T + c c^T + d d^T``."""
    for i in range(a.size):
        p, q, r, s = a[i], b[i], c[i], d[i]
        if p == 0.0 and q == 0.0 and r == 0.0 and s == 0.0:
            continue
        row, e, f, g, h = matrix[i, i:], a[i:], b[i:], c[i:], d[i:]
        for j in range(row.size):
            row[j] -= p * e[j] + q * f[j] + r * g[j] + s * h[j]


@compiled
def normal_equations(
    weight: Floats,
    data: Floats,
    terms: Floats,
    prior: float,
    total: Floats,
    mean: Floats,
    matrix: Floats,
    right: Floats,
) -> None:
    """Add the system in s: the upper triangle of its matrix, and its right side.

    ``prior`` is the inverse variance that keeps every t but the first of a column near 0. The
    freedom of a constant is taken by ``v v^T / R``, v the weights of the first t of each column
    and R their sum: it sets ``v . s`` to 0. That of another t common to all n columns is taken by
    ``R / n^2`` for each pair of columns, which sets its sum to 0.
    """
    rows, columns = weight.shape
    count = terms.shape[1]
    fixed = np.zeros(columns * count)
    block = np.zeros((4, columns * count))
    for d in range(rows):
        u = block[d % 4]
        design_row(weight[d], terms[d], u)
        middle = mean[d]
        if count == 1:
            for e in range(columns):
                fixed[e] += u[e]
                right[e] += u[e] * (data[d, e] - middle)
        else:
            for e in range(columns):
                w = weight[d, e]
                fixed[e * count] += w
                for i in range(count):
                    a = w * terms[d, i]
                    right[e * count + i] += a * (data[d, e] - middle)
                    for j in range(i, count):
                        matrix[e * count + i, e * count + j] += a * terms[d, j]
        root = math.sqrt(total[d])
        for i in range(u.size):
            u[i] /= root
        if d % 4 == 3 or d == rows - 1:
            subtract_rows(matrix, block[0], block[1], block[2], block[3])
            block[:] = 0.0
    whole = fixed.sum()
    for i in range(fixed.size):
        add_scaled(matrix[i, i:], fixed[i] / whole, fixed[i:])
        if count == 1:
            matrix[i, i] += fixed[i]
        elif i % count:
            matrix[i, i] += prior
            for k in range(i, fixed.size, count):
                matrix[i, k] += whole / columns**2


@compiled
def factor(matrix: Floats) -> bool:
    """Turn an upper triangle into U of ``U^T U``; whether it was positive definite."""
    for k in range(matrix.shape[0]):
        pivot = matrix[k, k]
        if not pivot > 0.0:
            return False
        root = math.sqrt(pivot)
        row = matrix[k, k:]
        for i in range(row.size):
            row[i] /= root
        for i in range(1, row.size):
            if row[i] != 0.0:
                add_scaled(matrix[k + i, k + i :], -row[i], row[i:])
    return True


@compiled
def solve_factored(upper: Floats, right: Floats) -> Floats:
    """Solve ``U^T U x = b``."""
    x = right.copy()
    size = x.size
    for k in range(size):
        x[k] /= upper[k, k]
        add_scaled(x[k + 1 :], -x[k], upper[k, k + 1 :])
    for i in range(size - 1, -1, -1):
        rest = x[i]
        for k in range(i + 1, size):
            rest -= upper[i, k] * x[k]
        x[i] = rest / upper[i, i]
    return x


@compiled
def inverse_factored(upper: Floats) -> Floats:
    """Return the inverse of ``U^T U``."""
    size = upper.shape[0]
    half, out = np.zeros((size, size)), np.zeros((size, size))
    for i in range(size):
        row = half[i, : i + 1]
        row[i] = 1.0
        for k in range(i):
            if upper[k, i] != 0.0:
                add_scaled(row[: k + 1], -upper[k, i], half[k, : k + 1])
        for j in range(i + 1):
            row[j] /= upper[i, i]
    for k in range(size):
        row = half[k, : k + 1]
        for i in range(k + 1):
            if row[i] != 0.0:
                add_scaled(out[i, : i + 1], row[i], row[: i + 1])
    for i in range(size):
        for j in range(i):
            out[j, i] = out[i, j]
    return out


@compiled
def back_substitute(
    weight: Floats, terms: Floats, total: Floats, mean: Floats, s: Floats, rows: Floats
) -> None:
    """Write g of each row, from s."""
    count = terms.shape[1]
    for d in range(weight.shape[0]):
        shift = 0.0
        for e in range(weight.shape[1]):
            inner = 0.0
            for j in range(count):
                inner += terms[d, j] * s[e * count + j]
            shift += weight[d, e] * inner
        rows[d] = mean[d] - shift / total[d]


@compiled
def propagate(
    weight: Floats,
    terms: Floats,
    total: Floats,
    covariance: Floats,
    direction: Floats,
    row_variance: Floats,
    row_along: Floats,
    leverage: Floats,
) -> None:
    """Write variances of the rows, their covariance with a functional, and leverages of cells.

    ``covariance`` is that of s, ``direction`` the coefficients of the functional in s. The leverage
    of a cell is its weight times the variance of its model.
    """
    columns = weight.shape[1]
    count = terms.shape[1]
    size = columns * count
    u, spread = np.empty(size), np.empty(size)
    for d in range(weight.shape[0]):
        design_row(weight[d], terms[d], u)
        spread[:] = 0.0
        i = 0
        while i + 4 <= size:
            p, q, r, s = u[i], u[i + 1], u[i + 2], u[i + 3]
            a, b, c, f = covariance[i], covariance[i + 1], covariance[i + 2], covariance[i + 3]
            for j in range(size):
                spread[j] += p * a[j] + q * b[j] + r * c[j] + s * f[j]
            i += 4
        while i < size:
            add_scaled(spread, u[i], covariance[i])
            i += 1
        own, along = 0.0, 0.0
        for j in range(size):
            spread[j] /= total[d]
            own += spread[j] * u[j]
            along += spread[j] * direction[j]
        variance = (1.0 + own) / total[d]
        row_variance[d], row_along[d] = variance, -along
        if count == 1:
            for e in range(columns):
                leverage[d, e] = weight[d, e] * (variance - 2.0 * spread[e] + covariance[e, e])
        else:
            for e in range(columns):
                cell = variance
                for k in range(count):
                    t = terms[d, k]
                    cell -= 2.0 * t * spread[e * count + k]
                    for j in range(count):
                        cell += t * terms[d, j] * covariance[e * count + k, e * count + j]
                leverage[d, e] = weight[d, e] * cell
