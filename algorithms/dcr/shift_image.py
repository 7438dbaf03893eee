"""Shifting images by parts of pixels, with an exact transpose."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft, ndimage

from skyloom.algorithms import vocabulary as v

__all__ = ["ShiftOrder", "shift_image"]

ShiftOrder: TypeAlias = Literal["fourier", 1, 3, 5]

EDGE: Final = 16
"""Pixels that the coefficients of high splines need beyond the twelve that scipy gives them."""


def shift_image(
    image: xr.DataArray, shift: tuple[float, float], *, order: ShiftOrder = "fourier"
) -> xr.DataArray:
    """Return an image whose content is moved.

    The transpose is the shift by the opposite vector, exactly for splines and, on a periodic
    image, for the Fourier shift: ``sum(u * shift(w)) == sum(shift_back(u) * w)``.

    Parameters
    ----------
    image : DataArray, (..., y, x)
        Pixels that are not finite count as 0; they never spread.
    shift : (dy, dx), pixel
        Content moves towards larger indices for positive ones.
    order : "fourier", 1, 3 or 5
        Phases of the Fourier transform, which is exact for images without structure finer than
        two pixels and takes the image as periodic: pad it. Or the order of a spline, beyond whose
        edge everything is 0.

    Returns
    -------
    DataArray
        Of the same dims, float32 for float32 images, else float64.

    Raises
    ------
    ValueError
        If the order is another one, or a shift is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> image = xr.DataArray(np.eye(5), dims=("y", "x"))
    >>> moved = shift_image(image, (1.0, 0.0))
    >>> moved.values.argmax(axis=0).tolist()
    [1, 2, 3, 4, 0]
    """
    if not np.isfinite(shift).all():
        raise ValueError(f"shift must be finite, got {shift}")
    if order not in ("fourier", 1, 3, 5):
        raise ValueError(f"order must be 'fourier', 1, 3 or 5, got {order!r}")

    spline = 0 if order == "fourier" else order

    def moved(values: NDArray[Any]) -> NDArray[Any]:
        kind = np.float32 if values.dtype == np.float32 else np.float64
        finite: NDArray[np.floating] = np.where(np.isfinite(values), values, 0).astype(kind)
        if not spline:
            return _by_phases(finite, shift)
        whole = (0.0,) * (finite.ndim - 2) + tuple(shift)
        edge = EDGE if spline > 3 else 0
        wide = np.pad(finite, [(0, 0)] * (finite.ndim - 2) + [(edge, edge)] * 2)
        found = ndimage.shift(wide, whole, None, spline, mode="grid-constant", prefilter=spline > 1)
        return np.asarray(found[..., edge : wide.shape[-2] - edge, edge : wide.shape[-1] - edge])

    dtype = np.float32 if image.dtype == np.float32 else np.float64
    result: xr.DataArray = xr.apply_ufunc(
        moved,
        image,
        input_core_dims=[[v.Y, v.X]],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[dtype],
        keep_attrs=True,
    )
    return result.transpose(*image.dims)


def phases(size: int, shift: float, *, half: bool = False) -> NDArray[np.complex128]:
    """Return the phases of a shift at the frequencies of a transform; real at the highest one."""
    frequency = fft.rfftfreq(size) if half else fft.fftfreq(size)
    found = np.exp(-2j * np.pi * frequency * shift)
    if size % 2 == 0:
        found[size // 2] = np.cos(np.pi * shift)
    return np.asarray(found)


def _by_phases(values: NDArray[Any], shift: tuple[float, float]) -> NDArray[Any]:
    shape = values.shape[-2:]
    spectrum = fft.rfft2(values)
    spectrum *= phases(shape[0], shift[0])[:, None].astype(spectrum.dtype)
    spectrum *= phases(shape[1], shift[1], half=True).astype(spectrum.dtype)
    return np.asarray(fft.irfft2(spectrum, shape))
