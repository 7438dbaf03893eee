"""Warps brought to a common point-spread function."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.psf.convolution import convolve, origin_of
from skyloom.algorithms.psf.kernels import MatchingParameters, matching_kernel, target_image

__all__ = ["match_psf"]

PIXEL_PLANES = ("image", "variance", v.MASK)


def match_psf(
    warp: xr.Dataset,
    psf: xr.Dataset,
    target: xr.DataArray | float,
    *,
    parameters: MatchingParameters | None = None,
) -> xr.Dataset:
    """Bring a warp to another, wider point-spread function.

    Parameters
    ----------
    warp : Dataset, (..., y, x)
        ``image`` float32, ``variance``, ``mask``; position of the pixels by the coordinates
        ``y``, ``x`` or the attribute ``box``. May be lazy; the result then is. A warp of one
        detector is best: point-spread functions jump from one to the next.
    psf : Dataset, (point, psf_y, psf_x)
        Its point-spread functions, in the same pixels; see `psf_at_points`.
    target : DataArray, (psf_y, psf_x), or float
        Image of the target, or the FWHM [pixel] of a Gaussian.
    parameters : MatchingParameters, optional

    Returns
    -------
    Dataset, (..., y, x)
        ``image``, ``variance``, ``mask`` as `convolve` returns them; coordinates, attributes and
        all variables without pixels as in the warp. ``psf`` (psf_y, psf_x) is the target;
        ``match_status`` (`MatchStatus`) tells whether the match is good; ``match_residual``,
        the largest relative rms residual of the matched point-spread function; ``input_fwhm`` and
        ``target_fwhm`` [pixel]; ``kernel_size`` [pixel]. Unless the status is OK or POOR_KERNEL no
        pixel has data: an image is never sharpened. Other variables of pixels are left out.

    Raises
    ------
    KeyError
        If the warp has no image.
    ValueError
        If an argument or parameter doesn't fit; see `matching_kernel` and `convolve`.

    Warns
    -----
    DroppedInputWarning
        If there is no point-spread function or the target is too narrow.

    Notes
    -----
    The variance is that of single pixels. Noise is correlated over the kernel afterwards: rescale
    it before detecting objects (`rescale_variance`).

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points, psf_fwhm
    >>> star = gaussian_psf(4.0, size=121).rename(psf_y="y", psf_x="x").astype(np.float32)
    >>> warp = star.to_dataset(name="image").assign_attrs(box=[0, 121, 0, 121])
    >>> matched = match_psf(warp, psf_at_points(gaussian_psf(4.0), 60.0, 60.0), 7.7)
    >>> image = matched["image"][20:-20, 20:-20].rename(y="psf_y", x="psf_x")
    >>> round(float(psf_fwhm(image)), 2), int(matched["match_status"])
    (7.7, 0)
    """
    parameters = parameters or MatchingParameters()
    if "image" not in warp:
        raise KeyError(f"the warp has no variable image; it has {list(warp.data_vars)}")
    wanted = target_image(target)
    top, left = origin_of(warp)
    box = (top, top + warp.sizes[v.Y], left, left + warp.sizes[v.X])
    kernel = matching_kernel(psf, wanted, box, parameters=parameters)
    planes = warp[[name for name in PIXEL_PLANES if name in warp]]
    status = v.MatchStatus(int(kernel["status"]))
    if "kernel" in kernel:
        matched = convolve(planes, kernel, parameters=parameters.convolution)
    else:
        matched = _without_data(planes)
        reason = "there is no point-spread function"
        if status == v.MatchStatus.TARGET_TOO_NARROW:
            reason = (
                f"a target of {float(kernel['target_fwhm']):.4g} pixels is less than "
                f"{parameters.min_ratio:g} times as wide as the image, "
                f"{float(kernel['fwhm'].max()):.4g}"
            )
        warnings.warn(f"the warp is not matched: {reason}", DroppedInputWarning, stacklevel=2)
    kept = {
        name: values for name, values in warp.data_vars.items() if not {v.Y, v.X} & set(values.dims)
    }
    found: dict[str, Any] = {
        "psf": wanted,
        "match_status": kernel["status"],
        "match_residual": kernel["residual"].max() if "residual" in kernel else np.nan,
        "input_fwhm": kernel["fwhm"].max() if "fwhm" in kernel else np.nan,
        "target_fwhm": kernel["target_fwhm"],
        "kernel_size": np.int32(kernel.sizes.get(v.KERNEL_Y, 0)),
    }
    result = matched.assign({**kept, **found})
    for name in ("input_fwhm", "kernel_size"):
        result[name].attrs["units"] = v.PIXEL
    return result


def _without_data(planes: xr.Dataset) -> xr.Dataset:
    """Return the planes of a warp without any data."""
    image = planes["image"]
    empty = {"image": xr.full_like(image, np.nan, np.float32)}
    if "variance" in planes:
        empty["variance"] = xr.full_like(planes["variance"], np.inf, np.float32)
    no_data = xr.full_like(image, v.MASK_PLANES["NO_DATA"], np.int32)
    empty[v.MASK] = no_data.assign_attrs(v.mask_attributes())
    empty[v.MASK].attrs = v.mask_attributes()
    return planes.assign(empty)
