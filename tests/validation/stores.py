"""Stores of a small simulated night, and all their numbers as bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from skyloom.flows import Flow, ingest
from skyloom.storage.store import Store, create_store, open_store

__all__ = ["FLOWS", "arrays_of", "identical", "ingested_night", "small_flow"]

FLOWS = Path(__file__).resolve().parents[1] / "flows"


def _flats() -> Any:
    """Return the module with the night of the flow tests, found as worker processes find it."""
    if str(FLOWS) not in sys.path:
        sys.path.insert(0, str(FLOWS))
    import flats

    return flats


def ingested_night(folder: Path) -> Path:
    """Simulate biases, darks and flats of two detectors as FITS files and ingest them."""
    flats = _flats()
    flats.write_night(folder / "night")
    store = create_store(folder / "raw", flats.two_detectors())
    if ingest(store, folder / "night", progress=False).exit_code:
        raise RuntimeError("the simulated night could not be ingested")
    return folder / "raw"


def small_flow(path: Path) -> Flow:
    """Return the photon transfer flow of the tests on a store."""
    flow: Flow = _flats().small_flow(str(path))
    return flow


def arrays_of(store: Store) -> dict[str, bytes]:
    """Return every number of every product as bytes."""
    return {
        f"{product}/{name}": array.to_numpy().tobytes()
        for product in store.products()
        for name, array in store[product].load().variables.items()
        if array.dtype.kind != "O"
    }


def identical(path: Path, other: Path) -> tuple[int, int]:
    """Return how many arrays of two stores are the same bit for bit, and of how many."""
    one, two = (arrays_of(open_store(each)) for each in (path, other))
    return sum(one.get(key) == two.get(key) for key in one | two), len(one | two)
