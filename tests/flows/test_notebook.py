"""The notebook of deploy/ runs from top to bottom and shows what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import small_store

from skyloom.algorithms.simulate import flat_truth

NOTEBOOK = Path(__file__).parents[2] / "deploy" / "notebooks" / "photon_transfer.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store and the truth it was simulated from."""
    folder = tmp_path_factory.mktemp("notebook")
    store = small_store.make_store(folder)
    rows = []
    for name in store.camera.detector_names():
        truth = flat_truth(store.camera.amplifiers(name), seed=small_store.SEED)
        for amp in truth["amp"].to_numpy():
            one = truth.sel(amp=amp)
            rows.append(
                {
                    "detector": name,
                    "amp": str(amp),
                    "gain": float(one["gain"]),
                    "noise": float(one["noise"]),
                    "a_00": float(one["a"].isel(lag_y=0, lag_x=0)),
                }
            )
    (folder / "truth.json").write_text(json.dumps(rows))
    return folder


def outputs(notebook: Any, kind: str) -> list[str]:
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found += [data for name, data in output.get("data", {}).items() if name == kind]
    return found


# In a process of its own: Jupyter's client leaves sockets to the garbage collector, which may run
# in the thread of another event loop.
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=sys.argv[2])
nbformat.write(notebook, sys.argv[3])
"""


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SKYLOOM_STORE", str(folder / "store"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    executed = folder / "executed.ipynb"
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(folder), str(executed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return nbformat.read(executed, as_version=4)


def test_the_notebook_runs_from_top_to_bottom_and_shows_the_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = run(folder, monkeypatch)
    html = "".join(outputs(notebook, "text/html"))
    for name in ("R0", "R1", "gain_sigma", "MEAN_MISMATCH", "pull", "wall_seconds"):
        assert name in html
    assert len(outputs(notebook, "image/png")) == 3


def test_the_committed_notebook_is_clean_and_small() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert NOTEBOOK.stat().st_size < 20_000
