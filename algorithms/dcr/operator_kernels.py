"""Products with what visits show of each frequency of each plane, row by row.

What a visit shows depends on a frequency by its phase per arcsec, which along a row is a straight
line. It is read from a table of (part, subfilter, entry), real and imaginary parts, with linear
interpolation. Real and imaginary parts, sums and places are in rows of their own so that the loops
have vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["add_outer", "add_unseen", "response", "see"]

Images = NDArray[np.float32]
Spectra = NDArray[np.complex64]
Places = NDArray[np.int64]


@compiled
def _places(start: np.float32, along: Images, low: Places, part: Images) -> None:
    """Write the entry below each place of a row and the part of the way to the next."""
    for ix in range(along.size):
        place = start + along[ix]
        whole = np.int32(place)
        low[ix] = whole
        part[ix] = place - np.float32(whole)


@compiled
def _at(values: Images, low: Places, part: Images, out: Images) -> None:
    for ix in range(low.size):
        at = np.uint64(low[ix])
        one = values[at]
        out[ix] = one + part[ix] * (values[at + np.uint64(1)] - one)


@compiled
def _respond(table: Images, low: Places, part: Images, real: Images, imag: Images) -> None:
    """Write the response of all planes along a row, (subfilter, kx)."""
    for s in range(real.shape[0]):
        _at(table[0, s], low, part, real[s])
        _at(table[1, s], low, part, imag[s])


@compiled
def response(table: Images, along_y: Images, along_x: Images, out: Spectra) -> None:
    """Write what a visit shows of each frequency of each plane, (ky, kx, subfilter)."""
    rows, columns, planes = out.shape
    low, part = np.empty(columns, np.int64), np.empty(columns, np.float32)
    real, imag = np.empty((planes, columns), np.float32), np.empty((planes, columns), np.float32)
    for iy in range(rows):
        _places(along_y[iy], along_x, low, part)
        _respond(table, low, part, real, imag)
        for s in range(planes):
            for ix in range(columns):
                out[iy, ix, s] = complex(real[s, ix], imag[s, ix])


@compiled
def see(
    spectrum: Spectra, table: Images, along_y: Images, along_x: Images,
    transfer: Spectra, out: Spectra,
) -> None:  # fmt: skip
    """Write what a visit shows of the transform of planes, (ky, kx)."""
    planes, rows, columns = spectrum.shape
    low, part = np.empty(columns, np.int64), np.empty(columns, np.float32)
    real, imag = np.empty((planes, columns), np.float32), np.empty((planes, columns), np.float32)
    sum_real, sum_imag = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for iy in range(rows):
        _places(along_y[iy], along_x, low, part)
        _respond(table, low, part, real, imag)
        sum_real[:] = 0.0
        sum_imag[:] = 0.0
        for s in range(planes):
            _add_product(spectrum[s, iy], real[s], imag[s], sum_real, sum_imag)
        _join(sum_real, sum_imag, out[iy])
        if transfer.shape[0] > 0:
            row, ratio = out[iy], transfer[iy]
            for ix in range(columns):
                row[ix] *= ratio[ix]


@compiled
def _add_product(
    values: Spectra, real: Images, imag: Images, sum_real: Images, sum_imag: Images
) -> None:
    for ix in range(values.size):
        value = values[ix]
        sum_real[ix] += real[ix] * value.real - imag[ix] * value.imag
        sum_imag[ix] += real[ix] * value.imag + imag[ix] * value.real


@compiled
def _join(real: Images, imag: Images, out: Spectra) -> None:
    for ix in range(out.size):
        out[ix] = complex(real[ix], imag[ix])


@compiled
def add_unseen(
    seen: Spectra, table: Images, along_y: Images, along_x: Images,
    transfer: Spectra, out: Spectra,
) -> None:  # fmt: skip
    """Add the transpose of `see`, applied to (ky, kx), to a transform of planes."""
    planes, rows, columns = out.shape
    low, part = np.empty(columns, np.int64), np.empty(columns, np.float32)
    real, imag = np.empty((planes, columns), np.float32), np.empty((planes, columns), np.float32)
    for iy in range(rows):
        _places(along_y[iy], along_x, low, part)
        _respond(table, low, part, real, imag)
        row = seen[iy]
        if transfer.shape[0] > 0:
            ratio = transfer[iy]
            for ix in range(columns):
                row[ix] *= np.conj(ratio[ix])
        for s in range(planes):
            _add_conjugate(row, real[s], imag[s], out[s, iy])


@compiled
def _add_conjugate(values: Spectra, real: Images, imag: Images, out: Spectra) -> None:
    for ix in range(values.size):
        value = values[ix]
        out[ix] += complex(
            real[ix] * value.real + imag[ix] * value.imag,
            real[ix] * value.imag - imag[ix] * value.real,
        )


@compiled
def add_outer(
    table: Images, along_y: Images, along_x: Images,
    transfer: Spectra, weight: np.float32, out: Spectra,
) -> None:  # fmt: skip
    """Add weight conj(a) a^T to the lower triangles of matrices (ky, kx, subfilter, subfilter)."""
    rows, columns, planes, _ = out.shape
    low, part = np.empty(columns, np.int64), np.empty(columns, np.float32)
    real, imag = np.empty((planes, columns), np.float32), np.empty((planes, columns), np.float32)
    for iy in range(rows):
        _places(along_y[iy], along_x, low, part)
        _respond(table, low, part, real, imag)
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
