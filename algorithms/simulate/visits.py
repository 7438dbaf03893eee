"""Simulated visits of one patch: stars, and what only some visits show, with known truth.

All visits lie on one pixel grid already, so nothing is resampled. Each has its own seeing, noise
and time; copies convolved to one common PSF are what a match of the PSFs would make of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import correlate1d

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM
from skyloom.algorithms.tangent_plane import TangentPlane

__all__ = ["SimulatedVisits", "VisitParameters", "simulate_visits"]

Floats = NDArray[np.float64]
REACH = 5.0  # widths of a Gaussian that stamps and kernels extend to


class VisitParameters(Parameters):
    """What simulated visits show, `simulate_visits`."""

    visits: int = Field(10, ge=1, description="number of visits")
    height: int = Field(301, ge=16, description="pixels along y")
    width: int = Field(201, ge=16, description="pixels along x")
    corner_y: int = Field(-45, description="first row of the box in tract pixels")
    corner_x: int = Field(-123, description="first column of the box in tract pixels")
    pixel_scale: float = Field(0.2, gt=0, description="size of a pixel, arcsec")
    right_ascension: float = Field(209.0, description="centre of the tract, degree")
    declination: float = Field(-20.25, description="centre of the tract, degree")
    stars: int = Field(37, ge=0, description="number of constant stars")
    faintest: float = Field(
        200.0, gt=0, description="flux of the faintest star, standard deviations of a pixel"
    )
    flux_range: float = Field(
        10.0, ge=1, description="flux of the brightest star over that of the faintest"
    )
    noise: float = Field(5.0, gt=0, description="noise of a pixel, nJy")
    noise_spread: float = Field(
        0.0, ge=0, lt=1, description="relative half range of the noise between visits"
    )
    background: float = Field(314.592, description="sky left in all visits, nJy")
    sharpest: float = Field(1.5, gt=0, description="smallest sigma of the PSF, pixel")
    broadest: float = Field(2.6, gt=0, description="largest sigma of the PSF, pixel")
    matched_sigma: float = Field(
        3.0, gt=0, description="sigma of the PSF of the matched copies, pixel; above all others"
    )
    hour_range: float = Field(3.0, ge=0, description="visits lie within this of a midnight, hour")
    cosmic_rays: int = Field(0, ge=0, description="number of cosmic rays in the second visit")
    ray_significance: float = Field(
        100.0, gt=0, description="charge of a cosmic ray, standard deviations of a pixel"
    )
    satellite: float = Field(
        0.0,
        ge=0,
        description="brightness of a satellite in the first visit, standard deviations of a pixel",
    )
    variable: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="relative amplitude of one more star, as bright as the brightest, that is "
        "different in every visit; 0 is none",
    )
    transients: tuple[int, ...] = Field(
        (), description="one more star for each number, seen in so many visits"
    )
    bad_box: int = Field(0, ge=0, description="side of a square that is BAD in the last visit")


class SimulatedVisits(NamedTuple):
    """Warps and their matched copies, (visit, y, x), and the truth.

    ``truth`` has ``source_x``, ``source_y`` (pixel of the arrays) and ``flux`` (visit, source;
    nJy), ``kind`` of each source (star, variable, transient), ``sky`` (y, x; the constant part, at
    the PSF of the matched copies), and ``artifact`` (visit, y, x), the pixels that a satellite or
    cosmic ray hit.
    """

    warps: xr.Dataset
    matched: xr.Dataset
    truth: xr.Dataset


def simulate_visits(
    rng: np.random.Generator, *, parameters: VisitParameters | None = None
) -> SimulatedVisits:
    """Draw visits of a patch.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance: its state decides everything.
    parameters : VisitParameters, optional

    Returns
    -------
    SimulatedVisits
        Datasets in nJy with ``image``, ``variance`` and ``mask`` (DETECTED above the background
        plus 5 standard deviations), coordinates ``visit``, ``band``, ``mjd``, ``exposure_time``
        and ``psf_sigma`` (pixel, of the visit), and the attributes ``box`` and ``wcs`` of warps;
        the matched copies also have ``target_fwhm`` (pixel).

    Raises
    ------
    ValueError
        If a PSF is not sharper than that of the matched copies, or a transient is seen in more
        visits than there are.

    Examples
    --------
    >>> made = simulate_visits(np.random.default_rng(1))
    >>> dict(made.warps.sizes), made.warps.attrs["box"]
    ({'visit': 10, 'y': 301, 'x': 201}, [-45, 256, -123, 78])
    >>> int((made.truth.kind == "star").sum())
    37
    """
    parameters = parameters or VisitParameters()
    _check(parameters)
    p, n = parameters, parameters.visits
    sigma = rng.uniform(p.sharpest, p.broadest, n)
    noise = p.noise * (1.0 + p.noise_spread * rng.uniform(-1.0, 1.0, n))
    hours = rng.uniform(-p.hour_range, p.hour_range, n)
    sources = _sources(rng, p)
    shape = (n, p.height, p.width)
    # convolution reaches across the border, so there is more sky around
    margin = int(REACH * p.matched_sigma) + 1
    wide = (p.height + 2 * margin, p.width + 2 * margin)
    inner = (slice(margin, -margin), slice(margin, -margin))
    images, matched = np.empty(shape, np.float32), np.empty(shape, np.float32)
    variances, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)
    hits = np.zeros(shape, bool)
    flux = sources["flux"].values
    x, y = (sources[f"source_{axis}"].values + margin for axis in "xy")
    for i in range(n):
        image = p.background + _stars(wide, x, y, flux[i], sigma[i])
        extra = _artifacts(rng, p, i, sigma[i], wide, margin)
        hits[i] = extra[inner] > p.noise
        image += extra + noise[i] * rng.standard_normal(wide)
        kernel = gaussian_taps(float(np.sqrt(p.matched_sigma**2 - sigma[i] ** 2)))
        images[i], variances[i] = image[inner], noise[i] ** 2
        matched[i] = _convolved(image, kernel)[inner]
        spread[i] = noise[i] ** 2 * (kernel**2).sum() ** 2
    masks = [_detected(images, variances, p), _detected(matched, spread, p)]
    if p.bad_box:
        for mask in masks:
            mask[-1, : p.bad_box, : p.bad_box] |= v.MASK_PLANES["BAD"]
    coords = {
        v.VISIT: np.arange(n) + 1000,
        "band": "r",
        "mjd": (v.VISIT, 60000.0 + np.arange(n) + hours / 24.0),
        "exposure_time": 30.0,
        "psf_sigma": (v.VISIT, sigma),
    }
    constant = sources["kind"].values == "star"
    sky = p.background + _stars(wide, x[constant], y[constant], flux[0, constant], p.matched_sigma)
    truth = sources.assign(
        sky=((v.Y, v.X), sky[inner].astype(np.float32), {"units": v.NANOJANSKY}),
        artifact=((v.VISIT, v.Y, v.X), hits),
    ).assign_coords({v.VISIT: coords[v.VISIT]})
    width = xr.DataArray(SIGMA_TO_FWHM * p.matched_sigma, attrs={"units": v.PIXEL})
    return SimulatedVisits(
        _warps(images, variances, masks[0], coords, p),
        _warps(matched, spread, masks[1], coords, p).assign(target_fwhm=width),
        truth,
    )


def _check(parameters: VisitParameters) -> None:
    if parameters.sharpest > parameters.broadest:
        raise ValueError(
            f"sharpest must not exceed broadest, got {parameters.sharpest}, {parameters.broadest}"
        )
    if parameters.broadest >= parameters.matched_sigma:
        raise ValueError(
            f"matched_sigma must exceed all PSFs, up to {parameters.broadest} pixel, got "
            f"{parameters.matched_sigma}"
        )
    if any(not 0 < number <= parameters.visits for number in parameters.transients):
        raise ValueError(
            f"transients must be seen in 1 to {parameters.visits} visits, got "
            f"{parameters.transients}"
        )


def gaussian_taps(sigma: float) -> Floats:
    """Return a Gaussian of unit sum, its centre in the middle.

    Examples
    --------
    >>> round(float(gaussian_taps(2.0).sum()), 12)
    1.0
    """
    x = np.arange(-int(REACH * sigma + 1), int(REACH * sigma + 1) + 1)
    taps = np.exp(-0.5 * (x / sigma) ** 2)
    return np.asarray(taps / taps.sum())


def _convolved(image: Floats, taps: Floats) -> Floats:
    along = correlate1d(image, taps, axis=0, mode="nearest")
    return np.asarray(correlate1d(along, taps, axis=1, mode="nearest"))


def _sources(rng: np.random.Generator, p: VisitParameters) -> xr.Dataset:
    """Return positions and fluxes; those of variable stars and transients keep from the border."""
    special = (1 if p.variable else 0) + len(p.transients)
    size = p.stars + special
    margin = 10.0
    x = rng.uniform(margin, p.width - 1 - margin, size)
    y = rng.uniform(margin, p.height - 1 - margin, size)
    for i in range(p.stars, size):  # what varies stands alone, or its neighbours would count too
        for _ in range(1000):
            apart = np.hypot(x[:i] - x[i], y[:i] - y[i])
            if not i or apart.min() > 8.0 * p.matched_sigma:
                break
            x[i] = rng.uniform(margin, p.width - 1 - margin)
            y[i] = rng.uniform(margin, p.height - 1 - margin)
    base = p.noise * p.faintest * p.flux_range ** rng.random(size)
    flux = np.tile(base, (p.visits, 1))
    kinds = ["star"] * p.stars
    if p.variable:
        steps = rng.permutation(np.linspace(-1.0, 1.0, p.visits))
        flux[:, p.stars] = p.noise * p.faintest * p.flux_range * (1.0 + p.variable * steps)
        kinds.append("variable")
    for number, i in zip(p.transients, range(size - len(p.transients), size), strict=True):
        seen = rng.choice(p.visits, number, replace=False)
        flux[:, i] = np.where(np.isin(np.arange(p.visits), seen), flux[:, i], 0.0)
        kinds.append("transient")
    return xr.Dataset(
        {
            "source_x": ("source", x, {"units": v.PIXEL}),
            "source_y": ("source", y, {"units": v.PIXEL}),
            "flux": ((v.VISIT, "source"), flux, {"units": v.NANOJANSKY}),
            "kind": ("source", np.array(kinds, dtype="U9")),
        }
    )


def _stars(shape: tuple[int, ...], x: Floats, y: Floats, flux: Floats, sigma: float) -> Floats:
    """Return an image of Gaussian stars; each is the product of two lines."""
    rows = np.exp(-0.5 * ((np.arange(shape[0])[:, None] - y) / sigma) ** 2)
    columns = np.exp(-0.5 * ((np.arange(shape[1])[:, None] - x) / sigma) ** 2)
    return np.asarray((rows * (flux / (2.0 * np.pi * sigma**2))) @ columns.T)


def _artifacts(
    rng: np.random.Generator,
    p: VisitParameters,
    visit: int,
    sigma: float,
    shape: tuple[int, int],
    margin: int,
) -> Floats:
    """Return what only one visit shows: a satellite in the first, cosmic rays in the second."""
    image = np.zeros(shape)
    if visit == 0 and p.satellite:
        y, x = np.indices(image.shape)
        angle = rng.uniform(0.2, 1.3)
        offset = (x - shape[1] / 2) * np.sin(angle) - (y - shape[0] / 2) * np.cos(angle)
        image += p.satellite * p.noise * np.exp(-0.5 * (offset / sigma) ** 2)
    if visit == 1 and p.cosmic_rays:
        rays = rng.choice(p.height * p.width, p.cosmic_rays, replace=False)
        y, x = np.unravel_index(rays, (p.height, p.width))
        image[y + margin, x + margin] += p.ray_significance * p.noise
    return image


def _detected(
    images: NDArray[np.float32], variances: NDArray[np.float32], p: VisitParameters
) -> NDArray[np.int32]:
    above = images > p.background + 5.0 * np.sqrt(variances)
    return np.where(above, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)


def _warps(
    images: NDArray[np.float32],
    variances: NDArray[np.float32],
    masks: NDArray[np.int32],
    coords: dict[str, object],
    p: VisitParameters,
) -> xr.Dataset:
    dims = (v.VISIT, v.Y, v.X)
    box = [p.corner_y, p.corner_y + p.height, p.corner_x, p.corner_x + p.width]
    scale = p.pixel_scale / 3600.0
    plane = TangentPlane(
        p.right_ascension, p.declination, 0.0, 0.0, np.array([[-scale, 0.0], [0.0, scale]])
    )
    return xr.Dataset(
        {
            "image": (dims, images, {"units": v.NANOJANSKY}),
            "variance": (dims, variances, {"units": v.NANOJANSKY2}),
            v.MASK: (dims, masks, v.mask_attributes()),
        },
        coords=coords,
        attrs={"box": box, "wcs": plane.header()},
    )
