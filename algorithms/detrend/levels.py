"""The levels that the overscans of an amplifier give, one for each row and each column of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import Amplifier, Box
from skyloom.algorithms.detrend.level_kernels import strict_row_moments
from skyloom.algorithms.detrend.overscan import (
    column_levels,
    levels_of_rows,
    serial_levels,
    without_first_columns,
)
from skyloom.algorithms.detrend.overscan_curves import (
    polynomial_curve,
    smooth_curve,
    spline_curve,
)
from skyloom.algorithms.detrend.parameters import OverscanParameters

__all__ = ["Levels", "amplifier_levels", "check_boxes"]

Floats = NDArray[np.float64]
CURVES = ("spline", "smooth", "polynomial")
MEDIAN_PENALTY = math.pi / 2  # variance of a median over that of a mean


class Levels(NamedTuple):
    """Levels to subtract from the data section of an amplifier, as it is stored, adu.

    ``columns`` is empty where only rows have levels. ``median`` of the serial overscan and
    ``noise`` about its levels are NaN without one. ``variance`` (adu2) is that of the levels,
    typically.
    """

    rows: Floats
    columns: Floats
    median: float
    noise: float
    variance: float


def check_boxes(row: Amplifier, shape: tuple[int, ...]) -> None:
    """Raise a ValueError if a box of an amplifier reaches beyond the raw image."""
    for box in (row.data, row.overscan, row.parallel_overscan):
        if box.size and (box.y_stop > shape[0] or box.x_stop > shape[1]):
            raise ValueError(
                f"amplifier {row.name}: box {tuple(box)} (y_start, y_stop, x_start, x_stop) "
                f"reaches beyond the raw image of shape {tuple(shape)}"
            )


def amplifier_levels(raw: NDArray[Any], row: Amplifier, parameters: OverscanParameters) -> Levels:
    """Measure the levels of one amplifier.

    Parameters
    ----------
    raw : ndarray, (y, x), native and C-contiguous, adu
        The detector's raw array.
    row : Amplifier
        Where its boxes lie.
    parameters : OverscanParameters
        How to measure them.

    Returns
    -------
    Levels
        Rows that the overscan lacks have the median level; without overscan all levels are 0.
    """
    data, serial = row.data, without_first_columns(row, parameters.serial_skip)
    rows, levels = np.zeros(data.shape[0]), np.empty(0)
    median, noise, variance = np.nan, np.nan, 0.0
    if parameters.serial != "none" and serial.size:
        levels, median, noise = serial_levels(
            raw,
            serial,
            by_row=parameters.serial != "level",
            mean=parameters.serial != "row_median",
            clip=parameters.clip,
            moments=strict_row_moments,
        )
        if np.isfinite(noise):
            variance = noise**2 / serial.shape[1]
            if parameters.serial == "row_median":
                variance *= MEDIAN_PENALTY
            elif parameters.serial == "level":
                variance /= serial.shape[0]
        if parameters.serial in CURVES:
            levels, noise, variance = _curve(levels, noise, variance, parameters)
        rows = levels_of_rows(levels, serial, data.y_start, data.y_stop, median)
    columns = np.empty(0)
    box = row.parallel_overscan
    if parameters.parallel != "none" and box.size:
        above = raw[box.slices].astype(np.float64)
        if levels.size:
            above -= levels_of_rows(levels, serial, box.y_start, box.y_stop, median)[:, None]
        mean = parameters.parallel == "column_mean"
        columns = (
            _column_means(above, box, data, parameters.clip)
            if mean
            else column_levels(above, box, data)
        )
        if np.isfinite(noise):
            variance += (1.0 if mean else MEDIAN_PENALTY) * noise**2 / box.shape[0]
    return Levels(rows, columns, median, noise, variance)


def _curve(
    levels: Floats, noise: float, variance: float, parameters: OverscanParameters
) -> tuple[Floats, float, float]:
    """Return a curve through the levels of rows, the noise about it, and its variance."""
    clip = parameters.clip
    if parameters.serial == "spline":
        curve, freedom = spline_curve(levels, parameters.knots, clip), float(parameters.knots)
    elif parameters.serial == "smooth":
        curve = smooth_curve(levels, parameters.smoothing, clip)
        freedom = levels.size / (2.0 * math.sqrt(math.pi) * parameters.smoothing)
    else:
        curve = polynomial_curve(levels, parameters.degree, clip)
        freedom = parameters.degree + 1.0
    off = levels - curve
    off = off[np.isfinite(off)]
    if off.size and np.isfinite(noise):
        # what rows have in common stays in the image, and the noise has to tell of it
        common = (1.4826 * float(np.median(np.abs(off)))) ** 2 - variance
        noise = math.sqrt(noise**2 + max(common, 0.0))
    return curve, noise, variance * min(freedom / max(levels.size, 1), 1.0)


def _column_means(above: Floats, box: Box, data: Box, clip: float) -> Floats:
    """Return the clipped mean of each column of the parallel overscan; 0 where it has none."""
    found = np.zeros(data.shape[1])
    low, high = max(data.x_start, box.x_start), min(data.x_stop, box.x_stop)
    if high > low:
        columns = np.ascontiguousarray(above[:, low - box.x_start : high - box.x_start].T)
        means, _, _ = serial_levels(
            columns,
            Box(0, columns.shape[0], 0, columns.shape[1]),
            by_row=True,
            mean=True,
            clip=clip,
            moments=strict_row_moments,
        )
        found[low - data.x_start : high - data.x_start] = np.where(np.isfinite(means), means, 0.0)
    return found
