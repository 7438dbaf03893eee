"""Outliers and the turn-off of a photon transfer curve, from its means and variances.

Both modes take one amplifier's points in any order, work on them sorted by mean and return which
points to keep. Non-finite points are never kept. The turn-off is the largest mean kept; its
sampling error is half the distance between its two neighbours in the sorted list, or the lower
interval where there is no finite next one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from skyloom.algorithms.photon_transfer.modes import growth
from skyloom.algorithms.photon_transfer.solve_parameters import TurnoffParameters
from skyloom.algorithms.photon_transfer.window import (
    fit_window,
    grow_window,
    relative_residuals,
)

__all__ = ["MINIMUM_LEVELS", "Turnoff", "find_turnoff", "level_numbers"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

LEGACY_START = (-2e-6, 1.5, 25.0)
LEGACY_LOWER = (-1e-4, 0.1, 0.0)
LEGACY_UPPER = (0.0, 10.0, 2000.0)
SCATTER_ROUNDS = 3
SPARSE_FRACTION = 0.5
REPEATED = 0.005  # means this close, relative, are of pairs that repeat one level
SAME_LEVEL, SAME_PART = 0.02, 0.01
"""Means no further apart than this part of themselves, or of the largest, are one level of signal,
however many pairs were taken there."""
MINIMUM_LEVELS = 3
"""As many levels as the variance model has parameters."""


class Turnoff(NamedTuple):
    """Where the curve ends: see `find_turnoff`."""

    keep: Booleans
    turnoff: float
    sampling_error: float
    a_00: float
    gain: float
    noise: float
    scatter: float
    problem: str


def _failed(count: int, problem: str) -> Turnoff:
    nan = float("nan")
    return Turnoff(np.zeros(count, dtype=bool), nan, nan, nan, nan, nan, nan, problem)


def find_turnoff(
    mean: Floats,
    variance: Floats,
    usable: Booleans,
    *,
    relative_sigma: Floats | None = None,
    parameters: TurnoffParameters | None = None,
) -> Turnoff:
    """Find outliers and the turn-off of one amplifier.

    Parameters
    ----------
    mean : array, (pair), float64, adu
        Mean signals, in any order.
    variance : array, (pair), float64, adu2
        Variances of one flat.
    usable : array, (pair), bool
        Points that may be kept.
    relative_sigma : array, (pair), float64, optional
        Statistical error of each variance divided by it, sqrt(2 / pixels). Without it, the
        scatter around the model at low signal takes its place (``robust`` only).
    parameters : TurnoffParameters, optional
        The mode and its thresholds.

    Returns
    -------
    Turnoff
        ``keep`` (pair), bool; ``turnoff`` and ``sampling_error``, adu; the variance model of the
        last fit, ``a_00`` (1/electron), ``gain`` (electron/adu) and ``noise`` (electron2);
        ``scatter``, the relative error that decided; ``problem``, empty unless the curve cannot
        be used, and then everything is NaN and nothing kept.

    Notes
    -----
    ``robust``: with z = (V - model) / (relative error of one point times model), where the
    relative error is the statistical one and ``fraction`` in quadrature, a Huber-weighted fit
    starts on the lowest means and grows by the next point while |z| < ``cut``, by two if only
    the second passes; it ends where two consecutive points fail. Points inside are outliers if
    they fail although the noise of the pair may differ by ``noise_fraction``.

    ``legacy``: the decisions of the survey pipeline: unweighted bounded fits below
    ``first_signal``, rejection by |V - model| / sqrt(V), and the end of the curve at the first
    wide gap that follows a rejected point.

    Examples
    --------
    >>> mean = np.linspace(500.0, 50000.0, 100)
    >>> variance = mean / 1.5 * growth(2 * -3e-6 * 1.5 * mean) + 16.0
    >>> variance[-10:] *= 0.7
    >>> found = find_turnoff(mean, variance, np.ones(100, dtype=bool))
    >>> found.turnoff, round(found.gain, 4)
    (45000.0, 1.5)
    """
    parameters = parameters or TurnoffParameters()
    mean, variance = (np.asarray(values, dtype=np.float64) for values in (mean, variance))
    good = np.asarray(usable, dtype=bool) & np.isfinite(mean) & np.isfinite(variance)
    good &= (mean > 0) & (variance > 0)
    if not good.any():
        return _failed(len(mean), "no usable pair")
    if parameters.mode == "legacy":
        found = _legacy(mean, variance, good, parameters)
    else:
        found = _robust(mean, variance, good, relative_sigma, parameters)
    if found.problem:
        return found
    last = float(np.max(mean[found.keep]))
    same = 0.0 if parameters.mode == "legacy" else REPEATED
    return found._replace(turnoff=last, sampling_error=_sampling_error(mean, last, same))


def _sampling_error(mean: Floats, turnoff: float, same: float) -> float:
    """Return half the distance of the levels around the turn-off; closer ones are its repeats."""
    levels = np.sort(mean[np.isfinite(mean)])
    levels = levels[(np.abs(levels - turnoff) > same * turnoff) | (levels == turnoff)]
    index = int(np.searchsorted(levels, turnoff))
    if len(levels) == 1:
        return float("nan")
    if index == 0:
        return float(levels[1] - levels[0])
    if index + 1 == len(levels):
        return float(levels[index] - levels[index - 1])
    return float(levels[index + 1] - levels[index - 1]) / 2


def level_numbers(means: Floats) -> NDArray[np.int64]:
    """Return the number, from 0 on, of the level of signal that each mean belongs to.

    Parameters
    ----------
    means : array, (pair), float64, adu
        Positive and ascending.

    Returns
    -------
    array, (pair), int64
        A level ends where a mean is more than 2 % of its first, and 1 % of the largest of all,
        above its first.

    Examples
    --------
    >>> level_numbers(np.array([1.0, 2.0, 100.0, 101.0, 150.0, 150.1])).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    numbers = np.zeros(len(means), dtype=np.int64)
    number, first = -1, 0.0
    for index, mean in enumerate(means.tolist()):
        if number < 0 or mean - first > max(SAME_LEVEL * first, SAME_PART * means[-1]):
            number, first = number + 1, mean
        numbers[index] = number
    return numbers


