"""From sums over pixels to what is known about each amplifier of a pair, all at once.

Clipping is undone exactly for a Gaussian: with the half width T that was applied, the variance
left is s² = σ² f(T/σ), solved for σ. A covariance loses f once for each of its two pixels, the
variance f only once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.clip_correction import unclipped_variance
from skyloom.algorithms.photon_transfer.gaussianity import (
    higher_moments,
    moments_test,
    truncated_kurtosis,
)
from skyloom.algorithms.photon_transfer.measurement import PairSums
from skyloom.algorithms.photon_transfer.pair_gain import gain_of_pairs
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.vocabulary import PairStatus

__all__ = ["Columns", "dark_columns", "pair_columns"]

Columns = dict[str, NDArray[np.float64] | NDArray[np.int64] | NDArray[np.uint8]]
Floats = NDArray[np.float64]


def pair_columns(
    sums: Sequence[PairSums], read_noise: Floats, parameters: ExtractParameters
) -> Columns:
    """Return the measured variables of a pair, arrays over ``amp`` (and lags).

    Parameters
    ----------
    sums : sequence of PairSums
        One per amplifier.
    read_noise : ndarray, (amp,), adu
    parameters : ExtractParameters
    """
    columns = _means_and_variances(sums)
    columns["read_noise"] = read_noise
    _add_covariances(columns, sums, parameters)
    moments = [higher_moments(s.used, s.powers) for s in sums]
    columns["skewness"] = _column(m.skewness for m in moments)
    columns["kurtosis"] = _column(
        m.kurtosis - _expected_kurtosis(s.reach, variance)
        for m, s, variance in zip(moments, sums, columns["variance"], strict=True)
    )
    tests = [s.gaussian for s in sums]
    columns["ks_p"] = _column(1.0 if t is None else t.ks_p for t in tests)
    columns["histogram_variance"] = _column(np.nan if t is None else t.variance / 2 for t in tests)
    columns["histogram_chi2_dof"] = _column(np.nan if t is None else t.chi2_dof for t in tests)
    columns["row_mean_variance"] = _column(s.row_mean_variance for s in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        product = _column(s.mean_1 for s in sums) * _column(s.mean_2 for s in sums)
        columns["nonuniformity"] = _column(s.common for s in sums) / product
    status = _pair_status(columns, parameters)
    columns["pair_status"] = status
    unmeasured = np.isin(status, [PairStatus.ILLEGAL_MEAN, PairStatus.TOO_FEW_PIXELS])
    _blank(columns, unmeasured)
    columns["pair_gain"], columns["pair_gain_sigma"] = gain_of_pairs(
        columns["mean"],
        columns["variance"],
        columns["mean_delta"],
        read_noise,
        _column(s.ratio for s in sums),
        columns["count"],
        method=parameters.gain_method,
        bf_a_00=parameters.bf_a_00,
    )
    return columns


def _expected_kurtosis(reach: float, variance: float) -> float:
    """Return the excess kurtosis that the clip leaves of a Gaussian; ``variance`` of one flat."""
    if not (variance > 0.0 and np.isfinite(reach)):
        return 0.0
    return truncated_kurtosis(reach / math.sqrt(2.0 * variance))


def dark_columns(sums: Sequence[PairSums], parameters: ExtractParameters) -> Columns:
    """Return the measured variables of a pair of darks, arrays over ``amp``."""
    columns = _means_and_variances(sums)
    finite = np.isfinite(columns["mean"])
    few = columns["count"] < parameters.min_pixels
    columns["pair_status"] = np.select(
        [~finite, few, ~np.isfinite(columns["variance"])],
        [PairStatus.ILLEGAL_MEAN, PairStatus.TOO_FEW_PIXELS, PairStatus.NONFINITE_STAT],
        PairStatus.OK,
    ).astype(np.uint8)
    _blank(columns, ~finite | few)
    return columns


def _column(values: object) -> Floats:
    return np.fromiter(values, dtype=np.float64)  # type: ignore[call-overload, no-any-return]


def _means_and_variances(sums: Sequence[PairSums]) -> Columns:
    first, second = _column(s.mean_1 for s in sums), _column(s.mean_2 for s in sums)
    used = _column(s.used for s in sums)
    clipped, half_width = _column(s.variance for s in sums), _column(s.half_width for s in sums)
    variance = 0.5 * unclipped_variance(clipped, half_width)
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = variance * np.sqrt(2.0 / used)
    return {
        "mean": 0.5 * (first + second),
        "mean_delta": second - first,
        "variance": variance,
        "variance_sigma": np.where(variance > 0.0, sigma, np.nan),
        "count": used.astype(np.int64),
    }


def _add_covariances(
    columns: Columns, sums: Sequence[PairSums], parameters: ExtractParameters
) -> None:
    """Add covariances, undone for clipping, with errors and counts."""
    shape = (len(sums), parameters.lags, parameters.lags)
    covariance, count = np.full(shape, np.nan), np.zeros(shape, np.int64)
    for index, s in enumerate(sums):
        if s.covariance is not None and s.covariance_count is not None:
            covariance[index], count[index] = s.covariance, s.covariance_count
    n = _column(s.used for s in sums)
    first = _column(s.powers[0] for s in sums)
    second = _column(s.powers[1] for s in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = np.maximum((second - first**2 / n) / (n - 1.0), 0.0)
        factor = kept / unclipped_variance(kept, _column(s.reach for s in sums))
        factor = np.where(np.isfinite(factor), factor, 1.0)  # without spread nothing was clipped
        covariance[:, 0, 0] *= factor
        covariance /= (factor**2)[:, None, None]
        variance = np.where(covariance[:, :1, :1] > 0.0, covariance[:, :1, :1], np.nan)
        sigma = variance / np.sqrt(count)
    sigma[:, 0, 0] *= np.sqrt(2.0)
    columns["covariance"] = covariance
    columns["covariance_sigma"] = np.where(count > 0, sigma, np.nan)
    columns["covariance_count"] = count


def _pair_status(columns: Columns, parameters: ExtractParameters) -> NDArray[np.uint8]:
    """Return the code of the first thing that is wrong with each amplifier."""
    mean, delta, count = columns["mean"], columns["mean_delta"], columns["count"]
    variance, covariance = columns["variance"], columns["covariance"]
    lower, upper = mean - 0.5 * np.abs(delta), mean + 0.5 * np.abs(delta)
    illegal = ~(np.isfinite(upper) & (lower > 0.0))
    few = count < parameters.min_pixels / parameters.bin_size**2
    empty = (columns["covariance_count"] == 0).any(axis=(1, 2))
    nonfinite = ~(np.isfinite(variance) & (variance > 0.0))
    nonfinite |= ~(np.isfinite(covariance).all(axis=(1, 2)) & (covariance[:, 0, 0] > 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        mismatch = np.abs(delta / mean) > parameters.max_pair_mismatch
    code = np.select(
        [illegal, few, empty, nonfinite, mismatch, ~_gaussian(columns, parameters)],
        [
            PairStatus.ILLEGAL_MEAN,
            PairStatus.TOO_FEW_PIXELS,
            PairStatus.EMPTY_LAG,
            PairStatus.NONFINITE_STAT,
            PairStatus.MEAN_MISMATCH,
            PairStatus.NON_GAUSSIAN,
        ],
        PairStatus.OK,
    )
    return code.astype(np.uint8)


def _gaussian(columns: Columns, parameters: ExtractParameters) -> NDArray[np.bool_]:
    if parameters.gaussian_test == "none":
        return np.ones(columns["mean"].shape, np.bool_)
    if parameters.gaussian_test == "histogram":
        return columns["ks_p"] >= parameters.ks_min_p
    return np.asarray(
        [
            moments_test(
                float(skewness),
                float(kurtosis),
                float(n),
                sigma=parameters.moment_sigma,
                floor=parameters.moment_floor,
            )
            for skewness, kurtosis, n in zip(
                columns["skewness"], columns["kurtosis"], columns["count"], strict=True
            )
        ],
        dtype=np.bool_,
    )


def _blank(columns: Columns, where: NDArray[np.bool_]) -> None:
    """Set to NaN what too few pixels would only pretend to measure; means and counts stay."""
    kept = ("mean", "mean_delta", "count", "covariance_count", "pair_status", "ks_p", "read_noise")
    for name, values in columns.items():
        if name not in kept:
            values[where] = np.nan
