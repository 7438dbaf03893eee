"""The model of a flat over the focal plane: a radial profile, factors of types, a plane.

``value = R(|r - c|) * ratio[type] / (1 + g . r)``, R an interpolant through nodes. Parameters are
one vector: values at the nodes, ratios, shift c (mm), plane g (1/mm).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background import interpolate
from skyloom.algorithms.background.interpolation import Style

__all__ = ["Profile", "radial_value"]

Floats = NDArray[np.float64]

VALUE_STEP = 1e-6  # of the derivative by a value at a node
AKIMA_REACH = 3  # nodes that a value is felt at to either side
SHIFT_STEP = 1e-5  # of the derivative by a shift, in the distance of the outermost node


def radial_value(nodes: Floats, values: Floats, radius: Floats, style: Style) -> Floats:
    """Return the profile at radii (mm); NaN beyond the last node.

    Examples
    --------
    >>> nodes = np.arange(6.0)
    >>> radial_value(nodes, nodes**2, np.array([2.5, 6.0]), "akima")
    array([6.25,  nan])
    """
    return interpolate(nodes, values, radius, style, extrapolate="nan", reach=0.0)


class Profile(NamedTuple):
    """The model at given samples; ``kind`` is the type of each sample, 0 the base type."""

    nodes: Floats
    style: Style
    x: Floats
    y: Floats
    kind: NDArray[np.int64]
    kinds: int

    @property
    def parts(self) -> tuple[slice, slice, slice, slice]:
        """Return where values, ratios, shift and plane are in the vector."""
        a = len(self.nodes)
        b = a + self.kinds - 1
        return slice(0, a), slice(a, b), slice(b, b + 2), slice(b + 2, b + 4)

    @property
    def size(self) -> int:
        """Return the number of parameters."""
        return int(self.parts[3].stop)

    def radius(self, vector: Floats) -> Floats:
        """Return the distances of the samples from the centre of the profile, at most the last."""
        _, _, shift, _ = self.parts
        radius = np.hypot(self.x - vector[shift][0], self.y - vector[shift][1])
        return np.asarray(np.minimum(radius, self.nodes[-1]))

    def profile(self, vector: Floats) -> Floats:
        """Return R at the samples."""
        values, _, _, _ = self.parts
        return radial_value(self.nodes, vector[values], self.radius(vector), self.style)

    def factor(self, vector: Floats) -> Floats:
        """Return what multiplies R."""
        _, ratios, _, plane = self.parts
        ratio = np.concatenate([[1.0], vector[ratios]])[self.kind]
        gx, gy = vector[plane]
        return np.asarray(ratio / (1.0 + gx * self.x + gy * self.y))

    def values(self, vector: Floats) -> Floats:
        """Return the model."""
        return self.profile(vector) * self.factor(vector)

    def jacobian(self, vector: Floats) -> Floats:
        """Return the derivatives of the model, (sample, parameter).

        An Akima interpolant is not linear in the values at its nodes and has kinks in them, so
        its derivatives are differences.
        """
        values, ratios, shift, plane = self.parts
        out = np.zeros((self.x.size, self.size))
        factor, profile = self.factor(vector), self.profile(vector)
        radius, heights = self.radius(vector), vector[values]
        for k in range(len(self.nodes)):
            inside = self._reached_by(k, radius)
            up, down = heights.copy(), heights.copy()
            up[k] += VALUE_STEP
            down[k] -= VALUE_STEP
            above, below = (
                radial_value(self.nodes, side, radius[inside], self.style) for side in (up, down)
            )
            out[inside, k] = factor[inside] * (above - below) / (2.0 * VALUE_STEP)
        step = SHIFT_STEP * self.nodes[-1]
        for column in range(shift.start, shift.stop):
            up, down = vector.copy(), vector.copy()
            up[column] += step
            down[column] -= step
            out[:, column] = factor * (self.profile(up) - self.profile(down)) / (2.0 * step)
        model = profile * factor
        for number, column in enumerate(range(ratios.start, ratios.stop)):
            out[:, column] = np.where(self.kind == number + 1, model / vector[column], 0.0)
        slope = 1.0 + vector[plane][0] * self.x + vector[plane][1] * self.y
        out[:, plane.start] = -model * self.x / slope
        out[:, plane.start + 1] = -model * self.y / slope
        return out

    def _reached_by(self, node: int, radius: Floats) -> NDArray[np.int64]:
        """Return the samples whose value depends on that of a node."""
        if self.style != "akima":
            return np.arange(radius.size)
        first = self.nodes[max(node - AKIMA_REACH, 0)]
        last = self.nodes[min(node + AKIMA_REACH, len(self.nodes) - 1)]
        return np.flatnonzero((radius >= first) & (radius <= last))
