"""What a coadd consists of, and the rules by which planes are told."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.inputs import BAND, Warps
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.stack_arrays import as_bits
from skyloom.algorithms.units import inverse_units, squared_units

__all__ = ["Rules", "coadd_dataset", "inputs_table", "rules_of"]

KEPT_APART = ("NO_DATA", "EDGE", "CLIPPED")
"""Bad planes that are told by a plane of their own, and not as REJECTED."""


class Rules(NamedTuple):
    """The planes of some parameters as the kernels take them, see their constants."""

    bits: NDArray[np.int32]
    watched: NDArray[np.int32]
    fractions: NDArray[np.float64]
    dropped: np.int32


def rules_of(parameters: CoaddParameters) -> Rules:
    """Return the planes of some parameters as bits.

    Raises
    ------
    KeyError
        If a plane is unknown: a typing mistake would otherwise let bad pixels in.
    """
    bad = v.plane_bits(parameters.bad_planes)
    named = ("EDGE", "CLIPPED", "NO_DATA", "SENSOR_EDGE")
    bits = [bad, *(v.MASK_PLANES[name] for name in named)]
    bits += [bad & ~v.plane_bits(KEPT_APART), v.MASK_PLANES["REJECTED"]]
    bits += [v.MASK_PLANES["INEXACT_PSF"]]
    watched = sorted(parameters.propagated)
    return Rules(
        as_bits(*bits),
        as_bits(*(v.plane_bits([name]) for name in watched)),
        np.array([parameters.propagated[name] for name in watched], np.float64),
        as_bits(v.plane_bits(parameters.dropped_planes))[0],
    )


def inputs_table(warps: Warps, columns: dict[str, NDArray[Any]], units: str) -> xr.Dataset:
    """Return what is to be known of every warp, over ``visit``."""
    attrs: dict[str, dict[str, Any]] = {
        "weight": {"units": inverse_units(squared_units(units))},
        "mean_variance": {"units": squared_units(units)},
        "good_count": {"units": v.PIXEL},
        "scale": {"units": v.DIMENSIONLESS},
        "status": v.flag_attributes(v.InputStatus),
    }
    return xr.Dataset(
        {f"input_{name}": (v.VISIT, values, attrs[name]) for name, values in columns.items()},
        coords=warps.about.coords,
    )


def coadd_dataset(
    planes: dict[str, NDArray[Any]],
    shape: tuple[int, int],
    inputs: xr.Dataset,
    units: str,
    coords: dict[Any, Any],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Return a coadd from its planes and the table of its inputs."""
    weight = inputs["input_weight"].attrs["units"]
    about: dict[str, dict[str, Any]] = {
        "image": {"units": units},
        "variance": {"units": squared_units(units)},
        v.MASK: v.mask_attributes(),
        "n_image": {"units": v.DIMENSIONLESS},
        "weight_sum": {"units": weight},
    }
    data = {
        name: xr.DataArray(planes[name].reshape(shape), dims=(v.Y, v.X), attrs=about[name])
        for name in about
    }
    band = {BAND: str(coords[BAND].item())} if BAND in coords else {}
    made = xr.Dataset(data, attrs=attrs | band)
    return made.assign(dict(inputs.data_vars)).assign_coords(coords)
