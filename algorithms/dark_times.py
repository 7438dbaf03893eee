"""How long frames collected dark charge: the same rule for darks and for what they are taken from.

A frame has dark charge of its dark time, or, where that is not known, of its exposure time and a
constant overhead, for which the detector waits to be read.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v

__all__ = ["OVERHEAD", "dark_overhead", "dark_times"]

OVERHEAD = "dark_overhead"
"""Coordinate of a dark frame: the overhead that its own dark times were found with, s."""


def dark_times(frames: xr.Dataset, overhead: float = 0.0) -> xr.DataArray:
    """Return the dark time of every frame.

    Parameters
    ----------
    frames : Dataset
        With ``dark_time`` or ``exposure_time`` (s), over any dimensions or none.
    overhead : float, s
        Dark time beyond the exposure time, for frames whose dark time is not known.

    Returns
    -------
    DataArray, float64, s
        Without coordinates; NaN where neither time is a finite number.

    Raises
    ------
    ValueError
        If the frames have neither time, or the overhead is negative or not finite.

    Examples
    --------
    >>> times = {"exposure_time": ("exposure", [10.0, 20.0])}
    >>> frames = xr.Dataset(coords=times | {"dark_time": ("exposure", [np.nan, 23.0])})
    >>> dark_times(frames, overhead=2.0).values.tolist()
    [12.0, 23.0]
    """
    if not 0.0 <= overhead < np.inf:
        raise ValueError(f"overhead must be a finite number of seconds from 0, got {overhead}")
    found: xr.DataArray | None = None
    for name, more in (("dark_time", 0.0), ("exposure_time", overhead)):
        if name in frames.coords or name in frames:
            time = frames[name].drop_vars([*frames[name].coords]).astype(np.float64) + more
            time = time.where(np.isfinite(time))
            found = time if found is None else found.fillna(time)
    if found is None:
        raise ValueError("the frames have no dark_time or exposure_time (s)")
    return found.assign_attrs(units=v.SECOND)


def dark_overhead(dark: xr.Dataset, given: float | None = None) -> float:
    """Return the overhead that a dark is to be scaled with, s: the given one, or the dark's own.

    Examples
    --------
    >>> dark = xr.Dataset(coords={"dark_overhead": 2.5})
    >>> dark_overhead(dark), dark_overhead(dark, 0.0), dark_overhead(xr.Dataset())
    (2.5, 0.0, 0.0)
    """
    if given is not None:
        return given
    own = float(dark.coords[OVERHEAD]) if OVERHEAD in dark.coords else 0.0
    return own if np.isfinite(own) else 0.0
