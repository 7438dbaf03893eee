"""Kernels that take one point-spread function to another, by regularised division in Fourier
space, and their change over an image.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from skyloom.algorithms.background.chebyshev import chebyshev_design
from skyloom.algorithms.psf.cells import Cells, usable_order
from skyloom.algorithms.psf.fields import KernelField, field_of_terms
from skyloom.algorithms.psf.linear_kernels import least_squares, weighted_sums
from skyloom.algorithms.psf.stamps import fitted, odd_size

__all__ = ["fourier_field", "fourier_kernels", "kernel_residuals", "needed_size"]

Floats = NDArray[np.float64]
BATCH: Final = 64  # images that are transformed together
SUM_TOLERANCE: Final = 9e-5  # of a kernel that is cut


def fourier_kernels(images: Floats, target: Floats, size: int, regularization: float) -> Floats:
    """Return the kernels that take images to a target, on odd sides of a size.

    ``K = T S* / (|S|^2 + regularization^2)``, S and T the transforms of image and target, each
    with a sum of 1: what the image doesn't hold is not made up.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> image, target = (gaussian_psf(width, size=61).values for width in (3.0, 5.0))
    >>> kernel = fourier_kernels(image[None], target, 61, 1e-3)[0]
    >>> float(np.abs(kernel - gaussian_psf(4.0, size=61).values).max()) < 1e-5
    True
    """
    of_target = scipy.fft.rfft2(np.fft.ifftshift(fitted(target, size)))
    kernels = np.empty((len(images), size, size))
    for start in range(0, len(images), BATCH):
        part = np.fft.ifftshift(fitted(images[start : start + BATCH], size), axes=(1, 2))
        spectrum = scipy.fft.rfft2(part)
        power = spectrum.real**2 + spectrum.imag**2 + regularization**2
        ratio = of_target * spectrum.conj() / power
        kernels[start : start + BATCH] = np.fft.fftshift(
            scipy.fft.irfft2(ratio, (size, size)), axes=(1, 2)
        )
    return kernels


def needed_size(kernels: Floats, tolerance: float) -> int:
    """Return the odd side to which kernels may be cut.

    What is cut off has an absolute sum of at most ``tolerance`` and a sum of at most 9e-5.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> needed_size(gaussian_psf(4.0, size=61).values[None], 1e-3)
    15
    """
    size = kernels.shape[-1]
    from_center = np.abs(np.arange(size) - size // 2)
    ring = np.maximum(from_center[:, None], from_center[None, :]).ravel()
    needed = 0
    for kernel in kernels:
        outside = np.zeros((2, size // 2 + 2))
        for row, values in zip(outside, (np.abs(kernel), kernel), strict=True):
            row[:-1] = np.cumsum(np.bincount(ring, values.ravel())[::-1])[::-1]
        fits = (outside[0] <= tolerance) & (np.abs(outside[1]) <= SUM_TOLERANCE)
        needed = max(needed, size // 2 + 2 - int(np.argmin(fits[::-1])))
    return 2 * needed - 1


def fourier_field(
    cells: Cells,
    target: Floats,
    box: tuple[int, int, int, int],
    *,
    order: int,
    regularization: float,
    size: int,
    tolerance: float,
    components: int,
) -> tuple[KernelField, Floats]:
    """Return the field of kernels of some cells, and the sums of the kernels before they are set
    to 1, (image,).

    Polynomials of position are fitted to each value of the kernel over the cells, by least
    squares; the principal components of what they vary make the field.
    """
    kernels = fourier_kernels(cells.images, target, size, regularization)
    kernels = fitted(kernels, min(needed_size(kernels, tolerance), size))
    sums = kernels.sum((1, 2))
    kernels /= sums[:, None, None]
    order = usable_order(cells, box, order)
    design = chebyshev_design(cells.x, cells.y, box, order)
    # cells that share an image add their rows
    solution = np.zeros((design.shape[1], len(kernels)))
    for column, image in zip(least_squares(design).T, cells.image, strict=True):
        solution[:, image] += column
    terms = weighted_sums(solution, kernels)
    return field_of_terms(terms, order, box, 1e-6, components), sums


def kernel_residuals(field: KernelField, cells: Cells, target: Floats, size: int) -> Floats:
    """Return the relative rms residual of each cell: of image * kernel less target, to target.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> from skyloom.algorithms.psf.cells import cells_of
    >>> cells = cells_of(psf_at_points(gaussian_psf(3.0), 0, 0), (0, 8, 0, 8), 128)
    >>> field = KernelField(np.ones((1, 1, 1)), np.ones((1, 1)))
    >>> kernel_residuals(field, cells, cells.images[0], 61).round(12).tolist()
    [0.0]
    """
    side = odd_size(max(size, *field.sides))
    wanted = fitted(target, side)
    scale = np.sqrt((wanted**2).sum())
    # cells that share image and kernel share their residual
    shared = field.order == 0
    first = np.arange(len(cells.image))
    if shared:
        first = np.array([int(np.argmax(cells.image == i)) for i in range(len(cells.images))])
    residuals = np.empty(len(first))
    for start in range(0, len(first), BATCH):
        part = first[start : start + BATCH]
        shape = 2 * (scipy.fft.next_fast_len(2 * side - 1, real=True),)
        kernels = scipy.fft.rfft2(fitted(field.at(cells.x[part], cells.y[part]), side), shape)
        images = scipy.fft.rfft2(fitted(cells.images[cells.image[part]], side), shape)
        matched = scipy.fft.irfft2(kernels * images, shape)
        middle = slice(side // 2, side // 2 + side)
        difference = matched[:, middle, middle] - wanted
        residuals[start : start + BATCH] = np.sqrt((difference**2).sum((1, 2))) / scale
    return residuals[cells.image] if shared else residuals
