"""The solve of one amplifier, on plain arrays: outliers, turn-off, roll-off, fit, checks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.fit import (
    CovarianceFit,
    fit_covariances,
    starting_values,
)
from skyloom.algorithms.photon_transfer.linearity import linearity_outliers
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.photon_transfer.rolloff import Rolloff, fit_rolloff
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.algorithms.photon_transfer.turnoff import (
    MINIMUM_LEVELS,
    Turnoff,
    find_turnoff,
    level_numbers,
)
from skyloom.algorithms.vocabulary import AmplifierFlag, PairStatus

__all__ = ["AmplifierSolution", "Curve", "solve_amplifier"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

MINIMUM_PAIRS = 5
SIGNIFICANT = 3.0  # a difference below so many of its errors says nothing


class Curve(NamedTuple):
    """What the solve needs of one amplifier; pairs first, in any order.

    ``mean`` (adu), ``variance`` (adu2) and ``status`` (`PairStatus`) are (pair); ``covariance``
    (adu2) and ``relative_sigma``, its error over the variance, are (pair, lag_y, lag_x), for
    ``exp00`` the variance as the only lag; ``light`` is (pair) or None; ``read_noise`` a number
    in adu, NaN when unknown.
    """

    mean: Floats
    variance: Floats
    covariance: Floats
    relative_sigma: Floats
    status: NDArray[np.uint8]
    light: Floats | None
    read_noise: float


class AmplifierSolution(NamedTuple):
    """What the solve found; parts that were not reached are None.

    ``sigma_scale`` multiplies every error of the fit: sqrt(chi2 / dof) with relative weights,
    otherwise 1.
    """

    status: NDArray[np.uint8]
    flag: AmplifierFlag
    problem: str
    turnoff: Turnoff | None
    rolloff: Rolloff | None
    fit: CovarianceFit | None
    sigma_scale: float

    @property
    def used(self) -> Booleans:
        """Return which pairs the fit used."""
        return np.asarray((self.status == PairStatus.OK) & (self.fit is not None))


def solve_amplifier(curve: Curve, parameters: SolveParameters) -> AmplifierSolution:
    """Solve the photon transfer curve of one amplifier.

    Parameters
    ----------
    curve : Curve
        Its pairs.
    parameters : SolveParameters
        Everything that decides the result.

    Returns
    -------
    AmplifierSolution
        Pairs rejected here have OUTLIER or ABOVE_TURNOFF; if the amplifier cannot be solved, all
        that were OK have AMP_BAD, and ``problem`` says why.

    Examples
    --------
    >>> mean = np.linspace(1e3, 5e4, 30)
    >>> covariance = model_covariance([[-3e-6]], 1.5, 25.0, mean)
    >>> curve = Curve(
    ...     mean,
    ...     covariance[:, 0, 0],
    ...     covariance,
    ...     np.full((30, 1, 1), 1e-3),
    ...     np.zeros(30, dtype=np.uint8),
    ...     None,
    ...     float("nan"),
    ... )
    >>> round(solve_amplifier(curve, SolveParameters(model="exp00")).fit.gain, 6)
    1.5
    """
    good = curve.status == PairStatus.OK
    if not good.any():
        return _bad(curve, AmplifierFlag.NO_DATA, "no usable pair", None)
    candidates = good
    if curve.light is not None:
        candidates = good & ~linearity_outliers(
            curve.mean, curve.light, good, parameters=parameters.linearity
        )
    statistical = parameters.weights == "statistical"
    turnoff = find_turnoff(
        curve.mean,
        curve.variance,
        candidates,
        relative_sigma=curve.relative_sigma[:, 0, 0] if statistical else None,
        parameters=parameters.turnoff,
    )
    if turnoff.problem:
        return _bad(curve, AmplifierFlag.TOO_FEW_PAIRS, turnoff.problem, None)
    flag, rolloff, keep, end = AmplifierFlag.GOOD, None, turnoff.keep, turnoff.turnoff
    if parameters.rolloff.enabled:
        rolloff = fit_rolloff(
            curve.mean, curve.variance, candidates, turnoff, parameters=parameters.rolloff
        )
        keep, end = rolloff.keep, min(end, rolloff.rolloff)
        flag |= AmplifierFlag.ROLLOFF_FAILED if rolloff.failed else AmplifierFlag.GOOD
    if keep.sum() < MINIMUM_PAIRS:
        problem = f"{keep.sum()} of {good.sum()} usable pairs are left; {MINIMUM_PAIRS} are needed"
        return _bad(curve, flag | AmplifierFlag.TOO_FEW_PAIRS, problem, turnoff)
    levels = int(level_numbers(np.sort(curve.mean[keep]))[-1]) + 1
    if levels < MINIMUM_LEVELS:
        problem = f"the pairs left have {levels} levels of signal; {MINIMUM_LEVELS} are needed"
        return _bad(curve, flag | AmplifierFlag.TOO_FEW_PAIRS, problem, turnoff)
    status = curve.status.copy()
    status[good & ~keep] = PairStatus.OUTLIER
    status[good & ~keep & (curve.mean > end)] = PairStatus.ABOVE_TURNOFF
    fit = _fit(curve, keep, turnoff, parameters)
    if not np.all(np.isfinite(fit.covariance)):
        return _bad(curve, flag | AmplifierFlag.NOT_CONVERGED, "the fit is degenerate", turnoff)
    scale = 1.0 if statistical else float(np.sqrt(fit.chi2 / max(fit.dof, 1)))
    flag |= _checks(fit, scale, curve.read_noise, parameters)
    return AmplifierSolution(status, flag, "", turnoff, rolloff, fit, scale)


def _fit(
    curve: Curve, keep: Booleans, turnoff: Turnoff, parameters: SolveParameters
) -> CovarianceFit:
    mean, covariance = curve.mean[keep], curve.covariance[keep]
    relative = curve.relative_sigma[keep]
    variance = model_covariance([[turnoff.a_00]], turnoff.gain, turnoff.noise, mean)
    start = starting_values(
        mean,
        covariance,
        relative * np.abs(variance),
        gain=turnoff.gain,
        a_00=turnoff.a_00,
        model=parameters.model,
    )
    return fit_covariances(
        mean,
        covariance,
        relative,
        start,
        model=parameters.model,
        variance_start=variance[:, 0, 0],
        reweightings=parameters.reweightings,
        iterations=parameters.iterations,
    )


def _checks(
    fit: CovarianceFit, scale: float, read_noise: float, parameters: SolveParameters
) -> AmplifierFlag:
    flag = AmplifierFlag.GOOD if fit.converged else AmplifierFlag.NOT_CONVERGED
    noise = float(fit.noise[0, 0])
    if not noise > 0:
        return flag | AmplifierFlag.NEGATIVE_NOISE
    expected = read_noise * fit.gain
    sigma = scale * float(np.sqrt(fit.noise_covariance[0, 0])) / (2 * np.sqrt(noise))
    tolerance = max(parameters.noise_mismatch * expected, SIGNIFICANT * sigma)
    if np.isfinite(expected) and abs(np.sqrt(noise) - expected) > tolerance:
        flag |= AmplifierFlag.NOISE_MISMATCH
    return flag


def _bad(
    curve: Curve, flag: AmplifierFlag, problem: str, turnoff: Turnoff | None
) -> AmplifierSolution:
    status = curve.status.copy()
    status[status == PairStatus.OK] = PairStatus.AMP_BAD
    return AmplifierSolution(
        status, flag | AmplifierFlag.BAD, problem, turnoff, None, None, float("nan")
    )
