"""What a visit shows and the others don't: the static sky, and the regions that differ from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import label

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.artifact_parameters import ArtifactParameters
from skyloom.algorithms.coadd.candidate_kernels import difference
from skyloom.algorithms.coadd.coadding import Numbers, coadd_with_intervals
from skyloom.algorithms.coadd.inputs import own_mask
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.psf import rescale_variance
from skyloom.algorithms.sky.mask_kernels import grow
from skyloom.algorithms.sky.masking import disk_reaches

__all__ = ["difference_from_sky", "find_candidates", "regions_above", "static_sky"]

AROUND = 3.0  # widths of the PSF around what differs that don't tell of the noise
PIXEL, REGION = "pixel", "region"
NO_PLANE = np.empty(0, np.float32)
EVERYWHERE = np.ones((3, 3), np.int8)


def static_sky(
    matched: xr.Dataset | Sequence[xr.Dataset],
    *,
    weights: Numbers | None = None,
    match: xr.Dataset | None = None,
    parameters: ArtifactParameters | None = None,
) -> xr.Dataset:
    """Return what all visits show: the clipped mean of warps with one PSF.

    Parameters
    ----------
    matched : Dataset (visit, y, x), or sequence of Dataset (y, x)
        Warps brought to one point-spread function, as for `coadd`.
    weights : DataArray or sequence over ``visit``, optional
    match : Dataset, optional
        Both as for `coadd`.
    parameters : ArtifactParameters, optional

    Returns
    -------
    Dataset, (y, x)
        As `coadd` returns, with ``center`` and ``half_width`` of the interval of values that the
        last pass kept, by which the share of a visit in its static sky can be taken out again.
        ``n_image`` is the number of visits with data.

    Raises
    ------
    NoUsableDataError, ValueError, GeometryError, KeyError
        As `coadd`.

    Examples
    --------
    >>> values = np.array([10, 11, 9, 10.5, 9.5, 50], "float32")[:, None, None]
    >>> warps = xr.Dataset(
    ...     {
    ...         "image": (("visit", "y", "x"), values, {"units": "nJy"}),
    ...         "variance": (("visit", "y", "x"), np.ones_like(values)),
    ...     },
    ...     coords={"visit": np.arange(6)},
    ... )
    >>> sky = static_sky(warps)
    >>> float(sky.image[0, 0]), int(sky.n_image[0, 0])
    (10.0, 6)
    """
    parameters = parameters or ArtifactParameters()
    return coadd_with_intervals(
        matched,
        weights=weights,
        match=match,
        parameters=CoaddParameters(
            statistic="clipped_mean",
            clip=parameters.sky_clip,
            noise_clip=parameters.sky_noise_clip,
            iterations=parameters.sky_iterations,
            bad_planes=("NO_DATA",),
            propagated={},
        ),
    )


class Difference(NamedTuple):
    """A warp less the static sky of the other visits; NaN where either has no data."""

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]


def difference_from_sky(warp: xr.Dataset, sky: xr.Dataset) -> Difference:
    r"""Return a warp less the static sky of the other visits, with its variance.

    Where the visit was used in the static sky :math:`c = \sum w v / W`, the mean of the others is
    :math:`(W c - w v) / (W - w)` and its variance :math:`(W^2 \mathrm{var}(c) - w^2 s)/(W - w)^2`:
    an artifact is not compared with itself, and no variance counts twice.
    """
    if warp["image"].sizes != sky["image"].sizes:
        raise GeometryError(
            f"the warp has shape {dict(warp['image'].sizes)}, the static sky "
            f"{dict(sky['image'].sizes)}"
        )
    value, s = (_plane(warp[name]) for name in ("image", "variance"))
    share = _weight_in(sky, warp)
    c, var = _plane(sky["image"]), _plane(sky["variance"])
    weight, center, half_width = (
        _plane(sky[name]) if share else NO_PLANE for name in ("weight_sum", "center", "half_width")
    )
    mask = np.zeros(value.shape, np.int32)
    if v.MASK in warp:
        mask = own_mask(warp[v.MASK].transpose(v.Y, v.X).values, dict(warp[v.MASK].attrs))
    image, variance = np.empty_like(value), np.empty_like(value)
    difference(
        value.ravel(),
        s.ravel(),
        c.ravel(),
        var.ravel(),
        weight.ravel(),
        center.ravel(),
        half_width.ravel(),
        np.ascontiguousarray(mask).ravel(),
        v.MASK_PLANES["NO_DATA"],
        share,
        image.ravel(),
        variance.ravel(),
    )
    return Difference(image, variance, mask)


def _plane(array: xr.DataArray) -> NDArray[np.float32]:
    return np.ascontiguousarray(array.transpose(v.Y, v.X).values, np.float32)


def _weight_in(sky: xr.Dataset, warp: xr.Dataset) -> float:
    """Return the weight that the visit of a warp has in the static sky, 0 if it isn't in it."""
    if v.VISIT not in warp.coords:
        return 0.0
    if "input_weight" not in sky:
        return 0.0
    found = sky["input_weight"].values[sky[v.VISIT].values == warp[v.VISIT].item()]
    return float(found[0]) if found.size else 0.0


