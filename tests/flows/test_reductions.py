"""Reductions over a part of the labels, of stored products, and of blocks read piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.parameters import Parameters
from skyloom.flows.flow import Flow
from skyloom.flows.step import Constant, Reduction, Step
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.store import Store, create_store

FILTERS: dict[Any, tuple[Any, ...]] = {"g": (1, 2, 6), "r": (3, 5), "z": (9,)}
FRAME = ProductSchema(
    "frame",
    ("exposure", "detector", "y"),
    ("exposure", "detector"),
    (Variable("image", ("exposure", "detector", "y"), unit="adu"),),
    tile={"y": 4},
)
MEAN = ProductSchema(
    "mean",
    ("physical_filter", "detector", "y"),
    ("physical_filter", "detector"),
    (Variable("image", ("physical_filter", "detector", "y"), unit="adu"),),
)


class Shift(Parameters):
    """What is added to every frame, and the exposures that fail."""

    shift: float = 0.0
    bad: tuple[int, ...] = ()


def number(store: Store, block: Mapping[str, Any]) -> xr.Dataset:
    return xr.Dataset({"number": ((), int(block["exposure"]), {"units": ""})})


def frame(inputs: Mapping[str, xr.Dataset], parameters: Shift) -> xr.Dataset:
    exposure = int(inputs["number"].number)
    if exposure in parameters.bad:
        raise ValueError("the shutter was closed")
    return xr.Dataset({"image": ("y", np.arange(10.0) + exposure, {"units": "adu"})})


def mean(inputs: Mapping[str, xr.Dataset], parameters: Parameters) -> xr.Dataset:
    frames = inputs["frames"]["image"]
    assert not isinstance(frames.variable._data, np.ndarray)
    rows = [frames.isel(y=slice(i, i + 3)).values.mean(axis=0) for i in range(0, 10, 3)]
    return xr.Dataset({"image": ("y", np.concatenate(rows), {"units": "adu"})})


def flow_of(store: Store, parameters: Shift | None = None, exposures=(1, 2, 3, 5, 6)) -> Flow:
    step = Step(
        frame,
        parameters or Shift(),
        FRAME,
        {"exposure": exposures, "detector": ("a",)},
        (Constant("number", number, ("exposure",)),),
        sizes={"y": 10},
    )
    reduced = Step(
        mean,
        Parameters(),
        MEAN,
        {"physical_filter": tuple(FILTERS), "detector": ("a",)},
        (
            Reduction(
                "frames", "frame", "exposure", 2, among=("physical_filter", FILTERS), lazy=True
            ),
        ),
        sizes={"y": 10},
    )
    return Flow("toy", store, (step, reduced))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store", "generic")


def test_a_block_takes_the_labels_of_its_own_and_reads_them_lazily(store: Store) -> None:
    summary = flow_of(store).run(progress=False)
    assert summary.exit_code == 1  # through z there is no exposure
    found = store["mean"]["image"].isel(detector=0)
    np.testing.assert_array_equal(found.sel(physical_filter="g"), np.arange(10.0) + 3)
    np.testing.assert_array_equal(found.sel(physical_filter="r"), np.arange(10.0) + 4)
    record = store.read_record("mean", {"physical_filter": "z", "detector": "a"})
    assert record is not None
    assert "needs at least 2 blocks of frame along exposure, has 0 of 0" in record.reason


def test_a_lost_member_costs_only_its_own_group(store: Store) -> None:
    flow_of(store, Shift(bad=(3,))).run(progress=False)
    done = store.done("mean")
    assert done[:, 0].tolist() == [True, False, False]
    record = store.read_record("mean", {"physical_filter": "r", "detector": "a"})
    assert record is not None
    assert record.reason.endswith("has 1 of 2; not there: 3")


def test_a_new_member_redoes_its_own_group_only(store: Store) -> None:
    flow_of(store, exposures=(1, 2, 3, 5)).run(progress=False)
    plan = flow_of(store).plan()
    states = {labels[0]: block.state for labels, block in plan.steps[1].blocks.items()}
    assert states == {"g": "todo", "r": "done", "z": "blocked"}


TOUCHED: dict[Any, tuple[Any, ...]] = {(1, "p"): ("a", "b"), (2, "p"): ("b",), (2, "q"): ("a",)}
PATCHED = ProductSchema(
    "patched",
    ("visit", "patch", "y"),
    ("visit", "patch"),
    (Variable("image", ("visit", "patch", "y"), unit="adu"),),
)


def patched(inputs: Mapping[str, xr.Dataset], parameters: Parameters) -> xr.Dataset:
    return inputs["frames"][["image"]].mean("detector", keep_attrs=True)


def patches_of(store: Store) -> Flow:
    step = Step(
        patched,
        Parameters(),
        PATCHED,
        {"visit": (1, 2), "patch": ("p", "q")},
        (
            Reduction(
                "frames",
                "frame",
                "detector",
                among=(("visit", "patch"), TOUCHED),
                at=("visit", "exposure", {1: 1, 2: 2}),
            ),
        ),
        sizes={"y": 10},
        only=frozenset(TOUCHED),
    )
    return Flow("patches", store, (step,))


def frames_of(store: Store, parameters: Shift | None = None) -> Flow:
    step = Step(
        frame,
        parameters or Shift(),
        FRAME,
        {"exposure": (1, 2), "detector": ("a", "b")},
        (Constant("number", number, ("exposure",)),),
        sizes={"y": 10},
    )
    return Flow("frames", store, (step,))


def test_a_stored_product_is_reduced_over_what_each_pair_of_labels_needs(store: Store) -> None:
    frames_of(store).run(progress=False)
    flow = patches_of(store)
    assert flow.plan().todo == 3
    assert flow.steps[0].size == 3
    assert flow.run(progress=False).exit_code == 0
    assert patches_of(store).plan().todo == 0
    found = store["patched"]["image"]
    np.testing.assert_array_equal(found.sel(visit=2, patch="p"), np.arange(10.0) + 2)
    assert np.isnan(found.sel(visit=1, patch="q")).all()
    assert store.read_record("patched", {"visit": 1, "patch": "q"}) is None
    record = store.read_record("patched", {"visit": 1, "patch": "p"})
    assert record is not None
    assert record.inputs["frames"]["block"] == {"exposure": 1, "detector": "2 blocks"}


def test_new_frames_redo_the_patches_that_they_touch(store: Store) -> None:
    frames_of(store).run(progress=False)
    patches_of(store).run(progress=False)
    frames_of(store, Shift(shift=1.0, bad=(2,))).run(progress=False)
    blocks = patches_of(store).plan().steps[0].blocks
    assert {labels: block.state for labels, block in blocks.items()} == {
        (1, "p"): "todo",
        (2, "p"): "blocked",
        (2, "q"): "blocked",
    }
    assert "has 0 of 1; not there: a" in blocks[2, "q"].why
