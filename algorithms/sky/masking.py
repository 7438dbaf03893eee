"""Masks over the faint wings of objects, so that the sky between them is clean.

Detected regions are marked DETECTED in a new mask; images are never changed. A pixel is *usable*
if image and variance are finite, the variance is not negative and no excluded plane is set.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import Box, bin_count, bin_edges, bin_image, render_grid
from skyloom.algorithms.background.rendering import Rendering
from skyloom.algorithms.errors import EmptyBackgroundWarning
from skyloom.algorithms.pixel_arrays import native
from skyloom.algorithms.sky.mask_kernels import grow, regions_with_peak, smooth, usable_pixels
from skyloom.algorithms.sky.mask_parameters import ImputeObjectsParameters, MaskObjectsParameters
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["impute_objects", "mask_objects"]

CORE = [v.Y, v.X]
NOTHING = np.empty((0, 0), np.float32)
NO_LEVEL = np.empty((1, 0), np.float32)
NO_RATIO = np.ones(1, np.float32)
NO_BYTES = np.empty((0, 0), np.uint8)
LARGE_BIN = 512  # from this size on a bin is worth the statistics made for whole images
SMOOTH = Rendering(interpolation="akima")

Floats = NDArray[np.float64]


def mask_objects(
    exposure: xr.Dataset, *, parameters: MaskObjectsParameters | None = None
) -> xr.DataArray:
    """Mark the pixels of objects and of their faint surroundings.

    A coarse background is subtracted, image and variance are smoothed with a Gaussian, regions
    above the threshold that hold a higher peak grow by a disk; the next round measures the
    background without them. The mask of the last round wins.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image`` (any unit), ``variance`` (its square; without one, or where it is 0 all over a
        detector, the scatter of the image stands in) and ``mask`` (optional). May be lazy; the
        result then is.
    parameters : MaskObjectsParameters, optional

    Returns
    -------
    DataArray, (..., y, x), int32
        The mask of the exposure with DETECTED set anew, DETECTED_NEGATIVE cleared and the other
        planes as they were. A detector without usable pixels keeps its mask, with a warning.

    Raises
    ------
    KeyError
        If the mask does not know a plane.
    ValueError
        If ``image`` is missing or has no dimensions y and x.

    Notes
    -----
    With ``border="mark"`` and ``peak_threshold=2.5`` the procedure is that of the LSST Science
    Pipelines (MaskObjectsTask). Without a peak threshold a tenth of an empty sky is masked, the
    brightest tenth, and what is left is too low. Structure of the sky that the coarse background
    does not follow is found as objects: where it is strong, use small bins first, then subtract sky
    and sky frame and mask again.

    The significance of a smoothed pixel is ``sum k d / sqrt(sum k² var)`` over usable pixels, so
    that it holds beside bad pixels and at edges.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> image = rng.normal(100.0, 1.0, (80, 90)).astype(np.float32)
    >>> image[40, 50] += 500.0
    >>> exposure = xr.Dataset({"image": (("y", "x"), image)})
    >>> mask = mask_objects(exposure)
    >>> detected = (mask & v.plane_bits(["DETECTED"])) != 0
    >>> bool(detected[40, 50]), bool(detected[40, 64]), bool(detected[5, 5])
    (True, True, False)
    """
    parameters = MaskObjectsParameters() if parameters is None else parameters
    arrays, legend = _planes(exposure, ["image", "variance", v.MASK])
    bits = {
        "excluded": v.plane_bits(parameters.excluded_planes, legend),
        "ignored": v.plane_bits(parameters.background_ignored_planes, legend),
        "detected": v.plane_bits(["DETECTED"], legend),
        "negative": v.plane_bits(["DETECTED_NEGATIVE"], legend),
        "edge": v.plane_bits(["EDGE"], legend),
    }
    found: xr.DataArray = xr.apply_ufunc(
        _over_leading(_mask_plane),
        *arrays.values(),
        kwargs={"names": tuple(arrays), "bits": bits, "parameters": parameters},
        input_core_dims=[CORE] * len(arrays),
        output_core_dims=[CORE],
        dask="parallelized",
        output_dtypes=[np.int32],
    )
    found = found.transpose(*exposure["image"].dims).rename(v.MASK)
    found.attrs = legend
    return found


def impute_objects(
    exposure: xr.Dataset, *, parameters: ImputeObjectsParameters | None = None
) -> xr.Dataset:
    """Replace masked pixels by what surrounds them, to compare with pipelines that do so.

    Replaced pixels are not data: statistics that take them for data are too sure of themselves.
    Nothing else in skyloom replaces pixels.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image`` (any unit) and ``mask``. May be lazy; the result then is.
    parameters : ImputeObjectsParameters, optional

    Returns
    -------
    Dataset
        The exposure with a new ``image`` and, with ``method="model"``, DETECTED cleared in a new
        ``mask``. Without any good pixel nothing is replaced.

    Raises
    ------
    KeyError
        If the mask does not know a plane.
    ValueError
        If ``image`` or ``mask`` is missing.

    Examples
    --------
    >>> image = np.full((16, 16), 7.0, np.float32)
    >>> image[8, 8] = 900.0
    >>> mask = np.zeros((16, 16), np.int32)
    >>> mask[8, 8] = v.plane_bits(["DETECTED"])
    >>> exposure = xr.Dataset({"image": (("y", "x"), image), "mask": (("y", "x"), mask)})
    >>> replaced = impute_objects(exposure)
    >>> float(replaced["image"][8, 8]), int(replaced["mask"][8, 8])
    (7.0, 0)
    """
    parameters = ImputeObjectsParameters() if parameters is None else parameters
    if v.MASK not in exposure:
        raise ValueError("exposure needs a mask: without one there is nothing to replace")
    arrays, legend = _planes(exposure, ["image", v.MASK])
    image: xr.DataArray = xr.apply_ufunc(
        _over_leading(_impute_plane),
        *arrays.values(),
        kwargs={
            "names": tuple(arrays),
            "bits": v.plane_bits(parameters.planes, legend),
            "parameters": parameters,
        },
        input_core_dims=[CORE] * len(arrays),
        output_core_dims=[CORE],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    replaced = {"image": image.transpose(*exposure["image"].dims)}
    replaced["image"].attrs = dict(exposure["image"].attrs)
    if parameters.method == "model":
        mask = exposure[v.MASK] & np.int32(~v.plane_bits(["DETECTED"], legend))
        replaced[v.MASK] = mask
        mask.attrs = legend
    return exposure.assign(replaced)


def _planes(
    exposure: xr.Dataset, names: list[str]
) -> tuple[dict[str, xr.DataArray], dict[str, Any]]:
    """Return the arrays of an exposure, each detector in one piece, and the legend of its mask."""
    if "image" not in exposure:
        raise ValueError(f"exposure needs a variable image, it has {sorted(map(str, exposure))}")
    missing = [dim for dim in CORE if dim not in exposure["image"].dims]
    if missing:
        raise ValueError(f"image needs dimensions y and x, it has {exposure['image'].dims}")
    arrays = {name: exposure[name] for name in names if name in exposure}
    for name, array in arrays.items():
        if array.chunks is not None:
            arrays[name] = array.chunk(dict.fromkeys(CORE, -1))
    legend = dict(arrays[v.MASK].attrs) if v.MASK in arrays else {}
    return arrays, legend if "flag_meanings" in legend else legend | v.mask_attributes()


def _over_leading(function: Any) -> Any:
    """Return a function of planes that runs over all leading dimensions."""

    def run(*arrays: NDArray[Any], names: tuple[str, ...], **options: Any) -> NDArray[Any]:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        whole = dict(zip(names, (np.broadcast_to(a, shape) for a in arrays), strict=True))
        planes: list[NDArray[Any]] = [
            function({name: array[index] for name, array in whole.items()}, **options)
            for index in np.ndindex(*shape[:-2])
        ]
        if len(planes) == 1:
            return planes[0].reshape(shape)
        return np.stack(planes).reshape(shape) if planes else np.empty(shape, np.int32)

    return run


def _float_plane(plane: NDArray[Any] | None) -> NDArray[np.float32]:
    return NOTHING if plane is None else native(np.asarray(plane, np.float32))


def _mask_plane(
    planes: dict[str, NDArray[Any]], *, bits: dict[str, int], parameters: MaskObjectsParameters
) -> NDArray[np.int32]:
    """Return the new mask of one detector."""
    image = _float_plane(planes["image"])
    mask = native(np.asarray(planes.get(v.MASK, np.zeros(image.shape, np.int32)), np.int32))
    variance = _float_plane(planes.get("variance"))
    usable = usable_pixels(image, variance, mask, bits["excluded"])
    sky = usable_pixels(image, NOTHING, mask, bits["ignored"])
    level = _smooth_level(image, sky, parameters.background_bin)
    if level is None:
        warnings.warn(
            "a detector has no pixel to measure a background from: its mask stays as it is",
            EmptyBackgroundWarning,
            stacklevel=2,
        )
        return np.array(mask)
    if not variance.any():
        scatter = clipped_moments(image - level, sky).variance
        variance = np.full(image.shape, scatter, np.float32)
    taps = gaussian_taps(parameters.smoothing)
    limits = np.empty(image.shape, np.float32)
    squares = (taps * taps).astype(np.float32)
    smooth(variance, NO_LEVEL, usable, squares, NO_LEVEL, NO_RATIO, limits, NO_BYTES)
    limits *= np.float32(parameters.threshold**2)
    border = len(taps) - 1 if parameters.border == "mark" else 0
    cleared = bits["negative"] | (0 if parameters.keep_detected else bits["detected"])
    edge = _border_of(image.shape, border)
    if border:
        limits[edge] = np.inf  # nothing is found there
    detected = np.empty(image.shape, np.uint8)
    other = usable_pixels(image, NOTHING, mask, bits["ignored"] & ~cleared)
    if border and bits["ignored"] & bits["edge"]:
        other[edge] = 0
    peaks = parameters.peak_threshold > parameters.threshold
    ratio = np.array([max(parameters.peak_threshold / parameters.threshold, 1.0) ** 2], np.float32)
    reaches = disk_reaches(parameters.growth)
    grown = detected
    for _ in range(parameters.iterations):
        if grown is not detected:
            level = _smooth_level(image, other & ~grown, parameters.background_bin)
        if level is None:
            break
        smooth(image, level, usable, taps.astype(np.float32), limits, ratio, NO_LEVEL, detected)
        grown = grow(regions_with_peak(detected) if peaks else detected, reaches)
    found: NDArray[np.int32] = mask & np.int32(~cleared)
    found |= grown * np.int32(bits["detected"])
    if border:
        found[edge] |= np.int32(bits["edge"])
    return found


def gaussian_taps(sigma: float) -> Floats:
    """Return a Gaussian of unit sum from its centre outwards, cut at 3.5 sigma.

    Examples
    --------
    >>> taps = gaussian_taps(5.0)
    >>> len(taps), round(float(taps[0] + 2 * taps[1:].sum()), 12)
    (18, 1.0)
    """
    size = round(7.0 * sigma)
    x = np.arange((size + 1 - size % 2) // 2 + 1, dtype=np.float64)
    taps = np.exp(-0.5 * (x / sigma) ** 2)
    return np.asarray(taps / (taps[0] + 2.0 * taps[1:].sum()))


def disk_reaches(radius: int) -> NDArray[np.int64]:
    """Return the half height of a disk at each distance from its centre.

    Examples
    --------
    >>> disk_reaches(3)
    array([3, 2, 2, 0])
    """
    d = np.arange(radius + 1)
    return np.floor(np.sqrt(radius**2 - d**2) + 1e-9).astype(np.int64)


def _border_of(shape: tuple[int, ...], border: int) -> NDArray[np.bool_]:
    edge = np.zeros(shape, bool)
    if border:
        edge[:border] = edge[-border:] = True
        edge[:, :border] = edge[:, -border:] = True
    return edge


def _smooth_level(
    image: NDArray[np.float32], good: NDArray[np.uint8], bin_size: int
) -> NDArray[np.float32] | None:
    """Return a coarse background as an image; nothing if there is no good pixel."""
    edges_y, edges_x = (bin_edges(n, bin_count(n, bin_size, rule="ceil")) for n in image.shape)
    levels = _levels(image, good, edges_y, edges_x, bin_size)
    if not np.isfinite(levels).any():
        return None
    height, width = image.shape
    return render_grid(levels, Box(0, height, 0, width), rendering=SMOOTH)


def _levels(
    image: NDArray[np.float32],
    good: NDArray[np.uint8],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    bin_size: int,
) -> Floats:
    """Return the clipped mean of each bin."""
    if bin_size < LARGE_BIN:
        return bin_image(image, good ^ 1, 1, edges_y, edges_x).level
    levels = np.empty((len(edges_y) - 1, len(edges_x) - 1))
    for i, j in np.ndindex(*levels.shape):
        part = np.s_[edges_y[i] : edges_y[i + 1], edges_x[j] : edges_x[j + 1]]
        levels[i, j] = clipped_moments(image[part], good[part]).mean
    return levels


def _impute_plane(
    planes: dict[str, NDArray[Any]], *, bits: int, parameters: ImputeObjectsParameters
) -> NDArray[np.float32]:
    """Return the image of one detector with its masked pixels replaced."""
    image = _float_plane(planes["image"])
    mask = native(np.asarray(planes[v.MASK], np.int32))
    good = usable_pixels(image, NOTHING, mask, bits)
    if not good.any():
        return np.array(image)
    masked = (mask & np.int32(bits)) != 0
    if parameters.method == "median":
        return np.where(masked, np.float32(np.median(image[good != 0])), image)
    level = _smooth_level(image, good, parameters.bin_size)
    return image.copy() if level is None else np.where(masked, level, image)
