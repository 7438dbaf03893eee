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
        # As a default it would compute what all other tests load.
        Client(cluster, set_as_default=False) as found,
    ):
        found.run(sys.path.insert, 0, str(Path(__file__).parent))
        yield found


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of FITS files: 4 biases, 2 darks, 12 pairs of flats, two detectors."""
    import flats

    folder: Path = tmp_path_factory.mktemp("night")
    flats.write_night(folder)
    return folder


@pytest.fixture(scope="session")
def ingested(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the night ingested; copy it to change it."""
    import flats

    from skyloom.flows.ingest_flow import ingest
    from skyloom.storage.store import create_store

    path: Path = tmp_path_factory.mktemp("ingested") / "store"
    assert ingest(create_store(path, flats.two_detectors()), night, progress=False).exit_code == 0
    return path


@pytest.fixture
def raw_store(ingested: Path, tmp_path: Path) -> Store:
    """Return a copy of the store with the night ingested."""
    import shutil

    from skyloom.storage.store import open_store

    shutil.copytree(ingested, tmp_path / "raw")
    return open_store(tmp_path / "raw")


@pytest.fixture(scope="session")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a simulated night of the sky and where it is ingested; copy the store to change it."""
    import sky_night

    night = sky_night.sky_night()
    return night, sky_night.make_store(tmp_path_factory.mktemp("sky"), night)


@pytest.fixture
def sky_store(sky: Any, tmp_path: Path) -> Store:
    """Return a copy of the store with the night of the sky."""
    import shutil

    from skyloom.storage.store import open_store

    shutil.copytree(sky[1], tmp_path / "sky")
    return open_store(tmp_path / "sky")
