"""The chain of detrending over a whole detector: all amplifiers in step, a row of each at a time.

Amplifiers that lie side by side are taken together, so memory is read and written in whole rows
of the detector, and crosstalk finds the pixels that were read at the same time at hand.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.detrend.row_kernels import (
    CROSSTALK,
    SAT,
    Channel,
    Floats,
    Frames,
    Pixels,
    Planes,
    finish_row,
    load_row,
    polynomial_row,
    respond_row,
    row_of,
    subtract_row,
    turn_row,
)

__all__: list[str] = []  # kernels for the modules of this room

RAW_Y: Final = 0
RAW_X: Final = 1
HEIGHT: Final = 2
WIDTH: Final = 3
TRIMMED_Y: Final = 4
TRIMMED_X: Final = 5
FLIP_Y: Final = 6
FLIP_X: Final = 7
READ_Y: Final = 8
READ_X: Final = 9
"""Columns of the table of boxes, (amp, column); flips of the section and of its read-out."""


@compiled
def add_shares(shares: Floats, read: Floats, signal: Floats) -> None:
    """Add to a row its share of each of the rows that were read, four at a time."""
    count = shares.size
    whole = count // 4 * 4
    for source in range(0, whole, 4):
        a, b, c, d = shares[source], shares[source + 1], shares[source + 2], shares[source + 3]
        if a == 0.0 and b == 0.0 and c == 0.0 and d == 0.0:
            continue
        first, second, third, fourth = (
            read[source],
            read[source + 1],
            read[source + 2],
            read[source + 3],
        )
        for x in range(signal.size):
            signal[x] += (a * first[x] + b * second[x]) + (c * third[x] + d * fourth[x])
    for source in range(whole, count):
        only, share = read[source], shares[source]
        for x in range(signal.size):
            signal[x] += share * only[x]


@compiled
def cross_talk(
    matrix: Floats,
    talks: NDArray[np.bool_],
    threshold: float,
    signals: Floats,
    planes: Planes,
    read: Floats,
) -> None:
    """Add to every amplifier its share, ``matrix`` (amp, source), of pixels of the same time.

    ``signals`` and ``planes`` are (amp, x), ``read`` is room for as many signals. Pixels get
    CROSSTALK where an amplifier that ``talks`` to them is saturated or above the threshold.
    """
    count, width = signals.shape
    for source in range(count):
        for x in range(width):
            value = signals[source, x]
            # what was never read talks to nobody
            read[source, x] = value if value == value else 0.0
    for target in range(count):
        add_shares(matrix[target], read, signals[target])
    for source in range(count):
        loud = 0
        for x in range(width):
            loud += int((read[source, x] > threshold) | ((planes[source, x] & SAT) != 0))
        if loud == 0:
            continue
        for target in range(count):
            if talks[target, source]:
                for x in range(width):
                    heard = (read[source, x] > threshold) | ((planes[source, x] & SAT) != 0)
                    planes[target, x] |= CROSSTALK if heard else np.int32(0)


@compiled
def channel_of(numbers: Floats) -> Channel:
    """Return the numbers of an amplifier by their names."""
    return Channel(
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        numbers[5],
        numbers[6],
        numbers[7],
    )


@compiled
def detrend_detector(
    raw: NDArray[Any],
    boxes: NDArray[np.int64],
    row_levels: Floats,
    column_levels: Floats,
    channels: Floats,
    matrix: Floats,
    talks: NDArray[np.bool_],
    threshold: float,
    knots: Floats,
    pieces: Floats,
    frames: Frames,
    masks: tuple[Planes, ...],
    bits: int,
    image: Pixels,
    variance: Pixels,
    mask: Planes,
) -> None:
    """Take all amplifiers from their raw sections to their boxes of the trimmed detector.

    ``boxes`` (amp, column), see the module; ``row_levels`` (amp, y) and ``column_levels`` (amp, x),
    adu, as the sections are stored; ``channels`` (amp, `Channel`); ``matrix`` and ``talks``
    (amp, amp) of `cross_talk`; ``knots`` (amp, knot) and ``pieces`` (amp, piece, power) of
    `polynomial_row`; ``bits`` the planes that are taken over from ``masks``.
    """
    count = boxes.shape[0]
    widest = boxes[:, WIDTH].max()
    signals, read = np.empty((count, widest), np.float64), np.empty((count, widest), np.float64)
    planes = np.empty((count, widest), np.int32)
    turned, turned_planes = np.empty(widest, np.float64), np.empty(widest, np.int32)
    nothing = np.zeros(widest, np.float32)
    for row in range(boxes[:, HEIGHT].max()):
        for amp in range(count):
            box = boxes[amp]
            if row < box[HEIGHT]:
                width, x = box[WIDTH], box[RAW_X]
                stored = box[HEIGHT] - 1 - row if box[READ_Y] else row
                against = box[READ_X] != 0
                load_row(
                    raw[box[RAW_Y] + stored, x : x + width],
                    row_levels[amp, stored],
                    column_levels[amp, : width if column_levels.shape[1] else 0],
                    channel_of(channels[amp]),
                    turned[:width] if against else signals[amp, :width],
                    turned_planes[:width] if against else planes[amp, :width],
                )
                if against:
                    turn_row(
                        turned[:width],
                        turned_planes[:width],
                        signals[amp, :width],
                        planes[amp, :width],
                    )
        if matrix.size:
            cross_talk(matrix, talks, threshold, signals, planes, read)
        for amp in range(count):
            box = boxes[amp]
            if row >= box[HEIGHT]:
                continue
            width, start = box[WIDTH], box[TRIMMED_X]
            stop = start + width
            y = box[TRIMMED_Y] + (box[HEIGHT] - 1 - row if box[FLIP_Y] != box[READ_Y] else row)
            signal, plane = signals[amp, :width], planes[amp, :width]
            if box[FLIP_X] != box[READ_X]:
                turn_row(signal, plane, turned[:width], turned_planes[:width])
                signal, plane = turned[:width], turned_planes[:width]
            bias = row_of(frames.bias, y, start, stop)
            if pieces.size:
                subtract_row(bias, signal)
                polynomial_row(knots[amp], pieces[amp], signal)
                bias = nothing[:width]
            channel = channel_of(channels[amp])
            finish_row(
                signal, plane, channel, bias, frames, masks, bits, y, start, image, variance, mask
            )


@compiled
def respond_detector(
    boxes: NDArray[np.int64],
    channels: Floats,
    frames: Frames,
    image: Pixels,
    variance: Pixels,
    mask: Planes,
) -> None:
    """Subtract the dark and divide by the flat in place, for images that had to wait for it."""
    for row in range(boxes[:, HEIGHT].max()):
        for amp in range(boxes.shape[0]):
            box = boxes[amp]
            if row >= box[HEIGHT]:
                continue
            start, y = box[TRIMMED_X], box[TRIMMED_Y] + row
            stop = start + box[WIDTH]
            respond_row(
                channel_of(channels[amp]).dark_scale,
                frames,
                y,
                start,
                image[y, start:stop],
                variance[y, start:stop],
                mask[y, start:stop],
            )
