"""Parameters of what happens to a pair of flats before the solve, with the defaults that run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.statistics import IGNORED_PLANES

__all__ = ["ExtractParameters", "GainMethod", "PairMode", "PairParameters"]

PairMode = Literal["time", "flux", "id"]
GainMethod = Literal["MOMENT", "NONE", "SIMPLE", "FULL", "READNOISE"]


class PairParameters(Parameters):
    """How exposures are matched to pairs."""

    mode: PairMode = Field(
        "time",
        description="match exposures of equal exposure time, of equal flux, or consecutive ids",
    )
    atol: float = Field(
        5e-3, ge=0, description="keys this close match: absolute part, unit of the key (s for time)"
    )
    rtol: float = Field(1e-5, ge=0, description="keys this close match: part relative to the key")
    adjacency: Literal["any", "sequential"] = Field(
        "any", description="any: group all exposures by key; sequential: only neighbours in id"
    )
    use_extra_pairs: bool = Field(
        False, description="make a second, third, ... pair of the further members of a group"
    )


class ExtractParameters(Parameters):
    """What is measured on a pair of flats, per amplifier."""

    lags: int = Field(10, ge=1, description="covariances are measured at lags 0 to lags - 1, pixel")
    method: Literal["auto", "direct", "fft"] = Field(
        "auto", description="how covariances are summed; auto takes the cheaper way"
    )
    clip: float = Field(
        5.5,
        ge=2.0,
        description="clip of means and variances, standard deviations; what a narrower one leaves "
        "of a Gaussian does not tell its width",
    )
    iterations: int = Field(3, ge=1, description="passes of the clip")
    planes: tuple[str, ...] = Field(
        IGNORED_PLANES, description="mask planes whose pixels are not used"
    )
    min_pixels: int = Field(
        10_000, ge=1, description="fewer pixels than this are TOO_FEW_PIXELS (unbinned pixels)"
    )
    region: Literal["AMP", "DETECTOR"] = Field(
        "AMP", description="measure each amplifier, or the whole detector as one region"
    )
    edge: int = Field(0, ge=0, description="pixels left out along each edge")
    edge_level: Literal["DETECTOR", "AMP"] = Field(
        "DETECTOR", description="whose edges are left out: the detector's or each amplifier's"
    )
    bin_size: int = Field(1, ge=1, description="side of the square the difference is binned by")
    max_pair_mismatch: float = Field(
        0.05, gt=0, description="largest |mean_2 - mean_1| / mean before MEAN_MISMATCH"
    )
    max_variance_mismatch: float = Field(
        0.01, gt=0, description="largest relative difference of variance and C_00 without a warning"
    )
    gain_method: GainMethod = Field(
        "MOMENT",
        description="MOMENT: mean / (variance - noise²); the others follow the flat-pair ratio",
    )
    bf_a_00: float = Field(
        0.0,
        gt=-1e-3,
        lt=1e-3,
        description="brighter-fatter coefficient divided out of the pair gain, 1/electron; 0 = off",
    )
    gaussian_test: Literal["moments", "histogram", "none"] = Field(
        "moments", description="what can call a pair NON_GAUSSIAN"
    )
    moment_sigma: float = Field(
        5.0, gt=0, description="standard errors that skewness or kurtosis may deviate"
    )
    moment_floor: float = Field(
        0.01, ge=0, description="skewness or excess kurtosis that is always accepted"
    )
    histogram: bool = Field(
        False, description="fit a Gaussian to the histogram of the difference and run a KS test"
    )
    histogram_bins: int = Field(100, ge=10, description="bins of that histogram")
    histogram_range: float = Field(
        8.0, gt=0, description="half range of the histogram, standard deviations"
    )
    histogram_min_values: int = Field(
        100, ge=10, description="fewer values than this are not histogrammed"
    )
    ks_min_p: float = Field(
        0.01, ge=0, le=1, description="smaller KS probabilities are NON_GAUSSIAN (test: histogram)"
    )
    jitter_seed: int = Field(
        20_250_101, ge=0, description="seed of the jitter that unquantises integers for the KS test"
    )
    vignetting: tuple[float, ...] = Field(
        (),
        description="polynomial of the throughput in focal-plane radius (m), highest power first; "
        "empty = no selection",
    )
    vignetting_percent: float = Field(
        2.0, gt=0, le=100, description="vignetting tolerated at first, percent of the maximum"
    )
    vignetting_min_pixels: int = Field(
        250_000, ge=1, description="the tolerance grows by 1 percent until so many pixels are kept"
    )
    auxiliary_keys: tuple[str, ...] = Field(
        (), description="coordinates of the first exposure recorded as aux_<key>"
    )
