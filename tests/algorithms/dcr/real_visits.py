"""When and where real telescopes pointed, in which air; and what colours that leaves knowable."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.conditions import observing_conditions
from skyloom.algorithms.dcr import Band, displacement
from skyloom.algorithms.dcr.geometry import dispersion
from skyloom.algorithms.dcr.shifts import subband_nodes
from skyloom.algorithms.visit_conditions import visit_conditions
from tests.algorithms.dcr.analytic import SIGMA

Floats = NDArray[np.float64]

MAUNA_KEA = {"longitude": -155.476667, "latitude": 19.825556, "height": 4139.0}
COSMOS = (150.2, 2.2)
HYPER_SUPRIME_CAM = {
    # What the headers of four exposures of COSMOS through HSC-Z say: middle of the exposure (MJD,
    # TAI), exposure time (s), pointing (degree), temperature (Celsius), pressure (Pa), humidity
    # (%), altitude (degree) and airmass at its start.
    1176: (56744.2841507, 270.0, 150.127087, 2.209981, -0.8, 62120.0, 42.5, 64.633688, 1.106472),
    17900: (57038.5318354, 300.0, 150.118767, 2.205844, 4.0, 62260.0, 6.9, 72.294376, 1.049626),
    17930: (57038.5767235, 300.0, 150.290825, 2.197789, 4.9, 62250.0, 5.4, 66.017255, 1.094292),
    17934: (57038.5847584, 300.0, 150.124037, 2.156131, 4.8, 62260.0, 5.7, 63.873216, 1.113562),
}  # fmt: skip
HSC_Z = Band(name="z", lambda_min=850.0, lambda_max=932.0, lambda_ref=891.0)
HSC_PIXEL = 0.168

DECAM_TABLE = Path(__file__).parents[2] / "data" / "decam_visits" / "decam_visit_geometry.csv"
CERRO_TOLOLO = {"longitude": -70.81489, "latitude": -30.16606, "height": 2215.0}
DECAM_PIXEL = 0.2637


def hsc_records() -> dict[int, Any]:
    """Return the conditions of the exposures at their boresights."""
    return {
        visit: observing_conditions(
            middle, ra, dec, **MAUNA_KEA, exposure_time=time, temperature=air[0],
            pressure=air[1], humidity=air[2],
        )
        for visit, (middle, time, ra, dec, *air, _, _) in HYPER_SUPRIME_CAM.items()
    }  # fmt: skip


def hsc_visits() -> xr.Dataset:
    """Return the conditions of the exposures in the middle of COSMOS, (visit)."""
    return visit_conditions(hsc_records(), COSMOS)


def decam_visits() -> xr.Dataset:
    """Return the conditions of twelve real exposures of DECam as if they were of one field."""
    records = {}
    for row in csv.DictReader(DECAM_TABLE.read_text().splitlines()):
        hours, minutes, seconds = (float(part) for part in row["telra"].split(":"))
        degrees, arcmin, arcsec = (float(part) for part in row["teldec"].lstrip("-").split(":"))
        sign = -1.0 if row["teldec"].startswith("-") else 1.0
        records[int(row["expnum"])] = observing_conditions(
            float(row["mjd_obs_start"]) + 0.5 * float(row["exptime_s"]) / 86400.0,
            15.0 * (hours + minutes / 60 + seconds / 3600),
            sign * (degrees + arcmin / 60 + arcsec / 3600),
            **CERRO_TOLOLO, scale="utc", temperature=float(row["outtemp_C"]),
            pressure=100.0 * float(row["pressure_torr"]), humidity=float(row["humidity_pct"]),
        )  # fmt: skip
    names = ("altitude", "parallactic_angle", "temperature", "pressure", "humidity", "latitude",
             "height")  # fmt: skip
    table = {name: ("visit", [getattr(one, name) for one in records.values()]) for name in names}
    return xr.Dataset(table, {"visit": list(records)})


def fisher_sigma(
    band: Band, table: xr.Dataset, jacobian: Floats, fwhm: float, *, subfilters: int = 3,
    side: int = 48,
) -> float:  # fmt: skip
    """Return the error of the first moment of a star of S/N 100 by its whole Fisher matrix.

    Fluxes of sub-bands and both coordinates are free; noise is that of the sky alone.
    """
    nodes, weights = subband_nodes(band, subfilters)
    lifted = (dispersion(band, table, nodes) * weights).sum(axis=-1)
    towards = displacement(table, jacobian)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2.0
    sigma = fwhm * SIGMA
    rows, total = [], 0.0
    for own, vector in zip(lifted, towards, strict=True):
        parts = []
        for one in own:
            dy, dx = one * vector
            parts.append(
                np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
            )
        star = np.mean(parts, axis=0)
        moved = [np.gradient(star, axis=axis) for axis in (0, 1)]
        rows.append(np.stack([*parts, *moved]).reshape(subfilters + 2, -1))
        total += float((star**2).sum())
    design = np.concatenate(rows, axis=1)
    fisher = design @ design.T * (100.0**2 / total)
    covariance = np.linalg.inv(fisher)[:subfilters, :subfilters]
    slope = (np.arange(subfilters) - (subfilters - 1) / 2.0) / subfilters
    return float(np.sqrt(slope @ covariance @ slope))
