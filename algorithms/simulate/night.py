"""A night of raw frames of a mosaic camera, with known truth.

In order: light of the sky (level times gradients plus the sky pattern), stars and galaxies,
satellites; times the flat of the filter; dark current; photon noise; cosmic rays; full well and
bleeding along columns; nonlinearity; crosstalk; then the read-out with its bias level, structure
and drift, row noise, read noise and digitisation. A frame depends on its row of the plan, the truth
of its detector and the scene only, so frames can be made in any order, in any number of processes,
with the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.simulate.light import (
    has_pointing,
    light_gradient,
    objects_image,
    row_plane,
    satellites_image,
)
from skyloom.algorithms.simulate.night_parameters import NightParameters
from skyloom.algorithms.simulate.night_plan import PLAN_UNITS
from skyloom.algorithms.simulate.night_truth import sky_pattern
from skyloom.algorithms.simulate.rays import cosmic_rays
from skyloom.algorithms.simulate.readout import Channel, PixelType, converted, raw_shape, read_out
from skyloom.algorithms.simulate.scene import night_scene
from skyloom.algorithms.simulate.stamps import bleed
from skyloom.algorithms.simulate.truth import generator

__all__ = ["night_exposure_truth", "simulate_night", "simulate_night_exposure"]

Floats = NDArray[np.float64]

LISTED: Final = (
    "exposure_time",
    "dark_time",
    "mjd_start",
    "observation_type",
    v.FILTER,
    "right_ascension",
    "declination",
    "rotator_angle",
    "airmass",
    "altitude",
    "hour_angle",
    "temperature",
    "pressure",
    "humidity",
    "seeing",
    "zero_point",
    "flux",
)
"""What a frame tells of its exposure, as the headers of an observatory would."""


class _Light(NamedTuple):
    """What falls on a detector and what it becomes, electron, in trimmed orientation."""

    background: Floats
    objects: Floats
    satellites: Floats
    cosmic_rays: Floats
    expected: Floats


def _light(
    row: xr.Dataset, truth: xr.Dataset, scene: xr.Dataset | None, parameters: NightParameters
) -> _Light:
    shape = truth.sizes[v.Y], truth.sizes[v.X]
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    background, objects, satellites = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    expected = truth["dark_image"].to_numpy() * float(row["dark_time"])
    name, level = str(row[v.FILTER].to_numpy()), float(row["level"])
    if name:
        background = level * light_gradient(row, truth, y, x)
        if has_pointing(row):
            background += level * sky_pattern(truth, y, x, name)
            plane = row_plane(row, truth)
            if scene is not None and scene.sizes["source"]:
                objects = objects_image(row, plane, shape, scene, parameters)
            satellites = satellites_image(row, truth, plane, shape, parameters)
        flat = truth["flat"].sel({v.FILTER: name}).to_numpy()
        light = background + objects
        light += satellites
        light *= flat
        light += expected
        expected = light
    rng = generator(int(row["seed"]), str(truth.attrs[v.DETECTOR]), "cosmic_rays")
    rays = cosmic_rays(
        shape,
        parameters.cosmic_ray_rate * float(row["dark_time"]) * shape[0] * shape[1],
        rng,
        charge=parameters.cosmic_ray_charge,
        length=parameters.cosmic_ray_length,
    )
    return _Light(background, objects, satellites, rays, np.maximum(expected, 0.0))


def _charge(
    row: xr.Dataset,
    truth: xr.Dataset,
    rows: list[Amplifier],
    light: _Light,
    parameters: NightParameters,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what pixels hold at the end of the exposure, electron, and where they are full."""
    rng = generator(int(row["seed"]), str(truth.attrs[v.DETECTOR]), "photons")
    charge = np.array(light.expected)
    if parameters.noise:
        charge = rng.poisson(charge).astype(np.float64)
    charge += light.cosmic_rays
    well = np.empty(charge.shape)
    for amplifier in rows:
        full = truth["full_well"].sel({v.AMP: amplifier.name})
        well[amplifier.trimmed.slices] = float(full)
    bleed(charge, well)
    return charge, charge >= well


