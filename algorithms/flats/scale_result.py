"""A separation of exposures and detectors as a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import fdtrc

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.flats.cells import Cells
from skyloom.algorithms.flats.parameters import FlatScaleParameters
from skyloom.algorithms.flats.positions import TERMS, Geometry
from skyloom.algorithms.flats.robust_separation import Fit
from skyloom.algorithms.vocabulary import CellStatus

__all__ = ["scale_dataset"]

Floats = NDArray[np.float64]
CODES = v.flag_attributes(CellStatus)
TERM = "term"


def scale_dataset(
    level: xr.DataArray,
    cells: Cells,
    fit: Fit,
    plain: Fit | None,
    systematic: float,
    geometry: Geometry,
    parameters: FlatScaleParameters,
) -> xr.Dataset:
    """Return scales, errors, residuals and what is to be known of them.

    ``plain`` is the fit of uniform illumination to the same cells, if gradients were fitted.
    """
    dims = tuple(str(name) for name in level.dims if name != v.EXPOSURE)
    if set(dims) == {v.DETECTOR, v.AMP}:
        dims = (v.DETECTOR, v.AMP)
    shape = tuple(level.sizes[name] for name in dims)
    units = str(level.attrs.get("units", v.DIMENSIONLESS))
    count = geometry.terms.shape[1]
    chi2 = _chi2(fit, fit.weight)
    dof = _dof(fit)
    unit = 1.0
    if parameters.weights != "variance":
        unit = chi2 / dof if dof > 0 else np.nan
    exposure_scale, detector_scale = np.exp(fit.theta[:, 0]), np.exp(fit.gamma)
    status = cells.status.copy()
    status[cells.usable & ~fit.used] = CellStatus.OUTLIER
    counted = cells.usable & ~fit.dropped
    number = fit.used.sum(axis=1)
    bad = counted.sum(axis=1) - (fit.used & counted).sum(axis=1)
    unstable = bad > parameters.largest_outlier_fraction * counted.sum(axis=1)
    detector_status = np.where(
        number == 0, CellStatus.MISSING, np.where(unstable, CellStatus.OUTLIER, CellStatus.OK)
    )
    exposure_number = fit.used.sum(axis=0)
    exposure_status = np.where(
        fit.dropped,
        CellStatus.OUTLIER,
        np.where(exposure_number == 0, CellStatus.MISSING, CellStatus.OK),
    )
    residual = np.where(cells.usable, np.expm1(fit.residual), np.nan)
    pull = np.where(cells.usable, fit.studentised, np.nan)
    plain_units = {"units": v.DIMENSIONLESS}

    def by_detector(values: NDArray[Any], **attributes: Any) -> tuple[Any, ...]:
        return dims, values.reshape(shape), attributes or plain_units

    def by_exposure(values: NDArray[Any], **attributes: Any) -> tuple[Any, ...]:
        return (v.EXPOSURE,), values, attributes or plain_units

    def by_cell(values: NDArray[Any], **attributes: Any) -> tuple[Any, ...]:
        return (*dims, v.EXPOSURE), values.reshape(*shape, -1), attributes or plain_units

    theta_sigma = np.sqrt(unit * fit.theta_variance)
    variables: dict[str, Any] = {
        "exposure_scale": by_exposure(exposure_scale, units=units),
        "exposure_scale_sigma": by_exposure(exposure_scale * theta_sigma[:, 0], units=units),
        "detector_scale": by_detector(detector_scale),
        "detector_scale_sigma": by_detector(detector_scale * np.sqrt(unit * fit.gamma_variance)),
        "model": by_cell(_model(detector_scale, exposure_scale, fit, geometry), units=units),
        "residual": by_cell(residual),
        "pull": by_cell(pull / np.sqrt(unit) if unit > 0.0 else 0.0 * pull),
        "cell_status": by_cell(status, **CODES),
        "exposure_cell_count": by_exposure(exposure_number),
        "detector_cell_count": by_detector(number),
        "exposure_component": by_exposure(fit.exposures),
        "detector_component": by_detector(fit.channels),
        "exposure_status": by_exposure(exposure_status.astype(np.uint8), **CODES),
        "detector_status": by_detector(detector_status.astype(np.uint8), **CODES),
        "chi2": ((), chi2, plain_units),
        "dof": ((), dof, plain_units),
        "systematic": ((), systematic, plain_units),
        "systematic_sigma": ((), _systematic_sigma(systematic, dof, parameters), plain_units),
        "link_strength": ((), fit.link_strength, plain_units),
    }
    coords: Any = level.coords
    if plain is not None:
        coords = dict(coords) | {TERM: list(TERMS[: count - 1])}
        dof_plain = _dof(plain)
        ratio = _f_ratio(_chi2(plain, fit.weight), dof_plain, chi2, dof)
        variables |= {
            "gradient": ((v.EXPOSURE, TERM), fit.theta[:, 1:], plain_units),
            "gradient_sigma": ((v.EXPOSURE, TERM), theta_sigma[:, 1:], plain_units),
            "gradient_radius": ((), geometry.radius, {"units": v.MILLIMETRE}),
            "gradient_centre_x": ((), geometry.centre[0], {"units": v.MILLIMETRE}),
            "gradient_centre_y": ((), geometry.centre[1], {"units": v.MILLIMETRE}),
            "gradient_f": ((), ratio, plain_units),
            "gradient_p_value": (
                (),
                float(fdtrc(dof_plain - dof, dof, ratio)) if np.isfinite(ratio) else np.nan,
                plain_units,
            ),
        }
    attributes = {
        "method": parameters.method,
        "weights": parameters.weights,
        "gauge": parameters.gauge,
        "gradient_order": parameters.gradient_order,
    }
    return xr.Dataset(variables, coords, attributes)


def _model(detector_scale: Floats, exposure_scale: Floats, fit: Fit, geometry: Geometry) -> Floats:
    model = np.outer(detector_scale, exposure_scale)
    for term in range(1, geometry.terms.shape[1]):
        model *= np.exp(geometry.terms[:, term, None] * fit.theta[:, term])
    return model


def _chi2(fit: Fit, weight: Floats) -> float:
    return float((weight * fit.residual**2 * fit.used).sum())


def _dof(fit: Fit) -> int:
    """Return the cells used less the unknowns that they determine, the sum of the leverages.

    Gradients that too few detectors determine are held by their prior, and do not count.
    """
    return int(fit.used.sum()) - round(float(fit.leverage.sum()))


def _f_ratio(chi2_plain: float, dof_plain: int, chi2: float, dof: int) -> float:
    if dof <= 0 or dof_plain <= dof or not chi2 > 0.0:
        return np.nan
    return ((chi2_plain - chi2) / (dof_plain - dof)) / (chi2 / dof)


def _systematic_sigma(systematic: float, dof: int, parameters: FlatScaleParameters) -> float:
    """Return the error of an estimated scatter, and 0 of a given one."""
    if parameters.systematic is not None:
        return 0.0
    return systematic / np.sqrt(2.0 * dof) if dof > 0 else np.nan
