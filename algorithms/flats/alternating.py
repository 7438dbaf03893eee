"""Log levels split into channels and exposures by means over one and the other in turn.

The survey pipeline's scheme, with its number of iterations free and its end checked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["Alternation", "alternate"]

Floats = NDArray[np.float64]


class Alternation(NamedTuple):
    """Scales after the last iteration, how many there were, and what the last one changed."""

    gamma: Floats
    eps: Floats
    iterations: int
    change: float


def alternate(data: Floats, weight: Floats, *, iterations: int, tolerance: float) -> Alternation:
    """Average over exposures and channels in turn until the channels stay.

    Parameters
    ----------
    data, weight : array, (channel, exposure), float64
        Log levels, and weights of which every channel and exposure has one > 0; 0 leaves out.
    iterations : int
        Most iterations; >= 1.
    tolerance : float
        Change of gamma that ends the iteration.

    Returns
    -------
    Alternation
        ``change`` > tolerance says that it did not converge.

    Examples
    --------
    >>> truth = np.add.outer([0.1, -0.1], [7.0, 8.0, 9.0])
    >>> found = alternate(truth, np.ones((2, 3)), iterations=10, tolerance=1e-10)
    >>> found.eps, found.iterations
    (array([7., 8., 9.]), 2)
    """
    gamma, eps = np.zeros(data.shape[0]), np.zeros(data.shape[1])
    used, change = average_in_turn(data, weight, iterations, tolerance, gamma, eps)
    return Alternation(gamma, eps, int(used), float(change))


@compiled
def average_in_turn(
    data: Floats, weight: Floats, iterations: int, tolerance: float, gamma: Floats, eps: Floats
) -> tuple[int, float]:
    """Write both vectors; return iterations and last change."""
    rows, columns = data.shape
    row_total, column_total = np.zeros(rows), np.zeros(columns)
    for d in range(rows):
        for e in range(columns):
            row_total[d] += weight[d, e]
            column_total[e] += weight[d, e]
    change = np.inf
    for done in range(iterations + 1):
        eps[:] = 0.0
        for d in range(rows):
            for e in range(columns):
                eps[e] += weight[d, e] * (data[d, e] - gamma[d])
        for e in range(columns):
            eps[e] /= column_total[e]
        if change < tolerance or done == iterations:
            return done, change
        change = 0.0
        for d in range(rows):
            total = 0.0
            for e in range(columns):
                total += weight[d, e] * (data[d, e] - eps[e])
            total /= row_total[d]
            change = max(change, abs(total - gamma[d]))
            gamma[d] = total
    return iterations, change
