"""Undo the brighter-fatter effect of an image with a scalar kernel.

Charge that has been collected pushes later charge across pixel boundaries, in proportion to the
field -grad(K conv F). What crossed is put back as a flow through each boundary, so the total
charge of the image does not change (Coulton et al. 2018).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms.detrend.potential_kernels import iterate
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import DIMENSIONLESS, ELECTRON, KERNEL_X, KERNEL_Y, X, Y

__all__ = ["CorrectionParameters", "correct_brighter_fatter", "corrected_image"]

Floats = NDArray[np.float64]


class CorrectionParameters(Parameters):
    """When the iteration of the correction stops."""

    iterations: int = Field(20, description="largest number of iterations", ge=1, le=1000)
    threshold: float = Field(
        1e-3, description="stop when the mean absolute change per pixel is below, electron", gt=0
    )


def corrected_image(
    image: NDArray[np.floating], kernel: Floats, iterations: int, threshold: float
) -> tuple[NDArray[np.floating], np.int64, np.float64]:
    """Correct one image (y, x); also return the number of iterations and the last change.

    The image is in electron, the kernel (kernel_y, kernel_x) in 1/electron with odd sides no
    larger than the image. No charge flows through the borders of non-finite pixels, which stay.
    """
    good = np.isfinite(image)
    if not good.any() or not kernel.any():
        return image.copy(), np.int64(0), np.float64(0.0)
    bad = None if good.all() else ~good
    observed = image.astype(np.float64)
    if bad is not None:
        observed[bad] = np.median(image[good])
    # the kernel runs against the axes in a convolution
    taps = np.ascontiguousarray(kernel[::-1, ::-1], dtype=np.float64)
    values, spare = observed, [np.empty_like(observed) for _ in range(2)]
    change, step = np.inf, 0
    while step < iterations and change >= threshold:
        corrected = spare[step % 2]
        change = iterate(observed, values, good, taps, corrected)
        values = corrected
        step += 1
    result = values.astype(image.dtype)
    if bad is not None:
        result[bad] = image[bad]
    return result, np.int64(step), np.float64(change)


def correct_brighter_fatter(
    image: xr.DataArray, kernel: xr.DataArray, *, parameters: CorrectionParameters | None = None
) -> xr.Dataset:
    """Correct an image for the brighter-fatter effect, conserving charge.

    Parameters
    ----------
    image : DataArray, (..., y, x), float32 or float64, electron
        Detrended image of an amplifier or a detector; may be lazy. Non-finite pixels stay as they
        are and no charge flows through their borders: interpolate them first where that matters.
    kernel : DataArray, (kernel_y, kernel_x), 1/electron
        Kernel of that amplifier or detector, as `brighter_fatter_kernel` returns it.
    parameters : CorrectionParameters, optional
        When to stop.

    Returns
    -------
    Dataset, (..., y, x)
        ``image`` in electron, ``iterations`` and ``change``, the mean absolute change per pixel
        of the last iteration in electron; above the threshold means not converged.

    Raises
    ------
    ValueError
        If the image is not in electron, not floating point, smaller than the kernel, or the
        kernel has an even side.

    Notes
    -----
    F' = F + 1/2 div(F' grad(K conv F')), iterated from F' = F.

    Examples
    --------
    >>> kernel = xr.DataArray(
    ...     np.array([[0, -1, 0], [-1, -4, -1], [0, -1, 0]]) * 1e-7, dims=("kernel_y", "kernel_x")
    ... )
    >>> star = np.zeros((9, 9))
    >>> star[4, 4], star[4, 5] = 5e4, 2e4
    >>> image = xr.DataArray(star, dims=("y", "x"), attrs={"units": "electron"})
    >>> corrected = correct_brighter_fatter(image, kernel).image
    >>> bool(corrected[4, 4] > 5e4), round(float(corrected.sum()), 6)
    (True, 70000.0)
    """
    parameters = parameters or CorrectionParameters()
    problems = []
    if image.attrs.get("units") != ELECTRON:
        problems.append(f"image has units {image.attrs.get('units')!r}, needs {ELECTRON!r}")
    if not np.issubdtype(image.dtype, np.floating):
        problems.append(f"image is {image.dtype}, needs floating point")
    sides = kernel.sizes[KERNEL_Y], kernel.sizes[KERNEL_X]
    if not (sides[0] % 2 and sides[1] % 2):
        problems.append(f"kernel has shape {sides}, needs odd sides")
    if image.sizes[Y] < sides[0] or image.sizes[X] < sides[1]:
        problems.append(f"image {image.sizes[Y], image.sizes[X]} is smaller than kernel {sides}")
    if problems:
        raise ValueError("; ".join(problems))
    kernel = kernel.transpose(KERNEL_Y, KERNEL_X).astype(np.float64)
    # charge acts across chunks, so those of an image are joined
    whole = image if image.chunks is None else image.chunk({Y: -1, X: -1})
    corrected, iterations, change = xr.apply_ufunc(
        corrected_image,
        whole,
        kernel if kernel.chunks is None else kernel.chunk(-1),
        parameters.iterations,
        parameters.threshold,
        input_core_dims=[[Y, X], [KERNEL_Y, KERNEL_X], [], []],
        output_core_dims=[[Y, X], [], []],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[image.dtype, np.int64, np.float64],
    )
    corrected.attrs = dict(image.attrs)
    return xr.Dataset(
        {
            "image": corrected.transpose(*image.dims),
            "iterations": iterations.assign_attrs(units=DIMENSIONLESS),
            "change": change.assign_attrs(units=ELECTRON),
        }
    )
