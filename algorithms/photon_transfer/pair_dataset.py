"""How measurements of a pair become a dataset, and its warnings: one for each cause."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.photon_transfer.pair_gain import NEEDS_NOISE
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.photon_transfer.photodiode import pair_photo_charge
from skyloom.algorithms.photon_transfer.quantities import Columns
from skyloom.algorithms.vocabulary import PairStatus, ReadNoiseSource

__all__ = [
    "noise_warning",
    "pair_dataset",
    "pair_label",
    "pair_scalars",
    "pair_warnings",
    "vignetting_warning",
]

MANY_SATURATED = 0.01  # fraction of pixels that a warning about something else mentions

UNITS: Mapping[str, str] = {
    "mean": v.ADU,
    "mean_delta": v.ADU,
    "variance": v.ADU2,
    "variance_sigma": v.ADU2,
    "pair_gain": v.ELECTRON_PER_ADU,
    "pair_gain_sigma": v.ELECTRON_PER_ADU,
    "read_noise": v.ADU,
    "row_mean_variance": v.ADU2,
    "histogram_variance": v.ADU2,
    "overscan_median": v.ADU,
    "amp_offset": v.ADU,
    "covariance": v.ADU2,
    "covariance_sigma": v.ADU2,
}
"""Units of measured variables; all others are numbers."""


def pair_dataset(
    columns: Columns | Mapping[str, Any],
    scalars: Mapping[str, tuple[Any, str]],
    amps: Sequence[str] | None,
) -> xr.Dataset:
    """Return the dataset of a pair; with ``amps=None`` the only amplifier loses its dimension."""
    lag_dims = (v.LAG_Y, v.LAG_X)
    variables: dict[str, Any] = {}
    for name, values in columns.items():
        attrs: dict[str, Any] = {"units": UNITS.get(name, v.DIMENSIONLESS)}
        if name == "pair_status":
            attrs |= v.flag_attributes(PairStatus)
        if name == "read_noise_source":
            attrs |= v.flag_attributes(ReadNoiseSource)
        dims = (v.AMP, *lag_dims)[: values.ndim]
        variables[name] = (dims, values, attrs) if amps else (dims[1:], values[0], attrs)
    for name, (value, unit) in scalars.items():
        variables[name] = ((), value, {"units": unit})
    coordinates: dict[str, Any] = {} if amps is None else {v.AMP: list(amps)}
    if "covariance" in columns:
        lags = np.arange(columns["covariance"].shape[-1])
        coordinates |= {name: (name, lags, {"units": "pixel"}) for name in lag_dims}
    return xr.Dataset(variables, coords=coordinates)


def pair_scalars(
    first: xr.Dataset,
    second: xr.Dataset,
    *,
    pair_key: float | None = None,
    auxiliary_keys: Sequence[str] = (),
) -> dict[str, tuple[Any, str]]:
    """Return what is known of the two exposures as ``(value, unit)``; NaN where it is not."""
    times = _number(first, "exposure_time"), _number(second, "exposure_time")
    starts = [t for t in (_number(first, "mjd_start"), _number(second, "mjd_start")) if t == t]
    charge, charge_delta = pair_photo_charge(
        _number(first, "photodiode_charge"), _number(second, "photodiode_charge")
    )
    time = 0.5 * (times[0] + times[1])
    scalars: dict[str, tuple[Any, str]] = {
        "exposure_1": (_exposure(first, -1), v.DIMENSIONLESS),
        "exposure_2": (_exposure(second, -1), v.DIMENSIONLESS),
        "exposure_time": (time, v.SECOND),
        "pair_key": (time if pair_key is None else float(pair_key), v.DIMENSIONLESS),
        "mjd_start": (min(starts, default=float("nan")), v.DAY),
        "photo_charge": (charge, v.DIMENSIONLESS),
        "photo_charge_delta": (charge_delta, v.DIMENSIONLESS),
    }
    for key in auxiliary_keys:
        scalars[f"aux_{key}"] = (_number(first, key), v.DIMENSIONLESS)
    return scalars


def _number(exposure: xr.Dataset, name: str) -> float:
    """Return a scalar coordinate or variable as a number; NaN without one."""
    if name not in exposure.variables:
        return float("nan")
    try:
        return float(exposure[name].values)
    except (TypeError, ValueError):
        return float("nan")


def _exposure(exposure: xr.Dataset, default: int) -> np.int64:
    found = exposure.variables.get(v.EXPOSURE)
    return np.int64(default if found is None else int(found.values))


def pair_warnings(
    columns: Columns,
    amps: Sequence[str],
    sizes: Sequence[int],
    parameters: ExtractParameters,
    label: str,
    *,
    stacklevel: int,
) -> None:
    """Warn once for each code, and once for variances that disagree with C_00."""
    status = columns["pair_status"]
    for code in PairStatus:
        where = np.flatnonzero(status == code)
        if code == PairStatus.OK or where.size == 0:
            continue
        text = f"{label}: {code.name} in {_names(amps, where)}"
        if code == PairStatus.TOO_FEW_PIXELS:
            counts = ", ".join(f"{columns['count'][i]} of {sizes[i]}" for i in where[:4])
            least = parameters.min_pixels // parameters.bin_size**2
            text += f" (pixels used: {counts}; needed: {least})"
        if "saturated_fraction" in columns:
            largest = float(columns["saturated_fraction"][where].max())
            text += f" (up to {largest:.1%} saturated)" if largest > MANY_SATURATED else ""
        warnings.warn(text, UserWarning, stacklevel=stacklevel)
    if "covariance" not in columns:
        return  # darks
    variance, c_00 = columns["variance"], columns["covariance"][:, 0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(variance / c_00 - 1.0)
    where = np.flatnonzero((status == PairStatus.OK) & (apart > parameters.max_variance_mismatch))
    if where.size:
        largest = float(apart[where].max())
        text = f"{label}: variance and C_00 differ by up to {largest:.2%} in {_names(amps, where)}"
        warnings.warn(text, UserWarning, stacklevel=stacklevel)


def pair_label(scalars: Mapping[str, tuple[Any, str]], exposure: xr.Dataset) -> str:
    """Return what warnings call the pair.

    Examples
    --------
    >>> scalars = {"exposure_1": (3, ""), "exposure_2": (4, "")}
    >>> pair_label(scalars, xr.Dataset(coords={"detector": "R22"}))
    'pair 3-4, detector R22'
    """
    first, second = int(scalars["exposure_1"][0]), int(scalars["exposure_2"][0])
    label = "the pair" if first < 0 and second < 0 else f"pair {first}-{second}"
    detector = exposure.coords.get(v.DETECTOR)
    return label if detector is None else f"{label}, detector {detector.values}"


def noise_warning(
    columns: Columns,
    amps: Sequence[str],
    parameters: ExtractParameters,
    label: str,
    *,
    stacklevel: int,
) -> None:
    """Warn once if a gain method lacks the read noise it needs."""
    measured = np.isfinite(columns["variance"]) & ~np.isfinite(columns["read_noise"])
    where = np.flatnonzero(measured)
    if parameters.gain_method in NEEDS_NOISE and where.size:
        text = f"{label}: no read noise for gain method {parameters.gain_method}"
        warnings.warn(f"{text} in {_names(amps, where)}", UserWarning, stacklevel=stacklevel)


def vignetting_warning(
    percents: Sequence[float], amps: Sequence[str], parameters: ExtractParameters, label: str
) -> None:
    """Warn once if more vignetting than wanted was needed to have enough pixels."""
    where = np.flatnonzero(np.asarray(percents) > parameters.vignetting_percent)
    if where.size:
        text = f"{label}: {parameters.vignetting_min_pixels} pixels needed vignetting of up to"
        text += f" {max(percents):g} percent in {_names(amps, where)}"
        warnings.warn(text, UserWarning, stacklevel=3)


def _names(amps: Sequence[str], where: Any) -> str:
    if len(amps) == len(where) > 1:
        return f"all {len(amps)} amplifiers"
    return ", ".join(amps[i] for i in where)
