"""Tiles of an image and their convolution with the components of a field of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from skyloom.algorithms.psf.fields import KernelField, polynomial_tables
from skyloom.algorithms.psf.linear_kernels import weighted_sums
from skyloom.algorithms.psf.tile_kernels import (
    add_component,
    count_missing,
    load_valid,
    lost_weights,
)

__all__ = ["Spectrum", "Tiles"]

Floats = NDArray[np.float64]
LEAST_TILE: Final = 160  # pixels along a side: what belongs to a tile stays in the cache
TILE_IN_KERNELS: Final = 5  # smaller tiles are mostly overlap
FEW: Final = 10  # additions a pixel that cost less than two transforms


class Tiles:
    """How an image is cut, and the window around each tile that its convolution needs.

    The cut depends on the shapes alone, so the same image has the same bits everywhere.

    Examples
    --------
    >>> tiles = Tiles((300, 100), (21, 11))
    >>> tiles.window, [(y.start, y.stop, x.start, x.stop) for y, x in tiles.places()]
    ((120, 120), [(0, 100, 0, 100), (100, 200, 0, 100), (200, 300, 0, 100)])
    """

    def __init__(self, shape: tuple[int, ...], sides: tuple[int, int]) -> None:
        self.shape, self.sides = (shape[0], shape[1]), sides
        steps, window = [], []
        for size, side in zip(self.shape, sides, strict=True):
            largest = max(LEAST_TILE, TILE_IN_KERNELS * side) - side + 1
            steps.append(-(-size // -(-size // largest)))
            window.append(int(scipy.fft.next_fast_len(steps[-1] + side - 1, real=True)))
        self.step = (steps[0], steps[1])
        self.window = (window[0], window[1])

    def places(self) -> Iterator[tuple[slice, slice]]:
        """Yield the rows and columns of one tile after another."""
        for y in range(0, self.shape[0], self.step[0]):
            for x in range(0, self.shape[1], self.step[1]):
                yield (
                    slice(y, min(y + self.step[0], self.shape[0])),
                    slice(x, min(x + self.step[1], self.shape[1])),
                )

    def spectrum(self, field: KernelField, origin: tuple[int, int]) -> Spectrum:
        """Return a field of kernels, transformed for these tiles of an image from an origin on."""
        return Spectrum(self, field, origin)


class Spectrum:
    """The transform of each component, and the polynomials that go with them."""

    def __init__(self, tiles: Tiles, field: KernelField, origin: tuple[int, int]) -> None:
        images = field.images
        self.constant = field.order == 0
        if self.constant:
            images = weighted_sums(field.coefficients.T, images)
        self.tiles = tiles
        self.images = np.ascontiguousarray(images)
        self.sums = images.sum((1, 2))
        self.transforms = scipy.fft.rfft2(images, tiles.window)
        self.along_y, self.along_x, self.matrix = polynomial_tables(
            field,
            np.arange(origin[0], origin[0] + tiles.shape[0]),
            np.arange(origin[1], origin[1] + tiles.shape[1]),
        )

    def convolve(self, window: Floats, y: slice, x: slice) -> Floats:
        """Return the pixels of a tile from those of its window, which begins half a kernel off."""
        shape = (y.stop - y.start, x.stop - x.start)
        first_y, first_x = self.tiles.sides[0] - 1, self.tiles.sides[1] - 1
        part = (slice(first_y, first_y + shape[0]), slice(first_x, first_x + shape[1]))
        pixels = scipy.fft.rfft2(window)
        if self.constant:
            pixels *= self.transforms[0]
            found: Floats = scipy.fft.irfft2(pixels, self.tiles.window, overwrite_x=True)[part]
            return found
        total = np.zeros(shape)
        for transform, matrix in zip(self.transforms, self.matrix, strict=True):
            values = scipy.fft.irfft2(pixels * transform, self.tiles.window, overwrite_x=True)
            add_component(values[part], self.along_y[y], self.along_x[x], matrix, total)
        return total

    def valid_fraction(
        self, missing: NDArray[np.bool_], window: Floats, y: slice, x: slice
    ) -> Floats:
        """Return the kernel's sum over valid pixels, over its sum, at each pixel of a tile.

        ``window`` is overwritten. Where few pixels are missing their weights are taken off one
        by one, which is quicker.
        """
        shape = (y.stop - y.start, x.stop - x.start)
        sides = self.tiles.sides
        top, left = y.start - sides[0] // 2, x.start - sides[1] // 2
        around = (shape[0] + sides[0] - 1, shape[1] + sides[1] - 1)
        missed = count_missing(missing, top, left, around)
        if 0 <= missed * sides[0] * sides[1] < FEW * window.size:
            lost = np.empty((len(self.images), *shape))
            lost_weights(missing, top, left, self.images, lost)
            return 1.0 - self.combined(lost, y, x) / self.kernel_sum(y, x)
        load_valid(missing, top, left, window)
        return self.convolve(window, y, x) / self.kernel_sum(y, x)

    def combined(self, values: Floats, y: slice, x: slice) -> Floats:
        """Return the sum of components (component, y, x) of a tile times their polynomials."""
        if self.constant:
            first: Floats = values[0]
            return first
        total = np.zeros(values.shape[1:])
        for component, matrix in zip(values, self.matrix, strict=True):
            add_component(component, self.along_y[y], self.along_x[x], matrix, total)
        return total

    def kernel_sum(self, y: slice, x: slice) -> Floats:
        """Return the sum of the kernel at each pixel of a tile, or that of all of them."""
        if self.constant:
            sums: Floats = self.sums
            return sums
        shape = (len(self.sums), y.stop - y.start, x.stop - x.start)
        return self.combined(np.broadcast_to(self.sums[:, None, None], shape).copy(), y, x)
