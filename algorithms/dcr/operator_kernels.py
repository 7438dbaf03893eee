"""Products with what visits show of each frequency of each plane, row by row.

What a visit shows along a row of frequencies is a short series of polynomials of kx, the same ones
in all rows; the coefficients (subfilter, part, term), of real and imaginary parts, are those of
the row. Real and imaginary parts are in rows of their own so that the loops have vectors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.fused import fused

__all__ = ["STEP", "add_outer", "add_unseen", "response", "see"]

Images = NDArray[np.float32]
Spectra = NDArray[np.complex64]

STEP: Final = 2
"""Series have a multiple of this many terms."""


@compiled
def _series(
    coefficients: Images, iy: int, plane: int, terms: int, basis: Images, real: Images,
    imag: Images,
) -> None:  # fmt: skip
    """Write a row of what a visit shows of a plane: coefficients times the basis, summed."""
    real[:] = 0.0
    imag[:] = 0.0
    whole = terms - terms % 4
    for r in range(0, whole, 4):
        a, b = coefficients[iy, plane, 0, r], coefficients[iy, plane, 0, r + 1]
        c, d = coefficients[iy, plane, 0, r + 2], coefficients[iy, plane, 0, r + 3]
        e, f = coefficients[iy, plane, 1, r], coefficients[iy, plane, 1, r + 1]
        g, h = coefficients[iy, plane, 1, r + 2], coefficients[iy, plane, 1, r + 3]
        for ix in range(real.size):
            one, two = basis[r, ix], basis[r + 1, ix]
            three, four = basis[r + 2, ix], basis[r + 3, ix]
            low = fused(b, two, fused(a, one, real[ix]))
            real[ix] = fused(d, four, fused(c, three, low))
            low = fused(f, two, fused(e, one, imag[ix]))
            imag[ix] = fused(h, four, fused(g, three, low))
    if terms > whole:
        a, b = coefficients[iy, plane, 0, whole], coefficients[iy, plane, 0, whole + 1]
        e, f = coefficients[iy, plane, 1, whole], coefficients[iy, plane, 1, whole + 1]
        for ix in range(real.size):
            one, two = basis[whole, ix], basis[whole + 1, ix]
            real[ix] = fused(b, two, fused(a, one, real[ix]))
            imag[ix] = fused(f, two, fused(e, one, imag[ix]))


@compiled
def response(coefficients: Images, terms: int, basis: Images, out: Spectra) -> None:
    """Write what a visit shows of each frequency of each plane, (ky, kx, subfilter)."""
    rows, columns, planes = out.shape
    real, imag = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for iy in range(rows):
        for s in range(planes):
            _series(coefficients, iy, s, terms, basis, real, imag)
            for ix in range(columns):
                out[iy, ix, s] = complex(real[ix], imag[ix])


@compiled
def see(
    spectrum: Spectra, coefficients: Images, terms: int, basis: Images, transfer: Spectra,
    out: Spectra,
) -> None:  # fmt: skip
    """Write what a visit shows of the transform of planes, (ky, kx)."""
    planes, rows, columns = spectrum.shape
    real, imag = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for iy in range(rows):
        for s in range(planes):
            _series(coefficients, iy, s, terms, basis, real, imag)
            if s == 0:
                _product(spectrum[s, iy], real, imag, out[iy])
            else:
                _add_product(spectrum[s, iy], real, imag, out[iy])
        if transfer.shape[0] > 0:
            row, ratio = out[iy], transfer[iy]
            for ix in range(columns):
                row[ix] *= ratio[ix]


@compiled
def _product(values: Spectra, real: Images, imag: Images, out: Spectra) -> None:
    for ix in range(values.size):
        value = values[ix]
        out[ix] = complex(
            fused(-imag[ix], value.imag, real[ix] * value.real),
            fused(imag[ix], value.real, real[ix] * value.imag),
        )


@compiled
def _add_product(values: Spectra, real: Images, imag: Images, out: Spectra) -> None:
    for ix in range(values.size):
        value, before = values[ix], out[ix]
        out[ix] = complex(
            fused(-imag[ix], value.imag, fused(real[ix], value.real, before.real)),
            fused(imag[ix], value.real, fused(real[ix], value.imag, before.imag)),
        )


@compiled
def add_unseen(
    seen: Spectra, coefficients: Images, terms: int, basis: Images, transfer: Spectra,
    out: Spectra,
) -> None:  # fmt: skip
    """Add the transpose of `see`, applied to (ky, kx), to a transform of planes."""
    planes, rows, columns = out.shape
    real, imag = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for iy in range(rows):
        row = seen[iy]
        if transfer.shape[0] > 0:
            ratio = transfer[iy]
            for ix in range(columns):
                row[ix] *= np.conj(ratio[ix])
        for s in range(planes):
            _series(coefficients, iy, s, terms, basis, real, imag)
            _add_conjugate(row, real, imag, out[s, iy])


@compiled
def _add_conjugate(values: Spectra, real: Images, imag: Images, out: Spectra) -> None:
    for ix in range(values.size):
        value, before = values[ix], out[ix]
        out[ix] = complex(
            fused(imag[ix], value.imag, fused(real[ix], value.real, before.real)),
            fused(-imag[ix], value.real, fused(real[ix], value.imag, before.imag)),
        )


@compiled
def add_outer(
    coefficients: Images, terms: int, basis: Images, transfer: Spectra, weight: np.float32,
    out: Spectra,
) -> None:  # fmt: skip
    """Add weight conj(a) a^T to the lower triangles of matrices (ky, kx, subfilter, subfilter)."""
    rows, columns, planes, _ = out.shape
    real, imag = np.empty((planes, columns), np.float32), np.empty((planes, columns), np.float32)
    for iy in range(rows):
        for s in range(planes):
            _series(coefficients, iy, s, terms, basis, real[s], imag[s])
        for ix in range(columns):
            scale = weight
            if transfer.shape[0] > 0:
                ratio = transfer[iy, ix]
                scale *= ratio.real * ratio.real + ratio.imag * ratio.imag
            for s in range(planes):
                a, b = scale * real[s, ix], scale * imag[s, ix]
                for t in range(s + 1):
                    out[iy, ix, s, t] += complex(
                        a * real[t, ix] + b * imag[t, ix], a * imag[t, ix] - b * real[t, ix]
                    )
