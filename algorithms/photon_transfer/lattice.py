"""Even functions of lag, their Fourier modes and their convolutions.

A quadrant array holds the lags 0 ... r-1 of each axis, ``(lag_y, lag_x)``; negative lags are the
same numbers. On a periodic grid of at least 8 r points such a function is a sum of cosines, so
two small matrix products with tables of cosines replace every FFT, the origin is lag 0 by
construction, and convolutions of up to five factors do not wrap into the lags that are kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["convolution_matrices", "even_sum", "from_modes", "to_modes"]

Floats = NDArray[np.float64]

GRID_PER_LAG = 8


class _Cosines(NamedTuple):
    forward: Floats
    inverse: Floats


@lru_cache(maxsize=64)
def _cosines(lags: int, kept: int) -> _Cosines:
    """Return tables from ``lags`` stored lags to modes, and from modes to ``kept`` lags."""
    half = GRID_PER_LAG * lags // 2
    mode = np.arange(half + 1)
    images = np.where(np.arange(lags) > 0, 2.0, 1.0)
    # the argument is reduced in integers, so the table is exact at the symmetry points
    forward = images * np.cos(np.pi / half * (np.outer(mode, np.arange(lags)) % (2 * half)))
    weight = np.where((mode > 0) & (mode < half), 2.0, 1.0) / (2 * half)
    inverse = weight * np.cos(np.pi / half * (np.outer(np.arange(kept), mode) % (2 * half)))
    for table in (forward, inverse):
        table.setflags(write=False)
    return _Cosines(forward, inverse)


def to_modes(quadrant: Floats) -> Floats:
    """Transform an even function of lag into its Fourier modes.

    Parameters
    ----------
    quadrant : array, (lag_y, lag_x), float64
        The function at non-negative lags; it is zero beyond them.

    Returns
    -------
    array, (mode_y, mode_x), float64
        The real modes of one quadrant, ``4 r + 1`` on a side, in the unit of the input.

    Examples
    --------
    >>> quadrant = np.array([[1.0, 0.5], [0.25, 0.125]])
    >>> float(to_modes(quadrant)[0, 0])  # the sum over all images
    3.0
    """
    forward = _cosines(quadrant.shape[-1], 1).forward
    return np.asarray(forward @ quadrant @ forward.T)


def from_modes(modes: Floats, kept: int) -> Floats:
    """Transform Fourier modes back to the first lags; the inverse of `to_modes`.

    Parameters
    ----------
    modes : array, (..., mode_y, mode_x), float64
        Modes as `to_modes` gives them.
    kept : int
        Number of lags to return on each axis.

    Returns
    -------
    array, (..., lag_y, lag_x), float64

    Examples
    --------
    >>> quadrant = np.array([[1.0, 0.5], [0.25, 0.125]])
    >>> bool(np.allclose(from_modes(to_modes(quadrant), 2), quadrant, atol=1e-15))
    True
    """
    inverse = _cosines(2 * (modes.shape[-1] - 1) // GRID_PER_LAG, kept).inverse
    return np.asarray(inverse @ modes @ inverse.T)


def even_sum(quadrant: Floats) -> float:
    """Return the sum over all images of a quadrant array.

    The origin counts once, lags on an axis twice, all others four times.

    Parameters
    ----------
    quadrant : array, (lag_y, lag_x), float64
        The function at non-negative lags.

    Returns
    -------
    float
        The sum, in the unit of the input.

    Examples
    --------
    >>> even_sum(np.array([[1.0, 0.5], [0.25, 0.125]]))
    3.0
    """
    images = np.where(np.arange(quadrant.shape[-1]) > 0, 2.0, 1.0)
    return float(np.sum(images[:, None] * images * quadrant))


@compiled
def convolution_matrices(kernel: Floats, lags: int) -> Floats:
    """Return the matrices of "convolve with an even kernel" between quadrant arrays.

    Row ``(i, j)``, column ``(k, l)`` is the sum of the kernel over the distinct images
    ``(|i -+ k|, |j -+ l|)``: one, two or four terms (Astier et al. 2019, differentiated).

    Parameters
    ----------
    kernel : array, (n, lag_y, lag_x), float64
        Kernels at lags 0 ... 2 r - 2.
    lags : int
        The number r of lags on each axis.

    Returns
    -------
    array, (r * r, n, r * r), float64
        The row of each lag first, then the kernel, then the column.

    Examples
    --------
    >>> kernel = np.zeros((1, 3, 3))
    >>> kernel[0, 0, 0] = 1.0
    >>> bool(np.array_equal(convolution_matrices(kernel, 2)[:, 0], np.eye(4)))
    True
    """
    number = kernel.shape[0]
    rows = np.empty((lags * lags, number, lags * lags))
    folded = np.empty((2 * lags - 1, lags, lags))
    for n in range(number):
        for row in range(2 * lags - 1):
            for j in range(lags):
                folded[row, j, 0] = kernel[n, row, j]
                for k in range(1, lags):
                    folded[row, j, k] = kernel[n, row, abs(j - k)] + kernel[n, row, j + k]
        for i in range(lags):
            for j in range(lags):
                out = rows[i * lags + j, n]
                for k in range(lags):
                    for m in range(lags):
                        value = folded[abs(i - k), j, m]
                        if k > 0:
                            value += folded[i + k, j, m]
                        out[k * lags + m] = value
    return rows
