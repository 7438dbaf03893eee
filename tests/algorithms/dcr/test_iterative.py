"""The iterative solution: its pieces against stated values, and its convergence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    IterativeParameters,
    LinearParameters,
    dcr_shifts,
    predict_template,
    shift_image,
    solve_dcr,
    stack_planes,
)
from skyloom.algorithms.dcr.iterative import (
    Geometry,
    apply_taper,
    average_models,
    backshift_residual,
    clamp_frequency,
    clamp_iteration,
    count_and_weight_planes,
    model_taper,
    next_gain,
    noise_cutoff,
    update_model,
    visit_convergence,
)
from skyloom.algorithms.errors import (
    DroppedInputWarning,
    ExtrapolatedTemplateWarning,
    NoSourcesWarning,
    NotConvergedWarning,
    NoValidPixelsWarning,
)
from tests.algorithms.dcr.analytic import HELD_OUT, NORTH_UP, G, Scene, dozen, observed, scene

FWHM, NOISE = 4.0, 5.0


def test_averages_and_gains_are_the_stated_ones() -> None:
    old = np.array([2.0], np.float32)
    for gain in (1.0, 3.0):
        assert average_models(old, old, gain).tolist() == [2.0]
    assert average_models(3 * old, old, 1.0).tolist() == [4.0]
    assert IterativeParameters().gain == 0.5
    assert IterativeParameters(subfilters=1).gain == 1.0
    assert next_gain([0.2, 0.2 / 1.5, 0.2 / 1.5**2], [0.5] * 2, 0.5, True) == pytest.approx(0.75)
    assert next_gain([0.2, 0.1, 0.05], [0.5] * 2, 0.5, True) == pytest.approx(0.625, abs=1e-12)
    assert next_gain([0.2, 0.1, 0.05], [0.5] * 2, 0.5, False) == 0.5
    assert next_gain([0.2], [], 0.5, True) == next_gain([0.2, 0.1], [0.5], 0.5, True) == 0.5
    # where nothing changes any more, what the gains promise is nothing
    assert next_gain([0.1, 0.1, 0.1], [0.5] * 2, 0.5, True) == 0.5
    with pytest.raises(ValueError, match="one gain less"):
        next_gain([0.1, 0.1], [0.5] * 2, 0.5, True)


def test_noise_is_not_clamped_and_regions_are() -> None:
    rng = np.random.default_rng(1)
    old = np.full((64, 64), 10.0, np.float32)
    new = old.copy()
    single = tuple(rng.integers(12, 60, (2, 30)))
    new[single] = 1000.0
    new[2:7, 2:7] = 1000.0
    new[2:7, 30:35] = 0.1
    found = clamp_iteration(new, old, 2.0, 2)
    assert (found[3:6, 3:6] == 20.0).all()
    assert (found[3:6, 31:34] == 5.0).all()
    assert (found[single] == 1000.0).all()
    assert clamp_iteration(new, old, 0.0, 2) is new


def test_chromatic_sidelobes_are_reduced() -> None:
    y, x = np.mgrid[-20:21, -20:21]
    star = np.exp(-(y**2 + x**2) / 8.0).astype(np.float32)
    planes = np.stack([1000 * star] * 3)
    lobes = 400 * (np.roll(star, 4, axis=0) - np.roll(star, -4, axis=0))
    new = planes + np.array([-1.0, 0.0, 1.0], np.float32)[:, None, None] * lobes

    def colour(cube: np.ndarray) -> float:
        return float(np.abs(cube - cube.mean(axis=0)).sum())

    found = clamp_frequency(new, planes, 4.0, 2, 1.0)
    assert colour(found) < colour(new)
    assert clamp_frequency(new, planes, 0.0, 2, 1.0) is new
    assert clamp_frequency(new, -planes, 4.0, 2, 1.0) is new


def test_pixels_of_one_visit_have_no_weight() -> None:
    shifts = np.random.default_rng(2).uniform(-1, 1, (5, 3, 2))
    geometry = Geometry(np.stack([shifts, shifts], axis=2), shifts, 3)
    weights = np.zeros((5, 80, 80), np.float32)
    weights[:, 8:72, 8:72] = 1.0
    counts, norms = count_and_weight_planes(weights, geometry)
    assert norms[:, 30:50, 30:50] == pytest.approx(0.2, abs=1e-6)
    assert counts[:, 30:50, 30:50] == pytest.approx(5.0, abs=1e-5)
    assert not norms[:, :4].any()
    counts, norms = count_and_weight_planes(weights[:1], geometry._replace(mean=shifts[:1]))
    assert not norms.any()
    assert not counts.any()


def test_residuals_are_shifted_back_and_added() -> None:
    shifts = np.array([[[2.0, -1.0], [0.0, 0.0]]])
    geometry = Geometry(np.stack([shifts, shifts], axis=2), shifts, 1)
    residual = np.zeros((9, 9), np.float32)
    residual[4, 4] = 1.0
    into = np.zeros((2, 9, 9), np.float32)
    backshift_residual(residual, geometry, 0, into)
    assert into[0, 2, 5] == into[1, 4, 4] == 1.0
    norms = np.full_like(into, 0.5)
    assert update_model(into, into, norms).max() == 1.5
    norms[0, 2, 5] = np.inf
    assert update_model(into, into, norms)[0, 2, 5] == 1.0


def test_a_taper_has_a_width_and_needs_sources() -> None:
    detected = np.zeros((41, 41), bool)
    assert not model_taper(detected, 3.0).any()
    detected[15:26, 15:26] = True
    taper = model_taper(detected, 3.0)
    assert taper.max() == 1.0
    template = np.full((41, 41), 6.0, np.float32)
    planes = np.zeros((3, 41, 41), np.float32)
    mixed = apply_taper(planes, taper, template)
    assert mixed[0, 20, 20] == pytest.approx(0.0, abs=1e-6)
    assert mixed[0, 0, 0] == pytest.approx(2.0, abs=1e-3)
    with pytest.raises(ValueError, match="width must not be negative"):
        model_taper(detected, -1.0)


def test_a_crowded_field_has_the_noise_of_its_scatter() -> None:
    plane = np.random.default_rng(3).normal(0.0, 4.0, (50, 50)).astype(np.float32)
    everywhere, nowhere = np.ones((50, 50), bool), np.zeros((50, 50), bool)
    assert noise_cutoff(plane, everywhere, 2) == pytest.approx(1.0, rel=0.05)
    assert noise_cutoff(plane, nowhere, 2) == pytest.approx(1.0, rel=0.05)


def test_a_perfect_model_has_a_convergence_of_zero_and_no_data_none() -> None:
    image = np.ones((3, 3), np.float32)
    assert visit_convergence(image, image, image, image > 0) == 0.0
    assert visit_convergence(image, -image, image, image > 0) == 1.0
    assert np.isnan(visit_convergence(image, image, image, image < 0))


class Sky:
    """A sky of stars in twelve visits."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.scene: Scene = scene(rng, 80, 12)
        self.table = dozen(rng)
        self.truth = self.scene.render(self.table, FWHM)
        self.warps, self.template = observed(self.truth, FWHM, NOISE, rng)

    def chi2(self, model: xr.Dataset) -> float:
        """Return chi2 per pixel at sources."""
        detected = (self.template["mask"].to_numpy() & v.MASK_PLANES["DETECTED"]) != 0
        total = []
        for visit in range(12):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExtrapolatedTemplateWarning)
                seen = predict_template(model, self.table.isel(visit=[visit]))
            lacking = self.warps["image"][visit].to_numpy() - seen["image"].to_numpy()
            total.append((lacking[detected] ** 2).mean() / NOISE**2)
        return float(np.mean(total))

    def ratio(self, model: xr.Dataset, visit: int) -> float:
        """Return what is left of stars in a held-out visit, relative to the plain coadd."""
        truth = self.scene.render(HELD_OUT, FWHM)[visit]
        near = self.scene.near(8.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolatedTemplateWarning)
            seen = predict_template(model, HELD_OUT.isel(visit=[visit]))["image"].to_numpy()
        left, plain = (truth - seen)[near], (truth - self.template["image"].to_numpy())[near]
        return float(np.sqrt((left**2).mean() / (plain**2).mean()))


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky()


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.NotConvergedWarning")
def test_iterations_bring_the_model_to_the_visits(sky: Sky) -> None:
    chi2 = []
    for number in (1, 4, 9):
        p = IterativeParameters(max_iterations=number, use_convergence=False)
        found = solve_dcr(sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP,
                          solver="iterative", parameters=p)  # fmt: skip
        chi2.append(sky.chi2(found.model))
        assert found.diagnostics["iterations"].item() == number
    assert chi2[0] > chi2[1] > chi2[2]
    assert 0.2 < sky.ratio(found.model, 2) < 0.8
    first, last = (
        float(found.diagnostics[f"convergence_{end}"].item()) for end in ("first", "last")
    )
    assert last < first
    loose = IterativeParameters(
        max_iterations=12, use_convergence=False, clamp_frequency=0.0, clamp_iteration=0.0,
        use_model_weights=False, progressive_gain=False,
    )  # fmt: skip
    free = solve_dcr(sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP,
                     solver="iterative", parameters=loose)  # fmt: skip
    assert sky.chi2(free.model) < 5.0 < chi2[2]
    assert sky.ratio(free.model, 2) < 0.15


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.DegenerateGeometryWarning")
def test_the_sum_of_planes_is_the_coadd_without_dispersion(sky: Sky) -> None:
    rng = np.random.default_rng(4)
    table = sky.table.assign(altitude=sky.table["altitude"] * 0 + 90.0)
    warps, template = observed(sky.scene.render(table, FWHM), FWHM, NOISE, rng)
    found = solve_dcr(warps, table, G, template, jacobian=NORTH_UP, solver="iterative",
                      parameters=IterativeParameters(clamp_frequency=0.0))  # fmt: skip
    whole = stack_planes(found.model)["image"].to_numpy()
    assert whole == pytest.approx(
        template["image"].to_numpy(), abs=1e-5 * float(template["image"].max())
    )


