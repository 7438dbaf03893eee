"""Observing conditions of visits as a table, at their boresights or all at one place of the sky."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import ObservingConditions, conditions_at

__all__ = ["CONDITION_UNITS", "conditions_of_exposures", "visit_conditions"]

CONDITION_UNITS: Final[Mapping[str, str]] = {
    "time": v.DAY,
    "exposure_time": v.SECOND,
    "altitude": v.DEGREE,
    "azimuth": v.DEGREE,
    "hour_angle": v.DEGREE,
    "parallactic_angle": v.DEGREE,
    "airmass": v.DIMENSIONLESS,
    "temperature": v.CELSIUS,
    "pressure": v.PASCAL,
    "humidity": v.PERCENTAGE,
    "longitude": v.DEGREE,
    "latitude": v.DEGREE,
    "height": v.METRE,
}
"""What is in the table, besides ``flags``; the time is TAI, at mid exposure."""
NEEDED: Final = (
    "mjd_middle",
    "right_ascension",
    "declination",
    "temperature",
    "pressure",
    "humidity",
    "site_longitude",
    "site_latitude",
    "site_height",
)


def visit_conditions(
    conditions: Mapping[int, ObservingConditions],
    place: tuple[float, float] | None = None,
) -> xr.Dataset:
    """Return the conditions of visits as a table.

    Parameters
    ----------
    conditions : mapping from visit to ObservingConditions
    place : (right ascension, declination), degree, ICRS, optional
        Where all angles and the airmass hold, for example the centre of a patch; by default the
        place of each record.

    Returns
    -------
    Dataset, (visit)
        The fields of `CONDITION_UNITS`, and ``flags`` (bits of `vocabulary.ConditionFlag`).

    Examples
    --------
    >>> from skyloom.algorithms.conditions import observing_conditions
    >>> record = observing_conditions(60000.3, 150.0, 2.0, longitude=-70.7, latitude=-30.2)
    >>> table = visit_conditions({7: record}, (150.0, 2.5))
    >>> table.altitude.dims, round(float(table.altitude[0] - record.altitude), 2)
    (('visit',), -0.34)
    """
    records = list(conditions.values())
    if place is not None:
        records = [conditions_at(record, *place) for record in records]
    columns = {
        name: (v.VISIT, np.array([getattr(record, name) for record in records]), {"units": unit})
        for name, unit in CONDITION_UNITS.items()
    }
    flags = np.array([record.flags for record in records], np.int32)
    return xr.Dataset(
        {**columns, "flags": (v.VISIT, flags, v.flag_attributes(v.ConditionFlag))},
        coords={v.VISIT: np.array(list(conditions), np.int64)},
    )


def conditions_of_exposures(table: xr.Dataset) -> dict[int, ObservingConditions]:
    """Return the conditions that a table of exposures holds, at their boresights.

    Parameters
    ----------
    table : Dataset, (exposure)
        As ingest keeps it: ``mjd_middle`` (TAI), pointing, weather and place of each exposure.

    Raises
    ------
    ValueError
        If some exposures have no conditions; the message names them, and what they lack.

    Examples
    --------
    >>> conditions_of_exposures(xr.Dataset(coords={"exposure": [4]}))
    Traceback (most recent call last):
        ...
    ValueError: exposures 4 have no observing conditions: mjd_middle, right_ascension, \
declination, temperature, pressure, humidity, site_longitude, site_latitude, site_height not known
    """
    numbers = table[v.EXPOSURE].values
    known = {
        name: np.asarray(table[name].values, np.float64)
        if name in table.variables
        else np.full(numbers.size, np.nan)
        for name in (*NEEDED, "exposure_time")
    }
    without = [int(n) for n, *row in zip(numbers, *(known[name] for name in NEEDED), strict=True)
               if not np.isfinite(row).all()]  # fmt: skip
    if without:
        lacking = [name for name in NEEDED if not np.isfinite(known[name]).all()]
        named = ", ".join(map(str, without[:10])) + (", …" if len(without) > 10 else "")
        raise ValueError(
            f"exposures {named} have no observing conditions: {', '.join(lacking)} not known"
        )
    flags = table["condition_flags"].values if "condition_flags" in table.variables else None
    found: dict[int, ObservingConditions] = {}
    for index, number in enumerate(numbers):
        row = {name: float(values[index]) for name, values in known.items()}
        place = row["right_ascension"], row["declination"]
        record = ObservingConditions(
            time=row["mjd_middle"],
            ut1=np.nan,
            exposure_time=row["exposure_time"],
            right_ascension=place[0],
            declination=place[1],
            boresight=place,
            azimuth=np.nan,
            altitude=np.nan,
            airmass=np.nan,
            earth_rotation_angle=np.nan,
            longitude=row["site_longitude"],
            latitude=row["site_latitude"],
            height=row["site_height"],
            hour_angle=np.nan,
            parallactic_angle=np.nan,
            temperature=row["temperature"],
            pressure=row["pressure"],
            humidity=row["humidity"],
            flags=0 if flags is None else int(flags[index]),
        )
        found[int(number)] = conditions_at(record, *place)
    return found
