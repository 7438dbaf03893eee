"""Kernels of binning: rows of the image go to blocks in cache, one a bin; statistics are of blocks.

A block holds the pixels of a bin, NaN where they are not valid and behind them. Sums run in lanes,
each strictly in order, so that they use vectors and have the same bits in every compilation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.bin_quartiles import MOST_CELLS, quartiles_of_bin
from skyloom.algorithms.clipping import Moments, all_equal, mean_and_variance, next_interval
from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this package

MEANCLIP, MEAN, MEDIAN = 0, 1, 2
COUNT, USED, LEVEL, PIXEL_VARIANCE, VARIANCE = 0, 1, 2, 3, 4
LANES = 64
QUADRUPLE = 4 * LANES  # blocks are filled up to a multiple of this
GROUP = 1 << 20  # values in the blocks of bins that are loaded together
NAN = math.nan


@compiled
def load_row(
    pixels: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    out: NDArray[Any],
) -> int:
    """Copy pixels, NaN where they are not finite or masked; return the number of others.

    A pixel is masked if ``(mask ^ legend[0]) & legend[1]`` is not 0; an empty mask masks nothing.
    ``constants`` are NaN and the largest finite number in the dtype of the pixels.
    """
    not_a_number, largest = constants[0], constants[1]
    flip, bits = legend[0], legend[1]
    n = 0
    if mask.size == 0:
        for i in range(pixels.size):
            value = pixels[i]
            good = abs(value) <= largest
            out[i] = value if good else not_a_number
            n += int(good)
    else:
        for i in range(pixels.size):
            value = pixels[i] if ((mask[i] ^ flip) & bits) == 0 else not_a_number
            good = abs(value) <= largest
            out[i] = value if good else not_a_number
            n += int(good)
    return n


@compiled
def block_sums(
    block: NDArray[Any], center: float, half_width: float, lanes: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return number, sum and sum of squares of ``value - center`` inside the interval.

    The block is (n, 4, LANES); its lanes are added to those of ``lanes`` (2, LANES).
    """
    lanes[:] = 0.0
    n = 0
    for s in range(block.shape[0]):
        for k in range(LANES):
            d_a, d_b = np.float64(block[s, 0, k]) - center, np.float64(block[s, 1, k]) - center
            d_c, d_d = np.float64(block[s, 2, k]) - center, np.float64(block[s, 3, k]) - center
            in_a, in_b = abs(d_a) <= half_width, abs(d_b) <= half_width
            in_c, in_d = abs(d_c) <= half_width, abs(d_d) <= half_width
            # one choice a value, and no arithmetic inside it, is what becomes vectors
            a = d_a if in_a else 0.0
            b = d_b if in_b else 0.0
            c = d_c if in_c else 0.0
            d = d_d if in_d else 0.0
            n += int(in_a) + int(in_b) + int(in_c) + int(in_d)
            lanes[0, k] += (a + b) + (c + d)
            lanes[1, k] += (a * a + b * b) + (c * c + d * d)
    width = LANES // 2
    while width > 0:
        for k in range(width):
            lanes[0, k] += lanes[0, k + width]
            lanes[1, k] += lanes[1, k + width]
        width //= 2
    return np.float64(n), lanes[0, 0], lanes[1, 0]


@compiled
def input_variance(
    block: NDArray[Any],
    variance: NDArray[np.float32],
    box: tuple[int, int, int, int],
    center: float,
    half_width: float,
) -> float:
    """Return the sum of the variances of the pixels of a bin that an interval keeps."""
    total = 0.0
    i = 0
    for y in range(box[0], box[1]):
        for x in range(box[2], box[3]):
            if abs(np.float64(block[i]) - center) <= half_width:
                found = np.float64(variance[y, x])
                total += found if found >= 0.0 else NAN  # the bin is flagged
            i += 1
    return total


@compiled
def first_value(block: NDArray[Any]) -> float:
    """Return the first value that is not NaN."""
    for value in block:
        if value == value:
            return np.float64(value)
    return NAN


@compiled
def load_group(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    top: int,
    bottom: int,
    edges: NDArray[np.int64],
    blocks: NDArray[Any],
    count: NDArray[np.int64],
) -> None:
    """Load the bins between edges along x, row by row: memory is read in its order."""
    not_a_number, largest = constants[0], constants[1]
    flip, bits = legend[0], legend[1]
    bins = edges.size - 1
    count[:] = 0
    for y in range(top, bottom):
        pixels, masks = image[y], mask[y if mask.size != 0 else 0]
        for j in range(bins):
            # unsigned, for an index that could be negative keeps the loop from becoming vectors
            left, right = np.uint64(edges[j]), np.uint64(edges[j + 1])
            shift = np.uint64(y - top) * (right - left) - left
            out = blocks[j]
            n = np.int32(0)
            if mask.size == 0:
                for i in range(left, right):
                    value = pixels[i]
                    good = abs(value) <= largest
                    out[i + shift] = value if good else not_a_number
                    n = np.int32(n + np.int32(good))
            else:
                for i in range(left, right):
                    value = pixels[i] if ((masks[i] ^ flip) & bits) == 0 else not_a_number
                    good = abs(value) <= largest
                    out[i + shift] = value if good else not_a_number
                    n = np.int32(n + np.int32(good))
            count[j] += n
    for j in range(bins):
        blocks[j, (bottom - top) * (edges[j + 1] - edges[j]) :] = constants[0]


