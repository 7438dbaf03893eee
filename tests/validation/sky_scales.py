"""Scales of sky frames against their truth, and what a sky subtraction leaves and takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.background import measure_background, render_background
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.sky import SmoothSkyParameters, average_backgrounds, exposure_residuals
from skyloom.algorithms.sky.correction import (
    SkyCorrectionParameters,
    corrected_exposure,
    sky_correction,
)
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters, SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.sky.subtraction import subtract_fit
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes
from tests.algorithms.sky.scenes import Mosaic, StepScene, bin_means, paint_sources
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

Floats = NDArray[np.float64]
COMPAT = (MeasureScaleParameters(mode="compat"), SolveScaleParameters(mode="compat"))


def drawn(
    signal: Floats, covered: NDArray[np.bool_], rng: np.random.Generator, subtracted: float
) -> xr.Dataset:
    """Return a signal with the noise of its electrons, less a constant."""
    noise = rng.standard_normal(signal.shape, np.float32) * np.sqrt(signal).astype(np.float32)
    mask = np.where(covered, MASK_PLANES["DETECTED"], 0).astype(np.int32)
    return xr.Dataset(
        {
            "image": (
                ("y", "x"), (signal - subtracted).astype(np.float32) + noise, {"units": "electron"},
            ),
            "mask": (("y", "x"), mask, mask_attributes()),
        }
    )  # fmt: skip


def fits_of_masked_scene(scenes: int, draws: int) -> Floats:
    """Return scale / truth - 1, its error and the least that pixels allow, of each exposure.

    Detectors have large galaxies; each scene is seen with several draws of the noise.
    """
    mosaic = Mosaic((512, 512), (4, 4), seed=3)
    frames = mosaic.frames()
    rng = np.random.default_rng(5)
    found = []
    for _ in range(scenes):
        level = rng.uniform(500.0, 3000.0)
        skies = {name: mosaic.sky(name, level) for name in frames}
        sources = {name: paint_sources(mosaic.shape, rng, stars=120, galaxies=3) for name in frames}
        masks = {name: xr.DataArray(covered) for name, (_, covered) in sources.items()}
        bound = smallest_error(mosaic, skies, masks) / level
        for _ in range(draws):
            visit = {
                name: drawn(skies[name] + light, covered, rng, level)
                for name, (light, covered) in sources.items()
            }
            fit = scale_of(mosaic, frames, visit, level)
            found.append(
                (float(fit["scale"]) / level - 1, float(fit["scale_sigma"]) / level, bound)
            )
    return np.array(found)


def masked_scene() -> Iterator[Row]:
    """Yield the rows of the scene with stars and galaxies under masks."""
    error, bar, bound = fits_of_masked_scene(24, 10).T
    what = (
        "stars and galaxies masked, 16 detectors of 512², skies of 500 to 3000 e, "
        f"{len(error)} exposures"
    )
    yield at_most(
        f"{what}: mean of scale / truth - 1 (its error is {error.std() / np.sqrt(len(error)):.1e})",
        error.mean(), 5e-4,
    )  # fmt: skip
    least = np.sqrt(np.mean(bound**2))
    rms = np.sqrt(np.mean(error**2))
    yield at_most(
        f"the same: rms of scale / truth - 1 (photon noise of all pixels alone gives {least:.1e})",
        rms, 1.1e-3, form=".2e",
    )  # fmt: skip
    yield at_most(
        "the same: rms in units of the smallest that the pixels allow",
        float(np.sqrt(np.mean((error / bound) ** 2))), 1.2, form=".3f",
    )  # fmt: skip
    yield between(
        f"the same: width of the pulls (their width is known to {1 / np.sqrt(2 * len(error)):.2f})",
        np.std(error / bar, ddof=1), 0.9, 1.1,
    )  # fmt: skip


def compat_bias(seed: int) -> tuple[float, float, float]:
    """Return scale / truth - 1 of a camera in the compatible mode, without rejection, and ours."""
    mosaic = Mosaic((512, 512), (4, 4), seed=seed)
    frames = mosaic.frames()
    rng = np.random.default_rng(seed)
    level = rng.uniform(500.0, 3000.0)
    visit = {
        name: mosaic.exposure(name, level, rng, stars=120, galaxies=3, subtracted=level)
        for name in frames
    }
    sampling, solving = COMPAT
    samples = [measure_scale(visit[name], frames[name], parameters=sampling) for name in frames]
    once = solving.model_copy(update={"compat_iterations": 0})
    fits = [solve_scales(samples, parameters=parameters) for parameters in (solving, once)]
    fits.append(scale_of(mosaic, frames, visit, level))
    theirs, plain, ours = (float(fit["scale"]) / level - 1 for fit in fits)
    return theirs, plain, ours


def compatible_mode() -> Iterator[Row]:
    """Yield the rows of the survey pipeline's way to scale."""
    theirs, plain, ours = 100 * np.array([compat_bias(seed) for seed in range(30)]).T
    errors = [values.std(ddof=1) / np.sqrt(len(values)) for values in (theirs, plain)]
    yield within(
        f"compatible mode, stars and galaxies masked, {len(theirs)} cameras of 16 detectors with "
        f"patterns and masks of their own: mean of scale / truth - 1 in % (its error is "
        f"{errors[0]:.2f}; single cameras {theirs.min():+.2f} to {theirs.max():+.2f}; without "
        f"the rejection of samples {plain.mean():+.2f} with an error of {errors[1]:.2f})",
        theirs.mean(), -1.24, 0.2, form=".2f",
    )  # fmt: skip
    yield at_most(
        "the same exposures in our mode: mean of scale / truth - 1", ours.mean() / 100, 5e-4,
        form="+.1e",
    )  # fmt: skip


