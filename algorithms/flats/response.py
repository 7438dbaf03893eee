"""Pixels and amplifiers of a combined flat that hardly respond: not fit to divide by."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.errors import SkyloomWarning

__all__ = ["UnresponsiveWarning", "flag_unresponsive"]


class UnresponsiveWarning(SkyloomWarning):
    """Amplifiers do not respond to light."""


def flag_unresponsive(
    flat: xr.Dataset, lowest: float, *, amplifiers: xr.Dataset | None = None
) -> xr.Dataset:
    """Mark the pixels of a flat whose response is low as BAD.

    Parameters
    ----------
    flat : Dataset, (y, x)
        ``image``, response relative to the focal plane, and ``mask``.
    lowest : float
        Lower responses are BAD.
    amplifiers : Dataset over ``amp``, optional
        The amplifier table; those of which half the pixels or more are below are named.

    Returns
    -------
    Dataset
        The flat with other planes; values stay as they were measured.

    Raises
    ------
    KeyError
        If the flat has no mask, or its mask no plane BAD.

    Warns
    -----
    UnresponsiveWarning
        Names amplifiers that do not respond.

    Examples
    --------
    >>> flat = xr.Dataset({"image": (("y", "x"), [[1.0, 0.01]])})
    >>> flat["mask"] = (("y", "x"), np.zeros((1, 2), "int32"), v.mask_attributes())
    >>> flag_unresponsive(flat, 0.1)["mask"].values.tolist()
    [[0, 1]]
    """
    if v.MASK not in flat:
        raise KeyError(f"the flat has no variable {v.MASK!r}, it has {list(flat.data_vars)}")
    old = flat[v.MASK]
    bad = v.plane_bits(["BAD"], old.attrs)
    low = (flat["image"] < lowest).transpose(*old.dims)
    silent = [
        row.name
        for row in ([] if amplifiers is None else amplifier_rows(amplifiers))
        if row.trimmed.size and low.transpose(v.Y, v.X).values[row.trimmed.slices].mean() >= 0.5
    ]
    if silent:
        warnings.warn(
            f"amplifiers {', '.join(silent)} respond with less than {lowest:g} of the focal "
            "plane's mean in half their pixels or more; these are BAD",
            UnresponsiveWarning,
            stacklevel=2,
        )
    planes = old.values | np.where(low.values, bad, 0).astype(old.dtype)
    return flat.assign({v.MASK: old.copy(data=planes)})
