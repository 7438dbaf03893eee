"""The common field that matching cannot know: chosen for each group of visits that overlap."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.matching.match_inputs import MatchInput
from skyloom.algorithms.matching.match_parameters import MatchParameters

__all__ = ["gauge_shift", "own_fields", "shifted_covariance"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def gauge_shift(
    fields: Floats,
    groups: NDArray[np.int64],
    usable: Bools,
    weight: Floats,
    given: MatchInput,
    functions: Floats,
    parameters: MatchParameters,
    reference: int | None,
    absolute: xr.DataArray | None,
) -> tuple[Floats, Floats]:
    """Return what to subtract from the field of each visit, and whose fields that is made of.

    Parameters
    ----------
    fields : ndarray, (visit, term)
        Summing to zero over each group.

    Returns
    -------
    shift : ndarray, (visit, term)
    owners : ndarray, (visit, visit)
        Share of each visit (second axis) in the shift of another.
    """
    visits = len(fields)
    owners = np.zeros((visits, visits))
    shift = np.zeros_like(fields)
    alone = None
    if parameters.gauge == "absolute":
        alone = _absolute(given, absolute, weight, functions)
    strength = weight.sum(axis=0)
    for group in np.unique(groups[usable]):
        members = np.flatnonzero(usable & (groups == group))
        share = np.full(members.size, 1.0 / members.size)
        if parameters.gauge_weights == "inverse_variance":
            share = strength[members] / strength[members].sum()
        if parameters.gauge == "reference" and reference is not None:
            at = int(np.searchsorted(given.visits, reference))
            if at in members:
                share = (members == at).astype(np.float64)
        if parameters.gauge == "mean" and parameters.gauge_weights == "equal":
            continue  # it is so already
        owners[np.ix_(members, members)] = share
        common = share @ fields[members]
        if alone is not None:
            common = common - share @ alone[members]
        shift[members] = common
    return shift, owners


def shifted_covariance(joint: Floats, owners: Floats, chosen: Bools) -> Floats:
    """Return the covariance of each visit's field after the shift, (visit, term, term)."""
    share = owners[np.ix_(chosen, chosen)]
    visits = len(share)
    terms = len(joint) // visits
    blocks = joint.reshape(visits, terms, visits, terms)
    own = blocks[np.arange(visits), :, np.arange(visits), :]
    mixed = np.einsum("vu,vkul->vkl", share, blocks)
    # one share for all visits of a group: each row is worked out once
    rows, inverse = np.unique(share, axis=0, return_inverse=True)
    both = np.einsum("gv,vkul,gu->gkl", rows, blocks, rows, optimize=True)[inverse.ravel()]
    covariance: Floats = own - mixed - mixed.transpose(0, 2, 1) + both
    return covariance


def own_fields(level: Floats, weight: Floats, functions: Floats) -> Floats:
    """Return the field that fits the levels of each visit alone best, (visit, term)."""
    fields = np.zeros((level.shape[1], functions.shape[1]))
    for visit in range(len(fields)):
        used = weight[:, visit] > 0
        root = np.sqrt(weight[used, visit])
        fields[visit] = np.linalg.lstsq(
            functions[used] * root[:, None], level[used, visit] * root, rcond=1e-10
        )[0]
    return fields


def _absolute(
    given: MatchInput, absolute: xr.DataArray | None, weight: Floats, functions: Floats
) -> Floats:
    """Return the field of each visit as known from elsewhere, or from its own levels."""
    if absolute is None:
        return own_fields(given.level, weight, functions)
    missing = sorted(set(given.visits.tolist()) - set(absolute[v.VISIT].values.tolist()))
    if missing or absolute.sizes.get(v.COEFFICIENT) != functions.shape[1]:
        raise ConfigurationError(
            f"absolute must have {functions.shape[1]} coefficients of each visit; it has "
            f"{dict(absolute.sizes)}, and lacks visits {missing}"
        )
    known = absolute.sel({v.VISIT: given.visits}).transpose(v.VISIT, v.COEFFICIENT)
    return known.values.astype(np.float64)
