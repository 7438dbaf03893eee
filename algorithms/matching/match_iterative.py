"""The fields of visits by conjugate gradients, without their normal matrix.

For many visits with many terms each. The product of the matrix with fields is a pass over the
levels; the block of each visit alone is the preconditioner, and the common field of each group is
projected out in every iteration.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from skyloom.algorithms.matching.match_equations import Levels, overlap_blocks, right_hand_side

__all__ = ["IterativeSolution", "IterativeSolver"]

Floats = NDArray[np.float64]
BLOCK = 2048  # bins in one product
ROUNDING = 1e-13
TRIALS = 200  # iterations that are enough to count parameters


class IterativeSolution(NamedTuple):
    """Fields (visit, term), and how it went."""

    fields: Floats
    iterations: int
    residual: float


class IterativeSolver:
    """Solves for fields that sum to zero over each group.

    Parameters
    ----------
    levels : Levels
    groups : ndarray, (visit,), int
    prior : ndarray, (visit, term, term) or (term, term), optional
        Inverse covariance of the field of each visit.
    """

    def __init__(
        self, levels: Levels, groups: NDArray[np.int64], prior: Floats | None = None
    ) -> None:
        self.levels = levels
        self.right, self.square, self.total = right_hand_side(levels)
        visits, terms = self.right.shape
        self.prior = np.zeros((visits, terms, terms))
        if prior is not None:
            self.prior += prior
        blocks = overlap_blocks(levels) + self.prior
        # what only other visits can tell of one is small in its own block
        floor = 1e-10 * float(np.trace(blocks, axis1=1, axis2=2).max()) / terms
        self.factors = [cho_factor(block + floor * np.eye(terms), lower=True) for block in blocks]
        self.members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]

    def solve(
        self,
        right: Floats | None = None,
        *,
        start: Floats | None = None,
        tolerance: float = 1e-7,
        iterations: int = 2000,
    ) -> IterativeSolution:
        """Return the fields for a right side, that of the levels by default.

        Iterations end when the residual in the norm of the preconditioner, which tells how many
        standard deviations fields are off, is less than ``tolerance``, or lost in rounding.
        """
        wanted = self._centred(self.right if right is None else right)
        fields = np.zeros_like(wanted) if start is None else self._centred(start)
        rest = wanted - self._centred(self.product(fields) + self._held(fields))
        direction = self._conditioned(rest)
        size = float(np.vdot(rest, direction))
        reference = float(np.vdot(wanted, self._conditioned(wanted)))
        goal = max(tolerance**2, ROUNDING**2 * reference)
        count = 0
        while size > goal and count < iterations:
            image = self._centred(self.product(direction) + self._held(direction))
            step = size / float(np.vdot(direction, image))
            fields += step * direction
            rest -= step * image
            conditioned = self._conditioned(rest)
            size, previous = float(np.vdot(rest, conditioned)), size
            direction = conditioned + (size / previous) * direction
            count += 1
        return IterativeSolution(self._centred(fields), count, float(np.sqrt(max(size, 0.0))))

    def chi2(self, fields: Floats) -> float:
        """Return the sum of squares that fields leave."""
        data = self.product(fields)
        return self.square - 2.0 * float(np.vdot(fields, self.right)) + float(np.vdot(fields, data))

    def effective(self) -> float:
        """Return how many parameters the levels determine, from one fixed draw of signs."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], self.right.shape)
        probe = self._centred(signs)
        return float(
            np.vdot(
                probe, self.solve(self.product(probe), tolerance=1e-2, iterations=TRIALS).fields
            )
        )

    def blocks(self) -> Floats:
        """Return the inverse block of each visit, (visit, term, term): all others held fixed."""
        unit = np.eye(self.right.shape[1])
        return np.array([cho_solve(pair, unit) for pair in self.factors])

    def product(self, fields: Floats) -> Floats:
        """Return the normal matrix times fields."""
        out = np.zeros_like(fields)
        inverse = 1.0 / np.where(self.total > 0, self.total, 1.0)
        for start in range(0, len(inverse), BLOCK):
            part = slice(start, start + BLOCK)
            weight, functions = self.levels.weight[part], self.levels.functions[part]
            values = weight * (functions @ fields.T)
            values -= weight * (values.sum(axis=1) * inverse[part])[:, None]
            out += values.T @ functions
        return out

    def _held(self, fields: Floats) -> Floats:
        held: Floats = np.einsum("vij,vj->vi", self.prior, fields)
        return held

    def _centred(self, values: Floats) -> Floats:
        values = values.copy()
        for visits in self.members:
            values[visits] -= values[visits].mean(axis=0)
        return values

    def _conditioned(self, values: Floats) -> Floats:
        solved = [cho_solve(pair, value) for pair, value in zip(self.factors, values, strict=True)]
        return self._centred(np.array(solved))
