"""Normal equations of the fields of visits, the common sky of each bin eliminated.

Levels are ``d[b, v] = T[b] + phi[b] . theta[v] + noise`` with a free sky ``T`` in every bin. With
weights ``w`` and ``W[b] = sum_v w[b, v]`` its elimination leaves

    A[v, v'] = delta[v, v'] sum_b w phi phi^T - sum_b (w[b, v] w[b, v'] / W[b]) phi phi^T
    r[v] = sum_b w[b, v] (d[b, v] - mean[b]) phi

which is the fit of all pairwise differences with their optimal weights. Arrays are (bin, visit)
and unknowns (visit, term), all float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk

from skyloom.algorithms.matching.match_kernels import center_bins, spread_functions

__all__ = [
    "Levels",
    "NormalEquations",
    "blocks_of_bins",
    "normal_equations",
    "overlap_blocks",
    "right_hand_side",
]

Floats = NDArray[np.float64]
BLOCK_BYTES = 1 << 24  # of the products of factors and functions that are in memory at once


class Levels(NamedTuple):
    """Levels and weights, (bin, visit), and the functions of fields at the bins, (bin, term)."""

    level: Floats
    weight: Floats
    functions: Floats

    @property
    def fields_shape(self) -> tuple[int, int]:
        """Return (visits, terms)."""
        return self.level.shape[1], self.functions.shape[1]


class NormalEquations(NamedTuple):
    """Matrix (visit term, visit term), right side (visit, term), and the sum of squares at 0."""

    matrix: Floats
    right: Floats
    square: float


def normal_equations(levels: Levels) -> NormalEquations:
    """Return the normal equations of all fields.

    Examples
    --------
    >>> ones = np.ones((4, 2))
    >>> equations = normal_equations(Levels(np.array([[1.0, 3.0]] * 4), ones, np.ones((4, 1))))
    >>> equations.matrix.round(9).tolist(), equations.right.ravel().tolist(), equations.square
    ([[2.0, -2.0], [-2.0, 2.0]], [-4.0, 4.0], 8.0)
    """
    visits, terms = levels.fields_shape
    right, square, total = right_hand_side(levels)
    matrix = np.zeros((visits * terms, visits * terms), order="F")
    root = np.sqrt(np.where(total > 0, total, 1.0))
    step = max(1, BLOCK_BYTES // (8 * visits * terms))
    for start in range(0, len(total), step):
        part = slice(start, start + step)
        spread = np.empty((len(total[part]), visits * terms))
        spread_functions(levels.weight[part] / root[part, None], levels.functions[part], spread)
        matrix = dsyrk(-1.0, spread.T, beta=1.0, c=matrix, lower=1, overwrite_c=1)
    matrix += np.tril(matrix, -1).T
    blocks = weighted_products(levels.weight, levels.functions)
    for visit in range(visits):
        own = slice(visit * terms, (visit + 1) * terms)
        matrix[own, own] += blocks[visit]
    return NormalEquations(matrix, right, square)


def right_hand_side(levels: Levels) -> tuple[Floats, float, Floats]:
    """Return the right side (visit, term), the sum of squares at zero fields, and all weight."""
    visits, terms = levels.fields_shape
    right, square, total = np.zeros((visits, terms)), 0.0, np.empty(len(levels.level))
    for part in blocks_of_bins(len(total), visits):
        level, weight, functions = (values[part] for values in levels)
        rest, sky = np.empty_like(level), np.empty(len(level))
        center_bins(level, weight, np.zeros_like(level), rest, sky, total[part])
        weighted = rest * weight
        right += weighted.T @ functions
        square += float(np.vdot(weighted, rest))
    return right, square, total


def overlap_blocks(levels: Levels) -> Floats:
    """Return what the overlaps tell of each visit alone, (visit, term, term)."""
    visits, terms = levels.fields_shape
    blocks = np.zeros((visits, terms, terms))
    for part in blocks_of_bins(len(levels.level), visits):
        weight = levels.weight[part]
        total = weight.sum(axis=1)
        share = weight / np.where(total > 0, total, 1.0)[:, None]
        blocks += weighted_products(weight * (1.0 - share), levels.functions[part])
    return blocks


def blocks_of_bins(bins: int, visits: int) -> Iterator[slice]:
    """Yield slices of bins whose levels fit into a fraction of memory."""
    step = max(1, BLOCK_BYTES // (8 * visits))
    for start in range(0, bins, step):
        yield slice(start, start + step)


def weighted_products(weight: Floats, functions: Floats) -> Floats:
    """Return ``sum_b weight[b, v] phi[b] phi[b]^T`` of each visit."""
    terms = functions.shape[1]
    row, column = np.tril_indices(terms)
    packed = np.zeros((weight.shape[1], row.size))
    step = max(1, BLOCK_BYTES // (8 * row.size))
    for start in range(0, len(functions), step):
        part = functions[start : start + step]
        packed += weight[start : start + step].T @ (part[:, row] * part[:, column])
    blocks = np.empty((weight.shape[1], terms, terms))
    blocks[:, row, column] = packed
    blocks[:, column, row] = packed
    return blocks