def scale_of(
    mosaic: Mosaic, frames: dict[str, xr.Dataset], exposures: dict[str, xr.Dataset], level: float
) -> xr.Dataset:
    """Return the fit of an exposure with parameters as they are unless told otherwise."""
    return solve_scales(
        measure_scale(
            exposures[name], frames[name], transform=mosaic.transforms[name], expected_scale=level
        )
        for name in frames
    )


def levels_of_mosaic() -> Iterator[Row]:
    """Yield the rows of six detectors at three levels of the sky."""
    mosaic = Mosaic((2048, 2048), (2, 3), seed=8)
    frames = mosaic.frames(bin_size=32)
    rng = np.random.default_rng(12)
    pulls: list[float] = []
    for level in (1000.0, 3000.0, 9000.0):
        gradient = rng.normal(0.0, 0.03, 2)
        exposures = {
            name: mosaic.exposure(name, level, rng, gradient=gradient, stars=800) for name in frames
        }
        fit = scale_of(mosaic, frames, exposures, level)
        masked = np.mean([(exposure["mask"] != 0).mean() for exposure in exposures.values()])
        what = f"6 detectors of 2048², {100 * masked:.1f} % masked, sky {level:.0f} e"
        yield at_most(
            f"{what}: scale / truth - 1 of one exposure "
            f"(error bar {float(fit['scale_sigma']) / level:.1e})",
            float(fit["scale"]) / level - 1, 1e-3, form="+.1e",
        )  # fmt: skip
        left = []
        for name, exposure in exposures.items():
            less, _ = subtract_fit(
                exposure, fit, sky_frame=frames[name], transform=mosaic.transforms[name]
            )
            # sky as it is, less what was taken for it: noise and stars aside
            taken = exposure["image"].values.astype(np.float64) - less["image"].values
            left.append(bin_means(mosaic.sky(name, level, gradient) - taken, 64))
        yield at_most(
            f"{what}: rms of what is left of it beyond 64 px, of the sky",
            float(np.sqrt(np.mean(np.square(left)))) / level, 1e-3,
        )  # fmt: skip
        skies = {name: mosaic.sky(name, level, gradient) for name in frames}
        masks = {name: exposure["mask"] for name, exposure in exposures.items()}
        yield from many_exposures(mosaic, frames, skies, masks, level, rng, what, pulls)
    yield between(
        f"6 detectors of 2048² at all levels: width of {len(pulls)} pulls", np.std(pulls), 0.8, 1.2
    )


