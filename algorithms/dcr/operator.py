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

import math
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms.dcr.bands import Band, subband_edges
from skyloom.algorithms.dcr.geometry import dispersion, displacement
from skyloom.algorithms.dcr.operator_kernels import add_outer, add_unseen, response, see
from skyloom.algorithms.dcr.shifts import subband_nodes

__all__ = ["FourierOperator", "InBand", "fourier_operator", "slope_matrix", "subband_transfer"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Spectra = NDArray[np.complex64]
InBand: TypeAlias = Literal["linear", "flat"]

ERROR: Final = 5e-6
"""Of what is read from tables, where all light is 1."""


class FourierOperator(NamedTuple):
    """The operators of all visits over one periodic image.

    ``shape`` of the image (y, x); ``table`` (visit, part, subfilter, entry), float32, the real
    and imaginary parts of what a visit shows of a plane; ``along_y`` (visit, ky) and ``along_x``
    (visit, kx), whose sum is the entry; ``transfer`` (visit, ky, kx), complex64, or of length 0
    where all PSFs are that of the model.
    """

    shape: tuple[int, int]
    table: Images
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
        see(spectrum, *self._of(visit), self._transfer(visit), seen)
        return np.asarray(fft.irfft2(seen, self.shape, overwrite_x=True), np.float32)

    def add_transposed(self, visit: int, image: Images, spectrum: Spectra) -> None:
        """Add the transpose of `predict`, applied to an image (y, x), to a transform of planes."""
        seen = np.asarray(fft.rfft2(image), np.complex64)
        add_unseen(seen, *self._of(visit), self._transfer(visit), spectrum)

    def response(self, visit: int) -> Spectra:
        """Return what a visit shows of each plane without the PSF, (ky, kx, subfilter)."""
        rows, columns = self.along_y.shape[1], self.along_x.shape[1]
        found = np.empty((rows, columns, self.subfilters), np.complex64)
        response(*self._of(visit), found)
        return found

    def add_outer(self, visit: int, weight: float, matrices: Spectra) -> None:
        """Add weight conj(a) a^T to lower triangles, (ky, kx, subfilter, subfilter)."""
        add_outer(*self._of(visit), self._transfer(visit), np.float32(weight), matrices)

    def _of(self, visit: int) -> tuple[Images, Images, Images]:
        return self.table[visit], self.along_y[visit], self.along_x[visit]

    def _transfer(self, visit: int) -> Spectra:
        return self.transfer[visit] if len(self.transfer) else NONE


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
    error: float = ERROR,
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
    error : float
        Largest error of what is read from tables, where all light is 1.
    """
    values, step = subband_transfer(band, conditions, jacobian, subfilters, in_band, error=error)
    vectors = displacement(conditions, jacobian) * (2.0 * np.pi / step)[:, None]
    both = np.concatenate([values[:, :0:-1].conj(), values], axis=1).transpose(0, 2, 1)
    return FourierOperator(
        shape,
        np.stack([both.real, both.imag], axis=1).astype(np.float32),
        (vectors[:, :1] * fft.fftfreq(shape[0]) + values.shape[1] - 1).astype(np.float32),
        (vectors[:, 1:] * fft.rfftfreq(shape[1])).astype(np.float32),
        np.empty((0, 0, 0), np.complex64) if transfer is None else transfer,
    )


def subband_transfer(
    band: Band,
    conditions: xr.Dataset,
    jacobian: Floats,
    subfilters: int,
    in_band: InBand,
    *,
    error: float = ERROR,
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
    largest = np.pi * np.abs(vectors).sum(axis=1)
    turns = float((largest * np.abs(amplitude).max(axis=(1, 2))).max())
    entries = 2 + math.ceil(turns / np.sqrt(8.0 * error))  # linear between them
    step = largest / (entries - 1) + 1e-12
    if subfilters == 1:  # only moved: a single plane cannot tell how it is smeared
        amplitude = (amplitude * weights).sum(axis=-1, keepdims=True)
        wavelengths, weights = wavelengths[:, :1], np.ones((1, 1))
    turned = (step[:, None] * np.arange(entries + 1))[:, :, None, None] * amplitude[:, None]
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
