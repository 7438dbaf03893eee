"""A simulated night as the FITS files of a camera: what demos and tests start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.simulate import (
    SceneParameters,
    night_scene,
    night_truth,
    simulate_night_exposure,
)
from skyloom.algorithms.vocabulary import EXPOSURE
from skyloom.flows.scheduler import Threads
from skyloom.flows.spread import spread
from skyloom.storage.raw_fits import write_raw_fits

if TYPE_CHECKING:
    from skyloom.flows.progress import Observer
    from skyloom.storage.camera import Camera

__all__ = ["SimulatedNight", "detector_transforms", "simulated_night", "write_night"]


class SimulatedNight(NamedTuple):
    """A plan of exposures, the truth of each detector, and what is on the sky."""

    camera: Camera
    plan: xr.Dataset
    truth: dict[str, xr.Dataset]
    scene: xr.Dataset


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


def simulated_night(
    camera: Camera,
    plan: xr.Dataset,
    filters: tuple[str, ...],
    *,
    seed: int,
    scene: SceneParameters | None = None,
) -> SimulatedNight:
    """Return a night of a camera: its plan, the truth of its detectors, and the sky.

    Parameters
    ----------
    camera : Camera
        Whose detectors are simulated.
    plan : Dataset, (exposure)
        As `night_plan` makes it.
    filters : tuple of str
        Filters that the truth is drawn for.
    seed : int
        Seed of the whole simulation.
    scene : SceneParameters, optional
        What is on the sky.
    """
    tables = {name: camera.amplifiers(name) for name in camera.detector_names()}
    drawn = night_truth(tables, detector_transforms(camera), list(filters), seed=seed)
    sky = night_scene(plan, drawn, seed=seed, parameters=scene)
    return SimulatedNight(camera, plan, dict(drawn), sky)


def write_night(
    folder: Path, night: SimulatedNight, observer: Observer, *, workers: int | None = None
) -> None:
    """Write the exposures of a night that are not there yet, one FITS file each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {int(number): folder / f"{int(number):04d}.fits" for number in night.plan[EXPOSURE]}
    missing = {number: path for number, path in paths.items() if not path.exists()}
    observer.begin({"simulate": len(missing)})
    try:
        spread(
            Threads(threads=workers),
            _write_exposure,
            [(path, night, number) for number, path in missing.items()],
            list(map(str, missing.values())),
            observer,
            "simulate",
        )
    finally:
        observer.end()


def _write_exposure(path: Path, night: SimulatedNight, number: int) -> None:
    """Write one exposure, complete or not at all."""
    raws: Mapping[str, xr.Dataset] = {
        name: simulate_night_exposure(
            night.plan,
            number,
            night.camera.amplifiers(name),
            truth,
            night.scene,
            shape=night.camera.detector(name).shape,
        )
        for name, truth in night.truth.items()
    }
    partial = path.with_suffix(".partial")
    write_raw_fits(partial, night.camera, raws, overwrite=True)
    partial.rename(path)
