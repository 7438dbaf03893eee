"""Channels and exposures of any set of cells, connected or not, without its outliers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.flats.alternating import alternate
from skyloom.algorithms.flats.components import connected_components
from skyloom.algorithms.flats.gauge import gauge_shift
from skyloom.algorithms.flats.least_squares import (
    Problem,
    Separation,
    link_strength,
    propagate_errors,
    separate,
)
from skyloom.algorithms.flats.parameters import FlatScaleParameters

__all__ = ["Fit", "Task", "fit_cells", "robust_scatter"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Labels = NDArray[np.int64]

NORMAL_MAD = 0.6744897501960817  # median of the absolute values of a unit Gaussian
ROUNDS = 30  # of re-weighting and of rejection
SHRINKING = 0.5  # of the residual below which the weight of a cell grows no more
SETTLED = 1e-6  # change of robust weights that ends re-weighting
DETERMINED = 1e-9  # a residual with less freedom than this is 0 by construction
PRECISION = 1e-13  # residuals of log levels below this are rounding


class Task(NamedTuple):
    """What is to be fitted, over (channel, exposure); weights of 0 leave cells out.

    ``absolute`` weights are inverse variances, others are relative. ``prior`` is the weight that
    holds gradients near 0. ``reference`` is the index of the reference channel.
    """

    data: Floats
    weight: Floats
    terms: Floats
    pixels: Floats
    absolute: bool
    prior: float
    reference: int | None
    parameters: FlatScaleParameters


class Fit(NamedTuple):
    """The separation; NaN for channels and exposures without cells.

    ``weight`` are the weights given; ``studentised`` residuals over their expected scatter;
    ``used`` the cells that the fit rests on; ``dropped`` the exposures left out as a whole.
    ``change`` is the last change of an alternating solution, 0 of others.
    """

    gamma: Floats
    theta: Floats
    gamma_variance: Floats
    theta_variance: Floats
    weight: Floats
    residual: Floats
    studentised: Floats
    leverage: Floats
    used: Flags
    dropped: Flags
    channels: Labels
    exposures: Labels
    link_strength: float
    change: float


class Part(NamedTuple):
    """A connected set of cells, and where it is in the table."""

    channels: NDArray[np.int64]
    exposures: NDArray[np.int64]
    problem: Problem


def fit_cells(task: Task) -> Fit:
    """Separate channels from exposures, and set aside what contradicts the rest.

    The cells beyond the cut are found from a fit of least absolute residuals, which outliers cannot
    hide from, and found again from each fit without them, so a cell may return. An exposure in
    which they are too many is left out as a whole; its scale is the median over its channels.

    Examples
    --------
    >>> level = np.add.outer([0.1, -0.1, 0.0], [7.0, 8.0, 9.0])
    >>> level[0, 0] += 1.0
    >>> task = Task(level, np.full((3, 3), 1e6), np.ones((3, 1)), np.ones(3), True, 0.0, None,
    ...             FlatScaleParameters(largest_outlier_fraction=0.5))
    >>> int((~fit_cells(task).used).sum()), fit_cells(task).residual.round(6)[0].tolist()
    (1, [1.0, 0.0, 0.0])
    """
    parameters, valid = task.parameters, task.weight > 0.0
    none = np.zeros(valid.shape[1], np.bool_)
    fit = _fit(task, task.weight, none)
    if parameters.outliers == "none" or _is_clean(task, fit):
        return fit
    residual, scatter = _resistant_residuals(task)
    if parameters.outliers == "huber":
        return _fit(task, task.weight * _huber_weights(task, residual, scatter), none)
    size, used, dropped = np.abs(residual) * np.sqrt(task.weight), valid, none
    for _ in range(ROUNDS):
        outlier = valid & (size > parameters.cut * scatter) & (np.abs(residual) > PRECISION)
        cells = np.maximum(valid.sum(axis=0), 1)
        late = outlier.sum(axis=0) > parameters.largest_outlier_fraction * cells
        if late.all():
            late[:] = False
        chosen = _with_best_cells(valid & ~outlier & ~late, valid & ~late, size)
        if np.array_equal(chosen, used) and np.array_equal(late, dropped):
            break
        used, dropped = chosen, late
        fit = _fit(task, np.where(used, task.weight, 0.0), dropped)
        residual, size = fit.residual, np.abs(fit.studentised)
        scatter = _at_least(task, robust_scatter(fit))
    return fit


def _is_clean(task: Task, fit: Fit) -> bool:
    """Return whether residuals are rounding, or as small as weights say that they should be."""
    if np.max(np.abs(fit.residual)) <= PRECISION:
        return True
    huber = task.parameters.outliers == "huber"
    limit = task.parameters.transition if huber else task.parameters.cut
    return task.absolute and float(np.max(np.abs(fit.studentised))) <= limit


def _resistant_residuals(task: Task) -> tuple[Floats, float]:
    """Return the residuals of a fit of least absolute residuals, and their scatter.

    The fit leaves as many residuals at 0 as it has unknowns: the scatter is that of the others.
    """
    root = np.sqrt(task.weight)
    weight, residual = task.weight, np.zeros(task.weight.shape)
    floor = np.inf
    for _ in range(ROUNDS):
        gamma, theta, parts = _separate(task, weight)
        residual = _residuals(task, gamma, theta)
        size = np.abs(residual) * root
        floor = min(floor, float(size.max()))
        floor *= SHRINKING
        if not floor > 0.0:
            break
        weight = task.weight / np.maximum(size, floor)
    valid = task.weight > 0.0
    free = max(int(valid.sum()) - _unknowns(parts, task.terms.shape[1]), 1)
    largest = np.sort((np.abs(residual) * root)[valid])[-free:]
    return residual, _at_least(task, float(np.median(largest)) / NORMAL_MAD)


def _at_least(task: Task, scatter: float) -> float:
    """Return a scatter in units of the expected one, which errors that are known bound."""
    return max(scatter, 1.0 if task.absolute else float(np.finfo(np.float64).tiny))


def _unknowns(parts: list[Part], count: int) -> int:
    return sum(part.channels.size + count * (part.exposures.size - 1) for part in parts)


def _huber_weights(task: Task, residual: Floats, scatter: float) -> Floats:
    """Return Huber's weights, re-weighted until they stay."""
    limit = task.parameters.transition * scatter
    robust, root = np.ones(task.weight.shape), np.sqrt(task.weight)
    for _ in range(ROUNDS):
        size = np.abs(residual) * root
        far = size > limit
        before = robust
        robust = np.where(far, limit / np.where(far, size, 1.0), 1.0)
        if np.max(np.abs(robust - before)) < SETTLED:
            break
        gamma, theta, _ = _separate(task, task.weight * robust)
        residual = _residuals(task, gamma, theta)
    return robust


