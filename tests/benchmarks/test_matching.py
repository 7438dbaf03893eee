"""Background matching: joint solutions beside Montage, where it is installed, and at full size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.matching import (
    MatchParameters,
    SplineBasis,
    TractGrid,
    match_backgrounds,
)
from skyloom.algorithms.matching.match_dense import solve_dense
from skyloom.algorithms.matching.match_equations import Levels, NormalEquations, normal_equations
from skyloom.algorithms.matching.match_inputs import functions_of_bins, match_input
from skyloom.algorithms.matching.match_iterative import IterativeSolver
from skyloom.algorithms.matching.match_priors import roughness
from skyloom.algorithms.simulate import TractParameters, simulate_tract
from tests.algorithms.matching.montage import (
    binned_scene,
    montage_is_there,
    montage_scene,
    plane_error,
    planes_of_match,
    prepare_montage,
    run_model,
)

PLAIN = MatchParameters(robust=False)


def test_a_hundred_visits_with_a_thousand_overlaps(compare, tmp_path: Path):
    scene, truth = montage_scene(np.random.default_rng(1), 120, 50, 10)
    background = binned_scene(scene)
    ours = compare(
        "joint planes of 100 visits from their bins",
        lambda: match_backgrounds(background, parameters=PLAIN),
        size="918 overlaps, 3 249 bins",
    )
    match = match_backgrounds(background, parameters=PLAIN)
    error = plane_error(planes_of_match(match, scene), truth, scene)
    print(f"ours leaves {error:.3f} of a pixel's noise")
    if not montage_is_there():
        print("Montage is not installed: nothing to compare with")
        return
    overlaps = prepare_montage(tmp_path, scene)
    for iterations in (1000, 5000, 10000):  # the last is its default
        seconds = min(run_model(tmp_path, iterations)[1] for _ in range(3))
        left = plane_error(run_model(tmp_path, iterations)[0], truth, scene)
        print(
            f"mBgModel, {overlaps} overlaps, {iterations} iterations: {1e3 * seconds:.0f} ms, "
            f"{seconds / ours:.1f} times ours (goal 10), leaves {left:.3f}"
        )


@pytest.fixture(scope="module")
def large() -> xr.Dataset:
    """Return 200 visits of a tract of 97 344 bins."""
    parameters = TractParameters(visits=200, bins=312)
    return simulate_tract(np.random.default_rng(1), parameters=parameters).background


@pytest.fixture(scope="module")
def equations() -> tuple[Levels, NormalEquations]:
    """Return levels of that size as arrays, and their normal equations."""
    rng = np.random.default_rng(2)
    levels = Levels(
        rng.normal(0, 1, (97_344, 200)),
        rng.uniform(0.5, 1.5, (97_344, 200)),
        np.column_stack([np.ones(97_344), *rng.uniform(-1, 1, (2, 97_344))]),
    )
    return levels, normal_equations(levels)


SIZE = "200 visits, 97 344 bins, planes"


def test_the_normal_equations_of_two_hundred_visits(compare, equations):
    compare("normal equations", lambda: normal_equations(equations[0]), size=SIZE, rounds=3)


def test_the_solution_of_two_hundred_visits(compare, equations):
    groups = np.zeros(200, np.int64)
    compare("solution with covariance", lambda: solve_dense(equations[1], groups), size=SIZE)


def test_splines_by_conjugate_gradients(compare):
    parameters = TractParameters(visits=200, bins=200, slope=0.0, field=5.0, field_length=40.0)
    given = match_input(simulate_tract(np.random.default_rng(1), parameters=parameters).background)
    basis = SplineBasis((20_000, 20_000))
    grid = TractGrid(basis.shape, (100, 100), basis.shape)
    levels = Levels(given.level, given.weight, functions_of_bins(basis, grid))
    solver = IterativeSolver(levels, np.zeros(200, np.int64), 1e-2 * roughness(basis))
    size = "200 visits, 40 000 bins, 8 x 8 splines"
    seconds = compare("conjugate gradients", solver.solve, size=size, rounds=1)
    found = solver.solve()
    print(
        f"{found.iterations} iterations of {1e3 * seconds / found.iterations:.0f} ms (goal 300), "
        f"off by {found.residual:.1e} standard deviations"
    )


def test_all_of_matching_two_hundred_visits(compare, large):
    compare("match_backgrounds, robust", lambda: match_backgrounds(large), size=SIZE, rounds=1)
