"""The columns of the reference's photon-transfer tables, and what they are called here.

One row is one amplifier. Values per pair are vector columns of the number of pairs. Covariances
and matrices are flattened in the order [pair, x, y], the transpose of our (pair, lag_y, lag_x).
Column names and versions are those of the public dataset class, version 2.6.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AMPLIFIER_VALUES",
    "AUXILIARY",
    "FIT_TYPES",
    "FIT_TYPE_MODELS",
    "PAIR_AMPLIFIER_VALUES",
    "PAIR_VALUES",
    "VERSION",
]

VERSION: Final = 2.6
"""Version that is written."""

AMPLIFIER_VALUES: Final = {
    "gain": "GAIN",
    "gain_sigma": "GAIN_ERR",
    "noise": "NOISE",
    "noise_sigma": "NOISE_ERR",
    "turnoff": "PTC_TURNOFF",
    "turnoff_sampling_error": "PTC_TURNOFF_SAMPLING_ERROR",
    "rolloff": "PTC_ROLLOFF",
    "rolloff_sigma": "PTC_ROLLOFF_ERROR",
    "overscan_median_median": "OVERSCAN_MEDIAN",
    "overscan_median_mad": "OVERSCAN_MEDIAN_SIGMA",
}
"""One number per amplifier, in equal units."""

PAIR_AMPLIFIER_VALUES: Final = {
    "mean": "RAW_MEANS",
    "mean_delta": "RAW_DELTAS",
    "variance": "RAW_VARS",
    "pair_gain": "GAIN_LIST",
    "read_noise": "NOISE_LIST",
    "row_mean_variance": "ROW_MEAN_VARIANCE",
    "histogram_variance": "HIST_VARS",
    "histogram_chi2_dof": "HIST_CHI2_DOFS",
    "ks_p": "KS_PVALUES",
    "overscan_median": "OVERSCAN_MEDIAN_LIST",
    "amp_offset": "AMP_OFFSETS",
}
"""One number per pair and amplifier, in equal units."""

PAIR_VALUES: Final = {
    "exposure_time": "RAW_EXP_TIMES",
    "mjd_start": "INPUT_EXP_PAIR_MJD_START",
    "photo_charge": "PHOTO_CHARGE",
    "photo_charge_delta": "PHOTO_CHARGE_DELTAS",
}
"""One number per pair, repeated in the row of every amplifier."""

FIT_TYPES: Final = {
    "exact": "FULLCOVARIANCE_NO_B",
    "exact_b": "FULLCOVARIANCE",
    "series4": "FULLCOVARIANCE",
    "series4_no_b": "FULLCOVARIANCE_NO_B",
    "exp00": "EXPAPPROXIMATION",
    "linear": "EXPAPPROXIMATION",
}
"""What the reference calls the models; it knows the exact ones by their series only."""

FIT_TYPE_MODELS: Final = {
    "FULLCOVARIANCE": "series4",
    "FULLCOVARIANCE_NO_B": "series4_no_b",
    "EXPAPPROXIMATION": "exp00",
}
"""The model that the reference fitted; other types, such as PARTIAL, fitted none."""

AUXILIARY: Final = "PTCAUX_"
"""Start of the names of columns with auxiliary header values, one per pair."""
