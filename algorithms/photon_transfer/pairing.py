"""Which exposures make a pair: by exposure time, by flux or by consecutive ids.

Pairing looks at a few numbers per exposure and never fails for data: an exposure that finds no
partner keeps a status code that says why. Results depend on ids and keys only, not on the order
they come in.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.photon_transfer.parameters import PairMode, PairParameters
from skyloom.algorithms.vocabulary import PairStatus

__all__ = ["first_shifted_exposure", "pair_exposures"]

LISTED_IDS = 20  # a warning names no more ids than this
PERSISTENT = 2  # so many mismatched pairs at the end of a run are a shift, one is an accident


def pair_exposures(
    key: ArrayLike | None,
    exposure: ArrayLike,
    *,
    mode: PairMode | None = None,
    exposure_time: ArrayLike | None = None,
    parameters: PairParameters | None = None,
) -> xr.Dataset:
    """Match exposures to pairs.

    Time and flux: exposures whose keys follow each other within ``atol + rtol |key|`` form a
    group (``adjacency="sequential"``: a run of neighbours in id that close to the first of the
    run), the two lowest ids of a group form its pair. Where several keys of a group repeat
    exactly, each of them is a group of its own. Ids: the first with the second, the third
    with the fourth, and so on; a lost exposure shifts all later pairs, which
    `first_shifted_exposure` finds out after extraction.

    Parameters
    ----------
    key : array_like, (exposure,), float64
        What exposures are matched on: exposure time (s) or flux. Ignored, and may be None, if the
        mode is ``"id"``.
    exposure : array_like, (exposure,), int64
        Unique ids.
    mode : {"time", "flux", "id"}, optional
        Takes the place of ``parameters.mode``.
    exposure_time : array_like, (exposure,), float64, s, optional
        True exposure times, averaged over each pair.
    parameters : PairParameters, optional

    Returns
    -------
    Dataset
        Over ``pair``, in the order of the first ids: ``exposure_1`` < ``exposure_2`` (int64),
        ``pair_key`` (mean of the two keys; the index of the pair for mode ``"id"``) and, if given,
        ``exposure_time`` (s); coordinate ``pair`` = ``"<exposure_1>-<exposure_2>"``. Over
        ``exposure``, ascending: ``exposure_status`` (uint8, `PairStatus` OK, UNPAIRED,
        NONFINITE_KEY or EXTRA). No exposures give a dataset of length 0.

    Raises
    ------
    ValueError
        If ids repeat, lengths differ or the mode is unknown.

    Warns
    -----
    UserWarning
        One for each cause, listing the exposures that are not in a pair.

    Examples
    --------
    >>> pairs = pair_exposures([1.0, 2.0, 1.0, 2.0], [11, 12, 13, 14])
    >>> pairs["pair"].values.tolist()
    ['11-13', '12-14']
    """
    parameters = parameters or PairParameters()
    mode = parameters.mode if mode is None else mode
    if mode not in ("time", "flux", "id"):
        raise ValueError(f"mode must be 'time', 'flux' or 'id', got {mode!r}")
    ids = _checked_ids(exposure)
    keys = _checked_like("key", np.zeros(ids.size) if mode == "id" else key, ids)
    times = None
    if exposure_time is not None:
        times = _checked_like("exposure_time", exposure_time, ids)
    order = np.argsort(ids, kind="stable")
    ids, keys = ids[order], keys[order]
    finite = np.isfinite(keys)
    members = np.flatnonzero(finite)
    if mode == "id":
        groups = [members]
    elif parameters.adjacency == "sequential":
        groups = _runs(members, keys, parameters)
    else:
        groups = _clusters(members, keys, parameters)
    status = np.full(ids.size, PairStatus.NONFINITE_KEY, np.uint8)
    every = parameters.use_extra_pairs or mode == "id"
    if not every:
        groups = [part for group in groups for part in _levels(group, keys, parameters)]
    first, second = _take_pairs(groups, status, every)
    if mode == "id":
        status[status == PairStatus.EXTRA] = PairStatus.UNPAIRED  # an odd last one lacks a partner
    _warn_of_unpaired(ids, status, mode)
    return _pair_table(
        ids, keys, None if times is None else times[order], first, second, status, mode
    )


def _checked_ids(exposure: ArrayLike) -> NDArray[np.int64]:
    given = np.atleast_1d(np.asarray(exposure))
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"exposure must hold integer ids, got dtype {given.dtype}")
    ids = given.astype(np.int64)
    if ids.ndim != 1:
        raise ValueError(f"exposure must have one dimension, got shape {ids.shape}")
    values, counts = np.unique(ids, return_counts=True)
    if np.any(counts > 1):
        raise ValueError(f"exposure ids must be unique, repeated: {_listed(values[counts > 1])}")
    return ids


def _checked_like(name: str, values: ArrayLike | None, ids: NDArray[Any]) -> NDArray[np.float64]:
    if values is None:
        raise ValueError(f"{name} is None, it may be so only for mode 'id'")
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.shape != ids.shape:
        raise ValueError(f"{name} has shape {array.shape}, exposure has {ids.shape}")
    return array


def _clusters(
    members: NDArray[np.intp], keys: NDArray[np.float64], parameters: PairParameters
) -> list[NDArray[np.intp]]:
    """Split members, sorted by key, where the next key is further than the tolerance."""
    order = members[np.argsort(keys[members], kind="stable")]
    sorted_keys = keys[order]
    tolerance = parameters.atol + parameters.rtol * np.abs(sorted_keys[:-1])
    breaks = np.flatnonzero(np.diff(sorted_keys) > tolerance) + 1
    return [np.sort(group) for group in np.split(order, breaks)]


def _runs(
    members: NDArray[np.intp], keys: NDArray[np.float64], parameters: PairParameters
) -> list[NDArray[np.intp]]:
    """Split members, in the order of ids, where a key leaves the tolerance of its run's first."""
    groups: list[list[int]] = []
    for member in members.tolist():
        first = keys[groups[-1][0]] if groups else np.inf
        if groups and abs(keys[member] - first) <= parameters.atol + parameters.rtol * abs(first):
            groups[-1].append(member)
        else:
            groups.append([member])
    return [np.asarray(group, dtype=np.intp) for group in groups]