def _first_window(means: Floats, parameters: TurnoffParameters) -> int:
    """Return how many of the ascending means the window starts with."""
    start = int(np.sum(means < parameters.start_fraction * means[-1]))
    wanted = parameters.minimum_points
    levels = level_numbers(means)
    if start >= wanted and levels[start - 1] + 1 >= wanted:
        return start
    # a coarse curve starts a little higher, but never where it may already turn
    highest = int(np.sum(means < SPARSE_FRACTION * means[-1]))
    return min(int(np.sum(levels < wanted)), highest)


def _robust(
    mean: Floats,
    variance: Floats,
    good: Booleans,
    relative_sigma: Floats | None,
    parameters: TurnoffParameters,
) -> Turnoff:
    order = np.flatnonzero(good)[np.argsort(mean[good], kind="stable")]
    means, variances = mean[order], variance[order]
    start = _first_window(means, parameters)
    levels = int(level_numbers(means)[start - 1]) + 1 if start else 0
    if start < parameters.minimum_points or levels < MINIMUM_LEVELS:
        return _failed(
            len(mean),
            f"{start} of {len(means)} usable pairs, at {levels} levels, lie below "
            f"{SPARSE_FRACTION:g} of the largest mean ({means[-1]:.6g} adu); "
            f"{parameters.minimum_points} are needed, at {MINIMUM_LEVELS} levels",
        )
    first = np.array([-2e-6, float(np.median(means[:start] / variances[:start])), 30.0])
    scatter = np.full(len(means), parameters.fraction)
    if relative_sigma is not None:
        scatter = np.hypot(scatter, np.asarray(relative_sigma, dtype=np.float64)[order])
        first = fit_window(means[:start], variances[:start], scatter, parameters.huber, first)
    else:
        for _ in range(SCATTER_ROUNDS):
            first = fit_window(means[:start], variances[:start], scatter, parameters.huber, first)
            deviation = relative_residuals(means[:start], variances[:start], first)
            measured = 1.4826 * float(np.median(np.abs(deviation)))
            scatter = np.full(len(means), max(parameters.fraction, measured))
    stop, fitted = grow_window(
        means, variances, scatter, parameters.huber, parameters.cut, start, first
    )
    a_00, gain, noise = (float(value) for value in fitted)
    deviation = relative_residuals(means, variances, fitted)
    # read noise is not the same in every pair: at low signal this is most of the variance
    unsteady = parameters.noise_fraction * abs(noise) / gain**2 / variances * (1 + deviation)
    keep = np.zeros(len(mean), dtype=bool)
    keep[order[:stop]] = (np.abs(deviation) < parameters.cut * np.hypot(scatter, unsteady))[:stop]
    if keep.sum() < 3:
        return _failed(len(mean), f"only {keep.sum()} of {len(means)} usable pairs fit a curve")
    nan = float("nan")
    return Turnoff(keep, nan, nan, a_00, gain, noise, float(np.median(scatter)), "")


