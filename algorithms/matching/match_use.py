"""Offsets of matched visits: as images, applied to warps, their errors, and how far they reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.filling import fill_bad
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.matching.fields import (
    PolynomialBasis,
    SplineBasis,
    basis_at_bins,
    field_image,
    tract_image,
)
from skyloom.algorithms.matching.match_inputs import grid_of_background
from skyloom.algorithms.matching.match_result import match_basis

__all__ = ["apply_offset", "extrapolated_bins", "offset_errors", "offset_image"]


def offset_image(match: xr.Dataset, visit: int, box: Sequence[int]) -> xr.DataArray:
    """Return what to add to a visit so that it matches the others.

    Parameters
    ----------
    match : Dataset
        From `match_backgrounds`.
    visit : int
    box : (y_start, y_stop, x_start, x_stop), pixel
        Half-open, in pixels of the tract; may reach beyond it.

    Returns
    -------
    DataArray, (y, x), float32, unit of the match
        The same bits for a pixel in every box. With offsets bin by bin, NaN in bins without one.

    Raises
    ------
    KeyError
        If the match does not know the visit.
    NoUsableDataError
        If the visit was left out.

    Examples
    --------
    >>> match = xr.Dataset(
    ...     {"coefficients": (("visit", "coefficient"), [[2.0]])},
    ...     {"visit": [7]},
    ...     {"basis": "polynomial", "order": 0, "tract_shape": [4, 8]},
    ... )
    >>> offset_image(match, 7, (0, 1, 0, 2)).values.tolist()
    [[-2.0, -2.0]]
    """
    if "offset" in match:
        return _image_of_bins(match, visit, box)
    coefficients = _of_visit(match, visit)["coefficients"].values
    if not np.isfinite(coefficients).all():
        raise NoUsableDataError(f"visit {visit} was not matched: see its status")
    units = str(match.attrs.get("units", v.DIMENSIONLESS))
    return field_image(match_basis(match), -coefficients, box, units=units)


def apply_offset(warp: xr.Dataset, match: xr.Dataset) -> xr.Dataset:
    """Return a warp with its offset added to ``image``; all else stays.

    Parameters
    ----------
    warp : Dataset, (y, x)
        ``image``; coordinate ``visit``, attribute ``box``. May be lazy; the result then is.
    match : Dataset
        From `match_backgrounds`.

    Raises
    ------
    KeyError
        If the warp has no ``visit``, or the match does not know it.
    GeometryError
        If the warp has no ``box``, or other units than the match.
    NoUsableDataError
        If the visit was left out.

    Examples
    --------
    >>> match = xr.Dataset(
    ...     {"coefficients": (("visit", "coefficient"), [[2.0]])},
    ...     {"visit": [7]},
    ...     {"basis": "polynomial", "order": 0, "tract_shape": [4, 8]},
    ... )
    >>> image = xr.DataArray(np.full((1, 2), 5.0, np.float32), dims=("y", "x"))
    >>> warp = xr.Dataset({"image": image}, {"visit": 7}, {"box": [0, 1, 0, 2]})
    >>> apply_offset(warp, match)["image"].values.tolist()
    [[3.0, 3.0]]
    """
    if v.VISIT not in warp.coords:
        raise KeyError(f"a warp needs the coordinate visit; it has {list(warp.coords)}")
    if "box" not in warp.attrs:
        raise GeometryError("a warp needs the attribute box [y_start, y_stop, x_start, x_stop]")
    image = warp["image"]
    units = match.attrs.get("units", v.DIMENSIONLESS)
    if image.attrs.get("units", units) != units:
        raise GeometryError(f"the warp is in {image.attrs['units']!r}, the match in {units!r}")
    offset = offset_image(match, int(warp.coords[v.VISIT]), warp.attrs["box"])
    added = image + offset.variable.astype(image.dtype)
    return warp.assign(image=added.transpose(*image.dims).drop_attrs().assign_attrs(image.attrs))


def offset_errors(match: xr.Dataset, visit: int) -> xr.DataArray:
    """Return the standard deviation of the offset of a visit in each bin, (tract_y, tract_x).

    Parameters
    ----------
    match : Dataset
        From `match_backgrounds`.
    visit : int

    Raises
    ------
    KeyError
        If the match does not know the visit.

    Examples
    --------
    >>> from skyloom.algorithms.matching import MatchParameters, match_backgrounds
    >>> level = np.array([[[1.0, 5.0]], [[3.0, 7.0]]])
    >>> background = xr.Dataset(
    ...     {"level": (("visit", "tract_y", "tract_x"), level)},
    ...     {"visit": [7, 8]},
    ...     {"tract_shape": [2, 4], "bin_size": [2, 2]},
    ... )
    >>> background["variance"] = xr.ones_like(background["level"])
    >>> match = match_backgrounds(background, parameters=MatchParameters(order=0))
    >>> offset_errors(match, 7).values.round(9).tolist()
    [[0.5, 0.5]]
    """
    covariance = _of_visit(match, visit)["coefficient_covariance"].values
    functions = basis_at_bins(match_basis(match), grid_of_background(match))
    variance = np.einsum("yxk,kl,yxl->yx", functions, covariance, functions, optimize=True)
    return match["sky"].copy(data=np.sqrt(np.maximum(variance, 0.0)))


def extrapolated_bins(match: xr.Dataset, background: xr.Dataset) -> xr.DataArray:
    """Return where the field of a visit reaches far beyond its levels.

    Parameters
    ----------
    match : Dataset
        From `match_backgrounds`.
    background : Dataset, (visit, tract_y, tract_x)
        What was matched.

    Returns
    -------
    DataArray, (visit, tract_y, tract_x), bool
        Bins farther from the next level of the visit than splines are apart; for polynomials,
        than the tract divided by one more than their order.

    Examples
    --------
    >>> match = xr.Dataset(
    ...     {"sky": (("tract_y", "tract_x"), np.zeros((1, 4)))},
    ...     attrs={"basis": "polynomial", "order": 3, "tract_shape": [2, 8], "bin_size": [2, 2]},
    ... )
    >>> level = np.array([[[1.0, np.nan, np.nan, np.nan]]])
    >>> background = xr.Dataset({"level": (("visit", "tract_y", "tract_x"), level)})
    >>> extrapolated_bins(match, background).values.tolist()
    [[[False, False, True, True]]]
    """
    basis, grid = match_basis(match), grid_of_background(match)
    if isinstance(basis, SplineBasis):
        parts = [count - 3 for count in basis.knots]
    else:
        parts = [basis.order + 1] * 2 if isinstance(basis, PolynomialBasis) else [1, 1]
    reach = [size / part for size, part in zip(grid.shape, parts, strict=True)]
    level = background["level"].transpose(v.VISIT, v.TRACT_Y, v.TRACT_X)
    far = np.ones(level.shape, bool)
    for index, values in enumerate(level.values):
        known = np.isfinite(values)
        if known.any():
            sampling = [size / wide for size, wide in zip(grid.bin_size, reach, strict=True)]
            far[index] = distance_transform_edt(~known, sampling=sampling) > 1.0
    return level.copy(data=far).drop_attrs()


def _image_of_bins(match: xr.Dataset, visit: int, box: Sequence[int]) -> xr.DataArray:
    """Return the offset of a visit that has one in each bin."""
    offset = _of_visit(match, visit)["offset"]
    known = np.isfinite(offset.values)
    if not known.any():
        raise NoUsableDataError(f"visit {visit} was not matched: see its status")
    grid = grid_of_background(match)
    # filled, so that neighbours of empty bins are interpolated like all others
    level = offset.copy(data=fill_bad(offset.values)[0])
    image = tract_image(level, grid, box, interpolation=match.attrs["interpolation"])
    y_start, y_stop, x_start, x_stop = (int(value) for value in box)
    row, column = (
        np.clip(np.arange(start, stop) // side, 0, count - 1)
        for start, stop, side, count in zip(
            (y_start, x_start), (y_stop, x_stop), grid.bin_size, grid.bins, strict=True
        )
    )
    image.values[~known[np.ix_(row, column)]] = np.nan
    return image


def _of_visit(match: xr.Dataset, visit: int) -> xr.Dataset:
    if visit not in match[v.VISIT].values:
        raise KeyError(f"the match has no visit {visit}, only {match[v.VISIT].values.tolist()}")
    return match.sel({v.VISIT: visit})
