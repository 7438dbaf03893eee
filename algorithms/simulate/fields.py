"""Gaussian random fields with known covariances, on plain arrays.

A field with covariances C is white noise filtered by the square root of the Fourier modes of C on
a periodic grid that is larger than the image, and then cropped, so opposite edges do not know of
each other. Arrays are ``(y, x)`` and covariances ``(lag_y, lag_x)`` at lags >= 0; negative lags
are the same numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.models import model_covariance

__all__ = ["correlated_field", "flat_covariance"]

Floats = NDArray[np.float64]

REACH = 4
"""Covariances are kept to this many times the reach of a: products of four a's still fit."""


@lru_cache(maxsize=64)
def _cosines(lags: int, size: int, modes: int) -> Floats:
    """Return the table that sums an even function over its images, (mode, lag)."""
    images = np.where(np.arange(lags) > 0, 2.0, 1.0)
    # the argument is reduced in integers, so the table keeps full precision at large modes
    angle = np.outer(np.arange(modes), np.arange(lags)) % size
    table: Floats = images * np.cos(2 * np.pi / size * angle)
    table.setflags(write=False)
    return table


def flat_covariance(a: Floats, electrons: float, *, b: Floats | None = None) -> Floats:
    """Return the covariances of a flat without read noise, at all lags that matter.

    Parameters
    ----------
    a : ndarray, (lag_y, lag_x), float64, 1/electron
        Fractional change of pixel area per electron stored at each lag.
    electrons : float, electron
        Mean signal.
    b : ndarray, (lag_y, lag_x), float64, 1/electron, optional
        First-order drift of ``a`` with signal; none without it.

    Returns
    -------
    ndarray, (lag_y, lag_x), float64, electron2
        Covariances at four times as many lags as ``a`` has.

    Raises
    ------
    ValueError
        If ``b`` has not the shape of ``a``.

    Examples
    --------
    >>> float(flat_covariance(np.array([[-3e-6]]), 5e4)[0, 0].round(1))
    43197.0
    """
    lags = max(a.shape)
    reach = np.zeros((REACH * lags, REACH * lags))
    reach[: a.shape[0], : a.shape[1]] = a
    if b is None:
        return np.asarray(model_covariance(reach, 1.0, 0.0, [electrons], model="exact")[0])
    if b.shape != a.shape:
        raise ValueError(f"b has shape {b.shape}, a has {a.shape}; they must agree")
    drift = np.zeros_like(reach)
    drift[: a.shape[0], : a.shape[1]] = a * b
    return np.asarray(model_covariance(reach, 1.0, 0.0, [electrons], c=drift, model="exact_b")[0])


def correlated_field(
    covariance: Floats, shape: tuple[int, int], rng: np.random.Generator
) -> Floats:
    """Draw a Gaussian field of mean 0 with these covariances.

    Parameters
    ----------
    covariance : ndarray, (lag_y, lag_x), float64
        Covariances at lags >= 0 in the square of the unit of the field; zero beyond.
    shape : (int, int)
        Pixels along y and x.
    rng : numpy.random.Generator
        Where the randomness comes from.

    Returns
    -------
    ndarray, (y, x), float64

    Raises
    ------
    ValueError
        If no field can have these covariances, because one of their Fourier modes is negative.

    Notes
    -----
    IFFT[FFT(white) sqrt(C(k))] on a periodic grid larger than the image by twice the lags.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> field = correlated_field(np.array([[1.0, 0.2], [0.3, 0.0]]), (400, 400), rng)
    >>> bool(abs(np.mean(field[1:] * field[:-1]) - 0.3) < 0.02)
    True
    """
    lags_y, lags_x = covariance.shape
    if not covariance.any():
        return np.zeros(shape)
    if np.count_nonzero(covariance) == 1 and covariance[0, 0] > 0:
        return rng.normal(0.0, float(np.sqrt(covariance[0, 0])), shape)
    size_y = scipy.fft.next_fast_len(shape[0] + 2 * lags_y, real=True)
    size_x = scipy.fft.next_fast_len(shape[1] + 2 * lags_x, real=True)
    along_y = _cosines(lags_y, size_y, size_y // 2 + 1)
    modes = along_y @ covariance @ _cosines(lags_x, size_x, size_x // 2 + 1).T
    lowest = float(modes.min())
    if not lowest >= 0:
        raise ValueError(
            f"no field has these covariances: the Fourier mode {lowest:.4g} is negative "
            f"(variance {covariance[0, 0]:.4g}); reduce the covariances at lags > 0 or the signal"
        )
    np.sqrt(modes, out=modes)
    white = scipy.fft.rfft2(rng.standard_normal((size_y, size_x)), workers=1)
    white[: size_y // 2 + 1] *= modes
    white[size_y // 2 + 1 :] *= modes[1 : (size_y + 1) // 2][::-1]
    field = scipy.fft.irfft2(white, (size_y, size_x), overwrite_x=True, workers=1)
    return np.ascontiguousarray(field[: shape[0], : shape[1]])
