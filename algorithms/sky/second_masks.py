"""Objects found a second time, on exposures less the sky that first frames know of.

Structure of the sky looks like objects, and faint wings drown in it: masks found beside a first
sky frame cover more of the objects and less of the sky.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import render_background
from skyloom.algorithms.sky.focal_plane_background import focal_plane_on_detector
from skyloom.algorithms.sky.frames import sky_level_status
from skyloom.algorithms.sky.mask_parameters import MaskObjectsParameters
from skyloom.algorithms.sky.masking import mask_objects

__all__ = ["mask_objects_beside_sky"]


def mask_objects_beside_sky(
    exposure: xr.Dataset,
    sky_frame: xr.Dataset,
    model: xr.Dataset,
    transform: NDArray[np.float64],
    *,
    scale: float,
    detector: Any = None,
    parameters: MaskObjectsParameters | None = None,
) -> xr.DataArray | None:
    """Find the objects of one detector on what a first sky leaves of it.

    Parameters
    ----------
    exposure : Dataset, (y, x)
        ``image`` [any unit], and ``variance`` and ``mask`` if there are; the first pixel is that
        of the box of the sky frame.
    sky_frame : Dataset, (bin_y, bin_x)
        A first frame of the detector, of `average_backgrounds`.
    model : Dataset
        Smooth sky of the exposure across the focal plane, in units of the image, of
        `focal_plane_background` or `fit_visit_background`.
    transform : array, (2, 3), mm
        Takes pixels (x, y, 1) of the detector to the focal plane.
    scale : float, image units
        Sky level of the exposure, which the frame is in units of.
    detector : any, optional
        Name of the detector, or its type, needed where the model has steps.
    parameters : MaskObjectsParameters, optional

    Returns
    -------
    DataArray or None
        The new mask, as of `mask_objects`; None if there is no such sky: the scale is not
        positive, or nothing of the frame was measured.

    Raises
    ------
    KeyError
        If the model has steps but none for the detector, or the mask does not know a plane.
    ValueError
        If the image is missing or has not the shape of the box.

    Examples
    --------
    >>> from skyloom.algorithms.sky import FocalPlaneParameters, focal_plane_background
    >>> dims = ("bin_y", "bin_x")
    >>> level = xr.DataArray(np.full((4, 4), 100.0), dims=dims, attrs={"units": "electron"})
    >>> box = {"box": [0, 64, 0, 64]}
    >>> bins = xr.Dataset({"level": level, "count": (dims, np.full((4, 4), 256))}, attrs=box)
    >>> transform = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> cells = FocalPlaneParameters(cell_size=(64.0, 64.0))
    >>> sky = focal_plane_background({1: bins}, {1: transform}, parameters=cells)
    >>> frame = bins.assign(level=(dims, np.tile([-0.2, -0.1, 0.1, 0.2], (4, 1))))
    >>> image = 100.0 + np.random.default_rng(1).normal(0.0, 3.0, (64, 64))
    >>> image[20:30, 20:30] += 50.0
    >>> exposure = xr.Dataset({"image": (("y", "x"), image, {"units": "electron"})})
    >>> mask = mask_objects_beside_sky(exposure, frame, sky, transform, scale=1.0)
    >>> bool(mask[25, 25] != 0), bool(mask[50, 50] != 0)
    (True, False)
    """
    known = np.isfinite(sky_frame["level"].values).any()
    if not known or sky_level_status(scale) != v.SkyLevelStatus.OK:
        return None
    sky = focal_plane_on_detector(model, transform, sky_frame, detector=detector)
    level = sky["level"].values + scale * sky_frame["level"].values.astype(np.float64)
    shown = render_background(sky.assign(level=sky["level"].copy(data=level)))
    image = exposure["image"]
    if image.shape != shown.shape:
        raise ValueError(f"image has shape {image.shape}, the box of the sky frame {shown.shape}")
    seen = image.copy(data=image.values - shown.values)
    wanted = [name for name in ("variance", v.MASK) if name in exposure]
    return mask_objects(exposure[wanted].assign(image=seen), parameters=parameters)