def large_detectors() -> Iterator[Row]:
    """Yield the rows of six detectors of 4096², where photon noise leaves room for the target."""
    mosaic = Mosaic((4096, 4096), (2, 3), seed=8)
    frames = mosaic.frames(bin_size=64)
    rng = np.random.default_rng(30)
    for level in (1000.0, 3000.0, 9000.0):
        gradient = rng.normal(0.0, 0.03, 2)
        signals, covered = {}, {}
        for name in frames:
            light, covered[name] = paint_sources(mosaic.shape, rng, stars=3200, galaxies=0)
            signals[name] = (mosaic.sky(name, level, gradient) + light).astype(np.float32)
        masked = np.mean([cover.mean() for cover in covered.values()])
        errors, bars = [], []
        for _ in range(4):
            samples = [
                measure_scale(
                    drawn(signals[name], covered[name], rng, 0.0), frames[name],
                    transform=mosaic.transforms[name], expected_scale=level,
                )
                for name in frames
            ]  # fmt: skip
            fit = solve_scales(samples)
            errors.append(float(fit["scale"]) / level - 1)
            bars.append(float(fit["scale_sigma"]) / level)
        yield at_most(
            f"6 detectors of 4096², {100 * masked:.1f} % masked, sky {level:.0f} e: largest of "
            f"|scale / truth - 1| of {len(errors)} exposures (error bar {np.mean(bars):.1e})",
            float(np.max(np.abs(errors))), 1e-3,
        )  # fmt: skip


def many_exposures(
    mosaic: Mosaic,
    frames: dict[str, xr.Dataset],
    skies: dict[str, Floats],
    masks: dict[str, xr.DataArray],
    level: float,
    rng: np.random.Generator,
    what: str,
    pulls: list[float],
    number: int = 48,
) -> Iterator[Row]:
    """Yield the rows of one sky whose noise is drawn again and again, and add the pulls."""
    deviations = {name: np.sqrt(sky).astype(np.float32) for name, sky in skies.items()}
    smooth = {name: sky.astype(np.float32) for name, sky in skies.items()}
    errors, bars = np.empty(number), np.empty(number)
    for index in range(number):
        exposures = {}
        for name, sky in smooth.items():
            image = sky + deviations[name] * rng.standard_normal(sky.shape, np.float32)
            exposures[name] = xr.Dataset(
                {"image": (("y", "x"), image, {"units": "electron"}), "mask": masks[name]}
            ).assign_coords(detector=name)
        fit = scale_of(mosaic, frames, exposures, level)
        errors[index] = float(fit["scale"]) / level - 1
        bars[index] = float(fit["scale_sigma"]) / level
    bound = smallest_error(mosaic, skies, masks) / level
    mean, error = errors.mean(), errors.std(ddof=1) / np.sqrt(number)
    yield at_most(
        f"{what}: mean of scale / truth - 1 over {number} exposures (its error is {error:.1e})",
        mean, 5e-4, form="+.1e",
    )  # fmt: skip
    yield at_most(
        f"{what}: largest of |scale / truth - 1| of {number} exposures (photon noise of all pixels "
        f"alone scatters by {bound:.1e}; {np.sum(np.abs(errors) <= 1e-3)} of {number} are within "
        "0.1 %)",
        float(np.max(np.abs(errors))), 1e-3,
    )  # fmt: skip
    pulls.extend(errors / bars)
    yield between(
        f"{what}: error bar, in units of the smallest that the pixels allow",
        bars.mean() / bound, 0.99, 1.1,
    )  # fmt: skip


