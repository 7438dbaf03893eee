"""The products of skyloom: which dimensions, variables, dtypes and units each one has.

Fill values mean "no data": NaN, 255 NOT_MEASURED, a count of 0, never a number that
looks measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from skyloom.algorithms import vocabulary as v
from skyloom.storage.dataset_schema import ProductSchema, Variable, schema_problems, validate
from skyloom.storage.dcr_schemas import DCR_SCHEMAS
from skyloom.storage.flat_schemas import FLAT_SCHEMAS
from skyloom.storage.frame_schemas import FRAME_SCHEMAS
from skyloom.storage.match_schemas import MATCH_SCHEMAS
from skyloom.storage.sky_schemas import SKY_SCHEMAS
from skyloom.storage.warp_schemas import WARP_SCHEMAS

__all__ = [
    "BRIGHTER_FATTER",
    "DARK_PAIRS",
    "FLAT_PAIRS",
    "PTC",
    "SCHEMAS",
    "ProductSchema",
    "Variable",
    "flat_pairs_schema",
    "ptc_schema",
    "raw_schema",
    "schema_problems",
    "validate",
]


def _variables(
    dims: Sequence[str], rows: Iterable[tuple[str, str, str]], **common: Any
) -> tuple[Variable, ...]:
    """Return variables of equal dims from ``(name, unit, description)`` rows."""
    return tuple(
        Variable(name, tuple(dims), unit=unit, description=description, **common)
        for name, unit, description in rows
    )


_PAIR_IDS = (
    ("exposure_1", v.DIMENSIONLESS, "id of the first exposure"),
    ("exposure_2", v.DIMENSIONLESS, "id of the second exposure"),
)
_PAIR_SCALARS = (
    ("exposure_time", v.SECOND, "mean of the two true exposure times"),
    ("pair_key", v.DIMENSIONLESS, "value the pair was matched on: time, flux or index"),
    ("mjd_start", v.DAY, "earlier start of the two exposures"),
    ("photo_charge", v.DIMENSIONLESS, "mean photodiode integral, as the camera delivers it"),
    ("photo_charge_delta", v.DIMENSIONLESS, "photodiode integral, second minus first"),
)
_PAIR_AMP_SHARED = (
    ("mean", v.ADU, "mean signal of the two flats"),
    ("mean_delta", v.ADU, "mean of the second flat minus the first"),
    ("variance", v.ADU2, "variance of one flat: half that of the scaled difference"),
    ("variance_sigma", v.ADU2, "standard error of the variance"),
)
_PAIR_AMP_FLAT = (
    ("pair_gain", v.ELECTRON_PER_ADU, "gain from this pair alone"),
    ("pair_gain_sigma", v.ELECTRON_PER_ADU, "standard error of the pair gain"),
    ("read_noise", v.ADU, "read noise used for the pair gain"),
    ("row_mean_variance", v.ADU2, "clipped variance of the row means of the difference"),
    ("skewness", v.DIMENSIONLESS, "skewness of the difference"),
    ("kurtosis", v.DIMENSIONLESS, "excess kurtosis of the difference"),
    ("ks_p", v.DIMENSIONLESS, "Kolmogorov-Smirnov probability of a Gaussian; 1 when off"),
    ("histogram_variance", v.ADU2, "variance of a Gaussian fitted to the histogram"),
    ("histogram_chi2_dof", v.DIMENSIONLESS, "chi-squared per degree of freedom of that fit"),
    ("overscan_median", v.ADU, "median overscan level, mean of the two exposures"),
    ("amp_offset", v.ADU, "offset subtracted, mean of the two exposures"),
    ("nonuniformity", v.DIMENSIONLESS, "<mu^2>/<mu>^2 - 1 over the amplifier"),
    ("saturated_fraction", v.DIMENSIONLESS, "fraction of saturated pixels"),
)
_LAGS = (
    ("covariance", v.ADU2, "covariance of one flat"),
    ("covariance_sigma", v.ADU2, "standard error of the covariance"),
)
_STATUS = v.flag_attributes(v.PairStatus)


def _pair_part(
    pair: Sequence[str], *, amp_rows: Iterable[tuple[str, str, str]], lags: bool
) -> tuple[Variable, ...]:
    """Return the variables measured from pairs, on given leading dimensions."""
    amp = (*pair, v.AMP)
    matrices = (*amp, v.LAG_Y, v.LAG_X)
    found = _variables(pair, _PAIR_IDS, dtype="int64", fill=-1)
    found += _variables(pair, _PAIR_SCALARS) + _variables(amp, amp_rows)
    count = "pixels used" if not lags else "pixels used for the variance"
    found += (
        Variable("count", amp, "int64", fill=0, description=count),
        Variable(
            "pair_status",
            amp,
            "uint8",
            fill=int(v.PairStatus.NOT_MEASURED),
            description="why the pair is used or not",
            flags=_STATUS,
        ),
    )
    if lags:
        found += _variables(matrices, _LAGS)
        found += (
            Variable(
                "read_noise_source",
                amp,
                "uint8",
                fill=int(v.ReadNoiseSource.NONE),
                description="where the read noise is known from",
                flags=v.flag_attributes(v.ReadNoiseSource),
            ),
            Variable("covariance_count", matrices, "int64", fill=0, description="pixel pairs used"),
        )
    return found


def _auxiliary(pair: Sequence[str], keys: Iterable[str]) -> tuple[Variable, ...]:
    return tuple(
        Variable(f"aux_{key}", tuple(pair), description=f"header value {key}", optional=True)
        for key in keys
    )


def raw_schema(dtype: str) -> ProductSchema:
    """Return the schema of raw exposures in one pixel type.

    Parameters
    ----------
    dtype : {"uint16", "int32", "float32"}
        Pixel type of the camera's files.

    Raises
    ------
    ValueError
        For any other pixel type.

    Examples
    --------
    >>> raw_schema("uint16").variable("image").fill
    65535
    """
    # Padding and unwritten pixels must not look like a dark sky: saturated or impossible.
    fills: dict[str, float | int] = {
        "uint16": 65535,
        "int32": int(np.iinfo(np.int32).min),
        "float32": float("nan"),
    }
    if dtype not in fills:
        raise ValueError(f"dtype must be one of {', '.join(fills)}, not {dtype!r}")
    image = Variable(
        "image",
        (v.EXPOSURE, v.DETECTOR, v.Y, v.X),
        dtype,
        v.ADU,
        fills[dtype],
        "raw pixels as read out",
        codec="image",
    )
    return ProductSchema(
        "raw",
        (v.EXPOSURE, v.DETECTOR, v.Y, v.X),
        (v.EXPOSURE, v.DETECTOR),
        (image,),
        step="ingest",
        scalar_coords=True,
        description="raw exposures, one block per exposure and detector",
    )


def flat_pairs_schema(auxiliary: Sequence[str] = ()) -> ProductSchema:
    """Return the schema of measured flat pairs, with auxiliary header values if wanted.

    Parameters
    ----------
    auxiliary : sequence of str
        Keys of auxiliary header values; each becomes a variable ``aux_<key>``.

    Examples
    --------
    >>> flat_pairs_schema(["CCDTEMP"]).variable("aux_CCDTEMP").dims
    ('pair', 'detector')
    """
    pair = (v.PAIR, v.DETECTOR)
    variables = _pair_part(pair, amp_rows=_PAIR_AMP_SHARED + _PAIR_AMP_FLAT, lags=True)
    return ProductSchema(
        "flat_pairs",
        (*pair, v.AMP, v.LAG_Y, v.LAG_X),
        pair,
        variables + _auxiliary(pair, auxiliary),
        description="means, variances and covariances of flat pairs",
    )


def ptc_schema(auxiliary: Sequence[str] = (), *, long_range: bool = False) -> ProductSchema:
    """Return the schema of photon transfer curves, with auxiliary header values if wanted.

    Parameters
    ----------
    auxiliary : sequence of str
        As for `flat_pairs_schema`.
    long_range : bool
        Whether long-range covariances are subtracted, whose polynomials are kept then.

    Examples
    --------
    >>> ptc_schema().variable("mean").dims
    ('detector', 'pair', 'amp')
    """
    detector = (v.DETECTOR,)
    pair, amp = (v.DETECTOR, v.PAIR), (v.DETECTOR, v.AMP)
    pair_amp, matrices = (*pair, v.AMP), (*amp, v.LAG_Y, v.LAG_X)
    variables = _pair_part(pair, amp_rows=_PAIR_AMP_SHARED + _PAIR_AMP_FLAT, lags=True)
    variables += _variables(amp, _PTC_AMP) + _variables(matrices, _PTC_MATRICES)
    variables += _variables(pair_amp, (("chi2_pair", "", "chi-squared of the pair"),))
    variables += (
        Variable("used", pair_amp, "bool", fill=False, description="pair entered the fit"),
        Variable("dof", amp, "int64", fill=0, description="degrees of freedom of the fit"),
        Variable(
            "amp_flag",
            amp,
            "int32",
            fill=int(v.AmplifierFlag.NO_DATA),
            description="what the solve found wrong with the amplifier",
            flags=v.flag_attributes(v.AmplifierFlag),
        ),
        Variable(
            "covariance_model",
            (*pair_amp, v.LAG_Y, v.LAG_X),
            unit=v.ADU2,
            description="covariance of the fitted model",
        ),
        Variable(
            "parameter_value", (*amp, v.PARAMETER), description="fitted value of each parameter"
        ),
        Variable(
            "parameter_covariance",
            (*amp, v.PARAMETER, "parameter_2"),
            description="covariance of the fitted parameters",
        ),
    )
    dims: tuple[str, ...] = (*detector, v.PAIR, v.AMP, v.LAG_Y, v.LAG_X, v.PARAMETER, "parameter_2")
    if long_range:
        dims += (v.COEFFICIENT,)
        background = Variable(
            "covariance_background",
            (*pair_amp, v.COEFFICIENT),
            unit=v.ADU2,
            description="polynomial in lag that was subtracted from the covariances",
        )
        variables += (background,)
    return ProductSchema(
        "ptc",
        dims,
        detector,
        variables + _auxiliary(pair, auxiliary),
        growable=(v.PAIR,),
        description="photon transfer curves: the pairs and what was fitted to them",
    )


_PTC_AMP = (
    ("gain", v.ELECTRON_PER_ADU, "gain"),
    ("gain_sigma", v.ELECTRON_PER_ADU, "standard error of the gain"),
    ("noise", v.ELECTRON, "read noise; NaN if the fitted noise variance is not positive"),
    ("noise_sigma", v.ELECTRON, "standard error of the read noise"),
    ("turnoff", v.ADU, "mean signal above which the variance falls"),
    ("turnoff_sampling_error", v.ADU, "half the distance of the means around the turn-off"),
    ("turnoff_scatter", v.DIMENSIONLESS, "relative error of the variance that decided it"),
    ("rolloff", v.ADU, "mean signal above which the roll-off exceeds its limit"),
    ("rolloff_sigma", v.ADU, "standard error of the roll-off"),
    ("rolloff_start", v.ADU, "mean signal at which the roll-off model sets in"),
    ("rolloff_start_sigma", v.ADU, "standard error of the start of the roll-off"),
    ("rolloff_scale", v.ADU, "scale length of the roll-off model"),
    ("rolloff_scale_sigma", v.ADU, "standard error of the scale length"),
    ("chi2", v.DIMENSIONLESS, "chi-squared of the fit"),
    ("read_noise_median", v.ADU, "median read noise of the used pairs"),
    ("overscan_median_median", v.ADU, "median overscan level of the used pairs"),
    ("overscan_median_mad", v.ADU, "1.4826 times its median absolute deviation"),
    ("sum_a", v.PER_ELECTRON, "sum of a over all lags, both signs"),
    ("sum_a_sigma", v.PER_ELECTRON, "standard error of that sum"),
)
_PTC_MATRICES = (
    ("a", v.PER_ELECTRON, "area change of a pixel per electron in a neighbour"),
    ("a_sigma", v.PER_ELECTRON, "standard error of a"),
    ("b", v.PER_ELECTRON, "time dependence of the area change"),
    ("b_sigma", v.PER_ELECTRON, "standard error of b"),
    ("c", v.PER_ELECTRON2, "a times b"),
    ("c_sigma", v.PER_ELECTRON2, "standard error of c"),
    ("noise_matrix", v.ELECTRON2, "covariance at zero signal"),
    ("noise_matrix_sigma", v.ELECTRON2, "standard error of the noise matrix"),
    ("chi2_lag", v.DIMENSIONLESS, "chi-squared of the lag"),
)
_DARK_AMP = tuple(
    (name, unit, text.replace("flats", "darks").replace("flat", "dark"))
    for name, unit, text in _PAIR_AMP_SHARED
)

FLAT_PAIRS: Final = flat_pairs_schema()
PTC: Final = ptc_schema()
DARK_PAIRS: Final = ProductSchema(
    "dark_pairs",
    (v.PAIR, v.DETECTOR, v.AMP),
    (v.PAIR, v.DETECTOR),
    _pair_part((v.PAIR, v.DETECTOR), amp_rows=_DARK_AMP, lags=False),
    description="means and variances of dark or bias pairs",
)
BRIGHTER_FATTER: Final = ProductSchema(
    "brighter_fatter",
    (v.DETECTOR, v.AMP, v.KERNEL_Y, v.KERNEL_X),
    (v.DETECTOR,),
    (
        Variable(
            "kernel",
            (v.DETECTOR, v.AMP, v.KERNEL_Y, v.KERNEL_X),
            unit=v.PER_ELECTRON,
            description="brighter-fatter kernel of the amplifier",
        ),
        Variable(
            "kernel_valid",
            (v.DETECTOR, v.AMP),
            "bool",
            fill=False,
            description="the kernel passed its checks",
        ),
        Variable(
            "detector_kernel",
            (v.DETECTOR, v.KERNEL_Y, v.KERNEL_X),
            unit=v.PER_ELECTRON,
            description="mean kernel of the detector's valid amplifiers",
        ),
    ),
    description="brighter-fatter kernels",
)
SCHEMAS: Final[Mapping[str, ProductSchema]] = {
    schema.name: schema
    for schema in (
        raw_schema("float32"),
        *FRAME_SCHEMAS,
        *FLAT_SCHEMAS,
        *SKY_SCHEMAS,
        *WARP_SCHEMAS,
        *MATCH_SCHEMAS,
        *DCR_SCHEMAS,
        DARK_PAIRS,
        FLAT_PAIRS,
        PTC,
        BRIGHTER_FATTER,
    )
}
"""Every product that skyloom writes, by name."""
