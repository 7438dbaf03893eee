"""Sky frames against their truth: nights from pixels, outliers, geometry, exposures one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import measure_background, render_background
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate import (
    amplifier_grid,
    night_exposure_truth,
    night_plan,
    night_scene,
    night_truth,
    sky_pattern,
)
from skyloom.algorithms.sky import (
    AverageParameters,
    ExposureResiduals,
    FocalPlaneParameters,
    FrameSketchParameters,
    MaskObjectsParameters,
    SmoothSkyParameters,
    average_backgrounds,
    exposure_residuals,
    focal_plane_background,
    focal_plane_on_detector,
    mask_objects,
    merge_sky_frame_sketches,
    sky_frame_from_sketch,
    sky_frame_sketch,
)
from tests.algorithms.sky.focal_planes import background_of, backgrounds_of, mosaic
from tests.algorithms.sky.night_scene import backgrounds, by_exposure, night, true_backgrounds
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

Floats = NDArray[np.float64]
EXPOSURES = 24
EQUAL = AverageParameters(weights="equal")


def errors_of_frames(
    residuals: dict[int, dict[Any, xr.Dataset]],
    truth: dict[Any, xr.Dataset],
    parameters: AverageParameters,
) -> tuple[Floats, Floats]:
    """Return errors and pulls of the frames of all detectors."""
    errors, pulls = [], []
    for name, parts in by_exposure(residuals):
        frame = average_backgrounds(parts, parameters=parameters)
        error = np.asarray(frame["level"].values, np.float64) - truth[name]["level"].values
        errors.append(error)
        pulls.append(error / np.sqrt(frame["variance"].values))
    return np.array(errors), np.array(pulls)


def nights() -> Iterator[Row]:
    """Yield the rows of nights of known patterns, with masked stars and with faint sources."""
    of = night(EXPOSURES, 4, 4)
    truth = exposure_residuals(true_backgrounds(of), of.transforms).residuals
    scene = "frame of 24 exposures, 16 detectors of 512²"
    clean = {
        k: exposure_residuals(backgrounds(of, k), of.transforms).residuals for k in range(EXPOSURES)
    }
    errors, pulls = errors_of_frames(clean, truth, EQUAL)
    yield at_most(f"{scene}, equal weights: rms error", float(np.std(errors)), 2.3e-4, form=".2e")
    yield within("the same: scatter of the pulls", float(np.std(pulls)), 1.0, 0.05, form=".3f")
    errors, pulls = errors_of_frames(clean, truth, AverageParameters())
    yield at_most(f"{scene}, weighted: rms error", float(np.std(errors)), 1.9e-4, form=".2e")
    yield within("the same: scatter of the pulls", float(np.std(pulls)), 1.0, 0.05, form=".3f")
    yield from one_by_one(clean)
    faint = {
        k: exposure_residuals(backgrounds(of, k, faint=True), of.transforms).residuals
        for k in range(EXPOSURES)
    }
    errors, _ = errors_of_frames(faint, truth, EQUAL)
    yield at_most(
        "with unmasked faint sources: rms error", float(np.std(errors)), 2.5e-4, "", ".2e"
    )
    yield at_most("with unmasked faint sources: mean error", float(np.mean(errors)), 5e-5)
    yield from ghost(clean, truth)


def ghost(clean: dict[int, dict[Any, xr.Dataset]], truth: dict[Any, xr.Dataset]) -> Iterator[Row]:
    """Yield the rows of a blob of 3 per cent over a tenth of a detector in 3 of the exposures."""
    y, x = np.mgrid[:16, :16]
    blob = 0.03 * np.exp(-0.5 * ((y - 7.0) ** 2 + (x - 8.0) ** 2) / 2.5**2)
    inside = blob > 0.5 * blob.max()
    parts = [
        clean[k][5].assign(level=clean[k][5]["level"] + np.float32(blob * (k in (3, 11, 19))))
        for k in range(EXPOSURES)
    ]
    expected = truth[5]["level"].values
    for parameters, what in ((AverageParameters(), "weighted"), (EQUAL, "equal weights")):
        error = average_backgrounds(parts, parameters=parameters)["level"].values - expected
        ratio = float(np.std(error[inside]) / np.std(error[~inside]))
        yield at_most(
            f"a ghost in 3 of 24 exposures, {what}: error there over elsewhere", ratio, 2, "", ".2f"
        )
    plain = np.mean([part["level"].values for part in parts], axis=0) - expected
    ratio = float(np.sqrt(np.mean(plain[inside] ** 2)) / np.std(plain[~inside]))
    yield between("the same by a plain mean", ratio, 5.0, np.inf)


def one_by_one(clean: dict[int, dict[Any, xr.Dataset]]) -> Iterator[Row]:
    """Yield the rows of frames of exposures that come one by one."""
    exact, clipped = [], []
    for _, parts in by_exposure(clean):
        whole = average_backgrounds(parts)
        reference = average_backgrounds(parts[:8])
        sketch = merge_sky_frame_sketches(
            sky_frame_sketch(
                [part],
                reference=reference,
                parameters=FrameSketchParameters(half_range=0.01, cells=64),
            )
            for part in parts
        )
        level = np.stack([part["level"].values.astype(np.float64) for part in parts])
        weight = np.stack([1.0 / part["variance"].values.astype(np.float64) for part in parts])
        mean = (weight * level).sum(axis=0) / weight.sum(axis=0)
        found = sky_frame_from_sketch(sketch, clipped=False)["level"].values
        exact.append(np.abs(found - mean).max() / np.abs(mean).max())
        difference = sky_frame_from_sketch(sketch)["level"] - whole["level"]
        clipped.append(difference.values / np.sqrt(whole["variance"].values))
    yield at_most("24 exposures one by one: weighted mean, relative", max(exact), 1e-6)
    rms = float(np.sqrt(np.mean(np.square(clipped))))
    yield at_most("24 exposures one by one: clipped, rms in standard errors", rms, 0.1, "", ".3f")


def dithered_night() -> Iterator[Row]:
    """Yield the rows of 12 dithered exposures of a simulated field, sources masked by us."""
    transforms = {f"S{k}": t for k, t in mosaic(2, 3, (512, 512), gap=48, pixel=0.015)[0].items()}
    tables = {name: amplifier_grid(name, (1, 2), (512, 256)) for name in transforms}
    truth = night_truth(tables, transforms, seed=3)
    plan = night_plan(biases=0, darks=0, flats=0, science=12, seed=3)
    field = night_scene(plan, truth, seed=3)
    smooth = SmoothSkyParameters(order=2)
    images = {}
    for k, number in enumerate(plan[v.EXPOSURE].values.tolist()):
        for index, name in enumerate(transforms):
            shown = night_exposure_truth(plan, number, tables[name], truth[name], field)
            mean = shown["background"].values.astype(np.float64) + shown["objects"].values
            pixels = np.random.default_rng([k, index]).poisson(mean).astype(np.float32)
            images[k, name] = xr.Dataset(
                {
                    "image": (("y", "x"), pixels, {"units": "electron"}),
                    "variance": (("y", "x"), np.maximum(pixels, 1.0), {"units": "electron2"}),
                    "mask": (("y", "x"), np.zeros(pixels.shape, np.int32), v.mask_attributes()),
                }
            )
    found: list[ExposureResiduals] = []
    frames: dict[str, xr.Dataset] = {}
    for bin_size in (32, 64):  # the second time on images less sky and sky frame
        found = [
            one_exposure(k, images, transforms, smooth, bin_size, found, frames) for k in range(12)
        ]
        frames = {
            name: average_backgrounds([one.residuals[name] for one in found]) for name in transforms
        }
    y, x = np.mgrid[:512, :512]
    exact = {}
    for name, transform in transforms.items():
        pattern = sky_pattern(truth[name], y, x, "r").reshape(16, 32, 16, 32).mean(axis=(1, 3))
        flat = background_of(lambda x, y: 0 * x * y + 1.0, transform, (512, 512))
        exact[name] = flat.assign(level=flat["level"] + pattern, variance=flat["variance"] + 1e-6)
    expected = exposure_residuals(exact, transforms, parameters=smooth).residuals
    levels = plan["level"].values
    errors, noise = [], []
    for name in transforms:
        counts = np.stack([one.residuals[name]["count_used"].values for one in found])
        noise.append(1.0 / (counts * levels[:, None, None]).sum(axis=0))
        errors.append(frames[name]["level"].values - expected[name]["level"].values)
    at_edge = np.ones((16, 16), bool)
    at_edge[1:-1, 1:-1] = False
    for where, what in ((~at_edge, "away from the frame's edge"), (at_edge, "at the frame's edge")):
        rms = np.sqrt(np.mean(np.square([error[where] for error in errors])))
        photons = np.sqrt(np.mean([part[where] for part in noise]))
        yield at_most(
            f"12 dithered exposures, bins {what}: rms error over photon noise",
            float(rms / photons), 1.2, "", ".3f",
        )  # fmt: skip


def one_exposure(
    k: int,
    images: dict[tuple[int, str], xr.Dataset],
    transforms: dict[str, Floats],
    smooth: SmoothSkyParameters,
    bin_size: int,
    found: list[ExposureResiduals],
    frames: dict[str, xr.Dataset],
) -> ExposureResiduals:
    """Mask, bin and flatten an exposure; masks are found on what earlier frames leave of it."""
    bins = {}
    for name, transform in transforms.items():
        image = images[k, name]
        seen = image
        if frames:
            sky = focal_plane_on_detector(found[k].model, transform, frames[name])
            sky["level"] = sky["level"] + found[k].scale * frames[name]["level"].values
            seen = image.assign(image=image["image"] - render_background(sky).values)
        mask = mask_objects(seen, parameters=MaskObjectsParameters(background_bin=bin_size))
        bins[name] = measure_background(image.assign(mask=mask), debias=True)
    return exposure_residuals(bins, transforms, parameters=smooth)


def circular_camera() -> Iterator[Row]:
    """Yield the rows of a round camera that falls off by 8 per cent, half its cells unseen."""
    transforms, shapes = mosaic(16, 16, (256, 256), gap=0)
    inside = {
        name: transform
        for name, transform in transforms.items()
        if np.hypot(*to_focal_plane(transform, 127.5, 127.5)) < 20.0
    }

    def sky(x: Floats, y: Floats) -> Floats:
        return np.asarray(1000.0 * (1.0 - 0.08 * (x**2 + y**2) / 20.0**2))

    rng = np.random.default_rng(1)
    bins = backgrounds_of(sky, inside, shapes, noise=1.0, rng=rng)
    parameters = FocalPlaneParameters(cell_size=(4.0, 4.0), alignment="edge")
    model = focal_plane_background(bins, inside, parameters=parameters)
    seen = np.isfinite(model["variance"].values)
    exact = sky(model["focal_x"].values[None, :], model["focal_y"].values[:, None])
    expected = float(np.median(exact[seen]))
    yield within(
        f"sky level of a round camera, {100 * (1 - seen.mean()):.0f} % of its cells unseen",
        float(model["scale"]), expected, 1e-3 * expected, form=".2f",
    )  # fmt: skip
    everywhere = float(np.median(model["level"]))
    yield between(
        "the same by all cells, for comparison: lower by, per cent",
        100 * (1 - everywhere / expected),
        1.0,
        10.0,
    )


def detector_types() -> Iterator[Row]:
    """Yield the rows of a camera of two detector types whose response differs by 2 per cent."""
    transforms, shapes = mosaic(6, 6, (256, 256), gap=10)
    types = {name: "b" if (name // 6 + name) % 2 else "a" for name in transforms}
    pulls, left = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bins = backgrounds_of(
            lambda x, y: 1000.0 + 5.0 * x - 8.0 * y, transforms, shapes, noise=1.0, rng=rng
        )
        bins = {
            name: item.assign(level=item["level"] + 20.0 * (types[name] == "b"))
            for name, item in bins.items()
        }
        found = exposure_residuals(
            bins,
            transforms,
            parameters=SmoothSkyParameters(steps="type"),
            detector_types=types,
        )
        b, a = (float(found.model["step"].sel(group=kind)) for kind in "ba")
        sigma = 2.0 / np.sqrt(sum(item["level"].size for item in bins.values()))
        pulls.append((b - a - 20.0) / sigma)
        means = {name: float(r["level"].mean()) for name, r in found.residuals.items()}
        left.append(
            np.mean([means[name] for name in means if types[name] == "b"])
            - np.mean([means[name] for name in means if types[name] == "a"])
        )
    yield at_most(
        "step of 2 % between detector types: largest pull of 20",
        float(np.max(np.abs(pulls))),
        3.0,
        "",
        ".2f",
    )
    yield at_most("step left in the residuals", float(np.max(np.abs(left))), 1e-3)


def masks() -> Iterator[Row]:
    """Yield how far masks are those of the plain procedure, and what they cost."""
    rng = np.random.default_rng(1)
    side = 2048
    image = rng.normal(1000.0, 30.0, (side, side))
    for _ in range(800):
        top, left = rng.integers(0, side - 12, 2)
        image[top : top + 12, left : left + 12] += rng.exponential(800.0)
    variance = np.full(image.shape, 900.0, np.float32)
    exposure = xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32)),
            "variance": (("y", "x"), variance),
            "mask": (("y", "x"), np.zeros(image.shape, np.int32), v.mask_attributes()),
        }
    )
    parameters = MaskObjectsParameters(background_bin=4096, peak_threshold=2.5)
    found = mask_objects(exposure, parameters=parameters).values != 0
    same = float(np.mean(found == plain_masks(image, variance)))
    yield between("pixels masked as by the plain procedure, per cent", 100 * same, 99.0, 100.0)
    for what, chosen in (
        ("as by the plain procedure", parameters),
        ("as by default", MaskObjectsParameters()),
        ("the first alone, as by default", MaskObjectsParameters(iterations=1)),
    ):
        mask_objects(exposure, parameters=chosen)
        times = []
        for _ in range(3):
            start = time.process_time()
            mask_objects(exposure, parameters=chosen)
            times.append(time.process_time() - start)
        cost = 1e9 * min(times) / chosen.iterations / image.size
        yield at_most(f"time of an iteration of masking, {what}", cost, 30.0, "ns/pixel", ".1f")


def plain_masks(image: Floats, variance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return masks by plain convolution, thresholds and distances."""
    x = np.arange(-17, 18)
    kernel = np.exp(-0.5 * (x / 5.0) ** 2)
    kernel /= kernel.sum()

    def convolved(plane: Floats, taps: Floats) -> Floats:
        rows = ndimage.convolve1d(plane, taps, axis=0, mode="constant")
        return np.asarray(ndimage.convolve1d(rows, taps, axis=1, mode="constant"))

    noise = np.sqrt(convolved(variance.astype(np.float64), kernel**2))
    image = image.astype(np.float32).astype(np.float64)
    grown = np.zeros(image.shape, bool)
    for _ in range(3):
        values = image[~grown]
        center, half = np.median(values), 3 * 0.7413 * np.subtract(*np.percentile(values, [75, 25]))
        for _ in range(3):
            used = values[np.abs(values - center) <= half]
            center, half = used.mean(), 3 * used.std(ddof=1)
        found = convolved(image - center, kernel) > 2.5 * noise
        grown = ndimage.distance_transform_edt(~found) <= 12.0
    return grown


def measure() -> list[Row]:
    """Return the rows of this topic."""
    parts = (masks, circular_camera, detector_types, nights, dithered_night)
    return [row for part in parts for row in part()]
