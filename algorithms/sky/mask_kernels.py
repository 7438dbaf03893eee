"""Kernels that find objects: Gaussian smoothing, detection and growth of a detector's pixels.

Everything is exact: the Gaussian is separable and taken with all its taps, the disk that regions
grow by is that of Euclidean distance. An image is treated in strips of columns, so that the rows a
smoothed row needs stay in the caches. Loops index arrays by the loop variable alone, which lets
the compiler turn them into vectors, and no sum is reordered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

STRIP = 2048  # columns treated at a time
STRETCH = 64  # pixels of a row that are likely to hold no object
ZERO = np.float32(0.0)

Plane = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@compiled
def usable_pixels(image: Plane, variance: Plane, mask: NDArray[Any], bits: int) -> Bytes:
    """Return 1 where image and variance are finite, the variance >= 0 and no bit is set.

    An empty variance or mask asks for nothing.
    """
    height, width = image.shape
    usable = np.empty((height, width), np.uint8)
    largest = np.float32(3.4028234663852886e38)
    chosen = np.int32(bits)
    for y in range(height):
        row, values = usable[y], image[y]
        for i in range(width):
            row[i] = np.uint8(abs(values[i]) <= largest)
        if variance.size:
            values = variance[y]
            for i in range(width):
                row[i] &= np.uint8((values[i] >= ZERO) & (values[i] <= largest))
        if mask.size:
            flags = mask[y]
            for i in range(width):
                row[i] &= np.uint8((flags[i] & chosen) == 0)
    return usable


@compiled
def put_difference(values: Plane, level: Plane, usable: Bytes, out: Plane) -> None:
    """Write value - level where usable, else 0; an empty level is 0."""
    if level.size:
        for i in range(out.size):
            difference = values[i] - level[i]
            out[i] = difference if usable[i] else ZERO
    else:
        for i in range(out.size):
            out[i] = values[i] if usable[i] else ZERO


@compiled
def put_scaled(values: Plane, weight: float, out: Plane) -> None:
    """Write weight * value."""
    for i in range(out.size):
        out[i] = weight * values[i]


@compiled
def add_pair(a: Plane, b: Plane, weight: float, out: Plane) -> None:
    """Add weight * (a + b)."""
    for i in range(out.size):
        out[i] += weight * (a[i] + b[i])


@compiled
def add_two_pairs(
    a: Plane, b: Plane, weight: float, c: Plane, d: Plane, other: float, out: Plane
) -> None:
    """Add weight * (a + b) + other * (c + d)."""
    for i in range(out.size):
        out[i] += weight * (a[i] + b[i]) + other * (c[i] + d[i])


@compiled
def detect_row(values: Plane, limits: Plane, ratio: Plane, out: Bytes) -> None:
    """Write 1 where a value is positive and its square exceeds the limit, 2 beyond ratio limits."""
    peak = ratio[0]
    for i in range(out.size):
        value = values[i]
        square = value * value if value > ZERO else ZERO
        out[i] = np.uint8(square > limits[i]) + np.uint8(square > peak * limits[i])


@compiled
def smooth_along(line: Plane, taps: Plane, out: Plane) -> None:
    """Convolve a line that reaches the taps' radius further than the result on both sides."""
    radius, size = taps.size - 1, out.size
    put_scaled(line[radius : radius + size], taps[0], out)
    t = 1
    while t + 1 <= radius:
        add_two_pairs(
            line[radius - t : radius - t + size],
            line[radius + t : radius + t + size],
            taps[t],
            line[radius - t - 1 : radius - t - 1 + size],
            line[radius + t + 1 : radius + t + 1 + size],
            taps[t + 1],
            out,
        )
        t += 2
    if t == radius:
        add_pair(line[:size], line[2 * radius : 2 * radius + size], taps[t], out)


@compiled
def smooth_across(ring: Plane, y: int, taps: Plane, out: Plane) -> None:
    """Convolve the rows around row y, of which row r is kept in ``ring[r % len(ring)]``."""
    radius, kept, size = taps.size - 1, ring.shape[0], out.size
    put_scaled(ring[y % kept][:size], taps[0], out)
    t = 1
    while t + 1 <= radius:
        add_two_pairs(
            ring[(y - t + kept) % kept][:size],
            ring[(y + t) % kept][:size],
            taps[t],
            ring[(y - t - 1 + kept) % kept][:size],
            ring[(y + t + 1) % kept][:size],
            taps[t + 1],
            out,
        )
        t += 2
    if t == radius:
        add_pair(ring[(y - t + kept) % kept][:size], ring[(y + t) % kept][:size], taps[t], out)


@compiled
def smooth(
    values: Plane,
    level: Plane,
    usable: Bytes,
    taps: Plane,
    limits: Plane,
    ratio: Plane,
    smoothed: Plane,
    detected: Bytes,
) -> None:
    """Smooth value - level over usable pixels; write the result, or what exceeds the limits.

    ``taps`` hold the symmetric kernel from its centre outwards. Pixels that are not usable and
    those outside count as 0. With ``limits`` (of the square of the result) only ``detected`` is
    written: 1 above them, 2 above ``ratio[0] >= 1`` times them; without only ``smoothed``.
    """
    height, width = values.shape
    radius = taps.size - 1
    ring = np.empty((2 * radius + 1, min(STRIP, width)), np.float32)
    line = np.empty(min(STRIP, width) + 2 * radius, np.float32)
    result = np.empty(min(STRIP, width), np.float32)
    for left in range(0, width, STRIP):
        size = min(STRIP, width - left)
        start, stop = max(left - radius, 0), min(left + size + radius, width)
        inner = line[start - left + radius : stop - left + radius]
        line[:] = ZERO
        ring[:] = ZERO
        for y in range(height + radius):
            row = ring[y % (2 * radius + 1)][:size]
            if y < height:
                part = level[y][start:stop] if level.size else level[0]
                put_difference(values[y][start:stop], part, usable[y][start:stop], inner)
                smooth_along(line[: size + 2 * radius], taps, row)
            else:
                row[:] = ZERO
            done = y - radius
            if done >= 0:
                smooth_across(ring, done, taps, result[:size])
                if limits.size:
                    detect_row(
                        result[:size],
                        limits[done][left : left + size],
                        ratio,
                        detected[done][left : left + size],
                    )
                else:
                    smoothed[done, left : left + size] = result[:size]


