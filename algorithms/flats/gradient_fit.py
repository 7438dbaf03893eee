"""The illumination of a combined flat over the focal plane: a robust fit to samples of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.flats.gradient_model import Profile
from skyloom.algorithms.flats.gradient_parameters import FlatGradientParameters
from skyloom.algorithms.flats.normal_kernels import factor, inverse_factored, solve_factored
from skyloom.algorithms.sky.m_estimator import RobustOptions, expected
from skyloom.algorithms.sky.normal_kernels import add_normal

__all__ = ["fit_flat_gradients"]

Floats = NDArray[np.float64]

NORMAL_MAD = 0.6744897501960817
SMALLEST_SCATTER = 1e-12
START_DAMPING, LARGEST_DAMPING = 1e-4, 1e12
EMPTY_COLUMN = 1e-14  # square of a derivative, as a part of the largest, that says nothing
NODE = "node"
TYPE = "detector_type"


def fit_flat_gradients(
    samples: xr.Dataset, *, parameters: FlatGradientParameters | None = None
) -> xr.Dataset:
    """Fit a radial profile, factors of detector types, a shift and a plane to a flat.

    Parameters
    ----------
    samples : Dataset over ``sample``
        Of all detectors, see `sample_flat`: ``level``; coordinates ``focal_x``, ``focal_y`` (mm)
        and ``detector_type``, if there is more than one.
    parameters : FlatGradientParameters, optional

    Returns
    -------
    Dataset
        ``value`` and ``value_sigma`` of the profile at ``radius`` mm (node), relative to
        ``normalization``, the median near the centre without plane and types; ``type_ratio`` and
        ``type_ratio_sigma`` (detector_type), 1 for the base type; ``shift_x``, ``shift_y`` (mm) of
        the profile's centre and ``gradient_x``, ``gradient_y`` (1/mm) of the plane, with sigmas;
        ``covariance`` (parameter, parameter_2) of all. ``scatter`` of samples about the model,
        ``used_count``, ``rejected_count`` (beyond the limits on values and radius),
        ``iterations``, ``converged``. Attribute ``interpolation``. A node that no sample depends on
        has a sigma of NaN and keeps its starting value.

    Raises
    ------
    NoUsableDataError
        If no sample is near the centre, or fewer are left than there are parameters.

    Notes
    -----
    ``level = normalization * R(|r - c|) * ratio[type] / (1 + g . r)`` by Levenberg-Marquardt steps
    with Huber's weights, all parameters at once.

    Examples
    --------
    >>> x, y = (side.ravel() for side in np.meshgrid(np.arange(-6.0, 7.0), np.arange(-6.0, 7.0)))
    >>> level = 2.0 * (1 - 0.01 * (x**2 + y**2)) / (1 + 0.002 * x)
    >>> samples = xr.Dataset(
    ...     {"level": ("sample", level)},
    ...     coords={"focal_x": ("sample", x), "focal_y": ("sample", y)},
    ... )
    >>> parameters = FlatGradientParameters(nodes=(0, 2, 4, 6, 8, 9), centre_radius=0.5)
    >>> fit = fit_flat_gradients(samples, parameters=parameters)
    >>> round(float(fit["normalization"]), 6), round(float(fit["gradient_x"]), 4)
    (2.0, 0.002)
    """
    parameters = parameters or FlatGradientParameters()
    nodes = np.array(parameters.nodes, dtype=np.float64)
    level, x, y = (
        np.asarray(samples[name].values, dtype=np.float64)
        for name in ("level", v.FOCAL_X, v.FOCAL_Y)
    )
    names, kind = _types(samples, level.size, parameters)
    radius = np.hypot(x, y)
    centre = np.isfinite(level) & (radius <= parameters.centre_radius)
    if not centre.any():
        raise NoUsableDataError(
            f"no sample within {parameters.centre_radius} mm of the centre: there is nothing to "
            "normalize by"
        )
    # detectors of other types would pull the median
    base = centre & (kind == 0)
    start_level = float(np.median(level[base if base.any() else centre]))
    value = level / start_level
    kept = np.isfinite(value) & (radius <= nodes[-1])
    kept &= (value >= parameters.smallest_value) & (value <= parameters.largest_value)
    model = Profile(nodes, parameters.interpolation, x[kept], y[kept], kind[kept], len(names))
    if int(kept.sum()) < model.size:
        raise NoUsableDataError(
            f"{int(kept.sum())} of {level.size} samples are left, fewer than {model.size} "
            "parameters"
        )
    start = _start(model, value[kept], parameters)
    fit = _minimize(model, value[kept], start, _free(model, parameters), parameters)
    fit, scale = _at_the_centre(model, fit, value[kept], centre[kept])
    return _dataset(model, names, start_level * scale, fit, level.size, parameters)


class _Fit(NamedTuple):
    vector: Floats
    covariance: Floats
    scatter: float
    iterations: int
    converged: bool


def _at_the_centre(
    model: Profile, fit: _Fit, value: Floats, centre: NDArray[np.bool_]
) -> tuple[_Fit, float]:
    """Return the fit relative to the median of the profile near the centre, and that median.

    Plane and types moved the median of the level, which the fit was relative to.
    """
    scale = float(np.median((value / model.factor(fit.vector))[centre])) if centre.any() else 1.0
    values = model.parts[0]
    vector, covariance = fit.vector.copy(), fit.covariance.copy()
    vector[values] /= scale
    covariance[values] /= scale
    covariance[:, values] /= scale
    return fit._replace(vector=vector, covariance=covariance), scale


def _types(
    samples: xr.Dataset, size: int, parameters: FlatGradientParameters
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the types, the base type first, and the index of each sample's."""
    if TYPE not in samples.coords:
        return [parameters.base_type or ""], np.zeros(size, np.int64)
    labels = samples[TYPE].values.astype(str)
    found, numbers = np.unique(labels, return_counts=True)
    base = str(found[np.argmax(numbers)]) if parameters.base_type is None else parameters.base_type
    if base not in found:
        raise NoUsableDataError(f"no sample is of base_type {base!r}; there are {found.tolist()}")
    names = [base, *(str(name) for name in found if name != base)]
    places = {name: index for index, name in enumerate(names)}
    return names, np.array([places[label] for label in labels.tolist()], np.int64)