def test_nothing_detected_and_nothing_valid_give_equal_parts(sky: Sky) -> None:
    blank = sky.template.copy(deep=True)
    blank["mask"].to_numpy()[:] = 0
    with pytest.warns(NoSourcesWarning):
        found = solve_dcr(sky.warps, sky.table, G, blank, jacobian=NORTH_UP, solver="iterative")
    part = np.broadcast_to(blank["image"].to_numpy() / 3, (3, 80, 80))
    assert found.model["model"].to_numpy() == pytest.approx(part, rel=1e-5, abs=1e-4)
    masked = sky.warps.copy(deep=True)
    masked["mask"].to_numpy()[:] = v.MASK_PLANES["NO_DATA"]
    with pytest.warns(NoValidPixelsWarning):
        found = solve_dcr(masked, sky.table, G, blank, jacobian=NORTH_UP, solver="iterative")
    assert (found.model["n_image"] == 0).all()
    assert np.isfinite(found.model["model"]).all()


def test_one_sub_band_is_the_weighted_mean_of_visits_moved_back(sky: Sky) -> None:
    warps = sky.warps.copy(deep=True)
    weights = np.linspace(1.0, 2.0, 12)
    warps["variance"][:] = (NOISE**2 / weights)[:, None, None]
    found = solve_dcr(warps, sky.table, G, sky.template, jacobian=NORTH_UP, solver="iterative",
                      parameters=IterativeParameters(subfilters=1))  # fmt: skip
    shifts = dcr_shifts(G, sky.table, NORTH_UP, subfilters=1, mode="endpoint_mean")
    mean = np.zeros((80, 80))
    for visit in range(12):
        back = tuple(-float(shifts[name][visit, 0]) for name in ("shift_y", "shift_x"))
        wide = warps["image"][visit].astype(float).pad(y=32, x=32, constant_values=0.0)
        moved = shift_image(wide, back, order=3).to_numpy()[32:-32, 32:-32]
        mean += weights[visit] / weights.sum() * moved
    inside = (slice(8, -8), slice(8, -8))
    assert found.model["model"].to_numpy()[0][inside] == pytest.approx(
        mean[inside], abs=1e-5 * float(mean.max())
    )
    assert found.diagnostics["status"].item() == v.DcrStatus.CONVERGED
    assert found.diagnostics["iterations"].item() == 1
    # What it predicts of a visit is that plane, moved.
    seen = predict_template(found.model, sky.table.isel(visit=[11]))["image"].to_numpy()
    forth = tuple(float(shifts[name][11, 0]) for name in ("shift_y", "shift_x"))
    moved = shift_image(found.model["model"][0].astype(float), forth, order=3).to_numpy()
    assert seen[inside] == pytest.approx(moved[inside], abs=1e-5 * float(mean.max()))


