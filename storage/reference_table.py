"""Photon transfer curves in the table layout of the reference, written and read.

The reference keeps one table per detector, one row per amplifier, as FITS or ECSV. Everything it
has a place for is written; errors of matrices, status codes and chi2 maps have none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import StoreError
from skyloom.storage.reference_columns import (
    AMPLIFIER_VALUES,
    AUXILIARY,
    FIT_TYPES,
    PAIR_AMPLIFIER_VALUES,
    PAIR_VALUES,
    VERSION,
)
from skyloom.storage.reference_reader import read_reference_table

__all__ = ["read_reference_table", "write_reference_table"]

Floats = NDArray[np.float64]

MATRIX: Final = (v.AMP, v.LAG_Y, v.LAG_X)


def write_reference_table(
    ptc: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    detector: str | int | None = None,
    overwrite: bool = False,
) -> None:
    """Write the photon transfer of one detector as the reference does.

    Parameters
    ----------
    ptc : Dataset, (pair, amp, lag_y, lag_x)
        A block of the product ``ptc``.
    path : path
        File to write; the suffix ``.fits`` or ``.ecsv`` decides the format.
    detector : str or int, optional
        Name or number of the detector for the header; that of the dataset without it.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    ValueError
        If the suffix is another one, or the dataset holds several detectors.
    KeyError
        If the dataset lacks a variable that the layout cannot do without.
    StoreError
        If the file exists and is not to be replaced.

    Examples
    --------
    >>> import tempfile
    >>> lags = ("pair", "amp", "lag_y", "lag_x")
    >>> ptc = xr.Dataset(
    ...     {
    ...         "exposure_1": ("pair", [1]),
    ...         "exposure_2": ("pair", [2]),
    ...         "mean": (("pair", "amp"), [[1000.0]]),
    ...         "covariance": (lags, [[[[700.0, 1.0], [2.0, 0.5]]]]),
    ...     },
    ...     coords={"amp": ["C00"]},
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_reference_table(ptc, folder + "/ptc.fits", detector="R0")
    ...     again = read_reference_table(folder + "/ptc.fits")
    >>> float(again.covariance.sel(lag_y=1, lag_x=0)[0, 0])
    2.0
    """
    target = Path(path)
    if target.suffix not in (".fits", ".ecsv"):
        raise ValueError(f"path must end in .fits or .ecsv, got {target.name!r}")
    if v.DETECTOR in ptc.dims:
        raise ValueError("ptc holds several detectors; write one at a time")
    missing = [
        name for name in ("exposure_1", "exposure_2", "mean", "covariance") if name not in ptc
    ]
    if missing:
        raise KeyError(f"ptc lacks {', '.join(missing)}")
    if target.exists() and not overwrite:
        raise StoreError(
            f"{target} exists: choose another name, or allow overwriting (--overwrite)"
        )
    name = detector if detector is not None else ptc.coords.get(v.DETECTOR)
    table = Table(_columns(ptc))
    table.meta = {
        "OBSTYPE": "PTC",
        "PTC_SCHEMA": "Gen3 Photon Transfer Curve",
        "PTC_VERSION": VERSION,
        "PTC_FIT_TYPE": _fit_type(ptc),
        "MODEL": str(ptc.attrs.get("model", "")),
        "DETECTOR": "" if name is None else str(np.asarray(name)),
        "CREATOR": "skyloom",
    }
    if target.suffix == ".ecsv":
        table.write(target, format="ascii.ecsv", overwrite=overwrite)
        return
    meta, table.meta = table.meta, {}
    hdu = fits.BinTableHDU(table, name="PTC")
    for key, value in meta.items():
        # FITS keys have eight letters; longer ones are legal only when announced
        hdu.header[key if len(key) <= 8 else f"HIERARCH {key}"] = value
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(target, overwrite=overwrite)


def _fit_type(ptc: xr.Dataset) -> str:
    return FIT_TYPES.get(str(ptc.attrs.get("model", "")), "PARTIAL")


def _values(ptc: xr.Dataset, name: str, dims: tuple[str, ...], fill: float = np.nan) -> Floats:
    """Return a variable with these dims first to last; filled if absent, repeated if shorter."""
    shape = tuple(ptc.sizes[dim] for dim in dims)
    if name not in ptc:
        return np.full(shape, fill)
    have = [dim for dim in dims if dim in ptc[name].dims]
    values = ptc[name].transpose(*have).to_numpy().astype(np.float64)
    index = tuple(slice(None) if dim in have else None for dim in dims)
    return np.broadcast_to(values[index], shape)


def _flat(values: Floats) -> Floats:
    """Flatten (..., lag_y, lag_x) after the amplifiers to the order [pair, x, y]."""
    return np.ascontiguousarray(np.swapaxes(values, -1, -2)).reshape(len(values), -1)


def _columns(ptc: xr.Dataset) -> dict[str, Any]:
    """Return the columns in the reference's order; the first axis is the amplifier."""
    amps = [str(name) for name in ptc[v.AMP].to_numpy()]
    number, pairs = len(amps), ptc.sizes[v.PAIR]
    a = _values(ptc, "a", MATRIX)
    side = ptc.sizes[v.LAG_Y]
    fitted = int(np.isfinite(a[:, 0, :]).sum(axis=1).max(initial=0)) or side
    core = (..., slice(fitted), slice(fitted))
    used = _values(ptc, "used", (v.AMP, v.PAIR), 0.0) > 0
    flags = _values(ptc, "amp_flag", (v.AMP,), 0.0).astype(int)
    by_pair = (v.AMP, v.PAIR)
    by_lag = (v.AMP, v.PAIR, v.LAG_Y, v.LAG_X)
    covariance, model = (_values(ptc, name, by_lag) for name in ("covariance", "covariance_model"))
    sigma = _values(ptc, "covariance_sigma", by_lag)
    weight = np.divide(1.0, sigma, out=np.zeros_like(sigma), where=sigma > 0)
    # numbers of exposures may not fit into a float
    ids = np.stack([ptc[f"exposure_{i}"].to_numpy() for i in (1, 2)], axis=-1)
    noise = _values(ptc, "noise_matrix", MATRIX)
    with np.errstate(invalid="ignore", divide="ignore"):
        reduced = _values(ptc, "chi2", (v.AMP,)) / _values(ptc, "dof", (v.AMP,))
    counts = _values(ptc, "covariance_count", by_lag, -1.0)[..., 0, 0]
    parameters, errors = _fit_parameters(ptc, a, noise)
    bad = [name for name, flag in zip(amps, flags, strict=True) if flag & v.AmplifierFlag.BAD]
    columns: dict[str, Any] = {
        "AMPLIFIER_NAME": amps,
        "PTC_FIT_TYPE": [_fit_type(ptc)] * number,
        "COV_MATRIX_SIDE": np.full(number, side),
        "COV_MATRIX_SIDE_FULL_COV_FIT": np.full(number, fitted),
        "INPUT_EXP_ID_PAIRS": np.broadcast_to(ids.astype(np.int64), (number, pairs, 2)),
        "EXP_ID_MASK": used,
        "EXP_ID_ROLLOFF_MASK": np.zeros((number, pairs), dtype=bool),
        "GAIN_UNADJUSTED": _values(ptc, "gain", (v.AMP,)),
        "PTC_ROLLOFF_TAU": -_values(ptc, "rolloff_scale", (v.AMP,)),
        "PTC_ROLLOFF_TAU_ERROR": _values(ptc, "rolloff_scale_sigma", (v.AMP,)),
        "PTC_FIT_PARS": parameters,
        "PTC_FIT_PARS_ERROR": errors,
        "PTC_FIT_CHI_SQ": np.where(np.isfinite(reduced), reduced, np.nan),
        "A_MATRIX": _flat(a[core]),
        "B_MATRIX": _flat(_values(ptc, "b", MATRIX)[core]),
        "NOISE_MATRIX": _flat(noise[core]),
        "NPIXEL_COVARIANCES": counts.max(axis=1, initial=-1).astype(np.int64),
        "COVARIANCES": _flat(covariance),
        "COVARIANCES_MODEL": _flat(model[core]),
        "COVARIANCES_SQRT_WEIGHTS": _flat(weight),
        "FINAL_VARS": np.where(used, _values(ptc, "variance", by_pair), np.nan),
        "FINAL_MODEL_VARS": np.where(used, model[..., 0, 0], np.nan),
        "FINAL_MEANS": np.where(used, _values(ptc, "mean", by_pair), np.nan),
        # an array of no names cannot be stored, a blank name can
        "BAD_AMPS": np.array([bad or [""]] * number),
    }
    for ours, theirs in AMPLIFIER_VALUES.items():
        columns[theirs] = _values(ptc, ours, (v.AMP,))
    for ours, theirs in (PAIR_AMPLIFIER_VALUES | PAIR_VALUES).items():
        columns[theirs] = _values(ptc, ours, by_pair)
    for name in (str(name) for name in ptc.data_vars if str(name).startswith("aux_")):
        columns[AUXILIARY + name.removeprefix("aux_")] = _values(ptc, name, by_pair)
    return columns


def _fit_parameters(ptc: xr.Dataset, a: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Return a_00, gain and n_00 with errors for the variance fit, one NaN for the others."""
    if _fit_type(ptc) != "EXPAPPROXIMATION":
        return np.full((len(a), 1), np.nan), np.full((len(a), 1), np.nan)
    gain, sigma = (_values(ptc, name, (v.AMP,)) for name in ("gain", "gain_sigma"))
    a_sigma, noise_sigma = (
        _values(ptc, name, MATRIX)[:, 0, 0] for name in ("a_sigma", "noise_matrix_sigma")
    )
    values = np.stack([a[:, 0, 0], gain, noise[:, 0, 0]], axis=1)
    return values, np.stack([a_sigma, sigma, noise_sigma], axis=1)