def _start(model: Profile, value: Floats, parameters: FlatGradientParameters) -> Floats:
    """Return medians between the middles of nodes, and medians of the other types over them."""
    values, ratios, _, _ = model.parts
    vector = np.zeros(model.size)
    vector[ratios] = 1.0
    radius = np.hypot(model.x, model.y)
    nearest = np.searchsorted(0.5 * (model.nodes[1:] + model.nodes[:-1]), radius)
    base = model.kind == 0
    medians = np.full(len(model.nodes), np.nan)
    for node in range(len(model.nodes)):
        inside = (nearest == node) & base
        inside = inside if inside.any() else nearest == node
        if inside.any():
            medians[node] = np.median(value[inside])
    known = np.isfinite(medians)
    vector[values] = np.interp(model.nodes, model.nodes[known], medians[known])
    if parameters.last_node_zero:
        vector[values.stop - 1] = 0.0
    profile = model.profile(vector)
    for number, column in enumerate(range(ratios.start, ratios.stop)):
        inside = (model.kind == number + 1) & (profile > 0)
        if inside.any():
            vector[column] = np.median(value[inside] / profile[inside])
    return vector


def _free(model: Profile, parameters: FlatGradientParameters) -> NDArray[np.bool_]:
    values, _, shift, plane = model.parts
    free = np.ones(model.size, np.bool_)
    free[values.stop - 1] = not parameters.last_node_zero
    free[shift] = parameters.fit_shift
    free[plane] = parameters.fit_plane
    return free


def _huber(residual: Floats, limit: float) -> tuple[Floats, float]:
    """Return weights and cost."""
    size = np.abs(residual)
    weight = np.where(size > limit, limit / np.maximum(size, limit), 1.0)
    cost = np.where(size > limit, limit * (2.0 * size - limit), size**2)
    return weight, float(cost.sum())


def _scatter(residual: Floats) -> float:
    return max(float(np.median(np.abs(residual))) / NORMAL_MAD, SMALLEST_SCATTER)


