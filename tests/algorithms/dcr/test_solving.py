"""Skies solved for in sub-bands, against truth; and what cannot be solved."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    DcrSolution,
    LinearParameters,
    predict_template,
    shift_image,
    solve_dcr,
    stack_planes,
)
from skyloom.algorithms.dcr.operator import fourier_operator
from skyloom.algorithms.errors import (
    DegenerateGeometryWarning,
    ExtrapolatedTemplateWarning,
    GeometryError,
    NoSourcesWarning,
    NoValidPixelsWarning,
    VisitOutlierWarning,
)
from tests.algorithms.dcr.analytic import (
    CENTRES,
    HELD_OUT,
    NORTH_UP,
    G,
    Scene,
    conditions,
    dozen,
    observed,
    scene,
)

FWHM, NOISE = 4.0, 5.0


def solve(
    warps: xr.Dataset, table: xr.Dataset, template: xr.Dataset, **options: Any
) -> DcrSolution:
    parameters = LinearParameters(**options)
    return solve_dcr(warps, table, G, template, jacobian=NORTH_UP, parameters=parameters)


class Sky:
    """A sky seen in twelve visits, its solution and its truth."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.scene: Scene = scene(rng)
        self.table = dozen(rng)
        self.truth = self.scene.render(self.table, FWHM)
        self.warps, self.template = observed(self.truth, FWHM, NOISE, rng)
        self.solution = solve(self.warps, self.table, self.template)
        self.near = self.scene.near(8.0)

    def residual_ratios(self, model: xr.Dataset) -> list[float]:
        """Return what is left of stars in held-out visits, relative to the plain coadd."""
        held_out = self.scene.render(HELD_OUT, FWHM)
        ratios = []
        for visit in range(4):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExtrapolatedTemplateWarning)
                template = predict_template(model, HELD_OUT.isel(visit=[visit]))
            left = (held_out[visit] - template["image"].to_numpy())[self.near]
            plain = (held_out[visit] - self.template["image"].to_numpy())[self.near]
            ratios.append(float(np.sqrt((left**2).mean() / (plain**2).mean())))
        return ratios

    def moments(self, model: xr.Dataset) -> tuple[float, float]:
        """Return slope and scatter of recovered first moments of bright stars over true ones."""
        y, x = np.mgrid[: self.scene.size, : self.scene.size]
        found, true = [], []
        apart = np.hypot(
            self.scene.y[:, None] - self.scene.y, self.scene.x[:, None] - self.scene.x
        ) + 99.0 * np.eye(len(self.scene.y))
        for star in np.flatnonzero((self.scene.flux > 2e4) & (apart.min(axis=1) > 12)):
            square = (y - self.scene.y[star]) ** 2 + (x - self.scene.x[star]) ** 2
            within = square < 8.0**2
            flux = model["model"].to_numpy()[:, within].sum(axis=1)
            found.append(float(CENTRES @ flux / flux.sum()))
            true.append(self.scene.moment[star])
        slope, offset = np.polyfit(true, found, 1)
        return float(slope), float(np.std(found - np.polyval([slope, offset], true)))


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky()


def test_planes_describe_every_visit_and_predict_others(sky: Sky) -> None:
    found = sky.solution.diagnostics
    assert 0.75 < float(found["chi2_total"]) < 1.05
    assert found["iterations"].item() <= 12
    assert found["status"].item() == v.DcrStatus.CONVERGED
    assert max(sky.residual_ratios(sky.solution.model)) < 0.05


def test_the_sum_of_planes_keeps_the_flux_of_stars(sky: Sky) -> None:
    whole = stack_planes(sky.solution.model)
    near = sky.scene.near(12.0)
    assert float(whole["image"].to_numpy()[near].sum()) == pytest.approx(
        sky.truth[0][near].sum(), rel=2e-3
    )


def test_inputs_stay_as_they_are_and_lazy_ones_give_the_same(sky: Sky) -> None:
    before = sky.warps.copy(deep=True), sky.template.copy(deep=True), sky.table.copy(deep=True)
    lazy = solve(sky.warps.chunk(visit=1, y=48), sky.table, sky.template.chunk(y=48))
    xr.testing.assert_identical(lazy.model.compute(), sky.solution.model)
    for one, other in zip((sky.warps, sky.template, sky.table), before, strict=True):
        xr.testing.assert_identical(one, other)


