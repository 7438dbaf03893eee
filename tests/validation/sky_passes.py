"""Sky frames made twice over: objects found again beside a first sky, frames and skies by turns."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate import sky_pattern
from skyloom.algorithms.sky import RefinementParameters, refine_sky_frames
from skyloom.flows import detrend, sky_frames
from skyloom.flows.camera_constants import detector_transforms
from skyloom.storage.store import Store, open_store
from tests.algorithms.sky.night_scene import backgrounds, night, true_backgrounds
from tests.validation.rows import Row, at_most

# The scenes of the flows' tests import each other by name.
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

if TYPE_CHECKING:
    from tests.flows import sky_night
    from tests.flows.sky_night import SimulatedNight
else:
    import sky_night

__all__ = ["measure"]

EXPOSURES, MISSING = 24, 0.2
NIGHT = 12
OFTEN = 5
SMOOTH = 5


def measure() -> list[Row]:
    """Return the rows of this topic."""
    return [*_twice(), *_by_turns()]


def _twice() -> list[Row]:
    """Return the rows of the flow, its objects found once and twice."""
    simulated = sky_night.sky_night(NIGHT)
    errors, left, offsets, scales = {}, {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(sky_night.make_store(Path(folder), simulated))
        sky_night.write_true_calibrations(store, simulated)
        detrend(store).run(progress=False)
        for passes in (1, 2):
            sky_frames(store, {"passes": passes}).run(progress=False)
            errors[passes] = _error(store, simulated)
            sky = sky_night.sky_left(store, simulated)
            left[passes] = float(np.std(sky, axis=1).max())
            offsets[passes] = float(np.abs(np.mean(sky, axis=1)).max())
            fit = store["sky_fit"].load()
            true = simulated.plan["level"].sel(exposure=fit["exposure"].values).values
            scales[passes] = (fit["scale"] / true).values - 1.0
            sigmas = (fit["scale_sigma"] / true).values
    what = f"flow, {NIGHT} dithered exposures of 6 detectors of 512²"
    return [
        at_most(f"{what}: error of frames over the pattern (objects found once: {errors[1]:.3f})",
                errors[2], 0.25, "", ".3f"),
        at_most(f"{what}: sky left beyond 64 pixels, the worst exposure (once: {left[1]:.1e})",
                left[2], 1e-3, "of the sky", ".1e"),
        at_most(f"{what}: mean sky left, the worst exposure (once: {offsets[1]:.1e})",
                offsets[2], 1e-3, "of the sky", ".1e"),
        at_most(f"{what}: mean of scale / truth - 1, of frames that are made of these exposures",
                abs(float(scales[2].mean())), 1e-3, "", ".1e"),
        at_most(f"{what}: largest of |scale / truth - 1| in its error bars, which are "
                f"{sigmas.min():.1e} to {sigmas.max():.1e}: detectors are small",
                float(np.abs(scales[2] / sigmas).max()), 3.5, "", ".2f"),
    ]  # fmt: skip


def _error(store: Store, simulated: SimulatedNight) -> float:
    """Return the rms error of frames over that of the pattern, beside what cells take off."""
    frames = store["sky_frame"].isel(physical_filter=0).load()
    transforms = detector_transforms(simulated.camera)
    parts = []
    for name, truth in simulated.truth.items():
        frame = frames.sel(detector=name)
        centres = (np.arange(frame.sizes[dim]) * 32 + 15.5 for dim in ("bin_y", "bin_x"))
        row, column = np.meshgrid(*centres, indexing="ij")
        often = frame["exposure_count"].values >= OFTEN
        x, y = to_focal_plane(transforms[name], column[often], row[often])
        pattern = np.asarray(sky_pattern(truth, row, column)).squeeze()[often]
        parts.append(np.stack([frame["level"].values[often], pattern, x / 12.0, y / 8.0]))
    found, true, u, w = np.concatenate(parts, axis=1)
    smooth = np.stack([u**i * w**j for i in range(SMOOTH) for j in range(SMOOTH - i)], axis=1)
    found, true = (a - smooth @ np.linalg.lstsq(smooth, a)[0] for a in (found, true))
    return float(np.std(found - true) / np.std(true))


def _by_turns() -> list[Row]:
    """Return the rows of frames and skies by turns, where detectors are missing."""
    of = night(EXPOSURES, 4, 4)
    box = (-of.half_width, of.half_width, -of.half_width, of.half_width)
    rng = np.random.default_rng(2)
    bins = {
        k: {name: item for name, item in backgrounds(of, k).items() if rng.random() > MISSING}
        for k in range(EXPOSURES)
    }
    truth = refine_sky_frames(
        {0: true_backgrounds(of)}, of.transforms, focal_box=box,
        parameters=RefinementParameters(sweeps=0),
    ).frames  # fmt: skip
    errors, changes = {}, 0.0
    for sweeps in (0, 5):
        found = refine_sky_frames(
            bins, of.transforms, focal_box=box,
            parameters=RefinementParameters(sweeps=sweeps, tolerance=0.0),
        )  # fmt: skip
        left = [(found.frames[name]["level"] - truth[name]["level"]).values for name in truth]
        errors[sweeps] = float(np.std(left))
        changes = found.changes[-1] if found.changes else 0.0
    scene = "24 exposures, 16 detectors of 512², a fifth of them missing"
    return [
        at_most(
            f"{scene}, frames and skies by turns: rms error (without: {errors[0]:.2e})",
            errors[5], 1.9e-4, "", ".2e",
        ),
        at_most("the same: change of frames in the fifth sweep", changes, 1e-6),
    ]  # fmt: skip
