"""Measure the background of an image: the statistic of its pixels in bins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from scipy.ndimage import median_filter

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.binning import (
    Statistic,
    VarianceFrom,
    bin_image,
)
from skyloom.algorithms.background.geometry import (
    GridRule,
    bin_centers,
    bin_count,
    bin_edges,
    box_of_image,
)
from skyloom.algorithms.clip_correction import clipped_variance_factor
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.units import squared_units

__all__ = ["REJECTED_PLANES", "BackgroundParameters", "measure_background"]

REJECTED_PLANES = (
    "BAD",
    "SAT",
    "INTERPOLATED",
    "COSMIC_RAY",
    "EDGE",
    "DETECTED",
    "DETECTED_NEGATIVE",
    "SUSPECT",
    "NO_DATA",
)
"""Mask planes whose pixels no background uses unless told otherwise."""


class BackgroundParameters(Parameters):
    """How the background of an image is measured; each field is a keyword of the function."""

    bin_size: tuple[int, int] = Field((32, 32), description="size of bins along y and x, pixel")
    bins: tuple[int, int] | None = Field(
        None, description="number of bins along y and x, instead of their size"
    )
    grid_rule: GridRule = Field(
        "nearest", description="number of bins from their size: rounded to nearest, or up (ceil)"
    )
    statistic: Statistic = Field("meanclip", description="level of a bin: meanclip, mean, median")
    clip: float = Field(3.0, gt=0, description="clip of meanclip, standard deviations")
    iterations: int = Field(3, ge=1, description="clip passes of meanclip")
    reject: tuple[str, ...] = Field(
        REJECTED_PLANES, description="mask planes whose pixels are left out"
    )
    min_fraction: float = Field(
        0.1, ge=0, le=1, description="bins with less of their area valid are flagged LOW_COUNT"
    )
    debias: bool = Field(
        False, description="undo what clipping takes from the variance of a Gaussian"
    )
    noise_correlation: float = Field(
        1.0, ge=1, description="factor on the variance of levels, for correlated pixels"
    )
    variance_from: VarianceFrom = Field(
        "scatter",
        description="variance of a level from the scatter of its pixels, their input variances, or "
        "input_correlated: those of fully correlated pixels",
    )
    single_pixel: str = Field(
        "drop",
        pattern="^(drop|pooled)$",
        description="variance of a bin of one pixel: drop leaves it NaN, pooled takes the median "
        "pixel variance of all bins",
    )
    median_filter: int = Field(
        1, ge=1, description="side of a median filter over bins, odd; 1 for none"
    )


def measure_background(
    exposure: xr.Dataset | xr.DataArray,
    *,
    bin_size: tuple[int, int] = (32, 32),
    statistic: Statistic = "meanclip",
    reject: Iterable[str] = REJECTED_PLANES,
    bins: tuple[int, int] | None = None,
    grid_rule: GridRule = "nearest",
    clip: float = 3.0,
    iterations: int = 3,
    min_fraction: float = 0.1,
    debias: bool = False,
    noise_correlation: float = 1.0,
    variance_from: VarianceFrom = "scatter",
    single_pixel: str = "drop",
    median_filter: int = 1,
) -> xr.Dataset:
    """Return the level of the background in bins, with its variance and counts.

    A pixel is used if it is finite and none of the rejected mask planes is set. ``meanclip`` is
    the clipped mean: pass 1 keeps values within ``clip * 0.7413 IQR`` of the median, each later
    pass those within ``clip`` clipped standard deviations of the clipped mean of the pass before.

    Parameters
    ----------
    exposure : Dataset or DataArray, (..., y, x)
        ``image`` (float32, any unit), optionally ``mask`` (integer planes with their legend) and
        ``variance`` (square of the unit); or the image alone. ``y``, ``x`` coordinates are parent
        pixels. May be lazy; the result then is.
    bin_size : (int, int)
        Size of bins along y and x, pixel. An image smaller than a bin is one bin.
    statistic : "meanclip", "mean" or "median"
    reject : iterable of str
        Mask planes whose pixels are left out.
    bins : (int, int), optional
        Number of bins along y and x, instead of their size.
    grid_rule : "nearest" or "ceil"
        How the number of bins follows from their size; see `bin_count`.
    clip : float
        In standard deviations; > 0.
    iterations : int
        Clip passes; >= 1.
    min_fraction : float
        Bins with less than this fraction of the nominal area valid get LOW_COUNT; the level stays.
    debias : bool
        Divide variances by what clipping leaves of the variance of a Gaussian.
    noise_correlation : float
        Factor >= 1 on the variance of the levels: the sum over lags of the autocorrelation of the
        pixel noise.
    variance_from : str
        ``scatter`` of the pixels, ``input`` variances or ``input_correlated``; see `bin_image`.
    single_pixel : "drop" or "pooled"
        A bin of one pixel has an unknown variance (NaN), or the median pixel variance of all bins.
    median_filter : int
        Side (odd) of a median filter over bins, 1 for none; NaN bins count as the median of all
        and stay NaN. Bins it changes get SMOOTHED and keep their variance.

    Returns
    -------
    Dataset, (..., bin_y, bin_x)
        ``level`` float32, ``variance`` float32 (of the level: a true variance, units squared),
        ``pixel_variance`` float32, ``count`` int32 of valid pixels before and ``count_used`` int32
        after clipping, ``flags`` uint8 (`BinFlag`: EMPTY, LOW_COUNT, BAD_VARIANCE where the
        variance is not finite or not positive, SMOOTHED). ``bin_y``, ``bin_x`` are centres in
        parent pixels. Attributes ``box``, ``grid_rule``, ``statistic``, ``clip``, ``iterations``,
        ``ignored_planes``.

    Raises
    ------
    ValueError
        If a parameter is out of range, there are more bins than pixels or the shapes differ.
    KeyError
        If the mask does not know a plane; the message lists those it knows.
    TypeError
        If the exposure is neither Dataset nor DataArray, or the mask is not of integers.

    Notes
    -----
    The clipped mean is that of the LSST Science Pipelines, whose "variance" of a bin is a standard
    error; here it is the variance. Contamination by sources biases every statistic high: 5 per
    cent of pixels with exponential flux of mean 5 sigma by 0.031 sigma for the clipped mean and
    0.058 for the median.

    Examples
    --------
    >>> image = xr.DataArray(np.full((64, 96), 7.0, np.float32), dims=("y", "x"))
    >>> background = measure_background(image)
    >>> background["level"].values.tolist(), background["bin_x"].values.tolist()
    ([[7.0, 7.0, 7.0], [7.0, 7.0, 7.0]], [15.5, 47.5, 79.5])
    """
    parameters = checked_parameters(
        bin_size=bin_size,
        bins=bins,
        grid_rule=grid_rule,
        statistic=statistic,
        clip=clip,
        iterations=iterations,
        reject=tuple([reject] if isinstance(reject, str) else reject),
        min_fraction=min_fraction,
        debias=debias,
        noise_correlation=noise_correlation,
        variance_from=variance_from,
        single_pixel=single_pixel,
        median_filter=median_filter,
    )
    image, mask, variance = exposure_planes(exposure)
    if variance_from == "scatter":
        variance = None
    elif variance is None:
        raise ConfigurationError(f"variance_from={variance_from!r} needs an exposure with variance")
    box = box_of_image(image)
    edges = [
        bin_edges(size, bins_along(size, axis, parameters)) for axis, size in enumerate(box.shape)
    ]
    shape = (len(edges[0]) - 1, len(edges[1]) - 1)
    bits = 0 if mask is None else v.plane_bits(parameters.reject, mask.attrs)
    arrays = [plane for plane in (image, mask, variance) if plane is not None]
    arrays = [
        plane if plane.chunks is None else plane.chunk({v.Y: -1, v.X: -1}) for plane in arrays
    ]
    outputs = (np.float32, np.float32, np.float32, np.int32, np.int32, np.uint8)
    planes = xr.apply_ufunc(
        _measure_blocks,
        *arrays,
        kwargs={
            "masked": mask is not None,
            "bits": bits,
            "edges": edges,
            "parameters": parameters,
        },
        input_core_dims=[[v.Y, v.X]] * len(arrays),
        output_core_dims=[[v.BIN_Y, v.BIN_X]] * len(outputs),
        dask="parallelized",
        output_dtypes=list(outputs),
        dask_gufunc_kwargs={"output_sizes": dict(zip((v.BIN_Y, v.BIN_X), shape, strict=True))},
        join="override",
    )
    level, of_level, pixel_variance, count, used, flags = (
        plane.drop_vars((v.Y, v.X), errors="ignore") for plane in planes
    )
    units = str(image.attrs.get("units", v.DIMENSIONLESS))
    square = {"units": squared_units(units)}
    return xr.Dataset(
        {
            "level": with_attributes(level, {"units": units}),
            "variance": with_attributes(of_level, square),
            "pixel_variance": with_attributes(pixel_variance, square),
            "count": with_attributes(count, {"units": ""}),
            "count_used": with_attributes(used, {"units": ""}),
            "flags": with_attributes(flags, v.flag_attributes(v.BinFlag)),
        },
        coords={
            v.BIN_Y: (v.BIN_Y, bin_centers(edges[0], box.y_start), {"units": v.PIXEL}),
            v.BIN_X: (v.BIN_X, bin_centers(edges[1], box.x_start), {"units": v.PIXEL}),
        },
        attrs={
            "box": list(box),
            "grid_rule": "bins" if bins is not None else grid_rule,
            "statistic": statistic,
            "clip": float(clip),
            "iterations": int(iterations),
            "ignored_planes": list(parameters.reject) if mask is not None else [],
        },
    )


def checked_parameters(**values: Any) -> BackgroundParameters:
    """Return the parameters, or raise naming argument, value and what is accepted."""
    try:
        parameters = BackgroundParameters(**values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}, "
            f"got {problem['input']!r}"
            for problem in error.errors()
        ]
        raise ConfigurationError("; ".join(problems)) from None
    if min(parameters.bin_size) < 1:
        raise ConfigurationError(f"bin_size must be >= 1 pixel, got {parameters.bin_size}")
    if parameters.median_filter % 2 == 0:
        raise ConfigurationError(f"median_filter must be odd, got {parameters.median_filter}")
    return parameters


def exposure_planes(
    exposure: xr.Dataset | xr.DataArray,
) -> tuple[xr.DataArray, xr.DataArray | None, xr.DataArray | None]:
    """Return image, mask and variance of an exposure, checked."""
    if isinstance(exposure, xr.DataArray):
        return exposure, None, None
    if not isinstance(exposure, xr.Dataset):
        raise TypeError(
            f"exposure must be an xarray Dataset or DataArray, got {type(exposure).__name__}"
        )
    if "image" not in exposure:
        raise KeyError(f"the exposure has no variable image; it has {list(exposure.data_vars)}")
    image = exposure["image"]
    mask, variance = (exposure.get(name) for name in (v.MASK, "variance"))
    if mask is not None and mask.dtype.kind not in "iu":
        raise TypeError(f"mask must hold integer bit planes, got dtype {mask.dtype}")
    for name, plane in ((v.MASK, mask), ("variance", variance)):
        if plane is not None and any(
            plane.sizes.get(dim) != image.sizes.get(dim) for dim in (v.Y, v.X)
        ):
            raise GeometryError(
                f"{name} has shape {dict(plane.sizes)}, the image has {dict(image.sizes)}"
            )
    return image, mask, variance


def bins_along(size: int, axis: int, parameters: BackgroundParameters) -> int:
    """Return the number of bins along an axis (0 is y)."""
    if parameters.bins is not None:
        return parameters.bins[axis]
    return bin_count(size, parameters.bin_size[axis], rule=parameters.grid_rule)


def with_attributes(array: xr.DataArray, attributes: dict[str, Any]) -> xr.DataArray:
    array.attrs = attributes
    return array


def _measure_blocks(
    *planes: NDArray[Any],
    masked: bool,
    bits: int,
    edges: list[NDArray[np.int64]],
    parameters: BackgroundParameters,
) -> tuple[NDArray[Any], ...]:
    """Measure the last two axes of a block."""
    shape = (len(edges[0]) - 1, len(edges[1]) - 1)
    leading = np.broadcast_shapes(*(plane.shape[:-2] for plane in planes))
    planes = tuple(np.broadcast_to(plane, leading + plane.shape[-2:]) for plane in planes)
    image = planes[0]
    mask = planes[1] if masked else None
    variance = planes[-1] if len(planes) == (3 if masked else 2) else None
    out = tuple(np.empty(leading + shape, dtype) for dtype in ("f4", "f4", "f4", "i4", "i4", "u1"))
    for index in np.ndindex(*leading):
        results = measure_plane(
            image[index],
            None if mask is None else mask[index],
            None if variance is None else variance[index],
            bits,
            edges,
            parameters,
        )
        for array, result in zip(out, results, strict=True):
            array[index] = result
    return out


def measure_plane(
    image: NDArray[Any],
    mask: NDArray[Any] | None,
    variance: NDArray[Any] | None,
    bits: int,
    edges: list[NDArray[np.int64]],
    parameters: BackgroundParameters,
) -> tuple[NDArray[Any], ...]:
    """Return level, variance, pixel variance, counts and flags of the bins of one image."""
    found = bin_image(
        image,
        mask,
        bits,
        edges[0],
        edges[1],
        parameters.clip,
        parameters.iterations,
        statistic=parameters.statistic,
        variance=variance,
        variance_from=parameters.variance_from if variance is not None else "scatter",
    )
    pixel_variance, of_level = found.pixel_variance, found.variance
    if parameters.debias and parameters.statistic == "meanclip":
        factor = clipped_variance_factor(parameters.clip, parameters.iterations)
        pixel_variance = pixel_variance / factor
        if variance is None:
            of_level = of_level / factor
    if parameters.single_pixel == "pooled" and np.isfinite(pixel_variance).any():
        of_level = np.where(
            (found.count_used == 1) & np.isnan(of_level), np.nanmedian(pixel_variance), of_level
        )
    of_level = of_level * parameters.noise_correlation
    level, flags = found.level, np.zeros(found.level.shape, np.uint8)
    if parameters.median_filter > 1:
        level = filtered_levels(level, parameters.median_filter)
        flags[(level != found.level) & np.isfinite(level)] |= np.uint8(v.BinFlag.SMOOTHED)
    nominal = image.shape[0] * image.shape[1] / level.size
    empty = found.count == 0
    flags[empty] |= np.uint8(v.BinFlag.EMPTY)
    flags[~empty & (found.count < parameters.min_fraction * nominal)] |= np.uint8(
        v.BinFlag.LOW_COUNT
    )
    flags[~empty & ~(np.isfinite(of_level) & (of_level > 0))] |= np.uint8(v.BinFlag.BAD_VARIANCE)
    return level, of_level, pixel_variance, found.count, found.count_used, flags


def filtered_levels(level: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the median of the bins around each, NaN bins counted as the median of all.

    Examples
    --------
    >>> filtered_levels(np.array([[1.0, 9.0, 2.0, 3.0]]), 3)
    array([[1., 2., 3., 3.]])
    """
    good = np.isfinite(level)
    if not good.any():
        return level.copy()
    filled = np.where(good, level, np.nanmedian(level))
    smooth = median_filter(filled, size=size, mode="reflect")
    return np.where(good, smooth, np.nan)
