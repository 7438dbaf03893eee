"""The noise that values are expected to have, and whether their scatter agrees with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.combine.inputs import Exposures
from skyloom.algorithms.combine.model_kernels import FEWEST, SCATTER_BINS, SCATTER_SHIFT
from skyloom.algorithms.errors import NoiseMismatchWarning

__all__ = [
    "Noise",
    "check_noise",
    "noise_of",
    "scatter_ratio",
    "tell_mismatch",
    "typical_chi2",
]

FEWEST_PIXELS = 16  # whose photons are looked for in their variances
FEWEST_DEGREES = 2000  # of freedom, by which a median tells the scatter to some per cent
NO_NOISE, LEAST_RATIO, LARGEST_RATIO = 0.05, 0.7, 1.3
"""Scatter over noise beyond which it is said: limits of 5 sigma are less than 4, or more than 7.

Copies of one frame scatter hardly at all, and nothing can be said of their noise.
"""


class Noise(NamedTuple):
    """Variances of scaled values, (amplifier, exposure), see the kernels.

    ``trusted`` are the exposures whose median tells the level of a pixel.
    """

    per_level: NDArray[np.float64]
    constant: NDArray[np.float64]
    own_photons: NDArray[np.float64]
    trusted: NDArray[np.bool_]


def noise_of(
    exposures: Exposures, amplifiers: Sequence[Amplifier], factors: NDArray[np.float64]
) -> Noise:
    """Return what gain and read noise say; a constant of NaN leaves it to the input variances."""
    electrons = exposures.units == v.ELECTRON
    gain = np.array([[row.gain] for row in amplifiers] or [[np.nan]])
    read_noise = np.array([[row.read_noise] for row in amplifiers] or [[np.nan]])
    gain = np.where(np.isfinite(gain) & (gain > 0), gain, np.nan)
    read_noise = np.where(np.isfinite(read_noise) & (read_noise >= 0), read_noise, np.nan)
    per_unit = np.ones_like(gain) if electrons else gain
    constant = (read_noise / per_unit * factors) ** 2
    # without a gain, a value's own variance stays as it is
    per_level = np.where(np.isfinite(per_unit), factors / per_unit, 0.0)
    shares = _own_photons(exposures, amplifiers, per_unit[:, 0])
    return Noise(
        np.ascontiguousarray(per_level),
        np.ascontiguousarray(constant),
        np.ascontiguousarray(np.broadcast_to(shares[:, None], factors.shape)),
        np.array([_trusted(row) for row in factors]),
    )


def check_noise(exposures: Exposures, amplifiers: Sequence[Amplifier], noise: Noise) -> None:
    """Raise ValueError where neither a table nor variances tell the noise."""
    if "variance" in exposures.first:
        return
    unknown = np.asarray(~np.isfinite(noise.constant).any(axis=1))
    if unknown.any():
        names = ", ".join(row.name for row, no in zip(amplifiers, unknown, strict=False) if no)
        needed = "read noise" if exposures.units == v.ELECTRON else "gain and read noise"
        raise ValueError(
            "clip_model needs the noise: variances of the exposures or an amplifier table with "
            f"{needed}{f' of {names}' if names else ''}"
        )


def _trusted(factors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the exposures with the best median: long ones, if others are much shorter.

    The median of m values has the variance (pi / 2) m / (sum 1 / sigma)², asymptotically.
    """
    usable = np.isfinite(factors)
    if usable.sum() <= FEWEST:
        return usable
    ordered = np.sort(factors[usable])
    number = np.arange(1, ordered.size + 1)
    variance = number / np.cumsum(1.0 / ordered) ** 2
    best = FEWEST - 1 + int(np.argmin(variance[FEWEST - 1 :]))
    # exposures as long as the last of them are as good
    trusted: NDArray[np.bool_] = usable & (factors <= ordered[best])
    return trusted