def _normal(
    model: Profile, vector: Floats, weight: Floats, residual: Floats, free: NDArray[np.bool_]
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return normal matrix and gradient of the parameters that samples depend on."""
    design = model.jacobian(vector)
    square = (design**2).sum(axis=0)
    chosen = np.flatnonzero(free & (square > EMPTY_COLUMN * square.max()))
    design = np.ascontiguousarray(design[:, chosen])
    matrix, gradient = np.zeros((chosen.size, chosen.size)), np.zeros(chosen.size)
    add_normal(design, weight, residual, matrix, gradient)
    return np.ascontiguousarray(matrix.T), gradient, chosen


def _minimize(
    model: Profile,
    value: Floats,
    vector: Floats,
    free: NDArray[np.bool_],
    parameters: FlatGradientParameters,
) -> _Fit:
    residual = value - model.values(vector)
    damping, converged, iteration = START_DAMPING, False, 0
    while not converged and iteration < parameters.iterations:
        iteration += 1
        limit = parameters.transition * _scatter(residual)
        weight, cost = _huber(residual, limit)
        matrix, gradient, chosen = _normal(model, vector, weight, residual, free)
        diagonal = np.diag(matrix).copy()
        while True:
            upper = matrix + damping * np.diag(diagonal)
            trial = vector.copy()
            if factor(upper):
                trial[chosen] += solve_factored(upper, gradient)
            rest = value - model.values(trial)
            lower = _huber(rest, limit)[1]
            if lower < cost or damping > LARGEST_DAMPING:
                break
            damping *= 10.0
        if not lower < cost:
            converged = True  # no step is better: the minimum, to rounding
            break
        converged = cost - lower <= parameters.tolerance * cost
        vector, residual, damping = trial, rest, max(damping / 10.0, 1e-12)
    scatter = _scatter(residual)
    weight, _ = _huber(residual, parameters.transition * scatter)
    matrix, _, chosen = _normal(model, vector, np.ones_like(weight), residual, free)
    covariance = np.zeros((model.size, model.size))
    covariance[free] = covariance[:, free] = np.nan
    if factor(matrix):
        options = RobustOptions(loss="huber", cut=parameters.transition)
        covariance[np.ix_(chosen, chosen)] = (
            scatter**2 * expected(options).efficiency * inverse_factored(matrix)
        )
    return _Fit(vector, covariance, scatter, iteration, converged)


def _dataset(
    model: Profile,
    names: list[str],
    normalization: float,
    fit: _Fit,
    offered: int,
    parameters: FlatGradientParameters,
) -> xr.Dataset:
    values, ratios, shift, plane = model.parts
    sigma = np.sqrt(np.diag(fit.covariance))
    labels = [f"value_{radius:g}" for radius in model.nodes]
    labels += [f"type_ratio_{name}" for name in names[1:]]
    labels += ["shift_x", "shift_y", "gradient_x", "gradient_y"]
    none, mm, per_mm = (
        {"units": unit} for unit in (v.DIMENSIONLESS, v.MILLIMETRE, v.PER_MILLIMETRE)
    )
    scalars = {
        "shift_x": (shift.start, mm),
        "shift_y": (shift.start + 1, mm),
        "gradient_x": (plane.start, per_mm),
        "gradient_y": (plane.start + 1, per_mm),
    }
    variables = {
        "value": (NODE, fit.vector[values], none),
        "value_sigma": (NODE, sigma[values], none),
        "type_ratio": (TYPE, np.concatenate([[1.0], fit.vector[ratios]]), none),
        "type_ratio_sigma": (TYPE, np.concatenate([[0.0], sigma[ratios]]), none),
        "normalization": ((), normalization, none),
        "covariance": ((v.PARAMETER, f"{v.PARAMETER}_2"), fit.covariance, none),
        "scatter": ((), fit.scatter, none),
        "used_count": ((), model.x.size, none),
        "rejected_count": ((), offered - model.x.size, none),
        "iterations": ((), fit.iterations, none),
        "converged": ((), fit.converged, none),
    }
    for name, (index, units) in scalars.items():
        variables[name] = ((), fit.vector[index], units)
        variables[f"{name}_sigma"] = ((), sigma[index], units)
    return xr.Dataset(
        variables,
        coords={
            "radius": (NODE, model.nodes, mm),
            TYPE: names,
            v.PARAMETER: labels,
            f"{v.PARAMETER}_2": labels,
        },
        attrs={"interpolation": parameters.interpolation},
    )
