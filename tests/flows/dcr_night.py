"""A night of chromatic stars seen at many airmasses, from frames to coadds, and its truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sky_night
import xarray as xr
from scipy.ndimage import gaussian_filter, label

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import conditions_at
from skyloom.algorithms.simulate import (
    CameraParameters,
    NightParameters,
    PassBand,
    PlanParameters,
    SceneParameters,
    band_fractions,
    night_plan,
    night_scene,
    night_truth,
    schedule_plan,
)
from skyloom.algorithms.simulate.dispersion import row_conditions
from skyloom.algorithms.simulate.light import objects_image
from skyloom.algorithms.skymap import Patch, SkyMapParameters, Tract, make_skymap
from skyloom.flows import coadds, detrend, ingest, match_backgrounds, warps
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.dcr_blocks import patch_centre
from skyloom.flows.night_files import SimulatedNight, write_night
from skyloom.flows.progress import choose_observers
from skyloom.flows.templates import template
from skyloom.storage.camera import Camera, load_camera, parse_camera
from skyloom.storage.store import Store, create_store

FILTER = "g"
BAND = {"lambda_min": 402.81, "lambda_max": 549.81, "lambda_ref": 476.31}
CENTRE = (150.0, -12.0)
PIXEL = 0.2625


class DcrNight(NamedTuple):
    """Exposures that are in the store, exposures that are held out, and the truth of both."""

    night: SimulatedNight
    held_out: xr.Dataset
    parameters: NightParameters
    sky_map: dict[str, Any]

    def tract(self) -> Tract:
        """Return the tract."""
        return make_skymap(SkyMapParameters.model_validate(self.sky_map))[0]

    def truth(self, plan: xr.Dataset, exposure: int, patch: Patch, fwhm: float) -> np.ndarray:
        """Return what an exposure shows of stars on a patch without noise, nJy, at some seeing."""
        row = plan.sel({v.EXPOSURE: exposure})
        row = row.assign(seeing=((), fwhm * PIXEL), exposure_time=((), 1.0), transparency=((), 1.0))
        plane = self.tract().plane
        box = patch.outer
        plane = plane._replace(x=plane.x - box.x_start, y=plane.y - box.y_start)
        light = objects_image(row, plane, box.shape, self.night.scene, self.parameters)
        # Electrons per second outside the atmosphere, whose zero point is 27.
        return light * 10 ** (-0.4 * (27.0 - 31.4))


def small_camera(side: int = 192, *, seeing: bool = True) -> Camera:
    """Return two detectors of one amplifier each, one of which is turned by 180 degree.

    Without ``seeing`` no header key is known of it.
    """
    text = load_camera("simulated-sky").text
    head = text[text.index("observatory:") : text.index("templates:")]
    head = head if seeing else head.replace("  seeing: SEEING\n", "")
    return parse_camera(
        f"""
name: two
pixel_type: uint16
pixel_size: 15
{head}
templates:
  amplifiers:
    one:
      data: {{y: [0, {side}], x: [0, {side}]}}
      overscan: {{y: [0, {side}], x: [{side}, {side + 32}]}}
      gain: 1.5
      read_noise: 6.0
      saturation: 60000
  detectors:
    one:
      shape: [{side}, {side + 32}]
      amplifiers:
        - {{name: A, template: one, origin: [0, 0]}}
detectors:
  - {{name: L, id: 0, hdu: L, template: one, offset_mm: [{-0.0077 * side}, 0.0]}}
  - {{name: R, id: 1, hdu: R, template: one, offset_mm: [{0.0077 * side}, 0.0], rotation: 180}}
