"""What is known about amplifiers without light: offsets and read noise, from darks and headers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.vocabulary import PairStatus

__all__ = ["HEADER_KEYS", "dark_offset", "read_noise_from_headers"]

HEADER_KEYS = (
    "LSST ISR OVERSCAN RESIDUAL SERIAL STDEV {amp}",
    "RESIDUAL STDEV {amp}",
)
"""Header keys of the standard deviation of the overscan residual, the first found counts."""


def dark_offset(dark_pairs: xr.Dataset, exposure_time: float) -> xr.Dataset:
    """Return the offset and read noise of amplifiers at an exposure time, from pairs of darks.

    Mean and variance are interpolated linearly between the exposure times of the dark pairs and
    held constant beyond them; pairs of equal time are averaged first. One level is a constant.

    Parameters
    ----------
    dark_pairs : Dataset
        ``mean`` (pair, amp; adu), ``variance`` (pair, amp; adu²), ``exposure_time`` (pair; s) and,
        if measured, ``pair_status``: pairs that are not OK or MEAN_MISMATCH are left out. Without
        light means may well be near 0 or negative: those are ILLEGAL_MEAN only for flats.
    exposure_time : float, s
        Time of the exposures to be corrected. NaN takes the shortest.

    Returns
    -------
    Dataset, (amp), float64
        ``offset`` (adu) to subtract and ``read_noise`` (adu), the square root of the variance,
        which includes the noise of the dark current. NaN where no pair is usable.

    Examples
    --------
    >>> darks = xr.Dataset({
    ...     "mean": (("pair", "amp"), [[10.0], [20.0]]),
    ...     "variance": (("pair", "amp"), [[9.0], [16.0]]),
    ...     "exposure_time": ("pair", [0.0, 10.0]),
    ... })
    >>> found = dark_offset(darks, 5.0)
    >>> float(found["offset"][0]), round(float(found["read_noise"][0]), 4)
    (15.0, 3.5355)
    """
    mean = dark_pairs["mean"].transpose(v.PAIR, v.AMP).values
    variance = dark_pairs["variance"].transpose(v.PAIR, v.AMP).values
    times = np.asarray(dark_pairs["exposure_time"].values, dtype=np.float64)
    usable = np.isfinite(mean) & np.isfinite(variance) & np.isfinite(times)[:, None]
    if "pair_status" in dark_pairs:
        status = dark_pairs["pair_status"].transpose(v.PAIR, v.AMP).values
        usable &= np.isin(status, [PairStatus.OK, PairStatus.MEAN_MISMATCH])
    levels = [
        (
            _interpolated(times[good], mean[good, amp], exposure_time),
            _interpolated(times[good], variance[good, amp], exposure_time),
        )
        for amp, good in enumerate(usable.T)
    ]
    offset, square = np.asarray(levels, dtype=np.float64).reshape(-1, 2).T
    adu = {"units": v.ADU}
    coordinates = {v.AMP: dark_pairs[v.AMP]} if v.AMP in dark_pairs.coords else {}
    return xr.Dataset(
        {
            "offset": (v.AMP, offset, adu | {"long_name": "mean of darks"}),
            "read_noise": (v.AMP, np.sqrt(square), adu | {"long_name": "noise of darks"}),
        },
        coords=coordinates,
    )


def _interpolated(times: NDArray[Any], values: NDArray[Any], wanted: float) -> float:
    if times.size == 0:
        return float("nan")
    levels, inverse = np.unique(times, return_inverse=True)
    averages = np.bincount(inverse, weights=values) / np.bincount(inverse)
    return float(np.interp(wanted if np.isfinite(wanted) else levels[0], levels, averages))


def read_noise_from_headers(
    headers: Sequence[Mapping[str, Any]],
    amps: Iterable[str],
    *,
    keys: Sequence[str] = HEADER_KEYS,
) -> xr.DataArray:
    """Return the read noise that headers state: the median over exposures, per amplifier.

    Parameters
    ----------
    headers : sequence of mappings
        One per exposure.
    amps : iterable of str
        Names of the amplifiers.
    keys : sequence of str
        Header keys with ``{amp}`` for the name of the amplifier; the first that a header has and
        that holds a finite number counts.

    Returns
    -------
    DataArray, (amp), float64, adu
        NaN for amplifiers that no header knows.

    Warns
    -----
    UserWarning
        Once, listing the amplifiers without read noise.

    Examples
    --------
    >>> headers = [{"RESIDUAL STDEV C00": 5.0}, {"RESIDUAL STDEV C00": 6.0}]
    >>> float(read_noise_from_headers(headers, ["C00"])[0])
    5.5
    """
    names = list(amps)
    found = np.full(len(names), np.nan)
    for index, amp in enumerate(names):
        values = [
            _first_number(header, [key.format(amp=amp) for key in keys]) for header in headers
        ]
        finite = [value for value in values if np.isfinite(value)]
        if finite:
            found[index] = np.median(finite)
    unknown = [name for name, value in zip(names, found, strict=True) if np.isnan(value)]
    if unknown:
        message = f"no header gives a read noise for {', '.join(unknown)} (keys: {', '.join(keys)})"
        warnings.warn(message, UserWarning, stacklevel=2)
    return xr.DataArray(
        found, coords={v.AMP: names}, dims=(v.AMP,), name="read_noise", attrs={"units": v.ADU}
    )


def _first_number(header: Mapping[str, Any], keys: Iterable[str]) -> float:
    for key in keys:
        try:
            value = float(header[key])
        except (KeyError, TypeError, ValueError):
            continue
        if np.isfinite(value):
            return value
    return float("nan")
