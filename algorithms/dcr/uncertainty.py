"""Noise of sub-band planes and of templates, from the normal equations."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr.linear import prior_of
from skyloom.algorithms.dcr.normal import normal_matrices
from skyloom.algorithms.dcr.operator import FourierOperator, Spectra
from skyloom.algorithms.dcr.parameters import LinearParameters

__all__ = [
    "GRID",
    "Noise",
    "noise_of_planes",
    "noise_of_template",
    "plane_covariance",
]

Floats = NDArray[np.float64]

GRID: Final = (96, 96)
"""Frequencies at which the noise is computed; it varies slowly over them."""


class Noise(NamedTuple):
    """Noise covariance of planes at each frequency, (ky, kx, subfilter, subfilter); that of noise
    and prior together, in the same shape; and how many frequencies of the whole plane each column
    (kx) stands for."""

    covariance: NDArray[np.complex128]
    posterior: NDArray[np.complex128]
    multiplicity: Floats

    def condition(self) -> Floats:
        """Return the condition number of the normal equations at each frequency, (ky, kx)."""
        if not np.isfinite(self.posterior).all():
            return np.full(self.posterior.shape[:2], np.inf)
        values = np.linalg.eigvalsh(self.posterior)
        return np.asarray(values[..., -1] / values[..., 0])


def noise_of_planes(
    operator: FourierOperator,
    weights: Floats,
    transfer: Spectra,
    parameters: LinearParameters,
    adherence: float,
) -> Noise:
    """Return the noise covariance of planes, K^-1 H K^-1, where K = H + prior.

    Parameters
    ----------
    operator : FourierOperator
        Over an image of the size `GRID`.
    weights : array, (visit,)
        Mean weight of each visit, one over variance.
    transfer : array, (ky, kx)
        Transfer function of the model's PSF.
    parameters : LinearParameters
        The priors.
    adherence : float
        That on the difference to the coadd.
    """
    prior = prior_of(transfer, parameters, adherence)
    total = float(weights.sum())
    n = operator.subfilters
    columns = operator.frequencies[1]
    multiplicity = np.full(columns, 2.0)
    multiplicity[0] = 1.0
    if operator.shape[1] % 2 == 0:
        multiplicity[-1] = 1.0
    if not total > 0:
        nothing = np.full((*transfer.shape, n, n), np.inf, np.complex128)
        return Noise(nothing, nothing, multiplicity)
    data = normal_matrices(operator, weights).astype(np.complex128)
    table = total * prior.matrix(n)
    ridge = total * parameters.taper_floor * np.eye(n)
    whole = data + prior.stiffness[..., None, None].astype(float) * table + ridge
    inverse = np.asarray(np.linalg.inv(whole), np.complex128)
    return Noise(np.asarray(inverse @ data @ inverse, np.complex128), inverse, multiplicity)


def _mean(values: Floats, multiplicity: Floats) -> Floats:
    weighted = np.moveaxis(values, 1, -1) * multiplicity
    return np.asarray(weighted.sum(axis=(0, -1)) / (multiplicity.sum() * len(values)))


def plane_covariance(noise: Noise) -> Floats:
    """Return the covariance (subfilter, subfilter_2) of planes in one pixel of mean weight."""
    return _mean(noise.covariance.real, noise.multiplicity)


def noise_of_template(noise: Noise, operator: FourierOperator, visit: int = 0) -> float:
    """Return the variance of a template in one pixel of mean weight.

    Parameters
    ----------
    noise : Noise
    operator : FourierOperator
        Of the template's visit, over an image of the size `GRID`.
    visit : int
        Index of it.
    """
    seen = operator.response(visit)
    variance = np.einsum("yxs,yxst,yxt->yx", seen, noise.covariance, seen.conj()).real
    return float(_mean(variance, noise.multiplicity))
