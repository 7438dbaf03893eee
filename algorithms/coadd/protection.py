"""Bright objects of the static sky, inside which differences are those of their profiles."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import label

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import Box, bin_count, bin_edges, bin_image, render_grid
from skyloom.algorithms.background.rendering import Rendering
from skyloom.algorithms.coadd.artifact_parameters import ArtifactParameters
from skyloom.algorithms.coadd.candidates import EVERYWHERE, regions_above
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.sky.mask_kernels import grow
from skyloom.algorithms.sky.masking import disk_reaches

__all__ = ["protect_sources"]

SMOOTH = Rendering(interpolation="akima")


def protect_sources(
    sky: xr.Dataset, *, psf_sigma: float, parameters: ArtifactParameters | None = None
) -> NDArray[np.int32]:
    """Return the numbers (y, x) of the bright objects of a static sky, from 1; 0 is none.

    What stands out from the local background by many standard deviations, either sign, grows by
    some widths of the PSF. The background is measured without it, and the objects anew. Where no
    background is left, thresholds are raised, the negative one first, until there is.

    Parameters
    ----------
    sky : Dataset, (y, x)
        From `static_sky`: ``image`` and ``variance``.
    psf_sigma : float, pixel
        Width of the PSF; > 0.
    parameters : ArtifactParameters, optional

    Raises
    ------
    NoUsableDataError
        If no threshold leaves a background.
    ValueError
        If ``psf_sigma`` is not positive.

    Examples
    --------
    >>> image = np.zeros((60, 70), "float32")
    >>> image[30, 40] = 1000.0
    >>> plane = ("y", "x")
    >>> sky = xr.Dataset({"image": (plane, image), "variance": (plane, np.ones_like(image))})
    >>> labels = protect_sources(sky, psf_sigma=2.0)
    >>> int(labels.max()), int((labels == 1).sum())
    (1, 81)
    """
    if not psf_sigma > 0:
        raise ValueError(f"psf_sigma must be > 0 pixel, got {psf_sigma}")
    p = parameters or ArtifactParameters()
    image = np.ascontiguousarray(sky["image"].transpose(v.Y, v.X).values, np.float32)
    variance = sky["variance"].transpose(v.Y, v.X).values
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    if not good.any():
        raise NoUsableDataError("the static sky has no data")
    sigma = np.sqrt(np.where(good, variance, np.float32(np.inf)))
    reaches = disk_reaches(int(p.protect_growth * psf_sigma + 0.5))
    level = _background(image, good, p.protect_bin)
    assert level is not None  # there are good pixels
    positive = negative = p.protect_threshold
    for retry in range(p.protect_retries + 1):
        for _ in range(2):  # the second time above a background without the objects
            with np.errstate(invalid="ignore"):
                significance = np.where(good, (image - level) / sigma, 0.0)
            found = np.zeros(image.shape, np.uint8)
            for sign, threshold in ((1, positive), (-1, negative)):
                found |= regions_above(sign * significance, threshold, 1)[0] > 0
            found = grow(found, reaches)
            rest = _background(image, good & (found == 0), p.protect_bin)
            if rest is None:
                break
            level = rest
        else:
            labels, _ = label(found, structure=EVERYWHERE)
            return np.asarray(labels, np.int32)
        negative *= p.retry_factor
        if retry >= p.retry_negative * p.protect_retries:
            positive *= p.retry_factor
    raise NoUsableDataError(
        f"objects above {p.protect_threshold:g} standard deviations leave no background, nor do "
        f"those above {positive:.4g} ({negative:.4g} below): is the background subtracted?"
    )


def _background(
    image: NDArray[np.float32], good: NDArray[np.bool_], bin_size: int
) -> NDArray[np.float32] | None:
    """Return a coarse background as an image; nothing without a good pixel."""
    edges_y, edges_x = (bin_edges(n, bin_count(n, bin_size, rule="ceil")) for n in image.shape)
    levels = bin_image(image, (~good).view(np.uint8), 1, edges_y, edges_x).level
    if not np.isfinite(levels).any():
        return None
    height, width = image.shape
    return render_grid(levels, Box(0, height, 0, width), rendering=SMOOTH)
