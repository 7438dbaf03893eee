"""Tables of a report: products turned into rows of text.

Rows are plain tuples and mappings of strings; nothing here knows HTML, and everything that comes
from files (names, reasons, warnings) is escaped where the page is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from skyloom.algorithms.vocabulary import AMP, DETECTOR, EXPOSURE, PAIR, PairStatus
from skyloom.flows.report.blocks import flag_names, status_name
from skyloom.flows.report.numbers import compact_ids, number, with_error

__all__ = [
    "SUMMARY_COLUMNS",
    "Cell",
    "dark_noise",
    "exposure_rows",
    "reason_counts",
    "rejected_rows",
    "summary_rows",
]

SUMMARY_COLUMNS: Final = (
    ("detector", ""),
    ("amp", ""),
    ("gain", "electron / adu"),
    ("noise", "electron"),
    ("measured", "electron"),
    ("a₀₀", "10⁻⁶ / electron"),
    ("a₀₁", "10⁻⁷ / electron"),
    ("a₁₀", "10⁻⁷ / electron"),
    ("Σa", "10⁻⁷ / electron"),
    ("turn-off", "adu"),
    ("χ² / dof", ""),
    ("pairs", "used / all"),
    ("flags", ""),
)
"""Columns of the table of amplifiers and their units."""


class Cell(NamedTuple):
    """What a cell shows, and the number it is sorted by (None: by its text)."""

    text: str
    value: float | None = None


def summary_rows(
    overview: xr.Dataset, amplifiers: Iterable[tuple[str, str]]
) -> list[tuple[bool, list[Cell]]]:
    """Return a row for each amplifier: whether it is flagged, and its cells.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`.
    amplifiers : iterable of (detector, amp)
        Which ones, in this order.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> overview = amplifier_overview(with_detectors(xr.Dataset(coords={"amp": ["C00"]})))
    >>> flagged, cells = summary_rows(overview, [("detector", "C00")])[0]
    >>> flagged, cells[2].text, cells[-1].text
    (True, '–', 'NO_DATA')
    """
    columns = {str(name): values.to_numpy() for name, values in overview.data_vars.items()}
    detectors = {str(name): i for i, name in enumerate(overview[DETECTOR].to_numpy())}
    amps = {str(name): i for i, name in enumerate(overview[AMP].to_numpy())}
    rows = []
    for detector, amp in amplifiers:
        at = (detectors[detector], amps[amp])
        value = {name: float(found[at]) for name, found in columns.items() if found.ndim == 2}
        chi2 = value["chi2"] / value["dof"] if value["dof"] > 0 else float("nan")
        flags = flag_names(int(value["amp_flag"]))
        used, pairs = int(value["pairs_used"]), int(value["pairs"])
        cells = [
            Cell(detector),
            Cell(amp),
            _measured(value, "gain"),
            _measured(value, "noise"),
            Cell(number(value["read_noise_electron"]), value["read_noise_electron"]),
            _measured(value, "a_00", 1e6),
            _measured(value, "a_01", 1e7),
            _measured(value, "a_10", 1e7),
            _measured(value, "sum_a", 1e7),
            Cell(with_error(value["turnoff"], value["turnoff_sampling_error"]), value["turnoff"]),
            Cell(f"{chi2:.3f}" if chi2 > 0.1 else number(chi2, 3), chi2),
            Cell(f"{used} / {pairs}", used),
            Cell(", ".join(flags)),
        ]
        rows.append((bool(flags), cells))
    return rows


def _measured(value: Mapping[str, float], name: str, scale: float = 1.0) -> Cell:
    number_ = scale * value[name]
    return Cell(with_error(number_, scale * value.get(f"{name}_sigma", float("nan"))), number_)


def reason_counts(overview: xr.Dataset) -> list[tuple[str, int, float]]:
    """Return how many (pair, amplifier) have each status, and their fraction, most frequent first.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> status = ("pair", "amp"), np.array([[0], [11], [0]], np.uint8)
    >>> ptc = xr.Dataset({"pair_status": status}, coords={"amp": ["C00"]})
    >>> reason_counts(amplifier_overview(with_detectors(ptc)))
    [('OK', 2, 0.6666666666666666), ('OUTLIER', 1, 0.3333333333333333)]
    """
    counts = overview["status_count"].sum((DETECTOR, AMP)).to_numpy()
    total = int(counts.sum())
    found = [
        (status_name(code), int(count), int(count) / total)
        for code, count in zip(overview["code"].to_numpy(), counts, strict=True)
        if count
    ]
    return sorted(found, key=lambda row: -row[1])


def rejected_rows(block: xr.Dataset) -> list[tuple[str, ...]]:
    """Return a row for each pair and reason for which it is not used by some amplifiers.

    Parameters
    ----------
    block : Dataset, (pair, amp)
        From `detector_block`.

    Returns
    -------
    list of tuple
        Pair, exposure time, range of means, reason, amplifiers.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import detector_block, with_detectors
    >>> ptc = xr.Dataset(
    ...     {
    ...         "mean": (("pair", "amp"), [[1e3, 1.1e3]]),
    ...         "pair_status": (("pair", "amp"), np.array([[11, 0]], np.uint8)),
    ...     },
    ...     coords={"pair": ["7-8"], "amp": ["C00", "C01"]},
    ... )
    >>> rejected_rows(detector_block(with_detectors(ptc), "detector"))
    [('7-8', '–', '1000', 'OUTLIER', 'C00')]
    """
    status = block["pair_status"].transpose(PAIR, AMP).to_numpy()
    used = block["used"].transpose(PAIR, AMP).to_numpy()
    mean = block["mean"].transpose(PAIR, AMP).to_numpy()
    time = block["exposure_time"].to_numpy()
    amps = [str(name) for name in block[AMP].to_numpy()]
    rows: list[tuple[str, ...]] = []
    for place, pair in enumerate(block[PAIR].to_numpy()):
        for code in sorted({int(code) for code in status[place, ~used[place]]}):
            where = ~used[place] & (status[place] == code)
            means = mean[place, where]
            means = means[np.isfinite(means)]
            ends = (float(means.min()), float(means.max())) if means.size else (np.nan, np.nan)
            extent = dict.fromkeys(number(end) for end in ends)
            names = "all" if where.all() and len(amps) > 1 else ", ".join(
                name for name, bad in zip(amps, where, strict=True) if bad
            )  # fmt: skip
            reason = "not used" if code == PairStatus.OK else status_name(code)
            seconds = number(float(time[place]))
            rows.append((str(pair), seconds, " … ".join(extent), reason, names))
    return rows


def exposure_rows(exposures: xr.Dataset) -> list[tuple[str, int, str]]:
    """Return why exposures are in no pair: reason, how many, their ids.

    Parameters
    ----------
    exposures : Dataset, (exposure)
        With ``exposure_status``, as `pair_exposures` gives it.

    Examples
    --------
    >>> status = ("exposure", np.array([0, 0, 1], np.uint8))
    >>> exposures = xr.Dataset({"exposure_status": status}, coords={"exposure": [5, 6, 7]})
    >>> exposure_rows(exposures)
    [('UNPAIRED', 1, '7')]
    """
    if "exposure_status" not in exposures:
        return []
    status = exposures["exposure_status"].to_numpy()
    ids = exposures[EXPOSURE].to_numpy()
    rows = []
    for code in sorted({int(code) for code in status if code != PairStatus.OK}):
        chosen = [int(found) for found in ids[status == code]]
        rows.append((status_name(code), len(chosen), compact_ids(chosen)))
    return rows


def dark_noise(dark_pairs: xr.Dataset, overview: xr.Dataset) -> xr.DataArray | None:
    """Return the noise of darks per amplifier, in electron, None if there are no darks.

    Parameters
    ----------
    dark_pairs : Dataset, (pair, detector, amp)
        ``variance`` (adu2) and ``pair_status``.
    overview : Dataset, (detector, amp)
        From `amplifier_overview`; its gain counts.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> ptc = xr.Dataset({"gain": (("amp",), [1.5])}, coords={"amp": ["C00"]})
    >>> overview = amplifier_overview(with_detectors(ptc))
    >>> shape = ("pair", "detector", "amp")
    >>> darks = xr.Dataset(
    ...     {"variance": (shape, np.full((1, 1, 1), 16.0))},
    ...     coords={"detector": ["detector"], "amp": ["C00"]},
    ... )
    >>> dark_noise(darks, overview).item()
    6.0
    """
    if "variance" not in dark_pairs or not dark_pairs.sizes.get(PAIR, 0):
        return None
    variance: Any = dark_pairs["variance"].compute()
    if "pair_status" in dark_pairs:
        variance = variance.where(dark_pairs["pair_status"].compute() == int(PairStatus.OK))
    variance = variance.reindex_like(overview["gain"])
    values = np.moveaxis(variance.transpose(PAIR, DETECTOR, AMP).to_numpy(), 0, -1)
    noise = np.full(values.shape[:2], np.nan)
    for at in np.ndindex(*noise.shape):
        finite = values[at][np.isfinite(values[at])]
        noise[at] = np.sqrt(np.median(finite)) if finite.size else np.nan
    gain = overview["gain"].transpose(DETECTOR, AMP)
    return (gain * noise).assign_attrs(units="electron")
