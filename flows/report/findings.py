"""What deserves attention: amplifiers beyond a threshold, the worst first."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import AMP, DETECTOR, AmplifierFlag, PairStatus
from skyloom.flows.report.blocks import flag_names
from skyloom.flows.report.numbers import number

__all__ = ["Finding", "Thresholds", "attention", "find_offenders"]

Floats = NDArray[np.float64]

# What extraction or the solve threw out for a fault of the pair, not for its signal.
_FAULTS: Final = (
    PairStatus.ILLEGAL_MEAN,
    PairStatus.TOO_FEW_PIXELS,
    PairStatus.EMPTY_LAG,
    PairStatus.NONFINITE_STAT,
    PairStatus.NON_GAUSSIAN,
    PairStatus.MEAN_MISMATCH,
    PairStatus.OUTLIER,
)

_HOPELESS: Final = AmplifierFlag.BAD | AmplifierFlag.NO_DATA | AmplifierFlag.TOO_FEW_PAIRS
_DOUBTFUL: Final = AmplifierFlag.NOT_CONVERGED | AmplifierFlag.NEGATIVE_NOISE
_SIGNIFICANT: Final = 3.0
"""Errors that a deviation must exceed besides its threshold."""


class Thresholds(Parameters):
    """Beyond what a report calls an amplifier an offender."""

    chi2_dof: float = Field(1.5, gt=1, description="largest χ² / dof")
    gain_error: float = Field(0.01, gt=0, description="largest relative error of the gain")
    gain_deviation: float = Field(
        0.15, gt=0, description="largest relative deviation of the gain from the median"
    )
    noise_mismatch: float = Field(
        0.05, gt=0, description="largest relative difference of fitted and measured noise"
    )
    noise_deviation: float = Field(
        0.5, gt=0, description="largest relative deviation of the noise from the median"
    )
    a_00_deviation: float = Field(
        0.2, gt=0, description="largest relative deviation of a₀₀ from the median"
    )
    turnoff_deficit: float = Field(
        0.2, gt=0, description="largest relative shortfall of the turn-off below the median"
    )
    faulty_pairs: float = Field(
        0.1, gt=0, description="largest fraction of pairs rejected for a fault"
    )


class Finding(NamedTuple):
    """One thing about one amplifier; ``severity`` is how many times its limit it is."""

    detector: str
    amp: str
    what: str
    value: str
    limit: str
    severity: float


def find_offenders(overview: xr.Dataset, thresholds: Thresholds | None = None) -> list[Finding]:
    """Return what is beyond its threshold, the worst first.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`.
    thresholds : Thresholds, optional

    Returns
    -------
    list of Finding
        Amplifiers without a solution come first, then in the order of severity. A deviation
        counts only if it is also three times its error.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> overview = amplifier_overview(with_detectors(xr.Dataset(coords={"amp": ["C00"]})))
    >>> [(finding.amp, finding.what) for finding in find_offenders(overview)]
    [('C00', 'NO_DATA')]
    """
    limits = thresholds or Thresholds()
    found = _flagged(overview)
    gain, noise = _values(overview, "gain"), _values(overview, "noise")
    dof = _values(overview, "dof")
    chi2 = np.where(dof > 0, _values(overview, "chi2") / np.where(dof > 0, dof, 1), np.nan)
    measured = _values(overview, "read_noise_electron")
    turnoff = _values(overview, "turnoff")
    deficit = np.maximum(-_deviation(turnoff, absolute=False), 0)
    gain_sigma, noise_sigma = _values(overview, "gain_sigma"), _values(overview, "noise_sigma")
    a_00, a_sigma = _values(overview, "a_00"), _values(overview, "a_00_sigma")
    mismatch = np.abs(noise / measured - 1)
    checks: list[tuple[str, Floats, float, bool]] = [
        ("χ² / dof", chi2, limits.chi2_dof, False),
        ("relative error of the gain", gain_sigma / gain, limits.gain_error, True),
        (
            "gain differs from the median",
            _significant(_deviation(gain), gain_sigma / gain),
            limits.gain_deviation,
            True,
        ),
        (
            "noise of the fit differs from the measured one",
            _significant(mismatch, noise_sigma / noise),
            limits.noise_mismatch,
            True,
        ),
        (
            "noise differs from the median",
            _significant(_deviation(noise), noise_sigma / noise),
            limits.noise_deviation,
            True,
        ),
        (
            "a₀₀ differs from the median",
            _significant(_deviation(a_00), np.abs(a_sigma / a_00)),
            limits.a_00_deviation,
            True,
        ),
        ("turn-off below the median", deficit, limits.turnoff_deficit, True),
        ("pairs rejected for a fault", _faults(overview), limits.faulty_pairs, True),
    ]
    for what, values, limit, percent in checks:
        for row, column in np.argwhere(values > limit):
            value = float(values[row, column])
            found.append(
                Finding(
                    *_names(overview, row, column),
                    what,
                    f"{100 * value:.3g} %" if percent else number(value, 3),
                    f"{100 * limit:.3g} %" if percent else number(limit, 3),
                    value / limit,
                )
            )
    return sorted(found, key=lambda finding: -finding.severity)


def attention(findings: list[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """Return findings by detector and amplifier, the amplifier with the worst first.

    Examples
    --------
    >>> one = Finding("S0", "A", "χ² / dof", "2.0", "1.5", 1.3)
    >>> list(attention([one, one._replace(what="gain")]))
    [('S0', 'A')]
    """
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.detector, finding.amp), []).append(finding)
    return grouped


def _names(overview: xr.Dataset, row: int, column: int) -> tuple[str, str]:
    return str(overview[DETECTOR].to_numpy()[row]), str(overview[AMP].to_numpy()[column])


def _values(overview: xr.Dataset, name: str) -> Floats:
    return np.asarray(overview[name].transpose(DETECTOR, AMP).to_numpy(), np.float64)


def _deviation(values: Floats, *, absolute: bool = True) -> Floats:
    """Return the relative difference from the median of all amplifiers."""
    finite = values[np.isfinite(values)]
    if finite.size < 3 or not np.median(finite):
        return np.full_like(values, np.nan)
    relative = values / np.median(finite) - 1
    return np.abs(relative) if absolute else relative


def _significant(deviation: Floats, error: Floats) -> Floats:
    """Return deviations that their error does not explain; 0 for the others."""
    known = np.nan_to_num(error, nan=0.0, posinf=np.inf)
    return np.where(deviation > _SIGNIFICANT * known, deviation, 0.0)


def _faults(overview: xr.Dataset) -> Floats:
    codes = [int(code) for code in overview["code"].to_numpy()]
    places = [codes.index(code) for code in _FAULTS]
    counts = overview["status_count"].transpose(DETECTOR, AMP, "code").to_numpy()
    pairs = _values(overview, "pairs")
    return np.asarray(counts[..., places].sum(axis=-1) / np.where(pairs > 0, pairs, np.nan))


def _flagged(overview: xr.Dataset) -> list[Finding]:
    found = []
    flags = overview["amp_flag"].transpose(DETECTOR, AMP).to_numpy()
    for row, column in np.argwhere(flags != 0):
        flag = int(flags[row, column])
        severity = 1e9 if flag & _HOPELESS else 1e6 if flag & _DOUBTFUL else 1.0
        names = ", ".join(flag_names(flag))
        found.append(Finding(*_names(overview, row, column), names, "", "", severity))
    return found