def _legacy_model(values: Floats, mean: Floats) -> Floats:
    a_00, gain, noise = values
    return np.asarray(mean / gain * growth(2 * a_00 * gain * mean) + noise / gain**2)


def _legacy(
    mean: Floats, variance: Floats, good: Booleans, parameters: TurnoffParameters
) -> Turnoff:
    order = np.argsort(mean, kind="stable")  # NaN last
    means, variances, usable = mean[order], variance[order], good[order]
    scale = float(np.median(means[usable] / variances[usable])) if parameters.scale_by_gain else 1.0
    limit, jump = parameters.first_signal / scale, parameters.largest_jump / scale
    # the limit also applies to the variance: this is the decision being reproduced
    keep = usable & (means <= limit) & (variances <= limit)
    if not keep.any():
        return _failed(
            len(mean),
            f"no pair lies below the limit of the first fit, {limit:.6g} adu: the smallest mean "
            f"is {np.min(means[usable]):.6g} adu",
        )
    values = np.array(LEGACY_START)
    for round_number in range(max(parameters.iterations, 1)):
        values = _legacy_fit(means[keep], variances[keep])
        if not parameters.iterations:
            keep = usable
            break
        model = _legacy_model(values, np.where(usable, means, 1.0))
        residual = (variances - model) / np.sqrt(np.where(usable, variances, 1.0))
        previous, keep = keep, usable & (np.abs(residual) < parameters.cut)
        if keep.sum() < 2:
            return _failed(
                len(mean), f"{keep.sum()} of {usable.sum()} pairs survive the outlier cut"
            )
        keep = _end_at_gap(means, keep, jump)
        if round_number and np.array_equal(keep, previous):
            break
    if keep.sum() < 3:
        return _failed(len(mean), f"{keep.sum()} of {usable.sum()} pairs survive; 3 are needed")
    kept = np.zeros(len(mean), dtype=bool)
    kept[order] = keep
    nan = float("nan")
    a_00, gain, noise = (float(value) for value in values)
    return Turnoff(kept, nan, nan, a_00, gain, noise, nan, "")


def _legacy_fit(mean: Floats, variance: Floats) -> Floats:
    scale = np.array([1e-6, 1.0, 10.0])

    def residual(values: Floats) -> Floats:
        return np.asarray(_legacy_model(values * scale, mean) - variance)

    found = least_squares(
        residual,
        np.array(LEGACY_START) / scale,
        bounds=(np.array(LEGACY_LOWER) / scale, np.array(LEGACY_UPPER) / scale),
    )
    return np.asarray(found.x * scale)


def _end_at_gap(mean: Floats, keep: Booleans, jump: float) -> Booleans:
    """Drop everything from the first kept point that follows a rejected one across a wide gap."""
    kept = np.flatnonzero(keep)
    for before, here in pairwise(kept):
        if not keep[here - 1] and mean[here] - mean[before] > jump:
            ended = keep.copy()
            ended[here:] = False
            return ended
    return keep
