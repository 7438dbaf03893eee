"""Matching kernels as sums of Gaussians times polynomials (Alard & Lupton 1998), for comparison
with the LSST Science Pipelines.

A kernel of 21 pixels cannot make the wings of a wide target: the residual is some per cent and
depends on the seeing. `skyloom.algorithms.psf.matching_kernel` has none of this by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms.background.chebyshev import chebyshev_design, chebyshev_terms
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.cells import Cells, cells_of, usable_order
from skyloom.algorithms.psf.fields import KernelField, field_of_terms
from skyloom.algorithms.psf.linear_kernels import gram_of, solve_positive, weighted_sums
from skyloom.algorithms.psf.points import Between
from skyloom.algorithms.psf.stamps import fitted, odd_size, stamp_values

__all__ = ["AlardLuptonParameters", "alard_lupton_basis", "alard_lupton_field"]

Floats = NDArray[np.float64]
RIDGE: Final = 1e-12  # added to the diagonal of the normal equations, which is 1


class AlardLuptonParameters(Parameters):
    """The basis of the kernel and how its coefficients change; defaults are the reference's."""

    kernel_size: int = Field(21, ge=1, description="odd side of the kernel, pixel")
    sigmas: tuple[float, ...] = Field((1.0, 2.0, 4.5), description="sigma of each Gaussian, pixel")
    degrees: tuple[int, ...] = Field(
        (4, 2, 2), description="total degree of the polynomials times each Gaussian"
    )
    order: int = Field(2, ge=0, le=8, description="total order of the change over the image")
    cell: int = Field(128, ge=1, description="side of the cells with one sample each, pixel")
    padding: int | None = Field(
        None,
        ge=0,
        description="pixels added to the sides of images, even; by default up to 1.4 kernels",
    )
    kernel_sum: float = Field(1.0, description="what the kernel sums to", gt=0)


def alard_lupton_basis(size: int, sigmas: Sequence[float], degrees: Sequence[int]) -> Floats:
    """Return the images whose sums are kernels; the first sums to 1, all others to 0.

    Parameters
    ----------
    size : int
        Odd side, pixel.
    sigmas : sequence of float, pixel
    degrees : sequence of int
        For each Gaussian, the highest total degree of its polynomials in coordinates that go from
        -1 to 1 across the kernel.

    Returns
    -------
    ndarray, (image, size, size), float64

    Raises
    ------
    ValueError
        If the size is even, lists differ in length, or values are out of range.

    Examples
    --------
    >>> basis = alard_lupton_basis(21, (1.0, 2.0, 4.5), (4, 2, 2))
    >>> len(basis), np.abs(basis.sum((1, 2)).round(12)).tolist()[:3]
    (27, [1.0, 0.0, 0.0])
    """
    if size % 2 == 0:
        raise ConfigurationError(f"kernel_size must be odd, got {size}")
    if len(sigmas) != len(degrees) or not sigmas:
        raise ConfigurationError(f"{len(sigmas)} sigmas need as many degrees, got {len(degrees)}")
    if min(sigmas) <= 0 or min(degrees) < 0:
        raise ConfigurationError(f"sigmas must be > 0 and degrees >= 0, got {sigmas}, {degrees}")
    pixels = np.arange(size, dtype=np.float64) - size // 2
    u = pixels / max(size // 2, 1)
    images: list[Floats] = []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        profile = np.exp(-0.5 * (pixels / sigma) ** 2)
        for j in range(degree + 1):
            for i in range(degree + 1 - j):
                image = np.outer(profile * u**j, profile * u**i)
                total = image.sum()
                if i % 2 == 0 and j % 2 == 0:  # the others sum to 0 already
                    image = image / total
                    image = image - images[0] if images else image
                images.append(image if not images else image / np.sqrt((image**2).sum()))
    return np.stack(images)


def alard_lupton_field(
    psf: xr.Dataset,
    target: xr.DataArray,
    box: Sequence[int],
    *,
    between: Between = "nearest",
    parameters: AlardLuptonParameters | None = None,
) -> tuple[KernelField, Cells, float]:
    """Return the field of kernels, its cells, and the sum of the kernel as fitted.

    The squared residual of all cells together is least; its pixels count alike. The coefficient
    of the first image doesn't change over the image, so the sum is the same everywhere; it is
    then set to ``kernel_sum``.

    Raises
    ------
    ValueError
        If the kernel is larger than an image less 1, the padding is odd, the box is smaller than
        a cell, or the basis is none.
    """
    parameters = parameters or AlardLuptonParameters()
    size = parameters.kernel_size
    basis = alard_lupton_basis(size, parameters.sigmas, parameters.degrees)
    limits = [int(edge) for edge in box]
    if min(limits[1] - limits[0], limits[3] - limits[2]) < parameters.cell:
        raise GeometryError(f"box {limits} is smaller than one cell of {parameters.cell} pixels")
    cells = cells_of(psf, limits, parameters.cell, between)
    wanted = stamp_values(target, name="target")
    given = max(cells.images.shape[1:])
    if parameters.padding is None:
        stamp = max(given, odd_size(1.4 * size))
    elif parameters.padding % 2:
        raise ConfigurationError(f"padding must be even, got {parameters.padding}")
    else:
        stamp = given + parameters.padding
    if size > stamp - 1:
        raise ConfigurationError(
            f"kernel_size {size} must be at most the side of the images less 1, {stamp - 1}"
        )
    order = usable_order(cells, limits, parameters.order)
    terms = len(chebyshev_terms(order))
    design = chebyshev_design(cells.x, cells.y, limits, order)
    inner = stamp - size + 1
    goal = fitted(wanted, inner).ravel()
    normal = np.zeros((len(basis), terms, len(basis), terms))
    right = np.zeros((len(basis), terms))
    of_basis = scipy.fft.rfft2(basis, (stamp, stamp))
    for number, image in enumerate(fitted(cells.images, stamp)):
        spectrum = scipy.fft.rfft2(image)
        # wrapped where the kernel leaves the image, which is cut off
        blurred = scipy.fft.irfft2(of_basis * spectrum, (stamp, stamp))[:, size - 1 :, size - 1 :]
        columns = blurred.reshape(len(basis), -1)
        rows = np.ascontiguousarray(columns.T)
        products, onto = gram_of(rows), weighted_sums(goal[None], rows)[0]
        at = design[cells.image == number]
        normal += products[:, None, :, None] * gram_of(at)[None, :, None, :]
        right += onto[:, None] * at.sum(0)[None, :]
    free = np.ones((len(basis), terms), np.bool_)
    free[0, 1:] = False
    chosen = np.flatnonzero(free)
    matrix = normal.reshape(free.size, free.size)[np.ix_(chosen, chosen)]
    scale = 1.0 / np.sqrt(np.diag(matrix))
    scaled = matrix * scale[:, None] * scale
    # images of the basis nearly depend on each other
    scaled[np.diag_indices_from(scaled)] += RIDGE
    solution = scale * solve_positive(scaled, (scale * right.ravel()[chosen])[:, None])[:, 0]
    coefficients = np.zeros(free.size)
    coefficients[chosen] = solution
    coefficients = coefficients.reshape(free.shape)
    fitted_sum = float(coefficients[0, 0])
    if not fitted_sum > 0:
        raise GeometryError(f"the fitted kernel sums to {fitted_sum}, which cannot be rescaled")
    coefficients *= parameters.kernel_sum / fitted_sum
    images = weighted_sums(coefficients.T, basis)
    images[0] *= parameters.kernel_sum / images[0].sum()
    return field_of_terms(images, order, limits, 1e-9), cells, fitted_sum
