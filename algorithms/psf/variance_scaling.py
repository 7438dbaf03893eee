"""Variances brought to the scatter of the pixels they belong to."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import Box, bin_count, bin_edges, bin_image, render_grid
from skyloom.algorithms.clipping import QUARTILE_TO_SIGMA, quartile_ranks, quartiles
from skyloom.algorithms.detrend.calibrations import own_planes
from skyloom.algorithms.errors import GeometryError, KeptVarianceWarning
from skyloom.algorithms.order_statistics import order_statistics
from skyloom.algorithms.parameters import Parameters

__all__ = ["VarianceScalingParameters", "rescale_variance"]

EXCLUDED_PLANES: Final = (
    "DETECTED",
    "DETECTED_NEGATIVE",
    "BAD",
    "SAT",
    "NO_DATA",
    "INTERPOLATED",
)


class VarianceScalingParameters(Parameters):
    """How the factor on variances is measured, and what is believed."""

    excluded_planes: tuple[str, ...] = Field(
        EXCLUDED_PLANES, description="mask planes whose pixels don't count"
    )
    bin_size: int = Field(
        32,
        ge=0,
        description="side of the bins of the background taken off first; 0 for none, pixel",
    )
    smallest: float = Field(0.1, gt=0, le=1, description="smallest factor that is applied")
    largest: float = Field(10.0, ge=1, description="largest factor that is applied")


def rescale_variance(
    exposure: xr.Dataset, *, parameters: VarianceScalingParameters | None = None
) -> xr.Dataset:
    """Multiply the variance by one factor, so that it is the scatter of the pixels.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image`` (any unit), ``variance`` (square of it) and optionally ``mask``. Pixels without
        a finite image and a finite, positive variance don't count. May be lazy; the result then
        is.
    parameters : VarianceScalingParameters, optional

    Returns
    -------
    Dataset, (..., y, x)
        The exposure with the new ``variance`` float32, ``variance_factor`` float64 and
        ``variance_scaling`` (`VarianceScaling`): PIXELS if the factor is that of the pixels over
        their own sigmas, IMAGE if that of the image over the median variance, because the first
        is out of bounds; KEPT if both are, and TOO_FEW_PIXELS below 2 pixels: the factor is 1.

    Raises
    ------
    KeyError
        If image or variance is missing, or a plane is unknown.
    ValueError
        If their shapes differ.

    Warns
    -----
    KeptVarianceWarning
        If the variance of an image is kept because no factor is within bounds.

    Notes
    -----
    factor = (0.7413 IQR(d / sqrt(variance)))^2 with d the image less a background in bins, or
    (0.7413 IQR(d))^2 / median(variance). The LSST Science Pipelines have no lower bound: a
    constant image gets a variance of 0 there. Where noise is correlated, the background takes
    part of it: of an image matched from 4 to 7.7 pixels 8 per cent of the variance in bins of 32,
    1 per cent in bins of 128.

    Examples
    --------
    >>> noise = 3.0 * np.random.default_rng(1).standard_normal((256, 256), dtype=np.float32)
    >>> exposure = xr.Dataset({"image": (("y", "x"), noise)})
    >>> exposure["variance"] = xr.full_like(exposure["image"], 2.0)
    >>> scaled = rescale_variance(exposure)
    >>> round(float(scaled["variance_factor"]), 1), int(scaled["variance_scaling"])
    (4.5, 0)
    """
    parameters = parameters or VarianceScalingParameters()
    for name in ("image", "variance"):
        if name not in exposure:
            raise KeyError(f"the exposure has no variable {name}; it has {list(exposure)}")
    bits = v.plane_bits(parameters.excluded_planes)
    mask = own_planes(exposure.get(v.MASK), parameters.excluded_planes)
    arrays = []
    for name, plane in (
        ("image", exposure["image"]),
        ("variance", exposure["variance"]),
        (v.MASK, mask),
    ):
        if plane is None:
            continue
        if any(plane.sizes.get(dim) != exposure["image"].sizes.get(dim) for dim in (v.Y, v.X)):
            raise GeometryError(
                f"{name} has shape {dict(plane.sizes)}, image {dict(exposure['image'].sizes)}"
            )
        arrays.append(plane if plane.chunks is None else plane.chunk({v.Y: -1, v.X: -1}))
    variance, factor, code = xr.apply_ufunc(
        _scale_blocks,
        *arrays,
        kwargs={"bits": bits, "parameters": parameters},
        input_core_dims=[[v.Y, v.X]] * len(arrays),
        output_core_dims=[[v.Y, v.X], [], []],
        dask="parallelized",
        output_dtypes=[np.float32, np.float64, np.uint8],
        join="override",
    )
    dims = exposure["variance"].dims
    return exposure.assign(
        {
            "variance": variance.transpose(*dims).assign_attrs(exposure["variance"].attrs),
            "variance_factor": factor.assign_attrs({"units": v.DIMENSIONLESS}),
            "variance_scaling": code.assign_attrs(v.flag_attributes(v.VarianceScaling)),
        }
    )


def _scale_blocks(
    image: NDArray[Any],
    variance: NDArray[Any],
    *masks: NDArray[Any],
    bits: int,
    parameters: VarianceScalingParameters,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rescale the variances of the last two axes of a block."""
    leading = np.broadcast_shapes(*(plane.shape[:-2] for plane in (image, variance, *masks)))
    image, variance, *rest = (
        np.broadcast_to(plane, leading + plane.shape[-2:]) for plane in (image, variance, *masks)
    )
    factor, code = np.ones(leading), np.zeros(leading, np.uint8)
    scaled = np.empty(variance.shape, np.float32)
    kept = 0
    for index in np.ndindex(*leading):
        mask = rest[0][index] if rest else None
        factor[index], code[index] = variance_factor(
            image[index], variance[index], mask, bits, parameters
        )
        scaled[index] = variance[index] * factor[index]
        kept += int(code[index] == v.VarianceScaling.KEPT)
    if kept:
        warnings.warn(
            f"{kept} of {max(factor.size, 1)} variances are kept: no factor between "
            f"{parameters.smallest:g} and {parameters.largest:g} brings them to the scatter",
            KeptVarianceWarning,
            stacklevel=2,
        )
    return scaled, factor, code


