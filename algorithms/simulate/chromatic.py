"""Visits of chromatic stars on the grid of a patch, evaluated and never interpolated.

A star is a sum of profiles, one for each of many wavelengths, at the places between pixels where
the atmosphere puts them at the altitude and parallactic angle of each visit. What a solution for
sub-bands finds can so be compared with what is known exactly: `simulate_chromatic` draws a sky and
its visits, `chromatic_images` shows a sky to any other visit without noise.

`skyloom.algorithms.simulate.simulate_night` makes the same stars on raw frames of detectors.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import dispersion, displacement
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM
from skyloom.algorithms.simulate.dispersion import midpoints, source_spectra

__all__ = [
    "ChromaticParameters",
    "SimulatedChromatic",
    "chromatic_coadd",
    "chromatic_conditions",
    "chromatic_images",
    "chromatic_scene",
    "chromatic_warps",
    "simulate_chromatic",
]

Floats = NDArray[np.float64]

SOURCE: Final = "source"
DETECTED_ABOVE: Final = 5.0
"""Standard deviations above which a pixel of the coadd is detected."""
GROWTH: Final = 2
"""Pixels around those that are detected too."""


class ChromaticParameters(Parameters):
    """What `simulate_chromatic` draws."""

    size: int = Field(128, ge=24, description="side of the patch, pixel")
    pixel_scale: float = Field(0.2, gt=0, description="size of a pixel, arcsec")
    stars: int = Field(40, ge=0, description="number of stars")
    border: float = Field(8.0, ge=0, description="border of the patch without stars, pixel")
    faintest: float = Field(2e3, gt=0, description="flux of the faintest star in the band, nJy")
    brightest: float = Field(
        2e5, gt=0, description="flux of the brightest star, nJy; drawn evenly in its logarithm"
    )
    temperatures: tuple[float, float] = Field(
        (3500.0, 15000.0), description="limits of the temperatures of stars, black bodies, Kelvin"
    )
    visits: int = Field(12, ge=1, description="number of visits")
    airmasses: tuple[float, float] = Field(
        (1.02, 1.8), description="airmasses (secant) of the first and last visit, evenly between"
    )
    angles: float = Field(
        150.0, ge=0, le=180, description="parallactic angles are drawn within this of 0, degree"
    )
    fwhm: tuple[float, float] = Field(
        (4.0, 4.0), description="smallest and largest seeing of the visits, FWHM, pixel"
    )
    beta: float | None = Field(
        None, gt=1, description="exponent of a Moffat profile; a Gaussian if not given"
    )
    chromatic_seeing: float = Field(
        0.0, description="power of the wavelength that the seeing goes with; -0.2 is usual"
    )
    noise: float = Field(5.0, gt=0, description="noise of a pixel, nJy")
    wavelengths: int = Field(60, ge=1, description="wavelengths that a star is made of")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("temperatures", "airmasses", "fwhm"):
            low, high = getattr(self, name)
            least = 1.0 if name == "airmasses" else 0.0
            if not (low >= least and low > 0 and high >= low):
                raise ValueError(f"{name} must be positive and ascending, got {low:g}, {high:g}")
        if self.brightest < self.faintest:
            raise ValueError(f"brightest {self.brightest:g} must not be below faintest")
        if 2 * self.border >= self.size:
            raise ValueError(f"border {self.border:g} leaves nothing of {self.size} pixels")
        return self


class SimulatedChromatic(NamedTuple):
    """What `solve_dcr` takes, and the truth.

    ``warps`` (visit, y, x) with ``psf_fwhm``; their ``coadd``; ``conditions`` (visit); the
    ``scene`` (source), as of `chromatic_scene`; ``images`` (visit, y, x), the visits without noise;
    the ``band`` and the ``jacobian`` (arcsec/pixel) of the patch.
    """

    warps: xr.Dataset
    coadd: xr.Dataset
    conditions: xr.Dataset
    scene: xr.Dataset
    images: xr.DataArray
    band: Band
    jacobian: Floats


def simulate_chromatic(
    rng: np.random.Generator,
    *,
    band: Band | None = None,
    parameters: ChromaticParameters | None = None,
) -> SimulatedChromatic:
    """Draw stars and the visits of a patch in which the atmosphere disperses them.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance: its state decides everything.
    band : Band, optional
        With its throughput, if it has one; 402.81 to 549.81 nm if not given.
    parameters : ChromaticParameters, optional

    Returns
    -------
    SimulatedChromatic
        North is up and east is left.

    Examples
    --------
    >>> from skyloom.algorithms.dcr import solve_dcr
    >>> few = ChromaticParameters(size=48, stars=3, visits=6)
    >>> made = simulate_chromatic(np.random.default_rng(1), parameters=few)
    >>> found = solve_dcr(made.warps, made.conditions, made.band, made.coadd,
    ...                   jacobian=made.jacobian)
    >>> bool(0.7 < found.diagnostics["chi2_total"] < 1.2)
    True
    """
    p = parameters or ChromaticParameters()
    chosen = band or Band.from_effective("g", 476.31, 147.0)
    scene = chromatic_scene(rng, parameters=p)
    zenith = np.rad2deg(np.arccos(1.0 / np.linspace(*p.airmasses, p.visits)))
    conditions = chromatic_conditions(zenith, rng.uniform(-p.angles, p.angles, p.visits))
    fwhm = np.linspace(*p.fwhm, p.visits)
    if p.fwhm[0] < p.fwhm[1]:  # or the worst seeing would be that of the highest airmass
        fwhm = rng.permutation(fwhm)
    jacobian = p.pixel_scale * np.diag([-1.0, 1.0])
    images = chromatic_images(
        scene, conditions, chosen, jacobian, (p.size, p.size), fwhm=fwhm, beta=p.beta,
        chromatic_seeing=p.chromatic_seeing, wavelengths=p.wavelengths,
    )  # fmt: skip
    warps = chromatic_warps(images, fwhm, p.noise, rng)
    return SimulatedChromatic(
        warps, chromatic_coadd(warps), conditions, scene, images, chosen, jacobian
    )


def chromatic_scene(
    rng: np.random.Generator, *, parameters: ChromaticParameters | None = None
) -> xr.Dataset:
    """Draw the stars of a patch.

    Parameters
    ----------
    rng : numpy.random.Generator
    parameters : ChromaticParameters, optional

    Returns
    -------
    Dataset, (source)
        ``y`` and ``x`` (pixel, between pixels), ``flux`` (nJy, of the whole band) and
        ``temperature`` (K). With a ``spectrum`` (source, wavelength; photons per nm in any unit)
        in place of it, and a coordinate ``wavelength`` (nm), stars have any spectra that are
        given; `skyloom.algorithms.simulate.band_fractions` tells the truth of sub-bands.

    Examples
    --------
    >>> chromatic_scene(np.random.default_rng(1)).sizes
    Frozen({'source': 40})
    """
    p = parameters or ChromaticParameters()
    y, x = rng.uniform(p.border, p.size - p.border, (2, p.stars))
    flux = 10 ** rng.uniform(np.log10(p.faintest), np.log10(p.brightest), p.stars)
    temperature = rng.uniform(*p.temperatures, p.stars)
    return xr.Dataset(
        {
            "y": (SOURCE, y, {"units": v.PIXEL}),
            "x": (SOURCE, x, {"units": v.PIXEL}),
            "flux": (SOURCE, flux, {"units": v.NANOJANSKY}),
            "temperature": (SOURCE, temperature, {"units": v.KELVIN}),
        }
    )


def chromatic_conditions(
    zenith_distance: ArrayLike,
    parallactic_angle: ArrayLike,
    *,
    temperature: float = 20.0,
    pressure: float = 73892.0,
    humidity: float = 40.0,
    latitude: float = -30.244639,
    height: float = 2663.0,
) -> xr.Dataset:
    """Return conditions of visits at stated places of the sky, in one air.

    Parameters
    ----------
    zenith_distance, parallactic_angle : array_like, (visit), degree
    temperature : float, Celsius
    pressure : float, Pa
    humidity : float, %
    latitude : float, degree
    height : float, m

    Returns
    -------
    Dataset, (visit)
        What `dcr_shifts` and `solve_dcr` need; those of real times and places are made by
        `skyloom.algorithms.visit_conditions.visit_conditions`.

    Examples
    --------
    >>> chromatic_conditions([20.0, 45.0], 30.0)["altitude"].values.tolist()
    [70.0, 45.0]
    """
    zenith, angle = np.broadcast_arrays(
        np.atleast_1d(np.asarray(zenith_distance, float)), np.asarray(parallactic_angle, float)
    )
    values = {
        "altitude": (90.0 - zenith, v.DEGREE),
        "parallactic_angle": (angle.copy(), v.DEGREE),
        "temperature": (np.full(zenith.shape, temperature), v.CELSIUS),
        "pressure": (np.full(zenith.shape, pressure), v.PASCAL),
        "humidity": (np.full(zenith.shape, humidity), v.PERCENTAGE),
        "latitude": (np.full(zenith.shape, latitude), v.DEGREE),
        "height": (np.full(zenith.shape, height), v.METRE),
    }
    table = {name: (v.VISIT, value, {"units": unit}) for name, (value, unit) in values.items()}
    return xr.Dataset(table, {v.VISIT: np.arange(zenith.size)})


def chromatic_images(
    scene: xr.Dataset,
    conditions: xr.Dataset,
    band: Band,
    jacobian: Floats,
    shape: tuple[int, int],
    *,
    fwhm: ArrayLike = 4.0,
    beta: float | None = None,
    chromatic_seeing: float = 0.0,
    wavelengths: int = 60,
) -> xr.DataArray:
    """Return what visits show of stars, without noise.

    Parameters
    ----------
    scene : Dataset, (source)
        As of `chromatic_scene`.
    conditions : Dataset, (visit)
        At the centre of the patch: altitude, parallactic angle, air and place.
    band : Band
        Stars lie where they should in light of ``lambda_ref``.
    jacobian : array, (2, 2), arcsec/pixel
        As of `skyloom.algorithms.dcr.patch_jacobian`.
    shape : (y, x)
    fwhm : float or array_like, (visit), pixel
        Seeing at the reference wavelength.
    beta : float, optional
        Exponent of a Moffat profile; a Gaussian if not given.
    chromatic_seeing : float
        Power of the wavelength that the seeing goes with.
    wavelengths : int
        Number of wavelengths, evenly over the band.

    Returns
    -------
    DataArray, (visit, y, x), float64, nJy

    Raises
    ------
    ValueError
        If the conditions lack something that refraction needs.

    Examples
    --------
    >>> few = ChromaticParameters(size=32, stars=1, border=15.0)
    >>> scene = chromatic_scene(np.random.default_rng(1), parameters=few)
    >>> visits = chromatic_conditions([0.0, 50.0], 0.0)
    >>> band = Band.from_effective("g", 476.31, 147.0)
    >>> images = chromatic_images(scene, visits, band, np.diag([-0.2, 0.2]), (32, 32))
    >>> (images.sum(("y", "x")) / scene["flux"].sum()).values.round(4).tolist()
    [1.0, 1.0]
    """
    nm = midpoints(band.lambda_min, band.lambda_max, wavelengths)
    lifted, towards = dispersion(band, conditions, nm), displacement(conditions, jacobian)
    spectra = source_spectra(scene, band, nm)
    total = spectra.sum(axis=1, keepdims=True)
    light = scene["flux"].to_numpy()[:, None] * np.divide(
        spectra, total, out=np.zeros_like(spectra), where=total > 0
    )
    y, x = (scene[name].to_numpy() for name in ("y", "x"))
    widths = np.broadcast_to(np.asarray(fwhm, float), len(towards))[:, None] * (
        (nm / band.lambda_ref) ** chromatic_seeing
    )
    images = np.zeros((len(towards), *shape))
    for visit, image in enumerate(images):
        shifts = lifted[visit][:, None] * towards[visit]
        for star, own in enumerate(light):
            image += _star(y[star] + shifts[:, 0], x[star] + shifts[:, 1], own, widths[visit],
                           shape, beta)  # fmt: skip
    coords = {v.VISIT: conditions[v.VISIT].to_numpy()} if v.VISIT in conditions.coords else {}
    return xr.DataArray(images, coords, (v.VISIT, v.Y, v.X), "image", attrs={"units": v.NANOJANSKY})


def _star(
    y: Floats, x: Floats, light: Floats, fwhm: Floats, shape: tuple[int, int], beta: float | None
) -> Floats:
    """Return a star whose light of each wavelength is somewhere else, and as wide as it is."""
    rows, columns = (
        (np.arange(side) - at[:, None]) ** 2 for side, at in zip(shape, (y, x), strict=True)
    )
    if beta is None:
        spread = 2.0 * (fwhm / SIGMA_TO_FWHM)[:, None] ** 2
        along_y, along_x = (np.exp(-each / spread) for each in (rows, columns))
        return np.asarray((along_y.T * (light / (np.pi * spread[:, 0]))) @ along_x)
    scale = (fwhm / 2.0) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    image = np.zeros(shape)
    for one, other, part, square in zip(rows, columns, light, scale, strict=True):
        profile = (1.0 + (one[:, None] + other) / square) ** -beta
        image += part * (beta - 1.0) / (np.pi * square) * profile
    return image


def chromatic_warps(
    images: xr.DataArray, fwhm: ArrayLike, noise: float, rng: np.random.Generator
) -> xr.Dataset:
    """Return warps: images with white noise, and what is known of them.

    Parameters
    ----------
    images : DataArray, (visit, y, x), nJy
        As of `chromatic_images`.
    fwhm : float or array_like, (visit), pixel
        What is said of the seeing.
    noise : float, nJy
        Standard deviation of a pixel.
    rng : numpy.random.Generator

    Returns
    -------
    Dataset, (visit, y, x)
        ``image``, ``variance``, ``mask`` and ``psf_fwhm`` (visit).

    Examples
    --------
    >>> images = xr.DataArray(np.zeros((2, 8, 8)), dims=("visit", "y", "x"))
    >>> warps = chromatic_warps(images, 4.0, 5.0, np.random.default_rng(1))
    >>> float(warps["variance"][0, 0, 0]), warps["psf_fwhm"].values.tolist()
    (25.0, [4.0, 4.0])
    """
    dims = (v.VISIT, v.Y, v.X)
    light = images.transpose(*dims).to_numpy()
    seen = (light + rng.normal(0.0, noise, light.shape)).astype(np.float32)
    names = images[v.VISIT].to_numpy() if v.VISIT in images.coords else np.arange(len(light))
    widths = np.broadcast_to(np.asarray(fwhm, float), len(light)).copy()
    values: dict[str, Any] = {
        "image": (dims, seen, {"units": v.NANOJANSKY}),
        "variance": (dims, np.full(seen.shape, noise**2, np.float32), {"units": v.NANOJANSKY2}),
        v.MASK: (dims, np.zeros(seen.shape, np.int32), v.mask_attributes()),
        "psf_fwhm": (v.VISIT, widths, {"units": v.PIXEL}),
    }
    return xr.Dataset(values, {v.VISIT: names})


def chromatic_coadd(warps: xr.Dataset) -> xr.Dataset:
    """Return the plain mean of warps of equal noise, and what is detected on it.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        As of `chromatic_warps`.

    Returns
    -------
    Dataset, (y, x)
        ``image``, ``variance`` and ``mask``: DETECTED within 2 pixels of those above 5 standard
        deviations.

    Examples
    --------
    >>> made = simulate_chromatic(np.random.default_rng(1), parameters=ChromaticParameters(size=48))
    >>> round(12 * float(made.coadd["variance"][0, 0]), 3)
    25.0
    """
    image = warps["image"].mean(v.VISIT).astype(np.float32)
    variance = (warps["variance"].mean(v.VISIT) / warps.sizes[v.VISIT]).astype(np.float32)
    above = (image > DETECTED_ABOVE * np.sqrt(variance)).transpose(v.Y, v.X).to_numpy()
    found = ndimage.binary_dilation(above, iterations=GROWTH)
    mask = np.where(found, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)
    return xr.Dataset(
        {
            "image": image.assign_attrs(units=v.NANOJANSKY),
            "variance": variance.assign_attrs(units=v.NANOJANSKY2),
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        }
    )
