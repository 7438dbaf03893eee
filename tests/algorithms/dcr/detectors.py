"""Stars on turned and dithered detectors, moved towards the zenith on the sky, warped to a patch.

Directions towards the zenith are those of astropy's horizontal frame: neither parallactic angles
nor the Jacobian of the patch enter the simulation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import observing_conditions
from skyloom.algorithms.dcr import dispersion
from skyloom.algorithms.tangent_plane import TangentPlane, from_tangent_plane
from skyloom.algorithms.visit_conditions import visit_conditions
from skyloom.algorithms.warp import warp_exposure, warp_noise_covariance
from tests.algorithms.dcr.analytic import SIGMA, WAVELENGTHS, G, Scene
from tests.algorithms.warp.scenes import exposure_of, plane

Floats = NDArray[np.float64]

PLACE = (209.0, -20.25)
SITE = {"longitude": -70.7494, "latitude": -30.244639, "height": 2663.0}
AIR = {"temperature": 8.0, "pressure": 73892.0, "humidity": 30.0}
LAGS = 13
"""Along each axis at which the noise of warps is alike."""
CULMINATION = 60025.2802
"""Day (MJD, TAI) when the place is highest."""


def night(hours: Any) -> xr.Dataset:
    """Return conditions of visits at hours from culmination, (visit)."""
    records = {
        number: observing_conditions(CULMINATION + hour / 24.0, *PLACE, **SITE, **AIR)
        for number, hour in enumerate(np.atleast_1d(hours))
    }
    return visit_conditions(records, PLACE)


def upwards(table: xr.Dataset) -> Floats:
    """Return unit vectors (east, north) towards the zenith by astropy, (visit, 2)."""
    place = EarthLocation.from_geodetic(SITE["longitude"], SITE["latitude"], SITE["height"])
    with iers.conf.set_temp("auto_download", False):
        times = Time(table["time"].to_numpy(), format="mjd", scale="tai")
        frame = AltAz(obstime=times, location=place)
        here = SkyCoord(*PLACE, unit="deg").transform_to(frame)
        above = SkyCoord(here.az, here.alt + 0.01 * units.deg, frame=frame).icrs
        back = SkyCoord(here.az, here.alt, frame=frame).icrs
    east = (above.ra - back.ra).deg * np.cos(back.dec.rad)
    north = (above.dec - back.dec).deg
    return np.stack([east, north], axis=-1) / np.hypot(east, north)[:, None]


class Detectors(NamedTuple):
    """A scene on a patch, seen by a turned camera."""

    scene: Scene
    patch: TangentPlane
    rotator: float
    fwhm: float = 4.0

    def warps(
        self, table: xr.Dataset, noise: float, rng: np.random.Generator, kernel: Any = "lanczos5"
    ) -> xr.Dataset:
        """Return warps of all visits, (visit, y, x)."""
        size = self.scene.size
        side = int(1.5 * size) + 24
        lifted, towards = dispersion(G, table, WAVELENGTHS), upwards(table)
        ra, dec = self.patch.to_sky(self.scene.x, self.scene.y)
        warps, alike = [], []
        for visit in range(len(lifted)):
            turn = self.rotator + rng.uniform(-3.0, 3.0)
            detector = plane(turn, center=tuple(side / 2 + rng.uniform(-4.0, 4.0, 2)), sky=PLACE)
            offsets = lifted[visit][:, None] / 3600.0 * towards[visit]
            image = np.zeros((side, side))
            for star in range(len(ra)):
                moved = from_tangent_plane(offsets[:, 0], offsets[:, 1], ra[star], dec[star])
                x, y = detector.to_pixels(*moved)
                columns, rows = (_profile(at, side, self.fwhm) for at in (x, y))
                spectrum = self.scene.spectrum[star]
                image += self.scene.flux[star] * (rows.T * spectrum) @ columns
            seen = image + rng.normal(0.0, noise, image.shape)
            warp = warp_exposure(
                exposure_of(seen, noise**2, exposure=visit), detector, self.patch,
                (0, size, 0, size), kernel=kernel,
            )  # fmt: skip
            alike.append(warp_noise_covariance(kernel, matrix=warp.attrs["matrix"], size=LAGS))
            warps.append(warp[["image", "variance", v.MASK]])
        merged = xr.concat(
            [warp.drop_vars([*warp.coords]) for warp in warps], v.VISIT, combine_attrs="override"
        )
        merged = merged.assign_coords({v.VISIT: table[v.VISIT].to_numpy()})
        merged["noise_covariance"] = xr.concat(alike, v.VISIT)
        merged["psf_fwhm"] = (v.VISIT, np.full(len(warps), self.fwhm))
        return merged


def _profile(at: Floats, side: int, fwhm: float) -> Floats:
    """Return Gaussians along an axis, (wavelength, pixel)."""
    sigma = fwhm * SIGMA
    square = (np.arange(side) - at[:, None]) ** 2
    return np.asarray(np.exp(-square / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma))


def patch_plane(size: int, turn: float = 0.0, *, mirrored: bool = False) -> TangentPlane:
    """Return the plane of a patch: north up and east left, turned, or its columns mirrored."""
    found = plane(turn, center=((size - 1) / 2, (size - 1) / 2), sky=PLACE)
    return found._replace(matrix=found.matrix * [-1.0, 1.0]) if mirrored else found
