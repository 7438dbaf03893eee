"""Noise of warps: realisations that go through the same kernel, and its covariance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.warp.resampling import kernel_taps, kernel_weights

__all__ = ["noise_image", "noise_seed", "variance_of_sum", "warp_noise_covariance"]


def noise_seed(visit: Any, detector: Any, realization: int) -> int:
    """Return the seed of a noise realisation, 32 bits, the same in every process.

    Examples
    --------
    >>> noise_seed(12, "S1", 0) == noise_seed(12, "S1", 0) != noise_seed(12, "S2", 0)
    True
    """
    text = f"visit {visit} detector {detector} realization {realization}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def noise_image(
    variance: NDArray[Any], seed: int, *, per_pixel: bool = False
) -> NDArray[np.float32]:
    """Return Gaussian noise with the median variance of a detector, or each pixel's own.

    Variances that are negative or not finite take no part in the median and give NaN of their own.

    Examples
    --------
    >>> noise = noise_image(np.full((100, 100), 4.0), 1)
    >>> bool(abs(noise.std() - 2.0) < 0.05)
    True
    """
    good = np.isfinite(variance) & (variance >= 0)
    noise = np.random.default_rng(seed).standard_normal(variance.shape, np.float32)
    if per_pixel:
        noise *= np.sqrt(np.where(good, variance, np.nan)).astype(np.float32)
    else:
        median = np.median(variance[good]) if good.any() else np.nan
        noise *= np.float32(np.sqrt(median))
    return noise


def warp_noise_covariance(
    kernel: str = "lanczos3", *, matrix: ArrayLike | None = None, size: int = 7
) -> xr.DataArray:
    """Return the covariance between pixels of a warp of white noise of variance 1.

    Parameters
    ----------
    kernel : "bilinear", "lanczos3" or "lanczos5"
    matrix : array_like, (2, 2), optional
        d(source x, y)/d(target x, y), attribute ``matrix`` of a warp; 1 by default.
    size : int
        Lags along each axis, odd: 7 means -3 to 3.

    Returns
    -------
    DataArray, (lag_y, lag_x), float64
        Mean over all phases between the grids, with lags in target pixels. At lag 0 the mean of
        the variance plane, so that covariance divided by it is the correlation.

    Raises
    ------
    ValueError
        If there is no such kernel, the matrix is not 2 x 2 and regular, or size is not odd.

    Notes
    -----
    With normalised weights k_j(u) of pixel j for position u, along each axis
    ``c(d) = integral over 0 <= u < 1 of sum_j k_j(u) k_j(u + d)``; at lag L the displacement is
    d = matrix L, the covariance c(d_x) c(d_y) times the squared area of a target pixel. A sum over
    n x n pixels has the variance ``sum (n - |L_y|) (n - |L_x|) covariance(L)``.

    Examples
    --------
    >>> covariance = warp_noise_covariance("bilinear", size=3)
    >>> covariance.values.round(4).tolist()
    [[0.0278, 0.1111, 0.0278], [0.1111, 0.4444, 0.1111], [0.0278, 0.1111, 0.0278]]
    """
    turn = np.eye(2) if matrix is None else np.asarray(matrix, np.float64)
    if turn.shape != (2, 2) or not np.isfinite(turn).all() or np.linalg.det(turn) == 0:
        raise GeometryError(f"matrix must be 2 x 2 and regular, got {turn.tolist()}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, got {size}")
    lags = np.arange(size) - size // 2
    lag_y, lag_x = np.meshgrid(lags, lags, indexing="ij")
    along_x = turn[0, 0] * lag_x + turn[0, 1] * lag_y
    along_y = turn[1, 0] * lag_x + turn[1, 1] * lag_y
    values = _overlap(kernel, along_x) * _overlap(kernel, along_y) * np.linalg.det(turn) ** 2
    return xr.DataArray(
        values, dims=(v.LAG_Y, v.LAG_X), coords={v.LAG_Y: lags, v.LAG_X: lags}, name="covariance"
    )


def _overlap(kernel: str, displacement: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over phases of the sum of products of weights at two positions."""
    taps = kernel_taps(kernel)
    # Gauss-Legendre in pieces, at whose ends either stencil moves on
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = np.zeros(displacement.shape)
    for index in np.ndindex(*displacement.shape):
        shift = float(displacement[index])
        whole, cut = int(np.floor(shift)), 1.0 - (shift - np.floor(shift))
        for start, stop, step in ((0.0, cut, whole), (cut, 1.0, whole + 1)):
            if stop - start < 1e-12 or abs(step) >= taps:
                continue
            u = 0.5 * (stop + start + (stop - start) * nodes)
            one, other = kernel_weights(kernel, u), kernel_weights(kernel, u + shift - step)
            kept = taps - abs(step)
            first, second = (one[:, step:], other[:, :kept]) if step >= 0 else (
                one[:, :kept], other[:, -step:]
            )  # fmt: skip
            products = (first * second).sum(axis=1)
            total[index] += 0.5 * (stop - start) * float((weights * products).sum())
    return total


def variance_of_sum(covariance: xr.DataArray, shape: Sequence[int]) -> float:
    """Return the variance of the sum over a box of pixels with a covariance.

    Examples
    --------
    >>> white = xr.DataArray([[1.0]], dims=("lag_y", "lag_x"), coords={"lag_y": [0], "lag_x": [0]})
    >>> variance_of_sum(white, (10, 10))
    100.0
    """
    pairs = [
        np.maximum(size - np.abs(covariance[dim].values), 0)
        for size, dim in zip(shape, (v.LAG_Y, v.LAG_X), strict=True)
    ]
    values = covariance.transpose(v.LAG_Y, v.LAG_X).values
    return float((np.outer(*pairs) * values).sum())
