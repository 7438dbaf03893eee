"""One smooth background of a deep coadd over a whole tract: measured in its bins, subtracted."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import distance_transform_edt

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.binning import bin_image
from skyloom.algorithms.background.chebyshev import fit_chebyshev
from skyloom.algorithms.background.filling import fill_bad
from skyloom.algorithms.background.geometry import Box, bin_edges
from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.background.rendering import Rendering, render_grid
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.matching.fields import PolynomialBasis, field_values, tract_image
from skyloom.algorithms.matching.match_inputs import UNUSABLE, grid_of_background
from skyloom.algorithms.matching.tract_grid import TractGrid
from skyloom.algorithms.parameters import Parameters

__all__ = ["TractModelParameters", "measure_tract_background", "subtract_tract_background"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BINS = (v.TRACT_Y, v.TRACT_X)
SWEEPS = 20


class TractModelParameters(Parameters):
    """How the background of a coadd is modelled, `measure_tract_background`."""

    model: Literal["polynomial", "cells"] = Field(
        "polynomial",
        description="a polynomial over the tract, or also clipped means of cells of what it leaves",
    )
    order: int = Field(2, ge=0, le=8, description="of the polynomial")
    cell: int = Field(8, ge=1, description="side of a cell, bins; at least 4 times large objects")
    grow: float = Field(
        8.0, ge=0, description="bins this near to one without data or with an object do not count"
    )
    clip: float = Field(3.0, gt=0, description="clip of outlying bins, standard deviations")
    iterations: int = Field(3, ge=1, description="clip passes of the mean of a cell")
    interpolation: Style = Field("akima", description="between cells")


def measure_tract_background(
    background: xr.Dataset,
    *,
    objects: xr.DataArray | None = None,
    parameters: TractModelParameters | None = None,
) -> xr.Dataset:
    """Return the smooth background of one or more coadds of a tract.

    Parameters
    ----------
    background : Dataset, (..., tract_y, tract_x)
        Levels of coadds in bins: ``level``, optionally ``variance`` of the level and ``flags``;
        attributes ``tract_shape`` and ``bin_size``. Any other dimension, ``band`` say, is kept.
    objects : DataArray, (tract_y, tract_x) or with the other dimensions, bool, optional
        Bins that hold objects.
    parameters : TractModelParameters, optional

    Returns
    -------
    Dataset, (..., tract_y, tract_x)
        ``level`` of the model in all bins, float64 [unit of the levels]; ``flags`` (`BinFlag`):
        FILLED where a bin did not count, EXTRAPOLATED where the next that did is farther than a
        cell, or half the tract over the order of a polynomial.

    Raises
    ------
    NoUsableDataError
        If no bin is left.

    Notes
    -----
    Bins that cannot be used in one band are left out in all: different bins would give objects
    colours that they do not have. What the model takes from a source is lost; order and cell say
    from which size on.

    Examples
    --------
    >>> level = xr.DataArray(np.full((4, 6), 2.5), dims=("tract_y", "tract_x"))
    >>> background = xr.Dataset(
    ...     {"level": level}, attrs={"tract_shape": [8, 12], "bin_size": [2, 2]}
    ... )
    >>> model = measure_tract_background(background)
    >>> float(model["level"].min().round(9)), float(model["level"].max().round(9))
    (2.5, 2.5)
    """
    chosen = parameters or TractModelParameters()
    grid = grid_of_background(background)
    level = background["level"].transpose(..., *BINS)
    others = level.dims[:-2]
    values = level.values.reshape(-1, *grid.bins).astype(np.float64)
    bad = ~np.isfinite(values)
    if "flags" in background:
        flags = background["flags"].broadcast_like(background["level"]).transpose(*level.dims)
        bad |= (flags.values.reshape(values.shape).astype(np.int64) & UNUSABLE) != 0
    variance = None
    if "variance" in background:
        spread = background["variance"].broadcast_like(background["level"]).transpose(*level.dims)
        variance = spread.values.reshape(values.shape).astype(np.float64)
    left_out: Bools = np.asarray(bad.any(axis=0))
    if objects is not None:
        rest = [dim for dim in objects.dims if dim not in BINS]
        shown = objects.transpose(*rest, *BINS).values.reshape(-1, *grid.bins) != 0
        left_out = left_out | shown.any(axis=0)
    if left_out.any() and chosen.grow > 0:
        left_out = np.asarray(distance_transform_edt(~left_out)) <= chosen.grow
    if left_out.all():
        raise NoUsableDataError("no bin of the tract is left to measure its background")
    fit = _polynomial if chosen.model == "polynomial" else _cells
    model = np.empty_like(values)
    for index, plane in enumerate(values):
        model[index] = fit(
            plane, left_out, None if variance is None else variance[index], grid, chosen
        )
    reach = chosen.cell
    if chosen.model == "polynomial":
        reach = max(1, min(grid.bins) // (2 * (chosen.order + 1)))
    marks = np.where(left_out, int(v.BinFlag.FILLED), 0)
    far = distance_transform_edt(left_out) > reach
    marks = np.where(far, int(v.BinFlag.EXTRAPOLATED), marks).astype(np.uint8)
    kept = {name: list(background.attrs[name]) for name in ("tract_shape", "bin_size")}
    return xr.Dataset(
        {
            "level": level.copy(data=model.reshape(level.shape)),
            "flags": (BINS, marks, v.flag_attributes(v.BinFlag)),
        },
        attrs=kept | {"model": chosen.model, "shared_by": [str(dim) for dim in others]},
    )


def subtract_tract_background(
    coadd: xr.Dataset, model: xr.Dataset, *, interpolation: Style = "natural_spline"
) -> xr.Dataset:
    """Return a coadd of a patch without the background of its tract; all but ``image`` stays.

    Parameters
    ----------
    coadd : Dataset, (y, x)
        ``image``; attribute ``box``. May be lazy; the result then is.
    model : Dataset, (tract_y, tract_x)
        From `measure_tract_background`, of one band.
    interpolation : str
        Between bins, see `tract_image`.

    Raises
    ------
    GeometryError
        If the coadd has no ``box``, or other units than the model, or the model has other
        dimensions left.

    Examples
    --------
    >>> dims = ("tract_y", "tract_x")
    >>> model = xr.Dataset(
    ...     {"level": (dims, np.full((4, 6), 2.5))},
    ...     attrs={"tract_shape": [8, 12], "bin_size": [2, 2]},
    ... )
    >>> image = xr.DataArray(np.full((2, 2), 3.0, np.float32), dims=("y", "x"))
    >>> coadd = xr.Dataset({"image": image}, attrs={"box": [0, 2, 4, 6]})
    >>> subtract_tract_background(coadd, model)["image"].values.tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    if "box" not in coadd.attrs:
        raise GeometryError("a coadd needs the attribute box [y_start, y_stop, x_start, x_stop]")
    if set(model["level"].dims) != set(BINS):
        raise GeometryError(
            f"the model must be of one band, (tract_y, tract_x), got {model['level'].dims}"
        )
    image, units = coadd["image"], model["level"].attrs.get("units")
    if units is not None and image.attrs.get("units", units) != units:
        raise GeometryError(f"the coadd is in {image.attrs['units']!r}, the model in {units!r}")
    sky = tract_image(
        model["level"],
        grid_of_background(model),
        coadd.attrs["box"],
        interpolation=interpolation,
    )
    rest = (image - sky.variable.astype(image.dtype)).transpose(*image.dims)
    return coadd.assign(image=rest.drop_attrs().assign_attrs(image.attrs))


