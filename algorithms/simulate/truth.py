"""What a simulated detector really is: a dataset over amplifiers, with every value known.

A truth holds, per amplifier, ``gain`` (electron/adu), ``noise`` (electron, everything that reads
a pixel adds to it, digitisation included), ``full_well`` (electron), ``bias_level`` (adu),
``pattern_seed`` (the seed of patterns that repeat in every exposure) and, per lag, ``a``
(1/electron). Two more per lag are optional: ``b`` (1/electron), the drift of ``a``, and
``noise_matrix`` (electron2), the noise covariance, whose lag (0, 0) then replaces ``noise``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.simulate.parameters import TruthParameters
from skyloom.algorithms.vocabulary import (
    ADU,
    AMP,
    DETECTOR,
    DIMENSIONLESS,
    ELECTRON,
    ELECTRON_PER_ADU,
    LAG_X,
    LAG_Y,
    PER_ELECTRON,
)

__all__ = ["TYPICAL_A", "flat_truth", "generator"]

TYPICAL_A: Final[tuple[tuple[float, ...], ...]] = (
    (-3.290e-6, 1.750e-7, 5.91e-8, 1.96e-8, 1.10e-8),
    (4.160e-7, 1.258e-7, 3.85e-8, 1.74e-8, 7.18e-9),
    (6.200e-8, 4.217e-8, 2.26e-8, 1.10e-8, 8.00e-9),
    (1.732e-8, 1.705e-8, 9.42e-9, 8.41e-9, 2.64e-9),
    (1.159e-8, 6.976e-9, 8.43e-9, 3.84e-9, 4.22e-9),
)
"""Coefficients like those of a thick, fully depleted survey CCD, [lag_y][lag_x], 1/electron."""


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """Return the generator that belongs to a seed and a path of keys.

    Any exposure, detector or amplifier can so be simulated alone, in any order and in any
    process, with the same bits.

    Parameters
    ----------
    seed : int
        Seed of the whole simulation, >= 0.
    *keys : int or str
        What the generator is for.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> float(generator(1, "R0").normal()) == float(generator(1, "R0").normal())
    True
    >>> float(generator(1, "R0").normal()) == float(generator(1, "R1").normal())
    False
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=numbers))


def _spread(rng: np.random.Generator, relative: float, number: int) -> NDArray[np.float64]:
    # beyond 3 sigma a gain could come near zero, which no amplifier has
    return np.asarray(1 + relative * np.clip(rng.standard_normal(number), -3, 3))


def flat_truth(
    amplifiers: xr.Dataset,
    *,
    a: ArrayLike | None = None,
    seed: int = 0,
    parameters: TruthParameters | None = None,
) -> xr.Dataset:
    """Draw the truth of the amplifiers of a detector.

    Parameters
    ----------
    amplifiers : Dataset, (amp)
        Amplifier table of a camera; ``gain`` (electron/adu), ``read_noise`` (electron) and
        ``saturation`` (adu, NaN where unknown) are used, and the attribute ``detector``.
    a : array_like, (lag_y, lag_x), 1/electron, optional
        Mean of the fractional changes of pixel area; those of a thick CCD without it.
    seed : int
        Seed of the whole simulation.
    parameters : TruthParameters, optional
        How amplifiers scatter.

    Returns
    -------
    Dataset, (amp, lag_y, lag_x)
        A truth, see the module.

    Raises
    ------
    ValueError
        If ``a`` is not two-dimensional, or a gain or noise of the table is not positive.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> truth = flat_truth(amplifier_grid("R0", (1, 2), (64, 64)), seed=3)
    >>> truth.a.dims, truth.gain.attrs["units"]
    (('amp', 'lag_y', 'lag_x'), 'electron/adu')
    """
    parameters = parameters or TruthParameters()
    matrix = np.asarray(TYPICAL_A if a is None else a, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"a has {matrix.ndim} dimensions; it must be (lag_y, lag_x)")
    nominal = {name: amplifiers[name].to_numpy() for name in ("gain", "read_noise", "saturation")}
    for name in ("gain", "read_noise"):
        if not np.all(nominal[name] > 0):
            raise ValueError(f"{name} must be positive in every amplifier, got {nominal[name]}")
    detector = str(amplifiers.attrs.get(DETECTOR, ""))
    rng = generator(seed, "truth", detector)
    number = amplifiers.sizes[AMP]
    gain = nominal["gain"] * _spread(rng, parameters.gain_spread, number)
    well = np.where(
        np.isfinite(nominal["saturation"]),
        parameters.well_over_saturation * nominal["saturation"] * gain,
        parameters.full_well,
    )
    scale = _spread(rng, parameters.a_spread, number)
    bias = parameters.bias_level + parameters.bias_spread * rng.standard_normal(number)
    noise = nominal["read_noise"] * _spread(rng, parameters.noise_spread, number)
    names = [str(name) for name in amplifiers[AMP].to_numpy()]
    patterns = [zlib.crc32(f"{seed}/{detector}/{name}".encode()) for name in names]
    return xr.Dataset(
        {
            "gain": (AMP, gain, {"units": ELECTRON_PER_ADU}),
            "noise": (AMP, noise, {"units": ELECTRON}),
            "full_well": (AMP, well, {"units": ELECTRON}),
            "bias_level": (AMP, np.maximum(bias, 0.0), {"units": ADU}),
            "pattern_seed": (AMP, np.array(patterns, dtype=np.int64), {"units": DIMENSIONLESS}),
            "a": ((AMP, LAG_Y, LAG_X), scale[:, None, None] * matrix, {"units": PER_ELECTRON}),
        },
        coords={
            AMP: names,
            LAG_Y: np.arange(matrix.shape[0]),
            LAG_X: np.arange(matrix.shape[1]),
        },
        attrs={DETECTOR: detector},
    )


def truth_problems(truth: xr.Dataset, amplifiers: Sequence[str]) -> list[str]:
    """Return what keeps a truth from describing these amplifiers; empty if nothing does."""
    needed: Mapping[str, tuple[str, ...]] = {
        "gain": (AMP,),
        "noise": (AMP,),
        "full_well": (AMP,),
        "bias_level": (AMP,),
        "pattern_seed": (AMP,),
        "a": (AMP, LAG_Y, LAG_X),
    }
    problems = [f"truth lacks {name!r}" for name in needed if name not in truth]
    optional = [name for name in ("b", "noise_matrix") if name in truth]
    for name in [name for name in needed if name in truth] + optional:
        expected = set(needed.get(name, (AMP, LAG_Y, LAG_X)))
        if set(truth[name].dims) != expected:
            problems.append(f"truth {name!r} has dims {truth[name].dims}, needs {expected}")
    known = {str(name) for name in truth[AMP].to_numpy()} if AMP in truth.coords else set()
    missing = [name for name in amplifiers if name not in known]
    if missing:
        problems.append(f"truth lacks the amplifiers {', '.join(missing)}")
    return problems
