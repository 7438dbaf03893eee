"""From raw pixels to signal, one amplifier at a time: overscan, offset, trim, saturation.

Raw images are (y, x) in adu and in the dtype of the file; results are float32 adu, in the
orientation of the trimmed detector. Saturated pixels get the mask plane SAT, pixels that hold no
number (NaN, infinity, the lowest number of a signed integer dtype) NO_DATA; their values stay
what the subtraction makes of them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows
from skyloom.algorithms.detrend.level_kernels import keep_unsaturated, subtract_levels
from skyloom.algorithms.detrend.overscan import (
    column_levels,
    levels_of_rows,
    serial_levels,
    without_first_columns,
)
from skyloom.algorithms.detrend.saturation import saturation_level
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.pixel_arrays import native

__all__ = [
    "DetrendParameters",
    "DetrendedPixels",
    "amplifier_pixels",
    "detrend_amplifier",
    "native",
    "saturation_level",
]


class DetrendParameters(Parameters):
    """What is subtracted from raw pixels, and which of them are saturated."""

    serial: Literal["row", "level", "none"] = Field(
        "row", description="serial overscan: a level for each row, one for the amplifier, or none"
    )
    statistic: Literal["mean", "median"] = Field(
        "mean", description="how overscan pixels are averaged; mean leaves outliers out"
    )
    clip: float = Field(
        4.0, gt=0, description="overscan pixels further from the level are outliers, sigma"
    )
    serial_skip: int = Field(
        0, ge=0, description="overscan columns next to the data section that are not used"
    )
    parallel: bool = Field(
        False, description="also subtract a level for each column, from the parallel overscan"
    )
    pile_up: bool = Field(
        True, description="without a saturation level, take values that pile up at the top for it"
    )


class DetrendedPixels(NamedTuple):
    """One amplifier of one exposure as plain arrays, in the orientation it was stored in.

    ``raw`` is the array of the whole detector and ``corner`` where the data section starts; its
    shape is that of the levels. ``signal()`` makes the float32 image.
    """

    raw: NDArray[Any]
    corner: tuple[int, int]
    row_level: NDArray[np.float64]
    column_level: NDArray[np.float64]
    width: int
    saturation: float
    overscan_median: float
    overscan_noise: float
    offset: float

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.row_level.size, self.width

    @property
    def borrowed(self) -> bool:
        """Return False: images are made anew."""
        return False

    def signal(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the pixels less all levels, adu, in a new array or in one of the same shape."""
        image = np.empty(self.shape, np.float32) if out is None else out
        subtract_levels(self.raw, self.corner, self.row_level, self.column_level, image)
        return image

    def restrict(self, good: NDArray[np.bool_]) -> int:
        """Clear ``good`` where a pixel is saturated or was not read; return how many saturated."""
        return int(
            keep_unsaturated(
                self.raw,
                self.corner,
                _never_read(self.raw.dtype),
                self.saturation,
                good.view(np.uint8),
            )
        )


def _never_read(dtype: np.dtype[Any]) -> float:
    """Return the value up to which pixels hold no number: that of unwritten signed integers."""
    return float(np.iinfo(dtype).min) if dtype.kind == "i" else -np.inf


def amplifier_pixels(
    raw: NDArray[Any],
    amplifier: Amplifier,
    *,
    parameters: DetrendParameters | None = None,
    offset: float = 0.0,
) -> DetrendedPixels:
    """Return the pixels of one amplifier and the levels to subtract from them.

    Parameters
    ----------
    raw : ndarray, (y, x), any real dtype, adu
        The detector's raw array.
    amplifier : Amplifier
        Its boxes and saturation.
    parameters : DetrendParameters, optional
    offset : float
        Level subtracted after the overscan, adu.

    Returns
    -------
    DetrendedPixels

    Raises
    ------
    ValueError
        If a box reaches beyond the array; the message names the amplifier.
    """
    parameters = parameters or DetrendParameters()
    for box in (amplifier.data, amplifier.overscan, amplifier.parallel_overscan):
        if box.size and (box.y_stop > raw.shape[0] or box.x_stop > raw.shape[1]):
            raise ValueError(
                f"amplifier {amplifier.name}: box {tuple(box)} (y_start, y_stop, x_start, x_stop) "
                f"reaches beyond the raw image of shape {raw.shape}"
            )
    raw = native(raw)
    data = amplifier.data
    rows = np.full(data.shape[0], offset)
    median, noise = np.nan, np.nan
    serial = without_first_columns(amplifier, parameters.serial_skip)
    levels = np.empty(0)
    if parameters.serial != "none" and serial.size:
        levels, median, noise = serial_levels(
            raw,
            serial,
            by_row=parameters.serial == "row",
            mean=parameters.statistic == "mean",
            clip=parameters.clip,
        )
        rows = rows + levels_of_rows(levels, serial, data.y_start, data.y_stop, median)
    columns = np.empty(0)
    box = amplifier.parallel_overscan
    if parameters.parallel and box.size:
        above = raw[box.slices].astype(np.float64)
        if levels.size:
            above -= levels_of_rows(levels, serial, box.y_start, box.y_stop, median)[:, None]
        columns = column_levels(above, box, data)
    saturation = amplifier.saturation
    if not np.isfinite(saturation):
        saturation = saturation_level(raw, data) if parameters.pile_up else np.inf
    corner = data.y_start, data.x_start
    return DetrendedPixels(
        raw, corner, rows, columns, data.shape[1], saturation, median, noise, offset
    )


