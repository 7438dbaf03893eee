"""Exposures resampled onto the pixels of a tract."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.planes import frame_planes, whole
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.tiles import in_memory
from skyloom.algorithms.units import squared_units
from skyloom.algorithms.warp.parameters import WarpParameters
from skyloom.algorithms.warp.pixels import Task, source_limits, warp_blocks
from skyloom.algorithms.warp.position_grid import position_grid
from skyloom.algorithms.warp.positions import header_of, sky_pixels
from skyloom.algorithms.warp.resampling import Kernel, kernel_taps

__all__ = ["warp_exposure"]


def warp_exposure(
    exposure: xr.Dataset,
    wcs: Any,
    target: Any,
    box: Any,
    *,
    kernel: Kernel | None = None,
    polygon: ArrayLike | None = None,
    parameters: WarpParameters | None = None,
) -> xr.Dataset:
    """Resample an exposure of one detector onto a box of the pixels of a tract.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float32, any unit; ``variance``, unit squared; perhaps ``mask``. May be lazy:
        only the part is read that the box needs. Leading dimensions share the WCS.
    wcs : TangentPlane, astropy.wcs.WCS, mapping of FITS keys, their JSON text, object, or None
        Where the exposure's pixels lie; any celestial WCS that astropy reads. Other objects need
        ``pixel_to_world_values`` and ``world_to_pixel_values``, in degrees of ICRS. None means
        that of the exposure, its coordinate ``wcs``.
    target : Tract, or as ``wcs``
        The grid to resample onto; of a tract, its ``plane``.
    box : Patch or (int, int, int, int)
        Half-open ``(y_start, y_stop, x_start, x_stop)`` in pixels of the target; of a patch, its
        ``outer`` box.
    kernel : "bilinear", "lanczos3" or "lanczos5", optional
        Instead of that of the parameters.
    polygon : array_like, (vertex, 2), pixel, optional
        Corners (x, y) of the valid part of the detector; pixels outside are NO_DATA.
    parameters : WarpParameters, optional
        Kernel, planes of bad pixels, further planes to make.

    Returns
    -------
    Dataset, (..., y, x)
        ``image``, ``variance`` (float32), ``mask`` (int32), ``masked_fraction`` (float32),
        perhaps ``noise`` (realization, y, x); ``good_count``, pixels with data; ``status``, a
        `skyloom.algorithms.vocabulary.WarpStatus`. Scalar coordinates of the exposure, its number
        as ``visit``, ``tract`` and ``patch`` where known. Attributes: those of the exposure,
        ``box``, ``wcs`` (FITS keys), ``kernel``, ``matrix`` (d source/d target at the middle of the
        detector), ``grid_step`` and ``position_error`` (pixel). Where there is no data the image is
        NaN, the variance infinite, the mask NO_DATA. An exposure that misses the box has only
        the status NO_OVERLAP, no planes.

    Raises
    ------
    KeyError
        If image or variance are missing, or a plane is unknown.
    TypeError
        If the image is not floating point.
    ValueError
        If a WCS is missing or illegal (`GeometryError`), positions cannot be interpolated, the box
        is empty, or noise is asked for with leading dimensions.

    Notes
    -----
    With weights k of the kernel, 1 for good pixels g and A the area of a target pixel in source
    pixels: ``image = A sum(k g in) / sum(k g)``, ``variance = A² sum(k² g var) / sum(k g)²``. The
    flux of a source stays. A pixel is bad if its mask has an excluded plane, its value or variance
    is not finite, or its variance is negative. A target pixel has no data if its kernel leaves
    the detector or weighs good pixels by less than half. The mask is that of the 2 x 2 source
    pixels around, EDGE of all pixels in the kernel. ``bad_pixels="spread"`` is the rule of the LSST
    Science Pipelines.

    The Jacobian is that of central differences, positions are exact on a grid and cubic between.
    Rubin Observatory, afw, warpExposure; Lanczos kernels: Duchon 1979.

    Examples
    --------
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
    >>> finer = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 7200)
    >>> values = xr.DataArray(np.full((12, 12), 8.0, "float32"), dims=("y", "x"))
    >>> exposure = xr.Dataset({"image": values, "variance": values})
    >>> warp = warp_exposure(exposure, plane, finer, (5, 7, 3, 6))
    >>> warp["image"].values.round(5).tolist(), int(warp["good_count"])
    ([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]], 6)
    """
    parameters = parameters or WarpParameters()
    if kernel is not None:
        parameters = parameters.model_copy(update={"kernel": kernel})
    taps = kernel_taps(parameters.kernel)
    planes = _planes(exposure, parameters)
    v.plane_bits(parameters.excluded_planes)
    limits = _limits(box)
    grid_of, name = getattr(target, "plane", target), "target"
    shape = planes["image"].sizes[v.Y], planes["image"].sizes[v.X]
    if wcs is None and v.WCS in exposure.coords:
        wcs = str(exposure.coords[v.WCS].item()) or None
    source = sky_pixels(wcs, name=_named(exposure), shape=shape)
    grid = position_grid(
        source,
        shape,
        sky_pixels(grid_of, name=name),
        limits,
        largest_error=parameters.position_error,
    )
    coords = _coords(exposure, target, box)
    attrs = dict(exposure.attrs) | {
        "box": list(limits),
        "wcs": header_of(grid_of),
        "kernel": parameters.kernel,
    }
    part = None if grid is None else source_limits(grid, shape, taps)
    if grid is None or part is None:
        status = xr.Dataset(coords=coords, attrs=attrs)
        return status.assign(status=_status(v.WarpStatus.NO_OVERLAP))
    if parameters.crop:
        limits = grid.box
    attrs |= {
        "box": list(limits),
        "matrix": grid.matrix.tolist(),
        "grid_step": grid.step,
        "position_error": grid.error,
    }
    corners = None if polygon is None else np.array(polygon, np.float64)
    visit, detector = (
        coords[key].item() if key in coords else None for key in (v.VISIT, v.DETECTOR)
    )
    offset = (0, 0)
    if not parameters.noise_realizations and not all(map(in_memory, planes.values())):
        # only what is needed is read; noise is that of the whole detector
        offset = part[0], part[2]
        rows, columns = slice(part[0], part[1]), slice(part[2], part[3])
        planes = {name: plane[..., rows, columns] for name, plane in planes.items()}
    planes = {name: whole(plane) for name, plane in planes.items()}
    task = Task(grid, limits, part, offset, taps, parameters, corners, (visit, detector))
    return _warped(planes, task).assign_coords(coords).assign_attrs(attrs)


def _planes(exposure: xr.Dataset, parameters: WarpParameters) -> dict[str, xr.DataArray]:
    planes = frame_planes(exposure)
    if "variance" not in planes:
        raise KeyError("the exposure has no variable 'variance', which a warp propagates")
    leading = planes["image"].dims[:-2]
    if parameters.noise_realizations and leading:
        raise ValueError(
            f"noise_realizations are those of one detector: the image has dimensions {leading} too"
        )
    return {key: planes[key] for key in ("image", "variance", v.MASK)}


def _limits(box: Any) -> tuple[int, int, int, int]:
    given = getattr(box, "outer", box)
    limits = [int(value) for value in given]
    if len(limits) != 4 or not (limits[0] < limits[1] and limits[2] < limits[3]):
        raise GeometryError(
            f"box must be (y_start, y_stop, x_start, x_stop) with pixels in it, got {limits}"
        )
    return limits[0], limits[1], limits[2], limits[3]


def _named(exposure: xr.Dataset) -> str:
    """Return what errors call the WCS of an exposure."""
    parts = [
        f"{name} {exposure.coords[name].item()}"
        for name in (v.EXPOSURE, v.DETECTOR)
        if name in exposure.coords and exposure.coords[name].ndim == 0
    ]
    return f"the WCS of {', '.join(parts)}" if parts else "wcs"


def _coords(exposure: xr.Dataset, target: Any, box: Any) -> dict[str, Any]:
    coords = {
        str(v.VISIT if name == v.EXPOSURE else name): value.variable
        for name, value in exposure.coords.items()
        if value.ndim == 0 and name != v.WCS
    }
    for name, owner in ((v.TRACT, target), (v.PATCH, box)):
        index = getattr(owner, "index", None)
        if isinstance(index, int | np.integer):
            coords[name] = xr.Variable((), int(index))
    return coords


def _status(code: v.WarpStatus) -> xr.DataArray:
    return xr.DataArray(np.uint8(code), attrs=v.flag_attributes(v.WarpStatus))


def _warped(planes: dict[str, xr.DataArray], task: Task) -> xr.Dataset:
    box, number = task.box, task.parameters.noise_realizations
    image = planes["image"]
    pixels = [v.Y, v.X]
    found = xr.apply_ufunc(
        warp_blocks,
        *planes.values(),
        kwargs={"task": task},
        input_core_dims=[pixels] * 3,
        exclude_dims={v.Y, v.X},
        output_core_dims=[pixels] * 4 + [[v.REALIZATION, *pixels], []],
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.int32, np.float32, np.float32, np.int64],
        dask_gufunc_kwargs={
            "output_sizes": {
                v.Y: box[1] - box[0],
                v.X: box[3] - box[2],
                v.REALIZATION: number,
            }
        },
    )
    units = str(image.attrs.get("units", v.DIMENSIONLESS))
    attrs: dict[str, dict[str, Any]] = {
        "image": {"units": units},
        "variance": {"units": squared_units(units)},
        v.MASK: v.mask_attributes(),
        "masked_fraction": {"units": v.DIMENSIONLESS},
        "noise": {"units": units},
        "good_count": {"units": v.PIXEL},
    }
    variables = {
        name: variable.variable.copy(deep=False)
        for name, variable in zip(attrs, found, strict=True)
        if (name != "noise" or number)
        and (name != "masked_fraction" or task.parameters.masked_fraction)
    }
    leading = {
        str(name): value.variable for name, value in image.coords.items() if v.Y not in value.dims
        and v.X not in value.dims and value.ndim
    }  # fmt: skip
    warp = xr.Dataset(
        {name: (variable.dims, variable.data, attrs[name]) for name, variable in variables.items()},
        coords=leading | {v.Y: np.arange(box[0], box[1]), v.X: np.arange(box[2], box[3])},
    )
    return warp.assign(status=_status(v.WarpStatus.OK))
