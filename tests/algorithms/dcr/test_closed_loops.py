"""Twelve visits of forty stars, solved and compared with the truth: every stated run and number."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    DcrSolution,
    dcr_shifts,
    shift_image,
    solve_dcr,
    stack_planes,
)
from tests.algorithms.dcr.analytic import (
    CENTRES,
    HELD_OUT,
    NORTH_UP,
    SIGMA,
    WAVELENGTHS,
    G,
    coadd_of,
    conditions,
    dozen,
    observed,
    scene,
)
from tests.algorithms.dcr.skies import (
    FWHM,
    SIZE,
    Sky,
    count_detections,
    galaxy,
    make_sky,
    measure_stars,
    predicted,
    ratios,
    rms,
    solve,
    templates_of,
)

UNCHECKED = {"outlier_factor": 1e9, "reject_rounds": 0}


@pytest.fixture(scope="module")
def skies() -> list[Sky]:
    return [make_sky(seed, 5.0) for seed in range(1, 7)]


@pytest.fixture(scope="module")
def sky(skies: list[Sky]) -> Sky:
    return skies[0]


@pytest.fixture(scope="module")
def solved(sky: Sky) -> DcrSolution:
    return solve(sky)


def slope_of(sky: Sky, model: xr.Dataset, noise: float) -> tuple[float, float]:
    """Return slope and scatter of first moments over true ones."""
    stars = measure_stars(sky, model, noise)
    slope, offset = np.polyfit(stars.true, stars.found, 1)
    return float(slope), rms(stars.found - slope * stars.true - offset)


def test_bright_stars_are_described_predicted_and_have_their_colours(
    sky: Sky, solved: DcrSolution
) -> None:
    assert solved.diagnostics["iterations"].item() <= 12
    assert 0.75 <= float(solved.diagnostics["chi2_total"]) <= 1.05
    assert (ratios(sky, templates_of(solved.model)) <= 0.05).all()
    slope, scatter = slope_of(sky, solved.model, 5.0)
    assert slope == pytest.approx(1.0, abs=0.02)
    assert scatter <= 0.002
    stars = measure_stars(sky, solved.model, 5.0)
    assert rms(stars.fractions) <= 0.005
    assert rms(stars.flux) <= 0.002


def test_five_iterations_are_enough(sky: Sky) -> None:
    early = solve(sky, max_iterations=5, reject_rounds=0)
    assert 0.75 <= float(early.diagnostics["chi2_total"]) <= 1.05


def test_faint_stars_have_their_colours_within_their_noise(skies: list[Sky]) -> None:
    chi2, ratio, true, found = [], [], [], []
    for seed, bright in enumerate(skies):
        warps, template = observed(bright.truth, FWHM, 50.0, np.random.default_rng(seed))
        faint = bright._replace(warps=warps, template=template)
        solution = solve(faint)
        chi2.append(float(solution.diagnostics["chi2_total"]))
        ratio.append(ratios(faint, templates_of(solution.model)))
        stars = measure_stars(faint, solution.model, 50.0)
        true.extend(stars.true)
        found.extend(stars.found)
    assert 0.8 <= np.mean(chi2) <= 1.0
    assert (np.mean(ratio, axis=0) <= 0.30).all()
    slope, offset = np.polyfit(true, found, 1)
    assert 0.95 <= slope <= 1.05
    assert rms(np.array(found) - slope * np.array(true) - offset) <= 0.006


def test_spectra_that_are_flat_within_sub_bands_inflate_colours(sky: Sky) -> None:
    slope, _ = slope_of(sky, solve(sky, in_band="flat").model, 5.0)
    assert slope == pytest.approx(1.11, abs=0.02)


@pytest.mark.parametrize("power", [0.0, -0.2])
def test_stars_of_an_atmosphere_of_another_formula_are_solved_for(power: float) -> None:
    """Filippenko's index and the plain law of the tangent, directions written out by hand."""
    rng, size = np.random.default_rng(31), 128
    cells = rng.permutation(16)[:10]
    y, x = 19 + 30 * np.stack(np.divmod(cells, 4)) + rng.uniform(-5, 5, (2, 10))
    flux = 10 ** rng.uniform(4.3, 5.3, 10)
    drawn = scene(rng, size, 10)._replace(y=y, x=x, flux=flux)

    def index(nm: np.ndarray | float) -> np.ndarray:
        pressure, celsius, water = 73892.0 / 133.322, 20.0, 935.3 / 133.322
        square = (1000.0 / np.asarray(nm)) ** 2
        dry = 64.328 + 29498.1 / (146.0 - square) + 255.4 / (41.0 - square)
        dry *= pressure * (1 + (1.049 - 0.0157 * celsius) * 1e-6 * pressure)
        dry /= 720.883 * (1 + 0.003661 * celsius)
        return 1e-6 * (dry - (0.0624 - 0.000680 * square) / (1 + 0.003661 * celsius) * water)

    def images(table: xr.Dataset) -> np.ndarray:
        found = np.zeros((table.sizes["visit"], size, size))
        at = np.arange(size)
        sigma = FWHM * SIGMA * (WAVELENGTHS / G.lambda_ref) ** power
        for image, altitude, angle in zip(
            found, table["altitude"].values, np.deg2rad(table["parallactic_angle"]), strict=True
        ):
            lifted = np.rad2deg((index(WAVELENGTHS) - index(G.lambda_ref)) * 3600 / 0.2)
            lifted = lifted / np.tan(np.deg2rad(altitude))
            for star in range(10):
                rows, columns = (
                    np.exp(-((at - place[:, None]) ** 2) / (2 * sigma[:, None] ** 2))
                    for place in (
                        drawn.y[star] + lifted * float(np.cos(angle)),
                        drawn.x[star] - lifted * float(np.sin(angle)),
                    )
                )
                light = drawn.flux[star] * drawn.spectrum[star] / (2 * np.pi * sigma**2)
                image += (rows.T * light) @ columns
        return found

    angles = [-140.0, -95.0, -40.0, -10.0, 25.0, 70.0, 120.0, 150.0]
    table = conditions([12.0, 50.0, 25.0, 56.0, 40.0, 30.0, 53.0, 46.0], angles)
    truth = images(table)
    warps, template = observed(truth, FWHM, 5.0, rng)
    found = solve_dcr(warps, table, G, template, jacobian=NORTH_UP)
    rows, columns = np.mgrid[:size, :size]
    errors = []
    for star in range(10):
        square = (rows - drawn.y[star]) ** 2 + (columns - drawn.x[star]) ** 2
        psf = np.exp(-square / (2 * (FWHM * SIGMA) ** 2))
        parts = (found.model["model"].to_numpy() * psf).sum(axis=(1, 2))
        errors.append(CENTRES @ parts / parts.sum() - drawn.moment[star])
    if power == 0.0:
        assert rms(errors) <= 0.002
        near, plain = drawn.near(8.0), template["image"].to_numpy()
        for number, true in enumerate(images(HELD_OUT)):
            seen = predicted(found.model, HELD_OUT, number)["image"].to_numpy()
            assert rms((true - seen)[near]) <= 0.05 * rms((true - plain)[near])
    else:
        assert abs(np.median(errors)) == pytest.approx(0.005, abs=0.003)


