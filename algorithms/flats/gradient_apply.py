"""A flat with its illumination corrected to that of a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.flats.gradient_model import radial_value
from skyloom.algorithms.focal_plane import to_focal_plane

__all__ = ["apply_flat_gradients"]

Floats = NDArray[np.float64]

SMALLEST_RATIO, LARGEST_RATIO = 0.05, 20.0


def apply_flat_gradients(
    flat: xr.Dataset,
    transform: Floats,
    gradients: xr.Dataset,
    reference: xr.Dataset | None = None,
) -> xr.Dataset:
    """Return a flat without its plane, with the radial profile of a reference.

    Parameters
    ----------
    flat : Dataset, (y, x)
        ``image`` and, if it has them, ``variance`` and ``mask``; trimmed orientation. May be lazy;
        the result then is.
    transform : ndarray, (2, 3), mm
        Takes trimmed pixels to the focal plane.
    gradients : Dataset
        What `fit_flat_gradients` found for this flat.
    reference : Dataset, optional
        What it found for the flat whose profile is wanted, such as a sky flat; without it the
        profile stays.

    Returns
    -------
    Dataset
        ``image * (1 + g . r) / normalization * R_reference / R``, ``variance`` by the square.
        NaN and BAD where ``R / R_reference`` is not within 0.05 ... 20, which includes pixels
        beyond the last node.

    Examples
    --------
    >>> fit = xr.Dataset(
    ...     {"value": ("node", np.ones(5)), "normalization": 2.0, "shift_x": 0.0, "shift_y": 0.0,
    ...      "gradient_x": 0.01, "gradient_y": 0.0},
    ...     coords={"radius": ("node", np.arange(5.0))}, attrs={"interpolation": "akima"},
    ... )
    >>> flat = xr.Dataset({"image": (("y", "x"), np.full((1, 3), 2.0))})
    >>> to_mm = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> apply_flat_gradients(flat, to_mm, fit)["image"].values
    array([[1.  , 1.01, 1.02]])
    """
    shape = {name: flat.sizes[name] for name in (v.Y, v.X)}
    image = flat["image"]
    y, x = (_pixel_indices(image, name, size) for name, size in shape.items())
    profiles = [_profile(gradients)]
    if reference is not None:
        profiles.append(_profile(reference))
    plane = float(gradients["gradient_x"]), float(gradients["gradient_y"])
    correction: xr.DataArray = xr.apply_ufunc(
        _correction,
        y,
        x,
        kwargs={
            "transform": np.asarray(transform, dtype=np.float64),
            "plane": plane,
            "normalization": float(gradients["normalization"]),
            "profiles": profiles,
        },
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    result = flat.copy()
    result["image"] = _times(image, correction)
    if "variance" in flat:
        result["variance"] = _times(flat["variance"], correction**2)
    if v.MASK in flat:
        old = flat[v.MASK]
        bad = np.isnan(correction) * v.plane_bits(["BAD"], old.attrs)
        new = (old | bad.astype(old.dtype)).transpose(*old.dims)
        result[v.MASK] = new.assign_attrs(old.attrs)
    return result


def _pixel_indices(image: xr.DataArray, dim: str, size: int) -> xr.DataArray:
    """Return the indices of pixels along a dimension, lazy in the blocks of a lazy image."""
    indices = xr.DataArray(np.arange(size, dtype=np.float64), dims=dim)
    chunks = image.chunksizes.get(dim)
    return indices if chunks is None else indices.chunk({dim: chunks})


def _times(old: xr.DataArray, correction: xr.DataArray) -> xr.DataArray:
    new = (old * correction).astype(old.dtype).transpose(*old.dims)
    return new.assign_attrs(old.attrs)


def _profile(fit: xr.Dataset) -> tuple[Floats, Floats, str, float, float]:
    return (
        np.asarray(fit["radius"].values, dtype=np.float64),
        np.asarray(fit["value"].values, dtype=np.float64),
        str(fit.attrs["interpolation"]),
        float(fit["shift_x"]),
        float(fit["shift_y"]),
    )


def _correction(
    y: Floats,
    x: Floats,
    *,
    transform: Floats,
    plane: tuple[float, float],
    normalization: float,
    profiles: list[Any],
) -> Floats:
    """Return the factor of each pixel."""
    focal_x, focal_y = to_focal_plane(transform, x, y)
    slope = 1.0 + plane[0] * focal_x + plane[1] * focal_y
    if len(profiles) == 1:
        return np.asarray(slope / normalization)
    own, wanted = (
        radial_value(nodes, values, np.hypot(focal_x - cx, focal_y - cy), style)
        for nodes, values, style, cx, cy in profiles
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = own / wanted
    inside = (ratio >= SMALLEST_RATIO) & (ratio <= LARGEST_RATIO)
    return np.asarray(
        np.where(inside, slope / normalization / np.where(inside, ratio, 1.0), np.nan)
    )
