"""One flat from two, such as those of a blue and a red lamp."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.combine.planes import own_planes
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.units import squared_units

__all__ = ["combine_two_flats"]

UNUSED_PLANES = ("BAD", "NO_DATA")


def combine_two_flats(
    first: xr.Dataset,
    second: xr.Dataset,
    weight: float = 0.5,
    *,
    ignore: tuple[str, ...] = UNUSED_PLANES,
) -> xr.Dataset:
    r"""Return the weighted mean of two flats of one detector.

    .. math:: F = w F_1 + (1 - w) F_2, \qquad
        \mathrm{var}(F) = w^2 \mathrm{var}(F_1) + (1 - w)^2 \mathrm{var}(F_2)

    Where one of the flats is not valid, the result is the other one, marked ONE_INPUT.

    Parameters
    ----------
    first, second : Dataset, (y, x)
        ``image``, and perhaps ``variance`` and ``mask``, in the same unit and shape.
    weight : float
        Weight of the first, 0 to 1. A flat of weight 0 still stands in where the other is not
        valid.
    ignore : tuple of str
        Planes whose pixels are not valid; neither are those that are not finite.

    Returns
    -------
    Dataset, (y, x)
        ``image``, ``variance`` (NaN if one of the flats has none), ``mask``: the planes of what
        was used, and of both where neither is valid: the value is NaN there, and the mask BAD.
        Attributes and coordinates that are the same in both are kept.

    Raises
    ------
    ValueError
        If the weight is outside of 0 to 1, or the units or detectors differ.
    GeometryError
        If the shapes differ.

    Examples
    --------
    >>> blue = xr.Dataset({"image": (("y", "x"), np.array([[1.02, 1.02]], "float32"))})
    >>> red = xr.Dataset({"image": (("y", "x"), np.array([[0.97, np.nan]], "float32"))})
    >>> both = combine_two_flats(blue, red, 0.3)
    >>> both["image"].values.round(4).tolist(), both["mask"].values.tolist()
    ([[0.9850000143051147, 1.0199999809265137]], [[0, 8192]])
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight must be between 0 and 1, got {weight}")
    flats = [flat.transpose(..., v.Y, v.X) for flat in (first, second)]
    images = [flat["image"] for flat in flats]
    if dict(images[0].sizes) != dict(images[1].sizes):
        raise GeometryError(
            f"the flats have different shapes, {dict(images[0].sizes)} and {dict(images[1].sizes)}"
        )
    units = [str(image.attrs.get("units", v.DIMENSIONLESS)) for image in images]
    if units[0] != units[1]:
        raise ValueError(f"the flats have different units, {units[0]!r} and {units[1]!r}")
    for name in (v.DETECTOR, "camera"):
        said = [
            str(f.coords[name].values) if name in f.coords else f.attrs.get(name) for f in flats
        ]
        if None not in said and said[0] != said[1]:
            raise ValueError(f"the flats are of different {name}s, {said[0]!r} and {said[1]!r}")
    planes = [
        [
            flat["image"].variable,
            flat["variance"].variable
            if "variance" in flat
            else xr.full_like(flat["image"].variable, np.nan),
            _mask(flat),
        ]
        for flat in flats
    ]
    image, variance, mask = xr.apply_ufunc(
        _weighted,
        *planes[0],
        *planes[1],
        kwargs={"weight": float(weight), "bits": v.plane_bits(ignore)},
        output_core_dims=[[], [], []],
        keep_attrs=False,
        dask="parallelized",
        output_dtypes=[images[0].dtype, images[0].dtype, np.int32],
    )
    square = squared_units(units[0])
    dims = images[0].dims
    return xr.Dataset(
        {
            "image": (dims, image.data, {"units": units[0]}),
            "variance": (dims, variance.data, {"units": square}),
            v.MASK: (dims, mask.data, v.mask_attributes()),
        },
        coords={
            name: coord
            for name, coord in first.coords.items()
            if name in second.coords
            and set(coord.dims) <= set(dims)
            and coord.equals(second.coords[name])
        },
        attrs={
            key: value
            for key, value in first.attrs.items()
            if key in second.attrs and np.array_equal(value, second.attrs[key])
        }
        | {"weights_of_flats": [weight, 1.0 - weight]},
    )


def _weighted(
    image_1: NDArray[Any],
    variance_1: NDArray[Any],
    mask_1: NDArray[np.int32],
    image_2: NDArray[Any],
    variance_2: NDArray[Any],
    mask_2: NDArray[np.int32],
    *,
    weight: float,
    bits: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]:
    """Return value, variance and planes of plain arrays."""
    valid_1 = np.isfinite(image_1) & ((mask_1 & bits) == 0)
    valid_2 = np.isfinite(image_2) & ((mask_2 & bits) == 0)
    share_1 = np.where(valid_1, np.where(valid_2, weight, 1.0), 0.0)
    share_2 = np.where(valid_2, np.where(valid_1, 1.0 - weight, 1.0), 0.0)
    # a share of 0 must not let a NaN through
    value = _part(share_1, image_1, valid_1) + _part(share_2, image_2, valid_2)
    variance = _part(share_1**2, variance_1, valid_1) + _part(share_2**2, variance_2, valid_2)
    neither = ~(valid_1 | valid_2)
    mask = np.where(valid_1 | neither, mask_1, 0) | np.where(valid_2 | neither, mask_2, 0)
    mask |= np.where(valid_1 ^ valid_2, v.MASK_PLANES["ONE_INPUT"], 0).astype(np.int32)
    mask |= np.where(neither, v.MASK_PLANES["BAD"], 0).astype(np.int32)
    value[neither] = np.nan
    variance[neither] = np.nan
    return value.astype(image_1.dtype), variance.astype(image_1.dtype), mask.astype(np.int32)


def _part(
    share: NDArray[np.float64], values: NDArray[Any], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    return np.where(valid, share * values.astype(np.float64), 0.0)


def _mask(flat: xr.Dataset) -> xr.Variable:
    """Return the planes of a flat by skyloom's own legend, 0 without a mask."""
    if v.MASK not in flat:
        return xr.zeros_like(flat["image"].variable, dtype=np.int32)
    mask = flat[v.MASK].variable
    legend = dict(mask.attrs) if "flag_meanings" in mask.attrs else v.mask_attributes()
    own: xr.Variable = xr.apply_ufunc(
        own_planes,
        mask,
        kwargs={"legend": legend},
        keep_attrs=False,
        dask="parallelized",
        output_dtypes=[np.int32],
    )
    return own