def simulate_night_exposure(
    plan: xr.Dataset,
    exposure: int,
    amplifiers: xr.Dataset,
    truth: xr.Dataset,
    scene: xr.Dataset | None = None,
    *,
    shape: tuple[int, int] | None = None,
    parameters: NightParameters | None = None,
) -> xr.Dataset:
    """Simulate one exposure of a night with one detector.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `night_plan` returns.
    exposure : int
        Number of the exposure.
    amplifiers : Dataset, (amp)
        Amplifier table of the detector.
    truth : Dataset
        Truth of the detector by `night_truth`.
    scene : Dataset, (physical_filter, source), optional
        Stars and galaxies by `night_scene`; an empty sky without it.
    shape : (int, int), optional
        Raw shape (y, x) of the detector; without it the sections end where the array ends.
    parameters : NightParameters, optional
        Noise, point-spread function, cosmic rays, read-out.

    Returns
    -------
    Dataset, (y, x)
        ``image`` in adu with the scalar coordinates of a raw exposure, among them pointing,
        airmass and dark time. An exposure of the sky also has the FITS keys of its
        projection, as JSON text in ``wcs``; they hold for trimmed pixels.

    Raises
    ------
    KeyError
        If the plan has no such exposure or the truth lacks its filter.
    ValueError
        If the truth does not describe the amplifiers, the raw shape is too small, or amplifiers
        with crosstalk differ in shape.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid, night_plan, night_truth
    >>> table = amplifier_grid("A", (1, 2), (64, 32), overscan=8)
    >>> truth = night_truth({"A": table}, {"A": detector_transform((64, 64), pixel_size=0.015)})
    >>> plan = night_plan(biases=0, darks=0, flats=0, science=1, seed=1)
    >>> frame = simulate_night_exposure(plan, 1, table, truth["A"])
    >>> dict(frame.sizes), frame.image.dtype.name, str(frame.physical_filter.values)
    ({'y': 64, 'x': 80}, 'uint16', 'r')
    """
    parameters = parameters or NightParameters()
    row = _planned(plan, exposure)
    rows = amplifier_rows(amplifiers)
    _check(truth, rows)
    light = _light(row, truth, scene, parameters)
    charge, _ = _charge(row, truth, rows, light, parameters)
    sections = _sections(charge, rows, truth)
    image = np.full(raw_shape(rows, shape), float(truth["bias_level"].mean()))
    bias = truth["bias_image"].to_numpy().astype(np.float64)
    detector = str(truth.attrs[v.DETECTOR])
    dtype: PixelType = parameters.dtype if parameters.noise else "float32"
    for amplifier, section in zip(rows, sections, strict=True):
        own = truth.sel({v.AMP: amplifier.name})
        channel = Channel(
            gain=float(own["gain"]),
            noise=float(own["noise"]) if parameters.noise else 0.0,
            bias_level=float(own["bias_level"]),
        )
        read_out(
            image,
            amplifier,
            channel,
            section,
            generator(int(row["seed"]), detector, "read", amplifier.name),
            pattern=bias[amplifier.trimmed.slices][amplifier.turn],
            bias_drift=parameters.bias_drift,
            row_noise=parameters.row_noise,
            dtype=dtype,
        )
    return xr.Dataset(
        {"image": ((v.Y, v.X), converted(image, dtype), {"units": v.ADU})},
        coords={**_coordinates(row, truth), v.DETECTOR: detector},
    )


def _planned(plan: xr.Dataset, exposure: int) -> xr.Dataset:
    if exposure not in plan[v.EXPOSURE].to_numpy():
        raise KeyError(f"the plan has no exposure {exposure}")
    return plan.sel({v.EXPOSURE: exposure})


def _check(truth: xr.Dataset, rows: list[Amplifier]) -> None:
    needed = ("gain", "noise", "full_well", "bias_level", "bias_image", "dark_image", "flat")
    problems = [f"truth lacks {name!r}" for name in needed if name not in truth]
    known = {str(name) for name in truth[v.AMP].to_numpy()} if v.AMP in truth.coords else set()
    missing = [row.name for row in rows if row.name not in known]
    if missing:
        problems.append(f"truth lacks the amplifiers {', '.join(missing)}")
    expected, found = trimmed_shape(rows), (truth.sizes.get(v.Y), truth.sizes.get(v.X))
    if expected != found:
        problems.append(f"the truth has the shape {found}, the amplifiers {expected}")
    if problems:
        raise ValueError("; ".join(problems))


def _sections(charge: Floats, rows: list[Amplifier], truth: xr.Dataset) -> list[Floats]:
    """Return what each amplifier reads, electron, in the order of read-out."""
    sections = []
    for row in rows:
        own = truth.sel({v.AMP: row.name})
        section = charge[row.trimmed.slices][row.turn]
        sections.append(section * (1 - float(own["nonlinearity"]) * section))
    gains = [float(truth["gain"].sel({v.AMP: row.name})) for row in rows]
    talk = truth["crosstalk"].sel(
        {v.AMP: [row.name for row in rows], "source_amp": [row.name for row in rows]}
    )
    coefficients = talk.transpose(v.AMP, "source_amp").to_numpy()
    if not coefficients.any():
        return sections
    if len({section.shape for section in sections}) > 1:
        raise ValueError("amplifiers with crosstalk must have data sections of one shape")
    signals = np.array([section / gain for section, gain in zip(sections, gains, strict=True)])
    return [
        section + gain * np.tensordot(own, signals, 1)
        for section, gain, own in zip(sections, gains, coefficients, strict=True)
    ]


def _coordinates(row: xr.Dataset, truth: xr.Dataset) -> dict[str, Any]:
    coordinates: dict[str, Any] = {
        v.EXPOSURE: ((), np.int64(int(row[v.EXPOSURE])), {"units": v.DIMENSIONLESS})
    }
    for name in LISTED:
        value = row[name].to_numpy()[()]
        if name in PLAN_UNITS:
            coordinates[name] = ((), float(value), {"units": PLAN_UNITS[name]})
        else:
            coordinates[name] = str(value)
    if has_pointing(row):
        keys = row_plane(row, truth).header()
        coordinates[v.WCS] = json.dumps(keys, separators=(",", ":"))
    return coordinates


