"""Colours of stars from the sky in sub-bands, and how well they are known."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import subband_edges
from skyloom.algorithms.dcr.fitted import Fitted, description_of, fitted_description
from skyloom.algorithms.dcr.shift_image import shift_image
from skyloom.algorithms.dcr.transfer import stamp_transfer
from skyloom.algorithms.dcr.uncertainty import GRID, Noise, noise_of_planes

__all__ = ["star_colours"]

Floats = NDArray[np.float64]

UNDETERMINED: Final = 1e-6
"""Part of a colour that the prior leaves, below which it cannot be told from nothing."""
HELD: Final = 1.5e-4
"""Of the band, by which moments are off because planes are held to the coadd beyond the edges of
sources: measured with stars of a signal to noise up to 14 000 in simulated skies."""


def star_colours(model: xr.Dataset, y: ArrayLike, x: ArrayLike) -> xr.Dataset:
    """Return fluxes in sub-bands and the mean wavelengths of isolated stars.

    Stars are fitted with the PSF of the model. The prior of a model draws spectra towards flat
    ones, by the same part at any brightness; that part is known, and made up for here, at the
    price of more noise. What the prior does not allow at all has no number.

    Parameters
    ----------
    model : Dataset, (subfilter, y, x)
        As of `skyloom.algorithms.dcr.solve_dcr` with the linear solver.
    y, x : array, (star,), pixel
        Positions, counted from the first pixel of the model.

    Returns
    -------
    Dataset, (star,)
        ``flux`` (star, subfilter), units of the model, and its ``covariance``; ``moment``, the
        mean wavelength of the photons relative to the middle of the band, over its width, with
        its error ``moment_sigma``: noise, and 1.5e-4 for planes that are held to the coadd beyond
        the edges of sources. NaN, and infinite errors, without pixels, or where the visits do not
        tell colours apart at all.

    Raises
    ------
    ValueError
        If the model is not one of the linear solver, it has a single sub-band, or positions are not
        of one shape.

    Notes
    -----
    With planes :math:`K^{-1} (H m + p)` of the sky m, where K is the data H and the prior
    together, a star of fluxes f is found with

    .. math:: \\left(\\sum_k |O|^2\\right)^{-1} \\sum_k |O|^2 K^{-1} (H + P_r) f,

    O the transfer function of the PSF, and P_r the part of the prior that holds planes to the
    coadd, which the star is in. Not in the errors are iterations that end early (for stars
    beyond a signal to noise of 1000 a ``tolerance`` of 1e-5 is worth its time) and the sides of
    nearby stars.
    """
    if model.attrs.get("solver") == "iterative":
        raise ValueError("colours need a model of the linear solver, got one of the iterative one")
    rows, columns = np.atleast_1d(np.asarray(y, float)), np.atleast_1d(np.asarray(x, float))
    if rows.shape != columns.shape or rows.ndim != 1:
        raise ValueError(
            f"y and x must be positions of as many stars, got {rows.shape}, {columns.shape}"
        )
    band, p, jacobian = description_of(model)
    if p.subfilters < 2:
        raise ValueError("colours need two sub-bands or more, the model has one")
    fit = fitted_description(model, band, jacobian, p)
    psf = model["psf"].transpose(v.PSF_Y, v.PSF_X)
    places = list(zip(rows, columns, strict=True))
    found = np.array([_flux(model, psf, *place) for place in places]).reshape(-1, p.subfilters)
    local = np.array([_at(model["weight_sum"], *place) for place in places])
    group = np.array([_at(model["coverage"], *place) for place in places], int)
    flux, covariances = np.empty(found.shape), np.empty((*found.shape, p.subfilters))
    for number in np.unique(group):
        at = group == number
        undo, whole = _undone(fit, number, psf)
        total = np.full(at.sum(), fit.weights[number].sum())
        scale = np.divide(total, local[at], out=np.full_like(total, np.inf), where=local[at] > 0)
        flux[at] = np.einsum("st,nt->ns", undo, found[at])
        with np.errstate(invalid="ignore"):
            covariances[at] = scale[:, None, None] * whole
    flux[~(local > 0)] = np.nan
    edges = subband_edges(band, p.subfilters)
    middles = (edges[1:] + edges[:-1]) / 2.0
    centres = (middles - (edges[0] + edges[-1]) / 2.0) / (edges[-1] - edges[0])
    total = flux.sum(axis=1)
    moment = flux @ centres / total
    slope = (centres - moment[:, None]) / total[:, None]
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(np.einsum("ns,nst,nt->n", slope, covariances, slope) + HELD**2)
    star, units = "star", model["model"].attrs.get("units", "")
    square = {"units": f"{units}2" if units else ""}
    return xr.Dataset(
        {
            "flux": ((star, v.SUBFILTER), flux, {"units": units}),
            "covariance": ((star, v.SUBFILTER, f"{v.SUBFILTER}_2"), covariances, square),
            "moment": (star, moment, {"units": ""}),
            "moment_sigma": (star, np.where(np.isfinite(sigma), sigma, np.inf), {"units": ""}),
        },
        {v.Y: (star, rows, {"units": v.PIXEL}), v.X: (star, columns, {"units": v.PIXEL})},
    )


def _undone(fit: Fitted, group: int, psf: xr.DataArray) -> tuple[Floats, Floats]:
    """Return what makes fluxes of those found, and their covariance, in pixels of mean weight."""
    noise = noise_of_planes(fit.basis, fit.weights[group], fit.total)
    response, covariance = _of_stars(noise, psf)
    if np.linalg.svd(response, compute_uv=False)[-1] > UNDETERMINED:
        undo: Floats = np.asarray(np.linalg.inv(response))
        return undo, np.asarray(undo @ covariance @ undo.T)
    return np.full_like(response, np.nan), np.diag(np.full(len(response), np.inf))


def _of_stars(noise: Noise, psf: xr.DataArray) -> tuple[Floats, Floats]:
    """Return fluxes found of a star of unit flux in each sub-band, and the covariance of noise."""
    power = np.abs(stamp_transfer(psf.to_numpy(), GRID)).astype(float) ** 2 * noise.share
    total = power.sum()
    return (
        np.einsum("yx,yxst->st", power, noise.response.real) / total,
        np.einsum("yx,yxst->st", power, noise.covariance.real) / total**2,
    )


def _flux(model: xr.Dataset, psf: xr.DataArray, y: float, x: float) -> Floats:
    """Return the flux of each plane in the PSF at a place."""
    sides, centre = psf.shape, (round(y), round(x))
    first = [middle - side // 2 for middle, side in zip(centre, sides, strict=True)]
    inside = [
        slice(min(max(start, 0), size), max(min(start + side, size), 0))
        for start, side, size in zip(first, sides, model[v.MASK].shape, strict=True)
    ]
    light = shift_image(psf.rename({v.PSF_Y: v.Y, v.PSF_X: v.X}), (y - centre[0], x - centre[1]))
    stamp = light.to_numpy()[
        tuple(slice(at.start - s, at.stop - s) for at, s in zip(inside, first, strict=True))
    ]
    place = dict(zip((v.Y, v.X), inside, strict=True))
    planes = model["model"].transpose(v.SUBFILTER, v.Y, v.X).isel(place).to_numpy()
    weight = model["weight_sum"].isel(place).to_numpy() > 0
    seen = np.where(weight, stamp, 0.0)
    power = (seen**2).sum()
    if not power > 0:
        return np.full(len(planes), np.nan)
    return np.asarray(np.where(weight, planes * seen, 0.0).sum(axis=(1, 2)) / power)


def _at(image: xr.DataArray, y: float, x: float) -> float:
    """Return the value of an image at a place, 0 outside of it."""
    values = image.transpose(v.Y, v.X).to_numpy()
    iy, ix = round(y), round(x)
    inside = 0 <= iy < values.shape[0] and 0 <= ix < values.shape[1]
    return float(values[iy, ix]) if inside else 0.0
