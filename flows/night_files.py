"""A simulated night as the FITS files of a camera: what demos and tests start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from skyloom.algorithms.simulate import (
    NightParameters,
    SceneParameters,
    night_scene,
    night_truth,
    simulate_night_exposure,
)
from skyloom.algorithms.vocabulary import EXPOSURE
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.scheduler import Threads
from skyloom.flows.spread import spread
from skyloom.storage.raw_fits import write_raw_fits

if TYPE_CHECKING:
    from skyloom.flows.progress import Observer
    from skyloom.storage.camera import Camera

__all__ = ["SimulatedNight", "simulated_night", "write_exposures", "write_night"]


class SimulatedNight(NamedTuple):
    """A plan of exposures, the truth of each detector, and what is on the sky.

    ``parameters`` say what frames show besides, such as pass-bands in which light is dispersed.
    """

    camera: Camera
    plan: xr.Dataset
    truth: dict[str, xr.Dataset]
    scene: xr.Dataset
    parameters: NightParameters = NightParameters()


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
    make = partial(_simulate, night)
    write_exposures(
        folder, night.camera, night.plan[EXPOSURE].values, make, observer, workers=workers
    )


def _simulate(night: SimulatedNight, number: int) -> Mapping[str, xr.Dataset]:
    return {
        name: simulate_night_exposure(
            night.plan,
            number,
            night.camera.amplifiers(name),
            truth,
            night.scene,
            shape=night.camera.detector(name).shape,
            parameters=night.parameters,
        )
        for name, truth in night.truth.items()
    }


def write_exposures(
    folder: Path,
    camera: Camera,
    numbers: Iterable[int],
    make: Callable[[int], Mapping[str, xr.Dataset]],
    observer: Observer,
    *,
    workers: int | None = None,
) -> None:
    """Write simulated exposures that are not there yet, one FITS file each.

    Parameters
    ----------
    folder : Path
        Where the files go; made if need be.
    camera : Camera
        Whose files they are.
    numbers : iterable of int
        Numbers of the exposures.
    make : callable
        Makes the raw frames of an exposure, by detector.
    observer : Observer
        Is told of the progress.
    workers : int, optional
        Exposures at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {int(number): folder / f"{int(number):04d}.fits" for number in numbers}
    missing = {number: path for number, path in paths.items() if not path.exists()}
    observer.begin({"simulate": len(missing)})
    try:
        spread(
            Threads(threads=workers),
            _write_exposure,
            [(path, camera, make, number) for number, path in missing.items()],
            list(map(str, missing.values())),
            observer,
            "simulate",
        )
    finally:
        observer.end()


def _write_exposure(
    path: Path, camera: Camera, make: Callable[[int], Mapping[str, xr.Dataset]], number: int
) -> None:
    """Write one exposure, complete or not at all."""
    partial_file = path.with_suffix(".partial")
    write_raw_fits(partial_file, camera, make(number), overwrite=True)
    partial_file.rename(path)
