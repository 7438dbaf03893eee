"""What is summed over the pixels of one region of a pair of flats.

Here the pixels are read and left; `skyloom.algorithms.photon_transfer.quantities` turns the sums
of all regions at once into variances, covariances and codes. At most two float32 images and one
of bytes exist at a time, besides what the statistics need while they run.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.covariance import covariance_sums, row_mean_variance
from skyloom.algorithms.photon_transfer.gaussianity import GaussianTest, gaussian_test
from skyloom.algorithms.photon_transfer.pair_kernels import (
    bin_sums,
    centre,
    common_variation,
    ratio_sum,
    subtract_scaled,
)
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.photon_transfer.wide_clip import ClippedMean, clipped_mean

__all__ = ["GivenSignal", "PairSums", "Signal", "Workspace", "dark_pair_sums", "flat_pair_sums"]

Image = NDArray[np.float32]
Good = NDArray[np.bool_]

NAN = math.nan
QUANTUM_SAMPLE = 20_000  # pixels looked at to tell whether images hold integers
QUANTUM_FRACTION = 0.5  # more integers than this are jittered


class Signal(Protocol):
    """Pixels that can be turned into a float32 image as often as it is needed."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""

    @property
    def borrowed(self) -> bool:
        """Return whether the image belongs to somebody else and must not be written to."""

    def signal(self, out: Image | None = None) -> Image:
        """Return the image, in ``out`` unless it is borrowed."""


class GivenSignal(NamedTuple):
    """A float32 image that the caller owns."""

    image: Image

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def borrowed(self) -> bool:
        """Return True."""
        return True

    def signal(self, out: Image | None = None) -> Image:
        """Return the image itself."""
        return self.image


class Workspace:
    """Images that are written over from one region to the next; one a thread."""

    def __init__(self) -> None:
        """Start without images."""
        self._images: dict[str, Image] = {}

    def image(self, name: str, shape: tuple[int, int]) -> Image:
        """Return the image of that name, new if it had another shape."""
        found = self._images.get(name)
        if found is None or found.shape != shape:
            self._images.pop(name, None)
            found = self._images[name] = np.empty(shape, np.float32)
        return found

    def fill(self, name: str, signal: Signal) -> Image:
        """Return the image of a signal, in the workspace unless it is borrowed."""
        if signal.borrowed:
            return signal.signal()
        return signal.signal(self.image(name, signal.shape))


