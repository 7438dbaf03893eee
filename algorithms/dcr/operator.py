"""What a visit shows of a model of sub-bands, as a product in Fourier space.

In Fourier space the visit e of planes m is

.. math:: T_e(k) = Q_e(k) \\sum_s a_{es}(k) m_s(k),\\qquad
    a_{es}(k) = \\int \\phi_s(l) e^{-i k \\cdot u_e A_e(l) - g_e(l) k^2} dl

with the displacement A (arcsec) of light of each wavelength, the direction u of the zenith
(pixel/arcsec), the share phi of each plane in that light, how much wider it is g (pixel2) than the
sharpest light, and the ratio Q of the optical transfer functions of visit and model. The transpose
is the product with the complex conjugate, exactly.

The light of one wavelength is a product of functions of ky and of kx. Those of kx are written as
series of Chebyshev polynomials, so that a row of ``a`` is a short series with the coefficients of
its ky.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms.dcr.bands import Band, subband_places
from skyloom.algorithms.dcr.extinction import extinction_factors
from skyloom.algorithms.dcr.geometry import dispersion, displacement
from skyloom.algorithms.dcr.operator_kernels import STEP, add_outer, add_unseen, response, see
from skyloom.algorithms.dcr.shifts import subband_nodes, subband_photons

if TYPE_CHECKING:
    from skyloom.algorithms.dcr.ratio_products import RatioProducts

__all__ = [
    "FourierOperator",
    "InBand",
    "Light",
    "fourier_operator",
    "light_of",
    "relative_widths",
    "slope_matrix",
    "subband_shares",
]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Spectra = NDArray[np.complex64]
Transfers: TypeAlias = "Spectra | RatioProducts"
InBand: TypeAlias = Literal["linear", "flat"]

ERROR: Final = 5e-7
"""Terms of a series are left out below this, where all light is 1."""
ROWS: Final = 64
"""Of an image that stay in the cache together."""
VARIANCE: Final = 1.0 / (8.0 * np.log(2.0))
"""Of a Gaussian, over the square of its FWHM."""


class FourierOperator(NamedTuple):
    """The operators of all visits over one periodic image.

    ``shape`` of the image (y, x); ``coefficients`` (visit, ky, subfilter, part, term), float32, of
    the series for real and imaginary parts of what a visit shows of a plane; how many ``terms``
    (visit,) are not 0; the ``basis`` (term, kx) of the series; ``transfer``, (ky, kx) complex64 of
    each visit, or of length 0 where all PSFs are that of the model; the ``photons`` (subfilter,) of
    a flat spectrum in each sub-band, over those of all.
    """

    shape: tuple[int, int]
    coefficients: Images
    terms: NDArray[np.int64]
    basis: Images
    transfer: Transfers
    photons: Floats

    @property
    def visits(self) -> int:
        """Return the number of visits."""
        return len(self.terms)

    @property
    def subfilters(self) -> int:
        """Return the number of sub-bands."""
        return int(self.coefficients.shape[2])

    @property
    def frequencies(self) -> tuple[int, int]:
        """Return the number of frequencies (ky, kx)."""
        return self.shape[0], int(self.basis.shape[1])

    def spectrum(self, planes: Images) -> Spectra:
        """Return the transform of planes (subfilter, y, x)."""
        return np.asarray(fft.rfft2(planes), np.complex64)

    def planes(self, spectrum: Spectra) -> Images:
        """Return planes (subfilter, y, x) from their transform."""
        return np.asarray(fft.irfft2(spectrum, self.shape), np.float32)

    def predict(self, visit: int, spectrum: Spectra) -> Images:
        """Return what a visit shows of planes, (y, x), from their transform."""
        seen = np.empty(self.frequencies, np.complex64)
        see(spectrum, *self._of(visit), self._transfer(visit), seen)
        half = fft.ifft(seen, axis=0, overwrite_x=True)
        return np.asarray(fft.irfft(half, self.shape[1], overwrite_x=True), np.float32)

    def add_transposed(self, visit: int, image: Images, spectrum: Spectra) -> None:
        """Add the transpose of `predict`, applied to an image (y, x), to a transform of planes."""
        self.add_unseen(visit, self.transformed(image), spectrum)

    def transformed(self, image: Images) -> Spectra:
        """Return the transform of an image (y, x), which may be smaller, with zeros beside it."""
        return np.asarray(fft.rfft2(image, self.shape), np.complex64)

    def add_unseen(self, visit: int, seen: Spectra, spectrum: Spectra) -> None:
        """Add the transpose of what a visit shows, applied to a transform (ky, kx), which is used
        up, to a transform of planes."""
        add_unseen(seen, *self._of(visit), self._transfer(visit), spectrum)

    def add_normal(self, visit: int, spectrum: Spectra, weights: Images, found: Spectra) -> None:
        """Add the transpose of `predict`, applied to weights (y, x) times it, to ``found``.

        Beyond the weights, which may be of a smaller image, they are 0.
        """
        self.add_unseen(visit, self.weighted(visit, spectrum, weights), found)

    def weighted(self, visit: int, spectrum: Spectra, weights: Images) -> Spectra:
        """Return the transform (ky, kx) of weights (y, x) times what a visit shows of planes.

        Beyond the weights, which may be of a smaller image, they are 0.
        """
        rows, columns = weights.shape
        seen = np.empty(self.frequencies, np.complex64)
        see(spectrum, *self._of(visit), self._transfer(visit), seen)
        half = fft.ifft(seen, axis=0, overwrite_x=True)
        for start in range(0, rows, ROWS):
            at = slice(start, min(start + ROWS, rows))
            image = fft.irfft(half[at], self.shape[1])
            image[:, :columns] *= weights[at]
            image[:, columns:] = 0.0
            half[at] = fft.rfft(image)
        half[rows:] = 0.0
        return np.asarray(fft.fft(half, axis=0, overwrite_x=True), np.complex64)

    def response(self, visit: int) -> Spectra:
        """Return what a visit shows of each plane without the PSF, (ky, kx, subfilter)."""
        found = np.empty((*self.frequencies, self.subfilters), np.complex64)
        response(*self._of(visit), found)
        return found

    def shown(self, visit: int) -> Spectra:
        """Return what a visit shows of each plane, (ky, kx, subfilter), its PSF included."""
        found = self.response(visit)
        if len(self.transfer):
            found *= self.transfer[visit][..., None]
        return found

    def add_outer(self, visit: int, weight: float, matrices: Spectra) -> None:
        """Add weight conj(a) a^T to lower triangles, (ky, kx, subfilter, subfilter)."""
        add_outer(*self._of(visit), self._transfer(visit), np.float32(weight), matrices)

    def _of(self, visit: int) -> tuple[Images, int, Images]:
        return self.coefficients[visit], int(self.terms[visit]), self.basis

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
    transfer: Transfers | None = None,
    fwhm: Floats | None = None,
    chromatic_seeing: float = 0.0,
    offsets: Floats | None = None,
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
    transfer : array, (visit, ky, kx), or RatioProducts, optional
        Transfer functions of the visits over that of the model, at the frequencies of ``rfft2``;
        of the sharpest light if widths depend on wavelength.
    fwhm : array, (visit,), pixel, optional
        Widths of the PSFs in the sharpest light, needed if they depend on wavelength.
    chromatic_seeing : float
        Power of the wavelength that the widths follow. All light is as much wider than the
        sharpest as a Gaussian would be. A single sub-band cannot tell, and has one width.
    offsets : array, (visit, 2), pixel, optional
        How far (dy, dx) visits lie from where they should.
    """
    light = light_of(band, conditions, jacobian, subfilters, in_band)
    blur = np.zeros(light.moved.shape[:2])
    if chromatic_seeing and subfilters > 1:
        if fwhm is None:
            raise ValueError("fwhm is needed where seeing depends on wavelength")
        wider = relative_widths(band, light.wavelengths, chromatic_seeing) ** 2 - 1.0
        blur = VARIANCE / 2.0 * np.square(fwhm)[:, None] * wider
    ky, kx = 2.0 * np.pi * fft.fftfreq(shape[0]), 2.0 * np.pi * fft.rfftfreq(shape[1])
    moved = light.moved if offsets is None else light.moved + offsets[:, None, :]
    series = [_series(*one, ky) for one in zip(moved, blur, light.shares, strict=True)]
    longest = max(found.shape[-1] for found in series)
    coefficients = np.zeros((len(series), len(ky), subfilters, 2, longest), np.float32)
    for visit, found in enumerate(series):
        coefficients[visit, ..., 0, : found.shape[-1]] = found.real
        coefficients[visit, ..., 1, : found.shape[-1]] = found.imag
    return FourierOperator(
        shape,
        coefficients,
        np.array([found.shape[-1] for found in series]),
        np.ascontiguousarray(chebvander(2.0 * kx / np.pi - 1.0, longest - 1).T, np.float32),
        np.empty((0, 0, 0), np.complex64) if transfer is None else transfer,
        subband_photons(band, subfilters),
    )


