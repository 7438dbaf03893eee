"""The normal equations of sub-bands at each spatial frequency: their matrices and inverses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.dcr.operator import FourierOperator, Images, Spectra, transmissions

__all__ = ["difference_matrices", "inverse_matrices", "normal_matrices", "times"]

Floats = NDArray[np.float64]
Matrices = NDArray[np.complex64]
"""(ky, kx, subfilter, subfilter), Hermitian."""


class Prior(NamedTuple):
    """Weights of the prior, relative to the mean weight of the data.

    ``curvature`` and ``slope`` of spectra, ``adherence`` to the coadd, all times the ``stiffness``
    (ky, kx) of a frequency.
    """

    curvature: float
    slope: float
    adherence: float
    stiffness: Images

    def matrix(self, photons: Floats) -> Floats:
        """Return the matrix of the prior at a frequency of stiffness 1.

        Parameters
        ----------
        photons : array, (subfilter,)
            Those of a flat spectrum in each plane, over those of all: spectra are expected to be
            smooth, not planes.
        """
        first, second = (
            each / transmissions(photons) for each in difference_matrices(len(photons))
        )
        identity = np.eye(len(photons))
        return (
            self.curvature * second.T @ second
            + self.slope * first.T @ first
            + self.adherence * identity
        )


def difference_matrices(subfilters: int) -> tuple[Floats, Floats]:
    """Return the matrices of first and second differences between planes.

    Examples
    --------
    >>> first, second = difference_matrices(3)
    >>> first.tolist(), second.tolist()
    ([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]], [[1.0, -2.0, 1.0]])
    """
    identity = np.eye(subfilters)
    return np.diff(identity, axis=0), np.diff(identity, n=2, axis=0)


def normal_matrices(operator: FourierOperator, weights: Floats) -> Matrices:
    """Return the sum over visits of weight times conj(a) a^T, at each frequency.

    Parameters
    ----------
    operator : FourierOperator
    weights : array, (visit,)
    """
    n = operator.subfilters
    found = np.zeros((*operator.frequencies, n, n), np.complex64)
    for visit in range(operator.visits):
        operator.add_outer(visit, float(weights[visit]), found)
    for s in range(n):
        for t in range(s):
            found[..., t, s] = found[..., s, t].conj()
    return found


def inverse_matrices(
    matrices: Matrices, prior: Floats, stiffness: Images, ridge: float
) -> Matrices:
    """Return the inverses of matrices plus a prior of some stiffness and a ridge.

    Parameters
    ----------
    matrices : array, (ky, kx, subfilter, subfilter)
    prior : array, (subfilter, subfilter)
    stiffness : array, (ky, kx)
    ridge : float
    """
    found = np.empty_like(matrices)
    _invert(matrices, np.ascontiguousarray(prior, np.float64), stiffness, ridge, found)
    return found


@compiled
def times(matrices: Matrices, spectrum: Spectra, out: Spectra) -> None:
    """Write matrices times a transform of planes to out."""
    planes, rows, columns = spectrum.shape
    for iy in range(rows):
        for ix in range(columns):
            for s in range(planes):
                total = np.complex64(0.0)
                for t in range(planes):
                    total += matrices[iy, ix, s, t] * spectrum[t, iy, ix]
                out[s, iy, ix] = total


@compiled
def add_prior(prior: Floats, stiffness: Images, spectrum: Spectra, out: Spectra) -> None:
    """Add the prior times a transform of planes to out."""
    planes, rows, columns = spectrum.shape
    for iy in range(rows):
        for ix in range(columns):
            stiff = stiffness[iy, ix]
            for s in range(planes):
                total = np.complex64(0.0)
                for t in range(planes):
                    total += np.float32(prior[s, t] * stiff) * spectrum[t, iy, ix]
                out[s, iy, ix] += total


@compiled
def _invert(
    matrices: Matrices, prior: Floats, stiffness: Images, ridge: float, out: Matrices
) -> None:
    """Invert by Cholesky: each matrix is Hermitian and, with a ridge, positive."""
    rows, columns, n, _ = matrices.shape
    lower = np.zeros((n, n), np.complex128)
    inverse = np.zeros((n, n), np.complex128)
    for iy in range(rows):
        for ix in range(columns):
            stiff = stiffness[iy, ix]
            for i in range(n):
                for j in range(i + 1):
                    total = np.complex128(matrices[iy, ix, i, j]) + prior[i, j] * stiff
                    if i == j:
                        total += ridge
                    for k in range(j):
                        total -= lower[i, k] * np.conj(lower[j, k])
                    if i == j:
                        lower[i, i] = np.sqrt(max(total.real, 1e-300))
                    else:
                        lower[i, j] = total / lower[j, j].real
            for j in range(n):
                for i in range(j, n):
                    total = np.complex128(1.0 if i == j else 0.0)
                    for k in range(j, i):
                        total -= lower[i, k] * inverse[k, j]
                    inverse[i, j] = total / lower[i, i].real
            for i in range(n):
                for j in range(n):
                    total = np.complex128(0.0)
                    for k in range(max(i, j), n):
                        total += np.conj(inverse[k, i]) * inverse[k, j]
                    out[iy, ix, i, j] = np.complex64(total)
