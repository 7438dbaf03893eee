"""Kernels that fill small gaps of an image, and let saturated regions grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room


@compiled
def reach(gaps: NDArray[np.bool_], y: int, x: int, step_y: int, step_x: int, longest: int) -> int:
    """Return the distance to the first pixel in a direction that is no gap; 0 without one."""
    height, width = gaps.shape
    for distance in range(1, longest + 1):
        row, column = y + distance * step_y, x + distance * step_x
        if row < 0 or row >= height or column < 0 or column >= width:
            return 0
        if not gaps[row, column]:
            return distance
    return 0


@compiled
def fill_gaps(
    gaps: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    longest: int,
    image: NDArray[Any],
    variance: NDArray[Any],
    filled: NDArray[np.bool_],
) -> None:
    """Fill what is wanted of gaps, along the shorter direction, with the line between their ends.

    A pixel of a gap that is as long both ways gets the mean of both lines. Gaps longer than
    ``longest`` both ways, or that touch the border, stay. An empty ``variance`` is not kept.
    """
    height, width = gaps.shape
    for y in range(height):
        for x in range(width):
            if not wanted[y, x]:
                continue
            left, right = reach(gaps, y, x, 0, -1, longest), reach(gaps, y, x, 0, 1, longest)
            below, above = reach(gaps, y, x, -1, 0, longest), reach(gaps, y, x, 1, 0, longest)
            across = left + right if left > 0 and right > 0 else longest + 2
            along = below + above if below > 0 and above > 0 else longest + 2
            shorter = min(across, along)
            if shorter > longest + 1:
                continue
            value, spread, number = 0.0, 0.0, 0
            if across == shorter:
                weight = right / across
                value += weight * image[y, x - left] + (1.0 - weight) * image[y, x + right]
                if variance.size:
                    spread += weight * weight * variance[y, x - left]
                    spread += (1.0 - weight) * (1.0 - weight) * variance[y, x + right]
                number += 1
            if along == shorter:
                weight = above / along
                value += weight * image[y - below, x] + (1.0 - weight) * image[y + above, x]
                if variance.size:
                    spread += weight * weight * variance[y - below, x]
                    spread += (1.0 - weight) * (1.0 - weight) * variance[y + above, x]
                number += 1
            image[y, x] = value / number
            if variance.size:
                variance[y, x] = spread / (number * number)
            filled[y, x] = True


@compiled
def find_plane(mask: NDArray[np.int32], bit: int, found: NDArray[np.bool_]) -> int:
    """Write where a plane is set, and return in how many pixels."""
    number = 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            there = (mask[y, x] & bit) != 0
            found[y, x] = there
            number += int(there)
    return number


@compiled
def grow_plane(
    found: NDArray[np.bool_],
    bit: int,
    radius: int,
    bleed: int,
    bleed_length: int,
    mask: NDArray[np.int32],
) -> None:
    """Set a plane within a radius of where it was found, and beyond the ends of long columns."""
    height, width = found.shape
    plane = np.int32(bit)
    for y in range(height):
        for x in range(width):
            if not found[y, x]:
                continue
            inside = (
                0 < y < height - 1
                and 0 < x < width - 1
                and found[y - 1, x]
                and found[y + 1, x]
                and found[y, x - 1]
                and found[y, x + 1]
            )
            if radius > 0 and not inside:
                for row in range(max(y - radius, 0), min(y + radius + 1, height)):
                    for column in range(max(x - radius, 0), min(x + radius + 1, width)):
                        if (row - y) ** 2 + (column - x) ** 2 <= radius * radius:
                            mask[row, column] |= plane
            if bleed > 0 and (y == 0 or not found[y - 1, x]):
                stop = y
                while stop < height and found[stop, x]:
                    stop += 1
                if stop - y >= bleed_length:
                    for row in range(max(y - bleed, 0), min(stop + bleed, height)):
                        mask[row, x] |= plane


@compiled
def bridge_rows(good: NDArray[np.bool_], level: float, image: NDArray[Any]) -> None:
    """Replace what is not good by the line between its good neighbours in the row, in place.

    Rows without a good pixel get the level.
    """
    height, width = good.shape
    for y in range(height):
        last = -1
        for x in range(width):
            if not good[y, x]:
                continue
            if last < x - 1:
                if last < 0:
                    image[y, :x] = image[y, x]
                else:
                    slope = (np.float64(image[y, x]) - image[y, last]) / (x - last)
                    for between in range(last + 1, x):
                        image[y, between] = image[y, last] + slope * (between - last)
            last = x
        if last < 0:
            image[y, :] = level
        else:
            image[y, last + 1 :] = image[y, last]