def variance_factor(
    image: NDArray[Any],
    variance: NDArray[Any],
    mask: NDArray[Any] | None,
    bits: int,
    parameters: VarianceScalingParameters,
) -> tuple[float, v.VarianceScaling]:
    """Return the factor on the variance of one image, and where it comes from."""
    usable = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    if mask is not None:
        usable &= (mask & mask.dtype.type(bits)) == 0
    if int(usable.sum()) < 2:
        return 1.0, v.VarianceScaling.TOO_FEW_PIXELS
    values = image
    if parameters.bin_size > 0:
        height, width = image.shape
        edges = [bin_edges(side, bin_count(side, parameters.bin_size)) for side in image.shape]
        bins = bin_image(np.where(usable, image, np.nan), None, 0, edges[0], edges[1])
        values = image - render_grid(bins.level, Box(0, height, 0, width))
    values, spread = values[usable], variance[usable]
    factor = scatter(values / np.sqrt(spread)) ** 2
    if parameters.smallest <= factor <= parameters.largest:
        return factor, v.VarianceScaling.PIXELS
    factor = scatter(values) ** 2 / float(np.median(spread))
    if parameters.smallest <= factor <= parameters.largest:
        return factor, v.VarianceScaling.IMAGE
    return 1.0, v.VarianceScaling.KEPT


def scatter(values: NDArray[Any]) -> float:
    """Return the standard deviation of a Gaussian with the quartiles of some finite values.

    Examples
    --------
    >>> round(scatter(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), 4)
    1.4826
    """
    ranks, _ = quartile_ranks(values.size)
    found = np.empty(ranks.size)
    order_statistics(np.ascontiguousarray(values), ranks, found)
    low, _, high = quartiles(found, values.size)
    return float(QUARTILE_TO_SIGMA * (high - low))
