"""The levels that the overscans of an amplifier give, one for each row and each column of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.detrend.level_kernels import strict_row_moments
from skyloom.algorithms.detrend.overscan import (
    column_levels,
    levels_of_rows,
    serial_levels,
    without_first_columns,
)
from skyloom.algorithms.detrend.parameters import OverscanParameters

__all__ = ["Levels", "amplifier_levels", "check_boxes"]

Floats = NDArray[np.float64]


class Levels(NamedTuple):
    """Levels to subtract from the data section of an amplifier, as it is stored, adu.

    ``columns`` is empty where only rows have levels. ``median`` of the serial overscan and
    ``noise`` about its levels are NaN without one.
    """

    rows: Floats
    columns: Floats
    median: float
    noise: float


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
    median, noise = np.nan, np.nan
    if parameters.serial != "none" and serial.size:
        levels, median, noise = serial_levels(
            raw,
            serial,
            by_row=parameters.serial != "level",
            mean=parameters.serial != "row_median",
            clip=parameters.clip,
            moments=strict_row_moments,
        )
        rows = levels_of_rows(levels, serial, data.y_start, data.y_stop, median)
    columns = np.empty(0)
    box = row.parallel_overscan
    if parameters.parallel != "none" and box.size:
        above = raw[box.slices].astype(np.float64)
        if levels.size:
            above -= levels_of_rows(levels, serial, box.y_start, box.y_stop, median)[:, None]
        columns = column_levels(above, box, data)
    return Levels(rows, columns, median, noise)
