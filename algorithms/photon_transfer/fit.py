"""The fit of a covariance model to all pairs of one amplifier.

The data are condensed (`compression`), the noise covariances eliminated, and gain and
coefficients found by Gauss-Newton steps with the analytic Jacobian, damped where a plain step
would not reduce chi2. Weights come from the variance that the model predicts, not from the data,
whose own fluctuations would bias them. Everything here is plain arrays, pairs first:
``(pair, lag_y, lag_x)``, adu2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.compression import (
    Compressed,
    Nodes,
    choose_nodes,
    compress,
)
from skyloom.algorithms.photon_transfer.lattice import to_modes
from skyloom.algorithms.photon_transfer.linear_algebra import cholesky, gram, inverse, solve
from skyloom.algorithms.photon_transfer.models import (
    MODELS_WITH_B,
    model_covariance,
    model_jacobian,
)

__all__ = ["CovarianceFit", "Start", "fit_covariances", "starting_values"]

Floats = NDArray[np.float64]

TOLERANCE = 1e-10
LOOSE_TOLERANCE = 1e-3
"""Largest decrease of chi2 that a further step promises; loose while weights still change."""

LARGEST_DAMPING = 1e10
POLYNOMIAL = {"series4": 3, "series4_no_b": 3}
"""Degree of the models that are polynomials in the mean, after division by it."""


class Start(NamedTuple):
    """Where a fit starts, in the units of `CovarianceFit`; ``c`` is None for models without b."""

    gain: float
    a: Floats
    c: Floats | None


class CovarianceFit(NamedTuple):
    """The fitted model of one amplifier.

    ``gain`` (electron/adu), ``a`` (1/electron), ``c`` (1/electron2, None for models without b)
    and ``noise`` (electron2) are (lag_y, lag_x) but for the gain. ``model`` is (pair, lag_y,
    lag_x), adu2, at every pair. ``covariance`` is that of the parameters in the order gain, a, c
    (lags flattened); ``noise_covariance`` that of the noise with itself, lag by lag; and
    ``noise_by_parameter`` (lag, parameter) the covariance of the noise with them.
    """

    gain: float
    a: Floats
    c: Floats | None
    noise: Floats
    model: Floats
    sigma: Floats
    chi2: float
    dof: int
    covariance: Floats
    noise_covariance: Floats
    noise_by_parameter: Floats
    converged: bool
    steps: int


class _Problem(NamedTuple):
    """One weighted fit."""

    model: str
    lags: int
    nodes: Nodes
    data: Compressed
    dof: int


def starting_values(
    mean: Floats, covariance: Floats, sigma: Floats, *, gain: float, a_00: float, model: str
) -> Start:
    """Return a start for `fit_covariances`: a parabola through each covariance but the variance.

    Parameters
    ----------
    mean : array, (pair), float64, adu
        Mean signals.
    covariance, sigma : array, (pair, lag_y, lag_x), float64, adu2
        Covariances of one flat and their errors.
    gain : float, electron/adu
        Gain of a fit to the variance alone.
    a_00 : float, 1/electron
        Central coefficient of the same fit.
    model : str
        Name of the model to be fitted.

    Returns
    -------
    Start

    Examples
    --------
    >>> mean = np.linspace(1e3, 5e4, 20)
    >>> covariance = np.zeros((20, 2, 2))
    >>> covariance[:, 0, 1] = 2e-7 * mean**2 + 3.0
    >>> start = starting_values(
    ...     mean, covariance, np.ones_like(covariance), gain=1.5, a_00=-3e-6, model="exact"
    ... )
    >>> float(start.a[0, 1].round(12))
    2e-07
    """
    good = np.isfinite(covariance) & np.isfinite(sigma)
    weight = np.where(good, 1 / np.where(good, sigma, 1.0) ** 2, 0.0)
    square = (mean**2)[:, None, None]
    total = np.maximum(weight.sum(axis=0), np.finfo(float).tiny)
    values = np.where(good, covariance, 0.0)
    offset = square - (weight * square).sum(axis=0) / total
    spread = np.maximum((weight * offset**2).sum(axis=0), np.finfo(float).tiny)
    a = (weight * offset * values).sum(axis=0) / spread
    a[0, 0] = a_00
    return Start(gain, a, np.zeros_like(a) if model in MODELS_WITH_B else None)


def fit_covariances(
    mean: Floats,
    covariance: Floats,
    relative_sigma: Floats,
    start: Start,
    *,
    model: str = "exact",
    variance_start: Floats | None = None,
    reweightings: int = 2,
    iterations: int = 50,
) -> CovarianceFit:
    """Fit a model to the covariances of all pairs of one amplifier.

    Parameters
    ----------
    mean : array, (pair), float64, adu
        Mean signals.
    covariance : array, (pair, lag_y, lag_x), float64, adu2
        Covariances of one flat. ``exp00`` takes the variance as its only lag.
    relative_sigma : array, (pair, lag_y, lag_x), float64
        Error of each covariance divided by the variance of its pair: sqrt(2 / n) for the
        variance, sqrt(1 / n) for the others, n the number of pixel pairs. Values that are not
        finite are left out.
    start : Start
        First gain and coefficients, see `starting_values`.
    model : {"exact", "exact_b", "series4", "series4_no_b", "exp00", "linear"}
        The model.
    variance_start : array, (pair), float64, adu2, optional
        Variance that weights the first fit; by default the measured one.
    reweightings : int
        Number of fits, each weighted by the last model.
    iterations : int
        Most steps of one fit.

    Returns
    -------
    CovarianceFit
        The fit; ``converged`` is False if the last one needed more than ``iterations`` steps.

    Raises
    ------
    ValueError
        If there are fewer values than parameters.

    Notes
    -----
    Model and Jacobian as in Astier et al. 2019 in closed form. Errors are those of
    (J^T W J)^-1, unscaled.

    Examples
    --------
    >>> mean = np.linspace(1e3, 6e4, 40)
    >>> truth = np.array([[-3e-6, 4e-7], [2e-7, 1e-7]])
    >>> covariance = model_covariance(truth, 1.5, 25.0, mean)
    >>> first = Start(1.4, 0.8 * truth, None)
    >>> fit = fit_covariances(mean, covariance, np.full(covariance.shape, 1e-3), first)
    >>> bool(np.allclose(fit.a, truth, rtol=1e-8)), round(fit.gain, 8)
    (True, 1.5)
    """
    usable = np.isfinite(covariance) & np.isfinite(relative_sigma) & (relative_sigma > 0)
    values = np.where(usable, covariance, 0.0)
    variance = values[:, 0, 0] if variance_start is None else variance_start
    lags, flat = covariance.shape[1], (len(mean), -1)
    parameters = 1 + lags**2 * (1 + (model != "linear") + (start.c is not None))
    dof = int(usable.sum()) - parameters
    if dof < 0:
        raise ValueError(f"{usable.sum()} covariances cannot determine {parameters} parameters")
    vector = _join(start.gain, np.zeros((1, 1)) if model == "linear" else start.a, start.c)
    steps = 0
    for remaining in range(reweightings - 1, -1, -1):
        sigma = np.where(usable, relative_sigma, 0.0) * np.abs(variance)[:, None, None]
        weight = np.where(sigma > 0, sigma, np.inf) ** -2.0
        nodes = choose_nodes(mean, _exponent(vector, lags, mean), degree=POLYNOMIAL.get(model))
        data = compress(nodes, weight.reshape(flat).T, values.reshape(flat).T)
        problem = _Problem(model, lags, nodes, data, dof)
        tolerance = LOOSE_TOLERANCE if remaining else TOLERANCE
        vector, converged, taken = _minimise(problem, vector, iterations, tolerance)
        steps += taken
        gain, a, c = _split(vector, lags)
        noise = _noise(problem, vector)
        signal = np.sum(nodes.basis[:, 1:] * _signal(problem, vector)[0], axis=1)
        variance = signal + noise[0, 0] / gain**2
    predicted = model_covariance(a, gain, noise, mean, c=c, model=model)
    chi2 = float(np.sum((values - predicted) ** 2 * weight))
    errors = _errors(problem, vector)
    sigma = np.where(usable, sigma, np.nan)
    return CovarianceFit(gain, a, c, noise, predicted, sigma, chi2, dof, *errors, converged, steps)


def _join(gain: float, a: Floats, c: Floats | None) -> Floats:
    return np.concatenate([[gain], a.ravel(), [] if c is None else c.ravel()])


def _split(vector: Floats, lags: int) -> tuple[float, Floats, Floats | None]:
    end = 1 + lags**2
    c = vector[end:].reshape(lags, lags) if len(vector) > end else None
    return float(vector[0]), vector[1:end].reshape(lags, lags), c


def _exponent(vector: Floats, lags: int, mean: Floats) -> float:
    """Return the largest exponent of the model, with room for the fit to move."""
    gain, a, c = _split(vector, lags)
    signal = gain * float(np.max(mean))
    largest = 2 * float(np.max(np.abs(to_modes(a)))) * signal
    if c is not None:
        largest += 4 * float(np.max(np.abs(to_modes(c)))) * signal**2
    return 1.5 * largest + 0.5


def _signal(problem: _Problem, vector: Floats) -> Floats:
    """Return the model without noise at the nodes, (lag, node) in adu2."""
    gain, a, c = _split(vector, problem.lags)
    mean = problem.nodes.mean
    values = model_covariance(a, gain, 0.0, mean, c=c, model=problem.model)
    return np.asarray(values.reshape(len(mean), -1).T)


def _residual(problem: _Problem, vector: Floats) -> Floats:
    """Return the residuals of the condensed data, (lag, row), without the rows of the noise."""
    triangle = problem.data.triangle[:, 1:, 1:]
    model = (triangle @ _signal(problem, vector)[:, :, None])[:, :, 0]
    return np.asarray(problem.data.data[:, 1:] - model)


def _rows(
    problem: _Problem, vector: Floats, residual: Floats, rows: Floats, *, first: int = 1
) -> Floats:
    """Fill in derivatives of the condensed model by gain, a and c, and the residuals beside them.

    From row ``first`` of each lag on; ``rows`` is (lag, row, parameter + 1).
    """
    gain, a, c = _split(vector, problem.lags)
    found = model_jacobian(a, gain, 0.0, problem.nodes.mean, c=c, model=problem.model)
    triangle = problem.data.triangle[:, first:, 1:]
    square = problem.lags**2
    np.matmul(triangle, found.by_gain[:, :, None], out=rows[:, :, :1])
    np.matmul(triangle, found.by_a, out=rows[:, :, 1 : 1 + square])
    if found.by_c is not None:
        np.matmul(triangle, found.by_c, out=rows[:, :, 1 + square : -1])
    rows[:, :, -1] = residual
    return rows


def _minimise(
    problem: _Problem, vector: Floats, iterations: int, tolerance: float
) -> tuple[Floats, bool, int]:
    """Return the best parameters, whether they converged and the number of steps."""
    residual, damping = _residual(problem, vector), 0.0
    chi2 = float(np.sum(residual**2))
    floor = float(np.sum(problem.data.rest))
    rows = np.empty((*residual.shape, len(vector) + 1))
    for step_number in range(1, iterations + 1):
        normal = gram(_rows(problem, vector, residual, rows).reshape(residual.size, -1))
        gradient = normal[-1, :-1]
        normal, scale = _scaled(normal[:-1, :-1])
        gradient = gradient / scale
        limit = tolerance * max(1.0, (chi2 + floor) / max(problem.dof, 1))
        while damping < LARGEST_DAMPING:
            step = solve(cholesky(normal + damping * np.eye(len(normal))), gradient)
            expected = float(np.sum(gradient * step))
            trial = vector + step / scale
            with np.errstate(over="ignore", invalid="ignore"):
                tried = _residual(problem, trial) if trial[0] > 0 else np.full(1, np.nan)
                reached = float(np.sum(tried**2))
            if reached <= chi2 or (expected <= limit and np.isfinite(reached)):
                break
            damping = max(10 * damping, 1e-4)
        else:
            return vector, False, step_number
        vector, residual, chi2 = trial, tried, reached
        if expected <= limit and damping < 1:
            return vector, True, step_number
        damping = damping / 100 if damping > 1e-6 else 0.0
    return vector, False, iterations


def _scaled(normal: Floats) -> tuple[Floats, Floats]:
    """Return a normal matrix scaled to a unit diagonal, and the factors that do so.

    Parameters that the data say nothing of, such as those that a model fixes, get a unit
    diagonal too, so that they take no step.
    """
    diagonal = np.diag(normal)
    scale = np.asarray(np.sqrt(np.where(diagonal > 0, diagonal, 1.0)))
    scaled = normal / np.outer(scale, scale)
    np.fill_diagonal(scaled, 1.0)
    return scaled, scale


def _noise(problem: _Problem, vector: Floats) -> Floats:
    """Return the noise covariances that minimise chi2 for given gain and coefficients."""
    triangle, data = problem.data.triangle[:, 0], problem.data.data[:, 0]
    offset = data - np.sum(triangle[:, 1:] * _signal(problem, vector), axis=1)
    known = triangle[:, 0] != 0
    noise = np.where(known, offset / np.where(known, triangle[:, 0], 1.0), np.nan)
    return np.asarray(vector[0] ** 2 * noise).reshape(problem.lags, problem.lags)


def _errors(problem: _Problem, vector: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the covariances of the parameters, of each noise, and between the two."""
    first = problem.data.triangle[:, 0, 0]
    rows = np.empty((*problem.data.data.shape, len(vector) + 1))
    rows = _rows(problem, vector, np.zeros(1), rows, first=0)[:, :, :-1]
    normal = gram(rows[:, 1:].reshape(-1, len(vector)))
    free = np.diag(normal) > 0
    scaled, scale = _scaled(normal)
    covariance = inverse(cholesky(scaled)) * np.outer(free, free) / np.outer(scale, scale)
    by_parameter = -rows[:, 0] * (vector[0] ** 2 / first)[:, None]
    by_parameter[:, 0] += 2 * _noise(problem, vector).ravel() / vector[0]
    cross = np.einsum("pi,ij->pj", by_parameter, covariance)
    own = (vector[0] ** 2 / first) ** 2 + np.sum(cross * by_parameter, axis=1)
    return covariance, own.reshape(problem.lags, problem.lags), cross
