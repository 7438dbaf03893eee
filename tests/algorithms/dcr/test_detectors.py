"""Turned and dithered detectors, warped and solved: any sign that is wrong anywhere shows here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from skyloom.algorithms.dcr import predict_template, solve_dcr
from skyloom.algorithms.errors import ExtrapolatedTemplateWarning
from tests.algorithms.dcr.analytic import G, coadd_of, scene
from tests.algorithms.dcr.detectors import Detectors, night, patch_plane, upwards

SIZE, NOISE = 64, 5.0


@pytest.mark.parametrize(
    ("rotator", "turn", "mirrored"), [(0.0, 0.0, False), (137.0, 0.0, True), (90.0, 30.0, False)]
)
def test_templates_do_not_depend_on_cameras_and_patches(
    rotator: float, turn: float, mirrored: bool
) -> None:
    rng = np.random.default_rng(3)
    stars = scene(np.random.default_rng(8), SIZE, 8)
    camera = Detectors(stars, patch_plane(SIZE, turn, mirrored=mirrored), rotator)
    table, held_out = night([-3.6, -2.4, -1.2, 0.5, 1.6, 2.8, 3.5]), night([-3.0, 2.2])
    warps = camera.warps(table, NOISE, rng)
    template = coadd_of(warps)
    found = solve_dcr(warps, table, G, template)
    assert 0.7 < float(found.diagnostics["chi2_total"]) < 1.1
    truth = camera.warps(held_out, 1e-3, rng)["image"].to_numpy()
    near = stars.near(8.0)
    for visit in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolatedTemplateWarning)
            image = predict_template(found.model, held_out.isel(visit=[visit]))["image"].to_numpy()
        left, plain = (truth[visit] - one for one in (image, template["image"].to_numpy()))
        assert np.sqrt((left[near] ** 2).mean() / (plain[near] ** 2).mean()) < 0.1


def test_parallactic_angles_point_where_astropy_has_the_zenith() -> None:
    table = night(np.linspace(-4.0, 4.0, 9))
    angle = np.deg2rad(table["parallactic_angle"].to_numpy())
    assert np.stack([np.sin(angle), np.cos(angle)], axis=-1) == pytest.approx(
        upwards(table), abs=2e-4
    )
