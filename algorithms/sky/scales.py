"""The scale of a sky frame in an exposure, from samples of the whole focal plane.

Samples (see `measure_scale`) are datasets over ``sample`` with the level of the image, that of the
sky frame over the same pixels, and the variances of both. One scale holds for a focal plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, DegenerateFitError
from skyloom.algorithms.sky.focal_basis import (
    Regressors,
    chebyshev_terms,
    scaled_to_box,
)
from skyloom.algorithms.sky.robust_fit import HALF, RobustFit, fit_robustly
from skyloom.algorithms.sky.sample_arrays import Samples, collect_samples
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.scale_result import About, fit_dataset

__all__ = ["solve_scales"]

Floats = NDArray[np.float64]

COMPAT_SIGMA = 0.741  # of a Gaussian, from its interquartile range, in three digits
ZERO = 1e-12  # a template below this part of its own error or of 1 is zero


def solve_scales(
    samples: xr.Dataset | Iterable[xr.Dataset],
    *,
    level: float | None = None,
    detector_types: Mapping[Any, str] | None = None,
    focal_box: Sequence[float] | None = None,
    parameters: SolveScaleParameters | None = None,
) -> xr.Dataset:
    """Fit the scale of a sky frame to the samples of a focal plane.

    Parameters
    ----------
    samples : Dataset or iterable of Dataset, (..., sample)
        Of all detectors of one exposure, as `measure_scale` returns them; their order makes no
        difference beyond rounding. With a dimension ``exposure`` each exposure is solved alone.
        Samples without a finite level, or whose template is not finite or of infinite variance, are
        left out.
    level : float, optional
        Sky level, units of the image: what the scale is expected to be near to. It serves only
        where the samples do not determine the scale.
    detector_types : mapping from detector to type, optional
        Needed for steps between types.
    focal_box : (x_start, x_stop, y_start, y_stop), mm, optional
        Where the smooth functions are defined; by default the box around all detectors.
    parameters : SolveScaleParameters, optional

    Returns
    -------
    Dataset
        ``scale`` and ``scale_sigma`` [units of the image], ``scale_sigma_sandwich`` (from the
        residuals alone), ``chi2``, ``dof``, ``used_count``, ``rejected_count`` (robust weight below
        1/2), ``dropped_count`` (not finite or without variance), ``rms`` of the residuals used,
        ``extra_scatter`` beyond the variances, ``collinearity`` (part of the variance of the sky
        frame that the smooth functions explain), ``condition``, ``iterations``, ``status``
        (`ScaleStatus`); ``coefficients`` (coefficient) and ``coefficient_covariance`` of the smooth
        functions, of degrees ``degree_x`` and ``degree_y``; ``step`` (group) of the detectors or
        types; ``residual_mean`` and ``residual_pull`` (detector). With several templates (see
        `fit_visit_background`) ``template_scale`` and ``template_scale_sigma`` (template), the
        first of which is the scale. Attribute ``focal_box``.

    Raises
    ------
    ValueError
        If there are no samples at all, units differ, types are missing, or samples say that they
        are of several exposures, filters or cameras.
    DegenerateFitError
        If the samples do not determine the scale and the parameters say to raise.

    Notes
    -----
    Generalised least squares with an M-estimator. The error of the scale is inflated by
    ``1 / (1 - R²)``, R² the collinearity. Noise of the template is corrected for by taking its
    weighted variance off the normal matrix (Fuller 1987, Measurement Error Models, chapter 2).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> template = rng.normal(0.0, 0.01, 16)
    >>> samples = xr.Dataset(
    ...     {
    ...         "level": ("sample", 1000.0 * template + 3.0),
    ...         "level_variance": ("sample", np.full(16, 1e-4)),
    ...         "template": ("sample", template),
    ...         "template_variance": ("sample", np.zeros(16)),
    ...     },
    ...     coords={"x": ("sample", np.arange(16.0)), "y": ("sample", np.arange(16.0) % 4)},
    ... )
    >>> fit = solve_scales(samples)
    >>> round(float(fit["scale"]), 6), v.ScaleStatus(int(fit["status"])).name
    (1000.0, 'OK')
    """
    parameters = SolveScaleParameters() if parameters is None else parameters
    parts = [samples] if isinstance(samples, xr.Dataset) else list(samples)
    if not parts:
        raise ConfigurationError("samples is empty: a scale needs the samples of a detector")
    if any(v.EXPOSURE in part.dims for part in parts):
        # An exposure without one of the detectors has NaN there and is fitted from the others.
        parts = list(xr.align(*parts, join="outer", exclude=[v.SAMPLE, v.DETECTOR]))
        fits = [
            solve_scales(
                [part.isel({v.EXPOSURE: index}) for part in parts],
                level=level,
                detector_types=detector_types,
                focal_box=focal_box,
                parameters=parameters,
            )
            for index in range(parts[0].sizes[v.EXPOSURE])
        ]
        return xr.concat(fits, dim=parts[0][v.EXPOSURE], combine_attrs="override")
    arrays = collect_samples(parts, focal_box)
    if parameters.mode == "compat":
        return _solve_compat(arrays, parameters)
    return _solve_joint(arrays, level, detector_types, parameters)


def _solve_joint(
    arrays: Samples,
    level: float | None,
    detector_types: Mapping[Any, str] | None,
    parameters: SolveScaleParameters,
) -> xr.Dataset:
    finite = np.isfinite(arrays.level) & np.isfinite(arrays.x) & np.isfinite(arrays.y)
    if arrays.template is not None:
        # what no exposure of the frame observed has an infinite variance, and no vote
        finite &= np.isfinite(arrays.template) & ~np.isposinf(arrays.template_variance)
    if arrays.others is not None and arrays.others_variance is not None:
        finite &= np.isfinite(arrays.others).all(axis=1)
        finite &= ~np.isposinf(arrays.others_variance).any(axis=1)
    variance = np.where(np.isfinite(arrays.level_variance), arrays.level_variance, 0.0)
    weighted = parameters.weights == "inverse_variance" and bool(np.any(variance[finite] > 0))
    good = finite & (variance > 0) if weighted else finite
    used = arrays.where(good)
    groups, group = sky_groups(used, detector_types, parameters)
    terms = chebyshev_terms(parameters.order)
    regressors = Regressors(
        *scaled_to_box(used.x, used.y, arrays.box),
        terms=terms,
        group=group,
        groups=len(groups),
        template=used.template,
        others=used.others,
    )
    about = About(
        terms=terms,
        groups=groups,
        detectors=arrays.detectors,
        dropped=int((~good).sum()),
        box=arrays.box,
        units=arrays.units,
        position_units=arrays.position_units,
        templates=0 if arrays.others is None else 1 + arrays.others.shape[1],
    )
    if not np.any(good):
        # a frame without any value says nothing of the scale, however good the image
        blank = arrays.template is not None and np.isfinite(arrays.level).any()
        status = v.ScaleStatus.DEGENERATE if blank else v.ScaleStatus.NO_DATA
        return fit_dataset(about, status=status)
    noise = used.template_variance[None]
    if used.others_variance is not None:
        noise = np.concatenate([used.others_variance.T, noise])
    noise = np.where(np.isfinite(noise), noise, 0.0)
    problem: dict[str, Any] = {
        "data": used.level,
        "variance": used.level_variance if weighted else np.zeros(len(used.level)),
        "template_variance": noise,
        "options": parameters.robust_options(),
        "penalty": _penalty(regressors, parameters),
    }
    if used.template is None:
        fit = fit_robustly(regressors, **problem)
        return fit_dataset(about, fit, regressors, used, status=_status(fit, parameters))
    if not np.any(np.abs(used.template) > ZERO):
        # nothing to scale: the smooth part alone is fitted
        fit = fit_robustly(regressors._replace(template=np.zeros(len(used.level))), **problem)
        return fit_dataset(about, fit, regressors, used, status=v.ScaleStatus.DEGENERATE, scale=0.0)
    fit = fit_robustly(regressors, **problem)
    if fit.collinearity <= parameters.largest_collinearity and fit.kept[-1]:
        return fit_dataset(about, fit, regressors, used, status=_status(fit, parameters))
    if parameters.on_degenerate == "raise":
        raise DegenerateFitError(
            f"the smooth functions explain {fit.collinearity:.6f} of the sky frame's variance, "
            f"more than largest_collinearity = {parameters.largest_collinearity}: lower the order "
            f"or remove the steps"
        )
    if level is None or not level > 0:
        return fit_dataset(about, status=v.ScaleStatus.DEGENERATE, collinearity=fit.collinearity)
    problem["penalty"][-1, -1] += 1.0 / (parameters.prior_sigma * level) ** 2
    target = np.zeros(regressors.columns)
    target[-1] = level
    fit = fit_robustly(regressors, **problem, target=target)
    return fit_dataset(about, fit, regressors, used, status=v.ScaleStatus.FROM_PRIOR)


def sky_groups(
    used: Samples, detector_types: Mapping[Any, str] | None, parameters: SolveScaleParameters
) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the groups that have a step of their own, and the group of each sample."""
    if parameters.steps == "none":
        return [], np.zeros(len(used.level), np.int64)
    labels = used.detector
    if parameters.steps == "type":
        types = {} if detector_types is None else detector_types
        missing = [name for name in np.unique(labels).tolist() if name not in types]
        if missing:
            raise ConfigurationError(f"detector_types has no type of the detectors {missing}")
        labels = np.array([str(types[name]) for name in labels.tolist()], dtype=np.str_)
    groups, index = np.unique(labels, return_inverse=True)
    return groups.tolist(), index.astype(np.int64)


