"""Light is spread towards the zenith, by as much as its wavelengths differ; the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.conditions import conditions_at
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.refraction import Weather, differential_refraction
from skyloom.algorithms.simulate import (
    CameraParameters,
    NightParameters,
    PassBand,
    PlanParameters,
    SceneParameters,
    SiteParameters,
    amplifier_grid,
    band_fractions,
    exposure_plane,
    night_exposure_truth,
    night_plan,
    night_scene,
    night_truth,
    schedule_plan,
    simulate_night_exposure,
    sky_scene,
)
from skyloom.algorithms.simulate.dispersion import row_conditions, source_spectra
from skyloom.algorithms.tangent_plane import from_tangent_plane

BAND = PassBand(lambda_min=402.81, lambda_max=549.81, lambda_ref=476.31)
CENTRE = (150.0, -30.0)
SIDE = 96
TABLE = amplifier_grid("A", (1, 2), (SIDE, SIDE // 2), overscan=8)
TRUTH = night_truth(
    {"A": TABLE},
    {"A": detector_transform((SIDE, SIDE), pixel_size=0.015, rotation=25.0)},
    ["g"],
    parameters=CameraParameters(dead_columns=0, traps=0),
)
PARAMETERS = NightParameters(bands={"g": BAND}, faintest_wing=1e-4)


def plan_at(*hour_angles: float, rotation: float = 40.0) -> xr.Dataset:
    plan = night_plan(
        ["g"],
        biases=0,
        darks=0,
        flats=0,
        science=len(hour_angles),
        centre=CENTRE,
        parameters=PlanParameters(dither=2.0, rotation=rotation, seeing_spread=0.0),
    )
    return schedule_plan(plan, hour_angles=hour_angles)


def one_star(wavelength: float | None = None, temperature: float = np.nan) -> xr.Dataset:
    """Return a star in the middle, of one wavelength if one is given."""
    scene = sky_scene(
        CENTRE, 0.02, ["g"], parameters=SceneParameters(star_density=0.0, galaxy_density=0.0)
    )
    ra, dec = from_tangent_plane(0.0, 0.0, *CENTRE)
    one = {name: ("source", np.array([value])) for name, value in (
        ("right_ascension", float(ra)), ("declination", float(dec)), ("scale", 0.0),
        ("axis_ratio", 1.0), ("position_angle", 0.0), ("temperature", temperature))}  # fmt: skip
    made = (
        scene.drop_dims("source").assign(one).assign(flux=(("physical_filter", "source"), [[1e3]]))
    )
    if wavelength is not None:
        at = np.arange(400.0, 552.0)
        line = np.exp(-0.5 * ((at - wavelength) / 2.0) ** 2)
        made = made.assign(spectrum=(("source", "wavelength"), line[None])).assign_coords(
            wavelength=at
        )
    return made


def centroid(image: np.ndarray) -> tuple[float, float]:
    y, x = np.indices(image.shape)
    return float((x * image).sum() / image.sum()), float((y * image).sum() / image.sum())


@pytest.mark.parametrize("hour_angle", [-55.0, 35.0])
@pytest.mark.parametrize("wavelength", [415.0, 476.31, 535.0])
def test_light_of_one_wavelength_is_moved_along_the_vertical(
    hour_angle: float, wavelength: float
) -> None:
    plan, scene = plan_at(hour_angle), one_star(wavelength)
    fine = PARAMETERS.model_copy(update={"wavelengths": 200})
    image = night_exposure_truth(plan, 1, TABLE, TRUTH["A"], scene, parameters=fine)["objects"]
    plane = exposure_plane(plan, 1, TRUTH["A"])
    there = conditions_at(row_conditions(plan.sel(exposure=1)), *CENTRE)
    lifted = differential_refraction(
        wavelength, BAND.lambda_ref, there.altitude, Weather(8.0, 74000.0, 30.0),
        latitude=-30.244639, height=2663.0,
    )  # fmt: skip
    found_x, found_y = centroid(image.values.astype(float))
    ra, dec = (float(each) for each in plane.to_sky(found_x, found_y))
    east = 3600 * (ra - CENTRE[0]) * np.cos(np.deg2rad(CENTRE[1]))
    north = 3600 * (dec - CENTRE[1])
    angle = np.deg2rad(there.parallactic_angle)
    assert east == pytest.approx(lifted * np.sin(angle), abs=4e-3)
    assert north == pytest.approx(lifted * np.cos(angle), abs=4e-3)
    # A step along the shift brings the light nearer to the zenith.
    if wavelength < 450:
        above = conditions_at(there, ra, dec)
        assert 3600 * (above.altitude - there.altitude) == pytest.approx(lifted, abs=6e-3)


def test_colour_moves_a_star_as_the_mean_of_its_wavelengths_and_keeps_its_flux() -> None:
    plan = plan_at(-50.0)
    grey = night_exposure_truth(plan, 1, TABLE, TRUTH["A"], one_star())["objects"].values
    row = plan.sel(exposure=1)
    for temperature, sign in ((25000.0, 1), (3000.0, -1)):
        scene = one_star(temperature=temperature)
        found = night_exposure_truth(plan, 1, TABLE, TRUTH["A"], scene, parameters=PARAMETERS)
        image = found["objects"].values.astype(float)
        assert image.sum() == pytest.approx(grey.sum(), rel=1e-3)
        there = row_conditions(row)
        nm = np.linspace(BAND.lambda_min, BAND.lambda_max, 500)
        weight = source_spectra(scene, BAND, nm)[0]
        lifted = differential_refraction(
            nm, BAND.lambda_ref, there.altitude, Weather(8.0, 74000.0, 30.0),
            latitude=-30.244639, height=2663.0,
        )  # fmt: skip
        expected = float((weight * lifted).sum() / weight.sum())
        plane = exposure_plane(plan, 1, TRUTH["A"])
        _, dec = plane.to_sky(*centroid(image))
        ra, _ = plane.to_sky(*centroid(image))
        angle = np.deg2rad(there.parallactic_angle)
        east = 3600 * (float(ra) - CENTRE[0]) * np.cos(np.deg2rad(CENTRE[1]))
        along = east * np.sin(angle) + 3600 * (float(dec) - CENTRE[1]) * np.cos(angle)
        assert along == pytest.approx(expected, abs=5e-3)
        assert np.sign(expected - 0.02) == sign


def test_light_that_a_filter_does_not_pass_is_not_on_the_frame() -> None:
    plan = plan_at(-50.0)
    narrow = BAND.model_copy(
        update={"throughput": ((402.0, 0.0), (410.0, 0.0), (415.0, 1.0), (420.0, 0.0))}
    )
    fine = PARAMETERS.model_copy(update={"wavelengths": 200})
    found = [
        centroid(
            night_exposure_truth(plan, 1, TABLE, TRUTH["A"], scene, parameters=parameters)[
                "objects"
            ].values.astype(float)
        )
        for scene, parameters in (
            (one_star(), fine.model_copy(update={"bands": {"g": narrow}})),
            (one_star(415.0), fine),
            (one_star(), fine),
        )
    ]
    assert found[0] == pytest.approx(found[1], abs=0.02)
    assert np.hypot(found[0][0] - found[2][0], found[0][1] - found[2][1]) > 1.0


def test_truth_of_sub_bands_sums_to_one_and_knows_throughput() -> None:
    scene = xr.Dataset({"temperature": ("source", [np.nan, 4000.0, 15000.0])})
    edges = np.linspace(BAND.lambda_min, BAND.lambda_max, 4)
    found = band_fractions(scene, BAND, edges.tolist())
    np.testing.assert_allclose(found.sum("subfilter"), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found[0], 1 / 3, rtol=1e-12)
    assert float(found[1, 0]) < 1 / 3 < float(found[2, 0])
    red = BAND.model_copy(update={"throughput": ((402.0, 0.0), (550.0, 1.0))})
    assert float(band_fractions(scene, red, edges.tolist())[0, 0]) < 0.15


def test_galaxies_are_dispersed_and_seeing_may_depend_on_wavelength() -> None:
    plan = plan_at(-50.0)
    scene = one_star(temperature=3000.0)
    disc = scene.assign(scale=("source", [0.6]))
    none = NightParameters(faintest_wing=1e-4)
    for made in (disc, scene):
        images = [
            night_exposure_truth(plan, 1, TABLE, TRUTH["A"], made, parameters=p)["objects"].values
            for p in (none, PARAMETERS)
        ]
        assert images[1].sum() == pytest.approx(images[0].sum(), rel=2e-3)
        assert np.abs(images[1] - images[0]).max() > 0.02 * images[0].max()
    sharper = PARAMETERS.model_copy(update={"chromatic_seeing": -0.2})
    red = one_star(535.0)
    peaks = [
        night_exposure_truth(plan, 1, TABLE, TRUTH["A"], red, parameters=p)["objects"].values.max()
        for p in (PARAMETERS, sharper)
    ]
    assert peaks[1] / peaks[0] == pytest.approx((535.0 / 476.31) ** 0.4, rel=0.02)


def test_a_night_without_pass_bands_is_what_it_was() -> None:
    plan, scene = plan_at(-50.0), one_star(temperature=3000.0)
    frames = [
        simulate_night_exposure(plan, 1, TABLE, TRUTH["A"], made)["image"].values
        for made in (scene, scene.drop_vars("temperature"))
    ]
    np.testing.assert_array_equal(*frames)


def test_temperatures_are_drawn_between_their_limits() -> None:
    parameters = SceneParameters(temperatures=(3500.0, 15000.0), star_density=20.0)
    field = sky_scene(CENTRE, 0.03, ["g"], seed=2, parameters=parameters)
    plain = sky_scene(CENTRE, 0.03, ["g"], seed=2, parameters=SceneParameters(star_density=20.0))
    assert 3500 <= float(field.temperature.min()) < 4500
    assert 12000 < float(field.temperature.max()) <= 15000
    np.testing.assert_array_equal(field.flux, plain.flux)


def test_a_plan_is_scheduled_to_its_airmass_and_changes_nothing_else() -> None:
    plan = night_plan(
        ["g"], biases=1, darks=0, flats=1, science=12, centre=CENTRE, seed=3,
        parameters=PlanParameters(highest_airmass=1.8),
    )  # fmt: skip
    before = plan.copy(deep=True)
    found = schedule_plan(plan, seed=3)
    xr.testing.assert_identical(plan, before)
    sky = found.observation_type.values == "science"
    np.testing.assert_allclose(found.airmass[sky], plan.airmass[sky], rtol=0.02)
    assert (np.sign(found.hour_angle[sky]) == np.sign(found.parallactic_angle[sky])).all()
    assert {-1.0, 1.0} == {*np.sign(found.hour_angle.values[sky])}
    assert np.isnan(found.altitude[~sky]).all()
    xr.testing.assert_identical(
        found.drop_vars(("mjd_start", "airmass", "altitude", "hour_angle", "parallactic_angle",
                         "seeing", "transparency", "zero_point")).drop_attrs(),
        plan.drop_vars(("mjd_start", "airmass", "altitude", "hour_angle", "parallactic_angle",
                        "seeing", "transparency", "zero_point")).drop_attrs(),
    )  # fmt: skip
    np.testing.assert_allclose(
        found.seeing[sky] / plan.seeing[sky],
        (found.airmass[sky] / plan.airmass[sky]) ** 0.6,
        rtol=1e-12,
    )
    assert (np.diff(found.mjd_start.values[sky]) > 0.2).all()


def test_misuse_is_named() -> None:
    plan = night_plan(["g"], biases=0, darks=0, flats=0, science=2, centre=CENTRE)
    with pytest.raises(ValueError, match="one for each of 2 exposures of the sky, got 1"):
        schedule_plan(plan, hour_angles=[1.0])
    with pytest.raises(ValueError, match="has an altitude of"):
        schedule_plan(plan, hour_angles=[1.0, 120.0])
    scene = night_scene(plan, TRUTH, parameters=SceneParameters(star_density=1.0))
    with pytest.raises(ValueError, match="only exposures of a plan that `schedule_plan` made"):
        simulate_night_exposure(plan, 1, TABLE, TRUTH["A"], scene, parameters=PARAMETERS)
    with pytest.raises(ValueError, match=r"lambda_min 550.0 must be below"):
        PassBand(lambda_min=550.0, lambda_max=400.0, lambda_ref=476.0)
    with pytest.raises(ValueError, match="throughput must be of ascending wavelengths"):
        PassBand(**(BAND.model_dump() | {"throughput": ((550.0, 1.0), (400.0, 1.0))}))
    assert SiteParameters().latitude == -30.244639
