"""Templates of skies that differ, against what they were made of and singular values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.linalg import subspace_angles

from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.sky import TemplateParameters, sky_templates, template_frame

SHAPE = (8, 10)
DETECTORS = ("S1", "S2", "S3")


def parts_of(levels: np.ndarray, sigma: float) -> dict[int, dict[Any, xr.Dataset]]:
    """Return exposures of three detectors from a matrix (exposure, bin)."""
    cubes = levels.reshape(len(levels), 3, *SHAPE)
    return {
        100 + k: {
            name: xr.Dataset(
                {
                    "level": (("bin_y", "bin_x"), cube[d].astype("f4")),
                    "variance": (("bin_y", "bin_x"), np.full(SHAPE, sigma**2, "f4")),
                }
            )
            for d, name in enumerate(DETECTORS)
        }
        for k, cube in enumerate(cubes)
    }


def skies(rng: np.random.Generator, exposures: int = 20, rank: int = 3) -> np.ndarray:
    """Return levels of some rank, a per cent large."""
    patterns = 0.01 * rng.normal(size=(rank, 240))
    amplitudes = np.column_stack(
        [np.ones(exposures), *(rng.normal(0, 0.5, exposures) for _ in range(rank - 1))]
    )
    return np.asarray(amplitudes @ patterns)


def matrix_of(frames: dict[Any, xr.Dataset]) -> np.ndarray:
    """Return templates over the bins of all detectors, (template, bin)."""
    return np.concatenate(
        [frames[name]["level"].values.reshape(frames[name].sizes["template"], -1)
         for name in DETECTORS], axis=1,
    )  # fmt: skip


def test_templates_span_what_singular_vectors_do() -> None:
    levels = skies(np.random.default_rng(1))
    found = sky_templates(parts_of(levels, 1e-4), parameters=TemplateParameters(count=3))
    _, _, rows = np.linalg.svd(levels, full_matrices=False)
    angles = subspace_angles(matrix_of(found.frames).astype(float).T, rows[:3].T)
    assert angles.max() < 1e-3
    assert float(found.amplitudes["chi2"].max()) < 1e-3


def test_the_first_template_is_the_mean_and_the_others_are_orthogonal() -> None:
    levels = skies(np.random.default_rng(2))
    found = sky_templates(parts_of(levels, 1e-4), parameters=TemplateParameters(count=3))
    templates = matrix_of(found.frames).astype(float)
    assert templates[0] == pytest.approx(levels.mean(axis=0), abs=1e-6)
    gram = templates @ templates.T
    assert abs(gram - np.diag(np.diag(gram))).max() < 1e-5 * gram.max()
    assert found.amplitudes["amplitude"].mean("exposure").values == pytest.approx(
        [1.0, 0.0, 0.0], abs=1e-5
    )
    spread = found.amplitudes["amplitude"].std("exposure").values
    assert spread[1] > spread[2]


def test_cross_validation_finds_how_many_there_are() -> None:
    rng = np.random.default_rng(3)
    for rank in (1, 2, 3):
        levels = skies(rng, rank=rank) + rng.normal(0, 1e-3, (20, 240))
        found = sky_templates(parts_of(levels, 1e-3))
        assert found.frames["S1"].sizes["template"] == rank


def test_amplitudes_have_the_errors_that_are_stated() -> None:
    rng = np.random.default_rng(4)
    levels = skies(rng, rank=2)
    noisy = levels + rng.normal(0, 1e-3, levels.shape)
    truth = sky_templates(parts_of(levels, 1e-3), parameters=TemplateParameters(count=2))
    found = sky_templates(parts_of(noisy, 1e-3), parameters=TemplateParameters(count=2))
    difference = found.amplitudes["amplitude"] - truth.amplitudes["amplitude"]
    pulls = difference / found.amplitudes["amplitude_sigma"]
    # Scale and mixing of templates follow the noise too: those are common to all exposures.
    pulls = pulls - pulls.mean("exposure")
    assert 0.5 < float(pulls.std()) < 1.5
    assert float(found.amplitudes["chi2"].mean()) == pytest.approx(0.9, abs=0.1)


def test_missing_detectors_and_outliers_do_no_harm() -> None:
    rng = np.random.default_rng(5)
    levels = skies(rng, rank=2)
    noisy = levels + rng.normal(0, 1e-3, levels.shape)
    parts = parts_of(noisy, 1e-3)
    del parts[103]["S2"]
    parts[105]["S1"]["level"][2, 3] = 5.0
    parts[106]["S3"]["level"][:] = np.nan
    parts[107]["S3"]["variance"][0] = 0.0
    before = {k: {n: d.copy(deep=True) for n, d in each.items()} for k, each in parts.items()}
    found = sky_templates(parts, parameters=TemplateParameters(count=2))
    whole = sky_templates(parts_of(noisy, 1e-3), parameters=TemplateParameters(count=2))
    sums = [one.amplitudes["amplitude"].values @ matrix_of(one.frames) for one in (found, whole)]
    difference = (sums[0] - sums[1])[[0, 1, 2, 4, 8, 9, 10]]
    assert np.sqrt(np.mean(difference**2)) < 2e-4
    assert np.isfinite(found.amplitudes["amplitude"]).all()
    for k, each in parts.items():
        for name, one in each.items():
            xr.testing.assert_identical(one, before[k][name])


def test_a_bin_that_no_exposure_has_is_missing_in_templates() -> None:
    parts = parts_of(skies(np.random.default_rng(6), rank=2), 1e-3)
    for each in parts.values():
        each["S1"]["level"][0, 0] = np.nan
    found = sky_templates(parts, parameters=TemplateParameters(count=2))
    assert np.isnan(found.frames["S1"]["level"][:, 0, 0]).all()
    assert np.isfinite(found.frames["S1"]["level"][:, 1:]).all()


def test_templates_add_up_to_the_frame_of_an_exposure() -> None:
    levels = skies(np.random.default_rng(7))
    parts = parts_of(levels, 1e-4)
    found = sky_templates(parts, parameters=TemplateParameters(count=3))
    frame = template_frame(found.frames["S2"], found.amplitudes["amplitude"].values[4])
    assert frame["level"].values == pytest.approx(parts[104]["S2"]["level"].values, abs=1e-6)
    with pytest.raises(ValueError, match="there must be 3 amplitudes, got 1"):
        template_frame(found.frames["S2"], [1.0])


def test_what_cannot_be_factorised_is_refused() -> None:
    parts = parts_of(skies(np.random.default_rng(8), exposures=2), 1e-3)
    with pytest.raises(NoUsableDataError, match="3 templates need at least as many exposures"):
        sky_templates(parts, parameters=TemplateParameters(count=3))
    parts[101]["S1"] = parts[101]["S1"].isel(bin_y=slice(7))
    with pytest.raises(GeometryError, match="exposure 101 has 7 x 10 bins of detector S1"):
        sky_templates(parts)
    with pytest.raises(NoUsableDataError, match="no exposures"):
        sky_templates({})
    with pytest.raises(NoUsableDataError, match="no bin"):
        sky_templates(parts_of(np.full((3, 240), np.nan), 1e-3))
