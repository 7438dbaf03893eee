"""Visits added to a match and taken out of it, all others staying as they are."""

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
    GeometryError,
    PoorlyDeterminedWarning,
)
from skyloom.algorithms.matching.fields import FieldBasis, PolynomialBasis, SplineBasis
from skyloom.algorithms.matching.match_inputs import (
    MatchInput,
    functions_of_bins,
    grid_of_background,
    match_input,
)
from skyloom.algorithms.matching.match_parameters import MatchParameters
from skyloom.algorithms.matching.match_priors import nested_maps, roughness, slope_terms
from skyloom.algorithms.matching.match_result import match_basis

__all__ = ["remove_visit", "update_match"]

Floats = NDArray[np.float64]
BINS = (v.TRACT_Y, v.TRACT_X)
LOST = 1e-9  # fraction of the weight of a bin that is left by rounding


def update_match(
    match: xr.Dataset, background: xr.Dataset, *, parameters: MatchParameters | None = None
) -> xr.Dataset:
    """Return a match with new visits, each fitted to the sky that the others agreed on.

    Only the bins of the new visits are read. The fields of all others stay, which is what solving
    again would give to a small part of their errors, as long as few visits are new. The gauge
    stays, too: the mean of all fields is that of the visits solved together.

    Parameters
    ----------
    match : Dataset
        From `match_backgrounds`, not bin by bin, or from here.
    background : Dataset, (visit, tract_y, tract_x)
        Levels of the new visits, as for `match_backgrounds`.
    parameters : MatchParameters, optional
        Those of the match: ``scatter``, ``robust``, ``huber``, ``cut``, ``sweeps``, ``tolerance``,
        ``on_degenerate``.

    Returns
    -------
    Dataset
        As from `match_backgrounds` without its measures of the whole; attribute ``updates`` counts
        the visits added.

    Raises
    ------
    ConfigurationError
        If a visit is in the match already, or the match is one bin by bin.
    GeometryError
        If the bins are others.
    DegenerateFitError
        If overlaps do not determine a field and ``on_degenerate`` is ``raise``.

    Warns
    -----
    DroppedInputWarning
        If a visit has no data, nothing in common with the others, or lies on several groups.
    PoorlyDeterminedWarning
        If a visit got a simpler field.

    Examples
    --------
    >>> level = np.array([[[1.0, 5.0]], [[3.0, 7.0]], [[4.0, 8.0]]])
    >>> background = xr.Dataset(
    ...     {"level": (("visit", "tract_y", "tract_x"), level)},
    ...     {"visit": [7, 8, 9]},
    ...     {"tract_shape": [2, 4], "bin_size": [2, 2]},
    ... )
    >>> background["variance"] = xr.ones_like(background["level"])
    >>> from skyloom.algorithms.matching import match_backgrounds
    >>> level_only = MatchParameters(order=0)
    >>> match = match_backgrounds(background.sel(visit=[7, 8]), parameters=level_only)
    >>> found = update_match(match, background.sel(visit=[9]), parameters=level_only)
    >>> found["coefficients"].values.ravel().round(9).tolist()
    [-1.0, 1.0, 2.0]
    """
    chosen = parameters or MatchParameters()
    _check(match, background)
    given = match_input(background, chosen.scatter)
    twice = sorted(set(given.visits.tolist()) & set(match[v.VISIT].values.tolist()))
    if twice:
        raise ConfigurationError(f"visits are in the match already: {twice}")
    basis = match_basis(match)
    functions = functions_of_bins(basis, grid_of_background(match))
    prior = _prior(basis, match)
    notes: list[tuple[type[Warning], str]] = []
    found = match.drop_vars([name for name in match.data_vars if not match[name].dims])
    for index in range(len(given.visits)):
        found = _with_visit(found, given, index, basis, functions, prior, chosen, notes)
    for category, text in notes:
        warnings.warn(text, category, stacklevel=2)
    kept = {
        name: value
        for name, value in match.attrs.items()
        if name not in ("chi2", "dof", "effective_parameters", "condition")
    }
    updates = int(match.attrs.get("updates", 0)) + len(given.visits)
    return found.drop_attrs(deep=False).assign_attrs(kept | {"updates": updates})


