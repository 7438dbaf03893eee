"""The linear solution for sub-bands: weighted least squares with priors on their spectra.

Minimised is, over visits e and planes m,

.. math:: \\sum_e |y_e - T_e m|^2_{w_e} + W \\sum_k c(k) \\left[ \\lambda_c |D_2 m(k)|^2 +
    \\lambda_f |D_1 m(k)|^2 + \\lambda_a |m(k) - r(k)/N|^2 \\right] +
    \\sum_x \\mu(x) |m(x) - r(x)/N|^2

with the coadd r, weights w (one over variance), their mean sum W, and first and second differences
between planes D. The stiffness c is one over the square of the transfer function of the PSF: what
is finer than the PSF is noise. mu holds the planes to the coadd far from sources.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms.dcr.normal import Prior
from skyloom.algorithms.dcr.operator import FourierOperator, Images, Spectra
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import weighted_pixels

__all__ = [
    "Problem",
    "held_weights",
    "load_problem",
    "model_weight",
    "parts_of",
    "prior_of",
    "spectrum_of",
]

Floats = NDArray[np.float64]
FAR: Final = 1.5
"""FWHM from sources at which the planes are held to the coadd by 40 % of the taper."""
REACH: Final = 4
"""Such distances from which on planes are held as firmly as anywhere."""


class Problem(NamedTuple):
    """The data of a part of a patch: ``images`` and ``weights`` (visit, y, x), 0 where a pixel is
    bad, and their mean ``coadd`` (y, x)."""

    images: Images
    weights: Images
    coadd: Images


def load_problem(warps: xr.Dataset, template: xr.Dataset, parameters: LinearParameters) -> Problem:
    """Return images, weights and the coadd of warps as arrays.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        ``image``, ``variance``, ``mask``.
    template : Dataset, (y, x)
        Coadd that holds where no visit has data.
    parameters : LinearParameters
    """
    images, weights, _ = weighted_pixels(warps, parameters.reject_planes)
    outside = np.nan_to_num(template["image"].values, nan=0.0, posinf=0.0, neginf=0.0)
    total = weights.sum(axis=0, dtype=np.float64)
    mean = (images * weights).sum(axis=0, dtype=np.float64)
    np.divide(mean, total, out=mean, where=total > 0)
    return Problem(images, weights, np.where(total > 0, mean, outside).astype(np.float32))


def prior_of(transfer: Spectra, parameters: LinearParameters, adherence: float) -> Prior:
    """Return the prior where the model's PSF has this transfer function (ky, kx)."""
    power = np.abs(transfer).astype(np.float64) ** 2
    stiffness = (1.0 / np.maximum(power, 1e-4)).astype(np.float32)
    return Prior(parameters.curvature, parameters.slope, adherence, stiffness)


def held_weights(
    detected: NDArray[np.bool_],
    unknown: NDArray[np.bool_],
    shape: tuple[int, int],
    fwhm: float,
    total: float,
    parameters: LinearParameters,
) -> Images:
    """Return mu over the periodic image: how firmly planes are held, by the distance to sources.

    Sources at a border shine beyond it, and visits move that light into the patch. Where nothing is
    known, not even of the coadd, there is nothing to hold planes to.
    """
    rows, columns = detected.shape
    sources = np.zeros(shape, bool)
    sources[:rows, :columns] = detected
    reach = math.ceil(REACH * FAR * fwhm)
    inner = slice(reach, -reach)
    far = 1.0 - model_weight(np.pad(sources, reach, mode="wrap"), fwhm)[inner, inner]
    far[:rows, :columns][unknown] = 0.0
    return np.asarray(total * (parameters.taper * far + parameters.taper_floor), np.float32)


def model_weight(detected: NDArray[np.bool_], fwhm: float) -> Floats:
    """Return how far planes are solved for: 1 at sources, 0 where they are held to the coadd.

    Examples
    --------
    >>> model_weight(np.array([[True, False]]), 1.0).round(3).tolist()
    [[1.0, 0.801]]
    """
    if not detected.any():
        return np.zeros(detected.shape)
    distance = ndimage.distance_transform_edt(~detected)
    return np.asarray(np.exp(-((distance / (FAR * fwhm)) ** 2) / 2.0))


def parts_of(coadd: Images, operator: FourierOperator) -> Images:
    """Return the planes (subfilter, y, x) of a coadd if all spectra are flat."""
    return operator.photons.astype(np.float32)[:, None, None] * coadd


def spectrum_of(planes: Images, operator: FourierOperator) -> Spectra:
    """Return the transform of planes (subfilter, y, x) in the operator's larger image."""
    whole = np.zeros((len(planes), *operator.shape), np.float32)
    whole[:, : planes.shape[1], : planes.shape[2]] = planes
    return operator.spectrum(whole)