class Light(NamedTuple):
    """Light of some wavelengths: the ``shares`` (visit, subfilter, node) of the planes in it, and
    by how many pixels it is ``moved`` (visit, node, 2; dy, dx)."""

    wavelengths: Floats
    shares: Floats
    moved: Floats


def light_of(
    band: Band, conditions: xr.Dataset, jacobian: Floats, subfilters: int, in_band: InBand
) -> Light:
    """Return the light of some sub-bands, and how it is displaced in each visit."""
    wavelengths, shares = subband_shares(band, subfilters, in_band)
    nodes, weights = subband_nodes(band, subfilters)
    photons = weights * subband_photons(band, subfilters)[:, None]
    passed = extinction_factors(band, conditions, nodes, photons).reshape(-1, wavelengths.size)
    shares = shares * passed[:, None, :]
    amplitude = dispersion(band, conditions, wavelengths)
    if subfilters == 1:  # only moved: a single plane cannot tell how it is smeared
        amplitude = (amplitude * shares[:, 0]).sum(axis=1, keepdims=True)
        wavelengths, shares = wavelengths[:1], np.ones((len(amplitude), 1, 1))
    vectors = displacement(conditions, jacobian)
    return Light(wavelengths, shares, amplitude[:, :, None] * vectors[:, None, :])


