"""What every status code means and what to do about it, for reports and the guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from skyloom.algorithms.vocabulary import AmplifierFlag, PairStatus

__all__ = ["AMPLIFIER_FLAGS", "PAIR_STATUSES"]

PAIR_STATUSES: Final[Mapping[PairStatus, tuple[str, str]]] = {
    PairStatus.OK: ("measured and used", ""),
    PairStatus.UNPAIRED: (
        "no other exposure has the same key",
        "take another, or widen pairs.atol if exposure times scatter",
    ),
    PairStatus.NONFINITE_KEY: (
        "the exposure has no exposure time or flux to be matched by",
        "check the camera's header keys with `skyloom camera check`",
    ),
    PairStatus.EXTRA: (
        "a third or later exposure with the same key",
        "nothing, or set pairs.use_extra_pairs to pair it as well",
    ),
    PairStatus.ILLEGAL_MEAN: (
        "the mean of one flat is not finite or not positive",
        "saturated or masked altogether, or too large an offset was subtracted",
    ),
    PairStatus.TOO_FEW_PIXELS: (
        "too few pixels are good in both flats",
        "saturation at high signal is expected; else look at the mask and extract.min_pixels",
    ),
    PairStatus.EMPTY_LAG: (
        "no pair of good pixels at some lag",
        "the region is too small or masked in stripes: measure fewer lags",
    ),
    PairStatus.NONFINITE_STAT: (
        "the variance or a covariance is not finite",
        "look at the images: identical, constant or a test pattern",
    ),
    PairStatus.NON_GAUSSIAN: (
        "the difference of the flats is not Gaussian",
        "look for light leaks, steps, sources or cosmic rays",
    ),
    PairStatus.MEAN_MISMATCH: (
        "the two flats differ in signal by more than the limit",
        "the lamp changed, or (pairs.mode id) an exposure before it is missing",
    ),
    PairStatus.MEAN_OUT_OF_RANGE: (
        "outside the range of signals that is fitted",
        "nothing, or change solve.minimum_mean and solve.maximum_mean",
    ),
    PairStatus.OUTLIER: (
        "the variance is off the curve, or the signal off the linear response",
        "look at both flats; more than a few per cent hint at the lamp or at a wrong pairing",
    ),
    PairStatus.ABOVE_TURNOFF: (
        "the signal is above the turn-off, where the variance no longer rises with it",
        "nothing: this is where the amplifier saturates",
    ),
    PairStatus.AMP_BAD: ("the amplifier could not be solved", "see the flags of the amplifier"),
    PairStatus.NOT_MEASURED: (
        "the pair was not measured for this amplifier",
        "see the blocks that failed or were skipped, and run again",
    ),
}
"""Meaning and remedy of each `PairStatus`."""

AMPLIFIER_FLAGS: Final[Mapping[AmplifierFlag, tuple[str, str]]] = {
    AmplifierFlag.NO_DATA: (
        "no pair of this amplifier was measured",
        "see the blocks that failed or were skipped",
    ),
    AmplifierFlag.TOO_FEW_PAIRS: (
        "too few good pairs for the fit",
        "take more levels below the turn-off; the rejected pairs say what was lost",
    ),
    AmplifierFlag.NOT_CONVERGED: (
        "the fit did not converge",
        "look at the curve; try solve.model exp00 or a smaller solve.maximum_mean",
    ),
    AmplifierFlag.NEGATIVE_NOISE: (
        "the fitted noise variance is not positive, so the noise is NaN",
        "take pairs at lower signal: the curve does not reach down to the read noise",
    ),
    AmplifierFlag.ROLLOFF_FAILED: (
        "the roll-off could not be fitted; it is set to the turn-off",
        "take more levels near the turn-off, or leave the roll-off out",
    ),
    AmplifierFlag.NOISE_MISMATCH: (
        "the fitted noise differs from the measured read noise",
        "look at offset, pattern noise and detrend.serial, or take more pairs at low signal",
    ),
    AmplifierFlag.BAD: (
        "the amplifier has no solution; all its results are NaN",
        "the other flags and the rejected pairs say why",
    ),
}
"""Meaning and remedy of each bit of `AmplifierFlag`."""