""",
        "two.yaml",
    )


def dcr_night(
    camera: Camera,
    *,
    visits: int = 16,
    seed: int = 5,
    density: float = 12.0,
    seeing_spread: float = 0.0,
    radius: float = 0.0055,
    patch: int = 160,
    held_out: tuple[float, ...] = (-56.0, -40.0, 42.0, 57.0),
) -> DcrNight:
    """Return a night of dithered exposures, every other one turned, at hour angles up to 60 degree.

    The last of its exposures are never written to files.
    """
    plan = night_plan(
        (FILTER,),
        biases=0,
        darks=0,
        flats=0,
        science=visits + len(held_out),
        centre=CENTRE,
        seed=seed,
        parameters=PlanParameters(
            dither=6.0,
            rotation=20.0,
            rotation_spread=60.0,
            seeing=1.05,
            seeing_spread=seeing_spread,
            faintest_sky=300.0,
            brightest_sky=500.0,
            sky_gradient=0.005,
            sky_curvature=0.0,
        ),
    )
    angles = [*np.linspace(-60.0, 60.0, visits), *held_out]
    plan = schedule_plan(plan, hour_angles=angles, seed=seed)
    # One seeing at all airmasses, times what the plan says of each exposure.
    plan["seeing"] = plan["seeing"] / (plan["airmass"] ** 0.6)
    tables = {name: camera.amplifiers(name) for name in camera.detector_names()}
    response = CameraParameters(sky_pattern=0.001, dead_columns=0, traps=0, hot_pixel_fraction=0.0)
    truth = night_truth(
        tables, detector_transforms(camera), [FILTER], seed=seed, parameters=response
    )
    scene = night_scene(
        plan,
        truth,
        seed=seed,
        parameters=SceneParameters(
            star_density=density,
            galaxy_density=0.0,
            faintest_star=400.0,
            brightest_star=15000.0,
            temperatures=(3500.0, 15000.0),
        ),
    )
    parameters = NightParameters(bands={FILTER: PassBand(**BAND)}, cosmic_ray_rate=0.0)
    sky_map = {
        "kind": "discrete",
        "tracts": [
            {"right_ascension": CENTRE[0], "declination": CENTRE[1], "radius": radius},
        ],
        "pixel_scale": PIXEL,
        "tract_overlap": 0.0,
        "patch_shape": [patch, patch],
        "patch_border": 20,
    }
    written = plan.isel({v.EXPOSURE: slice(0, visits)})
    rest = plan.isel({v.EXPOSURE: slice(visits, None)})
    night = SimulatedNight(camera, written, truth, scene, parameters)
    return DcrNight(night, rest, parameters, sky_map)


def make_coadds(
    folder: Path, made: DcrNight, held_out: Sequence[int] = (), *, psf: bool = False
) -> Store:
    """Write the files, ingest and detrend them, and make warps and coadds with matched skies.

    Coadds are made without the visits that are held out; with ``psf`` point-spread functions are
    measured.
    """
    write_night(folder / "fits", made.night, choose_observers(False))
    store = create_store(folder / "store", made.night.camera)
    assert ingest(store, folder / "fits", progress=False).exit_code == 0
    sky_night.write_true_calibrations(store, made.night, physical_filter=FILTER)
    assert detrend(store, {}).run(progress=False).exit_code == 0
    chosen: dict[str, Any] = {"sky_map": made.sky_map} | ({} if psf else {"psf": None})
    assert warps(store, chosen).run(progress=False).exit_code == 0
    chosen = {"bin_size": 32, "match": {"order": 0}}
    assert match_backgrounds(store, chosen).run(progress=False).exit_code == 0
    chosen = {
        "coadd": {"statistic": "mean"},
        "artifacts": None,
        "selection": {"exclude_exposures": tuple(held_out)},
    }
    assert coadds(store, chosen).run(progress=False).exit_code == 0
    return store


class Judged(NamedTuple):
    """What templates and the plain coadd leave of exposures that were never written.

    ``residual_template`` and ``residual_coadd`` (visit), rms within 8 pixels of stars, nJy;
    ``ratio`` of all visits together; groups of pixels beyond 5 standard deviations of the noise of
    a visit, all visits together.
    """

    residual_template: np.ndarray[Any, Any]
    residual_coadd: np.ndarray[Any, Any]
    ratio: float
    false_template: int
    false_coadd: int


def judge(
    made: DcrNight, store: Store, fwhm: float = 4.0, coadd_fwhm: float | None = None
) -> Judged:
    """Compare templates, and the plain coadd, with the truth of exposures that were never written.

    The truth has no noise. With ``coadd_fwhm``, the seeing of the coadd, which is worse than that
    of templates, what templates leave is brought to it, as a subtraction from such a visit would.
    False detections are those in a difference with the noise of one visit.
    """
    wider = np.sqrt(max((coadd_fwhm or fwhm) ** 2 - fwhm**2, 0.0)) / 2.3548
    patch = made.tract().patch(0)
    coadd = store.read_block("coadd", {v.FILTER: FILTER, v.PATCH: "0-0"})
    depth = coadd["n_image"].values
    inner = np.zeros(patch.outer.shape, bool)
    inner[12:-12, 12:-12] = True
    good = inner & (depth >= 0.5 * depth.max()) & np.isfinite(coadd["image"].values)
    near, calm = near_stars(made, patch, 8.0), ~near_stars(made, patch, 16.0)
    warp = store.read_block("warps", {v.VISIT: 6, v.PATCH: "0-0"})
    noise = float(np.sqrt(np.nanmedian(warp["variance"].values[good & calm])))
    rng = np.random.default_rng(2)
    rows, false = [], [0, 0]
    for number in made.held_out[v.EXPOSURE].values:
        true, other = (
            made.truth(made.held_out, int(number), patch, width)
            for width in (fwhm, coadd_fwhm or fwhm)
        )
        row = made.held_out.sel({v.EXPOSURE: number})
        there = conditions_at(row_conditions(row), *patch_centre(made.tract(), patch))
        predicted = template(
            store, altitude=there.altitude, parallactic_angle=there.parallactic_angle
        )
        white = noise * rng.standard_normal(true.shape)
        own = []
        pairs = ((true, predicted["image"]), (other, coadd["image"]))
        for index, (light, image) in enumerate(pairs):
            difference = light - image.values
            if index == 0 and wider:
                difference = gaussian_filter(np.nan_to_num(difference), wider)
            difference = difference - np.median(difference[good & calm])
            own.append(float(np.sqrt(np.mean(difference[good & near] ** 2))))
            false[index] += groups_beyond(
                np.where(good, difference + white, 0.0), noise, coadd_fwhm or fwhm
            )
        rows.append(own)
    table = np.array(rows)
    total = np.sqrt((table**2).mean(axis=0))
    return Judged(table[:, 0], table[:, 1], float(total[0] / total[1]), *false)


def near_stars(made: DcrNight, patch: Patch, radius: float) -> np.ndarray[Any, Any]:
    """Return the pixels of a patch that are within a radius of a star."""
    scene, box = made.night.scene, patch.outer
    x, y = made.tract().plane.to_pixels(
        scene["right_ascension"].values, scene["declination"].values
    )
    rows, columns = np.indices(box.shape)
    found = np.zeros(box.shape, bool)
    for at_x, at_y in zip(x - box.x_start, y - box.y_start, strict=True):
        found |= np.hypot(rows - at_y, columns - at_x) <= radius
    return found


def groups_beyond(difference: np.ndarray[Any, Any], noise: float, fwhm: float) -> int:
    """Return how many groups of pixels stand out of a filtered difference."""
    sigma = fwhm / 2.3548
    filtered = gaussian_filter(difference, sigma)
    level = noise / (2.0 * np.sqrt(np.pi) * sigma)
    return sum(int(label(sign * filtered > 5.0 * level)[1]) for sign in (1.0, -1.0))


def moments(made: DcrNight, store: Store) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return first spectral moments of stars alone: from apertures on the model, and true ones."""
    patch = made.tract().patch(0)
    scene, box = made.night.scene, patch.outer
    model = store.read_block("dcr", {v.FILTER: FILTER, v.PATCH: "0-0"})["model"].values
    planes = model - np.median(model, axis=(1, 2))[:, None, None]
    plane = made.tract().plane
    x, y = plane.to_pixels(scene["right_ascension"].values, scene["declination"].values)
    x, y = x - box.x_start, y - box.y_start
    edges = np.linspace(BAND["lambda_min"], BAND["lambda_max"], len(planes) + 1)
    fractions = band_fractions(scene, PassBand(**BAND), edges.tolist()).values
    centres = (np.arange(len(planes)) - (len(planes) - 1) / 2) / len(planes)
    rows, columns = np.indices(box.shape)
    found, true = [], []
    for index in np.argsort(-scene["flux"].values[0]):
        apart = np.hypot(x - x[index], y - y[index])
        apart[index] = np.inf
        inside = 16 < x[index] < box.shape[1] - 16 and 16 < y[index] < box.shape[0] - 16
        bright = scene["flux"].values[0] > 0.1 * scene["flux"].values[0, index]
        if not inside or apart[bright].min() < 9 or scene["flux"].values[0, index] < 800:
            continue
        near = np.hypot(rows - y[index], columns - x[index]) <= 5
        flux = planes[:, near].sum(axis=1)
        found.append(float((centres * flux).sum() / flux.sum()))
        true.append(float((centres * fractions[index]).sum()))
    return np.array(found), np.array(true)
