"""Calibration frames as the chain takes them: checked against the frame they are applied to.

A calibration is a dataset in trimmed orientation with ``image`` (y, x), and perhaps ``variance``
and ``mask``. What it says of itself, as scalar coordinates or attributes, has to agree with the
raw frame: ``detector``, ``camera`` and, for flats, ``physical_filter``. ``id`` names it in
``attrs["applied"]``. What is not said is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v

__all__ = [
    "CALIBRATION_PLANES",
    "calibration_id",
    "calibration_problems",
    "check_calibrations",
    "own_planes",
    "pixels",
    "told",
]

CALIBRATION_PLANES: Final = ("BAD", "SUSPECT", "VIGNETTED", "PARTLY_VIGNETTED")
"""Mask planes that a frame takes over from its calibrations: those that are true of the pixel."""


def told(data: xr.Dataset | xr.DataArray, name: str) -> str:
    """Return what a dataset says of itself under a name, as coordinate or attribute; '' if nothing.

    Examples
    --------
    >>> told(xr.Dataset(attrs={"detector": "S00"}), "detector")
    'S00'
    """
    if name in data.coords and data.coords[name].ndim == 0:
        return str(data.coords[name].values)
    return str(data.attrs.get(name, ""))


def calibration_id(data: xr.Dataset | xr.DataArray) -> str:
    """Return the id of a calibration, or 'without id'."""
    return told(data, "id") or "without id"


def calibration_problems(
    kind: str,
    calibration: xr.Dataset,
    raw: xr.Dataset,
    *,
    detector: str,
    shape: tuple[int, int],
    units: Iterable[str],
) -> list[str]:
    """Return everything that forbids to apply a calibration to a frame, as sentences."""
    if "image" not in calibration:
        return [f"{kind} {calibration_id(calibration)} has no variable 'image'"]
    problems = []
    names = {v.DETECTOR: detector, "camera": told(raw, "camera")}
    if kind in ("flat", "fringe"):
        names[v.FILTER] = told(raw, v.FILTER)
    for name, wanted in names.items():
        found = told(calibration, name)
        if found and wanted and found != wanted:
            problems.append(f"{kind} is of {name} {found!r}, the frame of {wanted!r}")
    image = calibration["image"]
    if set(image.dims) != {v.Y, v.X}:
        problems.append(f"{kind} has dimensions {image.dims}, needs ('y', 'x')")
    elif (image.sizes[v.Y], image.sizes[v.X]) != shape:
        found_shape = image.sizes[v.Y], image.sizes[v.X]
        problems.append(f"{kind} has shape {found_shape}, the trimmed frame {shape}")
    allowed = tuple(units)
    if image.attrs.get("units", allowed[0]) not in allowed:
        problems.append(
            f"{kind} has units {image.attrs['units']!r}, needs {' or '.join(map(repr, allowed))}"
        )
    return problems


def check_calibrations(
    exposure: xr.Dataset,
    given: Mapping[str, xr.Dataset],
    shape: tuple[int, int],
    *,
    detector: str = "",
    dark_units: Iterable[str] = (v.ADU_PER_SECOND, v.ELECTRON_PER_SECOND),
    fringe_units: Iterable[str] = (v.DIMENSIONLESS,),
    problems: Iterable[str] = (),
) -> None:
    """Raise one ValueError with all that forbids to apply calibrations to an exposure.

    Parameters
    ----------
    exposure : Dataset
        What it is of: see the module.
    given : mapping of str to Dataset
        Calibrations by their kind: bias, dark, flat, fringe.
    shape : (int, int)
        Shape of the trimmed detector.
    detector : str
        Detector of the exposure, where that does not say.
    dark_units, fringe_units : iterable of str
        Units that these may be in.
    problems : iterable of str
        Further problems to report.
    """
    units = {
        "bias": (v.ADU,),
        "dark": dark_units,
        "flat": (v.DIMENSIONLESS,),
        "fringe": fringe_units,
    }
    found = list(problems)
    for kind, calibration in given.items():
        found += calibration_problems(
            kind,
            calibration,
            exposure,
            detector=told(exposure, v.DETECTOR) or detector,
            shape=shape,
            units=units[kind],
        )
    if found:
        raise ValueError("; ".join(found))


def pixels(calibration: xr.Dataset | None, name: str) -> xr.DataArray | None:
    """Return a plane of a calibration as float32 (y, x), if it has it."""
    if calibration is None or name not in calibration:
        return None
    return calibration[name].transpose(v.Y, v.X).astype(np.float32, copy=False)


def own_planes(
    mask: xr.DataArray | None, planes: Iterable[str] = CALIBRATION_PLANES
) -> xr.DataArray | None:
    """Return a mask that holds some planes by skyloom's own legend, int32; None without a mask.

    Other bits may be set in it too.

    Examples
    --------
    >>> foreign = xr.DataArray(
    ...     np.array([[4, 1]]), dims=("y", "x"),
    ...     attrs={"flag_masks": [4, 1], "flag_meanings": "BAD OTHER"},
    ... )
    >>> own_planes(foreign).values.tolist()
    [[1, 0]]
    """
    if mask is None:
        return None
    if mask.dtype.kind not in "iu":
        raise TypeError(f"mask must hold integer bit planes, got dtype {mask.dtype}")
    mask = mask.transpose(..., v.Y, v.X)
    legend = mask.attrs.get("flag_meanings", " ".join(v.MASK_PLANES)).split()
    wanted = [name for name in planes if name in legend]
    translation = [(v.plane_bits([name], mask.attrs), v.MASK_PLANES[name]) for name in wanted]
    if mask.dtype == np.int32 and all(theirs == ours for theirs, ours in translation):
        return mask  # its other planes are left out where it is used
    translated: xr.DataArray = xr.apply_ufunc(
        _translated,
        mask,
        kwargs={"translation": translation},
        dask="parallelized",
        output_dtypes=[np.int32],
    )
    return translated


def _translated(values: NDArray[Any], translation: list[tuple[int, int]]) -> NDArray[np.int32]:
    out = np.zeros(values.shape, np.int32)
    for theirs, ours in translation:
        out[(values & values.dtype.type(theirs)) != 0] |= np.int32(ours)
    return out
