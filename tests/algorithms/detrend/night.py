"""One detector of a simulated night, with calibrations that know its truth."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.simulate import (
    CameraParameters,
    NightParameters,
    amplifier_grid,
    night_exposure_truth,
    night_plan,
    night_scene,
    night_truth,
    simulate_night_exposure,
)

SHAPE = (200, 160)
LOOK = NightParameters(row_noise=2.0, cosmic_ray_rate=2e-7)
FLAT, SKY = 1, 2
CATALAN = (1.0, 2.0, 5.0, 14.0)
"""Coefficients of the inverse of s - a s^2, in powers of a."""


class Night:
    """One detector of four amplifiers, its calibrations without noise, and one frame of the sky."""

    def __init__(self, seed: int = 0) -> None:
        self.table = amplifier_grid(
            "A", (2, 2), SHAPE, overscan=32, read_noise=6.0, saturation=60_000.0
        )
        self.table["flip_x"][:] = [False, True, False, True]
        self.table["flip_y"][:] = [False, False, True, True]
        transform = detector_transform((2 * SHAPE[0], 2 * SHAPE[1]), pixel_size=0.015)
        look = CameraParameters(crosstalk=3e-3, nonlinearity=0.08)
        truth = night_truth({"A": self.table}, {"A": transform}, parameters=look, seed=3 + seed)
        self.truth = truth["A"]
        self.plan = night_plan(
            biases=0, darks=0, flats=1, science=1, flat_levels=(3e4,), seed=5 + seed
        )
        self.scene = night_scene(self.plan, truth, seed=7 + seed)

    def frame(self, exposure: int = SKY, look: NightParameters = LOOK) -> xr.Dataset:
        return simulate_night_exposure(
            self.plan, exposure, self.table, self.truth, self.scene, parameters=look
        )

    def light(self, exposure: int = SKY, look: NightParameters = LOOK) -> xr.Dataset:
        return night_exposure_truth(
            self.plan, exposure, self.table, self.truth, self.scene, parameters=look
        )

    def calibrations(self) -> dict[str, xr.Dataset | xr.DataArray]:
        truth = self.truth
        loss = truth["nonlinearity"] * truth["gain"]
        terms = [c * loss ** (power + 1) for power, c in enumerate(CATALAN)]
        return {
            "bias": truth["bias_image"].to_dataset(name="image").assign_attrs(detector="A"),
            "dark": truth["dark_image"].to_dataset(name="image"),
            "flat": truth["flat"].isel(physical_filter=0).to_dataset(name="image"),
            "linearity": xr.concat(terms, "coefficient").to_dataset(name="polynomial"),
            "crosstalk": truth["crosstalk"],
            "gain": truth[["gain", "noise"]],
            "defects": (truth["defects"] & 1) > 0,
        }


def light_of(truth: xr.Dataset) -> np.ndarray:
    return (truth["background"] + truth["objects"] + truth["satellites"]).values
