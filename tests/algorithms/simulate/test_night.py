"""The frames of a simulated night are what plan, truth and scene say, and can be made alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import center_of_mass, label

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.simulate import (
    CameraParameters,
    Defect,
    NightParameters,
    PlanParameters,
    SceneParameters,
    TruthParameters,
    amplifier_grid,
    exposure_plane,
    light_gradient,
    night_exposure_truth,
    night_plan,
    night_scene,
    night_truth,
    simulate_night,
    simulate_night_exposure,
    sky_pattern,
    sky_scene,
)
from skyloom.algorithms.simulate.stamps import bleed

SHAPE = (128, 128)
EMPTY = SceneParameters(star_density=0, galaxy_density=0)
CLEAN = CameraParameters(
    hot_pixel_fraction=0, warm_columns=0, dead_columns=0, traps=0, glow=0, dark_spread=0
)
PLAIN = NightParameters(noise=False, bias_drift=0, row_noise=0, cosmic_ray_rate=0)


def tables() -> dict[str, xr.Dataset]:
    made = {
        name: amplifier_grid(name, (2, 2), (64, 64), overscan=16, saturation=60000)
        for name in ("A", "B")
    }
    flips = {"flip_x": ("amp", [False, True] * 2), "flip_y": ("amp", [False, False, True, True])}
    return {name: table.assign(flips) for name, table in made.items()}


TRANSFORMS = {
    "A": detector_transform(SHAPE, pixel_size=0.015, offset=(-1.1, 0.4)),
    "B": detector_transform(SHAPE, pixel_size=0.015, offset=(1.1, -0.4), rotation=180),
}


def truths(
    parameters: CameraParameters = CLEAN, filters: tuple[str, ...] = ("r",), **more: Any
) -> dict[str, xr.Dataset]:
    return night_truth(tables(), TRANSFORMS, filters, seed=5, parameters=parameters, **more)


def trimmed(frame: xr.Dataset, table: xr.Dataset, truth: xr.Dataset) -> np.ndarray[Any, Any]:
    """Return bias-subtracted electrons in trimmed orientation, by the true level and gain."""
    image = np.zeros(SHAPE)
    for row in amplifier_rows(table):
        own = truth.sel(amp=row.name)
        raw = frame.image.to_numpy()[row.data.slices].astype(np.float64)
        section = (raw - float(own.bias_level)) * float(own.gain)
        image[row.trimmed.slices] = section[row.turn]
    return image


def one_star(
    flux: float, ra: float = 150.0, dec: float = 2.0, scale: float = 0.0, **more: float
) -> xr.Dataset:
    values = {"right_ascension": ra, "declination": dec, "scale": scale, "axis_ratio": 1.0}
    values |= {"position_angle": 0.0, **more}
    return xr.Dataset(
        {
            "flux": (("physical_filter", "source"), [[flux]]),
            **{name: ("source", [value]) for name, value in values.items()},
        },
        coords={"physical_filter": ["r"]},
    )


def sky_plan(**more: Any) -> xr.Dataset:
    return night_plan(["r"], biases=0, darks=0, flats=0, science=more.pop("science", 1), **more)


# Plan ------------------------------------------------------------------------------------------
def test_a_plan_lists_what_was_asked_for_in_the_order_of_the_night() -> None:
    plan = night_plan(["g", "r"], biases=2, darks=1, flats=3, science=2, flat_levels=(1e4, 2e4))
    kinds, counts = np.unique(plan.observation_type, return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {
        "bias": 2,
        "dark": 1,
        "flat": 6,
        "science": 4,
    }
    assert np.all(np.diff(plan.mjd_start) > 0)
    assert np.unique(plan.seed).size == plan.sizes["exposure"]
    science = plan.isel(exposure=plan.observation_type == "science")
    assert np.isfinite(science.right_ascension).all()
    assert ((science.level >= 500) & (science.level <= 3000)).all()
    assert ((science.airmass >= 1.02) & (science.airmass <= 1.6)).all()
    flats = plan.isel(exposure=plan.observation_type == "flat")
    np.testing.assert_allclose(flats.level, [1e4, 2e4, 1e4] * 2, rtol=0.02)
    np.testing.assert_allclose(flats.flux * flats.exposure_time, [1e4, 2e4, 1e4] * 2)
    assert np.isnan(flats.right_ascension).all()
    rest = plan.isel(exposure=plan.observation_type == "bias")
    assert (rest.level == 0).all()
    assert (rest.dark_time == 0).all()


def test_pointings_scatter_by_the_dither() -> None:
    plan = sky_plan(science=400, seed=2, parameters=PlanParameters(dither=20.0))
    dec = (plan.declination.to_numpy() - 2.0) * 3600
    assert dec.std() == pytest.approx(20.0, rel=4 / np.sqrt(800))
    ra = (plan.right_ascension.to_numpy() - 150.0) * 3600 * np.cos(np.deg2rad(2.0))
    assert ra.std() == pytest.approx(20.0, rel=4 / np.sqrt(800))


def test_everything_wrong_with_a_plan_is_listed_at_once() -> None:
    wrong = PlanParameters(faintest_sky=9e3)
    with pytest.raises(ValueError, match=r"got \[-1.*must be different.*flat_levels.*faintest_sky"):
        night_plan(["r", "r"], biases=-1, flat_levels=[np.nan], parameters=wrong)
    with pytest.raises(ValueError, match="not all 0"):
        night_plan([], biases=0, darks=0, flats=0, science=0)


# Truth -----------------------------------------------------------------------------------------
def test_the_truth_of_a_detector_and_filter_does_not_depend_on_the_others() -> None:
    both = night_truth(tables(), TRANSFORMS, ["g", "r"], seed=5)
    alone = night_truth({"B": tables()["B"]}, TRANSFORMS, ["r"], seed=5)["B"]
    xr.testing.assert_identical(both["B"].sel(physical_filter=["r"]), alone)
    other = night_truth(tables(), TRANSFORMS, ["r"], seed=6)["B"]
    assert not np.array_equal(other.flat, alone.flat)


def test_the_sky_pattern_is_a_function_of_position_with_the_asked_rms() -> None:
    truth = truths(CameraParameters(sky_pattern=0.02, fringes={"z": 0.05}), ("r", "z"))["A"]
    y, x = np.arange(128.0)[:, None], np.arange(128.0)
    smooth, fringed = sky_pattern(truth, y, x, "r"), sky_pattern(truth, y, x, "z")
    assert np.sqrt(np.mean(smooth**2)) == pytest.approx(0.02, rel=1e-3)
    assert np.sqrt(np.mean(fringed**2)) == pytest.approx(np.hypot(0.02, 0.05), rel=0.1)
    assert float(sky_pattern(truth, 17.0, 33.0, "r")) == pytest.approx(smooth[17, 33], abs=1e-12)
    between = 0.5 * (smooth[17, 33] + smooth[18, 33])
    assert float(sky_pattern(truth, 17.5, 33.0, "r")) == pytest.approx(between, abs=2e-4)
    with pytest.raises(KeyError, match="no filter 'u' in the truth; it has r, z"):
        sky_pattern(truth, y, x, "u")
    with pytest.raises(KeyError, match="no filter None"):
        sky_pattern(truth, y, x)


def test_response_and_vignetting_are_those_of_the_parameters() -> None:
    quiet = CLEAN.model_copy(
        update={
            "detector_response": 0.0,
            "colour_response": 0.0,
            "amplifier_response": 0.0,
            "flat_structure": 0.0,
            "pixel_response": 0.0,
            "vignetting": 0.2,
            "field_radius": 2.0,
        }
    )
    truth = truths(quiet)["B"]
    x, y = to_focal_plane(TRANSFORMS["B"], np.arange(128), np.arange(128)[:, None])
    np.testing.assert_allclose(
        truth.flat.squeeze("physical_filter"), 1 - 0.2 * (x**2 + y**2) / 4, atol=1e-6
    )
    rough = quiet.model_copy(update={"vignetting": 0.0, "pixel_response": 0.03})
    assert float(truths(rough)["A"].flat.std()) == pytest.approx(0.03, rel=4 / np.sqrt(2) / 128)


def test_defects_are_where_the_truth_says() -> None:
    parameters = CameraParameters(
        hot_pixel_fraction=0.01, dead_columns=2, traps=2, warm_columns=2, glow=0
    )
    truth = truths(parameters)["A"]
    defects, flat = truth.defects.to_numpy(), truth.flat.to_numpy()[0]
    assert np.all(flat[(defects & Defect.DEAD) > 0] == 0)
    assert flat[(defects & Defect.DEAD) == 0].min() > 0.6
    assert (defects & Defect.HOT > 0).sum() == pytest.approx(164, abs=4 * 13)
    assert truth.dark_image.to_numpy()[defects & Defect.WARM_COLUMN > 0].min() > 1.0
    assert truth.dark_image.to_numpy()[(defects & (Defect.HOT | Defect.WARM_COLUMN)) == 0].max() < 1
    trapped = (defects & (Defect.TRAP | Defect.DEAD)) == Defect.TRAP
    assert flat[trapped].mean() == pytest.approx(0.8 * flat[defects == 0].mean(), rel=0.02)


def test_a_truth_that_cannot_be_made_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="no transform for the detectors B"):
        night_truth(tables(), {"A": TRANSFORMS["A"]})
    with pytest.raises(ValueError, match="holds no detector"):
        night_truth({}, {})
    with pytest.raises(ValueError, match="filters must be different"):
        night_truth(tables(), TRANSFORMS, ["r", "r"])


# Bias, dark, flat ------------------------------------------------------------------------------
def test_the_mean_of_many_biases_is_level_and_structure() -> None:
    number = 60
    plan = night_plan(biases=number, darks=0, flats=0, science=0, seed=1)
    table, truth = tables()["A"], truths()["A"]
    quiet = NightParameters(bias_drift=0, row_noise=0)
    frames = [
        trimmed(simulate_night_exposure(plan, n, table, truth, parameters=quiet), table, truth)
        for n in range(1, number + 1)
    ]
    gain = np.zeros(SHAPE)
    noise = np.zeros(SHAPE)
    for row in amplifier_rows(table):
        gain[row.trimmed.slices] = float(truth.gain.sel(amp=row.name))
        noise[row.trimmed.slices] = float(truth.noise.sel(amp=row.name))
    off = (np.mean(frames, axis=0) - gain * truth.bias_image.to_numpy()) / noise * np.sqrt(number)
    assert off.mean() == pytest.approx(0, abs=4 / 128)
    # rounding to whole adu is no Gaussian and repeats where the structure does
    assert off.std() == pytest.approx(1, abs=0.05)
    assert float(truth.bias_image.std()) > 1


def test_overscan_holds_the_level_and_no_structure() -> None:
    plan = night_plan(biases=1, darks=0, flats=0, science=0)
    table, truth = tables()["A"], truths()["A"]
    frame = simulate_night_exposure(plan, 1, table, truth, parameters=PLAIN)
    for row in amplifier_rows(table):
        overscan = frame.image.to_numpy()[row.overscan.slices]
        np.testing.assert_allclose(overscan, float(truth.bias_level.sel(amp=row.name)), rtol=1e-6)


def test_dark_current_grows_with_dark_time() -> None:
    table, truth = tables()["A"], truths(CameraParameters(dark_current=0.5))["A"]
    plan = night_plan(
        biases=1,
        darks=1,
        flats=0,
        science=0,
        parameters=PlanParameters(dark_exposure_time=99, dark_overhead=1),
    )
    bias, dark = (
        trimmed(simulate_night_exposure(plan, n, table, truth, parameters=PLAIN), table, truth)
        for n in (1, 2)
    )
    np.testing.assert_allclose(dark - bias, 100 * truth.dark_image, rtol=1e-3, atol=0.02)


def test_a_flat_without_noise_is_level_gradient_and_response() -> None:
    table, truth = tables()["B"], truths(CLEAN.model_copy(update={"dark_current": 0.0}))["B"]
    plan = night_plan(biases=1, darks=0, flats=1, science=0, seed=4)
    bias, flat = (
        trimmed(simulate_night_exposure(plan, n, table, truth, parameters=PLAIN), table, truth)
        for n in (1, 2)
    )
    row = plan.sel(exposure=2)
    light = light_gradient(row, truth, np.arange(128)[:, None], np.arange(128))
    expected = float(row.level) * light * truth.flat.to_numpy()[0]
    np.testing.assert_allclose((flat - bias) / expected, 1, atol=2e-6)
    assert float(row.level) != 3e4
    assert float(row.level) == pytest.approx(3e4, rel=0.02)


def test_photon_noise_has_the_variance_of_the_mean() -> None:
    table, truth = tables()["A"], truths()["A"]
    plan = night_plan(biases=0, darks=0, flats=2, science=0, seed=4)
    quiet = NightParameters(bias_drift=0, row_noise=0, cosmic_ray_rate=0, dtype="float32")
    one, two = (
        trimmed(simulate_night_exposure(plan, n, table, truth, parameters=quiet), table, truth)
        for n in (1, 2)
    )
    means = [
        night_exposure_truth(plan, n, table, truth, parameters=quiet).expected.to_numpy()
        for n in (1, 2)
    ]
    noise = float(truth.noise.to_numpy().mean())
    pull = ((one - means[0]) - (two - means[1])) / np.sqrt(means[0] + means[1] + 2 * noise**2)
    assert pull.var() == pytest.approx(1, abs=4 * np.sqrt(2 / pull.size))
    assert pull.mean() == pytest.approx(0, abs=4 / 128)


# Sky -------------------------------------------------------------------------------------------
def test_the_sky_after_division_by_the_flat_is_level_gradient_and_pattern() -> None:
    table, truth = tables()["B"], truths(CLEAN.model_copy(update={"dark_current": 0.0}))["B"]
    plan = night_plan(biases=1, darks=0, flats=0, science=1, seed=4)
    bias, sky = (
        trimmed(simulate_night_exposure(plan, n, table, truth, parameters=PLAIN), table, truth)
        for n in (1, 2)
    )
    row = plan.sel(exposure=2)
    y, x = np.arange(128)[:, None], np.arange(128)
    found = (sky - bias) / truth.flat.to_numpy()[0] / float(row.level)
    expected = light_gradient(row, truth, y, x) + sky_pattern(truth, y, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    background = night_exposure_truth(plan, 2, table, truth).background
    np.testing.assert_allclose(background / float(row.level), expected, rtol=1e-6)


def test_gradients_go_on_from_detector_to_detector() -> None:
    row, truth = sky_plan(seed=4).isel(exposure=0), truths()
    x, y = 0.3, -0.2  # mm
    values = []
    for name, transform in TRANSFORMS.items():
        back = np.linalg.inv(transform[:, :2]) @ (np.array([x, y]) - transform[:, 2])
        values.append(float(light_gradient(row, truth[name], back[1], back[0])))
    assert values[0] == pytest.approx(values[1], abs=1e-12)
    expected = 1 + float(row.gradient_x) * x + float(row.gradient_y) * y
    assert values[0] == pytest.approx(expected + float(row.curvature) * (x**2 + y**2), abs=1e-12)


def objects(plan: xr.Dataset, field: xr.Dataset, name: str = "A", exposure: int = 1) -> Any:
    found = night_exposure_truth(
        plan, exposure, tables()[name], truths()[name], field, parameters=PLAIN
    )
    return found.objects.to_numpy().astype(np.float64)


def centred(plan: xr.Dataset, name: str = "A") -> dict[str, float]:
    ra, dec = exposure_plane(plan, 1, truths()[name]).to_sky(63.3, 64.6)
    return {"ra": float(ra), "dec": float(dec)}


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.2])
def test_all_of_the_light_of_an_object_is_on_the_detector(scale: float) -> None:
    plan = sky_plan(seed=3)
    image = objects(plan, one_star(2e3, scale=scale, **centred(plan)))
    expected = 2e3 * float(plan.exposure_time[0]) * float(plan.transparency[0])
    assert image.sum() == pytest.approx(expected, rel=5e-4)
    middle = center_of_mass(image)
    assert middle == pytest.approx((64.6, 63.3), abs=0.02)


def test_a_star_has_the_width_of_the_seeing() -> None:
    plan = sky_plan(seed=3)
    place = {"ra": 0.0, "dec": 0.0}
    plane = exposure_plane(plan, 1, truths()["A"])
    place["ra"], place["dec"] = (float(angle) for angle in plane.to_sky(64.0, 64.0))
    image = objects(plan, one_star(2e3, **place))
    half = float(plan.seeing[0]) / (0.015 * 17.5) / 2
    radius = np.abs(np.arange(128) - 64.0)
    profile = image[64]
    found = np.interp(-0.5 * profile[64], -profile[64:], radius[64:])
    assert found == pytest.approx(half, rel=0.03)


def test_a_disc_without_seeing_falls_exponentially_along_its_axes() -> None:
    plan = sky_plan(seed=3)
    plan["seeing"] = plan.seeing * 0 + 0.3
    plan["rotator_angle"] = plan.rotator_angle * 0
    plane = exposure_plane(plan, 1, truths()["A"])
    ra, dec = (float(angle) for angle in plane.to_sky(64.0, 64.0))
    disc = one_star(1e5, ra=ra, dec=dec, scale=3.0, axis_ratio=0.5, position_angle=0.0)
    image = objects(plan, disc)
    pixels = 3.0 / (0.015 * 17.5)
    along, across = np.log(image[84, 64] / image[104, 64]), np.log(image[64, 84] / image[64, 104])
    assert along == pytest.approx(20 / pixels, rel=0.02)  # north is y
    assert across == pytest.approx(40 / pixels, rel=0.02)


def test_the_same_star_lands_where_each_projection_says() -> None:
    table, truth = tables(), truths()
    plan = sky_plan(science=6, seed=8, parameters=PlanParameters(dither=6.0, rotation_spread=40.0))
    landed = 0
    for name in table:
        for exposure in plan.exposure.to_numpy():
            ra, dec = 150.0 + 14.0 / 3600, 2.0 + 4.0 / 3600
            frame = simulate_night_exposure(
                plan,
                int(exposure),
                table[name],
                truth[name],
                one_star(3e4, ra, dec),
                parameters=PLAIN,
            )
            header = fits.Header(json.loads(str(frame.wcs.values)))
            x, y = (float(p) for p in WCS(header).wcs_world2pix(ra, dec, 0))
            if not (12 < x < 115 and 12 < y < 115):
                continue
            image = trimmed(frame, table[name], truth[name])
            near = image[round(y) - 10 : round(y) + 11, round(x) - 10 : round(x) + 11]
            weight = np.maximum(near - np.median(near) - 0.02 * near.max(), 0)
            found = center_of_mass(weight)
            assert found[0] + round(y) - 10 == pytest.approx(y, abs=0.1)
            assert found[1] + round(x) - 10 == pytest.approx(x, abs=0.1)
            landed += 1
    assert landed >= 3


def test_a_giant_galaxy_is_disc_and_halo() -> None:
    giant = SceneParameters(
        star_density=0, galaxy_density=0, giant_flux=1e4, giant_scale=10, giant_halo_fraction=0.25
    )
    field = sky_scene(
        (10.0, 5.0), 0.01, ["r"], parameters=giant.model_copy(update={"colour_spread": 0})
    )
    assert field.flux.to_numpy().tolist() == [[7500.0, 2500.0]]
    assert field.scale.to_numpy().tolist() == [10.0, 30.0]
    assert field.declination.to_numpy() == pytest.approx([5.0, 5.0])


def test_star_fluxes_follow_the_power_law() -> None:
    parameters = SceneParameters(
        star_density=2e3,
        star_slope=0.7,
        faintest_star=1,
        brightest_star=1e6,
        galaxy_density=0,
        colour_spread=0,
    )
    flux = sky_scene((10.0, 5.0), 0.05, seed=2, parameters=parameters).flux.to_numpy()[0]
    assert flux.size == pytest.approx(2e3 * 36, abs=4 * np.sqrt(2e3 * 36))
    above = (flux > 10).mean()
    assert above == pytest.approx(10**-0.7, rel=4 / np.sqrt(above * flux.size) + 1e-4)


def test_a_scene_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="radius must be > 0"):
        sky_scene((0.0, 0.0), 0.0)
    with pytest.raises(ValueError, match=r"faintest flux 100\.0 is above"):
        sky_scene((0.0, 0.0), 0.1, parameters=SceneParameters(faintest_star=100, brightest_star=10))


# What spoils frames ----------------------------------------------------------------------------
def test_cosmic_rays_come_at_their_rate_and_are_in_the_mask() -> None:
    plan = night_plan(biases=0, darks=20, flats=0, science=0, seed=2)
    table, truth = tables()["A"], truths()["A"]
    rays = PLAIN.model_copy(update={"cosmic_ray_rate": 5e-6})
    tracks = 0
    for exposure in plan.exposure.to_numpy():
        found = night_exposure_truth(plan, int(exposure), table, truth, parameters=rays)
        hit = (found.mask & v.plane_bits(["COSMIC_RAY"], found.mask.attrs)) > 0
        np.testing.assert_array_equal(hit, found.cosmic_rays > 0)
        tracks += label(hit, np.ones((3, 3)))[1]
        frame = simulate_night_exposure(plan, int(exposure), table, truth, parameters=rays)
        assert trimmed(frame, table, truth)[hit].min() > 100
    expected = 20 * 5e-6 * 61 * 128**2
    assert tracks == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_a_satellite_crosses_detectors_in_one_straight_line() -> None:
    plan = sky_plan(science=12, seed=1, parameters=PlanParameters(satellite_rate=1))
    assert 5 <= int(plan.satellites.sum()) <= 20
    plan["satellites"] = plan.satellites * 0 + 1
    near = PLAIN.model_copy(update={"satellite_offset": 0.5})
    crossed = 0
    for exposure in plan.exposure.to_numpy():
        points = []
        for name, table in tables().items():
            image = night_exposure_truth(
                plan, int(exposure), table, truths()[name], parameters=near
            ).satellites.to_numpy()
            y, x = np.nonzero(image > 0.7 * image.max())
            if image.max() > 1e3:
                points.append(np.array(to_focal_plane(TRANSFORMS[name], x, y)).T)
        if len(points) == 2:
            crossed += 1
            both = np.concatenate(points)
            width = np.linalg.svd(both - both.mean(axis=0))[1][1] / np.sqrt(len(both))
            assert width < 2 * 0.015
    assert crossed >= 2


def test_charge_beyond_the_full_well_bleeds_along_its_column() -> None:
    charge = np.full((41, 3), 10.0)
    charge[20, 1] = 510.0
    well = np.full((41, 3), 60.0)
    before = charge.sum()
    bleed(charge, well)
    assert charge.sum() == pytest.approx(before)
    assert charge.max() == 60
    assert (charge[:, 1] == 60).sum() in (9, 10)
    assert np.all(charge[:, [0, 2]] == 10)
    np.testing.assert_allclose(charge, charge[::-1])


def test_bright_stars_saturate_and_the_mask_says_so() -> None:
    plan = sky_plan(seed=3)
    table, truth = tables()["A"], truths()["A"]
    field = one_star(3e5, **centred(plan))
    found = night_exposure_truth(plan, 1, table, truth, field, parameters=PLAIN)
    full = (found.mask & v.plane_bits(["SAT"], found.mask.attrs)).to_numpy() > 0
    assert full.any(axis=1).sum() > 2 * full.any(axis=0).sum()
    frame = simulate_night_exposure(plan, 1, table, truth, field, parameters=PLAIN)
    electrons = trimmed(frame, table, truth)
    well = float(truth.full_well.min())
    assert electrons[full].min() > 0.98 * well
    assert electrons.max() < 1.02 * float(truth.full_well.max())


def test_crosstalk_repeats_a_bright_star_in_the_other_amplifiers() -> None:
    plan = sky_plan(seed=3)
    table = tables()["A"]
    truth = truths()["A"]
    plane = exposure_plane(plan, 1, truth)
    ra, dec = (float(angle) for angle in plane.to_sky(20.0, 30.0))
    talk = truth.crosstalk.copy(data=np.zeros((4, 4)))
    talk.loc[{"amp": "C11", "source_amp": "C00"}] = 1e-3
    field = one_star(1e4, ra, dec)
    without, with_it = (
        simulate_night_exposure(plan, 1, table, each, field, parameters=PLAIN).image.to_numpy()
        for each in (truth, truth.assign(crosstalk=talk))
    )
    ghost = with_it.astype(float) - without
    source, victim = (row for row in amplifier_rows(table) if row.name in ("C00", "C11"))
    signal = without[source.data.slices] - float(truth.bias_level.sel(amp="C00"))
    signal -= truth.bias_image.to_numpy()[source.trimmed.slices]
    np.testing.assert_allclose(ghost[victim.data.slices], 1e-3 * signal, atol=2e-3)
    ghost[victim.data.slices] = 0
    assert not ghost.any()


def test_nonlinearity_loses_its_part_at_full_well() -> None:
    table = tables()["A"]
    plain, bent = (
        truths(CLEAN.model_copy(update={"nonlinearity": loss}))["A"] for loss in (0.0, 0.04)
    )
    plan = night_plan(biases=1, darks=0, flats=1, science=0, flat_levels=(4e4,), seed=4)
    images = []
    for truth in (plain, bent):
        bias, flat = (
            trimmed(simulate_night_exposure(plan, n, table, truth, parameters=PLAIN), table, truth)
            for n in (1, 2)
        )
        images.append(flat - bias)
    well = np.zeros(SHAPE)
    for row in amplifier_rows(table):
        well[row.trimmed.slices] = float(plain.full_well.sel(amp=row.name))
    np.testing.assert_allclose(images[1] / images[0], 1 - 0.04 * images[0] / well, atol=1e-5)


def test_row_noise_and_drift_are_shared_with_the_overscan() -> None:
    plan = night_plan(biases=1, darks=0, flats=0, science=0)
    table, truth = tables()["A"], truths(CLEAN.model_copy(update={"bias_gradient": 0.0}))["A"]
    shaken = NightParameters(bias_drift=10, row_noise=20, dtype="float32")
    frame = simulate_night_exposure(plan, 1, table, truth, parameters=shaken).image.to_numpy()
    row = amplifier_rows(table)[0]
    data, overscan = (frame[box.slices].mean(axis=1) for box in (row.data, row.overscan))
    assert np.corrcoef(data, overscan)[0, 1] > 0.99
    assert abs(overscan.mean() - float(truth.bias_level[0])) > 0.1


# Whole nights ----------------------------------------------------------------------------------
def test_any_frame_made_alone_or_in_threads_has_the_same_bits() -> None:
    table = tables()
    truth = truths(CameraParameters(crosstalk=1e-4), ("g", "r"))
    plan = night_plan(["g", "r"], biases=1, darks=1, flats=1, science=1, seed=9)
    field = night_scene(plan, truth, seed=9)
    together = list(simulate_night(plan, table, truth, seed=9))
    jobs = [(int(number), name) for number in plan.exposure for name in table][::-1]
    with ThreadPoolExecutor(2) as pool:
        alone = pool.map(
            lambda job: simulate_night_exposure(plan, job[0], table[job[1]], truth[job[1]], field),
            jobs,
        )
        for expected, found in zip(together[::-1], alone, strict=True):
            xr.testing.assert_identical(expected, found)
    assert not np.array_equal(together[0].image, together[1].image)
    kinds = [str(frame.observation_type.values) for frame in together[::2]]
    assert kinds == ["bias", "dark", "flat", "flat", "science", "science"]


def test_switching_noise_off_keeps_stars_satellites_and_rays() -> None:
    plan = sky_plan(seed=3, parameters=PlanParameters(satellite_rate=2))
    table, truth = tables()["A"], truths()["A"]
    field = night_scene(plan, truths(), seed=3)
    noisy, quiet = (
        night_exposure_truth(plan, 1, table, truth, field, parameters=NightParameters(noise=noise))
        for noise in (True, False)
    )
    for name in ("background", "objects", "satellites", "cosmic_rays", "expected"):
        xr.testing.assert_identical(noisy[name], quiet[name])


def test_inputs_are_not_changed() -> None:
    table, truth = tables()["A"], truths(CameraParameters(crosstalk=1e-4, nonlinearity=0.01))["A"]
    plan = sky_plan(seed=3)
    field = night_scene(plan, {"A": truth}, seed=3)
    inputs = (plan, table, truth, field)
    before = [each.copy(deep=True) for each in inputs]
    simulate_night_exposure(plan, 1, table, truth, field)
    night_exposure_truth(plan, 1, table, truth, field)
    sky_pattern(truth, 1.0, 2.0)
    light_gradient(plan.isel(exposure=0), truth, 1.0, 2.0)
    night_truth({"A": table}, TRANSFORMS)
    for each, kept in zip(inputs, before, strict=True):
        xr.testing.assert_identical(each, kept)


def test_misuse_is_refused_by_name() -> None:
    plan, table, truth = sky_plan(), tables()["A"], truths()["A"]
    with pytest.raises(KeyError, match="no exposure 7"):
        simulate_night_exposure(plan, 7, table, truth)
    with pytest.raises(KeyError, match="no exposure 7"):
        exposure_plane(plan, 7, truth)
    with pytest.raises(KeyError, match="no truth for the detectors A, B"):
        simulate_night(plan, tables(), {})
    with pytest.raises(ValueError, match=r"lacks 'gain'.*amplifiers C00"):
        simulate_night_exposure(plan, 1, table, truth.drop_vars("gain").isel(amp=[1, 2, 3]))
    with pytest.raises(ValueError, match="the truth has the shape"):
        simulate_night_exposure(plan, 1, table.isel(amp=[0, 1]), truth)
    other = plan.assign(physical_filter=("exposure", ["u"]))
    with pytest.raises(KeyError, match="no filter 'u'"):
        simulate_night_exposure(other, 1, table, truth)
    flats = night_plan(biases=1, darks=0, flats=0, science=0)
    with pytest.raises(ValueError, match="exposure 1 has no pointing"):
        exposure_plane(flats, 1, truth)
    sharp = plan.assign(seeing=plan.seeing * 0)
    with pytest.raises(ValueError, match=r"has the seeing 0\.0"):
        simulate_night_exposure(sharp, 1, table, truth, one_star(10.0))


def test_gains_and_noises_scatter_as_asked() -> None:
    exact = TruthParameters(gain_spread=0, noise_spread=0, bias_spread=0)
    truth = truths(CLEAN, amplifier_parameters=exact)["A"]
    assert truth.gain.to_numpy().tolist() == [1.5] * 4
    assert truth.noise.to_numpy().tolist() == [6.0] * 4
    assert truth.bias_level.to_numpy().tolist() == [1000.0] * 4
