"""Kernels of the chain from raw pixels to a frame fit for science, a row of an amplifier at a time.

A row is carried through the steps in a float64 buffer that stays in the first cache. NaN is what
no number is known for; it goes through every step, and ends as a mask plane. Loops are simple
enough to become vectors, and strict, so that they give the same bits on every machine.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_dividing
from skyloom.algorithms.vocabulary import MASK_PLANES

__all__: list[str] = []  # kernels for the modules of this room

STRETCH: Final = 64  # pixels of a row that are likely to lie in one piece

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Planes = NDArray[np.int32]

BAD: Final = np.int32(MASK_PLANES["BAD"])
SAT: Final = np.int32(MASK_PLANES["SAT"])
SUSPECT: Final = np.int32(MASK_PLANES["SUSPECT"])
NO_DATA: Final = np.int32(MASK_PLANES["NO_DATA"])
CROSSTALK: Final = np.int32(MASK_PLANES["CROSSTALK"])


class Channel(NamedTuple):
    """Numbers of one amplifier that its pixels need.

    Raw pixels up to ``lowest`` were never read; those from ``suspect`` and from ``saturation`` on
    are what the names say (adu). The signal is multiplied by ``scale``; its photon variance is the
    signal times ``photon``, to which ``read_variance`` is added, in the unit of the result. Darks
    are multiplied by ``dark_scale``. ``planes`` is what every pixel gets.
    """

    lowest: float
    suspect: float
    saturation: float
    scale: float
    photon: float
    read_variance: float
    dark_scale: float
    planes: float


class Frames(NamedTuple):
    """Bias, dark and flat (y, x) with their variances; a frame of one row holds for all rows.

    Pixels whose flat is not above ``flat_minimum`` have no number. ``flat_varies`` tells whether
    the flat has a variance.
    """

    bias: Pixels
    bias_variance: Pixels
    dark: Pixels
    dark_variance: Pixels
    flat: Pixels
    flat_variance: Pixels
    flat_minimum: float
    flat_varies: bool


def no_frames(width: int) -> Frames:
    """Return frames that change nothing."""
    zero, one = np.zeros((1, width), np.float32), np.ones((1, width), np.float32)
    return Frames(zero, zero, zero, zero, one, zero, -np.inf, False)


@compiled
def row_of(frame: NDArray[Any], y: int, start: int, stop: int) -> NDArray[Any]:
    """Return a piece of a row of a frame, or of its only one."""
    return frame[min(y, frame.shape[0] - 1), start:stop]


@compiled
def load_row(
    pixels: NDArray[Any],
    level: float,
    column_level: Floats,
    channel: Channel,
    signal: Floats,
    planes: Planes,
) -> None:
    """Write a row of raw pixels less its levels, NaN where none was read, and its mask planes."""
    start = np.int32(channel.planes)
    for x in range(signal.size):
        value = np.float64(pixels[x])
        read = (value > channel.lowest) & (value < np.inf)
        signal[x] = value - level if read else math.nan
        plane = start if read else np.int32(start | NO_DATA)
        plane |= SUSPECT if read & (value >= channel.suspect) else np.int32(0)
        plane |= SAT if read & (value >= channel.saturation) else np.int32(0)
        planes[x] = plane
    if column_level.size:
        for x in range(signal.size):
            signal[x] -= column_level[x]


@compiled
def turn_row(signal: Floats, planes: Planes, turned_signal: Floats, turned_planes: Planes) -> None:
    """Write a row in reverse."""
    # unsigned, for an index that could be negative keeps the loop from becoming vectors
    last = np.uint64(signal.size - 1)
    for x in range(signal.size):
        turned_signal[x] = signal[last - np.uint64(x)]
    for x in range(signal.size):
        turned_planes[x] = planes[last - np.uint64(x)]


@compiled
def polynomial_piece(start: float, coefficients: Floats, signal: Floats) -> None:
    """Replace a signal by a polynomial of its distance from a start, lowest power first."""
    degree = coefficients.size - 1
    if degree == 3:
        a, b, c, d = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
        for x in range(signal.size):
            distance = signal[x] - start
            signal[x] = ((d * distance + c) * distance + b) * distance + a
    else:
        for x in range(signal.size):
            distance = signal[x] - start
            value = coefficients[degree]
            for power in range(degree - 1, -1, -1):
                value = value * distance + coefficients[power]
            signal[x] = value


@compiled
def polynomial_row(knots: Floats, pieces: Floats, signal: Floats) -> None:
    """Replace a signal by a piecewise polynomial of it, ``pieces`` (piece, power) about ``knots``.

    The first and the last piece hold beyond the knots too.
    """
    piece, last = 0, pieces.shape[0] - 1
    if last == 0:
        polynomial_piece(knots[0], pieces[0], signal)
        return
    for start in range(0, signal.size, STRETCH):
        stretch = signal[start : min(start + STRETCH, signal.size)]
        piece = piece_of(knots, stretch[0], piece, last)
        low = knots[piece] if piece > 0 else -math.inf
        high = knots[piece + 1] if piece < last else math.inf
        inside = 0
        for x in range(stretch.size):
            inside += int((stretch[x] >= low) & (stretch[x] < high))
        if inside == stretch.size:  # as nearly everywhere: the sky is one level
            polynomial_piece(knots[piece], pieces[piece], stretch)
            continue
        for x in range(stretch.size):
            piece = piece_of(knots, stretch[x], piece, last)
            polynomial_piece(knots[piece], pieces[piece], stretch[x : x + 1])


@compiled
def piece_of(knots: Floats, value: float, piece: int, last: int) -> int:
    """Return the piece that a value lies in, looking from a piece on; NaN lies in any."""
    while piece > 0 and value < knots[piece]:
        piece -= 1
    while piece < last and value >= knots[piece + 1]:
        piece += 1
    return piece


@compiled
def subtract_row(values: Pixels, signal: Floats) -> None:
    """Subtract a row of a calibration."""
    for x in range(signal.size):
        signal[x] -= np.float64(values[x])


@compiled_dividing
def respond(
    value: float,
    spread: float,
    dark_scale: float,
    dark: tuple[float, float],
    flat: tuple[float, float],
    flat_minimum: float,
    flat_varies: bool,
) -> tuple[float, float]:
    """Return signal and variance of a pixel less its dark and divided by its flat.

    ``dark`` and ``flat`` are value and variance.
    """
    value -= dark_scale * np.float64(dark[0])
    spread += dark_scale * dark_scale * np.float64(dark[1])
    response = np.float64(flat[0])
    inverse = 1.0 / (response if response > flat_minimum else math.nan)
    value *= inverse
    if flat_varies:
        spread = (spread + value * value * np.float64(flat[1])) * inverse * inverse
    else:
        spread *= inverse * inverse
    return value, spread


@compiled
def rounded(
    value: float, spread: float, plane: np.int32
) -> tuple[np.float32, np.float32, np.int32]:
    """Return a pixel in float32; without a number it is BAD, unless it was never read."""
    signal = np.float32(value)
    unknown = BAD if (plane & NO_DATA) == 0 else np.int32(0)
    if abs(signal) < np.inf:
        return signal, np.float32(spread), plane
    return np.float32(np.nan), np.float32(np.nan), np.int32(plane | unknown)


@compiled_dividing
def finish_row(
    signal: Floats,
    planes: Planes,
    channel: Channel,
    bias: Pixels,
    frames: Frames,
    masks: tuple[Planes, ...],
    bits: int,
    y: int,
    start: int,
    image: Pixels,
    variance: Pixels,
    mask: Planes,
) -> None:
    """Take a row from signal in adu to its place in the result, in one loop.

    ``bias`` is the row to subtract; some planes, ``bits``, of the five ``masks`` are added.
    """
    stop, kept = start + signal.size, np.int32(bits)
    # rows kept in a tuple would have their references counted, which costs a third of the loop
    image_row = image[y, start:stop]
    variance_row = variance[y, start:stop]
    mask_row = mask[y, start:stop]
    bias_variance = row_of(frames.bias_variance, y, start, stop)
    dark = row_of(frames.dark, y, start, stop)
    dark_variance = row_of(frames.dark_variance, y, start, stop)
    flat = row_of(frames.flat, y, start, stop)
    flat_variance = row_of(frames.flat_variance, y, start, stop)
    first = row_of(masks[0], y, start, stop)
    second = row_of(masks[1], y, start, stop)
    third = row_of(masks[2], y, start, stop)
    fourth = row_of(masks[3], y, start, stop)
    fifth = row_of(masks[4], y, start, stop)
    for x in range(signal.size):
        value = (signal[x] - np.float64(bias[x])) * channel.scale
        # max would hide NaN
        spread = (0.0 if value < 0.0 else value) * channel.photon + channel.read_variance
        spread += channel.scale * channel.scale * np.float64(bias_variance[x])
        value, spread = respond(
            value,
            spread,
            channel.dark_scale,
            (dark[x], dark_variance[x]),
            (flat[x], flat_variance[x]),
            frames.flat_minimum,
            frames.flat_varies,
        )
        joined = first[x] | second[x] | third[x] | fourth[x] | fifth[x]
        plane = np.int32(planes[x] | (joined & kept))
        image_row[x], variance_row[x], mask_row[x] = rounded(value, spread, plane)


@compiled_dividing
def respond_row(
    dark_scale: float,
    frames: Frames,
    y: int,
    start: int,
    image: Pixels,
    variance: Pixels,
    mask: Planes,
) -> None:
    """Subtract the dark from a row of results (x), in place, and divide it by the flat."""
    stop = start + image.size
    dark = row_of(frames.dark, y, start, stop)
    dark_variance = row_of(frames.dark_variance, y, start, stop)
    flat = row_of(frames.flat, y, start, stop)
    flat_variance = row_of(frames.flat_variance, y, start, stop)
    for x in range(image.size):
        value, spread = respond(
            np.float64(image[x]),
            np.float64(variance[x]),
            dark_scale,
            (dark[x], dark_variance[x]),
            (flat[x], flat_variance[x]),
            frames.flat_minimum,
            frames.flat_varies,
        )
        image[x], variance[x], mask[x] = rounded(value, spread, mask[x])
