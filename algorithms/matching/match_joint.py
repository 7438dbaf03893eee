"""The joint solution: all visits of a group at once, with robust weights and chosen priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from skyloom.algorithms.errors import DegenerateFitError
from skyloom.algorithms.matching.fields import FieldBasis, PolynomialBasis, SplineBasis
from skyloom.algorithms.matching.match_dense import (
    DenseSolution,
    chain_condition,
    solve_dense,
    weakest_visits,
)
from skyloom.algorithms.matching.match_equations import (
    Levels,
    NormalEquations,
    normal_equations,
    overlap_blocks,
)
from skyloom.algorithms.matching.match_iterative import IterativeSolver
from skyloom.algorithms.matching.match_kernels import reweight, studentise
from skyloom.algorithms.matching.match_parameters import MatchParameters
from skyloom.algorithms.matching.match_priors import nested_maps, roughness, slope_terms

__all__ = ["JointSolution", "robust_share", "solve_joint"]

Floats = NDArray[np.float64]
CHAIN_LIKE = 1e4  # condition beyond which slopes need a prior
DECADES = np.arange(-7.0, 4.0)  # of priors that are tried, relative to the equations
TRIALS = 200  # most iterations for a prior that is only tried
HELD = 1e6  # of what visits know, that holds terms which are not to be used
NORMAL_MAD = 1.482602218505602
SAMPLED = 1_000_000


class JointSolution(NamedTuple):
    """Fields of visits whose sum over each group is zero, and all that is known of them.

    ``fields`` (visit, term), ``covariance`` (visit, term, term), ``joint`` (visit term, visit
    term) or None where gradients were conjugate, ``factor`` (bin, visit) robust weights,
    ``parameters`` (visit,) that each field has. ``dof`` counts levels less bins and parameters.
    """

    fields: Floats
    covariance: Floats
    joint: Floats | None
    factor: Floats
    parameters: NDArray[np.int64]
    chi2: float
    dof: float
    effective: float
    condition: float
    smoothing: float
    slope_sigma: float
    sweeps: int
    iterations: int
    notes: list[str]


class _Step(NamedTuple):
    """One solution for given weights."""

    fields: Floats
    covariance: Floats
    joint: Floats | None
    chi2: float
    effective: float
    condition: float
    iterations: int


class _Problem:
    """Levels of visits that overlap, their basis, and what was decided so far."""

    def __init__(
        self,
        levels: Levels,
        groups: NDArray[np.int64],
        basis: FieldBasis,
        parameters: MatchParameters,
        names: NDArray[np.int64],
    ) -> None:
        self.levels, self.groups, self.basis = levels, groups, basis
        self.parameters, self.names = parameters, names
        visits, terms = levels.fields_shape
        self.dense = visits * terms <= parameters.dense_limit
        self.choices = nested_maps(basis)
        self.notes: list[str] = []
        self.slope_sigma, self.smoothing, self.condition = np.inf, 0.0, np.nan
        self.lowered = self._lowered()
        self.start: Floats | None = None

    @property
    def maps(self) -> list[Floats]:
        return [self.choices[index] for index in self.lowered]

    def _lowered(self) -> NDArray[np.int64]:
        """Return for each visit the first of the nested bases that its overlaps determine."""
        levels, visits = self.levels, self.levels.level.shape[1]
        lowered = np.zeros(visits, np.int64)
        held = isinstance(self.parameters.slope_prior, float)
        if len(self.choices) == 1 or (held and isinstance(self.basis, PolynomialBasis)):
            return lowered
        counts = (levels.weight > 0).sum(axis=0)
        blocks = overlap_blocks(levels)
        smooth = isinstance(self.basis, SplineBasis)
        for visit in range(visits):
            while lowered[visit] < len(self.choices) - 1:
                # what a prior holds of splines needs no overlap: planes must be determined
                index = max(lowered[visit], 1) if smooth else lowered[visit]
                part = self.choices[index]
                block = part.T @ blocks[visit] @ part
                size = np.sqrt(np.maximum(np.diag(block), 1e-300))
                values = np.linalg.eigvalsh(block / np.outer(size, size))
                if counts[visit] >= 3 * part.shape[1] and values[0] > 1e-10 * values[-1]:
                    break
                lowered[visit] = index + 1
        self._report(lowered > 0, "overlaps do not determine the fields of")
        return lowered

    def _report(self, chosen: NDArray[np.bool_], what: str) -> None:
        if not chosen.any():
            return
        text = f"{what} visits {', '.join(str(name) for name in self.names[chosen])}"
        if self.parameters.on_degenerate == "raise":
            raise DegenerateFitError(f"{text}; on_degenerate='reduce' gives them simpler ones")
        self.notes.append(f"{text}: simpler ones are used")

    def prior(self, smoothing: float, slope_sigma: float) -> Floats | None:
        """Return the inverse covariance of the field of a visit."""
        if isinstance(self.basis, SplineBasis):
            return smoothing * roughness(self.basis) if smoothing > 0 else None
        if isinstance(self.basis, PolynomialBasis) and np.isfinite(slope_sigma):
            return slope_terms(self.basis) / slope_sigma**2
        return None

    def _dense(self, equations: NormalEquations, prior: Floats | None) -> DenseSolution:
        """Solve; where that fails, lower the basis of visits until it does not."""
        while True:
            found = solve_dense(equations, self.groups, prior, self.maps)
            if found is not None:
                return found
            weak = weakest_visits(equations, self.groups, self.maps)
            weak = weak[self.lowered[weak] < len(self.choices) - 1]
            if not weak.size:
                raise DegenerateFitError(
                    "the levels of visits do not determine their fields, not even levels: "
                    f"{', '.join(str(name) for name in self.names)}"
                )
            chosen = np.zeros(len(self.names), bool)
            chosen[weak] = True
            self._report(chosen, "overlaps do not tell apart the fields of")
            self.lowered[weak] += 1

    def solve(self, weighted: Levels, *, choose: bool) -> _Step:
        """Solve for given weights; choose priors where they are to be chosen."""
        if not self.dense:
            return self._solve_iteratively(weighted, choose=choose)
        equations = normal_equations(weighted)
        samples = _degrees(weighted)

        def attempt(smoothing: float, slope_sigma: float) -> DenseSolution:
            return self._dense(equations, self.prior(smoothing, slope_sigma))

        if isinstance(self.basis, SplineBasis):
            if not isinstance(self.parameters.smoothing, float):
                if choose:
                    matrix = roughness(self.basis)
                    unit = np.trace(equations.matrix) / (len(self.names) * np.trace(matrix))
                    kind = self.parameters.smoothing

                    def cost(decade: float) -> float:
                        found = attempt(unit * 10.0**decade, np.inf)
                        if kind == "evidence":
                            return -found.log_evidence
                        return samples * found.chi2 / (samples - found.effective) ** 2

                    self.smoothing = unit * 10.0 ** _lowest(cost, DECADES)
            else:
                self.smoothing = self.parameters.smoothing
        elif isinstance(self.basis, PolynomialBasis) and self.basis.order > 0:
            wanted = self.parameters.slope_prior
            if isinstance(wanted, float):
                self.slope_sigma = wanted
            elif choose and not self.condition < CHAIN_LIKE / 10.0:
                self._choose_slope_sigma(equations)
        found = attempt(self.smoothing, self.slope_sigma)
        visits, terms = weighted.fields_shape
        blocks = found.covariance.reshape(visits, terms, visits, terms)
        own = np.arange(visits)
        return _Step(
            found.fields,
            blocks[own, :, own, :],
            found.covariance,
            found.chi2,
            found.effective,
            found.condition if np.isnan(self.condition) else self.condition,
            0,
        )

    def _choose_slope_sigma(self, equations: NormalEquations) -> None:
        """Give slopes the prior of most evidence, where overlaps hardly determine them."""
        # terms beyond planes are hardly determined in other ways, too, which is not for a prior
        planes = [self.choices[max(index, len(self.choices) - 2)] for index in self.lowered]
        self.condition = chain_condition(equations, self.groups, planes)
        if self.condition <= CHAIN_LIKE or self.parameters.slope_prior == "none":
            self.slope_sigma = np.inf
            return
        strength = np.diag(equations.matrix).max()

        def cost(decade: float) -> float:
            sigma = np.sqrt(1.0 / (strength * 10.0**decade))
            return -self._dense(equations, self.prior(0.0, sigma)).log_evidence

        first = not np.isfinite(self.slope_sigma)
        self.slope_sigma = float(np.sqrt(10.0 ** -_lowest(cost, DECADES - 3.0) / strength))
        if first:
            self.notes.append(
                f"overlaps hardly determine slopes (condition {self.condition:.1e}): a prior "
                f"with a standard deviation of {self.slope_sigma:.3g} holds them"
            )

    def _solve_iteratively(self, weighted: Levels, *, choose: bool) -> _Step:
        visits, terms = weighted.fields_shape
        held = np.zeros((visits, terms, terms))
        if self.lowered.any():
            strength = HELD * np.trace(overlap_blocks(weighted), axis1=1, axis2=2).max()
            for visit in np.flatnonzero(self.lowered):
                part = self.maps[visit]
                held[visit] = strength * (np.eye(terms) - part @ np.linalg.pinv(part))
        samples = _degrees(weighted)

        def solver(smoothing: float) -> IterativeSolver:
            prior = self.prior(smoothing, self.slope_sigma)
            return IterativeSolver(weighted, self.groups, held if prior is None else held + prior)

        if isinstance(self.parameters.slope_prior, float):
            self.slope_sigma = self.parameters.slope_prior
        if isinstance(self.basis, SplineBasis):
            if isinstance(self.parameters.smoothing, float):
                self.smoothing = self.parameters.smoothing
            elif choose:
                unit = np.trace(overlap_blocks(weighted), axis1=1, axis2=2).sum() / (
                    visits * np.trace(roughness(self.basis))
                )

                def cost(decade: float) -> float:
                    trial = solver(unit * 10.0**decade)
                    self.start = trial.solve(
                        start=self.start, tolerance=1e-2, iterations=TRIALS
                    ).fields
                    chi2 = trial.chi2(self.start)
                    return samples * chi2 / (samples - trial.effective()) ** 2

                self.smoothing = unit * 10.0 ** _lowest(cost, DECADES[3:-1:2], 0.3)
        chosen = solver(self.smoothing)
        found = chosen.solve(start=self.start)
        self.start = found.fields
        return _Step(
            found.fields,
            chosen.blocks(),
            None,
            chosen.chi2(found.fields),
            chosen.effective(),
            np.nan,
            found.iterations,
        )


def solve_joint(
    levels: Levels,
    groups: NDArray[np.int64],
    basis: FieldBasis,
    parameters: MatchParameters,
    names: NDArray[np.int64],
) -> JointSolution:
    """Solve for the fields of visits that overlap.

    Parameters
    ----------
    levels : Levels
        Of visits of groups of two or more; weights are 1 / variance, 0 where nothing is known.
    groups : ndarray, (visit,), int
    basis : FieldBasis
        Whose functions those of the levels are.
    parameters : MatchParameters
    names : ndarray, (visit,)
        For messages.

    Raises
    ------
    DegenerateFitError
        If overlaps do not determine the fields and nothing may be simplified.
    """
    shared = (levels.weight > 0).sum(axis=1) > 1
    inner = levels
    if not shared.all():
        inner = Levels(*(np.ascontiguousarray(part[shared]) for part in levels))
    problem = _Problem(inner, groups, basis, parameters, names)
    factor = np.ones_like(inner.level)
    step = problem.solve(inner, choose=True)
    weighted = inner
    sweeps = 0
    while parameters.robust and sweeps < parameters.sweeps:
        sweeps += 1
        residual = inner.functions @ step.fields.T
        studentise(inner.level, inner.weight, factor, residual, residual)
        # outliers also pull the fit, so that it takes a while until only they stand out
        cut = parameters.cut if sweeps > 1 else np.inf
        spread = _spread(residual)
        reweight(residual, inner.weight, spread, parameters.huber, cut, factor)
        # one array of this size less: residuals are worked out anew in the next sweep
        weighted = inner._replace(weight=np.multiply(inner.weight, factor, out=residual))
        before, step = step, problem.solve(weighted, choose=sweeps in (1, 4))
        variance = np.einsum("vii->vi", step.covariance)
        error = np.sqrt(np.maximum(variance, 1e-300))
        if np.abs(step.fields - before.fields).max(initial=0.0) == 0.0:
            break
        if (np.abs(step.fields - before.fields) <= parameters.tolerance * error).all():
            break
    whole = factor
    if not shared.all():
        whole = np.ones_like(levels.level)
        whole[shared] = factor
    return JointSolution(
        step.fields,
        step.covariance,
        step.joint,
        whole,
        np.array([part.shape[1] for part in problem.maps]),
        step.chi2 / robust_share(parameters),
        _degrees(weighted) - step.effective,
        step.effective,
        step.condition,
        problem.smoothing,
        problem.slope_sigma,
        sweeps,
        step.iterations,
        problem.notes,
    )


def robust_share(parameters: MatchParameters) -> float:
    """Return what robust weights leave of the sum of squares of a Gaussian.

    Examples
    --------
    >>> round(robust_share(MatchParameters()), 4)
    0.9876
    """
    return 1.0 - 2.0 * float(ndtr(-parameters.huber)) if parameters.robust else 1.0


def _degrees(levels: Levels) -> float:
    """Return the number of levels less that of bins, each of which has a free sky."""
    used = levels.weight > 0
    return float(used.sum() - used.any(axis=1).sum())


def _spread(residual: Floats) -> float:
    """Return the scatter of most studentised residuals, at least 1."""
    flat = residual.ravel()[:: max(1, residual.size // SAMPLED)]
    flat = np.abs(flat[flat != 0])
    return max(1.0, NORMAL_MAD * float(np.median(flat))) if flat.size else 1.0


def _lowest(cost: Callable[[float], float], steps: Floats, accuracy: float = 0.05) -> float:
    """Return where a function is lowest: the best of some steps, then between its neighbours."""
    values = [cost(float(step)) for step in steps]
    best = int(np.argmin(values))
    low, high = steps[max(best - 1, 0)], steps[min(best + 1, len(steps) - 1)]
    found = minimize_scalar(
        cost, bounds=(float(low), float(high)), method="bounded", options={"xatol": accuracy}
    )
    return float(found.x) if found.fun < values[best] else float(steps[best])
