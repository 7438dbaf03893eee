"""The gain of one pair of flats, in five ways.

``MOMENT`` is the mean over the variance above read noise, both clipped and of the scaled
difference: nearly unbiased. The others start from the *flat-pair ratio*
``c = <(I1 - I2)² / (I1 + I2)>`` of flats scaled to their common mean and are kept to compare with
the survey pipeline: ``NONE`` 1/c; ``READNOISE`` 1/g = c - σ²/μ; ``FULL`` the published relation
1/g = c - (σ² - 1/(2 g²))/μ solved for g; ``SIMPLE`` one substitution of ``NONE`` in it. The
published relation is biased by -1/(2 μ g).
"""

from __future__ import annotations

import warnings
from typing import Any, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.photon_transfer.parameters import GainMethod

__all__ = ["gain_of_pairs", "pair_gain"]

Values = xr.DataArray | float
NEEDS_NOISE = ("SIMPLE", "FULL", "READNOISE")


def pair_gain(
    mean: Values,
    variance: Values,
    *,
    method: GainMethod = "MOMENT",
    mean_delta: Values = 0.0,
    read_noise: Values | None = None,
    ratio: Values | None = None,
    count: Values | None = None,
    bf_a_00: float = 0.0,
) -> xr.Dataset:
    """Return the gain of pairs of flats.

    Parameters
    ----------
    mean : DataArray or float, adu
        Mean signal of the two flats.
    variance : DataArray or float, adu²
        Variance of one flat: half that of the scaled difference.
    method : {"MOMENT", "NONE", "SIMPLE", "FULL", "READNOISE"}
        See the module.
    mean_delta : DataArray or float, adu
        Mean of the second flat minus that of the first.
    read_noise : DataArray or float, adu, optional
        Standard deviation of one flat without light. Where it is not finite MOMENT and
        READNOISE take it for 0, FULL and SIMPLE fall back to NONE.
    ratio : DataArray or float, adu, optional
        Flat-pair ratio of scaled flats, which all methods but MOMENT need.
    count : DataArray or float, optional
        Pixels used; without it the standard error is NaN.
    bf_a_00 : float, 1/electron
        Fractional change of a pixel's area per electron in it (< 0). The brighter-fatter effect
        makes a pair measure ``g / (1 + a_00 g μ)``; the ``g`` of that relation is returned.

    Returns
    -------
    Dataset, float64, electron/adu
        ``gain`` and ``gain_sigma``, with the dimensions of the inputs; NaN where the mean or what
        is left of the variance is not positive.

    Raises
    ------
    ValueError
        If the method is unknown, or needs a ratio and there is none.

    Warns
    -----
    UserWarning
        If the read noise is not finite and the method needs it.

    Notes
    -----
    The scaled difference has ``V = (μ/g) (1 - δ²/4) + σ² (1 + δ²/4)`` with the relative mismatch
    ``δ = mean_delta / mean``, and ``c`` is ``1 / (1 - δ²/4)`` times that of matched flats.

    Examples
    --------
    >>> gain = pair_gain(10_000.0, 6_692.0, read_noise=5.0, count=1e6)
    >>> round(float(gain["gain"]), 4), round(float(gain["gain_sigma"]), 4)
    (1.4999, 0.0021)
    """
    arrays = [
        x if isinstance(x, xr.DataArray) else xr.DataArray(np.nan if x is None else float(x))
        for x in (mean, variance, mean_delta, read_noise, ratio, count)
    ]
    check_method(method, ratio is not None)
    if method in NEEDS_NOISE and not bool(np.isfinite(arrays[3]).all()):
        fallback = "0 is used" if method == "READNOISE" else "method NONE is used"
        message = f"read_noise is not finite, pair gains by method {method} need it: {fallback}"
        warnings.warn(message, UserWarning, stacklevel=2)
    gain, sigma = xr.apply_ufunc(
        gain_of_pairs,
        *arrays,
        kwargs={"method": method, "bf_a_00": bf_a_00},
        output_core_dims=[[], []],
        dask="parallelized",
        output_dtypes=[np.float64, np.float64],
    )
    unit = {"units": v.ELECTRON_PER_ADU}
    return xr.Dataset(
        {
            "gain": gain.assign_attrs(unit | {"method": method, "bf_a_00": bf_a_00}),
            "gain_sigma": sigma.assign_attrs(unit),
        }
    )


def check_method(method: str, has_ratio: bool = True) -> None:
    """Raise ValueError for an unknown method, or one that lacks the ratio it needs."""
    known = get_args(GainMethod)
    if method not in known:
        raise ValueError(f"gain method must be one of {', '.join(known)}, got {method!r}")
    if method != "MOMENT" and not has_ratio:
        raise ValueError(f"gain method {method} needs the flat-pair ratio")


def gain_of_pairs(
    mean: Any,
    variance: Any,
    mean_delta: Any,
    read_noise: Any,
    ratio: Any,
    count: Any,
    *,
    method: str,
    bf_a_00: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gains and their standard errors from plain arrays; see `pair_gain`."""
    mu, var, delta, noise, c, n = (
        np.asarray(x, dtype=np.float64)
        for x in (mean, variance, mean_delta, read_noise, ratio, count)
    )
    known = np.isfinite(noise)
    noise2 = np.where(known, noise, 0.0) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        mismatch = 0.25 * (delta / mu) ** 2
        shot = var - noise2 * (1.0 + mismatch)
        if method == "MOMENT":
            gain = mu * (1.0 - mismatch) / shot
        else:
            gain = _from_ratio(mu, c * (1.0 - mismatch), noise2, known, method)
        gain = np.where((mu > 0.0) & (gain > 0.0), gain, np.nan)
        sigma = gain * np.sqrt(2.0 / n) * var / np.where(shot > 0.0, shot, np.nan)
        corrected = 1.0 - bf_a_00 * gain * mu
    return gain / corrected, sigma / corrected**2


def _from_ratio(
    mu: NDArray[np.float64],
    c: NDArray[np.float64],
    noise2: NDArray[np.float64],
    known: NDArray[np.bool_],
    method: str,
) -> NDArray[np.float64]:
    none = 1.0 / c
    if method == "NONE":
        return none
    if method == "READNOISE":
        return np.asarray(1.0 / (c - noise2 / mu))
    if method == "SIMPLE":
        return np.where(known, 1.0 / (c - (noise2 - 0.5 / none**2) / mu), none)
    # the root of (2 c μ - 2 σ²) g² - 2 μ g + 1 = 0 that tends to 1/c for large signal
    quadratic = 2.0 * (c * mu - noise2)
    root = (mu + np.sqrt(mu**2 - quadratic)) / quadratic
    return np.where(known, root, none)
