"""Cosmic rays of a single exposure, found by the Laplacian of the image (van Dokkum 2001).

The search itself is astroscrappy's. It is given the image in electrons with its sky, the variance
plane in place of a noise model, and what is bad or saturated as its mask, which it lets grow by a
pixel. It knows no NaN, so masked pixels are bridged before. Its loops release the interpreter lock
but would start threads of their own, so it is held to one.
"""

from __future__ import annotations

from typing import Any, Final

import astroscrappy
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.gap_kernels import bridge_rows
from skyloom.algorithms.detrend.parameters import CosmicRayParameters
from skyloom.algorithms.detrend.planes import frame_planes, whole

__all__ = ["find_cosmic_rays", "reject_cosmic_rays"]

HIDDEN: Final = ("BAD", "SAT", "NO_DATA")
"""Planes whose pixels are no cosmic rays and tell nothing of their neighbours."""
TILE: Final = 1024
"""Pixels along each axis that are searched at a time, for the library takes many times as much."""
REACH: Final = 10
"""Pixels around one that have a say in it, in each iteration; tiles overlap by as many."""


def find_cosmic_rays(
    image: NDArray[Any],
    variance: NDArray[Any],
    mask: NDArray[np.int32],
    parameters: CosmicRayParameters,
) -> NDArray[np.bool_]:
    """Return where one image has cosmic rays; image and variance in electron and its square."""
    hidden = (mask & np.int32(v.plane_bits(HIDDEN))) != 0
    hidden |= ~(np.isfinite(image) & (variance > 0) & (variance < np.inf))
    if hidden.all():
        return np.zeros(image.shape, np.bool_)
    planes = []
    for plane in (image, variance):
        bridged = plane.astype(np.float32)
        bridge_rows(~hidden, float(np.median(plane[~hidden])), bridged)
        planes.append(bridged)
    found = np.zeros(image.shape, np.bool_)
    margin = REACH * parameters.iterations
    with threadpool_limits(limits=1, user_api="openmp"):
        for y in range(0, image.shape[0], TILE):
            for x in range(0, image.shape[1], TILE):
                above, before = max(y - margin, 0), max(x - margin, 0)
                tile = slice(above, y + TILE + margin), slice(before, x + TILE + margin)
                rays = _search(planes[0][tile], planes[1][tile], hidden[tile], parameters)
                inner = rays[y - above : y - above + TILE, x - before : x - before + TILE]
                found[y : y + TILE, x : x + TILE] = inner
    return found


def _search(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    hidden: NDArray[np.bool_],
    parameters: CosmicRayParameters,
) -> NDArray[np.bool_]:
    if hidden.all():
        return np.zeros(image.shape, np.bool_)
    found, _ = astroscrappy.detect_cosmics(
        image,
        inmask=hidden,
        invar=variance,
        sigclip=parameters.clip,
        sigfrac=parameters.neighbour_fraction,
        objlim=parameters.contrast,
        gain=1.0,
        satlevel=np.inf,
        niter=parameters.iterations,
        sepmed=parameters.separable,
        cleantype="meanmask",
        fsmode=parameters.fine_structure,
        psfmodel="gauss",
        psffwhm=parameters.star_width,
    )
    return np.asarray(found)


def reject_cosmic_rays(
    exposure: xr.Dataset, *, parameters: CosmicRayParameters | None = None
) -> xr.Dataset:
    """Set the plane COSMIC_RAY where a single exposure shows cosmic rays.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, electron, with its sky; ``variance``, electron2, above 0; perhaps
        ``mask``, whose BAD, SAT and NO_DATA are left out. May be lazy.
    parameters : CosmicRayParameters, optional
        Thresholds; ``reject`` does not count here.

    Returns
    -------
    Dataset, (..., y, x)
        As ``exposure``, with ``mask`` (int32); image and variance stay.

    Raises
    ------
    KeyError
        If image or variance are missing.
    ValueError
        If the image is not in electron or smaller than 9 pixels.
    TypeError
        If the image is not floating point.

    Notes
    -----
    van Dokkum 2001 (PASP 113, 1420), as in astroscrappy (McCully et al., 10.5281/zenodo.1482019).

    Examples
    --------
    >>> image = np.random.default_rng(1).normal(100.0, 10.0, (40, 40))
    >>> image[20, 12:16] += 2000.0
    >>> exposure = xr.Dataset(
    ...     {
    ...         "image": (("y", "x"), image, {"units": "electron"}),
    ...         "variance": (("y", "x"), np.full((40, 40), 100.0)),
    ...     }
    ... )
    >>> found = reject_cosmic_rays(exposure)
    >>> np.argwhere(found.mask.values == 8).tolist()
    [[20, 12], [20, 13], [20, 14], [20, 15]]
    """
    parameters = parameters or CosmicRayParameters()
    planes = frame_planes(exposure, units=(v.ELECTRON,))
    if "variance" not in planes:
        raise KeyError("the exposure has no variable 'variance', which cosmic rays are judged by")
    if min(planes["image"].sizes[name] for name in (v.Y, v.X)) < 9:
        raise ValueError(f"image has shape {dict(planes['image'].sizes)}, needs 9 or more pixels")
    mask: xr.DataArray = xr.apply_ufunc(
        _flagged,
        *(whole(planes[name]) for name in ("image", "variance", v.MASK)),
        kwargs={"parameters": parameters},
        input_core_dims=[[v.Y, v.X]] * 3,
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[np.int32],
    )
    return exposure.assign(
        {v.MASK: mask.transpose(*exposure["image"].dims).assign_attrs(v.mask_attributes())}
    )


def _flagged(
    image: NDArray[Any],
    variance: NDArray[Any],
    mask: NDArray[np.int32],
    parameters: CosmicRayParameters,
) -> NDArray[np.int32]:
    variance = np.broadcast_to(variance, image.shape)
    out = np.array(np.broadcast_to(mask, image.shape))
    for index in np.ndindex(image.shape[:-2]):
        found = find_cosmic_rays(image[index], variance[index], out[index], parameters)
        out[index][found] |= np.int32(v.MASK_PLANES["COSMIC_RAY"])
    return out
