"""Log levels split into channels and exposures by weighted least squares, with their errors.

``L_de = gamma_d + f_d . theta_e``, f the regressors of a channel: 1, and where illumination may
have a gradient functions of its place. A common pattern of all exposures belongs to the channels:
the gradients of the exposures add up to 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.errors import DegenerateFitError
from skyloom.algorithms.flats.normal_kernels import (
    back_substitute,
    factor,
    inverse_factored,
    normal_equations,
    propagate,
    row_sums,
    solve_factored,
)

__all__ = ["Errors", "Problem", "Separation", "link_strength", "propagate_errors", "separate"]

Floats = NDArray[np.float64]


class Problem(NamedTuple):
    """One connected set of cells: every channel and every exposure has a weight > 0.

    ``data`` and ``weight`` are (channel, exposure), ``terms`` (channel, term); ``prior`` is the
    inverse variance of gradients.
    """

    data: Floats
    weight: Floats
    terms: Floats
    prior: float

    @property
    def transposed(self) -> bool:
        """Whether the exposures are eliminated: it leaves the smaller system."""
        return bool(self.terms.shape[1] == 1 and self.data.shape[0] < self.data.shape[1])

    def rows(self) -> tuple[Floats, Floats, Floats]:
        """Return data, weights and regressors with what is eliminated along the rows."""
        if not self.transposed:
            return self.data, self.weight, self.terms
        flipped = (np.ascontiguousarray(self.data.T), np.ascontiguousarray(self.weight.T))
        return (*flipped, np.ones((self.data.shape[1], 1)))


class Separation(NamedTuple):
    """A solution: ``gamma`` (channel) and ``theta`` (exposure, term), free of a common shift.

    ``upper`` is the factor of the normal matrix, ``total`` the weight of each of its rows.
    """

    gamma: Floats
    theta: Floats
    upper: Floats
    total: Floats


class Errors(NamedTuple):
    """Variances in the gauge asked for, for weights that are inverse variances."""

    gamma: Floats
    theta: Floats
    leverage: Floats


def separate(problem: Problem) -> Separation:
    """Solve the weighted least-squares problem in closed form.

    Parameters
    ----------
    problem : Problem
        A connected set of cells.

    Returns
    -------
    Separation
        In the gauge of the elimination: the weighted scales of what is not eliminated add up to 0.

    Raises
    ------
    DegenerateFitError
        If rounding leaves no positive definite system.

    Examples
    --------
    >>> truth = np.add.outer([0.1, -0.1], [7.0, 8.0, 9.0])
    >>> found = separate(Problem(truth, np.ones((2, 3)), np.ones((2, 1)), 0.0))
    >>> round(float(found.gamma[0] - found.gamma[1]), 12)
    0.2
    """
    data, weight, terms = problem.rows()
    rows, columns = data.shape
    size = columns * terms.shape[1]
    total, mean = np.empty(rows), np.empty(rows)
    row_sums(weight, data, total, mean)
    matrix, right = np.zeros((size, size)), np.zeros(size)
    normal_equations(weight, data, terms, problem.prior, total, mean, matrix, right)
    if not factor(matrix):
        raise DegenerateFitError(
            f"the scales of {problem.data.shape[0]} detectors and {problem.data.shape[1]} "
            "exposures are not determined to rounding: weights or positions are degenerate"
        )
    s = solve_factored(matrix, right)
    solved = np.empty(rows)
    back_substitute(weight, terms, total, mean, s, solved)
    if problem.transposed:
        return Separation(s, solved[:, None], matrix, total)
    return Separation(solved, s.reshape(columns, -1), matrix, total)


def propagate_errors(problem: Problem, solution: Separation, gauge: Floats) -> Errors:
    """Return the variances of a solution after the shift that sets ``gauge . gamma`` to a constant.

    Parameters
    ----------
    problem, solution
        What was solved, and the solution.
    gauge : array, (channel), float64
        Coefficients that add up to 1.

    Returns
    -------
    Errors
        Variances of gamma and theta, and the leverage of each cell.

    Examples
    --------
    >>> problem = Problem(np.zeros((2, 3)), np.ones((2, 3)), np.ones((2, 1)), 0.0)
    >>> propagate_errors(problem, separate(problem), np.full(2, 0.5)).gamma * 6
    array([1., 1.])
    """
    _, weight, terms = problem.rows()
    covariance = inverse_factored(solution.upper)
    count = terms.shape[1]
    for term in range(1, count):
        # what all columns have in common was held at 0 by a term of the normal matrix, not by data
        held = problem.prior + weight.sum() / weight.shape[1]
        covariance[term::count, term::count] -= 1.0 / (weight.shape[1] * held)
    if problem.transposed:
        direction = gauge
    else:
        part = (gauge / solution.total)[:, None]
        by_term = [(weight * (part * terms[:, term, None])).sum(axis=0) for term in range(count)]
        direction = -np.stack(by_term, axis=1).ravel()
    along = (covariance * direction).sum(axis=1)
    row_variance, row_along = np.empty(len(weight)), np.empty(len(weight))
    leverage = np.empty_like(weight)
    propagate(
        weight, terms, solution.total, covariance, direction, row_variance, row_along, leverage
    )
    functional = float((direction * along).sum())
    column_variance = np.diag(covariance).reshape(-1, count).copy()
    column_along = along.reshape(column_variance.shape)[:, 0]
    if problem.transposed:
        gamma = column_variance[:, 0] - 2.0 * column_along + functional
        theta = (row_variance + 2.0 * row_along + functional)[:, None]
        leverage = np.ascontiguousarray(leverage.T)
    else:
        row_along += gauge / solution.total
        functional += float((gauge**2 / solution.total).sum())
        gamma = row_variance - 2.0 * row_along + functional
        theta = column_variance
        theta[:, 0] += 2.0 * column_along + functional
    return Errors(np.maximum(gamma, 0.0), np.maximum(theta, 0.0), leverage)


def link_strength(weight: Floats) -> float:
    """Return how strongly a connected set of cells hangs together, from 0 to 1.

    It is the smallest non-zero eigenvalue of ``diag(1/r) S``, S the normal matrix of the
    channels: 1 minus the factor by which the error shrinks in an iteration of alternating means.

    Parameters
    ----------
    weight : array, (channel, exposure), float64
        Every channel and exposure has a weight > 0.

    Examples
    --------
    >>> round(link_strength(np.ones((4, 3))), 12)
    1.0
    """
    scaled = weight / np.sqrt(np.outer(weight.sum(axis=1), weight.sum(axis=0)))
    if scaled.shape[0] < scaled.shape[1]:
        scaled = scaled.T
    if scaled.shape[1] < 2:
        return 1.0
    # the largest eigenvalue is 1, that of the common factor
    second = float(np.linalg.eigvalsh(scaled.T @ scaled)[-2])
    return float(np.clip(1.0 - max(second, 0.0), 0.0, 1.0))
