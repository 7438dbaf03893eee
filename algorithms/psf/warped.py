"""Point-spread functions as warping makes them: through the map of pixels, with its kernel."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.psf.stamps import odd_size, stamp_values
from skyloom.algorithms.warp.positions import SkyPixels
from skyloom.algorithms.warp.resampling import LANES, PHASES, Kernel, kernel_table, kernel_taps

__all__ = ["LocalMap", "local_map", "warp_psf"]

Floats = NDArray[np.float64]
STEP = 1.0  # pixel, to either side, of differences


class LocalMap(NamedTuple):
    """Where target pixels lie in a source image: position (x, y) and matrix, (..., 2) and
    (..., 2, 2).

    The matrix takes offsets (x, y) of target pixels to offsets of source pixels.
    """

    position: Floats
    matrix: Floats


def local_map(source: SkyPixels, target: SkyPixels, x: ArrayLike, y: ArrayLike) -> LocalMap:
    """Return the linear maps from target to source pixels about some target positions.

    Positions that either projection does not reach are NaN.

    Examples
    --------
    >>> from skyloom.algorithms.tangent_plane import TangentPlane
    >>> target = TangentPlane(10.0, 0.0, 50.0, 50.0, np.diag([-1, 1]) / 3600)
    >>> source = TangentPlane(10.0, 0.0, 5.0, 5.0, np.array([[0, 1], [1, 0]]) / 1800)
    >>> found = local_map(source, target, 52.0, 54.0)
    >>> found.position.round(6).tolist(), (found.matrix + 0.0).round(6).tolist()
    ([7.0, 4.0], [[0.0, 0.5], [-0.5, 0.0]])
    """
    at_x, at_y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    shift_x = np.array([0.0, STEP, -STEP, 0.0, 0.0])
    shift_y = np.array([0.0, 0.0, 0.0, STEP, -STEP])
    sky = target.to_sky(at_x[..., None] + shift_x, at_y[..., None] + shift_y)
    found = np.stack(source.to_pixels(*sky), axis=-1)  # (..., shift, 2)
    along_x = (found[..., 1, :] - found[..., 2, :]) / (2.0 * STEP)
    along_y = (found[..., 3, :] - found[..., 4, :]) / (2.0 * STEP)
    return LocalMap(found[..., 0, :], np.stack([along_x, along_y], axis=-1))


def warp_psf(
    psf: xr.DataArray, matrix: ArrayLike, *, kernel: Kernel = "lanczos3", size: int | None = None
) -> xr.DataArray:
    """Return the point-spread function of a warp: resampled as its pixels are.

    Parameters
    ----------
    psf : DataArray, (psf_y, psf_x)
        That of the source image.
    matrix : array_like, (2, 2)
        Takes offsets (x, y) of target pixels to offsets of source pixels; see `local_map`.
    kernel : "bilinear", "lanczos3" or "lanczos5"
    size : int, optional
        Odd side of the result, pixel; by default it holds all of the source image.

    Returns
    -------
    DataArray, (psf_y, psf_x), float64
        Normalised to a sum of 1, in target pixels.

    Raises
    ------
    ValueError
        If the matrix is singular or not finite, the size even, or the image has even sides.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_fwhm
    >>> smaller = warp_psf(gaussian_psf(6.0), 1.5 * np.eye(2))
    >>> round(float(psf_fwhm(smaller)), 2)
    4.0
    """
    linear = np.asarray(matrix, np.float64)
    if linear.shape != (2, 2) or not np.isfinite(linear).all() or np.linalg.det(linear) == 0:
        raise GeometryError(
            f"matrix must be (2, 2), finite and not singular, got {linear.tolist()}"
        )
    values = stamp_values(psf)
    if values.ndim != 2:
        raise GeometryError(f"psf has dimensions {psf.dims}, needs psf_y, psf_x only")
    if size is None:
        size = warped_size(values.shape, linear)
    elif size < 1 or size % 2 == 0:
        raise GeometryError(f"size must be odd and >= 1, got {size}")
    return xr.DataArray(
        warp_stamp(values, linear, kernel, size),
        dims=(v.PSF_Y, v.PSF_X),
        attrs={"units": v.DIMENSIONLESS},
    )


def warped_size(shape: tuple[int, ...], matrix: Floats) -> int:
    """Return the odd side that holds an image after warping.

    Examples
    --------
    >>> warped_size((21, 31), np.array([[0.0, 2.0], [2.0, 0.0]]))
    17
    """
    half = np.array([[shape[1] // 2], [shape[0] // 2]], float)
    reach = np.abs(np.linalg.inv(matrix)) @ half
    return odd_size(2.0 * float(reach.max()) + 1.0)


def warp_stamp(values: Floats, matrix: Floats, kernel: Kernel, size: int) -> Floats:
    """Return an image at the pixels of another grid, normalised to 1."""
    taps = kernel_taps(kernel)
    table = kernel_table(kernel).reshape(PHASES + 1, LANES[taps])
    out = np.empty((size, size))
    resample(np.ascontiguousarray(values), np.ascontiguousarray(matrix), table, taps, out)
    normalised: Floats = out / out.sum()
    return normalised


@compiled
def resample(
    image: Floats, matrix: Floats, table: NDArray[np.float32], taps: int, out: Floats
) -> None:
    """Sum an image under a separable kernel at each pixel of another; 0 beyond its border.

    The matrix takes offsets (x, y) from the centre of the result to those in the image; the table
    (phase, tap) is linear between phases.
    """
    height, width = image.shape
    size, phases = out.shape[0], table.shape[0] - 1
    weights = np.empty((2, taps))
    first = np.empty(2, np.int64)
    for i in range(size):
        for j in range(size):
            y, x = np.float64(i - size // 2), np.float64(j - size // 2)
            for axis in range(2):
                center = (width if axis == 0 else height) // 2
                place = matrix[axis, 0] * x + matrix[axis, 1] * y + center
                whole = math.floor(place)
                phase = (place - whole) * phases
                row = min(int(phase), phases - 1)
                share = phase - row
                for tap in range(taps):
                    low, high = np.float64(table[row, tap]), np.float64(table[row + 1, tap])
                    weights[axis, tap] = low + share * (high - low)
                first[axis] = int(whole) - taps // 2 + 1
            total = 0.0
            for k in range(max(0, -first[1]), min(taps, height - first[1])):
                line = 0.0
                for m in range(max(0, -first[0]), min(taps, width - first[0])):
                    line += weights[0, m] * image[first[1] + k, first[0] + m]
                total += weights[1, k] * line
            out[i, j] = total
