"""What steps read of the camera of a store: amplifiers, and where detectors lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.flows.step import Constant
from skyloom.storage.records import Label

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera
    from skyloom.storage.store import Store

__all__ = ["AMPLIFIERS", "PLACES", "detector_transforms", "geometry", "placement"]


def amplifier_table(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return the amplifier table of a block's detector."""
    return store.camera.amplifiers(str(block[v.DETECTOR]))


def placement(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return where a block's detector is: its centre (mm) and rotation (degree)."""
    detector = store.camera.detector(str(block[v.DETECTOR]))
    x, y = detector.offset_mm
    return xr.Dataset({"x": ((), x), "y": ((), y), "rotation": ((), detector.rotation)})


def detector_transforms(camera: Camera) -> dict[str, NDArray[np.float64]]:
    """Return the transform from trimmed pixels to the focal plane (mm) of each detector.

    Raises
    ------
    ConfigurationError
        If the camera does not say how large its pixels are.

    Examples
    --------
    >>> from skyloom.storage.camera import load_camera
    >>> detector_transforms(load_camera("simulated-sky"))["S00"].shape
    (2, 3)
    """
    if camera.pixel_size is None:
        raise ConfigurationError(
            f"places in the focal plane are needed, but the camera {camera.name} has no pixel_size"
        )
    return {
        detector.name: detector_transform(
            trimmed_shape(amplifier_rows(camera.amplifiers(detector.name))),
            pixel_size=1e-3 * camera.pixel_size,
            offset=detector.offset_mm,
            rotation=detector.rotation,
        )
        for detector in camera.detectors
    }


def geometry(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return where the detectors lie: ``transform`` (detector, row, column) and their shapes."""
    transforms = detector_transforms(store.camera)
    tables = {name: store.camera.amplifiers(name) for name in transforms}
    shapes = [[int(table[f"{axis}_stop"].max()) for axis in "yx"] for table in tables.values()]
    return xr.Dataset(
        {
            "transform": ((v.DETECTOR, "row", "column"), np.stack(list(transforms.values()))),
            "shape": ((v.DETECTOR, "axis"), np.array(shapes)),
        },
        coords={v.DETECTOR: list(transforms)},
    )


AMPLIFIERS = Constant("amplifiers", amplifier_table, (v.DETECTOR,))
PLACES = Constant("places", geometry)
