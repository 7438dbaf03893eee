"""The noise of sub-bands, frequency by frequency: small Hermitian systems, one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["add_noise", "add_outer_sums", "interpolated"]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
Images = NDArray[np.float32]


@compiled
def add_outer_sums(
    shown: NDArray[np.complex64], weights: Floats, vectors: Complex, matrices: Complex
) -> None:
    """Add the sums over visits of w conj(a) and of w conj(a) a^T.

    ``shown`` is a, (visit, ky, kx, subfilter), the weights are (visit, ky, kx). Of the matrices
    (ky, kx, subfilter, subfilter) only the lower triangles are written.
    """
    visits, rows, columns, planes = shown.shape
    for visit in range(visits):
        for iy in range(rows):
            for ix in range(columns):
                for s in range(planes):
                    one = weights[visit, iy, ix] * np.conj(np.complex128(shown[visit, iy, ix, s]))
                    vectors[iy, ix, s] += one
                    for t in range(s + 1):
                        matrices[iy, ix, s, t] += one * shown[visit, iy, ix, t]


@compiled
def add_noise(
    sharp: Complex, noisy: Complex, alike: Complex, level: Floats, ridge: float, pull: Floats,
    parts: Floats, wanted: Complex, share: Floats, out: Floats,
) -> None:  # fmt: skip
    """Add the covariance of sums of planes over frequencies.

    Parameters
    ----------
    sharp : array, (ky, kx, subfilter, subfilter)
        Lower triangles of the matrices of the planes, without the ridge on their diagonals.
    noisy, alike : array, (ky, kx, subfilter, subfilter), (ky, kx, subfilter)
        Sums over visits of w conj(a) a^T and w conj(a), times the power of the noise.
    level, pull : array, (ky, kx)
        The sum of w times this power; how firmly planes are held to the coadd, over all weights.
    parts : array, (subfilter,)
        Of the coadd in planes.
    wanted : array, (ky, kx, sum, subfilter)
        Conjugates of the factors of planes in sums.
    share : array, (ky, kx)
        Of a frequency in what is added.
    out : array, (sum, sum)
    """
    rows, columns, sums, planes = wanted.shape
    lower, inverse = np.zeros((planes, planes), np.complex128), np.zeros(planes)
    found, read = np.zeros((sums, planes), np.complex128), np.zeros(planes, np.complex128)
    for iy in range(rows):
        for ix in range(columns):
            factorise(sharp[iy, ix], ridge, lower, inverse)
            for i in range(sums):
                solve(lower, inverse, wanted[iy, ix, i], found[i])
            for j in range(sums):
                multiply(noisy[iy, ix], alike[iy, ix], level[iy, ix], pull[iy, ix], parts,
                         found[j], read)  # fmt: skip
                for i in range(sums):
                    out[i, j] += share[iy, ix] * product(found[i], read)


@compiled
def factorise(matrix: Complex, ridge: float, lower: Complex, inverse: Floats) -> None:
    """Write L, below its diagonal of ones, and 1 / D of a matrix plus a ridge, L D L^H."""
    for i in range(len(inverse)):
        rest = matrix[i, i].real + ridge
        for j in range(i):
            total = matrix[i, j]
            for k in range(j):
                total -= lower[i, k] * np.conj(lower[j, k])
            lower[i, j] = total  # L D, which the next columns need
        for j in range(i):
            total = lower[i, j]
            lower[i, j] = total * inverse[j]
            rest -= (total * np.conj(lower[i, j])).real
        inverse[i] = 1.0 / max(rest, 1e-300)


@compiled
def solve(lower: Complex, inverse: Floats, right: Complex, out: Complex) -> None:
    """Write the solution of L D L^H x = right."""
    planes = len(inverse)
    for i in range(planes):
        total = right[i]
        for j in range(i):
            total -= lower[i, j] * out[j]
        out[i] = total
    for i in range(planes - 1, -1, -1):
        total = out[i] * inverse[i]
        for j in range(i + 1, planes):
            total -= np.conj(lower[j, i]) * out[j]
        out[i] = total


@compiled
def multiply(
    noisy: Complex, alike: Complex, level: float, pull: float, parts: Floats, values: Complex,
    out: Complex,
) -> None:  # fmt: skip
    """Write B times values: the noise of data, and of the coadd that planes are held to."""
    planes = len(values)
    coadded, drawn = np.complex128(0.0), np.complex128(0.0)
    for s in range(planes):
        coadded += np.conj(alike[s]) * values[s]
        drawn += parts[s] * values[s]
    for s in range(planes):
        total = pull * (alike[s] * drawn + parts[s] * (coadded + pull * level * drawn))
        for t in range(s + 1):
            total += noisy[s, t] * values[t]
        for t in range(s + 1, planes):
            total += np.conj(noisy[t, s]) * values[t]
        out[s] = total


@compiled
def product(one: Complex, other: Complex) -> float:
    """Return the real part of one^H other."""
    total = 0.0
    for s in range(len(one)):
        total += one[s].real * other[s].real + one[s].imag * other[s].imag
    return total


@compiled
def interpolated(
    levels: Floats, totals: Floats, group: NDArray[np.uint8], place: Images, weights: Images,
    out: Images,
) -> None:  # fmt: skip
    """Write the variance between levels (group, level), of pixels (y, x) that have other weights
    than their group has."""
    rows, columns = out.shape
    last = levels.shape[1] - 1
    for iy in range(rows):
        for ix in range(columns):
            at, weight = np.float64(place[iy, ix]), np.float64(weights[iy, ix])
            if not weight > 0:
                out[iy, ix] = np.inf
            elif np.isnan(at):
                out[iy, ix] = np.nan
            else:
                own = group[iy, ix]
                below = min(max(int(at), 0), last - 1)
                step = levels[own, below + 1] - levels[own, below]
                value = levels[own, below] + (at - below) * step
                out[iy, ix] = value * totals[own] / weight