def test_seeing_that_differs_is_part_of_the_operator() -> None:
    rng = np.random.default_rng(11)
    varied = make_sky(2, 5.0, rng.permutation(np.linspace(3.3, 5.0, 12)))
    solution = solve(varied)
    assert 0.9 <= float(solution.diagnostics["chi2_total"]) <= 1.1
    assert (ratios(varied, templates_of(solution.model), 3.3) <= 0.03).all()
    ignored = solve(varied, match_seeing=False, **UNCHECKED)
    assert float(ignored.diagnostics["chi2_total"]) > 100


@pytest.mark.parametrize("turn", [None, 30.0])
def test_a_wrong_geometry_is_reported_as_a_failure(sky: Sky, turn: float | None) -> None:
    jacobian = np.diag([0.2, 0.2])
    if turn is not None:
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        jacobian = NORTH_UP @ np.array([[cosine, -sine], [sine, cosine]])
    found = solve(sky, jacobian=jacobian, **UNCHECKED)
    assert float(found.diagnostics["chi2_total"]) > 100
    assert (found.diagnostics["status"] == v.DcrStatus.BAD_FIT).all()


def test_a_wrong_reference_wavelength_gives_every_star_a_colour(skies: list[Sky]) -> None:
    wrong = G.model_copy(update={"lambda_ref": G.lambda_ref + 5.0})
    chi2, offsets = [], []
    for sky in skies:
        found = solve(sky, band=wrong, **UNCHECKED)
        chi2.append(float(found.diagnostics["chi2_total"]))
        stars = measure_stars(sky, found.model, 5.0)
        offsets.extend(stars.found - stars.true)
    assert np.mean(chi2) == pytest.approx(2.0, abs=0.5)
    assert float(np.median(offsets)) == pytest.approx(0.027, abs=0.003)


