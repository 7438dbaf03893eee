"""Covariances of the difference of two flats (Astier et al. 2019, appendix A).

For a lag ``k = (lag_y, lag_x)`` and weights ``w`` of 0 or 1, sums over all pixel pairs inside the
region, without wrapping around, give ``cov(k) = P(k)/n(k) - M(k) M(-k)/n(k)²`` with the products
``P``, the sums ``M`` of one side of the pairs and their number ``n``. The two diagonals of a lag
with both components are averaged and their counts added. Everything measured on the difference is
halved once, because its variance is that of two flats: **the covariances are those of one flat.**
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary
from skyloom.algorithms.photon_transfer.lagged_sums import row_sums
from skyloom.algorithms.photon_transfer.pair_sums import METHODS, Method, pair_sums, prepared
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["CovarianceSums", "covariance_sums", "pair_covariance", "row_mean_variance"]


class CovarianceSums(NamedTuple):
    """Covariances of one flat and the number of pixel pairs, both indexed [lag_y, lag_x]."""

    covariance: NDArray[np.float64]
    count: NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.count


def covariance_sums(
    difference: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    lags: int = 10,
    method: Method = "auto",
) -> CovarianceSums:
    """Return the covariances of one flat from the difference of two.

    Parameters
    ----------
    difference : ndarray, (y, x), adu
        Scaled difference of the two flats. Non-finite pixels are left out.
    good : ndarray of bool or uint8, (y, x), optional
        Pixels to use; all without it.
    lags : int
        Lags 0 to ``lags - 1`` are measured along each axis.
    method : {"auto", "direct", "fft"}
        Direct sums cost a multiply-add a pixel and lag, a Fourier transform about as much as
        16 lags an axis; ``auto`` takes the cheaper. They agree to rounding.

    Returns
    -------
    CovarianceSums
        ``covariance`` (lag_y, lag_x), adu², **halved**, NaN at a lag without pixel pairs along
        one of its diagonals, and ``count`` (lag_y, lag_x), 0 there. No correction for clipping is
        made.

    Raises
    ------
    ValueError
        If lags < 1 or more than half the region, the shapes differ or the method is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> sums = covariance_sums(np.array([[1.0, -1.0], [1.0, -1.0]]), lags=1)
    >>> float(sums.covariance[0, 0]), int(sums.count[0, 0])
    (0.5, 4)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    values, mask = prepared(difference, good)
    _check_lags(lags, values.shape)
    return _folded(*pair_sums(values, mask, lags, method), lags)


def pair_covariance(
    difference: xr.DataArray,
    good: xr.DataArray | None = None,
    *,
    lags: int = 10,
    method: Method = "auto",
) -> xr.Dataset:
    """Return the covariances of one flat from the difference of two, as a dataset.

    Parameters
    ----------
    difference : DataArray, (..., y, x), adu
        Scaled difference of the two flats; may be lazy. Non-finite pixels are left out.
    good : DataArray of bool, (..., y, x), optional
        Pixels to use; all without it.
    lags : int
        Lags 0 to ``lags - 1`` are measured along each axis.
    method : {"auto", "direct", "fft"}
        See `covariance_sums`.

    Returns
    -------
    Dataset
        ``covariance`` (..., lag_y, lag_x), float64, adu2, **halved**: of one flat; NaN at a lag
        without pixel pairs along one of its diagonals; ``count`` (..., lag_y, lag_x), int64, 0
        there.

    Raises
    ------
    ValueError
        If lags < 1 or more than half the region, the shapes differ or the method is unknown.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> noise = np.random.default_rng(1).normal(0.0, 10.0, (200, 100))
    >>> sums = pair_covariance(xr.DataArray(noise, dims=("y", "x")), lags=2)
    >>> sums["covariance"].dims, round(float(sums["covariance"].sel(lag_y=0, lag_x=0)))
    (('lag_y', 'lag_x'), 49)
    """
    dims = [vocabulary.Y, vocabulary.X]
    missing = [name for name in dims if name not in difference.dims]
    if missing:
        raise ValueError(f"the difference has dimensions {difference.dims} and lacks {missing}")
    _check_lags(lags, (difference.sizes[vocabulary.Y], difference.sizes[vocabulary.X]))
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    arrays = [difference]
    if good is not None:
        if any(difference.sizes.get(name) != size for name, size in good.sizes.items()) or any(
            name not in good.dims for name in dims
        ):
            raise ValueError(
                f"good has shape {dict(good.sizes)}, the difference {dict(difference.sizes)}"
            )
        arrays.append(good)
    whole = dict.fromkeys(dims, -1)
    arrays = [array if array.chunks is None else array.chunk(whole) for array in arrays]
    out = [vocabulary.LAG_Y, vocabulary.LAG_X]
    covariance, count = xr.apply_ufunc(
        _sums_of_blocks,
        *arrays,
        kwargs={"lags": lags, "method": method},
        input_core_dims=[dims] * len(arrays),
        output_core_dims=[out, out],
        dask="parallelized",
        output_dtypes=[np.float64, np.int64],
        dask_gufunc_kwargs={"output_sizes": dict.fromkeys(out, lags)},
    )
    return xr.Dataset(
        {
            "covariance": covariance.assign_attrs(units=vocabulary.ADU2),
            "count": count.assign_attrs(units=vocabulary.DIMENSIONLESS),
        },
        coords={name: np.arange(lags) for name in out},
    )


