"""A robust linear fit of a template, smooth functions and steps to samples of known variance.

Weights are inverse variances times the weights of an M-estimator (Huber 1981; Beaton & Tukey
1974), which are found again from the residuals of each solution, so a sample that was set aside
may return. The noise of the template is allowed for: its square is not signal, and its weighted
sum is taken off the normal matrix. What scatter the variances do not explain is estimated from
the residuals and added to them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.sky.focal_basis import Regressors
from skyloom.algorithms.sky.m_estimator import (
    MEDIAN_OF_CHI2,
    RobustOptions,
    expected,
    extra_variance,
    robust_weights,
    starting_extra_variance,
    weighted_mean,
)
from skyloom.algorithms.sky.normal_kernels import (
    add_normal,
    apply_design,
    eliminate,
    quadratic_forms,
)

__all__ = ["HALF", "RobustFit", "fit_robustly"]

Floats = NDArray[np.float64]

CHUNK = 8192  # samples whose columns are in memory at a time
DEPENDENT = 1e-10  # a column less than this part of which is its own depends on the others
START_CLIP = 3.0
START_PASSES = 3
LARGEST_LEVERAGE = 0.999
HALF = 0.5  # robust weight below which a sample counts as rejected
EXTRA_TOLERANCE = 1e-3  # change of the extra variance, as a part of the smallest variance
PRECISION = 1e-14  # residuals below this part of the data are rounding


class RobustFit(NamedTuple):
    """A fit; arrays over columns are in the order of `Regressors`, 0 where a column is left out.

    ``variance`` is that of each sample, the extra scatter and the noise of the template included;
    ``robust`` its weight in [0, 1]; ``collinearity`` the part of the variance of the template that
    the other columns explain.
    """

    solution: Floats
    covariance: Floats
    sandwich: Floats
    residual: Floats
    variance: Floats
    robust: Floats
    kept: NDArray[np.bool_]
    chi2: float
    dof: int
    extra_scatter: float
    collinearity: float
    condition: float
    iterations: int
    converged: bool


class _Data(NamedTuple):
    data: Floats
    variance: Floats
    template_variance: Floats  # (template, sample): in the order of their columns
    penalty: Floats  # (column, column): what a prior adds to the normal matrix
    target: Floats  # (column): where the prior pulls to


class _Normal(NamedTuple):
    inverse: Floats
    gradient: Floats
    kept: NDArray[np.bool_]
    collinearity: float
    condition: float


def fit_robustly(
    regressors: Regressors,
    data: Floats,
    variance: Floats,
    template_variance: Floats | None = None,
    *,
    options: RobustOptions = RobustOptions(),  # noqa: B008  a tuple
    penalty: Floats | None = None,
    target: Floats | None = None,
) -> RobustFit:
    """Fit the columns of a linear model to samples.

    Parameters
    ----------
    regressors : Regressors
        The columns.
    data : array, (sample), float64, any unit
        Finite values.
    variance : array, (sample), float64, unit squared
        Finite and > 0; all 0 if only the scatter of the residuals is to say what it is.
    template_variance : array, (sample) or (template, sample), float64, optional
        Variance of the noise of the template, or of all of them in the order of their columns; none
        without it.
    options : RobustOptions
        Treatment of outliers.
    penalty : array, (column, column), float64, optional
        Inverse covariance of a Gaussian prior of the solution.
    target : array, (column), float64, optional
        Mean of the prior; 0 without it.

    Returns
    -------
    RobustFit
        NaN errors if no degree of freedom is left to estimate a scatter that is not given.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)
    >>> line = Regressors(x, 0 * x, [(0, 0), (1, 0)], np.zeros(9, np.int64), 1, None)
    >>> fit = fit_robustly(line, 2 + 3 * x + 100 * (x == 0), np.full(9, 0.01))
    >>> fit.solution.round(3), int((fit.robust < 0.5).sum())
    (array([2., 3.]), 1)
    """
    columns, size = regressors.columns, regressors.size
    known = bool(np.any(variance > 0))
    problem = _Data(
        data,
        variance if known else np.ones(size),
        np.zeros((1, size)) if template_variance is None else np.atleast_2d(template_variance),
        np.zeros((columns, columns)) if penalty is None else penalty,
        np.zeros(columns) if target is None else target,
    )
    solution, extra = _start(regressors, problem, options, known)
    leverage = _leverage(regressors, problem, solution, extra, options)
    sigma_of = regressors.templates if regressors.template is not None else slice(None)
    converged, iteration = False, 0
    while not converged and iteration < options.iterations:
        iteration += 1
        residual = data - _model(regressors, solution)
        robust, variances, scale = _weights(
            regressors, problem, solution, residual, extra, leverage, options, known
        )
        normal = _normal(
            regressors, problem, robust / variances, residual, solution, leverage, options
        )
        step = normal.inverse @ normal.gradient
        solution = solution + step
        before = extra
        if known and options.extra_scatter:
            residual = data - _model(regressors, solution)
            extra = extra_variance(residual, leverage, variances - extra, robust, options)
        limit = options.tolerance * scale * np.sqrt(np.diag(normal.inverse))
        converged = bool(
            np.all((np.abs(step) <= limit)[sigma_of])
            and abs(extra - before) <= EXTRA_TOLERANCE * np.min(variances)
        )
    return _finish(
        regressors, problem, solution, extra, leverage, options, known,
        converged=converged, iterations=iteration,
    )  # fmt: skip


def _pieces(regressors: Regressors) -> list[tuple[int, int]]:
    size = regressors.size
    return [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]


def _model(regressors: Regressors, solution: Floats) -> Floats:
    """Return the model at all samples."""
    values = np.empty(regressors.size)
    for start, stop in _pieces(regressors):
        apply_design(regressors.rows(start, stop), solution, values[start:stop])
    return values


def _noisy(regressors: Regressors, problem: _Data) -> list[tuple[int, Floats]]:
    """Return the column of each template and the variance of its noise."""
    if regressors.template is None:
        return []
    variances = problem.template_variance
    columns = range(regressors.columns - len(variances), regressors.columns)
    return list(zip(columns, variances, strict=True))


def _variance(regressors: Regressors, problem: _Data, solution: Floats, extra: float) -> Floats:
    """Return the variance of the residual of each sample."""
    variance = problem.variance
    for column, noise in _noisy(regressors, problem):
        variance = variance + float(solution[column]) ** 2 * noise
    return np.asarray(variance + extra)


def _normal(
    regressors: Regressors,
    problem: _Data,
    weight: Floats,
    residual: Floats,
    solution: Floats,
    leverage: Floats,
    options: RobustOptions,
) -> _Normal:
    """Return the inverse normal matrix and the gradient towards a better solution."""
    columns = regressors.columns
    matrix, gradient = np.zeros((columns, columns)), np.zeros(columns)
    for start, stop in _pieces(regressors):
        part = slice(start, stop)
        add_normal(regressors.rows(start, stop), weight[part], residual[part], matrix, gradient)
    matrix = matrix + np.tril(matrix, -1).T
    raw = matrix[-1, -1] if columns else 0.0
    constant = matrix[-1, 0] ** 2 / matrix[0, 0] if _has_constant(regressors, matrix) else 0.0
    if options.template_noise:
        for column, variance in _noisy(regressors, problem):
            noise = _noise_weight(variance, weight, leverage, options)
            matrix[column, column] -= noise
            gradient[column] += noise * solution[column]
            raw -= noise if column == columns - 1 else 0.0
    own = raw - constant
    pivot, _, _, _ = _eliminated(matrix)
    with_prior = matrix + problem.penalty
    gradient = gradient + problem.penalty @ (problem.target - solution)
    _, inverse, kept, condition = _eliminated(with_prior)
    collinearity = 0.0
    if regressors.template is not None:
        varies = own > DEPENDENT * max(raw, 0.0)
        explained = 1.0 - pivot * raw / own if varies and raw > 0 else 1.0
        collinearity = explained if columns > 1 else 0.0
    return _Normal(inverse, gradient, kept, float(np.clip(collinearity, 0.0, 1.0)), condition)


def _noise_weight(
    variance: Floats, weight: Floats, leverage: Floats, options: RobustOptions
) -> float:
    """Return what the noise of a template adds to its weighted square.

    Robust weights prefer samples of little noise, and the other columns take their part of it.
    """
    noise = weight * variance * (1.0 - leverage)
    return expected(options).square * float(np.sum(noise))


def _has_constant(regressors: Regressors, matrix: Floats) -> bool:
    return bool(regressors.terms) and regressors.terms[0] == (0, 0) and bool(matrix[0, 0] > 0)


def _eliminated(matrix: Floats) -> tuple[float, Floats, NDArray[np.bool_], float]:
    """Return the last pivot as a part of its diagonal, the inverse, columns kept, and condition.

    Columns are eliminated by rising degree, so that of dependent ones the simplest stay.
    """
    size = len(matrix)
    diagonal = np.diag(matrix)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = matrix / np.outer(scale, scale)
    kept, pivots = np.zeros(size, np.bool_), np.zeros(size)
    _, inverse = eliminate(np.ascontiguousarray(scaled), DEPENDENT, kept, pivots)
    spectrum = np.linalg.eigvalsh(scaled[np.ix_(kept, kept)]) if kept.any() else np.ones(1)
    condition = float(spectrum[-1] / spectrum[0]) if spectrum[0] > 0 else np.inf
    return float(pivots[-1]) if size else 1.0, inverse / np.outer(scale, scale), kept, condition


def _start(
    regressors: Regressors, problem: _Data, options: RobustOptions, known: bool
) -> tuple[Floats, float]:
    """Return a clipped solution and the extra variance that its residuals ask for."""
    inside = np.ones(regressors.size)
    solution, extra, zero = np.zeros(regressors.columns), 0.0, np.zeros(regressors.size)
    for _ in range(START_PASSES + 1):
        variances = _variance(regressors, problem, solution, extra)
        residual = problem.data - _model(regressors, solution)
        normal = _normal(regressors, problem, inside / variances, residual, solution, zero, options)
        solution = solution + normal.inverse @ normal.gradient
        if options.loss == "none":
            break
        residual = problem.data - _model(regressors, solution)
        if known and options.extra_scatter:
            extra = starting_extra_variance(residual, _variance(regressors, problem, solution, 0.0))
        variances = _variance(regressors, problem, solution, extra)
        limit = START_CLIP * _scale(residual, variances, problem.data, options, known)
        inside = (np.abs(residual) / np.sqrt(variances) <= limit).astype(np.float64)
    return solution, extra


def _weights(
    regressors: Regressors,
    problem: _Data,
    solution: Floats,
    residual: Floats,
    extra: float,
    leverage: Floats,
    options: RobustOptions,
    known: bool,
) -> tuple[Floats, Floats, float]:
    """Return robust weight and variance of each sample, and the scale that cuts are measured in."""
    variances = _variance(regressors, problem, solution, extra)
    free = variances * (1.0 - leverage)
    scale = _scale(residual, free, problem.data, options, known)
    robust, _ = robust_weights(residual / np.sqrt(free) / scale, options)
    return robust, variances, scale


def _leverage(
    regressors: Regressors, problem: _Data, solution: Floats, extra: float, options: RobustOptions
) -> Floats:
    """Return how far each sample pulls the model to itself, from 0 to nearly 1."""
    weight = 1.0 / _variance(regressors, problem, solution, extra)
    zero = np.zeros(regressors.size)
    normal = _normal(regressors, problem, weight, zero, solution, zero, options)
    values = np.empty(regressors.size)
    for start, stop in _pieces(regressors):
        quadratic_forms(regressors.rows(start, stop), normal.inverse, values[start:stop])
    return np.clip(values * weight, 0.0, LARGEST_LEVERAGE)


def _scale(
    residual: Floats, variance: Floats, data: Floats, options: RobustOptions, known: bool
) -> float:
    """Return the scatter of residuals in units of their errors that cuts are measured in.

    1 if the extra scatter is part of the errors; else the robust scatter, at least 1 for errors
    that are known and at least that of rounding for those that are not.
    """
    if known and options.extra_scatter:
        return 1.0
    robust = float(np.sqrt(np.median(residual**2 / variance) / MEDIAN_OF_CHI2))
    rounding = PRECISION * float(np.max(np.abs(data) / np.sqrt(variance), initial=0.0))
    return max(robust, 1.0 if known else max(rounding, float(np.finfo(np.float64).tiny)))


def _finish(
    regressors: Regressors,
    problem: _Data,
    solution: Floats,
    extra: float,
    leverage: Floats,
    options: RobustOptions,
    known: bool,
    *,
    converged: bool,
    iterations: int,
) -> RobustFit:
    """Return the fit with its errors."""
    residual = problem.data - _model(regressors, solution)
    robust, variances, scale = _weights(
        regressors, problem, solution, residual, extra, leverage, options, known
    )
    normal = _normal(regressors, problem, robust / variances, residual, solution, leverage, options)
    dof = int(np.sum(robust >= HALF)) - int(normal.kept.sum())
    gauss = expected(options)
    square = residual**2 / variances / (1.0 - leverage)
    mean_square = weighted_mean(square, robust) / gauss.square
    covariance = gauss.efficiency * gauss.weight * normal.inverse
    if options.template_noise:
        weight = robust / variances
        for index, noise in _noisy(regressors, problem):
            scatter = variances + float(solution[index]) ** 2 * noise
            column = normal.inverse[:, index]
            covariance = covariance + np.outer(column, column) * float(
                np.sum(weight**2 * noise * scatter)
            )
    if not known:
        # the scatter of the residuals is all that is known of the errors
        variance = mean_square if dof > 0 else np.nan
        covariance, variances = covariance * variance, variances * variance
        extra = variance
        mean_square = 1.0
    return RobustFit(
        solution=solution,
        covariance=covariance,
        sandwich=_sandwich(
            regressors, problem, solution, residual, variances, leverage, scale, options
        ),
        residual=residual,
        variance=variances,
        robust=robust,
        kept=normal.kept,
        chi2=mean_square * dof if dof > 0 else np.nan,
        dof=dof,
        extra_scatter=float(np.sqrt(extra)),
        collinearity=normal.collinearity,
        condition=normal.condition,
        iterations=iterations,
        converged=converged,
    )


def _sandwich(
    regressors: Regressors,
    problem: _Data,
    solution: Floats,
    residual: Floats,
    variances: Floats,
    leverage: Floats,
    scale: float,
    options: RobustOptions,
) -> Floats:
    """Return the covariance that the residuals themselves show, whatever the variances say."""
    columns = regressors.columns
    if not variances.all():
        # data without noise that the model meets exactly: the residuals show none either
        return np.zeros((columns, columns))
    free = np.sqrt(variances * (1.0 - leverage))
    robust, slope = robust_weights(residual / free / scale, options)
    weight = 1.0 / variances
    bread, meat, unused = (
        np.zeros((columns, columns)),
        np.zeros((columns, columns)),
        np.zeros(columns),
    )
    score = robust * weight * residual / np.sqrt(1.0 - leverage)
    noises = [
        (column, expected(options).square * noise * (1.0 - leverage))
        for column, noise in (_noisy(regressors, problem) if options.template_noise else [])
    ]
    for start, stop in _pieces(regressors):
        part = slice(start, stop)
        rows = regressors.rows(start, stop)
        zero = np.zeros(len(rows))
        add_normal(rows, slope[part] * weight[part], zero, bread, unused)
        scores = rows * score[part, None]
        for column, noise in noises:
            scores[:, column] += (robust * weight * noise)[part] * solution[column]
        add_normal(scores, np.ones(len(rows)), zero, meat, unused)
    bread, meat = (matrix + np.tril(matrix, -1).T for matrix in (bread, meat))
    for column, noise in noises:
        bread[column, column] -= float(np.sum(slope * weight * noise))
    _, inverse, _, _ = _eliminated(bread + problem.penalty)
    return np.asarray(inverse @ meat @ inverse)
