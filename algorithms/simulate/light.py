"""The light of one exposure on one detector, in electrons before the response: sky and objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.signal
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.focal_plane import to_focal_plane, to_pixels
from skyloom.algorithms.simulate.dispersion import Light, dispersed
from skyloom.algorithms.simulate.night_parameters import NightParameters
from skyloom.algorithms.simulate.stamps import add_discs, add_stars
from skyloom.algorithms.simulate.truth import generator
from skyloom.algorithms.tangent_plane import TangentPlane, tangent_plane

__all__ = ["exposure_plane", "light_gradient", "moffat_alpha"]

Floats = NDArray[np.float64]

LEAST_RADIUS: Final = 8.0
"""A star is drawn at least this far, in alphas: less than 3e-4 of its light lies beyond."""
LARGEST_RADIUS: Final = 2000.0
PSF_RADIUS: Final = 6.0
"""Galaxies are convolved with a profile that ends here, in FWHM."""


def light_gradient(row: xr.Dataset, truth: xr.Dataset, y: ArrayLike, x: ArrayLike) -> Floats:
    """Return the light of an exposure relative to that at the centre of the focal plane.

    Parameters
    ----------
    row : Dataset
        One exposure of a plan: its ``gradient_x``, ``gradient_y`` (1/mm), ``curvature`` (1/mm2).
    truth : Dataset
        Truth of the detector.
    y, x : array_like, pixel
        Positions in trimmed pixels that broadcast against each other.

    Returns
    -------
    ndarray, float64
        1 + gradient_x X + gradient_y Y + curvature (X^2 + Y^2) with focal-plane X, Y in mm, so it
        goes on smoothly from detector to detector.
    """
    focal_x, focal_y = to_focal_plane(truth["transform"].to_numpy(), x, y)
    along_x, along_y = float(row["gradient_x"]), float(row["gradient_y"])
    bend = float(row["curvature"])
    light = 1 + focal_x * (along_x + bend * focal_x) + focal_y * (along_y + bend * focal_y)
    return np.asarray(light)


def exposure_plane(plan: xr.Dataset, exposure: int, truth: xr.Dataset) -> TangentPlane:
    """Return where the pixels of a detector lie on the sky in one exposure.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `night_plan` returns.
    exposure : int
        Number of the exposure.
    truth : Dataset
        Truth of the detector.

    Raises
    ------
    KeyError
        If the plan has no such exposure.
    ValueError
        If the exposure has no pointing.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid, night_plan, night_truth
    >>> transform = detector_transform((64, 64), pixel_size=0.015)
    >>> truth = night_truth({"A": amplifier_grid("A", (1, 2), (64, 32))}, {"A": transform})
    >>> plan = night_plan(biases=0, darks=0, flats=0, science=1)
    >>> plane = exposure_plane(plan, 1, truth["A"])
    >>> plane.header()["CRPIX1"]
    32.5
    """
    if exposure not in plan[v.EXPOSURE].to_numpy():
        raise KeyError(f"the plan has no exposure {exposure}")
    return row_plane(plan.sel({v.EXPOSURE: exposure}), truth)


def row_plane(row: xr.Dataset, truth: xr.Dataset) -> TangentPlane:
    """Return the tangent plane of one exposure of a plan."""
    if not has_pointing(row):
        raise ValueError(f"exposure {int(row[v.EXPOSURE])} has no pointing")
    return tangent_plane(
        truth["transform"].to_numpy(),
        right_ascension=float(row["right_ascension"]),
        declination=float(row["declination"]),
        rotator_angle=float(row["rotator_angle"]),
        plate_scale=float(truth["plate_scale"]),
    )


def has_pointing(row: xr.Dataset) -> bool:
    """Return whether an exposure of a plan looks at the sky."""
    names = ("right_ascension", "declination", "rotator_angle")
    return bool(np.all(np.isfinite([float(row[name]) for name in names])))


def moffat_alpha(fwhm: float, beta: float) -> float:
    """Return the alpha of a Moffat profile of this width, in its unit.

    Examples
    --------
    >>> round(moffat_alpha(2.0, 1.0), 6)
    1.0
    """
    return fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))


def pixel_scale(plane: TangentPlane) -> float:
    """Return the size of a pixel on the sky, arcsec."""
    return 3600 * math.sqrt(abs(float(np.linalg.det(plane.matrix))))


def objects_image(
    row: xr.Dataset,
    plane: TangentPlane,
    shape: tuple[int, int],
    scene: xr.Dataset,
    parameters: NightParameters,
) -> Floats:
    """Return the light of stars and galaxies, electron."""
    name = str(row[v.FILTER].to_numpy())
    flux = scene["flux"].sel({v.FILTER: name}).to_numpy()
    flux = flux * float(row["exposure_time"]) * float(row["transparency"])
    x, y = plane.to_pixels(scene["right_ascension"].values, scene["declination"].values)
    scale = scene["scale"].to_numpy()
    fwhm = float(row["seeing"]) / pixel_scale(plane)
    if not fwhm > 0:
        raise ValueError(f"exposure {int(row[v.EXPOSURE])} has the seeing {float(row['seeing'])}")
    alpha = moffat_alpha(fwhm, parameters.moffat_beta)
    usable = np.isfinite(x) & np.isfinite(y) & (flux > 0)
    image = np.zeros(shape)
    star, disc = usable & (scale == 0), usable & (scale > 0)
    light = Light(x, y, flux)
    if (band := parameters.bands.get(name)) is not None:
        light = dispersed(row, plane, shape, scene, light, band, parameters)
    if star.any():
        radius = _star_radius(flux[star], alpha, parameters)
        for index, (at_x, at_y, each) in enumerate(light.parts()):
            width = alpha * float(light.widths[index])
            add_stars(
                image, at_x[star], at_y[star], each[star], radius, width, parameters.moffat_beta
            )
    if disc.any():
        parts = [Light(*(each[disc] for each in part)) for part in light.parts()]
        image += _galaxies(scene.isel(source=disc), parts, plane, shape, fwhm, parameters)
    return image


def _star_radius(flux: Floats, alpha: float, parameters: NightParameters) -> Floats:
    """Return where stars fall below the faintest wing, pixel."""
    beta = parameters.moffat_beta
    peak = flux * (beta - 1) / (math.pi * alpha**2)
    radius = alpha * (peak / parameters.faintest_wing) ** (0.5 / beta)
    return np.clip(radius, LEAST_RADIUS * alpha, LARGEST_RADIUS)


def _galaxies(
    galaxies: xr.Dataset,
    parts: Sequence[Light],
    plane: TangentPlane,
    shape: tuple[int, int],
    fwhm: float,
    parameters: NightParameters,
) -> Floats:
    """Return exponential discs convolved with the point-spread function, electron."""
    border = math.ceil(PSF_RADIUS * fwhm)
    wide = np.zeros((shape[0] + 2 * border, shape[1] + 2 * border))
    angle = np.deg2rad(galaxies["position_angle"].to_numpy())
    long = galaxies["scale"].to_numpy()
    short = long * galaxies["axis_ratio"].to_numpy()
    # from (east, north) to the disc's own axes, in scale lengths
    turn = np.stack(
        [
            np.stack([np.sin(angle) / long, np.cos(angle) / long], axis=-1),
            np.stack([np.cos(angle) / short, -np.sin(angle) / short], axis=-1),
        ],
        axis=-2,
    )
    matrices = np.ascontiguousarray(turn @ (3600 * plane.matrix))
    total = np.sum([part.flux for part in parts], axis=0)
    peak = total * np.abs(np.linalg.det(matrices)) / (2 * math.pi)
    reach = np.clip(np.log(peak / (0.1 * parameters.faintest_wing)), 12.0, 30.0)
    for x, y, flux, *_ in parts:
        add_discs(wide, x + border, y + border, flux, matrices, reach)
    offset = np.arange(-border, border + 1.0)
    profile = np.zeros((offset.size, offset.size))
    middle = np.array([float(border)])
    alpha = moffat_alpha(fwhm, parameters.moffat_beta)
    add_stars(
        profile,
        middle,
        middle,
        np.ones(1),
        np.array([float(border)]),
        alpha,
        parameters.moffat_beta,
    )
    return np.asarray(scipy.signal.fftconvolve(wide, profile / profile.sum(), mode="valid"))


def satellites_image(
    row: xr.Dataset,
    truth: xr.Dataset,
    plane: TangentPlane,
    shape: tuple[int, int],
    parameters: NightParameters,
) -> Floats:
    """Return the light of satellite trails, straight over the whole focal plane, electron."""
    image = np.zeros(shape)
    transform = truth["transform"].to_numpy()
    scale = pixel_scale(plane)
    beta = parameters.moffat_beta
    alpha = moffat_alpha(float(row["seeing"]) / scale, beta)
    rng = generator(int(row["seed"]), "satellites")
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    for _ in range(int(row["satellites"])):
        angle = rng.uniform(0, np.pi)
        offset = rng.uniform(-parameters.satellite_offset, parameters.satellite_offset)
        brightness = parameters.satellite_brightness * math.exp(0.5 * rng.standard_normal())
        across = np.array([-np.sin(angle), np.cos(angle)])
        # two points of the trail, whose distance in pixels says how pixels run
        ends = [offset * across + step * np.array([across[1], -across[0]]) for step in (0.0, 1.0)]
        (x_0, x_1), (y_0, y_1) = to_pixels(transform, *np.transpose(ends))
        length = math.hypot(x_1 - x_0, y_1 - y_0)
        distance = ((y_1 - y_0) * (x - x_0) - (x_1 - x_0) * (y - y_0)) / length
        norm = math.gamma(beta - 0.5) / (math.gamma(beta) * math.sqrt(math.pi) * alpha)
        image += brightness * scale * norm * (1 + (distance / alpha) ** 2) ** (0.5 - beta)
    return image