def _levels(
    group: NDArray[np.intp], keys: NDArray[np.float64], parameters: PairParameters
) -> list[NDArray[np.intp]]:
    """Split a group in which several keys repeat exactly: each of them is a level of its own.

    Short exposures step by less than the tolerance; their levels would chain into one group and
    all but one pair be lost.
    """
    values, counts = np.unique(keys[group], return_counts=True)
    repeated = values[counts > 1]
    if repeated.size < 2:
        return [group]
    levels = [group[keys[group] == value] for value in repeated]
    rest = group[~np.isin(keys[group], repeated)]
    return levels + (_clusters(rest, keys, parameters) if rest.size else [])


def _take_pairs(
    groups: Sequence[NDArray[np.intp]], status: NDArray[np.uint8], every: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the members of all pairs and write the status of all members of groups."""
    first: list[int] = []
    second: list[int] = []
    for group in groups:
        paired = group.size // 2 * 2 if every else min(group.size, 2) // 2 * 2
        first.extend(group[0:paired:2].tolist())
        second.extend(group[1:paired:2].tolist())
        status[group[:paired]] = PairStatus.OK
        status[group[paired:]] = PairStatus.EXTRA if paired else PairStatus.UNPAIRED
    order = np.argsort(np.asarray(first, dtype=np.intp))
    return np.asarray(first, dtype=np.intp)[order], np.asarray(second, dtype=np.intp)[order]


def _warn_of_unpaired(ids: NDArray[np.int64], status: NDArray[np.uint8], mode: str) -> None:
    """Warn once for each reason why exposures are not in a pair."""
    reasons = {
        PairStatus.NONFINITE_KEY: f"have no finite {mode} to be matched on",
        PairStatus.UNPAIRED: f"have no partner of equal {mode}",
        PairStatus.EXTRA: "are left over: their group has its pair already",
    }
    if mode == "id":
        reasons[PairStatus.UNPAIRED] = "are left over: the number of exposures is odd"
    for code, reason in reasons.items():
        found = ids[status == code]
        if found.size:
            message = f"{found.size} exposures {reason} ({code.name}): {_listed(found)}"
            warnings.warn(message, UserWarning, stacklevel=3)


def _listed(ids: NDArray[np.int64]) -> str:
    listed = ", ".join(str(i) for i in ids[:LISTED_IDS].tolist())
    return listed + (f" and {ids.size - LISTED_IDS} more" if ids.size > LISTED_IDS else "")


def _pair_table(
    ids: NDArray[np.int64],
    keys: NDArray[np.float64],
    times: NDArray[np.float64] | None,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    status: NDArray[np.uint8],
    mode: str,
) -> xr.Dataset:
    pair_key = 0.5 * (keys[first] + keys[second])
    if mode == "id":
        pair_key = np.arange(first.size, dtype=np.float64)
    unit = {"units": v.DIMENSIONLESS}
    variables: dict[str, Any] = {
        "exposure_1": (v.PAIR, ids[first], unit | {"long_name": "lower id of the pair"}),
        "exposure_2": (v.PAIR, ids[second], unit | {"long_name": "higher id of the pair"}),
        "pair_key": (v.PAIR, pair_key, unit | {"long_name": f"{mode} the pair was matched on"}),
        "exposure_status": (v.EXPOSURE, status, unit | v.flag_attributes(PairStatus)),
    }
    if times is not None:
        mean_time = 0.5 * (times[first] + times[second])
        variables["exposure_time"] = (v.PAIR, mean_time, {"units": v.SECOND})
    labels = [f"{a}-{b}" for a, b in zip(ids[first], ids[second], strict=True)]
    coordinates = {v.PAIR: np.asarray(labels, dtype=str), v.EXPOSURE: ids}
    return xr.Dataset(variables, coords=coordinates, attrs={"mode": mode})


def first_shifted_exposure(pairs: xr.Dataset, *, max_pair_mismatch: float = 0.05) -> int | None:
    """Return the id from which all later pairs mismatch, the signature of a lost exposure.

    Pairs made of consecutive ids shift when an exposure is missing: from there on each pair joins
    the second exposure of one level with the first of the next. The median over amplifiers of
    ``|mean_delta| / mean`` is compared with the limit, so one odd amplifier says nothing.

    Parameters
    ----------
    pairs : Dataset
        Extracted pairs: ``mean``, ``mean_delta`` (pair, amp; adu) and ``exposure_1`` (pair).
    max_pair_mismatch : float
        Limit; > 0.

    Returns
    -------
    int or None
        The first id of the first pair of that run; None unless at least the last two pairs
        mismatch.

    Raises
    ------
    ValueError
        If max_pair_mismatch <= 0.

    Warns
    -----
    UserWarning
        If there is such a run, naming the id.

    Examples
    --------
    >>> import warnings
    >>> import xarray as xr
    >>> level = [100.0, 150.0, 300.0]
    >>> pairs = xr.Dataset({
    ...     "mean": (("pair", "amp"), [[m] for m in level]),
    ...     "mean_delta": (("pair", "amp"), [[0.0], [100.0], [200.0]]),
    ...     "exposure_1": ("pair", [1, 3, 6]),
    ... })
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     first_shifted_exposure(pairs)
    3
    """
    if not max_pair_mismatch > 0:
        raise ValueError(f"max_pair_mismatch must be > 0, got {max_pair_mismatch}")
    ratio = abs(pairs["mean_delta"] / pairs["mean"]).transpose(v.PAIR, v.AMP).values
    first = pairs["exposure_1"].values
    order = np.argsort(first, kind="stable")
    known = np.isfinite(ratio).any(axis=1)
    order = order[known[order]]  # pairs without a mean, such as saturated ones, tell nothing
    mismatched = np.asarray(
        [float(np.nanmedian(ratio[i])) > max_pair_mismatch for i in order], dtype=bool
    )
    matched = np.flatnonzero(~mismatched)
    start = int(matched[-1]) + 1 if matched.size else 0
    if mismatched.size - start < PERSISTENT:
        return None
    found = int(first[order[start]])
    warnings.warn(
        f"the means of all {mismatched.size - start} pairs from exposure {found} on differ by more "
        f"than {max_pair_mismatch:g} (MEAN_MISMATCH): an exposure near it may be missing",
        UserWarning,
        stacklevel=2,
    )
    return found
