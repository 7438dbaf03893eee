"""Clipped statistics: the robust location, spread and counts everything else is built on.

A value is *valid* if it is finite and no ignored mask plane is set. Statistics are taken over
valid values only, in float64, and never raise for masked data: no valid value gives NaN and a
count of 0. Every clip pass re-tests all valid values, so a value rejected once may return; the
test is inclusive; the number of passes is fixed. Results are the same bit for bit in every run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary
from skyloom.algorithms.clip_correction import clipped_variance_factor
from skyloom.algorithms.pixel_arrays import floating
from skyloom.algorithms.sampled_clipping import clipped
from skyloom.algorithms.stack import stack
from skyloom.algorithms.units import squared_units
from skyloom.algorithms.vocabulary import IGNORED_PLANES

__all__ = [
    "IGNORED_PLANES",
    "ClippedMoments",
    "clipped_moments",
    "clipped_statistics",
    "stack",
]


class ClippedMoments(NamedTuple):
    """Clipped statistics of one set of values; units are those of the values.

    ``count`` valid values before and ``count_used`` after clipping; ``mean`` and ``variance``
    (n - 1) of the values used; ``median`` and ``iqr`` of all valid values; ``center`` and
    ``half_width`` of the last pass: values with ``abs(value - center) <= half_width`` were used.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which a record has no use for
    count_used: int
    mean: float
    variance: float
    median: float
    iqr: float
    center: float
    half_width: float


def clipped_moments(
    values: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    clip: float = 3.0,
    iterations: int = 3,
) -> ClippedMoments:
    """Return the clipped statistics of an array, with the interval the last pass kept.

    Pass 1 keeps values within ``clip * 0.7413 IQR`` of the median, each later pass those within
    ``clip`` clipped standard deviations of the clipped mean of the pass before.

    Parameters
    ----------
    values : ndarray, any shape, any unit
        Non-finite values are left out.
    good : ndarray of bool or uint8, same shape, optional
        Values to use; all without it.
    clip : float
        Clip in standard deviations; > 0.
    iterations : int
        Number of passes; >= 1.

    Returns
    -------
    ClippedMoments
        NaN and a count of 0 where nothing is valid; a NaN variance where one value is.

    Raises
    ------
    ValueError
        If clip <= 0, iterations < 1 or the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> moments = clipped_moments(np.array([7, 7, 7, 7, 9], dtype="float32"))
    >>> moments.count, moments.count_used, moments.mean, moments.variance
    (5, 4, 7.0, 0.0)
    """
    _check_clip(clip, iterations)
    values = np.asarray(values)
    if good is not None and np.shape(good) != values.shape:
        raise ValueError(f"good has shape {np.shape(good)}, values have {values.shape}")
    if good is None:
        mask, legend = _flat(np.empty(0, np.uint8)), (0, 0)
    else:
        # bytes of 0 and 1, of which 0 is the one left out
        mask, legend = _flat(np.asarray(good).astype(bool, copy=False).view(np.uint8)), (1, 1)
    return _moments(_flat(floating(values)), mask, legend, clip, iterations)


