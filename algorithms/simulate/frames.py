"""One raw frame of one detector: photons, covariances, patterns, outliers, and the read-out.

In order: illumination times pixel response times signal; correlated shot noise, whose size
follows the local signal; dark current, cosmic rays and outliers; full well; gain; bias level,
drift and pattern; row noise; read noise; digitisation. Electrons are counted before the gain and
adu after it. Overscans see everything from the bias on.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.simulate.fields import correlated_field, flat_covariance
from skyloom.algorithms.simulate.parameters import FrameParameters
from skyloom.algorithms.simulate.truth import generator, truth_problems
from skyloom.algorithms.vocabulary import (
    ADU,
    AMP,
    DAY,
    DETECTOR,
    DIMENSIONLESS,
    EXPOSURE,
    FLAT,
    LAG_X,
    LAG_Y,
    SECOND,
    X,
    Y,
)

__all__ = ["simulate_flat_frame"]

Floats = NDArray[np.float64]

COSMIC_RAY_LENGTH = 6.0
"""Mean length of a cosmic-ray track, pixels."""
COSMIC_RAY_CHARGE = 2000.0
"""Charge that a cosmic ray leaves in each pixel of its track, electron."""


class _Truth(NamedTuple):
    """Truth of one amplifier as plain numbers and arrays."""

    gain: float
    noise: float
    full_well: float
    bias_level: float
    pattern_seed: int
    a: Floats
    b: Floats | None
    noise_matrix: Floats | None


def _truth(truth: xr.Dataset, name: str) -> _Truth:
    one = truth.sel({AMP: name})

    def matrix(key: str) -> Floats:
        return np.asarray(one[key].transpose(LAG_Y, LAG_X).to_numpy(), dtype=np.float64)

    return _Truth(
        gain=float(one["gain"]),
        noise=float(one["noise"]),
        full_well=float(one["full_well"]),
        bias_level=float(one["bias_level"]),
        pattern_seed=int(one["pattern_seed"]),
        a=matrix("a"),
        b=matrix("b") if "b" in truth else None,
        noise_matrix=matrix("noise_matrix") if "noise_matrix" in truth else None,
    )


def _illumination(row: Amplifier, detector: tuple[int, int], parameters: FrameParameters) -> Floats:
    """Return the relative illumination of a data section, 1 at the centre of the detector."""
    y, x = (
        (start + np.arange(size) + 0.5) / length - 0.5
        for start, size, length in zip(
            (row.trimmed.y_start, row.trimmed.x_start), row.data.shape, detector, strict=True
        )
    )
    turned_y, turned_x = row.turn
    along_y = parameters.gradient_y * y[turned_y]
    return np.asarray(1 + along_y[:, None] + parameters.gradient_x * x[turned_x])


def _cosmic_rays(
    shape: tuple[int, int], rate: float, exposure_time: float, rng: np.random.Generator
) -> Floats:
    """Return the charge that cosmic rays leave, electron."""
    charge = np.zeros(shape)
    number = rng.poisson(rate * max(exposure_time, 0.0) * charge.size)
    for _ in range(number):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        angle, length = rng.uniform(0, 2 * np.pi), rng.exponential(COSMIC_RAY_LENGTH)
        steps = np.arange(int(length) + 1)
        rows = (y + steps * np.sin(angle)).astype(int)
        columns = (x + steps * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        charge[rows[inside], columns[inside]] = COSMIC_RAY_CHARGE
    return charge


def _charge(
    true: _Truth,
    electrons: float,
    exposure_time: float,
    illumination: Floats,
    rng: np.random.Generator,
    parameters: FrameParameters,
) -> Floats:
    """Return the charge in each pixel of a data section, electron."""
    shape = illumination.shape
    charge = np.zeros(shape)
    if electrons > 0:
        local = np.array(illumination)
        if parameters.response_nonuniformity:
            pattern = generator(true.pattern_seed, "response").standard_normal(shape)
            local *= 1 + parameters.response_nonuniformity * pattern
        local = np.maximum(local, 0.0)
        covariance = flat_covariance(true.a, electrons, b=true.b)
        # the noise of a pixel follows its own signal; the shape of the covariances hardly does
        charge = electrons * local + np.sqrt(local) * correlated_field(covariance, shape, rng)
    if parameters.dark_current and exposure_time > 0:
        charge += rng.poisson(parameters.dark_current * exposure_time, shape)
    if parameters.cosmic_ray_rate:
        charge += _cosmic_rays(shape, parameters.cosmic_ray_rate, exposure_time, rng)
    if parameters.outlier_fraction:
        chosen = rng.random(shape) < parameters.outlier_fraction
        charge[chosen] += parameters.outlier_electrons
    return np.minimum(charge, true.full_well, out=charge)


def _read_noise(
    true: _Truth, shape: tuple[int, int], rng: np.random.Generator, digitised: bool
) -> Floats:
    """Return read noise in electron; digitisation adds its own part of the true noise later."""
    covariance = np.zeros((1, 1)) if true.noise_matrix is None else true.noise_matrix.copy()
    if true.noise_matrix is None:
        covariance[0, 0] = true.noise**2
    if digitised:
        covariance[0, 0] -= true.gain**2 / 12
        if covariance[0, 0] < 0:
            raise ValueError(
                f"noise {true.noise:.3g} electron is below the digitisation noise "
                f"{true.gain / np.sqrt(12):.3g} electron of the gain {true.gain:.3g} electron/adu; "
                "raise the noise or use dtype 'float32'"
            )
    return correlated_field(covariance, shape, rng)


def _converted(image: Floats, dtype: Literal["uint16", "int32", "float32"]) -> NDArray[Any]:
    if dtype == "float32":
        return image.astype(np.float32)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), max(limits.min, 0), limits.max).astype(dtype)


def simulate_flat_frame(
    amplifiers: xr.Dataset,
    truth: xr.Dataset,
    mean_electrons: float,
    *,
    exposure_time: float,
    rng: np.random.Generator,
    exposure: int = 0,
    mjd_start: float = np.nan,
    observation_type: str = FLAT,
    shape: tuple[int, int] | None = None,
    parameters: FrameParameters | None = None,
) -> xr.Dataset:
    """Simulate one raw frame of one detector: a flat, or a dark or bias without signal.

    Parameters
    ----------
    amplifiers : Dataset, (amp)
        Amplifier table of the detector: sections of the raw array, trimmed boxes, flips.
    truth : Dataset, (amp, lag_y, lag_x)
        Gains, noises, covariance coefficients and bias levels, as `flat_truth` makes them.
    mean_electrons : float, electron
        Mean signal at the centre of the detector, without dark current.
    exposure_time : float, s
        True exposure time: dark current and cosmic rays grow with it.
    rng : numpy.random.Generator
        Where everything that differs between exposures comes from.
    exposure : int
        Number of the exposure.
    mjd_start : float, d
        Start of the exposure.
    observation_type : str
        One of the vocabulary.
    shape : (int, int), optional
        Raw shape (y, x) of the detector; without it the sections end where the array ends.
    parameters : FrameParameters, optional
        Patterns, outliers, read-out.

    Returns
    -------
    Dataset, (y, x)
        ``image`` in adu with the scalar coordinates of a raw exposure. Pixels outside every
        section hold the mean bias level.

    Raises
    ------
    ValueError
        If the truth does not describe the amplifiers, the signal is negative or not finite,
        or no field can have the covariances that were asked for.

    Notes
    -----
    The shot noise is Gaussian with the covariances of the exact model, see `flat_covariance`;
    read noise and digitisation together have the noise of the truth.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid, flat_truth
    >>> amplifiers = amplifier_grid("R0", (1, 2), (64, 64), overscan=8)
    >>> frame = simulate_flat_frame(
    ...     amplifiers,
    ...     flat_truth(amplifiers),
    ...     2e4,
    ...     exposure_time=20.0,
    ...     rng=np.random.default_rng(1),
    ... )
    >>> dict(frame.sizes), frame.image.dtype.name
    ({'y': 64, 'x': 144}, 'uint16')
    """
    parameters = parameters or FrameParameters()
    names = [str(name) for name in amplifiers[AMP].to_numpy()]
    problems = truth_problems(truth, names)
    if not (np.isfinite(mean_electrons) and mean_electrons >= 0):
        problems.append(f"mean_electrons is {mean_electrons}; it must be finite and >= 0")
    if problems:
        raise ValueError("; ".join(problems))
    rows = amplifier_rows(amplifiers)
    image = np.full(_raw_shape(rows, shape), float(truth["bias_level"].mean()))
    for row, own in zip(rows, rng.spawn(len(rows)), strict=True):
        true = _truth(truth, row.name)
        lit = _illumination(row, trimmed_shape(rows), parameters)
        charge = _charge(true, float(mean_electrons), exposure_time, lit, own, parameters)
        _read_out(image, row, true, charge, own, parameters)
    return xr.Dataset(
        {"image": ((Y, X), _converted(image, parameters.dtype), {"units": ADU})},
        coords={
            EXPOSURE: ((), np.int64(exposure), {"units": DIMENSIONLESS}),
            DETECTOR: str(amplifiers.attrs.get(DETECTOR, "")),
            "exposure_time": ((), float(exposure_time), {"units": SECOND}),
            "mjd_start": ((), float(mjd_start), {"units": DAY}),
            "observation_type": observation_type,
        },
    )


def _raw_shape(rows: list[Amplifier], shape: tuple[int, int] | None) -> tuple[int, int]:
    boxes = [box for row in rows for box in (row.data, row.overscan, row.parallel_overscan)]
    least = max(box.y_stop for box in boxes), max(box.x_stop for box in boxes)
    if shape is None:
        return least
    if shape[0] < least[0] or shape[1] < least[1]:
        raise ValueError(f"shape {shape} is smaller than the sections of the amplifiers, {least}")
    return shape


def _read_out(
    image: Floats,
    row: Amplifier,
    true: _Truth,
    charge: Floats,
    rng: np.random.Generator,
    parameters: FrameParameters,
) -> None:
    """Write the data section and the overscans of one amplifier into the raw image, adu."""
    level = true.bias_level + parameters.bias_drift * rng.standard_normal()
    rows = parameters.row_noise * rng.standard_normal((image.shape[0], 1))
    for box in (row.data, row.overscan, row.parallel_overscan):
        if box.size == 0:
            continue
        noise = _read_noise(true, box.shape, rng, parameters.dtype != "float32")
        section = level + rows[box.slices[0]] + noise / true.gain
        if box is row.data:
            section += charge / true.gain
            if parameters.bias_structure:
                pattern = generator(true.pattern_seed, "bias").standard_normal(box.shape)
                section += parameters.bias_structure * pattern
        image[box.slices] = section