def test_identical_visits_stay_near_equal_parts() -> None:
    rng = np.random.default_rng(5)
    stars = scene(rng, SIZE, 40)
    table = conditions(np.full(6, 40.0), 30.0)
    truth = stars.render(table, FWHM)
    twins = Sky(stars, table, truth, *observed(truth, FWHM, 5.0, rng))
    slope, _ = slope_of(twins, solve(twins).model, 5.0)
    assert abs(slope) < 0.1


def test_bad_pixels_a_lost_half_and_bad_columns_cost_iterations_and_no_accuracy(sky: Sky) -> None:
    rng = np.random.default_rng(9)
    warps = sky.warps.copy(deep=True)
    image = warps["image"].to_numpy()
    image[rng.random(image.shape) < 0.1] = np.nan
    image[:, :, 40] = np.nan
    warps[v.MASK].to_numpy()[3, : SIZE // 2] = v.MASK_PLANES["NO_DATA"]
    damaged = sky._replace(warps=warps)
    found = solve(damaged)
    assert found.diagnostics["iterations"].item() <= 15
    assert 0.75 <= float(found.diagnostics["chi2_total"]) <= 1.05
    assert (ratios(sky, templates_of(found.model)) <= 0.05).all()
    slope, scatter = slope_of(damaged, found.model, 5.0)
    assert slope == pytest.approx(1.0, abs=0.02)
    assert scatter <= 0.002


def test_a_cosmic_ray_and_a_satellite_leave_nothing(sky: Sky, solved: DcrSolution) -> None:
    warps = sky.warps.copy(deep=True)
    warps["image"].to_numpy()[4, 60:63, 30] += 500.0
    warps["image"].to_numpy()[7, 20:23] += 150.0
    cleaned = solve(sky._replace(warps=warps, template=coadd_of(warps)))
    change = stack_planes(cleaned.model)["image"] - stack_planes(solved.model)["image"]
    assert float(abs(change[57:66, 27:34]).max()) < 3 * 5.0 / np.sqrt(12)
    assert float(abs(change[18:25]).max()) < 3 * 5.0 / np.sqrt(12)


def test_the_noise_of_planes_and_templates_is_the_stated_one() -> None:
    crowded = make_sky(3, 5.0, size=72, stars=25)
    options = {"adherence": 0.0, "reject_rounds": 0}
    planes, templates = [], []
    for seed in range(30):
        warps, _ = observed(crowded.truth, FWHM, 5.0, np.random.default_rng(100 + seed))
        model = solve(crowded._replace(warps=warps), **options).model
        planes.append(model["model"].to_numpy())
        templates.append(predicted(model, HELD_OUT, 2)["image"].to_numpy())
    detected = (crowded.template[v.MASK].to_numpy() & v.MASK_PLANES["DETECTED"]) != 0
    core = ndimage.binary_erosion(detected, iterations=2)
    core[:10] = core[-10:] = core[:, :10] = core[:, -10:] = False
    measured = np.sqrt(np.var(planes, axis=0, ddof=1)[:, core].mean(axis=1))
    stated = np.sqrt(model["variance"].to_numpy()[:, core].mean(axis=1))
    assert measured == pytest.approx(stated, rel=0.03)
    of_template = np.sqrt(predicted(model, HELD_OUT, 2)["variance"].to_numpy()[core].mean())
    scatter = np.sqrt(np.var(templates, axis=0, ddof=1)[core].mean())
    assert scatter == pytest.approx(of_template, rel=0.03)


def test_the_iterative_solution_improves_for_twelve_iterations_within_its_clamps() -> None:
    small = make_sky(1, 5.0, size=80, stars=12)
    detected = (small.template[v.MASK].to_numpy() & v.MASK_PLANES["DETECTED"]) != 0
    chi2 = []
    for number in (2, 4, 8, 12):
        found = solve(
            small, solver="iterative", order=1, max_iterations=number, use_convergence=False
        )
        lacking = [
            image.to_numpy() - predicted(found.model, small.table, visit)["image"].to_numpy()
            for visit, image in enumerate(small.warps["image"])
        ]
        chi2.append(float(np.square(lacking)[:, detected].mean() / 25.0))
    assert (np.diff(chi2) < 0).all()
    judged = ratios(small, templates_of(found.model))
    assert ((judged > 0.2) & (judged < 0.8)).all()


def test_a_galaxy_whose_colour_changes_is_predicted_without_rings() -> None:
    rng = np.random.default_rng(21)
    table, size = dozen(rng), 96
    truth = galaxy(table, size)
    warps, template = observed(truth, FWHM, 5.0, rng)
    found = solve(Sky(scene(rng, size, 1), table, truth, warps, template))
    near = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2.0)) < 20
    plain = template["image"].to_numpy()
    for visit, true in enumerate(galaxy(HELD_OUT, size)):
        seen = predicted(found.model, HELD_OUT, visit)["image"].to_numpy()
        assert rms((true - seen)[near]) <= 0.1 * rms((true - plain)[near])
    whole = stack_planes(found.model)
    assert float((whole["image"] / np.sqrt(whole["variance"])).min()) > -5.0


