"""The matched warp of a visit: each detector by its own point-spread functions, then merged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.psf.kernels import MatchingParameters, target_image
from skyloom.algorithms.psf.matching import match_psf
from skyloom.algorithms.psf.shapes import psf_fwhm
from skyloom.algorithms.warp.merge import merge_warps

__all__ = ["match_detectors"]

OF_DETECTOR = ("match_status", "match_residual", "input_fwhm", "kernel_size")


def match_detectors(
    warps: Sequence[xr.Dataset],
    psfs: Sequence[xr.Dataset],
    target: xr.DataArray | float,
    *,
    box: Sequence[int] | None = None,
    parameters: MatchingParameters | None = None,
) -> xr.Dataset:
    """Bring the warps of the detectors of a visit to one point-spread function, and merge them.

    Point-spread functions jump from detector to detector, so kernels fitted across them would
    suit neither.

    Parameters
    ----------
    warps : sequence of Dataset, (y, x)
        Of `warp_exposure`, of one visit on one grid; those without planes are passed over.
    psfs : sequence of Dataset, (point, psf_y, psf_x)
        The point-spread functions of each, in pixels of the grid.
    target : DataArray, (psf_y, psf_x), or float
        Image of the target, or the FWHM [pixel] of a Gaussian.
    box : (int, int, int, int), optional
        Of the result; see `merge_warps`.
    parameters : MatchingParameters, optional

    Returns
    -------
    Dataset, (y, x)
        As `merge_warps` returns it, with ``psf`` and ``target_fwhm`` of the target, and over
        ``detector``, in the order of their labels, ``match_status`` (NOT_MEASURED for a warp
        without planes), ``match_residual``, ``input_fwhm`` and ``kernel_size``. A detector
        that is not matched adds no pixel.

    Raises
    ------
    ValueError
        If numbers of warps and sets differ, or as `match_psf` and `merge_warps` do.

    Warns
    -----
    DroppedInputWarning
        Once, if some detectors are not matched.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> plane = xr.DataArray(np.ones((99, 50), "float32"), dims=("y", "x"))
    >>> warps = [
    ...     xr.Dataset(
    ...         {"image": plane * level, "variance": plane, "mask": plane.astype("int32") * 0},
    ...         {"detector": level},
    ...         {"box": [0, 99, 50 * level, 50 * level + 50], "wcs": {}},
    ...     )
    ...     for level in (1, 2)
    ... ]
    >>> psfs = [psf_at_points(gaussian_psf(width), 0, 0) for width in (4.0, 5.0)]
    >>> matched = match_detectors(warps, psfs, 7.7)
    >>> matched["match_status"].values.tolist(), matched["image"].values[49, [25, 75]].tolist()
    ([0, 0], [1.0, 2.0])
    """
    if len(warps) != len(psfs):
        raise ValueError(f"{len(warps)} warps need as many sets of psfs, got {len(psfs)}")
    wanted = target_image(target)
    found: list[xr.Dataset] = []
    about: list[tuple[Any, dict[str, float]]] = []
    reasons = []
    for number, (warp, psf) in enumerate(zip(warps, psfs, strict=True)):
        label = warp.coords[v.DETECTOR].item() if v.DETECTOR in warp.coords else number
        if "image" not in warp:
            found.append(warp)
            values = dict.fromkeys(OF_DETECTOR, np.nan)
            values |= {"match_status": v.MatchStatus.NOT_MEASURED, "kernel_size": 0}
            about.append((label, values))
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DroppedInputWarning)
            matched = match_psf(warp, psf, wanted, parameters=parameters)
        for one in caught:
            if issubclass(one.category, DroppedInputWarning):
                reasons.append(f"{label}: {one.message}")
            else:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        about.append((label, {name: matched[name].item() for name in OF_DETECTOR}))
        found.append(matched)
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {len(warps)} detectors are not matched; {'; '.join(reasons)}",
            DroppedInputWarning,
            stacklevel=2,
        )
    merged = merge_warps(found, box=box)
    about.sort(key=lambda one: str(one[0]).rjust(12))
    columns = {name: np.array([values[name] for _, values in about]) for name in OF_DETECTOR}
    pixel, none = {"units": v.PIXEL}, {"units": v.DIMENSIONLESS}
    codes = columns["match_status"].astype(np.uint8)
    return merged.assign(
        {
            "psf": wanted,
            "target_fwhm": ((), float(psf_fwhm(wanted)), pixel),
            "match_status": (v.DETECTOR, codes, v.flag_attributes(v.MatchStatus)),
            "match_residual": (v.DETECTOR, columns["match_residual"], none),
            "input_fwhm": (v.DETECTOR, columns["input_fwhm"], pixel),
            "kernel_size": (v.DETECTOR, columns["kernel_size"].astype(np.int32), pixel),
        }
    ).assign_coords({v.DETECTOR: [label for label, _ in about]})
