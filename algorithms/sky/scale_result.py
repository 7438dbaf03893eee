"""The dataset that the fit of a scale is returned as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.sky.focal_basis import FocalBox, Regressors
from skyloom.algorithms.sky.robust_fit import HALF, RobustFit
from skyloom.algorithms.sky.sample_arrays import Samples
from skyloom.algorithms.units import squared_units

__all__ = ["About", "fit_dataset"]

Floats = NDArray[np.float64]


class About(NamedTuple):
    """What is known of a fit before it is made."""

    terms: list[tuple[int, int]]
    groups: list[Any]
    detectors: NDArray[Any]
    dropped: int
    box: FocalBox
    units: str
    position_units: str
    templates: int = 0  # 0 if there is one or none: nothing is said of templates then


def fit_dataset(
    about: About,
    fit: RobustFit | None = None,
    regressors: Regressors | None = None,
    used: Samples | None = None,
    *,
    status: v.ScaleStatus,
    scale: float | None = None,
    collinearity: float = np.nan,
) -> xr.Dataset:
    """Return the dataset of a fit; without one, NaN."""
    units = {"units": about.units}
    squared = {"units": squared_units(about.units)}
    terms, groups, detectors = about.terms, about.groups, about.detectors
    number = len(terms)
    scalars: dict[str, tuple[float, dict[str, str]]] = dict.fromkeys(
        ("scale", "scale_sigma", "scale_sigma_sandwich", "rms", "extra_scatter"), (np.nan, units)
    )
    scalars |= dict.fromkeys(("chi2", "collinearity", "condition"), (np.nan, {"units": ""}))
    scalars["collinearity"] = (collinearity, {"units": ""})
    counts = {"dof": 0, "used_count": 0, "rejected_count": 0, "iterations": 0}
    coefficients, covariance = np.full(number, np.nan), np.full((number, number), np.nan)
    step = np.full(len(groups), np.nan)
    means, pulls = np.full(len(detectors), np.nan), np.full(len(detectors), np.nan)
    if fit is not None and regressors is not None and used is not None:
        inside = fit.robust >= HALF
        own = regressors.template is not None and scale is None
        found = {
            "scale": fit.solution[-1] if own else np.nan if scale is None else scale,
            "scale_sigma": np.sqrt(fit.covariance[-1, -1]) if own else np.nan,
            "scale_sigma_sandwich": np.sqrt(fit.sandwich[-1, -1]) if own else np.nan,
            "rms": np.sqrt(np.mean(fit.residual[inside] ** 2)) if inside.any() else np.nan,
            "extra_scatter": fit.extra_scatter,
            "chi2": fit.chi2,
            "collinearity": fit.collinearity if own else np.nan,
            "condition": fit.condition,
        }
        scalars = {name: (float(value), scalars[name][1]) for name, value in found.items()}
        counts = {
            "dof": fit.dof,
            "used_count": int(inside.sum()),
            "rejected_count": int((~inside).sum()),
            "iterations": fit.iterations,
        }
        coefficients = fit.solution[:number]
        covariance = fit.covariance[:number, :number]
        step = regressors.step_values(fit.solution) if groups else step
        means, pulls = _residuals_of_detectors(fit, used, detectors)
    counts["dropped_count"] = about.dropped
    several: dict[str, Any] = {}
    if about.templates:
        found_scale, found_sigma = _templates(about, fit, regressors, scalars)
        several = {
            "template_scale": ("template", found_scale, units),
            "template_scale_sigma": ("template", found_sigma, units),
        }
    degrees = np.array(terms, dtype=np.int16).reshape(-1, 2)
    return xr.Dataset(
        {
            **{name: ((), value, attrs) for name, (value, attrs) in scalars.items()},
            **{name: ((), np.int64(value), {"units": ""}) for name, value in counts.items()},
            "status": ((), np.uint8(status), v.flag_attributes(v.ScaleStatus)),
            "coefficients": (v.COEFFICIENT, coefficients, units),
            "coefficient_covariance": ((v.COEFFICIENT, f"{v.COEFFICIENT}_2"), covariance, squared),
            "step": ("group", step, units),
            "residual_mean": (v.DETECTOR, means, units),
            "residual_pull": (v.DETECTOR, pulls, {"units": ""}),
            **several,
        },
        coords={
            "degree_x": (v.COEFFICIENT, degrees[:, 0]),
            "degree_y": (v.COEFFICIENT, degrees[:, 1]),
            "group": np.array(groups, dtype=None if groups else np.str_),
            v.DETECTOR: detectors,
        },
        attrs={
            "focal_box": list(about.box),
            "focal_box_units": about.position_units,
        },
    )


def _templates(
    about: About,
    fit: RobustFit | None,
    regressors: Regressors | None,
    scalars: Mapping[str, tuple[float, dict[str, str]]],
) -> tuple[Floats, Floats]:
    """Return the scale of every template and its error, the first as it is told elsewhere."""
    scales, sigmas = np.full(about.templates, np.nan), np.full(about.templates, np.nan)
    if fit is not None and regressors is not None:
        others = slice(regressors.templates.start, regressors.templates.stop - 1)
        scales[1:] = fit.solution[others]
        sigmas[1:] = np.sqrt(np.diag(fit.covariance)[others])
    scales[0], sigmas[0] = scalars["scale"][0], scalars["scale_sigma"][0]
    return scales, sigmas


def _residuals_of_detectors(
    fit: RobustFit, used: Samples, detectors: NDArray[Any]
) -> tuple[Floats, Floats]:
    """Return the weighted mean residual of each detector, and that in units of its error."""
    exact = not fit.variance.all()  # data without noise have no error to compare with
    weight = fit.robust if exact else fit.robust / fit.variance
    means, pulls = np.full(len(detectors), np.nan), np.full(len(detectors), np.nan)
    for index, name in enumerate(detectors):
        own = used.detector == name
        total = float(weight[own].sum())
        if total > 0:
            means[index] = float((weight[own] * fit.residual[own]).sum()) / total
            pulls[index] = np.nan if exact else means[index] * np.sqrt(total)
    return means, pulls
