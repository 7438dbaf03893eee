"""What each exposure is divided by: one number, or one for each amplifier."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.combine.inputs import Exposures
from skyloom.algorithms.dark_times import dark_times
from skyloom.algorithms.errors import DroppedInputWarning

__all__ = ["Scales", "dark_times_of", "exposure_times_of", "matched_scales", "usable_scales"]

Scales = xr.DataArray | NDArray[Any] | Sequence[float]


def exposure_times_of(exposures: Exposures) -> NDArray[np.float64]:
    """Return the exposure time of every exposure, s."""
    found = exposures.about.get("exposure_time", exposures.coords.get("exposure_time"))
    if found is None:
        raise ValueError("the exposures have no exposure_time (s)")
    return np.broadcast_to(np.asarray(found, np.float64), exposures.labels.shape)


def dark_times_of(exposures: Exposures, overhead: float) -> NDArray[np.float64]:
    """Return the dark time of every exposure, s; NaN where it is not known."""
    known = xr.Dataset(
        coords={
            name: coords[name].variable
            for coords in (exposures.coords, exposures.about.coords)
            for name in ("dark_time", "exposure_time")
            if name in coords
        }
    )
    return np.broadcast_to(dark_times(known, overhead).values, exposures.labels.shape)


def matched_scales(
    exposures: Exposures, scales: Scales, amplifiers: Sequence[Amplifier]
) -> tuple[Exposures, NDArray[np.float64]]:
    """Return the exposures that have a scale, and the scales (exposure, amplifier or 1).

    Scales with labels are matched by them; exposures whose label has no scale are left out with
    a warning.
    """
    if not isinstance(scales, xr.DataArray):
        values = np.asarray(scales, np.float64)
        if values.shape != exposures.labels.shape:
            raise ValueError(
                f"scales have shape {values.shape}, there are {exposures.labels.size} exposures"
            )
        return exposures, values[:, None]
    if v.DETECTOR in scales.dims:
        detector = exposures.coords.get(v.DETECTOR)
        if detector is None:
            raise ValueError("scales are per detector, the exposures don't say which they are of")
        scales = _chosen(scales, v.DETECTOR, [detector.values[()]]).isel({v.DETECTOR: 0})
    if v.EXPOSURE not in scales.dims or set(scales.dims) - {v.EXPOSURE, v.AMP}:
        raise ValueError(
            f"scales must be over exposure, detector and amp at most, got {scales.dims}"
        )
    if v.AMP in scales.dims:
        if not amplifiers:
            raise ValueError("scales per amplifier need the amplifier table")
        scales = _chosen(scales, v.AMP, [row.name for row in amplifiers])
    else:
        scales = scales.expand_dims(v.AMP, -1)
    scales = scales.transpose(v.EXPOSURE, v.AMP)
    if v.EXPOSURE not in scales.coords:
        if scales.sizes[v.EXPOSURE] != exposures.labels.size:
            raise ValueError(
                f"there are {scales.sizes[v.EXPOSURE]} scales, {exposures.labels.size} exposures"
            )
        return exposures, scales.values.astype(np.float64)
    known = np.isin(exposures.labels, scales[v.EXPOSURE].values)
    if not known.any():
        raise ValueError("no inputs: none of the exposures has a scale")
    if not known.all():
        _warn_dropped(exposures.labels[~known], "have no scale")
    chosen = exposures.keep(known)
    return chosen, scales.sel({v.EXPOSURE: chosen.labels}).values.astype(np.float64)


def usable_scales(
    exposures: Exposures,
    scales: NDArray[np.float64],
    amplifiers: Sequence[Amplifier],
    *,
    skip: bool,
) -> tuple[Exposures, NDArray[np.float64]]:
    """Return exposures and scales that are positive numbers; NaN for amplifiers to be skipped.

    Raises
    ------
    ValueError
        If a scale is not a positive number and not to be skipped, naming exposure, amplifier and
        scale; or if none is left.
    """
    good = np.isfinite(scales) & (scales > 0)
    if good.all():
        return exposures, scales
    told = []
    for i, k in np.argwhere(~good):
        amp = f", amplifier {amplifiers[k].name}" if scales.shape[1] > 1 else ""
        told.append(f"exposure {exposures.labels[i]}{amp}: {scales[i, k]:g}")
    if not skip:
        raise ValueError(f"scales must be positive numbers; {'; '.join(told)}")
    some = np.asarray(good.any(axis=1))
    if not some.any():
        raise ValueError(f"no inputs: no exposure has a usable scale; {'; '.join(told)}")
    warnings.warn(
        f"scales that are not positive numbers are left out: {'; '.join(told)}",
        DroppedInputWarning,
        stacklevel=4,
    )
    return exposures.keep(some), np.where(good, scales, np.nan)[some]


def _chosen(
    scales: xr.DataArray, dim: Literal["detector", "amp"], labels: list[Any]
) -> xr.DataArray:
    """Return the scales of some detectors or amplifiers, in this order."""
    if dim not in scales.coords:
        raise ValueError(f"scales over {dim} must name them")
    missing = [str(label) for label in labels if label not in scales[dim].values]
    if missing:
        raise ValueError(f"there are no scales of {dim} {', '.join(missing)}")
    return scales.sel({dim: labels})


def _warn_dropped(labels: NDArray[Any], reason: str) -> None:
    names = ", ".join(str(label) for label in labels[:10]) + (", ..." if labels.size > 10 else "")
    warnings.warn(
        f"{labels.size} exposures {reason} and are left out: {names}",
        DroppedInputWarning,
        stacklevel=5,
    )