def test_bad_pixels_and_a_missing_half_visit_do_no_harm(sky: Sky) -> None:
    rng = np.random.default_rng(9)
    warps = sky.warps.copy(deep=True)
    image, variance = warps["image"].to_numpy(), warps["variance"].to_numpy()
    bad = rng.random(image.shape) < 0.1
    bad[:, :, 40] = True
    image[bad] = np.nan
    warps["mask"].to_numpy()[3, :48] = v.MASK_PLANES["NO_DATA"]
    image[3, :48] = 1e30
    variance[5, 10:12] = 0.0
    image[5, 10:12] = 1e6
    found = solve(warps, sky.table, sky.template)
    assert found.diagnostics["iterations"].item() <= 15
    assert 0.75 < float(found.diagnostics["chi2_total"]) < 1.05
    assert max(sky.residual_ratios(found.model)) < 0.06
    assert (found.model["n_image"].to_numpy()[:, 40] == 0).all()
    assert (found.model["mask"].to_numpy()[:, 40] & v.MASK_PLANES["NO_DATA"]).all()


def test_a_satellite_and_a_cosmic_ray_are_rejected(sky: Sky) -> None:
    warps = sky.warps.copy(deep=True)
    warps["image"].to_numpy()[4, 60:63, 30] += 100 * NOISE
    warps["image"].to_numpy()[7, 20:22] += 30 * NOISE
    found = solve(warps, sky.table, sky.template)
    assert (found.diagnostics["rejected"].to_numpy()[[4, 7]] > [2, 150]).all()
    difference = stack_planes(found.model)["image"] - stack_planes(sky.solution.model)["image"]
    noise = NOISE / np.sqrt(12)
    assert float(abs(difference[58:65, 28:33]).max()) < 3 * noise
    assert float(abs(difference[18:24]).max()) < 3 * noise


def test_a_visit_that_lies_elsewhere_is_left_out_by_name(sky: Sky) -> None:
    warps = sky.warps.copy(deep=True)
    moved = shift_image(warps["image"][6], (1.5, -1.0))
    warps["image"][6] = moved
    with pytest.warns(VisitOutlierWarning, match="visits 6 disagree"):
        found = solve(warps, sky.table, sky.template, max_offset=0.0)
    assert found.diagnostics["used"].to_numpy().tolist() == [n != 6 for n in range(12)]
    assert max(sky.residual_ratios(found.model)) < 0.06


def test_different_seeing_is_part_of_the_model(sky: Sky) -> None:
    rng = np.random.default_rng(4)
    fwhm = np.linspace(3.3, 5.0, 12)[rng.permutation(12)]
    warps, template = observed(sky.scene.render(sky.table, fwhm), fwhm, NOISE, rng)
    found = solve(warps, sky.table, template)
    assert 0.8 < float(found.diagnostics["chi2_total"]) < 1.1
    assert found.model.attrs["model_fwhm"] == 3.3
    held_out = sky.scene.render(HELD_OUT[{"visit": [2]}], 3.3)[0]
    predicted = predict_template(found.model, HELD_OUT.isel(visit=[2]))["image"].to_numpy()
    plain = (held_out - template["image"].to_numpy())[sky.near]
    assert np.sqrt(((held_out - predicted)[sky.near] ** 2).mean() / (plain**2).mean()) < 0.05


def test_identical_visits_are_warned_of_and_stay_near_the_coadd(sky: Sky) -> None:
    rng = np.random.default_rng(2)
    table = conditions(np.full(6, 40.0), 30.0)
    warps, template = observed(sky.scene.render(table, FWHM), FWHM, NOISE, rng)
    with pytest.warns(DegenerateGeometryWarning, match="a colour would be known to inf"):
        found = solve(warps, table, template)
    assert np.isfinite(found.model["model"]).all()
    slope, _ = sky.moments(found.model)
    assert abs(slope) < 0.1


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.DegenerateGeometryWarning")
def test_visits_in_the_zenith_have_equal_parts_of_the_coadd(sky: Sky) -> None:
    rng = np.random.default_rng(2)
    table = conditions(np.zeros(4), 0.0)
    warps, template = observed(sky.scene.render(table, FWHM), FWHM, NOISE, rng)
    found = solve(warps, table, template)
    assert found.diagnostics["status"].item() == v.DcrStatus.NO_LEVERAGE
    expected = np.broadcast_to(template["image"].to_numpy() / 3, (3, 96, 96))
    assert found.model["model"].to_numpy() == pytest.approx(
        expected, abs=1e-6 * float(template["image"].max())
    )


