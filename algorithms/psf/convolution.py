"""Convolution of images, their variance and mask with a kernel that may change over the image.

Tiles of the image are transformed, multiplied and transformed back in double precision: the time
doesn't depend on what the kernel looks like and hardly on its size, and a bright star costs its
neighbours no digits. Missing pixels (not finite, or NO_DATA, or with a variance that is none) have
weight 0: what is left is divided by the kernel's sum over the valid pixels.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.calibrations import own_planes
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.fields import KernelField, field_of, squared
from skyloom.algorithms.psf.tile_kernels import (
    load_tile,
    sort_out,
    spread_bits,
    store_tile,
    take_far,
)
from skyloom.algorithms.psf.tiles import Tiles
from skyloom.algorithms.units import squared_units

__all__ = ["ConvolutionParameters", "convolve", "convolve_planes", "origin_of"]

Floats = NDArray[np.float64]
THERE: Final = 1 << 30  # pixels that are not missing; no plane has this bit
GRID: Final = 3  # positions along each axis at which the reach of a kernel is looked up


class ConvolutionParameters(Parameters):
    """What becomes of missing pixels and of mask bits in a convolution."""

    min_fraction: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="pixels get NO_DATA unless the kernel's sum over valid pixels is larger",
    )
    max_lost: float = Field(
        1e-3,
        ge=0,
        lt=1,
        description="pixels whose kernel lost a larger sum to missing pixels get INEXACT_PSF",
    )
    spread_threshold: float = Field(
        0.01,
        ge=0,
        le=1,
        description="mask bits spread over the box in which the kernel exceeds this fraction of "
        "its peak; 0 for the whole kernel",
    )
    whole_kernel_planes: tuple[str, ...] = Field(
        ("EDGE",), description="mask planes that spread over the whole kernel"
    )


class Convolved(NamedTuple):
    """Pixels of one image after convolution; the variance is empty without one."""

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]


def convolve(
    exposure: xr.Dataset | xr.DataArray,
    kernel: xr.Dataset | xr.DataArray,
    *,
    parameters: ConvolutionParameters | None = None,
) -> xr.Dataset:
    """Convolve an image with a kernel, with its variance and mask.

    Parameters
    ----------
    exposure : Dataset or DataArray, (..., y, x), float32
        ``image``, any unit, optionally ``variance`` (square of it) and ``mask`` (integer planes
        with their legend); or the image alone. Pixel positions, which matter for a kernel that
        changes, are the coordinates ``y``, ``x``, or the attribute ``box``, else count from 0.
        May be lazy; the result then is.
    kernel : DataArray, (kernel_y, kernel_x), or Dataset
        A constant kernel, or a field of kernels (see `skyloom.algorithms.psf.fields`); odd sides.
        A single bright pixel becomes the kernel: the kernel is not mirrored.
    parameters : ConvolutionParameters, optional

    Returns
    -------
    Dataset, (..., y, x)
        ``image`` float32, ``variance`` float32 if there was one (the sum of kernel squared times
        variance; noise of neighbours is correlated afterwards), ``mask`` int32 in skyloom's
        legend. Coordinates and attributes are those of the exposure.

    Raises
    ------
    ValueError
        If the kernel is no kernel, or shapes differ.
    KeyError
        If a Dataset has no image, or a plane is unknown.
    TypeError
        If an argument is no xarray object or the mask is not of integers.

    Notes
    -----
    Pixels are missing if image or variance is not finite, the variance negative, or NO_DATA set;
    so is everything beyond the border. image = sum k v g / sum k g and variance =
    sum k^2 s g / (sum k g)^2 with g = 1 where valid, for kernels of any sum. Where sum k g is
    at most ``min_fraction`` of sum k: NaN, infinite variance and NO_DATA; where it lacks more than
    ``max_lost`` of it: INEXACT_PSF. Pixels within half a kernel of the border, or of a missing
    region that holds a whole kernel, get EDGE. NO_DATA and INEXACT_PSF don't spread, EDGE spreads
    over the whole kernel, other bits over the box in which the kernel exceeds
    ``spread_threshold`` of its peak.

    Examples
    --------
    >>> image = xr.DataArray(np.eye(5, dtype=np.float32), dims=("y", "x"))
    >>> kernel = xr.DataArray([[0.5, 0.5, 0.0]], dims=("kernel_y", "kernel_x"))
    >>> np.abs(convolve(image, kernel)["image"].values[1].round(6)).tolist()
    [0.5, 0.5, 0.0, 0.0, nan]
    """
    parameters = parameters or ConvolutionParameters()
    v.plane_bits(parameters.whole_kernel_planes)
    field = field_of(kernel)
    if isinstance(exposure, xr.DataArray):
        exposure = exposure.to_dataset(name="image")
    if not isinstance(exposure, xr.Dataset):
        raise TypeError(f"exposure must be an xarray object, got {type(exposure).__name__}")
    if "image" not in exposure:
        raise KeyError(f"the exposure has no variable image; it has {list(exposure.data_vars)}")
    image = exposure["image"]
    if any(dim not in image.dims for dim in (v.Y, v.X)):
        raise GeometryError(f"image has dimensions {image.dims}, needs {v.Y} and {v.X}")
    planes = [image, exposure.get("variance"), own_planes(exposure.get(v.MASK), v.MASK_PLANES)]
    legend = None if planes[2] is None else planes[2].attrs.get("flag_meanings")
    known = list(v.MASK_PLANES) if legend is None else set(legend.split()) & set(v.MASK_PLANES)
    arrays = []
    for name, plane in zip(("image", "variance", v.MASK), planes, strict=True):
        if plane is None:
            continue
        if any(plane.sizes.get(dim) != image.sizes[dim] for dim in (v.Y, v.X)):
            raise GeometryError(f"{name} has shape {dict(plane.sizes)}, image {dict(image.sizes)}")
        arrays.append(plane if plane.chunks is None else plane.chunk({v.Y: -1, v.X: -1}))
    has_variance, has_mask = planes[1] is not None, planes[2] is not None
    outputs = [np.float32, np.float32, np.int32] if has_variance else [np.float32, np.int32]
    found = xr.apply_ufunc(
        _convolve_blocks,
        *arrays,
        kwargs={
            "has_variance": has_variance,
            "has_mask": has_mask,
            "field": field,
            "origin": origin_of(exposure),
            "parameters": parameters,
            "known": v.plane_bits(known),
        },
        input_core_dims=[[v.Y, v.X]] * len(arrays),
        output_core_dims=[[v.Y, v.X]] * len(outputs),
        dask="parallelized",
        output_dtypes=outputs,
        join="override",
        keep_attrs=False,
    )
    variables = {"image": found[0].assign_attrs(image.attrs)}
    if has_variance:
        units = {"units": squared_units(str(image.attrs.get("units", v.DIMENSIONLESS)))}
        variables["variance"] = found[1].assign_attrs(units | exposure["variance"].attrs)
    variables[v.MASK] = found[-1].assign_attrs(v.mask_attributes())
    coords = {name: value for name, value in exposure.coords.items() if name not in found[0].coords}
    return xr.Dataset(variables, attrs=exposure.attrs).assign_coords(coords)


def origin_of(exposure: xr.Dataset) -> tuple[int, int]:
    """Return the position (y, x) of the first pixel: by coordinates, attribute ``box``, or 0.

    Examples
    --------
    >>> image = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"))
    >>> origin_of(image.to_dataset(name="image").assign_attrs(box=[-5, -3, 7, 9]))
    (-5, 7)
    """
    box = exposure.attrs.get("box")
    corner = (0, 0) if box is None else (int(box[0]), int(box[2]))
    found = [
        int(exposure.coords[dim].values[0]) if dim in exposure.coords else start
        for dim, start in zip((v.Y, v.X), corner, strict=True)
    ]
    return found[0], found[1]


def _convolve_blocks(
    *planes: NDArray[Any],
    has_variance: bool,
    has_mask: bool,
    field: KernelField,
    origin: tuple[int, int],
    parameters: ConvolutionParameters,
    known: int,
) -> tuple[NDArray[Any], ...]:
    """Convolve the last two axes of a block."""
    leading = np.broadcast_shapes(*(plane.shape[:-2] for plane in planes))
    planes = tuple(np.broadcast_to(plane, leading + plane.shape[-2:]) for plane in planes)
    shape = planes[0].shape
    image, mask = np.empty(shape, np.float32), np.empty(shape, np.int32)
    variance = np.empty(shape, np.float32) if has_variance else None
    of_variance = squared(field) if has_variance else None
    for index in np.ndindex(*leading):
        found = convolve_planes(
            planes[0][index],
            planes[1][index] if has_variance else None,
            planes[-1][index] & np.int32(known) if has_mask else None,
            field,
            of_variance,
            origin,
            parameters,
        )
        image[index], mask[index] = found.image, found.mask
        if variance is not None:
            variance[index] = found.variance
    return (image, mask) if variance is None else (image, variance, mask)


def convolve_planes(
    image: NDArray[Any],
    variance: NDArray[Any] | None,
    mask: NDArray[np.int32] | None,
    field: KernelField,
    of_variance: KernelField | None = None,
    origin: tuple[int, int] = (0, 0),
    parameters: ConvolutionParameters | None = None,
) -> Convolved:
    """Convolve the planes of one image; see `convolve`.

    Parameters
    ----------
    image : ndarray, (y, x)
    variance : ndarray, (y, x), optional
    mask : ndarray, (y, x), int32, optional
        By skyloom's legend.
    field : KernelField
    of_variance : KernelField, optional
        The square of the field.
    origin : (int, int)
        Position (y, x) of the first pixel in the box of the field.
    parameters : ConvolutionParameters, optional

    Returns
    -------
    Convolved

    Examples
    --------
    >>> field = KernelField(np.full((1, 3, 3), 1 / 9), np.ones((1, 1)))
    >>> convolve_planes(np.ones((4, 4), np.float32), None, None, field).image[1:3, 1:3].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    parameters = parameters or ConvolutionParameters()
    pixels = np.ascontiguousarray(image, np.float32)
    variances = np.ascontiguousarray(np.empty((0, 0)) if variance is None else variance, np.float32)
    bits = np.ascontiguousarray(np.empty((0, 0)) if mask is None else mask, np.int32)
    no_data, inexact, edge = (v.MASK_PLANES[name] for name in ("NO_DATA", "INEXACT_PSF", "EDGE"))
    missing, whole, out_mask = spread_mask(pixels, variances, bits, field, parameters)
    half_y, half_x = field.sides[0] // 2, field.sides[1] // 2
    for border in (
        np.s_[:half_y, :],
        np.s_[max(pixels.shape[0] - half_y, 0) :, :],
        np.s_[:, :half_x],
        np.s_[:, max(pixels.shape[1] - half_x, 0) :],
    ):
        whole[border] = False
        out_mask[border] |= edge
    out_image = np.empty_like(pixels)
    out_variance = np.empty_like(variances)
    fields = [field]
    if variance is not None:
        fields.append(of_variance or squared(field))
    tiles = Tiles(pixels.shape, field.sides)
    spectra = [tiles.spectrum(one, origin) for one in fields]
    nothing = np.empty((0, 0))
    window = np.empty(tiles.window)
    for y, x in tiles.places():
        top, left = y.start - field.sides[0] // 2, x.start - field.sides[1] // 2
        load_tile(pixels, missing, top, left, window)
        new_image = spectra[0].convolve(window, y, x)
        new_variance = valid = nothing
        if variance is not None:
            load_tile(variances, missing, top, left, window)
            new_variance = spectra[1].convolve(window, y, x)
        untouched = whole[y, x]
        if not untouched.all():
            valid = spectra[0].valid_fraction(missing, window, y, x)
        store_tile(
            new_image,
            new_variance,
            valid,
            untouched,
            parameters.min_fraction,
            parameters.max_lost,
            (no_data, inexact),
            out_image[y, x],
            out_variance[y, x] if variance is not None else out_variance,
            out_mask[y, x],
        )
    return Convolved(out_image, out_variance, out_mask)


