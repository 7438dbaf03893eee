"""Simulated levels of flats of a whole camera, and the bound that no estimate can beat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.flats import FlatScaleParameters, solve_flat_scales

__all__ = [
    "GAIN",
    "Camera",
    "almost_disconnected",
    "bound",
    "errors_over_bound",
    "illuminated_camera",
    "simulated_camera",
]

Floats = NDArray[np.float64]
PIXELS = 1e6
GAIN = 1.5  # electron/adu


class Camera(NamedTuple):
    """Truth and expected scatter of levels, (channel, exposure)."""

    response: Floats
    light: Floats
    seen: NDArray[np.bool_]
    systematic: float

    @property
    def truth(self) -> Floats:
        return np.outer(self.response, self.light)

    @property
    def sigma(self) -> Floats:
        """Scatter of pixels, adu."""
        return np.sqrt(self.truth / GAIN)

    @property
    def variance(self) -> Floats:
        """Variance of a log level."""
        return (self.sigma / self.truth) ** 2 / PIXELS + self.systematic**2


def almost_disconnected(detectors: int, exposures: int) -> NDArray[np.bool_]:
    """Return which cells are there, 3 % missing: one exposure hangs on the rest by one detector.

    The first exposure sees the first detector alone, and that is in one other exposure only.
    """
    seen = np.ones((detectors, exposures), np.bool_)
    seen[1:, 0] = False
    seen[0, 2:] = False
    return seen


def simulated_camera(
    detectors: int = 189, amps: int = 16, exposures: int = 40, *, systematic: float = 1e-3
) -> Camera:
    """Return a focal plane with 3 % of its cells missing, almost disconnected."""
    rng = np.random.default_rng(11)
    response = 1.0 + 0.03 * rng.normal(size=detectors * amps)
    light = 1e4 * np.exp(rng.uniform(0.0, np.log(4.0), exposures))
    seen = np.repeat(almost_disconnected(detectors, exposures), amps, axis=0)
    return Camera(response / response.mean(), light, seen, systematic)


def bound(camera: Camera) -> tuple[Floats, Floats]:
    """Return the Cramér-Rao bounds of the log scales whose mean weighted by pixels is fixed.

    The inverse of the whole Fisher matrix, bordered by the gauge: no elimination.
    """
    weight = np.where(camera.seen, 1.0 / camera.variance, 0.0)
    rows, columns = weight.shape
    size = rows + columns
    matrix = np.zeros((size + 1, size + 1))
    matrix[:rows, :rows] = np.diag(weight.sum(axis=1))
    matrix[rows:size, rows:size] = np.diag(weight.sum(axis=0))
    matrix[:rows, rows:size] = weight
    matrix[rows:size, :rows] = weight.T
    gauge = camera.seen.sum(axis=1) * camera.response
    scale = weight.max()
    matrix[size, :rows] = matrix[:rows, size] = scale * gauge / gauge.sum()
    sigma = np.sqrt(np.diag(np.linalg.inv(matrix))[:size])
    return sigma[:rows], sigma[rows:]


class OverBound(NamedTuple):
    """Root mean squares over trials: of errors over the bound, and of errors over sigmas given."""

    error: float
    pull: float
    chi2_per_dof: float
    worst: float


def errors_over_bound(camera: Camera, trials: int, seed: int = 1) -> OverBound:
    """Return how errors of scales compare with the bound and with their sigmas."""
    rng = np.random.default_rng(seed)
    limits = bound(camera)
    pixels = np.where(camera.seen, PIXELS, 0.0).sum(axis=1)
    norm = float((pixels * camera.response).sum() / pixels.sum())
    truths = camera.response / norm, camera.light * norm
    parameters = FlatScaleParameters(systematic=camera.systematic)
    over, pulls, chi2, names = [], [], [], ("detector_scale", "exposure_scale")
    for _ in range(trials):
        noise = np.sqrt(camera.variance) * rng.normal(size=camera.seen.shape)
        level = np.where(camera.seen, camera.truth * np.exp(noise), np.nan)
        scales = solve_flat_scales(
            *(
                xr.DataArray(values, dims=("detector", "exposure"))
                for values in (level, np.where(camera.seen, PIXELS, 0.0), camera.sigma)
            ),
            parameters=parameters,
        )
        errors = [np.log(scales[n].values / t) for n, t in zip(names, truths, strict=True)]
        over.append(np.concatenate([e / b for e, b in zip(errors, limits, strict=True)]))
        pulls.append(
            np.concatenate(
                [
                    e / (scales[f"{n}_sigma"] / scales[n]).values
                    for e, n in zip(errors, names, strict=True)
                ]
            )
        )
        chi2.append(float(scales["chi2"]) / int(scales["dof"]))
    each = np.sqrt(np.mean(np.square(over), axis=0))
    return OverBound(
        float(np.sqrt(np.mean(np.square(over)))),
        float(np.sqrt(np.mean(np.square(pulls)))),
        float(np.mean(chi2)),
        float(each.max()),
    )


def illuminated_camera(seed: int = 2, side: int = 120) -> tuple[list[xr.Dataset], Floats, Floats]:
    """Return flats of 12 detectors in 20 exposures as pixels, with their responses and light.

    Illumination has a plane of its own in each exposure, four detectors are vignetted in a
    corner, 3 % of the frames are dead, and in exposure 9 the lamp drifts by 5 % over half of the
    detectors. Datasets carry ``polygon`` as attribute, and the place of their lit pixels.
    """
    rng = np.random.default_rng(seed)
    response = 1.0 + 0.03 * rng.normal(size=12)
    light = 1e4 * np.exp(rng.uniform(0.0, np.log(4.0), 20))
    planes = rng.normal(0.0, 1e-3, (20, 2))
    dead = rng.permutation(240)[:7]
    y, x = np.indices((side, side), dtype=np.float64)
    flats = []
    for d in range(12):
        corners = [(0, 0), (side - 1, 0), (side - 1, side - 1), (0, side - 1)]
        if d in (0, 3, 8, 11):
            corners[0:1] = [(side // 3, 0), (0, side // 3)][:: 1 if d % 2 else -1]
        # places relative to the radius of the focal plane
        u = (d % 4 - 1.5 + x / side - 0.5) / 2.5
        w = (d // 4 - 1.0 + y / side - 0.5) / 2.5
        for e in range(20):
            lamp = 1.05 if e == 9 and d >= 6 else 1.0
            mean = response[d] * light[e] * lamp * (1.0 + planes[e, 0] * u + planes[e, 1] * w)
            image = mean + np.sqrt(mean / GAIN) * rng.standard_normal((side, side))
            if d * 20 + e in dead:
                image[:] = np.nan
            flats.append(
                xr.Dataset(
                    {"image": (("y", "x"), image.astype(np.float32), {"units": "adu"})},
                    coords={"detector": f"S{d:02d}", "exposure": 100 + e},
                    attrs={"polygon": corners, "u": u, "w": w},
                )
            )
    return flats, response, light
