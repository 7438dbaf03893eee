"""One raw frame of one detector: photons, covariances, patterns, outliers, and the read-out.

In order: illumination times pixel response times signal; correlated shot noise, whose size
follows the local signal; dark current, cosmic rays and outliers; full well; gain; bias level,
drift and pattern; row noise; read noise; digitisation. Electrons are counted before the gain and
adu after it. Overscans see everything from the bias on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.simulate.fields import correlated_field, flat_covariance
from skyloom.algorithms.simulate.parameters import FrameParameters
from skyloom.algorithms.simulate.readout import (
    Channel,
    converted,
    raw_shape,
    read_out,
)
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

    channel: Channel
    full_well: float
    pattern_seed: int
    a: Floats
    b: Floats | None


def _truth(truth: xr.Dataset, name: str) -> _Truth:
    one = truth.sel({AMP: name})

    def matrix(key: str) -> Floats:
        return np.asarray(one[key].transpose(LAG_Y, LAG_X).to_numpy(), dtype=np.float64)

    return _Truth(
        channel=Channel(
            gain=float(one["gain"]),
            noise=float(one["noise"]),
            bias_level=float(one["bias_level"]),
            noise_matrix=matrix("noise_matrix") if "noise_matrix" in truth else None,
        ),
        full_well=float(one["full_well"]),
        pattern_seed=int(one["pattern_seed"]),
        a=matrix("a"),
        b=matrix("b") if "b" in truth else None,
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
    image = np.full(raw_shape(rows, shape), float(truth["bias_level"].mean()))
    for row, own in zip(rows, rng.spawn(len(rows)), strict=True):
        true = _truth(truth, row.name)
        lit = _illumination(row, trimmed_shape(rows), parameters)
        charge = _charge(true, float(mean_electrons), exposure_time, lit, own, parameters)
        pattern: Floats | float = 0.0
        if parameters.bias_structure:
            white = generator(true.pattern_seed, "bias").standard_normal(row.data.shape)
            pattern = parameters.bias_structure * white
        read_out(
            image,
            row,
            true.channel,
            charge,
            own,
            pattern=pattern,
            bias_drift=parameters.bias_drift,
            row_noise=parameters.row_noise,
            dtype=parameters.dtype,
        )
    return xr.Dataset(
        {"image": ((Y, X), converted(image, parameters.dtype), {"units": ADU})},
        coords={
            EXPOSURE: ((), np.int64(exposure), {"units": DIMENSIONLESS}),
            DETECTOR: str(amplifiers.attrs.get(DETECTOR, "")),
            "exposure_time": ((), float(exposure_time), {"units": SECOND}),
            "mjd_start": ((), float(mjd_start), {"units": DAY}),
            "observation_type": observation_type,
        },
    )