def row_mean_variance(
    difference: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    clip: float = 3.0,
    iterations: int = 3,
) -> float:
    """Return the clipped variance of the means of the rows of a difference.

    White noise gives twice the variance of one flat divided by the number of columns; more than
    that is noise common to the pixels of a row.

    Parameters
    ----------
    difference : ndarray, (y, x), adu
        Scaled difference of the two flats. Non-finite pixels are left out.
    good : ndarray of bool or uint8, (y, x), optional
        Pixels to use; all without it. A row without any is left out.
    clip, iterations
        Clip of the rows; see `skyloom.algorithms.statistics.clipped_moments`.

    Returns
    -------
    float
        adu², **not halved**; NaN with fewer than two rows.

    Raises
    ------
    ValueError
        If the shapes differ, clip <= 0 or iterations < 1.

    Examples
    --------
    >>> import numpy as np
    >>> round(row_mean_variance(np.array([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0]])), 6)
    1.0
    """
    values, mask = prepared(difference, good)
    sums = row_sums(values, mask, 0.0, 1)[:, 0, :, 0]
    used = sums[0] > 0
    return clipped_moments(sums[1, used] / sums[0, used], clip=clip, iterations=iterations).variance


def _check_lags(lags: int, shape: tuple[int, ...]) -> None:
    if lags < 1 or 2 * lags > min(shape):
        raise ValueError(
            f"lags must be at least 1 and at most half the region of shape {shape}, got {lags}"
        )


def _folded(
    products: NDArray[np.float64],
    counts: NDArray[np.float64],
    seconds: NDArray[np.float64],
    firsts: NDArray[np.float64],
    lags: int,
) -> CovarianceSums:
    """Return halved covariances, averaged over the two diagonals of lags with both components."""
    n = np.where(counts > 0, counts, np.nan)
    signed = products / n - seconds * firsts / n**2
    forward, backward = signed[:, lags - 1 :], signed[:, lags - 1 :: -1]
    total, other = counts[:, lags - 1 :].copy(), counts[1:, lags - 2 :: -1]
    # without pixel pairs along one diagonal there is no covariance at the lag
    total[1:, 1:] = np.where(np.minimum(total[1:, 1:], other) > 0, total[1:, 1:] + other, 0.0)
    # along an axis both diagonals are the same pairs; exactly, so no rounding of an average
    covariance = forward.copy()
    covariance[1:, 1:] = 0.5 * (forward + backward)[1:, 1:]
    return CovarianceSums(0.5 * covariance, np.rint(total).astype(np.int64))


def _sums_of_blocks(
    difference: NDArray[Any],
    good: NDArray[Any] | None = None,
    *,
    lags: int,
    method: Method,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return covariances and counts over the last two axes."""
    leading = difference.shape[:-2]
    if good is not None:
        good = np.broadcast_to(good, difference.shape)
    covariance = np.empty((*leading, lags, lags))
    count = np.empty((*leading, lags, lags), np.int64)
    for index in np.ndindex(*leading):
        plane = None if good is None else good[index]
        sums = covariance_sums(difference[index], plane, lags=lags, method=method)
        covariance[index], count[index] = sums
    return covariance, count