def night_exposure_truth(
    plan: xr.Dataset,
    exposure: int,
    amplifiers: xr.Dataset,
    truth: xr.Dataset,
    scene: xr.Dataset | None = None,
    *,
    parameters: NightParameters | None = None,
) -> xr.Dataset:
    """Return what an exposure really shows on one detector, in trimmed orientation.

    Parameters
    ----------
    plan, exposure, amplifiers, truth, scene, parameters
        As for `simulate_night_exposure`.

    Returns
    -------
    Dataset, (y, x)
        In electron, float32, before the response: ``background`` (the sky, or the lamp of a
        flat), ``objects``, ``satellites``; as charge: ``cosmic_rays`` and ``expected``, the mean
        charge without cosmic rays, flat * (background + objects + satellites) + dark.
        ``mask`` (int32) has BAD (defects), SAT (full wells) and COSMIC_RAY. Coordinates as those
        of the frame.

    Raises
    ------
    KeyError, ValueError
        As `simulate_night_exposure`.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid, night_plan, night_truth
    >>> table = amplifier_grid("A", (1, 2), (64, 32), overscan=8)
    >>> truth = night_truth({"A": table}, {"A": detector_transform((64, 64), pixel_size=0.015)})
    >>> plan = night_plan(biases=0, darks=0, flats=0, science=1, seed=1)
    >>> found = night_exposure_truth(plan, 1, table, truth["A"])
    >>> ratio = float(found.background.mean()) / float(plan.level[0])
    >>> bool(abs(ratio - 1) < 0.02)
    True
    """
    parameters = parameters or NightParameters()
    row = _planned(plan, exposure)
    rows = amplifier_rows(amplifiers)
    _check(truth, rows)
    light = _light(row, truth, scene, parameters)
    _, full = _charge(row, truth, rows, light, parameters)
    planes = {
        "BAD": truth["defects"].to_numpy() > 0,
        "SAT": full,
        "COSMIC_RAY": light.cosmic_rays > 0,
    }
    mask = np.zeros(full.shape, dtype=np.int32)
    for name, where in planes.items():
        mask[where] |= v.MASK_PLANES[name]
    return xr.Dataset(
        {
            **{
                name: ((v.Y, v.X), image.astype(np.float32), {"units": v.ELECTRON})
                for name, image in light._asdict().items()
            },
            v.MASK: ((v.Y, v.X), mask, v.mask_attributes()),
        },
        coords={**_coordinates(row, truth), v.DETECTOR: str(truth.attrs[v.DETECTOR])},
    )


def simulate_night(
    plan: xr.Dataset,
    amplifiers: Mapping[str, xr.Dataset],
    truth: Mapping[str, xr.Dataset],
    scene: xr.Dataset | None = None,
    *,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    parameters: NightParameters | None = None,
) -> Iterator[xr.Dataset]:
    """Simulate every exposure of a night with every detector, one frame at a time.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `night_plan` returns.
    amplifiers : mapping of str to Dataset
        Amplifier table of each detector by its name.
    truth : mapping of str to Dataset
        What `night_truth` returns.
    scene : Dataset, (physical_filter, source), optional
        Stars and galaxies; drawn by `night_scene` with ``seed`` without it.
    seed : int
        Seed of the scene.
    shapes : mapping of str to (int, int), optional
        Raw shape of each detector, where it is larger than its sections.
    parameters : NightParameters, optional
        Noise, point-spread function, cosmic rays, read-out.

    Yields
    ------
    Dataset, (y, x)
        Raw frames, detector by detector within each exposure, see `simulate_night_exposure`.

    Raises
    ------
    KeyError
        If a detector has no truth.
    ValueError
        As `simulate_night_exposure`.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid, night_plan, night_truth
    >>> tables = {"A": amplifier_grid("A", (1, 2), (64, 32), overscan=8)}
    >>> truth = night_truth(tables, {"A": detector_transform((64, 64), pixel_size=0.015)})
    >>> plan = night_plan(biases=1, darks=1, flats=1, science=1, seed=1)
    >>> [str(frame.observation_type.values) for frame in simulate_night(plan, tables, truth)]
    ['bias', 'dark', 'flat', 'science']
    """
    missing = [name for name in amplifiers if name not in truth]
    if missing:
        raise KeyError(f"no truth for the detectors {', '.join(missing)}")
    field = night_scene(plan, truth, seed=seed) if scene is None else scene
    return (
        simulate_night_exposure(
            plan,
            int(exposure),
            table,
            truth[name],
            field,
            shape=(shapes or {}).get(name),
            parameters=parameters,
        )
        for exposure in plan[v.EXPOSURE].to_numpy()
        for name, table in amplifiers.items()
    )
