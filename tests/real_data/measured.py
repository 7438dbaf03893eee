"""Tables of real measurements that lie beside the checkout, read into datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["SHARED", "itl_covariances", "lsst_camera_pairs"]

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
