"""Reading photon transfer curves from tables of the reference, of any version.

What a table does not have becomes "no data". Three habits are set right: matrices are turned to
(lag_y, lag_x), the noise of full-covariance fits before version 1.9 is taken out of the square,
and roll-off scales that are only a copy of the roll-off are dropped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from astropy.table import Table
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError
from skyloom.storage.reference_columns import (
    AMPLIFIER_VALUES,
    AUXILIARY,
    FIT_TYPE_MODELS,
    PAIR_AMPLIFIER_VALUES,
    PAIR_VALUES,
    VERSION,
)
from skyloom.storage.schemas import PTC

__all__ = ["read_reference_table"]

Floats = NDArray[np.float64]
Values = dict[str, tuple[tuple[str, ...], Any]]

MATRIX: Final = (v.AMP, v.LAG_Y, v.LAG_X)
PARAMETERS: Final = ("gain", "n_00", "a_00", "a_01", "a_10", "a_11")


def read_reference_table(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a photon transfer that the reference, or `write_reference_table`, has written.

    Parameters
    ----------
    path : path
        FITS or ECSV file of any version from 1.0 on.

    Returns
    -------
    Dataset, (pair, amp, lag_y, lag_x)
        A block of the product ``ptc``: what the table does not hold is NaN, 0 or its fill value.
        The layout does not say why a pair was left out, so ``pair_status`` tells measured pairs
        from those that failed, and ``used`` those that entered the fit. Attributes are
        ``model``, ``reference_version``, ``reference_fit_type`` and ``not_imported``, the
        auxiliary columns that are no numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SchemaError
        If the file is no table of this layout, or of a later major version.

    Examples
    --------
    See `write_reference_table`.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no file {source}")
    try:
        if source.suffix == ".ecsv":
            table = Table.read(source, format="ascii.ecsv")
        else:
            table = Table.read(source, format="fits", hdu=1, mask_invalid=False)
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise SchemaError(f"{source} is no readable FITS or ECSV table: {error}") from error
    return _dataset(_Rows(table, source))


class _Rows:
    """Columns of a table as plain arrays, amplifiers first."""

    def __init__(self, table: Table, source: Path) -> None:
        self.table = table
        self.source = source
        meta = {str(key).upper(): value for key, value in table.meta.items()}
        needed = ("AMPLIFIER_NAME", "RAW_MEANS", "COVARIANCES", "COV_MATRIX_SIDE", "A_MATRIX")
        problems = [f"column {name}" for name in needed if name not in table.colnames]
        if "PTC_VERSION" not in meta:
            problems.append("header key PTC_VERSION")
        if problems:
            raise SchemaError(f"{source} is no photon transfer: it lacks {', '.join(problems)}")
        self.version = float(meta["PTC_VERSION"])
        if not 1 <= self.version < int(VERSION) + 1:
            raise SchemaError(
                f"{source} has PTC_VERSION {self.version}; known are 1.0 to {VERSION}: "
                "write it again with an older version, or update skyloom"
            )
        self.amps = [name.strip() for name in self.text("AMPLIFIER_NAME").tolist()]
        fit_type = self.text("PTC_FIT_TYPE")
        self.fit_type = str(fit_type[0]) if fit_type.size else str(meta.get("PTC_FIT_TYPE", ""))
        self.model = str(meta.get("MODEL") or FIT_TYPE_MODELS.get(self.fit_type, ""))
        self.detector = str(meta.get("DETECTOR", ""))

    def text(self, name: str) -> NDArray[np.str_]:
        if name not in self.table.colnames:
            return np.array([], dtype=str)
        values = np.ma.filled(np.ma.asarray(self.table[name]), "")
        return np.char.decode(values) if values.dtype.kind == "S" else values.astype(str)

    def numbers(self, name: str, shape: tuple[int, ...] | None = None) -> Floats:
        """Return a column as float64, NaN where masked; NaN throughout if there is none."""
        full = None if shape is None else (len(self.amps), *shape)
        if name not in self.table.colnames:
            assert full is not None
            return np.full(full, np.nan)
        values = np.ma.filled(np.ma.asarray(self.table[name]).astype(np.float64), np.nan)
        try:
            return np.asarray(values if full is None else values.reshape(full))
        except ValueError as error:
            raise SchemaError(
                f"{self.source}: column {name} holds {values.shape[1:]} values, needs {shape}"
            ) from error

    def per_pair(self, name: str, pairs: int) -> Floats:
        """Return a column as (amp, pair); placeholders of one value for all pairs are no data."""
        if name in self.table.colnames and self.numbers(name)[:1].size == 1 != pairs:
            return np.full((len(self.amps), pairs), np.nan)
        return self.numbers(name, (pairs,))

    def exposures(self, pairs: int) -> NDArray[np.int64]:
        """Return the numbers of the exposures, (pair, 2), -1 where they are not known."""
        if "INPUT_EXP_ID_PAIRS" not in self.table.colnames or not self.amps:
            return np.full((pairs, 2), -1, dtype=np.int64)
        ids = np.ma.filled(np.ma.asarray(self.table["INPUT_EXP_ID_PAIRS"]), -1)
        ids = ids.reshape(len(self.amps), -1).astype(np.int64)
        if ids.shape[1] != 2 * pairs:
            raise SchemaError(
                f"{self.source}: {ids.shape[1]} exposures in INPUT_EXP_ID_PAIRS for {pairs} pairs"
            )
        # an amplifier without data may not name its exposures
        return np.asarray(ids.max(axis=0).reshape(pairs, 2))

    def matrix(self, name: str, pairs: tuple[int, ...], side: int) -> Floats:
        """Return a column as (amp, ..., lag_y, lag_x), NaN beyond the lags that it has."""
        out = np.full((len(self.amps), *pairs, side, side), np.nan)
        if name not in self.table.colnames:
            return out
        flat = self.numbers(name)
        count = flat[0].size if len(flat) else 0
        have = round(float(np.sqrt(count / max(int(np.prod(pairs)), 1))))
        stored = self.numbers(name, (*pairs, have, have))
        kept = min(have, side)
        out[..., :kept, :kept] = np.swapaxes(stored, -1, -2)[..., :kept, :kept]
        return out


def _dataset(rows: _Rows) -> xr.Dataset:
    pairs = rows.numbers("RAW_MEANS").reshape(len(rows.amps), -1).shape[1]
    side = int(rows.numbers("COV_MATRIX_SIDE", ())[0]) if rows.amps else 1
    values: dict[str, tuple[tuple[str, ...], Any]] = {}
    for ours, theirs in AMPLIFIER_VALUES.items():
        values[ours] = ((v.AMP,), rows.numbers(theirs, ()))
    for ours, theirs in PAIR_AMPLIFIER_VALUES.items():
        values[ours] = ((v.AMP, v.PAIR), rows.per_pair(theirs, pairs))
    for ours, theirs in PAIR_VALUES.items():
        values[ours] = ((v.PAIR,), _shared(rows.per_pair(theirs, pairs)))
    # the reference keeps what the pairs were matched on where their exposure time should be
    values["pair_key"] = values["exposure_time"]
    for index in (0, 1):
        values[f"exposure_{index + 1}"] = ((v.PAIR,), rows.exposures(pairs)[:, index])
    by_lag = (v.AMP, v.PAIR, v.LAG_Y, v.LAG_X)
    values["covariance"] = (by_lag, rows.matrix("COVARIANCES", (pairs,), side))
    values["covariance_model"] = (by_lag, rows.matrix("COVARIANCES_MODEL", (pairs,), side))
    weight = rows.matrix("COVARIANCES_SQRT_WEIGHTS", (pairs,), side)
    sigma = np.divide(1.0, weight, out=np.full_like(weight, np.nan), where=weight > 0)
    values["covariance_sigma"] = (by_lag, sigma)
    values["variance_sigma"] = ((v.AMP, v.PAIR), sigma[..., 0, 0])
    for ours, theirs in (("a", "A_MATRIX"), ("b", "B_MATRIX"), ("noise_matrix", "NOISE_MATRIX")):
        values[ours] = (MATRIX, rows.matrix(theirs, (), side))
    _add_state(values, rows, pairs)
    _add_fit(values, rows, side)
    attrs = {"reference_version": rows.version, "reference_fit_type": rows.fit_type}
    if rows.model:
        attrs["model"] = rows.model
    coords: dict[str, Any] = {
        v.AMP: rows.amps,
        v.LAG_Y: np.arange(side),
        v.LAG_X: np.arange(side),
        v.PARAMETER: list(PARAMETERS),
        "parameter_2": list(PARAMETERS),
    }
    if rows.detector:
        coords[v.DETECTOR] = rows.detector
    found = _complete(values, coords, pairs)
    return _with_auxiliary(found, rows, pairs).assign_attrs(attrs)


def _shared(values: Floats) -> Floats:
    """Return one value per pair from a value per amplifier and pair: the first that is finite."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    first = np.argmax(np.isfinite(values), axis=0)
    return np.asarray(np.take_along_axis(values, first[None], axis=0)[0])


