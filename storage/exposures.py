"""The exposures of a store, as their ingest records tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.storage.headers import TEXTS, UNITS
from skyloom.storage.layout import Layout
from skyloom.storage.projections import SKY_CORNERS
from skyloom.storage.records import Record

__all__ = ["exposure_table", "sky_corner_table"]


def exposure_table(records: Mapping[str, Record], layout: Layout) -> xr.Dataset:
    """Return what is known of each exposure.

    Parameters
    ----------
    records : mapping of str to Record
        The ingest records.
    layout : Layout
        Layout of the raw product.

    Returns
    -------
    Dataset
        Over ``exposure``, sorted by id and without those of which no detector was ingested:
        one coordinate per mapped header value that is the same for the whole exposure (that
        of the first detector ingested); ``available (exposure, detector)`` says which
        detectors are there.
    """
    headers: dict[int, Mapping[str, Any]] = {}
    detectors = list(layout.labels[v.DETECTOR])
    present: dict[int, set[str]] = {}
    for record in sorted(records.values(), key=lambda record: record.stamp):
        if record.done and {v.EXPOSURE, v.DETECTOR} == set(record.block):
            exposure = int(record.block[v.EXPOSURE])
            headers.setdefault(exposure, record.headers)
            present.setdefault(exposure, set()).add(str(record.block[v.DETECTOR]))
    exposures = list(layout.labels[v.EXPOSURE])
    names = dict.fromkeys(
        name
        for found in headers.values()
        for name, value in found.items()
        if not isinstance(value, dict | list) and name not in (v.EXPOSURE, v.DETECTOR)
    )
    coords: dict[str, Any] = {v.EXPOSURE: exposures, v.DETECTOR: detectors}
    for name in names:
        values = [headers.get(int(exposure), {}).get(name) for exposure in exposures]
        units = {"units": UNITS[name]} if name in UNITS else {}
        coords[name] = (v.EXPOSURE, _column(values, text=name in TEXTS), units)
    available = np.array(
        [[name in present.get(int(exposure), ()) for name in detectors] for exposure in exposures],
        bool,
    ).reshape(len(exposures), len(detectors))
    return xr.Dataset({"available": ((v.EXPOSURE, v.DETECTOR), available)}, coords=coords)


def sky_corner_table(records: Mapping[str, Record], layout: Layout) -> xr.Dataset:
    """Return where the detectors of each exposure lie on the sky.

    Parameters
    ----------
    records : mapping of str to Record
        The ingest records.
    layout : Layout
        Layout of the raw product.

    Returns
    -------
    Dataset, (exposure, detector, corner)
        ``right_ascension`` and ``declination`` (degree) of the four corners, once around; NaN
        where a detector was not ingested or its file has no world coordinate system.
    """
    exposures, detectors = (list(layout.labels[dim]) for dim in (v.EXPOSURE, v.DETECTOR))
    rows = {label: index for index, label in enumerate(exposures)}
    columns = {label: index for index, label in enumerate(detectors)}
    corners = np.full((len(exposures), len(detectors), 4, 2), np.nan)
    for record in sorted(records.values(), key=lambda record: record.stamp):
        found = record.headers.get(SKY_CORNERS)
        if record.done and found is not None:
            place = rows[record.block[v.EXPOSURE]], columns[record.block[v.DETECTOR]]
            corners[place] = np.array(found, np.float64)  # None becomes NaN
    dims = (v.EXPOSURE, v.DETECTOR, "corner")
    return xr.Dataset(
        {
            name: (dims, corners[..., axis], {"units": v.DEGREE})
            for axis, name in enumerate(("right_ascension", "declination"))
        },
        coords={v.EXPOSURE: exposures, v.DETECTOR: detectors},
    )


def _column(values: list[Any], *, text: bool) -> np.ndarray[Any, Any]:
    """Return values as floats with NaN, or as text with "" where there is none."""
    if text or any(isinstance(value, str) for value in values):
        return np.array(["" if value is None else str(value) for value in values])
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)
