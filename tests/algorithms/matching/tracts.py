"""Small tracts and warps cut from images of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.skymap import SkyMapParameters, Tract, discrete_skymap, tract_wcs

__all__ = ["LEGACY", "WITH_CELLS", "cut_warps", "one_warp"]

RADIUS = (550 * 0.2) / 3600


def small_tract(**patches: Any) -> Tract:
    """Return a tract of 4 x 4 patches of 300 pixels."""
    parameters = SkyMapParameters(tract_overlap=0.0, **patches)
    return discrete_skymap([(150.0, 2.0, RADIUS)], parameters=parameters)[0]


LEGACY = small_tract(patch_shape=(300, 300), patch_border=30)
WITH_CELLS = small_tract(
    patches="cells", cell_size=25, cells_per_patch=12, border_cells=1, cell_border=10
)


def one_warp(
    image: NDArray[Any],
    tract: Tract,
    patch: int,
    visit: int = 1,
    *,
    mask: NDArray[Any] | None = None,
    margin: int = 50,
) -> xr.Dataset:
    """Return the warp of a patch, cut from an image of the tract with a margin around it."""
    chosen = tract.patch(patch)
    box = chosen.outer
    part = (
        slice(box.y_start + margin, box.y_stop + margin),
        slice(box.x_start + margin, box.x_stop + margin),
    )
    warp = xr.Dataset(
        {"image": (("y", "x"), np.asarray(image[part], np.float32), {"units": "nJy"})},
        {"visit": visit, "tract": tract.index, "patch": patch, "band": "r"},
        {"box": list(box), "wcs": tract_wcs(tract).header()},
    )
    if mask is not None:
        warp["mask"] = (("y", "x"), np.asarray(mask[part], np.int32), v.mask_attributes())
    return warp


def cut_warps(
    image: NDArray[Any], tract: Tract, visit: int = 1, *, mask: NDArray[Any] | None = None
) -> list[xr.Dataset]:
    """Return the warps of all patches; the image has a margin of 50 pixels around the tract."""
    return [one_warp(image, tract, patch, visit, mask=mask) for patch in range(tract.patch_count)]
