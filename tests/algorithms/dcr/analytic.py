"""Skies that sub-bands are judged on: `skyloom.algorithms.simulate.chromatic`, named shortly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import Band, subband_edges
from skyloom.algorithms.simulate import (
    ChromaticParameters,
    band_fractions,
    chromatic_coadd,
    chromatic_conditions,
    chromatic_images,
    chromatic_scene,
    chromatic_warps,
)
from skyloom.algorithms.simulate.dispersion import midpoints, source_spectra

Floats = NDArray[np.float64]

G = Band.from_effective("g", 476.31, 147.0)
NORTH_UP = np.diag([-0.2, 0.2])
SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
WAVELENGTHS = midpoints(G.lambda_min, G.lambda_max, 60)
CENTRES = (np.arange(3) - 1.0) / 3.0

conditions = chromatic_conditions
coadd_of = chromatic_coadd

HELD_OUT = conditions([20.0, 35.0, 48.0, 55.0], [30.0, -70.0, 100.0, -20.0])


class Scene(NamedTuple):
    """Stars in a square, and their spectra."""

    size: int
    y: Floats
    x: Floats
    flux: Floats
    spectrum: Floats  # (star, wavelength), sums to 1

    @property
    def table(self) -> xr.Dataset:
        """Return the stars as the simulation takes them."""
        columns = {name: ("source", getattr(self, name)) for name in ("y", "x", "flux")}
        spectra = {"spectrum": (("source", "wavelength"), self.spectrum)}
        return xr.Dataset(columns | spectra, {"wavelength": WAVELENGTHS})

    @property
    def fractions(self) -> Floats:
        """Return the part of the flux of each star in three sub-bands."""
        return band_fractions(self.table, G, subband_edges(G, 3).tolist()).to_numpy()

    @property
    def moment(self) -> Floats:
        """Return the first moment of the three sub-bands of each star, in units of the band."""
        return np.asarray(self.fractions @ CENTRES)

    def render(self, table: xr.Dataset, fwhm: ArrayLike, **more: float) -> Floats:
        """Return images without noise, (visit, y, x)."""
        shape = (self.size, self.size)
        images = chromatic_images(self.table, table, G, NORTH_UP, shape, fwhm=fwhm, **more)
        return images.to_numpy()

    def near(self, radius: float) -> NDArray[np.bool_]:
        """Return which pixels are within a radius of a star."""
        y, x = np.mgrid[: self.size, : self.size]
        square = (y - self.y[:, None, None]) ** 2 + (x - self.x[:, None, None]) ** 2
        return np.asarray((square <= radius**2).any(axis=0))


def scene(rng: np.random.Generator, size: int = 96, stars: int = 20) -> Scene:
    """Draw stars."""
    drawn = chromatic_scene(rng, parameters=ChromaticParameters(size=size, stars=stars))
    spectrum = source_spectra(drawn, G, WAVELENGTHS)
    columns = (drawn[name].to_numpy() for name in ("y", "x", "flux"))
    return Scene(size, *columns, spectrum / spectrum.sum(axis=1, keepdims=True))


def dozen(rng: np.random.Generator, visits: int = 12) -> xr.Dataset:
    """Return conditions of visits at airmasses from 1.02 to 1.8 and all kinds of angles."""
    zenith = np.rad2deg(np.arccos(1.0 / np.linspace(1.02, 1.8, visits)))
    return conditions(zenith, rng.uniform(-150.0, 150.0, visits))


def observed(
    images: Floats, fwhm: ArrayLike, noise: float, rng: np.random.Generator
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return warps with noise, and their coadd with what is detected on it."""
    warps = chromatic_warps(xr.DataArray(images, dims=(v.VISIT, v.Y, v.X)), fwhm, noise, rng)
    return warps, coadd_of(warps)
