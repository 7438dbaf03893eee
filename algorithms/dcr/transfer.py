"""Transfer functions of point-spread functions, and the PSF that a model has."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.operator import relative_widths
from skyloom.algorithms.psf import gaussian_psf, psf_fwhm
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

__all__ = [
    "PointSpreads",
    "gaussian_transfer",
    "point_spreads",
    "scaled_stamps",
    "stamp_transfer",
    "transfer_ratio",
]

Floats = NDArray[np.float64]
Spectra = NDArray[np.complex64]

DULL: Final = 1e-3
"""Transfer of the model below which a ratio to it is damped."""


class PointSpreads:
    """The PSFs of visits and that of the model of a patch.

    The model has the sharpest PSF of all visits, so that no visit has to be sharpened.
    """

    def __init__(self, fwhm: Floats, images: Floats | None, match: bool) -> None:
        self.fwhm = fwhm
        self.images = images
        self.match = match
        self.sharpest = int(np.argmin(fwhm))

    @property
    def model_fwhm(self) -> float:
        """Return the full width at half maximum (pixel) of the model's PSF."""
        return float(self.fwhm[self.sharpest] if self.match else np.mean(self.fwhm))

    @property
    def widths(self) -> Floats:
        """Return the full width at half maximum (pixel) that visits have in the model, (visit,)."""
        return self.fwhm if self.match else np.full(len(self.fwhm), self.model_fwhm)

    def in_sharpest_light(
        self, band: Band, chromatic_seeing: float, subfilters: int
    ) -> PointSpreads:
        """Return these PSFs, of the band's reference wavelength, as in its sharpest light.

        Widths follow a power of the wavelength. In what a model holds all light is as sharp as the
        sharpest, so that nothing has to be sharpened.
        """
        if not chromatic_seeing or subfilters == 1:
            return self
        reference = np.array([band.lambda_ref])
        factor = 1.0 / float(relative_widths(band, reference, chromatic_seeing)[0])
        images = None if self.images is None else scaled_stamps(self.images, factor)
        return PointSpreads(self.fwhm * factor, images, self.match)

    def model_image(self) -> xr.DataArray:
        """Return the image (psf_y, psf_x) of the model's PSF."""
        if self.images is None:
            return gaussian_psf(self.model_fwhm)
        image = self.images[self.sharpest] if self.match else self.images.mean(axis=0)
        return xr.DataArray(image / image.sum(), dims=(v.PSF_Y, v.PSF_X))

    def model_transfer(self, shape: tuple[int, int]) -> Spectra:
        """Return the transfer function of the model's PSF at the frequencies of ``rfft2``."""
        if self.images is None:
            return gaussian_transfer(self.model_fwhm, shape)
        return stamp_transfer(self.model_image().to_numpy(), shape)

    def ratios(self, shape: tuple[int, int]) -> Spectra | None:
        """Return the transfer functions of visits over that of the model; None if all are equal."""
        if not self.match or (self.images is None and np.ptp(self.fwhm) == 0):
            return None
        found = np.empty((len(self.fwhm), shape[0], shape[1] // 2 + 1), np.complex64)
        if self.images is None:
            for visit, fwhm in enumerate(self.fwhm):
                excess = np.sqrt(max(fwhm**2 - self.model_fwhm**2, 0.0))
                found[visit] = gaussian_transfer(float(excess), shape)
            return found
        model = self.model_image().to_numpy()
        for visit, image in enumerate(self.images):
            found[visit] = transfer_ratio(image / image.sum(), model, shape)
        found[self.sharpest] = 1.0
        return found


def point_spreads(warps: xr.Dataset, match: bool) -> PointSpreads:
    """Return the PSFs that warps carry: ``psf`` (visit, psf_y, psf_x) or ``psf_fwhm`` (visit).

    Raises
    ------
    ValueError
        If the warps have neither, or a width is not positive.
    """
    if "psf" in warps:
        images = warps["psf"].transpose(v.VISIT, v.PSF_Y, v.PSF_X)
        fwhm = np.array([psf_fwhm(image).item() for image in images])
        stamps: Floats | None = images.to_numpy().astype(float)
    elif "psf_fwhm" in warps:
        fwhm, stamps = warps["psf_fwhm"].to_numpy().astype(float), None
    else:
        raise ValueError("warps need psf (visit, psf_y, psf_x) or psf_fwhm (visit; pixel)")
    wrong = ~(np.isfinite(fwhm) & (fwhm > 0))
    if wrong.any():
        names = ", ".join(str(name) for name in warps[v.VISIT].to_numpy()[wrong])
        raise ValueError(f"the PSF has no positive width in visits {names}")
    return PointSpreads(fwhm, stamps, match)


def gaussian_transfer(fwhm: float, shape: tuple[int, int]) -> Spectra:
    """Return the transfer function of a Gaussian (fwhm in pixels) at frequencies of ``rfft2``."""
    square = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1]) ** 2
    return np.exp(-2.0 * (np.pi * fwhm / SIGMA_TO_FWHM) ** 2 * square).astype(np.complex64)


def stamp_transfer(image: Floats, shape: tuple[int, int]) -> Spectra:
    """Return the transfer function of an image centred on its centre pixel."""
    rows, columns = min(image.shape[0], _odd(shape[0])), min(image.shape[1], _odd(shape[1]))
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    whole = np.zeros(shape)
    whole[:rows, :columns] = image[top : top + rows, left : left + columns]
    centred = np.roll(whole, (-(rows // 2), -(columns // 2)), axis=(0, 1))
    return np.asarray(fft.rfft2(centred), np.complex64)


def transfer_ratio(image: Floats, of: Floats, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """Return the transfer function of an image over that of another, damped where the latter's is
    below 1e-3.
    """
    below = stamp_transfer(of, shape).astype(np.complex128)
    above = stamp_transfer(image, shape)
    return np.asarray(above * below.conj() / (np.abs(below) ** 2 + DULL**2))


def scaled_stamps(images: Floats, factor: float) -> Floats:
    """Return images (..., psf_y, psf_x) with all lengths times a factor, the sums as they are.

    Odd sides; between pixels the images are taken as sums of waves.

    Examples
    --------
    >>> narrow, wide = gaussian_psf(4.0, size=41).to_numpy(), gaussian_psf(4.2, size=41).to_numpy()
    >>> bool(np.abs(scaled_stamps(wide, 4.0 / 4.2) - narrow).max() < 1e-6)
    True
    """
    rows, columns = (_scaling(side, factor) for side in images.shape[-2:])
    found = np.einsum("ay,...yx,bx->...ab", rows, images, columns)
    total = images.sum(axis=(-2, -1), keepdims=True)
    return np.asarray(found * (total / found.sum(axis=(-2, -1), keepdims=True)))


def _scaling(side: int, factor: float) -> Floats:
    """Return the matrix (to, from) that scales a row of pixels about its centre."""
    at = np.arange(side) - (side - 1) / 2.0
    apart = at[:, None] / factor - at
    waves = np.arange(1, (side + 1) // 2)
    angles = 2.0 * np.pi / side * apart[..., None] * waves
    return np.asarray((1.0 + 2.0 * np.cos(angles).sum(axis=-1)) / side)


def _odd(size: int) -> int:
    return size - 1 + size % 2
