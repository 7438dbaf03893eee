"""Frames of a simulated night against their truth, with more realisations than a test affords."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import xarray as xr
from scipy.ndimage import center_of_mass

from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.simulate import (
    CameraParameters,
    NightParameters,
    PlanParameters,
    amplifier_grid,
    exposure_plane,
    light_gradient,
    night_exposure_truth,
    night_plan,
    night_scene,
    night_truth,
    simulate_night_exposure,
    sky_pattern,
)
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

SIZE = 512
SEED = 11
NAMES = ("A", "B")
QUIET = NightParameters(bias_drift=0, row_noise=0, cosmic_ray_rate=0)


def tables(size: int = SIZE) -> dict[str, xr.Dataset]:
    """Return two detectors of four amplifiers, flipped as cameras have them."""
    half = size // 2
    made = {
        name: amplifier_grid(name, (2, 2), (half, half), overscan=32, saturation=60000)
        for name in NAMES
    }
    flips = {"flip_x": ("amp", [False, True] * 2), "flip_y": ("amp", [False, False, True, True])}
    return {name: table.assign(flips) for name, table in made.items()}


def transforms(size: int = SIZE) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Return two neighbours, one of them turned by 180 degrees."""
    half = size * 0.015 / 2 + 0.3
    return {
        "A": detector_transform((size, size), pixel_size=0.015, offset=(-half, 0)),
        "B": detector_transform((size, size), pixel_size=0.015, offset=(half, 0), rotation=180),
    }


