"""A toy flow for the tests of the engine: levels per exposure, differences per pair, one sum.

``level`` (exposure, detector) reads nothing but a constant; ``difference`` (pair, detector)
looks up two levels; ``total`` (detector) reduces the differences. Algorithms are importable, so
that processes can run them; what they do on purpose is told by the parameters.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from skyloom.algorithms.parameters import Parameters
from skyloom.flows.flow import Flow
from skyloom.flows.step import Constant, Lookup, Reduction, Step
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.store import Store, create_store

WIDTH = 50


class LevelParameters(Parameters):
    """What the level step does."""

    scale: float = 1.0
    bad: tuple[str, ...] = ()
    sleep: float = 0.0
    warn: bool = False
    interrupt: bool = False
    kill: tuple[str, ...] = ()
    calls: str = ""


class TotalParameters(Parameters):
    """What the total step does."""

    offset: float = 0.0


def seed(store: Store, block: Mapping[str, Any]) -> xr.Dataset:
    """Return the constant of a detector."""
    number = sum(map(ord, str(block["detector"])))
    return xr.Dataset({"seed": ((), number, {"units": ""})})


def level(inputs: Mapping[str, xr.Dataset], parameters: LevelParameters) -> xr.Dataset:
    """Return random numbers that depend on the constant, or misbehave."""
    number = int(inputs["seed"].seed)
    generator = np.random.default_rng(number)
    if parameters.calls:
        with Path(parameters.calls).open("a") as calls:
            calls.write("x\n")
    if parameters.sleep:
        time.sleep(parameters.sleep)
    if parameters.warn:
        warnings.warn("the overscan is noisy", stacklevel=1)
    if parameters.interrupt:
        raise KeyboardInterrupt
    name = chr(number) if number < 128 else ""
    if name in parameters.bad:
        raise ValueError(f"detector {name} is broken")
    if name in parameters.kill:
        os.kill(os.getpid(), signal.SIGKILL)
    values = parameters.scale * generator.normal(size=WIDTH)
    return xr.Dataset({"level": ("x", values, {"units": "adu"})})


def difference(inputs: Mapping[str, xr.Dataset], parameters: Parameters) -> xr.Dataset:
    """Return the difference of two levels."""
    values = inputs["first"].level.values - 2 * inputs["second"].level.values
    return xr.Dataset({"difference": ("x", values, {"units": "adu"})})


def total(inputs: Mapping[str, xr.Dataset], parameters: TotalParameters) -> xr.Dataset:
    """Return the sum over pairs and how many there were; nothing is no error."""
    pairs = inputs.get("differences")
    count = 0 if pairs is None else pairs.sizes["pair"]
    values = np.zeros(WIDTH) if pairs is None else pairs.difference.sum("pair").values
    return xr.Dataset(
        {
            "total": ("x", values + parameters.offset, {"units": "adu"}),
            "count": ((), count, {"units": ""}),
        }
    )


def total_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how many pairs a total has."""
    return {"pairs": int(block["count"])}


def thread_counts(inputs: Mapping[str, xr.Dataset], parameters: Parameters) -> xr.Dataset:
    """Return the most threads that BLAS would use, and numba's."""
    import numba
    import scipy.linalg  # noqa: F401  # loads a BLAS of its own
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    blas = max(pool["num_threads"] for pool in threadpool_info())
    counts = [float(blas), float(os.environ.get("NUMBA_NUM_THREADS", numba.get_num_threads()))]
    return xr.Dataset({"threads": ("x", counts, {"units": "adu"})})


def product(name: str, block: tuple[str, ...], *extra: Variable) -> ProductSchema:
    """Return the schema of one toy product."""
    variable = Variable(name, (*block, "x"), unit="adu")
    return ProductSchema(name, (*block, "x"), block, (variable, *extra))


def toy_steps(
    *,
    detectors: str = "abc",
    exposures: int = 4,
    level_parameters: LevelParameters | None = None,
    offset: float = 0.0,
    minimum: int = 1,
    revision: int = 1,
) -> tuple[Step, ...]:
    """Return the three steps."""
    names = tuple(range(exposures))
    table = {f"{i}-{i + 1}": (i, i + 1) for i in range(0, exposures - 1, 2)}
    sizes = {"x": WIDTH}
    count = Variable("count", ("detector",), "int64", fill=0)
    return (
        Step(
            level,
            level_parameters or LevelParameters(),
            product("level", ("exposure", "detector")),
            {"exposure": names, "detector": tuple(detectors)},
            (Constant("seed", seed, ("detector",)),),
            sizes=sizes,
        ),
        Step(
            difference,
            Parameters(),
            product("difference", ("pair", "detector")),
            {"pair": tuple(table), "detector": tuple(detectors)},
            (
                Lookup("first", "level", "pair", "exposure", {p: ab[0] for p, ab in table.items()}),
                Lookup(
                    "second", "level", "pair", "exposure", {p: ab[1] for p, ab in table.items()}
                ),
            ),
            sizes=sizes,
            revision=revision,
        ),
        Step(
            total,
            TotalParameters(offset=offset),
            product("total", ("detector",), count),
            {"detector": tuple(detectors)},
            (Reduction("differences", "difference", "pair", minimum),),
            sizes=sizes,
            quality=total_quality,
        ),
    )


def toy_flow(store: Store, **options: Any) -> Flow:
    """Return the toy flow on a store."""
    return Flow("toy", store, toy_steps(**options))


def toy_store(path: Path) -> Store:
    """Return an empty store."""
    return create_store(path, "generic")


def contents(store: Store) -> dict[str, xr.Dataset]:
    """Return every product in memory."""
    return {name: store[name].load() for name in store.products()}


def assert_same(one: Mapping[str, xr.Dataset], other: Mapping[str, xr.Dataset]) -> None:
    """Assert that two stores hold the same numbers, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        xr.testing.assert_identical(one[name], other[name])
        for variable in one[name].variables:
            mine, theirs = one[name][variable].values, other[name][variable].values
            if mine.dtype.kind == "f":
                assert mine.tobytes() == theirs.tobytes()
