"""Which read noise a pair is measured with: the best of those that are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.vocabulary import ReadNoiseSource

__all__ = ["chosen_read_noise", "header_noise", "per_amplifier"]

Floats = NDArray[np.float64]


def chosen_read_noise(
    *,
    header: Floats | None = None,
    dark: Floats | None = None,
    overscan: Floats | None = None,
    camera: Floats | None = None,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the first finite read noise of each amplifier (adu) and a `ReadNoiseSource` code.

    A nominal read noise of 0 is taken for not known.

    Examples
    --------
    >>> header, overscan = np.array([np.nan, 5.0]), np.array([6.0, 6.0])
    >>> noise, source = chosen_read_noise(header=header, overscan=overscan)
    >>> noise.tolist(), source.tolist()
    ([6.0, 5.0], [3, 1])
    """
    given = (
        (ReadNoiseSource.HEADER, header),
        (ReadNoiseSource.DARK_PAIRS, dark),
        (ReadNoiseSource.OVERSCAN, overscan),
        (ReadNoiseSource.CAMERA, camera),
    )
    size = max(values.size for _, values in given if values is not None)
    noise = np.full(size, np.nan)
    source = np.full(size, ReadNoiseSource.NONE, np.uint8)
    for code, values in given:
        if values is None:
            continue
        known = np.isfinite(values) & (source == ReadNoiseSource.NONE)
        if code == ReadNoiseSource.CAMERA:
            known &= values > 0.0
        noise[known], source[known] = values[known], code
    return noise, source


def per_amplifier(values: ArrayLike | xr.DataArray | None, names: Sequence[str]) -> Floats:
    """Return values in the order of the amplifiers, by name where they have names; NaN without.

    Raises
    ------
    ValueError
        If values without names are not as many as the amplifiers.
    """
    if values is None:
        return np.full(len(names), np.nan)
    if isinstance(values, xr.DataArray) and v.AMP in values.coords and values.ndim == 1:
        known = dict(zip((str(n) for n in values[v.AMP].values), values.values, strict=True))
        return np.array([known.get(name, np.nan) for name in names], dtype=np.float64)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 0 and array.shape != (len(names),):
        raise ValueError(f"expected {len(names)} values over {v.AMP}, got shape {array.shape}")
    return np.broadcast_to(array, (len(names),)).copy()


def header_noise(
    given: ArrayLike | xr.DataArray | None, exposures: Iterable[xr.Dataset], names: Sequence[str]
) -> Floats:
    """Return the read noise given, else the mean of what the exposures carry; adu."""
    if given is not None:
        return per_amplifier(given, names)
    carried: list[Any] = [exposure.get("header_read_noise") for exposure in exposures]
    carried += [
        exposure.coords.get("header_read_noise") if found is None else None
        for exposure, found in zip(exposures, carried, strict=True)
    ]
    rows = np.array([per_amplifier(values, names) for values in carried if values is not None])
    if rows.size == 0:
        return np.full(len(names), np.nan)
    known = np.isfinite(rows)
    total = np.where(known, rows, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
