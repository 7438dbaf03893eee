"""Real DECam exposures of one sky on three detectors, with TPV projections, beside the checkout."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.coordinates import Angle
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import ObservingConditions, observing_conditions
from skyloom.algorithms.warp import warp_noise_covariance
from tests.algorithms.warp.scenes import exposure_of
from tests.real_data.measured import SHARED

CUTOUTS = SHARED / "decam-bok-cutouts-public" / "testcase3" / "images" / "decam" / "CP" / "V4.8.2a"
PUBLISHED = {
    ("g", "N12"): (1.040, -4.4), ("g", "N10"): (1.294, -8.4), ("r", "N12"): (0.997, -29.9),
    ("z", "N12"): (1.857, -827.0), ("z", "N10"): (1.387, -1156.0),
}  # fmt: skip
"""Scale and offset of other exposures against that of detector N11, by bicubic interpolation."""


def cutouts(band: str) -> dict[str, tuple[xr.Dataset, WCS, fits.Header]]:
    """Return the real exposures of a band by detector: exposure, WCS, primary header."""
    found = {}
    for path in sorted(CUTOUTS.glob(f"*/*_ooi_{band}_*.fits")):
        planes = []
        for kind in ("ooi", "oow", "ood"):
            with fits.open(Path(str(path).replace("_ooi_", f"_{kind}_"))) as file:
                planes.append(np.asarray(file[1].data))
                if kind == "ooi":
                    primary, header = file[0].header.copy(), file[1].header.copy()
        with np.errstate(divide="ignore"):
            variance = np.where(planes[1] > 0, 1.0 / planes[1], np.inf)
        mask = np.where(planes[2] != 0, v.MASK_PLANES["BAD"], 0)
        detector = path.name.split(".")[-2]
        exposure = exposure_of(planes[0], variance, mask, detector=detector)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[detector] = exposure, WCS(header), primary
    return found


def conditions_of(header: fits.Header) -> ObservingConditions:
    """Return the conditions at the start of an exposure, when its header was written."""
    return observing_conditions(
        header["MJD-OBS"],
        Angle(header["RA"], "hourangle").deg,
        Angle(header["DEC"], "deg").deg,
        scale="utc",
        longitude=-float(header["OBS-LONG"]),
        latitude=float(header["OBS-LAT"]),
        height=float(header["OBS-ELEV"]),
        temperature=float(header["OUTTEMP"]),
        pressure=100 * float(header["PRESSURE"]),
        humidity=float(header["HUMIDITY"]),
    )


def straight_line(
    x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and offset of warped pixels against others, and their sigmas."""
    line, covariance = np.polyfit(x, y, 1, cov=True)
    # the noise of neighbouring pixels is not independent after resampling
    correlated = warp_noise_covariance()
    return line, np.sqrt(np.diag(covariance) * float(correlated.sum() / correlated.max()))