def smallest_error(
    mosaic: Mosaic, skies: dict[str, Floats], masks: dict[str, xr.DataArray]
) -> float:
    """Return the Cramér-Rao bound of a scale fitted with a plane to all unmasked pixels."""
    normal = np.zeros((4, 4))
    for name, sky in skies.items():
        focal_x, focal_y = to_focal_plane(
            mosaic.transforms[name], *np.mgrid[: len(sky), : len(sky)][::-1]
        )
        good = masks[name].values == 0
        columns = [np.ones(good.sum()), focal_x[good], focal_y[good], mosaic.patterns[name][good]]
        for i, j in np.ndindex(4, 4):
            normal[i, j] += np.sum(columns[i] * columns[j] / sky[good])
    return float(np.sqrt(np.linalg.inv(normal)[3, 3]))


def pulls_of_mosaic() -> Iterator[Row]:
    """Yield the width of the pulls of many exposures."""
    mosaic = Mosaic((256, 256), (2, 3), seed=9)
    frames = mosaic.frames(bin_size=8)
    rng = np.random.default_rng(13)
    pulls = []
    for _ in range(150):
        level = rng.uniform(500.0, 3000.0)
        gradient = rng.normal(0.0, 0.03, 2)
        samples = [
            measure_scale(
                mosaic.exposure(name, level, rng, gradient=gradient, stars=12), frames[name],
                transform=mosaic.transforms[name], expected_scale=level,
            )
            for name in frames
        ]  # fmt: skip
        fit = solve_scales(samples)
        pulls.append(float((fit["scale"] - level) / fit["scale_sigma"]))
    yield between("6 detectors of 256²: width of 150 pulls of the scale", np.std(pulls), 0.8, 1.2)
    yield between("the same: mean of the pulls", np.mean(pulls), -0.25, 0.25)