def _series(moved: Floats, blur: Floats, shares: Floats, ky: Floats) -> NDArray[np.complex128]:
    """Return the coefficients (ky, subfilter, term) of what a visit shows.

    Parameters
    ----------
    moved : array, (node, 2)
    blur : array, (node,)
    shares : array, (subfilter, node)
    ky : array
    """
    turns = np.pi / 2.0 * float(np.abs(moved[:, 1]).max())
    width = np.pi * float(np.sqrt(blur.max()))
    count = 24 + math.ceil(1.5 * turns + 6.0 * width)
    angles = np.pi * (np.arange(count) + 0.5) / count
    at = np.pi / 2.0 * (np.cos(angles) + 1.0)
    along_x = np.exp(-1j * moved[:, 1:] * at - blur[:, None] * at**2)
    cosines = np.cos(np.arange(count)[:, None] * angles) * (2.0 / count)
    cosines[0] /= 2.0
    terms = np.einsum("jm,rm->jr", along_x, cosines)
    needed = 1 + int(np.flatnonzero(np.abs(terms).max(axis=0) > ERROR)[-1])
    needed += -needed % STEP
    along_y = np.exp(-1j * ky[:, None] * moved[:, 0] - ky[:, None] ** 2 * blur)
    per_plane = np.einsum("sj,jr->jsr", shares, terms[:, :needed])
    return np.asarray(np.einsum("yj,jsr->ysr", along_y, per_plane))


def subband_shares(band: Band, subfilters: int, in_band: InBand) -> tuple[Floats, Floats]:
    """Return wavelengths of light and what each plane contributes to it.

    Returns
    -------
    wavelengths : ndarray, (node,), nm
    shares : ndarray, (subfilter, node)
        Those of a plane add up to 1.
    """
    if in_band not in ("linear", "flat"):
        raise ValueError(f"in_band must be 'linear' or 'flat', got {in_band!r}")
    wavelengths, weights = subband_nodes(band, subfilters)
    shares = np.eye(subfilters)[:, :, None] * weights
    if in_band == "linear" and subfilters > 1:
        within = subband_places(band, wavelengths)
        # Light is only moved within the sub-band, whatever the throughput.
        within = within - (within * weights).sum(axis=1, keepdims=True)
        # Spectra are smooth, planes are not: each holds what its sub-band lets pass.
        passed = transmissions(subband_photons(band, subfilters))
        slopes = passed[:, None] * slope_matrix(subfilters) / passed
        shares = shares + slopes.T[:, :, None] * (within * weights)
    return wavelengths.ravel(), shares.reshape(subfilters, -1)


def relative_widths(band: Band, wavelengths: Floats, chromatic_seeing: float) -> Floats:
    """Return the widths of PSFs of some wavelengths over that of the sharpest light of a band.

    Examples
    --------
    >>> band = Band.from_effective("g", 476.31, 147.0)
    >>> relative_widths(band, np.array([band.lambda_min, band.lambda_max]), -0.2).round(3).tolist()
    [1.064, 1.0]
    """
    edges = np.array([band.lambda_min, band.lambda_max])
    return np.asarray(wavelengths**chromatic_seeing / (edges**chromatic_seeing).min())


def transmissions(photons: Floats) -> Floats:
    """Return the mean transmission of sub-bands over that of the band, no less than a hundredth.

    Parameters
    ----------
    photons : array, (subfilter,)
        Those of a flat spectrum in each sub-band, over those of all.

    Examples
    --------
    >>> transmissions(np.array([0.25, 0.75, 0.0])).tolist()
    [0.75, 2.25, 0.01]
    """
    return np.maximum(len(photons) * photons, 0.01)


def slope_matrix(subfilters: int) -> Floats:
    """Return the matrix that makes slopes within sub-bands of the spectrum's mean in each.

    Examples
    --------
    >>> slope_matrix(3).tolist()
    [[-1.0, 1.0, 0.0], [-0.5, 0.0, 0.5], [0.0, -1.0, 1.0]]
    """
    return np.asarray(np.gradient(np.eye(subfilters), axis=0))