def clipped_statistics(
    image: xr.DataArray,
    mask: xr.DataArray | None = None,
    *,
    clip: float = 3.0,
    iterations: int = 3,
    dim: Hashable | Iterable[Hashable] = (vocabulary.Y, vocabulary.X),
    ignore: Iterable[str] = IGNORED_PLANES,
    debias: bool = False,
) -> xr.Dataset:
    """Return clipped mean, spread and counts of an image over some of its dimensions.

    Pass 1 keeps values within ``clip * 0.7413 IQR`` of the median, each later pass those within
    ``clip`` clipped standard deviations of the clipped mean of the pass before. NaN and infinite
    values are never used.

    Parameters
    ----------
    image : DataArray, (..., y, x), any real dtype, any unit
        May be lazy; the result then is. Chunks along ``dim`` are joined, as exact quartiles need
        all values of a set at once.
    mask : DataArray, integer bit planes with ``flag_masks`` and ``flag_meanings``, optional
        Has all of ``dim`` and any other dimensions of the image.
    clip : float
        Clip in standard deviations; > 0.
    iterations : int
        Number of passes; >= 1.
    dim : name or names
        Dimensions to take the statistics over.
    ignore : iterable of str
        Names of the mask planes whose pixels are left out.
    debias : bool
        Divide the variances by what the passes leave of the variance of a Gaussian (0.969971 for
        3 passes at 3 sigma).

    Returns
    -------
    Dataset, (...), float64 and int64
        ``mean``, ``median`` (of all valid values), ``stdev``, ``iqr`` in the unit of the image,
        ``variance`` and ``mean_variance`` (of the mean: variance / count_used) in its square,
        ``count`` of valid values before and ``count_used`` after clipping. NaN and 0 without
        valid values; NaN variances for a single value.

    Raises
    ------
    ValueError
        If clip <= 0, iterations < 1, a dimension is missing or empty, or the shapes differ.
    KeyError
        If the mask does not know a plane; the message lists those it knows.
    TypeError
        If the image is no DataArray, or the mask is not of integers.

    Notes
    -----
    The semantics are those of the LSST Science Pipelines' clipped statistics of floating-point
    images.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.arange(10.0).reshape(2, 5), dims=("y", "x"), attrs={"units": "adu"})
    >>> statistics = clipped_statistics(image)
    >>> float(statistics["mean"]), float(statistics["iqr"]), int(statistics["count"])
    (4.5, 4.5, 10)
    >>> round(float(statistics["mean_variance"]) ** 0.5, 6)
    0.957427
    """
    _check_clip(clip, iterations)
    dims = [dim] if isinstance(dim, str) or not isinstance(dim, Iterable) else list(dim)
    _check_dimensions(image, dims)
    arrays = [image]
    bits = 0
    if mask is not None:
        _check_mask(image, mask, dims)
        bits = vocabulary.plane_bits(ignore, mask.attrs)
        arrays.append(mask)
    whole = dict.fromkeys(dims, -1)
    arrays = [array if array.chunks is None else array.chunk(whole) for array in arrays]
    stacked: xr.DataArray = xr.apply_ufunc(
        _moments_of_blocks,
        *arrays,
        kwargs={"bits": bits, "clip": clip, "iterations": iterations, "axes": len(dims)},
        input_core_dims=[dims] * len(arrays),
        output_core_dims=[["statistic"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"statistic": len(ClippedMoments._fields)}},
    )
    moments = {
        name: stacked.isel(statistic=index) for index, name in enumerate(ClippedMoments._fields)
    }
    variance = moments["variance"] / (clipped_variance_factor(clip, iterations) if debias else 1.0)
    units = str(image.attrs.get("units", vocabulary.DIMENSIONLESS))
    return xr.Dataset(
        {
            "mean": moments["mean"].assign_attrs(units=units),
            "median": moments["median"].assign_attrs(units=units),
            "stdev": (variance**0.5).assign_attrs(units=units),
            "variance": variance.assign_attrs(units=squared_units(units)),
            "iqr": moments["iqr"].assign_attrs(units=units),
            "mean_variance": (
                variance / moments["count_used"].where(moments["count_used"] > 0)
            ).assign_attrs(units=squared_units(units)),
            "count": moments["count"].astype(np.int64).assign_attrs(units=""),
            "count_used": moments["count_used"].astype(np.int64).assign_attrs(units=""),
        }
    )


def _check_clip(clip: float, iterations: int) -> None:
    if not clip > 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")


def _check_dimensions(image: xr.DataArray, dims: list[Hashable]) -> None:
    if not isinstance(image, xr.DataArray):
        raise TypeError(
            f"image must be an xarray.DataArray, got {type(image).__name__}: name its dimensions, "
            "xarray.DataArray(image, dims=('y', 'x'))"
        )
    missing = [name for name in dims if name not in image.dims]
    if missing or not dims:
        raise ValueError(f"dim {dims} must be among the dimensions of the image, {image.dims}")
    empty = [name for name in dims if image.sizes[name] == 0]
    if empty:
        raise ValueError(f"the image has size 0 along {empty}: there is nothing to measure")


def _check_mask(image: xr.DataArray, mask: xr.DataArray, dims: list[Hashable]) -> None:
    if mask.dtype.kind not in "iu":
        raise TypeError(f"mask must hold integer bit planes, got dtype {mask.dtype}")
    fits = all(image.sizes.get(name) == size for name, size in mask.sizes.items())
    if not fits or any(name not in mask.dims for name in dims):
        raise ValueError(f"mask has shape {dict(mask.sizes)}, the image has {dict(image.sizes)}")


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view in one dimension: one compiled version serves every caller."""
    flat = np.ascontiguousarray(array).reshape(-1).view()
    flat.flags.writeable = False
    return flat


def _moments(
    values: NDArray[Any],
    mask: NDArray[Any],
    legend: tuple[int, int],
    clip: float,
    iterations: int,
) -> ClippedMoments:
    """Run the kernel; ``legend`` is what to flip in the mask and the bits that then leave out."""
    dtype = values.dtype
    constants = np.array([np.nan, np.finfo(dtype).max, 1.0], dtype)
    bits = np.array(legend, np.int64).astype(mask.dtype)
    return ClippedMoments(*clipped(values, mask, bits, constants, float(clip), int(iterations)))


def _moments_of_blocks(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    bits: int,
    clip: float,
    iterations: int,
    axes: int,
) -> NDArray[np.float64]:
    """Return the statistics over the last ``axes`` axes, along a new last axis."""
    leading = image.shape[: image.ndim - axes]
    values = floating(image)
    legend = (0, 1)
    if mask is None:
        mask = np.empty(0, np.uint8)
    elif mask.dtype.itemsize == 4:
        native = mask.astype(mask.dtype.newbyteorder("="), copy=False)  # FITS is big-endian
        mask, legend = native.view(np.int32), (0, bits)
    else:
        mask = ((mask & np.array(bits).astype(mask.dtype)) != 0).view(np.uint8)
    if mask.size:
        mask = np.broadcast_to(mask, image.shape)
    moments = np.empty((*leading, len(ClippedMoments._fields)))
    for index in np.ndindex(*leading):
        plane = _flat(mask[index]) if mask.size else _flat(mask)
        moments[index] = _moments(_flat(values[index]), plane, legend, clip, iterations)
    return moments
