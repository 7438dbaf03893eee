"""What a visit shows of a model of sub-bands, as a product in Fourier space.

In Fourier space the visit e of planes m is

.. math:: T_e(k) = Q_e(k) \\sum_s a_{es}(k) m_s(k),\\qquad
    a_{es}(k) = \\int_s \\phi(l) e^{-i k \\cdot u_e A_e(l)} dl

with the displacement A (arcsec) of light of each wavelength, the direction u of the zenith
(pixel/arcsec), the photons phi, and the ratio Q of the optical transfer functions of visit and
model. The transpose is the product with the complex conjugate, exactly. ``a`` depends on k by
k.u only, so it is read from a table of one dimension.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.dcr.bands import Band, subband_edges
from skyloom.algorithms.dcr.geometry import dispersion, displacement
from skyloom.algorithms.dcr.shifts import subband_nodes

__all__ = ["FourierOperator", "InBand", "fourier_operator", "slope_matrix", "subband_transfer"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Spectra = NDArray[np.complex64]
InBand: TypeAlias = Literal["linear", "flat"]

TABLE: Final = 4096
"""Steps of a table: linear between them, errors are below 1e-5."""


class FourierOperator(NamedTuple):
    """The operators of all visits over one periodic image.

    ``shape`` of the image (y, x); ``table`` (visit, entry, subfilter), complex64; ``along_y``
    (visit, ky) and ``along_x`` (visit, kx), whose sum is the place in the table; ``transfer``
    (visit, ky, kx), complex64, or of length 0 where all PSFs are that of the model.
    """

    shape: tuple[int, int]
    table: Spectra
    along_y: Images
    along_x: Images
    transfer: Spectra

    @property
    def visits(self) -> int:
        """Return the number of visits."""
        return len(self.table)

    @property
    def subfilters(self) -> int:
        """Return the number of sub-bands."""
        return int(self.table.shape[2])

    def spectrum(self, planes: Images) -> Spectra:
        """Return the transform of planes (subfilter, y, x)."""
        return np.asarray(fft.rfft2(planes), np.complex64)

    def planes(self, spectrum: Spectra) -> Images:
        """Return planes (subfilter, y, x) from their transform."""
        return np.asarray(fft.irfft2(spectrum, self.shape), np.float32)

    def predict(self, visit: int, spectrum: Spectra) -> Images:
        """Return what a visit shows of planes, (y, x), from their transform."""
        seen = np.empty(spectrum.shape[1:], np.complex64)
        transfer = self.transfer[visit] if len(self.transfer) else NONE
        _see(spectrum, self.table[visit], self.along_y[visit], self.along_x[visit], transfer, seen)
        return np.asarray(fft.irfft2(seen, self.shape, overwrite_x=True), np.float32)

    def add_transposed(self, visit: int, image: Images, spectrum: Spectra) -> None:
        """Add the transpose of `predict`, applied to an image (y, x), to a transform of planes."""
        seen = np.asarray(fft.rfft2(image), np.complex64)
        transfer = self.transfer[visit] if len(self.transfer) else NONE
        _unsee(
            seen, self.table[visit], self.along_y[visit], self.along_x[visit], transfer, spectrum
        )


NONE: Final = np.empty((0, 0), np.complex64)


def fourier_operator(
    shape: tuple[int, int],
    band: Band,
    conditions: xr.Dataset,
    jacobian: Floats,
    *,
    subfilters: int = 3,
    in_band: InBand = "linear",
    transfer: Spectra | None = None,
) -> FourierOperator:
    """Return the operators of visits over a periodic image.

    Parameters
    ----------
    shape : (y, x)
    band, conditions, jacobian, subfilters
        As for `skyloom.algorithms.dcr.dcr_shifts`.
    in_band : "linear" or "flat"
        Spectrum inside a sub-band: linear, its slope from the neighbouring planes; or flat, which
        inflates colours by 1 / (1 - 1/N^2). A single sub-band is only moved.
    transfer : array, (visit, ky, kx), optional
        Transfer functions of the visits over that of the model, at the frequencies of ``rfft2``.
    """
    values, step = subband_transfer(band, conditions, jacobian, subfilters, in_band)
    vectors = displacement(conditions, jacobian) * (2.0 * np.pi / step)[:, None]
    return FourierOperator(
        shape,
        values.astype(np.complex64),
        (vectors[:, :1] * fft.fftfreq(shape[0])).astype(np.float32),
        (vectors[:, 1:] * fft.rfftfreq(shape[1])).astype(np.float32),
        np.empty((0, 0, 0), np.complex64) if transfer is None else transfer,
    )


def subband_transfer(
    band: Band, conditions: xr.Dataset, jacobian: Floats, subfilters: int, in_band: InBand
) -> tuple[NDArray[np.complex128], Floats]:
    """Return what visits show of each plane at a table of phases per arcsec.

    Returns
    -------
    values : ndarray, (visit, entry, subfilter)
    step : ndarray, (visit,), radian/arcsec
        Between entries, from 0 on; values at negative phases are complex conjugates.
    """
    if in_band not in ("linear", "flat"):
        raise ValueError(f"in_band must be 'linear' or 'flat', got {in_band!r}")
    wavelengths, weights = subband_nodes(band, subfilters)
    amplitude = dispersion(band, conditions, wavelengths)  # visit, subfilter, node
    vectors = displacement(conditions, jacobian)
    step = np.pi * np.abs(vectors).sum(axis=1) / (TABLE - 1) + 1e-12
    if subfilters == 1:  # only moved: a single plane cannot tell how it is smeared
        amplitude = (amplitude * weights).sum(axis=-1, keepdims=True)
        wavelengths, weights = wavelengths[:, :1], np.ones((1, 1))
    turned = (step[:, None] * np.arange(TABLE + 1))[:, :, None, None] * amplitude[:, None]
    rotation = np.exp(-1j * turned)
    values = (rotation * weights).sum(axis=-1)
    if in_band == "linear" and subfilters > 1:
        edges = subband_edges(band, subfilters)
        within = (wavelengths - (edges[1:, None] + edges[:-1, None]) / 2.0) / np.diff(edges)[
            :, None
        ]
        # Light is only moved within the sub-band, whatever the throughput.
        within = within - (within * weights).sum(axis=1, keepdims=True)
        values = values + (rotation * (within * weights)).sum(axis=-1) @ slope_matrix(subfilters)
    return values, step


def slope_matrix(subfilters: int) -> Floats:
    """Return the matrix whose product with the planes are the slopes of spectra within them.

    Examples
    --------
    >>> slope_matrix(3).tolist()
    [[-1.0, 1.0, 0.0], [-0.5, 0.0, 0.5], [0.0, -1.0, 1.0]]
    """
    return np.asarray(np.gradient(np.eye(subfilters), axis=0))


@compiled
def _see(
    spectrum: Spectra, table: Spectra, along_y: Images, along_x: Images, transfer: Spectra,
    out: Spectra,
) -> None:  # fmt: skip
    planes, rows, columns = spectrum.shape
    matched = transfer.shape[0] > 0
    for iy in range(rows):
        start = along_y[iy]
        for ix in range(columns):
            place = start + along_x[ix]
            size = abs(place)
            low = int(size)
            part = np.float32(size - low)
            real = np.float32(0.0)
            imag = np.float32(0.0)
            for s in range(planes):
                one, two = table[low, s], table[low + 1, s]
                at_real = one.real + part * (two.real - one.real)
                at_imag = one.imag + part * (two.imag - one.imag)
                if place < 0:
                    at_imag = -at_imag
                value = spectrum[s, iy, ix]
                real += at_real * value.real - at_imag * value.imag
                imag += at_real * value.imag + at_imag * value.real
            seen = np.complex64(complex(real, imag))
            out[iy, ix] = seen * transfer[iy, ix] if matched else seen


@compiled
def _unsee(
    seen: Spectra, table: Spectra, along_y: Images, along_x: Images, transfer: Spectra, out: Spectra
) -> None:
    planes, rows, columns = out.shape
    matched = transfer.shape[0] > 0
    for iy in range(rows):
        start = along_y[iy]
        for ix in range(columns):
            place = start + along_x[ix]
            size = abs(place)
            low = int(size)
            part = np.float32(size - low)
            value = seen[iy, ix]
            if matched:
                value = value * np.conj(transfer[iy, ix])
            for s in range(planes):
                one, two = table[low, s], table[low + 1, s]
                at_real = one.real + part * (two.real - one.real)
                at_imag = one.imag + part * (two.imag - one.imag)
                if place > 0:
                    at_imag = -at_imag
                real = at_real * value.real - at_imag * value.imag
                imag = at_real * value.imag + at_imag * value.real
                out[s, iy, ix] += np.complex64(complex(real, imag))
