"""Preconditioned conjugate gradients over planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["Solved", "conjugate_gradients"]

Images = NDArray[np.float32]


class Solved(NamedTuple):
    """A solution, and the relative residual after each iteration, the first one before any."""

    values: Images
    residuals: list[float]

    @property
    def iterations(self) -> int:
        """Return the number of iterations."""
        return len(self.residuals) - 1


def conjugate_gradients(
    apply: Callable[[Images], Images],
    right: Images,
    start: Images,
    precondition: Callable[[Images], Images],
    *,
    tolerance: float,
    max_iterations: int,
) -> Solved:
    """Solve a symmetric, positive system.

    Residuals are relative to the right-hand side, both in the norm of the preconditioner: the
    error over the solution, nearly, however badly conditioned the problem is.

    Parameters
    ----------
    apply : function
        The product with the matrix.
    right, start : ndarray, float32
    precondition : function
        The product with an approximate inverse.
    tolerance : float
    max_iterations : int

    Examples
    --------
    >>> matrix = np.array([[4.0, 1.0], [1.0, 3.0]], "f4")
    >>> right = np.array([1.0, 2.0], "f4")
    >>> found = conjugate_gradients(
    ...     lambda x: matrix @ x, right, np.zeros(2, "f4"), np.copy,
    ...     tolerance=1e-6, max_iterations=10,
    ... )
    >>> [round(float(value), 4) for value in found.values], found.iterations
    ([0.0909, 0.6364], 2)
    """
    values = start.copy()
    scale = inner(right, precondition(right))
    if scale <= 0:
        return Solved(np.zeros_like(start), [0.0])
    residual = right - apply(values)
    seen = precondition(residual)
    product = inner(residual, seen)
    residuals = [float(np.sqrt(max(product, 0.0) / scale))]
    direction = seen
    while residuals[-1] > tolerance and len(residuals) <= max_iterations:
        applied = apply(direction)
        curvature = inner(direction, applied)
        if not curvature > 0:
            break
        step = np.float32(product / curvature)
        values += step * direction
        residual -= step * applied
        seen = precondition(residual)
        product, before = inner(residual, seen), product
        direction = seen + np.float32(product / before) * direction
        residuals.append(float(np.sqrt(max(product, 0.0) / scale)))
    return Solved(values, residuals)


def inner(one: Images, other: Images) -> float:
    """Return the inner product of two arrays, summed in float64."""
    return float(_inner(one.ravel(), other.ravel()))


@compiled
def _inner(one: Images, other: Images) -> float:
    sums = np.zeros(8)
    whole = one.size - one.size % 8
    for start in range(0, whole, 8):
        for lane in range(8):
            sums[lane] += np.float64(one[start + lane]) * np.float64(other[start + lane])
    for index in range(whole, one.size):
        sums[0] += np.float64(one[index]) * np.float64(other[index])
    total = 0.0
    for lane in range(8):
        total += sums[lane]
    return total
