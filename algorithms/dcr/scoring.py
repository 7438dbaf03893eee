"""How well a template agrees with a visit that is not part of its model, beside the plain coadd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.patch import detected_pixels
from skyloom.algorithms.dcr.transfer import stamp_transfer, transfer_ratio
from skyloom.algorithms.dcr.uncertainty import GRID
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

__all__ = ["noise_correlation", "score_template"]

Floats = NDArray[np.float64]

BAD_PLANES: Final = ("BAD", "SAT", "COSMIC_RAY", "NO_DATA")
FALSE_DETECTION: Final = 5.0
"""Standard deviations of a filtered difference that count as a detection."""


def score_template(
    warp: xr.Dataset,
    template: xr.Dataset,
    coadd: xr.Dataset,
    *,
    direction: tuple[float, float],
    fwhm: float = 4.0,
    radius: float = 8.0,
    correlation: float = 1.0,
) -> xr.Dataset:
    """Subtract a template, and the plain coadd, from a visit and return what is left.

    Parameters
    ----------
    warp : Dataset, (y, x)
        The visit: ``image``, ``variance`` and ``mask`` (optional); or a noise-free image without
        variance, of which nothing is taken for noise.
    template, coadd : Dataset, (y, x)
        ``image`` and ``variance`` (optional); the ``mask`` of the coadd has DETECTED. Pixels with
        EDGE in that of the template (optional) do not count: they lack light.
    direction : (dy, dx)
        Towards the zenith; any length.
    fwhm : float, pixel
        Of stars in the visit.
    radius : float, pixel
        Pixels this near to the peak of an object count.
    correlation : float
        By how much the variance of sums over stars exceeds that of independent pixels, see
        `noise_correlation`; 1 unless the visit is smoothed.

    Returns
    -------
    Dataset
        For ``template`` and ``coadd`` each: ``residual`` (rms near objects, of the unit of the
        images, without the noise that variances promise), ``dipole`` (rms over objects of the
        first moment towards the zenith over the flux, pixel) and ``detections`` (groups of pixels
        beyond 5 standard deviations in the difference filtered with a Gaussian); ``ratio`` of the
        residuals, ``objects`` and ``pixels`` that count. NaN where there are none. Levels of the
        sky are made equal first.

    Notes
    -----
    The spectrum of an object moves its light along the vertical, which leaves a dipole in the
    difference: with :math:`r` the offset from its peak and :math:`u` the unit vector towards the
    zenith, :math:`p = \\sum (r \\cdot u) d / F` over pixels within two FWHM.

    Examples
    --------
    >>> y, x = np.indices((40, 40)) - 20.0
    >>> def star(dy):
    ...     return ("y", "x"), 100.0 * np.exp(-((y - dy) ** 2 + x**2) / 6.0)
    >>> mask = ("y", "x"), np.where(y**2 + x**2 < 40, v.MASK_PLANES["DETECTED"], 0)
    >>> visit = xr.Dataset({"image": star(0.3)})
    >>> score = score_template(visit, xr.Dataset({"image": star(0.27)}),
    ...                        xr.Dataset({"image": star(0.0), "mask": mask}), direction=(1.0, 0.0))
    >>> round(float(score.ratio), 3), round(float(score.dipole.sel(of="coadd")), 2)
    (0.1, 0.3)
    """
    image = warp["image"].transpose(v.Y, v.X).values.astype(np.float64)
    detected = detected_pixels(coadd)
    good = np.isfinite(image) & np.isfinite(coadd["image"].values)
    good &= np.isfinite(template["image"].values)
    for each, planes in ((warp, BAD_PLANES), (template, ("EDGE",))):
        if v.MASK in each:
            good &= ~_flagged(each[v.MASK], planes)
    variance = _variance(warp, good)
    calm = good & ~detected
    level = float(np.median(coadd["image"].values[calm])) if calm.any() else 0.0
    peaks = _peaks(np.where(good, coadd["image"].values, level), detected & good, fwhm)
    near = _near(peaks, image.shape, radius) & good
    unit = np.asarray(direction, float) / np.hypot(*direction)
    found: dict[str, list[float]] = {"residual": [], "dipole": [], "detections": []}
    for other in (template, coadd):
        own = _variance(other, good)
        model = other["image"].values.astype(np.float64)
        difference = np.where(good, image - model, 0.0)
        level = np.median(difference[calm]) if calm.any() else 0.0
        difference = np.where(good, difference - level, 0.0)
        noise = variance + own
        power = (difference**2 - noise)[near]
        found["residual"].append(float(np.sqrt(max(power.mean(), 0.0))) if power.size else np.nan)
        flux = np.where(good, model - (np.median(model[calm]) if calm.any() else 0.0), 0.0)
        noise = correlation * noise
        found["dipole"].append(_dipole(difference, flux, noise, peaks, unit, fwhm))
        found["detections"].append(_detections(difference, noise, good, fwhm))
    units = str(warp["image"].attrs.get("units", v.DIMENSIONLESS))
    residual = found["residual"]
    ratio = residual[0] / residual[1] if residual[1] > 0 else np.nan
    return xr.Dataset(
        {
            "residual": ("of", residual, {"units": units}),
            "dipole": ("of", found["dipole"], {"units": v.PIXEL}),
            "detections": ("of", np.array(found["detections"], np.int32)),
            "ratio": ((), ratio),
            "objects": ((), np.int32(len(peaks))),
            "pixels": ((), np.int64(near.sum()), {"units": v.PIXEL}),
        },
        coords={"of": ["template", "coadd"]},
    )


def noise_correlation(psf: xr.DataArray, target: xr.DataArray) -> float:
    """Return what smoothing does to the noise of sums over stars that it doesn't to that of pixels.

    Parameters
    ----------
    psf, target : DataArray, (psf_y, psf_x)
        Point-spread function before and after.

    Returns
    -------
    float
        Variance of sums weighted with the target, over what it were if pixels had the variance
        they have and were independent.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> round(noise_correlation(gaussian_psf(4.0), gaussian_psf(5.0)), 1)
    15.0
    """
    own, wanted = (each.to_numpy().astype(np.float64) for each in (psf, target))
    smoothed = np.abs(transfer_ratio(wanted, own, GRID)) ** 2
    light = np.abs(stamp_transfer(wanted, GRID).astype(np.complex128)) ** 2
    doubled = np.full(smoothed.shape[1], 2.0)
    doubled[[0, -1]] = 1.0

    def mean(values: Floats) -> float:
        return float((values * doubled).sum() / (doubled.sum() * len(values)))

    return mean(smoothed * light) / (mean(smoothed) * mean(light))


def _flagged(mask: xr.DataArray, planes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which pixels have any of those planes that the mask knows."""
    known = str(mask.attrs.get("flag_meanings", " ".join(v.MASK_PLANES))).split()
    bits = v.plane_bits([name for name in planes if name in known], mask.attrs)
    return np.asarray((mask.values & bits) != 0)