def _add_state(values: Values, rows: _Rows, pairs: int) -> None:
    """Add which pairs were measured and used, and which amplifiers are good."""
    used = rows.per_pair("EXP_ID_MASK", pairs) > 0
    measured = np.isfinite(values["covariance"][1]).all(axis=(-1, -2))
    mean = values["mean"][1]
    status = np.where(measured, int(v.PairStatus.OK), int(v.PairStatus.NONFINITE_STAT))
    status = np.where(mean > 0, status, int(v.PairStatus.ILLEGAL_MEAN))
    count = rows.numbers("NPIXEL_COVARIANCES", ())
    count = np.where(count > 0, count, 0).astype(np.int64)
    lags = values["covariance"][1].shape
    bad = {name.strip() for name in rows.text("BAD_AMPS").ravel().tolist()}
    flag = [int(v.AmplifierFlag.BAD if amp in bad else v.AmplifierFlag.GOOD) for amp in rows.amps]
    by_pair = (v.AMP, v.PAIR)
    values["used"] = (by_pair, used)
    values["pair_status"] = (by_pair, status.astype(np.uint8))
    values["count"] = (by_pair, np.where(measured, count[:, None], 0))
    values["covariance_count"] = (
        (*by_pair, v.LAG_Y, v.LAG_X),
        np.broadcast_to(np.where(measured, count[:, None], 0)[..., None, None], lags),
    )
    values["amp_flag"] = ((v.AMP,), np.array(flag, dtype=np.int32))


