"""Backgrounds of visits matched to each other on a tract."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import (
    ConfigurationError,
    DegenerateFitError,
    DroppedInputWarning,
    PoorlyDeterminedWarning,
)
from skyloom.algorithms.matching.match_equations import Levels
from skyloom.algorithms.matching.match_gauge import gauge_shift, shifted_covariance
from skyloom.algorithms.matching.match_graph import connected_groups, overlap_counts
from skyloom.algorithms.matching.match_inputs import (
    MatchInput,
    basis_of_parameters,
    functions_of_bins,
    grid_of_background,
    match_input,
    merged_codes,
)
from skyloom.algorithms.matching.match_joint import JointSolution, solve_joint
from skyloom.algorithms.matching.match_parameters import MatchParameters
from skyloom.algorithms.matching.match_reference import offsets_by_bin, solve_pairs
from skyloom.algorithms.matching.match_result import match_dataset
from skyloom.algorithms.matching.reference_visit import choose_reference_visit

__all__ = ["match_backgrounds"]

Floats = NDArray[np.float64]


def match_backgrounds(
    background: xr.Dataset,
    *,
    parameters: MatchParameters | None = None,
    absolute: xr.DataArray | None = None,
) -> xr.Dataset:
    """Find the smooth background of each visit relative to the others.

    All visits share the sky, which is free in every bin, and each has a field of its own. Only
    differences between visits are used, of all pairs at once with their optimal weights, so that
    nothing that visits share is touched, of whatever size it is.

    Parameters
    ----------
    background : Dataset, (visit, tract_y, tract_x)
        From `tract_background`: ``level`` and ``variance`` of the level, optionally ``flags``;
        attributes ``tract_shape`` and ``bin_size``. Bins that are EMPTY, LOW_COUNT or
        BAD_VARIANCE, not finite or without a positive variance do not count.
    parameters : MatchParameters, optional
    absolute : DataArray, (visit, coefficient), unit of the levels, optional
        For the gauge ``absolute``: the field of each visit as known from elsewhere; by default
        from a fit to the levels of each visit alone.

    Returns
    -------
    Dataset
        ``coefficients`` (visit, coefficient) of the field of each visit [unit of the levels], to
        be subtracted from it; ``coefficient_covariance``; ``offset_error`` (visit), 1 sigma of the
        field over the bins of the visit; ``status`` (`OffsetStatus`), ``component`` (group of
        visits that overlap), ``terms_used``, ``bins_used``, ``mean_residual`` (standard
        deviations) and ``sky_correlation`` of each visit; ``sky``, ``sky_weight`` (inverse
        variance), ``visit_count`` and ``sky_component`` (tract_y, tract_x); ``robust_factor``
        (visit, tract_y, tract_x) of the weights; measures of quality, see the guide. Visits are in
        the order given. In the mode ``reference_bins`` there are ``offset``, to be added, with
        ``offset_variance`` and ``flags`` (visit, tract_y, tract_x) instead, NaN and EMPTY where a
        visit and the reference do not overlap.

    Raises
    ------
    ConfigurationError
        If there is no visit, one is there twice, or the reference visit is not among them.
    DegenerateFitError
        If overlaps do not determine the fields and ``on_degenerate`` is ``raise``, or visits do
        not hang together and ``require_connected`` is set.

    Warns
    -----
    DroppedInputWarning
        If visits have no data, or fall apart into groups.
    PoorlyDeterminedWarning
        If visits got simpler fields, or their slopes a prior.

    Notes
    -----
    The field of a group that all its visits share is not known; the gauge chooses it. With
    ``mean`` the coadd keeps the average background of its visits.

    Examples
    --------
    >>> level = np.array([[[1.0, 5.0]], [[3.0, 7.0]]])
    >>> background = xr.Dataset(
    ...     {"level": (("visit", "tract_y", "tract_x"), level)},
    ...     {"visit": [7, 8]},
    ...     {"tract_shape": [2, 4], "bin_size": [2, 2]},
    ... )
    >>> background["variance"] = xr.ones_like(background["level"])
    >>> match = match_backgrounds(background, parameters=MatchParameters(order=0))
    >>> match["coefficients"].values.ravel().round(9).tolist(), match["sky"].values.tolist()
    ([-1.0, 1.0], [[2.0, 6.0]])
    """
    chosen = parameters or MatchParameters()
    given = match_input(background, chosen.scatter)
    grid = grid_of_background(background)
    basis = basis_of_parameters(chosen, grid.shape)
    functions = functions_of_bins(basis, grid)
    reference = _reference(background, given, chosen)
    usable = given.status == v.OffsetStatus.OK
    notes = _dropped(given, usable)
    if chosen.mode != "joint" and reference is not None:
        return _to_reference(background, given, functions, chosen, reference, notes)
    counts = overlap_counts(given.weight > 0)
    groups = connected_groups(counts)
    sizes = np.bincount(groups[usable], minlength=groups.max() + 1)
    alone = usable & (sizes[groups] == 1)
    status = given.status.copy()
    if usable.sum() == 1:
        merged_codes(status, alone, v.OffsetStatus.SINGLE)
    merged_codes(status, alone, v.OffsetStatus.ISOLATED)
    notes += _apart(given.visits, usable, groups, chosen)
    together = usable & ~alone
    terms = functions.shape[1]
    fields = np.zeros((len(status), terms))
    covariance = np.zeros((len(status), terms, terms))
    covariance[~usable] = np.nan
    factor = np.ones_like(given.weight)
    solution: JointSolution | None = None
    used = np.where(usable, terms, 0)
    if together.any():
        levels = Levels(given.level, given.weight, functions)
        if not together.all():
            levels = Levels(given.level[:, together], given.weight[:, together], functions)
        _, inner = np.unique(groups[together], return_inverse=True)
        solution = solve_joint(levels, inner, basis, chosen, given.visits[together])
        fields[together] = solution.fields
        if together.all():
            factor = solution.factor
        else:
            factor[:, together] = solution.factor
        covariance[together] = solution.covariance
        used[together] = solution.parameters
        merged_codes(status, together & (used < terms), v.OffsetStatus.REDUCED)
    weight = given.weight * factor
    shift, owners = gauge_shift(
        fields, groups, usable, weight, given, functions, chosen, reference, absolute
    )
    if solution is not None and solution.joint is not None:
        covariance[together] = shifted_covariance(solution.joint, owners, together)
    fields -= shift
    fields[~usable] = np.nan
    for category, text in [*notes, *_told(solution)]:
        warnings.warn(text, category, stacklevel=2)
    return match_dataset(
        background,
        given,
        grid,
        basis,
        functions,
        chosen,
        fields,
        covariance,
        factor,
        status,
        groups,
        used,
        solution,
        reference,
    )


def _reference(
    background: xr.Dataset, given: MatchInput, parameters: MatchParameters
) -> int | None:
    """Return the visit that is the reference, if there is to be one."""
    if parameters.gauge != "reference" and parameters.mode == "joint":
        return None
    wanted = parameters.reference_visit
    if wanted is None:
        return choose_reference_visit(background, parameters=parameters.selection)[0]
    if wanted not in given.visits:
        raise ConfigurationError(
            f"the reference visit {wanted} is not among {given.visits.tolist()}"
        )
    return wanted


def _to_reference(
    background: xr.Dataset,
    given: MatchInput,
    functions: Floats,
    parameters: MatchParameters,
    reference: int,
    notes: list[tuple[type[Warning], str]],
) -> xr.Dataset:
    """Match each visit to the reference alone."""
    grid = grid_of_background(background)
    if parameters.mode == "reference_bins":
        found = offsets_by_bin(background, given, grid, reference, parameters)
        status = found["status"].values[given.order]
    else:
        basis = basis_of_parameters(parameters, grid.shape)
        pairs = solve_pairs(given, functions, basis, reference, parameters)
        status = pairs.status
        matched = np.isfinite(pairs.fields).all(axis=1)
        # what is not matched does not belong into the sky
        kept = given._replace(weight=given.weight * matched)
        found = match_dataset(
            background,
            kept,
            grid,
            basis,
            functions,
            parameters.model_copy(update={"gauge": "reference"}),
            pairs.fields,
            pairs.covariance,
            np.ones_like(given.weight),
            status,
            np.where(matched, 0, -1),
            pairs.used,
            None,
            reference,
        )
        if pairs.notes:
            notes = [*notes, (PoorlyDeterminedWarning, "; ".join(dict.fromkeys(pairs.notes)))]
    apart = given.visits[status == v.OffsetStatus.NO_REFERENCE_OVERLAP]
    if apart.size:
        text = f"visits without overlap with the reference {reference}: {apart.tolist()}"
        notes = [*notes, (DroppedInputWarning, text)]
    for category, text in notes:
        warnings.warn(text, category, stacklevel=3)
    return found


def _dropped(given: MatchInput, usable: NDArray[np.bool_]) -> list[tuple[type[Warning], str]]:
    """Return the warning of visits that cannot be used."""
    if usable.all():
        return []
    reasons = [
        f"{visit} ({v.OffsetStatus(int(code)).name})"
        for visit, code in zip(given.visits[~usable], given.status[~usable], strict=True)
    ]
    return [
        (DroppedInputWarning, f"visits without usable bins were left out: {', '.join(reasons)}")
    ]


def _apart(
    visits: NDArray[np.int64],
    usable: NDArray[np.bool_],
    groups: NDArray[np.int64],
    parameters: MatchParameters,
) -> list[tuple[type[Warning], str]]:
    """Return the warning of visits that fall apart into groups, or raise."""
    labels = np.unique(groups[usable])
    if labels.size < 2:
        return []
    parts = "; ".join(
        ", ".join(str(visit) for visit in visits[usable & (groups == label)]) for label in labels
    )
    text = f"visits fall apart into {labels.size} groups without overlap: {parts}"
    if parameters.require_connected:
        raise DegenerateFitError(text)
    return [(DroppedInputWarning, f"{text}; offsets between groups are not known")]


def _told(solution: JointSolution | None) -> list[tuple[type[Warning], str]]:
    notes: list[Any] = [] if solution is None else solution.notes
    return [(PoorlyDeterminedWarning, "; ".join(notes))] if notes else []