def spread_mask(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    bits: NDArray[np.int32],
    field: KernelField,
    parameters: ConvolutionParameters,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int32]]:
    """Return the missing pixels, those that have none within their kernel, and the spread bits."""
    missing = np.empty(image.shape, np.bool_)
    near, far, wide = (np.empty(image.shape, np.int32) for _ in range(3))
    no_data = v.MASK_PLANES["NO_DATA"]
    go = v.plane_bits(parameters.whole_kernel_planes)
    stay = v.plane_bits(v.MASK_PLANES) & ~(go | v.plane_bits(["NO_DATA", "INEXACT_PSF"]))
    codes = (no_data, THERE, stay, go)
    any_near, any_far = sort_out(image, variance, bits, codes, missing, near, far)
    if any_near:
        spread = np.empty(image.shape, np.int32)
        spread_bits(near, *core_of(field, parameters.spread_threshold), spread)
    else:
        spread = np.zeros(image.shape, np.int32)
    if not any_far:
        return missing, np.ones(image.shape, np.bool_), spread
    half_y, half_x = field.sides[0] // 2, field.sides[1] // 2
    spread_bits(far, half_y, half_x, wide)
    whole = np.empty(image.shape, np.bool_)
    any_empty = take_far(wide, (no_data, THERE, go), spread, whole)
    if max(half_y, half_x) > 0 and any_empty:
        # missing regions that hold a whole kernel, and what is half a kernel from them
        empty = (wide & np.int32(THERE)) == 0
        far[:] = np.where(empty, np.int32(v.MASK_PLANES["EDGE"]), np.int32(0))
        spread_bits(far, 2 * half_y, 2 * half_x, near)
        spread |= near
    return missing, whole, spread


def core_of(field: KernelField, threshold: float) -> tuple[int, int]:
    """Return half the sides (y, x) of the box in which a kernel exceeds a fraction of its peak.

    Examples
    --------
    >>> core_of(KernelField(np.array([[[0.1, 0.3, 1.0, 0.2, 0.1]]]), np.ones((1, 1))), 0.25)
    (0, 1)
    """
    half_y, half_x = field.sides[0] // 2, field.sides[1] // 2
    if threshold == 0:
        return half_y, half_x
    box = field.box
    y = np.linspace(box.y_start, box.y_stop - 1, GRID).repeat(GRID)
    x = np.tile(np.linspace(box.x_start, box.x_stop - 1, GRID), GRID)
    kernels = np.abs(field.at(x, y))
    above = (kernels >= threshold * kernels.max((1, 2), keepdims=True)).any(0)
    rows, columns = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
    return int(np.abs(rows - half_y).max()), int(np.abs(columns - half_x).max())
