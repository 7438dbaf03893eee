"""Interpolation in one dimension: styles, what happens beyond the knots, cardinal matrices.

Knots whose value is not finite do not count. A style that needs more knots than there are gives
way to the highest that does not: constant (1), linear (2), natural spline (3), Akima (5).
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.background import pieces
from skyloom.algorithms.errors import ConfigurationError

__all__ = ["STYLES", "Beyond", "Style", "interpolate", "interpolation_matrix", "needed_knots"]

Style = Literal["constant", "constant_compat", "linear", "natural_spline", "akima"]
Beyond = Literal["limit", "reference", "nearest", "nan"]
Undersampling = Literal["reduce", "throw"]
Floats = NDArray[np.float64]

STYLES: Final[dict[str, int]] = {
    "constant": pieces.CONSTANT,
    "constant_compat": pieces.CONSTANT_COMPAT,
    "linear": pieces.LINEAR,
    "natural_spline": pieces.NATURAL_SPLINE,
    "akima": pieces.AKIMA,
}
NEEDED: Final = {
    "constant": 1,
    "constant_compat": 1,
    "linear": 2,
    "natural_spline": 3,
    "akima": 5,
}
BEYOND: Final[dict[str, int]] = {
    "limit": pieces.LIMIT,
    "reference": pieces.REFERENCE,
    "nearest": pieces.NEAREST,
    "nan": pieces.MISSING,
}
UNDERSAMPLING: Final = ("reduce", "throw")


def checked(name: str, value: str, accepted: object) -> None:
    """Raise unless a name is one of those accepted."""
    names = list(accepted)  # type: ignore[call-overload]
    if value not in names:
        raise ConfigurationError(f"{name} must be one of {', '.join(names)}, got {value!r}")


def needed_knots(style: Style) -> int:
    """Return how many knots a style needs.

    Examples
    --------
    >>> needed_knots("akima")
    5
    """
    checked("style", style, STYLES)
    return NEEDED[style]


def style_for(style: Style, knots: int) -> Style:
    """Return the style, or the highest that so few knots allow.

    Examples
    --------
    >>> style_for("akima", 4), style_for("natural_spline", 2), style_for("akima", 1)
    ('natural_spline', 'linear', 'constant')
    """
    code = pieces.reduced_style(STYLES[style], knots)
    names: dict[int, Style] = {value: name for name, value in STYLES.items()}  # type: ignore[misc]
    return names[int(code)]


def interpolate(
    knots: ArrayLike,
    values: ArrayLike,
    positions: ArrayLike,
    style: Style = "natural_spline",
    *,
    extrapolate: Beyond = "limit",
    reach: float | None = None,
    undersampling: Undersampling = "reduce",
) -> Floats:
    """Return an interpolant at any positions.

    Parameters
    ----------
    knots : array_like, (n,), float
        Ascending positions, any unit.
    values : array_like, (n,), float
        Values there; knots whose value is not finite are left out.
    positions : array_like, any shape, float
        Where to evaluate, in the unit of the knots; NaN gives NaN.
    style : str
        ``natural_spline`` (second derivative 0 at both ends), ``akima`` (as the GNU Scientific
        Library defines it: a corner between two straight lines stays sharp), ``linear``,
        ``constant`` (nearest knot) or ``constant_compat`` (the mean of a knot and its left
        neighbour, as the LSST Science Pipelines do).
    extrapolate : str
        Beyond the end knots: ``reference`` continues as the parabola that touches the end,
        ``limit`` does so up to ``reach`` and holds the value reached there, ``nearest`` holds the
        value of the end knot, ``nan`` is ``reference`` up to ``reach`` and NaN further out.
    reach : float, optional
        In the unit of the knots; half their mean distance unless given (0 for a single knot).
    undersampling : "reduce" or "throw"
        What to do if the style needs more knots than are finite.

    Returns
    -------
    ndarray, shape of positions, float64
        All NaN without a finite value.

    Raises
    ------
    ValueError
        If names are unknown, knots do not ascend, there is none, shapes differ, or a style is
        short of knots under ``throw``.

    Examples
    --------
    >>> x = np.arange(10.0)
    >>> interpolate(x, x**2 / 2 + x + 1, [4.5], "akima")
    array([15.625])
    """
    checked("style", style, STYLES)
    checked("extrapolate", extrapolate, BEYOND)
    checked("undersampling", undersampling, UNDERSAMPLING)
    x = np.array(knots, dtype=np.float64)
    y = np.array(values, dtype=np.float64)
    at = np.array(positions, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or x.shape != y.shape:
        raise ConfigurationError(
            f"knots and values must be one-dimensional, not empty and as long as each other, got "
            f"{x.shape} and {y.shape}"
        )
    if not np.all(np.diff(x) > 0) or not np.all(np.isfinite(x)):
        raise ConfigurationError("knots must ascend and be finite")
    good = np.isfinite(y)
    if not good.any():
        return np.full(at.shape, np.nan)
    if undersampling == "throw" and int(good.sum()) < NEEDED[style]:
        raise ConfigurationError(
            f"{style} needs {NEEDED[style]} knots with finite values, got {int(good.sum())}"
        )
    if reach is None:
        reach = 0.5 * float(x[-1] - x[0]) / (x.size - 1) if x.size > 1 else 0.0
    out = np.empty(at.size)
    pieces.interpolate_into(
        x[good], y[good], at.ravel(), STYLES[style], BEYOND[extrapolate], float(reach), out
    )
    return out.reshape(at.shape)


def interpolation_matrix(
    knots: ArrayLike,
    positions: ArrayLike,
    style: Style = "natural_spline",
    *,
    extrapolate: Beyond = "limit",
    reach: float | None = None,
    undersampling: Undersampling = "reduce",
) -> Floats:
    """Return the matrix that takes values at knots to values at positions.

    Its columns are the interpolants of unit vectors; its rows sum to 1. Parameters and errors are
    those of `interpolate`, except for ``akima``, which is not linear in the values.

    Returns
    -------
    ndarray, (positions, knots), float64

    Raises
    ------
    ValueError
        As `interpolate`, and if the style is ``akima``.

    Examples
    --------
    >>> interpolation_matrix([0.0, 1.0], [0.25], "linear")
    array([[0.75, 0.25]])
    """
    if style == "akima":
        raise ConfigurationError("akima is not linear in the values: it has no matrix")
    unit = np.eye(np.size(np.asarray(knots)))
    columns = [
        interpolate(
            knots,
            column,
            np.ravel(np.asarray(positions, dtype=np.float64)),
            style,
            extrapolate=extrapolate,
            reach=reach,
            undersampling=undersampling,
        )
        for column in unit
    ]
    if not columns:
        raise ConfigurationError("knots must not be empty")
    return np.column_stack(columns)
