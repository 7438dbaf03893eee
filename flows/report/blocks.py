"""Photon transfer products as the report wants them: complete, and one detector at a time.

A report must not fail because something is missing. Whatever a product lacks is filled with "no
data" here, so that everything after this module may index any variable of the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.vocabulary import (
    AMP,
    DETECTOR,
    LAG_X,
    LAG_Y,
    PAIR,
    AmplifierFlag,
    PairStatus,
)
from skyloom.storage.schemas import PTC

__all__ = [
    "amplifier_overview",
    "detector_block",
    "flag_names",
    "measured_pairs",
    "status_name",
    "with_detectors",
]

Floats = NDArray[np.float64]

_LENGTH_ONE: Final = {LAG_Y: 1, LAG_X: 1}


def with_detectors(ptc: xr.Dataset) -> xr.Dataset:
    """Return photon transfer curves with a dimension of detectors and labels on every dimension.

    Parameters
    ----------
    ptc : Dataset
        The product, or what `solve` returns for one detector.

    Examples
    --------
    >>> dict(with_detectors(xr.Dataset({"gain": ("amp", [1.5, 1.4])})).sizes)
    {'detector': 1, 'amp': 2, 'pair': 0, 'lag_y': 1, 'lag_x': 1}
    """
    if DETECTOR not in ptc.dims:
        name = str(ptc.coords[DETECTOR].item()) if DETECTOR in ptc.coords else "detector"
        ptc = ptc.drop_vars(DETECTOR, errors="ignore").expand_dims({DETECTOR: [name]})
    for dim in (DETECTOR, PAIR, AMP):
        size = ptc.sizes.get(dim, 0)
        labels = ptc[dim].to_numpy() if dim in ptc.coords else np.arange(size)
        ptc = ptc.assign_coords({dim: np.array([str(label) for label in labels], dtype=object)})
    return ptc.assign_coords(
        {dim: np.arange(ptc.sizes.get(dim, 1)) for dim in (LAG_Y, LAG_X) if dim not in ptc.coords}
    )


def measured_pairs(ptc: xr.Dataset) -> xr.Dataset:
    """Return photon transfer curves without pairs that no amplifier of any detector has.

    Labels of pairs are only ever appended: an earlier pairing may have left some that the curves
    were not made from. Blocks that failed are listed elsewhere.

    Parameters
    ----------
    ptc : Dataset, (detector, pair, amp)

    Examples
    --------
    >>> status = (("pair", "amp"), np.array([[0], [255]], dtype=np.uint8))
    >>> measured_pairs(xr.Dataset({"pair_status": status})).sizes["pair"]
    1
    """
    if "pair_status" not in ptc:
        return ptc
    missing = ptc["pair_status"] == PairStatus.NOT_MEASURED
    keep = ~missing.all([dim for dim in missing.dims if dim != PAIR]).to_numpy()
    return ptc.isel({PAIR: keep}) if keep.any() else ptc


def _filled(
    ptc: xr.Dataset, names: Sequence[str], dims: Sequence[str]
) -> dict[str, tuple[Sequence[str], Any, dict[str, Any]]]:
    """Return the variables of these dimensions that are missing, as fill values."""
    found = {}
    for name in names:
        if name not in ptc:
            variable = PTC.variable(name)
            shape = tuple(ptc.sizes.get(dim, 1) for dim in dims)
            values = np.full(shape, variable.fill, dtype=variable.dtype)
            found[name] = (dims, values, variable.attributes())
    return found


def amplifier_overview(ptc: xr.Dataset) -> xr.Dataset:
    """Return everything with one value per amplifier, of all detectors, in memory.

    Parameters
    ----------
    ptc : Dataset, (detector, pair, amp, ...)
        From `with_detectors`; may be lazy.

    Returns
    -------
    Dataset, (detector, amp)
        All such variables of the schema, NaN where the product lacks them, and

        * ``a_00``, ``a_01``, ``a_10`` with errors (1/electron; a_01 is lag_x 0, lag_y 1);
        * ``pairs`` and ``pairs_used``, numbers of pairs measured and used;
        * ``status_count`` (detector, amp, code), how often each `PairStatus` occurs;
        * ``read_noise_electron`` (electron), the overscan's read noise times the gain.

    Examples
    --------
    >>> ptc = xr.Dataset({"gain": (("amp",), [1.5])}, coords={"amp": ["C00"]})
    >>> overview = amplifier_overview(with_detectors(ptc))
    >>> overview["gain"].item(), overview["pairs"].item(), int(overview["amp_flag"].item())
    (1.5, 0, 0)
    """
    dims = (DETECTOR, AMP)
    names = [variable.name for variable in PTC.variables if variable.dims == dims]
    more = [str(name) for name, found in ptc.data_vars.items() if {*found.dims} == {*dims}]
    status = ptc.get("pair_status")
    found = ptc[list(dict.fromkeys([*(name for name in names if name in ptc), *more]))].compute()
    found = found.drop_vars([name for name in found.coords if name not in dims])
    found = found.assign_coords({dim: ptc[dim].to_numpy() for dim in dims})
    found = found.assign(_filled(ptc, names, dims))
    if "amp_flag" not in ptc:
        solved = np.isfinite(found["gain"])
        found["amp_flag"] = found["amp_flag"].where(~solved, int(AmplifierFlag.GOOD))
        found["amp_flag"] = found["amp_flag"].where(solved, int(AmplifierFlag.NO_DATA))
    for row, column in ((0, 0), (1, 0), (0, 1)):
        for kind in ("", "_sigma"):
            name = f"a_{column}{row}{kind}"
            inside = {LAG_Y: row, LAG_X: column}
            there = f"a{kind}" in ptc and all(ptc.sizes[dim] > at for dim, at in inside.items())
            value = ptc[f"a{kind}"].isel(inside).to_numpy() if there else np.nan
            found[name] = (
                dims,
                np.broadcast_to(value, _shape(ptc)).copy(),
                {"units": "1/electron"},
            )
    codes = [int(code) for code in PairStatus]
    counts = np.zeros((*_shape(ptc), len(codes)), np.int64)
    if status is not None:
        values = status.transpose(DETECTOR, PAIR, AMP).to_numpy()
        for place, code in enumerate(codes):
            counts[..., place] = (values == code).sum(axis=1)
    used = ptc["used"].sum(PAIR).to_numpy() if "used" in ptc else counts[..., 0]
    measured = counts.sum(axis=-1) - counts[..., codes.index(PairStatus.NOT_MEASURED)]
    return (
        _finite(found)
        .assign(
            status_count=((*dims, "code"), counts),
            pairs=(dims, measured),
            pairs_used=(dims, used),
            read_noise_electron=(found["read_noise_median"] * found["gain"]),
        )
        .assign_coords(code=codes)
    )


def _shape(ptc: xr.Dataset) -> tuple[int, int]:
    return ptc.sizes[DETECTOR], ptc.sizes[AMP]


def detector_block(
    ptc: xr.Dataset, detector: str, amplifiers: Sequence[str] | None = None
) -> xr.Dataset:
    """Return one detector in memory, with every variable of the schema.

    Parameters
    ----------
    ptc : Dataset, (detector, pair, amp, ...)
        From `with_detectors`; may be lazy.
    detector : str
        Name of the detector.
    amplifiers : sequence of str, optional
        Those of the detector's amplifiers; all by default.

    Returns
    -------
    Dataset, (pair, amp, lag_y, lag_x)
        Pairs in the order of their mean signal.

    Examples
    --------
    >>> ptc = xr.Dataset({"gain": (("amp",), [1.5])}, coords={"amp": ["C00"]})
    >>> block = detector_block(with_detectors(ptc), "detector")
    >>> dict(block["covariance"].sizes)
    {'pair': 0, 'amp': 1, 'lag_y': 1, 'lag_x': 1}
    """
    block = ptc.sel({DETECTOR: detector}).drop_vars("done", errors="ignore")
    if amplifiers is not None:
        known = set(block[AMP].to_numpy())
        block = block.sel({AMP: [name for name in amplifiers if name in known]})
    block = _finite(block.compute())
    lagged: dict[Any, int] = {**_LENGTH_ONE, **block.sizes}
    for variable in PTC.variables:
        dims = tuple(dim for dim in variable.dims if dim != DETECTOR)
        if variable.name not in block and set(dims) <= {PAIR, AMP, LAG_Y, LAG_X}:
            shape = tuple(lagged[dim] for dim in dims)
            values = np.full(shape, variable.fill, dtype=variable.dtype)
            block[variable.name] = (dims, values, variable.attributes())
    if "pair_status" not in ptc and "mean" in ptc:
        measured = np.isfinite(block["mean"].transpose(PAIR, AMP).to_numpy())
        codes = np.where(measured, int(PairStatus.OK), int(PairStatus.NOT_MEASURED))
        block["pair_status"] = ((PAIR, AMP), codes.astype(np.uint8))
    if "used" not in ptc:
        block["used"] = block["pair_status"] == int(PairStatus.OK)
    block = block.transpose(PAIR, AMP, LAG_Y, LAG_X, ..., missing_dims="ignore")
    order = np.argsort(_row_means(block["mean"].transpose(PAIR, AMP).to_numpy()), kind="stable")
    return block.isel({PAIR: order})


def _finite(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset with NaN for infinite numbers: neither has a place in a figure."""
    infinite = {
        name: values.where(np.isfinite(values))
        for name, values in dataset.data_vars.items()
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all()
    }
    return dataset.assign(infinite)


def _row_means(values: Floats) -> Floats:
    """Return the mean of each row's finite values, infinity where there are none."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(axis=1)
    count = finite.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def status_name(code: int) -> str:
    """Return the name of a `PairStatus`, also of one this version does not know.

    Examples
    --------
    >>> status_name(11), status_name(99)
    ('OUTLIER', 'CODE_99')
    """
    try:
        return PairStatus(int(code)).name
    except ValueError:
        return f"CODE_{int(code)}"


def flag_names(flag: int) -> list[str]:
    """Return the names of the bits of an `AmplifierFlag`, also of unknown ones.

    Examples
    --------
    >>> flag_names(66), flag_names(0)
    (['TOO_FEW_PAIRS', 'BAD'], [])
    """
    known = {int(bit.value): str(bit.name) for bit in AmplifierFlag if bit.value}
    bits = [1 << place for place in range(32) if int(flag) >> place & 1]
    return [known.get(bit, f"BIT_{bit}") for bit in bits]