def _with_best_cells(chosen: Flags, valid: Flags, size: Floats) -> Flags:
    """Keep the best cell of a channel of which nothing else would be left."""
    empty = ~chosen.any(axis=1) & valid.any(axis=1)
    if empty.any():
        chosen = chosen.copy()
        chosen[empty, np.argmin(np.where(valid, size, np.inf)[empty], axis=1)] = True
    return chosen


def _parts(task: Task, weight: Floats) -> tuple[Labels, Labels, list[Part]]:
    """Return the component of each channel and exposure, and the problem of each component."""
    channels, exposures = connected_components(weight > 0.0)
    parts = []
    for number in range(int(channels.max()) + 1):
        d, e = np.flatnonzero(channels == number), np.flatnonzero(exposures == number)
        if (d.size, e.size) == weight.shape:
            problem = Problem(task.data, weight, task.terms, task.prior)
        else:
            cells = np.ix_(d, e)
            problem = Problem(task.data[cells], weight[cells], task.terms[d], task.prior)
        parts.append(Part(d, e, problem))
    return channels, exposures, parts


def _separate(task: Task, weight: Floats) -> tuple[Floats, Floats, list[Part]]:
    """Return log scales of channels and exposures, NaN without cells, and the components."""
    gamma = np.full(weight.shape[0], np.nan)
    theta = np.full((weight.shape[1], task.terms.shape[1]), np.nan)
    _, _, parts = _parts(task, weight)
    for part in parts:
        solution = separate(part.problem)
        gamma[part.channels], theta[part.exposures] = solution.gamma, solution.theta
    return gamma, theta, parts


