"""Holding planes to what is likely: not much unlike the last ones, nor unlike each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "apply_taper",
    "average_models",
    "clamp_frequency",
    "clamp_groups",
    "clamp_iteration",
    "model_taper",
    "noise_cutoff",
]

Images = NDArray[np.float32]
Bools = NDArray[np.bool_]


def clamp_groups(beyond: Bools, width: int) -> Bools:
    """Return which pixels belong to groups that hold a diamond of some radius.

    Examples
    --------
    >>> beyond = np.zeros((9, 9), bool)
    >>> beyond[1, 1] = beyond[3:8, 3:8] = True
    >>> groups = clamp_groups(beyond, 2)
    >>> bool(groups[1, 1]), bool(groups[5, 5]), int(groups.sum())
    (False, True, 13)
    """
    cross = ndimage.generate_binary_structure(2, 1)
    diamond = ndimage.iterate_structure(cross, width)
    return np.asarray(ndimage.binary_opening(beyond, diamond))


def clamp_iteration(new: Images, old: Images, factor: float, width: int) -> Images:
    """Return a plane within a factor of the one of the last iteration.

    Parameters
    ----------
    new, old : array, (y, x)
    factor : float
        0 clamps nothing.
    width : int, pixel
        Radius of the smallest group of pixels that is clamped; noise is not.

    Examples
    --------
    >>> old = np.ones((9, 9), "f4")
    >>> found = clamp_iteration(5 * old, old, 2.0, 1)
    >>> float(found[4, 4])
    2.0
    """
    if factor == 0:
        return new
    high, low = factor * np.abs(old), old / np.float32(factor)
    found = np.where(clamp_groups(new > high, width), high, new)
    return np.where(clamp_groups(found < low, width), low, found).astype(np.float32)


def clamp_frequency(new: Images, old: Images, factor: float, width: int, noise: float) -> Images:
    """Return planes within a factor of their old mean, sharpened; as ratios to that mean.

    Parameters
    ----------
    new, old : array, (subfilter, y, x)
    factor : float
        Largest ratio between planes; 0 clamps nothing.
    width : int, pixel
        Sigma of the smoothing and radius of the smallest group that is clamped.
    noise : float
        Level below which ratios mean nothing, as of `noise_cutoff`.
    """
    if factor == 0:
        return new
    mean = old.mean(axis=0, dtype=np.float64)
    mean = np.where(np.isfinite(mean) & (mean > 0), mean, 0.0)
    if not mean.any():
        return new
    smooth = _smoothed(mean, width) + 3.0 * noise
    # Without noise there are pixels with no sky at all, which stay as they are.
    some = smooth > 0
    high, low = smooth * np.sqrt(factor), smooth / np.sqrt(factor)
    found = np.empty_like(new)
    for index, plane in enumerate(new):
        clamped = np.where(clamp_groups(plane > high, width), high, plane)
        clamped = np.where(clamp_groups(clamped < low, width), low, clamped)
        ratio = np.divide(
            _smoothed(clamped, width) + 3.0 * noise, smooth, out=np.ones_like(smooth), where=some
        )
        ratio = ratio + 3.0 * (ratio - _smoothed(ratio, width / 3.0))
        # Where the mean is not positive a ratio to it would make the sky one-sided.
        found[index] = np.where(mean > 0, ratio * mean, clamped)
    return found


def _smoothed(image: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    return np.asarray(ndimage.gaussian_filter(image.astype(float), sigma, mode="constant"))


def noise_cutoff(
    plane: Images, background: Bools, width: int, residual: Images | None = None
) -> float:
    """Return the noise of a plane, from its background, for smoothing of some width.

    Parameters
    ----------
    plane : array, (y, x)
    background : array, (y, x)
        Pixels that are good and show no source. Without any, the scatter of all residuals, or
        else of all pixels, about their median counts.
    width : int, pixel
    residual : array, (y, x), optional
        What visits lack of the plane.

    Examples
    --------
    >>> plane = np.array([[1.0, -1.0, 500.0]], "f4")
    >>> noise_cutoff(plane, np.array([[True, True, False]]), 2)
    0.25
    """
    values = plane[background & np.isfinite(plane)].astype(float)
    if values.size >= 2:
        return float(values.std() / (2.0 * width))
    scattered = plane if residual is None else residual
    values = scattered[np.isfinite(scattered)].astype(float)
    if not values.size:
        return 0.0
    return float(1.4826 * np.median(np.abs(values - np.median(values))) / (2.0 * width))


def average_models(new: Images, old: Images, gain: float) -> Images:
    """Return the mean of new and old planes, the new ones weighted by a gain.

    Examples
    --------
    >>> average_models(np.float32([6.0]), np.float32([2.0]), 1.0).tolist()
    [4.0]
    """
    return ((np.float32(gain) * new + old) / np.float32(1.0 + gain)).astype(np.float32)


def model_taper(detected: Bools, width: float) -> Images:
    """Return the weight of a model, from 1 at sources to 0 far from them.

    Parameters
    ----------
    detected : array, (y, x)
    width : float, pixel
        Sigma.

    Raises
    ------
    ValueError
        If the width is negative.

    Examples
    --------
    >>> detected = np.zeros((41, 41), bool)
    >>> detected[10:31, 10:31] = True
    >>> taper = model_taper(detected, 3.0)
    >>> float(taper.max()), bool(taper[0, 0] < 0.01)
    (1.0, True)
    """
    if width < 0:
        raise ValueError(f"width must not be negative, got {width}")
    smooth = _smoothed(detected.astype(np.float32), width)
    largest = smooth.max(initial=0.0)
    return (smooth / largest if largest > 0 else smooth).astype(np.float32)


def apply_taper(planes: Images, taper: Images, template: Images) -> Images:
    """Return planes that go over into equal parts of a coadd where the taper ends."""
    part = template / np.float32(len(planes))
    return (taper * planes + (1 - taper) * part).astype(np.float32)