def test_differences_of_visits_show_hardly_anything_that_is_not_there(
    sky: Sky, solved: DcrSolution
) -> None:
    linear, plain = count_detections(sky, solved.model, 5.0)
    assert max(linear) <= 2
    assert min(plain) >= 15


def test_one_sub_band_is_the_weighted_mean_of_visits_moved_back(sky: Sky) -> None:
    factors = np.linspace(0.5, 2.0, 12)
    warps = sky.warps.copy(deep=True)
    warps["image"].values[:] = sky.truth  # noise at the border would reach far inside
    warps["variance"].values[:] *= factors[:, None, None].astype("f4")
    found = solve(sky._replace(warps=warps), subfilters=1, chi2_limit=1e9, **UNCHECKED)
    shifts = dcr_shifts(G, sky.table, NORTH_UP, subfilters=1)
    total = np.zeros((SIZE, SIZE))
    for visit in range(12):
        wide = warps["image"][visit].astype(float).pad(y=32, x=32, constant_values=0)
        back = (-float(shifts["shift_y"][visit, 0]), -float(shifts["shift_x"][visit, 0]))
        total += shift_image(wide, back).to_numpy()[32:-32, 32:-32] / factors[visit]
    mean = total / (1.0 / factors).sum()
    assert found.model["model"].to_numpy()[0, 4:-4, 4:-4] == pytest.approx(
        mean[4:-4, 4:-4], abs=1e-5 * float(mean.max())
    )
