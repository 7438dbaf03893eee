"""Templates are judged by what they leave of visits, less what is noise."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.scoring import score_template

SHAPE = (120, 120)
SIGMA = 1.7
STARS = [(30.0, 31.0), (85.2, 40.7), (60.4, 90.1)]
FLUX = 40000.0


def stars(dy: float = 0.0, dx: float = 0.0) -> np.ndarray:
    y, x = np.indices(SHAPE)
    return sum(
        FLUX
        / (2 * np.pi * SIGMA**2)
        * np.exp(-((y - sy - dy) ** 2 + (x - sx - dx) ** 2) / (2 * SIGMA**2))
        for sy, sx in STARS
    )


def image(values: np.ndarray, noise: float = 0.0, **planes: np.ndarray) -> xr.Dataset:
    found = {"image": (("y", "x"), values.astype("f4"), {"units": "nJy"})}
    if noise:
        found["variance"] = (("y", "x"), np.full(SHAPE, noise**2, "f4"))
    return xr.Dataset(found | {name: (("y", "x"), plane) for name, plane in planes.items()})


def detected() -> np.ndarray:
    return np.where(stars() > 100, v.MASK_PLANES["DETECTED"], 0).astype(np.int32)


def test_a_displacement_is_found_along_the_vertical_alone() -> None:
    coadd = image(stars(), mask=detected())
    for direction, expected in (((2.0, 0.0), 0.3), ((0.0, 1.0), 0.0), ((-1.0, 0.0), 0.3)):
        score = score_template(image(stars(0.3)), image(stars(0.03)), coadd, direction=direction)
        assert float(score.dipole.sel(of="coadd")) == pytest.approx(expected, abs=0.01)
        assert float(score.dipole.sel(of="template")) == pytest.approx(0.9 * expected, abs=0.01)
        assert float(score.ratio) == pytest.approx(0.9, abs=0.02)
        assert int(score.objects) == 3
    assert score.residual.attrs["units"] == "nJy"


def test_noise_and_levels_of_the_sky_do_not_count() -> None:
    rng = np.random.default_rng(3)
    visit = stars(0.3) + 50.0 + 5.0 * rng.standard_normal(SHAPE)
    template = stars(0.3) + 2.0 * rng.standard_normal(SHAPE)
    coadd = stars() + 2.0 * rng.standard_normal(SHAPE)
    score = score_template(
        image(visit, 5.0), image(template, 2.0), image(coadd, 2.0, mask=detected()),
        direction=(1.0, 0.0),
    )  # fmt: skip
    clean = score_template(
        image(stars(0.3)), image(stars(0.3)), image(stars(), mask=detected()), direction=(1.0, 0.0)
    )
    assert float(score.residual[1]) == pytest.approx(float(clean.residual[1]), rel=0.1)
    assert float(score.residual[0]) < 0.1 * float(score.residual[1])
    assert int(score.detections[0]) == 0
    assert int(score.detections[1]) >= 6


def test_pixels_without_data_are_left_out() -> None:
    bad = np.zeros(SHAPE, np.int32)
    bad[25:36, 25:36] = v.MASK_PLANES["SAT"]
    visit = stars(0.1)
    visit[25:36, 25:36] = 1e6
    visit[80:90, 30:35] = np.nan
    coadd = image(stars(), mask=detected())
    score = score_template(image(visit, mask=bad), image(stars(0.1)), coadd, direction=(1.0, 0.0))
    assert float(score.residual[0]) < 1e-3
    whole = score_template(image(stars(0.1)), image(stars(0.1)), coadd, direction=(1.0, 0.0))
    assert int(score.pixels) < int(whole.pixels)


def test_pixels_that_lack_light_in_a_template_are_left_out() -> None:
    edge = np.zeros(SHAPE, np.int32)
    edge[:, :35] = v.MASK_PLANES["EDGE"]
    lacking = stars(0.1)
    lacking[:, :35] *= 0.5
    visit, coadd = image(stars(0.1)), image(stars(), mask=detected())
    told = score_template(visit, image(lacking, mask=edge), coadd, direction=(1.0, 0.0))
    untold = score_template(visit, image(lacking), coadd, direction=(1.0, 0.0))
    assert float(told.residual[0]) < 1e-3 < 10.0 < float(untold.residual[0])
    assert int(told.pixels) < int(untold.pixels)
    other = image(lacking, mask=edge)
    other[v.MASK].attrs.update(flag_masks=[16], flag_meanings="HOT")
    assert score_template(visit, other, coadd, direction=(1.0, 0.0)).equals(untold)


def test_without_objects_there_is_nothing_to_judge_and_inputs_stay() -> None:
    empty = image(stars(), mask=np.zeros(SHAPE, np.int32))
    visit, template = image(stars(0.2)), image(stars(0.1))
    before = [each.copy(deep=True) for each in (visit, template, empty)]
    score = score_template(visit, template, empty, direction=(1.0, 0.0))
    assert np.isnan(score.residual).all()
    assert np.isnan(score.ratio)
    assert int(score.objects) == 0
    for given, copy in zip((visit, template, empty), before, strict=True):
        xr.testing.assert_identical(given, copy)
