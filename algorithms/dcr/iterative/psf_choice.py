"""The point-spread function of planes that are iterated to: that of the sharper visits."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.psf import (
    PsfMeasurementParameters,
    StarParameters,
    gaussian_psf,
    measure_psf,
    psf_fwhm,
)

__all__ = ["ChosenPsf", "choose_psf", "select_psf_visits"]

Floats = NDArray[np.float64]
SIZE: Final = 41


class ChosenPsf(NamedTuple):
    """An image (psf_y, psf_x), its width (pixel), and what it is of: "measured", "visits" that
    are sharp enough, or the "template"."""

    image: xr.DataArray
    fwhm: float
    source: str


def select_psf_visits(fwhm: Floats, detector_fwhm: Floats, template_fwhm: float) -> Any:
    """Return which visits are sharp enough for the PSF of a coadd.

    Parameters
    ----------
    fwhm : array, (visit,), pixel
    detector_fwhm : array, pixel
        Of all detectors that contribute; their median is one limit.
    template_fwhm : float, pixel
        Of the plain coadd, the other limit.

    Returns
    -------
    ndarray of bool, (visit,)
        All False if none is; the PSF is the template's then.

    Examples
    --------
    >>> select_psf_visits(np.array([3.0, 4.0, 5.0]), np.array([3.0, 4.0, 5.0]), 4.5).tolist()
    [True, True, False]
    """
    return np.asarray(fwhm) <= min(float(np.median(detector_fwhm)), template_fwhm)


def choose_psf(
    spreads: PointSpreads, weights: Floats, template: xr.Dataset, planes_sum: xr.Dataset | None
) -> ChosenPsf:
    """Return the PSF that planes are said to have.

    Parameters
    ----------
    spreads : PointSpreads
        Those of the visits.
    weights : array, (visit,)
        Those of the visits; one without weight does not count.
    template : Dataset
        The plain coadd; its ``psf`` (psf_y, psf_x) if it has one, else the mean of all visits is
        its PSF.
    planes_sum : Dataset, (y, x), optional
        ``image``, ``variance`` and ``mask`` on whose stars the PSF is measured, if there are
        enough of them.
    """
    stamps = _stamps(spreads)
    known = np.isfinite(weights) & (weights > 0)
    if not known.any():
        known, weights = np.ones(len(weights), bool), np.ones(len(weights))
    if planes_sum is not None:
        measured = _measured(planes_sum, spreads.fwhm[known])
        if measured is not None:
            return ChosenPsf(measured, _width(measured), "measured")
    whole = _mean(stamps[known], weights[known])
    if "psf" in template and template["psf"].dims == (v.PSF_Y, v.PSF_X):
        whole = template["psf"]
    sharp = known & select_psf_visits(spreads.fwhm, spreads.fwhm[known], _width(whole))
    if not sharp.any():
        return ChosenPsf(whole, _width(whole), "template")
    found = _mean(stamps[sharp], weights[sharp])
    return ChosenPsf(found, _width(found), "visits")


def _stamps(spreads: PointSpreads) -> Floats:
    if spreads.images is not None:
        return np.asarray(spreads.images / spreads.images.sum(axis=(1, 2), keepdims=True))
    return np.stack([gaussian_psf(float(fwhm), size=SIZE).to_numpy() for fwhm in spreads.fwhm])


def _mean(stamps: Floats, weights: Floats) -> xr.DataArray:
    image = np.tensordot(weights / weights.sum(), stamps, axes=1)
    return xr.DataArray(image / image.sum(), dims=(v.PSF_Y, v.PSF_X))


def _width(psf: xr.DataArray) -> float:
    return float(psf_fwhm(psf))


def _measured(image: xr.Dataset, fwhm: Floats) -> xr.DataArray | None:
    """Return the PSF of the stars of an image; None if they are too few."""
    wanted = PsfMeasurementParameters(
        stars=StarParameters(significance=50.0, width=float(np.median(fwhm))), size=SIZE
    )
    found = measure_psf(image, parameters=wanted)
    if int(found["psf_status"][0]) != v.PsfStatus.OK:
        return None
    return found["psf"].isel({v.POINT: 0}).reset_coords(drop=True)
