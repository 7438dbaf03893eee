"""The roll-off: where the variance starts to leave its model, just above the turn-off.

Above its start mu_t the model is lowered by R(mu) = A expm1((mu - mu_t) / s), s > 0, with the
amplitude A fixed to a thousandth of the variance at the turn-off. Model, start and scale are
fitted together, weighted by the relative error that decided the turn-off.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from skyloom.algorithms.photon_transfer.linear_algebra import cholesky, gram, inverse
from skyloom.algorithms.photon_transfer.modes import growth
from skyloom.algorithms.photon_transfer.solve_parameters import RolloffParameters
from skyloom.algorithms.photon_transfer.turnoff import Turnoff

__all__ = ["Rolloff", "fit_rolloff"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

AMPLITUDE = 1e-3
FALLBACK_SCATTER = 0.01
START_SCALE = 1000.0


class Rolloff(NamedTuple):
    """What `fit_rolloff` found: points to keep; roll-off, start and scale with errors (adu)."""

    keep: Booleans
    rolloff: float
    rolloff_sigma: float
    start: float
    start_sigma: float
    scale: float
    scale_sigma: float
    failed: bool


def fit_rolloff(
    mean: Floats,
    variance: Floats,
    usable: Booleans,
    turnoff: Turnoff,
    *,
    parameters: RolloffParameters | None = None,
) -> Rolloff:
    """Fit the roll-off of one amplifier and cut its curve there.

    Parameters
    ----------
    mean, variance : array, (pair), float64, adu and adu2
        The curve, in any order.
    usable : array, (pair), bool
        Points that may take part, those above the turn-off included.
    turnoff : Turnoff
        What `find_turnoff` found on the same points.
    parameters : RolloffParameters, optional
        Thresholds.

    Returns
    -------
    Rolloff
        ``keep`` are the kept points up to the roll-off, which is the largest fitted mean where
        the model changes by at most ``fraction``, and never above the turn-off. Without points
        just above the turn-off there is nothing to fit: the roll-off is the turn-off and the
        other numbers are NaN. The same with ``failed`` where the fit does not converge.

    Examples
    --------
    >>> from skyloom.algorithms.photon_transfer.turnoff import find_turnoff
    >>> mean = np.linspace(500.0, 60000.0, 240)
    >>> variance = mean / 1.5 + 16.0
    >>> variance -= np.where(mean > 50000, 40 * np.expm1((mean - 50000) / 2000), 0)
    >>> usable = np.ones(240, dtype=bool)
    >>> found = fit_rolloff(mean, variance, usable, find_turnoff(mean, variance, usable))
    >>> found.failed, bool(50000 < found.rolloff < 56000), round(found.scale, -2)
    (False, True, 2000.0)
    """
    parameters = parameters or RolloffParameters()
    mean, variance = (np.asarray(values, dtype=np.float64) for values in (mean, variance))
    nan = float("nan")
    nothing = Rolloff(turnoff.keep, turnoff.turnoff, nan, nan, nan, nan, nan, failed=False)
    last = np.flatnonzero(turnoff.keep & (mean == turnoff.turnoff))
    if not len(last):
        return nothing
    peak = float(variance[last[0]])
    with np.errstate(invalid="ignore"):
        added = usable & ~turnoff.keep & np.isfinite(variance) & (variance <= peak)
        added &= (mean >= turnoff.turnoff) & (mean < turnoff.turnoff + parameters.reach)
    if not added.any():
        return nothing
    chosen = np.flatnonzero(turnoff.keep | added)
    return _fit(mean, variance, chosen, peak, turnoff, parameters) or nothing._replace(failed=True)


def _fit(
    mean: Floats,
    variance: Floats,
    chosen: NDArray[np.intp],
    peak: float,
    turnoff: Turnoff,
    parameters: RolloffParameters,
) -> Rolloff | None:
    signal, measured = mean[chosen], variance[chosen]
    unit = np.array([1e-6, 1.0, 10.0, 1000.0, 1000.0])
    scatter = turnoff.scatter if turnoff.scatter > 0 else FALLBACK_SCATTER

    def models(values: Floats) -> tuple[Floats, Floats]:
        a_00, gain, noise, knee, scale = values * unit
        plain = signal / gain * growth(2 * a_00 * gain * signal) + noise / gain**2
        excess = np.clip((signal - knee) / scale, 0.0, 50.0)
        return plain, plain - AMPLITUDE * peak * np.expm1(excess)

    def residual(values: Floats) -> Floats:
        return np.asarray((models(values)[1] - measured) / (scatter * measured))

    start = [turnoff.a_00, turnoff.gain, turnoff.noise, turnoff.turnoff, START_SCALE]
    lower = [-1e-4, 0.2 * turnoff.gain, -np.inf, max(turnoff.turnoff - 20000.0, 0.0), 10.0]
    upper = [1e-4, 5 * turnoff.gain, np.inf, float(signal.max()), 1e5]
    if not np.all(np.isfinite(start)):
        return None
    start[3] = max(turnoff.turnoff - parameters.reach, (lower[3] + turnoff.turnoff) / 2)
    found = least_squares(residual, start / unit, bounds=(lower / unit, upper / unit))
    inverse_normal = inverse(cholesky(gram(np.asarray(found.jac, dtype=np.float64))))
    sigma = np.sqrt(np.diag(inverse_normal)) * unit
    if not found.success or not np.all(np.isfinite(sigma)):
        return None
    plain, lowered = models(found.x)
    close = signal[np.abs(lowered / plain - 1) <= parameters.fraction]
    if not len(close):
        return None
    rolloff = min(float(close.max()), turnoff.turnoff)
    knee, scale = (found.x * unit)[3:]
    # where the change is exactly the fraction: knee + reach scale, with the errors of both
    reach = float(np.log1p(parameters.fraction * abs(plain[-1]) / (AMPLITUDE * peak)))
    block = inverse_normal[3:, 3:] * np.outer(unit[3:], unit[3:])
    error = float(np.sqrt(block[0, 0] + 2 * reach * block[0, 1] + reach**2 * block[1, 1]))
    return Rolloff(
        turnoff.keep & (mean <= rolloff),
        rolloff,
        error,
        float(knee),
        float(sigma[3]),
        float(scale),
        float(sigma[4]),
        False,
    )
