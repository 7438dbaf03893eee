"""The statistic of every bin of an image in one read of it, on plain arrays.

A pixel is valid if it is finite and no bit of the mask that counts is set. Sums are float64.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.bin_kernels import MEAN, MEANCLIP, MEDIAN, bin_statistics
from skyloom.algorithms.errors import ConfigurationError, GeometryError

__all__ = ["STATISTICS", "BinStatistics", "Statistic", "bin_image"]

Statistic = Literal["meanclip", "mean", "median"]
VarianceFrom = Literal["scatter", "input", "input_correlated"]

STATISTICS: Final[dict[str, int]] = {"meanclip": MEANCLIP, "mean": MEAN, "median": MEDIAN}


class BinStatistics(NamedTuple):
    """Statistics of bins, (bins_y, bins_x) each.

    ``level`` in the unit of the image and ``variance`` of the level in its square are float64, NaN
    where unknown; ``pixel_variance`` is the (clipped) sample variance of the pixels; ``count`` of
    valid pixels before and ``count_used`` after clipping are int64.
    """

    level: NDArray[np.float64]
    variance: NDArray[np.float64]
    pixel_variance: NDArray[np.float64]
    count: NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.count, of no use here
    count_used: NDArray[np.int64]


def bin_image(
    image: NDArray[Any],
    mask: NDArray[Any] | None,
    bits: int,
    edges_y: NDArray[Any],
    edges_x: NDArray[Any],
    clip: float = 3.0,
    iterations: int = 3,
    *,
    statistic: Statistic = "meanclip",
    variance: NDArray[Any] | None = None,
    variance_from: VarianceFrom = "scatter",
) -> BinStatistics:
    """Return the statistic of the valid pixels of each bin.

    Parameters
    ----------
    image : ndarray, (y, x), any real dtype, any unit
    mask : ndarray, (y, x), integer or bool, optional
    bits : int
        Pixels with one of these bits of the mask are left out.
    edges_y, edges_x : ndarray, int, pixel
        Ascending edges of the bins in array pixels; bin i is ``[edges[i], edges[i + 1])``.
    clip : float
        Clip in standard deviations; > 0.
    iterations : int
        Clip passes; >= 1.
    statistic : "meanclip", "mean" or "median"
    variance : ndarray, (y, x), optional
        Variances of the pixels, in the square of the unit of the image.
    variance_from : str
        Where the variance of the level comes from: the ``scatter`` of the pixels used, the
        ``input`` variances of independent pixels, or those of fully correlated ones
        (``input_correlated``).

    Returns
    -------
    BinStatistics

    Raises
    ------
    ValueError
        If shapes or edges do not fit, or a parameter is out of range.

    Examples
    --------
    >>> image = np.array([[1, 1, 2, 4]], np.float32)
    >>> bins = bin_image(image, None, 0, np.array([0, 1]), np.array([0, 2, 4]))
    >>> bins.level.tolist(), bins.variance.tolist(), bins.count.tolist()
    ([[1.0, 3.0]], [[0.0, 1.0]], [[2, 2]])
    """
    check_statistic(statistic, clip, iterations, variance_from)
    if variance_from != "scatter" and variance is None:
        raise ConfigurationError(f"variance_from={variance_from!r} needs the variance of pixels")
    for name, plane in (("mask", mask), ("variance", variance)):
        if plane is not None and plane.shape != image.shape:
            raise GeometryError(f"{name} has shape {plane.shape}, the image has {image.shape}")
    rows, columns = (np.ascontiguousarray(edges, np.int64) for edges in (edges_y, edges_x))
    for edges, size in zip((rows, columns), image.shape, strict=True):
        if len(edges) < 2 or edges[0] < 0 or edges[-1] > size or np.any(np.diff(edges) < 1):
            raise GeometryError(
                f"edges must ascend from 0 to at most {size} pixels without empty bins, got {edges}"
            )
    values, planes, legend, constants = kernel_arrays(image, mask, bits)
    shape = (len(rows) - 1, len(columns) - 1)
    found = np.empty((5, *shape))
    use_variance = variance is not None and variance_from != "scatter"
    bin_statistics(
        values,
        planes,
        legend,
        constants,
        _read_only(np.asarray(variance, np.float32)) if use_variance else np.empty((0, 0), "f4"),
        rows,
        columns,
        STATISTICS[statistic],
        float(clip),
        int(iterations),
        found,
    )
    count, used, level, pixel_variance, of_level = found
    if variance_from == "input_correlated":
        of_level = of_level * used  # from sum / n² to sum / n
    return BinStatistics(
        level, of_level, pixel_variance, count.astype(np.int64), used.astype(np.int64)
    )


def check_statistic(statistic: str, clip: float, iterations: int, variance_from: str) -> None:
    """Raise if a parameter of the statistic is unknown or out of range."""
    if statistic not in STATISTICS:
        raise ConfigurationError(
            f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}"
        )
    if variance_from not in ("scatter", "input", "input_correlated"):
        raise ConfigurationError(
            f"variance_from must be scatter, input or input_correlated, got {variance_from!r}"
        )
    if not clip > 0:
        raise ConfigurationError(f"clip must be > 0, got {clip}")
    if iterations < 1:
        raise ConfigurationError(f"iterations must be >= 1, got {iterations}")


def kernel_arrays(
    image: NDArray[Any], mask: NDArray[Any] | None, bits: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return image, mask, its bits that count and the constants as the kernels read them."""
    values = _floating(image)
    planes, legend = _mask_planes(mask, bits)
    return values, planes, legend, np.array([np.nan, np.finfo(values.dtype).max], values.dtype)


def _floating(image: NDArray[Any]) -> NDArray[Any]:
    """Return the image as native float32 if that holds it exactly, else as float64."""
    small = image.dtype.itemsize <= (4 if image.dtype.kind == "f" else 2)
    return _read_only(image.astype(np.float32 if small else np.float64, copy=False))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous read-only view: one compiled version serves every caller."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _mask_planes(mask: NDArray[Any] | None, bits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the mask as the kernel reads it, int32 or bytes of 0 and 1, and what counts."""
    if mask is None:
        return _read_only(np.empty((1, 0), np.int32)), np.array([0, 1], np.int32)
    if mask.dtype.kind not in "iub":
        raise ConfigurationError(f"mask must hold integer bit planes, got dtype {mask.dtype}")
    if mask.dtype.itemsize == 4:
        native = mask.astype(mask.dtype.newbyteorder("="), copy=False)
        legend = np.array([0, bits], np.int64).astype(np.int32)
        return _read_only(native.view(np.int32)), legend
    chosen = (mask & np.array(bits).astype(mask.dtype)) != 0
    return _read_only(chosen.view(np.uint8)), np.array([0, 1], np.uint8)
