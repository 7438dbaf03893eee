"""Kernels of convolution: into a tile, out of a tile, and bits that spread over a box."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this package

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Mask = NDArray[np.int32]


@compiled
def load_tile(
    pixels: Pixels, missing: NDArray[np.bool_], top: int, left: int, tile: Floats
) -> None:
    """Copy the pixels around a place; 0 for missing ones and beyond the border."""
    height, width = pixels.shape
    first, last = max(0, -left), min(tile.shape[1], width - left)
    for i in range(tile.shape[0]):
        row, y = tile[i], top + i
        if y < 0 or y >= height or last <= first:
            row[:] = 0.0
            continue
        row[:first] = 0.0
        row[max(last, 0) :] = 0.0
        source = pixels[y, left + first : left + last]
        gaps = missing[y, left + first : left + last]
        target = row[first:last]
        for x in range(source.size):
            target[x] = 0.0 if gaps[x] else np.float64(source[x])


@compiled
def load_valid(missing: NDArray[np.bool_], top: int, left: int, tile: Floats) -> None:
    """Write 1 for pixels that are there, 0 for missing ones and beyond the border."""
    height, width = missing.shape
    for i in range(tile.shape[0]):
        y = top + i
        for j in range(tile.shape[1]):
            x = left + j
            inside = 0 <= y < height and 0 <= x < width
            tile[i, j] = 1.0 if inside and not missing[y, x] else 0.0


@compiled
def count_missing(missing: NDArray[np.bool_], top: int, left: int, shape: tuple[int, int]) -> int:
    """Return how many pixels of a window are missing; -1 if it reaches beyond the border."""
    if top < 0 or left < 0 or top + shape[0] > missing.shape[0]:
        return -1
    if left + shape[1] > missing.shape[1]:
        return -1
    count = 0
    for y in range(top, top + shape[0]):
        for gap in missing[y, left : left + shape[1]]:
            count += int(gap)
    return count


@compiled
def lost_weights(
    missing: NDArray[np.bool_], top: int, left: int, kernels: Floats, lost: Floats
) -> None:
    """Sum what each pixel of a tile loses of each kernel to the missing pixels around it.

    The window of the tile begins half a kernel before it and lies inside the image; ``lost`` is
    (kernel, y, x) of the tile.
    """
    lost[:] = 0.0
    high, wide = kernels.shape[1], kernels.shape[2]
    rows, columns = lost.shape[1], lost.shape[2]
    for y in range(rows + high - 1):
        gaps = missing[top + y, left : left + columns + wide - 1]
        for x in range(gaps.size):
            if not gaps[x]:
                continue
            # value (j, i) of the kernel takes this pixel to (y + j, x + i), less the two margins
            first_j, last_j = max(0, high - 1 - y), min(high, rows + high - 1 - y)
            first_i, last_i = max(0, wide - 1 - x), min(wide, columns + wide - 1 - x)
            for k in range(kernels.shape[0]):
                for j in range(first_j, last_j):
                    row = lost[k, y + j - high + 1]
                    for i in range(first_i, last_i):
                        row[x + i - wide + 1] += kernels[k, j, i]


@compiled
def sort_out(
    image: Pixels,
    variance: Pixels,
    mask: Mask,
    codes: tuple[int, int, int, int],
    missing: NDArray[np.bool_],
    near: Mask,
    far: Mask,
) -> tuple[bool, bool]:
    """Mark missing pixels, and part the bits of the others into those that go near and far.

    ``codes`` are NO_DATA and another bit, one of which each pixel gets in ``far``, missing or not,
    the bits that stay near and those that go far. Variances and masks of no rows don't count.
    Returns whether any bit goes near, and far; what is not needed is not written.
    """
    no_data, there = np.int32(codes[0]), np.int32(codes[1])
    stay, go = np.int32(codes[2]), np.int32(codes[3])
    any_near, any_far, any_missing = np.int32(0), np.int32(0), False
    for y in range(image.shape[0]):
        pixels, gaps = image[y], missing[y]
        for x in range(pixels.size):
            gaps[x] = not math.isfinite(pixels[x])
        if variance.shape[0] > 0:
            variances = variance[y]
            for x in range(pixels.size):
                gaps[x] |= not (0.0 <= variances[x] < np.inf)
        if mask.shape[0] > 0:
            bits = mask[y]
            for x in range(pixels.size):
                gaps[x] |= (bits[x] & no_data) != 0
                any_near |= bits[x] & stay
                any_far |= bits[x] & go
        for x in range(pixels.size):
            any_missing |= gaps[x]
    if any_near != 0:
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                near[y, x] = mask[y, x] & stay
    if any_missing or any_far != 0:
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                bit = mask[y, x] & go if any_far != 0 else np.int32(0)
                far[y, x] = bit | (no_data if missing[y, x] else there)
    return any_near != 0, any_missing or any_far != 0


@compiled
def take_far(
    wide: Mask, codes: tuple[int, int, int], spread: Mask, whole: NDArray[np.bool_]
) -> bool:
    """Add the bits that go far to those that are spread, and tell pixels that miss nothing.

    ``codes`` are NO_DATA, the bit of pixels that are there, and the bits that go far; ``wide`` are
    all of these around each pixel. Returns whether a pixel has only missing ones around it.
    """
    no_data, there, go = np.int32(codes[0]), np.int32(codes[1]), np.int32(codes[2])
    everywhere = there
    for y in range(wide.shape[0]):
        around, bits, kept = wide[y], spread[y], whole[y]
        for x in range(around.size):
            everywhere &= around[x]
            bits[x] |= around[x] & go
            kept[x] = (around[x] & no_data) == 0
    return bool(everywhere == 0)


@compiled
def add_component(
    values: Floats, along_y: Floats, along_x: Floats, matrix: Floats, total: Floats
) -> None:
    """Add a tile times the polynomial with a matrix (in y, in x) of coefficients."""
    orders = matrix.shape[0]
    row_coefficients = np.empty(orders)
    for y in range(total.shape[0]):
        for i in range(orders):
            row_coefficients[i] = 0.0
            for j in range(orders):
                row_coefficients[i] += along_y[y, j] * matrix[j, i]
        for x in range(total.shape[1]):
            factor = 0.0
            for i in range(orders):
                factor += row_coefficients[i] * along_x[x, i]
            total[y, x] += factor * values[y, x]


@compiled
def store_tile(
    image: Floats,
    variance: Floats,
    valid: Floats,
    whole: NDArray[np.bool_],
    min_fraction: float,
    max_lost: float,
    codes: tuple[int, int],
    out_image: Pixels,
    out_variance: Pixels,
    out_mask: Mask,
) -> None:
    """Divide by the valid fraction and write pixels, variances and the bits of what is lost.

    ``whole`` tells pixels whose kernel misses nothing: all, if ``valid`` has no rows. ``codes``
    are those of missing and of inexact pixels. Variances of no rows are not written.
    """
    no_data, inexact = codes
    if valid.shape[0] == 0:
        for y in range(out_image.shape[0]):
            values, pixels = image[y], out_image[y]
            for x in range(pixels.size):
                pixels[x] = np.float32(values[x])
            if variance.shape[0] > 0:
                spreads, variances = variance[y], out_variance[y]
                for x in range(pixels.size):
                    # written so that the loop has vectors, which `max` has not
                    variances[x] = np.float32(spreads[x] if spreads[x] > 0.0 else 0.0)
        return
    for y in range(out_image.shape[0]):
        for x in range(out_image.shape[1]):
            fraction = 1.0 if whole[y, x] else valid[y, x]
            lost = abs(1.0 - fraction)
            if fraction <= min_fraction or not math.isfinite(fraction):
                out_image[y, x] = np.nan
                out_mask[y, x] |= no_data
                if variance.shape[0] > 0:
                    out_variance[y, x] = np.inf
                continue
            if lost > max_lost:
                out_mask[y, x] |= inexact
            out_image[y, x] = np.float32(image[y, x] / fraction)
            if variance.shape[0] > 0:
                spread = max(variance[y, x], 0.0) / (fraction * fraction)
                out_variance[y, x] = np.float32(spread)


@compiled
def join_bits(one: Mask, other: Mask, out: Mask) -> None:
    """Write the bits of either."""
    for x in range(out.size):
        out[x] = one[x] | other[x]


@compiled
def spread_along_rows(bits: Mask, half: int, out: Mask) -> None:
    """Write to each pixel all bits that are set within a distance along its row.

    Bits of windows twice as long each time are collected, until one more makes the length.
    """
    height, width = bits.shape
    side = 2 * half + 1
    held, longer = np.empty(width + 2 * half, np.int32), np.empty(width + 2 * half, np.int32)
    for y in range(height):
        source, target = bits[y], out[y]
        any_set = np.int32(0)
        for x in range(width):
            any_set |= source[x]
        if any_set == 0:
            target[:] = 0
            continue
        held[:half], held[half + width :] = 0, 0
        held[half : half + width] = source
        length, size = 1, width + 2 * half
        while 2 * length <= side:
            size -= length
            join_bits(held[:size], held[length : length + size], longer[:size])
            held, longer = longer, held
            length *= 2
        join_bits(held[:width], held[side - length : side - length + width], target)


@compiled
def spread_along_columns(bits: Mask, half: int, out: Mask) -> None:
    """Write to each pixel all bits that are set within a distance along its column."""
    height, width = bits.shape
    side = 2 * half + 1
    # rows count from `half` above the image; a block of them is collected from its last row up
    below = np.zeros((side, width), np.int32)
    held = np.empty(width, np.int32)
    for start in range(0, height, side):
        held[:] = 0
        for i in range(side - 1, -1, -1):
            y = start + i - half
            if 0 <= y < height:
                row = bits[y]
                for x in range(width):
                    held[x] |= row[x]
            below[i] = held
        held[:] = 0
        for i in range(min(side, height - start)):
            y = start + side + i - 1 - half
            if i > 0 and y < height:
                row = bits[y]
                for x in range(width):
                    held[x] |= row[x]
            target, far = out[start + i], below[i]
            for x in range(width):
                target[x] = far[x] | held[x]


@compiled
def spread_bits(bits: Mask, half_y: int, half_x: int, out: Mask) -> None:
    """Write to each pixel all bits that are set within a box around it."""
    along = np.empty_like(bits)
    spread_along_rows(bits, half_x, along)
    spread_along_columns(along, half_y, out)
