"""Backgrounds that add up: an ordered list of layers, each binned and interpolated in its own way.

The background of an image is the sum of its layers; a layer times -1 undoes an earlier one. Layers
share the box. They are summed in bins only where their bins and interpolations are the same, else
as images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.chebyshev import Order, chebyshev_image, fit_background
from skyloom.algorithms.background.geometry import box_of_background
from skyloom.algorithms.background.interpolation import Style, Undersampling
from skyloom.algorithms.background.rendering import render_background
from skyloom.algorithms.errors import ConfigurationError, GeometryError

__all__ = [
    "BackgroundLayer",
    "join_layers",
    "render_layers",
    "scale_background",
    "split_layers",
    "sum_layers",
]


class BackgroundLayer(NamedTuple):
    """A binned background and how it becomes pixels.

    With an ``order`` the pixels are those of a Chebyshev polynomial fitted to the bins,
    ``weighted`` by 1 / variance or not; without, those of the interpolation.
    """

    background: xr.Dataset
    interpolation: Style = "natural_spline"
    undersampling: Undersampling = "reduce"
    order: Order | None = None
    weighted: bool = True


Layers = Iterable[BackgroundLayer | tuple[xr.Dataset, Style]]


def scale_background(background: xr.Dataset, factor: float) -> xr.Dataset:
    """Return a background times a number: levels by the number, variances by its square.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[1.0, 2.0]]), dims=("bin_y", "bin_x"))
    >>> scale_background(xr.Dataset({"level": level}), -1.0)["level"].values.tolist()
    [[-1.0, -2.0]]
    """
    powers = {"level": 1, "variance": 2, "pixel_variance": 2}
    changed = {
        name: array.copy(data=array.data * np.asarray(factor**power, array.dtype))
        for name, power in powers.items()
        if (array := background.get(name)) is not None
    }
    return background.assign(changed)


def sum_layers(layers: Layers) -> xr.Dataset:
    """Return one background that is the sum of layers with the same bins and interpolation.

    Parameters
    ----------
    layers : iterable of BackgroundLayer or (Dataset, interpolation)
        Interpolated linearly in the bins: no ``akima`` and no polynomial.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        ``level`` and ``variance`` summed (float32), ``count`` and ``count_used`` the smallest,
        ``flags`` all that are set; coordinates and attributes of the first.

    Raises
    ------
    GeometryError
        If boxes or numbers of bins differ.
    ConfigurationError
        If there is no layer, interpolations differ or are not linear in the bins; sum images then.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[1.0, 2.0]]), dims=("bin_y", "bin_x"))
    >>> layer = (xr.Dataset({"level": level}, attrs={"box": [0, 1, 0, 4]}), "linear")
    >>> sum_layers([layer, layer])["level"].values.tolist()
    [[2.0, 4.0]]
    """
    found = _layers(layers)
    styles = {layer.interpolation for layer in found}
    if len(styles) > 1 or "akima" in styles or any(layer.order is not None for layer in found):
        raise ConfigurationError(
            "layers are summed in bins only if all have one interpolation that is linear in the "
            f"bins, not {', '.join(sorted(styles))} and polynomials; render_layers sums images"
        )
    backgrounds = [layer.background for layer in found]
    grids = {_grid(background) for background in backgrounds}
    if len(grids) > 1:
        rules = [background.attrs.get("grid_rule") for background in backgrounds]
        raise GeometryError(
            f"layers have different bins, (box, bins) {sorted(grids)} by the rules {rules}; "
            "render_layers sums images"
        )
    first = backgrounds[0]
    changed: dict[str, Any] = {}
    for name in ("level", "variance", "pixel_variance"):
        if all(name in background for background in backgrounds):
            total = sum(background[name].astype(np.float64) for background in backgrounds)
            changed[name] = xr.DataArray(total).astype(np.float32).assign_attrs(first[name].attrs)
    for name in ("count", "count_used"):
        if all(name in background for background in backgrounds):
            least = first[name]
            for background in backgrounds[1:]:
                least = least.where(least <= background[name], background[name])
            changed[name] = least.assign_attrs(first[name].attrs)
    if all("flags" in background for background in backgrounds):
        flags = first["flags"]
        for background in backgrounds[1:]:
            flags = flags | background["flags"]
        changed["flags"] = flags.assign_attrs(first["flags"].attrs)
    return first[list(changed)].assign(changed)


def render_layers(
    layers: Layers, shape: tuple[int, int] | None = None, *, box: Sequence[int] | None = None
) -> xr.DataArray:
    """Return the sum of layers as an image.

    Parameters
    ----------
    layers : iterable of BackgroundLayer or (Dataset, interpolation)
        All of the same box.
    shape : (int, int), optional
        Rows and columns of the whole image, a check.
    box : sequence of 4 int, optional
        Half-open part ``[y_start, y_stop, x_start, x_stop]`` to render, in parent pixels.

    Returns
    -------
    DataArray, (y, x), float32
        In the unit of the first layer.

    Raises
    ------
    GeometryError
        If boxes differ or a box or shape does not fit.
    ConfigurationError
        If there is no layer.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[1.0, 2.0], [3.0, 4.0]]), dims=("bin_y", "bin_x"))
    >>> background = xr.Dataset({"level": level}, attrs={"box": [0, 2, 0, 4]})
    >>> undone = (scale_background(background, -1.0), "linear")
    >>> render_layers([(background, "linear"), undone], box=(0, 1, 0, 4)).values.tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """
    found = _layers(layers)
    boxes = {box_of_background(layer.background) for layer in found}
    if len(boxes) > 1:
        raise GeometryError(f"layers must share a box, got {sorted(tuple(box) for box in boxes)}")
    whole = next(iter(boxes))
    if shape is not None and tuple(shape) != whole.shape:
        raise GeometryError(f"shape {tuple(shape)} differs from that of the box, {whole.shape}")
    total = _render(found[0], box)
    for layer in found[1:]:
        total = total.copy(data=total.data + _render(layer, box).data)
    return total.rename("background")


def join_layers(layers: Layers) -> xr.Dataset:
    """Return layers with the same bins as one dataset along ``layer``, to be kept together.

    The options of each layer are coordinates along ``layer``. Layers whose bins differ are kept
    one by one.

    Raises
    ------
    GeometryError
        If boxes or numbers of bins differ.

    Examples
    --------
    >>> level = xr.DataArray(np.array([[1.0, 2.0]]), dims=("bin_y", "bin_x"))
    >>> layer = BackgroundLayer(xr.Dataset({"level": level}, attrs={"box": [0, 1, 0, 4]}))
    >>> joined = join_layers([layer, layer._replace(interpolation="linear")])
    >>> joined["interpolation"].values.tolist(), len(split_layers(joined))
    (['natural_spline', 'linear'], 2)
    """
    found = _layers(layers)
    grids = {_grid(layer.background) for layer in found}
    if len(grids) > 1:
        raise GeometryError(f"layers have different (box, bins): {sorted(grids)}")
    joined = xr.concat(
        [layer.background for layer in found], dim=v.LAYER, combine_attrs="override", join="exact"
    )
    orders = [(-1, -1) if layer.order is None else layer.order for layer in found]
    pairs = [(order, order) if isinstance(order, int) else order for order in orders]
    return joined.assign_coords(
        interpolation=(v.LAYER, [layer.interpolation for layer in found]),
        undersampling=(v.LAYER, [layer.undersampling for layer in found]),
        order_y=(v.LAYER, [pair[0] for pair in pairs]),
        order_x=(v.LAYER, [pair[1] for pair in pairs]),
        weighted=(v.LAYER, [layer.weighted for layer in found]),
    )


def split_layers(joined: xr.Dataset) -> list[BackgroundLayer]:
    """Return the layers of a dataset that `join_layers` made.

    Raises
    ------
    ConfigurationError
        If the dataset has no dimension ``layer``.
    """
    if v.LAYER not in joined.dims:
        raise ConfigurationError(
            f"the dataset has no dimension {v.LAYER}, only {list(joined.dims)}"
        )
    names = ("interpolation", "undersampling", "order_y", "order_x", "weighted")
    layers = []
    for index in range(joined.sizes[v.LAYER]):
        one = joined.isel({v.LAYER: index})
        order = (int(one["order_y"]), int(one["order_x"]))
        layers.append(
            BackgroundLayer(
                one.drop_vars([v.LAYER, *names], errors="ignore"),
                str(one["interpolation"].values),  # type: ignore[arg-type]
                str(one["undersampling"].values),  # type: ignore[arg-type]
                None if min(order) < 0 else order[0] if order[0] == order[1] else order,
                bool(one["weighted"]),
            )
        )
    return layers


def _layers(layers: Layers) -> list[BackgroundLayer]:
    """Return the layers as such, at least one."""
    found = [
        layer if isinstance(layer, BackgroundLayer) else BackgroundLayer(*layer) for layer in layers
    ]
    if not found:
        raise ConfigurationError("there must be at least one layer")
    return found


def _grid(background: xr.Dataset) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return box and number of bins, which fix the edges."""
    bins = (background.sizes[v.BIN_Y], background.sizes[v.BIN_X])
    return tuple(box_of_background(background)), bins


def _render(layer: BackgroundLayer, box: Sequence[int] | None) -> xr.DataArray:
    if layer.order is None:
        return render_background(
            layer.background,
            interpolation=layer.interpolation,
            undersampling=layer.undersampling,
            box=box,
        )
    fit = fit_background(
        layer.background,
        layer.order,
        weighted=layer.weighted,
        undersampling=layer.undersampling,
    )
    return chebyshev_image(fit, box).assign_attrs(
        {"units": str(layer.background["level"].attrs.get("units", v.DIMENSIONLESS))}
    )
