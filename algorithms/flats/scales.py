"""The scale of each exposure and the relative response of each detector, from levels of flats.

A level is ``B_de = E_e G_d``: the light of the exposure times the response of the detector (or
amplifier). Dimensions are named and labels decide what belongs together, so detectors may have
different amplifiers and levels may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.flats.cells import Cells, arrange_cells, cell_weights
from skyloom.algorithms.flats.components import connected_components
from skyloom.algorithms.flats.parameters import FlatScaleParameters, Gauge
from skyloom.algorithms.flats.positions import gradient_terms
from skyloom.algorithms.flats.robust_separation import Fit, Task, fit_cells, robust_scatter
from skyloom.algorithms.flats.scale_messages import (
    LISTED,
    channel_and_exposure_names,
    check_connected,
    warn_of_scales,
)
from skyloom.algorithms.flats.scale_result import scale_dataset
from skyloom.algorithms.sky.m_estimator import RobustOptions, extra_variance

__all__ = ["measure_scales", "solve_flat_scales"]

Floats = NDArray[np.float64]
Fitter = Callable[[float], Fit]

SCATTER_ROUNDS = 20
SCATTER_SETTLED = 1e-4
SMALLEST_SCATTER = 1e-12  # below which levels agree to rounding


def solve_flat_scales(
    level: xr.DataArray,
    count: xr.DataArray | None = None,
    sigma: xr.DataArray | None = None,
    *,
    parameters: FlatScaleParameters | None = None,
) -> xr.Dataset:
    """Split levels of flats into a scale per exposure and a relative scale per detector.

    Parameters
    ----------
    level : DataArray, (exposure, detector) or (exposure, detector, amp), float64, adu or electron
        Clipped means; any order of dimensions. A level that is missing, not finite or not
        positive has no weight, whatever its count. Coordinates ``focal_x`` and ``focal_y`` (mm)
        of the detectors are needed for gradients.
    count : DataArray, like level, optional
        Pixels each level was measured with; 1 without it.
    sigma : DataArray, like level, unit of the level, optional
        Scatter of the pixels: the variance of a log level is ``(sigma / level)^2 / count`` and the
        square of ``parameters.systematic``. Without it the latter alone.
    parameters : FlatScaleParameters, optional

    Returns
    -------
    Dataset
        ``exposure_scale`` (exposure) [unit of the level] and ``detector_scale`` (detector, ...),
        their errors ``exposure_scale_sigma`` and ``detector_scale_sigma``; over all dimensions
        ``model``, ``residual`` (level / model - 1), ``pull`` (residual over its expected
        scatter) and ``cell_status`` (`CellStatus`). How many cells each was made from
        (``exposure_cell_count``, ``detector_cell_count``), which connected set it belongs to
        (``exposure_component``, ``detector_component``, -1 for none) and ``exposure_status``,
        ``detector_status`` (`CellStatus`: OK; MISSING without a usable cell; OUTLIER for an
        exposure that is left out as a whole, or a detector with too many outliers). Scalars
        ``chi2``, ``dof``, ``systematic`` (as used), ``systematic_sigma`` (if it was estimated),
        ``link_strength``. With gradients ``gradient`` and ``gradient_sigma`` (exposure, term),
        relative to the scale, at ``gradient_radius`` mm from the centre (``gradient_centre_x``,
        ``gradient_centre_y``), ``gradient_f`` and ``gradient_p_value`` of the F test against
        uniform illumination.

    Raises
    ------
    ValueError
        If a dimension is missing, a label repeats, or levels have neither noise nor systematic
        scatter.
    NoUsableDataError
        If no level is usable.
    DegenerateFitError
        If sets of detectors have no common exposure; the message names their members.

    Warns
    -----
    UserWarning
        If detectors or exposures have no usable level, if sets are linked weakly, if alternating
        means did not converge.

    Notes
    -----
    Weighted least squares of ``ln B = ln E + ln G`` in closed form, with the covariances of the
    normal matrix. Errors are those of weights that are inverse variances; with weights "counts"
    or "uniform" they are scaled by the residuals.

    Examples
    --------
    >>> level = xr.DataArray(
    ...     np.outer([0.8, 1.0, 1.2], [1000.0, 2000.0, 4000.0]), dims=("detector", "exposure")
    ... )
    >>> scales = solve_flat_scales(level)
    >>> scales["detector_scale"].values.round(6), scales["exposure_scale"].values.round(6)
    (array([0.8, 1. , 1.2]), array([1000., 2000., 4000.]))
    """
    parameters = parameters or FlatScaleParameters()
    if parameters.method == "alternating" and parameters.gradient_order:
        raise ValueError("method 'alternating' has no gradients: use 'wls' or gradient_order=0")
    cells = arrange_cells(level, count, sigma)
    geometry = gradient_terms(level, parameters.gradient_order)
    reference = _reference_index(level, parameters)
    check_connected(connected_components(cells.usable), level, parameters, "")

    absolute = parameters.weights == "variance"

    def task(weight: Floats, *, uniform: bool, prior: float = 0.0) -> Task:
        terms = geometry.terms[:, : 1 if uniform else None]
        return Task(cells.data, weight, terms, cells.pixels, absolute, prior, reference, parameters)

    def fitted(systematic: float) -> Fit:
        weight = cell_weights(cells, parameters, systematic)
        if parameters.gradient_order == 0:
            return fit_cells(task(weight, uniform=True))
        unit = 1.0
        if not absolute:
            # what a weight of 1 means is known from residuals only
            unit = robust_scatter(fit_cells(task(weight, uniform=True))) ** 2
            unit = max(unit, SMALLEST_SCATTER * float(weight.max()))
        prior = unit / parameters.gradient_prior**2
        return fit_cells(task(weight, uniform=False, prior=prior))

    systematic, fit = _with_scatter(cells, parameters, fitted)
    components = (fit.channels, fit.exposures)
    check_connected(components, level, parameters, " once outliers are left out")
    plain = None
    if parameters.gradient_order:
        # the same cells, uniform illumination
        same = task(np.where(fit.used, fit.weight, 0.0), uniform=True)
        plain = fit_cells(
            same._replace(parameters=parameters.model_copy(update={"outliers": "none"}))
        )
    warn_of_scales(cells, fit, level, parameters)
    return scale_dataset(level, cells, fit, plain, systematic, geometry, parameters)


def measure_scales(
    level: xr.DataArray,
    weight: xr.DataArray | None = None,
    *,
    method: Literal["wls", "alternating"] = "wls",
    iterations: int = 10_000,
    tolerance: float = 1e-10,
    gauge: Gauge = "counts",
) -> xr.Dataset:
    """Split levels into exposure and detector scales with given weights and nothing else.

    The plain form of `solve_flat_scales`: weights instead of errors, no outliers, no gradients.

    Parameters
    ----------
    level : DataArray, (exposure, detector) or (exposure, detector, amp), float64
        As there.
    weight : DataArray, like level, optional
        Relative weights, such as numbers of pixels; 1 without it.
    method, iterations, tolerance, gauge
        See `FlatScaleParameters`.

    Returns
    -------
    Dataset
        As of `solve_flat_scales`.

    Raises
    ------
    ValueError, NoUsableDataError, DegenerateFitError
        As there.

    Examples
    --------
    >>> level = xr.DataArray([[800.0, 1600.0], [1200.0, 2400.0]], dims=("detector", "exposure"))
    >>> measure_scales(level, method="alternating")["exposure_scale"].values.round(6)
    array([1000., 2000.])
    """
    parameters = FlatScaleParameters(
        method=method,
        weights="counts",
        gauge=gauge,
        outliers="none",
        iterations=iterations,
        tolerance=tolerance,
    )
    return solve_flat_scales(level, weight, parameters=parameters)


def _with_scatter(
    cells: Cells, parameters: FlatScaleParameters, fitted: Fitter
) -> tuple[float, Fit]:
    """Return the systematic scatter and the fit; estimate it if it is not given."""
    if parameters.systematic is not None or parameters.weights != "variance":
        systematic = parameters.systematic or 0.0
        return systematic, fitted(systematic)
    systematic, fit = _first_scatter(fitted)
    options = RobustOptions(loss="none")
    for _ in range(SCATTER_ROUNDS):
        inside = fit.used & (fit.leverage < 1.0 - SCATTER_SETTLED)
        if not inside.any():
            break
        variance = extra_variance(
            fit.residual[inside],
            fit.leverage[inside],
            cells.noise[inside] + SMALLEST_SCATTER**2,
            np.ones(int(inside.sum())),
            options,
        )
        before, systematic = systematic, max(float(np.sqrt(variance)), SMALLEST_SCATTER)
        fit = fitted(systematic)
        if abs(systematic - before) <= SCATTER_SETTLED * systematic:
            break
    return systematic, fit


def _first_scatter(fitted: Fitter) -> tuple[float, Fit]:
    """Return a robust scatter of residuals, from a fit in which it is far too large to matter."""
    fit = fitted(1.0)
    inside = fit.used & (fit.leverage < 1.0 - SCATTER_SETTLED)
    size = np.abs(fit.studentised[inside])
    scatter = 1.4826 * float(np.median(size)) if size.size else 0.0
    scatter = max(scatter, SMALLEST_SCATTER)
    return scatter, fitted(scatter)


def _reference_index(level: xr.DataArray, parameters: FlatScaleParameters) -> int | None:
    if parameters.gauge != "reference":
        return None
    names, _ = channel_and_exposure_names(level)
    wanted = parameters.reference
    wanted = " ".join(map(str, wanted)) if isinstance(wanted, tuple) else str(wanted)
    found = [index for index, name in enumerate(names) if str(name) == wanted]
    if not found:
        raise ValueError(
            f"gauge 'reference' needs a reference among the detectors, got {wanted!r}; there are "
            f"{', '.join(map(str, names[:LISTED]))}{', ...' if len(names) > LISTED else ''}"
        )
    return found[0]
