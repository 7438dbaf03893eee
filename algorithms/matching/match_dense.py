"""The fields of visits from their normal equations, with gauge, priors and covariance.

A common field of all visits of a group cannot be known, so their sum is held at zero, exactly,
whatever priors or lowered bases do to the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, block_diag, cho_factor, cho_solve, eigh, qr
from scipy.linalg.lapack import dpocon, dpotri

from skyloom.algorithms.matching.match_equations import NormalEquations

__all__ = ["DenseSolution", "chain_condition", "solve_dense", "weakest_visits"]

Floats = NDArray[np.float64]
SINGULAR = 1e13
POWERS = 15  # of a matrix, until only its largest eigenvalue is left


class DenseSolution(NamedTuple):
    """Fields (visit, term), their covariance, and what the fit says of itself.

    ``covariance`` is (visit term, visit term). ``effective`` is the number of parameters that the
    levels determine, ``log_evidence`` that of the prior up to a constant.
    """

    fields: Floats
    covariance: Floats
    chi2: float
    effective: float
    condition: float
    log_evidence: float


def solve_dense(
    equations: NormalEquations,
    groups: NDArray[np.int64],
    prior: Floats | None = None,
    maps: Sequence[Floats] | None = None,
) -> DenseSolution | None:
    """Solve normal equations with the fields of each group summing to zero.

    Parameters
    ----------
    equations : NormalEquations
    groups : ndarray, (visit,), int
        Which visits share a common field that is not known.
    prior : ndarray, (term, term), optional
        Inverse covariance of the field of a visit, the same for all.
    maps : sequence of ndarray, (term, parameter), optional
        Fields of each visit as combinations of fewer parameters.

    Returns
    -------
    DenseSolution or None
        None if the equations are singular.
    """
    visits, terms = equations.right.shape
    matrix, right = equations.matrix, equations.right.ravel()
    spread = None
    if maps is not None and any(part.shape[1] < terms for part in maps):
        spread = block_diag(*maps)
        matrix, right = spread.T @ matrix @ spread, spread.T @ right
    sums = np.zeros((visits * terms, terms * (groups.max() + 1)))
    for visit, group in enumerate(groups):
        own = slice(visit * terms, (visit + 1) * terms)
        sums[own, group * terms : (group + 1) * terms] = np.eye(terms)
    full = matrix.copy()
    penalty = None
    if prior is not None:
        penalty = block_diag(*[prior] * visits)
        if spread is not None:
            penalty = spread.T @ penalty @ spread
        full += penalty
    if spread is not None:
        sums = spread.T @ sums
    diagonal = np.diag(full)
    if not (diagonal > 0).all():
        return None
    scale = 1.0 / np.sqrt(diagonal)
    full *= scale
    full *= scale[:, None]
    gauge, volume = _independent(sums * scale[:, None])
    full += gauge @ gauge.T
    norm = float(np.abs(full).sum(axis=0).max())
    try:
        factor, lower = cho_factor(full, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None
    inverse_condition, _ = dpocon(factor, norm, uplo="L")
    condition = 1.0 / inverse_condition if inverse_condition > 0 else np.inf
    if not condition < SINGULAR:
        return None
    along = cho_solve((factor, lower), gauge, check_finite=False)
    inner = gauge.T @ along
    scaled = cho_solve((factor, lower), right * scale, check_finite=False)
    scaled -= along @ np.linalg.solve(inner, gauge.T @ scaled)
    covariance, _ = dpotri(factor, lower=1)
    covariance = np.tril(covariance) + np.tril(covariance, -1).T
    covariance -= along @ np.linalg.solve(inner, along.T)
    covariance *= scale
    covariance *= scale[:, None]
    solution = scaled * scale
    chi2 = equations.square - 2.0 * float(solution @ right) + float(solution @ matrix @ solution)
    effective = float(solution.size - gauge.shape[1])
    log_evidence = 0.0
    if prior is not None and penalty is not None:
        effective -= float(np.vdot(covariance, penalty))
        determinant = 2.0 * float(np.log(np.diag(factor)).sum() - np.log(scale).sum())
        determinant += float(np.linalg.slogdet(inner)[1]) + 2.0 * volume
        values = np.linalg.eigvalsh(prior)
        known = values > 1e-9 * values.max()
        penalised = float(solution @ penalty @ solution)
        log_evidence = 0.5 * (
            (visits - groups.max() - 1) * float(np.log(values[known]).sum())
            - chi2
            - penalised
            - determinant
        )
    if spread is not None:
        solution = spread @ solution
        covariance = spread @ covariance @ spread.T
    return DenseSolution(
        solution.reshape(visits, terms), covariance, chi2, effective, condition, log_evidence
    )


def chain_condition(
    equations: NormalEquations, groups: NDArray[np.int64], maps: Sequence[Floats]
) -> float:
    """Return how much worse the least determined relation of visits is than the best.

    The condition of the equations once the field of each visit alone is made one of unit
    variance, so that neither footprints nor noise count, and without the common fields. It grows
    like the square of the length of chains of visits.
    """
    terms = equations.right.shape[1]
    groups_of_terms = terms * (int(groups.max()) + 1)
    rows, common, whites = [], [], []
    for visit, part in enumerate(maps):
        own = slice(visit * terms, (visit + 1) * terms)
        try:
            root = np.linalg.cholesky(part.T @ equations.matrix[own, own] @ part)
        except np.linalg.LinAlgError:
            return np.inf
        whites.append(part @ np.linalg.inv(root).T)
        rows.append(whites[-1].T @ equations.matrix[own])
        sums = np.zeros((part.shape[1], groups_of_terms))
        sums[:, groups[visit] * terms : (groups[visit] + 1) * terms] = root.T @ part.T
        common.append(sums)
    wide = np.concatenate(rows)
    columns = [
        wide[:, visit * terms : (visit + 1) * terms] @ white for visit, white in enumerate(whites)
    ]
    matrix = np.concatenate(columns, axis=1)
    gauge, _ = _independent(np.concatenate(common))
    largest = _extreme(lambda vector: matrix @ vector, gauge)
    try:
        pair = cho_factor(matrix + gauge @ gauge.T, lower=True, check_finite=False)
    except LinAlgError:
        return np.inf
    return largest * _extreme(lambda vector: cho_solve(pair, vector, check_finite=False), gauge)


def _extreme(product: Callable[[Floats], Floats], gauge: Floats) -> float:
    """Return the largest eigenvalue of a product beside some directions."""
    vector = np.random.default_rng(0).standard_normal(len(gauge))
    size = 1.0
    for _ in range(POWERS):
        vector = vector - gauge @ (gauge.T @ vector)
        vector = product(vector / np.linalg.norm(vector))
        size = float(np.linalg.norm(vector))
    return size


def weakest_visits(
    equations: NormalEquations, groups: NDArray[np.int64], maps: Sequence[Floats]
) -> NDArray[np.int64]:
    """Return the visits whose fields the equations do not determine, beside the common one."""
    visits, terms = equations.right.shape
    spread = block_diag(*maps)
    matrix = spread.T @ equations.matrix @ spread
    sums = np.zeros((visits * terms, terms * (groups.max() + 1)))
    for visit, group in enumerate(groups):
        own = slice(visit * terms, (visit + 1) * terms)
        sums[own, group * terms : (group + 1) * terms] = np.eye(terms)
    scale = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-12 * np.diag(matrix).max()))
    gauge, _ = _independent((spread.T @ sums) * scale[:, None])
    values, vectors = eigh(matrix * np.outer(scale, scale) + gauge @ gauge.T)
    weak = vectors[:, values <= max(values[-1] / SINGULAR, values[0] * 10.0)]
    owner = np.repeat(np.arange(visits), [part.shape[1] for part in maps])
    share = np.zeros(visits)
    # a level is in every one of them, slopes are what to give up
    slopes = np.concatenate([np.arange(part.shape[1]) > 0 for part in maps])
    np.add.at(share, owner[slopes], (weak[slopes] ** 2).sum(axis=1))
    if not share.any():
        return np.arange(0)
    return np.flatnonzero(share > 0.1 * share.max())


def _independent(columns: Floats) -> tuple[Floats, float]:
    """Return an orthonormal basis of what some columns span, and the logarithm of their volume."""
    q, r, _ = qr(columns, mode="economic", pivoting=True)
    size = np.abs(np.diag(r))
    known = size > 1e-10 * max(size[0], 1e-300)
    return np.ascontiguousarray(q[:, known]), float(np.log(size[known]).sum())
