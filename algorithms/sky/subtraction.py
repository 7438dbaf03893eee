"""Sky frames taken off exposures, by a given scale or by a fit with its smooth part."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import box_of_background, box_of_image
from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.errors import ConfigurationError, GeometryError, NoUsableDataError
from skyloom.algorithms.sky.frame_bins import check_inside
from skyloom.algorithms.sky.frame_origin import check_origin
from skyloom.algorithms.sky.layers import Layer, scaled_layer, smooth_layer, subtract_layers
from skyloom.algorithms.sky.templates import template_frame

__all__ = ["SkyFrameWarning", "subtract_fit", "subtract_sky_frame"]

Layers = tuple[Layer, ...]


class SkyFrameWarning(UserWarning):
    """A sky frame was not subtracted because it or its scale has no value."""


def subtract_sky_frame(
    exposure: xr.Dataset | xr.DataArray,
    sky_frame: xr.Dataset,
    scale: float,
    *,
    layers: Sequence[Layer | tuple[xr.Dataset, str]] | None = None,
    interpolation: Style = "natural_spline",
    without_frame: Literal["zero", "raise"] = "zero",
) -> tuple[Any, Layers]:
    """Subtract a sky frame times a scale from an image of its detector.

    Parameters
    ----------
    exposure : Dataset with ``image``, or DataArray, (..., y, x), float
        May be lazy; the result then is. Variance and mask stay as they are.
    sky_frame : Dataset, (bin_y, bin_x)
        ``level`` (dimensionless) of the same detector, attribute ``box``.
    scale : float
        In the unit of the image; a positive one subtracts. One that is not finite changes nothing
        and warns.
    layers : sequence of (Dataset, interpolation), optional
        What was subtracted before.
    interpolation : str
        Interpolation between the bins.
    without_frame : "zero" or "raise"
        What to do for a detector whose frame has no value at all: subtract zeros and warn, or
        raise.

    Returns
    -------
    (Dataset or DataArray, tuple of Layer)
        The image less the frame, and the layers with the scaled frame as the last.

    Raises
    ------
    ConfigurationError
        If the frame says that it is of another detector, filter or camera than the exposure.
    GeometryError
        If the image is not inside the box of the frame.
    NoUsableDataError
        If the frame has no value and ``without_frame`` is "raise".

    Examples
    --------
    >>> image = xr.DataArray(np.full((2, 2), 10.0, "float32"), dims=("y", "x"))
    >>> level = xr.DataArray(np.full((1, 1), 0.5), dims=("bin_y", "bin_x"))
    >>> frame = xr.Dataset({"level": level}, attrs={"box": [0, 2, 0, 2]})
    >>> less, layers = subtract_sky_frame(image, frame, 4.0, interpolation="constant")
    >>> float(less[0, 0]), float(layers[0].background["level"][0, 0])
    (8.0, 2.0)
    """
    image = exposure["image"] if isinstance(exposure, xr.Dataset) else exposure
    before = tuple(Layer(*layer) for layer in layers or ())
    check_origin(exposure, sky_frame)
    check_inside(box_of_image(image), box_of_background(sky_frame))
    layer = frame_layer(
        sky_frame,
        float(scale),
        units=str(image.attrs.get("units", "")),
        interpolation=interpolation,
        without_frame=without_frame,
    )
    if layer is None:
        return exposure, before
    return subtract_layers(exposure, [layer]), (*before, layer)


def group_of(fit: xr.Dataset, detector: Any, detector_types: Mapping[Any, str] | None) -> Any:
    """Return whose step of a fit a detector has: its own, or that of its type."""
    own = "group" in fit.coords and detector in fit["group"].values.tolist()
    return detector if own or detector_types is None else detector_types.get(detector)


def subtract_fit(
    exposure: xr.Dataset | xr.DataArray,
    fit: xr.Dataset,
    *,
    sky_frame: xr.Dataset | None = None,
    transform: NDArray[np.float64] | None = None,
    detector: Any = None,
    detector_types: Mapping[Any, str] | None = None,
    layers: Sequence[Layer | tuple[xr.Dataset, str]] | None = None,
    interpolation: Style = "natural_spline",
    smooth: bool = True,
) -> tuple[Any, Layers]:
    """Subtract a fit: its sky frame times the scale, its smooth part, and the detector's step.

    Parameters
    ----------
    exposure : Dataset with ``image``, or DataArray, (..., y, x), float
        May be lazy; the result then is. Variance and mask stay as they are.
    fit : Dataset
        Of `solve_scales` or `fit_visit_background`.
    sky_frame : Dataset, (bin_y, bin_x) or (template, bin_y, bin_x), optional
        Without it only the smooth part is subtracted. Of several templates each is taken as many
        times as the fit has found it.
    transform : array, (2, 3), mm
        Takes pixels (x, y, 1) to the focal plane; needed if the fit was made there, else pixels
        are meant.
    detector : label, optional
        Detector whose step is meant; by default the exposure's coordinate ``detector``.
    detector_types : mapping from detector to type, optional
        Needed if the fit has steps between types.
    layers, interpolation
        As in `subtract_sky_frame`.
    smooth : bool
        Whether the smooth part and the step are subtracted too, or the sky frame alone.

    Returns
    -------
    (Dataset or DataArray, tuple of Layer)
        The image less the fit, and the layers with those of the fit as the last.

    Raises
    ------
    ConfigurationError
        If the frame says that it is of another detector, filter or camera than the exposure, or
        neither a frame nor the smooth part is to be subtracted.
    GeometryError
        If the image is not inside the box of the frame, or the transform is missing.
    KeyError
        If the fit has no step for the detector.

    Examples
    --------
    >>> image = xr.DataArray(np.full((1, 2), 7.0, "float32"), dims=("y", "x"))
    >>> fit = xr.Dataset(
    ...     {"coefficients": ("coefficient", [5.0]), "scale": 0.0, "step": ("group", [])},
    ...     coords={"degree_x": ("coefficient", [0]), "degree_y": ("coefficient", [0])},
    ...     attrs={"focal_box": [0.0, 2.0, 0.0, 2.0]},
    ... )
    >>> less, layers = subtract_fit(image, fit)
    >>> less.values, len(layers)
    (array([[2., 2.]], dtype=float32), 1)
    """
    image = exposure["image"] if isinstance(exposure, xr.Dataset) else exposure
    label = detector
    if label is None and v.DETECTOR in image.coords:
        label = image.coords[v.DETECTOR].item()
    if sky_frame is not None:
        check_origin(exposure, sky_frame, detector=label)
    elif not smooth:
        raise ConfigurationError("smooth is False and there is no sky_frame: nothing to subtract")
    made = fit_layers(
        fit,
        units=str(image.attrs.get("units", "")),
        sky_frame=sky_frame,
        transform=transform,
        group=group_of(fit, label, detector_types),
        interpolation=interpolation,
        smooth=smooth,
    )
    if sky_frame is not None:
        check_inside(box_of_image(image), box_of_background(sky_frame))
    before = tuple(Layer(*layer) for layer in layers or ())
    return subtract_layers(exposure, made), (*before, *made)


def frame_layer(
    sky_frame: xr.Dataset,
    scale: float,
    *,
    units: str,
    interpolation: Style,
    without_frame: Literal["zero", "raise"] = "zero",
) -> Layer | None:
    """Return the scaled frame as a layer; None, with a warning, if there is no scale."""
    if not np.isfinite(scale):
        warnings.warn(
            f"the sky frame was not subtracted: its scale is {scale}", SkyFrameWarning, stacklevel=3
        )
        return None
    layer = Layer(sky_frame, interpolation)
    if not np.isfinite(np.asarray(sky_frame["level"])).any():
        if without_frame == "raise":
            raise NoUsableDataError("the sky frame has no value in any bin")
        warnings.warn(
            "the sky frame has no value in any bin: zeros were subtracted",
            SkyFrameWarning,
            stacklevel=3,
        )
        zeros = sky_frame["level"].copy(data=np.zeros_like(sky_frame["level"].to_numpy()))
        layer = Layer(sky_frame.assign(level=zeros), interpolation)
    return scaled_layer(layer, scale, units)


def fit_layers(
    fit: xr.Dataset,
    *,
    units: str,
    sky_frame: xr.Dataset | None,
    transform: NDArray[np.float64] | None,
    group: Any,
    interpolation: Style,
    smooth: bool = True,
) -> Layers:
    """Return the layers of a fit on one detector: the sky frame, then the smooth part if wanted."""
    made: list[Layer] = []
    if sky_frame is not None:
        scale = float(fit["scale"])
        if "template" in sky_frame.dims:
            sky_frame, scale = _summed_templates(sky_frame, fit)
        layer = frame_layer(sky_frame, scale, units=units, interpolation=interpolation)
        made += [] if layer is None else [layer]
    if not smooth:
        return tuple(made)
    if transform is None:
        if fit.attrs.get("focal_box_units", v.PIXEL) != v.PIXEL:
            raise GeometryError("the fit is in the focal plane: give the detector's transform")
        transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    offset = 0.0
    if fit.sizes.get("group", 0):
        groups = fit["group"].values.tolist()
        if group not in groups:
            raise KeyError(f"the fit has no step for {group!r}, only for {groups}")
        offset = float(fit["step"][groups.index(group)])
    coefficients = np.asarray(fit["coefficients"].values)
    if not np.isfinite(coefficients).all():
        warnings.warn("the fit has no smooth part to subtract", SkyFrameWarning, stacklevel=3)
    elif coefficients.size or offset:
        made.append(smooth_layer(fit, transform, offset=offset))
    return tuple(made)


def _summed_templates(sky_frame: xr.Dataset, fit: xr.Dataset) -> tuple[xr.Dataset, float]:
    """Return the frame that the templates of a fit add up to, and what to multiply it by."""
    number = sky_frame.sizes["template"]
    scales = fit["template_scale"].values if "template_scale" in fit else fit["scale"].values
    scales = np.atleast_1d(scales)
    if len(scales) != number:
        raise ConfigurationError(f"the sky frame has {number} templates, the fit {len(scales)}")
    if not np.isfinite(scales).all():
        return sky_frame.isel(template=0), np.nan
    return template_frame(sky_frame, scales.tolist()), 1.0