def trimmed(frame: xr.Dataset, table: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
    """Return electrons in trimmed orientation, by the true level, structure and gain."""
    image = np.zeros((truth.sizes["y"], truth.sizes["x"]))
    gain = np.zeros(image.shape)
    for row in amplifier_rows(table):
        own = truth.sel(amp=row.name)
        raw = frame.image.to_numpy()[row.data.slices].astype(np.float64)
        image[row.trimmed.slices] = (raw[row.turn] - float(own.bias_level)) * float(own.gain)
        gain[row.trimmed.slices] = float(own.gain)
    return image - gain * truth.bias_image.to_numpy()


def photons() -> list[Row]:
    """Return the rows of noise and means, 25 frames of each kind."""
    table, truth = tables()["A"], night_truth(tables(), transforms(), seed=SEED)["A"]
    number = 25
    plan = night_plan(biases=number, darks=number, flats=number, science=number, seed=SEED,
                      parameters=PlanParameters(dither=0))  # fmt: skip
    noise = np.zeros((SIZE, SIZE))
    for row in amplifier_rows(table):
        noise[row.trimmed.slices] = float(truth.noise.sel(amp=row.name))
    rows = []
    for kind in ("bias", "dark", "flat", "science"):
        total, squares = np.zeros((SIZE, SIZE)), 0.0
        for exposure in plan.exposure[plan.observation_type == kind].to_numpy():
            frame = simulate_night_exposure(plan, int(exposure), table, truth, parameters=QUIET)
            mean = night_exposure_truth(
                plan, int(exposure), table, truth, parameters=QUIET
            ).expected.to_numpy()
            pull = (trimmed(frame, table, truth) - mean) / np.sqrt(mean + noise**2)
            total += pull
            squares += float((pull**2).mean()) / number
        pixels = total.size * number
        rows += [
            within(f"{kind}: mean of (pixel - truth)/sigma, {number} frames of {SIZE}^2",
                   float(total.mean()) / number, 0.0, 4 / np.sqrt(pixels), form="+.1e"),
            within(f"{kind}: its variance", squares, 1.0, 4 * np.sqrt(2 / pixels) + 5e-4),
        ]  # fmt: skip
    return rows


def sky() -> list[Row]:
    """Return the rows of the sky without noise."""
    camera = CameraParameters(hot_pixel_fraction=0, warm_columns=0, dead_columns=0, traps=0,
                              glow=0, dark_current=0)  # fmt: skip
    truth = night_truth(tables(), transforms(), seed=SEED, parameters=camera)
    plan = night_plan(biases=0, darks=0, flats=0, science=4, seed=SEED)
    silent = QUIET.model_copy(update={"noise": False})
    y, x = np.arange(SIZE)[:, None], np.arange(SIZE)
    worst = 0.0
    for exposure in plan.exposure.to_numpy():
        for name, table in tables().items():
            frame = simulate_night_exposure(
                plan, int(exposure), table, truth[name], parameters=silent
            )
            row = plan.sel(exposure=exposure)
            light = trimmed(frame, table, truth[name]) / truth[name].flat.to_numpy()[0]
            left = light / float(row.level) - light_gradient(row, truth[name], y, x)
            worst = max(worst, float(np.abs(left - sky_pattern(truth[name], y, x)).max()))
    return [
        at_most("sky without noise, over the flat and the level, less gradient and pattern: "
                "largest of 8 frames", worst, 2e-6, "relative")
    ]  # fmt: skip


def stars() -> list[Row]:
    """Return the rows of fluxes and places of single stars and discs."""
    truth = night_truth(tables(), transforms(), seed=SEED)
    parameters = PlanParameters(dither=20, rotation_spread=60)
    plan = night_plan(biases=0, darks=0, flats=0, science=20, seed=SEED, parameters=parameters)
    rng = np.random.default_rng(SEED)
    losses: dict[float, list[float]] = {0.0: [], 1.0: []}
    off = []
    for exposure in plan.exposure.to_numpy():
        row = plan.sel(exposure=exposure)
        for name, table in tables().items():
            for scale, found in losses.items():
                place = exposure_plane(plan, int(exposure), truth[name]).to_sky(
                    *rng.uniform(200, 310, 2)
                )
                field = single(1e4, float(place[0]), float(place[1]), scale)
                image = night_exposure_truth(
                    plan, int(exposure), table, truth[name], field, parameters=QUIET
                ).objects.to_numpy()
                expected = 1e4 * float(row.exposure_time) * float(row.transparency)
                found.append(float(image.sum(dtype=np.float64)) / expected - 1)
                x, y = exposure_plane(plan, int(exposure), truth[name]).to_pixels(*place)
                middle = center_of_mass(image)
                off += [middle[0] - float(y), middle[1] - float(x)]
    return [
        at_most("light of a star on the detector, 40 stars: most lost",
                max(losses[0.0], key=abs), 5e-4, "relative"),
        at_most("light of an exponential disc on the detector, 40 discs: most lost",
                max(losses[1.0], key=abs), 5e-4, "relative"),
        at_most("centroid less place by the projection, 80 objects, rotated and dithered: largest",
                max(off, key=abs), 0.01, "pixel"),
    ]  # fmt: skip


def single(flux: float, ra: float, dec: float, scale: float) -> xr.Dataset:
    """Return a scene of one object."""
    values = {
        "right_ascension": ra,
        "declination": dec,
        "scale": scale,
        "axis_ratio": 1.0 if not scale else 0.5,
        "position_angle": 20.0,
    }
    return xr.Dataset(
        {
            "flux": (("physical_filter", "source"), [[flux]]),
            **{name: ("source", [value]) for name, value in values.items()},
        },
        coords={"physical_filter": ["r"]},
    )


def turned() -> list[Row]:
    """Return the row of one sky seen by two detectors that are turned against each other.

    With the rotator turned by 180 degrees, B, which is turned itself, stands where A stood.
    """
    truth = night_truth(tables(), transforms(), seed=SEED)
    plan = night_plan(biases=0, darks=0, flats=0, science=1, seed=SEED)
    field = night_scene(plan, truth, seed=SEED)
    images = []
    for name, rotation in (("A", 25.0), ("B", 205.0)):
        pointed = plan.assign(rotator_angle=("exposure", [rotation]))
        found = night_exposure_truth(pointed, 1, tables()[name], truth[name], field)
        images.append(found.objects.to_numpy())
    left = float(np.abs(images[0] - images[1]).sum() / images[0].sum())
    return [
        at_most("one field on two detectors that change places when the camera turns: light "
                "that differs", left, 1e-6, "of all")
    ]  # fmt: skip


def digest(exposure: int) -> str:
    """Return the digest of a frame, made from nothing in this process."""
    truth = night_truth(tables(), transforms(), seed=SEED)
    plan = night_plan(biases=1, darks=1, flats=1, science=1, seed=SEED,
                      parameters=PlanParameters(satellite_rate=3))  # fmt: skip
    field = night_scene(plan, truth, seed=SEED)
    whole = hashlib.sha256()
    for name, table in tables().items():
        frame = simulate_night_exposure(plan, exposure, table, truth[name], field)
        whole.update(frame.image.to_numpy().tobytes())
    return whole.hexdigest()


def processes() -> list[Row]:
    """Return the row of frames that two processes make in another order."""
    here = [digest(exposure) for exposure in (1, 2, 3, 4)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(digest, (4, 3, 2, 1)))[::-1]
    same = sum(one == two for one, two in zip(here, there, strict=True))
    return [
        Row("frames made by other processes in another order, bit for bit", "4 of 4",
            f"{same} of 4", same == 4)
    ]  # fmt: skip


def speed() -> list[Row]:
    """Return the rows of the time a frame of the sky takes, the best of three."""
    rows = []
    for size, limit in ((512, 0.2), (4096, 10.0)):
        truth = night_truth({"A": tables(size)["A"]}, transforms(size), seed=SEED)
        plan = night_plan(biases=0, darks=0, flats=0, science=1, seed=SEED)
        field = night_scene(plan, truth, seed=SEED)
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            simulate_night_exposure(plan, 1, tables(size)["A"], truth["A"], field)
            times.append(time.perf_counter() - begun)
        rows.append(between(f"a frame of the sky of {size}^2 pixels, one core", min(times),
                            float("-inf"), limit, "s"))  # fmt: skip
    return rows


def measure() -> list[Row]:
    """Return all rows."""
    return [*photons(), *sky(), *stars(), *turned(), *processes(), *speed()]
