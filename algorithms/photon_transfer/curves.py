"""The dataset of photon transfer curves: solutions of all amplifiers beside their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.amplifier import AmplifierSolution, Curve
from skyloom.algorithms.photon_transfer.fit import CovarianceFit
from skyloom.algorithms.photon_transfer.lattice import even_sum
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.vocabulary import (
    ADU,
    ADU2,
    AMP,
    DIMENSIONLESS,
    ELECTRON,
    ELECTRON2,
    ELECTRON_PER_ADU,
    LAG_X,
    LAG_Y,
    PAIR,
    PARAMETER,
    PER_ELECTRON,
    PER_ELECTRON2,
    AmplifierFlag,
    PairStatus,
    flag_attributes,
)

__all__ = ["PARAMETER_NAMES", "attach_solutions"]

Floats = NDArray[np.float64]
Values = dict[str, Any]

PARAMETER_NAMES: Final = ("gain", "n_00", "a_00", "a_01", "a_10", "a_11")
"""Parameters whose full covariance is kept: a_01 is lag_x 0, lag_y 1."""

PARAMETER_2: Final = f"{PARAMETER}_2"

AMPLIFIER_UNITS: Final = {
    "gain": ELECTRON_PER_ADU,
    "gain_sigma": ELECTRON_PER_ADU,
    "noise": ELECTRON,
    "noise_sigma": ELECTRON,
    "turnoff": ADU,
    "turnoff_sampling_error": ADU,
    "turnoff_scatter": DIMENSIONLESS,
    "rolloff": ADU,
    "rolloff_sigma": ADU,
    "rolloff_start": ADU,
    "rolloff_start_sigma": ADU,
    "rolloff_scale": ADU,
    "rolloff_scale_sigma": ADU,
    "chi2": DIMENSIONLESS,
    "sum_a": PER_ELECTRON,
    "sum_a_sigma": PER_ELECTRON,
    "read_noise_median": ADU,
    "overscan_median_median": ADU,
    "overscan_median_mad": ADU,
}
LAG_UNITS: Final = {
    "a": PER_ELECTRON,
    "a_sigma": PER_ELECTRON,
    "b": PER_ELECTRON,
    "b_sigma": PER_ELECTRON,
    "c": PER_ELECTRON2,
    "c_sigma": PER_ELECTRON2,
    "noise_matrix": ELECTRON2,
    "noise_matrix_sigma": ELECTRON2,
    "chi2_lag": DIMENSIONLESS,
}


def attach_solutions(
    pairs: xr.Dataset,
    curves: Sequence[Curve],
    solutions: Sequence[AmplifierSolution],
    *,
    fitted: int,
    model: str,
) -> xr.Dataset:
    """Put what the solve found beside the pairs it was found from.

    Parameters
    ----------
    pairs : Dataset, (pair, amp, lag_y, lag_x)
        Assembled pairs.
    curves : sequence of Curve
        Their arrays, one for each amplifier.
    solutions : sequence of AmplifierSolution
        Their solutions.
    fitted : int
        Number of lags on each axis that were fitted; matrices are NaN beyond.
    model : str
        Name of the model.

    Returns
    -------
    Dataset, (pair, amp, lag_y, lag_x)
        See `solve`.

    Examples
    --------
    >>> empty = (("pair", "amp"), np.zeros((0, 0)))
    >>> pairs = xr.Dataset({"mean": empty}, coords={"lag_y": [0], "lag_x": [0]})
    >>> attach_solutions(pairs, [], [], fitted=1, model="exp00").attrs["model"]
    'exp00'
    """
    lags = (pairs.sizes[LAG_Y], pairs.sizes[LAG_X])
    number, amplifiers = pairs.sizes[PAIR], len(solutions)
    names = len(PARAMETER_NAMES)
    per_amp = {name: np.full(amplifiers, np.nan) for name in AMPLIFIER_UNITS}
    per_lag = {name: np.full((amplifiers, *lags), np.nan) for name in LAG_UNITS}
    dof, flag = np.zeros(amplifiers, np.int64), np.zeros(amplifiers, np.int32)
    status, used = np.zeros((number, amplifiers), np.uint8), np.zeros((number, amplifiers), bool)
    chi2_pair = np.full((number, amplifiers), np.nan)
    predicted = np.full((number, amplifiers, *lags), np.nan)
    value = np.full((amplifiers, names), np.nan)
    error = np.full((amplifiers, names, names), np.nan)
    for index, (curve, solution) in enumerate(zip(curves, solutions, strict=True)):
        status[:, index], used[:, index] = solution.status, solution.used
        flag[index] = int(solution.flag)
        found = _curve_values(solution) | _overscan(pairs, index, solution)
        found["read_noise_median"] = curve.read_noise
        if solution.fit is not None:
            inside = (slice(fitted), slice(fitted))
            matrices, numbers = _fit_values(solution.fit, solution.sigma_scale)
            found |= numbers
            for name, matrix in matrices.items():
                per_lag[name][index, *inside] = matrix
            square = (
                (curve.covariance[solution.used] - solution.fit.model) / solution.fit.sigma
            ) ** 2
            per_lag["chi2_lag"][index, *inside] = np.nansum(square, axis=0)
            chi2_pair[solution.used, index] = np.nansum(square, axis=(1, 2))
            dof[index] = solution.fit.dof
            predicted[:, index, *inside] = _predicted(
                curve.mean, solution.used, solution.fit, model
            )
            value[index], error[index] = _named(solution.fit, solution.sigma_scale)
        for name, number_found in found.items():
            per_amp[name][index] = number_found
    lagged = (AMP, LAG_Y, LAG_X)
    return (
        pairs.drop_vars([name for name in per_amp if name in pairs])
        .assign(
            {name: (AMP, per_amp[name], {"units": unit}) for name, unit in AMPLIFIER_UNITS.items()}
            | {name: (lagged, per_lag[name], {"units": unit}) for name, unit in LAG_UNITS.items()}
            | {
                "dof": (AMP, dof, {"units": DIMENSIONLESS}),
                "amp_flag": (AMP, flag, flag_attributes(AmplifierFlag)),
                "pair_status": ((PAIR, AMP), status, flag_attributes(PairStatus)),
                "used": ((PAIR, AMP), used),
                "chi2_pair": ((PAIR, AMP), chi2_pair, {"units": DIMENSIONLESS}),
                "covariance_model": ((PAIR, *lagged), predicted, {"units": ADU2}),
                "parameter_value": ((AMP, PARAMETER), value, {"units": DIMENSIONLESS}),
                "parameter_covariance": (
                    (AMP, PARAMETER, PARAMETER_2),
                    error,
                    {"units": DIMENSIONLESS},
                ),
            }
        )
        .assign_coords({PARAMETER: list(PARAMETER_NAMES), PARAMETER_2: list(PARAMETER_NAMES)})
        .assign_attrs(model=model)
    )


def _curve_values(solution: AmplifierSolution) -> Values:
    values: Values = {}
    if solution.turnoff is not None:
        values["turnoff"] = solution.turnoff.turnoff
        values["turnoff_sampling_error"] = solution.turnoff.sampling_error
        values["turnoff_scatter"] = solution.turnoff.scatter
    if solution.rolloff is not None:
        values["rolloff"] = solution.rolloff.rolloff
        values["rolloff_sigma"] = solution.rolloff.rolloff_sigma
        values["rolloff_start"] = solution.rolloff.start
        values["rolloff_start_sigma"] = solution.rolloff.start_sigma
        values["rolloff_scale"] = solution.rolloff.scale
        values["rolloff_scale_sigma"] = solution.rolloff.scale_sigma
    return values


def _overscan(pairs: xr.Dataset, index: int, solution: AmplifierSolution) -> Values:
    if "overscan_median" not in pairs:
        return {}
    levels = pairs["overscan_median"].to_numpy()[solution.used, index]
    levels = levels[np.isfinite(levels)]
    if not len(levels):
        return {}
    median = float(np.median(levels))
    mad = 1.4826 * float(np.median(np.abs(levels - median)))
    return {"overscan_median_median": median, "overscan_median_mad": mad}


def _fit_values(fit: CovarianceFit, scale: float) -> tuple[Values, Values]:
    """Return matrices and numbers of a fit under the names of the dataset."""
    lags = len(fit.a)
    end = 1 + lags**2
    sigma = scale * np.sqrt(np.diag(fit.covariance))
    noise_sigma = scale * np.sqrt(fit.noise_covariance)
    matrices: Values = {
        "a": fit.a,
        "a_sigma": sigma[1:end].reshape(lags, lags),
        "noise_matrix": fit.noise,
        "noise_matrix_sigma": noise_sigma,
    }
    if fit.c is not None:
        matrices["c"], matrices["c_sigma"] = fit.c, sigma[end:].reshape(lags, lags)
        matrices["b"], matrices["b_sigma"] = _drift(fit, scale)
    noise = float(fit.noise[0, 0])
    noise = float(np.sqrt(noise)) if noise > 0 else float("nan")
    numbers: Values = {
        "gain": fit.gain,
        "gain_sigma": sigma[0],
        "noise": noise,
        "noise_sigma": float(noise_sigma[0, 0]) / (2 * noise),
        "chi2": fit.chi2,
        "sum_a": even_sum(fit.a),
        "sum_a_sigma": _sum_sigma(fit, scale),
    }
    return matrices, numbers


def _sum_sigma(fit: CovarianceFit, scale: float) -> float:
    """Return the error of the sum of a over all images of its quadrant."""
    lags = len(fit.a)
    axis = np.where(np.arange(lags) > 0, 2.0, 1.0)
    images = np.outer(axis, axis).ravel()
    block = fit.covariance[1 : 1 + lags**2, 1 : 1 + lags**2]
    return scale * float(np.sqrt(images @ block @ images))


def _drift(fit: CovarianceFit, scale: float) -> tuple[Floats, Floats]:
    """Return b = c / a and its error, NaN where a is not significant."""
    assert fit.c is not None
    lags = len(fit.a)
    coefficient = 1 + np.arange(lags**2)
    variance = np.diag(fit.covariance)
    a, c = fit.a.ravel(), fit.c.ravel()
    a_variance = scale**2 * variance[coefficient]
    c_variance = scale**2 * variance[coefficient + lags**2]
    shared = scale**2 * fit.covariance[coefficient, coefficient + lags**2]
    significant = np.abs(a) >= 2 * np.sqrt(a_variance)
    divisor = np.where(significant, a, np.nan)
    square = c_variance / divisor**2 + c**2 * a_variance / divisor**4 - 2 * c * shared / divisor**3
    return (c / divisor).reshape(lags, lags), np.sqrt(square).reshape(lags, lags)


def _predicted(mean: Floats, used: NDArray[np.bool_], fit: CovarianceFit, model: str) -> Floats:
    """Return the model at every finite mean; the fit has it already where it was used."""
    values = np.full((len(mean), *fit.a.shape), np.nan)
    values[used] = fit.model
    others = np.isfinite(mean) & ~used
    if others.any():
        values[others] = model_covariance(
            fit.a, fit.gain, fit.noise, mean[others], c=fit.c, model=model
        )
    return values


def _named(fit: CovarianceFit, scale: float) -> tuple[Floats, Floats]:
    """Return values and covariance of the named parameters; NaN for lags that do not exist."""
    lags = len(fit.a)
    value = np.full(len(PARAMETER_NAMES), np.nan)
    error = np.full((len(value), len(value)), np.nan)
    vector = np.concatenate([[fit.gain], fit.a.ravel()])
    place = {0: 0, 2: 1} if lags == 1 else {0: 0, 2: 1, 3: 1 + lags, 4: 2, 5: 2 + lags}
    value[1], error[1, 1] = fit.noise[0, 0], fit.noise_covariance[0, 0]
    for row, source in place.items():
        value[row] = vector[source]
        error[row, 1] = error[1, row] = fit.noise_by_parameter[0, source]
        for column, other in place.items():
            error[row, column] = fit.covariance[source, other]
    return value, scale**2 * error
