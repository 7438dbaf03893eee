"""Which visit the others are matched to, if they are to be matched to one."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.filling import fill_bad
from skyloom.algorithms.errors import ConfigurationError, NoUsableDataError
from skyloom.algorithms.matching.fields import PolynomialBasis
from skyloom.algorithms.matching.match_inputs import (
    MatchInput,
    functions_of_bins,
    grid_of_background,
    match_input,
)
from skyloom.algorithms.matching.match_parameters import SelectionParameters

__all__ = ["choose_reference_visit"]

Floats = NDArray[np.float64]
NORMAL_MAD = 1.482602218505602
HUBER = 2.5
SWEEPS = 10
SIGNIFICANT = 2.0  # standard deviations by which a visit must be better to rank higher
COVERAGE_ERROR = 0.01


def choose_reference_visit(
    background: xr.Dataset,
    *,
    conditions: xr.Dataset | None = None,
    parameters: SelectionParameters | None = None,
) -> tuple[int, xr.Dataset]:
    """Return the visit that suits best as a reference, and how all visits compare.

    Parameters
    ----------
    background : Dataset, (visit, tract_y, tract_x)
        From `tract_background`: ``level``, ``variance``, optionally ``flags`` and ``count_used``;
        attributes ``tract_shape`` and ``bin_size``.
    conditions : Dataset, (visit,), optional
        Other measures of visits, all the better the smaller: seeing, airmass, moonlight.
    parameters : SelectionParameters, optional

    Returns
    -------
    visit : int
    table : Dataset, (visit,)
        ``coverage`` (fraction of the bins that any visit has), ``complexity`` (robust chi² per
        degree of freedom of a plane), ``noise`` (median variance of bins), ``rank_*`` of each (how
        many visits are significantly better), ``cost``, and ``reason`` why a visit was left out.
        With ``compat`` ``complexity`` and ``noise`` are those of the LSST Science Pipelines, and
        ranks are ratios to the worst.

    Raises
    ------
    NoUsableDataError
        If no visit can be the reference.
    ConfigurationError
        If there is no visit, or conditions lack some.

    Notes
    -----
    cost = sum_k omega_k rank_k / V with weights normalised to a sum of 1; the smallest wins, of
    equal ones the lowest visit. Visits with less coverage than ``min_coverage`` of the largest are
    left out before. The reference counts bins after filling them, so that coverage does not count
    and visits with few bins look good.

    Examples
    --------
    >>> level = np.array([[[1.0, 5.0, 3.0, 4.0, 2.0]], [[3.0, 7.0, np.nan, 4.0, np.nan]]])
    >>> background = xr.Dataset(
    ...     {"level": (("visit", "tract_y", "tract_x"), level)},
    ...     {"visit": [7, 8]},
    ...     {"tract_shape": [2, 10], "bin_size": [2, 2]},
    ... )
    >>> background["variance"] = xr.ones_like(background["level"])
    >>> visit, table = choose_reference_visit(background)
    >>> visit, table["coverage"].values.tolist()
    (7, [1.0, 0.6])
    """
    chosen = parameters or SelectionParameters()
    given = match_input(background)
    grid = grid_of_background(background)
    functions = functions_of_bins(PolynomialBasis(grid.shape, 1), grid)
    others = _conditions(given, conditions)
    if chosen.mode == "compat":
        return _compat(background, given, functions, chosen)
    seen = given.weight > 0
    union = max(1, int(seen.any(axis=1).sum()))
    coverage = seen.sum(axis=0) / union
    visits = len(given.visits)
    complexity, error = np.full(visits, np.nan), np.full(visits, np.nan)
    noise, noise_error = np.full(visits, np.nan), np.full(visits, np.nan)
    reason = np.array([""] * visits, dtype="U40")
    for index in range(visits):
        used = seen[:, index]
        if not used.any():
            reason[index] = "no data"
            continue
        variance = 1.0 / given.weight[used, index]
        noise[index] = np.median(variance)
        noise_error[index] = 1.25 * variance.std() / np.sqrt(used.sum())
        dof = int(used.sum()) - functions.shape[1]
        if dof <= 0:
            reason[index] = "too few bins for a plane"
            continue
        complexity[index] = _plane_misfit(functions[used], given.level[used, index], variance)
        # twice the variance of a mean of squares: it comes from a median
        error[index] = complexity[index] * np.sqrt(5.5 / dof)
    least = chosen.min_coverage * coverage.max(initial=0.0)
    few = (coverage < least) & (reason == "")
    reason[few] = "coverage below the minimum"
    usable = reason == ""
    if not usable.any():
        raise NoUsableDataError("no visit can be the reference: " + ", ".join(sorted(set(reason))))
    measures = {
        "coverage": (-coverage, np.full(visits, COVERAGE_ERROR), chosen.coverage),
        "complexity": (complexity, error, chosen.complexity),
        "noise": (noise, noise_error, chosen.noise),
    }
    for name, values in others.items():
        measures[name] = values, np.zeros(visits), chosen.conditions
    total = sum(weight for _, _, weight in measures.values())
    if not total > 0:
        raise ConfigurationError("the weights of all measures given are zero")
    cost = np.zeros(visits)
    table: dict[str, Floats] = {"coverage": coverage, "complexity": complexity, "noise": noise}
    for name, (values, errors, weight) in measures.items():
        rank = _ranks(values, errors, usable)
        table |= {name: table.get(name, values), f"rank_{name}": rank}
        cost += weight / total * rank / usable.sum()
    cost[~usable] = np.nan
    return _finished(given, table, cost, reason)


def _plane_misfit(functions: Floats, level: Floats, variance: Floats) -> float:
    """Return the robust chi² per degree of freedom of a plane through levels."""
    root = 1.0 / np.sqrt(variance)
    factor = np.ones_like(level)
    residual = level
    for _ in range(SWEEPS):
        weight = root * np.sqrt(factor)
        theta = np.linalg.lstsq(functions * weight[:, None], level * weight, rcond=1e-10)[0]
        residual = (level - functions @ theta) * root
        scale = NORMAL_MAD * float(np.median(np.abs(residual)))
        if scale == 0:
            return 0.0
        factor = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residual), 1e-300))
    freedom = level.size / (level.size - functions.shape[1])
    return float((NORMAL_MAD * np.median(np.abs(residual))) ** 2 * freedom)


def _ranks(values: Floats, errors: Floats, usable: NDArray[np.bool_]) -> Floats:
    """Return by how many usable visits each is significantly surpassed."""
    difference = values[:, None] - values[None, :]
    error = np.hypot(errors[:, None], errors[None, :])
    better = (difference > SIGNIFICANT * error) & usable[None, :]
    return np.where(usable, better.sum(axis=1), np.nan).astype(np.float64)


def _conditions(given: MatchInput, conditions: xr.Dataset | None) -> dict[str, Floats]:
    if conditions is None:
        return {}
    missing = sorted(set(given.visits.tolist()) - set(conditions[v.VISIT].values.tolist()))
    if missing:
        raise ConfigurationError(f"conditions lack the visits {missing}")
    ordered = conditions.sel({v.VISIT: given.visits})
    return {str(name): values.values.astype(np.float64) for name, values in ordered.items()}


def _compat(
    background: xr.Dataset, given: MatchInput, functions: Floats, parameters: SelectionParameters
) -> tuple[int, xr.Dataset]:
    """Return the choice of the LSST Science Pipelines, which sees bins after filling them."""
    shape = background.sizes[v.TRACT_Y], background.sizes[v.TRACT_X]
    seen = given.weight > 0
    variance = np.where(seen, 1.0 / np.where(seen, given.weight, 1.0), np.nan)
    if "count_used" in background:  # theirs is that of pixels
        count = background["count_used"].transpose(v.VISIT, v.TRACT_Y, v.TRACT_X).values
        variance = variance * count[given.order].reshape(len(given.visits), -1).T
    visits = len(given.visits)
    chi2, spread = np.full(visits, np.nan), np.full(visits, np.nan)
    cells = np.full(visits, np.nan)
    for index in range(visits):
        used = seen[:, index]
        if not used.any():
            continue
        level = np.where(used, given.level[:, index], np.nan).reshape(shape)
        filled, _ = fill_bad(level, method="spline", interpolation="akima")
        cells[index] = np.isfinite(filled).sum()
        root = 1.0 / np.sqrt(variance[used, index])
        theta = np.linalg.lstsq(
            functions[used] * root[:, None], filled.ravel()[used] * root, rcond=1e-10
        )[0]
        rest = (filled.ravel() - functions @ theta)[used] * root
        if cells[index] != 6:
            chi2[index] = float(rest @ rest) / (cells[index] - 6)
        spread[index] = np.nanmean(variance[:, index])
    usable = np.isfinite(chi2) & np.isfinite(spread)
    reason = np.where(usable, "", "no data").astype("U40")
    if not usable.any():
        raise NoUsableDataError("no visit can be the reference: all lack data")
    table = {"coverage": cells / np.prod(shape), "complexity": chi2, "noise": spread}
    ratios = {
        "rank_complexity": chi2 / np.nanmax(chi2),
        "rank_noise": spread / np.nanmax(spread),
        "rank_coverage": np.nanmin(cells) / cells,
    }
    cost = (
        parameters.complexity * ratios["rank_complexity"]
        + parameters.noise * ratios["rank_noise"]
        + parameters.coverage * ratios["rank_coverage"]
    )
    return _finished(given, table | ratios, cost, reason)


def _finished(
    given: MatchInput, table: dict[str, Floats], cost: Floats, reason: NDArray[np.str_]
) -> tuple[int, xr.Dataset]:
    """Return the visit of least cost, and the table in the order of visits given."""
    winner = int(given.visits[np.nanargmin(cost)])
    place = np.argsort(given.order)
    columns = {**table, "cost": cost, "reason": reason}
    found = xr.Dataset(
        {name: (v.VISIT, values[place]) for name, values in columns.items()},
        {v.VISIT: given.visits[place]},
        {"reference_visit": winner},
    )
    return winner, found