def _polynomial(
    level: Floats,
    left_out: Bools,
    variance: Floats | None,
    grid: TractGrid,
    parameters: TractModelParameters,
) -> Floats:
    """Return the clipped fit of a polynomial at the centres of bins."""
    used = ~left_out
    weight = None
    if variance is not None:
        known = np.isfinite(variance) & (variance > 0)
        weight = np.where(known, 1.0 / np.where(known, variance, 1.0), 0.0)
        used = used & known
    y, x = np.meshgrid(*grid.centers, indexing="ij")
    box = Box(0, grid.shape[0], 0, grid.shape[1])
    basis = PolynomialBasis(grid.shape, parameters.order)
    for _ in range(SWEEPS):
        if not used.any():
            raise NoUsableDataError("no bin of the tract is left to measure its background")
        fit = fit_chebyshev(
            x[used],
            y[used],
            level[used],
            box,
            parameters.order,
            weight=None if weight is None else weight[used],
        )
        model = field_values(basis, fit.coefficients, *grid.centers)
        size = np.abs(level - model) * (1.0 if weight is None else np.sqrt(weight))
        spread = 1.482602218505602 * float(np.median(size[used]))
        kept = used & ~(size > parameters.clip * spread) if spread > 0 else used
        if (kept == used).all():
            break
        used = kept
    return model


def _cells(
    level: Floats,
    left_out: Bools,
    variance: Floats | None,
    grid: TractGrid,
    parameters: TractModelParameters,
) -> Floats:
    """Return clipped means of cells, interpolated at bins.

    The polynomial is taken out before: in cells that lack bins, the rest is not at their centre.
    """
    smooth = _polynomial(level, left_out, variance, grid, parameters)
    edges = [bin_edges(size, max(1, round(size / parameters.cell))) for size in grid.bins]
    found = bin_image(
        np.where(left_out, 0.0, level - smooth),
        left_out.astype(np.int32),
        1,
        edges[0],
        edges[1],
        parameters.clip,
        parameters.iterations,
    )
    values = np.asarray(found.level, np.float64)
    if not np.isfinite(values).all():
        values, _ = fill_bad(values)
    whole = Box(0, grid.bins[0], 0, grid.bins[1])
    rendering = Rendering(parameters.interpolation, max_extrapolation=2.0)
    return smooth + render_grid(values, whole, rendering=rendering)
