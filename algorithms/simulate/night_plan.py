"""What is exposed in a simulated night, and under which conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.simulate.night_parameters import PlanParameters
from skyloom.algorithms.simulate.truth import generator
from skyloom.algorithms.tangent_plane import from_tangent_plane

__all__ = ["night_plan"]

PLAN_UNITS: Final[Mapping[str, str]] = {
    "exposure_time": v.SECOND,
    "dark_time": v.SECOND,
    "mjd_start": v.DAY,
    "right_ascension": v.DEGREE,
    "declination": v.DEGREE,
    "rotator_angle": v.DEGREE,
    "airmass": v.DIMENSIONLESS,
    "altitude": v.DEGREE,
    "hour_angle": v.DEGREE,
    "parallactic_angle": v.DEGREE,
    "temperature": v.CELSIUS,
    "pressure": v.PASCAL,
    "humidity": v.PERCENTAGE,
    "seeing": v.ARCSECOND,
    "transparency": v.DIMENSIONLESS,
    "zero_point": v.MAGNITUDE,
    "level": v.ELECTRON,
    "flux": v.ELECTRON_PER_SECOND,
    "gradient_x": v.PER_MILLIMETRE,
    "gradient_y": v.PER_MILLIMETRE,
    "curvature": v.PER_MILLIMETRE2,
}
OF_THE_SKY: Final = (
    "right_ascension",
    "declination",
    "rotator_angle",
    "airmass",
    "altitude",
    "hour_angle",
    "parallactic_angle",
    "temperature",
    "pressure",
    "humidity",
    "seeing",
    "zero_point",
)
WHOLE: Final = ("satellites", "seed")


def night_plan(
    filters: Sequence[str] = ("r",),
    *,
    biases: int = 5,
    darks: int = 3,
    flats: int = 4,
    science: int = 8,
    flat_levels: Sequence[float] = (3e4,),
    centre: tuple[float, float] = (150.0, 2.0),
    first_exposure: int = 1,
    mjd_start: float = 60000.0,
    seed: int = 0,
    parameters: PlanParameters | None = None,
) -> xr.Dataset:
    """Plan a night: biases, darks, dome flats of each filter, then dithered exposures of a field.

    Parameters
    ----------
    filters : sequence of str
        Physical filters.
    biases, darks : int
        Exposures of the night.
    flats, science : int
        Exposures of each filter. The filters of science exposures alternate.
    flat_levels : sequence of float, electron
        Mean signals of flats; the flats of a filter go through them in turn.
    centre : (float, float), degree
        Right ascension and declination of the field.
    first_exposure : int
        Number of the first exposure.
    mjd_start : float, d
        Start of the first exposure.
    seed : int
        Seed of the whole simulation.
    parameters : PlanParameters, optional
        Exposure times, sky levels, dithers, conditions.

    Returns
    -------
    Dataset, (exposure)
        ``observation_type``, ``physical_filter`` ("" where there is no light),
        ``exposure_time``, ``dark_time`` (s), ``mjd_start`` (d), ``right_ascension``,
        ``declination``, ``rotator_angle`` (degree), ``airmass``, ``altitude``, ``hour_angle``,
        ``parallactic_angle`` (degree, NaN: `schedule_plan` gives the plan a place on the Earth),
        ``temperature`` (Celsius), ``pressure`` (Pa), ``humidity`` (%), ``seeing`` (FWHM, arcsec),
        ``transparency`` (1 outside the atmosphere), ``zero_point`` (NaN, as nobody measured it),
        ``level`` (electron: the true sky or lamp light
        where response is 1, at the centre of the focal plane), ``flux`` (electron/s: the lamp as it
        was meant to be), ``gradient_x``, ``gradient_y`` (1/mm) and ``curvature`` (1/mm2) of the
        light over the focal plane, ``satellites`` (number of trails) and ``seed``. What an exposure
        does not have is NaN (pointing and conditions without sky) or 0 (light). Any value may
        be changed before frames are made.

    Raises
    ------
    ValueError
        If a number of exposures is negative, there is no exposure, filters repeat or are empty, a
        level is not positive and finite, or limits are in the wrong order.

    Examples
    --------
    >>> plan = night_plan(["g", "r"], biases=1, darks=1, flats=1, science=2, seed=1)
    >>> plan.observation_type.values.tolist()
    ['bias', 'dark', 'flat', 'flat', 'science', 'science', 'science', 'science']
    >>> plan.physical_filter.values[2:].tolist()
    ['g', 'r', 'g', 'r', 'g', 'r']
    """
    parameters = parameters or PlanParameters()
    _check(filters, (biases, darks, flats, science), flat_levels, parameters)
    rows = [_row(v.BIAS)] * biases
    time = parameters.dark_exposure_time
    rows += [_row(v.DARK, exposure_time=time, dark_time=time + parameters.dark_overhead)] * darks
    number = first_exposure + len(rows)
    for name in filters:
        for index in range(flats):
            level = float(flat_levels[index % len(flat_levels)])
            rows.append(_flat(name, level, generator(seed, "night", number), parameters))
            number += 1
    for _ in range(science):
        for name in filters:
            rows.append(_science(name, centre, generator(seed, "night", number), parameters))
            number += 1
    numbers = first_exposure + np.arange(len(rows), dtype=np.int64)
    table = {name: [row[name] for row in rows] for name in rows[0]}
    dark = np.array(table["dark_time"], dtype=np.float64)
    begun = np.concatenate([[0.0], np.cumsum(dark + parameters.overhead)])[:-1]
    columns: dict[str, Any] = {
        name: (v.EXPOSURE, np.array(values, dtype=str if name in _TEXTS else np.float64))
        for name, values in table.items()
    }
    columns["mjd_start"] = (v.EXPOSURE, mjd_start + begun / 86400)
    columns["satellites"] = (v.EXPOSURE, np.array(table["satellites"], dtype=np.int64))
    seeds = [int(generator(seed, "exposure", int(n)).integers(2**62)) for n in numbers]
    columns["seed"] = (v.EXPOSURE, np.array(seeds, dtype=np.int64))
    plan = xr.Dataset(columns, coords={v.EXPOSURE: numbers})
    for name, unit in {**PLAN_UNITS, **dict.fromkeys(WHOLE, v.DIMENSIONLESS)}.items():
        plan[name].attrs["units"] = unit
    return plan


_TEXTS: Final = ("observation_type", v.FILTER)


def _check(
    filters: Sequence[str],
    numbers: Sequence[int],
    levels: Sequence[float],
    parameters: PlanParameters,
) -> None:
    problems = []
    if min(numbers) < 0 or not sum(numbers):
        problems.append(f"numbers of exposures must be >= 0 and not all 0, got {list(numbers)}")
    lit = numbers[2] or numbers[3]
    if isinstance(filters, str) or len(set(filters)) < len(filters) or (lit and not filters):
        problems.append(f"filters must be different names, got {filters!r}")
    good = np.isfinite(levels) & (np.asarray(levels) > 0)
    if not len(levels) or not np.all(good):
        problems.append(f"flat_levels must be positive and finite, got {list(levels)}")
    for low, high in (("faintest_sky", "brightest_sky"), ("lowest_airmass", "highest_airmass")):
        if getattr(parameters, low) > getattr(parameters, high):
            problems.append(
                f"{low} {getattr(parameters, low)} is above {high} {getattr(parameters, high)}"
            )
    if problems:
        raise ValueError("; ".join(problems))


def _row(kind: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"observation_type": kind, v.FILTER: ""}
    row |= dict.fromkeys(PLAN_UNITS, 0.0)
    row |= dict.fromkeys((*OF_THE_SKY, "transparency", "flux"), np.nan)
    return row | {"satellites": 0} | values


def _flat(
    name: str, level: float, rng: np.random.Generator, parameters: PlanParameters
) -> dict[str, Any]:
    time = level / parameters.flat_flux
    lamp, slope_x, slope_y = rng.standard_normal(3)
    gradient = parameters.flat_gradient / parameters.field_radius
    return _row(
        v.FLAT,
        physical_filter=name,
        exposure_time=time,
        dark_time=time + parameters.dark_overhead,
        level=level * (1 + parameters.flat_mismatch * lamp),
        flux=parameters.flat_flux,
        gradient_x=gradient * slope_x,
        gradient_y=gradient * slope_y,
    )


def _science(
    name: str, centre: tuple[float, float], rng: np.random.Generator, parameters: PlanParameters
) -> dict[str, Any]:
    time = parameters.science_exposure_time
    limits = np.log([parameters.faintest_sky, parameters.brightest_sky])
    level = float(np.exp(rng.uniform(*limits)))
    slope_x, slope_y, bend, east, north, turn, blur = rng.standard_normal(7)
    ra, dec = from_tangent_plane(
        parameters.dither / 3600 * east, parameters.dither / 3600 * north, *centre
    )
    airmass = float(rng.uniform(parameters.lowest_airmass, parameters.highest_airmass))
    cloud = parameters.cloud * float(rng.standard_exponential())
    dimming = parameters.extinction * airmass + cloud
    gradient = parameters.sky_gradient / parameters.field_radius
    return _row(
        v.SCIENCE,
        physical_filter=name,
        exposure_time=time,
        dark_time=time + parameters.dark_overhead,
        right_ascension=float(ra),
        declination=float(dec),
        rotator_angle=parameters.rotation + parameters.rotation_spread * turn,
        airmass=airmass,
        temperature=parameters.temperature,
        pressure=parameters.pressure,
        humidity=parameters.humidity,
        seeing=parameters.seeing * airmass**0.6 * np.exp(parameters.seeing_spread * blur),
        transparency=10 ** (-0.4 * dimming),
        level=level,
        gradient_x=gradient * slope_x,
        gradient_y=gradient * slope_y,
        curvature=parameters.sky_curvature / parameters.field_radius**2 * bend,
        satellites=int(rng.poisson(parameters.satellite_rate)),
    )
