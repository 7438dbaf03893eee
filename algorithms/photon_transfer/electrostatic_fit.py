"""Fit the electrostatic model of boundary shifts to measured a matrices.

Seven numbers describe a detector: heights z_q, z_sh and z_sv, the half widths a and b of the
charge, the strength alpha and the offset beta. The last two enter linearly and are solved for
exactly at every step of the fit of the other five.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import scipy.optimize
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.photon_transfer.electrostatic import ElectrostaticModel, boundary_shifts
from skyloom.algorithms.vocabulary import (
    AMP,
    DIMENSIONLESS,
    LAG_X,
    LAG_Y,
    PARAMETER,
    PER_ELECTRON,
    AmplifierFlag,
)

__all__ = ["ElectrostaticFitParameters", "fit_electrostatic"]

Floats = NDArray[np.float64]

NAMES: Final = ("z_q", "z_sh", "z_sv", "a", "b", "alpha", "beta")
UNITS: Final = ("um", "um", "um", "um", "um", DIMENSIONLESS, PER_ELECTRON)
LARGEST_WIDTH: Final = 0.35
"""Largest half width of the charge, pixel."""
HIGHEST: Final = 0.3
"""Largest height of the charge, and of the end of drift above it, over the thickness."""
STEPS: Final = (1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-5, 1e-12)
"""Steps of the derivatives by the seven numbers, in their units."""
SMALLEST: Final = 1e-5
"""Smallest height and half width of the charge, um."""
CLOSEST: Final = 1e-9
"""Smallest distance between the charge and the end of the drift, um."""
NEAR_BOUND: Final = 1e-4
"""A number this near to its bound counts as fixed there, um."""
ALONE: Final = (np.sqrt(32.0), 2.0, 1.0)
"""Relative errors at the origin, on the axes and elsewhere when one amplifier is all there is."""
STARTS: Final = ((3.0, 1.0, 1.0, 1.0, 3.0), (1.5, 0.5, 1.5, 2.0, 2.0), (6.0, 2.0, 3.0, 0.5, 1.0))
"""Heights, distances and half widths from which the fit sets out, um for pixels of 10 um."""
FLOOR: Final = 0.1
"""No error is taken below this part of the median error, so no lag decides alone by chance."""


class ElectrostaticFitParameters(Parameters):
    """What is known of the detector, and which lags are fitted."""

    thickness: float = Field(100.0, description="thickness of the silicon, um", gt=0)
    pixel_size: float = Field(10.0, description="size of a pixel, um", gt=0)
    fit_range: int = Field(8, description="lags that are fitted along each axis", ge=3, le=50)
    outlier_clip: float = Field(
        5.0,
        description="an amplifier's a at a lag is left out beyond this many robust sigma of the "
        "median over amplifiers",
        gt=0,
    )


class _Data(NamedTuple):
    mean: Floats
    sigma: Floats
    amplifiers: NDArray[np.int64]


def _good_amplifiers(ptc: xr.Dataset, lags: int) -> Floats:
    """Return a of the amplifiers that were fitted, (amp, lag_y, lag_x)."""
    a = ptc["a"].transpose(AMP, LAG_Y, LAG_X).to_numpy()[:, :lags, :lags].astype(np.float64)
    good = np.isfinite(a).all(axis=(1, 2))
    if "amp_flag" in ptc:
        good &= (ptc["amp_flag"].to_numpy() & int(AmplifierFlag.BAD)) == 0
    if not good.any():
        raise ValueError("no amplifier has a good and complete a matrix")
    return np.asarray(a[good])


def _average(a: Floats, clip: float) -> _Data:
    """Return mean and error of the mean of each lag over amplifiers, without outliers."""
    lag = np.arange(a.shape[-1])
    relative = np.choose((lag[:, None] == 0).astype(int) + (lag == 0), ALONE[::-1]) * 1e-9
    # amplifiers that agree to rounding were copied and say no more than one
    if np.ptp(a, axis=0).max() <= 1e-12 * np.abs(a).max():
        return _Data(a[0], relative, np.full(a.shape[1:], len(a), dtype=np.int64))
    deviation = np.abs(a - np.median(a, axis=0))
    # with fewer than four amplifiers nobody can tell which one is wrong
    limit = clip * 1.4826 * np.median(deviation, axis=0) if len(a) >= 4 else np.inf
    kept = np.where(deviation <= limit, a, np.nan)
    count = np.isfinite(kept).sum(axis=0)
    with np.errstate(invalid="ignore"):
        scatter = np.nanstd(kept, axis=0) * np.sqrt(count / np.maximum(count - 1, 1))
    sigma = scatter / np.sqrt(count)
    return _Data(np.nanmean(kept, axis=0), np.maximum(sigma, FLOOR * np.median(sigma)), count)


class _Problem(NamedTuple):
    data: _Data
    depth: xr.DataArray | None
    parameters: ElectrostaticFitParameters

    def model(self, free: Floats) -> ElectrostaticModel:
        z_q, above_h, above_v, a, b = (float(value) for value in free)
        return ElectrostaticModel(
            z_q=z_q,
            z_sh=z_q + above_h,
            z_sv=z_q + above_v,
            a=a,
            b=b,
            thickness=self.parameters.thickness,
            pixel_size=self.parameters.pixel_size,
        )

    def solved(self, free: Floats) -> ElectrostaticModel:
        """Return the model with the best strength and offset, both within -10 ... 10."""
        model = self.model(free)
        shape = boundary_shifts(model, len(self.data.mean), depth=self.depth)["a"].to_numpy()
        weight = 1 / self.data.sigma.ravel()
        scale = float(np.abs(shape).max())
        design = np.stack([shape.ravel() / scale, np.ones(shape.size)], axis=1) * weight[:, None]
        target = self.data.mean.ravel() * weight
        (strength, offset), *_ = np.linalg.lstsq(design, target, rcond=None)
        return model._replace(
            alpha=float(np.clip(strength / scale, -10, 10)), beta=float(np.clip(offset, -10, 10))
        )

    def residuals(self, model: ElectrostaticModel) -> Floats:
        shifts = boundary_shifts(model, len(self.data.mean), depth=self.depth)
        return np.asarray(((shifts["a"].to_numpy() - self.data.mean) / self.data.sigma).ravel())

    def reduced(self, free: Floats) -> Floats:
        return self.residuals(self.solved(free))


def _bounds(parameters: ElectrostaticFitParameters) -> tuple[Floats, Floats]:
    upper = np.full(5, HIGHEST * parameters.thickness)
    upper[3:] = LARGEST_WIDTH * parameters.pixel_size
    return np.array([SMALLEST, CLOSEST, CLOSEST, SMALLEST, SMALLEST]), upper


def _least_squares(problem: _Problem, start: Floats) -> scipy.optimize.OptimizeResult:
    lower, upper = _bounds(problem.parameters)
    return scipy.optimize.least_squares(
        problem.reduced,
        np.clip(start, 2 * lower, 0.99 * upper),
        bounds=(lower, upper),
        x_scale=np.full(5, 0.1 * problem.parameters.pixel_size),
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
        max_nfev=200,
    )


def _fitted(problem: _Problem) -> tuple[ElectrostaticModel, bool]:
    """Return the best model of all starts and whether its fit converged."""
    # the best start is found as if all light converted at the surface, which is 20 times faster
    surface = problem._replace(depth=None)
    pixel = problem.parameters.pixel_size
    found = min(
        (_least_squares(surface, np.array(start) * pixel / 10) for start in STARTS),
        key=lambda one: float(one.cost),
    )
    if problem.depth is not None:
        found = _least_squares(problem, found.x)
    return problem.solved(found.x), bool(found.status > 0)


def _sigma(problem: _Problem, model: ElectrostaticModel, dof: int) -> Floats:
    """Return errors of the seven numbers, scaled to the scatter; NaN for those at a bound."""
    lower, upper = _bounds(problem.parameters)
    fitted = np.array([model.z_q, model.z_sh - model.z_q, model.z_sv - model.z_q, model.a, model.b])
    inside = np.append((fitted > lower + NEAR_BOUND) & (fitted < upper - NEAR_BOUND), [True, True])
    residuals = problem.residuals(model)
    # a step of z_q moves both ends of the drift along, as it does in the fit
    moved = {"z_q": ("z_q", "z_sh", "z_sv")}
    columns = []
    for name, step in zip(NAMES, STEPS, strict=True):
        ahead = {key: getattr(model, key) + step for key in moved.get(name, (name,))}
        columns.append((problem.residuals(model._replace(**ahead)) - residuals) / step)
    jacobian = np.stack(columns, axis=1)[:, inside]
    norm = np.linalg.norm(jacobian, axis=0)
    inverse = np.linalg.pinv(jacobian / norm) / norm[:, None]
    # rows: the fitted numbers in units of the residuals; the ends of drift are sums of two
    rows = np.zeros((len(NAMES), residuals.size))
    rows[inside] = inverse
    rows[1:3] += rows[0]
    sigma = np.sqrt(np.sum(rows**2, axis=1) * np.sum(residuals**2) / dof)
    sigma[~inside & (np.arange(len(NAMES)) > 2)] = np.nan
    return np.asarray(sigma)


def fit_electrostatic(
    ptc: xr.Dataset,
    *,
    depth: xr.DataArray | None = None,
    parameters: ElectrostaticFitParameters | None = None,
) -> xr.Dataset:
    """Fit the electrostatic model to the a matrices of the amplifiers of a detector.

    Parameters
    ----------
    ptc : Dataset, (amp, lag_y, lag_x)
        Solved photon transfer: ``a`` in 1/electron; amplifiers flagged BAD are left out.
    depth : DataArray, (depth), optional
        Distribution of the conversion depth in the filter of the flats, see `conversion_depth`;
        without it all light converts at the surface.
    parameters : ElectrostaticFitParameters, optional
        What is known of the detector, and which lags are fitted.

    Returns
    -------
    Dataset, (lag_y, lag_x, parameter)
        ``parameter_value`` and ``parameter_sigma`` (units in ``parameter_unit``) of z_q, z_sh,
        z_sv, a, b, alpha and beta; ``a_mean`` and ``a_sigma``, the data, with ``count``
        amplifiers; the shifts ``north``, ``south``, ``east`` and ``west`` and ``a_model`` of the
        best model; ``chi2``, ``dof`` and ``converged``.

    Raises
    ------
    KeyError
        If the photon transfer has no ``a``.
    ValueError
        If there are fewer than three lags or no good amplifier.

    Notes
    -----
    The data are the mean over amplifiers and the error of that mean, from their scatter; single
    values far from the median over amplifiers are left out, not their amplifiers. One amplifier
    alone gets relative errors, so its chi2 means nothing. Heights and half widths are correlated;
    shifts and a are determined much better than they are, and the errors of the rest hold only
    as long as those at a bound, which have no error, are right there. With errors estimated from
    few amplifiers n, chi2 / dof comes out near (n - 1) / (n - 3).

    Examples
    --------
    >>> truth = ElectrostaticModel(z_q=3.0, z_sh=3.5, z_sv=4.0, a=1.0, b=3.0, alpha=0.7)
    >>> a = boundary_shifts(truth, 4).a.expand_dims(amp=["C00"])
    >>> fit = fit_electrostatic(a.to_dataset(name="a"))
    >>> bool(fit.converged), bool(abs(fit.a_model - a[0]).max() < 1e-11)
    (True, True)
    """
    parameters = parameters or ElectrostaticFitParameters()
    if "a" not in ptc:
        raise KeyError("ptc lacks a")
    lags = min(parameters.fit_range, ptc.sizes[LAG_Y], ptc.sizes[LAG_X])
    if lags < 3:
        raise ValueError(f"ptc has {lags} lags; seven numbers need three or more along each axis")
    data = _average(_good_amplifiers(ptc, lags), parameters.outlier_clip)
    problem = _Problem(data, depth, parameters)
    model, converged = _fitted(problem)
    dof = lags * lags - len(NAMES)
    shifts = boundary_shifts(model, lags, depth=depth).rename(a="a_model")
    dims, units = (LAG_Y, LAG_X), {"units": PER_ELECTRON}
    plain = {"units": DIMENSIONLESS}
    return shifts.assign(
        {
            "a_mean": (dims, data.mean, units),
            "a_sigma": (dims, data.sigma, units),
            "count": (dims, data.amplifiers, plain),
            "parameter_value": (PARAMETER, [getattr(model, name) for name in NAMES]),
            "parameter_sigma": (PARAMETER, _sigma(problem, model, dof)),
            "parameter_unit": (PARAMETER, list(UNITS)),
            "chi2": ((), float(np.sum(problem.residuals(model) ** 2)), plain),
            "dof": ((), dof, plain),
            "converged": ((), converged, plain),
        }
    ).assign_coords({PARAMETER: list(NAMES)})
