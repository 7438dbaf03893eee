"""Images and backgrounds that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from skyloom.algorithms import vocabulary as v

STYLES = ("constant", "constant_compat", "linear", "natural_spline", "akima")


def exposure(
    height: int = 96, width: int = 128, *, seed: int = 0, masked: float = 0.1
) -> xr.Dataset:
    """Return an exposure of 1000 ± 30 electron with a masked and a NaN fraction."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000.0, 30.0, (height, width)).astype(np.float32)
    image[rng.random(image.shape) < 0.01] = np.nan
    mask = np.where(rng.random(image.shape) < masked, v.MASK_PLANES["DETECTED"], 0)
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": "electron"}),
            "variance": (("y", "x"), np.full_like(image, 900.0), {"units": "electron2"}),
            "mask": (("y", "x"), mask.astype(np.int32), v.mask_attributes()),
        },
        attrs={"note": "kept"},
    )


def image_of(values: ArrayLike, *, y: int = 0, x: int = 0) -> xr.DataArray:
    """Return pixels as a float32 image whose first is at parent pixel (y, x)."""
    pixels = np.asarray(values, np.float32)
    rows, columns = np.arange(y, y + pixels.shape[0]), np.arange(x, x + pixels.shape[1])
    return xr.DataArray(pixels, dims=("y", "x"), coords={"y": rows, "x": columns})


def bins_of(level: ArrayLike, box: Sequence[int], **others: Any) -> xr.Dataset:
    """Return levels, and other variables over bins, as a background that tiles a box."""
    dims = ("bin_y", "bin_x")
    variables = {"level": (dims, np.asarray(level, np.float32), {"units": "electron"})}
    variables |= {name: (dims, np.asarray(values)) for name, values in others.items()}
    return xr.Dataset(variables, attrs={"box": list(box)})


def random_bins(
    rows: int = 7, columns: int = 9, box: Sequence[int] = (0, 70, 0, 93), *, seed: int = 0
) -> xr.Dataset:
    """Return bins of 100 ± 5 electron."""
    return bins_of(np.random.default_rng(seed).normal(100.0, 5.0, (rows, columns)), box)