def test_nothing_detected_and_nothing_valid_are_said(sky: Sky) -> None:
    blank = sky.template.copy(deep=True)
    blank["mask"].to_numpy()[:] = 0
    with pytest.warns(NoSourcesWarning):
        found = solve(sky.warps, sky.table, blank)
    assert found.diagnostics["status"].item() == v.DcrStatus.NO_SOURCES
    assert found.model["model"].to_numpy() == pytest.approx(
        np.broadcast_to(sky.template["image"].to_numpy() / 3, (3, 96, 96)), rel=1e-4, abs=1e-2
    )
    masked = sky.warps.copy(deep=True)
    masked["mask"].to_numpy()[:] = v.MASK_PLANES["NO_DATA"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = solve(masked, sky.table, sky.template)
    assert any(issubclass(one.category, NoValidPixelsWarning) for one in caught)
    assert (found.model["n_image"] == 0).all()
    assert np.isfinite(found.model["model"]).all()
    assert (found.model["mask"].to_numpy() & v.MASK_PLANES["NO_DATA"]).all()


def test_the_operator_has_an_exact_transpose() -> None:
    rng = np.random.default_rng(6)
    for shape in ((40, 45), (45, 40), (41, 43)):
        operator = fourier_operator(shape, G, HELD_OUT, NORTH_UP)
        planes = rng.normal(size=(3, *shape)).astype(np.float32)
        image = rng.normal(size=shape).astype(np.float32)
        back = np.zeros((3, shape[0], shape[1] // 2 + 1), np.complex64)
        operator.add_transposed(1, image, back)
        there = np.vdot(operator.predict(1, operator.spectrum(planes)), image.astype(float))
        size = float(np.linalg.norm(planes) * np.linalg.norm(image))
        assert there == pytest.approx(
            np.vdot(planes, operator.planes(back).astype(float)), abs=1e-7 * size
        )


def test_a_template_far_from_the_visits_is_warned_of(sky: Sky) -> None:
    with pytest.warns(ExtrapolatedTemplateWarning, match="pixel outside"):
        predict_template(sky.solution.model, conditions([70.0], [10.0]))


def test_the_psf_of_a_template_is_displaced_and_stretched_like_stars(sky: Sky) -> None:
    found = predict_template(sky.solution.model, HELD_OUT.isel(visit=[2]))
    psf = found["psf"].to_numpy()
    half = psf.shape[0] // 2
    at = np.arange(-half, half + 1)
    centre = (psf.sum(axis=1) @ at, psf.sum(axis=0) @ at)
    flat = scene(np.random.default_rng(0), 65, 1)._replace(
        y=np.array([32.0]), x=np.array([32.0]), flux=np.ones(1),
        spectrum=np.full((1, 60), 1 / 60),
    )  # fmt: skip
    star = flat.render(HELD_OUT[{"visit": [2]}], FWHM)[0]
    expected = (star.sum(axis=1) @ np.arange(65) - 32, star.sum(axis=0) @ np.arange(65) - 32)
    assert centre == pytest.approx(expected, abs=0.02)


def test_what_does_not_fit_together_is_refused(sky: Sky) -> None:
    with pytest.raises(GeometryError, match="96 pixels along y, the template 95"):
        solve(sky.warps, sky.table, sky.template.isel(y=slice(1, None)))
    with pytest.raises(GeometryError, match="conditions lack visits 11"):
        solve(sky.warps, sky.table.isel(visit=slice(11)), sky.template)
    with pytest.raises(GeometryError, match="margin must be at least"):
        solve(sky.warps, sky.table, sky.template, margin=2)
    with pytest.raises(ValueError, match="need psf"):
        solve(sky.warps.drop_vars("psf_fwhm"), sky.table, sky.template)
    with pytest.raises(ValueError, match="warps lack variance"):
        solve(sky.warps.drop_vars("variance"), sky.table, sky.template)
    with pytest.raises(ValueError, match="not finite in pressure"):
        solve(sky.warps, sky.table.assign(pressure=sky.table["pressure"] * np.nan), sky.template)
    with pytest.raises(GeometryError, match="no wcs and no box"):
        solve_dcr(sky.warps, sky.table, G, sky.template)
    with pytest.raises(ValueError, match="the model has 2 planes"):
        predict_template(sky.solution.model.isel(subfilter=slice(2)), HELD_OUT.isel(visit=[0]))
    with pytest.raises(ValueError, match="conditions must be of one visit, got 4"):
        predict_template(sky.solution.model, HELD_OUT)


def test_one_sub_band_of_visits_of_different_seeing_converges(sky: Sky) -> None:
    rng = np.random.default_rng(4)
    fwhm = np.linspace(3.3, 5.0, 12)[rng.permutation(12)]
    warps, template = observed(sky.scene.render(sky.table, fwhm), fwhm, NOISE, rng)
    warps["mask"].to_numpy()[3, :48] = v.MASK_PLANES["NO_DATA"]
    found = solve(warps, sky.table, template, subfilters=1, reject_rounds=0,
                  outlier_factor=1e9, chi2_limit=1e9)  # fmt: skip
    assert found.diagnostics["status"].item() == v.DcrStatus.CONVERGED
    assert found.diagnostics["iterations"].item() < 15
