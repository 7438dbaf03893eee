"""What a combined flat is divided by before images are divided by it."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Box, amplifier_rows
from skyloom.algorithms.flats.parameters import FlatStatisticsParameters
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["NORMALIZATION", "normalize_product"]

NORMALIZATION = "normalization"
MODES = ("focal_plane", "detector", "amp")


def normalize_product(
    flat: xr.Dataset,
    mode: Literal["focal_plane", "detector", "amp"],
    *,
    amplifiers: xr.Dataset | None = None,
    parameters: FlatStatisticsParameters | None = None,
) -> xr.Dataset:
    """Return a flat relative to the focal plane, to its detector or to its amplifiers.

    Parameters
    ----------
    flat : Dataset, (y, x)
        ``image`` as combined from scaled exposures, and if it has them ``variance`` and ``mask``.
    mode : {"focal_plane", "detector", "amp"}
        ``focal_plane`` keeps the response of the detector relative to others; ``detector``
        divides by the clipped mean; ``amp`` by that of each amplifier, which hides errors of gains
        and leaves steps between amplifiers in what is divided by it.
    amplifiers : Dataset over ``amp``, optional
        The amplifier table; needed for ``amp``.
    parameters : FlatStatisticsParameters, optional
        How means are taken.

    Returns
    -------
    Dataset
        Image and variance (by the square) divided; attribute ``normalization`` says by what, and
        ``normalization_level``, a number or one for each amplifier, how much. Where there is no
        positive mean to divide by, and outside all amplifiers, pixels are NaN and BAD.

    Raises
    ------
    ValueError
        If the mode is unknown, the flat was normalized before in another way, or the mode needs
        amplifiers.

    Warns
    -----
    UserWarning
        With mode ``amp``.

    Examples
    --------
    >>> flat = xr.Dataset({"image": (("y", "x"), np.full((4, 4), 0.8))})
    >>> relative = normalize_product(flat, "detector")
    >>> float(relative["image"].mean()), relative.attrs["normalization_level"]
    (1.0, 0.8)
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    before = flat.attrs.get(NORMALIZATION, "focal_plane")
    if before not in ("focal_plane", mode):
        raise ValueError(f"the flat was normalized by {before!r} before and cannot be by {mode!r}")
    if mode == "focal_plane" or before == mode:
        return flat.assign_attrs({NORMALIZATION: mode})
    parameters = parameters or FlatStatisticsParameters()
    shape = (flat.sizes[v.Y], flat.sizes[v.X])
    if mode == "detector":
        boxes = {"": Box(0, shape[0], 0, shape[1])}
    elif amplifiers is None:
        raise ValueError("mode 'amp' needs the amplifier table of the detector")
    else:
        boxes = {row.name: row.trimmed for row in amplifier_rows(amplifiers)}
        warnings.warn(
            "a flat divided by the mean of each amplifier hides errors of their gains",
            UserWarning,
            stacklevel=2,
        )
    image = flat["image"].transpose(v.Y, v.X).values
    good = None
    if v.MASK in flat:
        bits = v.plane_bits(parameters.ignored_planes, flat[v.MASK].attrs)
        good = (flat[v.MASK].transpose(v.Y, v.X).values & bits) == 0
    divisor = np.full(shape, np.nan)
    means: dict[str, float] = {}
    for name, box in boxes.items():
        part = box.slices
        mean = clipped_moments(
            image[part],
            None if good is None else good[part],
            clip=parameters.clip,
            iterations=parameters.iterations,
        ).mean
        means[name] = mean
        divisor[part] = mean if mean > 0 else np.nan
    result = _divided(flat, divisor)
    levels: Any = means[""] if mode == "detector" else list(means.values())
    return result.assign_attrs({NORMALIZATION: mode, "normalization_level": levels})


def _divided(flat: xr.Dataset, divisor: NDArray[np.float64]) -> xr.Dataset:
    """Return a flat divided pixel by pixel, its variance by the square."""
    by = xr.Variable((v.Y, v.X), divisor)
    names = [name for name in ("image", "variance") if name in flat]
    result = flat.copy()
    for name in names:
        old = flat[name]
        power = by if name == "image" else by**2
        new = (old / power).astype(old.dtype).transpose(*old.dims)
        result[name] = new.assign_attrs(old.attrs)
    if v.MASK in flat and np.isnan(divisor).any():
        old = flat[v.MASK]
        lost = xr.Variable((v.Y, v.X), np.isnan(divisor))
        bad = (lost * v.plane_bits(["BAD"], old.attrs)).astype(old.dtype)
        result[v.MASK] = (old | bad).transpose(*old.dims).assign_attrs(old.attrs)
    return result
