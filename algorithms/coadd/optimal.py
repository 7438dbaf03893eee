"""Coadds of visits of different seeing that lose nothing: for detection, and proper images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.coadding import (
    NANOJANSKY_ZERO_POINT,
    Numbers,
    coadd,
    labels_of,
    numbers_of,
)
from skyloom.algorithms.coadd.inputs import Warps, warps_of
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.sky.mask_kernels import grow
from skyloom.algorithms.sky.masking import disk_reaches
from skyloom.algorithms.units import squared_units

__all__ = ["optimal_coadd"]

FAINTEST = 1e-14
"""Power of the PSFs, relative to the largest, below which only their sum counts."""
LARGEST_DISK = 250

Floats = NDArray[np.float64]
Waves = NDArray[np.complex128]


class Sums(NamedTuple):
    """Fourier sums over the visits, and which pixels have how many values."""

    filtered: Waves
    plain: Waves
    power: Floats
    missing: NDArray[np.bool_]


def optimal_coadd(
    warps: xr.Dataset | Sequence[xr.Dataset],
    psf: xr.DataArray,
    *,
    flux_scales: Numbers | None = None,
    parameters: CoaddParameters | None = None,
) -> xr.Dataset:
    r"""Return the image that detects faint stars best, and the proper image of all visits.

    With images :math:`M_j` of PSF :math:`P_j`, flux scale :math:`F_j` and noise :math:`\sigma_j`,
    hats for Fourier transforms and :math:`A = \sum F_j^2/\sigma_j^2`,

    .. math::

        \hat S = \sum_j \frac{F_j}{\sigma_j^2} \overline{\hat P_j} \hat M_j, \qquad
        \hat R = \frac{\hat S}{\sqrt{A \sum_j F_j^2/\sigma_j^2 |\hat P_j|^2}}, \qquad
        \hat P_R = \sqrt{\frac{1}{A} \sum_j \frac{F_j^2}{\sigma_j^2} |\hat P_j|^2} .

    Parameters
    ----------
    warps : Dataset (visit, y, x), or sequence of Dataset (y, x)
        As for `coadd`, without their sky: noise must be that of the background, pixels
        independent. Read one after the other; the result is in memory.
    psf : DataArray, (visit, psf_y, psf_x)
        Image of the PSF of each visit: odd sides, centred, at most as large as the warps. Scaled
        to a sum of 1.
    flux_scales : DataArray or sequence over ``visit``, in the order of the warps, optional
        Counts in each warp for one unit of flux; 1 without them.
    parameters : CoaddParameters, optional
        Which planes are bad, and how the mean variance is clipped; the statistic does not count.

    Returns
    -------
    Dataset, (y, x)
        ``image``, the proper image R (unit of flux), whose noise is white, with ``variance``,
        1/A, and ``psf`` (psf_y, psf_x), its PSF; ``score``, S over its own standard deviation,
        the significance of a star at each pixel; ``detection``, S; ``flux_sigma``, the error of
        the flux ``detection * flux_sigma**2`` of a star; ``n_image``, ``mask`` and the table of
        inputs as for `coadd`. Values that are missing in a visit are those of the mean of the
        others; around them INEXACT_PSF is set. No data anywhere is NO_DATA, and NaN.

    Raises
    ------
    NoUsableDataError, ValueError, GeometryError, KeyError
        As `coadd`; also if a PSF is missing, not odd, larger than the warps or without a sum.

    Notes
    -----
    Zackay & Ofek 2017 (ApJ 836, 187 and 188). Where the PSFs leave nothing of a wave, its phase
    is that of the sum of the images.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> rng = np.random.default_rng(1)
    >>> values = rng.normal(0.0, 1.0, (2, 40, 50)).astype("float32")
    >>> warps = xr.Dataset(
    ...     {
    ...         "image": (("visit", "y", "x"), values, {"units": "nJy"}),
    ...         "variance": (("visit", "y", "x"), np.ones_like(values)),
    ...     },
    ...     coords={"visit": [1, 2]},
    ... )
    >>> psf = xr.concat([gaussian_psf(fwhm, size=15) for fwhm in (3.0, 5.0)], dim="visit")
    >>> made = optimal_coadd(warps, psf.assign_coords(visit=[1, 2]))
    >>> round(float(made.score.std()), 1), round(float(made.image.std()), 1)
    (1.0, 0.7)
    """
    parameters = (parameters or CoaddParameters()).model_copy(update={"statistic": "mean"})
    ordered = warps_of(warps)
    scales = numbers_of(flux_scales, ordered, labels_of(warps), "flux_scales")
    scales = np.ones(ordered.visits.size) if scales is None else scales
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"flux_scales must be positive numbers, got {scales.tolist()}")
    stamps = _stamps(psf, ordered)
    points = xr.DataArray(
        NANOJANSKY_ZERO_POINT + 2.5 * np.log10(scales),
        dims=v.VISIT,
        coords={v.VISIT: ordered.visits},
    )
    mean = coadd(warps, zero_points=points, parameters=parameters)
    used = mean["input_weight"].values > 0
    # of the warps divided by their flux scales: 1 / (sigma / F)²
    weights = np.where(used, mean["input_weight"].values, 0.0)
    half = (stamps.shape[1] // 2, stamps.shape[2] // 2)
    shape = ordered.shape
    padded = tuple(next_fast_len(n + 2 * h, real=True) for n, h in zip(shape, half, strict=True))
    sums = _sums(ordered, mean, scales, weights, stamps, padded, parameters)
    total = float(weights.sum())
    planes = _images(sums, total, padded, shape)
    flux_sigma = 1.0 / np.sqrt(float((weights * (stamps**2).sum(axis=(1, 2))).sum()))
    empty = mean["n_image"].values == 0
    mask = np.where(empty, v.MASK_PLANES["NO_DATA"], 0).astype(np.int32)
    reach = min(max(half), LARGEST_DISK)
    near = grow((sums.missing & ~empty).view(np.uint8), disk_reaches(reach)) > 0
    mask[near] |= v.MASK_PLANES["INEXACT_PSF"]
    units = ordered.units
    inverse = f"1/{units}" if units else v.DIMENSIONLESS
    variance = np.where(empty, np.inf, 1.0 / total).astype(np.float32)
    plane = (v.Y, v.X)
    told = [name for name in mean.data_vars if str(name).startswith("input_")]
    made = mean[["n_image", *told]].assign_attrs(mean.attrs)
    return made.assign(
        {
            "image": (plane, _blanked(planes[0], empty), {"units": units}),
            "variance": (plane, variance, {"units": squared_units(units)}),
            v.MASK: (plane, mask, v.mask_attributes()),
            "detection": (plane, _blanked(planes[1], empty), {"units": inverse}),
            "score": (
                plane,
                _blanked(planes[1] * flux_sigma, empty),
                {"units": v.DIMENSIONLESS},
            ),
            "flux_sigma": ((), flux_sigma, {"units": units}),
            "psf": ((v.PSF_Y, v.PSF_X), _proper_psf(sums.power, total, padded, half)),
        }
    )


def _stamps(psf: xr.DataArray, warps: Warps) -> Floats:
    """Return the PSFs in the order of the warps, each of unit sum."""
    if set(psf.dims) != {v.VISIT, v.PSF_Y, v.PSF_X}:
        raise ValueError(f"psf needs dimensions visit, psf_y and psf_x, it has {psf.dims}")
    if v.VISIT not in psf.coords:
        raise KeyError("psf needs a coordinate visit that names its visits")
    missing = sorted(set(warps.visits.tolist()) - set(psf[v.VISIT].values.tolist()))
    if missing:
        raise KeyError(f"psf lacks visits {missing}")
    sides = psf.sizes[v.PSF_Y], psf.sizes[v.PSF_X]
    if any(n % 2 == 0 or n > limit for n, limit in zip(sides, warps.shape, strict=True)):
        raise ValueError(f"sides of a psf must be odd and within {warps.shape}, got {sides}")
    chosen = psf.sel({v.VISIT: warps.visits}).transpose(v.VISIT, v.PSF_Y, v.PSF_X)
    stamps = np.asarray(chosen.values, np.float64)
    sums = stamps.sum(axis=(1, 2))
    if not (np.isfinite(stamps).all() and (sums > 0).all()):
        raise ValueError(f"every psf must be finite with a positive sum, got sums {sums.tolist()}")
    return np.asarray(stamps / sums[:, None, None])


def _filled(
    warps: Warps, mean: xr.Dataset, scales: Floats, parameters: CoaddParameters
) -> Iterator[tuple[int, Floats, NDArray[np.bool_]]]:
    """Yield each warp over its flux scale, with the mean of all where it has no good value."""
    bad = np.int32(v.plane_bits(set(parameters.bad_planes) - set(parameters.dropped_planes)))
    instead = np.nan_to_num(mean["image"].values.astype(np.float64))
    for index in np.flatnonzero(mean["input_weight"].values > 0):
        read = warps.read_one(int(index))
        image, variance = (
            plane.reshape(warps.shape).astype(np.float64) for plane in (read.image, read.variance)
        )
        good = np.isfinite(image) & np.isfinite(variance) & (variance >= 0)
        if read.mask.size:
            good &= (read.mask.reshape(warps.shape) & bad) == 0
        yield int(index), np.where(good, image / scales[index], instead), ~good


def _sums(
    warps: Warps,
    mean: xr.Dataset,
    scales: Floats,
    weights: Floats,
    stamps: Floats,
    padded: tuple[Any, ...],
    parameters: CoaddParameters,
) -> Sums:
    half = (padded[0], padded[1] // 2 + 1)
    filtered, plain = np.zeros(half, np.complex128), np.zeros(half, np.complex128)
    power = np.zeros(half)
    missing = np.zeros(warps.shape, np.bool_)
    for index, image, absent in _filled(warps, mean, scales, parameters):
        waves = rfft2(image, s=padded)
        shape = rfft2(_centred(stamps[index], padded))
        filtered += weights[index] * np.conj(shape) * waves
        plain += weights[index] * waves
        power += weights[index] * (shape.real**2 + shape.imag**2)
        missing |= absent
    return Sums(filtered, plain, power, missing)


def _centred(stamp: Floats, padded: tuple[Any, ...]) -> Floats:
    """Return a stamp in an image, its centre at the first pixel."""
    image = np.zeros(padded)
    image[: stamp.shape[0], : stamp.shape[1]] = stamp
    shift = (-(stamp.shape[0] // 2), -(stamp.shape[1] // 2))
    return np.asarray(np.roll(image, shift, axis=(0, 1)))


def _images(
    sums: Sums, total: float, padded: tuple[Any, ...], shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return the proper image and the one for detection."""
    faint = sums.power <= FAINTEST * sums.power.max()
    root = np.sqrt(np.where(faint, 1.0, sums.power) * total)
    proper = np.where(faint, sums.plain / total, sums.filtered / root)
    images = (irfft2(waves, s=padded) for waves in (proper, sums.filtered))
    first, second = (np.asarray(image[: shape[0], : shape[1]]) for image in images)
    return first, second


def _proper_psf(
    power: Floats, total: float, padded: tuple[Any, ...], half: tuple[int, int]
) -> Floats:
    image = irfft2(np.sqrt(power / total), s=padded)
    rows = np.arange(-half[0], half[0] + 1)
    columns = np.arange(-half[1], half[1] + 1)
    return np.asarray(image[np.ix_(rows, columns)])


def _blanked(image: Floats, empty: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(empty, np.nan, image).astype(np.float32)
