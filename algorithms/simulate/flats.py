"""Flat pairs with known truth: what to expose, and the frames that come out.

A plan lists the exposures; a truth says what each detector is; `simulate_flats` turns both into
raw frames. Each frame depends on the seed of its exposure and on the name of its detector only,
so frames can be made in any order, in any number of processes, with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from skyloom.algorithms.simulate.frames import simulate_flat_frame
from skyloom.algorithms.simulate.parameters import FrameParameters
from skyloom.algorithms.simulate.truth import flat_truth, generator
from skyloom.algorithms.vocabulary import (
    BIAS,
    DARK,
    DAY,
    DETECTOR,
    DIMENSIONLESS,
    ELECTRON,
    EXPOSURE,
    FLAT,
    SECOND,
)

__all__ = ["flat_plan", "simulate_exposure", "simulate_flats"]


def flat_plan(
    electrons: ArrayLike | None = None,
    *,
    pairs: int = 1,
    flux: float = 1000.0,
    mismatch: float = 0.001,
    biases: int = 0,
    dark_times: Sequence[float] = (),
    first_exposure: int = 1,
    mjd_start: float = 60000.0,
    overhead: float = 3.0,
    seed: int = 0,
) -> xr.Dataset:
    """Plan biases, pairs of darks and pairs of flats.

    Parameters
    ----------
    electrons : array_like, (level), electron, optional
        Mean signals of the flats, in the order of exposure; 20 from 500 to 1.2e5 without it.
    pairs : int
        Pairs at each level.
    flux : float, electron/s
        Signal that a second of exposure gives.
    mismatch : float
        Relative rms by which the lamp changes from exposure to exposure.
    biases : int
        Number of biases, before everything else.
    dark_times : sequence of float, s
        Exposure times of pairs of darks.
    first_exposure : int
        Number of the first exposure.
    mjd_start : float, d
        Start of the first exposure.
    overhead : float, s
        Time between two exposures.
    seed : int
        Seed of the whole simulation.

    Returns
    -------
    Dataset, (exposure)
        ``observation_type``, ``exposure_time`` (s), ``mjd_start`` (d), ``electrons`` (true mean
        signal) and ``seed``, one number per exposure.

    Raises
    ------
    ValueError
        If a level is not positive and finite, or the flux is not positive.

    Examples
    --------
    >>> plan = flat_plan([1e4, 2e4], biases=1, seed=1)
    >>> plan.observation_type.values.tolist()
    ['bias', 'flat', 'flat', 'flat', 'flat']
    >>> plan.exposure_time.values.tolist()
    [0.0, 10.0, 10.0, 20.0, 20.0]
    """
    levels = np.atleast_1d(
        np.geomspace(500, 1.2e5, 20) if electrons is None else np.asarray(electrons, dtype=float)
    )
    if not np.all(np.isfinite(levels) & (levels > 0)):
        raise ValueError(f"electrons must be positive and finite, got {levels}")
    if not flux > 0:
        raise ValueError(f"flux must be positive, got {flux}")
    signal = np.repeat(levels, 2 * pairs)
    darks = np.repeat(np.asarray(dark_times, dtype=float), 2)
    kinds = [BIAS] * biases + [DARK] * darks.size + [FLAT] * signal.size
    time = np.concatenate([np.zeros(biases), darks, signal / flux])
    lamp = 1 + mismatch * generator(seed, "lamp").standard_normal(signal.size)
    true = np.concatenate([np.zeros(biases + darks.size), signal * lamp])
    number = first_exposure + np.arange(time.size, dtype=np.int64)
    start = mjd_start + np.concatenate([[0.0], np.cumsum(time + overhead)])[:-1] / 86400
    seeds = [int(generator(seed, "exposure", int(n)).integers(2**62)) for n in number]
    return xr.Dataset(
        {
            "observation_type": (EXPOSURE, np.array(kinds, dtype=str)),
            "exposure_time": (EXPOSURE, time, {"units": SECOND}),
            "mjd_start": (EXPOSURE, start, {"units": DAY}),
            "electrons": (EXPOSURE, true, {"units": ELECTRON}),
            "seed": (EXPOSURE, np.array(seeds, dtype=np.int64), {"units": DIMENSIONLESS}),
        },
        coords={EXPOSURE: number},
    )


def simulate_exposure(
    plan: xr.Dataset,
    exposure: int,
    amplifiers: xr.Dataset,
    truth: xr.Dataset,
    *,
    shape: tuple[int, int] | None = None,
    parameters: FrameParameters | None = None,
) -> xr.Dataset:
    """Simulate one exposure of a plan with one detector.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `flat_plan` returns.
    exposure : int
        Number of the exposure.
    amplifiers : Dataset, (amp)
        Amplifier table of the detector.
    truth : Dataset, (amp, lag_y, lag_x)
        Truth of the detector.
    shape : (int, int), optional
        Raw shape of the detector.
    parameters : FrameParameters, optional
        Patterns, outliers, read-out.

    Returns
    -------
    Dataset, (y, x)
        A raw frame, see `simulate_flat_frame`.

    Raises
    ------
    KeyError
        If the plan has no such exposure.
    ValueError
        As `simulate_flat_frame`.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> amplifiers = amplifier_grid("R0", (1, 1), (64, 64))
    >>> plan = flat_plan([1e4], seed=1)
    >>> frame = simulate_exposure(plan, 2, amplifiers, flat_truth(amplifiers))
    >>> int(frame.exposure), str(frame.detector.values)
    (2, 'R0')
    """
    if exposure not in plan[EXPOSURE].to_numpy():
        raise KeyError(f"the plan has no exposure {exposure}")
    row = plan.sel({EXPOSURE: exposure})
    return simulate_flat_frame(
        amplifiers,
        truth,
        float(row["electrons"]),
        exposure_time=float(row["exposure_time"]),
        rng=generator(int(row["seed"]), str(amplifiers.attrs.get(DETECTOR, ""))),
        exposure=exposure,
        mjd_start=float(row["mjd_start"]),
        observation_type=str(row["observation_type"].to_numpy()),
        shape=shape,
        parameters=parameters,
    )


def simulate_flats(
    plan: xr.Dataset,
    amplifiers: Mapping[str, xr.Dataset],
    truth: Mapping[str, xr.Dataset] | None = None,
    *,
    seed: int = 0,
    parameters: FrameParameters | None = None,
) -> Iterator[xr.Dataset]:
    """Simulate every exposure of a plan with every detector, one frame at a time.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `flat_plan` returns.
    amplifiers : mapping of str to Dataset
        Amplifier table of each detector by its name.
    truth : mapping of str to Dataset, optional
        Truth of each detector; drawn by `flat_truth` with ``seed`` without it.
    seed : int
        Seed of the truth.
    parameters : FrameParameters, optional
        Patterns, outliers, read-out.

    Yields
    ------
    Dataset, (y, x)
        Raw frames, detector by detector within each exposure.

    Raises
    ------
    KeyError
        If a detector has no truth.
    ValueError
        As `simulate_flat_frame`.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> detectors = {"R0": amplifier_grid("R0", (1, 1), (64, 64))}
    >>> frames = simulate_flats(flat_plan([1e4], seed=1), detectors, seed=1)
    >>> [int(frame.exposure) for frame in frames]
    [1, 2]
    """
    if truth is None:
        truth = {name: flat_truth(table, seed=seed) for name, table in amplifiers.items()}
    missing = [name for name in amplifiers if name not in truth]
    if missing:
        raise KeyError(f"no truth for the detectors {', '.join(missing)}")
    return (
        simulate_exposure(plan, int(exposure), table, truth[name], parameters=parameters)
        for exposure in plan[EXPOSURE].to_numpy()
        for name, table in amplifiers.items()
    )
