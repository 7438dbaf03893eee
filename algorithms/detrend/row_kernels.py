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
def scale_row(channel: Channel, signal: Floats, variance: Floats) -> None:
    """Apply the gain, and start the variance with photons and read noise."""
    for x in range(signal.size):
        value = signal[x] * channel.scale
        signal[x] = value
        # max would hide NaN
        variance[x] = (0.0 if value < 0.0 else value) * channel.photon + channel.read_variance


@compiled
def subtract_row(values: Pixels, scale: float, signal: Floats) -> None:
    """Subtract a row of a calibration times a factor."""
    for x in range(signal.size):
        signal[x] -= scale * np.float64(values[x])


@compiled
def add_row(values: Pixels, scale: float, variance: Floats) -> None:
    """Add a row of the variance of a calibration times a factor."""
    for x in range(variance.size):
        variance[x] += scale * np.float64(values[x])


@compiled_dividing
def divide_row(
    values: Pixels, variances: Pixels, minimum: float, signal: Floats, variance: Floats
) -> None:
    """Divide by a row of a flat; NaN where the flat is not above the minimum."""
    if variances.size:
        for x in range(signal.size):
            response = np.float64(values[x])
            inverse = 1.0 / (response if response > minimum else math.nan)
            quotient = signal[x] * inverse
            added = variance[x] + quotient * quotient * np.float64(variances[x])
            signal[x] = quotient
            variance[x] = added * inverse * inverse
    else:
        for x in range(signal.size):
            response = np.float64(values[x])
            inverse = 1.0 / (response if response > minimum else math.nan)
            signal[x] *= inverse
            variance[x] *= inverse * inverse


@compiled
def join_row(values: Planes, bits: int, planes: Planes) -> None:
    """Add some planes of a row of the mask of a calibration."""
    kept = np.int32(bits)
    for x in range(planes.size):
        planes[x] |= values[x] & kept


@compiled
def store_row(
    signal: Floats,
    variance: Floats,
    planes: Planes,
    image_row: Pixels,
    variance_row: Pixels,
    mask_row: Planes,
) -> None:
    """Round a row to float32; pixels without a number are BAD, unless they were never read."""
    for x in range(signal.size):
        value = np.float32(signal[x])
        known = abs(value) < np.inf
        plane = planes[x]
        unknown = BAD if (plane & NO_DATA) == 0 else np.int32(0)
        image_row[x] = value if known else np.float32(np.nan)
        variance_row[x] = np.float32(variance[x]) if known else np.float32(np.nan)
        mask_row[x] = plane if known else np.int32(plane | unknown)
