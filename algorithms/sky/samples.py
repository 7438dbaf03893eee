"""Samples of an exposure and of the sky frame over the same pixels, for the scale between them.

A detector is cut into large cells. The level of a cell is the clipped mean of its unmasked
pixels; the template beside it is the plain mean of the sky frame over exactly the pixels which
that statistic used. A statistic of the template over other pixels would measure another part of
its pattern, and clipping a pattern removes some of it: both bias the scale. Pixels on bins of the
sky frame that were never observed are left out: what was filled in there says nothing of the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import pieces, render_kernels
from skyloom.algorithms.background.geometry import (
    Box,
    bin_centers,
    bin_edges,
    box_of_background,
    box_of_image,
)
from skyloom.algorithms.background.interpolation import STYLES
from skyloom.algorithms.clip_correction import clipped_variance_factor
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.focal_plane import box_corners, to_focal_plane
from skyloom.algorithms.pixel_arrays import native
from skyloom.algorithms.sky.frame_bins import (
    FramePlanes,
    check_inside,
    frame_planes,
)
from skyloom.algorithms.sky.frame_origin import check_origin
from skyloom.algorithms.sky.sample_kernels import (
    MOMENTS,
    QUANTITIES,
    clip_cells,
    sample_template,
)
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters
from skyloom.algorithms.units import squared_units

__all__ = ["measure_scale"]

Floats = NDArray[np.float64]

REACH_IN_BINS = 0.5
LARGEST_GAP_WEIGHT = 0.1  # of bins never observed, in the template at a pixel that is used


def measure_scale(
    exposure: xr.Dataset,
    sky_frame: xr.Dataset,
    *,
    transform: Floats | None = None,
    expected_scale: float | None = None,
    parameters: MeasureScaleParameters | None = None,
) -> xr.Dataset:
    """Sample an exposure and a sky frame over the same pixels of one detector.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image`` (float32, any linear unit) and ``mask`` (optional). May be lazy; the result then
        is. A background that was subtracted before must be smooth.
    sky_frame : Dataset, (bin_y, bin_x)
        ``level`` (dimensionless) and ``variance`` of the same detector, attribute ``box``.
    transform : array, (2, 3), mm, optional
        Takes pixels (x, y, 1) to the focal plane.
    expected_scale : float, optional
        About what the scale will be, such as the level of the sky, in the unit of the image. The
        image is then clipped around its pattern, not around its mean: where the pattern in a cell
        is as strong as the noise of a pixel, a clip around the mean shifts the scale by 0.1 %.
    parameters : MeasureScaleParameters, optional

    Returns
    -------
    Dataset, (..., sample), float64
        ``level`` [unit of the image] and ``level_variance``: of the mean, without what the sky
        frame explains of the scatter in the cell, and corrected for the clip; ``template`` and
        ``template_variance`` [1]: of the sky frame over the pixels used; ``count`` valid pixels and
        ``count_used``; coordinates ``x``, ``y`` [pixel], the mean position of the pixels used, and
        ``focal_x``, ``focal_y`` [mm] with a transform; scalar coordinates of the exposure. NaN
        where a cell has no valid pixel. Attribute ``focal_box``: the detector's bounding box in the
        units of the positions.

    Raises
    ------
    GeometryError
        If the image is not inside the box of the sky frame.
    KeyError
        If the mask does not know a plane.
    ConfigurationError
        If fewer than one sample is asked for, the expected scale is not finite, or the frame says
        that it is of another detector, filter or camera than the exposure.

    Examples
    --------
    >>> pattern = np.add.outer([-0.01, 0.01], [0.02, -0.02])
    >>> frame = xr.Dataset(
    ...     {"level": (("bin_y", "bin_x"), pattern), "variance": (("bin_y", "bin_x"), 0 * pattern)},
    ...     attrs={"box": [0, 8, 0, 8]},
    ... )
    >>> image = np.repeat(np.repeat(pattern, 4, 0), 4, 1) * 500 + 7
    >>> exposure = xr.Dataset({"image": (("y", "x"), image, {"units": "electron"})})
    >>> parameters = MeasureScaleParameters(samples=(2, 2), interpolation="constant")
    >>> samples = measure_scale(exposure, frame, parameters=parameters)
    >>> ((samples["level"] - 7) / samples["template"]).values.round(3)
    array([500., 500., 500., 500.])
    """
    parameters = MeasureScaleParameters() if parameters is None else parameters
    if expected_scale is not None and not np.isfinite(expected_scale):
        raise ConfigurationError(
            f"expected_scale must be finite, got {expected_scale}; leave it out if nothing is known"
        )
    check_origin(exposure, sky_frame)
    image = exposure["image"]
    box, frame_box = box_of_image(image), box_of_background(sky_frame)
    check_inside(box, frame_box)
    style = STYLES[parameters.interpolation]
    core: list[list[Hashable]] = [[v.Y, v.X]]
    arrays = [image]
    bits = 0
    if v.MASK in exposure:
        bits = v.plane_bits(parameters.ignored_planes, exposure[v.MASK].attrs)
        arrays.append(exposure[v.MASK])
        core.append([v.Y, v.X])
    frame = frame_planes(sky_frame)
    if not frame.observed.any():
        frame, expected_scale = frame._replace(level=np.full_like(frame.level, np.nan)), None
    lazy = [array if array.chunks is None else array.chunk({v.Y: -1, v.X: -1}) for array in arrays]
    cells = parameters.cells(box.shape)
    if min(cells) < 1:
        raise ConfigurationError(f"samples must be at least (1, 1), got {parameters.samples}")
    found: xr.DataArray = xr.apply_ufunc(
        _sample_planes,
        *lazy,
        kwargs={
            "frame": frame,
            "bits": bits,
            "box": box,
            "frame_box": frame_box,
            "cells": cells,
            "style": style,
            "expected_scale": expected_scale,
            "parameters": parameters,
        },
        input_core_dims=core,
        output_core_dims=[[v.SAMPLE, "quantity"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={
            "output_sizes": {v.SAMPLE: cells[0] * cells[1], "quantity": QUANTITIES}
        },
    )
    return _dataset(found, exposure, box, transform, parameters)


def _sample_planes(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    frame: FramePlanes,
    bits: int,
    box: Box,
    frame_box: Box,
    cells: tuple[int, int],
    style: int,
    expected_scale: float | None,
    parameters: MeasureScaleParameters,
) -> Floats:
    """Return what is known of the cells of each plane, (..., sample, quantity)."""
    level, variance, observed = frame
    edges_y, edges_x = (
        np.linspace(0, size, n + 1).astype(np.int64)
        for size, n in zip(box.shape, cells, strict=True)
    )
    y_edges, x_edges = (
        bin_edges(size, n) for size, n in zip(frame_box.shape, level.shape, strict=True)
    )
    rows = np.arange(box.y_start, box.y_stop)
    columns = np.arange(box.x_start, box.x_stop)
    y_knots, x_knots = (
        bin_centers(y_edges, frame_box.y_start),
        bin_centers(x_edges, frame_box.x_start),
    )
    values = np.empty((len(rows), level.shape[1]))
    reach = [REACH_IN_BINS * size / n for size, n in zip(frame_box.shape, level.shape, strict=True)]
    render_kernels.values_by_row(
        y_knots, level, rows.astype(np.float64), style, False, pieces.LIMIT, reach[0], values
    )
    template = (x_knots, values, box.x_start, style, pieces.LIMIT, reach[1])
    bins_y = np.searchsorted(y_edges, rows - frame_box.y_start, side="right") - 1
    bins_x = np.searchsorted(x_edges, columns - frame_box.x_start, side="right") - 1
    leading = image.shape[:-2]
    found = np.empty((*leading, *cells, QUANTITIES))
    moments = np.empty((*cells, MOMENTS))
    compat = parameters.mode == "compat"
    # the template is the same in every exposure
    pattern = _clipped_template(template, edges_y, edges_x, parameters) if compat else moments
    expected = None
    if expected_scale is not None and not compat:
        expected = np.empty(box.shape, np.float32)
        knots, _, origin, style, beyond, reach_x = template
        scaled = values * expected_scale
        render_kernels.render_rows(knots, scaled, origin, style, False, beyond, reach_x, expected)
    blind = None
    if not compat and observed.any() and not observed.all():
        blind = ~observed[np.ix_(bins_y, bins_x)]
        gaps, gap_rows = (~observed).astype(np.float64), np.empty_like(values)
        render_kernels.values_by_row(
            y_knots, gaps, rows.astype(np.float64), style, False, pieces.LIMIT, reach[0], gap_rows
        )
        leaning = np.empty(box.shape, np.float32)
        render_kernels.render_rows(
            x_knots, gap_rows, box.x_start, style, False, pieces.LIMIT, reach[1], leaning
        )
        blind |= leaning > LARGEST_GAP_WEIGHT
    less = expected if np.prod(leading) <= 1 or expected is None else np.empty_like(expected)
    for index in np.ndindex(*leading):
        plane, flags, legend, constants = _kernel_arrays(
            image[index], None if mask is None else mask[index], bits
        )
        if expected is not None:
            # into memory that is there already, if it holds such numbers
            plane = np.subtract(plane, expected, out=less if plane.dtype == np.float32 else None)
        if blind is not None:
            plane = np.where(blind, constants[0], plane)
        clip_cells(
            plane, flags, legend, constants, edges_y, edges_x,
            parameters.clip, parameters.iterations, moments,
        )  # fmt: skip
        if compat:
            found[index] = _samples_apart(moments, pattern, edges_y, edges_x)
        else:
            sample_template(
                plane, flags, legend, edges_y, edges_x, moments, *template,
                bins_y, bins_x, variance, found[index],
            )  # fmt: skip
    if compat:
        # the survey pipeline runs along y first
        found = np.swapaxes(found, -3, -2)
    else:
        factor = clipped_variance_factor(parameters.clip, parameters.iterations)
        found[..., 3] *= parameters.noise_correlation / factor
        if expected_scale is not None:
            found[..., 2] += expected_scale * found[..., 4]
    found[..., 6] += box.x_start
    found[..., 7] += box.y_start
    return found.reshape(*leading, cells[0] * cells[1], QUANTITIES)


def _clipped_template(
    template: Any,
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    parameters: MeasureScaleParameters,
) -> Floats:
    """Return the clipped statistics of the template over all pixels of every cell."""
    knots, values, origin, style, beyond, reach = template
    moments = np.empty((len(edges_y) - 1, len(edges_x) - 1, MOMENTS))
    for cell, (top, bottom) in enumerate(itertools.pairwise(edges_y)):
        strip = np.empty((bottom - top, edges_x[-1]), np.float32)
        render_kernels.render_rows(
            knots, values[top:bottom], origin, style, False, beyond, reach, strip
        )
        plane, flags, legend, constants = _kernel_arrays(strip, None, 0)
        whole = np.array([0, bottom - top])
        clip_cells(
            plane, flags, legend, constants, whole, edges_x,
            parameters.clip, parameters.iterations, moments[cell : cell + 1],
        )  # fmt: skip
    return moments


def _samples_apart(
    image: Floats, template: Floats, edges_y: NDArray[np.int64], edges_x: NDArray[np.int64]
) -> Floats:
    """Return the samples of image and template that were each clipped on their own."""
    found = np.full((*image.shape[:2], QUANTITIES), np.nan)
    found[..., :2] = image[..., :2]
    for first, moments in ((2, image), (4, template)):
        used = np.where(moments[..., 1] > 0, moments[..., 1], np.nan)
        found[..., first] = moments[..., 2]
        found[..., first + 1] = moments[..., 3] / used
    found[..., 6] = 0.5 * (edges_x[:-1] + edges_x[1:] - 1)
    found[..., 7] = 0.5 * (edges_y[:-1] + edges_y[1:] - 1)[:, None]
    return found


def _kernel_arrays(
    image: NDArray[Any], mask: NDArray[Any] | None, bits: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return image, mask, legend and constants as the kernels read them."""
    small = image.dtype.itemsize <= (4 if image.dtype.kind == "f" else 2)
    plane = native(image).astype(np.float32 if small else np.float64, copy=False)
    constants = np.array(
        [np.nan, np.finfo(np.float32 if small else np.float64).max, 1.0], plane.dtype
    )
    if mask is None:
        flags = np.empty((0, 0), np.int32)
    else:
        flags = native(mask)
        if flags.dtype.itemsize != 4:
            flags = ((flags & np.array(bits).astype(flags.dtype)) != 0).astype(np.int32)
            bits = 1
    flags = flags.view(np.int32)
    return plane, flags, np.array([0, bits], np.int64).astype(np.int32), constants


