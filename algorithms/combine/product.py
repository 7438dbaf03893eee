"""A combined frame as a dataset that says what it was made of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.combine.core import Frame
from skyloom.algorithms.combine.holes import percentiles
from skyloom.algorithms.combine.inputs import Exposures
from skyloom.algorithms.units import squared_units

__all__ = ["product_of"]

PERCENTS = np.array([0.0, 5.0, 16.0, 50.0, 84.0, 95.0, 100.0])


def product_of(
    frame: Frame,
    exposures: Exposures,
    scales: NDArray[np.float64],
    amplifiers: Sequence[Amplifier],
    *,
    kind: str,
    units: str,
    exposure_time: float,
) -> xr.Dataset:
    """Return a combined frame as a dataset that says what it was made of."""
    dims = (v.Y, v.X)
    about = exposures.about
    own = {v.EXPOSURE, "exposure_time", "dark_time", "mjd_start", "observation_type"}
    columns: dict[str, Any] = {}
    for name in about.coords:
        if name != v.EXPOSURE:
            values = about[name]
            columns[f"input_{name}"] = (v.INPUT, values.values, dict(values.attrs))
    for name in own & set(exposures.coords):
        constant = np.broadcast_to(exposures.coords[name].values, exposures.labels.shape)
        columns[f"input_{name}"] = (v.INPUT, constant, dict(exposures.coords[name].attrs))
    scale_units = {"units": _ratio(exposures.units, units)}
    per_amplifier = scales.shape[1] > 1
    columns["input_scale"] = (
        (v.INPUT, v.AMP) if per_amplifier else v.INPUT,
        scales if per_amplifier else scales[:, 0],
        scale_units,
    )
    areas = [row.trimmed.slices for row in amplifiers] or [(slice(None), slice(None))]
    no_data, bad_bit = v.MASK_PLANES["NO_DATA"], v.MASK_PLANES["BAD"]
    spread = np.array(
        [
            percentiles(frame.image[area][(frame.mask[area] & no_data) == 0], PERCENTS)
            for area in areas
        ]
    )
    bad = np.array([np.count_nonzero(frame.mask[area] & bad_bit) for area in areas])
    over_amps = bool(amplifiers)
    columns["percentiles"] = (
        (v.AMP, v.PERCENT) if over_amps else v.PERCENT,
        spread if over_amps else spread[0],
        {"units": units},
    )
    columns["bad_count"] = (v.AMP if over_amps else (), bad if over_amps else bad[0])
    coords: dict[Hashable, Any] = {
        name: coord for name, coord in exposures.coords.items() if name not in own
    }
    coords |= {v.INPUT: exposures.labels, v.PERCENT: PERCENTS}
    if over_amps:
        coords[v.AMP] = [row.name for row in amplifiers]
    coords["observation_type"] = kind
    coords["exposure_time"] = ((), exposure_time, {"units": v.SECOND})
    coords |= _times(about, exposures)
    return xr.Dataset(
        {
            "image": (dims, frame.image, {"units": units}),
            "variance": (dims, frame.variance, {"units": squared_units(units)}),
            v.MASK: (dims, frame.mask, v.mask_attributes()),
            "count": (dims, frame.count, {"units": v.DIMENSIONLESS}),
            "rejected_count": (dims, frame.rejected, {"units": v.DIMENSIONLESS}),
            **columns,
        },
        coords=coords,
        attrs=exposures.attrs,
    )


def _ratio(units: str, result: str) -> str:
    """Return the unit of what exposures were divided by."""
    if result == v.DIMENSIONLESS:
        return units
    return v.SECOND if result == f"{units}/{v.SECOND}" else v.DIMENSIONLESS


def _times(about: xr.Dataset, exposures: Exposures) -> dict[Hashable, Any]:
    """Return start, middle and end of all exposures, days, as far as they are known."""
    starts = about.get("mjd_start", exposures.coords.get("mjd_start"))
    if starts is None:
        return {}
    lengths = about.get("exposure_time", exposures.coords.get("exposure_time", 0.0))
    ends = np.asarray(starts, np.float64) + np.nan_to_num(np.asarray(lengths)) / 86400.0
    start, end = float(np.min(np.asarray(starts))), float(np.max(ends))
    day = {"units": v.DAY}
    return {
        "mjd_start": ((), start, day),
        "mjd_middle": ((), 0.5 * (start + end), day),
        "mjd_end": ((), end, day),
    }