@compiled
def distance_down(above: Bytes, chosen: Bytes, far: int, out: Bytes) -> None:
    """Write the rows to the nearest chosen pixel above or here, at most far."""
    one, most = np.uint8(1), np.uint8(far)
    for i in range(out.size):
        further = above[i] + one
        further = further if further < most else most
        out[i] = np.uint8(0) if chosen[i] else further


@compiled
def distance_up(below: Bytes, out: Bytes) -> None:
    """Lower the rows to the nearest chosen pixel to those from below."""
    one = np.uint8(1)
    for i in range(out.size):
        further = below[i] + one
        out[i] = further if further < out[i] else out[i]


@compiled
def mark_within(distance: Bytes, reach: int, out: Bytes) -> None:
    """Mark where a distance is at most the reach."""
    most = np.uint8(reach)
    for i in range(out.size):
        out[i] |= np.uint8(distance[i] <= most)


@compiled
def grow(chosen: Bytes, reaches: NDArray[np.int64]) -> Bytes:
    """Return the pixels within a disk of chosen ones.

    ``reaches[d]`` is the half height of the disk at d columns from its centre; ``reaches[0]``, its
    radius, is below 254.
    """
    height, width = chosen.shape
    radius = reaches.size - 1
    far = reaches[0] + 1
    distance = np.empty((height, width), np.uint8)
    first = np.full(width, far, np.uint8)
    for y in range(height):
        distance_down(distance[y - 1] if y else first, chosen[y], far, distance[y])
    for y in range(height - 2, -1, -1):
        distance_up(distance[y + 1], distance[y])
    grown = np.zeros((height, width), np.uint8)
    for y in range(height):
        row, out = distance[y], grown[y]
        mark_within(row, reaches[0], out)
        for d in range(1, min(radius, width - 1) + 1):
            mark_within(row[d:], reaches[d], out[: width - d])
            mark_within(row[: width - d], reaches[d], out[d:])
    return grown


@compiled
def count_runs(detected: Bytes) -> int:
    """Return the number of runs of pixels that are not 0 in the rows of an image."""
    runs = 0
    for y in range(detected.shape[0]):
        here, before = detected[y, 1:], detected[y, : detected.shape[1] - 1]
        runs += int(detected[y, 0] != 0)
        starts = 0
        for i in range(here.size):
            starts += int((here[i] != 0) & (before[i] == 0))
        runs += starts
    return runs


@compiled
def find_runs(
    row: Bytes, at: int, first: NDArray[np.int64], behind: NDArray[np.int64], peaks: Bytes
) -> int:
    """Write where the runs of a row begin and end, and whether a pixel of them is 2.

    They are written from index ``at`` on; the index behind the last is returned.
    """
    inside = False
    for start in range(0, row.size, STRETCH):
        stretch = row[start : min(start + STRETCH, row.size)]
        total = 0
        for i in range(stretch.size):
            total += int(stretch[i] != 0)
        if total == 0 and not inside:  # as nearly everywhere
            continue
        for i in range(stretch.size):
            value = stretch[i]
            if value != 0:
                if not inside:
                    first[at], peaks[at] = start + i, 0
                    inside = True
                if value > 1:
                    peaks[at] = 1
            elif inside:
                behind[at] = start + i
                inside = False
                at += 1
    if inside:
        behind[at] = row.size
        at += 1
    return at


@compiled
def root_of(parents: NDArray[np.int64], run: int) -> int:
    """Return the run that stands for the region of a run, and shorten the way to it."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@compiled
def regions_with_peak(detected: Bytes) -> Bytes:
    """Return 1 in the regions of pixels that are not 0 which hold a pixel of 2, else 0.

    Pixels that touch at a corner are of one region.
    """
    height, width = detected.shape
    chosen = np.zeros((height, width), np.uint8)
    if width == 0:
        return chosen
    most = count_runs(detected)
    first, behind = np.empty(most, np.int64), np.empty(most, np.int64)
    peaks, parents = np.empty(most + 1, np.uint8), np.arange(most)
    rows = np.empty(height + 1, np.int64)  # the first run of each row
    rows[0] = 0
    for y in range(height):
        rows[y + 1] = find_runs(detected[y], rows[y], first, behind, peaks)
        above, run = rows[y - 1] if y else 0, rows[y]
        while above < rows[y] and run < rows[y + 1]:
            if first[above] <= behind[run] and first[run] <= behind[above]:
                a, b = root_of(parents, above), root_of(parents, run)
                low, high = min(a, b), max(a, b)
                parents[high] = low
                peaks[low] |= peaks[high]
            if behind[above] < behind[run]:
                above += 1
            else:
                run += 1
    for y in range(height):
        for run in range(rows[y], rows[y + 1]):
            if peaks[root_of(parents, run)]:
                chosen[y, first[run] : behind[run]] = 1
    return chosen