def test_inputs_stay_as_they_are(sky: Sky) -> None:
    before = sky.warps.copy(deep=True), sky.template.copy(deep=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        solve_dcr(sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP, solver="iterative",
                  parameters=IterativeParameters(max_iterations=1))  # fmt: skip
    xr.testing.assert_identical(sky.warps, before[0])
    xr.testing.assert_identical(sky.template, before[1])


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.NotConvergedWarning")
def test_light_that_the_iteration_does_not_know_of_is_named(sky: Sky) -> None:
    light = {"extinction": ((400.0, 0.3), (550.0, 0.1)),
             "throughput": ((400.0, 0.2), (550.0, 1.0))}  # fmt: skip
    p = IterativeParameters(max_iterations=1, min_iterations=1)
    for named in (("extinction",), ("throughput",), ("throughput", "extinction")):
        band = G.model_copy(update={name: light[name] for name in named})
        with pytest.warns(DroppedInputWarning, match=f"{' and '.join(named)} of band {G.name}"):
            solve_dcr(sky.warps, sky.table, band, sky.template, jacobian=NORTH_UP,
                      solver="iterative", parameters=p)  # fmt: skip


def test_flux_of_the_sum_is_kept_without_the_clamp_between_sub_bands(sky: Sky) -> None:
    """With it, sums of planes are some per cent too bright at stars, as those of the original."""
    near = sky.scene.near(8.0)
    truth = float(sky.template["image"].to_numpy()[near].sum())
    excess = []
    for clamp in (4.0, 0.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)
            found = solve_dcr(
                sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP, solver="iterative",
                parameters=IterativeParameters(clamp_frequency=clamp),
            )  # fmt: skip
        excess.append(float(stack_planes(found.model)["image"].to_numpy()[near].sum()) / truth - 1)
    assert 0.02 < excess[0] < 0.08
    assert abs(excess[1]) < 0.01


def test_parameters_that_do_not_go_together_are_refused(sky: Sky) -> None:
    with pytest.raises(ValueError, match="min_iterations must not be above"):
        IterativeParameters(max_iterations=2, min_iterations=3)
    for solver, p in (("iterative", LinearParameters()), ("linear", IterativeParameters())):
        with pytest.raises(ValueError, match=f"solver '{solver}' needs"):
            solve_dcr(sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP,
                      solver=solver, parameters=p)  # type: ignore[arg-type] # fmt: skip
    with pytest.raises(ValueError, match="solver must be"):
        solve_dcr(sky.warps, sky.table, G, sky.template, solver="newton")  # type: ignore[arg-type]