@compiled
def clip_block(
    block: NDArray[Any],
    n: int,
    clip: float,
    iterations: int,
    guess: tuple[float, float],
    cells: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    cell_count: NDArray[np.int32],
    kept: NDArray[Any],
    kept_cells: NDArray[np.uint16],
    group: NDArray[Any],
    lanes: NDArray[np.float64],
) -> Moments:
    """Return the clipped statistics of the n values of a block that are not NaN.

    ``guess`` is where median and interquartile range may lie; the arrays behind it are room for
    `quartiles_of_bin` and `block_sums`.
    """
    if n == 0:
        return 0, 0, NAN, NAN, NAN, NAN, NAN, NAN
    quadruples = block.reshape((block.size // QUADRUPLE, 4, LANES))
    lower, median, upper = quartiles_of_bin(
        block, n, guess, cells, flags, cell_count, kept, kept_cells, group
    )
    used, mean, variance, center, half_width = 0.0, NAN, NAN, NAN, NAN
    for index in range(iterations):
        center, half_width = next_interval(index, n, clip, mean, variance, median, upper - lower)
        used, first, second = block_sums(quadruples, center, half_width, lanes)
        mean, variance = mean_and_variance(used, first, second, center)
        if all_equal(mean, variance, center):
            break
    return n, int(used), mean, variance, median, upper - lower, center, half_width


@compiled
def bin_statistics(
    image: NDArray[Any],
    mask: NDArray[Any],
    legend: NDArray[Any],
    constants: NDArray[Any],
    variance: NDArray[np.float32],
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    statistic: int,
    clip: float,
    iterations: int,
    found: NDArray[np.float64],
) -> None:
    """Write count, count used, level, pixel variance and variance of the level of each bin.

    An empty mask has one row of no pixel.
    """
    area = np.max(np.diff(edges_y)) * np.max(np.diff(edges_x))
    size = (area + QUADRUPLE - 1) // QUADRUPLE * QUADRUPLE
    columns = edges_x.size - 1
    together = min(max(GROUP // size, 1), columns)
    blocks = np.empty((together, size), image.dtype)
    count = np.empty(together, np.int64)
    lanes = np.empty((2, LANES))
    cells, kept_cells = np.empty(size + 8, np.uint16), np.empty(size + 8, np.uint16)
    flags, cell_count = np.empty(size + 8, np.uint8), np.empty(MOST_CELLS + 2, np.int32)
    kept, group = np.empty(size + 8, image.dtype), np.empty(size + 8, image.dtype)
    guess = (NAN, NAN)
    for i in range(edges_y.size - 1):
        top, bottom = edges_y[i], edges_y[i + 1]
        for start in range(0, columns, together):
            stop = min(start + together, columns)
            edges = edges_x[start : stop + 1]
            bins = stop - start
            load_group(
                image, mask, legend, constants, top, bottom, edges, blocks[:bins], count[:bins]
            )
            for j in range(bins):
                n = count[j]
                block = blocks[j]
                used, level, spread, center, half_width = 0.0, NAN, NAN, NAN, NAN
                if n > 0 and statistic != MEAN:
                    passes = iterations if statistic == MEANCLIP else 0
                    moments = clip_block(
                        block, n, clip, passes, guess,
                        cells, flags, cell_count, kept, kept_cells, group, lanes,
                    )  # fmt: skip
                    used, level, spread = np.float64(moments[1]), moments[2], moments[3]
                    center, half_width = moments[6], moments[7]
                    guess = (moments[4], moments[5])
                if n > 0 and statistic != MEANCLIP:
                    center, half_width = first_value(block), math.inf
                    quadruples = block.reshape((size // QUADRUPLE, 4, LANES))
                    used, first, second = block_sums(quadruples, center, half_width, lanes)
                    level, spread = mean_and_variance(used, first, second, center)
                    level = guess[0] if statistic == MEDIAN else level
                of_level = spread / used if used > 0 else NAN
                if variance.size != 0 and used > 0:
                    box = (top, bottom, edges[j], edges[j + 1])
                    total = input_variance(block, variance, box, center, half_width)
                    of_level = total / (used * used)
                if statistic == MEDIAN:
                    of_level *= 0.5 * math.pi
                found[COUNT, i, start + j], found[USED, i, start + j] = n, used
                found[LEVEL, i, start + j], found[PIXEL_VARIANCE, i, start + j] = level, spread
                found[VARIANCE, i, start + j] = of_level
