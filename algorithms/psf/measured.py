"""The point-spread function of an image, measured on its stars."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import bin_centers, bin_edges
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.models import gaussian_psf
from skyloom.algorithms.psf.shapes import psf_fwhm
from skyloom.algorithms.psf.stars import StarParameters, Stars, find_stars, of_one_size

__all__ = ["PsfMeasurementParameters", "measure_psf"]

Floats = NDArray[np.float64]

ROUNDS = 3  # of shapes, places and outliers in turn
ERROR = 0.01  # of the model, of the peak of a star
PIXEL_CLIP, STAR_CLIP = 5.0, 4.0
LARGEST_BETA = 60.0  # a Gaussian, as far as pixels can tell
STEP = 0.01  # pixel, of derivatives
STEPS, DIFFERENCE, TOLERANCE, MOST_DAMPING = 60, 1e-5, 1e-9, 1e9


class PsfMeasurementParameters(Parameters):
    """How the point-spread function of an image is measured, `measure_psf`."""

    stars: StarParameters = Field(StarParameters(), description="which stars are looked for")
    least: int = Field(5, ge=1, description="fewest stars of a part of the image")
    max_residual: float = Field(
        0.05, gt=0, description="rms of the stars about the profile, over their peaks, at most"
    )
    cells: tuple[int, int] = Field(
        (1, 1), description="parts along y and x, each with a point-spread function of its own"
    )
    size: int = Field(41, ge=5, description="side of its image, odd, pixel")
    assumed: float | None = Field(
        None,
        gt=0,
        description="FWHM of the Gaussian that is assumed where stars are too few, pixel; without "
        "it there is no point-spread function then",
    )


class _Fit(NamedTuple):
    """A Moffat profile: log FWHM, log (beta - 1), and the shear (along x, diagonal)."""

    shape: Floats
    chi2: float
    stars: int
    rms: float


def measure_psf(
    exposure: xr.Dataset, *, parameters: PsfMeasurementParameters | None = None
) -> xr.Dataset:
    """Return the point-spread function of an image: a Moffat profile fitted to its stars.

    Parameters
    ----------
    exposure : Dataset, (y, x)
        ``image`` (any unit), ``variance`` (square of it) and perhaps ``mask``.
    parameters : PsfMeasurementParameters, optional

    Returns
    -------
    Dataset, (point, psf_y, psf_x)
        ``psf``, NaN where there is none, with the coordinates ``x``, ``y`` (pixel, the middles of
        the parts); over ``point`` ``fwhm`` (pixel), ``beta``, ``axis_ratio``, ``star_count``,
        ``psf_residual``, the rms of the stars about the profile over their peaks, and
        ``psf_status`` (`PsfStatus`).

    Raises
    ------
    KeyError
        If image or variance is missing, or a plane is unknown.
    ValueError
        If the size is even.

    Notes
    -----
    One elliptical profile for all stars of a part, each with its flux, background and place:
    pixels weigh 1 / (variance + (0.01 peak)^2). Pixels and stars that don't fit are left out. It
    is the profile at pixel centres, so that the size of pixels is in it. Wings beyond the fitted
    squares are those of the profile.

    Examples
    --------
    >>> from skyloom.algorithms.psf import moffat_psf
    >>> image = np.random.default_rng(1).normal(0.0, 1.0, (120, 150)).astype("float32")
    >>> for row, column in ((30, 40), (60, 110), (90, 40), (30, 80), (90, 75)):
    ...     image[row - 25 : row + 26, column - 25 : column + 26] += (
    ...         2e4 * moffat_psf(4.2, beta=3.5, size=51).values
    ...     )
    >>> plane = ("y", "x")
    >>> one = xr.Dataset({"image": (plane, image), "variance": (plane, np.ones_like(image))})
    >>> psf = measure_psf(one)
    >>> psf["star_count"].values.tolist(), psf["fwhm"].values.round(1).tolist()
    ([5], [4.2])
    """
    p = parameters or PsfMeasurementParameters()
    for name in ("image", "variance"):
        if name not in exposure:
            raise KeyError(f"the exposure has no variable {name}; it has {list(exposure)}")
    if p.size % 2 == 0:
        raise ValueError(f"size must be odd, got {p.size}")
    stars = find_stars(exposure, p.stars)
    edges = [
        bin_edges(exposure.sizes[dim], min(number, exposure.sizes[dim]))
        for dim, number in zip((v.Y, v.X), p.cells, strict=True)
    ]
    middles = [bin_centers(edge) for edge in edges]
    y, x = (values.ravel() for values in np.meshgrid(*middles, indexing="ij"))
    cell = np.searchsorted(edges[0], stars.row, "right") - 1
    cell = cell * (len(edges[1]) - 1) + np.searchsorted(edges[1], stars.column, "right") - 1
    images = np.full((len(y), p.size, p.size), np.nan)
    columns = {name: np.full(len(y), np.nan) for name in ("beta", "axis_ratio", "psf_residual")}
    count, status = np.zeros(len(y), np.int32), np.zeros(len(y), np.uint8)
    for point in range(len(y)):
        own = of_one_size(stars.take(cell == point)).take(slice(p.stars.most))
        found = _fitted(own) if len(own.row) >= p.least else None
        count[point] = len(own.row) if found is None else found.stars
        unfit = found is not None and not _usable(found, p)
        if found is None or found.stars < p.least or unfit:
            status[point] = v.PsfStatus.POOR_FIT if unfit else v.PsfStatus.TOO_FEW_STARS
            if p.assumed is not None:
                images[point] = gaussian_psf(p.assumed, size=p.size).values
                status[point] = v.PsfStatus.ASSUMED
            continue
        at = np.arange(p.size, dtype=np.float64) - p.size // 2
        profile = _profile(found.shape, at[:, None], at[None, :])
        images[point] = profile / profile.sum()
        columns["beta"][point] = 1.0 + np.exp(found.shape[1])
        columns["axis_ratio"][point] = np.exp(-np.hypot(*found.shape[2:]))
        columns["psf_residual"][point] = found.rms
    psf = xr.DataArray(images, dims=(v.POINT, v.PSF_Y, v.PSF_X), attrs={"units": v.DIMENSIONLESS})
    none = {"units": v.DIMENSIONLESS}
    return xr.Dataset(
        {
            "psf": psf,
            "fwhm": psf_fwhm(psf),
            **{name: (v.POINT, values, none) for name, values in columns.items()},
            "star_count": (v.POINT, count, none),
            "psf_status": (v.POINT, status, v.flag_attributes(v.PsfStatus)),
        },
        coords={"x": (v.POINT, x, {"units": v.PIXEL}), "y": (v.POINT, y, {"units": v.PIXEL})},
    )


def _usable(found: _Fit, parameters: PsfMeasurementParameters) -> bool:
    """Return whether a profile can be that of stars, and suits them."""
    wide = np.exp(found.shape[0]) > parameters.stars.narrowest
    return bool(wide and found.rms <= parameters.max_residual)


def _profile(shape: Floats, y: Floats, x: Floats) -> Floats:
    """Return a Moffat profile with a peak of 1 at offsets from its middle."""
    beta = 1.0 + np.exp(shape[1])
    shear = np.hypot(shape[2], shape[3])
    stretch = np.cosh(shear)
    turned = np.sinh(shear) / shear if shear > 1e-12 else 1.0
    r2 = stretch * (x**2 + y**2) + turned * (shape[2] * (x**2 - y**2) + 2.0 * shape[3] * x * y)
    scale = 4.0 * (2.0 ** (1.0 / beta) - 1.0) * np.exp(-2.0 * shape[0])
    return np.asarray((1.0 + scale * r2) ** -beta)


def _fitted(stars: Stars) -> _Fit | None:
    """Return the profile that suits all stars, but for those that differ from the others."""
    radius = stars.images.shape[1] // 2
    at = np.arange(-radius, radius + 1, dtype=np.float64)
    y, x = stars.y.copy(), stars.x.copy()
    peak = stars.flux / (np.median(stars.fwhm) ** 2 * 1.13)
    with np.errstate(divide="ignore"):
        variance = 1.0 / stars.weights + (ERROR * peak[:, None, None]) ** 2
    weights = np.where(stars.weights > 0, 1.0 / variance, 0.0)
    kept = np.ones(len(y), bool)
    shape = np.array([np.log(np.median(stars.fwhm)), np.log(2.5), 0.0, 0.0])
    low = np.array([np.log(0.5), np.log(0.3), -0.7, -0.7])
    high = np.array([np.log(4.0 * radius), np.log(LARGEST_BETA - 1.0), 0.7, 0.7])

    def offsets() -> tuple[Floats, Floats]:
        return at[None, :, None] - y[:, None, None], at[None, None, :] - x[:, None, None]

    def residuals(given: Floats) -> Floats:
        rest, _ = _scaled(_profile(given, *offsets())[kept], images[kept], weights[kept])
        return np.asarray((rest * np.sqrt(weights[kept])).ravel())

    images, rest = stars.images, stars.images
    chi2 = np.zeros(len(y))
    for _ in range(ROUNDS):
        if not kept.any():
            return None
        shape = _least_squares(residuals, np.clip(shape, low, high), low, high)
        rows, columns = offsets()
        model = _profile(shape, rows, columns)
        rest, flux = _scaled(model, images, weights)
        slopes = [
            flux[:, None, None] * (_profile(shape, rows - a, columns - b) - model) / STEP
            for a, b in ((STEP, 0.0), (0.0, STEP))
        ]
        dy, dx = _moved(slopes, rest, weights)
        y, x = y + np.clip(dy, -0.5, 0.5), x + np.clip(dx, -0.5, 0.5)
        rest, _ = _scaled(_profile(shape, *offsets()), images, weights)
        square = rest**2 * weights
        weights = np.where(square > PIXEL_CLIP**2 * max(1.0, np.median(square)), 0.0, weights)
        used = np.maximum((weights > 0).sum((1, 2)), 1)
        chi2 = (rest**2 * weights).sum((1, 2)) / used
        typical = float(np.median(chi2[kept]))
        lost = (stars.weights > 0).sum((1, 2)) - used > 0.1 * used
        kept = np.isfinite(chi2) & (chi2 < STAR_CLIP * max(typical, 1e-12)) & ~lost
        kept &= np.hypot(y, x) < radius / 2
    if not kept.any():
        return None
    relative = rest[kept] / flux[kept, None, None]
    rms = float(np.sqrt(np.mean(np.median(relative, axis=0) ** 2)))
    return _Fit(shape, float(np.mean(chi2[kept])), int(kept.sum()), rms)


def _least_squares(
    residuals: Callable[[Floats], Floats], start: Floats, low: Floats, high: Floats
) -> Floats:
    """Return the parameters of least squares by the method of Levenberg and Marquardt.

    Sums and a system of a few equations only, so that the same numbers come out whatever the
    libraries of linear algebra do with their threads.
    """
    best, rest = start, residuals(start)
    square, damping = float((rest**2).sum()), 1e-3
    for _ in range(STEPS):
        columns = []
        for index in range(best.size):
            moved = best.copy()
            step = DIFFERENCE if best[index] + DIFFERENCE <= high[index] else -DIFFERENCE
            moved[index] += step
            columns.append((residuals(moved) - rest) / step)
        normal = np.array([[(a * b).sum() for b in columns] for a in columns])
        slope = np.array([(a * rest).sum() for a in columns])
        while damping < MOST_DAMPING:
            held = normal + damping * np.diag(np.maximum(np.diag(normal), 1e-300))
            trial = np.clip(best - np.linalg.solve(held, slope), low, high)
            found = residuals(trial)
            value = float((found**2).sum())
            if value < square:
                break
            damping *= 5.0
        else:
            return best
        gained = square - value
        best, rest, square, damping = trial, found, value, max(0.1 * damping, 1e-9)
        if gained <= TOLERANCE * square:
            break
    return best


def _scaled(model: Floats, images: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return images less the model times a flux plus a level, both by least squares; the flux."""
    total = weights.sum((1, 2))
    mm, m = (weights * model**2).sum((1, 2)), (weights * model).sum((1, 2))
    d, md = (weights * images).sum((1, 2)), (weights * model * images).sum((1, 2))
    det = np.maximum(mm * total - m**2, 1e-300)
    flux, level = (md * total - m * d) / det, (mm * d - m * md) / det
    rest = images - flux[:, None, None] * model - level[:, None, None]
    return np.asarray(rest), np.asarray(flux)


def _moved(slopes: list[Floats], rest: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return how far each star is from where it was thought to be, y and x."""
    first, second = slopes
    a = (weights * first**2).sum((1, 2))
    b = (weights * first * second).sum((1, 2))
    c = (weights * second**2).sum((1, 2))
    u, w = (weights * first * rest).sum((1, 2)), (weights * second * rest).sum((1, 2))
    det = np.maximum(a * c - b**2, 1e-300)
    return (c * u - b * w) / det, (a * w - b * u) / det
