"""Visits or tiles of a patch: whoever works on them, in which order, the answer is the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    DcrSolution,
    IterativeParameters,
    LinearParameters,
    shift_image,
    solve_dcr,
)
from skyloom.algorithms.errors import SkyloomWarning
from tests.algorithms.dcr.analytic import NORTH_UP, G, dozen, observed, scene

SOLVERS = pytest.mark.parametrize(
    "parameters",
    [LinearParameters(), IterativeParameters(tile=40, max_iterations=1)],
    ids=["linear", "iterative"],
)


class Sky(NamedTuple):
    """Warps one of which lies elsewhere, with a cosmic ray in another."""

    table: xr.Dataset
    warps: xr.Dataset
    template: xr.Dataset

    def solve(
        self, parameters: LinearParameters | IterativeParameters, run: Any = map,
        warps: xr.Dataset | None = None,
    ) -> DcrSolution:  # fmt: skip
        """Return a solution whose visits or tiles are worked on by ``run``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkyloomWarning)
            return solve_dcr(
                self.warps if warps is None else warps, self.table, G, self.template,
                jacobian=NORTH_UP, solver=parameters.solver, parameters=parameters, run=run,
            )  # fmt: skip


@pytest.fixture(scope="module")
def sky() -> Sky:
    rng = np.random.default_rng(3)
    table = dozen(rng, 5)
    warps, template = observed(scene(rng, 64, 10).render(table, 4.0), 4.0, 5.0, rng)
    warps["image"][2] = shift_image(warps["image"][2], (0.4, 0.2))
    warps["image"][4, 40:43, 30:33] += 2000.0
    return Sky(table, warps, template)


def backwards(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Work on the last item first."""
    return [work(item) for item in reversed(list(items))][::-1]


def assert_same(one: DcrSolution, other: DcrSolution) -> None:
    xr.testing.assert_identical(one.model, other.model)
    xr.testing.assert_identical(one.diagnostics, other.diagnostics)


@SOLVERS
def test_parts_give_the_same_bits_in_any_order_from_a_pool_and_lazily(
    sky: Sky, parameters: LinearParameters | IterativeParameters
) -> None:
    found = sky.solve(parameters)
    assert found.diagnostics.sizes["tile"] == (1 if parameters.solver == "linear" else 4)
    assert_same(found, sky.solve(parameters, backwards))
    with ThreadPoolExecutor(3) as pool:
        assert_same(found, sky.solve(parameters, pool.map))
    lazy = sky.warps.chunk({v.Y: 30, v.X: 50})
    assert_same(found, sky.solve(parameters, warps=lazy))
    assert lazy["image"].chunks is not None
    if parameters.solver == "linear":
        assert float(found.diagnostics["offset_y"][2]) == pytest.approx(0.4, abs=0.02)
        assert int(found.diagnostics["rejected"][4]) > 0