def remove_visit(
    match: xr.Dataset,
    background: xr.Dataset,
    visit: int,
    *,
    parameters: MatchParameters | None = None,
) -> xr.Dataset:
    """Return a match without a visit: its levels are taken out of the sky.

    Parameters
    ----------
    match : Dataset
        From `match_backgrounds`, not bin by bin, or `update_match`.
    background : Dataset, (visit, tract_y, tract_x)
        With the levels of the visit.
    visit : int
    parameters : MatchParameters, optional
        Those of the match: ``scatter``.

    Raises
    ------
    KeyError
        If match or background do not know the visit.

    Examples
    --------
    >>> level = np.array([[[1.0, 5.0]], [[3.0, 7.0]]])
    >>> background = xr.Dataset(
    ...     {"level": (("visit", "tract_y", "tract_x"), level)},
    ...     {"visit": [7, 8]},
    ...     {"tract_shape": [2, 4], "bin_size": [2, 2]},
    ... )
    >>> background["variance"] = xr.ones_like(background["level"])
    >>> from skyloom.algorithms.matching import match_backgrounds
    >>> match = match_backgrounds(background, parameters=MatchParameters(order=0))
    >>> left = remove_visit(match, background, 8)
    >>> left["visit"].values.tolist(), left["sky_weight"].values.round(9).tolist()
    ([7], [[1.0, 1.0]])
    """
    _check(match, background)
    for name, known in (("match", match), ("background", background)):
        if visit not in known[v.VISIT].values:
            raise KeyError(
                f"the {name} has no visit {visit}, only {known[v.VISIT].values.tolist()}"
            )
    scatter = (parameters or MatchParameters()).scatter
    given = match_input(background.sel({v.VISIT: [visit]}), scatter)
    own = match.sel({v.VISIT: visit})
    functions = functions_of_bins(match_basis(match), grid_of_background(match))
    coefficients = own["coefficients"].values
    weight = given.weight[:, 0] * own["robust_factor"].values.ravel().astype(np.float64)
    if not np.isfinite(coefficients).all():
        coefficients, weight = np.zeros_like(coefficients), np.zeros_like(weight)
    rest = given.level[:, 0] - functions @ coefficients
    sky, total = _sky(match)
    left = total - weight
    left[left <= LOST * total] = 0.0
    values = np.where(left > 0, total * sky - weight * rest, np.nan)
    values = values / np.where(left > 0, left, 1.0)
    found = match.sel({v.VISIT: match[v.VISIT] != visit})
    found = found.drop_vars([name for name in match.data_vars if not match[name].dims])
    count = match["visit_count"].values.ravel() - (weight > 0)
    return _with_sky(found, values, left, count.astype(np.int32))


def _with_visit(
    match: xr.Dataset,
    given: MatchInput,
    index: int,
    basis: FieldBasis,
    functions: Floats,
    prior: Floats | None,
    parameters: MatchParameters,
    notes: list[tuple[type[Warning], str]],
) -> xr.Dataset:
    """Return a match with one more visit."""
    name = int(given.visits[index])
    level, weight = given.level[:, index], given.weight[:, index]
    sky, total = _sky(match)
    component = match["sky_component"].values.ravel()
    terms = functions.shape[1]
    status = int(given.status[index])
    fields, covariance = np.zeros(terms), np.zeros((terms, terms))
    factor, mean, used = np.ones_like(level), np.nan, 0
    shared = (weight > 0) & (total > 0)
    group = int(match["component"].values.max(initial=-1)) + 1
    if status != v.OffsetStatus.OK:
        fields[:], covariance[:] = np.nan, np.nan
        notes.append((DroppedInputWarning, f"visit {name} has no usable bin"))
    elif not shared.any():
        status = int(v.OffsetStatus.ISOLATED)
        notes.append((DroppedInputWarning, f"visit {name} does not overlap with the others"))
        used = terms
    else:
        groups, counts = np.unique(component[shared], return_counts=True)
        group = int(groups[np.argmax(counts)])
        if groups.size > 1:
            shared &= component == group
            text = f"visit {name} joins groups {groups.tolist()}; solve again to join them"
            notes.append((DroppedInputWarning, text))
        own = weight[shared]
        both = own * total[shared] / (total[shared] + own)
        part = _determined(basis, functions[shared], both, prior)
        used = part.shape[1]
        if used < terms:
            text = f"overlaps do not determine the field of visit {name}"
            if parameters.on_degenerate == "raise":
                raise DegenerateFitError(text)
            status = int(v.OffsetStatus.REDUCED)
            notes.append((PoorlyDeterminedWarning, f"{text}: a simpler one is used"))
        fields, covariance, factor[shared], mean = _fit(
            level[shared] - sky[shared], functions[shared], both, part, prior, parameters
        )
    usable = np.isfinite(fields).all()
    weight = weight * factor * usable
    rest = level - functions @ np.nan_to_num(fields)
    after = total + weight
    known = after > 0
    values = np.where(known, np.nan_to_num(sky) * total + weight * rest, np.nan)
    values = values / np.where(known, after, 1.0)
    count = match["visit_count"].values.ravel() + (weight > 0)
    seen = weight > 0
    error = float(np.nan)
    if seen.any():
        at = functions[seen]
        error = float(np.sqrt(max(0.0, float(np.vdot(at.T @ at, covariance)) / len(at))))
    shape = match["sky"].shape
    row: dict[str, Any] = {
        "coefficients": fields,
        "coefficient_covariance": covariance,
        "offset_error": error,
        "status": np.uint8(status),
        "component": np.int32(group),
        "terms_used": np.int32(used),
        "bins_used": np.int32(seen.sum()),
        "mean_residual": mean,
        "sky_correlation": np.nan,
        "robust_factor": factor.reshape(shape).astype(np.float32),
    }
    new = xr.Dataset(
        {
            key: (match[key].dims, np.asarray(value)[None], match[key].attrs)
            for key, value in row.items()
        },
        {v.VISIT: [name]},
    )
    whole = [name for name in match.data_vars if v.VISIT not in match[name].dims]
    joined = xr.concat(
        [match.drop_vars(whole), new], v.VISIT, join="override", combine_attrs="override"
    )
    joined = joined.assign({name: match[name] for name in whole})
    labels = np.where(seen & (component < 0), np.int32(group), component).astype(np.int32)
    joined["sky_component"] = match["sky_component"].copy(data=labels.reshape(shape))
    return _with_sky(joined, values, after, count.astype(np.int32))