def regions_above(
    significance: NDArray[Any], threshold: float, least: int
) -> tuple[NDArray[np.int32], int]:
    """Return the connected pixels above a threshold, regions numbered from 1, and their number.

    Pixels that touch at a corner are connected; regions of fewer pixels than ``least`` are left
    out.

    Examples
    --------
    >>> regions_above(np.array([[9.0, 0.0, 0.0], [0.0, 8.0, 0.0]]), 7.5, 2)[0].tolist()
    [[1, 0, 0], [0, 1, 0]]
    """
    labels, number = label(significance > threshold, structure=EVERYWHERE)
    if least > 1 and number:
        kept = np.bincount(labels.ravel(), minlength=number + 1) >= least
        kept[0] = False
        labels = np.where(kept, np.cumsum(kept), 0)[labels]
        number = int(kept.sum())
    return labels.astype(np.int32), int(number)


def find_candidates(
    warp: xr.Dataset,
    sky: xr.Dataset,
    *,
    psf_sigma: float,
    parameters: ArtifactParameters | None = None,
) -> xr.Dataset:
    """Return the regions in which a visit differs from the static sky of the others.

    Parameters
    ----------
    warp : Dataset, (y, x)
        ``image``, ``variance`` and perhaps ``mask`` of one visit, with the PSF of the static sky;
        the coordinate ``visit`` names it. Read as a whole.
    sky : Dataset, (y, x)
        From `static_sky`; if the visit is part of it, its share is taken out. Or any ``image``
        with ``variance`` that the visit should look like, such as a template made for its airmass.
    psf_sigma : float, pixel
        Width of the PSF; > 0.
    parameters : ArtifactParameters, optional

    Returns
    -------
    Dataset, (pixel)
        ``y_index``, ``x_index`` of the pixels in the arrays and ``region``, the number of their
        region from 0; ``variance_factor``, what the variance of the difference was multiplied
        by, and ``variance_scaling`` (`VarianceScaling`). The coordinate ``visit`` if the warp has
        it.

    Raises
    ------
    GeometryError
        If warp and static sky differ in shape.
    KeyError
        If image, variance or a plane of the static sky are missing.
    ValueError
        If ``psf_sigma`` is not positive.

    Notes
    -----
    As CompareWarpAssembleCoaddTask of the LSST Science Pipelines does it, except that the visit
    is compared with the others only, and that the variance of the difference is rescaled, not
    that of the warp.

    Examples
    --------
    See `find_artifacts`.
    """
    if not psf_sigma > 0:
        raise ValueError(f"psf_sigma must be > 0 pixel, got {psf_sigma}")
    parameters = parameters or ArtifactParameters()
    unusable = np.int32(v.plane_bits(parameters.unusable_planes))
    image, variance, mask = difference_from_sky(warp, sky)
    with np.errstate(invalid="ignore", divide="ignore"):
        significance = image / np.sqrt(variance)
    significance[~np.isfinite(significance)] = 0.0
    # what differs raises the background of whole bins, and must not raise its own threshold
    differs = (np.abs(significance) > parameters.threshold).view(np.uint8)
    around = grow(differs, disk_reaches(int(AROUND * psf_sigma + 0.5))) > 0
    hidden = mask | np.where(around, np.int32(v.MASK_PLANES["DETECTED"]), np.int32(0))
    factor, scaling = _scaled(image, variance, hidden, parameters)
    significance /= np.float32(np.sqrt(factor))
    found = np.zeros(image.shape, np.uint8)
    for sign in (1, -1):
        labels, _ = regions_above(
            sign * significance, parameters.threshold, parameters.least_pixels
        )
        found |= labels > 0
    found = grow(found, disk_reaches(int(parameters.growth * psf_sigma + 0.5)))
    labels, number = regions_above(found, 0.5, 1)
    usable = (mask & unusable) == 0
    size = np.bincount(labels.ravel(), minlength=number + 1)
    left = np.bincount(labels[usable], minlength=number + 1)
    kept = left > parameters.least_usable * size
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept) - 1, -1)[labels]
    y, x = np.nonzero(numbers >= 0)
    regions = numbers[y, x]
    order = np.lexsort((x, y, regions))
    coords = {v.VISIT: warp[v.VISIT].item()} if v.VISIT in warp.coords else {}
    return xr.Dataset(
        {
            "y_index": (PIXEL, y[order].astype(np.int32)),
            "x_index": (PIXEL, x[order].astype(np.int32)),
            "region": (PIXEL, regions[order].astype(np.int32)),
            "variance_factor": ((), factor, {"units": v.DIMENSIONLESS}),
            "variance_scaling": ((), scaling, v.flag_attributes(v.VarianceScaling)),
        },
        coords=coords,
    )


def _scaled(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.int32],
    parameters: ArtifactParameters,
) -> tuple[float, int]:
    """Return the factor on the variance of a difference, and where it comes from."""
    if not parameters.rescale:
        return 1.0, int(v.VarianceScaling.KEPT)
    plane = (v.Y, v.X)
    difference = xr.Dataset(
        {
            "image": (plane, image),
            "variance": (plane, variance),
            v.MASK: (plane, mask, v.mask_attributes()),
        }
    )
    found = rescale_variance(difference, parameters=parameters.rescaling)
    return float(found["variance_factor"]), int(found["variance_scaling"])
