"""Pairs of one detector, gathered and judged before the solve.

Every (pair, amplifier) carries one status code. Codes that extraction has set stay; only what is
OK can become MEAN_OUT_OF_RANGE, NON_GAUSSIAN or NONFINITE_STAT. Values are never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.models import MODELS_OF_VARIANCE
from skyloom.algorithms.photon_transfer.solve_parameters import ALL_AMPS, SolveParameters
from skyloom.algorithms.vocabulary import (
    ADU,
    ADU2,
    AMP,
    DETECTOR,
    LAG_X,
    LAG_Y,
    PAIR,
    PairStatus,
    flag_attributes,
)

__all__ = ["assemble_pairs"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

UNITS: Final = {
    "mean": ADU,
    "variance": ADU2,
    "variance_sigma": ADU2,
    "covariance": ADU2,
    "covariance_sigma": ADU2,
    "read_noise": ADU,
}
EXPOSURE_FAILURES: Final = (PairStatus.UNPAIRED, PairStatus.NONFINITE_KEY, PairStatus.EXTRA)


def assemble_pairs(
    pairs: xr.Dataset | Sequence[xr.Dataset], *, parameters: SolveParameters | None = None
) -> xr.Dataset:
    """Gather pairs, sort them by signal and say which may be used.

    Parameters
    ----------
    pairs : Dataset or sequence of Dataset, (pair, amp[, lag_y, lag_x])
        What extraction measured on one detector; ``mean`` (adu) and ``variance`` (adu2) are
        needed. Several datasets are joined along ``pair``; what one lacks is NaN there.
    parameters : SolveParameters, optional
        Range of the mean, least p-value, and the model and its lags, which decide what
        covariances have to be finite.

    Returns
    -------
    Dataset, (pair, amp[, lag_y, lag_x])
        The pairs without those of which no amplifier was measured because the exposures do not
        form a pair, sorted by the average mean of the amplifiers (NaN last), with
        ``pair_status`` brought up to date. No pairs give an empty dataset.

    Raises
    ------
    ValueError
        If variables, dimensions or units are not as they should be; the message names them.

    Examples
    --------
    >>> pairs = xr.Dataset(
    ...     {
    ...         "mean": (("pair", "amp"), [[2e3], [1e3], [np.nan]], {"units": "adu"}),
    ...         "variance": (("pair", "amp"), [[1e3], [5e2], [1.0]], {"units": "adu2"}),
    ...     }
    ... )
    >>> parameters = SolveParameters(model="exp00", maximum_mean=1500.0)
    >>> assemble_pairs(pairs, parameters=parameters)["pair_status"][:, 0].to_numpy()
    array([ 0, 10,  7], dtype=uint8)
    """
    parameters = parameters or SolveParameters()
    joined = _joined(pairs)
    _check(joined)
    order = [name for name in (PAIR, AMP, LAG_Y, LAG_X) if name in joined.dims]
    joined = joined.transpose(*order, ...)
    mean = joined["mean"].to_numpy().astype(np.float64)
    variance = joined["variance"].to_numpy().astype(np.float64)
    if "pair_status" in joined:
        # of several datasets one may lack codes, which leaves NaN
        status = np.nan_to_num(joined["pair_status"].to_numpy()).astype(np.uint8)
    else:
        status = np.zeros(mean.shape, dtype=np.uint8)
    finite = np.isfinite(mean) & np.isfinite(variance)
    if parameters.model not in MODELS_OF_VARIANCE and "covariance" in joined:
        fitted = joined["covariance"].to_numpy()[:, :, : parameters.lags, : parameters.lags]
        finite &= np.isfinite(fitted).all(axis=(2, 3))
    status = _recode(status, ~finite, PairStatus.NONFINITE_STAT)
    if "ks_p" in joined:
        low = joined["ks_p"].to_numpy() < parameters.minimum_ks_p
        status = _recode(status, low, PairStatus.NON_GAUSSIAN)
    amplifiers = [str(name) for name in joined[AMP].to_numpy()]
    lowest, highest = (
        np.array([_limit(limit, name, default) for name in amplifiers])
        for limit, default in ((parameters.minimum_mean, 0.0), (parameters.maximum_mean, 1e6))
    )
    outside = (mean < lowest) | (mean > highest)
    status = _recode(status, outside, PairStatus.MEAN_OUT_OF_RANGE)
    attributes = flag_attributes(PairStatus)
    judged = joined.assign(pair_status=((PAIR, AMP), status, attributes))
    unpaired = np.isin(status, EXPOSURE_FAILURES)
    present = ~unpaired.all(axis=1) | (status.shape[1] == 0)
    counts = np.isfinite(mean).sum(axis=1)
    level = np.where(counts > 0, np.nansum(mean, axis=1) / np.maximum(counts, 1), np.nan)
    ordered = np.argsort(level, kind="stable")
    return judged.isel({PAIR: ordered[np.asarray(present)[ordered]]})


def _joined(pairs: xr.Dataset | Sequence[xr.Dataset]) -> xr.Dataset:
    if isinstance(pairs, xr.Dataset):
        return pairs
    if not pairs:
        raise ValueError("pairs is an empty sequence; give a dataset with dimension pair")
    return xr.concat(
        list(pairs), dim=PAIR, data_vars="all", coords="minimal", compat="override", join="outer"
    )


def _check(pairs: xr.Dataset) -> None:
    problems = [f"no variable {name}" for name in ("mean", "variance") if name not in pairs]
    if DETECTOR in pairs.dims:
        problems.append("a dimension detector: select one detector")
    problems += [f"no dimension {name}" for name in (PAIR, AMP) if name not in pairs.dims]
    for name, unit in UNITS.items():
        found = pairs[name].attrs.get("units", unit) if name in pairs else unit
        if found != unit:
            problems.append(f"{name} in {found!r} where {unit!r} is expected")
    if problems:
        raise ValueError(f"pairs cannot be solved: {'; '.join(problems)}")


def _recode(status: NDArray[np.uint8], condition: Booleans, code: PairStatus) -> NDArray[np.uint8]:
    return np.where((status == PairStatus.OK) & condition, np.uint8(code), status)


def _limit(limit: float | dict[str, float], amplifier: str, default: float) -> float:
    if not isinstance(limit, dict):
        return limit
    return limit.get(ALL_AMPS, limit.get(amplifier, default))