def detrend_amplifier(
    raw: xr.Dataset,
    amplifier: xr.Dataset,
    *,
    parameters: DetrendParameters | None = None,
    offset: float = 0.0,
) -> xr.Dataset:
    """Return one amplifier of a raw exposure as signal above its overscan and offset.

    Each row loses the level of its serial overscan: the mean of the row's overscan pixels within
    ``clip`` sigma of their median, or that median. Rows without overscan lose the median level.

    Parameters
    ----------
    raw : Dataset
        ``image`` (y, x), any real dtype, adu: the detector's raw array. Scalar coordinates are
        kept.
    amplifier : Dataset
        One row of the amplifier table, such as ``amplifiers.sel(amp="C00")``: half-open boxes
        ``data_*``, ``overscan_*``, ``parallel_overscan_*`` in raw pixels and the trimmed box,
        ``flip_y``, ``flip_x``, and ``saturation`` (adu, NaN = found from the pile-up).
    parameters : DetrendParameters, optional
    offset : float
        Level subtracted after the overscan, adu.

    Returns
    -------
    Dataset
        ``image`` (y, x) float32 adu and ``mask`` (y, x) int32 with SAT and NO_DATA, coordinates
        ``y``, ``x`` the pixels of the trimmed detector, scalar coordinates of the exposure and
        ``amp``, ``overscan_median`` and ``overscan_noise`` (standard deviation about the row
        levels; adu, NaN without overscan), ``amp_offset`` (adu), ``saturation`` (adu).

    Raises
    ------
    ValueError
        If there is not exactly one amplifier, or a box does not fit.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = np.full((4, 8), 1000, np.uint16)
    >>> image[:, :6] = 1500
    >>> raw = xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})
    >>> table = {"data_y_start": 0, "data_y_stop": 4, "data_x_start": 0, "data_x_stop": 6}
    >>> table |= {"y_start": 0, "y_stop": 4, "x_start": 0, "x_stop": 6}
    >>> table |= {"overscan_y_start": 0, "overscan_y_stop": 4}
    >>> table |= {"overscan_x_start": 6, "overscan_x_stop": 8, "saturation": 60000.0}
    >>> signal = detrend_amplifier(raw, xr.Dataset(table))
    >>> float(signal["image"].mean()), float(signal["overscan_median"])
    (500.0, 1000.0)
    """
    rows = amplifier_rows(amplifier)
    if len(rows) != 1:
        raise ValueError(f"amplifier must be one row of the table, got {len(rows)}")
    row = rows[0]
    found = amplifier_pixels(
        raw["image"].transpose(v.Y, v.X).values, row, parameters=parameters, offset=offset
    )
    planes = np.zeros(found.shape, np.int32)
    section = found.raw[row.data.slices]
    saturated = (section >= found.saturation) & (section < np.inf)
    planes[saturated] = v.MASK_PLANES["SAT"]
    good = np.ones(found.shape, np.bool_)
    found.restrict(good)
    planes[~good & ~saturated] = v.MASK_PLANES["NO_DATA"]
    adu = {"units": v.ADU}
    scalars: dict[str, Any] = {
        "overscan_median": ((), found.overscan_median, adu),
        "overscan_noise": ((), found.overscan_noise, adu),
        "amp_offset": ((), found.offset, adu),
        "saturation": ((), found.saturation, adu),
        v.AMP: row.name,
    }
    kept = {name: c for name, c in raw.coords.items() if c.ndim == 0}
    box = row.trimmed
    return xr.Dataset(
        {
            "image": ((v.Y, v.X), found.signal()[row.turn].copy(), adu),
            v.MASK: ((v.Y, v.X), planes[row.turn].copy(), v.mask_attributes()),
        },
        coords={
            **kept,
            **scalars,
            v.Y: np.arange(box.y_start, box.y_stop),
            v.X: np.arange(box.x_start, box.x_stop),
        },
        attrs=dict(raw.attrs),
    )