def _variance(image: xr.Dataset, good: NDArray[np.bool_]) -> Floats:
    if "variance" not in image:
        return np.zeros(good.shape)
    values = image["variance"].values.astype(np.float64)
    return np.where(good & np.isfinite(values) & (values > 0), values, 0.0)


def _peaks(image: Floats, detected: NDArray[np.bool_], fwhm: float) -> NDArray[np.int64]:
    """Return rows and columns of the highest pixels within 2 FWHM among the detected ones."""
    smooth = ndimage.gaussian_filter(image, fwhm / SIGMA_TO_FWHM)
    size = 2 * int(np.ceil(2.0 * fwhm)) + 1
    top = detected & (smooth == ndimage.maximum_filter(smooth, size))
    return np.argwhere(top)


def _near(peaks: NDArray[np.int64], shape: tuple[int, ...], radius: float) -> NDArray[np.bool_]:
    far = np.ones(shape, bool)
    far[tuple(peaks.T)] = False
    if not len(peaks):
        return ~far
    return np.asarray(ndimage.distance_transform_edt(far)) <= radius


def _dipole(
    difference: Floats,
    flux: Floats,
    noise: Floats,
    peaks: NDArray[np.int64],
    unit: Floats,
    fwhm: float,
) -> float:
    """Return the rms over objects of their dipoles less what noise makes, pixel."""
    reach = int(np.ceil(2.0 * fwhm))
    y, x = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    inside = np.hypot(y, x) <= 2.0 * fwhm
    lever = np.where(inside, y * unit[0] + x * unit[1], 0.0)
    total: list[float] = []
    for row, column in peaks:
        box = (
            slice(row - reach, row + reach + 1),
            slice(column - reach, column + reach + 1),
        )
        if min(row, column) < reach or difference[box].shape != lever.shape:
            continue
        light = float((flux[box] * inside).sum())
        if light > 0:
            moment = float((lever * difference[box]).sum()) ** 2
            total.append((moment - float((lever**2 * noise[box]).sum())) / light**2)
    return float(np.sqrt(max(float(np.mean(total)), 0.0))) if total else np.nan


def _detections(difference: Floats, noise: Floats, good: NDArray[np.bool_], fwhm: float) -> int:
    """Return how many groups of pixels stand out of the filtered difference."""
    if not (noise > 0).any():
        return 0
    sigma = fwhm / SIGMA_TO_FWHM
    offset = np.arange(-int(4 * sigma + 1), int(4 * sigma + 1) + 1)
    taps = np.exp(-0.5 * (offset / sigma) ** 2)
    weight = np.where(good & (noise > 0), 1.0 / np.where(noise > 0, noise, 1.0), 0.0)

    def filtered(values: Floats, kernel: Floats) -> Floats:
        along = ndimage.correlate1d(values, kernel, axis=0, mode="constant")
        return np.asarray(ndimage.correlate1d(along, kernel, axis=1, mode="constant"))

    signal = filtered(difference * weight, taps)
    power = filtered(weight, taps**2)
    significance = signal / np.sqrt(np.where(power > 0, power, np.inf))
    groups = 0
    for sign in (1.0, -1.0):
        groups += int(ndimage.label(sign * significance > FALSE_DETECTION)[1])
    return groups
