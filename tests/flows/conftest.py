"""Fixtures shared by the tests of the flows."""

from __future__ import annotations

import subprocess
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
def cluster_address() -> Iterator[str]:
    """Return the address of the one cluster of the session: two worker processes of one thread.

    It lives in a process of its own, as clusters do: no test can harm its event loop.
    """
    script = Path(__file__).with_name("cluster_process.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate(timeout=60)


@pytest.fixture
def client(cluster_address: str) -> Iterator[Any]:
    """Return a client of the session's cluster."""
    from distributed import Client

    # As a default it would compute what all other tests load.
    with Client(cluster_address, set_as_default=False) as found:
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
