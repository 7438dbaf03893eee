"""Ratios of transfer functions over large images, as products of few rows and columns.

A ratio is that of two point-spread functions, and smooth: it is the transform of a kernel of some
tens of pixels. Such a kernel is a sum of a few products of a column and a row, and so is its
transform, at whatever frequencies.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.dcr.transfer import PointSpreads, gaussian_transfer
from skyloom.algorithms.fused import fused

__all__ = ["RatioProducts", "ratio_products"]

Images = NDArray[np.float32]
Spectra = NDArray[np.complex64]

SIDE: Final = 128
"""Pixels along a kernel."""
ERROR: Final = 1e-7
"""Products are left out that are smaller than this part of the largest one."""


class RatioProducts:
    """Ratios (visit, ky, kx), made of their products whenever one is needed."""

    def __init__(self, products: list[tuple[Spectra, Spectra]]) -> None:
        self._products = products
        self._last: tuple[int, Spectra] | None = None

    def __len__(self) -> int:
        """Return the number of visits."""
        return len(self._products)

    def __getitem__(self, visit: int) -> Spectra:
        """Return the ratio of a visit, (ky, kx)."""
        last = self._last  # one visit is asked for more than once in a row
        if last is not None and last[0] == visit:
            return last[1]
        tall, wide = self._products[visit]
        made = np.empty((len(tall), wide.shape[1]), np.complex64)
        _multiply(tall, wide.real.copy(), wide.imag.copy(), made)
        self._last = visit, made
        return made


def ratio_products(spreads: PointSpreads, shape: tuple[int, int]) -> RatioProducts | None:
    """Return the transfer functions of visits over that of the model; None if all are equal.

    Parameters
    ----------
    spreads : PointSpreads
    shape : (y, x)
        Of the image at whose frequencies of ``rfft2`` they are wanted.

    Examples
    --------
    >>> spreads = PointSpreads(np.array([4.0, 3.0]), None, True)
    >>> made, whole = ratio_products(spreads, (60, 50)), spreads.ratios((60, 50))
    >>> len(made), bool(np.allclose(made[0], whole[0], atol=1e-6))
    (2, True)
    """
    small = spreads.ratios((SIDE, SIDE))
    if small is None:
        return None
    if spreads.images is None:
        wider = np.sqrt(np.maximum(spreads.fwhm**2 - spreads.model_fwhm**2, 0.0))
        along_y, along_x = (shape[0], 1), (1, shape[1])
        return RatioProducts(
            [(gaussian_transfer(w, along_y), gaussian_transfer(w, along_x)) for w in wider]
        )
    at = fft.fftfreq(SIDE, 1.0 / SIDE)
    rows = np.exp(-2j * np.pi * fft.fftfreq(shape[0])[:, None] * at)
    columns = np.exp(-2j * np.pi * at[:, None] * fft.rfftfreq(shape[1]))
    found = []
    for ratio in small:
        kernel = fft.irfft2(ratio.astype(np.complex128), (SIDE, SIDE))
        along, sizes, across = np.linalg.svd(kernel)
        number = int((sizes > ERROR * sizes[0]).sum())
        tall, wide = rows @ (along[:, :number] * sizes[:number]), across[:number] @ columns
        found.append((tall.astype(np.complex64), wide.astype(np.complex64)))
    return RatioProducts(found)


@compiled
def _multiply(tall: Spectra, real: Images, imag: Images, out: Spectra) -> None:
    """Write the matrix product of columns (ky, product) and rows (product, kx) to out."""
    columns = real.shape[1]
    above, below = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for iy in range(out.shape[0]):
        above[:] = 0.0
        below[:] = 0.0
        for j in range(real.shape[0]):
            a, b = tall[iy, j].real, tall[iy, j].imag
            for ix in range(columns):
                one, two = real[j, ix], imag[j, ix]
                above[ix] = fused(-b, two, fused(a, one, above[ix]))
                below[ix] = fused(b, one, fused(a, two, below[ix]))
        for ix in range(columns):
            out[iy, ix] = complex(above[ix], below[ix])
