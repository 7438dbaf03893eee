"""Conditions of visits in a table are those of each, wherever they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.conditions import conditions_at, observing_conditions
from skyloom.algorithms.visit_conditions import (
    CONDITION_UNITS,
    conditions_of_exposures,
    visit_conditions,
)

PLACE = {"longitude": -70.749417, "latitude": -30.244639, "height": 2663.0}
WEATHER = {"temperature": 8.0, "pressure": 73892.0, "humidity": 40.0}
RECORDS = {
    number: observing_conditions(
        60000.2 + 0.03 * number, 150.0, -30.0 + number, **PLACE, **WEATHER, exposure_time=30.0
    )
    for number in (3, 7)
}


def exposures() -> xr.Dataset:
    columns = {
        "mjd_middle": [record.time for record in RECORDS.values()],
        "exposure_time": [30.0, 30.0],
        "right_ascension": [150.0, 150.0],
        "declination": [-27.0, -23.0],
        "condition_flags": [16.0, 0.0],
    }
    columns |= {name: [value] * 2 for name, value in WEATHER.items()}
    columns |= {f"site_{name}": [value] * 2 for name, value in PLACE.items()}
    return xr.Dataset(
        coords={"exposure": [3, 7]} | {name: ("exposure", c) for name, c in columns.items()}
    )


def test_a_table_has_the_conditions_of_each_visit_at_its_boresight_or_at_one_place() -> None:
    table = visit_conditions(RECORDS)
    there = visit_conditions(RECORDS, (150.5, -29.0))
    for index, record in enumerate(RECORDS.values()):
        for name, unit in CONDITION_UNITS.items():
            assert float(table[name][index]) == getattr(record, name)
            assert table[name].attrs["units"] == unit
        moved = conditions_at(record, 150.5, -29.0)
        assert float(there["parallactic_angle"][index]) == moved.parallactic_angle
    assert table["visit"].values.tolist() == [3, 7]


def test_the_table_of_exposures_gives_the_same_conditions() -> None:
    given = exposures()
    before = given.copy(deep=True)
    found = conditions_of_exposures(given)
    xr.testing.assert_identical(given, before)
    assert [found[n].flags for n in (3, 7)] == [16, 0]
    for number, record in RECORDS.items():
        for name in ("altitude", "azimuth", "hour_angle", "parallactic_angle", "ut1", "airmass"):
            assert getattr(found[number], name) == getattr(record, name)


def test_exposures_without_conditions_are_named() -> None:
    table = exposures()
    broken = table.assign_coords(site_longitude=("exposure", [np.nan, -70.7]))
    with pytest.raises(
        ValueError, match="exposures 3 have no observing conditions: site_longitude"
    ):
        conditions_of_exposures(broken)