def synthetic_samples(
    rng: np.random.Generator, template: Floats, smooth: Floats, sigma: float, noise: float
) -> xr.Dataset:
    """Return samples of a template of scale 1000 with noise of its own."""
    n = len(template)
    errors = sigma * rng.uniform(0.5, 2.0, n)
    return xr.Dataset(
        {
            "level": ("sample", 1000 * template + smooth + rng.normal(0, 1, n) * errors),
            "level_variance": ("sample", errors**2),
            "template": ("sample", template + rng.normal(0, 1, n) * noise),
            "template_variance": ("sample", np.full(n, noise**2)),
        },
        coords={"x": ("sample", np.arange(n) % 32.0), "y": ("sample", np.arange(n) // 32.0)},
    )


def template_noise() -> Iterator[Row]:
    """Yield the rows of a frame whose noise is half its pattern."""
    rng = np.random.default_rng(14)
    plain, corrected, pulls = [], [], []
    for _ in range(200):
        samples = synthetic_samples(rng, rng.normal(0, 0.01, 256), np.full(256, 5.0), 0.5, 0.005)
        without = SolveScaleParameters(template_noise=False)
        plain.append(float(solve_scales(samples, parameters=without)["scale"]) / 1000)
        fit = solve_scales(samples)
        corrected.append(float(fit["scale"]) / 1000)
        pulls.append(float((fit["scale"] - 1000) / fit["scale_sigma"]))
    yield within("frame with noise of half its pattern: uncorrected", np.mean(plain), 0.80, 0.03)
    yield within("the same: corrected", np.mean(corrected), 1.0, 0.02)
    yield between("the same: width of the pulls", np.std(pulls), 0.85, 1.15)


def collinear() -> Iterator[Row]:
    """Yield the rows of a frame that a plane explains to 63 %."""
    rng = np.random.default_rng(15)
    u = (np.arange(256) % 32) / 15.5 - 1
    scales, sigmas, explained = [], [], []
    for _ in range(300):
        template = 0.01 * (1.31 * u + 0.6 * rng.normal(0, 1, 256))
        samples = synthetic_samples(rng, template, 100 + 20 * u, 1.0, 0.0)
        fit = solve_scales(samples)
        scales.append(float(fit["scale"]) / 1000)
        sigmas.append(float(fit["scale_sigma"]) / 1000)
        explained.append(float(fit["collinearity"]))
    what = f"a plane explains {np.mean(explained):.2f} of the frame"
    error = np.std(scales) / np.sqrt(len(scales))
    yield within(f"{what}: scale / truth", np.mean(scales), 1.0, 3 * error, form=".5f")
    pulls = (np.array(scales) - 1) / sigmas
    yield between(f"{what}: width of the pulls", pulls.std(), 0.9, 1.1)


def step_scene() -> Iterator[Row]:
    """Yield the rows of the scene that the survey pipeline is tested with, in full size."""
    scene = StepScene()
    exposures, frames = scene.exposures(), scene.frames()
    for order in (0, 2, 6):
        parameters = SkyCorrectionParameters(fit=SolveScaleParameters(order=order))
        correction = sky_correction(
            exposures, scene.transforms, sky_frames=frames, backgrounds=scene.backgrounds(),
            parameters=parameters,
        )  # fmt: skip
        sigma = float(correction.fit["scale_sigma"])
        yield within(
            f"scene of steps, joint fit, order {order}: scale (error bar {sigma:.3f})",
            float(correction.fit["scale"]), 5.0, 0.03, form=".4f",
        )  # fmt: skip
        mean = np.mean(
            [
                corrected_exposure(exposures[name], correction.layers[name])["image"].mean(
                    dtype=np.float64
                )
                for name in exposures
            ]
        )
        yield at_most(f"the same, order {order}: mean of the corrected mosaic", mean, 0.01)
    parameters = SkyCorrectionParameters(undo_smooth=True)
    correction = sky_correction(
        exposures, scene.transforms, sky_frames=frames, backgrounds=scene.backgrounds(),
        parameters=parameters,
    )  # fmt: skip
    left = [
        corrected_exposure(exposures[name], correction.layers[name])["image"]
        - exposures[name]["image"]
        for name in exposures
    ]
    yield within(
        "the same, the smooth sky left in the images: mean of the mosaic, less that before and the "
        "sky of 3000 that was put back",
        np.mean([image.mean(dtype=np.float64) for image in left]) - scene.removed, 0.0, 0.01,
        form="+.1e",
    )  # fmt: skip
    parameters = SkyCorrectionParameters(apply_ratio=True)
    correction = sky_correction(
        exposures, scene.transforms, sky_frames=frames, backgrounds=scene.backgrounds(),
        ratios=dict.fromkeys(exposures, 1.1), parameters=parameters,
    )  # fmt: skip
    yield within(
        "the same with a flat ratio of 1.1: scale", float(correction.fit["scale"]), 5.5, 0.033
    )


def continuity() -> Iterator[Row]:
    """Yield the rows of the steps that are left between neighbouring detectors."""
    mosaic = Mosaic((512, 512), (4, 4), seed=21)
    frames = mosaic.frames()
    rng = np.random.default_rng(22)
    ratios, before = [], []
    for level in (500.0, 1000.0, 3000.0, 9000.0):
        gradient = rng.normal(0.0, 0.03, 2)
        exposures = {name: mosaic.exposure(name, level, rng, gradient=gradient) for name in frames}
        correction = sky_correction(exposures, mosaic.transforms, sky_frames=frames, level=level)
        steps = correction.quality["boundary_rms"] / correction.quality["boundary_noise"]
        before.append(float(steps.sel(stage="before")))
        ratios.append(float(steps.sel(stage="after")))
    yield at_most(
        f"steps between 16 detectors after the correction, skies of 500 to 9000 e: rms over that "
        f"of noise, largest of {len(ratios)} (before: {min(before):.1f} to {max(before):.1f})",
        max(ratios), 1.5, form=".3f",
    )  # fmt: skip


class Galaxy:
    """A disc whose scale length is 300 px and whose light at 900 px is 1 % of the sky."""

    length, sky = 300.0, 1000.0
    place = (1000.0, 1100.0)  # y, x on its detector
    annulus = (600.0, 1200.0)
    core = 360.0  # where it shines as one pixel's noise twice

    def __init__(self, shape: tuple[int, int], factor: float = 1.0) -> None:
        y, x = np.mgrid[: shape[0], : shape[1]]
        self.radius = np.hypot(y - self.place[0] / factor, x - self.place[1] / factor) * factor
        self.light = 0.01 * self.sky * np.exp(3.0 - self.radius / self.length)
        inner, outer = self.annulus
        self.halo = (self.radius >= inner) & (self.radius < outer)


def halo_changes(shape: tuple[int, int], factor: float = 1.0, seed: int = 16) -> dict[str, Any]:
    """Return the relative changes of the halo's flux by ways to subtract a sky of six detectors.

    Truth is the sky without galaxy; stars are masked, and the core of the galaxy.
    """
    mosaic = Mosaic(shape, (2, 3), seed=seed)
    frames = mosaic.frames(bin_size=round(32 / factor))
    rng = np.random.default_rng(seed)
    galaxy = Galaxy(shape, factor)
    gradient = (0.03, -0.02)
    exposures = {}
    for name in frames:
        exposure = mosaic.exposure(
            name, Galaxy.sky, rng, gradient=gradient, stars=int(200 / factor**2)
        )
        if name == "D04":
            light = galaxy.light
            noise = rng.normal(0.0, 1.0, shape) * np.sqrt(light)
            exposure["image"].data[:] += (light + noise).astype(np.float32)
            exposure["mask"].data[galaxy.radius < Galaxy.core] |= 32
        exposures[name] = exposure
    lit = exposures["D04"]
    truth = mosaic.sky("D04", Galaxy.sky, gradient)
    flux = galaxy.light[galaxy.halo].sum()
    # what is taken of the annulus besides the sky itself
    found: dict[str, Any] = {}
    for order in (1, 2, 4):
        correction = sky_correction(
            exposures, mosaic.transforms, sky_frames=frames,
            parameters=SkyCorrectionParameters(
                bin_size=(round(32 / factor),) * 2, fit=SolveScaleParameters(order=order)
            ),
        )  # fmt: skip
        less = corrected_exposure(lit, correction.layers["D04"])
        taken = lit["image"].values.astype(np.float64) - less["image"].values
        found[f"order {order}"] = -(taken - truth)[galaxy.halo].sum() / flux
    size = round(128 / factor)
    plain = measure_background(lit, bin_size=(size, size), reject=("DETECTED", "BAD"))
    taken = render_background(plain).values.astype(np.float64)
    found["plain"] = -(taken - truth)[galaxy.halo].sum() / flux
    return found


def galaxy_visits(
    mosaic: Mosaic, gradient: tuple[float, float], exposures: int, *, every: bool, seed: int
) -> list[dict[str, xr.Dataset]]:
    """Return exposures of a mosaic: the first has the galaxy on D04, others moved, or none.

    Its light falls on all detectors; its core and stars are masked.
    """
    rng, pixels = np.random.default_rng(seed), pixel_places(mosaic)
    to_mm = mosaic.transforms["D04"]
    middle, pixel = np.array(to_focal_plane(to_mm, 1023.5, 1023.5)), np.hypot(*to_mm[:, 0])
    skies = {name: mosaic.sky(name, Galaxy.sky, gradient) for name in mosaic.patterns}
    visits: list[dict[str, xr.Dataset]] = []
    for number in range(exposures):
        place = middle + (number > 0) * rng.uniform(-1500.0, 1500.0, 2) * pixel
        visits.append({})
        for name, sky in skies.items():
            signal, covered = paint_sources(mosaic.shape, rng, stars=200, galaxies=0)
            signal = signal + sky
            if every or number == 0:
                focal = np.stack(to_focal_plane(mosaic.transforms[name], *pixels))
                radius = np.hypot(*(focal - place[:, None, None])) / pixel
                signal += 0.01 * Galaxy.sky * np.exp(3.0 - radius / Galaxy.length)
                covered |= radius < Galaxy.core
            visits[-1][name] = drawn(signal, covered, rng, 0.0)
    return visits


def pixel_places(mosaic: Mosaic) -> Floats:
    """Return x and y of the pixels of a detector."""
    return np.stack(np.mgrid[: mosaic.shape[0], : mosaic.shape[1]][::-1]).astype(np.float64)


def halo_by_built_frames(*, every: bool) -> dict[str, float]:
    """Return the relative changes of the halo's flux by sky frames made of 12 exposures.

    By the frame ``alone``, and by frame and smooth sky of several orders.
    """
    mosaic, gradient = Mosaic((2048, 2048), (2, 3), seed=17), (0.03, -0.02)
    visits = galaxy_visits(mosaic, gradient, 12, every=every, seed=17)
    residuals = [
        exposure_residuals(
            {name: measure_background(one) for name, one in visit.items()},
            mosaic.transforms, parameters=SmoothSkyParameters(order=2),
        ).residuals
        for visit in visits
    ]  # fmt: skip
    frames = {name: average_backgrounds([one[name] for one in residuals]) for name in visits[0]}
    radius = np.hypot(*(pixel_places(mosaic) - 1023.5))
    halo = (radius >= Galaxy.annulus[0]) & (radius < 1000.0)
    flux = (0.01 * Galaxy.sky * np.exp(3.0 - radius / Galaxy.length))[halo].sum()
    found = {}
    ways = {"alone": (2, 1.0), "order 1": (1, 1.0), "order 2": (2, 1.0)}
    for what, (order, asymmetry) in {**ways, "order 2, asymmetry 3": (2, 3.0)}.items():
        alone = what == "alone"
        fit = SolveScaleParameters(order=order, asymmetry=asymmetry, template_noise=False)
        correction = sky_correction(
            visits[0], mosaic.transforms, sky_frames=frames,
            parameters=SkyCorrectionParameters(bin_size=(32, 32), fit=fit, undo_smooth=alone),
        )  # fmt: skip
        less = corrected_exposure(visits[0]["D04"], correction.layers["D04"])
        taken = (visits[0]["D04"]["image"] - less["image"]).values.astype(np.float64)
        smooth = 0.0 if alone else mosaic.smooth("D04", gradient)
        truth = Galaxy.sky * (mosaic.patterns["D04"] + smooth)
        found[what] = -float((taken - truth)[halo].sum() / flux)
    return found


def faint_halo() -> Iterator[Row]:
    """Yield the rows of the halo of a galaxy."""
    found = halo_changes((2048, 2048))
    for order in (1, 2):
        yield at_most(
            f"halo at 1 % of the sky, disc of 300 px: change of its flux by sky frame and smooth "
            f"sky of order {order} over 6 detectors of 2048² (order 4: {found['order 4']:+.3f}; "
            f"a plain background of 128-px bins: {found['plain']:+.2f})",
            found[f"order {order}"], 0.05, form="+.3f",
        )  # fmt: skip
    for every, of in ((False, "one of them"), (True, "each of them, moved by up to 1500 px")):
        for what, change in halo_by_built_frames(every=every).items():
            by = "the frame alone" if what == "alone" else f"frame and smooth sky of {what}"
            yield at_most(
                "the galaxy shining on all detectors, by frames made of 12 exposures, with it in "
                f"{of}: change of the halo's flux by {by}",
                change, 0.05, form="+.3f",
            )  # fmt: skip


def measure() -> list[Row]:
    """Return the rows of this topic."""
    topics = (
        masked_scene, compatible_mode, levels_of_mosaic, large_detectors, pulls_of_mosaic,
        template_noise, collinear, step_scene, continuity, faint_halo,
    )  # fmt: skip
    return [row for topic in topics for row in topic()]
