"""Tables of real measurements that lie beside the checkout, read into datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

__all__ = [
    "SHARED",
    "decam_throughputs",
    "hsc_sky_levels",
    "itl_covariances",
    "lsst_camera_pairs",
]

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PTC_TABLE = SHARED / "lsstcam-ptc-r22" / "PTC_R22_S11_C06.txt"
COVARIANCE_TABLE = SHARED / "ucd-itl-covariances" / "corr_meas_VBB60_002_08Aug17.txt"


def lsst_camera_pairs() -> xr.Dataset:
    """Return the 338 measured flat pairs of one LSST Camera amplifier, (pair, amp)."""
    rows = [
        line.split("]")[1].split()
        for line in PTC_TABLE.read_text().splitlines()
        if line.startswith("[")
    ]
    mean, variance, time, charge = np.array(rows, dtype=np.float64).T
    two = ("pair", "amp")
    return xr.Dataset(
        {
            "mean": (two, mean[:, None], {"units": "adu"}),
            "variance": (two, variance[:, None], {"units": "adu2"}),
            "exposure_time": ("pair", time, {"units": "s"}),
            "photo_charge": ("pair", charge),
        },
        coords={"amp": ["C06"]},
    )


def itl_covariances() -> NDArray[np.float64]:
    """Return the normalised covariances of an ITL sensor, (lag_y, lag_x), and their sigmas."""
    rows = [
        line.split()
        for line in COVARIANCE_TABLE.read_text().splitlines()
        if line.split() and line.split()[0].isdigit()
    ]
    table = np.zeros((2, 6, 6))
    for ii, jj, value, sigma, *_ in rows:
        table[:, int(jj), int(ii)] = float(value), float(sigma)
    return table


def hsc_sky_levels() -> xr.DataArray:
    """Return the sky levels of 103 detectors of Hyper Suprime-Cam, (detector, exposure).

    Four visits in the z band; counts of the calibrated exposures.
    """
    visits = (1176, 17900, 17930, 17934)
    columns = []
    for visit in visits:
        with fits.open(SHARED / "hsc-visits-cosmos" / f"visitSummary_{visit}.fits.gz") as file:
            table = file[1].data
            index = np.asarray(table["id"], dtype=np.int64)
            level = np.asarray(table["skyBg"], dtype=np.float64)
        columns.append(
            xr.DataArray(level, dims="detector", coords={"detector": index}, name="skyBg")
        )
    joined = xr.concat(columns, xr.Variable("exposure", list(visits)), join="outer")
    return joined.transpose("detector", "exposure")


def decam_throughputs() -> xr.DataArray:
    """Return the response of 62 DECam detectors in five bands, relative to their mean.

    Averages over wavelength of the measured throughput, weighted by the mean throughput.
    """
    bands = ("g", "r", "i", "z", "Y")
    rows = []
    for band in bands:
        folder = SHARED / "decam-detector-throughput"
        with fits.open(folder / f"{band}_band_per_detector_throughput.fits") as file:
            table = file[1].data
            single = np.asarray(table["throughput_ccd"], dtype=np.float64)
        total = single.sum(axis=0)
        rows.append(total / total.mean())
    return xr.DataArray(
        np.array(rows),
        dims=("physical_filter", "detector"),
        coords={"physical_filter": list(bands), "detector": np.arange(len(rows[0])) + 1},
    )