def _penalty(regressors: Regressors, parameters: SolveScaleParameters) -> Floats:
    """Return what a prior of the steps, sigma each, adds to the normal matrix."""
    penalty = np.zeros((regressors.columns, regressors.columns))
    if parameters.step_sigma is not None and regressors.groups > 1:
        free = regressors.groups - 1
        penalty[regressors.steps, regressors.steps] = (
            np.eye(free) + np.ones((free, free))
        ) / parameters.step_sigma**2
    return penalty


def _status(fit: RobustFit, parameters: SolveScaleParameters) -> v.ScaleStatus:
    if int(np.sum(fit.robust >= HALF)) < parameters.minimum_samples:
        return v.ScaleStatus.FEW_SAMPLES
    return v.ScaleStatus.OK if fit.converged else v.ScaleStatus.NOT_CONVERGED


def _solve_compat(arrays: Samples, parameters: SolveScaleParameters) -> xr.Dataset:
    """Solve through the origin with equal weights, rejecting for good."""
    if arrays.template is None:
        raise ConfigurationError("the compatible mode needs samples with a template")
    if arrays.others is not None:
        raise ConfigurationError("the compatible mode fits one template, the samples have several")
    good = np.isfinite(arrays.level) & np.isfinite(arrays.template)
    about = About(
        terms=[],
        groups=[],
        detectors=arrays.detectors,
        dropped=int((~good).sum()),
        box=arrays.box,
        units=arrays.units,
        position_units=arrays.position_units,
    )
    result = fit_dataset(about, status=v.ScaleStatus.NO_DATA)
    if not good.any():
        return result
    f, g = arrays.level[good], arrays.template[good]
    kept = np.ones(len(f), np.bool_)
    scale = _through_origin(f, g)
    for _ in range(parameters.compat_iterations):
        if not kept.any():
            break
        residual = f - scale * g
        low, high = np.percentile(residual[kept], [25, 75])
        kept &= ~(np.abs(residual) > parameters.compat_rejection * COMPAT_SIGMA * (high - low))
        scale = _through_origin(f[kept], g[kept])
    residual = (f - scale * g)[kept]
    if not kept.any():
        residual = np.full(1, np.nan)
    square = float(np.sum(g[kept] ** 2))
    dof = int(kept.sum()) - 1
    chi2 = float(np.sum(residual**2))
    sigma = np.sqrt(chi2 / dof / square) if dof > 0 and square > 0 else np.nan
    sandwich = np.sqrt(np.sum((residual * g[kept]) ** 2)) / square if square > 0 else np.nan
    status = v.ScaleStatus.OK if square > 0 else v.ScaleStatus.DEGENERATE
    values = {
        "scale": scale,
        "scale_sigma": sigma,
        "scale_sigma_sandwich": sandwich,
        "rms": np.sqrt(np.mean(residual**2)),
        "collinearity": 0.0,
        "used_count": int(kept.sum()),
        "rejected_count": int((~kept).sum()),
        "dof": dof,
        "iterations": parameters.compat_iterations,
        "status": np.uint8(status),
    }
    return result.assign(
        {
            name: result[name].copy(data=np.asarray(value, result[name].dtype))
            for name, value in values.items()
        }
    )


def _through_origin(f: Floats, g: Floats) -> float:
    square = float(np.sum(g * g))
    return float(np.sum(f * g)) / square if square > 0 else 0.0
