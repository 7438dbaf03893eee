"""Convolution kernels that change over an image: a few images times polynomials of position.

A field is a Dataset with ``kernel`` (component, kernel_y, kernel_x) and ``coefficients``
(component, coefficient): the kernel at a position is the sum over components of the image times
a Chebyshev polynomial over the attribute ``box`` [y_start, y_stop, x_start, x_stop] of total
order ``order``, its terms in the sequence of `chebyshev_terms`. A constant kernel is one component
of order 0, or a plain DataArray (kernel_y, kernel_x).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import Box, chebyshev_design, chebyshev_terms
from skyloom.algorithms.background.chebyshev import chebyshev_values
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.psf.linear_kernels import gram_of, weighted_sums
from skyloom.algorithms.psf.stamps import stamp_values

__all__ = [
    "KernelField",
    "evaluate_kernel",
    "field_of",
    "field_of_terms",
    "polynomial_tables",
    "squared",
]

Floats = NDArray[np.float64]
EVERYWHERE = Box(0, 1, 0, 1)
LEAST_SUM = 1e-6  # of a kernel, relative to its absolute sum


class KernelField(NamedTuple):
    """Images (component, y, x), coefficients (component, term), total order and box."""

    images: Floats
    coefficients: Floats
    order: int = 0
    box: Box = EVERYWHERE

    @property
    def sides(self) -> tuple[int, int]:
        """Return the odd sides of the kernel along y and x."""
        return self.images.shape[1], self.images.shape[2]

    def at(self, x: ArrayLike, y: ArrayLike) -> Floats:
        """Return the kernels at positions, (position, y, x)."""
        design = chebyshev_design(np.atleast_1d(x), np.atleast_1d(y), self.box, self.order)
        return weighted_sums(weighted_sums(design, self.coefficients.T), self.images)

    def dataset(self) -> xr.Dataset:
        """Return the field as others keep it."""
        dims = (v.COMPONENT, v.KERNEL_Y, v.KERNEL_X)
        return xr.Dataset(
            {
                "kernel": (dims, self.images, {"units": v.DIMENSIONLESS}),
                "coefficients": ((v.COMPONENT, v.COEFFICIENT), self.coefficients, {"units": ""}),
            },
            attrs={"box": [int(edge) for edge in self.box], "order": int(self.order)},
        )


def field_of(kernel: xr.Dataset | xr.DataArray) -> KernelField:
    """Return a kernel as a field, checked.

    Raises
    ------
    ValueError
        If sides are even, values not finite, or parts missing or at odds.
    TypeError
        If it is neither Dataset nor DataArray.

    Examples
    --------
    >>> field_of(xr.DataArray(np.ones((3, 5)), dims=("kernel_y", "kernel_x"))).sides
    (3, 5)
    """
    dims = (v.KERNEL_Y, v.KERNEL_X)
    if isinstance(kernel, xr.DataArray):
        if kernel.ndim != 2:
            raise GeometryError(f"kernel has dimensions {kernel.dims}, needs {', '.join(dims)}")
        field = KernelField(stamp_values(kernel, dims, "kernel")[None], np.ones((1, 1)))
    elif isinstance(kernel, xr.Dataset):
        missing = [name for name in ("kernel", "coefficients") if name not in kernel]
        missing += [name for name in ("box", "order") if name not in kernel.attrs]
        if missing:
            raise GeometryError(f"the field of kernels has no {', '.join(missing)}")
        field = KernelField(
            stamp_values(kernel["kernel"].transpose(v.COMPONENT, ...), dims, "kernel"),
            np.asarray(kernel["coefficients"].transpose(v.COMPONENT, ...).values, np.float64),
            int(kernel.attrs["order"]),
            Box(*(int(edge) for edge in kernel.attrs["box"])),
        )
    else:
        raise TypeError(f"kernel must be an xarray object, got {type(kernel).__name__}")
    terms = len(chebyshev_terms(field.order))
    if field.coefficients.shape != (len(field.images), terms):
        raise GeometryError(
            f"coefficients have shape {field.coefficients.shape}, order {field.order} of "
            f"{len(field.images)} components needs {(len(field.images), terms)}"
        )
    if not (np.isfinite(field.images).all() and np.isfinite(field.coefficients).all()):
        raise GeometryError("the kernel holds values that are not finite")
    kernel_sum = (field.coefficients[:, 0] * field.images.sum((1, 2))).sum()
    if not abs(kernel_sum) > LEAST_SUM * np.abs(field.images[0] * field.coefficients[0, 0]).sum():
        raise GeometryError("the kernel sums to 0: no part of it can stand for the whole")
    return field


def evaluate_kernel(kernel: xr.Dataset | xr.DataArray, x: float, y: float) -> xr.DataArray:
    """Return the kernel at a position.

    Parameters
    ----------
    kernel : Dataset or DataArray
        A field of kernels, or a constant one.
    x, y : float, pixel
        In the pixels of the image.

    Returns
    -------
    DataArray, (kernel_y, kernel_x), float64

    Raises
    ------
    ValueError
        If it is no field; see `field_of`.

    Examples
    --------
    >>> kernel = xr.DataArray(np.ones((3, 3)) / 9, dims=("kernel_y", "kernel_x"))
    >>> round(float(evaluate_kernel(kernel, 5.0, 6.0).sum()), 12)
    1.0
    """
    return xr.DataArray(
        field_of(kernel).at(x, y)[0],
        dims=(v.KERNEL_Y, v.KERNEL_X),
        attrs={"units": v.DIMENSIONLESS},
    )


def field_of_terms(
    terms: Floats, order: int, box: Sequence[int], tolerance: float, most: int | None = None
) -> KernelField:
    """Return the field whose polynomials have given images as coefficients.

    Its components are the principal ones of these images: as few as leave out no more than a
    fraction ``tolerance`` of the kernel's absolute sum anywhere in the box, or ``most``.

    Examples
    --------
    >>> terms = np.zeros((3, 3, 3))
    >>> terms[0, 1, 1], terms[1, 0, 1] = 1.0, 0.1
    >>> field = field_of_terms(terms, 1, (0, 10, 0, 10), 1e-6)
    >>> len(field.images), field.at(9.5, 0.0)[0, :, 1].round(6).tolist()
    (2, [0.1, 1.0, 0.0])
    """
    limits = Box(*(int(edge) for edge in box))
    if len(terms) == 1:
        return KernelField(terms, np.ones((1, 1)), order, limits)
    rows = terms.reshape(len(terms), -1)
    _, vectors = np.linalg.eigh(gram_of(np.ascontiguousarray(rows.T)))
    left = vectors[:, ::-1]  # the largest first
    images = weighted_sums(left.T, rows)
    # polynomials lie within -1 to 1: so much can a component be off at most
    reach = np.abs(left).sum(0) * np.abs(images).sum(1)
    lost = np.append(np.cumsum(reach[::-1])[::-1], 0.0)
    count = int(np.argmax(lost <= tolerance * np.abs(terms[0]).sum()))
    count = max(count if most is None else min(count, most), 1)
    kept = images[:count].reshape(count, *terms.shape[1:])
    return KernelField(kept, np.ascontiguousarray(left[:, :count].T), order, limits)


def squared(field: KernelField, tolerance: float = 1e-4) -> KernelField:
    """Return the field of the square of each value of the kernel.

    Examples
    --------
    >>> one = np.full((1, 1, 1), 3.0)
    >>> field = KernelField(one, np.array([[1.0, 0.5, 0.0]]), 1, Box(0, 8, 0, 8))
    >>> [round(squared(field).at(x, 2.0).item(), 6) for x in (3.5, 7.5)]
    [9.0, 20.25]
    """
    given = chebyshev_terms(field.order)
    images = weighted_sums(field.coefficients.T, field.images)
    place = {tuple(term): i for i, term in enumerate(chebyshev_terms(2 * field.order).tolist())}
    terms = np.zeros((len(place), *field.sides))
    for a, (ax, ay) in enumerate(given.tolist()):
        for b, (bx, by) in enumerate(given.tolist()):
            product = 0.25 * images[a] * images[b]  # T_a T_b = (T_(a+b) + T_|a-b|) / 2
            for x in (ax + bx, abs(ax - bx)):
                for y in (ay + by, abs(ay - by)):
                    terms[place[x, y]] += product
    return field_of_terms(terms, 2 * field.order, field.box, tolerance)


def polynomial_tables(
    field: KernelField, y: NDArray[Any], x: NDArray[Any]
) -> tuple[Floats, Floats, Floats]:
    """Return Chebyshev values along y and x, and the coefficients (component, in y, in x)."""
    along_y = chebyshev_values(
        np.asarray(y, np.float64), field.box.y_start, field.box.y_stop, field.order
    )
    along_x = chebyshev_values(
        np.asarray(x, np.float64), field.box.x_start, field.box.x_stop, field.order
    )
    matrix = np.zeros((len(field.images), field.order + 1, field.order + 1))
    for term, (i, j) in enumerate(chebyshev_terms(field.order)):
        matrix[:, j, i] = field.coefficients[:, term]
    return along_y, along_x, matrix
