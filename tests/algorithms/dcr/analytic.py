"""Stars of many wavelengths at places between pixels, each visit with its own refraction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import Band, dispersion, displacement

Floats = NDArray[np.float64]

G = Band.from_effective("g", 476.31, 147.0)
NORTH_UP = np.diag([-0.2, 0.2])
SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
WAVELENGTHS = np.linspace(G.lambda_min, G.lambda_max, 121)[1::2]
CENTRES = (np.arange(3) - 1.0) / 3.0


def conditions(zenith_distances: object, angles: object) -> xr.Dataset:
    """Return conditions of visits, (visit)."""
    zenith = np.atleast_1d(np.asarray(zenith_distances, float))
    place = {
        "temperature": 20.0, "pressure": 73892.0, "humidity": 40.0,
        "latitude": -30.244639, "height": 2663.0,
    }  # fmt: skip
    table = {name: (v.VISIT, np.full(len(zenith), value)) for name, value in place.items()}
    table["altitude"] = (v.VISIT, 90.0 - zenith)
    table["parallactic_angle"] = (v.VISIT, np.broadcast_to(np.asarray(angles, float), zenith.shape))
    return xr.Dataset(table, {v.VISIT: np.arange(len(zenith))})


HELD_OUT = conditions([20.0, 35.0, 48.0, 55.0], [30.0, -70.0, 100.0, -20.0])


class Scene(NamedTuple):
    """Stars of black bodies in a square."""

    size: int
    y: Floats
    x: Floats
    flux: Floats
    spectrum: Floats  # (star, wavelength), sums to 1

    @property
    def moment(self) -> Floats:
        """Return the first moment of the three sub-bands of each star, in units of the band."""
        parts = self.spectrum.reshape(len(self.spectrum), 3, -1).sum(axis=2)
        return np.asarray(parts @ CENTRES)

    def render(self, table: xr.Dataset, fwhm: object) -> Floats:
        """Return images without noise, (visit, y, x)."""
        amplitude = dispersion(G, table, WAVELENGTHS)
        towards = displacement(table, NORTH_UP)
        at = np.arange(self.size)
        images = np.zeros((len(towards), self.size, self.size))
        for image, vector, lifted, width in zip(
            images, towards, amplitude, np.broadcast_to(np.asarray(fwhm), len(towards)), strict=True
        ):
            sigma = width * SIGMA
            for star in range(len(self.y)):
                rows, columns = (
                    np.exp(-((at - (middle + shift * lifted)[:, None]) ** 2) / (2 * sigma**2))
                    / (np.sqrt(2 * np.pi) * sigma)
                    for middle, shift in ((self.y[star], vector[0]), (self.x[star], vector[1]))
                )
                image += self.flux[star] * (rows.T * self.spectrum[star]) @ columns
        return images

    def near(self, radius: float) -> NDArray[np.bool_]:
        """Return which pixels are within a radius of a star."""
        y, x = np.mgrid[: self.size, : self.size]
        square = (y - self.y[:, None, None]) ** 2 + (x - self.x[:, None, None]) ** 2
        return np.asarray((square <= radius**2).any(axis=0))


def scene(rng: np.random.Generator, size: int = 96, stars: int = 20) -> Scene:
    """Draw stars."""
    y, x = rng.uniform(8, size - 8, (2, stars))
    flux = 10 ** rng.uniform(np.log10(2e3), np.log10(2e5), stars)
    temperature = rng.uniform(3500.0, 15000.0, stars)[:, None]
    spectrum = WAVELENGTHS**-4.0 / np.expm1(1.438777e7 / (WAVELENGTHS * temperature))
    return Scene(size, y, x, flux, spectrum / spectrum.sum(axis=1, keepdims=True))


def dozen(rng: np.random.Generator, visits: int = 12) -> xr.Dataset:
    """Return conditions of visits at airmasses from 1.02 to 1.8 and all kinds of angles."""
    zenith = np.rad2deg(np.arccos(1.0 / np.linspace(1.02, 1.8, visits)))
    return conditions(zenith, rng.uniform(-150.0, 150.0, visits))


def observed(
    images: Floats, fwhm: object, noise: float, rng: np.random.Generator
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return warps with noise, and their coadd with what is detected on it."""
    noisy = (images + rng.normal(0.0, noise, images.shape)).astype(np.float32)
    dims = (v.VISIT, v.Y, v.X)
    warps = xr.Dataset(
        {
            "image": (dims, noisy, {"units": v.NANOJANSKY}),
            "variance": (dims, np.full(noisy.shape, noise**2, np.float32)),
            v.MASK: (dims, np.zeros(noisy.shape, np.int32), v.mask_attributes()),
            "psf_fwhm": (v.VISIT, np.broadcast_to(np.asarray(fwhm, float), len(noisy)).copy()),
        },
        {v.VISIT: np.arange(len(noisy))},
    )
    return warps, coadd_of(warps)


def coadd_of(warps: xr.Dataset) -> xr.Dataset:
    """Return the plain coadd of warps."""
    image = warps["image"].mean(v.VISIT).astype(np.float32).assign_attrs(units=v.NANOJANSKY)
    variance = (warps["variance"].mean(v.VISIT) / warps.sizes[v.VISIT]).astype(np.float32)
    found = ndimage.binary_dilation((image > 5 * np.sqrt(variance)).to_numpy(), iterations=2)
    mask = np.where(found, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)
    return xr.Dataset(
        {
            "image": image,
            "variance": variance,
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        }
    )
