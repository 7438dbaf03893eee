"""Pre-kernels: what the covariances of one amplifier say about its brighter-fatter kernel.

A pre-kernel is -(C - Poisson - noise) / mu^2 in electron, ``(lag_y, lag_x)`` at lags >= 0, in
1/electron: from the covariances of the pairs, or from the model that was fitted to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.photon_transfer.lattice import even_sum
from skyloom.algorithms.statistics import clipped_moments
from skyloom.algorithms.vocabulary import LAG_X, LAG_Y, PAIR

__all__ = ["REQUIRED_VARIABLES", "KernelParameters", "prekernel"]

Floats = NDArray[np.float64]

CAUCHY: Final = 2.385
"""Residual in sigma at which the Cauchy weight is one half; 95 % efficient on Gaussian data."""
IRLS_STEPS: Final = 30


class KernelParameters(Parameters):
    """How a brighter-fatter kernel is made and when it is valid."""

    source: Literal["a_matrix", "average", "quadratic", "model"] = Field(
        "a_matrix",
        description="pre-kernel: minus the fitted a, the clipped average of the covariances of "
        "the pairs, their slope against the square of the signal, or the fitted model at one "
        "signal",
    )
    zero_sum: bool = Field(
        True, description="set the centre of the pre-kernel so that charge is conserved"
    )
    model_signal: float = Field(
        25000.0, description="signal at which the source 'model' is taken, electron", gt=0
    )
    clip: float = Field(5.0, description="clip of the average over pairs, sigma", gt=0)
    clip_iterations: int = Field(3, description="passes of the clip", ge=1, le=20)
    imbalance_limit: float = Field(
        0.95,
        description="a pair is left out of the average above this |sum| / sum of magnitudes",
        gt=0,
        le=1,
    )
    tail_radius: float = Field(
        100.0,
        description="radius beyond which a power law replaces the data in the sum, pixel",
        gt=0,
    )
    tail_slope: float = Field(
        1.35, description="half the exponent of that power law, r^(-2 slope)", gt=1
    )
    edge_clip: float = Field(
        5.0, description="the edge of a valid kernel is 0 within this many sigma", gt=0
    )
    positive_fraction: float = Field(
        0.025, description="largest value of a valid kernel over the depth of its centre", ge=0
    )


class _Amplifier(NamedTuple):
    """What a pre-kernel may need of one amplifier; lags as [lag_y, lag_x], in electron."""

    mean: Floats
    covariance: Floats
    noise: Floats
    a: Floats


def _scaled(amplifier: _Amplifier) -> Floats:
    """Return -(C - Poisson - noise) / mu^2 of each pair, (pair, lag_y, lag_x), 1/electron."""
    excess = amplifier.covariance - amplifier.noise
    excess[:, 0, 0] -= amplifier.mean
    return np.asarray(-excess / amplifier.mean[:, None, None] ** 2)


def _average(amplifier: _Amplifier, parameters: KernelParameters) -> Floats | None:
    scaled = _scaled(amplifier)
    magnitude = np.array([even_sum(np.abs(one)) for one in scaled])
    balance = np.array([abs(even_sum(one)) for one in scaled]) / np.where(magnitude, magnitude, 1)
    # a pair whose variance exceeds Poisson noise shows something else than brighter-fatter
    kept = scaled[(scaled[:, 0, 0] >= 0) & (balance <= parameters.imbalance_limit)]
    if not len(kept):
        return None
    flat = kept.reshape(len(kept), -1)
    means = [
        clipped_moments(
            np.ascontiguousarray(values),
            clip=parameters.clip,
            iterations=parameters.clip_iterations,
        ).mean
        for values in flat.T
    ]
    return np.array(means).reshape(kept.shape[1:])


def _robust_slope(x: Floats, y: Floats) -> float:
    """Return the slope of a straight line, reweighted until outliers count nothing."""
    scale_x = np.abs(x).max()
    design = np.stack([np.ones_like(x), x / scale_x], axis=1)
    weight = np.ones_like(x)
    slope = 0.0
    for _ in range(IRLS_STEPS):
        root = np.sqrt(weight)
        solution, *_ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
        residual = y - design @ solution
        previous, slope = slope, float(solution[1])
        sigma = 1.4826 * np.median(np.abs(residual))
        if sigma == 0 or abs(slope - previous) <= 1e-12 * abs(slope):
            break
        weight = 1 / (1 + (residual / (CAUCHY * sigma)) ** 2)
    return slope / float(scale_x)


def _quadratic(amplifier: _Amplifier, parameters: KernelParameters) -> Floats | None:
    if len(amplifier.mean) < 3:
        return None
    square = amplifier.mean**2
    excess = -_scaled(amplifier) * square[:, None, None]
    slopes = [_robust_slope(square, -values) for values in excess.reshape(len(square), -1).T]
    return np.array(slopes).reshape(excess.shape[1:])


def _model(amplifier: _Amplifier, parameters: KernelParameters) -> Floats | None:
    if not len(amplifier.mean):
        return None
    nearest = int(np.argmin(np.abs(amplifier.mean - parameters.model_signal)))
    one = slice(nearest, nearest + 1)
    sample = amplifier._replace(mean=amplifier.mean[one], covariance=amplifier.covariance[one])
    return np.asarray(_scaled(sample)[0])


def _a_matrix(amplifier: _Amplifier, parameters: KernelParameters) -> Floats | None:
    return -amplifier.a


_Source = Callable[[_Amplifier, KernelParameters], Floats | None]
_SOURCES: Final[dict[str, _Source]] = {
    "a_matrix": _a_matrix,
    "average": _average,
    "quadratic": _quadratic,
    "model": _model,
}
REQUIRED_VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    "a_matrix": ("gain", "a"),
    "average": ("gain", "mean", "covariance"),
    "quadratic": ("gain", "mean", "covariance"),
    "model": ("gain", "mean", "covariance_model"),
}
"""Variables of the photon transfer that each source needs."""


def _quadrant(one: xr.Dataset, name: str) -> Floats:
    """Return a matrix of one amplifier; lags that were not fitted count as 0."""
    values = np.asarray(one[name].transpose(LAG_Y, LAG_X).to_numpy(), dtype=np.float64)
    fitted = int(np.isfinite(values[0]).sum())
    if fitted < 2:
        return values
    inside = np.zeros(values.shape, dtype=bool)
    inside[:fitted, :fitted] = True
    return np.where(inside, values, 0.0)


def _gather(one: xr.Dataset, gain: float, source: str) -> _Amplifier:
    """Collect what a source needs of one amplifier, in electron: its used and finite pairs."""
    shape = (one.sizes[LAG_Y], one.sizes[LAG_X])
    noise = np.zeros(shape)
    if "noise_matrix" in one:
        noise = np.nan_to_num(one["noise_matrix"].transpose(LAG_Y, LAG_X).to_numpy(), nan=0.0)
    elif "noise" in one and np.isfinite(one["noise"]):
        noise[0, 0] = float(one["noise"]) ** 2
    if source == "a_matrix":
        empty = np.empty((0, *shape))
        return _Amplifier(np.empty(0), empty, noise, _quadrant(one, "a"))
    name = "covariance_model" if source == "model" else "covariance"
    mean = one["mean"].to_numpy() * gain
    covariance = one[name].transpose(PAIR, LAG_Y, LAG_X).to_numpy() * gain**2
    if source == "model":
        covariance = np.where(np.isfinite(covariance[:, :1, :1]), np.nan_to_num(covariance), np.nan)
    used = (mean > 0) & np.isfinite(covariance).all(axis=(1, 2))
    if "used" in one:
        used &= one["used"].to_numpy().astype(bool)
    return _Amplifier(mean[used], covariance[used], noise, np.full(shape, np.nan))


def prekernel(one: xr.Dataset, *, parameters: KernelParameters) -> Floats | None:
    """Return the pre-kernel of one amplifier, None if there is none.

    Parameters
    ----------
    one : Dataset, (pair, lag_y, lag_x)
        Solved photon transfer of one amplifier, see `brighter_fatter_kernel`.
    parameters : KernelParameters
        Source of the pre-kernel.

    Returns
    -------
    ndarray, (lag_y, lag_x), float64, 1/electron, or None
        None if the gain is not positive, no pair survives or a needed lag is not finite.

    Examples
    --------
    >>> one = xr.Dataset({"gain": 1.5, "a": (("lag_y", "lag_x"), np.diag([-3e-6, 1e-7]))})
    >>> float(prekernel(one, parameters=KernelParameters())[0, 0])
    3e-06
    """
    gain = float(one["gain"])
    if not gain > 0:
        return None
    quadrant = _SOURCES[parameters.source](_gather(one, gain, parameters.source), parameters)
    return quadrant if quadrant is not None and np.isfinite(quadrant).all() else None