class PairSums(NamedTuple):
    """Sums over one region; adu and its powers. NaN and 0 where they were not reached.

    ``variance`` and ``half_width`` are those of the last clip of the difference; ``used``,
    ``powers`` (sums of powers 1 to 4) and ``reach`` belong to the pixels that the covariances use,
    those within ``reach`` of the mean difference.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    mean_1: float
    mean_2: float
    variance: float = NAN
    half_width: float = NAN
    used: int = 0
    powers: tuple[float, float, float, float] = (NAN, NAN, NAN, NAN)
    reach: float = NAN
    covariance: NDArray[np.float64] | None = None
    covariance_count: NDArray[np.int64] | None = None
    row_mean_variance: float = NAN
    common: float = NAN
    ratio: float = NAN
    gaussian: GaussianTest | None = None


def flat_pair_sums(
    signal_1: Signal,
    signal_2: Signal,
    good: Good,
    *,
    parameters: ExtractParameters,
    work: Workspace | None = None,
) -> PairSums:
    """Return the sums of one region of a pair of flats.

    Parameters
    ----------
    signal_1, signal_2 : Signal, (y, x), adu
    good : ndarray of bool, (y, x)
        Pixels that are unmasked and finite in both; **written over**.
    parameters : ExtractParameters
    work : Workspace, optional
        Kept by callers that measure many regions.
    """
    work = work or Workspace()
    # one after the other in the same place: two images and the copies of a statistic are too many
    first = clipped_mean(
        work.fill("second", signal_1), good, parameters.clip, parameters.iterations
    )
    image_2 = work.fill("second", signal_2)
    second = clipped_mean(image_2, good, parameters.clip, parameters.iterations)
    if not (first.mean > 0.0 and second.mean > 0.0):
        return PairSums(first.count, first.mean, second.mean)
    image_1 = work.fill("first", signal_1)
    common, quantum, total = _before_difference(image_1, image_2, good, first, second, parameters)
    mean = 0.5 * (first.mean + second.mean)
    difference = _own(image_1, signal_1, work)
    subtract_scaled(
        _flat(difference), _flat(image_2), _bytes(good), second.mean / mean, first.mean / mean
    )
    if parameters.bin_size > 1:
        difference, good = _binned(difference, good, parameters.bin_size)
    moments = clipped_mean(difference, good, parameters.clip, parameters.iterations)
    reach = parameters.clip * math.sqrt(moments.variance)
    n, *powers = centre(_flat(difference), _bytes(good), moments.mean, reach)
    found = PairSums(first.count, first.mean, second.mean, moments.variance, moments.half_width)
    found = found._replace(
        used=int(n), powers=(powers[0], powers[1], powers[2], powers[3]), reach=reach, common=common
    )
    if n < parameters.min_pixels / parameters.bin_size**2:
        return found
    if total is not None:
        found = found._replace(ratio=_ratio(difference, moments.mean, total, good, first, second))
    lags = covariance_sums(difference, good, lags=parameters.lags, method=parameters.method)
    return found._replace(
        covariance=lags.covariance,
        covariance_count=lags.count,
        row_mean_variance=row_mean_variance(
            difference, good, clip=parameters.clip, iterations=parameters.iterations
        ),
        gaussian=_histogram(difference, good, parameters, quantum),
    )


def dark_pair_sums(
    signal_1: Signal,
    signal_2: Signal,
    good: Good,
    *,
    parameters: ExtractParameters,
    work: Workspace | None = None,
) -> PairSums:
    """Return the means and the variance of the plain difference of two exposures without light."""
    work = work or Workspace()
    first = clipped_mean(
        work.fill("second", signal_1), good, parameters.clip, parameters.iterations
    )
    image_2 = work.fill("second", signal_2)
    second = clipped_mean(image_2, good, parameters.clip, parameters.iterations)
    image_1 = work.fill("first", signal_1)
    difference = _own(image_1, signal_1, work)
    subtract_scaled(_flat(difference), _flat(image_2), _bytes(good), 1.0, 1.0)
    moments = clipped_mean(difference, good, parameters.clip, parameters.iterations)
    return PairSums(
        first.count,
        first.mean,
        second.mean,
        moments.variance,
        moments.half_width,
        moments.count_used,
    )


def _own(image: Image, signal: Signal, work: Workspace) -> Image:
    """Return an image that may be written over."""
    if not signal.borrowed:
        return image
    copy = work.image("first", signal.shape)
    np.copyto(copy, image)
    return copy


def _before_difference(
    image_1: Image,
    image_2: Image,
    good: Good,
    first: ClippedMean,
    second: ClippedMean,
    parameters: ExtractParameters,
) -> tuple[float, float, Image | None]:
    """Return what both images are needed for: common variation, quantum and their scaled sum.

    The sum, a third image, is made only for the gain methods that use it.
    """
    n, common = common_variation(
        _flat(image_1),
        _flat(image_2),
        _bytes(good),
        first.mean,
        first.half_width,
        second.mean,
        second.half_width,
    )
    quantum = _quantum(image_1, image_2, good) if parameters.histogram else 0.0
    total = None
    if parameters.gain_method != "MOMENT":
        mean = 0.5 * (first.mean + second.mean)
        total = image_1.copy()
        scale_1, scale_2 = mean / first.mean, mean / second.mean
        subtract_scaled(_flat(total), _flat(image_2), _bytes(good), scale_1, -scale_2)
        if parameters.bin_size > 1:
            total = _bin_means(total, good, parameters.bin_size)
    return (common / n if n > 0 else NAN), quantum, total


def _histogram(
    difference: Image, good: Good, parameters: ExtractParameters, quantum: float
) -> GaussianTest | None:
    """Return the Gaussian test of the centred difference, if it is asked for."""
    if not parameters.histogram:
        return None
    return gaussian_test(
        difference[good],
        bins=parameters.histogram_bins,
        half_range=parameters.histogram_range,
        min_values=parameters.histogram_min_values,
        jitter=quantum,
        seed=parameters.jitter_seed,
    )


def _ratio(
    difference: Image,
    center: float,
    total: Image,
    good: Good,
    first: ClippedMean,
    second: ClippedMean,
) -> float:
    """Return the mean of (I1 - I2)² / (I1 + I2) of flats scaled to their common mean."""
    n, summed = ratio_sum(_flat(difference), center, _flat(total), _bytes(good))
    # the scaled difference is 1 - (mismatch / 2)² times that of flats scaled to their mean
    shrunk = 4.0 * first.mean * second.mean / (first.mean + second.mean) ** 2
    return summed / n / shrunk**2 if n > 0 else NAN


def _quantum(image_1: Image, image_2: Image, good: Good) -> float:
    """Return 1 if most differences of a sample of pixels are whole numbers apart, else 0."""
    step = max(good.size // QUANTUM_SAMPLE, 1)
    used = good.ravel()[::step]
    sample = image_1.ravel()[::step][used].astype(np.float64) - image_2.ravel()[::step][used]
    if sample.size == 0:
        return 0.0
    apart = sample - sample[0]
    return float(np.mean(np.abs(apart - np.rint(apart)) < 1e-3) > QUANTUM_FRACTION)


def _binned(difference: Image, good: Good, side: int) -> tuple[Image, Good]:
    shape = difference.shape[0] // side, difference.shape[1] // side
    binned, kept = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    bin_sums(difference, _view(good), side, (side * side + 1) // 2, binned, _view(kept))
    return binned, kept


def _bin_means(total: Image, good: Good, side: int) -> Image:
    """Return the means of the good pixels of each bin."""
    shape = total.shape[0] // side, total.shape[1] // side
    cut = slice(shape[0] * side), slice(shape[1] * side)
    split = (shape[0], side, shape[1], side)
    n = np.maximum(good[cut].reshape(split).sum(axis=(1, 3)), 1)
    sums = total[cut].reshape(split).sum(axis=(1, 3), dtype=np.float64)
    return np.asarray(sums / n, dtype=np.float32)


def _flat(image: Image) -> Image:
    return image.reshape(-1)


def _view(good: Good) -> NDArray[np.uint8]:
    return good.view(np.uint8)


def _bytes(good: Good) -> NDArray[np.uint8]:
    return good.reshape(-1).view(np.uint8)