def _fit(
    difference: Floats,
    functions: Floats,
    weight: Floats,
    part: Floats,
    prior: Floats | None,
    parameters: MatchParameters,
) -> tuple[Floats, Floats, Floats, float]:
    """Return the field that fits differences to the sky, covariance, weights, mean residual."""
    inner = functions @ part
    penalty = np.zeros((part.shape[1],) * 2) if prior is None else part.T @ prior @ part
    factor: Floats = np.ones_like(difference)
    theta: Floats = np.zeros(part.shape[1])
    matrix: Floats
    for sweep in range(parameters.sweeps + 1):
        weighted = inner * (weight * factor)[:, None]
        matrix = weighted.T @ inner + penalty
        before = theta
        theta = np.asarray(np.linalg.solve(matrix, weighted.T @ difference), np.float64)
        inverse = np.asarray(np.linalg.inv(matrix), np.float64)
        step = np.abs(theta - before) / np.sqrt(np.diag(inverse))
        if not parameters.robust or sweep == parameters.sweeps:
            break
        if sweep and (step <= parameters.tolerance).all():
            break
        size = np.abs(difference - inner @ theta) * np.sqrt(weight)
        scale = max(1.0, 1.482602218505602 * float(np.median(size)))
        factor = np.minimum(1.0, parameters.huber * scale / np.maximum(size, 1e-300))
        if sweep:
            factor[size > parameters.cut * scale] = 0.0
    rest = difference - inner @ theta
    used = weight * factor
    mean = float(used @ rest) / float(np.sqrt(used.sum()))
    return part @ theta, part @ inverse @ part.T, factor, mean


def _determined(
    basis: FieldBasis, functions: Floats, weight: Floats, prior: Floats | None
) -> Floats:
    """Return the richest of the nested bases that the bins determine."""
    choices = nested_maps(basis)
    for part in choices[:-1]:
        inner = functions @ part
        matrix = (inner * weight[:, None]).T @ inner
        needed = part.shape[1]
        if prior is not None:
            penalty = part.T @ prior @ part
            matrix = matrix + penalty
            needed = part.shape[1] - int(np.linalg.matrix_rank(penalty))
        size = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        values = np.linalg.eigvalsh(matrix / np.outer(size, size))
        if len(inner) >= 3 * needed and values[0] > 1e-10 * values[-1]:
            return part
    return choices[-1]


def _prior(basis: FieldBasis, match: xr.Dataset) -> Floats | None:
    smoothing, slope = match.attrs.get("smoothing", 0.0), match.attrs.get("slope_sigma")
    if isinstance(basis, SplineBasis) and smoothing > 0:
        return float(smoothing) * roughness(basis)
    if isinstance(basis, PolynomialBasis) and slope is not None:
        return slope_terms(basis) / float(slope) ** 2
    return None


def _check(match: xr.Dataset, background: xr.Dataset) -> None:
    if "coefficients" not in match:
        raise ConfigurationError("a match bin by bin has no sky to add to or take from")
    for name in ("tract_shape", "bin_size"):
        if list(match.attrs[name]) != list(background.attrs.get(name, [])):
            raise GeometryError(
                f"{name} of the match is {list(match.attrs[name])}, of the background "
                f"{background.attrs.get(name)}"
            )


def _sky(match: xr.Dataset) -> tuple[Floats, Floats]:
    return (
        match["sky"].values.ravel().astype(np.float64),
        match["sky_weight"].values.ravel().astype(np.float64),
    )


def _with_sky(
    match: xr.Dataset, sky: Floats, weight: Floats, count: NDArray[np.int32]
) -> xr.Dataset:
    shape = match["sky"].shape
    return match.assign(
        {
            name: match[name].copy(data=values.reshape(shape))
            for name, values in (("sky", sky), ("sky_weight", weight), ("visit_count", count))
        }
    )
