"""The amplifier table of a detector, read once into plain numbers.

A table is a dataset over ``amp`` with half-open boxes in pixels of the detector's raw array
(``data_*``, ``overscan_*`` the serial and ``parallel_overscan_*`` the parallel overscan, of size 0
if there is none) and the boxes of the trimmed detector (``y_start`` ... ``x_stop``). ``flip_y`` and
``flip_x`` say that the data section, stored as it was read, runs against the axis of the trimmed
detector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v

__all__ = ["Amplifier", "Box", "amplifier_rows", "trimmed_shape"]


class Box(NamedTuple):
    """A half-open rectangle in pixels."""

    y_start: int
    y_stop: int
    x_start: int
    x_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width); 0 where the box is empty."""
        return max(self.y_stop - self.y_start, 0), max(self.x_stop - self.x_start, 0)

    @property
    def size(self) -> int:
        """Return the number of pixels."""
        return self.shape[0] * self.shape[1]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return what indexes an array (y, x)."""
        return slice(self.y_start, self.y_stop), slice(self.x_start, self.x_stop)


class Amplifier(NamedTuple):
    """One row of the table; ``gain`` electron/adu, ``read_noise`` electron, ``saturation`` adu."""

    name: str
    data: Box
    overscan: Box
    parallel_overscan: Box
    trimmed: Box
    flip_y: bool
    flip_x: bool
    gain: float
    read_noise: float
    saturation: float

    @property
    def turn(self) -> tuple[slice, slice]:
        """Return what turns the data section into the orientation of the trimmed detector."""
        return slice(None, None, -1 if self.flip_y else 1), slice(
            None, None, -1 if self.flip_x else 1
        )


def amplifier_rows(amplifiers: xr.Dataset) -> list[Amplifier]:
    """Return the rows of an amplifier table, checked.

    Parameters
    ----------
    amplifiers : Dataset over ``amp``, or one row of it
        See the module. ``overscan_*``, ``parallel_overscan_*``, ``flip_*``, ``gain``,
        ``read_noise`` and ``saturation`` may be missing: no overscan, no flip, NaN.

    Raises
    ------
    ValueError
        If the boxes of data and trimmed detector are missing, empty or differ in shape; the
        message names the amplifiers.

    Examples
    --------
    >>> import xarray as xr
    >>> box = {"y_start": 0, "y_stop": 4, "x_start": 0, "x_stop": 6}
    >>> columns = box | {f"data_{name}": value for name, value in box.items()}
    >>> table = xr.Dataset({name: ("amp", [value]) for name, value in columns.items()})
    >>> amplifier_rows(table.assign_coords(amp=["A"]))[0].data.shape
    (4, 6)
    """
    if v.AMP not in amplifiers.dims:
        amplifiers = amplifiers.expand_dims(v.AMP)
    size = amplifiers.sizes[v.AMP]
    names = amplifiers[v.AMP].values if v.AMP in amplifiers.coords else np.arange(size)
    columns: dict[str, NDArray[Any]] = {str(k): a.values for k, a in amplifiers.items()}
    missing = [n for p in ("data_", "") for n in _sides(p) if n not in columns]
    if missing:
        raise ValueError(f"the amplifier table lacks {', '.join(missing)}")
    empty = np.zeros(size, np.int64)
    nan = np.full(size, np.nan)
    boxes = {
        prefix: [
            Box(*(int(side) for side in sides))
            for sides in zip(*(columns.get(n, empty) for n in _sides(prefix)), strict=True)
        ]
        for prefix in ("data_", "overscan_", "parallel_overscan_", "")
    }
    rows = [
        Amplifier(
            str(names[i]),
            boxes["data_"][i],
            boxes["overscan_"][i],
            boxes["parallel_overscan_"][i],
            boxes[""][i],
            bool(columns.get("flip_y", empty)[i]),
            bool(columns.get("flip_x", empty)[i]),
            float(columns.get("gain", nan)[i]),
            float(columns.get("read_noise", nan)[i]),
            float(columns.get("saturation", nan)[i]),
        )
        for i in range(size)
    ]
    wrong = [
        f"{row.name}: data {tuple(row.data)}, trimmed {tuple(row.trimmed)}"
        for row in rows
        if row.data.size == 0 or row.data.shape != row.trimmed.shape or min(row.data) < 0
    ]
    if wrong:
        raise ValueError(
            "data sections must be non-empty and of the shape of their trimmed boxes "
            f"(y_start, y_stop, x_start, x_stop); {'; '.join(wrong)}"
        )
    return rows


def _sides(prefix: str) -> list[str]:
    return [f"{prefix}{axis}_{end}" for axis in (v.Y, v.X) for end in ("start", "stop")]


def trimmed_shape(rows: list[Amplifier]) -> tuple[int, int]:
    """Return (height, width) of the trimmed detector that the amplifiers span.

    Examples
    --------
    >>> box = Box(0, 4, 6, 12)
    >>> nan = float("nan")
    >>> trimmed_shape([Amplifier("B", box, box, box, box, False, False, nan, nan, nan)])
    (4, 12)
    """
    return max(row.trimmed.y_stop for row in rows), max(row.trimmed.x_stop for row in rows)
