"""Raw frames made from what detrending has to find, with plain numpy."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape


def calibration(image, units, *, variance=None, mask=None, **told):
    """Return a calibration of detector R0."""
    data = {"image": (("y", "x"), np.asarray(image, np.float32), {"units": units})}
    if variance is not None:
        data["variance"] = (("y", "x"), np.asarray(variance, np.float32))
    if mask is not None:
        data["mask"] = (("y", "x"), np.asarray(mask, np.int32))
    return xr.Dataset(data, attrs={"detector": "R0"} | told)


def read_out(adu, table, level=1000.0, dtype=np.float32, shape=None, **coordinates):
    """Return the raw frame of a trimmed image in adu, with a bias level in data and overscan."""
    rows = amplifier_rows(table)
    boxes = [box for row in rows for box in (row.data, row.overscan, row.parallel_overscan)]
    size = shape or (max(box.y_stop for box in boxes), max(box.x_stop for box in boxes))
    raw = np.zeros(size)
    raw += level
    for row in rows:
        raw[row.data.slices] += adu[row.trimmed.slices][row.turn]
    values = np.rint(raw).astype(dtype) if np.dtype(dtype).kind in "iu" else raw.astype(dtype)
    return xr.Dataset(
        {"image": (("y", "x"), values, {"units": "adu"})},
        coords={"detector": "R0", "exposure_time": 10.0, "exposure": 3} | coordinates,
    )


def plane_of_amplifiers(table, values):
    """Return a trimmed image that holds one value in each amplifier."""
    rows = amplifier_rows(table)
    plane = np.full(trimmed_shape(rows), np.nan)
    for row, value in zip(rows, values, strict=True):
        plane[row.trimmed.slices] = value
    return plane
