"""What an exposure goes through before it is warped: another background, and units of flux."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import BackgroundLayer, box_of_image, render_layers
from skyloom.algorithms.detrend.planes import frame_planes
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky.layers import Layer, render_layer

__all__ = ["BackgroundChange", "calibrate_exposure", "change_background"]

AB_OF_NANOJANSKY: Final = 31.4
"""AB magnitude of 1 nJy."""


class BackgroundChange(Parameters):
    """Which backgrounds are exchanged before a warp."""

    restore: bool = Field(False, description="add the background that was subtracted before")
    subtract: bool = Field(False, description="subtract another background")
    apply_ratio: bool = Field(
        False, description="multiply both by the ratio of the background's flat to that of objects"
    )


def change_background(
    exposure: xr.Dataset,
    *,
    restored: Any = None,
    subtracted: Any = None,
    flat_ratio: xr.DataArray | float | None = None,
    parameters: BackgroundChange | None = None,
) -> xr.Dataset:
    """Add back the background that was subtracted from an exposure, and subtract another.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float; may be lazy. Variance and mask stay as they are.
    restored, subtracted : DataArray (y, x), Dataset (bin_y, bin_x) or sequence of layers, optional
        Backgrounds in the unit of the image: an image, bins as of `measure_background`, or layers.
    flat_ratio : DataArray (y, x) or float, optional
        Factor of both, where they were measured on images with another flat.
    parameters : BackgroundChange
        What is to be done; all that is given must be asked for, and the reverse.

    Returns
    -------
    Dataset, (..., y, x)

    Raises
    ------
    ConfigurationError
        If something was given and isn't asked for, or is asked for and missing.
    GeometryError
        If shapes differ.

    Examples
    --------
    >>> image = xr.DataArray(np.full((2, 2), 10.0, "float32"), dims=("y", "x"))
    >>> wanted = BackgroundChange(restore=True, subtract=True)
    >>> changed = change_background(
    ...     image.to_dataset(name="image"), restored=image * 0 + 3, subtracted=image * 0 + 5,
    ...     parameters=wanted,
    ... )
    >>> float(changed["image"][0, 0])
    8.0
    """
    parameters = parameters or BackgroundChange()
    frame_planes(exposure)
    problems = [
        f"{option} is {'not ' if given is not None else ''}set, but {name} is "
        f"{'given' if given is not None else 'not given'}"
        for option, name, wanted, given in (
            ("restore", "restored", parameters.restore, restored),
            ("subtract", "subtracted", parameters.subtract, subtracted),
            ("apply_ratio", "flat_ratio", parameters.apply_ratio, flat_ratio),
        )
        if wanted != (given is not None)
    ]
    if parameters.apply_ratio and not (parameters.restore or parameters.subtract):
        problems.append("apply_ratio is set, but neither restore nor subtract is")
    if problems:
        raise ConfigurationError("; ".join(problems))
    if not (parameters.restore or parameters.subtract):
        return exposure
    image = exposure["image"]
    change = xr.zeros_like(image.isel({d: 0 for d in image.dims if d not in (v.Y, v.X)}), float)
    change = change.reset_coords(drop=True)
    # differences first: what one adds and the other takes cancels without a trace
    for sign, model in ((1.0, restored), (-1.0, subtracted)):
        if model is not None:
            change = change + sign * _rendered(model, image)
    if flat_ratio is not None:
        change = change * _fitting(flat_ratio, image, "flat_ratio")
    changed = (image + change).astype(image.dtype).transpose(*image.dims)
    return exposure.assign(image=changed.assign_attrs(image.attrs))


def _rendered(model: Any, image: xr.DataArray) -> Any:
    """Return a background at the pixels of an image."""
    if isinstance(model, xr.DataArray):
        return _fitting(model, image, "a background")
    box = box_of_image(image)
    layers: Sequence[Any] = (
        [BackgroundLayer(model)] if isinstance(model, xr.Dataset) else list(model)
    )
    if not layers:
        raise ConfigurationError("a background has no layers")
    total: xr.DataArray = xr.DataArray(np.zeros(box.shape), dims=(v.Y, v.X))
    for layer in layers:
        own = (
            render_layers([layer], box=box)
            if isinstance(layer, BackgroundLayer)
            else render_layer(Layer(*layer), box)
        )
        total = total + own.variable
    return total


def _fitting(values: xr.DataArray | float, image: xr.DataArray, name: str) -> Any:
    """Return what has the pixels of an image without its coordinates, or a number."""
    if not isinstance(values, xr.DataArray):
        return float(values)
    shape = {dim: image.sizes[dim] for dim in (v.Y, v.X)}
    if dict(values.sizes) != shape:
        raise GeometryError(f"{name} has shape {dict(values.sizes)}, the image {shape}")
    return values.transpose(v.Y, v.X).variable


def calibrate_exposure(
    exposure: xr.Dataset,
    *,
    zero_point: float | None = None,
    scale: float | xr.DataArray | None = None,
) -> xr.Dataset:
    """Return an exposure in nanojansky.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image`` (float) and perhaps ``variance``, in any unit but nJy. May be lazy.
    zero_point : float, AB magnitude, optional
        Of one unit of the image in a pixel.
    scale : float or DataArray (y, x), nJy/unit, optional
        Flux of one unit, in place of the zero point.

    Returns
    -------
    Dataset, (..., y, x)
        Image in nJy, variance, times the square, in nJy2; all else stays.

    Raises
    ------
    ConfigurationError
        If not just one of zero point and scale is given, or the image is in nJy already.
    ValueError
        If they are not finite, or the scale is not positive.

    Notes
    -----
    ``scale = 10^(0.4 (31.4 - zero_point))``: 1 nJy has the AB magnitude 31.4.

    Examples
    --------
    >>> image = xr.DataArray([[2.0]], dims=("y", "x"), attrs={"units": "electron"})
    >>> exposure = xr.Dataset({"image": image, "variance": image})
    >>> found = calibrate_exposure(exposure, zero_point=28.9)
    >>> round(float(found["image"][0, 0]), 6), found["variance"].attrs["units"]
    (20.0, 'nJy2')
    """
    planes = frame_planes(exposure)
    if (zero_point is None) == (scale is None):
        raise ConfigurationError("give either zero_point or scale")
    if planes["image"].attrs.get("units") == v.NANOJANSKY:
        raise ConfigurationError("the image is in nJy already")
    if zero_point is not None:
        if not math.isfinite(zero_point):
            raise ValueError(f"zero_point must be finite, got {zero_point}")
        factor: Any = 10.0 ** (0.4 * (AB_OF_NANOJANSKY - zero_point))
    else:
        factor = _fitting(scale, planes["image"], "scale")  # type: ignore[arg-type]
        if isinstance(factor, float) and not 0.0 < factor < math.inf:
            raise ValueError(f"scale must be positive and finite, got {factor}")
    units = {"image": v.NANOJANSKY, "variance": v.NANOJANSKY2}
    powers = {"image": factor, "variance": factor * factor}
    return exposure.assign(
        {
            name: (exposure[name] * powers[name])
            .astype(exposure[name].dtype)
            .transpose(*exposure[name].dims)
            .assign_attrs(exposure[name].attrs | {"units": units[name]})
            for name in units
            if name in exposure
        }
    )
