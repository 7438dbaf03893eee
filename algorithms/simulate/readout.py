"""The read-out that all simulated frames share: gain, bias, noise and the converter.

Electrons are counted before the gain and adu after it. Overscans see everything from the bias on.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.simulate.fields import correlated_field

__all__ = ["Channel", "PixelType", "converted", "raw_shape", "read_noise", "read_out"]

Floats = NDArray[np.float64]
PixelType: TypeAlias = Literal["uint16", "int32", "float32"]


class Channel(NamedTuple):
    """What reads an amplifier: electron/adu, electron, adu, and electron2 over lags >= 0.

    The noise covariance ``noise_matrix``, where there is one, stands in place of ``noise``.
    """

    gain: float
    noise: float
    bias_level: float
    noise_matrix: Floats | None = None


def read_noise(
    channel: Channel, shape: tuple[int, int], rng: np.random.Generator, digitised: bool
) -> Floats:
    """Return read noise in electron; digitisation adds its own part of the true noise later."""
    covariance = np.zeros((1, 1)) if channel.noise_matrix is None else channel.noise_matrix.copy()
    if channel.noise_matrix is None:
        covariance[0, 0] = channel.noise**2
    if digitised:
        covariance[0, 0] -= channel.gain**2 / 12
        if covariance[0, 0] < 0:
            raise ValueError(
                f"noise {channel.noise:.3g} electron is below the digitisation noise "
                f"{channel.gain / np.sqrt(12):.3g} electron of the gain "
                f"{channel.gain:.3g} electron/adu; raise the noise or use dtype 'float32'"
            )
    return correlated_field(covariance, shape, rng)


def converted(image: Floats, dtype: PixelType) -> NDArray[Any]:
    """Return the image as the converter writes it: rounded and clipped, or float32 as it is.

    The image is rounded and clipped in place.
    """
    if dtype == "float32":
        return image.astype(np.float32)
    limits = np.iinfo(dtype)
    np.rint(image, out=image)
    return np.clip(image, max(limits.min, 0), limits.max, out=image).astype(dtype)


def raw_shape(rows: list[Amplifier], shape: tuple[int, int] | None) -> tuple[int, int]:
    """Return the raw shape, at least where the sections of the amplifiers end."""
    boxes = [box for row in rows for box in (row.data, row.overscan, row.parallel_overscan)]
    least = max(box.y_stop for box in boxes), max(box.x_stop for box in boxes)
    if shape is None:
        return least
    if shape[0] < least[0] or shape[1] < least[1]:
        raise ValueError(f"shape {shape} is smaller than the sections of the amplifiers, {least}")
    return shape


def read_out(
    image: Floats,
    row: Amplifier,
    channel: Channel,
    charge: Floats,
    rng: np.random.Generator,
    *,
    pattern: Floats | float = 0.0,
    bias_drift: float = 0.0,
    row_noise: float = 0.0,
    dtype: PixelType = "uint16",
) -> None:
    """Write the data section and the overscans of one amplifier into a raw image.

    Parameters
    ----------
    image : ndarray, (y, x), float64, adu
        The raw image; changed in place.
    row : Amplifier
        Where the sections lie.
    channel : Channel
        Gain, noise and bias level.
    charge : ndarray, (y, x), float64, electron
        Charge of the data section as it is read.
    rng : numpy.random.Generator
        Where read noise and drifts come from.
    pattern : ndarray, (y, x), float64, adu
        Bias of the data section beyond its level.
    bias_drift, row_noise : float, adu
        Rms of the change of the level between exposures, and from row to row.
    dtype : str
        Pixel type of the file; integers add the noise of digitisation.
    """
    level = channel.bias_level + bias_drift * rng.standard_normal()
    rows = row_noise * rng.standard_normal((image.shape[0], 1))
    for box in (row.data, row.overscan, row.parallel_overscan):
        if box.size == 0:
            continue
        noise = read_noise(channel, box.shape, rng, dtype != "float32")
        section = level + rows[box.slices[0]] + noise / channel.gain
        if box is row.data:
            section += charge / channel.gain
            section += pattern
        image[box.slices] = section
