"""Kernels of the chain from raw pixels to a frame fit for science, a row of an amplifier at a time.

A row is carried through all steps in a float64 buffer that stays in the first cache, so the image
is read and written once. Signals and variances of a row are in adu until the gain is applied.
NaN is what no number is known for; it goes through every step, and ends as a mask plane.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled, compiled_dividing
from skyloom.algorithms.vocabulary import MASK_PLANES

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]
Planes = NDArray[np.int32]

BAD: Final = np.int32(MASK_PLANES["BAD"])
SAT: Final = np.int32(MASK_PLANES["SAT"])
SUSPECT: Final = np.int32(MASK_PLANES["SUSPECT"])
NO_DATA: Final = np.int32(MASK_PLANES["NO_DATA"])
LEFT_OUT: Final = np.int32(BAD | NO_DATA)


class Channel(NamedTuple):
    """Numbers of one amplifier that its pixels need.

    Raw pixels up to ``lowest`` were never read; those from ``suspect`` and from ``saturation`` on
    are what the names say (adu). The signal is multiplied by ``scale``; its photon variance is the
    signal times ``photon``, to which ``read_variance`` is added, in the unit of the result. Darks
    are multiplied by ``dark_scale``. Flats up to ``flat_minimum`` are no good. ``planes`` is what
    every pixel gets.
    """

    lowest: float
    suspect: float
    saturation: float
    scale: float
    photon: float
    read_variance: float
    dark_scale: float
    flat_minimum: float
    planes: int


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
def turn_row(signal: Floats, planes: Planes) -> None:
    """Reverse a row."""
    for x in range(signal.size // 2):
        other = signal.size - 1 - x
        signal[x], signal[other] = signal[other], signal[x]
        planes[x], planes[other] = planes[other], planes[x]


@compiled
def scale_row(signal: Floats, variance: Floats, channel: Channel) -> None:
    """Apply the gain, and start the variance with photons and read noise."""
    for x in range(signal.size):
        value = signal[x] * channel.scale
        signal[x] = value
        # max would hide NaN
        variance[x] = (0.0 if value < 0.0 else value) * channel.photon + channel.read_variance


@compiled
def subtract_row(values: NDArray[np.float32], scale: float, signal: Floats) -> None:
    """Subtract a row of a calibration times a factor."""
    for x in range(signal.size):
        signal[x] -= scale * np.float64(values[x])


@compiled
def add_variance_row(values: NDArray[np.float32], scale: float, variance: Floats) -> None:
    """Add a row of the variance of a calibration times a factor."""
    for x in range(variance.size):
        variance[x] += scale * np.float64(values[x])


@compiled_dividing
def divide_row(
    values: NDArray[np.float32],
    variances: NDArray[np.float32],
    minimum: float,
    signal: Floats,
    variance: Floats,
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
def join_row(values: NDArray[np.int32], bits: int, planes: Planes) -> None:
    """Add some planes of a row of the mask of a calibration."""
    kept = np.int32(bits)
    for x in range(planes.size):
        planes[x] |= values[x] & kept


@compiled
def store_row(
    signal: Floats,
    variance: Floats,
    planes: Planes,
    image_row: NDArray[np.float32],
    variance_row: NDArray[np.float32],
    mask_row: NDArray[np.int32],
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


@compiled
def finish_row(
    place: tuple[int, int],
    channel: Channel,
    bias: NDArray[np.float32],
    bias_variance: NDArray[np.float32],
    dark: NDArray[np.float32],
    dark_variance: NDArray[np.float32],
    flat: NDArray[np.float32],
    flat_variance: NDArray[np.float32],
    masks: tuple[NDArray[np.int32], ...],
    bits: int,
    signal: Floats,
    variance: Floats,
    planes: Planes,
) -> None:
    """Take a row in trimmed orientation from the overscan to the flat."""
    y, start = place
    stop = start + signal.size
    if bias.size:
        subtract_row(bias[y, start:stop], 1.0, signal)
    scale_row(signal, variance, channel)
    if bias_variance.size:
        add_variance_row(bias_variance[y, start:stop], channel.scale**2, variance)
    if dark.size:
        subtract_row(dark[y, start:stop], channel.dark_scale, signal)
    if dark_variance.size:
        add_variance_row(dark_variance[y, start:stop], channel.dark_scale**2, variance)
    if flat.size:
        divide_row(
            flat[y, start:stop],
            flat_variance[y, start:stop] if flat_variance.size else flat_variance[0],
            channel.flat_minimum,
            signal,
            variance,
        )
    for mask in masks:
        if mask.size:
            join_row(mask[y, start:stop], bits, planes)


@compiled
def detrend_rows(
    raw: NDArray[Any],
    corner: tuple[int, int],
    row_level: Floats,
    column_level: Floats,
    turned: tuple[bool, bool],
    place: tuple[int, int],
    channel: Channel,
    bias: NDArray[np.float32],
    bias_variance: NDArray[np.float32],
    dark: NDArray[np.float32],
    dark_variance: NDArray[np.float32],
    flat: NDArray[np.float32],
    flat_variance: NDArray[np.float32],
    masks: tuple[NDArray[np.int32], ...],
    bits: int,
    width: int,
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.int32],
) -> None:
    """Take an amplifier from its raw section at ``corner`` to its trimmed box at ``place``.

    Empty arrays are calibrations that are not applied.
    """
    signal, spread = np.empty(width, np.float64), np.empty(width, np.float64)
    planes = np.empty(width, np.int32)
    for row in range(row_level.size):
        y = place[0] + (row_level.size - 1 - row if turned[0] else row)
        pixels = raw[corner[0] + row, corner[1] : corner[1] + width]
        load_row(pixels, row_level[row], column_level, channel, signal, planes)
        if turned[1]:
            turn_row(signal, planes)
        finish_row(
            (y, place[1]),
            channel,
            bias,
            bias_variance,
            dark,
            dark_variance,
            flat,
            flat_variance,
            masks,
            bits,
            signal,
            spread,
            planes,
        )
        inside = slice(place[1], place[1] + width)
        store_row(signal, spread, planes, image[y, inside], variance[y, inside], mask[y, inside])
