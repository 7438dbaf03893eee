"""Visits with real geometry: turned and dithered detectors, resampled and matched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf import gaussian_psf, match_psf, psf_at_points
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.algorithms.warp import warp_exposure

__all__ = ["Scene", "real_geometry"]

SCALE = 0.2 / 3600.0
TARGET = 7.7  # FWHM of the matched warps, pixel
HALO = 40  # pixels around the box that matching needs


class Scene(NamedTuple):
    """Warps and matched warps, (visit, y, x); what a satellite left of each visit; the stars."""

    warps: xr.Dataset
    matched: xr.Dataset
    trail: np.ndarray
    stars: xr.Dataset


def real_geometry(
    rng: np.random.Generator, *, visits: int, side: int, stars: int, satellite: float
) -> Scene:
    """Draw detectors that see one field, and bring them onto its pixels.

    The first visit shows a satellite, ``satellite`` standard deviations of a pixel bright.
    """
    target = TangentPlane(209.0, -20.25, 0.0, 0.0, SCALE * np.array([[-1.0, 0.0], [0.0, 1.0]]))
    box = (-HALO, side + HALO, -HALO, side + HALO)
    inner = slice(HALO, HALO + side)
    x, y = rng.uniform(8.0, side - 9.0, (2, stars))
    flux = 5.0 * 100.0 * 10.0 ** rng.random(stars)
    sky = target.to_sky(x, y)
    size = side + 60
    warps, matched, trails = [], [], []
    for visit in range(visits):
        fwhm, angle = rng.uniform(3.5, 5.5), rng.uniform(0.0, 2.0 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        ra, dec = target.to_sky(*(0.5 * side + rng.uniform(-25.0, 25.0, 2)))
        plane = TangentPlane(
            float(ra), float(dec), 0.5 * size, 0.5 * size, SCALE * turn @ np.diag([-1.0, 1.0])
        )
        image = _stars(size, *plane.to_pixels(*sky), flux, fwhm / 2.3548)
        trail = np.zeros_like(image)
        if visit == 0:
            rows, columns = np.indices(image.shape)
            away = (columns - 0.45 * size) * np.sin(0.7) - (rows - 0.55 * size) * np.cos(0.7)
            trail = satellite * 5.0 * np.exp(-0.5 * (away * 2.3548 / fwhm) ** 2)
        image += trail + 5.0 * rng.standard_normal(image.shape)
        exposure = _exposure(image, visit)
        warp = warp_exposure(exposure, plane, target, box)
        point = psf_at_points(gaussian_psf(fwhm, size=41), 0.5 * side, 0.5 * side)
        smooth = match_psf(warp, point, TARGET)
        each = {v.Y: inner, v.X: inner}
        kept = ["image", "variance", v.MASK]
        warps.append(_cut(warp[kept].isel(each), side))
        matched.append(_cut(smooth[[*kept, "target_fwhm"]].isel(each), side))
        shown = warp_exposure(_exposure(trail, visit), plane, target, box)
        trails.append(shown["image"].isel(each).values)
    truth = xr.Dataset({"sx": ("source", x), "sy": ("source", y), "flux": ("source", flux)})
    return Scene(_together(warps), _together(matched), np.stack(trails), truth)


def _together(warps: list[xr.Dataset]) -> xr.Dataset:
    options = {"data_vars": "minimal", "coords": "minimal", "compat": "override"}
    return xr.concat(warps, dim=v.VISIT, join="override", **options)


def _cut(warp: xr.Dataset, side: int) -> xr.Dataset:
    return warp.drop_vars(["y", "x"], errors="ignore").assign_attrs(box=[0, side, 0, side])


def _exposure(image: np.ndarray, visit: int) -> xr.Dataset:
    plane = (v.Y, v.X)
    return xr.Dataset(
        {
            "image": (plane, image.astype(np.float32), {"units": v.NANOJANSKY}),
            "variance": (plane, np.full(image.shape, 25.0, np.float32)),
            v.MASK: (plane, np.zeros(image.shape, np.int32), v.mask_attributes()),
        },
        coords={v.EXPOSURE: 500 + visit},
    )


def _stars(size: int, x: np.ndarray, y: np.ndarray, flux: np.ndarray, sigma: float) -> np.ndarray:
    rows = np.exp(-0.5 * ((np.arange(size)[:, None] - y) / sigma) ** 2)
    columns = np.exp(-0.5 * ((np.arange(size)[:, None] - x) / sigma) ** 2)
    return (rows * (flux / (2.0 * np.pi * sigma**2))) @ columns.T