def _add_fit(values: Values, rows: _Rows, side: int) -> None:
    """Add what was fitted, with the habits of older versions set right."""
    noise = values["noise"][1]
    if rows.version < 1.9 and rows.fit_type == "FULLCOVARIANCE":
        noise = np.sqrt(np.where(noise >= 0, noise, np.nan))
        values["noise"] = ((v.AMP,), noise)
    if "PTC_TURNOFF" not in rows.table.colnames and "FINAL_MEANS" in rows.table.colnames:
        final = rows.numbers("FINAL_MEANS").reshape(len(rows.amps), -1)
        largest = np.where(np.isfinite(final), final, -np.inf).max(axis=1, initial=-np.inf)
        values["turnoff"] = ((v.AMP,), np.where(np.isfinite(largest), largest, np.nan))
    values |= _rolloff(rows)
    a, n = values["a"][1], values["noise_matrix"][1]
    if rows.fit_type == "EXPAPPROXIMATION":
        fitted, errors = (rows.numbers(f"PTC_FIT_PARS{end}") for end in ("", "_ERROR"))
        a_sigma, n_sigma = np.full_like(a, np.nan), np.full_like(n, np.nan)
        a[:, 0, 0], n[:, 0, 0] = fitted[:, 0], fitted[:, 2]
        a_sigma[:, 0, 0], n_sigma[:, 0, 0] = errors[:, 0], errors[:, 2]
        values["a_sigma"], values["noise_matrix_sigma"] = (MATRIX, a_sigma), (MATRIX, n_sigma)
    values["c"] = (MATRIX, a * values["b"][1])
    images = np.where(np.arange(side) > 0, 2.0, 1.0)
    inside = np.isfinite(a)
    total = np.where(inside, a, 0.0) * images[:, None] * images
    some = inside.any(axis=(1, 2))
    values["sum_a"] = ((v.AMP,), np.where(some, total.sum(axis=(1, 2)), np.nan))
    at = [(0, 0), (1, 0), (0, 1), (1, 1)]
    corner = [a[:, j, i] if max(i, j) < side else np.full(len(a), np.nan) for j, i in at]
    table = np.stack([values["gain"][1], n[:, 0, 0], *corner], axis=1)
    values["parameter_value"] = ((v.AMP, v.PARAMETER), table)


def _rolloff(rows: _Rows) -> Values:
    """Return the scale of the roll-off, whose sign the reference turns round."""
    scales = {"rolloff_scale": "PTC_ROLLOFF_TAU", "rolloff_scale_sigma": "PTC_ROLLOFF_TAU_ERROR"}
    found: Values = {}
    for (ours, theirs), original in zip(
        scales.items(), ("PTC_ROLLOFF", "PTC_ROLLOFF_ERROR"), strict=True
    ):
        scale = rows.numbers(theirs, ())
        copied = scale == rows.numbers(original, ())
        sign = -1.0 if ours == "rolloff_scale" else 1.0
        found[ours] = ((v.AMP,), np.where(copied, np.nan, sign * scale))
    return found


def _complete(values: Values, coords: dict[str, Any], pairs: int) -> xr.Dataset:
    """Return a block of the product, with "no data" for all that a table does not have."""
    sizes = {name: len(labels) for name, labels in coords.items() if name != v.DETECTOR}
    sizes[v.PAIR] = pairs
    found = xr.Dataset(coords=coords)
    for variable in PTC.variables:
        dims = tuple(dim for dim in variable.dims if dim not in PTC.block)
        if variable.name in values:
            have, array = values[variable.name]
            data = xr.Variable(have, array).transpose(*dims).astype(variable.dtype)
        elif not variable.optional:
            shape = tuple(sizes[dim] for dim in dims)
            data = xr.Variable(dims, np.full(shape, variable.fill, dtype=variable.dtype))
        else:
            continue
        found[variable.name] = data.copy()
        found[variable.name].attrs = variable.attributes()
    return found


def _with_auxiliary(found: xr.Dataset, rows: _Rows, pairs: int) -> xr.Dataset:
    """Add the auxiliary columns that hold numbers, and name those that do not."""
    left_out = []
    for name in (name for name in rows.table.colnames if name.startswith(AUXILIARY)):
        try:
            shared = _shared(rows.per_pair(name, pairs))
        except (ValueError, TypeError):
            left_out.append(name.removeprefix(AUXILIARY))
            continue
        key = f"aux_{name.removeprefix(AUXILIARY)}"
        found[key] = (v.PAIR, shared, {"units": v.DIMENSIONLESS})
    return found.assign_attrs(not_imported=left_out)
