"""The pixels of one exposure made into those of its warp: plain arrays in and out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.flats.polygon import inside_polygon
from skyloom.algorithms.warp.noise import noise_image, noise_seed
from skyloom.algorithms.warp.parameters import WarpParameters
from skyloom.algorithms.warp.position_grid import PositionGrid
from skyloom.algorithms.warp.resampling import kernel_table
from skyloom.algorithms.warp.row_kernels import (
    EXCLUDED,
    TAIL,
    prepare_planes,
    spread_marks,
    warp_rows,
)

__all__ = ["Task", "source_limits", "warp_blocks"]

Pixels = NDArray[np.float32]
Masks = NDArray[np.int32]
Limits = tuple[int, int, int, int]

NO_DATA = v.MASK_PLANES["NO_DATA"]
SPREAD_WEIGHTS = (1.0 - 1e-6, 1.0 + 1e-6)
"""Weight on finite pixels where those that are not finite have none, but for rounding."""


class Task(NamedTuple):
    """How the pixels of one exposure become those of a warp.

    ``part`` is what kernels may touch of the detector, ``offset`` the pixel (y, x) of the detector
    that the given planes begin with.
    """

    grid: PositionGrid
    box: Limits
    part: Limits
    offset: tuple[int, int]
    taps: int
    parameters: WarpParameters
    polygon: NDArray[np.float64] | None
    labels: tuple[Any, Any]


class Planes(NamedTuple):
    """What a warp holds; (0, 0) planes are not wanted."""

    image: Pixels
    variance: Pixels
    mask: Masks
    masked_fraction: Pixels

    def at(self, index: Any) -> Planes:
        """Return the planes at an index of their leading axes, or parts of them."""
        return Planes(
            self.image[index],
            self.variance[index],
            self.mask[index],
            self.masked_fraction[index] if self.masked_fraction.size else self.masked_fraction,
        )


class Source(NamedTuple):
    """The part of an exposure that a warp needs, as the kernels read it."""

    corner: tuple[int, int]
    offset: tuple[int, int]
    image: Pixels
    variance: Pixels
    mask: Masks
    marks: NDArray[np.uint8]
    flags: NDArray[np.uint8]


def warp_blocks(
    image: NDArray[Any], variance: NDArray[Any], mask: NDArray[np.int32], *, task: Task
) -> tuple[NDArray[Any], ...]:
    """Warp the last two axes; return the planes, those of noise, and how many pixels have data."""
    leading = np.broadcast_shapes(image.shape[:-2], variance.shape[:-2], mask.shape[:-2])
    shape = image.shape[-2:]
    images, variances, masks = (
        np.broadcast_to(plane, leading + shape) for plane in (image, variance, mask)
    )
    size = (task.box[1] - task.box[0], task.box[3] - task.box[2])
    number = task.parameters.noise_realizations
    wanted = leading + size if task.parameters.masked_fraction else (0, 0)
    made = Planes(
        np.empty(leading + size, np.float32),
        np.empty(leading + size, np.float32),
        np.empty(leading + size, np.int32),
        np.empty(wanted, np.float32),
    )
    noise = np.full((*leading, number, *size), np.nan, np.float32)
    count = np.zeros(leading, np.int64)
    for index in np.ndindex(*leading):
        planes = (
            np.ascontiguousarray(images[index], np.float32),
            np.ascontiguousarray(variances[index], np.float32),
            _own_mask(masks[index], task),
        )
        source = _prepared(*planes, task)
        count[index] = _warp(source, task, made.at(index))
        for realization in range(number):
            _warp_noise(planes[1], source, task, realization, noise[index][realization])
    if not task.parameters.masked_fraction:
        made = made._replace(masked_fraction=np.zeros(leading + size, np.float32))
    return (*made, noise, count)


def _own_mask(mask: NDArray[np.int32], task: Task) -> Masks:
    if task.polygon is None:
        return np.ascontiguousarray(mask, np.int32)
    corners = task.polygon - np.array(task.offset[::-1])
    outside = ~inside_polygon((mask.shape[0], mask.shape[1]), corners)
    return np.asarray(mask | np.where(outside, np.int32(NO_DATA), np.int32(0)), np.int32)


def _prepared(image: Pixels, variance: Pixels, mask: Masks, task: Task) -> Source:
    part = task.part
    shape = part[1] - part[0], part[3] - part[2]
    size = shape[0] * shape[1] + TAIL
    values, spreads = np.empty(size, np.float32), np.empty(size, np.float32)
    marks, flags = np.zeros(size, np.uint8), np.empty(shape, np.uint8)
    values[-TAIL:] = spreads[-TAIL:] = 0.0
    own_marks = marks[:-TAIL].reshape(shape)
    bits = v.plane_bits(task.parameters.excluded_planes)
    weigh = task.parameters.bad_pixels == "weigh"
    corner = part[0] - task.offset[0], part[2] - task.offset[1]
    kinds = bits if weigh else 0, v.MASK_PLANES["EDGE"], bits
    prepare_planes(image, variance, mask, corner, kinds, values, spreads, own_marks)
    spread_marks(own_marks, task.taps, flags)
    return Source(corner, task.offset, values, spreads, mask, marks, flags)


def _warp(source: Source, task: Task, made: Planes) -> int:
    """Fill the planes of one warp; return how many of its pixels have data."""
    grid, parameters = task.grid, task.parameters
    least = parameters.least_weight, np.inf
    return int(
        warp_rows(
            grid.nodes,
            grid.origin,
            grid.step,
            grid.touched,
            task.box,
            grid.box,
            kernel_table(parameters.kernel),
            task.taps,
            source.corner,
            source.offset,
            source.image,
            source.variance,
            source.mask,
            source.marks,
            source.flags,
            least if parameters.bad_pixels == "weigh" else SPREAD_WEIGHTS,
            (v.MASK_PLANES["EDGE"], NO_DATA),
            made.image,
            made.variance,
            made.mask,
            made.masked_fraction,
        )
    )


def _warp_noise(
    variance: Pixels, source: Source, task: Task, realization: int, made: Pixels
) -> None:
    """Fill one plane of noise, drawn for the whole detector so that all boxes see the same."""
    noise = noise_image(
        variance,
        noise_seed(*task.labels, realization),
        per_pixel=task.parameters.noise_variance == "pixel",
    )
    (y, x), (height, width) = source.corner, source.flags.shape
    part = noise[y : y + height, x : x + width].ravel()
    image = np.zeros_like(source.image)
    image[:-TAIL] = np.where(source.marks[:-TAIL] & EXCLUDED, np.float32(0.0), part)
    spare = Planes(
        made,
        np.empty(made.shape, np.float32),
        np.empty(made.shape, np.int32),
        np.empty((0, 0), np.float32),
    )
    _warp(source._replace(image=image), task, spare)


def source_limits(grid: PositionGrid, shape: tuple[int, int], taps: int) -> Limits | None:
    """Return the box of source pixels that kernels in the target box may touch."""
    cells = np.argwhere(grid.touched)
    box = np.array(grid.box).reshape(2, 2)
    first, last = (box[:, 0] - grid.origin) // grid.step, (box[:, 1] - 1 - grid.origin) // grid.step
    cells = cells[((cells >= first) & (cells <= last)).all(axis=1)]
    if not len(cells):
        return None
    limits = []
    for axis, size in ((1, shape[0]), (0, shape[1])):
        at = np.stack(
            [
                grid.nodes[axis, cells[:, 0] + j, cells[:, 1] + i]
                for j, i in ((0, 0), (0, 1), (1, 0), (1, 1))
            ]
        )
        low, high = np.clip([at.min() - taps - 2, at.max() + taps + 2], 0, size)
        limits += [int(np.floor(low)), int(np.ceil(high))]
    if limits[1] - limits[0] < taps or limits[3] - limits[2] < taps:
        return None
    return limits[0], limits[1], limits[2], limits[3]
