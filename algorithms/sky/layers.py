"""What is subtracted from a detector's image: layers of binned models, sky frames, polynomials.

A layer is a pair of a dataset and the name of its interpolation. Binned models have a ``level``
over ``bin_y, bin_x`` and the attribute ``box``; a smooth layer has the interpolation "chebyshev",
``coefficients`` of products of Chebyshev polynomials over a box of the focal plane, and the
detector's transform. Layers are values: pixels are made from them where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import xarray as xr
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import render_background
from skyloom.algorithms.background.geometry import Box, box_of_image
from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.background.render_kernels import combine_rows
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.sky.focal_basis import FocalBox, chebyshev_values, scaled_to_box
from skyloom.algorithms.sky.frame_bins import frame_in_bins
from skyloom.algorithms.sky.layer_kernels import subtract_plane
from skyloom.algorithms.units import squared_units

__all__ = [
    "CHEBYSHEV",
    "Layer",
    "layer_in_bins",
    "render_layer",
    "scaled_layer",
    "smooth_layer",
    "subtract_layers",
]

Floats = NDArray[np.float64]

CHEBYSHEV = "chebyshev"


class Layer(NamedTuple):
    """A model of the background and how it is interpolated."""

    background: xr.Dataset
    interpolation: str


def smooth_layer(fit: xr.Dataset, transform: Floats, *, offset: float = 0.0) -> Layer:
    """Return the smooth part of a fit on one detector.

    Parameters
    ----------
    fit : Dataset
        ``coefficients`` with ``degree_x`` and ``degree_y``, attribute ``focal_box``, as
        `solve_scales` returns it.
    transform : array, (2, 3)
        Takes pixels (x, y, 1) to positions in the units of the focal box.
    offset : float, units of the image
        What the detector lies above the smooth part.

    Examples
    --------
    >>> fit = xr.Dataset(
    ...     {"coefficients": ("coefficient", [5.0, 2.0])},
    ...     coords={"degree_x": ("coefficient", [0, 1]), "degree_y": ("coefficient", [0, 0])},
    ...     attrs={"focal_box": [0.0, 2.0, 0.0, 2.0]},
    ... )
    >>> layer = smooth_layer(fit, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    >>> render_layer(layer, (0, 1, 0, 3)).values
    array([[3., 5., 7.]], dtype=float32)
    """
    coefficients = fit["coefficients"]
    smooth = xr.Dataset(
        {"coefficients": (v.COEFFICIENT, np.array(coefficients, np.float64), coefficients.attrs)},
        coords={
            name: (v.COEFFICIENT, np.asarray(fit[name].values, np.int16))
            for name in ("degree_x", "degree_y")
        },
        attrs={
            "focal_box": [float(value) for value in fit.attrs["focal_box"]],
            "transform": np.asarray(transform, np.float64).ravel().tolist(),
            "offset": float(offset),
        },
    )
    return Layer(smooth, CHEBYSHEV)


def scaled_layer(layer: Layer | tuple[xr.Dataset, str], factor: float, units: str = "") -> Layer:
    """Return a layer times a number, which may carry the units of the result.

    Examples
    --------
    >>> level = xr.DataArray([[1.0, 2.0]], dims=("bin_y", "bin_x"))
    >>> scaled_layer(Layer(xr.Dataset({"level": level}), "linear"), -1).background["level"].values
    array([[-1., -2.]])
    """
    background, interpolation = layer
    name = "coefficients" if interpolation == CHEBYSHEV else "level"
    changed = {name: _times(background[name], factor, units)}
    if "variance" in background:
        squared = squared_units(units)
        changed["variance"] = _times(background["variance"], factor**2, squared)
    attrs = dict(background.attrs)
    if "offset" in attrs:
        attrs["offset"] = float(attrs["offset"]) * factor
    return Layer(background.assign(changed).assign_attrs(attrs), interpolation)


def _times(values: xr.DataArray, factor: float, units: str) -> xr.DataArray:
    attrs = dict(values.attrs) | ({"units": units} if units else {})
    return values.copy(data=values.data * np.asarray(factor, values.dtype)).assign_attrs(attrs)


def render_layer(layer: Layer | tuple[xr.Dataset, str], box: Sequence[int]) -> xr.DataArray:
    """Return a layer at the pixels of a box (y_start, y_stop, x_start, x_stop), float32."""
    background, interpolation = layer
    box = Box(*(int(limit) for limit in box))
    if interpolation != CHEBYSHEV:
        return render_background(background, box=box, interpolation=cast(Style, interpolation))
    rows, columns = polynomial_factors(background, box)
    image = np.empty(box.shape, np.float32)
    combine_rows(rows, columns, image)
    return xr.DataArray(
        image,
        dims=(v.Y, v.X),
        coords={
            v.Y: np.arange(box.y_start, box.y_stop),
            v.X: np.arange(box.x_start, box.x_stop),
        },
        attrs=dict(background["coefficients"].attrs),
    )


def polynomial_factors(smooth: xr.Dataset, box: Box) -> tuple[Floats, Floats]:
    """Return matrices (row, node) and (node, column) whose product is the smooth layer.

    Along a row the layer is a polynomial of x, known exactly from as many nodes as it has
    coefficients.
    """
    terms = list(
        zip(smooth["degree_x"].values.tolist(), smooth["degree_y"].values.tolist(), strict=True)
    )
    degree = max((i + j for i, j in terms), default=0)
    transform = np.asarray(smooth.attrs["transform"], np.float64).reshape(2, 3)
    middle = 0.5 * (box.x_start + box.x_stop - 1)
    half = max(0.5 * (box.x_stop - box.x_start - 1), 0.5)
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    y = np.arange(box.y_start, box.y_stop, dtype=np.float64)
    place = to_focal_plane(transform, *np.meshgrid(middle + half * nodes, y))
    u, w = scaled_to_box(*place, FocalBox(*smooth.attrs["focal_box"]))
    values = chebyshev_values(u.ravel(), w.ravel(), terms)
    coefficients = np.asarray(smooth["coefficients"].values, np.float64)
    rows = np.einsum("ij,j->i", values, coefficients).reshape(u.shape)
    rows = rows + float(smooth.attrs.get("offset", 0.0))
    x = (np.arange(box.x_start, box.x_stop) - middle) / half
    # coefficients of the Chebyshev series in x from the values at its nodes
    norm = np.where(np.arange(degree + 1) == 0, 1.0, 2.0) / (degree + 1)
    series = norm[:, None] * chebyshev.chebvander(nodes, degree).T
    columns = np.einsum("kj,xk->jx", series, chebyshev.chebvander(x, degree))
    return rows, np.ascontiguousarray(columns)


def layer_in_bins(
    layer: Layer | tuple[xr.Dataset, str],
    box: Sequence[int],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
) -> Floats:
    """Return the means of a layer over the bins that tile a box, (bins y, bins x), float64."""
    background, interpolation = layer
    if interpolation != CHEBYSHEV:
        return frame_in_bins(
            background, box, edges_y, edges_x, interpolation=cast(Style, interpolation)
        )[0]
    rows, columns = polynomial_factors(background, Box(*(int(limit) for limit in box)))
    rows = np.add.reduceat(rows, edges_y[:-1], axis=0) / np.diff(edges_y)[:, None]
    columns = np.add.reduceat(columns, edges_x[:-1], axis=1) / np.diff(edges_x)
    return np.asarray(np.einsum("ij,jk->ik", rows, columns))


def subtract_layers(
    exposure: xr.Dataset | xr.DataArray, layers: Sequence[Layer | tuple[xr.Dataset, str]]
) -> Any:
    """Return an exposure or image less the sum of layers; variance and mask stay as they are.

    Parameters
    ----------
    exposure : Dataset with ``image``, or DataArray, (..., y, x)
        May be lazy; the result then is.
    layers : sequence of (Dataset, interpolation)
        In the units of the image.

    Returns
    -------
    Dataset or DataArray
        Of the dtype of the image.

    Raises
    ------
    GeometryError
        If the image has no pixels or its coordinates do not count them.

    Examples
    --------
    >>> image = xr.DataArray(np.ones((2, 2), "float32"), dims=("y", "x"))
    >>> level = xr.DataArray(np.full((1, 1), 3.0), dims=("bin_y", "bin_x"))
    >>> layer = Layer(xr.Dataset({"level": level}, attrs={"box": [0, 2, 0, 2]}), "constant")
    >>> subtract_layers(image, [layer, layer]).values
    array([[-5., -5.],
           [-5., -5.]], dtype=float32)
    """
    if isinstance(exposure, xr.Dataset):
        return exposure.assign(image=subtract_layers(exposure["image"], layers))
    if exposure.dtype.kind != "f":
        raise GeometryError(f"the image must be of floating-point numbers, got {exposure.dtype}")
    box = box_of_image(exposure)
    if exposure.chunks is not None:
        exposure = exposure.chunk({v.Y: -1, v.X: -1})
    result: xr.DataArray = xr.apply_ufunc(
        _less_layers,
        exposure,
        kwargs={"layers": tuple(layers), "box": box},
        input_core_dims=[[v.Y, v.X]],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[exposure.dtype],
        keep_attrs=True,
    )
    return result


def _less_layers(
    image: NDArray[Any], *, layers: Sequence[Layer | tuple[xr.Dataset, str]], box: Box
) -> NDArray[Any]:
    result = np.array(image, dtype=image.dtype.newbyteorder("="), order="C")
    if not layers:
        return result
    # layers are summed first: what one adds and another takes cancels without a trace
    total = render_layer(layers[0], box).to_numpy().copy()
    for layer in layers[1:]:
        subtract_plane(total, -render_layer(layer, box).to_numpy())
    for index in np.ndindex(*result.shape[:-2]):
        subtract_plane(result[index], total)
    return result
