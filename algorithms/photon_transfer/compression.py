"""All pairs of one amplifier condensed into a few numbers per lag, exactly.

Every model over the mean is a smooth function, so its values at a few Chebyshev nodes determine
it at all pairs: C(mu_i) = nu + sum_q L_q(mu_i) (mu_i / mu_q) U_q, with nu = n / g^2 the noise and
U_q the model without it at the nodes. A weighted QR decomposition of this basis, lag by lag, turns
the sum of squares over pairs into one over nodes, whatever the number of pairs:

    sum_i w_i (C_i - C(mu_i))^2 = rest + sum_k (y_k - R_k0 nu - sum_q R_kq U_q)^2

R is triangular and nu comes first, so only the first row of a lag knows its noise covariance: the
noise is eliminated from the fit by leaving that row out, without approximation. This extends the
moments of a quartic, which are ill-conditioned in powers of the mean, to every model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["Compressed", "Nodes", "choose_nodes", "compress"]

Floats = NDArray[np.float64]

PRECISION = 1e-13
MOST_NODES = 40


class Nodes(NamedTuple):
    """Means at which the model is evaluated, (node) adu, and the basis (pair, 1 + node)."""

    mean: Floats
    basis: Floats


class Compressed(NamedTuple):
    """The weighted data of all lags: see the module.

    ``triangle`` (lag, row, 1 + node) and ``data`` (lag, row) in units of sigma, ``rest`` (lag).
    """

    triangle: Floats
    data: Floats
    rest: Floats


def choose_nodes(mean: Floats, exponent: float, *, degree: int | None = None) -> Nodes:
    """Choose nodes that represent a model to 1e-13 of its largest value.

    The Chebyshev coefficients of exp(x t), 0 <= t <= 1, fall as 2 (x / 4)^q / q!. With as few
    pairs as nodes, the pairs themselves are the nodes.

    Parameters
    ----------
    mean : array, (pair), float64, adu
        Means of the pairs.
    exponent : float
        Largest absolute value of the exponent 2 a M that the model reaches, dimensionless.
    degree : int, optional
        Degree of a model that is a polynomial in the mean, divided by the mean.

    Returns
    -------
    Nodes

    Examples
    --------
    >>> nodes = choose_nodes(np.linspace(10.0, 1000.0, 50), 1.0)
    >>> values = np.expm1(-nodes.mean / 1000)
    >>> bool(np.allclose(nodes.basis[:, 1:] @ values, np.expm1(-np.linspace(0.01, 1.0, 50)), 1e-12))
    True
    """
    number = degree + 1 if degree is not None else _number_of_nodes(exponent)
    if number >= len(mean):
        return Nodes(mean.copy(), np.eye(len(mean), len(mean) + 1, 1) + np.eye(1, len(mean) + 1))
    half, centre = (mean.max() - mean.min()) / 2, (mean.max() + mean.min()) / 2
    angle = np.pi * (np.arange(number) + 0.5) / number
    orders = np.arange(number)
    at_nodes = np.cos(np.outer(orders, angle)) * (2 / number)
    at_nodes[0] /= 2
    position = np.arccos(np.clip((mean - centre) / half, -1, 1)) if half > 0 else 0 * mean
    interpolation = np.cos(np.outer(position, orders)) @ at_nodes
    nodes = centre + half * np.cos(angle)
    ratio = mean[:, None] / nodes
    return Nodes(nodes, np.column_stack([np.ones(len(mean)), ratio * interpolation]))


def _number_of_nodes(exponent: float) -> int:
    for number in range(4, MOST_NODES):
        if 2 * (exponent / 4) ** number / math.factorial(number) < PRECISION:
            return number
    return MOST_NODES


@compiled
def _triangularise(basis: Floats, weight: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Householder QR of the weighted basis of each lag, applied to its data."""
    lags, pairs = weight.shape
    columns = basis.shape[1]
    rows = min(pairs, columns)
    triangle = np.zeros((lags, rows, columns))
    data, rest = np.zeros((lags, rows)), np.zeros(lags)
    work = np.empty((columns + 1, pairs))
    for lag in range(lags):
        for pair in range(pairs):
            root = np.sqrt(weight[lag, pair])
            for column in range(columns):
                work[column, pair] = root * basis[pair, column]
            work[columns, pair] = root * values[lag, pair] if root > 0 else 0.0
        for step in range(rows):
            norm = np.sqrt(np.sum(work[step, step:] ** 2))
            if norm > 0:
                reflected = -norm if work[step, step] > 0 else norm
                work[step, step] -= reflected
                length = np.sum(work[step, step:] ** 2)
                for column in range(step + 1, columns + 1):
                    overlap = 2 * np.sum(work[step, step:] * work[column, step:]) / length
                    for pair in range(step, pairs):
                        work[column, pair] -= overlap * work[step, pair]
                triangle[lag, step, step] = reflected
            for column in range(step + 1, columns):
                triangle[lag, step, column] = work[column, step]
            data[lag, step] = work[columns, step]
        rest[lag] = np.sum(work[columns, rows:] ** 2)
    return triangle, data, rest


def compress(nodes: Nodes, weight: Floats, values: Floats) -> Compressed:
    """Condense the data of all pairs.

    Parameters
    ----------
    nodes : Nodes
        Nodes and basis for the means of the pairs.
    weight : array, (lag, pair), float64, 1/adu4
        Inverse variance of each covariance; 0 leaves a value out.
    values : array, (lag, pair), float64, adu2
        Covariances; where the weight is 0 they may be NaN.

    Returns
    -------
    Compressed

    Examples
    --------
    >>> mean = np.linspace(1.0, 2.0, 30)
    >>> nodes = choose_nodes(mean, 0.0, degree=0)
    >>> condensed = compress(nodes, np.ones((1, 30)), 3.0 + 2.0 * mean[None])
    >>> value = condensed.data[0, 1] / condensed.triangle[0, 1, 1]
    >>> round(float(value / nodes.mean[0]), 12)
    2.0
    """
    return Compressed(*_triangularise(nodes.basis, weight, values))
