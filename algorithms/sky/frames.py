"""Sky frames: what is left of the sky of many exposures when its smooth part is taken off.

A *residual* is a background, made dimensionless: the bins of one detector less the smooth sky of
the focal plane, over the sky level of the exposure. A *sky frame* is the combination of the
residuals of many exposures. It has the form of a background, with ``exposure_count`` besides.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import fill_bad
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.sky import frame_kernels as kernels
from skyloom.algorithms.sky.focal_plane_background import focal_plane_on_detector
from skyloom.algorithms.sky.frame_origin import (
    ORIGIN,
    check_common_origin,
    check_distinct_exposures,
)
from skyloom.algorithms.sky.frame_parameters import AverageParameters

__all__ = ["average_backgrounds", "sky_frame_residual", "sky_level_status"]

Floats = NDArray[np.float64]

BINS = (v.BIN_Y, v.BIN_X)
LEAST_SIGNIFICANCE = 3.0  # of the sky level of an exposure, in standard errors


def sky_level_status(scale: float, scale_sigma: float = 0.0) -> v.SkyLevelStatus:
    """Return whether the sky level of an exposure is good for a sky frame, or why not.

    Parameters
    ----------
    scale, scale_sigma : float, any unit
        Level of the sky and its standard error (NaN: unknown).

    Returns
    -------
    SkyLevelStatus
        OK, NONFINITE, NONPOSITIVE, or INSIGNIFICANT below three standard errors.

    Examples
    --------
    >>> [sky_level_status(*pair).name for pair in ((900.0, 1.0), (-3.0, 1.0), (2.0, 1.0))]
    ['OK', 'NONPOSITIVE', 'INSIGNIFICANT']
    """
    if not np.isfinite(scale):
        return v.SkyLevelStatus.NONFINITE
    if not scale > 0:
        return v.SkyLevelStatus.NONPOSITIVE
    if np.isfinite(scale_sigma) and scale < LEAST_SIGNIFICANCE * scale_sigma:
        return v.SkyLevelStatus.INSIGNIFICANT
    return v.SkyLevelStatus.OK


def sky_frame_residual(
    background: xr.Dataset,
    model: xr.Dataset,
    transform: Floats,
    *,
    scale: float | None = None,
    scale_sigma: float | None = None,
    detector: Any = None,
) -> xr.Dataset:
    """Return what one exposure says about the sky frame of one detector.

    Parameters
    ----------
    background : Dataset, (bin_y, bin_x)
        ``level`` [image units], ``variance``, ``count``, ``flags`` of `measure_background`.
    model : Dataset
        Smooth sky of the exposure over the focal plane, of `focal_plane_background` or
        `fit_visit_background`.
    transform : array, (2, 3), mm
        Takes pixels (x, y, 1) of the detector to the focal plane.
    scale, scale_sigma : float, image units, optional
        Sky level of the exposure and its error; those of the model if it has them.
    detector : any, optional
        Name of the detector, needed where the model has steps.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        A background without unit: ``level = (level - model) / scale`` and ``variance`` float32,
        the other variables as they were; scalar coordinates ``scale``, ``scale_sigma`` and
        ``sky_status`` (`SkyLevelStatus`). All NaN unless the status is OK. Bins that the model
        extrapolates to are flagged.

    Raises
    ------
    ValueError
        If no scale is given and the model has none.

    Examples
    --------
    >>> from skyloom.algorithms.sky import FocalPlaneParameters, focal_plane_background
    >>> dims = ("bin_y", "bin_x")
    >>> background = xr.Dataset(
    ...     {"level": (dims, [[99.0, 101.0]]), "count": (dims, [[4, 4]])},
    ...     attrs={"box": [0, 2, 0, 4]},
    ... )
    >>> transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> parameters = FocalPlaneParameters(cell_size=(2.0, 4.0))
    >>> sky = focal_plane_background({1: background}, {1: transform}, parameters=parameters)
    >>> sky_frame_residual(background, sky, transform)["level"].values
    array([[-0.01,  0.01]], dtype=float32)
    """
    known = "scale" in model.coords
    if scale is None and not known:
        raise ValueError("scale is needed: the model does not carry the sky level of the exposure")
    level = float(model["scale"]) if scale is None else float(scale)
    if scale_sigma is None:
        scale_sigma = float(model["scale_sigma"]) if scale is None else np.nan
    units = str(background["level"].attrs.get("units", v.DIMENSIONLESS))
    status = sky_level_status(level, scale_sigma)
    smooth = focal_plane_on_detector(model, transform, background, detector=detector)
    good = status == v.SkyLevelStatus.OK
    divisor = level if good else np.nan
    taken = (background["level"].astype(np.float64) - smooth["level"].values) / divisor
    plain = {"units": v.DIMENSIONLESS}
    residual = background.assign(level=taken.astype(np.float32))
    residual["level"].attrs = plain
    if "variance" in background:
        residual["variance"] = (background["variance"].astype(np.float64) / divisor**2).astype(
            np.float32
        )
        residual["variance"].attrs = plain
    residual = residual.drop_vars("pixel_variance", errors="ignore")
    if "flags" in background:
        beyond = smooth["flags"].values & np.uint8(v.BinFlag.EXTRAPOLATED)
        residual["flags"] = background["flags"] | beyond
        residual["flags"].attrs = dict(background["flags"].attrs)
    return residual.assign_coords(
        scale=((), level, {"units": units}),
        scale_sigma=((), scale_sigma, {"units": units}),
        sky_status=((), np.uint8(status), v.flag_attributes(v.SkyLevelStatus)),
    )


def average_backgrounds(
    residuals: xr.Dataset | Sequence[xr.Dataset],
    *,
    parameters: AverageParameters | None = None,
) -> xr.Dataset:
    """Combine the residuals of many exposures into a sky frame.

    Parameters
    ----------
    residuals : Dataset, (..., exposure, bin_y, bin_x), or sequence of Dataset, (..., bin_y, bin_x)
        ``level`` [1] and ``variance`` of `sky_frame_residual`, one detector or several with a
        dimension ``detector``; attribute ``box``. Bins that are not finite are left out. May be
        lazy; the result then is. The order of exposures makes no difference beyond rounding.
    parameters : AverageParameters, optional

    Returns
    -------
    Dataset, (..., bin_y, bin_x)
        ``level`` and ``variance`` float32 [1], ``exposure_count`` int16 of exposures used and
        ``clipped_count`` int16 of others observed, ``flags`` uint8 (`BinFlag`): LOW_COUNT,
        BAD_VARIANCE, and EMPTY with FILLED where nothing was observed, whose variance is NaN;
        ``extra_scatter`` (...): factor by which exposures scatter more than their variances say,
        at least 1; variances are raised by its square. A detector that was never observed is NaN.
        Detector, filter and camera that the residuals are of, where they say so, are coordinates.

    Raises
    ------
    ConfigurationError
        If there is no exposure, an exposure twice, or a background of several layers, or if
        residuals say that they are of several detectors, filters or cameras.
    GeometryError
        If bins or boxes differ; the message names the odd exposure.

    Notes
    -----
    Equal weights with ``error="scatter"`` and ``fill="median"`` are those of the LSST Science
    Pipelines, but the variance is the square of the standard error. Weights of inverse variances
    are optimal for exposures of different levels: a residual has the variance noise² / level².
    Where no variance is known weights are equal.

    Examples
    --------
    >>> dims = ("exposure", "bin_y", "bin_x")
    >>> levels = np.array([0.01, 0.012, 0.011, 0.5]).reshape(4, 1, 1)
    >>> residuals = xr.Dataset(
    ...     {"level": (dims, levels), "variance": (dims, np.full((4, 1, 1), 1e-6))},
    ...     attrs={"box": [0, 4, 0, 4]},
    ... )
    >>> frame = average_backgrounds(residuals)
    >>> round(frame["level"].item(), 4), frame["exposure_count"].item()
    (0.011, 3)
    """
    parameters = AverageParameters() if parameters is None else parameters
    stack = stacked_residuals(residuals)
    if stack.sizes[v.EXPOSURE] == 0:
        raise ConfigurationError("residuals hold no exposure: there is nothing to average")
    level = stack["level"]
    variance = stack["variance"] if "variance" in stack else xr.full_like(level, np.nan, float)
    dims = [v.EXPOSURE, *BINS]
    arrays = [
        array if array.chunks is None else array.chunk(dict.fromkeys(dims, -1))
        for array in (level, variance)
    ]
    dtypes = [np.float32, np.float32, np.int16, np.int16, np.uint8, np.float64]
    found = xr.apply_ufunc(
        _average_planes,
        *arrays,
        kwargs={"parameters": parameters},
        input_core_dims=[dims, dims],
        output_core_dims=[list(BINS)] * 5 + [[]],
        dask="parallelized",
        output_dtypes=dtypes,
        keep_attrs=False,
    )
    names = ("level", "variance", "exposure_count", "clipped_count", "flags", "extra_scatter")
    plain = {"units": v.DIMENSIONLESS}
    frame = xr.Dataset(
        {name: array.assign_attrs(plain) for name, array in zip(names, found, strict=True)}
    )
    frame["flags"].attrs = v.flag_attributes(v.BinFlag)
    frame.attrs = {key: stack.attrs[key] for key in ("box", "grid_rule") if key in stack.attrs}
    frame.attrs |= {
        "statistic": "meanclip",
        "weights": parameters.weights,
        "clip": float(parameters.clip),
        "iterations": int(parameters.iterations),
        "fill": parameters.fill,
    }
    return frame


def stacked_residuals(residuals: xr.Dataset | Sequence[xr.Dataset]) -> xr.Dataset:
    """Return residuals of many exposures in one dataset along ``exposure``, checked to share bins.

    Raises
    ------
    ConfigurationError
        If there are none, or a dimension ``exposure`` is missing, or there are several layers, an
        exposure twice, or several detectors (without a dimension of them), filters or cameras.
    GeometryError
        If bins or boxes differ; the message names the odd exposure.
    """
    if isinstance(residuals, xr.Dataset):
        if v.EXPOSURE not in residuals.dims:
            raise ConfigurationError(
                f"residuals need a dimension exposure, they have {tuple(residuals.sizes)}"
            )
        _check_layers([residuals])
        labelled = [name for name in ORIGIN if name in residuals.coords]
        if any(residuals[name].dims == (v.EXPOSURE,) for name in labelled):
            number = residuals.sizes[v.EXPOSURE]
            check_common_origin([residuals[labelled].isel({v.EXPOSURE: i}) for i in range(number)])
        if v.EXPOSURE in residuals.coords:
            check_distinct_exposures(residuals[v.EXPOSURE].values.tolist())
        return residuals
    items = list(residuals)
    if not items:
        raise ConfigurationError("residuals is empty: there is nothing to average")
    _check_layers(items)
    origin = check_common_origin(items)
    exposures = [item[v.EXPOSURE].item() for item in items if v.EXPOSURE in item.coords]
    check_distinct_exposures(exposures)
    for index, item in enumerate(items[1:], start=1):
        name = item[v.EXPOSURE].item() if v.EXPOSURE in item.coords else index
        for what, odd, first in (
            ("sizes", dict(item.sizes), dict(items[0].sizes)),
            ("box", _box(item), _box(items[0])),
        ):
            if odd != first:
                raise GeometryError(
                    f"exposure {name}: {what} {odd} differ from {first} of the first exposure"
                )
    wanted = [name for name in ("level", "variance") if all(name in item for item in items)]
    keep: list[Hashable] = [v.EXPOSURE, *BINS, *(set(ORIGIN) & set(items[0].dims))]
    cut = [
        item[wanted].drop_vars([name for name in item.coords if name not in keep]) for item in items
    ]
    stack = xr.concat(cut, dim=v.EXPOSURE, join="override", combine_attrs="override")
    return stack.assign_coords(origin).transpose(..., v.EXPOSURE, *BINS)


def _check_layers(items: Sequence[xr.Dataset]) -> None:
    for index, item in enumerate(items):
        if item.sizes.get(v.LAYER, 1) > 1:
            raise ConfigurationError(
                f"residual {index} has {item.sizes[v.LAYER]} layers; sum them before averaging"
            )


def _box(item: xr.Dataset) -> list[int] | None:
    return [int(edge) for edge in item.attrs["box"]] if "box" in item.attrs else None


def _average_planes(
    level: NDArray[Any], variance: NDArray[Any], *, parameters: AverageParameters
) -> tuple[NDArray[Any], ...]:
    """Average the exposures of all leading planes."""
    leading, bins = level.shape[:-3], level.shape[-2:]
    outputs: tuple[NDArray[Any], ...] = (
        *(np.empty((*leading, *bins), dtype) for dtype in ("f4", "f4", "i2", "i2", "u1")),
        np.empty(leading),
    )
    variance = np.broadcast_to(variance, level.shape)
    for index in np.ndindex(*leading):
        for output, values in zip(
            outputs, _average_plane(level[index], variance[index], parameters), strict=True
        ):
            output[index] = values
    return outputs


def _average_plane(
    level: NDArray[Any], variance: NDArray[Any], parameters: AverageParameters
) -> tuple[Any, ...]:
    """Average the exposures, (exposure, bin_y, bin_x), of one detector."""
    exposures, *bins = level.shape
    found = np.empty((int(np.prod(bins)), kernels.QUANTITIES))
    levels, variances = (
        np.ascontiguousarray(np.moveaxis(array, 0, -1).reshape(-1, exposures), np.float64)
        for array in (level, variance)
    )
    kernels.combine_bins(
        levels,
        variances,
        parameters.weights == "inverse_variance",
        parameters.clip,
        parameters.iterations,
        found,
    )
    quantity = {index: found[:, index].reshape(bins) for index in range(kernels.QUANTITIES)}
    used, observed = quantity[kernels.USED], quantity[kernels.OBSERVED]
    propagated, chi2 = quantity[kernels.VARIANCE], quantity[kernels.CHI2]
    extra = _extra_scatter(chi2, used, propagated)
    if parameters.error == "scatter":
        extra = 1.0
        of_level = np.where(used > 1, quantity[kernels.SCATTER], propagated)
    else:
        # without variances there is the scatter alone
        known = np.isfinite(propagated)
        of_level = np.where(known, propagated * extra**2, quantity[kernels.SCATTER])
    value, flags = finished_bins(quantity[kernels.LEVEL], of_level, used, parameters)
    return value, of_level, used, observed - used, flags, extra


def _extra_scatter(chi2: Floats, used: Floats, propagated: Floats) -> float:
    """Return the factor by which exposures scatter more than their variances say, at least 1."""
    several = (used > 1) & np.isfinite(propagated) & np.isfinite(chi2)
    dof = float(np.sum(used[several] - 1.0))
    if dof == 0:
        return 1.0
    return max(float(np.sqrt(np.sum(chi2[several]) / dof)), 1.0)


def finished_bins(
    level: Floats, variance: Floats, used: Floats, parameters: AverageParameters
) -> tuple[Floats, NDArray[np.uint8]]:
    """Return levels with bins that were never observed filled, and the flags of all."""
    flags = np.zeros(level.shape, np.uint8)
    empty = used == 0
    flags[empty] |= np.uint8(v.BinFlag.EMPTY)
    flags[~empty & (used < parameters.minimum_exposures)] |= np.uint8(v.BinFlag.LOW_COUNT)
    flags[~empty & ~(variance > 0)] |= np.uint8(v.BinFlag.BAD_VARIANCE)
    if parameters.fill == "none" or empty.all() or not empty.any():
        return level, flags
    flags[empty] |= np.uint8(v.BinFlag.FILLED)
    if parameters.fill == "median":
        return np.where(empty, float(np.median(level[~empty])), level), flags
    filled, _ = fill_bad(level, empty)
    return filled, flags
