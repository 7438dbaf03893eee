"""The seeing of a template: the point-spread function of a visit in place of that of the model."""

from __future__ import annotations

import warnings
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.operator import relative_widths
from skyloom.algorithms.dcr.transfer import scaled_stamps, transfer_ratio
from skyloom.algorithms.errors import ExtrapolatedTemplateWarning
from skyloom.algorithms.psf import gaussian_psf, psf_fwhm
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

__all__ = ["Seeing", "blurred", "seeing_of"]

Floats = NDArray[np.float64]
Spectra = NDArray[np.complex64]

SHARPER: Final = 0.01
"""Part of its width by which a template may be sharper than the model before it is warned of."""
SHARPENED: Final = 2.0
"""Largest factor on a frequency: noise and errors of the model would outgrow what it sharpens."""


class Seeing(NamedTuple):
    """The PSF of a template: its width ``fwhm`` (pixel) in the sharpest light of the band, its
    image ``wanted`` and that of the model, ``own``, or None where both are Gaussians, of which that
    of the model is ``own_fwhm`` wide."""

    fwhm: float
    own_fwhm: float
    wanted: Floats | None
    own: Floats | None

    def ratio(self, shape: tuple[int, int]) -> Spectra:
        """Return the transfer function over that of the model, (ky, kx), of ``rfft2``.

        Where it would sharpen, no frequency gains more than a factor of 2.
        """
        if self.wanted is None or self.own is None:
            excess = self.fwhm**2 - self.own_fwhm**2
            square = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1]) ** 2
            power = -2.0 * (np.pi / SIGMA_TO_FWHM) ** 2 * excess * square
            return np.asarray(np.exp(np.minimum(power, np.log(SHARPENED))), np.complex64)
        found = transfer_ratio(self.wanted, self.own, shape)
        return np.asarray(found / np.maximum(np.abs(found) / SHARPENED, 1.0), np.complex64)


def seeing_of(
    model: xr.Dataset,
    band: Band,
    chromatic_seeing: float,
    *,
    fwhm: float | None = None,
    psf: xr.DataArray | None = None,
    stacklevel: int = 3,
) -> Seeing | None:
    """Return the seeing that a template is to have, None if it is that of the model.

    Parameters
    ----------
    model : Dataset
        With ``psf``; as of `solve_dcr`.
    band : Band
    chromatic_seeing : float
        Power of the wavelength that widths follow in the model; that of it is of the sharpest
        light.
    fwhm : float, pixel, optional
        Width of stars at the reference wavelength; their profile is that of the model.
    psf : DataArray, (psf_y, psf_x), optional
        Image of stars there, of odd sides.

    Raises
    ------
    ValueError
        If both are given, the width is not positive or the image is none of a star.

    Warns
    -----
    ExtrapolatedTemplateWarning
        If that is sharper than the model.
    """
    if fwhm is None and psf is None:
        return None
    if fwhm is not None and psf is not None:
        raise ValueError("give fwhm or psf, not both")
    factor = 1.0
    if chromatic_seeing and model.sizes[v.SUBFILTER] > 1:
        reference = np.array([band.lambda_ref])
        factor = 1.0 / float(relative_widths(band, reference, chromatic_seeing)[0])
    own = model["psf"].transpose(v.PSF_Y, v.PSF_X)
    own_fwhm = _model_fwhm(model, own)
    if psf is not None:
        found = _given(psf, own.to_numpy(), own_fwhm, factor)
    else:
        assert fwhm is not None  # one of both is
        if not (np.isfinite(fwhm) and fwhm > 0):
            raise ValueError(f"fwhm must be positive, got {fwhm}")
        found = _stretched(own, own_fwhm, float(fwhm) * factor)
    if found.fwhm < (1.0 - SHARPER) * own_fwhm:
        warnings.warn(
            f"the seeing of the template, {found.fwhm / factor:.2f} pixel, is sharper than that of "
            f"the model, {own_fwhm / factor:.2f}: fine structure is amplified by {SHARPENED:g} at "
            "most",
            ExtrapolatedTemplateWarning,
            stacklevel=stacklevel,
        )
    return found


def _model_fwhm(model: xr.Dataset, own: xr.DataArray) -> float:
    said = model.attrs.get("model_fwhm")
    return float(psf_fwhm(own)) if said is None else float(said)


def _given(psf: xr.DataArray, own: Floats, own_fwhm: float, factor: float) -> Seeing:
    if set(psf.dims) != {v.PSF_Y, v.PSF_X} or any(side % 2 == 0 for side in psf.shape):
        raise ValueError(
            f"psf must be an image ({v.PSF_Y}, {v.PSF_X}) of odd sides, got {dict(psf.sizes)}"
        )
    image = psf.transpose(v.PSF_Y, v.PSF_X)
    width = float(psf_fwhm(image)) * factor
    values = image.to_numpy().astype(np.float64)
    if not (np.isfinite(values).all() and values.sum() > 0 and width > 0):
        raise ValueError("psf must be finite, of positive sum and with a width inside its image")
    stamp = scaled_stamps(values, factor) if factor != 1.0 else values
    return Seeing(width, own_fwhm, stamp / stamp.sum(), own)


def _stretched(own: xr.DataArray, own_fwhm: float, fwhm: float) -> Seeing:
    """Return the profile of the model with another width."""
    values = own.to_numpy().astype(np.float64)
    gaussian = gaussian_psf(own_fwhm).to_numpy()
    if gaussian.shape == values.shape and np.allclose(gaussian, values, atol=1e-9):
        return Seeing(fwhm, own_fwhm, None, None)
    factor = fwhm / own_fwhm
    edges = [max(int(np.ceil((factor - 1.0) * side / 2.0)), 0) for side in values.shape]
    wide = np.pad(values, [(edge, edge) for edge in edges])
    return Seeing(fwhm, own_fwhm, scaled_stamps(wide, factor), values)


def blurred(image: NDArray[np.float32], seeing: Seeing) -> NDArray[np.float32]:
    """Return an image (y, x) with another seeing; it is 0 beyond its edges."""
    reach = int(np.ceil(2.0 * max(seeing.fwhm, seeing.own_fwhm)))
    rows, columns = (fft.next_fast_len(side + reach, real=True) for side in image.shape)
    spectrum = fft.rfft2(np.asarray(image, np.float64), (rows, columns))
    found = fft.irfft2(spectrum * seeing.ratio((rows, columns)), (rows, columns))
    return np.asarray(found[: image.shape[0], : image.shape[1]], np.float32)