def _solve(problem: Problem, parameters: FlatScaleParameters) -> tuple[Separation, float]:
    """Return the solution by the method asked for, and the last change of an iteration."""
    exact = separate(problem)
    if parameters.method == "wls":
        return exact, 0.0
    found = alternate(
        problem.data,
        problem.weight,
        iterations=parameters.iterations,
        tolerance=parameters.tolerance,
    )
    return exact._replace(gamma=found.gamma, theta=found.eps[:, None]), found.change


def _fit(task: Task, weight: Floats, dropped: Flags) -> Fit:
    """Fit every component of the cells of weight > 0."""
    rows, columns = weight.shape
    count = task.terms.shape[1]
    gamma, gamma_variance = np.full(rows, np.nan), np.full(rows, np.nan)
    theta, theta_variance = np.full((columns, count), np.nan), np.full((columns, count), np.nan)
    leverage, strength, change = np.zeros(weight.shape), 1.0, 0.0
    channels, exposures, parts = _parts(task, weight)
    for part in parts:
        d, e, problem = part
        solution, last = _solve(problem, task.parameters)
        shift, slope = _gauge(task, solution.gamma, d)
        errors = propagate_errors(problem, solution, slope)
        gamma[d], gamma_variance[d] = solution.gamma - shift, errors.gamma
        theta[e], theta_variance[e] = solution.theta, errors.theta
        theta[e, 0] += shift
        if errors.leverage.shape == weight.shape:
            leverage = errors.leverage
        else:
            leverage[np.ix_(d, e)] = errors.leverage
        strength, change = min(strength, link_strength(problem.weight)), max(change, last)
    if dropped.any():
        _scale_dropped(task, gamma, theta, np.flatnonzero(dropped))
    residual = _residuals(task, gamma, theta)
    free = 1.0 - leverage
    determined = free > DETERMINED
    root = np.sqrt(task.weight / np.where(determined, free, 1.0))
    studentised = np.where(determined, residual * root, 0.0)
    return Fit(
        gamma, theta, gamma_variance, theta_variance, task.weight, residual, studentised,
        leverage, weight > 0.0, dropped, channels, exposures, strength, change,
    )  # fmt: skip


def robust_scatter(fit: Fit) -> float:
    """Return the scatter of studentised residuals, in units of the expected one."""
    known = fit.used & (fit.leverage < 1.0 - DETERMINED)
    return float(np.median(np.abs(fit.studentised[known]))) / NORMAL_MAD if known.any() else 0.0


def _gauge(task: Task, gamma: Floats, members: NDArray[np.int64]) -> tuple[float, Floats]:
    gauge, reference = task.parameters.gauge, None
    if gauge == "reference":
        place = np.flatnonzero(members == task.reference)
        # a component without the reference can only be relative to itself
        gauge, reference = ("reference", int(place[0])) if place.size else ("counts", None)
    return gauge_shift(gamma, task.pixels[members], gauge, reference)


def _scale_dropped(task: Task, gamma: Floats, theta: Floats, exposures: NDArray[np.int64]) -> None:
    """Write the median scale of exposures that are left out, without gradient."""
    for e in exposures:
        inside = (task.weight[:, e] > 0.0) & np.isfinite(gamma)
        theta[e] = 0.0
        theta[e, 0] = np.median(task.data[inside, e] - gamma[inside]) if inside.any() else np.nan


def _residuals(task: Task, gamma: Floats, theta: Floats) -> Floats:
    """Return the residuals of valid cells, 0 elsewhere and where there is no scale."""
    model = gamma[:, None] + theta[:, 0]
    for term in range(1, task.terms.shape[1]):
        model += task.terms[:, term, None] * theta[:, term]
    residual = task.data - model
    return np.where((task.weight > 0.0) & np.isfinite(residual), residual, 0.0)
