"""What steps read of the camera of a store: amplifiers, and where detectors lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Box, amplifier_rows, trimmed_shape
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.flows.step import Constant
from skyloom.storage.records import Label

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera
    from skyloom.storage.store import Store

__all__ = [
    "AMPLIFIERS",
    "CHANNELS",
    "PLACES",
    "channels",
    "detector_transforms",
    "geometry",
    "placement",
]


def amplifier_table(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return the amplifier table of a block's detector, which names its camera."""
    table = store.camera.amplifiers(str(block[v.DETECTOR]))
    return table.assign_attrs(camera=store.camera.name)


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


def channels(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return which amplifiers detectors have, and where the centres of both lie.

    ``exists`` (detector, amp); ``focal_x`` and ``focal_y`` (detector) and ``amp_focal_x`` and
    ``amp_focal_y`` (detector, amp) in mm, NaN if the camera has no pixel size. An amplifier that
    a detector does not have lies at its centre.
    """
    camera = store.camera
    names, amps = list(camera.detector_names()), list(camera.amplifier_names())
    transforms = {} if camera.pixel_size is None else detector_transforms(camera)
    exists = np.zeros((len(names), len(amps)), np.bool_)
    centres = np.full((2, len(names)), np.nan)
    amp_centres = np.full((2, len(names), len(amps)), np.nan)
    for i, name in enumerate(names):
        rows = amplifier_rows(camera.amplifiers(name))
        transform = transforms.get(name, np.full((2, 3), np.nan))
        height, width = trimmed_shape(rows)
        centres[:, i] = transform @ _middle(Box(0, height, 0, width))
        amp_centres[:, i] = centres[:, i, None]
        for row in rows:
            exists[i, amps.index(row.name)] = True
            amp_centres[:, i, amps.index(row.name)] = transform @ _middle(row.trimmed)
    both = (v.DETECTOR, v.AMP)
    return xr.Dataset(
        {
            "exists": (both, exists),
            v.FOCAL_X: (v.DETECTOR, centres[0]),
            v.FOCAL_Y: (v.DETECTOR, centres[1]),
            f"amp_{v.FOCAL_X}": (both, amp_centres[0]),
            f"amp_{v.FOCAL_Y}": (both, amp_centres[1]),
        },
        coords={v.DETECTOR: names, v.AMP: amps},
    )


def _middle(box: Box) -> tuple[float, float, float]:
    """Return the centre of a box as a transform takes it."""
    return (box.x_start + box.x_stop - 1) / 2, (box.y_start + box.y_stop - 1) / 2, 1.0


AMPLIFIERS = Constant("amplifiers", amplifier_table, (v.DETECTOR,))
PLACES = Constant("places", geometry)
CHANNELS = Constant("channels", channels)
