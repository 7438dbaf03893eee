"""The promises of the house itself: packaging, rooms, documentation that runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import skyloom

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("algorithms", "storage", "flows", "deploy")


def module_names() -> list[str]:
    """Return every module of the package but the one that runs the command line on import."""
    found = [
        module.name
        for module in pkgutil.walk_packages(skyloom.__path__, "skyloom.")
        if not module.name.endswith("__main__")
    ]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings_run_and_print_what_they_say(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


@pytest.mark.parametrize("name", module_names())
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert (importlib.import_module(name).__doc__ or "").strip()


def test_rooms_are_never_imported_as_top_level_packages() -> None:
    code = (
        "import pkgutil, importlib, skyloom, sys\n"
        "for module in pkgutil.walk_packages(skyloom.__path__, 'skyloom.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        f"print([room for room in {ROOMS!r} if room in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout.strip() == "[]"


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from skyloom.flows import command_line\n"
        "heavy = {'numba', 'scipy', 'matplotlib', 'distributed', 'xarray', 'astropy', 'zarr'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_built_from_the_source_archive_holds_every_module(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), "--no-isolation", str(ROOT)],
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(archive) as opened:
        assert any(name.endswith("storage/store.py") for name in opened.getnames())
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
    expected = {
        f"skyloom/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in {".py", ".yaml", ".html", ".css"} and "__pycache__" not in path.parts
    }
    assert expected
    assert expected <= held
    assert "skyloom/py.typed" in held
