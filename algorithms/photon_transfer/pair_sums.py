"""Sums over pixel pairs at every lag, directly or by Fourier transforms, whichever costs less.

The sums are those of `skyloom.algorithms.photon_transfer.lagged_sums`, arrays of shape
(lags, 2 lags - 1) over ``lag_y`` from 0 and ``lag_x`` from ``1 - lags``. Counts and sums of one
side need no pass over all pairs when few pixels are bad: sums over boxes, less those at the lags
of each bad pixel, give the same.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer import lagged_sums as kernels

__all__ = ["METHODS", "Method", "PairSums", "pair_sums", "prepared"]

Method = Literal["auto", "direct", "fft"]
METHODS: tuple[str, ...] = get_args(Method)

# measured on 2002 x 512 pixels: beyond so many lags Fourier transforms cost less
DIRECT_UP_TO_LAGS = 16
DIRECT_UP_TO_LAGS_IF_MANY_BAD = 12
SPARSE_BELOW = 0.12  # share of bad pixels up to which a walk over them beats sums over all pairs

Sums = NDArray[np.float64]
PairSums = tuple[Sums, Sums, Sums, Sums]
"""Products, counts, sums of the second and sums of the first pixels of the pairs."""


def prepared(
    difference: NDArray[Any], good: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return read-only contiguous pixels and bytes of 0 or 1, an empty array for no mask."""
    values = np.asarray(difference)
    if values.ndim != 2:
        raise ValueError(f"the difference must have 2 dimensions, (y, x), got shape {values.shape}")
    if good is not None and np.shape(good) != values.shape:
        raise ValueError(f"good has shape {np.shape(good)}, the difference {values.shape}")
    small = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    values = np.ascontiguousarray(values, np.float32 if small else np.float64).view()
    mask = np.empty((0, 0), np.uint8)
    if good is not None:
        mask = np.ascontiguousarray(np.asarray(good).astype(bool, copy=False)).view(np.uint8)
    # one compiled version serves writable and read-only arrays alike
    values.flags.writeable = False
    mask.flags.writeable = False
    return values, mask


def pair_sums(values: NDArray[Any], mask: NDArray[np.uint8], lags: int, method: Method) -> PairSums:
    """Return products, counts, second and first at every lag of ``prepared`` pixels."""
    center, count = kernels.center_and_count(values, mask)
    few = values.size - count <= SPARSE_BELOW * values.size
    if method == "auto":
        limit = DIRECT_UP_TO_LAGS if few else DIRECT_UP_TO_LAGS_IF_MANY_BAD
        method = "direct" if lags <= limit else "fft"
    if method == "direct":
        products = kernels.lagged_products(values, mask, center, lags)
        if few:
            counts, seconds, firsts = _weights_from_bad_pixels(values, mask, center, lags)
        else:
            counts, seconds, firsts = kernels.lagged_weights(values, mask, center, lags)
    elif few:
        products = _transformed_products(values, mask, center, lags)[0]
        counts, seconds, firsts = _weights_from_bad_pixels(values, mask, center, lags)
    else:
        products, counts, seconds, firsts = _transformed_products(
            values, mask, center, lags, weights=True
        )
    return products, counts, seconds, firsts


def _weights_from_bad_pixels(
    values: NDArray[Any], mask: NDArray[np.uint8], center: float, lags: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return counts and sums of one side from sums over boxes less those beside bad pixels."""
    ny, nx = values.shape
    sums = kernels.row_sums(values, mask, center, lags)
    dy, dx = np.arange(lags), np.arange(1 - lags, lags)
    # rows that can hold the first pixel of a pair end early, those of the second start late
    total = sums.sum(axis=2, keepdims=True)
    none = np.zeros_like(total)
    early = total - np.concatenate([none, sums[:, :, : ny - lags : -1].cumsum(axis=2)], axis=2)
    late = total - np.concatenate([none, sums[:, :, : lags - 1].cumsum(axis=2)], axis=2)
    # so do columns; element 0 of the second axis leaves out first, element 1 last pixels
    leave_last, leave_first = (dx >= 0).astype(int), (dx < 0).astype(int)
    first = early[:, leave_last, :, abs(dx)].transpose(1, 2, 0)
    second = late[:, leave_first, :, abs(dx)].transpose(1, 2, 0)
    both, beside_first, beside_second = kernels.sums_beside_bad(values, mask, center, lags)
    boxes = (ny - dy)[:, None] * (nx - abs(dx))[None, :]
    return first[0] + second[0] - boxes + both, second[1] - beside_first, first[1] - beside_second


def _transformed_products(
    values: NDArray[Any],
    mask: NDArray[np.uint8],
    center: float,
    lags: int,
    *,
    weights: bool = False,
) -> tuple[NDArray[np.float64], ...]:
    """Return products and, if asked for, counts and sums of one side by Fourier transforms."""
    good = np.isfinite(values) & (mask != 0 if mask.size else True)
    pixels = np.where(good, values, 0.0).astype(np.float64)
    pixels = np.where(good, pixels - center, 0.0)
    shape = [scipy.fft.next_fast_len(size + lags, real=True) for size in values.shape]
    dy, dx = np.arange(lags)[:, None], np.arange(1 - lags, lags)[None, :]

    def inverse(spectrum: NDArray[Any], sign: int = 1) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = scipy.fft.irfft2(spectrum, shape, workers=1)
        return sums[sign * dy, sign * dx]

    spectrum = scipy.fft.rfft2(pixels, shape, workers=1)
    products = inverse(spectrum.real**2 + spectrum.imag**2)
    if not weights:
        return (products,)
    spectrum_of_weights = scipy.fft.rfft2(good.astype(np.float64), shape, workers=1)
    counts = np.rint(inverse(spectrum_of_weights.real**2 + spectrum_of_weights.imag**2))
    cross = spectrum * np.conj(spectrum_of_weights)
    return products, counts, inverse(cross), inverse(cross, -1)