def _own_photons(
    exposures: Exposures, amplifiers: Sequence[Amplifier], per_unit: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for each amplifier 1 if variances hold the photons of their own value, else 0.

    Told by the middle row of an amplifier in one exposure, the first by its label.
    """
    shares = np.ones(per_unit.size)
    if "variance" not in exposures.first:
        return shares
    first = int(np.argsort(exposures.labels, kind="stable")[0])
    data = exposures.first.isel({v.EXPOSURE: first}) if exposures.stacked else exposures.data[first]
    height, width = exposures.shape
    boxes = [row.trimmed for row in amplifiers]
    spans = [(b.y_start, b.y_stop, b.x_start, b.x_stop) for b in boxes] or [(0, height, 0, width)]
    rows: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for index, (y_start, y_stop, x_start, x_stop) in enumerate(spans):
        middle = (y_start + y_stop - 1) // 2
        if middle not in rows:
            part = data[["image", "variance"]].isel({v.Y: middle}).compute()
            image, variance = (part[name].values for name in ("image", "variance"))
            rows[middle] = image.astype(np.float64), variance.astype(np.float64)
        x, own = (plane[x_start:x_stop] for plane in rows[middle])
        good = np.isfinite(x) & np.isfinite(own) & (own > 0)
        photons = np.maximum(x[good], 0.0)
        if photons.size < FEWEST_PIXELS or np.ptp(photons) == 0 or not per_unit[index] > 0:
            continue
        off = photons - photons.mean()
        slope = (off * own[good]).sum() / (off**2).sum()
        shares[index] = float(slope * per_unit[index] > 0.5)
    return shares


def typical_chi2(size: int) -> NDArray[np.float64]:
    """Return the inverse of the median of chi² of 0 to ``size`` values about their mean."""
    degrees = np.arange(size + 1) - 1.0
    median = 2.0 * gammaincinv(0.5 * np.maximum(degrees, 1.0), 0.5)
    return np.where(degrees > 0, 1.0 / median, 0.0)


def scatter_ratio(histogram: NDArray[np.int64]) -> float:
    """Return the scatter of values over that expected, by the median over pixels.

    Examples
    --------
    >>> histogram = np.zeros(2048, int)
    >>> histogram[np.float32([1.0]).view(np.int32) >> 20] = 100
    >>> round(scatter_ratio(histogram), 2)
    1.03
    """
    # in the first bin are pixels with one value or none, and those of equal values
    total = int(histogram[1:].sum())
    if total == 0:
        return np.nan
    below = np.concatenate([[0], np.cumsum(histogram[1:])])
    index = int(np.searchsorted(below, 0.5 * total, side="left")) - 1
    part = (0.5 * total - below[index]) / (below[index + 1] - below[index])
    edges = np.arange(1, SCATTER_BINS + 1, dtype=np.int32) << SCATTER_SHIFT
    low, high = edges[index : index + 2].view(np.float32).astype(np.float64)
    return float(np.sqrt(low + part * (high - low)))


def tell_mismatch(
    exposures: Exposures,
    amplifiers: Sequence[Amplifier],
    histograms: NDArray[np.int64],
    lost: Sequence[float],
    patterns: Sequence[float],
) -> NDArray[np.float64]:
    """Warn of amplifiers whose exposures scatter far more or less than their noise.

    Parameters
    ----------
    exposures : Exposures
    amplifiers : sequence of Amplifier
    histograms : ndarray, (amplifier or 1, bin)
        See `scatter_ratio`.
    lost : sequence of float
        Part of the values that was left out; the scatter is that of the others.
    patterns : sequence of float
        Variance allowed for changes of the pattern, over that of the noise.

    Returns
    -------
    ndarray, (amplifier or 1)
        Scatter of the values that are left over their noise.
    """
    ratios = np.array([scatter_ratio(each) for each in histograms])
    degrees = histograms[:, 1:].sum(axis=1) * (exposures.labels.size - 1)
    varied = histograms[:, 0] <= histograms[:, 1:].sum(axis=1)
    measured = "variance" in exposures.first
    told = []
    for index, (ratio, pattern) in enumerate(zip(ratios, patterns, strict=True)):
        # a pattern that changes may add to the scatter what is allowed for it
        least = ratio / np.sqrt(1.0 + pattern)
        known = degrees[index] >= FEWEST_DEGREES and varied[index]
        if not known or (least <= LARGEST_RATIO and not NO_NOISE < ratio < LEAST_RATIO):
            continue
        row = amplifiers[index] if amplifiers else None
        name = f"amplifier {row.name}" if row else "the detector"
        text = f"{name}: values left scatter {ratio:.3g} times the noise"
        if row and not measured:
            text += f" of read noise {row.read_noise:g} electron and gain {row.gain:g} electron/adu"
        told.append(f"{text}, {100.0 * lost[index]:.2g} % of the values are left out")
    if told:
        source = "their variances say" if measured else "the amplifier table predicts"
        warnings.warn(
            f"exposures do not scatter as {source}; {'; '.join(told)}",
            NoiseMismatchWarning,
            stacklevel=5,
        )
    return ratios
