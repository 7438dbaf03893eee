"""Exposures of a plan at times when their field really has the airmass that was planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import ObservingConditions, observing_conditions
from skyloom.algorithms.simulate.night_parameters import SiteParameters
from skyloom.algorithms.simulate.truth import generator

__all__ = ["schedule_plan"]

TURN_PER_DAY: Final = 360.98564736629
SEEING_POWER: Final = 0.6
"""The seeing goes with this power of the airmass."""


def schedule_plan(
    plan: xr.Dataset,
    *,
    hour_angles: Sequence[float] | None = None,
    seed: int = 0,
    parameters: SiteParameters | None = None,
) -> xr.Dataset:
    """Give the exposures of the sky a place on the Earth and times to match their airmass.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `night_plan` returns.
    hour_angles : sequence of float, degree, optional
        Hour angle of each exposure of the sky at its middle; by default the one at which it has the
        planned airmass, or the lowest there is, east or west of the meridian as chance has it.
    seed : int
        Seed of the whole simulation.
    parameters : SiteParameters, optional
        Where the observatory is.

    Returns
    -------
    Dataset, (exposure)
        The plan with new ``mjd_start`` (UTC), ``airmass``, ``altitude``, ``hour_angle`` and
        ``parallactic_angle``, at mid exposure and at the boresight, and with ``seeing`` and
        ``transparency`` of the new airmass, its ``zero_point`` (AB magnitude of one electron per
        second), and the attribute ``site``.

    Raises
    ------
    ValueError
        If the number of hour angles is not that of the exposures of the sky, or a field is below
        5 degree of altitude then.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import night_plan
    >>> plan = night_plan(biases=0, darks=0, flats=0, science=2, centre=(150.0, -30.0))
    >>> found = schedule_plan(plan, hour_angles=[-30.0, 30.0])
    >>> found.hour_angle.values.round(3).tolist(), found.airmass.values.round(1).tolist()
    ([-30.0, 30.0], [1.1, 1.1])
    """
    site = parameters or SiteParameters()
    sky = np.flatnonzero(np.isfinite(plan["right_ascension"].to_numpy()))
    if hour_angles is not None and len(hour_angles) != sky.size:
        raise ValueError(
            f"hour_angles must be one for each of {sky.size} exposures of the sky, got "
            f"{len(hour_angles)}"
        )
    names = ("mjd_start", "airmass", "altitude", "hour_angle", "parallactic_angle", "seeing",
             "transparency", "zero_point")  # fmt: skip
    columns = {name: plan[name].to_numpy().astype(np.float64) for name in names}
    night = float(plan["mjd_start"][0])
    for number, index in enumerate(sky):
        row = plan.isel({v.EXPOSURE: int(index)})
        rng = generator(seed, "schedule", int(row[v.EXPOSURE]))
        wanted = (
            _hour_angle(row, site) * (1 if rng.random() < 0.5 else -1)
            if hour_angles is None
            else float(hour_angles[number])
        )
        start, found = _time(row, night + number * site.one_a_night, wanted, site)
        if not found.altitude >= 5.0:
            raise ValueError(
                f"exposure {int(row[v.EXPOSURE])} has an altitude of {found.altitude:.1f} degree "
                f"at an hour angle of {wanted:.1f} degree"
            )
        ratio = found.airmass / float(row["airmass"])
        dimming = site.extinction * (found.airmass - float(row["airmass"]))
        columns["mjd_start"][index] = start
        for name in ("airmass", "altitude", "hour_angle", "parallactic_angle"):
            columns[name][index] = getattr(found, name)
        columns["seeing"][index] *= ratio**SEEING_POWER
        columns["transparency"][index] *= 10 ** (-0.4 * dimming)
        through = 2.5 * np.log10(columns["transparency"][index])
        columns["zero_point"][index] = site.zero_point + through
    made = plan.assign(
        {name: (v.EXPOSURE, values, dict(plan[name].attrs)) for name, values in columns.items()}
    )
    place = {name: getattr(site, name) for name in ("longitude", "latitude", "height")}
    return made.assign_attrs(site=place)


def _hour_angle(row: xr.Dataset, site: SiteParameters) -> float:
    """Return the hour angle (degree) at which a field has its airmass, nearly."""
    up, phi = np.deg2rad([float(row["declination"]), site.latitude])
    cosine = 1.0 / float(row["airmass"]) - np.sin(up) * np.sin(phi)
    return float(np.rad2deg(np.arccos(np.clip(cosine / (np.cos(up) * np.cos(phi)), -1, 1))))


def _time(
    row: xr.Dataset, night: float, wanted: float, site: SiteParameters
) -> tuple[float, ObservingConditions]:
    """Return when an exposure starts that has an hour angle in its middle, and what it sees."""
    half = 0.5 * float(row["exposure_time"]) / 86400.0
    start = night
    for step in range(3):
        found = observing_conditions(
            start + half,
            float(row["right_ascension"]),
            float(row["declination"]),
            longitude=site.longitude,
            latitude=site.latitude,
            height=site.height,
            scale="utc",
            temperature=float(row["temperature"]),
            pressure=float(row["pressure"]),
            humidity=float(row["humidity"]),
        )
        turn = (wanted - found.hour_angle) % 360.0
        if step:
            turn = (turn + 180.0) % 360.0 - 180.0
        if step < 2:
            start += turn / TURN_PER_DAY
    return start, found