def _dataset(
    found: xr.DataArray,
    exposure: xr.Dataset,
    box: Box,
    transform: Floats | None,
    parameters: MeasureScaleParameters,
) -> xr.Dataset:
    units = str(exposure["image"].attrs.get("units", ""))
    squared = squared_units(units)
    quantity = {
        name: found.isel(quantity=index, drop=True).assign_attrs(units=unit)
        for index, (name, unit) in enumerate(
            (
                ("count", ""),
                ("count_used", ""),
                ("level", units),
                ("level_variance", squared),
                ("template", ""),
                ("template_variance", ""),
                (v.X, v.PIXEL),
                (v.Y, v.PIXEL),
            )
        )
    }
    x, y = quantity.pop(v.X), quantity.pop(v.Y)
    coords = {v.X: x, v.Y: y}
    corner_x, corner_y = box_corners(*box)
    if transform is not None:
        (a, b, c), (d, e, f) = np.asarray(transform, dtype=np.float64)
        coords[v.FOCAL_X] = (a * x + b * y + c).assign_attrs(units=v.MILLIMETRE)
        coords[v.FOCAL_Y] = (d * x + e * y + f).assign_attrs(units=v.MILLIMETRE)
        corner_x, corner_y = to_focal_plane(transform, corner_x, corner_y)
    limits = [corner_x.min(), corner_x.max(), corner_y.min(), corner_y.max()]
    samples = xr.Dataset(quantity, attrs={"focal_box": [float(value) for value in limits]})
    scalars = {name: c for name, c in exposure.coords.items() if c.ndim == 0}
    samples = samples.assign_coords({**scalars, **coords})
    for name in ("count", "count_used"):
        samples[name] = samples[name].astype(np.int64).assign_attrs(units="")
    samples.attrs["mode"] = parameters.mode
    return samples
