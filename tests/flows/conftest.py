"""Fixtures shared by the tests of the flows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Worker processes import the toy algorithms by name, as they would a user's own module.
sys.path.insert(0, str(Path(__file__).parent))

import toy

from skyloom.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store in a new directory."""
    return toy.toy_store(tmp_path / "store")


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Return the one client of the session: two worker processes of one thread each."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as found,
    ):
        found.run(sys.path.insert, 0, str(Path(__file__).parent))
        yield found
