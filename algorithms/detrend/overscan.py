"""Levels of rows and columns from the overscan of an amplifier, robust against charge in it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import Amplifier, Box
from skyloom.algorithms.clip_correction import truncation_factor, unclipped_variance
from skyloom.algorithms.detrend.level_kernels import row_medians, row_moments
from skyloom.algorithms.pixel_arrays import native
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["column_levels", "levels_of_rows", "serial_levels", "without_first_columns"]

OUTLYING_ROW = 2.0  # variance of an overscan row, times the typical one, that means outliers


def without_first_columns(amplifier: Amplifier, skip: int) -> Box:
    """Return the serial overscan less the columns that were read right after the data."""
    box = amplifier.overscan
    if box.x_start >= amplifier.data.x_stop:
        return box._replace(x_start=min(box.x_start + skip, box.x_stop))
    return box._replace(x_stop=max(box.x_stop - skip, box.x_start))


def serial_levels(
    raw: NDArray[Any],
    box: Box,
    *,
    by_row: bool,
    mean: bool,
    clip: float,
    moments: Callable[..., None] = row_moments,
) -> tuple[NDArray[np.float64], float, float]:
    """Return the level of each overscan row, the median of all, and the noise about the levels.

    Parameters
    ----------
    raw : ndarray, (y, x), C-contiguous, adu
    box : Box
        Serial overscan.
    by_row : bool
        Whether rows have levels of their own.
    mean : bool
        Whether a level is the mean of the pixels within the clip, or the median.
    clip : float
        Standard deviations.
    moments : callable
        Kernel that sums rows.
    """
    if not by_row:
        level = clipped_moments(raw[box.slices], clip=clip)
        chosen = level.mean if mean else level.median
        noise = math.sqrt(float(unclipped_variance(level.variance, level.half_width)))
        return np.full(box.shape[0], chosen), level.median, noise
    place = (box.y_start, box.x_start), box.shape[1]
    start = raw[box.y_start : box.y_stop, box.x_start].astype(np.float64)
    levels, variances, means = np.empty((3, box.shape[0]))
    moments(raw, *place, start, np.inf, levels, variances)
    typical = _typical(variances)
    # rows with far outliers start from their median; in all others it is close to the mean
    outlying = np.flatnonzero(~(variances <= OUTLYING_ROW * typical**2))
    if not mean:
        outlying = np.arange(levels.size)
    if outlying.size:
        medians = np.empty(outlying.size)
        row_medians(native(raw[box.slices][outlying]), medians)
        levels[outlying] = medians
        # without the outliers of those rows the spread is smaller
        moments(raw, *place, levels, clip * typical, means, variances)
        typical = _typical(variances)
    moments(raw, *place, levels, clip * typical, means, variances)
    if mean:
        levels = means
    known, spread = levels[np.isfinite(levels)], variances[np.isfinite(variances)]
    median = float(np.median(known)) if known.size else np.nan
    noise = float(spread.mean()) / _kept(clip) if spread.size else np.nan
    return levels, median, math.sqrt(noise)


@functools.lru_cache(maxsize=16)
def _kept(clip: float) -> float:
    """Return the fraction of the variance of a Gaussian that a clip keeps."""
    return float(truncation_factor(clip))


def _typical(variances: NDArray[np.float64]) -> float:
    """Return the standard deviation in most rows; the median keeps a few rows from mattering."""
    known = variances[np.isfinite(variances)]
    return math.sqrt(float(np.median(known))) if known.size else math.inf


def levels_of_rows(
    levels: NDArray[np.float64], serial: Box, y_start: int, y_stop: int, median: float
) -> NDArray[np.float64]:
    """Return the levels of raw rows; rows that the overscan lacks get the median of all."""
    found = np.full(y_stop - y_start, median)
    low, high = max(y_start, serial.y_start), min(y_stop, serial.y_stop)
    if high > low:
        found[low - y_start : high - y_start] = levels[low - serial.y_start : high - serial.y_start]
    return np.where(np.isfinite(found), found, median)


def column_levels(above: NDArray[np.float64], box: Box, data: Box) -> NDArray[np.float64]:
    """Return the median of each column of the parallel overscan; 0 where it has none."""
    found = np.zeros(data.shape[1])
    low, high = max(data.x_start, box.x_start), min(data.x_stop, box.x_stop)
    if high > low:
        part = above[:, low - box.x_start : high - box.x_start]
        finite = np.isfinite(part).any(axis=0)
        part = np.where(finite, part, 0.0)
        found[low - data.x_start : high - data.x_start] = np.nanmedian(part, axis=0)
    return found
